#!/bin/sh
# Compares what coinslot charges with what LiteLLM itself reckons, over the models of the table that comes with
# it and many shapes of usage. Every disagreement has a reason in compare.py.
#
#   tests/litellm/run.sh [--show]
#
# The virtual environment is kept outside the checkout and made again when requirements.txt changes.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/coinslot/litellm-venv
if ! cmp -s "$here/requirements.txt" "$cache/installed.txt"; then
    rm -rf "$cache"
    python3 -m venv "$cache"
    "$cache/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$cache/installed.txt"
fi

cargo build --quiet --locked --example reckon
reckon=${CARGO_TARGET_DIR:-target}/debug/examples/reckon

export PYTHONDONTWRITEBYTECODE=1
# It asks nobody for newer prices.
export LITELLM_LOCAL_MODEL_COST_MAP=True
exec "$cache/bin/python" "$here/compare.py" "$reckon" "$@"
