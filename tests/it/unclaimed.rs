//! Change that nobody claims ends: claimed, or taken back, visibly. So do all look-ups of it.

use std::sync::Arc;
use std::time::Duration;

use cdk::nuts::CurrencyUnit;
use coinslot::wallet::TakenBack;
use serde_json::{Value, json};

use crate::lightning::{answer, node_ahead, ok, resume};
use crate::support::chaos::{Chaos, Mode};
use crate::support::clock::Ahead;
use crate::support::mint::{MintOptions, TestMint};
use crate::support::node::{TestNode, ask};
use crate::support::purse::Purse;
use crate::support::tokens;
use crate::support::upstream::Upstream;

const DAY: Duration = Duration::from_secs(24 * 3600);
const HALF_A_YEAR: Duration = Duration::from_secs(180 * 24 * 3600);
const SWAP: &str = "/v1/swap";

/// A node behind whose mint a proxy can lose answers, and a clock to move.
struct World {
    mint: TestMint,
    chaos: Chaos,
    purse: Purse,
    clock: Arc<Ahead>,
    node: TestNode,
    _upstream: Upstream,
}

impl World {
    async fn new() -> Self {
        Self::with(0).await
    }

    async fn with(fee_ppk: u64) -> Self {
        let mint = TestMint::with_fee_ppk(fee_ppk).await;
        let chaos = Chaos::before(&mint.url());
        let purse = Purse::with_unit(&chaos.url(), CurrencyUnit::Sat).await;
        purse.mint_sats(1_000).await;
        let upstream = Upstream::start().await;
        let clock = Arc::new(Ahead::default());
        let node = node_ahead(&mint, &upstream, &clock, &[("CASHU_MINTS", &chaos.url())]).await;
        node.quiet().await;
        Self { mint, chaos, purse, clock, node, _upstream: upstream }
    }

    /// Pays for a request with a token that rides on it; gives the token and its change.
    async fn pay(&self, sats: u64) -> (String, String) {
        let token = self.purse.send(sats).await;
        let response = self.node.chat(&ask("hi")).header("x-cashu", &token).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let change = response.headers()["x-cashu"].to_str().unwrap().to_owned();
        (token, change)
    }

    fn look_up(&self, token: &str) -> reqwest::RequestBuilder {
        self.node.post("/v1/wallet/refund").header("x-cashu", token)
    }

    async fn take_back(&self) -> TakenBack {
        self.node.running().exchange().till.wallet().take_back_unclaimed(HALF_A_YEAR).await.unwrap()
    }

    async fn earnings(&self) -> i64 {
        self.node.running().exchange().ledger.books().await.unwrap().earnings
    }

    async fn refused(&self, request: reqwest::RequestBuilder, status: u16, code: &str) -> Value {
        let (found, body) = answer(request).await;
        assert_eq!((found, body["error"]["code"].as_str()), (status, Some(code)), "{body}");
        body
    }
}

const NOTHING: TakenBack = TakenBack { collected: 0, reclaimed: 0 };

