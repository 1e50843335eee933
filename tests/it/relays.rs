//! The node at a relay that shares no code with ours, seen by a client that does not either.
//!
//! `TEST_RELAY_URL` names the relay and `TEST_RELAY_STRANGER` the client's script; `tests/relays/run.sh`
//! brings both. Without them, the tests say that they are skipped.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::answers::until;
use crate::support::mint::TestMint;
use crate::support::node::TestNode;
use crate::support::upstream::Upstream;

/// The relay, and what does as the stranger does.
fn world() -> Option<(String, String)> {
    let found = std::env::var("TEST_RELAY_URL").ok().zip(std::env::var("TEST_RELAY_STRANGER").ok());
    if found.is_none() {
        crate::support::skip("tests/relays/run.sh", "another relay");
    }
    found
}

async fn stranger(script: &str, verb: &str, relay: &str, what: &str) -> Value {
    let mut command = Command::new("node");
    command.args([script, verb, relay, what]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn tags<'a>(event: &'a Value, name: &str) -> Vec<&'a str> {
    let tags = event["tags"].as_array().unwrap().iter();
    tags.filter(|tag| tag[0] == name).map(|tag| tag[1].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_is_read_and_verified_by_a_stranger_and_so_is_its_end() {
    let Some((relay, script)) = world() else { return };
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let settings = [
        ("RELAYS", relay.as_str()),
        ("HTTP_URL", "https://node.example.com"),
        ("ONION_URL", "http://abc.onion"),
        ("NAME", "a \"node\""),
        ("DESCRIPTION", "sells – by the request"),
    ];
    let node = TestNode::with(&mint, &upstream, &settings).await;
    let info: Value = node.get("/v1/info").send().await.unwrap().json().await.unwrap();
    let pubkey = info["receipt_pubkey"].as_str().unwrap().to_owned();
    let ask = async |path: &str| node.get(path).send().await.unwrap().json::<Value>().await.unwrap();
    until("the relay has it", async || ask("/readyz").await["network"]["relays"] == 1).await;
    let up = stranger(&script, "read", &relay, &pubkey).await;
    assert_eq!(tags(&up, "u"), ["https://node.example.com", "http://abc.onion"]);
    assert_eq!((tags(&up, "d"), tags(&up, "mint")), (vec![&pubkey[..12]], vec![mint.url().as_str()]));
    assert_eq!(tags(&up, "version"), [info["version"].as_str().unwrap()]);
    let content: Value = serde_json::from_str(up["content"].as_str().unwrap()).unwrap();
    assert_eq!(content, json!({ "name": "a \"node\"", "about": "sells – by the request" }));
    node.finish().await;
    let down = stranger(&script, "read", &relay, &pubkey).await;
    assert_eq!((tags(&down, "status"), tags(&down, "u")), (vec!["down"], Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_s_listing_is_found() {
    let Some((relay, script)) = world() else { return };
    let written = stranger(&script, "write", &relay, "https://stranger.example.com/").await;
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let node = TestNode::with(&mint, &upstream, &[("RELAYS", relay.as_str())]).await;
    let path = format!("/v1/providers?pubkey={}", written["pubkey"].as_str().unwrap());
    let ask = async || node.get(&path).send().await.unwrap().json::<Value>().await.unwrap()["providers"][0].clone();
    until("it is found", async || !ask().await.is_null()).await;
    let found = ask().await;
    assert_eq!((&found["event_id"], &found["id"]), (&written["id"], &json!("stranger")));
    assert_eq!(found["name"], "a stranger");
    assert_eq!((&found["endpoint_url"], &found["version"]), (&json!("https://stranger.example.com"), &json!("0.4.8")));
    // One that is written while the node listens.
    let later = stranger(&script, "write", &relay, "https://later.example.com/").await;
    let path = format!("/v1/providers?pubkey={}", later["pubkey"].as_str().unwrap());
    let ask = async || node.get(&path).send().await.unwrap().json::<Value>().await.unwrap()["providers"][0].clone();
    until("it is heard of", async || ask().await["event_id"] == later["id"]).await;
    node.finish().await;
}
