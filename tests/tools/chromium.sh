#!/usr/bin/env bash
# chromium.sh: makes sure Chromium and its driver are installed and prints the driver's path. Neither is started.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

command -v chromium >/dev/null && command -v chromedriver >/dev/null || "$here/apt.sh" chromium chromium-driver
command -v chromium >/dev/null || { echo "chromium.sh: no chromium after installing the package" >&2; exit 1; }
command -v chromedriver || { echo "chromium.sh: no chromedriver after installing the package" >&2; exit 1; }
