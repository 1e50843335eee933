"""A token as `api_key`: the unchanged SDK gets text, usage and cost, and the books add up."""

import asyncio

import openai
import pytest
from conftest import PROMPT

SATS = 500
MSAT = 1000
MAX_TOKENS = 16


def ask(client, world, **more):
    return client.chat.completions.create(model=world.model, messages=PROMPT, max_tokens=MAX_TOKENS, **more)


def cost_of(answer) -> int:
    """What an answer or a chunk says it cost, checked for sense, in msat."""
    cost = answer.usage.model_extra["cost"]
    total = cost["total_msats"]
    assert isinstance(total, int) and total > 0
    parts = sum(
        cost[part] for part in ("base_msats", "input_msats", "output_msats", "cache_read_msats", "cache_creation_msats")
    )
    # Every part is rounded by itself, the total once.
    assert abs(parts - total) <= 5, cost
    return total


def balance_of(world, client) -> int:
    info = world.wallet_info(client)
    assert info["api_key"].startswith("sk-")
    assert info["reserved"] == 0
    return info["balance"]


def text_and_cost(chunks) -> tuple[str, int]:
    """The text of a stream, and the one price in it."""
    text, costs = "", []
    for chunk in chunks:
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        if chunk.usage:
            assert chunk.usage.total_tokens == chunk.usage.prompt_tokens + chunk.usage.completion_tokens
            costs.append(cost_of(chunk))
    assert text, "no text"
    assert len(costs) == 1, f"{len(costs)} chunks told a price"
    return text, costs[0]


def test_plain(world):
    client = world.client(world.token(SATS))
    answer = ask(client, world)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.model == world.model
    assert answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens > 0
    cost = cost_of(answer)
    left = SATS * MSAT - cost
    assert answer.usage.model_extra["cost_sats"] == cost // MSAT
    assert answer.usage.model_extra["remaining_balance_msats"] == left
    assert answer.metadata["routstr"]["cost"]["total_msats"] == cost
    assert answer.model_extra["cost"]["total_msats"] == cost
    assert balance_of(world, client) == left


def test_raw_response_tells_the_cost_in_headers(world):
    client = world.client(world.token(SATS))
    raw = client.chat.completions.with_raw_response.create(model=world.model, messages=PROMPT, max_tokens=MAX_TOKENS)
    cost = cost_of(raw.parse())
    assert raw.headers["x-routstr-cost-msats"] == str(cost)
    assert raw.headers["x-routstr-request-id"]
    assert "x-cashu" not in raw.headers
    assert balance_of(world, client) == SATS * MSAT - cost


def test_stream_with_usage(world):
    client = world.client(world.token(SATS))
    chunks = list(ask(client, world, stream=True, stream_options={"include_usage": True}))
    _, cost = text_and_cost(chunks)
    assert chunks[-1].usage and chunks[-1].choices == []
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.model for chunk in chunks} == {world.model}
    assert balance_of(world, client) == SATS * MSAT - cost


def test_stream_without_usage_never_shows_a_chunk_without_choices(world):
    client = world.client(world.token(SATS))
    chunks = list(ask(client, world, stream=True))
    assert all(len(chunk.choices) == 1 for chunk in chunks)
    _, cost = text_and_cost(chunks)
    assert balance_of(world, client) == SATS * MSAT - cost


