#!/usr/bin/env bash
# garage.sh: makes sure the Garage S3 server is in cargo's bin directory and prints its path. The first
# build takes 7 to 10 minutes on two cores.
set -euo pipefail

version=2.5.0

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${CARGO_INSTALL_ROOT:-${CARGO_HOME:-$HOME/.cargo}}
garage=$root/bin/garage

if [[ "$("$garage" --version 2>/dev/null || true)" != *"$version"* ]]; then
    command -v cargo >/dev/null || { echo "garage.sh: no cargo here: install Rust first" >&2; exit 1; }
    # The bundled C libraries are built with these; nothing else is needed.
    command -v cc >/dev/null && command -v make >/dev/null || "$here/apt.sh" gcc libc6-dev make
    echo "building garage $version (takes minutes, once)" >&2
    # Built outside the repository: its toolchain and cargo settings are not meant for Garage.
    (cd / && cargo install garage --version "$version" --locked --force --root "$root" \
        --no-default-features --features bundled-libs,lmdb,sqlite --config profile.release.opt-level=1 --quiet) >&2 \
        || { echo "garage.sh: garage $version could not be built" >&2; exit 1; }
fi
echo "$garage"
