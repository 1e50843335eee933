#!/bin/sh
# Runs the tests of tests/it/relays.rs against a Nostr relay and a client that share no code with ours.
#
#   tests/relays/run.sh [arguments for the test binary]
#
# What they need is kept outside the checkout, and made again when it changes. The relay listens on
# loopback and is gone afterwards.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/coinslot/relays
work=$(mktemp -d)
pid=

cleanup() {
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    [ -z "$pid" ] || wait "$pid" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

cat "$here/requirements.txt" "$here/package.json" "$here/stranger.mjs" > "$work/wanted.txt"
if ! cmp -s "$work/wanted.txt" "$cache/installed.txt"; then
    rm -rf "$cache"
    mkdir -p "$cache"
    python3 -m venv "$cache/venv"
    "$cache/venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    cp "$here/package.json" "$here/stranger.mjs" "$cache/"
    npm install --silent --no-audit --no-fund --prefix "$cache" >&2
    cp "$work/wanted.txt" "$cache/installed.txt"
fi

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat > "$work/relay.yaml" <<YAML
DEBUG: false
relay_name: a stranger's relay
storage:
  sqlalchemy.url: sqlite+aiosqlite:///$work/relay.sqlite3
  validators:
    - nostr_relay.validators.is_not_too_large
    - nostr_relay.validators.is_signed
    - nostr_relay.validators.is_recent
gunicorn:
  bind: 127.0.0.1:$port
  workers: 1
  loglevel: warning
  reload: false
YAML
(cd "$work" && exec env -i PATH="$PATH" HOME="$work" "$cache/venv/bin/nostr-relay" -c "$work/relay.yaml" serve) \
    > "$work/log" 2>&1 &
pid=$!

# Waits until it answers, for a minute at most.
python3 - "$port" <<'PY' || { tail -n 40 "$work/log"; exit 1; }
import socket, sys, time

end = time.monotonic() + 60
while True:
    try:
        socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5).close()
        break
    except OSError:
        if time.monotonic() > end:
            sys.exit("the relay does not answer")
        time.sleep(0.1)
PY

# A filter that fits nothing, or tests that are skipped, would end well.
cargo test --locked --test it -- --list relays:: | grep ': test$' > /dev/null
export TEST_REQUIRED=1
TEST_RELAY_URL="ws://127.0.0.1:$port" TEST_RELAY_STRANGER="$cache/stranger.mjs" \
    cargo test --locked --test it -- relays:: "$@"