def test_stream_helper_collects_the_answer(world):
    """The SDK's own accumulator, which is strict about what a chunk may be."""
    client = world.client(world.token(SATS))
    options = {"include_usage": True}
    with client.chat.completions.stream(
        model=world.model, messages=PROMPT, max_tokens=MAX_TOKENS, stream_options=options
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content
    assert balance_of(world, client) == SATS * MSAT - cost_of(final)


def test_a_stream_left_early_is_charged_and_the_rest_stays(world):
    client = world.client(world.token(SATS))
    with ask(client, world, stream=True) as stream:
        next(iter(stream))
    # The node reads the rest of the answer to learn what it cost.
    answer = ask(client, world)
    info = world.wallet_info(client)
    assert info["total_spent"] + info["balance"] + info["reserved"] == SATS * MSAT
    assert info["total_spent"] >= cost_of(answer)


def test_async(world):
    async def run():
        async with world.async_client(world.token(SATS)) as client:
            answer = await ask(client, world)
            assert answer.choices[0].message.content
            chunks = [chunk async for chunk in await ask(client, world, stream=True)]
            raw = await client.chat.completions.with_raw_response.create(
                model=world.model, messages=PROMPT, max_tokens=MAX_TOKENS
            )
            spent = cost_of(answer) + text_and_cost(chunks)[1] + int(raw.headers["x-routstr-cost-msats"])
            info = await client.get("/wallet/info", cast_to=object)
            assert info["balance"] == SATS * MSAT - spent
            assert info["total_spent"] == spent

    asyncio.run(run())


def test_parallel_requests_with_one_fresh_token_draw_one_balance(world):
    """The first requests race for the redemption; one wins, all are served."""

    async def run():
        async with world.async_client(world.token(SATS)) as client:
            answers = await asyncio.gather(*(ask(client, world) for _ in range(12)))
            spent = sum(cost_of(answer) for answer in answers)
            info = await client.get("/wallet/info", cast_to=object)
            assert info["balance"] == SATS * MSAT - spent
            assert info["total_requests"] == len(answers)

    asyncio.run(run())


def test_many_requests_one_token_add_up(world):
    client = world.client(world.token(SATS))
    spent = 0
    for turn in range(10):
        if turn % 2:
            spent += text_and_cost(ask(client, world, stream=True))[1]
        else:
            spent += cost_of(ask(client, world))
    assert balance_of(world, client) == SATS * MSAT - spent


def test_the_key_behind_the_token_is_the_same_balance(world):
    client = world.client(world.token(SATS))
    cost = cost_of(ask(client, world))
    key = world.client(world.wallet_info(client)["api_key"])
    cost += cost_of(ask(key, world))
    assert balance_of(world, client) == balance_of(world, key) == SATS * MSAT - cost


def test_refund_ends_the_balance_and_adds_up(world):
    client = world.client(world.token(SATS))
    cost = cost_of(ask(client, world))
    refund = client.post("/wallet/refund", cast_to=object)
    whole = (SATS * MSAT - cost) // MSAT
    assert refund["sats"] == str(whole)
    assert world.receive(refund["token"]) == whole


def test_models_are_listed(world):
    listed = world.client("unused").models.list()
    model = next(model for model in listed.data if model.id == world.model)
    assert float(model.model_extra["pricing"]["prompt"]) > 0
    assert model.model_extra["sats_pricing"]["max_cost"] > 0


@pytest.mark.parametrize("key", ["sk-nothing-of-the-kind", "garbage", "sk-" + "0" * 64])
def test_a_garbage_key_is_401(world, key):
    log = []
    with pytest.raises(openai.AuthenticationError) as caught:
        ask(world.client(key, log=log), world)
    assert caught.value.status_code == 401
    assert caught.value.code == "invalid_api_key"
    assert caught.value.type == "invalid_request_error"
    assert len(log) == 1


def test_a_token_too_small_is_402_and_stays_spendable(world):
    token, log = world.token(1), []
    with pytest.raises(openai.APIStatusError) as caught:
        # No limit on the output: the dearest possible answer has to be covered.
        world.client(token, log=log).chat.completions.create(model=world.model, messages=PROMPT)
    assert caught.value.status_code == 402
    assert caught.value.code == "insufficient_balance"
    assert caught.value.type == "insufficient_quota"
    assert caught.value.response.headers["x-routstr-request-id"]
    assert len(log) == 1, "a refusal for money was tried again"
    assert world.receive(token) == 1


def test_an_unknown_model_is_400_and_costs_nothing(world):
    token, log = world.token(SATS), []
    with pytest.raises(openai.BadRequestError) as caught:
        world.client(token, log=log).chat.completions.create(model="nobody/has-this", messages=PROMPT)
    assert caught.value.code == "invalid_model"
    assert len(log) == 1
    assert world.receive(token) == SATS


def test_a_spent_token_is_refused(world):
    token = world.token(SATS)
    assert world.receive(token) == SATS
    log = []
    with pytest.raises(openai.APIStatusError) as caught:
        ask(world.client(token, log=log), world)
    assert 400 <= caught.value.status_code < 500
    assert "already_spent" in caught.value.code
    assert len(log) == 1


def test_a_cut_token_is_refused(world):
    token = world.token(SATS)
    with pytest.raises(openai.APIStatusError) as caught:
        ask(world.client(token[:-9]), world)
    assert caught.value.status_code in (400, 401)
    assert world.receive(token) == SATS
