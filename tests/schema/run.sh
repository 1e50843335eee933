#!/bin/sh
# Sends a real node whatever its own description (/openapi.json) allows and forbids, by schemathesis: no answer may be
# a fault of the node (5xx but 502, 503 and 504 where they are described), of a status or a type that is not described, or of
# another shape.
#
#   tests/schema/run.sh [arguments for schemathesis]
#
# The virtual environment is kept outside the checkout and made again when requirements.txt changes.
# COINSLOT_DEMO, when set, is the command that starts the node, its mint and its upstream.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

cache=${COINSLOT_SCHEMA_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/coinslot/schema-venv}
if ! cmp -s "$here/requirements.txt" "$cache/installed.txt"; then
    rm -rf "$cache"
    mkdir -p "$(dirname "$cache")"
    python3 -m venv "$cache"
    "$cache/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$cache/installed.txt"
fi

# Building is not part of the time that a test may take.
[ -n "${COINSLOT_DEMO:-}" ] || cargo build --quiet --example demo

export PYTHONDONTWRITEBYTECODE=1
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
exec "$cache/bin/python" "$here/run.py" "$cache/bin/st" "$@"
