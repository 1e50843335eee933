//! OpenAI's Responses, without state.

use serde_json::{Value, json};

use super::{World, start, with};
use crate::support::node::{MODEL, RICH};

fn ask() -> Value {
    json!({ "model": "rich", "input": "Say something worth a few satoshi.", "max_output_tokens": 200, "reasoning": { "effort": "low" } })
}

fn response(usage: Value, more: Value) -> Value {
    let output =
        json!([{ "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "hi" }] }]);
    with(
        json!({ "id": "resp_1", "object": "response", "status": "completed", "model": RICH, "output": output, "usage": usage }),
        more,
    )
}

async fn both(world: &World, what: &str, body: &Value, answer: &Value, msat: u64) {
    world.next(answer);
    let whole = world.charged(what, world.post("/v1/responses", body)).await;
    assert_eq!(whole.msat, msat, "{what}");
    assert_eq!(whole.json()["usage"]["cost"]["total_msats"], msat, "{what}");
    world.next_events(&[
        json!({ "type": "response.created", "response": { "id": "resp_1", "model": RICH, "usage": null } }),
        json!({ "type": "response.output_text.delta", "delta": "hi" }),
        json!({ "type": "response.completed", "response": answer }),
    ]);
    let streamed = with(body.clone(), json!({ "stream": true }));
    let streamed = world.charged(what, world.post("/v1/responses", &streamed)).await;
    assert_eq!(streamed.msat, msat, "{what}, streamed");
    let last = streamed.events().pop().unwrap();
    assert_eq!(
        (&last["type"], &last["response"]["usage"]["cost"]["total_msats"]),
        (&json!("response.completed"), &json!(msat))
    );
    assert_eq!((&last["cost"], &last["cost"]["total_msats"]), (&last["response"]["cost"], &json!(msat)), "{what}");
    for told in [&whole.json(), &last, &last["response"]] {
        assert_eq!(told["provider"], "generic", "{what}");
    }
    assert_eq!(last["response"]["model"], body["model"], "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_are_charged_to_the_msat_whole_and_streamed() {
    let world = start().await;
    let searching = with(ask(), json!({ "tools": [{ "type": "web_search" }], "max_tool_calls": 6 }));
    let call = |more: Value| with(json!({ "type": "web_search_call", "id": "ws_1", "status": "completed" }), more);
    for (what, body, answer, msat) in [
        (
            "plain",
            ask(),
            response(json!({ "input_tokens": 10, "output_tokens": 50, "total_tokens": 60 }), json!({})),
            100 + 1000,
        ),
        (
            "cached and reasoned",
            ask(),
            response(
                json!({ "input_tokens": 100, "input_tokens_details": { "cached_tokens": 60 }, "output_tokens": 50, "output_tokens_details": { "reasoning_tokens": 20 } }),
                json!({}),
            ),
            40 * 10 + 60 + 30 * 20 + 20 * 30,
        ),
        (
            "searched",
            searching.clone(),
            response(
                json!({ "input_tokens": 1000, "output_tokens": 50 }),
                json!({ "tool_usage": { "web_search": { "num_requests": 3 } } }),
            ),
            10_000 + 1000 + 30_000,
        ),
        (
            "searched, and looked at pages",
            searching,
            response(
                json!({ "input_tokens": 1000, "output_tokens": 50 }),
                json!({ "output": [
                    call(json!({})),
                    call(json!({ "action": { "type": "search", "query": "q" } })),
                    call(json!({ "action": { "type": "open_page", "url": "https://x" } })),
                    call(json!({ "action": { "type": "find_in_page", "pattern": "p" } })),
                    call(json!({ "action": { "type": "search", "query": "q" }, "status": "failed" })),
                ] }),
            ),
            10_000 + 1000 + 20_000,
        ),
    ] {
        both(&world, what, &body, &answer, msat).await;
    }
    let seen = world.upstream.last();
    assert_eq!(seen.target, "/v1/responses");
    let sent = seen.json();
    assert_eq!((&sent["store"], &sent["model"]), (&json!(false), &json!(RICH)));
    // What the toy says by itself, through the client's name for the model.
    let answer = world.charged("echo", world.post("/v1/responses", &with(ask(), json!({ "store": true })))).await;
    assert_eq!(answer.json()["model"], "rich");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_that_the_upstream_runs_are_charged_by_picture_and_by_container() {
    let world = start().await;
    let picture = json!({ "type": "image_generation", "size": "1024x1536", "quality": "low" });
    let code = json!({ "type": "code_interpreter", "container": { "type": "auto" } });
    let made = json!({ "type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "AAAA" });
    let ran = |container: &str| json!({ "type": "code_interpreter_call", "container_id": container, "code": "1 + 1" });
    let usage = json!({ "input_tokens": 10, "output_tokens": 50 });
    let text = 100 + 1000;
    let said = json!({ "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "hi" }] });
    let sent = |tool: &Value| {
        let chars = ask()["input"].as_str().unwrap().len() + json!([tool]).to_string().len();
        u64::try_from(chars.div_ceil(4)).unwrap()
    };
    let answer = |output: Value, more: Value| with(response(usage.clone(), more), json!({ "output": output }));
    for (what, tool, answer, msat) in [
        (
            "pictures by token",
            &picture,
            answer(
                json!([made]),
                json!({ "tool_usage": { "image_gen": { "input_tokens": 30, "output_tokens": 408 } } }),
            ),
            text + 30 * 15 + 408 * 60,
        ),
        (
            "pictures by token, made of text and of what a cache served",
            &picture,
            answer(
                json!([made]),
                json!({ "tool_usage": { "image_gen": { "input_tokens": 30, "input_tokens_details": { "text_tokens": 16, "image_tokens": 10, "cached_tokens": 4 }, "output_tokens": 408 } } }),
            ),
            text + 16 * 10 + 4 + 10 * 15 + 408 * 60,
        ),
        ("pictures by piece", &picture, answer(json!([made, made]), json!({})), text + 2 * 60_000),
        // Of which nothing is reported: two characters are a token, and what was sent is one for four.
        (
            "a picture without a report",
            &picture,
            with(answer(json!([made, said]), json!({})), json!({ "usage": null })),
            sent(&picture) * 10 + 20 + 60_000,
        ),
        (
            "code without a report",
            &code,
            with(answer(json!([ran("cntr_1"), said]), json!({})), json!({ "usage": null })),
            sent(&code) * 10 + 20 + 5000,
        ),
        ("no picture", &picture, answer(json!([{ "type": "message", "content": [] }]), json!({})), text),
        ("code", &code, answer(json!([ran("cntr_1"), ran("cntr_1")]), json!({})), text + 5000),
        ("no code", &code, answer(json!([{ "type": "message", "content": [] }]), json!({})), text),
    ] {
        both(&world, what, &with(ask(), json!({ "tools": [tool] })), &answer, msat).await;
        assert_eq!(world.upstream.last().json()["tools"], json!([tool]), "{what}");
    }
    for tool in [&picture, &code] {
        let unpriced = with(ask(), json!({ "model": MODEL, "tools": [tool] }));
        let said = world.refused("unpriced", world.post("/v1/responses", &unpriced), 400).await;
        assert_eq!(said["error"]["code"], "modality_not_priced", "{tool}");
    }
    // An event may be as long as a picture is.
    let large = json!({ "type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "A".repeat(6_000_000) });
    world.next_events(&[
        json!({ "type": "response.output_item.added", "item": { "type": "image_generation_call" } }),
        json!({ "type": "response.completed", "response": answer(json!([large]), json!({})) }),
    ]);
    let streamed = with(ask(), json!({ "tools": [picture], "stream": true }));
    let streamed = world.charged("large", world.post("/v1/responses", &streamed)).await;
    assert_eq!(streamed.msat, text + 60_000);
    assert_eq!(streamed.events()[1]["response"]["output"][0], large);
    // So may what a tool has brought be.
    let mcp = json!({ "type": "mcp", "server_label": "s", "server_url": "https://example.com/mcp" });
    let logs = json!([{ "type": "logs", "logs": "x".repeat(6_000_000) }]);
    for (tool, item, more) in [
        (&code, with(ran("cntr_1"), json!({ "outputs": logs })), 5000),
        (&mcp, json!({ "type": "mcp_call", "name": "f", "output": "x".repeat(6_000_000) }), 0),
    ] {
        world.next_events(&[
            json!({ "type": "response.output_text.delta", "delta": "hi" }),
            json!({ "type": "response.completed", "response": answer(json!([item]), json!({})) }),
        ]);
        let streamed = with(ask(), json!({ "tools": [tool], "stream": true }));
        let streamed = world.charged("brought", world.post("/v1/responses", &streamed)).await;
        assert_eq!(streamed.msat, text + more, "{tool}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_state_is_refused() {
    let world = start().await;
    for more in [
        json!({ "previous_response_id": "resp_1" }),
        json!({ "conversation": "conv_1" }),
        json!({ "background": true }),
        json!({ "prompt": { "id": "pmpt_1" } }),
        json!({ "input": [{ "type": "item_reference", "id": "msg_1" }] }),
        json!({ "input": [{ "id": "msg_1" }] }),
        json!({ "tools": [{ "type": "file_search", "vector_store_ids": ["vs_1"] }] }),
        json!({ "tools": [{ "type": "code_interpreter", "container": "cntr_1" }] }),
        json!({ "input": [{ "type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1" }] }),
        json!({ "input": [{ "type": "image_generation_call", "id": "ig_1" }] }),
        json!({ "input": [{ "type": "computer_call_output", "call_id": "c", "output": { "type": "computer_screenshot", "file_id": "file_1" } }] }),
        // Nor are tools that would be run without being held for.
        json!({ "input": [{ "type": "tool_search_output", "call_id": "c", "tools": [{ "type": "web_search" }] }] }),
        json!({ "input": [{ "type": "tool_search_output", "tools": [{ "type": "namespace", "name": "n", "tools": [{ "type": "mcp" }] }] }] }),
        json!({ "tools": [{ "type": "namespace", "name": "n", "tools": [{ "type": "image_generation" }] }] }),
    ] {
        let said = world.refused(&more.to_string(), world.post("/v1/responses", &with(ask(), more.clone())), 400).await;
        assert_eq!(
            (&said["error"]["type"], &said["error"]["code"]),
            (&json!("invalid_request_error"), &json!("invalid_request"))
        );
    }
    // What the client runs itself may come from a search for tools, or in a namespace; a screenshot as it is.
    let function = json!({ "type": "function", "name": "f", "parameters": {} });
    let namespace = json!({ "type": "namespace", "name": "n", "description": "d", "tools": [function] });
    let found = json!({ "type": "tool_search_output", "call_id": "c", "tools": [function, namespace] });
    let listed = json!({ "type": "mcp_list_tools", "server_label": "s", "tools": [{ "name": "f", "input_schema": { "type": "object" } }] });
    let seen = json!({ "type": "computer_call_output", "call_id": "c", "output": { "type": "computer_screenshot", "image_url": "https://x/y.png" } });
    let whole = with(ask(), json!({ "input": [found, listed, seen], "tools": [namespace] }));
    world.charged("of the client's own", world.post("/v1/responses", &whole)).await;
    // A search of a model that has no price for it.
    let searching = with(ask(), json!({ "model": MODEL, "tools": [{ "type": "web_search" }] }));
    let said = world.refused("unpriced", world.post("/v1/responses", &searching), 400).await;
    assert_eq!(said["error"]["code"], "modality_not_priced");
    let upgrade = world.node.get("/v1/responses").header("Connection", "Upgrade").header("Upgrade", "websocket");
    let upgrade = upgrade.header("Sec-WebSocket-Version", "13").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    world.refused("websocket", upgrade, 426).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_fails_after_its_first_words_says_so() {
    let world = start().await;
    world.next_events(&[
        json!({ "type": "response.created", "response": { "id": "resp_1", "created_at": 5, "model": RICH }, "sequence_number": 0 }),
        json!({ "type": "response.output_text.delta", "delta": "x".repeat(400), "sequence_number": 1 }),
        json!({ "type": "response.failed", "response": { "error": { "message": "overloaded" } }, "sequence_number": 2 }),
    ]);
    let streamed = with(ask(), json!({ "stream": true, "instructions": "i".repeat(400) }));
    let answer = world.charged("failed", world.post("/v1/responses", &streamed)).await;
    let last = answer.events().pop().unwrap();
    assert_eq!((&last["type"], &last["response"]["id"]), (&json!("response.failed"), &json!("resp_1")));
    assert_eq!(last["response"]["model"], "rich");
    // 434 and 400 characters, four a token.
    assert_eq!(answer.msat, 109 * 10 + 100 * 20);
    // Before its first words it is a plain failure, and free.
    world.next_events(&[json!({ "type": "response.failed", "response": { "error": { "message": "overloaded" } } })]);
    let answer = world.post("/v1/responses", &streamed).send().await.unwrap();
    assert_eq!(answer.status(), 502);
    // However often what the client sent comes before them.
    let instructions = "i".repeat(400_000);
    let echo =
        |kind: &str| json!({ "type": kind, "response": { "id": "resp_1", "instructions": "i".repeat(600_000) } });
    world.next_events(&[
        echo("response.created"),
        echo("response.in_progress"),
        json!({ "type": "response.failed", "response": { "error": { "message": "overloaded" } } }),
    ]);
    let long = json!({ "model": MODEL, "input": "hi", "max_output_tokens": 200, "stream": true, "instructions": instructions });
    let answer = world.post("/v1/responses", &long).send().await.unwrap();
    assert_eq!(answer.status(), 502, "{}", answer.text().await.unwrap());
    world.finish().await;
}
