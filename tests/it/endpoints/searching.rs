//! Models that search whether they are asked to or not: each answer costs a search, where that has a price.

use serde_json::{Value, json};

use super::{World, with};
use crate::support::endpoints::answer;
use crate::support::mint::TestMint;
use crate::support::node::{TestNode, models};
use crate::support::purse::Purse;
use crate::support::upstream::{Script, Upstream, sse};

/// 10 msat a prompt token, 20 a completion token, 10,000 a search.
fn list() -> Value {
    let mut list = models();
    let entries = list["models"].as_array_mut().unwrap();
    let plain = entries[0].clone();
    for (id, prices, more) in [
        ("perplexity/sonar", json!({ "web_search": "0.01" }), json!({})),
        ("perplexity/sonar-deep-research", json!({ "web_search": "0.01" }), json!({})),
        ("openai/gpt-4o-search-preview-2025-03-11", json!({ "web_search": "0.01" }), json!({})),
        ("toy/finder", json!({ "web_search": "0.01" }), json!({ "searches_unasked": true })),
        ("toy/sonar-offline", json!({ "web_search": "0.01" }), json!({ "searches_unasked": false })),
        ("perplexity/sonar-pro", json!({ "request": "0.005" }), json!({})),
        (
            "toy/thinker",
            json!({ "internal_reasoning": "0.00003", "prompt_above_1k_tokens": "0.00002", "completion_above_1k_tokens": "0.00004" }),
            json!({}),
        ),
        ("openai/gpt-5.6", json!({ "input_cache_write": "0.0000125" }), json!({})),
        ("anthropic/claude-opus-5", json!({ "input_cache_write": "0.0000125" }), json!({})),
    ] {
        let pricing = with(plain["pricing"].clone(), prices);
        entries.push(with(with(plain.clone(), json!({ "id": id, "name": id, "pricing": pricing })), more));
    }
    list
}

const TEXT: u64 = 100 * 10 + 50 * 20;

async fn start(dir: &tempfile::TempDir) -> World {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(20_000).await;
    let upstream = Upstream::start().await;
    let path = dir.path().join("models.json");
    std::fs::write(&path, list().to_string()).unwrap();
    let node = TestNode::with(&mint, &upstream, &[("MODELS_PATH", path.to_str().unwrap())]).await;
    let key = purse.send(5_000).await;
    World { _mint: mint, purse, upstream, node, key }
}

