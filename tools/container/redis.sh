#!/bin/sh
# Starts Redis as Larder's online store, with its password taken from a secret file. The configuration goes in by
# standard input, so that the password is neither an argument nor a file of the container.
set -eu

if ! [ -s "$REDIS_PASSWORD_FILE" ] || ! [ -r "$REDIS_PASSWORD_FILE" ]; then
    echo "REDIS_PASSWORD_FILE='$REDIS_PASSWORD_FILE' is missing, empty or not readable by user $(id -u);" \
        "write the password into it" >&2
    exit 1
fi
# Inside quotes the configuration knows two special characters.
password=$(sed 's/[\\"]/\\&/g' "$REDIS_PASSWORD_FILE" | tr -d '\r\n')

# appendonly: an acknowledged write survives a restart, but for the last second.
# noeviction: a full Redis refuses writes; evicting would turn features into NOT_FOUND without a word.
# hash-max-listpack-value: a packed row of up to 1,024 bytes stays in the compact encoding (half the memory).
exec redis-server - <<CONFIGURATION
bind ${REDIS_BIND:-* -::*}
port ${REDIS_PORT:-6379}
dir ${REDIS_FOLDER:-/data}
requirepass "$password"
appendonly yes
appendfsync everysec
maxmemory ${REDIS_MEMORY:-2gb}
maxmemory-policy noeviction
hash-max-listpack-value 1024
CONFIGURATION
