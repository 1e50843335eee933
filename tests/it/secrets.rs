//! Canaries: what must not be seen is put into every request, at the most talkative log level, and
//! then looked for everywhere.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cdk::nuts::Token;
use serde_json::{Value, json};

use crate::bearer::world;
use crate::process::ChildNode;
use crate::support::db::on_postgres;
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, TestNode, UPSTREAM_KEY, ask, client};
use crate::support::purse::Purse;
use crate::support::tokens::{self, account_key};
use crate::support::upstream::{Script, Upstream, completion, delta, sse, usage};

const PROMPT: &str = "canary-prompt-5f1c";
const ANSWER: &str = "canary-answer-93ab";
const PASSWORD: &str = "canary-password-77d0";
const COOKIE: &str = "canary-cookie-4e21";

/// One response as text: headers and body.
async fn whole(answer: reqwest::Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let headers: Vec<String> =
        answer.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?"))).collect();
    (status, format!("{}\n\n{}", headers.join("\n"), answer.text().await.unwrap()))
}

/// What is secret in a token: its text, and the secret and the signature of each proof.
fn secrets_of(mint: &TestMint, token: &str) -> Vec<String> {
    let mut secrets = vec![token.to_owned(), account_key(token), account_key(token)[3..].to_owned()];
    for proof in tokens::proofs(mint, &Token::from_str(token).expect("a token")) {
        secrets.extend([proof.secret.to_string(), proof.c.to_hex()]);
    }
    secrets
}

/// The token in the money header of a response.
fn money(response: &str) -> String {
    let line = response.lines().find_map(|line| line.strip_prefix("x-cashu: "));
    line.unwrap_or_else(|| panic!("no money in {response}")).to_owned()
}

