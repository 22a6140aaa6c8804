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
# What Grafana asks Prometheus, as rules, with something in the place of its variables.
asked=$(mktemp --suffix=.yml)
trap 'rm -f "$asked"' EXIT
python3 - compose/grafana-dashboard.json >"$asked" <<'END' || fail "compose/grafana-dashboard.json cannot be read"
import json, sys

def expressions(part):
    if isinstance(part, dict):
        yield from ([part["expr"]] if "expr" in part else [])
        part = list(part.values())
    for inner in part if isinstance(part, list) else []:
        yield from expressions(inner)

found = list(expressions(json.load(open(sys.argv[1]))))
assert len(found) > 10, "no expressions"
plain = [it.replace("$__rate_interval", "5m").replace("$instance", "x") for it in found]
rules = [{"record": f"asked:{number}", "expr": expr} for number, expr in enumerate(plain)]
print(json.dumps({"groups": [{"name": "grafana", "rules": rules}]}))
END
quietly promtool check rules "$asked"

# The program need not be installed where the unit is checked.
unit=$(mktemp -d)
trap 'rm -rf "$unit" "$asked"' EXIT
sed 's|^ExecStart=/usr/bin/s3dedup|ExecStart=/bin/true|' compose/packaging/s3dedup.service >"$unit/s3dedup.service"
quietly systemd-analyze verify --man=no --recursive-errors=no "$unit/s3dedup.service"
# 0 is the least exposure, 100 is none of the protections; warnings are printed, too
quietly systemd-analyze security --offline=true --no-pager --threshold=20 "$unit/s3dedup.service"

for script in compose/make-env.sh compose/packaging/debian/*; do sh -n "$script"; done
for script in tests/tools/*.sh tests/shipped/*.sh; do bash -n "$script"; done
echo "what is shipped beside the program is well-formed"
