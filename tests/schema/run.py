"""Starts the demo, and schemathesis against it: as nobody, as who has a key, and as the operator."""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request

# The gate judges the change, not the luck of the draw.
SEED = os.environ.get("SCHEMA_SEED", "1")
# What a key must have been charged for, or nothing of what is sold was tested.
SERVED = 10
EXAMPLES = os.environ.get("SCHEMA_EXAMPLES", "15")
CHECKS = ",".join([
    "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "response_headers_conformance", "unsupported_method",
])
# CPython 3.11 keeps one count of depth for all threads that parse Python, which is how hypothesis names what it draws:
# two threads at once end in "AST constructor recursion depth mismatch" now and then (python/cpython#106905).
WORKERS = "1"
# What ends the run's own access, or is the run's own money.
KEPT = "^/v1/balance/refund$|^/admin/api/logout$"
# Statuses that say whose fault it was, and are described; any other 5xx is the node's.
CONFIG = """
[checks.not_a_server_error]
enabled = true
expected-statuses = ["2xx", "3xx", "4xx", "502", "503", "504"]
"""


def ask(url, body=None, headers=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"content-type": "application/json", **(headers or {})})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


def served(origin, folder):
    """The description with a model that is sold, and a chat with it, in the place of any text: as it is, next to nothing
    that is made up would be served."""
    spec = json.loads(ask(f"{origin}/openapi.json"))
    model = json.loads(ask(f"{origin}/v1/models"))["data"][0]["id"]
    message = {
        "type": "object", "required": ["role", "content"], "additionalProperties": False,
        "properties": {"role": {"enum": ["user", "system"]}, "content": {"type": "string", "maxLength": 100}},
    }
    for path, item in spec["paths"].items():
        body = item.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        if "sold" not in item.get("post", {}).get("tags", []) or "model" not in body.get("properties", {}):
            continue
        body["properties"]["model"] = {"enum": [model]}
        if path.endswith("/chat/completions"):
            body["properties"]["messages"] = {"type": "array", "minItems": 1, "maxItems": 3, "items": message}
            body["properties"]["max_tokens"] = {"type": "integer", "minimum": 1, "maximum": 50}
            body["required"] += ["messages", "max_tokens"]
            body["additionalProperties"] = False
    name = os.path.join(folder, "served.json")
    with open(name, "w") as file:
        json.dump(spec, file)
    return name


def main():
    st, more = sys.argv[1], sys.argv[2:]
    command = os.environ.get("COINSLOT_DEMO", "cargo run --quiet --example demo -- --json").split()
    demo = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    began = time.monotonic()
    try:
        ready = json.loads(demo.stdout.readline())
        origin = ready["base_url"].removesuffix("/v1")
        token = lambda sats: ask(f"{ready['token_endpoint']}?sats={sats}").strip()
        key = token(20_000)
        session = json.loads(ask(f"{origin}/admin/api/login", {"password": ready["admin_password"]}))["token"]
        wanted = {"name": "schemathesis", "scopes": ["read", "manage", "money"]}
        operator = ask(f"{origin}/admin/api/cli-tokens", wanted, {"authorization": f"Bearer {session}"})
        operator = json.loads(operator)["token"]
        runs = [
            # The pages' forms are looked at only where a page sent them.
            ("nobody", None, ["--exclude-path-regex", KEPT + "|^/admin/api/", "--header", f"Origin: {origin}"]),
            ("a key", key, ["--exclude-path-regex", KEPT + "|^/admin/api/", "--include-tag", "sold", "--include-tag", "money"]),
            ("a refund", token(2_000), ["--include-path", "/v1/balance/refund"]),
            ("the operator", operator, ["--include-path-regex", "^/admin/api/", "--exclude-path-regex", KEPT]),
        ]
        failed = []
        with tempfile.TemporaryDirectory() as folder:
            config = os.path.join(folder, "schemathesis.toml")
            with open(config, "w") as file:
                file.write(CONFIG)
            for name, bearer, chosen in runs:
                print(f"\n== as {name}", flush=True)
                spec = served(origin, folder) if bearer == key else f"{origin}/openapi.json"
                arguments = [
                    st, "--config-file", config, "--no-color", "run", spec, "--url", origin, "--seed", SEED,
                    "--max-examples", EXAMPLES, "--phases", "examples,coverage,fuzzing", "--workers", WORKERS,
                    "--checks", "not_a_server_error," + CHECKS, "--request-timeout", "20",
                    "--suppress-health-check", "all", "--warnings", "off", "--continue-on-failure", *chosen, *more,
                ]
                if bearer:
                    arguments += ["--header", f"Authorization: Bearer {bearer}"]
                if subprocess.run(arguments, cwd=folder).returncode:
                    failed.append(name)
        # Once a key is used up, all that it asks for is a refusal that is described.
        info = json.loads(ask(f"{origin}/v1/wallet/info", headers={"authorization": f"Bearer {key}"}))
        print(f"\nthe key was charged for {info['total_requests']} requests, and has {info['balance']} msat")
        if info["balance"] == 0 or info["total_requests"] < SERVED:
            failed.append("a key that is served")
        health = ask(f"{origin}/healthz")
        assert health == "ok", health
        print(f"\n{time.monotonic() - began:.0f} s")
        if failed:
            sys.exit(f"not as described: {', '.join(failed)}")
    finally:
        # Then it proves its books.
        demo.stdin.close()
        code = demo.wait(timeout=120)
    if code:
        sys.exit(f"the demo ended with {code}: it says why")


main()
