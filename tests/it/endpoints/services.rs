//! Service tiers: the one that was had is charged, and the dear one only where it was asked for.

use serde_json::{Value, json};

use super::{World, start, with};
use crate::support::node::{MODEL, RICH};

const ENDPOINTS: [&str; 4] =
    ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1beta/models/rich:generateContent"];

/// A request that wants to be served like this.
fn ask(path: &str, wanted: Option<&str>, stream: bool) -> Value {
    let messages = json!([{ "role": "user", "content": "Say something worth a few satoshi." }]);
    let mut ask = match path {
        "/v1/responses" => json!({ "model": "rich", "input": "Say something.", "max_output_tokens": 200 }),
        "/v1beta/models/rich:generateContent" => {
            json!({ "contents": [{ "parts": [{ "text": "Say something." }] }], "generationConfig": { "maxOutputTokens": 200 } })
        }
        _ => json!({ "model": "rich", "max_tokens": 200, "messages": messages }),
    };
    if let Some(wanted) = wanted {
        ask["service_tier"] = json!(wanted);
    }
    if stream && !path.contains(':') {
        ask["stream"] = json!(true);
    }
    ask
}

/// An answer that says that it was served like this: 10 tokens in, of which 4 from a cache, and 50 out.
fn tell(world: &World, path: &str, served: Option<&str>, stream: bool) {
    let tier = served.map_or(json!({}), |served| json!({ "service_tier": served }));
    match path {
        "/v1/chat/completions" => {
            let usage = json!({ "prompt_tokens": 10, "completion_tokens": 50, "prompt_tokens_details": { "cached_tokens": 4 } });
            let choice = |name: &str| json!([{ "index": 0, name: { "role": "assistant", "content": "hi" }, "finish_reason": "stop" }]);
            if stream {
                let chunk = |more: Value| with(json!({ "object": "chat.completion.chunk", "model": RICH }), more);
                // Some say it at the beginning only.
                world.next_events(&[
                    with(chunk(json!({ "choices": choice("delta") })), tier),
                    chunk(json!({ "choices": [], "usage": usage })),
                ]);
            } else {
                world.next(&with(json!({ "model": RICH, "choices": choice("message"), "usage": usage }), tier));
            }
        }
        "/v1/responses" => {
            let usage =
                json!({ "input_tokens": 10, "output_tokens": 50, "input_tokens_details": { "cached_tokens": 4 } });
            let output = json!([{ "type": "message", "content": [{ "type": "output_text", "text": "hi" }] }]);
            let response =
                with(json!({ "status": "completed", "model": RICH, "output": output, "usage": usage }), tier);
            if stream {
                // What it says at the beginning is what it was asked.
                world.next_events(&[
                    json!({ "type": "response.created", "response": { "model": RICH, "usage": null, "service_tier": "auto" } }),
                    json!({ "type": "response.output_text.delta", "delta": "hi" }),
                    json!({ "type": "response.completed", "response": response }),
                ]);
            } else {
                world.next(&response);
            }
        }
        "/v1/messages" => {
            let usage = with(json!({ "input_tokens": 6, "cache_read_input_tokens": 4, "output_tokens": 50 }), tier);
            let message = json!({ "type": "message", "model": RICH, "content": [{ "type": "text", "text": "hi" }], "stop_reason": "end_turn", "usage": usage });
            if stream {
                world.next_events(&[
                    json!({ "type": "message_start", "message": with(message, json!({ "content": [] })) }),
                    json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": "hi" } }),
                    json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": { "output_tokens": 50 } }),
                    json!({ "type": "message_stop" }),
                ]);
            } else {
                world.next(&message);
            }
        }
        _ => {
            let traffic = match served {
                Some("flex") => "ON_DEMAND_FLEX",
                Some("priority") => "ON_DEMAND_PRIORITY",
                Some(_) => "ON_DEMAND",
                None => "SOMETHING_NEW",
            };
            let usage = json!({ "promptTokenCount": 10, "cachedContentTokenCount": 4, "candidatesTokenCount": 50, "trafficType": traffic });
            world.next(&json!({ "candidates": [{ "content": { "parts": [{ "text": "hi" }] }, "finishReason": "STOP" }], "usageMetadata": usage }));
        }
    }
}

