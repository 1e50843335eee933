//! The endpoints of OpenAI's API beside chat.

use serde_json::json;

use super::{start, with};
use crate::support::node::{MODEL, RICH};

#[tokio::test(flavor = "multi_thread")]
async fn legacy_completions_are_charged_like_chat() {
    let world = start().await;
    let ask = json!({ "model": "echo-1", "prompt": "once upon", "max_tokens": 100 });
    let answer = world.charged("whole", world.post("/v1/completions", &ask)).await;
    // 100 × 10 + 50 × 20
    assert_eq!(answer.msat, 2000);
    let body = answer.json();
    assert_eq!((&body["choices"][0]["text"], &body["model"]), (&json!("echo"), &json!("echo-1")));
    assert_eq!(body["usage"]["cost"]["total_msats"], 2000);
    let seen = world.upstream.last();
    assert_eq!((seen.target.as_str(), &seen.json()["model"]), ("/v1/completions", &json!(MODEL)));

    let answer =
        world.charged("streamed", world.post("/v1/completions", &with(ask.clone(), json!({ "stream": true })))).await;
    assert_eq!(answer.msat, 2000);
    assert_eq!(world.upstream.last().json()["stream_options"], json!({ "include_usage": true }));
    let events = answer.events();
    assert!(events.iter().all(|event| event["choices"][0]["text"].is_string() && event["model"] == "echo-1"));
    assert_eq!(events.last().unwrap()["usage"]["cost"]["total_msats"], 2000);
    assert!(answer.body.ends_with("data: [DONE]\n\n"));

    for (more, status) in [
        (json!({ "prompt": [] }), 400),
        (json!({ "prompt": 7 }), 400),
        (json!({ "n": 0 }), 400),
        (json!({ "best_of": "x" }), 400),
        (json!({ "prompt": vec!["x"; 100], "n": 100 }), 400),
        (json!({ "service_tier": "priority" }), 400),
        // Another parser could take it for a wish.
        (json!({ "Service_Tier": "priority" }), 400),
    ] {
        world.refused(&more.to_string(), world.post("/v1/completions", &with(ask.clone(), more.clone())), status).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_are_charged_by_their_input_alone() {
    let world = start().await;
    for (what, input, more, tokens) in [
        ("a text", json!("hello ".repeat(20)), json!({}), 100),
        (
            "texts in base64",
            json!(["hello ".repeat(10), "you ".repeat(20)]),
            json!({ "encoding_format": "base64" }),
            100,
        ),
        ("tokens", json!((0..100).collect::<Vec<u32>>()), json!({ "dimensions": 2 }), 100),
        ("lists of tokens", json!([(0..60).collect::<Vec<u32>>(), (0..40).collect::<Vec<u32>>()]), json!({}), 100),
    ] {
        let ask = with(json!({ "model": "echo-1", "input": input, "user": "nobody" }), more);
        let answer = world.charged(what, world.post("/v1/embeddings", &ask)).await;
        assert_eq!(answer.msat, tokens * 10, "{what}");
        let body = answer.json();
        let expected = if ask["encoding_format"] == "base64" { json!("AACAPwAAAMA=") } else { json!([1.0, -2.0]) };
        assert_eq!(body["data"][0]["embedding"], expected, "{what}");
        assert_eq!((&body["model"], &body["usage"]["cost"]["output_msats"]), (&json!("echo-1"), &json!(0)), "{what}");
        assert_eq!(world.upstream.last().json(), with(ask, json!({ "model": MODEL })), "{what}");
    }
    // No text has more tokens than bytes, and so much is held.
    let dense = "語".repeat(1000);
    world.next(&json!({ "object": "list", "data": [{ "embedding": [0] }], "usage": { "prompt_tokens": 3000, "total_tokens": 3000 } }));
    let answer = world.charged("dense", world.post("/v1/embeddings", &json!({ "model": MODEL, "input": dense }))).await;
    assert_eq!(answer.msat, 30_000);
    // Each of several texts may fill the context of 10,000.
    let texts = vec!["語".repeat(3000); 12];
    world.next(
        &json!({ "data": [{ "embedding": [0] }], "usage": { "prompt_tokens": 108_000, "total_tokens": 108_000 } }),
    );
    let answer = world.charged("texts", world.post("/v1/embeddings", &json!({ "model": MODEL, "input": texts }))).await;
    assert_eq!(answer.msat, 1_080_000);
    // Without a report: four characters a token. Output that is claimed is not billed.
    world.next(&json!({ "data": [{ "embedding": [0] }] }));
    let ask = json!({ "model": MODEL, "input": "x".repeat(400) });
    assert_eq!(world.charged("silent", world.post("/v1/embeddings", &ask)).await.msat, 1000);
    world.next(&json!({ "data": [{ "embedding": [0] }], "usage": { "total_tokens": 130 } }));
    assert_eq!(world.charged("the total alone", world.post("/v1/embeddings", &ask)).await.msat, 1300);
    world.next(
        &json!({ "data": [{ "embedding": [0] }], "usage": { "prompt_tokens": 7, "completion_tokens": 999_999 } }),
    );
    assert_eq!(world.charged("claimed", world.post("/v1/embeddings", &ask)).await.msat, 70);
    for (what, more) in [
        ("empty", json!({ "input": [] })),
        ("an object", json!({ "input": {} })),
        ("a stream", json!({ "stream": true })),
        ("no model", json!({ "model": null })),
    ] {
        let ask = with(json!({ "model": RICH, "input": "x" }), more);
        world.refused(what, world.post("/v1/embeddings", &ask), 400).await;
    }
    world.finish().await;
}
