"""Costs of coinslot against those of LiteLLM.

    compare.py RECKON [--show]

RECKON is the program of examples/reckon.rs. Prices are the text of LiteLLM's own table; usage goes through
coinslot's reading of answers where it has one. Where the two disagree, one of RULES must say why; a
disagreement that none explains, and a rule that explains nothing any more, fail. --show prints them all.
"""

import json
import os
import subprocess
import sys
from decimal import Decimal, localcontext

import litellm
from litellm.types.utils import (
    CacheCreationTokenDetails,
    CompletionTokensDetailsWrapper,
    ImageObject,
    ImageResponse,
    PromptTokensDetailsWrapper,
    Usage,
)

# The names that coinslot's list of models has for what LiteLLM's table calls otherwise. The others are read as
# they are.
NAMES = {
    "input_cost_per_token": "prompt",
    "output_cost_per_token": "completion",
    "cache_read_input_token_cost": "input_cache_read",
    "cache_creation_input_token_cost": "input_cache_write",
    "output_cost_per_reasoning_token": "internal_reasoning",
    "input_cost_per_request": "request",
}
SAME = [
    "cache_creation_input_token_cost_above_1hr",
    "input_cost_per_audio_token",
    "cache_read_input_audio_token_cost",
    "output_cost_per_audio_token",
    "input_cost_per_image_token",
    "output_cost_per_image_token",
    "output_cost_per_image",
    "input_cost_per_query",
    "input_cost_per_second",
    "input_cost_per_character",
]
TIERED = [
    "input_cost_per_token",
    "output_cost_per_token",
    "cache_read_input_token_cost",
    "cache_creation_input_token_cost",
    "cache_creation_input_token_cost_above_1hr",
    "input_cost_per_audio_token",
]

MODES = ["chat", "responses", "completion", "embedding", "rerank", "audio_speech", "audio_transcription", "image_generation"]


def table():
    """LiteLLM's table, with numbers as the text that they have in it."""
    path = os.path.join(os.path.dirname(litellm.__file__), "model_prices_and_context_window_backup.json")
    with open(path, encoding="utf-8") as file:
        return json.load(file, parse_float=str, parse_int=str)


def pricing(entry):
    prices = {"prompt": "0", "completion": "0"}
    for key, value in entry.items():
        name = NAMES.get(key) or (key if key in SAME else None)
        base, _, above = key.rpartition("_above_")
        if name is None and base in TIERED and above.endswith("k_tokens") and above[:-8].isdigit():
            name = key
        if name is not None and isinstance(value, str):
            prices[name] = value
    return prices


def chat(prompt, completion, cached=0, written=0, reasoning=0, audio_in=0, audio_out=0, image_in=0):
    """The same usage as an answer of chat/completions has it and as LiteLLM does."""
    text_in = prompt - cached - written - audio_in - image_in
    ours = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written, "audio_tokens": audio_in, "image_tokens": image_in},
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": audio_out},
    }
    theirs = Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        cache_creation_input_tokens=written or None,
        prompt_tokens_details=PromptTokensDetailsWrapper(
            cached_tokens=cached or None, audio_tokens=audio_in or None, image_tokens=image_in or None, text_tokens=text_in,
        ),
        completion_tokens_details=CompletionTokensDetailsWrapper(
            reasoning_tokens=reasoning or None, audio_tokens=audio_out or None, text_tokens=completion - reasoning - audio_out,
        ),
    )
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": ours}
    return {"path": "chat/completions", "answer": answer}, {"usage_object": theirs}


def messages(fresh, output, read=0, minutes=0, hour=0):
    """The same usage as an answer of messages has it and as LiteLLM makes of it."""
    ours = {
        "input_tokens": fresh,
        "output_tokens": output,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": minutes + hour,
        "cache_creation": {"ephemeral_5m_input_tokens": minutes, "ephemeral_1h_input_tokens": hour},
    }
    whole = fresh + read + minutes + hour
    theirs = Usage(
        prompt_tokens=whole,
        completion_tokens=output,
        total_tokens=whole + output,
        cache_creation_input_tokens=minutes + hour,
        cache_read_input_tokens=read,
        prompt_tokens_details=PromptTokensDetailsWrapper(
            cached_tokens=read,
            cache_creation_tokens=minutes + hour,
            cache_creation_token_details=CacheCreationTokenDetails(
                ephemeral_5m_input_tokens=minutes, ephemeral_1h_input_tokens=hour,
            ),
            text_tokens=fresh,
        ),
    )
    answer = {
        "id": "x", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn", "usage": ours,
    }
    return {"path": "messages", "answer": answer}, {"usage_object": theirs}


