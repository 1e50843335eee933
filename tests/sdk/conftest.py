"""The world of these tests: a mint, an upstream and a node, started once by `--example demo`."""

import json
import os
import queue
import shlex
import subprocess
import threading
import urllib.request
from dataclasses import dataclass, field

import openai
import pytest

START_SECONDS = 60
"""How long the demo may take to be ready; it is built before the tests begin."""
END_SECONDS = 120
"""How long it may take to let requests end and to prove its books."""
CALL_SECONDS = 20
"""How long one request may take."""

PROMPT = [{"role": "user", "content": "Say something worth a few satoshi."}]


@dataclass
class World:
    """The running demo, and the customer's side of its mint."""

    base_url: str
    mint_url: str
    model: str
    token_endpoint: str
    opened: list = field(default_factory=list)

    def token(self, sats: int) -> str:
        """A fresh token of exactly this value."""
        token = self._call(f"{self._till()}/token?sats={sats}")
        assert token.startswith("cashu"), token
        return token

    def receive(self, token: str) -> int:
        """Redeems a token at the mint: proof that it was good, and what it was worth in sats."""
        return int(self._call(f"{self._till()}/receive", token.encode()))

    def client(self, api_key: str, **options) -> openai.OpenAI:
        """An SDK client of the kind that people make, with a time limit. `log` counts attempts."""
        return self._opened(openai.OpenAI(**self._options(api_key, openai.DefaultHttpxClient, options)))

    def async_client(self, api_key: str, **options) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(**self._options(api_key, openai.DefaultAsyncHttpxClient, options))

    def wallet_info(self, client: openai.OpenAI) -> dict:
        """What the node says about the client's own balance, under the same bearer."""
        return client.get("/wallet/info", cast_to=object)

    def close(self):
        for client in self.opened:
            client.close()

    def _options(self, api_key, http_client, options):
        log = options.pop("log", None)
        if log is not None:
            options["http_client"] = http_client(event_hooks={"request": [log.append]})
        return {"base_url": self.base_url, "api_key": api_key, "timeout": CALL_SECONDS, **options}

    def _opened(self, client):
        self.opened.append(client)
        return client

    def _till(self) -> str:
        return self.token_endpoint.split("/token")[0]

    @staticmethod
    def _call(url: str, body: bytes | None = None) -> str:
        # No proxy: everything is on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(url, data=body), timeout=CALL_SECONDS) as answer:
            return answer.read().decode().strip()


def command() -> list[str]:
    given = os.environ.get("COINSLOT_DEMO")
    return shlex.split(given) if given else ["cargo", "run", "--quiet", "--example", "demo", "--", "--json"]


def first_line(process: subprocess.Popen) -> str:
    """The line that says the demo is ready. What it prints later is read too, and dropped."""
    lines: queue.Queue[str] = queue.Queue()

    def read():
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    try:
        return lines.get(timeout=START_SECONDS)
    except queue.Empty:
        return ""


@pytest.fixture(scope="session")
def world():
    process = subprocess.Popen(command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        line = first_line(process)
        assert line.strip(), f"the demo was not ready within {START_SECONDS} s"
        ready = json.loads(line)
        running = World(**{name: ready[name] for name in ("base_url", "mint_url", "model", "token_endpoint")})
        yield running
        running.close()
    finally:
        # It stays up until its standard input closes; then it proves its books.
        process.stdin.close()
        try:
            code = process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    assert code == 0, f"the demo ended with {code}: it says why"
