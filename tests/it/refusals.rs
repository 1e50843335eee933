//! What is refused, how it is said, and that it costs nothing: a token that came with a refused
//! request is spendable at the mint afterwards.

use std::collections::BTreeMap;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use cdk::Amount;
use cdk::nuts::{CurrencyUnit, PaymentRequest, SecretKey, Token};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use reqwest::header::HeaderValue;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::bearer::{world, world_with};
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, TestNode, ask, client};
use crate::support::purse::Purse;
use crate::support::tokens::{self, account_key};
use crate::support::upstream::Upstream;

const INVALID: &str = "invalid_request_error";
const QUOTA: &str = "insufficient_quota";
const ORIGIN: &str = "https://chat.example";

/// A refusal's status, type and code.
type Refusal = (u16, &'static str, &'static str);

/// Sends a request as a page of another origin does, and checks all that every refusal has.
async fn refused(
    what: &str,
    request: RequestBuilder,
    (status, kind, code): Refusal,
) -> (BTreeMap<String, String>, Value) {
    let answer = request.header("Origin", ORIGIN).send().await.unwrap();
    let got = answer.status();
    let headers = headers(&answer);
    let text = answer.text().await.unwrap();
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{what}: {got}: not JSON: {text}"));
    assert_eq!(got, status, "{what}: {body}");
    assert_eq!(headers["content-type"], "application/json", "{what}");
    assert_eq!((&body["error"]["type"], &body["error"]["code"]), (&json!(kind), &json!(code)), "{what}");
    assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{what}: {body}");
    let request_id = body["request_id"].as_str().expect("a request id");
    assert!(uuid::Uuid::parse_str(request_id).is_ok(), "{what}: {body}");
    assert_eq!(headers["x-routstr-request-id"], request_id, "{what}");
    assert!(["*", ORIGIN].contains(&headers["access-control-allow-origin"].as_str()), "{what}");
    assert!(headers["access-control-expose-headers"].contains("x-cashu"), "{what}");
    if status == 401 || kind.contains("cashu") || kind.contains("token") {
        let detail = &body["detail"];
        assert!(*detail == "Unauthorized" || detail["error"] == body["error"], "{what}: {body}");
    }
    (headers, body)
}

fn headers(answer: &Response) -> BTreeMap<String, String> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    answer.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// Both ways in which a token can pay for a request.
fn paying(node: &TestNode, body: &Value, token: &str) -> [(&'static str, RequestBuilder); 2] {
    [("X-Cashu", node.chat(body).header("X-Cashu", token)), ("Bearer", node.chat(body).bearer_auth(token))]
}

/// A request body with one more member, as text: what `json!` cannot write is tried too.
fn with(member: &str) -> String {
    format!(r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"hi"}}],{member}}}"#)
}

