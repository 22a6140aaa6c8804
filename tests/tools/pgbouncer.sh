#!/usr/bin/env bash
# pgbouncer.sh: makes sure PgBouncer is installed and prints its path. It is not started.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
pgbouncer=/usr/sbin/pgbouncer

[ -x "$pgbouncer" ] || "$here/apt.sh" --no-services pgbouncer
[ -x "$pgbouncer" ] || { echo "pgbouncer.sh: no $pgbouncer after installing the package" >&2; exit 1; }
echo "$pgbouncer"