fn chat(model: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 100 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_always_searches_costs_a_search_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let world = start(&dir).await;
    let asked = json!({ "web_search_options": {} });
    for (model, more, queries, msat) in [
        ("perplexity/sonar", json!({}), None, TEXT + 10_000),
        ("sonar", json!({}), None, TEXT + 10_000),
        ("perplexity/sonar", asked.clone(), None, TEXT + 10_000),
        // The price is one for an answer.
        ("perplexity/sonar", json!({}), Some(3), TEXT + 10_000),
        ("perplexity/sonar-deep-research", json!({}), None, TEXT + 10_000),
        ("perplexity/sonar-deep-research", asked.clone(), Some(21), TEXT + 210_000),
        // No more than is held for.
        ("perplexity/sonar-deep-research", json!({}), Some(40), TEXT + 300_000),
        ("openai/gpt-4o-search-preview-2025-03-11", json!({}), None, TEXT + 10_000),
        ("toy/finder", json!({}), None, TEXT + 10_000),
        ("toy/sonar-offline", json!({}), None, TEXT),
        ("toy/sonar-offline", asked, None, TEXT + 10_000),
        // What a request costs is all.
        ("perplexity/sonar-pro", json!({}), None, TEXT + 5_000),
        ("toy/echo-1", json!({}), Some(9), TEXT),
    ] {
        let mut usage = json!({ "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150 });
        if let Some(queries) = queries {
            usage["num_search_queries"] = json!(queries);
        }
        for stream in [false, true] {
            let what = format!("{model} {more} {queries:?} {stream}");
            let choices = json!([{ "index": 0, "message": { "content": "x" }, "finish_reason": "stop" }]);
            world.upstream.next(match stream {
                true => Script::Stream { pieces: sse(model, &["x"], Some(usage.clone())), cut: false },
                false => answer(&json!({ "id": "c", "choices": choices, "usage": usage })),
            });
            let ask = with(with(chat(model), more.clone()), json!({ "stream": stream }));
            assert_eq!(world.charged(&what, world.post("/v1/chat/completions", &ask)).await.msat, msat, "{what}");
        }
    }
    // By any other way, too; and nothing is added to what was sent.
    let ask = json!({ "model": "perplexity/sonar", "input": "hi", "store": false });
    assert_eq!(world.charged("responses", world.post("/v1/responses", &ask)).await.msat, TEXT + 10_000);
    assert_eq!(world.upstream.last().json(), ask);
    assert_eq!(world.charged("messages", world.post("/v1/messages", &chat("sonar"))).await.msat, TEXT + 10_000);
    assert_eq!(world.upstream.last().json(), chat("perplexity/sonar"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_research_read_and_thought_is_charged_beside_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let world = start(&dir).await;
    let usage = json!({ "prompt_tokens": 33, "completion_tokens": 50, "total_tokens": 83, "search_context_size": "low",
        "citation_tokens": 2_000, "num_search_queries": 2, "reasoning_tokens": 700 });
    for stream in [false, true] {
        let model = "perplexity/sonar-deep-research";
        let choices = json!([{ "index": 0, "message": { "content": "x" }, "finish_reason": "stop" }]);
        world.upstream.next(match stream {
            true => Script::Stream { pieces: sse(model, &["x"], Some(usage.clone())), cut: false },
            false => answer(&json!({ "id": "c", "choices": choices, "usage": usage })),
        });
        let ask = with(chat(model), json!({ "stream": stream }));
        let charged = world.charged("research", world.post("/v1/chat/completions", &ask)).await;
        // Two searches; and thoughts cost what the output does.
        assert_eq!(charged.msat, 2_033 * 10 + (50 + 700) * 20 + 20_000, "{stream}");
    }
    world.finish().await;
}

/// What has a price of its own for reasoning has none for that after a long input, where output is dearer.
#[tokio::test(flavor = "multi_thread")]
async fn reasoning_about_a_long_input_costs_no_less_than_output_there() {
    let dir = tempfile::tempdir().unwrap();
    let world = start(&dir).await;
    let said = json!([{ "role": "user", "content": "x".repeat(7_000) }]);
    let ask = with(chat("toy/thinker"), json!({ "messages": said }));
    for (input, msat) in [(1_000, 10_000 + 20 * 20 + 30 * 30), (2_000, 40_000 + 20 * 40 + 30 * 40)] {
        let details = json!({ "reasoning_tokens": 30 });
        let usage = json!({ "prompt_tokens": input, "completion_tokens": 50, "completion_tokens_details": details });
        let choices = json!([{ "index": 0, "message": { "content": "x" }, "finish_reason": "stop" }]);
        world.next(&json!({ "id": "c", "choices": choices, "usage": usage }));
        let answer = world.charged("long", world.post("/v1/chat/completions", &ask)).await;
        assert_eq!(answer.msat, msat, "{input}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn such_a_search_is_held_for_with_all_that_it_may_find() {
    let dir = tempfile::tempdir().unwrap();
    let world = start(&dir).await;
    for (model, msat) in [
        // The whole context of 10,000, 100 of output, and the search.
        ("perplexity/sonar", 100_000 + 2_000 + 10_000),
        ("perplexity/sonar-deep-research", 100_000 + 2_000 + 300_000),
    ] {
        let quote = world.node.post("/v1/quote").json(&chat(model)).send().await.unwrap();
        let quote: Value = quote.json().await.unwrap();
        assert_eq!(quote["required_msat"], json!(msat), "{model}: {quote}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_is_written_unasked_is_held_for() {
    let dir = tempfile::tempdir().unwrap();
    let world = start(&dir).await;
    let said =
        |model: &str| with(chat(model), json!({ "messages": [{ "role": "user", "content": "x".repeat(3_000) }] }));
    // 3,015 characters are 1,005 tokens of 10 msat, of which a twentieth more is held, as clients of this network put
    // down; and 100 of output.
    for (model, msat) in [("openai/gpt-5.6", 10_553 + 2_000), ("anthropic/claude-opus-5", 10_050 + 2_000)] {
        let quote = world.node.post("/v1/quote").json(&said(model)).send().await.unwrap();
        let quote: Value = quote.json().await.unwrap();
        assert_eq!(quote["required_msat"], json!(msat), "{model}: {quote}");
    }
    let usage = json!({ "prompt_tokens": 1_005, "prompt_tokens_details": { "cache_write_tokens": 200 }, "completion_tokens": 100 });
    let choices = json!([{ "index": 0, "message": { "content": "x" }, "finish_reason": "stop" }]);
    world.next(&json!({ "id": "c", "choices": choices, "usage": usage }));
    let answer = world.charged("written", world.post("/v1/chat/completions", &said("openai/gpt-5.6"))).await;
    assert_eq!(answer.msat, 8_050 + 2_500 + 2_000);
    world.finish().await;
}
