//! Pictures and sounds, judgement and ranking.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{World, start, with};
use crate::bearer::world_with;
use crate::support::node::{MODEL, RICH};
use crate::support::upstream::Script;

impl World {
    /// A form with a file and these fields.
    pub(super) fn form(&self, path: &str, file: (&str, &[u8]), fields: &[(&str, &str)]) -> RequestBuilder {
        let mut body = Vec::new();
        for (name, value) in fields {
            body.extend(format!("--abc\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes());
        }
        let head = format!("--abc\r\nContent-Disposition: form-data; name=\"{}\"; filename=\"f\"\r\n\r\n", file.0);
        body.extend(head.bytes().chain(file.1.iter().copied()));
        body.extend(b"\r\n--abc--\r\n");
        let request = self.node.post(path).bearer_auth(&self.key).body(body);
        request.header("content-type", "multipart/form-data; boundary=abc")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_charged_by_token_or_by_piece() {
    let world = start().await;
    let ask = json!({ "model": "rich", "prompt": "a cat on a mat ".repeat(8), "size": "1024x1024", "quality": "low" });
    let post = |more: Value| world.post("/v1/images/generations", &with(ask.clone(), more));
    let answer = world.charged("by token", post(json!({}))).await;
    // 100 × 10 + 50 × 60
    assert_eq!(answer.msat, 4000);
    assert_eq!(answer.json()["usage"]["cost"]["total_msats"], 4000);
    let streamed = world.charged("streamed", post(json!({ "stream": true, "partial_images": 1 }))).await;
    assert_eq!((streamed.msat, streamed.events().len()), (4000, 2));
    let made = json!({ "type": "image_generation.completed", "b64_json": "AAAA", "model": RICH, "usage": { "input_tokens": 100, "output_tokens": 50 } });
    world.next_events(&[json!({ "type": "image_generation.partial_image", "b64_json": "AAAA", "model": RICH }), made]);
    let streamed = world.charged("named", post(json!({ "stream": true, "partial_images": 1 }))).await;
    assert!(streamed.events().iter().all(|event| event["model"] == "rich"), "{}", streamed.body);
    // Without a report, by the piece: 40,000 each, 60,000 for the tall ones.
    let pieces = json!({ "created": 1, "data": [{ "url": "https://x" }, { "url": "https://y" }] });
    for (more, msat) in [(json!({ "n": 2 }), 80_000), (json!({ "n": 2, "size": "1024x1536" }), 120_000)] {
        world.next(&pieces);
        let answer = world.charged("by piece", post(more)).await;
        assert_eq!((answer.msat, &answer.json()["cost"]["total_msats"]), (msat, &json!(msat)));
        assert_eq!(answer.json()["usage"], Value::Null, "no tokens are made up");
    }
    // More pictures than were asked for are not charged beyond the hold.
    let many = json!({ "created": 1, "data": vec![json!({ "url": "x" }); 9] });
    world.next(&many);
    let before = world.spent().await;
    let answer = post(json!({})).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(world.spent().await - before < 100_000);
    for (path, name) in [("/v1/images/edits", "image[]"), ("/v1/images/variations", "image")] {
        let fields = [("model", "rich"), ("prompt", "x"), ("size", "1024x1024"), ("quality", "low")];
        let answer = world.charged(path, world.form(path, (name, b"picture"), &fields)).await;
        assert_eq!(answer.msat, 4000, "{path}");
        let seen = world.upstream.last();
        assert_eq!(seen.target, path);
        let text = String::from_utf8_lossy(&seen.body).into_owned();
        assert!(text.contains(&format!("name=\"model\"\r\n\r\n{RICH}\r\n")) && text.contains("picture"), "{text}");
    }
    // An edit as JSON.
    let cat = json!({ "image_url": "data:image/png;base64,AAAA" });
    for sent in [json!({ "images": [cat], "mask": cat }), json!({ "image": { "url": "https://x/y.png" } })] {
        let edit = with(ask.clone(), sent);
        let answer = world.charged("an edit", world.post("/v1/images/edits", &edit)).await;
        assert_eq!(answer.msat, 4000);
        let seen = world.upstream.last();
        assert_eq!((seen.target.as_str(), seen.json()), ("/v1/images/edits", with(edit, json!({ "model": RICH }))));
    }
    let quoted = async |path: &str, more: Value| {
        let quote = world.node.post(path).json(&with(ask.clone(), more)).send().await.unwrap();
        let quote: Value = quote.json().await.unwrap();
        quote["required_msat"].as_u64().unwrap()
    };
    // 7,000 tokens of 10 msat for the picture that is sent.
    let bare = quoted("/v1/quote/images/generations", json!({})).await;
    assert_eq!(quoted("/v1/quote/images/edits", json!({ "images": [cat] })).await, bare + 70_000);
    for sent in [json!({ "images": [{ "file_id": "file_1" }] }), json!({ "images": [cat], "mask": { "file_id": "f" } })]
    {
        world.refused("a file", world.post("/v1/images/edits", &with(ask.clone(), sent)), 400).await;
    }
    let varied = with(ask.clone(), json!({ "images": [cat] }));
    world.refused("no form", world.post("/v1/images/variations", &varied), 400).await;
    let unpriced = with(ask.clone(), json!({ "model": MODEL }));
    let said = world.refused("unpriced", world.post("/v1/images/generations", &unpriced), 400).await;
    assert_eq!(said["error"]["code"], "modality_not_priced");
    world.refused("too many", post(json!({ "n": 11 })), 400).await;
    world.refused("no file", world.post("/v1/images/edits", &ask), 400).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_of_any_size_are_held_for() {
    let world = start().await;
    for (size, quality, tokens) in
        [("1024x1024", "high", 7_024), ("1536x1024", "low", 664), ("3584x2048", "high", 12_329)]
    {
        let ask = json!({ "model": "rich", "prompt": "a cat", "size": size, "quality": quality });
        let usage = json!({ "input_tokens": 10, "output_tokens": tokens });
        world.next(&json!({ "created": 1, "data": [{ "b64_json": "AAAA" }], "usage": usage }));
        let answer = world.charged(size, world.post("/v1/images/generations", &ask)).await;
        assert_eq!(answer.msat, 100 + tokens * 60, "{size}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_is_charged_by_the_character() {
    let world = start().await;
    let ask = json!({ "model": "rich", "input": "häuser", "voice": "alloy" });
    let answer = world.charged("sound", world.post("/v1/audio/speech", &ask)).await;
    // Six characters of 7 msat.
    assert_eq!((answer.msat, answer.media.as_str(), answer.body.as_str()), (42, "audio/mpeg", "sound"));
    assert_eq!(world.upstream.last().json()["model"], RICH);
    let streamed = with(ask.clone(), json!({ "stream_format": "sse" }));
    let streamed = world.charged("streamed", world.post("/v1/audio/speech", &streamed)).await;
    assert_eq!((streamed.msat, streamed.events().len()), (42, 2));
    assert_eq!(streamed.events()[1]["usage"]["cost"]["total_msats"], 42);
    let said =
        world.refused("unpriced", world.post("/v1/audio/speech", &with(ask, json!({ "model": MODEL }))), 400).await;
    assert_eq!(said["error"]["code"], "modality_not_priced");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listening_is_charged_by_the_second_or_the_token() {
    let world = start().await;
    // At most a second for every thousand bytes.
    let sound = vec![b'x'; 10_000];
    for path in ["/v1/audio/transcriptions", "/v1/audio/translations"] {
        let answer = world.charged(path, world.form(path, ("file", &sound), &[("model", "rich")])).await;
        assert_eq!((answer.msat, &answer.json()["text"]), (300, &json!("echo")), "{path}");
        assert_eq!(world.upstream.last().target, path);
    }
    let path = "/v1/audio/transcriptions";
    for (what, more, body, msat) in [
        ("verbose", ("response_format", "verbose_json"), json!({ "text": "hi", "duration": 8.47 }), 847),
        (
            "Mistral's seconds",
            ("language", "en"),
            json!({ "text": "hi", "usage": { "prompt_audio_seconds": 2, "prompt_tokens": 4, "completion_tokens": 30, "total_tokens": 409 } }),
            200,
        ),
        (
            "tokens",
            ("language", "en"),
            json!({ "text": "hi", "usage": { "type": "tokens", "input_tokens": 14, "input_token_details": { "audio_tokens": 10, "text_tokens": 4 }, "output_tokens": 5 } }),
            10 * 40 + 40 + 100,
        ),
    ] {
        world.next(&body);
        let answer = world.charged(what, world.form(path, ("file", &sound), &[("model", "rich"), more])).await;
        assert_eq!(answer.msat, msat, "{what}");
    }
    let subtitles = "1\n00:00:00,000 --> 00:00:02,500\nhi\n".to_owned();
    world.upstream.next(Script::Answer { status: 200, media: "text/plain", body: subtitles.clone() });
    let fields = [("model", "rich"), ("response_format", "srt")];
    let answer = world.charged("srt", world.form(path, ("file", &sound), &fields)).await;
    assert_eq!((answer.msat, &answer.body), (250, &subtitles));
    // Of a recording in which nobody speaks there are none. At 64 kbit/s it has 1.25 s of 100 msat.
    for (format, media, silence) in
        [("vtt", "text/vtt", "WEBVTT\n"), ("vtt", "text/plain; charset=utf-8", "WEBVTT\n\n"), ("srt", "text/plain", "")]
    {
        let script = |media| Script::Answer { status: 200, media, body: silence.to_owned() };
        world.upstream.next(script(media));
        let seen = world.upstream.seen().len();
        let fields = [("model", "rich"), ("response_format", format)];
        let answer = world.charged(format, world.form(path, ("file", &sound), &fields)).await;
        assert_eq!((answer.msat, answer.body.as_str()), (125, silence), "{format} {media}");
        assert_eq!(world.upstream.seen().len(), seen + 1, "{format} {media}");
        // Nothing is no answer where JSON was asked for, nor is what says that it is a page.
        for (format, media) in [("json", media), (format, "text/html")] {
            world.upstream.next(script(media));
            let fields = [("model", "rich"), ("response_format", format)];
            let answer = world.form(path, ("file", &sound), &fields).send().await.unwrap();
            assert_eq!(answer.status(), 502, "{format} {media}");
        }
    }
    // What an answer says of its model is what the client called it.
    world.next(&json!({ "text": "hi", "model": RICH, "duration": 1 }));
    let answer = world.charged("named", world.form(path, ("file", &sound), &[("model", "rich")])).await;
    assert_eq!((answer.msat, &answer.json()["model"]), (100, &json!("rich")));
    world.next_events(&[
        json!({ "type": "transcript.text.delta", "model": RICH, "delta": "hi" }),
        json!({ "type": "transcript.text.done", "model": RICH, "text": "hi", "usage": { "input_tokens": 10, "input_token_details": { "audio_tokens": 10 }, "output_tokens": 5 } }),
    ]);
    let fields = [("model", "rich"), ("stream", "true")];
    let streamed = world.charged("streamed", world.form(path, ("file", &sound), &fields)).await;
    assert_eq!((streamed.msat, streamed.events().len()), (500, 2));
    assert!(streamed.events().iter().all(|event| event["model"] == "rich"), "{}", streamed.body);
    for (what, fields, status) in [
        ("text", &[("model", "rich"), ("response_format", "text")][..], 400),
        ("twice", &[("model", "rich"), ("model", "echo-1")], 400),
        ("no model", &[], 400),
        ("unpriced", &[("model", "echo-1")], 400),
    ] {
        world.refused(what, world.form(path, ("file", &sound), fields), status).await;
    }
    world.finish().await;
}

/// Some models take no notice of a wish for a stream, and their answers are paid for like any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_stream_answers_whole() {
    let world = start().await;
    let (path, sound) = ("/v1/audio/transcriptions", vec![b'x'; 10_000]);
    let fields = [("model", "rich"), ("stream", "true")];
    world.next(&json!({ "text": "hi", "usage": { "type": "duration", "seconds": 3 } }));
    let answer = world.charged("a transcript", world.form(path, ("file", &sound), &fields)).await;
    assert_eq!((answer.msat, answer.media.as_str(), &answer.json()["text"]), (300, "application/json", &json!("hi")));
    let subtitles = "WEBVTT\n\n00:00.000 --> 00:02.500\nhi\n".to_owned();
    world.upstream.next(Script::Answer { status: 200, media: "text/vtt", body: subtitles.clone() });
    let fields = [("model", "rich"), ("response_format", "vtt"), ("stream", "true")];
    let answer = world.charged("subtitles", world.form(path, ("file", &sound), &fields)).await;
    assert_eq!((answer.msat, answer.media.as_str(), answer.body), (250, "text/vtt; charset=utf-8", subtitles));
    assert_eq!(world.upstream.seen().len(), 2, "nobody else is asked");
    world.upstream.next(Script::Answer { status: 200, media: "audio/mpeg", body: "sound".to_owned() });
    let ask = json!({ "model": "rich", "input": "häuser", "voice": "alloy", "stream_format": "sse" });
    let answer = world.charged("a voice", world.post("/v1/audio/speech", &ask)).await;
    assert_eq!((answer.msat, answer.media.as_str(), answer.body.as_str()), (42, "audio/mpeg", "sound"));
    world.finish().await;
}

/// Once the head of a stream is out, the answer comes as the events of one.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_that_is_long_in_coming_becomes_a_stream() {
    let (mint, purse, upstream, node) = world_with(20_000, &[("SSE_KEEP_ALIVE_SECONDS", "1")]).await;
    let key = purse.send(5_000).await;
    let world = World { _mint: mint, purse, upstream, node, key };
    let text = json!({ "text": "hi\nyou", "model": RICH, "usage": { "type": "duration", "seconds": 3 } });
    let fields = [("model", "rich"), ("stream", "true")];
    let speech = json!({ "model": "rich", "input": "häuser", "voice": "alloy", "stream_format": "sse" });
    let form = world.form("/v1/audio/transcriptions", ("file", &[b'x'; 10_000]), &fields);
    for (request, body, kinds, member, said, msat) in [
        (form, text.to_string(), &["transcript.text.done"][..], "text", json!("hi\nyou"), 300),
        (
            world.post("/v1/audio/speech", &speech),
            "sound".to_owned(),
            &["speech.audio.delta", "speech.audio.done"],
            "audio",
            json!("c291bmQ="),
            42,
        ),
    ] {
        let before = world.spent().await;
        let media = if member == "audio" { "audio/mpeg" } else { "application/json" };
        world.upstream.next(Script::Held { media, body });
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream; charset=utf-8");
        world.upstream.resume();
        let body = answer.text().await.unwrap();
        let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
        let events: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
        let told: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
        assert_eq!(told, kinds, "{body}");
        assert_eq!(events[0][member], said, "{body}");
        assert_eq!(events.last().unwrap()["usage"]["cost"]["total_msats"], msat, "{body}");
        assert!(!body.contains(RICH), "{body}");
        assert_eq!((world.spent().await - before, world.upstream.is_idle()), (msat, true));
    }
    assert_eq!(world.upstream.seen().len(), 2, "nobody else is asked");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn judgement_costs_a_request_and_ranking_its_units() {
    let world = start().await;
    let ask = json!({ "model": "rich", "input": ["is this bad?", "and this?"] });
    let answer = world.charged("moderation", world.post("/v1/moderations", &ask)).await;
    assert_eq!((answer.msat, &answer.json()["model"]), (1, &json!("rich")));
    let ask = json!({ "model": "rich", "query": "cats", "documents": ["a cat", "a dog"], "top_n": 1 });
    let answer = world.charged("units", world.post("/v1/rerank", &ask)).await;
    assert_eq!((answer.msat, &answer.json()["usage"]["cost"]["total_msats"]), (2000, &json!(2000)));
    world.next(&json!({ "data": [{ "index": 0 }], "usage": { "total_tokens": 20 } }));
    assert_eq!(world.charged("tokens", world.post("/v1/rerank", &ask)).await.msat, 200);
    // Units are told in another place, too; they count where they have a price.
    let ranked = json!([{ "index": 0, "relevance_score": 0.5 }]);
    world.next(&json!({ "results": ranked, "usage": { "search_units": 1, "total_tokens": 20 } }));
    assert_eq!(world.charged("units in the usage", world.post("/v1/rerank", &ask)).await.msat, 2000);
    // By whichever the model is sold; no units are none.
    for (model, units, msat) in [("rich", 1, 2000), ("rich", 0, 200), (MODEL, 1, 200), (MODEL, 0, 200)] {
        let told = json!({ "billed_units": { "search_units": units, "input_tokens": 20 } });
        world.next(&json!({ "results": ranked, "meta": told }));
        let ask = with(ask.clone(), json!({ "model": model }));
        assert_eq!(world.charged("both", world.post("/v1/rerank", &ask)).await.msat, msat, "{model} {units}");
    }
    // Units alone tell nothing where only tokens have a price.
    world.next(&json!({ "results": ranked, "meta": { "billed_units": { "search_units": 1 } } }));
    let by_token = with(ask.clone(), json!({ "model": MODEL }));
    assert_eq!(world.charged("units alone", world.post("/v1/rerank", &by_token)).await.msat, 40);
    // Where nothing is told: the units of so many documents, or fourteen characters, four tokens of 10 msat.
    for (model, msat) in [("rich", 2000), (MODEL, 40)] {
        world.next(&json!({ "results": ranked }));
        let ask = with(ask.clone(), json!({ "model": model }));
        assert_eq!(world.charged(model, world.post("/v1/rerank", &ask)).await.msat, msat, "{model}");
    }
    for body in [json!({ "model": "rich", "query": "x" }), json!({ "model": "rich", "query": "x", "documents": [] })] {
        world.refused("no documents", world.post("/v1/rerank", &body), 400).await;
    }
    world.refused("no input", world.post("/v1/moderations", &json!({ "model": "rich" })), 400).await;
    world.finish().await;
}
