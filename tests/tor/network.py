"""A Tor network on loopback: three authorities, five relays, and a client with a SOCKS and a control port.

    network.py COMMAND...

Runs COMMAND in it, with TEST_TOR_SOCKS and TEST_TOR_CONTROL (addresses of the client), TEST_TOR_CONFIG (a file in
TOML that leads arti into this network) and TEST_TOR_SERVICE (the keys of an onion service of C tor that nobody
runs) set. Ends with its exit code, and leaves nothing behind.

What is unusual here, and why:
* Votes every 10 s at first and every 20 s then. With TestingTorNetwork, C tor makes a period of onion services as
  long as 24 votes; arti reads its length in minutes from the consensus. Both must say the same.
* arti takes all relays on one address for one family, unless its configuration says otherwise.
* A process that asks for a consensus before there is one waits long before it asks again: so the client starts
  when there is one, and relays are woken.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

AUTHORITIES = 3
RELAYS = 5
FIRST_VOTES = 10
VOTES = 20
PATIENCE = 120

COMMON = """
TestingTorNetwork 1
AssumeReachable 1
EnforceDistinctSubnets 0
PublishServerDescriptor v3
ShutdownWaitLength 0
DisableDebuggerAttachment 0
Address 127.0.0.1
DataDirectory {dir}
PidFile {dir}/pid
Log notice file {dir}/log
"""

AUTHORITY = f"""
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
ContactInfo nobody@example.com
TestingV3AuthInitialVotingInterval {FIRST_VOTES}
TestingV3AuthInitialVoteDelay 2
TestingV3AuthInitialDistDelay 2
V3AuthVotingInterval {VOTES}
V3AuthVoteDelay 3
V3AuthDistDelay 3
TestingDirAuthVoteExit *
TestingDirAuthVoteHSDir *
TestingDirAuthVoteGuard *
MinUptimeHidServDirectoryV2 0 seconds
ConsensusParams hsdir_interval={24 * VOTES // 60}
ExitPolicy reject *:*
"""

RELAY = """
ExitPolicy accept *:*
ExitPolicyRejectPrivate 0
ExitRelay 1
"""


def free_ports(count):
    """Ports that nobody listens on, below those that the kernel hands out by itself."""
    found = []
    while len(found) < count:
        port = random.randrange(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def within(patience, what, is_so):
    end = time.monotonic() + patience
    while not is_so():
        if time.monotonic() > end:
            raise SystemExit(f"Tor: {what} within {patience} s")
        time.sleep(0.1)


class Process:
    def __init__(self, root, name, text, listens=True):
        self.dir = root / name
        self.dir.mkdir(mode=0o700)
        self.name, self.listens, self.child = name, listens, None
        self.text = COMMON.format(dir=self.dir) + (f"Nickname {name}\n" if listens else "") + text

    def write(self, authorities):
        (self.dir / "torrc").write_text(self.text + authorities)

    def tor(self, *words):
        return ["tor", "-f", str(self.dir / "torrc"), "--quiet", *words]

    def identify(self):
        """Makes its keys, and says by which it is known."""
        subprocess.run(self.tor("--list-fingerprint"), check=True, stdout=subprocess.DEVNULL)
        last = lambda name: (self.dir / name).read_text().split()[-1]
        return last("fingerprint"), last("fingerprint-ed25519").rstrip("=")

    def start(self):
        self.child = subprocess.Popen(self.tor(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def log(self):
        path = self.dir / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def is_ready(self):
        if self.child.poll() is not None:
            raise SystemExit(f"Tor: {self.name} ended:\n{self.log()[-4000:]}")
        return "Bootstrapped 100%" in self.log()

    def has_consensus(self):
        path = self.dir / "cached-microdesc-consensus"
        return path.exists() and path.read_text(errors="replace").count("\nr ") == AUTHORITIES + RELAYS

    def stop(self):
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(signal.SIGINT)
            try:
                self.child.wait(5)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


def make_certificate(authority, dirport):
    keys = authority.dir / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    words = ["tor-gencert", "--create-identity-key", "-m", "12", "-a", f"127.0.0.1:{dirport}", "--passphrase-fd", "0"]
    subprocess.run(words, check=True, cwd=keys, input=b"\n", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for line in (keys / "authority_certificate").read_text().splitlines():
        if line.startswith("fingerprint "):
            return line.split()[1]
    raise SystemExit("Tor: a certificate without a fingerprint")


def make_service(root):
    """The directory of an onion service of C tor that nobody runs."""
    service = root / "service"
    text = f"DisableNetwork 1\nSocksPort 0\nHiddenServiceDir {service}\nHiddenServicePort 80\n"
    maker = Process(root, "maker", text, False)
    # With authorities of its own it would want a network; it only makes keys.
    (maker.dir / "torrc").write_text(f"DataDirectory {maker.dir}\n{text}")
    maker.start()
    try:
        within(PATIENCE, "no service", (service / "hostname").exists)
    finally:
        maker.stop()
    return service


def arti(idents, caches):
    lines = [
        "[tor_network.authorities]",
        f"v3idents = {list(idents)}".replace("'", '"'),
        "[path_rules]",
        "ipv4_subnet_family_prefix = 33",
        "ipv6_subnet_family_prefix = 129",
    ]
    for rsa, ed, port in caches:
        lines += [
            "[[tor_network.fallback_caches]]",
            f'rsa_identity = "{rsa}"',
            f'ed_identity = "{ed}"',
            f'orports = ["127.0.0.1:{port}"]',
        ]
    return "\n".join(lines) + "\n"


def main(command):
    root = Path(tempfile.mkdtemp(prefix="coinslot-tor-"))
    processes = []
    try:
        begun = time.monotonic()
        ports = free_ports(2 * AUTHORITIES + RELAYS + 2)
        authorities, idents, lines, caches = [], [], [], []
        for number in range(AUTHORITIES):
            orport, dirport = ports.pop(), ports.pop()
            text = AUTHORITY + f"ORPort 127.0.0.1:{orport}\nDirPort 127.0.0.1:{dirport}\nSocksPort 0\n"
            authority = Process(root, f"authority{number}", text)
            ident = make_certificate(authority, dirport)
            # Whoever is an authority is not told so twice: its keys are made by its own name alone.
            placeholder = f"DirAuthority {authority.name} orport={orport} v3ident={ident} 127.0.0.1:{dirport} {'0' * 40}\n"
            authority.write(placeholder)
            rsa, ed = authority.identify()
            lines.append(f"DirAuthority {authority.name} orport={orport} v3ident={ident} 127.0.0.1:{dirport} {rsa}\n")
            caches.append((rsa, ed, orport))
            idents.append(ident)
            authorities.append(authority)
        relays = [
            Process(root, f"relay{number}", RELAY + f"ORPort 127.0.0.1:{ports.pop()}\nSocksPort 0\n")
            for number in range(RELAYS)
        ]
        socks, control = ports.pop(), ports.pop()
        client = Process(root, "client", f"SocksPort 127.0.0.1:{socks}\nControlPort 127.0.0.1:{control}\n", False)
        processes = [*authorities, *relays, client]
        for process in processes:
            process.write("".join(lines))
        # They vote some seconds before a multiple of the interval.
        within(FIRST_VOTES + 1, "the clock stands still", lambda: time.time() % FIRST_VOTES < 1)
        for process in [*authorities, *relays]:
            process.start()
        within(PATIENCE, "no consensus", lambda: all(authority.has_consensus() for authority in authorities))
        client.start()
        for relay in relays:
            if not relay.is_ready():
                relay.child.send_signal(signal.SIGHUP)
        within(PATIENCE, "not all are there", lambda: all(process.is_ready() for process in processes))
        service = make_service(root)
        config = root / "arti.toml"
        config.write_text(arti(idents, caches))
        print(f"a Tor network of {len(processes)} stands after {time.monotonic() - begun:.0f} s", flush=True)
        environment = dict(
            os.environ,
            TEST_TOR_SOCKS=f"127.0.0.1:{socks}",
            TEST_TOR_CONTROL=f"127.0.0.1:{control}",
            TEST_TOR_CONFIG=str(config),
            TEST_TOR_SERVICE=str(service),
        )
        return subprocess.run(command, env=environment).returncode
    finally:
        for process in processes:
            process.stop()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main(sys.argv[1:]))
