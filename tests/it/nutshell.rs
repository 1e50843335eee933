//! The same money at Nutshell, a mint that shares no code with ours, in both of its generations: short
//! (V1) and long (V2) keyset ids, with and without an input fee.
//!
//! `TEST_NUTSHELL_URLS` names the mints; `tests/nutshell/run.sh` starts them. Without it, the tests
//! say that they are skipped.

use std::str::FromStr;
use std::sync::Arc;

use cdk::nuts::{CurrencyUnit, KeySetInfo, Token};
use coinslot::clock::SystemClock;
use coinslot::money::Msat;
use coinslot::wallet::Change;
use reqwest::Response;
use serde_json::{Value, json};

use crate::process::ChildNode;
use crate::support::answers::{PATIENCE, decided, found, ok, read, until};
use crate::support::chaos::{Chaos, Mode};
use crate::support::lnurl::{Mood, Recipient};
use crate::support::node::{TestNode, ask, ask_streaming};
use crate::support::purse::Purse;
use crate::support::upstream::Upstream;

const START: u64 = 1_000;
const SWAP: &str = "/v1/swap";

/// One of the mints behind a proxy, and a customer with [`START`] sats who knows it by the proxy's name.
struct World {
    mint: String,
    fee_ppk: u64,
    keysets: Vec<KeySetInfo>,
    chaos: Chaos,
    purse: Purse,
    upstream: Upstream,
}

impl World {
    /// One for each mint; none, and a word, where there are no mints.
    async fn all() -> Vec<Self> {
        let Ok(urls) = std::env::var("TEST_NUTSHELL_URLS") else {
            crate::support::skip("tests/nutshell/run.sh", "Nutshell");
            return Vec::new();
        };
        let mut worlds = Vec::new();
        for url in urls.split(',').map(str::trim).filter(|url| !url.is_empty()) {
            worlds.push(Self::at(url).await);
        }
        assert!(!worlds.is_empty(), "TEST_NUTSHELL_URLS names no mint");
        worlds
    }

    async fn at(url: &str) -> Self {
        let client = crate::support::node::client();
        let keysets = ok(client.get(format!("{url}/v1/keysets"))).await;
        let info = ok(client.get(format!("{url}/v1/info"))).await;
        let keysets: Vec<KeySetInfo> = serde_json::from_value(keysets["keysets"].clone()).unwrap();
        let fee_ppk = keysets[0].input_fee_ppk;
        let mint = format!("{} with {fee_ppk} ppk", info["version"].as_str().unwrap());
        assert!(mint.starts_with("Nutshell/"), "{mint}");
        let chaos = Chaos::before(url);
        let purse = Purse::with_unit(&chaos.url(), CurrencyUnit::Sat).await;
        purse.mint_sats(START).await;
        Self { mint, fee_ppk, keysets, chaos, purse, upstream: Upstream::start().await }
    }

    async fn node(&self) -> TestNode {
        TestNode::with_clock(&self.chaos.url(), &self.upstream, Arc::new(SystemClock), &[]).await
    }

    /// NUT-02: what the mint takes for spending a token, in sats.
    fn fee(&self, token: &str) -> u64 {
        let proofs = Token::from_str(token).unwrap().token_secrets().len();
        (u64::try_from(proofs).unwrap() * self.fee_ppk).div_ceil(1000)
    }

    /// What a token is credited with, in msat.
    fn credit(&self, token: &str) -> u64 {
        let face: u64 = Token::from_str(token).unwrap().value().unwrap().into();
        (face - self.fee(token)) * 1000
    }

    /// The customer takes a token; it must be worth what the node said, less the mint's fee.
    async fn take(&self, back: &Value) -> u64 {
        let token = back["token"].as_str().unwrap_or_else(|| panic!("{}: {back}", self.mint));
        let said: u64 = back["sats"].as_str().unwrap().parse().unwrap();
        let worth = self.purse.receive(token).await.unwrap_or_else(|error| panic!("{}: {error}", self.mint));
        assert_eq!(worth, said - self.fee(token), "{}", self.mint);
        said
    }

