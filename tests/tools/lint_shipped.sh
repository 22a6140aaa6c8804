#!/usr/bin/env bash
# lint_shipped.sh: checks what is shipped beside the program with the tools of those who will read it: Dockerfile,
# compose files, load balancer, Prometheus, systemd unit, shell scripts.
set -euo pipefail

fail() { echo "lint_shipped.sh: $*" >&2; exit 1; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."

venv=$("$here/venv.sh" --lint)
has() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ]; }
has haproxy || "$here/apt.sh" --no-services haproxy
has promtool || "$here/apt.sh" --no-services prometheus
has systemd-analyze || "$here/apt.sh" --no-services systemd
PATH=$PATH:/usr/sbin

quietly() {
    local said
    said=$("$@" 2>&1) || { echo "$said" >&2; fail "'$*' failed"; }
}

"$venv/bin/hadolint" Dockerfile
# those with services are compose files, the others are of Prometheus
mapfile -t compose < <(grep --files-with-matches '^services:' compose/*.yml)
[ "${#compose[@]}" -ge 5 ] || fail "where are the compose files?"
quietly "$venv/bin/check-jsonschema" --builtin-schema vendor.compose-spec "${compose[@]}"
quietly haproxy -c -f compose/haproxy.cfg
quietly promtool check config compose/prometheus.yml
quietly python3 -m json.tool compose/grafana-dashboard.json

# The program need not be installed where the unit is checked.
unit=$(mktemp -d)
trap 'rm -rf "$unit"' EXIT
sed 's|^ExecStart=/usr/bin/s3dedup|ExecStart=/bin/true|' compose/packaging/s3dedup.service >"$unit/s3dedup.service"
quietly systemd-analyze verify --man=no --recursive-errors=no "$unit/s3dedup.service"
# 0 is the least exposure, 100 is none of the protections; warnings are printed, too
quietly systemd-analyze security --offline=true --no-pager --threshold=20 "$unit/s3dedup.service"

for script in compose/make-env.sh compose/packaging/debian/*; do sh -n "$script"; done
for script in tests/tools/*.sh tests/shipped/*.sh; do bash -n "$script"; done
echo "what is shipped beside the program is well-formed"
