#!/bin/sh
# Runs the tests of tests/it/nutshell.rs against Nutshell, a mint that shares no code with ours:
# both generations, which differ in their keyset ids, with and without an input fee.
#
#   tests/nutshell/run.sh [arguments for the test binary]
#
# The virtual environments are kept outside the checkout and made again when the requirements change.
# The mints listen on loopback, have no Lightning network, and are gone afterwards.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/coinslot
work=$(mktemp -d)
pids=

cleanup() {
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    for pid in $pids; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# The older generation by its requirements. The newer asks for a package that is nowhere to be had,
# and does with the older one's otherwise.
install() {
    venv=$cache/nutshell-$1
    own=$here/requirements-$1.txt
    cat "$here/requirements.txt" "$own" > "$work/wanted.txt"
    cmp -s "$work/wanted.txt" "$venv/installed.txt" && return
    rm -rf "$venv"
    python3 -m venv "$venv"
    set -- "$venv/bin/pip" install --quiet --disable-pip-version-check
    "$@" --requirement "$here/requirements.txt"
    "$@" --no-deps --requirement "$own"
    cp "$work/wanted.txt" "$venv/installed.txt"
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# start <version> <input fee in ppk>
start() {
    port=$(free_port)
    dir=$work/$1-$2
    mkdir -p "$dir"
    (
        cd "$dir"
        exec env -i PATH="$PATH" HOME="$dir" \
            MINT_BACKEND_BOLT11_SAT=FakeWallet MINT_PRIVATE_KEY="coinslot $1 $2" MINT_DATABASE="$dir/db" \
            MINT_INPUT_FEE_PPK="$2" MINT_RATE_LIMIT=FALSE TOR=FALSE \
            FAKEWALLET_BRR=TRUE FAKEWALLET_DELAY_INCOMING_PAYMENT=0 FAKEWALLET_DELAY_OUTGOING_PAYMENT=0 \
            "$cache/nutshell-$1/bin/mint" --host 127.0.0.1 --port "$port"
    ) > "$dir/log" 2>&1 &
    pids="$pids $!"
    urls="$urls http://127.0.0.1:$port"
    logs="$logs $dir/log"
}

# Waits until a mint answers, for a minute at most.
ready() {
    python3 - "$1/v1/info" <<'PY'
import sys, time, urllib.request

end = time.monotonic() + 60
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
while True:
    try:
        opener.open(sys.argv[1], timeout=5).read()
        break
    except OSError:
        if time.monotonic() > end:
            sys.exit(f"{sys.argv[1]} does not answer")
        time.sleep(0.1)
PY
}

mkdir -p "$cache"
install 0.19.2
install 0.21.0

urls=
logs=
for version in 0.19.2 0.21.0; do
    start "$version" 0
    start "$version" 100
done
for url in $urls; do
    ready "$url" || { tail -n 40 $logs; exit 1; }
done

# A filter that fits nothing, or tests that are skipped, would end well.
cargo test --locked --test it -- --list nutshell:: | grep ': test$' > /dev/null
export TEST_REQUIRED=1
TEST_NUTSHELL_URLS=$(echo $urls | tr ' ' ',') cargo test --locked --test it -- nutshell:: "$@"
