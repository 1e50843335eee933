//! What a client could have the upstream do without a price for it: refused, bounded by what is held, or charged.

use serde_json::{Value, json};

use super::{start, with};
use crate::support::endpoints::answer as answer_of;
use crate::support::node::{MODEL, RICH};
use crate::support::upstream::{Script, sse, usage};

fn chat() -> Value {
    json!({ "model": RICH, "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 600 })
}

fn picture() -> Value {
    json!({ "model": RICH, "prompt": "a cat", "size": "1024x1024", "quality": "low" })
}

/// A prompt that is to be kept in a cache.
fn marked(ttl: &str) -> Value {
    let mark = json!({ "mode": "explicit", "ttl": ttl });
    json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": "hi", "prompt_cache_breakpoint": mark }] }] })
}

/// A tool that makes pictures.
fn drawing(more: Value) -> Value {
    json!({ "tools": [with(json!({ "type": "image_generation", "quality": "low" }), more)] })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_price_is_for_is_refused() {
    let world = start().await;
    let responses = json!({ "model": RICH, "input": "hi" });
    let messages = json!({ "model": RICH, "max_tokens": 100, "messages": [{ "role": "user", "content": "hi" }] });
    for (path, body, more) in [
        ("/v1/chat/completions", chat(), json!({ "tools": [{ "type": "openrouter:web_search" }] })),
        ("/v1/chat/completions", chat(), json!({ "tools": [{ "type": "browser_search" }] })),
        ("/v1/chat/completions", chat(), json!({ "models": ["toy/dearer"] })),
        ("/v1/chat/completions", chat(), json!({ "preset": "mine" })),
        ("/v1/chat/completions", chat(), json!({ "plugins": [{ "id": "web" }] })),
        ("/v1/chat/completions", chat(), json!({ "search_parameters": { "mode": "on" } })),
        ("/v1/completions", json!({ "model": RICH, "prompt": "hi" }), json!({ "models": ["toy/dearer"] })),
        // The dearest of its hosts.
        ("/v1/chat/completions", chat(), json!({ "provider": { "order": ["dear"] } })),
        ("/v1/chat/completions", chat(), json!({ "provider": { "Only": ["dear"] } })),
        ("/v1/chat/completions", chat(), json!({ "Provider": { "ignore": ["cheap"] } })),
        ("/v1/completions", json!({ "model": RICH, "prompt": "hi" }), json!({ "provider": { "sort": "throughput" } })),
        ("/v1/embeddings", json!({ "model": RICH, "input": "hi" }), json!({ "provider": { "only": ["dear"] } })),
        ("/v1/responses", responses.clone(), json!({ "provider": { "preferred_max_latency": 1 } })),
        ("/v1/messages", messages.clone(), json!({ "provider": { "quantizations": ["fp32"] } })),
        ("/v1/responses", responses.clone(), json!({ "plugins": [{ "id": "web" }] })),
        ("/v1/messages", messages.clone(), json!({ "fallbacks": [{ "model": "toy/dearer" }] })),
        ("/v1/messages", messages, json!({ "inference_geo": "us" })),
        // Kept in a cache for twice the price.
        ("/v1/responses", responses.clone(), json!({ "prompt_cache_options": { "ttl": "12h" } })),
        ("/v1/chat/completions", chat(), json!({ "prompt_cache_options": { "mode": "explicit", "ttl": "12h" } })),
        ("/v1/chat/completions", chat(), json!({ "prompt_cache_retention": "12h" })),
        ("/v1/chat/completions", chat(), marked("12h")),
        // Another model draws it.
        ("/v1/images/generations", picture(), json!({ "output_format": "svg" })),
        ("/v1/images/generations", picture(), json!({ "svg": { "model": "toy/dearer" } })),
        ("/v1/responses", responses.clone(), drawing(json!({ "output_format": "svg" }))),
        ("/v1/responses", responses, drawing(json!({ "svg": { "model": "toy/dearer" } }))),
    ] {
        world.refused(&more.to_string(), world.post(path, &with(body, more.clone())), 400).await;
    }
    let fields = [("model", "rich"), ("url", "https://example.com/a-day-of-sound.mp3")];
    let form = world.form("/v1/audio/transcriptions", ("file", b"x"), &fields);
    world.refused("a recording that lies elsewhere", form, 400).await;
    for field in [("output_format", "svg"), ("svg[model]", "toy/dearer"), ("svg", "{}")] {
        let fields = [("model", "rich"), ("prompt", "x"), field];
        world.refused(field.0, world.form("/v1/images/edits", ("image", b"x"), &fields), 400).await;
    }
    // What asks for nothing is passed on.
    let empty =
        with(chat(), json!({ "models": [], "plugins": null, "tools": [{ "type": "function", "function": {} }] }));
    world.charged("empty", world.post("/v1/chat/completions", &empty)).await;
    // What chooses no host, too.
    let hosts =
        json!({ "data_collection": "deny", "zdr": true, "order": [], "sort": "price", "max_price": { "prompt": 1 } });
    let private = json!({ "provider": hosts });
    world.charged("private", world.post("/v1/chat/completions", &with(chat(), private.clone()))).await;
    assert_eq!(world.upstream.last().json()["provider"], private["provider"]);
    let kept = json!({ "prompt_cache_options": { "mode": "explicit", "ttl": "30m" }, "prompt_cache_retention": "24h" });
    let kept = with(with(chat(), marked("30m")), kept);
    world.charged("kept", world.post("/v1/chat/completions", &kept)).await;
    let png = with(picture(), json!({ "output_format": "png", "svg": null }));
    world.charged("png", world.post("/v1/images/generations", &png)).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_a_chat_asks_for_is_charged() {
    let world = start().await;
    let ask = with(chat(), json!({ "web_search_options": {} }));
    for stream in [false, true] {
        let ask = with(ask.clone(), json!({ "stream": stream }));
        let choices = json!([{ "index": 0, "message": { "content": "x" }, "finish_reason": "stop" }]);
        world.upstream.next(match stream {
            true => Script::Stream { pieces: sse(RICH, &["x"], Some(usage(100, 10))), cut: false },
            false => answer_of(&json!({ "id": "c", "choices": choices, "usage": usage(100, 10) })),
        });
        let answer = world.charged("searched", world.post("/v1/chat/completions", &ask)).await;
        // 100 × 10, 10 × 20, and the search.
        assert_eq!(answer.msat, 1_000 + 200 + 10_000, "{stream}");
        // Without a report: 17 characters, five tokens; one of output, and the search all the same.
        let choices = json!([{ "index": 0, "message": { "content": "x" }, "finish_reason": "stop" }]);
        world.upstream.next(match stream {
            true => Script::Stream { pieces: sse(RICH, &["x"], None), cut: false },
            false => answer_of(&json!({ "id": "c", "choices": choices })),
        });
        let answer = world.charged("not reported", world.post("/v1/chat/completions", &ask)).await;
        assert_eq!(answer.msat, 50 + 20 + 10_000, "{stream}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thoughts_that_only_the_total_tells_of_are_charged() {
    let world = start().await;
    world.next(&json!({
        "choices": [{ "message": { "content": "x" }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 20, "completion_tokens": 151, "total_tokens": 553 },
    }));
    let answer = world.charged("thoughts", world.post("/v1/chat/completions", &chat())).await;
    assert_eq!(answer.msat, 20 * 10 + 151 * 20 + 382 * 30);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_of_which_nothing_is_reported_is_charged_by_its_length() {
    let world = start().await;
    let path = "/v1/audio/transcriptions";
    // At 64 kbit/s, 1.25 s of 100 msat.
    let sound = vec![b'x'; 10_000];
    world.next(&json!({ "text": "hi", "x_groq": { "id": "req_1" } }));
    let whole = world.charged("whole", world.form(path, ("file", &sound), &[("model", "rich")])).await;
    // And its text, as a token.
    assert_eq!(whole.msat, 125 + 20);
    world.next_events(&[
        json!({ "type": "transcript.text.delta", "delta": "hi" }),
        json!({ "type": "transcript.text.done", "text": "hi" }),
    ]);
    let fields = [("model", "rich"), ("stream", "true")];
    let streamed = world.charged("streamed", world.form(path, ("file", &sound), &fields)).await;
    assert_eq!(streamed.msat, 125);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_searched_than_is_held_for() {
    let world = start().await;
    let tools = json!([
        { "type": "web_search_20250305", "name": "web_search" },
        { "name": "f", "input_schema": { "type": "object" } },
    ]);
    let messages = json!({ "model": "rich", "max_tokens": 100, "messages": [{ "role": "user", "content": "hi" }] });
    world.charged("messages", world.post("/v1/messages", &with(messages, json!({ "tools": tools })))).await;
    let seen = world.upstream.last().json();
    assert_eq!(
        (&seen["tools"][0]["max_uses"], &seen["tools"][1], &seen["model"]),
        (&json!(10), &tools[1], &json!(RICH))
    );
    let responses = json!({ "model": RICH, "input": "hi", "tools": [{ "type": "web_search" }] });
    world.charged("responses", world.post("/v1/responses", &responses)).await;
    assert_eq!(world.upstream.last().json()["max_tool_calls"], json!(10));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tool_is_called_more_often_than_is_held_for() {
    let world = start().await;
    let mcp = json!({ "type": "mcp", "server_label": "s", "server_url": "https://example.com/mcp" });
    let code = json!({ "type": "code_interpreter", "container": { "type": "auto" } });
    for (tool, asked, sent) in [(&mcp, None, 10), (&code, None, 10), (&mcp, Some(3), 3), (&code, Some(100), 100)] {
        let mut ask = json!({ "model": RICH, "input": "hi", "tools": [tool] });
        if let Some(asked) = asked {
            ask["max_tool_calls"] = json!(asked);
        }
        world.charged("responses", world.post("/v1/responses", &ask)).await;
        assert_eq!(world.upstream.last().json()["max_tool_calls"], json!(sent), "{ask}");
    }
    let fetch = json!({ "type": "web_fetch_20250910", "name": "web_fetch" });
    let messages = json!({ "model": RICH, "max_tokens": 100, "messages": [{ "role": "user", "content": "hi" }] });
    world.charged("messages", world.post("/v1/messages", &with(messages.clone(), json!({ "tools": [fetch] })))).await;
    assert_eq!(world.upstream.last().json()["tools"], json!([with(fetch.clone(), json!({ "max_uses": 10 }))]));
    let many = json!({ "model": RICH, "input": "hi", "tools": [mcp], "max_tool_calls": 101 });
    world.refused("calls", world.post("/v1/responses", &many), 400).await;
    for tool in [json!({ "type": "web_search_20250305", "name": "web_search" }), fetch] {
        let many = with(messages.clone(), json!({ "tools": [with(tool, json!({ "max_uses": 101 }))] }));
        world.refused("uses", world.post("/v1/messages", &many), 400).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_is_held_for_once_more_for_each_call_of_a_tool() {
    let world = start().await;
    let tools = json!([{ "type": "mcp", "server_label": "s", "server_url": "https://example.com/mcp" }]);
    let ask = json!({ "model": MODEL, "input": "x".repeat(3_000), "max_output_tokens": 100, "tools": tools });
    // 1,000 tokens of the question, and the tool, of 10 msat each.
    let sent = 10 * (1_000 + tools.to_string().len() / 4);
    for (calls, held) in [(json!(null), 10 * sent), (json!(4), 4 * sent)] {
        let ask = with(ask.clone(), json!({ "max_tool_calls": calls }));
        let quote = world.node.post("/v1/quote/responses").json(&ask).send().await.unwrap();
        let quote: Value = quote.json().await.unwrap();
        // Beside the whole context of 10,000, and 100 tokens of 20 msat.
        assert_eq!(quote["required_msat"], json!(100_000 + 2_000 + held), "{ask}: {quote}");
    }
    // Ten calls, after each of which all was read again.
    let usage = json!({ "input_tokens": 19_000, "output_tokens": 100 });
    world.next(&json!({ "id": "resp_1", "status": "completed", "model": MODEL, "output": [], "usage": usage }));
    assert_eq!(world.charged("ten calls", world.post("/v1/responses", &ask)).await.msat, 190_000 + 2_000);
    world.finish().await;
}
