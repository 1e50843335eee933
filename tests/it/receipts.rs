//! Signed receipts: what was charged and why, for whoever paid, and for nobody else.

use std::process::Command;

use nostr::{Event, JsonUtil};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::bearer::world;
use crate::support::db::on_postgres;
use crate::support::node::{MODEL, TestNode, ask, ask_streaming};
use crate::support::tokens::account_key;
use crate::support::upstream::{Script, completion, sse, usage};

#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    receipt: &'a RawValue,
    #[serde(borrow)]
    event: &'a RawValue,
}

pub fn request_id(answer: &reqwest::Response) -> String {
    answer.headers()["x-routstr-request-id"].to_str().unwrap().to_owned()
}

async fn fetch(node: &TestNode, id: &str, key: &str) -> (u16, String) {
    let answer = node.get(&format!("/v1/receipts/{id}")).bearer_auth(key).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The receipt, its event verified.
pub async fn receipt(node: &TestNode, id: &str, key: &str) -> Value {
    let (status, text) = fetch(node, id, key).await;
    assert_eq!(status, 200, "{text}");
    let parts: Parts<'_> = serde_json::from_str(&text).unwrap();
    let event: Value = serde_json::from_str(parts.event.get()).unwrap();
    assert_eq!(event["content"], parts.receipt.get(), "the content is the receipt's exact text");
    // NIP-01, once with the crate and once by hand.
    Event::from_json(parts.event.get()).unwrap().verify().unwrap();
    let signed = json!([0, event["pubkey"], event["created_at"], event["kind"], event["tags"], event["content"]]);
    assert_eq!(event["id"], coinslot::vault::hex(&Sha256::digest(signed.to_string().as_bytes())));
    let info: Value = node.get("/v1/info").send().await.unwrap().json().await.unwrap();
    assert_eq!(event["pubkey"], info["receipt_pubkey"]);
    let receipt: Value = serde_json::from_str(parts.receipt.get()).unwrap();
    assert_eq!(receipt["node"], event["pubkey"]);
    assert_eq!(receipt["request_id"], id);
    assert_eq!(event["tags"], json!([["request", id]]));
    assert_eq!(event["created_at"].as_i64().unwrap(), receipt["settled_at_ms"].as_i64().unwrap() / 1000);
    let parts: u64 = ["base_msat", "input_msat", "cache_read_msat", "cache_write_msat", "output_msat"]
        .iter()
        .map(|part| receipt["cost"][part].as_u64().unwrap())
        .sum();
    assert_eq!(parts, receipt["charged_msat"].as_u64().unwrap());
    receipt
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_has_a_receipt_that_explains_it() {
    let (_mint, purse, _upstream, node) = world(500).await;
    let token = purse.send(200).await;
    let answer = node.chat(&ask("a private question")).bearer_auth(&token).send().await.unwrap();
    let id = request_id(&answer);
    assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
    answer.text().await.unwrap();
    let receipt = receipt(&node, &id, &token).await;
    assert_eq!((receipt["status"].as_str(), receipt["charged_msat"].as_u64()), (Some("captured"), Some(2000)));
    assert_eq!((&receipt["model"], &receipt["path"]), (&json!(MODEL), &json!("chat/completions")));
    assert_eq!((&receipt["usage"]["input"], &receipt["usage"]["output"]), (&json!(100), &json!(50)));
    assert_eq!(receipt["estimated"], false);
    let price = &receipt["price"];
    assert_eq!(
        (&price["currency"], &price["input"], &price["output"]),
        (&json!("usd"), &json!("0.00001"), &json!("0.00002"))
    );
    assert_eq!((&price["exchange_fee"], &price["provider_fee"]), (&json!("1"), &json!("1")));
    assert_eq!(receipt["btc_usd"], "100000");
    assert_eq!((&receipt["cost"]["input_msat"], &receipt["cost"]["output_msat"]), (&json!(1000), &json!(1000)));
    assert!(receipt["held_msat"].as_u64() >= Some(2000));
    assert!(receipt["created_at_ms"].as_i64() <= receipt["settled_at_ms"].as_i64());
    assert!(receipt.get("change_msat").is_none() && receipt.get("shortfall_msat").is_none());
    assert!(!receipt.to_string().contains("private"));
    // The same for every name of the key, and every time.
    let (_, first) = fetch(&node, &id, &token).await;
    assert_eq!(fetch(&node, &id, &account_key(&token)).await, (200, first.clone()));
    let plain = node.get(&format!("/receipts/{id}")).header("x-api-key", account_key(&token)).send().await.unwrap();
    assert_eq!(plain.text().await.unwrap(), first);
    node.finish().await;
}

/// PostgreSQL comes back from a crash without what was not synced. Prices that are lost with it are stored again.
#[tokio::test(flavor = "multi_thread")]
async fn prices_that_the_database_has_lost_are_stored_again() {
    use sqlx::{Connection, Executor};
    if !on_postgres() {
        return;
    }
    let (_mint, purse, _upstream, node) = world(500).await;
    let token = purse.send(200).await;
    let pay = async || {
        let answer = node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let id = request_id(&answer);
        answer.text().await.unwrap();
        node.settled().await;
        receipt(&node, &id, &token).await
    };
    let before = pay().await;
    let mut connection = sqlx::PgConnection::connect(&node.settings()["DATABASE_URL"]).await.unwrap();
    // Who has charged it keeps its connection.
    let writer = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
         WHERE datname = current_database() AND query LIKE 'UPDATE holds SET charged%'";
    assert_eq!(sqlx::query(writer).fetch_all(&mut connection).await.unwrap().len(), 1);
    let lost = "ALTER TABLE price_sheets DISABLE TRIGGER USER; DELETE FROM price_sheets; \
         ALTER TABLE price_sheets ENABLE TRIGGER USER";
    connection.execute(sqlx::raw_sql(lost)).await.unwrap();
    connection.close().await.unwrap();
    assert_eq!(pay().await["price"], before["price"]);
    // The first charge has lost its prices for good, and the books have not lost it.
    assert_eq!(node.balance(&token).await, (196_000, 0, 4_000));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_receipt_does_not_verify() {
    let (_mint, purse, _upstream, node) = world(500).await;
    let token = purse.send(200).await;
    let answer = node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap();
    let (_, text) = fetch(&node, &request_id(&answer), &token).await;
    let event = serde_json::from_str::<Value>(&text).unwrap()["event"].clone();
    assert!(Event::from_json(event.to_string()).unwrap().verify().is_ok());
    let stranger = nostr::Keys::generate().public_key().to_hex();
    for (field, value) in [
        ("content", json!(event["content"].as_str().unwrap().replace("\"charged_msat\":2000", "\"charged_msat\":2"))),
        ("created_at", json!(1)),
        ("kind", json!(1)),
        ("tags", json!([])),
        ("pubkey", json!(stranger)),
        ("sig", json!("00".repeat(64))),
        ("id", json!("00".repeat(32))),
    ] {
        let mut forged = event.clone();
        assert_ne!(forged[field], value);
        forged[field] = value;
        let valid = Event::from_json(forged.to_string()).is_ok_and(|event| event.verify().is_ok());
        assert!(!valid, "{field} can be changed");
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_rode_along_opens_its_receipt_with_the_change_in_it() {
    let (mint, purse, _upstream, node) = world(500).await;
    for (body, mode) in [(ask("hi"), ""), (ask_streaming("hi"), ""), (ask_streaming("hi"), "stream")] {
        let token = purse.send(100).await;
        let answer = node.chat(&body).header("X-Cashu", &token).header("X-Cashu-Change", mode).send().await.unwrap();
        let id = request_id(&answer);
        answer.text().await.unwrap();
        let receipt = receipt(&node, &id, &token).await;
        assert_eq!((&receipt["mint"], &receipt["unit"]), (&json!(mint.url()), &json!("sat")));
        assert_eq!((&receipt["charged_msat"], &receipt["change_msat"]), (&json!(2000), &json!(98_000)));
        assert!(!receipt.to_string().contains("cashu"));
        let ridden = node.get(&format!("/v1/receipts/{id}")).header("X-Cashu", &token).send().await.unwrap();
        assert_eq!(ridden.status(), 200);
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cost_nothing_has_a_receipt_of_nothing() {
    let (_mint, purse, upstream, node) = world(500).await;
    let (key, once) = (purse.send(100).await, purse.send(100).await);
    let broken = Script::Answer { status: 500, media: "application/json", body: "{}".to_owned() };
    for request in [node.chat(&ask("hi")).bearer_auth(&key), node.chat(&ask("hi")).header("X-Cashu", &once)] {
        upstream.next(broken.clone());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 502);
        let id = request_id(&answer);
        let payer = if answer.headers().contains_key("x-cashu") { &once } else { &key };
        let receipt = receipt(&node, &id, payer).await;
        assert_eq!((&receipt["status"], &receipt["charged_msat"]), (&json!("released"), &json!(0)));
        assert_eq!(receipt["model"], MODEL);
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn estimates_and_losses_are_marked() {
    let (_mint, purse, upstream, node) = world(500).await;
    let token = purse.send(200).await;
    upstream.next(Script::Answer {
        status: 200,
        media: "application/json",
        body: completion(MODEL, "counted from text", None),
    });
    let answer = node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap();
    let counted = receipt(&node, &request_id(&answer), &token).await;
    assert_eq!(counted["estimated"], true);
    let mut small = ask("hi");
    small["max_tokens"] = json!(10);
    upstream.next(Script::Answer {
        status: 200,
        media: "application/json",
        body: completion(MODEL, "more than was asked for", Some(usage(100, 5000))),
    });
    let answer = node.chat(&small).bearer_auth(&token).send().await.unwrap();
    let short = receipt(&node, &request_id(&answer), &token).await;
    assert_eq!(short["charged_msat"], short["held_msat"]);
    assert_eq!(short["charged_msat"].as_u64().unwrap() + short["shortfall_msat"].as_u64().unwrap(), 101_000);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_learns_whether_there_is_a_receipt() {
    let (_mint, purse, _upstream, node) = world(500).await;
    let (token, other, unused) = (purse.send(100).await, purse.send(100).await, purse.send(10).await);
    let answer = node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap();
    let id = request_id(&answer);
    node.chat(&ask("hi")).bearer_auth(&other).send().await.unwrap();
    let unknown = uuid::Uuid::new_v4().to_string();
    let mut answers = Vec::new();
    for request in [
        node.get(&format!("/v1/receipts/{id}")).bearer_auth(&other),
        node.get(&format!("/v1/receipts/{id}")).bearer_auth(&unused),
        node.get(&format!("/v1/receipts/{id}")).bearer_auth(format!("sk-{}", "0".repeat(64))),
        node.get(&format!("/v1/receipts/{id}")).bearer_auth("garbage"),
        node.get(&format!("/v1/receipts/{id}")),
        node.get(&format!("/v1/receipts/{unknown}")).bearer_auth(&token),
        node.get("/v1/receipts/nonsense").bearer_auth(&token),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 404);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "receipt_not_found");
        answers.push(body["error"].clone());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    // Asking for a receipt redeems nothing.
    assert_eq!(purse.receive(&unused).await.unwrap(), 10);
    node.finish().await;
}

/// A child spends its parent's money: both may see it, its siblings may not.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_s_receipt_is_its_own_and_its_parent_s() {
    let (_mint, purse, _upstream, node) = world(500).await;
    let token = purse.send(200).await;
    let made = node.post("/v1/wallet/child-key").bearer_auth(&token).json(&json!({ "count": 2 })).send().await.unwrap();
    let made: Value = made.json().await.unwrap();
    let (child, sibling) = (made["api_keys"][0].as_str().unwrap(), made["api_keys"][1].as_str().unwrap());
    let answer = node.chat(&ask("hi")).bearer_auth(child).send().await.unwrap();
    let id = request_id(&answer);
    let own = node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(receipt(&node, &id, child).await["charged_msat"], 2000);
    assert_eq!(receipt(&node, &id, &token).await["charged_msat"], 2000);
    assert_eq!(fetch(&node, &id, sibling).await.0, 404);
    assert_eq!(fetch(&node, &request_id(&own), child).await.0, 404);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_runs_has_no_receipt_yet() {
    let (_mint, purse, upstream, node) = world(500).await;
    let token = purse.send(100).await;
    let mut pieces = sse(MODEL, &["one", "two"], Some(usage(100, 50)));
    let after = pieces.split_off(2);
    upstream.next(Script::Paused { before: pieces, after });
    let answer = node.chat(&ask_streaming("hi")).bearer_auth(&token).send().await.unwrap();
    let id = request_id(&answer);
    let early = node.get(&format!("/v1/receipts/{id}")).bearer_auth(&token).send().await.unwrap();
    assert_eq!((early.status().as_u16(), &early.headers()["retry-after"]), (425, &"1".parse().unwrap()));
    assert_eq!(early.json::<Value>().await.unwrap()["error"]["code"], "receipt_pending");
    upstream.resume();
    answer.text().await.unwrap();
    assert_eq!(receipt(&node, &id, &token).await["charged_msat"], 2000);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_survives_a_restart_and_so_does_the_identity() {
    let (_mint, purse, _upstream, mut node) = world(500).await;
    let token = purse.send(100).await;
    assert!(node.running().generated_npub().is_some());
    let answer = node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap();
    let id = request_id(&answer);
    let before = fetch(&node, &id, &token).await;
    node.restart().await;
    assert!(node.running().generated_npub().is_none());
    assert_eq!(fetch(&node, &id, &token).await, before);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_identity_is_the_configured_one_or_one_that_is_kept_sealed() {
    const NSEC: &str = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5";
    let keys = nostr::Keys::parse(NSEC).unwrap();
    let mint = crate::support::mint::TestMint::start().await;
    let upstream = crate::support::upstream::Upstream::start().await;
    let node = TestNode::with(&mint, &upstream, &[("NSEC", NSEC)]).await;
    assert!(node.running().generated_npub().is_none());
    let info: Value = node.get("/v1/info").send().await.unwrap().json().await.unwrap();
    assert_eq!(info["receipt_pubkey"], keys.public_key().to_hex());
    assert!(info["npub"].as_str().unwrap().starts_with("npub1"));
    let root: Value = node.get("/").send().await.unwrap().json().await.unwrap();
    assert_eq!(root["npub"], info["npub"]);
    node.finish().await;

    let npub = "npub180cvv07tjdrrgpa0j7j7tmnyl2yr6yr7l8j4s3evf6u64th6gkwsyjh6w6";
    let node = TestNode::with(&mint, &upstream, &[("NPUB", npub)]).await;
    let info: Value = node.get("/v1/info").send().await.unwrap().json().await.unwrap();
    assert_eq!(info["npub"], npub);
    let sealed = node.running().exchange().ledger.store().setting("nostr_key").await.unwrap().unwrap();
    assert!(sealed.len() > 64 && !sealed.contains("nsec1"));
    node.finish().await;

    for (vars, wrong) in [(vec![("NSEC", NSEC), ("NPUB", npub)], "NPUB: "), (vec![("NSEC", "nsec1x")], "NSEC: ")] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_coinslot"));
        let output = command.arg("check").env_clear().current_dir(dir.path()).envs(vars).output().unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with(wrong), "{said}");
    }
}
