#!/usr/bin/env bash
# cargo_deb.sh: makes sure cargo-deb is in cargo's bin directory and prints its path. The first build takes minutes.
set -euo pipefail

version=3.8.0

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${CARGO_INSTALL_ROOT:-${CARGO_HOME:-$HOME/.cargo}}
tool=$root/bin/cargo-deb

command -v dpkg-deb >/dev/null || "$here/apt.sh" dpkg
if [[ "$("$tool" --version 2>/dev/null || true)" != *"$version"* ]]; then
    command -v cargo >/dev/null || { echo "cargo_deb.sh: no cargo here: install Rust first" >&2; exit 1; }
    echo "building cargo-deb $version (takes minutes, once)" >&2
    (cd / && cargo install cargo-deb --version "$version" --locked --force --root "$root" \
        --config profile.release.opt-level=1 --config profile.release.lto=false --quiet) >&2 \
        || { echo "cargo_deb.sh: cargo-deb $version could not be built" >&2; exit 1; }
fi
echo "$tool"
