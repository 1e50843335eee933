//! Who leaves a stream pays for what was made for it: read to its end where that can be, or else what is known of it.

use std::slice::from_ref;
use std::sync::Arc;

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{World, start, with};
use crate::support::node::RICH;
use crate::support::upstream::Script;

fn event(event: &Value) -> String {
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap())
}

impl World {
    /// Sends a request for a stream, leaves once its first events are there, and says what was charged in the end.
    async fn left(&self, what: &str, request: RequestBuilder, before: &[Value], after: &[Value]) -> u64 {
        let spent = self.spent().await;
        let events = |events: &[Value]| vec![events.iter().map(event).collect()];
        self.upstream.next(Script::Paused { before: events(before), after: events(after) });
        let mut connection = connected(request).await;
        let mut head = [0; 13];
        connection.read_exact(&mut head).await.unwrap();
        assert_eq!(head, *b"HTTP/1.1 200 ", "{what}");
        // It is closed before the upstream says more.
        drop(connection);
        self.upstream.resume();
        self.node.settled().await;
        self.spent().await - spent
    }
}

/// A connection on which a request was sent: who has it closes it by letting go of it, and at once.
async fn connected(request: RequestBuilder) -> TcpStream {
    let request = request.build().unwrap();
    let address = request.url().socket_addrs(|| None).unwrap()[0];
    let mut connection = TcpStream::connect(address).await.unwrap();
    let body = request.body().unwrap().as_bytes().unwrap();
    let mut text =
        format!("POST {} HTTP/1.1\r\nhost: node\r\ncontent-length: {}\r\n", request.url().path(), body.len());
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    text.push_str("\r\n");
    connection.write_all(text.as_bytes()).await.unwrap();
    connection.write_all(body).await.unwrap();
    connection
}

fn picture() -> Value {
    json!({ "model": "rich", "prompt": "a cat", "size": "1024x1024", "quality": "low", "stream": true, "partial_images": 3 })
}