/// Request bodies that nobody is served for.
fn bad_bodies() -> Vec<(String, Refusal)> {
    let (json, field) = ((400, INVALID, "invalid_json"), (400, INVALID, "invalid_request"));
    let messages = r#""messages":[{"role":"user","content":"hi"}]"#;
    let mut bad: Vec<(String, Refusal)> = [
        ("", json),
        ("not JSON", json),
        ("{", json),
        ("[]", json),
        ("null", json),
        (r#"{"model":"x","messages":[}"#, json),
        (&format!("{{{messages}}}"), field),
        (&format!(r#"{{"model":null,{messages}}}"#), field),
        (&format!(r#"{{"model":5,{messages}}}"#), field),
        (&format!(r#"{{"model":"",{messages}}}"#), field),
        (&format!(r#"{{"model":"{}",{messages}}}"#, "m".repeat(300)), field),
        (&format!(r#"{{"model":"no-such-model",{messages}}}"#), (400, INVALID, "invalid_model")),
        (&format!(r#"{{"model":"{MODEL}"}}"#), field),
        (&format!(r#"{{"model":"{MODEL}","messages":[]}}"#), field),
        (&format!(r#"{{"model":"{MODEL}","messages":"hi"}}"#), field),
        (&format!(r#"{{"model":"toy/cheap","model":"{MODEL}",{messages}}}"#), field),
    ]
    .into_iter()
    .map(|(body, refusal)| (body.to_owned(), refusal))
    .collect();
    for value in ["0", "-1", "1.5", r#""7""#, "1e30", "100000000000000000000000", "true", "[1]"] {
        bad.push((with(&format!(r#""max_tokens":{value}"#)), field));
        bad.push((with(&format!(r#""max_completion_tokens":{value}"#)), field));
        bad.push((with(&format!(r#""n":{value}"#)), field));
    }
    bad.push((with(r#""n":1000"#), field));
    bad.push((with(r#""n":1,"n":2"#), field));
    for value in [r#""yes""#, "1", "{}"] {
        bad.push((with(&format!(r#""stream":{value}"#)), field));
    }
    bad.push((with(r#""stream_options":true"#), field));
    bad
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_leaves_the_token_untouched() {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(200).await;
    let upstream = Upstream::start().await;
    let node = TestNode::with(&mint, &upstream, &[("MAX_BODY_BYTES", "20000")]).await;
    let token = purse.send(50).await;
    let swaps = mint.calls("/v1/swap");
    let post = |body: String| node.post("/v1/chat/completions").header("content-type", "application/json").body(body);
    for (body, refusal) in bad_bodies() {
        refused(&body, post(body.clone()).header("X-Cashu", &token), refusal).await;
        refused(&body, post(body.clone()).bearer_auth(&token), refusal).await;
    }
    let too_large = (413, INVALID, "payload_too_large");
    let huge = ask(&"x".repeat(20_000)).to_string();
    refused("huge", post(huge.clone()).header("X-Cashu", &token), too_large).await;
    let pieces = futures_util::stream::iter(
        huge.into_bytes().chunks(1000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect::<Vec<_>>(),
    );
    let chunked = node.post("/v1/chat/completions").body(reqwest::Body::wrap_stream(pieces));
    refused("huge, of unknown length", chunked.bearer_auth(&token), too_large).await;
    let zipped = post(ask("hi").to_string()).header("content-encoding", "gzip").bearer_auth(&token);
    refused("compressed", zipped, (400, INVALID, "invalid_request")).await;
    assert_eq!((mint.calls("/v1/swap"), upstream.seen().len()), (swaps, 0), "nobody was asked for anything");
    assert_eq!(Purse::new(&mint).await.receive(&token).await.unwrap(), 50);
    node.finish().await;
}

/// The token with something done to the bytes inside.
fn reencoded(token: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes =
        BASE64.decode(token.strip_prefix("cashuB").expect("a cashuB token").trim_end_matches('=')).expect("base64url");
    change(&mut bytes);
    format!("cashuB{}", BASE64.encode(bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_token_is_refused_without_asking_the_mint() {
    let (mint, purse, upstream, node) = world(500).await;
    let (elsewhere, payee) = (TestMint::start().await, Purse::new(&mint).await);
    let stranger = Purse::new(&elsewhere).await;
    stranger.mint_sats(64).await;
    let good = purse.send_token(64).await;
    let (text, proofs) = (good.to_string(), tokens::proofs(&mint, &good));
    // Invariant 20: no foreign mint's ecash is swapped; it is refused whole.
    let foreign = stranger.send(64).await;
    let lock = SecretKey::generate();
    let locked = purse.send_locked(64, lock.public_key()).await;
    let many = purse.send_ones(65).await;
    let many = tokens::token(&mint.url(), tokens::proofs(&mint, &many), CurrencyUnit::Sat);
    assert!(many.len() < 16 * 1024, "too many proofs, not too long");
    let token_of = |proofs, unit| tokens::token(&mint.url(), proofs, unit);
    let mut worthless = proofs.clone();
    worthless[0].amount = Amount::ZERO;
    let twice = [proofs.clone(), proofs.clone()].concat();
    let invalid = (400, "invalid_token", "invalid_cashu_token");
    let zero = (400, "cashu_error", "cashu_token_zero_value");
    let cases = [
        ("not a token", "cashuB".to_owned(), invalid),
        ("garbage", "cashuBgarbage".to_owned(), invalid),
        ("of an unknown version", text.replacen("cashuB", "cashuC", 1), invalid),
        ("cut", text[..text.len() - 7].to_owned(), invalid),
        ("cut in the middle", text[..text.len() / 2].to_owned(), invalid),
        ("with other characters", format!("{}*{}", &text[..20], &text[21..]), invalid),
        ("with trailing CBOR", reencoded(&text, |bytes| bytes.push(0xf6)), invalid),
        ("with a trailing copy", reencoded(&text, |bytes| bytes.extend(bytes.clone())), invalid),
        ("too long", format!("cashuB{}", "A".repeat(17_000)), invalid),
        ("too many proofs", many.clone(), invalid),
        ("in dollars", token_of(proofs.clone(), CurrencyUnit::Usd), invalid),
        ("in another unit than its keyset", token_of(proofs.clone(), CurrencyUnit::Msat), invalid),
        ("the same proofs twice", token_of(twice, CurrencyUnit::Sat), invalid),
        ("of a mint that is not listed", foreign.clone(), (400, "untrusted_mint", "cashu_untrusted_source_mint")),
        ("locked to a key", locked.clone(), invalid),
        ("with a proof of nothing", token_of(worthless, CurrencyUnit::Sat), zero),
        ("without proofs", reencoded_empty(&mint), zero),
    ];
    let swaps = mint.calls("/v1/swap");
    for (what, token, refusal) in &cases {
        for (how, request) in paying(&node, &ask("hello"), token) {
            let (headers, _) = refused(&format!("{what} ({how})"), request, *refusal).await;
            assert!(!headers.contains_key("x-cashu"), "{what}");
        }
        let info = node.get("/v1/wallet/info").bearer_auth(token);
        refused(&format!("{what} (info)"), info, *refusal).await;
    }
    assert_eq!((mint.calls("/v1/swap"), upstream.seen().len()), (swaps, 0));
    assert_eq!(payee.receive(&text).await.unwrap(), 64);
    assert_eq!(payee.receive(&many).await.unwrap(), 65);
    assert_eq!(Purse::new(&elsewhere).await.receive(&foreign).await.unwrap(), 64);
    let options = cdk::wallet::ReceiveOptions { p2pk_signing_keys: vec![lock], ..Default::default() };
    assert_eq!(payee.wallet().receive(&locked, options).await.unwrap(), Amount::from(64));
    node.finish().await;
}

/// A token of this mint with an empty list of proofs.
fn reencoded_empty(mint: &TestMint) -> String {
    let token = json!({ "token": [{ "mint": mint.url(), "proofs": [] }], "unit": "sat" });
    format!("cashuA{}", BASE64.encode(token.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_as_many_proofs_as_allowed_is_taken() {
    let (mint, purse, _upstream, node) = world(10).await;
    let many = purse.send_ones(64).await;
    let many = tokens::token(&mint.url(), tokens::proofs(&mint, &many), CurrencyUnit::Sat);
    assert_eq!(node.balance(&many).await, (64_000, 0, 0));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_mint_refuses_is_refused_and_not_credited() {
    let (mint, purse, upstream, node) = world(500).await;
    let payee = Purse::new(&mint).await;
    let spent = purse.send(50).await;
    assert_eq!(payee.receive(&spent).await.unwrap(), 50);
    let good = purse.send_token(50).await;
    let mut forged = tokens::proofs(&mint, &good);
    forged[0].c = SecretKey::generate().public_key();
    let forged = tokens::token(&mint.url(), forged, CurrencyUnit::Sat);
    let cases = [
        ("spent", &spent, (400, "token_already_spent", "cashu_token_already_spent")),
        ("forged", &forged, (400, "cashu_error", "cashu_token_redemption_failed")),
    ];
    for (what, token, refusal) in cases {
        for _ in 0..2 {
            for (how, request) in paying(&node, &ask("hello"), token) {
                let (headers, _) = refused(&format!("{what} ({how})"), request, refusal).await;
                assert!(!headers.contains_key("x-cashu"), "{what}: no good, so not handed back");
            }
        }
        let key = node.get("/v1/wallet/info").bearer_auth(account_key(token));
        let answer = key.send().await.unwrap();
        if answer.status() == 200 {
            let info: Value = answer.json().await.unwrap();
            assert_eq!((&info["balance"], &info["total"]), (&json!(0), &json!(0)), "{what}");
        }
        let change = node.post("/v1/wallet/refund").header("X-Cashu", token);
        refused(what, change, (404, INVALID, "refund_not_found")).await;
    }
    assert_eq!(upstream.seen().len(), 0);
    // One bad proof makes a token bad; the others are still the payer's.
    assert_eq!(payee.receive(&good.to_string()).await.unwrap(), 50);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_is_down_leaves_the_token_good_for_later() {
    // Invariant 15: surely refused, surely done and unknown are told apart.
    let mut mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(200).await;
    let upstream = Upstream::start().await;
    let node = TestNode::start(&mint, &upstream).await;
    let first = purse.send(50).await;
    assert_eq!(node.balance(&first).await, (50_000, 0, 0));
    let (one_shot, key) = (purse.send(50).await, purse.send(50).await);
    mint.stop().await;
    let down = (503, "mint_unreachable", "cashu_mint_unreachable");
    for _ in 0..2 {
        let request = node.chat(&ask("hello")).header("X-Cashu", &one_shot);
        let (headers, body) = refused("X-Cashu", request, down).await;
        assert_eq!(headers["x-cashu"], one_shot, "it is untouched, so it comes back");
        assert!(headers.contains_key("retry-after"), "{body}");
        assert!(!headers.contains_key("x-should-retry"), "trying again is right");
        let (headers, _) = refused("Bearer", node.chat(&ask("hello")).bearer_auth(&key), down).await;
        assert!(!headers.contains_key("x-cashu"));
    }
    // What is already here needs no mint.
    assert_eq!(node.chat(&ask("hello")).bearer_auth(&first).send().await.unwrap().status(), 200);
    mint.restart().await;
    let answer = node.chat(&ask("hello")).header("X-Cashu", &one_shot).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let change = answer.headers()["x-cashu"].to_str().unwrap().to_owned();
    assert_eq!(Purse::new(&mint).await.receive(&change).await.unwrap(), 48);
    assert_eq!(Purse::new(&mint).await.receive(&key).await.unwrap(), 50, "this one was never taken");
    node.finish().await;
}

/// The payment request in the money header.
fn payment_request(headers: &BTreeMap<String, String>, mint: &TestMint) -> u64 {
    let text = &headers["x-cashu"];
    assert!(text.starts_with("creqA"), "{text}");
    let request = PaymentRequest::from_str(text).expect("a NUT-18 payment request");
    assert_eq!(request.unit, Some(CurrencyUnit::Sat));
    let mints: Vec<String> = request.mints.iter().map(ToString::to_string).collect();
    assert_eq!(mints, [mint.url()]);
    request.amount.expect("an amount").into()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpaid_request_is_told_the_price_and_the_price_is_enough() {
    let (mint, purse, upstream, node) = world(500).await;
    let asks = (402, QUOTA, "payment_required");
    let mut short = ask("hello");
    short["max_tokens"] = json!(50);
    let mut streaming = ask(&"a longer question ".repeat(50));
    streaming["stream"] = json!(true);
    for body in [ask("hello"), short, streaming] {
        let empty = node.chat(&body).header("X-Cashu", "");
        let (headers, answer) = refused("X-Cashu:", empty, asks).await;
        let price = payment_request(&headers, &mint);
        let payment = &answer["error"]["payment"];
        assert_eq!((&payment["amount"], &payment["unit"]), (&json!(price), &json!("sat")));
        assert_eq!((&payment["request"], &payment["mints"]), (&json!(headers["x-cashu"]), &json!([mint.url()])));
        let required = payment["required_msat"].as_u64().unwrap();
        assert_eq!(required.div_ceil(1000), price);
        for accepts in ["cashu", "lightning, Cashu"] {
            let (also, _) = refused("Accept-Payment", node.chat(&body).header("Accept-Payment", accepts), asks).await;
            assert_eq!(payment_request(&also, &mint), price);
        }
        assert_eq!(upstream.seen().len(), 0);
        // One sat less is too little, said the same way, and the token stays the payer's.
        let poor = purse.send(price - 1).await;
        let too_little = (402, QUOTA, "insufficient_balance");
        let (headers, answer) = refused("one less", node.chat(&body).header("X-Cashu", &poor), too_little).await;
        assert_eq!(payment_request(&headers, &mint), price);
        assert_eq!(answer["error"]["payment"]["required_msat"], required);
        assert_eq!(answer["error"]["payment"]["balance_msat"], (price - 1) * 1000);
        let detail = &answer["detail"];
        assert_eq!(
            (&detail["reason"], &detail["type"]),
            (&json!("Insufficient balance"), &json!("minimum_balance_required"))
        );
        assert_eq!((&detail["amount_required_msat"], &detail["model"]), (&json!(required), &json!(MODEL)));
        let signalled = node.chat(&body).bearer_auth(&poor).header("Accept-Payment", "cashu");
        assert_eq!(payment_request(&refused("bearer, signalled", signalled, too_little).await.0, &mint), price);
        let (headers, answer) = refused("bearer", node.chat(&body).bearer_auth(&poor), too_little).await;
        assert!(!headers.contains_key("x-cashu"));
        // Where more can be had to fill it with; a request for payment is for who says that it can pay one.
        let expected = json!({
            "required_msat": required, "balance_msat": (price - 1) * 1000, "unit": "sat", "mints": [mint.url()],
        });
        assert_eq!(answer["error"]["payment"], expected);
        assert_eq!(answer["detail"]["error"], answer["error"]);
        assert_eq!(Purse::new(&mint).await.receive(&poor).await.unwrap(), price - 1);
        // Exactly the price is accepted.
        let exact = purse.send(price).await;
        let answer = node.chat(&body).header("X-Cashu", &exact).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
        upstream.clear();
    }
    // What nobody could be served for is refused as such, before money is spoken of.
    let unknown = json!({ "model": "no-such-model", "messages": [{ "role": "user", "content": "hi" }] });
    refused("unknown model", node.chat(&unknown).header("X-Cashu", ""), (400, INVALID, "invalid_model")).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_good_credentials_is_unauthorized() {
    let (mint, purse, upstream, node) = world(200).await;
    let (token, other) = (purse.send(50).await, purse.send(50).await);
    let chat = || node.chat(&ask("hello"));
    let (_, body) = refused("nothing", chat(), (401, INVALID, "unauthorized")).await;
    assert_eq!(body["detail"], "Unauthorized");
    // In every protocol the message says what to do.
    let to_do =
        "No key and no token came with this: send one as `Authorization: Bearer …`, or a Cashu token in `X-Cashu`.";
    let contents = json!({ "contents": [{ "parts": [{ "text": "hi" }] }] });
    for request in [
        chat(),
        node.post("/v1/messages").header("anthropic-version", "2023-06-01").json(&ask("hello")),
        node.post(&format!("/v1beta/models/{MODEL}:generateContent")).json(&contents),
        node.get("/v1/usage"),
        node.get("/v1/wallet/info"),
        node.post("/v1/wallet/refund"),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 401);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["message"], to_do, "{body}");
    }
    let missing = (401, INVALID, "missing_api_key");
    refused("an empty bearer", chat().header("Authorization", "Bearer "), missing).await;
    refused("a bare scheme", chat().header("Authorization", "Bearer"), missing).await;
    let bad_key = (401, INVALID, "invalid_api_key");
    let unknown = format!("sk-{}", "0".repeat(64));
    for key in [unknown.as_str(), "sk-1234", "dummy", "Basic dXNlcjpwYXNz", "nsec1xyz", "creqAxyz"] {
        let (_, body) = refused(key, chat().bearer_auth(key), bad_key).await;
        // The network's SDK deletes a key on these words.
        let message = body["error"]["message"].as_str().unwrap();
        assert!(!message.contains("Key not found") && !message.contains("proofs already spent"), "{message}");
        refused(key, chat().header("x-api-key", key), bad_key).await;
    }
    let refund = node.post("/v1/wallet/refund").bearer_auth(&unknown);
    refused("refund", refund, (401, INVALID, "key_not_found")).await;
    let two = (400, INVALID, "invalid_request");
    refused("two keys", chat().bearer_auth(&token).header("x-api-key", &other), two).await;
    refused("two tokens", chat().bearer_auth(&token).header("X-Cashu", &other), two).await;
    refused("token and key", chat().bearer_auth(&unknown).header("X-Cashu", &other), two).await;
    refused("twice", chat().header("X-Cashu", &token).header("X-Cashu", &other), two).await;
    refused("not text", chat().header("X-Cashu", HeaderValue::from_bytes(b"cashuB\xff").unwrap()), two).await;
    assert_eq!(upstream.seen().len(), 0);
    // The same credential twice is one; and SDKs insist on some key beside a token.
    let answer = chat().bearer_auth(&token).header("x-api-key", &token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer = chat().bearer_auth("dummy").header("X-Cashu", &other).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    drop(mint);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_known_routes_is_forwarded() {
    let (mint, purse, upstream, node) = world(100).await;
    let token = purse.send(50).await;
    let at = |method: Method, path: &str| {
        client().request(method, format!("{}{path}", node.url())).header("X-Cashu", &token)
    };
    let not_allowed = (405, INVALID, "method_not_allowed");
    refused("GET", at(Method::GET, "/v1/chat/completions"), not_allowed).await;
    refused("PUT", at(Method::PUT, "/chat/completions"), not_allowed).await;
    let websocket = |method| {
        let request = at(method, "/v1/chat/completions").header("Connection", "Upgrade").header("Upgrade", "websocket");
        request.header("Sec-WebSocket-Version", "13").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    for method in [Method::GET, Method::POST] {
        refused("WebSocket", websocket(method), (426, INVALID, "upgrade_required")).await;
    }
    let not_found = (404, "not_found", "not_found");
    let hidden = format!("/{token}");
    for (path, told) in [
        ("/v1/chat", "/v1/chat"),
        ("/v1/chat/completions/", "/v1/chat/completions/"),
        ("/nothing", "/nothing"),
        ("/admin/../v1/x", "/v1/x"),
        (hidden.as_str(), "…"),
    ] {
        for method in [Method::GET, Method::POST] {
            let (_, body) = refused(path, at(method.clone(), path), not_found).await;
            assert_eq!(body["detail"], body["error"]["message"]);
            assert_eq!(body["detail"], format!("Path '{told}' not found: nothing is there for {method}."));
            assert!(!body.to_string().contains(&token), "a token in the path is not repeated");
        }
    }
    let unsupported = (404, "not_found", "unsupported_path");
    for path in ["/v1/fine_tuning/jobs", "/v1/chat/completions/x", "/v1/files", "/v1/threads/t/runs", "/v1/responses/r"]
    {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let (_, body) = refused(path, at(method, path), unsupported).await;
            let message = body["error"]["message"].as_str().unwrap();
            assert!(message.starts_with(&format!("Path '{path}' not found: this part of the API")), "{message}");
        }
    }
    let (_, body) = refused("below wallet", at(Method::GET, "/v1/wallet/nothing"), not_found).await;
    assert_eq!(body["detail"], "Not found check /docs for available endpoints");
    assert_eq!(upstream.seen().len(), 0);
    // An offer of HTTP/2 is no wish to leave HTTP.
    let offer = node.chat(&ask("hello")).header("X-Cashu", &token).header("Connection", "Upgrade, HTTP2-Settings");
    let answer = offer.header("Upgrade", "h2c").header("HTTP2-Settings", "AAMAAABk").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    drop(mint);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_may_pay_and_read_their_change() {
    let (_mint, purse, _upstream, node) = world(100).await;
    for path in ["/v1/chat/completions", "/v1/wallet/refund", "/v1/models"] {
        let preflight = client().request(Method::OPTIONS, format!("{}{path}", node.url())).header("Origin", ORIGIN);
        let preflight = preflight
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "authorization,content-type,x-cashu,x-cashu-change");
        let answer = preflight.send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        let headers = headers(&answer);
        assert!(["*", ORIGIN].contains(&headers["access-control-allow-origin"].as_str()));
        assert!(headers["access-control-allow-methods"].contains("POST"));
        for name in ["authorization", "content-type", "x-cashu", "x-cashu-change"] {
            assert!(headers["access-control-allow-headers"].contains(name), "{path}: {name}");
        }
    }
    let token = purse.send(50).await;
    let answer = node.chat(&ask("hello")).header("X-Cashu", &token).header("Origin", ORIGIN).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let headers = headers(&answer);
    let exposed: Vec<&str> = headers["access-control-expose-headers"].split(',').map(str::trim).collect();
    let money = [
        "x-cashu",
        "x-routstr-request-id",
        "x-routstr-cost-msats",
        "x-routstr-cost-usd",
        "x-routstr-input-cost-msats",
        "x-routstr-output-cost-msats",
        "x-routstr-model",
        "x-routstr-price-usd-per-btc",
        "x-ratelimit-remaining",
        "retry-after",
    ];
    for name in money {
        assert!(exposed.contains(&name), "{name} is not exposed: {exposed:?}");
    }
    node.finish().await;
}

/// What is allowed with credentials is allowed to sites that are named, and never to any.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_allowed_to_the_sites_that_the_operator_names() {
    let other = "https://other.example";
    let listed = format!("{ORIGIN},https://third.example");
    for (origins, asking, allowed, with_credentials) in [
        ("*", ORIGIN, Some("*"), None),
        ("*", other, Some("*"), None),
        (listed.as_str(), ORIGIN, Some(ORIGIN), Some("true")),
        (listed.as_str(), other, None, Some("true")),
    ] {
        let (_mint, _purse, _upstream, node) = world_with(1, &[("CORS_ORIGINS", origins)]).await;
        let preflight = client().request(Method::OPTIONS, format!("{}/v1/chat/completions", node.url()));
        let preflight = preflight.header("Access-Control-Request-Method", "POST");
        let preflight = preflight.header("Access-Control-Request-Headers", "authorization,x-cashu");
        for (what, request) in [("preflight", preflight), ("request", node.get("/v1/info"))] {
            let answer = request.header("Origin", asking).send().await.unwrap();
            assert!(answer.status().is_success(), "{what}");
            let headers = headers(&answer);
            let said = |name: &str| headers.get(name).map(String::as_str);
            assert_eq!(said("access-control-allow-origin"), allowed, "{origins} {asking} {what}");
            assert_eq!(said("access-control-allow-credentials"), with_credentials, "{origins} {asking} {what}");
            if what == "preflight" {
                assert_eq!(said("access-control-allow-headers"), Some("authorization,x-cashu"));
            }
        }
        node.finish().await;
    }
}

/// Things that clients might send for a token or a key.
fn credentials(token: String) -> impl Strategy<Value = Vec<u8>> {
    let (cut, bent, grown) = (token.clone(), token.clone(), token);
    prop_oneof![
        "[ -~]{0,80}".prop_map(String::into_bytes),
        "cashu[ABC]?[A-Za-z0-9_=-]{0,300}".prop_map(String::into_bytes),
        "(sk-)?[0-9a-fA-F]{0,70}".prop_map(String::into_bytes),
        "[ \\t]{0,3}(cashuB|sk-)[ ,;]{0,3}".prop_map(String::into_bytes),
        r#"\{"(token|unit|mint)":(\[\]|null|"usd"|\[\{"mint":"http://x","proofs":\[\{\}\]\}\])\}"#
            .prop_map(|json| format!("cashuA{}", BASE64.encode(json)).into_bytes()),
        proptest::collection::vec(any::<u8>(), 0..200)
            .prop_map(|bytes| format!("cashuB{}", BASE64.encode(bytes)).into_bytes()),
        proptest::collection::vec(prop_oneof![32_u8..127, 128_u8..=255], 0..100),
        any::<prop::sample::Index>().prop_map(move |at| cut.as_bytes()[..at.index(cut.len())].to_vec()),
        (any::<prop::sample::Index>(), "[A-Za-z0-9_-]").prop_map(move |(at, with)| {
            let at = at.index(bent.len());
            [&bent[..at], &with, &bent[at + 1..]].concat().into_bytes()
        }),
        "[ -~]{1,20}".prop_map(move |more| [grown.as_str(), &more].concat().into_bytes()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_credential_whatever_breaks_the_node() {
    let (mint, purse, _upstream, node) = world(200).await;
    let token = purse.send_token(50).await;
    let token = tokens::token(&mint.url(), tokens::proofs(&mint, &token), CurrencyUnit::Sat);
    assert!(Token::from_str(&token).is_ok());
    let strategy = credentials(token);
    let mut runner = TestRunner::deterministic();
    for _ in 0..150 {
        let credential = strategy.new_tree(&mut runner).unwrap().current();
        let shown = String::from_utf8_lossy(&credential).into_owned();
        let Ok(value) = HeaderValue::from_bytes(&credential) else { continue };
        let bearer = HeaderValue::from_bytes(&[b"Bearer ", &credential[..]].concat()).unwrap();
        let requests = [
            node.chat(&ask("hi")).header("X-Cashu", &value),
            node.chat(&ask("hi")).header("Authorization", &bearer),
            node.chat(&ask("hi")).header("x-api-key", &value),
            node.get("/v1/wallet/info").header("Authorization", &bearer),
            node.post("/v1/wallet/refund").header("X-Cashu", &value),
            node.post("/v1/wallet/create").json(&json!({ "initial_balance_token": shown })),
        ];
        for (at, request) in requests.into_iter().enumerate() {
            let answer = request.send().await.unwrap();
            let status = answer.status();
            assert!(!status.is_server_error(), "{at}: {status} for {shown:?}: {:?}", answer.text().await);
        }
    }
    node.finish().await;
}
