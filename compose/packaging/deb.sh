#!/usr/bin/env bash
# deb.sh: makes the Debian package of the program in target/release, in target/debian. The program itself makes its
# manual pages and completions.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target=${CARGO_TARGET_DIR:-target}
program=$target/release/s3dedup
made=target/package

rm -rf "$made"
mkdir -p "$made/completions"
"$program" man "$made/man"
"$program" completions bash >"$made/completions/s3dedup.bash"
"$program" completions zsh >"$made/completions/_s3dedup"
"$program" completions fish >"$made/completions/s3dedup.fish"

"$(tests/tools/cargo_deb.sh)" deb --no-build --locked --strip
