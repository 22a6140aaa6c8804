#!/usr/bin/env bash
# postgres.sh: makes sure PostgreSQL's programs are installed and prints the folder they are in. No cluster is
# made and no server is started.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Debian keeps each major version in a folder of its own; the newest has the highest number.
newest() {
    local folder
    for folder in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort --version-sort --reverse); do
        if [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ] && [ -x "$folder/psql" ]; then
            echo "$folder"
            return
        fi
    done
    return 1
}

if ! newest; then
    # Debian's package would otherwise make a cluster, which a tool of postgresql-common decides.
    "$here/apt.sh" postgresql-common
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    config=/etc/postgresql-common/createcluster.conf
    grep --quiet '^[[:space:]]*create_main_cluster' "$config" 2>/dev/null \
        || echo "create_main_cluster = false" | "${as_root[@]}" tee --append "$config" >/dev/null
    "$here/apt.sh" --no-services postgresql postgresql-client
    newest || { echo "postgres.sh: no PostgreSQL in /usr/lib/postgresql: install its server and client" >&2; exit 1; }
fi
