#!/usr/bin/env bash
# Runs "$@" as a container of the image would, in the root $ROOT with the volume $DATA. To be started by container.rs, in
# namespaces of its own. Ends with 0 when the server was healthy, stored and gave back files, and stopped with 0.
set -euo pipefail

fail() { echo "container.sh: $*" >&2; exit 1; }

PATH=$PATH:/usr/sbin:/sbin
mapfile -t variables <<<"$VARIABLES"
mapfile -t healthcheck <<<"$HEALTHCHECK"

mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount --bind "$DATA" "$ROOT$VOLUME"
mount -t proc proc "$ROOT/proc"
mount -o remount,bind,ro "$ROOT"
ip link set lo up
! touch "$ROOT/tmp/written" 2>/dev/null || fail "the root can be written to"

# To be called in a subshell, which becomes the program.
in_container() {
    if $IS_ROOT; then
        exec env -i "${variables[@]}" setpriv --no-new-privs \
            unshare --root="$ROOT" --wd="$WORKDIR" --setgid="$GROUP_ID" --setuid="$USER_ID" -- "$@"
    fi
    exec env -i "${variables[@]}" \
        unshare --user --map-user="$USER_ID" --map-group="$GROUP_ID" --root="$ROOT" --wd="$WORKDIR" -- "$@"
}

in_container "$@" &
server=$!

for ((turn = 0; ; turn++)); do
    kill -0 "$server" 2>/dev/null || fail "the server ended"
    ! (in_container "${healthcheck[@]}") >/dev/null 2>&1 || break
    [ "$turn" -lt 300 ] || fail "the health check never succeeded"
    sleep 0.2
done
echo "healthy"

runs_as=$(awk '/^Uid:/ { print $2 }' "$ROOT/proc/$server/status")
if $IS_ROOT; then
    [ "$runs_as" = "$USER_ID" ] || fail "it runs as $runs_as"
    grep --quiet '^CapEff:[[:space:]]*0*$' "$ROOT/proc/$server/status" || fail "it has capabilities"
fi

url=http://127.0.0.1:8080/ft/files
version='last_modified=Tue%2C+14+Nov+2023+22%3A13%3A20+-0000'
body=$(mktemp)
trap 'rm -f "$body"' EXIT
curl() { command curl --fail --silent --show-error --noproxy '*' --max-time 60 "$@"; }

# Small, and larger than what is kept in memory (MAX_INMEMORY_SIZE): that needs room for a temporary file.
for size in 1000 80000000; do
    head -c "$size" /dev/urandom >"$body"
    curl --output /dev/null --upload-file "$body" "$url/some/file-$size?$version"
    curl --compressed "$url/some/file-$size" | cmp - "$body" || fail "another file came back"
done
echo "stored"

kill -TERM "$server"
code=0
wait "$server" || code=$?
[ "$code" -eq 0 ] || fail "it stopped with $code"
echo "stopped with 0"
