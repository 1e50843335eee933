#!/bin/sh
# Runs the tests of this folder: Codex and Claude Code do a task through a node, and the official SDKs for
# JavaScript talk to it, all as they come from npm and paying with ecash.
#
#   tests/clis/run.sh [arguments for node --test]
#
# The packages are kept outside the checkout and installed again when package.json changes.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/coinslot/clis
if ! cmp -s "$here/package.json" "$cache/package.json"; then
    rm -rf "$cache"
    mkdir -p "$cache.new"
    cp "$here/package.json" "$cache.new/package.json"
    npm install --prefix "$cache.new" --silent --no-audit --no-fund --no-package-lock
    # Its binary is put in place by the script that npm would run after an installation.
    (cd "$cache.new/node_modules/@anthropic-ai/claude-code" && node install.cjs)
    mv "$cache.new" "$cache"
fi

# Building is not part of the time that a test may take.
cargo build --locked --quiet --example demo
target=${CARGO_TARGET_DIR:-target}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here"/*.mjs "$here"/models.json "$here"/package.json "$work"
ln -s "$cache/node_modules" "$work/node_modules"

# Nothing of the caller's shell may reach the agents.
exec env -i PATH="$PATH" HOME="$work" CLIS="$cache/node_modules/.bin" DEMO="$target/debug/examples/demo" \
    node --test --test-concurrency=1 "$@" "$work/agents.test.mjs" "$work/sdks.test.mjs" "$work/endpoints.test.mjs"
