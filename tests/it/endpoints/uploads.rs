//! Large bodies: what is sent on is what came, however it came and whoever is asked; all of them together have a
//! bound; and what is wrong at their end costs nothing.

use futures_util::stream;
use reqwest::{Body, RequestBuilder};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::World;
use super::walls::packed;
use crate::support::answers::until;
use crate::support::mint::TestMint;
use crate::support::node::{RICH, TestNode};
use crate::support::purse::Purse;
use crate::support::upstream::{Script, Upstream};

const FILE: usize = 1_000_000;

/// A form whose fields come after its file.
fn form(more: &str) -> Vec<u8> {
    let file: Vec<u8> = (0..FILE).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let part = |name: &str, value: &str| {
        format!("--abc\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let head = "--abc\r\nContent-Disposition: form-data; name=\"image\"; filename=\"f.png\"\r\n\r\n";
    let tail = [part("prompt", &"a cat ".repeat(20)), part("size", "1024x1024"), part("quality", "low")].concat();
    [head.as_bytes(), &file, b"\r\n", tail.as_bytes(), more.as_bytes(), b"--abc--\r\n"].concat()
}

fn model(name: &str) -> String {
    format!("--abc\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{name}\r\n")
}

async fn world(settings: &[(&str, &str)]) -> World {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(20_000).await;
    let upstream = Upstream::start().await;
    let node = TestNode::with(&mint, &upstream, settings).await;
    let key = purse.send(10_000).await;
    World { _mint: mint, purse, upstream, node, key }
}

impl World {
    fn upload(&self, body: impl Into<Body>) -> RequestBuilder {
        let request = self.node.post("/v1/images/edits").bearer_auth(&self.key).body(body);
        request.header("content-type", "multipart/form-data; boundary=abc")
    }
}

/// In pieces of this size, so that their number tells the length, and not a header.
fn pieces(body: &[u8], size: usize) -> Body {
    let pieces: Vec<_> = body.chunks(size).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    Body::wrap_stream(stream::iter(pieces))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_as_it_came_also_to_the_second_upstream() {
    let other = Upstream::start().await;
    let upstreams = json!([{ "name": "second", "base_url": other.url(), "priority": 1 }]).to_string();
    let world = world(&[("UPSTREAMS", &upstreams)]).await;
    let (mine, theirs) = (form(&model("rich")), form(&model(RICH)));
    for (what, body) in [("declared", Body::from(mine.clone())), ("in pieces", pieces(&mine, 7_777))] {
        let answer = world.charged(what, world.upload(body)).await;
        assert_eq!(answer.msat, 4000, "{what}");
        let seen = world.upstream.last();
        assert!(seen.body == theirs, "{what}");
        assert_eq!(seen.headers["content-length"], theirs.len().to_string(), "{what}");
    }
    // So do other long bodies.
    let long = "word ".repeat(40_000);
    let ask = json!({ "model": "rich", "input": long });
    world.charged("JSON", world.post("/v1/embeddings", &ask)).await;
    assert_eq!(world.upstream.last().json(), json!({ "model": RICH, "input": long }));
    // The first one fails after it has taken all of it.
    world.upstream.next(Script::Answer { status: 500, media: "application/json", body: "{}".to_owned() });
    assert_eq!(world.charged("again", world.upload(mine)).await.msat, 4000);
    assert!(other.last().body == theirs);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_at_the_end_of_an_upload_costs_nothing() {
    let world = world(&[("MAX_BODY_BYTES", "1100000")]).await;
    let token = world.purse.send(500).await;
    for (what, more, status) in [
        ("no model", String::new(), 400),
        ("unknown", model("no-such"), 400),
        ("unpriced", model("echo-1"), 400),
        ("twice", model("rich") + &model("rich"), 400),
        ("too many", model("rich") + &model("rich").replace("model", "n").replace("rich", "11"), 400),
        ("a second name", model("rich") + &model("dear").replace('=', "=\"x\"; filename=\"x\"; name="), 400),
        ("a second line", model("rich") + &model("x\n--abc\r\nX: y").replace("model", "style"), 400),
    ] {
        world.refused(what, world.upload(form(&more)), status).await;
        world.refused(what, world.upload(pieces(&form(&more), 10_000)), status).await;
        let request = world.node.post("/v1/images/edits").header("content-type", "multipart/form-data; boundary=abc");
        world.refused(what, request.header("x-cashu", &token).body(form(&more)), status).await;
    }
    // One whose length nobody was told is read to its end, so that its client hears why it is refused.
    let long = form(&(model("rich") + &"x".repeat(500_000)));
    let said = world.refused("too large", world.upload(pieces(&long, 10_000)), 413).await;
    assert_eq!(said["error"]["code"], "payload_too_large");
    assert_eq!(world.purse.receive(&token).await.unwrap(), 500, "it was never taken");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_uploads_together_are_bounded() {
    let world = world(&[("MAX_BODY_BYTES", "1100000"), ("MAX_BUFFERED_BYTES", "1500000")]).await;
    let stream = model("rich") + &model("rich").replace("model", "stream").replace("rich", "true");
    // One that waits for its answer could still go to another upstream.
    let last = json!({ "type": "image_edit.completed", "b64_json": "AAAA", "usage": { "input_tokens": 1, "output_tokens": 1 } });
    world.upstream.next(Script::Paused { before: Vec::new(), after: vec![format!("data: {last}\n\n")] });
    let waiting = world.upload(form(&stream));
    let waiting = tokio::spawn(async move { waiting.send().await.unwrap().text().await.unwrap() });
    until("the upstream is asked", async || !world.upstream.seen().is_empty()).await;
    let body = form(&model("rich"));
    for sent in [Body::from(body.clone()), pieces(&body, 50_000)] {
        let said = world.upload(sent).send().await.unwrap();
        assert_eq!((said.status().as_u16(), &said.headers()["retry-after"]), (503, &"5".parse().unwrap()));
        let said: serde_json::Value = said.json().await.unwrap();
        assert_eq!(said["error"]["code"], "overloaded");
    }
    let token = world.purse.send(500).await;
    let asked = world.node.post("/v1/images/edits").header("content-type", "multipart/form-data; boundary=abc");
    world.refused("with a token", asked.header("x-cashu", &token).body(body.clone()), 503).await;
    assert_eq!(world.purse.receive(&token).await.unwrap(), 500, "it was never taken");
    // What is small always finds room.
    world
        .charged("small", world.post("/v1/embeddings", &json!({ "model": "rich", "input": "hello ".repeat(20) })))
        .await;
    world.upstream.resume();
    assert!(waiting.await.unwrap().contains("image_edit.completed"));
    world.charged("the room is free again", world.upload(body)).await;
    world.finish().await;
}

/// Nobody who has shown no money takes the room of those who have.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_key_takes_half_of_the_room() {
    let world = world(&[("MAX_BODY_BYTES", "1100000"), ("MAX_BUFFERED_BYTES", "2500000")]).await;
    let ask = json!({ "model": "rich", "input": "hello ".repeat(20) });
    // A token is a key when it was used.
    for what in ["redeemed", "known"] {
        world.charged(what, world.post("/v1/embeddings", &ask)).await;
    }
    let body = form(&model("rich"));
    let mut cut = packed("gzip", &body).await;
    let head = format!(
        "POST /v1/images/edits HTTP/1.1\r\nHost: node\r\nAccept-Payment: cashu\r\nContent-Encoding: gzip\r\n\
         Content-Type: multipart/form-data; boundary=abc\r\nContent-Length: {}\r\n\r\n",
        cut.len()
    );
    cut.truncate(cut.len() - 9);
    let mut waiting = Vec::new();
    // One more each time: another's body may just have been in the way.
    until("another without a key finds no room", async || {
        let mut socket = TcpStream::connect(world.node.running().address()).await.unwrap();
        socket.write_all(&[head.as_bytes(), &cut].concat()).await.unwrap();
        waiting.push(socket);
        let asked = world.node.post("/v1/images/edits").header("content-type", "multipart/form-data; boundary=abc");
        let status = asked.header("accept-payment", "cashu").body(body.clone()).send().await.unwrap().status();
        assert!(matches!(status.as_u16(), 402 | 503), "{status}");
        status == 503
    })
    .await;
    world.charged("with a key", world.upload(body.clone())).await;
    drop(waiting);
    world.finish().await;
}
