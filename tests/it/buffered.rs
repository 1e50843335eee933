//! Streams that a token pays for: they are held back until their change is known, unless they are too long for that.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bearer::{world, world_with};
use crate::support::answers::{PATIENCE, until};
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, TestNode, ask_streaming};
use crate::support::purse::Purse;
use crate::support::tokens::account_key;
use crate::support::upstream::{Script, delta, sse};
use crate::xcashu::{adds_up, asked, claimed, header};

/// So many events of 60 kB each.
fn long(events: usize) -> Vec<String> {
    vec![delta(MODEL, &"x".repeat(60_000)); events]
}

/// The node's own task collects such a stream: nobody has to finish it, however long its upstream is silent.
#[tokio::test(flavor = "multi_thread")]
async fn the_operator_ends_a_stream_that_is_held_back() {
    let (mint, purse, upstream, node) = world(200).await;
    let payee = Purse::new(&mint).await;
    let token = purse.send(40).await;
    let request = || node.chat(&ask_streaming("hi")).header("X-Cashu", &token).header("Idempotency-Key", "once").send();
    upstream.next(Script::Paused { before: sse(MODEL, &["one"], None)[..2].to_vec(), after: Vec::new() });
    let asking = tokio::spawn(request());
    asked(&upstream, 1).await;
    let exchange = node.running().exchange();
    assert_eq!(exchange.deliveries.take_stalled(&exchange.tracker, i64::MAX), 0, "whatever the clock says");
    let id = exchange.ongoing.list()[0].request.clone();
    assert!(exchange.abort(&id));

    let answer = tokio::time::timeout(PATIENCE, asking).await.expect("it ends").unwrap().unwrap();
    assert_eq!(answer.status(), 503);
    let change = header(&answer, "x-cashu").expect("all of it comes back").to_owned();
    assert_ne!(change, token, "the token itself is spent");
    let told: Value = answer.json().await.unwrap();
    assert_eq!(
        (&told["error"]["code"], &told["error"]["refund_token"]),
        (&json!("request_aborted"), &json!(change.clone()))
    );
    let again = request().await.unwrap();
    assert_eq!((again.status().as_u16(), header(&again, "x-cashu")), (503, Some(change.as_str())));
    assert_eq!(header(&again, "idempotent-replayed"), Some("true"));
    assert_eq!(claimed(&node.url(), &token).await, change);
    adds_up(&node, &payee, &token, &change, 0).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_stream_that_is_too_long_to_be_held_back_pays_for_it() {
    let (mint, purse, upstream, node) = world(200).await;
    let payee = Purse::new(&mint).await;
    let token = purse.send(40).await;
    // 32 MiB are held back. Of what comes after, so much is left that it is not read to its end without a client.
    upstream.next(Script::Stream { pieces: long(700), cut: false });
    let mut answer = node.chat(&ask_streaming("hi")).header("X-Cashu", &token).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), header(&answer, "x-cashu")), (200, None), "it is live");
    assert!(!answer.chunk().await.unwrap().unwrap().is_empty());
    let hold = node.balance(&account_key(&token)).await.1;
    drop(answer);
    let change = claimed(&node.url(), &token).await;
    let (_, held, spent) = node.balance(&account_key(&token)).await;
    // So many characters are more than the most that was held for.
    assert!(hold > 0);
    assert_eq!((held, spent), (0, hold));
    adds_up(&node, &payee, &token, &change, spent).await;
    node.finish().await;
}

/// A key of 200 sat whose client leaves when the head of a stream went out, and no content yet; then `after` comes, and
/// the hold ends. Tells what was held.
async fn left_early(after: Vec<String>) -> (TestMint, TestNode, String, u64) {
    let (mint, purse, upstream, node) = world_with(500, &[("SSE_KEEP_ALIVE_SECONDS", "1")]).await;
    let key = purse.send(200).await;
    upstream.next(Script::Paused { before: Vec::new(), after });
    let mut answer = node.chat(&ask_streaming("hi")).bearer_auth(&key).send().await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), ": ping\n\n");
    let held = node.balance(&key).await.1;
    drop(answer);
    tokio::time::sleep(Duration::from_secs(4)).await;
    upstream.resume();
    until("the hold has ended", async || node.balance(&key).await.1 == 0).await;
    (mint, node, key, held)
}

/// What is read without a client that has left was for it.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_before_the_first_content_pays_for_what_comes() {
    // More than is read without a client.
    let (_mint, node, key, held) = left_early(long(120)).await;
    assert!(held > 0);
    assert_eq!(node.balance(&key).await, (200_000 - held, 0, held), "all that was held");
    node.finish().await;
}

/// What fails before anything was sent costs nothing, whether or not its client is there.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_stream_that_fails_before_anything_was_sent_pays_nothing() {
    let failure = "data: {\"error\":{\"message\":\"out of luck\"}}\n\n".to_owned();
    let (_mint, node, key, _) = left_early(vec![delta(MODEL, "some text"), failure]).await;
    assert_eq!(node.balance(&key).await, (200_000, 0, 0));
    node.finish().await;
}