fn speech() -> Value {
    json!({ "model": "rich", "input": "häuser", "voice": "alloy", "stream_format": "sse" })
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_and_sound_are_read_to_their_end_however_long_they_are() {
    let world = start().await;
    // Together far more than is read of a text.
    let long = "A".repeat(3_000_000);
    let part = |kind: &str, member: &str| json!({ "type": kind, member: long });
    let partial = part("image_generation.partial_image", "b64_json");
    let done = json!({ "type": "image_generation.completed", "b64_json": "AAAA", "usage": { "input_tokens": 100, "output_tokens": 50 } });
    let request = world.post("/v1/images/generations", &picture());
    let after = [partial.clone(), partial.clone(), done];
    // 100 × 10 and 50 × 60, as it was reported in the end.
    assert_eq!(world.left("a picture", request, &[partial], &after).await, 4_000);
    let sound = part("speech.audio.delta", "audio");
    let request = world.post("/v1/audio/speech", &speech());
    let after = [sound.clone(), sound.clone(), json!({ "type": "speech.audio.done" })];
    // Six characters of 7 msat.
    assert_eq!(world.left("speech", request, &[sound], &after).await, 42);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_read_to_its_end_is_charged_as_far_as_it_is_known() {
    let world = start().await;
    // Nothing is read on: too many others are.
    let drains = Arc::clone(&world.node.running().exchange().drains);
    let all = u32::try_from(drains.available_permits()).unwrap();
    let taken = drains.acquire_many_owned(all).await.unwrap();
    let partial = json!({ "type": "image_generation.partial_image", "b64_json": "AAAA" });
    let request = world.post("/v1/images/generations", &picture());
    // By the piece.
    assert_eq!(world.left("a picture", request, from_ref(&partial), from_ref(&partial)).await, 40_000);
    let sound = json!({ "type": "speech.audio.delta", "audio": "AAAA" });
    let request = world.post("/v1/audio/speech", &speech());
    assert_eq!(world.left("speech", request, from_ref(&sound), from_ref(&sound)).await, 42);

    let done = |item: Value| json!({ "type": "response.output_item.done", "item": item });
    let tools = json!([{ "type": "web_search" }, { "type": "code_interpreter", "container": { "type": "auto" } },
        { "type": "image_generation", "size": "1024x1024", "quality": "low" }]);
    let ask =
        json!({ "model": RICH, "input": "x".repeat(400), "stream": true, "max_output_tokens": 100, "tools": tools });
    let text = json!({ "type": "response.output_text.delta", "delta": "hi" });
    let items = [
        done(json!({ "type": "web_search_call", "status": "completed" })),
        done(json!({ "type": "image_generation_call", "status": "completed", "result": "AAAA" })),
        done(json!({ "type": "code_interpreter_call", "container_id": "cntr_1" })),
        text.clone(),
    ];
    let post = || world.post("/v1/responses", &ask);
    let charged = world.left("tools", post(), &items, from_ref(&text)).await;
    let plain = world.left("text", post(), from_ref(&text), from_ref(&text)).await;
    // The same words; and a search, a picture and a container.
    assert_eq!(charged - plain, 10_000 + 40_000 + 5_000);

    let ask = json!({ "model": RICH, "messages": [{ "role": "user", "content": "x".repeat(400) }], "max_tokens": 600 });
    let ask = with(ask, json!({ "stream": true, "modalities": ["text", "audio"] }));
    let delta = json!({ "audio": { "data": "A".repeat(32_000) } });
    let spoken = json!({ "type": "chunk", "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] });
    let post = world.post("/v1/chat/completions", &ask);
    let charged = world.left("a chat", post, from_ref(&spoken), from_ref(&spoken)).await;
    // 415 characters, 104 tokens; and twice ten tokens of sound, half a second.
    assert_eq!(charged, 104 * 10 + 20 * 80);

    // What was sent counts by its size: a hundred kilobytes are so much more than nothing.
    let asked = async |part: Value| {
        let messages = json!([{ "role": "user", "content": [part] }]);
        let ask = json!({ "model": RICH, "messages": messages, "max_tokens": 600, "stream": true });
        let word = json!({ "type": "chunk", "choices": [{ "index": 0, "delta": { "content": "hi" } }] });
        world.left("sent", world.post("/v1/chat/completions", &ask), from_ref(&word), from_ref(&word)).await
    };
    let sound = |data: String| json!({ "type": "input_audio", "input_audio": { "data": data, "format": "mp3" } });
    let file = |data: String| json!({ "type": "file", "file": { "filename": "y.pdf", "file_data": data } });
    // 24,000 bytes are three seconds at 64 kbit/s and the one that has begun: 100 tokens of 40 msat; three bytes are 4.
    let (long, short) = (asked(sound("A".repeat(32_000))).await, asked(sound("AAAA".to_owned())).await);
    assert_eq!(long - short, 96 * 40);
    // Plain samples are a quarter of that.
    let samples = asked(sound(format!("UklGR{}", "A".repeat(31_995)))).await;
    assert_eq!(samples - short, 21 * 40);
    // 19,200 bytes are 300 tokens of 10 msat.
    let (long, short) = (asked(file("A".repeat(25_600))).await, asked(file("AAAA".to_owned())).await);
    assert_eq!(long - short, 3_000);
    // No more than the model reads.
    let whole = asked(file("A".repeat(1_000_000))).await;
    assert_eq!(whole - short, 100_000);
    drop(taken);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_reported_with_the_first_word_is_not_all_that_is_charged() {
    let world = start().await;
    let drains = Arc::clone(&world.node.running().exchange().drains);
    let all = u32::try_from(drains.available_permits()).unwrap();
    let taken = drains.acquire_many_owned(all).await.unwrap();
    let ask = json!({ "model": RICH, "messages": [{ "role": "user", "content": "x".repeat(400) }], "max_tokens": 600, "stream": true });
    let chat = |text: &str| json!({ "type": "chunk", "choices": [{ "index": 0, "delta": { "content": text } }] });
    let (long, word) = (chat(&"y".repeat(400)), chat("word"));
    // 101 tokens of output; of input as many as were told, or 415 characters.
    for (input, output, msat) in
        [(100, 1, 100 * 10 + 101 * 20), (100, 200, 100 * 10 + 200 * 20), (0, 0, 104 * 10 + 101 * 20)]
    {
        let usage = json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output });
        let first = with(chat(""), json!({ "usage": usage }));
        let request = world.post("/v1/chat/completions", &ask);
        let charged = world.left("a chat", request, &[first, long.clone()], from_ref(&word)).await;
        assert_eq!(charged, msat, "{input} {output}");
    }
    let ask = json!({ "model": RICH, "input": "x".repeat(400), "stream": true, "max_output_tokens": 600, "tools": [{ "type": "web_search" }] });
    let delta = |text: &str| json!({ "type": "response.output_text.delta", "delta": text });
    let usage = json!({ "input_tokens": 100, "output_tokens": 1, "total_tokens": 101 });
    let response = json!({ "id": "resp_1", "status": "in_progress", "usage": usage });
    let events = [
        json!({ "type": "response.created", "response": response }),
        json!({ "type": "response.output_item.done", "item": { "type": "web_search_call", "status": "completed" } }),
        delta(&"y".repeat(400)),
    ];
    let request = world.post("/v1/responses", &ask);
    let charged = world.left("a response", request, &events, from_ref(&delta("word"))).await;
    // And a search.
    assert_eq!(charged, 100 * 10 + 101 * 20 + 10_000);
    drop(taken);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_the_upstream_does_not_finish_is_free() {
    let world = start().await;
    world.next_events(&[json!({ "type": "image_generation.partial_image", "b64_json": "AAAA" })]);
    let answer = world.post("/v1/images/generations", &picture()).send().await.unwrap();
    assert!(answer.text().await.unwrap().contains("upstream_error"));
    world.node.settled().await;
    assert_eq!(world.spent().await, 0);
    world.finish().await;
}