    /// Nothing is lost and nothing made: what neither the customer nor the node has, and no payment took,
    /// the mint took for at most so many swaps.
    async fn conserved(&self, held_msat: i64, paid_out: u64, swaps: u64) {
        let left = self.purse.balance().await + u64::try_from(held_msat).unwrap() / 1000 + paid_out;
        let missing = START.checked_sub(left).unwrap_or_else(|| panic!("{}: {left} of {START}", self.mint));
        let most = if self.fee_ppk == 0 { 0 } else { swaps * 3 };
        assert!(missing <= most, "{}: {missing} are missing", self.mint);
    }

    /// Proves the books of a node, and that nothing is missing.
    async fn finish(&self, node: TestNode, paid_out: u64, swaps: u64) {
        node.settled().await;
        let held: i64 = node.running().exchange().ledger.books().await.unwrap().ecash.values().sum();
        self.conserved(held, paid_out, swaps).await;
        node.finish().await;
    }

    /// The same for one that was killed.
    async fn finish_dead(&self, mut node: ChildNode, paid_out: u64, swaps: u64) {
        node.kill();
        let books = node.db.books().await;
        assert_eq!(books.open_holds, 0, "{}", self.mint);
        self.conserved(books.ecash.values().sum(), paid_out, swaps).await;
    }
}

async fn success(response: Response) -> Value {
    let (status, body) = read(response).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// Redemption, charge, top-up by a token, refund, change: exact with and without the mint's fee.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_come_in_and_go_back() {
    for world in World::all().await {
        let node = world.node().await;
        let (token, more, once) =
            (world.purse.send(200).await, world.purse.send(31).await, world.purse.send(150).await);
        let answer = node.chat(&ask("hello")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}: {}", world.mint, answer.text().await.unwrap());
        assert_eq!(node.balance(&token).await, (world.credit(&token) - 2_000, 0, 2_000), "{}", world.mint);
        let added = ok(node.post("/v1/wallet/topup").bearer_auth(&token).json(&json!({ "cashu_token": more }))).await;
        assert_eq!(added["msats"], world.credit(&more), "{}", world.mint);
        let balance = world.credit(&token) - 2_000 + world.credit(&more);
        assert_eq!(node.balance(&token).await.0, balance, "{}", world.mint);

        let paid = node.chat(&ask("hello")).header("x-cashu", &once).send().await.unwrap();
        assert_eq!(paid.status(), 200, "{}", world.mint);
        let change = paid.headers()["x-cashu"].to_str().unwrap().to_owned();
        let due = world.credit(&once) / 1000 - 2;
        // The token came in as a ladder, so that its change needs no swap, and so no fee.
        assert_eq!(world.take(&json!({ "token": change, "sats": due.to_string() })).await, due, "{}", world.mint);

        let back = ok(node.post("/v1/wallet/refund").bearer_auth(&token)).await;
        let sats = world.take(&back).await;
        assert!(sats <= balance / 1000 && sats + world.fee_ppk / 50 >= balance / 1000, "{}: {back}", world.mint);
        let again = ok(node.post("/v1/wallet/refund").bearer_auth(&token)).await;
        assert_eq!(again["token"], back["token"], "{}", world.mint);
        world.finish(node, 0, 9).await;
    }
}

/// Change of a stream comes in the stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_paid_and_brings_its_change() {
    for world in World::all().await {
        let node = world.node().await;
        let once = world.purse.send(100).await;
        let request = node.chat(&ask_streaming("hi")).header("x-cashu", &once).header("x-cashu-change", "stream");
        let text = request.send().await.unwrap().text().await.unwrap();
        let change = text.split_once(": x-cashu ").unwrap_or_else(|| panic!("{}: {text}", world.mint)).1;
        let due = world.credit(&once) / 1000 - 2;
        let change = json!({ "token": change.split_once('\n').unwrap().0, "sats": due.to_string() });
        world.take(&change).await;
        world.finish(node, 0, 4).await;
    }
}

