"""Every endpoint of the official SDKs, whole and streamed: their own accumulators get the text and
the usage that the upstream sent, and the books add up."""

import io

import anthropic
import openai
import pytest
from conftest import CALL_SECONDS, PROMPT

SATS = 1000
MSAT = 1000
RICH = "toy/rich"
"""The demo's model that has a price for everything."""
QUESTION = PROMPT[0]["content"]


@pytest.fixture
def client(world):
    return world.client(world.token(SATS))


@pytest.fixture
def claude(world):
    """Anthropic's client, which sends the token as `x-api-key`. Its base has no version."""
    with anthropic.Anthropic(
        base_url=world.base_url.removesuffix("/v1"), api_key=world.token(SATS), timeout=CALL_SECONDS
    ) as client:
        yield client


def spent(world, key: str) -> int:
    info = world.wallet_info(world.client(key))
    assert info["reserved"] == 0
    assert info["balance"] + info["total_spent"] == SATS * MSAT
    return info["total_spent"]


def cost_of(answer) -> int:
    """What an answer says it cost, in msat."""
    return answer.model_extra["cost"]["total_msats"]


def test_responses(world, client):
    answer = client.responses.create(model=RICH, input=QUESTION, max_output_tokens=100)
    assert (answer.output_text, answer.model, answer.store) == ("echo", RICH, False)
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (100, 50)
    assert cost_of(answer) == answer.usage.model_extra["cost"]["total_msats"] == spent(world, client.api_key)


def test_responses_streamed(world, client):
    with client.responses.stream(model=RICH, input=QUESTION, max_output_tokens=100) as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_response()
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert (answer.output_text, answer.model) == ("echo", RICH)
    assert cost_of(answer) == spent(world, client.api_key)


def test_responses_with_state_are_refused(world, client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=RICH, input=QUESTION, previous_response_id="resp_1")
    assert "previous_response_id" in caught.value.message
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.retrieve("resp_1")
    assert caught.value.code == "unsupported_path"
    with pytest.raises(openai.NotFoundError):
        client.files.list()


def test_legacy_completions(world, client):
    answer = client.completions.create(model=RICH, prompt="once upon", max_tokens=100)
    assert (answer.choices[0].text, answer.usage.completion_tokens) == ("echo", 50)
    cost = cost_of(answer)
    chunks = list(client.completions.create(model=RICH, prompt="once upon", max_tokens=100, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "echo"
    assert cost + cost_of(chunks[-1]) == spent(world, client.api_key)


def test_embeddings(world, client):
    """The SDK asks for base64 by itself, and decodes it."""
    text = QUESTION * 10
    one = client.embeddings.create(model=RICH, input=text)
    two = client.embeddings.create(model=RICH, input=[text, text], encoding_format="float")
    assert one.data[0].embedding == two.data[1].embedding == [1.0, -2.0]
    assert cost_of(one) + cost_of(two) == spent(world, client.api_key)


def test_moderations(world, client):
    assert not client.moderations.create(model=RICH, input=QUESTION).results[0].flagged
    assert 0 < spent(world, client.api_key) <= 2


def test_images(world, client):
    prompt = QUESTION * 10
    made = client.images.generate(model=RICH, prompt=prompt, size="1024x1024", quality="low")
    assert made.data[0].b64_json == "AAAA"
    edited = client.images.edit(model=RICH, prompt=prompt, image=io.BytesIO(b"picture"), size="1024x1024", quality="low")
    varied = client.images.create_variation(model=RICH, image=io.BytesIO(b"picture"), size="1024x1024")
    costs = [cost_of(made), cost_of(edited), cost_of(varied)]
    streamed = client.images.generate(model=RICH, prompt=prompt, size="1024x1024", quality="low", stream=True, partial_images=1)
    events = list(streamed)
    assert [event.type for event in events] == ["image_generation.partial_image", "image_generation.completed"]
    assert sum(costs) + cost_of(events[-1]) == spent(world, client.api_key)


def test_audio(world, client):
    speech = client.audio.speech.with_raw_response.create(model=RICH, voice="alloy", input=QUESTION)
    assert speech.content == b"sound"
    written = client.audio.transcriptions.create(model=RICH, file=("a.mp3", b"x" * 10_000))
    translated = client.audio.translations.create(model=RICH, file=("a.mp3", b"x" * 10_000))
    assert written.text == translated.text == "echo"
    cost = int(speech.headers["x-routstr-cost-msats"]) + cost_of(written) + cost_of(translated)
    assert cost == spent(world, client.api_key)


def test_messages(world, claude):
    answer = claude.messages.create(model=RICH, max_tokens=100, messages=PROMPT)
    assert (answer.content[0].text, answer.model, answer.stop_reason) == ("echo", RICH, "end_turn")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (100, 50)
    assert cost_of(answer) == spent(world, claude.api_key)


def test_messages_streamed(world, claude):
    with claude.messages.stream(model=RICH, max_tokens=100, messages=PROMPT) as stream:
        text = "".join(stream.text_stream)
        answer = stream.get_final_message()
    assert (text, answer.model, answer.stop_reason) == ("echo", RICH, "end_turn")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (100, 50)
    events = list(claude.messages.create(model=RICH, max_tokens=100, messages=PROMPT, stream=True))
    assert events[-1].type == "message_stop"
    cost = cost_of(events[-2])
    assert 2 * cost == spent(world, claude.api_key)


def test_tokens_are_counted(world, claude):
    assert claude.messages.count_tokens(model=RICH, messages=PROMPT).input_tokens == 42
    assert 0 < spent(world, claude.api_key) <= 2


def test_models_are_listed_for_anthropic_s_clients(world, claude):
    listed = list(claude.models.list())
    model = next(model for model in listed if model.id == RICH)
    assert model.type == "model" and model.created_at.year == 1970
    assert claude.models.retrieve("rich").id == RICH


def test_anthropic_s_errors(world, claude):
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.messages.create(model="nobody/has-this", max_tokens=100, messages=PROMPT)
    assert caught.value.body["error"]["type"] == "not_found_error"
    assert caught.value.request_id
    poor = claude.with_options(api_key=world.token(1))
    with pytest.raises(anthropic.APIStatusError) as caught:
        poor.messages.create(model=RICH, max_tokens=1000, messages=PROMPT)
    assert caught.value.status_code == 402
    assert caught.value.body["error"]["type"] == "billing_error"
    with pytest.raises(anthropic.AuthenticationError):
        claude.with_options(api_key="garbage").messages.create(model=RICH, max_tokens=100, messages=PROMPT)


def test_a_token_that_rides_along_pays_anthropic_s_client_too(world, claude):
    token = world.token(SATS)
    # The SDK insists on some key as well.
    unpaid = claude.with_options(api_key="unused")
    raw = unpaid.messages.with_raw_response.create(
        model=RICH, max_tokens=100, messages=PROMPT, extra_headers={"X-Cashu": token}
    )
    cost = cost_of(raw.parse())
    assert world.receive(raw.headers["x-cashu"]) == SATS - -(-cost // MSAT)