#[tokio::test(flavor = "multi_thread")]
async fn change_that_nobody_claims_is_taken_back_after_half_a_year() {
    let world = World::new().await;
    let (token, change) = world.pay(100).await;
    let (claimed_token, claimed_change) = world.pay(50).await;
    assert_eq!(world.purse.receive(&claimed_change).await.unwrap(), 48);
    assert_eq!(world.earnings().await, 4_000);
    world.clock.step(HALF_A_YEAR - DAY);
    assert_eq!(world.take_back().await, NOTHING, "not yet");
    assert_eq!(ok(world.look_up(&token)).await["token"], change.as_str());

    world.clock.step(2 * DAY);
    assert_eq!(world.take_back().await, TakenBack { collected: 1, reclaimed: 1 });
    assert_eq!(world.take_back().await, NOTHING, "once");
    let gone = world.refused(world.look_up(&token), 410, "refund_swept").await;
    assert_eq!(gone["detail"], "Refund has been swept");
    assert!(!gone.to_string().contains("cashu"), "{gone}");
    assert_eq!(
        ok(world.look_up(&claimed_token)).await["token"],
        claimed_change.as_str(),
        "what was claimed is told again"
    );
    assert_eq!(world.earnings().await, 4_000 + 98_000, "it is income, and the books say so");
    assert!(world.purse.receive(&change).await.is_err(), "its token is spent");
    // Presented as payment it is a spent token like any other.
    world.refused(world.node.chat(&ask("hi")).header("x-cashu", &change), 400, "cashu_token_already_spent").await;
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_nobody_claims_is_swept_and_its_key_goes_on() {
    let world = World::new().await;
    let key = world.purse.send(100).await;
    assert_eq!(world.node.balance(&key).await.0, 100_000);
    let refund = || world.node.post("/v1/wallet/refund").bearer_auth(&key);
    ok(refund()).await;
    world.clock.step(HALF_A_YEAR + DAY);
    assert_eq!(world.take_back().await.reclaimed, 1);
    world.refused(refund(), 410, "refund_swept").await;
    let history = ok(world.node.get("/v1/wallet/history").bearer_auth(&key)).await;
    let out = &history["transactions"][0];
    assert_eq!((&out["kind"], &out["swept"], &out["collected"]), (&json!("refund"), &json!(true), &json!(false)));
    // New money is refunded as ever.
    let more = world.purse.send(30).await;
    ok(world.node.post("/v1/wallet/topup").bearer_auth(&key).json(&json!({ "cashu_token": more }))).await;
    let back = ok(refund()).await;
    assert_eq!(world.purse.receive(back["token"].as_str().unwrap()).await.unwrap(), 30);
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_the_mint_is_lost_while_change_is_taken_back() {
    for mode in [Mode::DropReply, Mode::Cut] {
        let world = World::new().await;
        let (token, change) = world.pay(100).await;
        world.clock.step(HALF_A_YEAR + DAY);
        world.chaos.set(SWAP, mode);
        world.chaos.set("/v1/restore", Mode::Cut);
        assert_eq!(world.take_back().await, NOTHING, "{mode:?}");
        world.chaos.calm();
        // Whether it was still there, and is the node's now, is not known: nobody is given it.
        let pending = world.refused(world.look_up(&token), 425, "refund_pending").await;
        assert!(!pending.to_string().contains(&change));
        world.clock.step(Duration::from_secs(700));
        assert_eq!(resume(&world.node).await, 0, "{mode:?}");
        world.refused(world.look_up(&token), 410, "refund_swept").await;
        assert_eq!(world.earnings().await, 100_000, "once");
        assert_eq!(world.take_back().await, NOTHING);
        world.node.finish().await;
    }
}

/// Its owner comes at the very moment: the mint decides, and nothing is counted twice.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_is_faster_has_it() {
    let world = World::new().await;
    let (token, change) = world.pay(100).await;
    world.clock.step(HALF_A_YEAR + DAY);
    world.chaos.set(SWAP, Mode::Hold);
    let hits = world.chaos.hits(SWAP);
    let taking = async {
        let taken = world.take_back().await;
        assert_eq!(taken, TakenBack { collected: 1, reclaimed: 0 });
    };
    let claiming = async {
        world.chaos.hit(SWAP, hits).await;
        world.refused(world.look_up(&token), 425, "refund_pending").await;
        // Straight to the mint, past the proxy that holds the node's swap back.
        let parsed: cdk::nuts::Token = change.parse().unwrap();
        let direct = tokens::token(&world.mint.url(), tokens::proofs(&world.mint, &parsed), CurrencyUnit::Sat);
        let owner = Purse::with_unit(&world.mint.url(), CurrencyUnit::Sat).await;
        assert_eq!(owner.receive(&direct).await.unwrap(), 98);
        world.chaos.calm();
    };
    tokio::join!(taking, claiming);
    assert_eq!(ok(world.look_up(&token)).await["token"], change.as_str());
    assert_eq!(world.earnings().await, 2_000);
    world.node.finish().await;
}

/// A token that the mint's fee would eat is left where it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_worth_its_fee_is_left() {
    let world = World::with(1_000).await;
    // One proof of two sats: one is the fee of redeeming it, and one is left.
    let key = world.purse.send_token(2).await;
    assert_eq!(tokens::proofs(&world.mint, &key).len(), 1);
    let key = key.to_string();
    assert_eq!(world.node.balance(&key).await.0, 1_000);
    let refund = || world.node.post("/v1/wallet/refund").bearer_auth(&key);
    let back = ok(refund()).await;
    world.clock.step(HALF_A_YEAR + DAY);
    for _ in 0..2 {
        assert_eq!(world.take_back().await, NOTHING);
        assert_eq!(ok(refund()).await["token"], back["token"]);
    }
    assert_eq!(world.mint.calls("/v1/checkstate"), 0, "the mint is not asked for what is not worth it");
    world.node.finish().await;
}

