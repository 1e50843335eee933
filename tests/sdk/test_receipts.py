"""Receipts, verified by an implementation that shares no code with the node's (NIP-01, BIP-340)."""

import hashlib
import json
import urllib.error
import urllib.request

import pytest
from coincurve import PublicKeyXOnly
from conftest import CALL_SECONDS, PROMPT
from test_bearer import MAX_TOKENS, MSAT, cost_of
from test_x_cashu import SATS, change_due, paid


def answer_of(client, world, **headers):
    return client.chat.completions.with_raw_response.create(
        model=world.model, messages=PROMPT, max_tokens=MAX_TOKENS, extra_headers=headers
    )


def fetch(world, path: str, **headers) -> dict:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"{world.base_url}{path}", headers=headers)
    with opener.open(request, timeout=CALL_SECONDS) as answer:
        return json.load(answer)


def is_valid(event: dict) -> bool:
    signed = [0, event["pubkey"], event["created_at"], event["kind"], event["tags"], event["content"]]
    digest = hashlib.sha256(json.dumps(signed, separators=(",", ":"), ensure_ascii=False).encode()).digest()
    if digest.hex() != event["id"]:
        return False
    return PublicKeyXOnly(bytes.fromhex(event["pubkey"])).verify(bytes.fromhex(event["sig"]), digest)


def verified(world, request_id: str, **headers) -> dict:
    """The receipt, if this node signed it."""
    answer = fetch(world, f"/receipts/{request_id}", **headers)
    event = answer["event"]
    assert is_valid(event)
    assert event["pubkey"] == fetch(world, "/info")["receipt_pubkey"]
    assert json.loads(event["content"]) == answer["receipt"]
    assert ["request", request_id] in event["tags"]
    return answer["receipt"]


def test_a_key_s_receipt_is_signed_and_says_what_was_charged(world):
    token = world.token(SATS)
    raw = answer_of(world.client(token), world)
    request_id = raw.headers["x-routstr-request-id"]
    receipt = verified(world, request_id, Authorization=f"Bearer {token}")
    assert receipt["charged_msat"] == cost_of(raw.parse()) == int(raw.headers["x-routstr-cost-msats"])
    assert (receipt["status"], receipt["model"]) == ("captured", world.model)
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetch(world, f"/receipts/{request_id}", Authorization=f"Bearer {world.token(1)}")
    assert caught.value.code == 404


def test_a_token_s_receipt_names_its_change(world):
    token = world.token(SATS)
    raw = answer_of(world.client("unused"), world, **paid(token))
    receipt = verified(world, raw.headers["x-routstr-request-id"], **paid(token))
    assert receipt["charged_msat"] == cost_of(raw.parse())
    assert receipt["change_msat"] == change_due(receipt["charged_msat"]) * MSAT
    assert receipt["mint"] == world.mint_url


def test_a_changed_receipt_does_not_verify(world):
    token = world.token(SATS)
    raw = answer_of(world.client("unused"), world, **paid(token))
    event = fetch(world, f"/receipts/{raw.headers['x-routstr-request-id']}", **paid(token))["event"]
    assert is_valid(event)
    forged = {**event, "content": event["content"].replace("captured", "released")}
    assert forged != event and not is_valid(forged)
    digit = "0" if event["sig"][0] != "0" else "1"
    assert not is_valid({**event, "sig": digit + event["sig"][1:]})


def test_a_repeated_request_is_paid_once(world):
    client = world.client(world.token(SATS))
    key = {"Idempotency-Key": "one-of-a-kind"}
    first, again = answer_of(client, world, **key), answer_of(client, world, **key)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.parse() == first.parse()
    assert world.wallet_info(client)["total_spent"] == cost_of(first.parse())