/// 6 tokens of prompt, 4 of a cache, 50 of completion. Flex has no price for a cache: it is fresh input.
const STANDARD: u64 = 60 + 4 + 1000;
const FLEX: u64 = 50 + 500;
const PRIORITY: u64 = 120 + 8 + 2000;

#[tokio::test(flavor = "multi_thread")]
async fn the_service_that_was_had_is_charged_and_the_dear_one_only_where_it_was_asked_for() {
    let world = start().await;
    for path in ENDPOINTS {
        for stream in [false, true] {
            for (wanted, served, msat) in [
                (None, None, STANDARD),
                (None, Some("flex"), FLEX),
                (None, Some("priority"), STANDARD),
                (Some("default"), Some("default"), STANDARD),
                (Some("flex"), Some("flex"), FLEX),
                (Some("flex"), Some("default"), STANDARD),
                (Some("flex"), None, FLEX),
                (Some("priority"), Some("priority"), PRIORITY),
                (Some("priority"), Some("default"), STANDARD),
                (Some("priority"), Some("something-new"), PRIORITY),
                (Some("auto"), Some("priority"), PRIORITY),
                (Some("auto"), Some("flex"), FLEX),
                (Some("auto"), None, STANDARD),
            ] {
                let what = format!("{path} {stream} {wanted:?} {served:?}");
                let served = served.filter(|served| !path.contains(':') || *served != "something-new");
                tell(&world, path, served, stream);
                let answer = world.charged(&what, world.post(path, &ask(path, wanted, stream))).await;
                assert_eq!(answer.msat, msat, "{what}");
                let sent = world.upstream.last().json();
                assert_eq!(sent.get("service_tier").and_then(Value::as_str), wanted, "{what}: it is passed on");
            }
        }
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_a_price_is_refused_or_costs_what_the_usual_one_costs() {
    let world = start().await;
    for path in &ENDPOINTS[..3] {
        let asked = |tier: &str| with(ask(path, Some(tier), false), json!({ "model": MODEL }));
        let said = world.refused(path, world.post(path, &asked("priority")), 400).await;
        assert_eq!(said["error"]["code"], "modality_not_priced", "{path}");
        for tier in ["batch", "scale", "Priority"] {
            let said = world.refused(path, world.post(path, &asked(tier)), 400).await;
            assert_eq!(said["error"]["code"], "invalid_request", "{path} {tier}");
        }
        for (tier, served) in [("flex", "flex"), ("auto", "priority")] {
            tell(&world, path, Some(served), false);
            // Without a price for a cache, too.
            let answer = world.charged(path, world.post(path, &asked(tier))).await;
            assert_eq!(answer.msat, 100 + 1000, "{path} {tier}");
        }
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_the_dearest_price_that_the_answer_may_name() {
    let world = start().await;
    let path = "/v1/chat/completions";
    let mut held = Vec::new();
    for tier in [None, Some("default"), Some("flex"), Some("auto"), Some("priority")] {
        let asking = world.node.post(path).json(&ask(path, tier, false)).header("X-Cashu", "");
        let said = world.refused("asking", asking, 402).await;
        held.push(said["error"]["payment"]["required_msat"].as_u64().unwrap());
    }
    let [none, default, flex, auto, priority] = held[..] else { panic!("{held:?}") };
    assert_eq!((none, flex, auto), (default, default, priority));
    // 160 for the input and 200 tokens of output, all of which may be reasoning: at 30, which is more than the 20 of
    // output; in haste at 40, which both cost there, and the input is twice as dear.
    assert_eq!((default, priority), (160 + 200 * 30, 2 * 160 + 200 * 40));
    world.finish().await;
}