def shapes(entry):
    """Shapes of usage that make sense for a model, by name."""
    mode = entry.get("mode")
    if mode in ("chat", "responses", "completion"):
        yield "plain", chat(1000, 500)
        yield "one token", chat(1, 1)
        yield "nothing said", chat(12_345, 0)
        yield "cache read", chat(10_000, 100, cached=4_096)
        yield "all from cache", chat(4_096, 7, cached=4_096)
        yield "reasoning", chat(2_000, 800, reasoning=600)
        yield "long", chat(333_333, 1_000)
        yield "long, from cache", chat(300_001, 10, cached=299_000)
        if "cache_creation_input_token_cost" in entry:
            yield "caches of minutes", messages(100, 50, read=2_000, minutes=1_500)
            yield "long caches", messages(100, 50, read=200_000, minutes=90_000)
        if "cache_creation_input_token_cost_above_1hr" in entry:
            yield "caches of an hour", messages(7, 9, read=3_000, minutes=1_000, hour=2_000)
            yield "long caches of an hour", messages(7, 9, read=200_000, hour=100_000)
        if "input_cost_per_audio_token" in entry:
            yield "hearing", chat(1_000, 10, audio_in=700)
            if "output_cost_per_audio_token" in entry:
                yield "hearing and speaking", chat(1_000, 400, audio_in=700, audio_out=300)
        if "input_cost_per_image_token" in entry:
            yield "seeing", chat(2_000, 10, image_in=1_500)
    elif mode == "embedding":
        for count in (1, 8_191):
            usage = Usage(prompt_tokens=count, completion_tokens=0, total_tokens=count)
            yield f"embedding {count}", ({"usage": {"input": count}}, {"usage_object": usage, "call_type": "embedding"})
    elif mode == "rerank" and "input_cost_per_query" in entry:
        units = {"search_units": 3}
        yield "ranking", ({"usage": {"queries": 3}}, {"number_of_queries": 3, "rerank_billed_units": units, "call_type": "rerank"})
    elif mode == "audio_speech" and "input_cost_per_character" in entry:
        yield "reading aloud", ({"usage": {"characters": 4_096}}, {"prompt_characters": 4_096, "call_type": "speech"})
    elif mode == "audio_transcription" and "input_cost_per_second" in entry:
        usage = Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)
        yield "listening", (
            {"usage": {"audio_ms": 8_470}},
            {"audio_transcription_file_duration": 8.47, "usage_object": usage, "call_type": "transcription"},
        )
    elif mode == "image_generation" and "output_cost_per_image" in entry:
        # Those that are billed by the piece alone.
        if not any(f"{side}_cost_per_{unit}" in entry for side in ("input", "output") for unit in ("token", "pixel")):
            yield "drawing", ({"usage": {"images_made": 2}}, {"images": 2})


def theirs(name, entry, arguments):
    provider = entry.get("litellm_provider")
    if "images" in arguments:
        made = ImageResponse(created=1, data=[ImageObject(url="x")] * arguments["images"])
        cost = litellm.completion_cost(
            completion_response=made, model=name, custom_llm_provider=provider, call_type="image_generation", n=arguments["images"],
        )
        return Decimal(repr(cost))
    costs = litellm.cost_per_token(model=name, custom_llm_provider=provider, **arguments)
    return sum(Decimal(repr(cost)) for cost in costs)


def price(case, key):
    return Decimal(case["prices"].get(key, "0"))


# Why the two may disagree: a name, a reason, and what it is true of.
RULES = []


def rule(name, reason):
    def add(applies):
        RULES.append((name, reason, applies))
        return applies
    return add


@rule("ranges", "prices by ranges of length in a list of their own, which coinslot reads no prices from")
def _(case):
    return "tiered_pricing" in case["entry"]


