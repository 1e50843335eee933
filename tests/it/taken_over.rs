//! Commits of which nobody knows whether they count.

use coinslot::store::Durability;
use serde_json::Value;

use crate::bearer::world;
use crate::support::answers::{ok, read};
use crate::support::db::on_postgres;
use crate::support::node::{TestNode, ask};

/// Writes to the node's database, past the node.
async fn write(node: &TestNode, statements: &[&'static str]) {
    let mut tx = node.running().exchange().ledger.store().begin(Durability::Full).await.unwrap();
    for sql in statements {
        sqlx::query(*sql).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
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
            "CREATE TABLE nothing (account INTEGER REFERENCES accounts (id) DEFERRABLE INITIALLY DEFERRED)",
            "CREATE TRIGGER commits_fail AFTER INSERT ON claimed_secrets BEGIN INSERT INTO nothing VALUES (-1); END",
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
    write(&node, &["DROP TRIGGER commits_fail", "DROP TABLE nothing"]).await;
    let answer = node.chat(&ask("hi")).header("X-Cashu", &token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let change = answer.headers()["x-cashu"].to_str().unwrap().to_owned();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["usage"]["cost"]["total_msats"], 2000);
    assert_eq!(purse.receive(&change).await.unwrap(), 38);
    node.finish().await;
}
