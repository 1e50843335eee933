//! Streams that a token pays for: they are held back until their change is known, unless they are too long for that.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bearer::world;
use crate::support::node::{MODEL, ask_streaming};
use crate::support::purse::Purse;
use crate::support::upstream::{Script, sse};
use crate::xcashu::{adds_up, asked, claimed, header};

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
    // Longer than a client may be that does not read.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let exchange = node.running().exchange();
    assert_eq!(exchange.deliveries.take_stalled(&exchange.tracker, i64::MAX), 0, "whatever the clock says");
    let id = exchange.ongoing.list()[0].request.clone();
    assert!(exchange.abort(&id));

    let answer = tokio::time::timeout(Duration::from_secs(10), asking).await.expect("it ends").unwrap().unwrap();
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
