#!/bin/sh
# Checks what deploy/ and compose.yml say, as far as that goes without Docker and without a systemd that runs:
# that they are well formed and name nothing that is not there, that the image has all sources of the program,
# and that this starts as the unit and as the image have it, from one .env.
#
#   tests/deploy/run.sh
#
# What it needs is kept outside the checkout, and made again when it changes.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/coinslot/deploy
target=${CARGO_TARGET_DIR:-$PWD/target}

if ! command -v systemd-analyze > /dev/null && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -yq systemd
fi
if ! cmp -s "$here/requirements.txt" "$cache/installed.txt"; then
    rm -rf "$cache"
    mkdir -p "$cache"
    python3 -m venv "$cache/venv"
    "$cache/venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$cache/installed.txt"
fi

# The program of the tests is the one that they are about.
cargo test --locked --quiet --no-run --test it
"$cache/venv/bin/python" "$here/check.py" "$target/debug/coinslot"