/// A quote fills a key (NUT-04, with the lock of NUT-20), and a melt empties it (NUT-05, with the blank
/// outputs of NUT-08); then the earnings go the same way.
#[tokio::test(flavor = "multi_thread")]
async fn lightning_in_and_out() {
    for world in World::all().await {
        let recipient = Recipient::start().await;
        let node = world.node().await;
        let made = ok(node.post("/lightning/invoice").json(&json!({ "amount_sats": 500, "purpose": "create" }))).await;
        let path = format!("/lightning/invoice/{}/status", made["invoice_id"].as_str().unwrap());
        let key = status_until(&node, &path, "paid").await["api_key"].as_str().unwrap().to_owned();
        assert_eq!(node.balance(&key).await, (500_000, 0, 0), "{}", world.mint);
        let token = world.purse.send(200).await;
        for key in [&key, &token] {
            ok(node.chat(&ask("hi")).bearer_auth(key)).await;
        }
        let mut paid_out = 0;
        for (key, before) in [(&key, 498_000), (&token, world.credit(&token) - 2_000)] {
            let wanted = json!({ "lightning_address": recipient.name() });
            let back = ok(node.post("/v1/wallet/refund").json(&wanted).bearer_auth(key)).await;
            let sent: u64 = back["sats"].as_str().unwrap().parse().unwrap();
            let (left, held, _) = node.balance(key).await;
            let fee = back["fee_msats"].as_u64().unwrap();
            assert_eq!((sent * 1000 + fee + left, held), (before, 0), "{}: {back}", world.mint);
            assert_eq!(*recipient.asked().last().unwrap(), sent * 1000, "{}", world.mint);
            paid_out += sent + fee / 1000;
        }
        // 4 sats were earned by now, less the fees.
        let wallet = node.running().exchange().till.wallet().clone();
        for _ in 0..10 {
            ok(node.chat(&ask("hi")).bearer_auth(&world.purse.send(25).await)).await;
        }
        for change in wallet.pay_out(&recipient.name(), Msat::new(10_000).unwrap()).await.unwrap() {
            let Change::Sent { amount, fee, .. } = change else { panic!("{}: {change:?}", world.mint) };
            paid_out += (amount.get() + fee.get()) / 1000;
        }
        assert_eq!(world.chaos.hits("/v1/melt/bolt11"), 3, "{}: each is sent once", world.mint);
        // 500 came in that the purse never had.
        world.finish(node, paid_out - 500, 60).await;
    }
}

async fn status_until(node: &TestNode, path: &str, wanted: &str) -> Value {
    let wallet = node.running().exchange().till.wallet().clone();
    found(&format!("{path} becomes {wanted}"), async || {
        let body = ok(node.get(path)).await;
        if body["status"] == wanted {
            return Some(body);
        }
        wallet.resume(i64::MAX).await.unwrap();
        None
    })
    .await
}

/// A recipient that cannot be paid: the money stays, and its coins are free again.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_is_not_made_changes_nothing() {
    for world in World::all().await {
        let recipient = Recipient::start().await;
        let node = world.node().await;
        let token = world.purse.send(64).await;
        let before = (world.credit(&token), 0, 0);
        assert_eq!(node.balance(&token).await, before, "{}", world.mint);
        for mood in [Mood::Refuses, Mood::Greedy, Mood::Broken] {
            recipient.set(mood);
            let wanted = json!({ "lightning_address": recipient.name() });
            let answer = node.post("/v1/wallet/refund").json(&wanted).bearer_auth(&token).send().await.unwrap();
            let (status, body) = read(answer).await;
            let code = body["error"]["code"].as_str();
            assert_eq!((status, code), (502, Some("lightning_payment_failed")), "{} {mood:?}", world.mint);
            assert_eq!(node.balance(&token).await, before, "{} {mood:?}", world.mint);
        }
        world.take(&ok(node.post("/v1/wallet/refund").bearer_auth(&token)).await).await;
        world.finish(node, 0, 5).await;
    }
}

