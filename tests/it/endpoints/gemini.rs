//! Google's generateContent and its relatives.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{World, start, with};
use crate::support::node::{MODEL, RICH, UPSTREAM_KEY};

fn ask() -> Value {
    json!({
        "contents": [{ "role": "user", "parts": [{ "text": "Say something worth a few satoshi." }] }],
        "generationConfig": { "maxOutputTokens": 200 },
    })
}

impl World {
    /// As Google's SDK sends it.
    fn google(&self, path: &str, body: &Value) -> RequestBuilder {
        self.node.post(&format!("/v1beta/models/{path}")).json(body).header("x-goog-api-key", &self.key)
    }
}

fn content(usage: &Value) -> Value {
    json!({
        "candidates": [{ "content": { "parts": [{ "text": "hi" }] }, "finishReason": "STOP" }],
        "usageMetadata": usage, "modelVersion": "upstream-name",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_content_is_charged_to_the_msat_whole_and_streamed() {
    let world = start().await;
    let detail = |modality: &str, count: u64| json!({ "modality": modality, "tokenCount": count });
    let sound =
        json!({ "contents": [{ "parts": [{ "inlineData": { "mimeType": "audio/wav", "data": "A".repeat(4000) } }] }] });
    let picture = json!({ "generationConfig": { "maxOutputTokens": 200, "responseModalities": ["IMAGE"] } });
    for (what, body, usage, msat) in [
        (
            "plain",
            ask(),
            json!({ "promptTokenCount": 10, "candidatesTokenCount": 50, "totalTokenCount": 60 }),
            100 + 1000,
        ),
        (
            "cached, thoughts beside the candidates",
            ask(),
            json!({ "promptTokenCount": 12, "cachedContentTokenCount": 4, "candidatesTokenCount": 50, "thoughtsTokenCount": 30, "totalTokenCount": 92 }),
            80 + 4 + 1000 + 900,
        ),
        (
            "audio",
            with(ask(), sound),
            json!({ "promptTokenCount": 100, "promptTokensDetails": [detail("TEXT", 4), detail("AUDIO", 96)], "candidatesTokenCount": 50, "totalTokenCount": 150 }),
            40 + 96 * 40 + 1000,
        ),
        (
            "a picture",
            with(ask(), picture),
            json!({ "promptTokenCount": 10, "candidatesTokenCount": 150, "candidatesTokensDetails": [detail("IMAGE", 140), detail("TEXT", 10)], "totalTokenCount": 160 }),
            100 + 140 * 60 + 200,
        ),
    ] {
        world.next(&content(&usage));
        let whole = world.charged(what, world.google("rich:generateContent", &body)).await;
        assert_eq!(whole.msat, msat, "{what}");
        let told = whole.json();
        assert_eq!(
            (&told["usageMetadata"]["cost"]["total_msats"], &told["modelVersion"]),
            (&json!(msat), &json!("rich"))
        );
        let early = json!({ "promptTokenCount": 10, "candidatesTokenCount": 1 });
        let begun = json!({ "candidates": [{ "content": { "parts": [{ "text": "h" }] } }], "usageMetadata": early });
        world.next_events(&[begun.clone(), content(&usage)]);
        let streamed = world.charged(what, world.google("rich:streamGenerateContent?alt=sse", &body)).await;
        assert_eq!(streamed.msat, msat, "{what}, streamed");
        assert_eq!(streamed.events().pop().unwrap()["usageMetadata"]["cost"]["total_msats"], msat, "{what}");
        // Without `alt=sse`, the same objects in an array.
        world.next_events(&[begun, content(&usage)]);
        let streamed = world.charged(what, world.google("rich:streamGenerateContent", &body)).await;
        assert_eq!((streamed.msat, streamed.media.as_str()), (msat, "application/json"), "{what}, in an array");
        let all = streamed.json();
        assert_eq!((all.as_array().unwrap().len(), &all[1]["usageMetadata"]["cost"]["total_msats"]), (2, &json!(msat)));
    }
    world.finish().await;
}

/// Change travels in a stream as a comment, for which an array has no place.
#[tokio::test(flavor = "multi_thread")]
async fn an_array_that_a_token_pays_for_is_json() {
    let world = start().await;
    let token = world.purse.send(2_000).await;
    let begun = json!({ "candidates": [{ "content": { "parts": [{ "text": "h" }] } }] });
    world.next_events(&[begun, content(&json!({ "promptTokenCount": 10, "candidatesTokenCount": 50 }))]);
    let request = world.node.post("/v1beta/models/rich:streamGenerateContent").json(&ask()).header("X-Cashu", &token);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let change = answer.headers()["x-cashu"].to_str().unwrap().to_owned();
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!(body[1]["usageMetadata"]["cost"]["total_msats"], 1_100);
    assert_eq!(world.purse.receive(&change).await.unwrap(), 1_998);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_are_charged_by_query_or_by_answer() {
    let world = start().await;
    let ask = with(ask(), json!({ "tools": [{ "googleSearch": {} }] }));
    let usage = json!({ "promptTokenCount": 10, "candidatesTokenCount": 50 });
    let text = 100 + 1000;
    // One model has a price for each query, the other for each answer that rests on any.
    for (model, queries, msat) in [
        ("rich", json!(["a", "b", ""]), text + 2 * 3000),
        ("cached", json!(["a", "b"]), text + 10_000),
        ("rich", json!([]), text),
        ("cached", json!([""]), text),
    ] {
        let what = format!("{model} {queries}");
        let grounding = json!({ "webSearchQueries": queries });
        let mut answer = content(&usage);
        answer["candidates"][0]["groundingMetadata"] = grounding.clone();
        world.next(&answer);
        let whole = world.charged(&what, world.google(&format!("{model}:generateContent"), &ask)).await;
        assert_eq!(whole.msat, msat, "{what}");
        // In a stream it is told once, or again and again.
        for last in [json!({}), grounding.clone()] {
            let begun = json!({ "candidates": [{ "content": { "parts": [{ "text": "h" }] }, "groundingMetadata": grounding }] });
            let mut end = content(&usage);
            end["candidates"][0]["groundingMetadata"] = last;
            world.next_events(&[begun, end]);
            let streamed =
                world.charged(&what, world.google(&format!("{model}:streamGenerateContent?alt=sse"), &ask)).await;
            assert_eq!(streamed.msat, msat, "{what}, streamed");
        }
    }
    let said = world.refused("unpriced", world.google("echo-1:generateContent", &ask), 400).await;
    assert_eq!(said["error"]["details"][0]["reason"], "modality_not_priced");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_spoken_to_as_google_wants_it() {
    let world = start().await;
    world.charged("full id", world.google(&format!("{RICH}:generateContent"), &ask())).await;
    let seen = world.upstream.last();
    assert_eq!(seen.target, format!("/v1beta/models/{RICH}:generateContent"));
    assert_eq!(seen.headers["x-goog-api-key"], UPSTREAM_KEY);
    assert!(!seen.headers.contains_key("authorization"));
    assert_eq!(seen.json(), ask());
    // The key where Google's clients put it, and by Google's other version.
    for path in ["/v1beta/models/echo-1", "/v1/models/echo-1"] {
        let request = world.node.post(&format!("{path}:streamGenerateContent?alt=sse&key={}", world.key)).json(&ask());
        assert_eq!(world.charged(path, request).await.msat, 2000);
        let seen = world.upstream.last();
        assert_eq!(seen.target, format!("/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"));
    }
    for (path, body, msat, pointer) in [
        ("echo-1:countTokens", ask(), 1, "/totalTokens"),
        (
            "echo-1:embedContent",
            json!({ "content": { "parts": [{ "text": "x".repeat(400) }] } }),
            // 409 characters with the names: 103 tokens of 10 msat.
            1030,
            "/embedding/values/1",
        ),
        (
            "echo-1:batchEmbedContents",
            json!({ "requests": [{ "model": "models/echo-1", "content": { "parts": [{ "text": "x".repeat(400) }] } }] }),
            // 434: 109 tokens.
            1090,
            "/embeddings/0/values/1",
        ),
    ] {
        let answer = world.charged(path, world.google(path, &body)).await;
        assert_eq!(answer.msat, msat, "{path}");
        assert!(answer.json().pointer(pointer).is_some_and(Value::is_number), "{path}: {}", answer.body);
    }
    assert_eq!(world.upstream.last().json()["requests"][0]["model"], format!("models/{MODEL}"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_that_becomes_a_vector_is_charged_as_sound() {
    let world = start().await;
    let detail = |modality: &str, count: u64| json!({ "modality": modality, "tokenCount": count });
    let details = json!([detail("TEXT", 4), detail("AUDIO", 96)]);
    // 24,000 bytes: 100 tokens at 64 kbit/s.
    let sound = json!({ "inlineData": { "mimeType": "audio/mp3", "data": "A".repeat(32_000) } });
    let content = json!({ "parts": [{ "text": "x".repeat(400) }, sound] });
    for (what, usage, msat) in [
        ("by kind", json!({ "promptTokenCount": 100, "promptTokensDetails": details }), 4 * 10 + 96 * 40),
        ("by kind, spelled anew", json!({ "promptTokenCount": 100, "promptTokenDetails": details }), 4 * 10 + 96 * 40),
        ("together", json!({ "promptTokenCount": 150 }), 50 * 10 + 100 * 40),
        ("no more than was told", json!({ "promptTokenCount": 60 }), 60 * 40),
        // 440 characters, beside the sound.
        ("nothing", json!({}), 110 * 10 + 100 * 40),
    ] {
        world.next(&json!({ "embedding": { "values": [1.0] }, "usageMetadata": usage }));
        let ask = json!({ "content": content });
        assert_eq!(world.charged(what, world.google("rich:embedContent", &ask)).await.msat, msat, "{what}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_googles() {
    let world = start().await;
    let sound = json!({ "contents": [{ "parts": [{ "inlineData": { "mimeType": "audio/wav", "data": "AAAA" } }] }] });
    for (what, path, body, status, word, reason) in [
        ("no contents", "rich:generateContent", json!({}), 400, "INVALID_ARGUMENT", "invalid_request"),
        ("unknown", "none:generateContent", ask(), 404, "NOT_FOUND", "invalid_model"),
        ("unpriced", "echo-1:generateContent", with(ask(), sound), 400, "INVALID_ARGUMENT", "modality_not_priced"),
        (
            "cached",
            "rich:generateContent",
            with(ask(), json!({ "cachedContent": "x" })),
            400,
            "INVALID_ARGUMENT",
            "invalid_request",
        ),
        ("out of the path", "..%2f..%2fx:generateContent", ask(), 400, "INVALID_ARGUMENT", "invalid_request"),
        ("no method", "rich:predict", ask(), 404, "NOT_FOUND", "not_found"),
    ] {
        let said = world.refused(what, world.google(path, &body), status).await;
        let error = &said["error"];
        assert_eq!((&error["code"], &error["status"]), (&json!(status), &json!(word)), "{what}: {said}");
        assert_eq!(error["details"][0]["reason"], reason, "{what}: {said}");
    }
    let two = world.google("rich:generateContent?key=sk-other", &ask());
    world.refused("two keys", two, 400).await;
    let asking = world.node.post("/v1beta/models/rich:generateContent").json(&ask()).header("X-Cashu", "");
    let said = world.refused("asking", asking, 402).await;
    assert_eq!((&said["error"]["code"], &said["error"]["status"]), (&json!(402), &json!("RESOURCE_EXHAUSTED")));
    assert!(said["error"]["payment"]["required_msat"].as_u64().is_some_and(|msat| msat > 0), "{said}");
    // In a stream that has begun.
    world.next_events(&[
        json!({ "candidates": [{ "content": { "parts": [{ "text": "x".repeat(40) }] } }], "usageMetadata": { "promptTokenCount": 10, "candidatesTokenCount": 10 } }),
        json!({ "error": { "code": 503, "message": "overloaded" } }),
    ]);
    let broken = world.charged("broken", world.google("rich:streamGenerateContent?alt=sse", &ask())).await;
    assert_eq!(broken.msat, 100 + 200);
    assert_eq!(broken.events().pop().unwrap()["error"]["status"], "UNAVAILABLE");
    // A token that rides along; in an array, the change has no place but the header.
    for query in ["", "?alt=sse"] {
        let token = world.purse.send(100).await;
        let request = world.node.post(&format!("/v1beta/models/rich:streamGenerateContent{query}")).json(&ask());
        let answer = request.header("X-Cashu", &token).header("X-Cashu-Change", "stream").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let header = answer.headers().get("x-cashu").map(|value| value.to_str().unwrap().to_owned());
        let body = answer.text().await.unwrap();
        let comment = body.lines().find_map(|line| line.strip_prefix(": x-cashu ")).map(str::to_owned);
        assert_eq!((header.is_some(), comment.is_some()), (query.is_empty(), !query.is_empty()), "{body}");
        assert_eq!(world.purse.receive(&header.or(comment).unwrap()).await.unwrap(), 98);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_held_for_at_what_the_newest_models_make_of_it() {
    let world = start().await;
    // 512 × 512
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x02\0\0\0\x02\0\x08\x06\0\0\0\0\0\0\0".to_vec();
    file.resize(300, 0);
    let data = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, file);
    let picture = json!({ "inlineData": { "mimeType": "image/png", "data": data } });
    let closer = |level: &str| with(picture.clone(), json!({ "mediaResolution": { "level": level } }));
    for (part, text, tokens) in [
        (picture.clone(), "partsinlineDatamimeTypeimage/pngdata", 1_120),
        (
            closer("MEDIA_RESOLUTION_HIGH"),
            "partsinlineDatamimeTypeimage/pngdatamediaResolutionlevelMEDIA_RESOLUTION_HIGH",
            1_120,
        ),
        (
            closer("MEDIA_RESOLUTION_ULTRA_HIGH"),
            "partsinlineDatamimeTypeimage/pngdatamediaResolutionlevelMEDIA_RESOLUTION_ULTRA_HIGH",
            2_240,
        ),
    ] {
        let body = json!({ "contents": [{ "parts": [part] }], "generationConfig": { "maxOutputTokens": 100 } });
        let quote = world.node.post("/v1/quote/models/echo-1:generateContent").json(&body).send().await.unwrap();
        let quote: Value = quote.json().await.unwrap();
        // Three characters are a token of 10 msat, as is one of the picture; and 100 of output are 20 each.
        let held = (u64::try_from(text.len()).unwrap() / 3 + tokens) * 10 + 2_000;
        assert_eq!(quote["required_msat"], json!(held), "{text}: {quote}");
    }
    world.finish().await;
}