@rule("no discount assumed", "LiteLLM halves Fireworks' price for cached tokens; coinslot gives what a list names")
def _(case):
    named = "cache_read_input_token_cost" in case["entry"]
    return case["entry"]["litellm_provider"] == "fireworks_ai" and not named and "cache" in case["shape"]


@rule("another entry", "LiteLLM prefers the entry with the provider before its name, and drops a provider that is named twice")
def _(case):
    name, provider = case["name"], case["entry"]["litellm_provider"]
    other = name.removeprefix(f"{provider}/") if name.startswith(f"{provider}/{provider}/") else f"{provider}/{name}"
    return other in case["entries"] and case["entries"][other] != case["entry"]


@rule("requests", "LiteLLM leaves out the price of a request itself")
def _(case):
    return price(case, "request") > 0


@rule("Perplexity", "LiteLLM's own reckoning for Perplexity leaves out prices of long requests and of writing to a cache")
def _(case):
    has_tiers = any("_above_" in key for key in case["entry"]) and case["shape"].startswith("long")
    return case["entry"]["litellm_provider"] == "perplexity" and (has_tiers or "caches" in case["shape"])


@rule("seconds of output", "where a second heard is free, LiteLLM takes the price of a second of output; coinslot has none")
def _(case):
    return case["shape"] == "listening" and price(case, "input_cost_per_second") == 0


@rule("names made of steps", "LiteLLM puts size and steps before such a name a second time, and does not find it")
def _(case):
    return case["theirs"] is None and "-steps/" in case["name"]


def explain(case):
    return next((name for name, _, applies in RULES if applies(case)), None)


def same(ours, theirs):
    """Theirs are floats: sixteen digits, and a few of them lost on the way."""
    with localcontext() as context:
        context.prec = 50
        return abs(ours - theirs) <= Decimal("1e-15") + abs(theirs) * Decimal("1e-11")


def main():
    show = "--show" in sys.argv
    entries = table()
    # What LiteLLM reckons must not depend on the hour of the test.
    for entry in litellm.model_cost.values():
        entry.pop("off_peak_pricing", None)
    # The one of the name is the table's own documentation.
    names = sorted(name for name, entry in entries.items() if entry.get("mode") in MODES and name != "sample_spec")
    cases = []
    for name in names:
        for shape, (mine, arguments) in shapes(entries[name]):
            case = {"name": name, "shape": shape, "entry": entries[name], "entries": entries, "mine": mine}
            case["prices"] = pricing(entries[name])
            try:
                case["theirs"] = theirs(name, entries[name], arguments)
            except Exception as error:  # whatever it raises is its answer
                case["theirs"] = None
                case["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:160]
            cases.append(case)
    lines = [json.dumps({"pricing": case["prices"], **case["mine"]}) for case in cases]
    run = subprocess.run([sys.argv[1]], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True)
    answers = run.stdout.splitlines()
    assert len(answers) == len(cases), "an answer for every case"
    agreed, explained, unexplained = 0, {}, []
    for case, answer in zip(cases, answers):
        answer = json.loads(answer)
        case["ours"] = Decimal(answer["usd"]) if "usd" in answer else None
        case["said"] = answer.get("error")
        if case["ours"] is not None and case["theirs"] is not None and same(case["ours"], case["theirs"]):
            agreed += 1
            continue
        reason = explain(case)
        if reason:
            explained.setdefault(reason, []).append(case)
        else:
            unexplained.append(case)
        if show or not reason:
            ours = case["said"] or case["ours"]
            said = case.get("error") or case["theirs"]
            print(f"{reason or 'UNEXPLAINED'}: {case['name']}, {case['shape']}: ours {ours}, LiteLLM's {said}")
    print(f"{len(names)} models, {len(cases)} cases: {agreed} agree")
    for name, reason, _ in RULES:
        print(f"{len(explained.get(name, []))} differ: {name}: {reason}")
    unused = [name for name, _, _ in RULES if name not in explained]
    if unexplained or unused:
        sys.exit(f"{len(unexplained)} disagreements are not explained; rules that explain nothing: {unused}")
    assert len(names) >= 300 and agreed >= 3 * (len(cases) - agreed), "hardly anything was compared"


if __name__ == "__main__":
    main()
