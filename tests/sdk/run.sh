#!/bin/sh
# Runs the tests of this folder: the official OpenAI and Anthropic SDKs for Python, paying coinslot with ecash;
# and its receipts, verified by other people's code.
#
#   tests/sdk/run.sh [arguments for pytest]
#
# The virtual environment is kept outside the checkout and made again when requirements.txt changes.
# COINSLOT_DEMO, when set, is the command that starts the node, its mint and its upstream.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

cache=${COINSLOT_SDK_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/coinslot-sdk-venv}
if ! cmp -s "$here/requirements.txt" "$cache/installed.txt"; then
    rm -rf "$cache"
    python3 -m venv "$cache"
    "$cache/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$cache/installed.txt"
fi

# Building is not part of the time that a test may take.
[ -n "${COINSLOT_DEMO:-}" ] || cargo build --quiet --example demo

# No proxy, key or address of the caller's shell may reach the SDK or the node.
export PYTHONDONTWRITEBYTECODE=1
unset OPENAI_API_KEY OPENAI_BASE_URL OPENAI_ORG_ID OPENAI_PROJECT_ID
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
exec "$cache/bin/python" -m pytest -p no:cacheprovider -q "$here" "$@"
