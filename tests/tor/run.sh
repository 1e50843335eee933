#!/bin/sh
# Runs the tests of tests/it/tor_network.rs in a Tor network of its own on loopback: the node's onion, asked by a
# client that shares no code with it, and ways out through the Tor inside the node and through a daemon.
#
#   tests/tor/run.sh [arguments for the test binary]
#
# Installs Debian's tor where it is missing and may be installed. Nothing leaves the machine, and nothing
# stays behind.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

if ! command -v tor >/dev/null || ! command -v tor-gencert >/dev/null; then
    apt-get update -qq
    # The network has daemons of its own: the package's is not started.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends tor
fi

# The network is short-lived: what is to be compiled is compiled before.
cargo test --locked --test it --no-run
# A filter that fits nothing, or tests that are skipped, would end well.
cargo test --locked --test it -- --list tor_network:: | grep ': test$' > /dev/null
export TEST_REQUIRED=1
exec python3 "$here/network.py" cargo test --locked --test it -- tor_network:: --test-threads=2 "$@"
