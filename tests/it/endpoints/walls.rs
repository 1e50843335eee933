//! What holds at every endpoint: nothing of the client's crosses but the body, nothing of the
//! operator's comes back, credentials are taken wherever a protocol puts them, bodies may be packed.

use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::{World, start, with};
use crate::bearer::world_with;
use crate::support::endpoints::echo;
use crate::support::mint::TestMint;
use crate::support::node::{RICH, TestNode, UPSTREAM_KEY};
use crate::support::purse::Purse;
use crate::support::upstream::{Script, Upstream};

/// A good request for every endpoint: path, media type, body.
pub(super) fn every() -> Vec<(String, &'static str, Vec<u8>)> {
    let text = "word ".repeat(30);
    let form = |file: &str| {
        let part = |name: &str, value: &str| {
            format!("--abc\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let file =
            format!("--abc\r\nContent-Disposition: form-data; name=\"{file}\"; filename=\"f\"\r\n\r\n{text}\r\n");
        let fields =
            [("model", RICH), ("prompt", text.as_str()), ("quality", "low")].map(|(name, value)| part(name, value));
        format!("{}{file}--abc--\r\n", fields.concat()).into_bytes()
    };
    let messages = json!([{ "role": "user", "content": text }]);
    let contents = json!({ "contents": [{ "parts": [{ "text": text }] }] });
    let content = json!({ "parts": [{ "text": text }] });
    let mut all: Vec<(String, &str, Vec<u8>)> = [
        ("/v1/chat/completions", json!({ "model": RICH, "messages": messages })),
        ("/v1/completions", json!({ "model": RICH, "prompt": text })),
        ("/v1/embeddings", json!({ "model": RICH, "input": text })),
        ("/v1/responses", json!({ "model": RICH, "input": text })),
        ("/v1/messages", json!({ "model": RICH, "max_tokens": 100, "messages": messages })),
        ("/v1/messages/count_tokens", json!({ "model": RICH, "messages": messages })),
        ("/v1/moderations", json!({ "model": RICH, "input": text })),
        ("/v1/rerank", json!({ "model": RICH, "query": text, "documents": [text] })),
        ("/v1/images/generations", json!({ "model": RICH, "prompt": text, "quality": "low" })),
        ("/v1/audio/speech", json!({ "model": RICH, "input": text, "voice": "alloy" })),
        ("/v1beta/models/toy/rich:generateContent", contents.clone()),
        ("/v1beta/models/toy/rich:streamGenerateContent", contents.clone()),
        ("/v1beta/models/toy/rich:countTokens", contents),
        ("/v1beta/models/toy/rich:embedContent", json!({ "content": content })),
        (
            "/v1beta/models/toy/rich:batchEmbedContents",
            json!({ "requests": [{ "model": "models/toy/rich", "content": content }] }),
        ),
    ]
    .into_iter()
    .map(|(path, body)| (path.to_owned(), "application/json", body.to_string().into_bytes()))
    .collect();
    for (path, file) in [
        ("/v1/images/edits", "image"),
        ("/v1/images/variations", "image"),
        ("/v1/audio/transcriptions", "file"),
        ("/v1/audio/translations", "file"),
    ] {
        all.push((path.to_owned(), "multipart/form-data; boundary=abc", form(file)));
    }
    all
}

impl World {
    fn send(&self, (path, media, body): &(String, &'static str, Vec<u8>)) -> RequestBuilder {
        self.node.post(path).header("content-type", *media).body(body.clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_a_request_for_every_endpoint() {
    let known: Vec<String> = every()
        .into_iter()
        .map(|(path, ..)| {
            path.rsplit_once(':').map_or_else(|| path["/v1/".len()..].to_owned(), |(_, method)| method.to_owned())
        })
        .collect();
    for dialect in coinslot::dialect::REGISTRY {
        assert!(known.iter().any(|path| path == dialect.path()), "{} is not tested", dialect.path());
    }
    assert_eq!(known.len(), coinslot::dialect::REGISTRY.len());
}

/// Parsers that do not look at the case of letters would find another model there, or more answers.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_is_refused_in_other_letters() {
    let world = start().await;
    for (path, media, body) in every() {
        let refused = async |name: &str, body: Vec<u8>| {
            let said = world.refused(name, world.send(&(path.clone(), media, body)).bearer_auth(&world.key), 400).await;
            let said = said["error"]["message"].as_str().unwrap();
            assert!(said.contains("just these letters") || said.contains("not sold here"), "{path} {name}: {said}");
        };
        let Ok(Value::Object(members)) = serde_json::from_slice(&body) else {
            let end = body.len() - b"--abc--\r\n".len();
            for name in ["Model", "MODEL", "Stream"] {
                let part = format!("--abc\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\nx\r\n--abc--\r\n");
                refused(name, [&body[..end], part.as_bytes()].concat()).await;
            }
            continue;
        };
        let mut others: Vec<(String, Value)> = members.clone().into_iter().collect();
        // A voice has no price of its own.
        others.retain(|(name, _)| name != "voice");
        if path == "/v1/chat/completions" {
            let more = ["Max_Tokens", "n", "\u{17f}tream", "Tool\u{17f}", "Models", "PluginS", "Search_Parameters"];
            others.extend(more.map(|name| (name.to_owned(), json!([50]))));
        }
        if path == "/v1/images/generations" {
            others.push(("Frame_Count".to_owned(), json!(16)));
        }
        for (name, value) in others {
            let name = if name.is_ascii() { name.to_ascii_uppercase() } else { name };
            let mut both = members.clone();
            both.insert(name.clone(), value);
            refused(&name, Value::Object(both).to_string().into_bytes()).await;
        }
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_clients_reaches_the_upstream_but_the_body() {
    const CANARY: &str = "canary-9c31";
    let world = start().await;
    for request in &every() {
        let token = world.purse.send(500).await;
        for paid_by in ["authorization", "x-api-key", "x-anthropic-api-key", "api-key", "x-goog-api-key", "x-cashu"] {
            let credential = if paid_by == "x-cashu" { &token } else { &world.key };
            let value = if paid_by == "authorization" { format!("Bearer {credential}") } else { credential.clone() };
            let sent = world.send(request).header(paid_by, value);
            let mut sent = sent.header("anthropic-version", "2023-06-01").header("anthropic-beta", CANARY);
            for name in [
                "cookie",
                "user-agent",
                "x-forwarded-for",
                "referer",
                "openai-organization",
                "x-stainless-os",
                "openai-beta",
            ] {
                sent = sent.header(name, CANARY);
            }
            let answer = sent.send().await.unwrap();
            let status = answer.status();
            let head = format!("{:?}", answer.headers());
            let text = format!("{head} {}", answer.text().await.unwrap());
            assert_eq!(status, 200, "{} {paid_by}: {text}", request.0);
            assert!(!text.contains(UPSTREAM_KEY), "{}", request.0);
            let seen = world.upstream.last();
            let all = format!("{} {:?} {}", seen.target, seen.headers, String::from_utf8_lossy(&seen.body));
            for secret in [CANARY, &token, &world.key] {
                assert!(!all.contains(secret), "{} {paid_by}: {secret} in {all}", request.0);
            }
            let known = [
                "accept",
                "accept-encoding",
                "anthropic-version",
                "authorization",
                "content-length",
                "content-type",
                "host",
                "user-agent",
                "x-api-key",
                "x-goog-api-key",
            ];
            for name in seen.headers.keys() {
                assert!(known.contains(&name.as_str()), "{}: {name} is sent", request.0);
            }
            assert_eq!(all.matches(UPSTREAM_KEY).count(), 1, "{}: the node's key is sent once", request.0);
        }
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_operators_comes_back() {
    let world = start().await;
    let leak = |status, body: Value| Script::Answer { status, media: "application/json", body: body.to_string() };
    let error = json!({ "error": { "message": format!("bad key {UPSTREAM_KEY}"), "type": "x", "code": UPSTREAM_KEY, "status": "X" } });
    for request in &every() {
        for script in [
            leak(400, error.clone()),
            leak(401, error.clone()),
            leak(500, error.clone()),
            leak(200, error.clone()),
            leak(
                200,
                json!({ "output": [UPSTREAM_KEY], "choices": [UPSTREAM_KEY], "content": [UPSTREAM_KEY], "text": UPSTREAM_KEY, "data": [UPSTREAM_KEY] }),
            ),
            Script::Answer { status: 200, media: "audio/mpeg", body: UPSTREAM_KEY.to_owned() },
            Script::Answer { status: 200, media: "text/html", body: "<html>".to_owned() },
            Script::Answer { status: 200, media: "application/json", body: String::new() },
            Script::Stream { pieces: vec![format!("data: {{\"error\":\"{UPSTREAM_KEY}\"}}\n\n")], cut: false },
        ] {
            let what = format!("{} {script:?}", request.0);
            let (before, seen) = (world.spent().await, world.upstream.seen().len());
            world.upstream.next(script);
            let answer = world.send(request).bearer_auth(&world.key).send().await.unwrap();
            let status = answer.status();
            let head = format!("{:?}", answer.headers());
            let text = format!("{head} {}", answer.text().await.unwrap());
            assert!(!text.contains(UPSTREAM_KEY), "{what}: {text}");
            assert!(!status.is_success(), "{what}: {text}");
            assert!(world.upstream.is_idle(), "{what}: it was not said: {text}");
            assert_eq!(world.upstream.seen().len(), seen + 1, "{what}");
            assert_eq!(world.spent().await, before, "{what}");
        }
    }
    world.finish().await;
}

/// A request for a stream of every endpoint that takes JSON and has one.
fn streamed() -> Vec<(String, &'static str, Vec<u8>)> {
    let wanted = |(path, media, body): (String, &'static str, Vec<u8>)| {
        let more = match path.as_str() {
            "/v1/chat/completions"
            | "/v1/completions"
            | "/v1/responses"
            | "/v1/messages"
            | "/v1/images/generations" => json!({ "stream": true }),
            "/v1/audio/speech" => json!({ "stream_format": "sse" }),
            _ if path.ends_with(":streamGenerateContent") => return Some((format!("{path}?alt=sse"), media, body)),
            _ => return None,
        };
        let body: Value = serde_json::from_slice(&body).unwrap();
        Some((path, media, with(body, more).to_string().into_bytes()))
    };
    every().into_iter().filter_map(wanted).collect()
}

/// Whichever event of a stream has the node's key in it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_operators_comes_back_in_a_stream() {
    let world = start().await;
    let requests = streamed();
    assert_eq!(requests.len(), 7);
    for request in &requests {
        let path = &request.0;
        let Script::Stream { pieces, .. } = echo(path, &serde_json::from_slice(&request.2).unwrap()) else {
            panic!("{path} is answered with no stream");
        };
        for at in (0..pieces.len()).filter(|at| pieces[*at].contains('{')) {
            let mut pieces = pieces.clone();
            pieces[at] = pieces[at].replacen('{', &format!("{{\"said\":\"{UPSTREAM_KEY}\","), 1);
            let seen = world.upstream.seen().len();
            world.upstream.next(Script::Stream { pieces, cut: false });
            let answer = world.send(request).bearer_auth(&world.key).send().await.unwrap();
            let head = format!("{:?}", answer.headers());
            let text = format!("{head} {}", answer.text().await.unwrap());
            assert!(world.upstream.is_idle(), "{path}, event {at}: it was not said: {text}");
            assert_eq!(world.upstream.seen().len(), seen + 1, "{path}, event {at}");
            for part in [UPSTREAM_KEY, &UPSTREAM_KEY[..12], &UPSTREAM_KEY[12..]] {
                assert!(!text.contains(part), "{path}, event {at}: {text}");
            }
        }
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_says_whose_endpoints_are_sold() {
    let (_mint, purse, upstream, node) = world_with(2_000, &[("PROTOCOLS", "anthropic,gemini")]).await;
    let key = purse.send(500).await;
    let send = async |path: &str, body: &Value| {
        let answer = node.post(path).json(body).bearer_auth(&key).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let chat = json!({ "model": RICH, "messages": [{ "role": "user", "content": "hi" }] });
    for path in ["/v1/chat/completions", "/chat/completions", "/v1/quote/chat/completions"] {
        let (status, said) = send(path, &chat).await;
        assert_eq!((status, &said["error"]["code"]), (404, &json!("unsupported_path")), "{path}: {said}");
    }
    assert_eq!(upstream.seen().len(), 0);
    let page = node.get("/").header("accept", "text/html").send().await.unwrap().text().await.unwrap();
    assert!(page.contains("ANTHROPIC_MODEL") && !page.contains("/v1/chat/completions"), "{page}");
    let message = json!({ "model": RICH, "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 10 });
    let (status, said) = send("/v1/messages", &message).await;
    assert_eq!(status, 200, "{said}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_credential_is_enough_and_two_are_too_many() {
    let world = start().await;
    let other = world.purse.send(50).await;
    let all = every();
    for request in [&all[0], &all[4], &all[10]] {
        let places = ["x-api-key", "x-anthropic-api-key", "api-key", "x-goog-api-key"];
        for (at, one) in places.iter().enumerate() {
            let twice = world.send(request).header(*one, &world.key).bearer_auth(&world.key);
            world.charged("the same twice", twice).await;
            let two = world.send(request).header(*one, &world.key).bearer_auth(&other);
            world.refused("a bearer and another", two, 400).await;
            let two = world.send(request).header(*one, &world.key).header(places[(at + 1) % places.len()], &other);
            world.refused("two places", two, 400).await;
            let two = world.send(request).header(*one, &world.key).header("x-cashu", &other);
            world.refused("a key and a token", two, 400).await;
        }
    }
    // A key in the query is read at Google's routes alone.
    let (path, ..) = &all[0];
    let elsewhere = world.node.post(&format!("{path}?key={}", world.key)).body(all[0].2.clone());
    world.refused("in the query", elsewhere, 401).await;
    world.finish().await;
}

pub(super) async fn packed(encoding: &str, body: &[u8]) -> Vec<u8> {
    macro_rules! pack {
        ($encoder:ident) => {{
            let mut encoder = $encoder::new(Vec::new());
            encoder.write_all(body).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }};
    }
    match encoding {
        "gzip" => pack!(GzipEncoder),
        "deflate" => pack!(ZlibEncoder),
        "br" => pack!(BrotliEncoder),
        "zstd" => pack!(ZstdEncoder),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_may_be_packed_but_not_burst() {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(1000).await;
    let upstream = Upstream::start().await;
    let node = TestNode::with(&mint, &upstream, &[("MAX_BODY_BYTES", "20000")]).await;
    let key = purse.send(500).await;
    let world = World { _mint: mint, purse, upstream, node, key };
    let body = json!({ "model": RICH, "max_tokens": 10, "input": "word ".repeat(30) }).to_string().into_bytes();
    // All within the limit on the wire, and far beyond it when inflated.
    let bomb = format!("{{\"model\":\"{RICH}\",\"input\":\"{}\"}}", "0".repeat(2_000_000)).into_bytes();
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let post = |bytes: Vec<u8>| {
            let request = world.node.post("/v1/responses").bearer_auth(&world.key).body(bytes);
            request.header("content-type", "application/json").header("content-encoding", encoding)
        };
        world.charged(encoding, post(packed(encoding, &body).await)).await;
        let seen = world.upstream.last();
        assert_eq!(seen.json()["input"], "word ".repeat(30), "{encoding}");
        assert!(!seen.headers.contains_key("content-encoding"), "{encoding}");
        let bomb = packed(encoding, &bomb).await;
        assert!(bomb.len() < 20_000, "{encoding}: {}", bomb.len());
        let said = world.refused(encoding, post(bomb), 413).await;
        assert_eq!(said["error"]["code"], "payload_too_large", "{encoding}");
        let mut cut = packed(encoding, &body).await;
        cut.truncate(cut.len() / 2);
        for wrong in [cut, body.clone()] {
            let said = world.refused(encoding, post(wrong), 400).await;
            let message = "The request body does not unpack as its Content-Encoding says.";
            assert_eq!(said["error"]["message"], message, "{encoding}");
        }
    }
    for encoding in ["compress", "gzip, br"] {
        let request = world.node.post("/v1/responses").bearer_auth(&world.key).body(body.clone());
        world.refused(encoding, request.header("content-encoding", encoding), 400).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_is_paid_once_at_every_endpoint() {
    let world = start().await;
    for (number, request) in every().iter().enumerate() {
        let send = || world.send(request).bearer_auth(&world.key).header("idempotency-key", format!("key-{number}"));
        let first = world.charged(&request.0, send()).await;
        let (before, asked) = (world.spent().await, world.upstream.seen().len());
        let again = send().send().await.unwrap();
        assert_eq!(again.headers()["idempotent-replayed"], "true", "{}", request.0);
        assert_eq!(again.headers()["content-type"].to_str().unwrap(), first.media, "{}", request.0);
        assert_eq!(again.text().await.unwrap(), first.body, "{}", request.0);
        assert_eq!((world.spent().await, world.upstream.seen().len()), (before, asked), "{}", request.0);
    }
    // The same body for another model, or in another form, is another request.
    let body = json!({ "contents": [{ "parts": [{ "text": "x" }] }] });
    let send = |path: &str| {
        let request = world.node.post(&format!("/v1beta/models/{path}")).json(&body).bearer_auth(&world.key);
        request.header("idempotency-key", "one-key")
    };
    world.charged("first", send("rich:streamGenerateContent?alt=sse")).await;
    for other in ["echo-1:streamGenerateContent?alt=sse", "rich:streamGenerateContent", "rich:generateContent"] {
        world.refused(other, send(other), 409).await;
    }
    world.finish().await;
}
