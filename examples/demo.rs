//! Everything on one machine: a real Cashu mint (with Lightning that pays itself), a toy
//! OpenAI-compatible upstream, and a coinslot node between them. Pays for two chat requests and
//! checks the change at the mint; then stays up for you to try.
//!
//! ```text
//! cargo run --example demo             two paid requests, then copy-paste lines until Ctrl-C
//! cargo run --example demo -- --once   two paid requests, then exit
//! cargo run --example demo -- --json   print one JSON line for programs, serve until stdin ends
//!       both prove the books at the end: where they are wrong, that is said, and the exit code is 1
//!       … --json --upstream URL --models FILE    the same in front of another upstream, with its prices
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use coinslot::clock::SystemClock;
use coinslot::config::Config;
use coinslot::node::{self, Running};
use nostr::nips::nip19::ToBech32;
use nostr::{EventBuilder, JsonUtil, Keys, Kind, Tag, Timestamp};
use serde_json::{Value, json};
use support::mint::TestMint;
use support::node::{MODEL, client, faults_of};
use support::purse::Purse;
use support::upstream::Upstream;
use tokio::io::AsyncBufReadExt;

/// What is paid per request, in sat.
const PAID: u64 = 100;
const ADMIN_PASSWORD: &str = "the demo's password";

#[tokio::main]
async fn main() -> ExitCode {
    let mode = std::env::args().nth(1).unwrap_or_default();
    let dir = tempfile::Builder::new().prefix("coinslot-demo-").tempdir().expect("a temporary directory");
    let mut mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let models_path = option("--models").unwrap_or_else(|| {
        let path = dir.path().join("models.json");
        std::fs::write(&path, models().to_string()).expect("models.json");
        path.display().to_string()
    });
    let upstream_url = option("--upstream").unwrap_or_else(|| upstream.url());
    let operator = Keys::generate();
    let node = start_node(dir.path(), &mint, &upstream_url, models_path, &operator).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(100_000).await;
    if mode == "--json" {
        serve_programs(&node, &mut mint, purse, operator).await;
    } else {
        println!("mint      {}  (a real Cashu mint; its Lightning pays itself)", mint.url());
        println!("upstream  {}  (a toy that echoes)", upstream.url());
        println!("coinslot  http://{}\n", node.address());
        pay_plain(&node, &purse).await;
        pay_streaming(&node, &purse).await;
        if mode != "--once" {
            invite(&node, &purse).await;
            tokio::signal::ctrl_c().await.expect("Ctrl-C");
        }
    }
    // Who pressed Ctrl-C waits for nothing more.
    let faults = if mode.is_empty() { Vec::new() } else { faults_of(&node, &client()).await };
    node.shutdown(std::future::ready(())).await;
    for fault in &faults {
        eprintln!("the books are wrong: {fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The word behind this one on the command line.
fn option(name: &str) -> Option<String> {
    std::env::args().skip_while(|word| word != name).nth(1)
}

async fn start_node(
    dir: &std::path::Path,
    mint: &TestMint,
    upstream_url: &str,
    models_path: String,
    operator: &Keys,
) -> Running {
    let settings = [
        ("PORT", "0".to_owned()),
        ("DATA_DIR", dir.join("data").display().to_string()),
        ("MODELS_PATH", models_path),
        ("UPSTREAM_BASE_URL", upstream_url.to_owned()),
        ("CASHU_MINTS", mint.url()),
        ("BTC_USD_FIXED", "100000".to_owned()),
        ("ADMIN_PASSWORD", ADMIN_PASSWORD.to_owned()),
        ("ADMIN_NPUBS", operator.public_key().to_bech32().expect("an npub")),
        ("NAME", "coinslot demo".to_owned()),
        ("DESCRIPTION", "A whole node on one machine. Its mint is real, its models only echo.".to_owned()),
    ];
    let settings: BTreeMap<String, String> =
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let config = Config::from_vars(&settings).expect("settings");
    node::start(config, Arc::new(SystemClock)).await.expect("the node starts")
}

fn request(text: &str, stream: bool) -> Value {
    json!({ "model": MODEL, "stream": stream, "messages": [{ "role": "user", "content": text }] })
}

async fn pay_plain(node: &Running, purse: &Purse) {
    let answer = client()
        .post(format!("http://{}/v1/chat/completions", node.address()))
        .header("X-Cashu", purse.send(PAID).await)
        .json(&request("Does ecash buy tokens?", false))
        .send()
        .await
        .expect("an answer");
    let change = answer.headers()["x-cashu"].to_str().expect("a token").to_owned();
    let body: Value = answer.json().await.expect("JSON");
    println!("plain request");
    println!("  answer   {}", body["choices"][0]["message"]["content"]);
    report(purse, &body, &change).await;
}

async fn pay_streaming(node: &Running, purse: &Purse) {
    let answer = client()
        .post(format!("http://{}/v1/chat/completions", node.address()))
        .header("X-Cashu", purse.send(PAID).await)
        .header("X-Cashu-Change", "stream")
        .json(&request("And in a stream?", true))
        .send()
        .await
        .expect("an answer");
    let text = answer.text().await.expect("a stream");
    let mut said = String::new();
    let mut bill = Value::Null;
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let Ok(event) = serde_json::from_str::<Value>(data) else { continue };
        said.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
        if event["usage"]["cost"].is_object() {
            bill = event;
        }
    }
    let change = text.lines().find_map(|line| line.strip_prefix(": x-cashu ")).expect("change in the stream");
    println!("streaming request");
    println!("  answer   {said:?}");
    report(purse, &bill, change).await;
}

async fn report(purse: &Purse, body: &Value, change: &str) {
    let cost = body["usage"]["cost"]["total_msats"].as_u64().expect("a cost");
    let received = purse.receive(change).await.expect("the mint honours the change");
    assert_eq!(received, PAID - cost.div_ceil(1000), "paid = cost + change");
    println!("  paid     {PAID} sat");
    println!("  cost     {}.{:03} sat", cost / 1000, cost % 1000);
    println!("  change   {received} sat, redeemed at the mint\n");
}

async fn invite(node: &Running, purse: &Purse) {
    let address = node.address();
    let token = purse.send(1000).await;
    println!("Try it. This token is worth 1000 sat; it is the API key, and it works until it is used up:\n");
    println!("curl http://{address}/v1/chat/completions -H 'Content-Type: application/json' \\");
    println!("  -H 'Authorization: Bearer {token}' \\");
    println!("  -d '{}'\n", request("hello", false));
    println!("python3 -c 'from openai import OpenAI; \\");
    println!("  print(OpenAI(base_url=\"http://{address}/v1\", api_key=\"{token}\").chat.completions.create(\\");
    println!("  model=\"{MODEL}\", messages=[{{\"role\": \"user\", \"content\": \"hello\"}}]))'\n");
    println!("What is left of it:  curl http://{address}/v1/wallet/info -H 'Authorization: Bearer {token}'");
    println!("Give it back:        curl -X POST http://{address}/v1/wallet/refund -H 'Authorization: Bearer {token}'");
    println!("Operator's page:     http://{address}/admin  (password: {ADMIN_PASSWORD})");
    println!("\nCtrl-C ends the demo.");
}

/// For test suites in other languages: hands out tokens, checks change, and signs as the operator's browser would,
/// over HTTP. A line on the standard input
/// that says `mint stop` or `mint start` does that, and is answered with `done`.
async fn serve_programs(node: &Running, mint: &mut TestMint, purse: Purse, operator: Keys) {
    #[derive(serde::Deserialize)]
    struct Wanted {
        sats: u64,
    }
    async fn token(State(purse): State<Arc<Purse>>, Query(wanted): Query<Wanted>) -> String {
        purse.send(wanted.sats).await
    }
    async fn receive(State(purse): State<Arc<Purse>>, body: String) -> (StatusCode, String) {
        match purse.receive(body.trim()).await {
            Ok(sats) => (StatusCode::OK, sats.to_string()),
            Err(error) => (StatusCode::BAD_REQUEST, error.to_string()),
        }
    }
    let sign = async move |body: String| {
        let template: Value = serde_json::from_str(&body).expect("an event");
        let tags = template["tags"].as_array().expect("tags").iter();
        let tags = tags.map(|tag| serde_json::from_value(tag.clone()).expect("a tag")).collect::<Vec<Tag>>();
        let kind = Kind::from_u16(u16::try_from(template["kind"].as_u64().expect("a kind")).expect("a kind"));
        let at = Timestamp::from_secs(template["created_at"].as_u64().expect("a time"));
        let content = template["content"].as_str().expect("a content");
        let event = EventBuilder::new(kind, content).tags(tags).custom_created_at(at);
        event.sign_with_keys(&operator).expect("a signature").as_json()
    };
    let router = axum::Router::new().route("/token", get(token)).route("/receive", post(receive));
    let router = router.route("/sign", post(sign)).with_state(Arc::new(purse));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move { axum::serve(listener, router).await.expect("the bank serves") });
    println!(
        "{}",
        json!({
            "base_url": format!("http://{}/v1", node.address()), "mint_url": mint.url(), "model": MODEL,
            "admin_password": ADMIN_PASSWORD,
            "token_endpoint": format!("http://{address}/token"), "receive_endpoint": format!("http://{address}/receive"),
            "sign_endpoint": format!("http://{address}/sign"), "admin_password": ADMIN_PASSWORD,
        })
    );
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.expect("stdin") {
        match line.as_str() {
            "mint stop" => mint.stop().await,
            "mint start" => mint.restart().await,
            other => panic!("not a command: {other}"),
        }
        println!("done");
    }
}

/// The models that a node may well sell, and the toys of the tests: the upstream echoes for any.
fn models() -> Value {
    let mut list: Value = serde_json::from_str(include_str!("../models.example.json")).expect("models.example.json");
    let toys = support::node::models()["models"].as_array().expect("models").clone();
    list["models"].as_array_mut().expect("models").extend(toys);
    list
}
