#!/usr/bin/env bash
# venv.sh [--server | --lint]: makes sure target/tools/venv holds the real Filetracker client (with --server: the old
# server, too; with --lint: what `make lint` needs, in a place of its own) in pinned versions, and prints its path.
set -euo pipefail

fail() { echo "venv.sh: $*" >&2; exit 1; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=$(cd "$here/../.." && pwd)/target/tools
venv=$tools/venv

case "${1-}" in
    "") parts=(client) ;;
    --server) parts=(client server) ;;
    --lint) parts=(lint) venv=$tools/lint ;;
    *) fail "unknown argument '$1'; usage: venv.sh [--server | --lint]" ;;
esac

mkdir -p "$tools"
exec 9>"$tools/venv.lock"
flock 9

if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || "$here/apt.sh" python3 python3-venv
    echo "creating $venv" >&2
    rm -rf "$venv"
    python3 -m venv "$venv" || fail "python3 -m venv failed"
fi

for part in "${parts[@]}"; do
    # A copy of the list marks the part as installed; a changed list installs it anew.
    cmp --silent "$here/$part.txt" "$venv/$part.txt" && continue
    if [ "$part" = server ]; then
        headers='import os, sysconfig; print(os.path.join(sysconfig.get_path("include"), "Python.h"))'
        [ -e "$("$venv/bin/python" -c "$headers")" ] || "$here/apt.sh" python3-dev
        "$here/apt.sh" gcc libc6-dev libdb-dev
    fi
    echo "installing $part.txt into $venv" >&2
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$here/$part.txt" >&2 \
        || fail "pip could not install $part.txt"
    if [ "$part" = server ]; then
        # Of version 1 the sources are enough: it is written for Python 2, and filetracker1.py runs its server.
        first=$(sed -n 's/^# version 1: //p' "$here/server.txt")
        "$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: --dest "$tools" "$first" >&2 \
            || fail "pip could not download $first"
        rm -rf "$venv/${first/==/-}"
        tar --extract --gzip --file "$tools/${first/==/-}.tar.gz" --directory "$venv"
        rm "$tools/${first/==/-}.tar.gz"
    fi
    cp "$here/$part.txt" "$venv/$part.txt"
done
echo "$venv"
