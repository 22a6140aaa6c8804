#!/usr/bin/env bash
# apt.sh NAME...: installs those Debian packages that are not installed yet. Silent when there is nothing to do.
set -euo pipefail

fail() { echo "apt.sh: $*" >&2; exit 1; }

[ $# -gt 0 ] || fail "which packages? usage: apt.sh NAME..."
command -v apt-get >/dev/null || fail "no apt-get here: install what corresponds to '$*' by hand"

missing=()
for name in "$@"; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$name" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$name")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "not root and no sudo: run 'apt-get install ${missing[*]}' as root"
    as_root=(sudo)
fi

echo "installing Debian packages: ${missing[*]}" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >>"$log" 2>&1; }
# A stale package list is only a reason to fail when the installation fails.
apt update || true
apt install --yes --no-install-recommends "${missing[@]}" || { cat "$log" >&2; fail "could not install ${missing[*]}"; }