fn asking(stream: bool) -> Value {
    json!({ "model": MODEL, "messages": [{ "role": "user", "content": PROMPT }], "stream": stream, "user": PROMPT })
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.push(path);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_neither_logged_nor_passed_on() {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(1000).await;
    let upstream = Upstream::start().await;
    let settings = [("LOG_LEVEL", "trace"), ("ADMIN_PASSWORD", PASSWORD), ("TRUSTED_PROXIES", "127.0.0.1")];
    let mut node = ChildNode::start(&mint.url(), &upstream, &settings).await;
    let at = |path: &str| format!("{}{path}", node.url());
    let chat = |stream: bool| {
        let request = client().post(at("/v1/chat/completions")).json(&asking(stream));
        request.header("Cookie", COOKIE).header("X-Forwarded-For", "203.0.113.7").header("User-Agent", COOKIE)
    };
    let fine = || Script::Answer {
        status: 200,
        media: "application/json",
        body: completion(MODEL, ANSWER, Some(usage(100, 50))),
    };
    let refusal = |status| {
        Script::Answer {
        status,
        media: "application/json",
        body: json!({ "error": { "message": format!("{PROMPT} with {UPSTREAM_KEY}"), "type": "x", "code": UPSTREAM_KEY } }).to_string(),
    }
    };

    // Each entry: how often the caller's own secrets may be in the answer is no matter; what it
    // was sent is its own. The upstream's key, and what belongs to others, must be in none.
    let (key, fresh) = (purse.send(100).await, purse.send(100).await);
    let mut tokens = vec![key.clone(), fresh.clone()];
    let mut answers: Vec<(String, String)> = Vec::new();
    let mut keep = |who: &str, text: String| answers.push((who.to_owned(), text));

    upstream.next(fine());
    let (status, text) = whole(chat(false).bearer_auth(&key).send().await.unwrap()).await;
    assert_eq!(status, 200);
    assert!(text.contains(ANSWER));
    keep(&key, text);
    upstream.next(Script::Stream { pieces: sse(MODEL, &[ANSWER], Some(usage(100, 50))), cut: false });
    let (status, text) = whole(chat(true).header("x-api-key", account_key(&key)).send().await.unwrap()).await;
    assert_eq!(status, 200);
    keep(&key, text);
    for status in [400, 401, 500] {
        upstream.next(refusal(status));
        let (_, text) = whole(chat(false).bearer_auth(&key).send().await.unwrap()).await;
        keep(&key, text);
    }
    for (stream, mode) in [(false, ""), (true, ""), (true, "stream")] {
        let token = purse.send(40).await;
        upstream.next(if stream {
            Script::Stream { pieces: sse(MODEL, &[ANSWER], Some(usage(100, 50))), cut: false }
        } else {
            fine()
        });
        let (status, text) =
            whole(chat(stream).header("X-Cashu", &token).header("X-Cashu-Change", mode).send().await.unwrap()).await;
        assert_eq!(status, 200);
        keep(&token, text);
        let (status, text) =
            whole(client().post(at("/v1/wallet/refund")).header("X-Cashu", &token).send().await.unwrap()).await;
        assert_eq!(status, 200);
        tokens.extend([token.clone(), money(&text)]);
        keep(&token, text);
    }
    let token = purse.send(40).await;
    upstream.next(refusal(400));
    let (status, text) = whole(chat(false).header("X-Cashu", &token).send().await.unwrap()).await;
    assert_eq!(status, 400);
    tokens.extend([token.clone(), money(&text)]);
    keep(&token, text);
    let (_, text) = whole(chat(false).header("X-Cashu", &token).send().await.unwrap()).await;
    keep(&token, text);
    // Refusals of every kind, with things in odd places.
    let broken = format!("{}x", &key[..key.len() - 3]);
    for request in [
        chat(false).bearer_auth(&broken),
        chat(false).bearer_auth(&fresh).header("x-api-key", &key),
        client().post(at("/v1/chat/completions")).bearer_auth(&key).body(format!("{{\"model\":\"{PROMPT}")),
        client().get(at(&format!("/v1/{key}"))),
        client().get(at("/v1/wallet/info")).bearer_auth(&key),
        client().get(at(&format!("/v1/wallet/create?initial_balance_token={fresh}"))),
        client().post(at("/v1/wallet/topup")).bearer_auth(&key).json(&json!({ "cashu_token": broken })),
        client().get(at("/v1/models")),
        client().get(at("/v1/info")),
        client().get(at("/")),
        client().get(at("/readyz")),
    ] {
        let (_, text) = whole(request.send().await.unwrap()).await;
        keep(&key, text);
    }
    let (status, text) = whole(client().post(at("/v1/wallet/refund")).bearer_auth(&key).send().await.unwrap()).await;
    assert_eq!(status, 200);
    let (_, body) = text.split_once("\n\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    tokens.push(body["token"].as_str().unwrap().to_owned());
    keep(&key, text);

    private(&node.db.data_dir());
    let secret_key = std::fs::read_to_string(node.db.data_dir().join("secret.key")).expect("secret.key");
    let log = node.stop().await;
    private(&node.db.data_dir());
    assert_eq!(node.db.books().await.open_holds, 0);
    node.db.remove().await;
    assert!(log.contains("TRACE") && log.contains("DEBUG"), "the log is at its most talkative");

    let mut hidden: Vec<String> = tokens.iter().flat_map(|token| secrets_of(&mint, token)).collect();
    hidden
        .extend([UPSTREAM_KEY, PROMPT, ANSWER, PASSWORD, COOKIE, "203.0.113.7", secret_key.trim()].map(str::to_owned));
    for secret in &hidden {
        if let Some(at) = log.find(secret.as_str()) {
            let line = log[..at].lines().count();
            panic!("in the log: {secret:.60}: {:.300}", log.lines().nth(line.saturating_sub(1)).unwrap_or_default());
        }
    }
    for (_, text) in &answers {
        for secret in [UPSTREAM_KEY, PASSWORD, COOKIE, secret_key.trim()] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    // Nobody is told another's token or key.
    for (who, text) in &answers {
        for other in tokens.iter().filter(|other| *other != who && !text.contains(&format!("x-cashu: {other}"))) {
            let own = text.contains(&format!("\"{other}\"")) || text.contains(&format!(": x-cashu {other}"));
            assert!(own || !text.contains(other.as_str()), "{other} in an answer to {who}: {text}");
        }
    }
    let seen = upstream.seen();
    assert!(seen.len() >= 9);
    for request in seen {
        let mut names: Vec<String> = request.headers.keys().map(ToString::to_string).collect();
        names.sort();
        assert_eq!(
            names,
            ["accept", "accept-encoding", "authorization", "content-length", "content-type", "host", "user-agent"]
        );
        assert!(request.headers["user-agent"].to_str().unwrap().starts_with("coinslot"), "{:?}", request.headers);
        assert_eq!(request.headers["authorization"], format!("Bearer {UPSTREAM_KEY}"));
        let all = format!("{:?} {}", request.headers, String::from_utf8_lossy(&request.body));
        for secret in tokens.iter().chain(&[COOKIE.to_owned(), "203.0.113.7".to_owned(), account_key(&key)]) {
            assert!(!all.contains(secret.as_str()), "{secret} went upstream");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_request_carries_its_id() {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(500).await;
    let upstream = Upstream::start().await;
    let log = [("LOG_FORMAT", "json"), ("LOG_LEVEL", "info,coinslot=debug")];
    let mut node = ChildNode::start(&mint.url(), &upstream, &log).await;
    let key = purse.send(200).await;
    let chat = |stream| node.chat(&asking(stream));
    let refusal = || Script::Answer { status: 500, media: "application/json", body: "{}".to_owned() };
    let cut = || Script::Stream { pieces: vec![delta(MODEL, &"word ".repeat(20))], cut: true };
    let mut ids = Vec::new();
    let mut send = async |request: reqwest::RequestBuilder| {
        let answer = request.send().await.unwrap();
        ids.push(answer.headers()["x-request-id"].to_str().unwrap().to_owned());
        answer.bytes().await.ok();
    };
    send(chat(false).bearer_auth(&key)).await;
    upstream.next(refusal());
    send(chat(false).bearer_auth(&key)).await;
    // What goes on in another task when its client reads no more is the same request.
    upstream.next(cut());
    send(chat(true).bearer_auth(&key)).await;
    upstream.next(refusal());
    send(chat(false).header("X-Cashu", purse.send(50).await)).await;
    send(chat(false).header("Idempotency-Key", "k").bearer_auth(&key)).await;
    let text = node.stop().await;
    assert_eq!(node.db.books().await.open_holds, 0);
    node.db.remove().await;
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of_requests: Vec<&Value> = lines
        .iter()
        .filter(|line| line["target"].as_str().is_some_and(|target| target.starts_with("coinslot::exchange")))
        .collect();
    assert!(of_requests.len() >= 6, "{text}");
    for line in of_requests {
        let id = line["span"]["id"].as_str().unwrap_or_else(|| panic!("no id: {line}"));
        assert!(ids.iter().any(|known| known == id), "{line}");
        assert!(line["fields"]["request"].as_str().is_none_or(|request| request == id), "{line}");
    }
    for id in &ids {
        assert!(lines.iter().any(|line| line["span"]["id"] == id.as_str()), "{id}: {text}");
    }
    // What nobody asked for is of no request.
    assert!(lines.iter().any(|line| line["span"].is_null()));
}

/// All that is in the data directory is for its owner alone.
fn private(data: &Path) {
    let mode = |path: &Path| std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    assert_eq!(mode(data), 0o700);
    let found = files(data);
    // Where the database is elsewhere, the key is there still.
    assert!(found.len() >= if on_postgres() { 1 } else { 3 }, "{found:?}");
    for path in found {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_opens_no_account() {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(200).await;
    let upstream = Upstream::start().await;
    let mut node = ChildNode::start(&mint.url(), &upstream, &[]).await;
    let (key, one_shot) = (purse.send(50).await, purse.send(50).await);
    let chat = || node.chat(&ask(PROMPT));
    assert_eq!(chat().bearer_auth(&key).send().await.unwrap().status(), 200);
    assert_eq!(chat().header("X-Cashu", &one_shot).send().await.unwrap().status(), 200);
    node.stop().await;
    let stored = files(&node.db.data_dir());
    let stored: Vec<u8> =
        stored.iter().filter(|path| path.is_file()).flat_map(|path| std::fs::read(path).unwrap()).collect();
    let stored = String::from_utf8_lossy(&stored);
    assert!(on_postgres() || stored.contains(MODEL), "this is the database");
    for token in [&key, &one_shot] {
        let hash = account_key(token)[3..].to_owned();
        for secret in [token.as_str(), &hash, PROMPT, "echo: "] {
            assert!(!stored.contains(secret), "{secret} is in the data directory");
        }
    }
    let books = node.db.books().await;
    assert_eq!((books.earnings, books.open_holds), (4_000, 0));
    node.db.remove().await;
}

/// What an upstream might say that contains the node's key.
fn leaks() -> Vec<(&'static str, Script)> {
    let answer = |status, body: String| Script::Answer { status, media: "application/json", body };
    let authorization = format!("Bearer {UPSTREAM_KEY}");
    let error = |message: &str| {
        json!({ "error": { "message": message, "type": message, "code": message, "param": message } }).to_string()
    };
    let chunk = delta(MODEL, &format!("your key is {UPSTREAM_KEY}, you said"));
    let (head, tail) = chunk.split_at(chunk.find(UPSTREAM_KEY).unwrap() + 9);
    let mut parted = sse(MODEL, &["x"], Some(usage(10, 10)));
    parted.splice(1..2, [head.to_owned(), tail.to_owned()]);
    let padded = format!("{}{authorization}", "x".repeat(500 - "Bearer ".len() - 16));
    vec![
        ("an error's message", answer(400, error(&authorization))),
        ("an error's message, where it is cut", answer(400, error(&padded))),
        ("another error's message", answer(422, error(&format!("{authorization} and {authorization}")))),
        ("an error in plain words", answer(400, json!({ "error": authorization }).to_string())),
        ("echoed headers", answer(400, json!({ "detail": format!("{{authorization: {authorization}}}") }).to_string())),
        ("an error that is no JSON", answer(400, format!("<html>{authorization}</html>"))),
        ("a failure", answer(500, error(&authorization))),
        ("a refusal of the key", answer(401, error(&format!("Incorrect API key provided: {UPSTREAM_KEY}")))),
        ("an error in 200", answer(200, error(&authorization))),
        ("an answer", answer(200, completion(MODEL, &authorization, Some(usage(10, 10))))),
        ("a stream", Script::Stream { pieces: sse(MODEL, &["a", &authorization], Some(usage(10, 10))), cut: false }),
        (
            "an error in a stream",
            Script::Stream { pieces: vec![format!("data: {}\n\n", error(&authorization))], cut: false },
        ),
        (
            "a comment in a stream",
            Script::Stream {
                pieces: [vec![format!(": {authorization}\n\n")], sse(MODEL, &["a"], Some(usage(10, 10)))].concat(),
                cut: false,
            },
        ),
        ("an event that arrives in parts", Script::Stream { pieces: parted, cut: false }),
    ]
}

async fn asked_with(node: &TestNode, purse: &Purse, stream: bool, live: bool) -> String {
    let mut body = ask("hello");
    body["stream"] = json!(stream);
    let token = purse.send(30).await;
    let mut request = node.chat(&body).header("X-Cashu", &token);
    if live {
        request = request.header("X-Cashu-Change", "stream");
    }
    whole(request.send().await.unwrap()).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_repeats_the_nodes_key_is_not_passed_on() {
    let (_mint, purse, upstream, node) = world(3000).await;
    for (what, script) in leaks() {
        for (stream, live) in [(false, false), (true, false), (true, true)] {
            let before = upstream.seen().len();
            upstream.next(script.clone());
            let text = asked_with(&node, &purse, stream, live).await;
            assert!(upstream.is_idle(), "{what}, stream {stream}, live {live}: it was not said: {text}");
            assert_eq!(upstream.seen().len(), before + 1, "{what}, stream {stream}, live {live}");
            // Half a key is too much, too.
            for part in [UPSTREAM_KEY, &UPSTREAM_KEY[..12], &UPSTREAM_KEY[12..]] {
                assert!(!text.contains(part), "{what}, stream {stream}, live {live}: {text}");
            }
        }
    }
    node.finish().await;
}
