#!/bin/sh
# make-env.sh: makes the passwords and keys that the compose files need, once: compose/.env, which docker compose
# reads by itself, and the files in compose/secrets. What is there already is kept.
set -eu
cd "$(dirname "$0")"

if [ -e .env ]; then
    echo "compose/.env is there already, nothing is changed"
    exit 0
fi

digits() { od -An -v -tx1 -N "$1" /dev/urandom | tr -d ' \n'; }

umask 077
postgres_password=$(digits 16)
s3_secret_key=$(digits 32)

# Only you can enter the folder; what is mounted from it must be readable for the users inside the containers.
mkdir -p secrets
rm -f secrets/postgres_password secrets/s3_secret_key
printf '%s' "$postgres_password" >secrets/postgres_password
printf '%s' "$s3_secret_key" >secrets/s3_secret_key
chmod 444 secrets/postgres_password secrets/s3_secret_key

cat >.env.new <<END
S3_ACCESS_KEY=GK$(digits 12)
S3_SECRET_KEY=$s3_secret_key
GARAGE_RPC_SECRET=$(digits 32)
GRAFANA_PASSWORD=$(digits 12)
END
mv .env.new .env
echo "made compose/.env and compose/secrets"
