//! Anthropic's Messages.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{World, start, with};
use crate::support::node::{MODEL, RICH, UPSTREAM_KEY};
use crate::support::upstream::Script;

fn ask() -> Value {
    json!({
        "model": "rich", "max_tokens": 200, "system": [{ "type": "text", "text": "s".repeat(600), "cache_control": { "type": "ephemeral", "ttl": "1h" } }],
        "messages": [{ "role": "user", "content": "Say something worth a few satoshi." }],
    })
}

impl World {
    /// As Anthropic's SDK sends it.
    fn messages(&self, path: &str, body: &Value) -> RequestBuilder {
        self.node.post(path).json(body).header("x-api-key", &self.key).header("anthropic-version", "2023-06-01")
    }
}

fn message(usage: &Value) -> Value {
    json!({ "id": "msg_1", "type": "message", "role": "assistant", "model": RICH, "content": [{ "type": "text", "text": "hi" }], "stop_reason": "end_turn", "usage": usage })
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_charged_to_the_msat_whole_and_streamed() {
    let world = start().await;
    let searching =
        with(ask(), json!({ "tools": [{ "type": "web_search_20250305", "name": "web_search", "max_uses": 2 }] }));
    for (what, body, usage, msat) in [
        ("plain", ask(), json!({ "input_tokens": 100, "output_tokens": 50 }), 1000 + 1000),
        (
            "caches, which are beside the input",
            ask(),
            json!({ "input_tokens": 10, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 30, "cache_creation": { "ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10 }, "output_tokens": 50 }),
            100 + 40 + 250 + 200 + 1000,
        ),
        (
            "a compaction, which has caches of its own",
            ask(),
            json!({ "input_tokens": 10, "output_tokens": 50, "iterations": [{ "type": "message" },
                { "type": "compaction", "input_tokens": 7, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 30, "cache_creation": { "ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10 }, "output_tokens": 3 }] }),
            17 * 10 + 40 + 250 + 200 + 53 * 20,
        ),
        (
            "a cache that all of it goes to, for an hour",
            with(ask(), json!({ "system": "s".repeat(600), "cache_control": { "type": "ephemeral", "ttl": "1h" } })),
            json!({ "input_tokens": 0, "cache_creation_input_tokens": 210, "cache_creation": { "ephemeral_1h_input_tokens": 210 }, "output_tokens": 200 }),
            4200 + 4000,
        ),
        (
            "a document that lies elsewhere",
            with(
                ask(),
                json!({ "messages": [{ "role": "user", "content": [{ "type": "document", "source": { "type": "url", "url": "https://x/y.pdf" } }] }] }),
            ),
            json!({ "input_tokens": 9000, "output_tokens": 50 }),
            90_000 + 1000,
        ),
        (
            "searches",
            searching,
            json!({ "input_tokens": 1000, "output_tokens": 50, "server_tool_use": { "web_search_requests": 2 } }),
            10_000 + 1000 + 20_000,
        ),
    ] {
        world.next(&message(&usage));
        let whole = world.charged(what, world.messages("/v1/messages", &body)).await;
        assert_eq!(whole.msat, msat, "{what}");
        let told = whole.json();
        assert_eq!((&told["usage"]["cost"]["total_msats"], &told["model"]), (&json!(msat), &json!("rich")), "{what}");
        // What an answer tells of its caches, and what these cost, is of the same tokens.
        if what == "a cache that all of it goes to, for an hour" {
            let bill = &told["usage"]["cost"];
            assert_eq!(
                (&bill["cache_creation_input_tokens"], &bill["cache_creation_msats"]),
                (&json!(210), &json!(4200))
            );
        }
        let mut early = usage.clone();
        early["output_tokens"] = json!(1);
        let start = json!({ "id": "msg_1", "type": "message", "role": "assistant", "model": RICH, "content": [], "usage": early });
        world.next_events(&[
            json!({ "type": "message_start", "message": start }),
            json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
            json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": "hi" } }),
            json!({ "type": "content_block_stop", "index": 0 }),
            json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": { "output_tokens": usage["output_tokens"] } }),
            json!({ "type": "message_stop" }),
        ]);
        let streamed =
            world.charged(what, world.messages("/v1/messages", &with(body, json!({ "stream": true })))).await;
        assert_eq!(streamed.msat, msat, "{what}, streamed");
        let events = streamed.events();
        assert_eq!(events[0]["message"]["model"], "rich", "{what}");
        let told = &events[events.len() - 2];
        assert_eq!(
            (&told["usage"]["cost"]["total_msats"], &told["provider"]),
            (&json!(msat), &json!("generic")),
            "{what}"
        );
        assert_eq!(events[events.len() - 1], json!({ "type": "message_stop" }), "{what}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_spoken_to_as_anthropic_wants_it() {
    let world = start().await;
    let request = world.messages("/v1/messages", &ask());
    let request = request
        .header("anthropic-beta", "claude-code-20250219,files-api-2025-04-14")
        .header("x-stainless-lang", "python");
    world.charged("headers", request).await;
    let seen = world.upstream.last();
    assert_eq!((seen.target.as_str(), &seen.headers["x-api-key"]), ("/v1/messages", &UPSTREAM_KEY.parse().unwrap()));
    assert_eq!(seen.headers["anthropic-version"], "2023-06-01");
    assert_eq!(seen.headers["anthropic-beta"], "claude-code-20250219");
    assert!(!seen.headers.contains_key("authorization") && !seen.headers.contains_key("x-stainless-lang"));
    assert_eq!(seen.json(), with(ask(), json!({ "model": RICH })));
    // Counting tokens consumes none: the least that a request costs.
    let mut count = ask();
    count.as_object_mut().unwrap().remove("max_tokens");
    let counted = world.charged("count", world.messages("/v1/messages/count_tokens", &count)).await;
    assert_eq!((counted.msat, counted.json()), (1, json!({ "input_tokens": 42 })));
    assert_eq!(world.upstream.last().target, "/v1/messages/count_tokens");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_anthropics() {
    let world = start().await;
    let mut unlimited = ask();
    unlimited.as_object_mut().unwrap().remove("max_tokens");
    let searching = json!({ "model": MODEL, "tools": [{ "type": "web_search_20250305", "name": "web_search" }] });
    for (what, body, status, kind, code) in [
        ("no limit", unlimited, 400, "invalid_request_error", "invalid_request"),
        ("unpriced", with(ask(), searching), 400, "invalid_request_error", "modality_not_priced"),
        ("unknown", with(ask(), json!({ "model": "no-such" })), 404, "not_found_error", "invalid_model"),
        ("files", with(ask(), json!({ "container": "c" })), 400, "invalid_request_error", "invalid_request"),
    ] {
        let said = world.refused(what, world.messages("/v1/messages", &body), status).await;
        assert_eq!((&said["type"], &said["error"]["type"]), (&json!("error"), &json!(kind)), "{what}: {said}");
        assert_eq!(said["error"]["code"], code, "{what}: {said}");
        assert!(said["request_id"].is_string() && said["error"]["message"].is_string(), "{what}: {said}");
    }
    let nobody = world.node.post("/v1/messages").json(&ask()).header("anthropic-version", "2023-06-01");
    let said = world.refused("nobody", nobody, 401).await;
    assert_eq!((&said["type"], &said["error"]["type"]), (&json!("error"), &json!("authentication_error")));
    let asking = world.node.post("/v1/messages").json(&ask()).header("X-Cashu", "");
    let asking = asking.header("anthropic-version", "2023-06-01");
    let said = world.refused("asking", asking, 402).await;
    assert_eq!((&said["type"], &said["error"]["type"]), (&json!("error"), &json!("billing_error")));
    assert!(said["error"]["payment"]["required_msat"].as_u64().is_some_and(|msat| msat > 0), "{said}");
    too_little_is_told_each_client_in_its_own_words(&world).await;
    // Who could serve it has too much to do: the status that Anthropic's clients know for that.
    for status in [503, 529] {
        let body = json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" } });
        world.upstream.next(Script::Refuse {
            status,
            headers: vec![("retry-after", "7".into())],
            body: body.to_string(),
        });
        let answer = world.messages("/v1/messages", &ask()).send().await.unwrap();
        let told = answer.headers()["retry-after"].to_str().unwrap().to_owned();
        assert_eq!((answer.status().as_u16(), &*told), (529, "7"));
        let said: Value = answer.json().await.unwrap();
        assert_eq!(
            (&said["error"]["type"], &said["error"]["code"]),
            (&json!("overloaded_error"), &json!("upstream_error"))
        );
    }
    // In a stream that has begun.
    world.next_events(&[
        json!({ "type": "message_start", "message": { "model": RICH, "usage": { "input_tokens": 100, "output_tokens": 1 } } }),
        json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": "x".repeat(40) } }),
        json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" } }),
    ]);
    let broken = world.charged("broken", world.messages("/v1/messages", &with(ask(), json!({ "stream": true })))).await;
    // What was delivered: the input that was reported, and ten tokens of text.
    assert_eq!(broken.msat, 1000 + 200);
    let last = broken.events().pop().unwrap();
    assert_eq!((&last["type"], &last["error"]["type"]), (&json!("error"), &json!("api_error")));
    world.finish().await;
}

/// Clients of this network fill a key up again on one type and code alone, and send none of Anthropic's headers.
async fn too_little_is_told_each_client_in_its_own_words(world: &World) {
    let poor = world.purse.send(1).await;
    let post = || world.node.post("/v1/messages").json(&ask());
    for anthropics in [
        post().header("x-api-key", &poor),
        post().bearer_auth(&poor).header("anthropic-version", "2023-06-01"),
        post().header("x-api-key", &poor).header("anthropic-version", "2023-06-01"),
    ] {
        let said = world.refused("anthropic's", anthropics, 402).await;
        assert_eq!((&said["type"], &said["error"]["type"]), (&json!("error"), &json!("billing_error")), "{said}");
        assert!(said["error"]["code"] == "insufficient_balance" && said["detail"].is_null(), "{said}");
    }
    let said = world.refused("the network's", post().bearer_auth(&poor), 402).await;
    assert_eq!(said["type"], Value::Null, "{said}");
    let error = &said["error"];
    assert_eq!((&error["type"], &error["code"]), (&json!("insufficient_quota"), &json!("insufficient_balance")));
    assert_eq!(&said["detail"]["error"], error);
    let counting = world.node.post("/v1/messages/count_tokens").json(&ask());
    let said = world.refused("nobody", counting, 401).await;
    assert_eq!((&said["detail"], &said["error"]["code"]), (&json!("Unauthorized"), &json!("unauthorized")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_rides_along_gets_its_change() {
    let world = start().await;
    for (stream, live) in [(false, false), (true, false), (true, true)] {
        let token = world.purse.send(100).await;
        let request = world.node.post("/v1/messages").json(&with(ask(), json!({ "stream": stream })));
        let request = request.header("X-Cashu", &token).header("X-Cashu-Change", if live { "stream" } else { "" });
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let header = answer.headers().get("x-cashu").map(|value| value.to_str().unwrap().to_owned());
        let body = answer.text().await.unwrap();
        let comment = body.lines().find_map(|line| line.strip_prefix(": x-cashu ")).map(str::to_owned);
        assert_eq!((header.is_some(), comment.is_some()), (!live, stream), "{body}");
        // 100 × 10 + 50 × 20 msat are two sats.
        assert_eq!(world.purse.receive(&header.or(comment).unwrap()).await.unwrap(), 98);
        if stream {
            assert!(body.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"), "{body}");
        }
    }
    world.finish().await;
}
