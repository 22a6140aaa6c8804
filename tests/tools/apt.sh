#!/usr/bin/env bash
# apt.sh [--no-services] NAME...: installs those Debian packages that are not installed yet. Silent when there is
# nothing to do. With --no-services, packages that bring a daemon do not start it.
set -euo pipefail

fail() { echo "apt.sh: $*" >&2; exit 1; }

services=true
[ "${1-}" != --no-services ] || { services=false; shift; }
[ $# -gt 0 ] || fail "which packages? usage: apt.sh [--no-services] NAME..."
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
made_policy=false
policy=/usr/sbin/policy-rc.d
end() {
    rm -f "$log"
    ! $made_policy || "${as_root[@]}" rm -f "$policy"
}
trap end EXIT
trap 'exit 130' INT TERM

# Debian asks this program before it starts a service; it is there only for as long as this script runs.
if ! $services && [ ! -e "$policy" ]; then
    made_policy=true
    printf '#!/bin/sh\n# made by apt.sh of s3dedup, which removes it\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
fi

apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >>"$log" 2>&1; }
# A stale package list is only a reason to fail when the installation fails.
apt update || true
apt install --yes --no-install-recommends "${missing[@]}" || { cat "$log" >&2; fail "could not install ${missing[*]}"; }