/// What Nutshell refuses is told apart by its codes and its words.
#[tokio::test(flavor = "multi_thread")]
async fn a_spent_and_a_forged_token_are_refused() {
    for world in World::all().await {
        let node = world.node().await;
        let spent = world.purse.send(50).await;
        world.purse.receive(&spent).await.unwrap();
        let good = world.purse.send_token(32).await;
        let mut proofs = good.proofs(&world.keysets).unwrap();
        for proof in &mut proofs {
            proof.secret = cdk::secret::Secret::generate();
            proof.dleq = None;
        }
        let forged = crate::support::tokens::token(&world.chaos.url(), proofs, CurrencyUnit::Sat);
        for (token, code) in [(&spent, "cashu_token_already_spent"), (&forged, "cashu_token_redemption_failed")] {
            for header in ["authorization", "x-cashu"] {
                let value = if header == "x-cashu" { token.clone() } else { format!("Bearer {token}") };
                let answer = node.chat(&ask("hi")).header(header, value).send().await.unwrap();
                let (status, body) = read(answer).await;
                assert_eq!((status, body["error"]["code"].as_str()), (400, Some(code)), "{}: {body}", world.mint);
            }
        }
        assert!(world.upstream.seen().is_empty(), "{}", world.mint);
        world.purse.receive(&good.to_string()).await.unwrap();
        world.finish(node, 0, 6).await;
    }
}

/// The mint swapped and its answer got lost: the same outputs are asked for again (NUT-09).
#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_are_restored() {
    for world in World::all().await {
        let node = world.node().await;
        let (key, once) = (world.purse.send(100).await, world.purse.send(130).await);
        world.chaos.set(SWAP, Mode::DropReply);
        let swaps = world.chaos.hits(SWAP);
        let answer = node.chat(&ask("hi")).bearer_auth(&key).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}: {}", world.mint, answer.text().await.unwrap());
        let answer = node.chat(&ask("hi")).header("x-cashu", &once).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", world.mint);
        let change = answer.headers()["x-cashu"].to_str().unwrap().to_owned();
        assert_eq!(world.chaos.hits(SWAP) - swaps, 2, "{}: no swap was sent twice", world.mint);
        assert_eq!(node.balance(&key).await, (world.credit(&key) - 2_000, 0, 2_000), "{}", world.mint);
        let back = ok(node.post("/v1/wallet/refund").bearer_auth(&key)).await;
        world.chaos.calm();
        world.take(&json!({ "token": change, "sats": (world.credit(&once) / 1000 - 2).to_string() })).await;
        world.take(&back).await;
        world.finish(node, 0, 7).await;
    }
}

/// Answers to the minting of a paid quote and to a payment got lost: neither is done twice.
#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_of_lightning_are_restored() {
    for world in World::all().await {
        let recipient = Recipient::start().await;
        let node = world.node().await;
        world.chaos.set("/v1/mint/bolt11", Mode::DropReply);
        world.chaos.set("/v1/melt/bolt11", Mode::DropReply);
        let made = ok(node.post("/lightning/invoice").json(&json!({ "amount_sats": 300, "purpose": "create" }))).await;
        let wallet = node.running().exchange().till.wallet().clone();
        until("the mint is asked for its ecash", async || {
            let was_asked = world.chaos.hits("/v1/mint/bolt11") > 0;
            if !was_asked {
                wallet.resume(i64::MAX).await.unwrap();
            }
            was_asked
        })
        .await;
        // To the older generation it was signed in another way than that expects, so it will be sent again.
        world.chaos.set("/v1/mint/bolt11", Mode::Pass);
        let path = format!("/lightning/invoice/{}/status", made["invoice_id"].as_str().unwrap());
        let key = status_until(&node, &path, "paid").await["api_key"].as_str().unwrap().to_owned();
        assert_eq!(node.balance(&key).await, (300_000, 0, 0), "{}", world.mint);
        let wanted = json!({ "lightning_address": recipient.name() });
        let claim = || node.post("/v1/wallet/refund").json(&wanted).bearer_auth(&key);
        let back = success(decided("the refund", PATIENCE, claim).await).await;
        let sent: u64 = back["sats"].as_str().unwrap().parse().unwrap();
        let (left, ..) = node.balance(&key).await;
        assert_eq!(sent * 1000 + back["fee_msats"].as_u64().unwrap() + left, 300_000, "{}: {back}", world.mint);
        assert_eq!(world.chaos.hits("/v1/melt/bolt11"), 1, "{}: it is sent once", world.mint);
        world.chaos.calm();
        let held: i64 = node.running().exchange().ledger.books().await.unwrap().ecash.values().sum();
        let gone = 300_000 - sent * 1000 - u64::try_from(held).unwrap();
        assert_eq!(back["fee_msats"], gone, "{}", world.mint);
        node.finish().await;
    }
}

