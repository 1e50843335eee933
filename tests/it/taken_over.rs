//! A process that is not dead, and was taken for it: another one has its operations when it goes on with them.
//! And commits of which nobody knows whether they count.

use std::sync::Arc;
use std::time::Duration;

use cdk::nuts::CurrencyUnit;
use coinslot::store::Durability;
use serde_json::Value;

use crate::bearer::world;
use crate::lightning::node_ahead;
use crate::support::answers::{PATIENCE, decided, ok, read};
use crate::support::chaos::{Chaos, Mode};
use crate::support::clock::Ahead;
use crate::support::db::on_postgres;
use crate::support::mint::TestMint;
use crate::support::node::{TestNode, ask};
use crate::support::purse::Purse;
use crate::support::upstream::Upstream;

const SWAP: &str = "/v1/swap";

/// Writes to the node's database, past the node.
async fn write(node: &TestNode, statements: &[&'static str]) {
    let mut tx = node.running().exchange().ledger.store().begin(Durability::Full).await.unwrap();
    for sql in statements {
        sqlx::query(*sql).execute(tx.hand()).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn reserved(node: &TestNode) -> i64 {
    let count = sqlx::query("SELECT COUNT(*) FROM proof WHERE state = 'RESERVED'");
    let row = count.fetch_one(node.running().exchange().ledger.store().read()).await.unwrap();
    sqlx::Row::get(&row, 0)
}

/// The mint refuses a swap whose operation another process has taken over meanwhile: that one may send it yet, so
/// the coins are not free.
#[tokio::test(flavor = "multi_thread")]
async fn coins_of_an_operation_that_another_process_has_stay_reserved() {
    let mint = TestMint::start().await;
    let chaos = Chaos::before(&mint.url());
    let purse = Purse::with_unit(&chaos.url(), CurrencyUnit::Sat).await;
    purse.mint_sats(200).await;
    let upstream = Upstream::start().await;
    let clock = Arc::new(Ahead::default());
    let node = node_ahead(&mint, &upstream, &clock, &[("CASHU_MINTS", &chaos.url())]).await;
    let key = purse.send(100).await;
    assert_eq!(node.chat(&ask("hi")).bearer_auth(&key).send().await.unwrap().status(), 200);

    // A refund for which coins must be exchanged first.
    let swaps = chaos.hits(SWAP);
    chaos.set(SWAP, Mode::Hold);
    let asking = tokio::spawn(node.post("/v1/wallet/refund").bearer_auth(&key).send());
    chaos.hit(SWAP, swaps).await;
    let held = reserved(&node).await;
    assert!(held > 0);
    write(
        &node,
        &[
            "INSERT INTO nodes (id, seen_at) VALUES ('another', 9000000000000000)",
            "UPDATE operations SET owner = 'another' WHERE kind = 'refund'",
        ],
    )
    .await;
    let amounts = (0..20).map(|bit| 1 << bit).collect();
    mint.mint().rotate_keyset(CurrencyUnit::Sat, amounts, 0, true, None).await.unwrap();
    chaos.calm();
    let answer = asking.await.unwrap().unwrap();
    assert_eq!(answer.status(), 425, "{}", answer.text().await.unwrap());
    assert_eq!(reserved(&node).await, held, "they are in the other's hands");

    // That one is dead in the end, and this one carries on.
    write(&node, &["DELETE FROM nodes WHERE id = 'another'"]).await;
    let refund = || {
        // What is known of the keysets is looked up anew after a while.
        clock.step(Duration::from_secs(30));
        node.post("/v1/wallet/refund").bearer_auth(&key)
    };
    let (status, back) = read(decided("the refund", PATIENCE, refund).await).await;
    assert_eq!(status, 200, "{back}");
    // The payer's purse does not know the new keyset.
    let payee = Purse::with_unit(&chaos.url(), CurrencyUnit::Sat).await;
    assert_eq!(payee.receive(back["token"].as_str().unwrap()).await.unwrap(), 98);
    node.finish().await;
}

/// Nobody knows whether a commit counts that failed. The token whose redemption it begins is not called untouched: the
/// journal may redeem it yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_whose_redemption_may_have_begun_is_pending() {
    if on_postgres() {
        return;
    }
    let (_mint, purse, _upstream, node) = world(200).await;
    let known = purse.send(100).await;
    ok(node.get("/v1/wallet/info").bearer_auth(&known)).await;
    write(
        &node,
        &[
            "CREATE TABLE strays (account INTEGER REFERENCES accounts (id) DEFERRABLE INITIALLY DEFERRED)",
            "CREATE TRIGGER commits_fail AFTER INSERT ON claimed_secrets BEGIN INSERT INTO strays VALUES (-1); END",
        ],
    )
    .await;
    let token = purse.send(40).await;
    let answer = node.chat(&ask("hi")).header("X-Cashu", &token).send().await.unwrap();
    assert!(answer.headers().get("x-cashu").is_none(), "nothing comes back");
    let (status, told) = read(answer).await;
    assert_eq!((status, told["error"]["code"].as_str()), (503, Some("cashu_mint_timeout")), "{told}");
    assert!(told["error"]["operation"].is_string(), "{told}");

    // It was not written, as it turns out.
    write(&node, &["DROP TRIGGER commits_fail", "DROP TABLE strays"]).await;
    let answer = node.chat(&ask("hi")).header("X-Cashu", &token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let change = answer.headers()["x-cashu"].to_str().unwrap().to_owned();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["usage"]["cost"]["total_msats"], 2000);
    assert_eq!(purse.receive(&change).await.unwrap(), 38);
    node.finish().await;
}
