#!/bin/sh
# Starts a command with REDIS_URL built from a secret file, so that the password is in no image, compose file
# or `docker inspect`. A REDIS_URL that is set already is left alone.
set -eu

if [ -z "${REDIS_URL:-}" ] && [ -n "${REDIS_PASSWORD_FILE:-}" ]; then
    if ! [ -r "$REDIS_PASSWORD_FILE" ]; then
        echo "REDIS_PASSWORD_FILE='$REDIS_PASSWORD_FILE' cannot be read by user $(id -u);" \
            "mount the secret there, readable for that user" >&2
        exit 1
    fi
    # In a URL the password is percent-encoded; it travels by a pipe, since arguments show in the process list.
    password=$(python -c 'import sys, urllib.parse as p; print(p.quote(sys.stdin.read().strip("\r\n"), safe=""))' \
        <"$REDIS_PASSWORD_FILE")
    if [ -z "$password" ]; then
        echo "REDIS_PASSWORD_FILE='$REDIS_PASSWORD_FILE' is empty; write the password of Redis into it" >&2
        exit 1
    fi
    export REDIS_URL="redis://:$password@${REDIS_HOST:-redis}:${REDIS_PORT:-6379}/0"
fi

exec "$@"
