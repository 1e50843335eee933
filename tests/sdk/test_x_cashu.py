"""A token that rides on one request in `X-Cashu`: the change comes back with the answer."""

import openai
import pytest
from conftest import PROMPT
from test_bearer import MAX_TOKENS, MSAT, cost_of, text_and_cost

SATS = 300


def paid(token: str, **more) -> dict:
    """Header of a request that carries its own money. The SDK insists on some key as well."""
    return {"X-Cashu": token, **more}


def raw_answer(client, world, token, **more):
    return client.chat.completions.with_raw_response.create(
        model=world.model, messages=PROMPT, max_tokens=MAX_TOKENS, extra_headers=paid(token), **more
    )


def change_due(cost_msat: int) -> int:
    """What is left of the token, in the whole sats that change is made of."""
    return SATS - -(-cost_msat // MSAT)


def test_the_change_is_in_the_header(world):
    token, log = world.token(SATS), []
    raw = raw_answer(world.client("unused", log=log), world, token)
    cost = cost_of(raw.parse())
    assert raw.headers["x-routstr-cost-msats"] == str(cost)
    assert world.receive(raw.headers["x-cashu"]) == change_due(cost)
    assert len(log) == 1


def test_a_stream_is_held_back_until_the_change_is_known(world):
    token = world.token(SATS)
    raw = raw_answer(world.client("unused"), world, token, stream=True, stream_options={"include_usage": True})
    change = raw.headers["x-cashu"]
    _, cost = text_and_cost(raw.parse())
    assert world.receive(change) == change_due(cost)


def test_change_at_the_end_of_a_live_stream(world):
    token = world.token(SATS)
    headers = paid(token, **{"X-Cashu-Change": "stream"})
    call = world.client("unused").chat.completions.with_streaming_response.create
    with call(
        model=world.model, messages=PROMPT, max_tokens=MAX_TOKENS, stream=True, extra_headers=headers
    ) as response:
        assert "x-cashu" not in response.headers
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    comment, mark = lines[-2], ": x-cashu "
    assert comment.startswith(mark), comment
    assert sum(line.startswith(mark) for line in lines) == 1
    # The original token fetches the same change again, for a client that missed the comment.
    again = world.client("unused").post("/wallet/refund", cast_to=object, options={"headers": paid(token)})
    assert again["token"] == comment.removeprefix(mark)
    received = world.receive(again["token"])
    assert int(again["sats"]) == received
    assert 0 < received < SATS


def test_the_sdk_reads_a_live_stream_with_change_in_it(world):
    token = world.token(SATS)
    headers = paid(token, **{"X-Cashu-Change": "stream"})
    client = world.client("unused")
    stream = client.chat.completions.create(
        model=world.model, messages=PROMPT, max_tokens=MAX_TOKENS, stream=True, extra_headers=headers
    )
    _, cost = text_and_cost(stream)
    refund = client.post("/wallet/refund", cast_to=object, options={"headers": paid(token)})
    assert world.receive(refund["token"]) == change_due(cost)


def test_a_token_pays_once_and_is_not_tried_again(world):
    token = world.token(SATS)
    client = world.client("unused")
    raw = raw_answer(client, world, token)
    log = []
    with pytest.raises(openai.APIStatusError) as caught:
        raw_answer(world.client("unused", log=log), world, token)
    assert 400 <= caught.value.status_code < 500
    assert len(log) == 1
    # The change of the request that was served is untouched by the second one.
    assert world.receive(raw.headers["x-cashu"]) == change_due(cost_of(raw.parse()))


def test_a_token_too_small_is_402_and_stays_spendable(world):
    token, log = world.token(1), []
    with pytest.raises(openai.APIStatusError) as caught:
        world.client("unused", log=log).chat.completions.create(
            model=world.model, messages=PROMPT, extra_headers=paid(token)
        )
    assert caught.value.status_code == 402
    assert caught.value.response.headers["x-cashu"].startswith("creqA"), "no request for the right amount"
    assert len(log) == 1
    assert world.receive(token) == 1


def test_an_unknown_model_leaves_the_token_alone(world):
    token, log = world.token(SATS), []
    with pytest.raises(openai.BadRequestError) as caught:
        world.client("unused", log=log).chat.completions.create(
            model="nobody/has-this", messages=PROMPT, extra_headers=paid(token)
        )
    assert caught.value.code == "invalid_model"
    assert len(log) == 1
    assert world.receive(token) == SATS


def test_two_different_credentials_are_refused(world):
    key, token = world.token(SATS), world.token(SATS)
    with pytest.raises(openai.BadRequestError):
        raw_answer(world.client(key), world, token)
    assert world.receive(key) == world.receive(token) == SATS