/// `kill -9` while Nutshell's answer to a redemption, a refund or a payment is on its way.
#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_mint_s_answer_arrived() {
    for world in World::all().await {
        let recipient = Recipient::start().await;
        let (chaos, purse) = (&world.chaos, &world.purse);
        let mut node = ChildNode::start(&chaos.url(), &world.upstream, &[]).await;
        let (once, key, other) = (purse.send(150).await, purse.send(200).await, purse.send(100).await);
        assert_eq!(node.balance(&other).await.0, world.credit(&other), "{}", world.mint);
        chaos.set(SWAP, Mode::StallReply);
        let before = chaos.hits(SWAP);
        let waiting = [
            tokio::spawn(node.chat(&ask("hi")).header("x-cashu", &once).send()),
            tokio::spawn(node.chat(&ask("hi")).bearer_auth(&key).send()),
        ];
        chaos.hit(SWAP, before + 1).await;
        node.kill();
        chaos.calm();
        for request in waiting {
            assert!(request.await.unwrap().is_err());
        }
        purse.receive(&once).await.expect_err("the mint has taken it");
        node.restart().await;
        let answer = decided("the key", PATIENCE, || node.chat(&ask("hi")).bearer_auth(&key)).await;
        assert_eq!(answer.status(), 200, "{}: {}", world.mint, answer.text().await.unwrap());
        assert_eq!(node.balance(&key).await, (world.credit(&key) - 2_000, 0, 2_000), "{}", world.mint);
        let claim = || node.post("/v1/wallet/refund").header("x-cashu", &once);
        let back = success(decided("the change", PATIENCE, claim).await).await;
        assert_eq!(back["sats"], (world.credit(&once) / 1000).to_string(), "{}", world.mint);
        world.take(&back).await;

        // A payment that was made, of which the node knows nothing when it dies.
        chaos.set("/v1/melt/bolt11", Mode::StallReply);
        let melts = chaos.hits("/v1/melt/bolt11");
        let wanted = json!({ "lightning_address": recipient.name() });
        let waiting = tokio::spawn(node.post("/v1/wallet/refund").json(&wanted).bearer_auth(&key).send());
        chaos.hit("/v1/melt/bolt11", melts).await;
        node.kill();
        chaos.calm();
        assert!(waiting.await.unwrap().is_err());
        node.restart().await;
        let claim = || node.post("/v1/wallet/refund").json(&wanted).bearer_auth(&key);
        let paid = success(decided("the payment", PATIENCE, claim).await).await;
        let sent: u64 = paid["sats"].as_str().unwrap().parse().unwrap();
        assert_eq!(recipient.asked().last(), Some(&(sent * 1000)), "{}", world.mint);
        assert_eq!(chaos.hits("/v1/melt/bolt11"), melts + 1, "{}: paid once", world.mint);
        let (left, held, _) = node.balance(&key).await;
        let accounted = sent * 1000 + paid["fee_msats"].as_u64().unwrap() + left;
        assert_eq!((accounted, held), (world.credit(&key) - 2_000, 0), "{}: {paid}", world.mint);
        world.take(&ok(node.post("/v1/wallet/refund").bearer_auth(&other)).await).await;
        let fee = paid["fee_msats"].as_u64().unwrap() / 1000;
        world.finish_dead(node, sent + fee, 12).await;
    }
}
