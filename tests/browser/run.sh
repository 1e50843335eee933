#!/bin/sh
# Runs the tests of this folder: shop window, documents and the operator's pages of a real node in real Chromium, on a
# phone and on a desk, in both colour schemes.
#
#   tests/browser/run.sh [--screenshots]
#
# --screenshots writes docs/screenshots anew. Chromium is installed where it is missing (Debian); the
# packages of npm are kept outside the checkout and fetched again when their lock changes.
# COINSLOT_DEMO, when set, is the command that starts the node, its mint and its upstream; COINSLOT_CHROMIUM
# is another browser than /usr/bin/chromium.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

if [ "${1:-}" = "--screenshots" ]; then
    export COINSLOT_SCREENSHOTS="$PWD/docs/screenshots"
    mkdir -p "$COINSLOT_SCREENSHOTS"
fi

export COINSLOT_CHROMIUM="${COINSLOT_CHROMIUM:-/usr/bin/chromium}"
if ! [ -x "$COINSLOT_CHROMIUM" ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
fi

cache=${COINSLOT_BROWSER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/coinslot-browser}
if ! cmp -s "$here/package-lock.json" "$cache/installed.json"; then
    rm -rf "$cache"
    mkdir -p "$cache"
    cp "$here/package.json" "$here/package-lock.json" "$cache/"
    (cd "$cache" && npm ci --silent --no-audit --no-fund --ignore-scripts)
    cp "$here/package-lock.json" "$cache/installed.json"
fi
export COINSLOT_BROWSER_MODULES="$cache/node_modules"

# Building is not part of the time that a test may take.
[ -n "${COINSLOT_DEMO:-}" ] || cargo build --quiet --example demo

# Everything is on this machine.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
exec node --test --test-reporter=spec "$here"/*.test.mjs