/// Look-ups end, whatever became of the token.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_filled_a_key_is_owed_nothing() {
    let world = World::new().await;
    let key = world.purse.send(100).await;
    assert_eq!(world.node.balance(&key).await.0, 100_000);
    let more = world.purse.send(20).await;
    ok(world.node.post("/v1/wallet/topup").bearer_auth(&key).json(&json!({ "cashu_token": more }))).await;
    let body = world.refused(world.look_up(&more), 400, "cashu_token_already_spent").await;
    assert_eq!(body["error"]["type"], "token_already_spent", "clients stop asking on exactly this");
    world.node.finish().await;
}

/// The operator took the mint off the list: nothing is lost, and everybody is told.
#[tokio::test(flavor = "multi_thread")]
async fn money_of_a_mint_that_was_removed_waits_and_says_so() {
    let mint = TestMint::with_options(MintOptions { unpaid: true, ..MintOptions::default() }).await;
    let other = TestMint::start().await;
    let chaos = Chaos::before(&other.url());
    let purse = Purse::with_unit(&chaos.url(), CurrencyUnit::Sat).await;
    purse.mint_sats(500).await;
    let upstream = Upstream::start().await;
    let clock = Arc::new(Ahead::default());
    let both = format!("{},{}", mint.url(), chaos.url());
    let mut node = node_ahead(&mint, &upstream, &clock, &[("CASHU_MINTS", &both)]).await;
    let key = purse.send(100).await;
    assert_eq!(node.balance(&key).await.0, 100_000);
    // Change that could not be made, and a token whose fate the mint has not told.
    let (owed, unknown) = (purse.send(50).await, purse.send(60).await);
    let made = ok(node.post("/lightning/invoice").json(&json!({ "amount_sats": 9, "purpose": "create" }))).await;
    chaos.set(SWAP, Mode::DropReply);
    chaos.set("/v1/restore", Mode::Cut);
    let (status, _) = answer(node.chat(&ask("hi")).header("x-cashu", &unknown)).await;
    assert_eq!(status, 503);
    chaos.calm();
    let response = node.chat(&ask("hi")).header("x-cashu", &owed).send().await.unwrap();
    assert_eq!(response.status(), 200);

    node.restart_with("CASHU_MINTS", &mint.url()).await;
    let look_up = |token: &str| node.post("/v1/wallet/refund").header("x-cashu", token);
    let (status, body) = answer(look_up(&unknown)).await;
    assert_eq!((status, body["error"]["code"].as_str()), (503, Some("mint_not_configured")), "{body}");
    let (status, body) = answer(node.post("/v1/wallet/refund").bearer_auth(&key)).await;
    assert_eq!((status, body["error"]["code"].as_str()), (503, Some("mint_not_configured")), "{body}");
    assert_eq!(node.balance(&key).await, (100_000, 0, 0), "it stays on the key");
    let astray = node.running().exchange().till.wallet().astray().await.unwrap();
    assert_eq!(astray, [(chaos.url(), 1)], "the operator is told");
    // What is at the mint that is left goes on.
    let status_of = format!("/lightning/invoice/{}/status", made["invoice_id"].as_str().unwrap());
    assert_eq!(ok(node.get(&status_of)).await["status"], "pending");

    node.restart_with("CASHU_MINTS", &chaos.url()).await;
    assert_eq!(ok(node.get(&status_of)).await["status"], "reconciliation_required");
    node.restart_with("CASHU_MINTS", &both).await;
    resume(&node).await;
    let back = ok(node.post("/v1/wallet/refund").header("x-cashu", &unknown)).await;
    assert_eq!(purse.receive(back["token"].as_str().unwrap()).await.unwrap(), 60);
    let back = ok(node.post("/v1/wallet/refund").bearer_auth(&key)).await;
    assert_eq!(purse.receive(back["token"].as_str().unwrap()).await.unwrap(), 100);
    node.finish().await;
}
