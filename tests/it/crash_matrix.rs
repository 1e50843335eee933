//! `kill -9` at every named place of every operation. Whatever the moment, the client fetches its
//! money in the documented way, nobody is paid twice, and at the mint nothing is missing: what it has
//! issued is what purse and node hold.
//!
//! [`MATRIX`] says which scenario passes which place of [`POINTS`]. A place without a scenario, and a
//! scenario that does not die where it is said to, fail.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::str::FromStr;
use std::time::SystemTime;

use coinslot::failpoint::POINTS;
use futures_util::StreamExt;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::process::ChildNode;
use crate::support::answers::Patience;
use crate::support::lnurl::{Mood, Recipient};
use crate::support::mint::{MintOptions, TestMint};
use crate::support::node::{ask, ask_streaming};
use crate::support::purse::Purse;
use crate::support::upstream::{Script, Upstream};

/// What goes on when the node dies, and what the client does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    /// A request is paid with a token as key.
    Bearer,
    /// A token rides on a request; the answer is held back until its change is made.
    Buffered,
    /// A token rides on a request, whose answer runs live.
    Live,
    /// A request has an Idempotency-Key.
    Once,
    /// A request has an Idempotency-Key, and fails without a cost.
    Undone,
    /// A token rides on a request that fails.
    UndoneToken,
    /// A token is no good.
    Refused,
    /// The balance of a key is paid back, for which a swap is needed.
    Refund,
    /// The same, at a mint with input fees.
    RefundAtAFee,
    /// The same, at a mint that has changed its keyset.
    Replanned,
    /// The balance of a key goes to a Lightning address.
    PayRefund,
    /// It cannot be paid there.
    PayReturned,
    /// A token fills a key.
    TopUpToken,
    /// A Lightning payment fills a key.
    TopUpInvoice,
    /// The time of a key is over.
    Expiry,
    /// Earnings go to the operator.
    Payout,
    /// A key buys child keys.
    ChildKey,
}

use Scenario::*;

/// Which scenarios pass which place.
const MATRIX: &[(&str, &[Scenario])] = &[
    ("redeem.written", &[Bearer, Buffered, Live, Once, TopUpToken]),
    ("redeem.swapped", &[Bearer, Buffered, Live, Once, TopUpToken]),
    ("redeem.kept", &[Bearer, Buffered, Live, Once, TopUpToken]),
    ("redeem.credited", &[Bearer, Buffered, Live, Once, TopUpToken]),
    ("redeem.refused", &[Refused]),
    ("exchange.admitted", &[Bearer, Buffered, Live, Once]),
    ("exchange.held", &[Bearer, Buffered, Live, Once]),
    ("exchange.answered", &[Bearer, Buffered, Live, Once]),
    ("exchange.metered", &[Bearer, Buffered, Live, Once]),
    ("exchange.settled", &[Bearer, Buffered, Live, Once]),
    ("exchange.undone", &[Undone, UndoneToken]),
    ("replay.claimed", &[Once, Undone]),
    ("replay.kept", &[Once]),
    ("replay.removed", &[Undone]),
    ("keys.sold", &[ChildKey]),
    ("return.ready", &[Buffered, Live, UndoneToken]),
    ("return.given", &[Buffered, Live, UndoneToken]),
    ("return.written", &[Refund, RefundAtAFee, PayRefund, Expiry, Payout]),
    ("return.reserved", &[Refund, RefundAtAFee]),
    ("return.planned", &[Refund, RefundAtAFee]),
    ("return.swapped", &[Refund, RefundAtAFee]),
    ("return.kept", &[Refund, RefundAtAFee]),
    ("return.done", &[Refund, RefundAtAFee]),
    ("return.replanned", &[Replanned]),
    ("topup.written", &[TopUpInvoice]),
    ("topup.quoted", &[TopUpInvoice]),
    ("topup.planned", &[TopUpInvoice]),
    ("topup.paid", &[TopUpInvoice]),
    ("topup.issued", &[TopUpInvoice]),
    ("topup.kept", &[TopUpInvoice]),
    ("topup.credited", &[TopUpInvoice]),
    ("pay.reserved", &[PayRefund, Expiry, Payout]),
    ("pay.invoiced", &[PayRefund, Expiry, Payout]),
    ("pay.planned", &[PayRefund, Expiry, Payout]),
    ("pay.melted", &[PayRefund, Expiry, Payout]),
    ("pay.kept", &[PayRefund, Expiry, Payout]),
    ("pay.done", &[PayRefund, Expiry, Payout]),
    ("pay.returned", &[PayReturned]),
];

/// Places of operations whose lives and deaths are told beside what else there is to say of them: the
/// beginnings of their names, and the file that kills the node at each.
const ELSEWHERE: &[(&str, &str)] = &[
    ("alert.", "tests/it/alerts.rs"),
    ("backup.", "tests/it/backup.rs"),
    ("batch.", "tests/it/mints.rs"),
    ("import.", "tests/it/foreign.rs"),
    ("consolidate.", "tests/it/ladder.rs"),
];

/// Lives of one scenario at a time.
const AT_A_TIME: usize = 3;
/// What the purse has at first, in sat.
const START: u64 = 2_000;

/// The names of all places that the source marks.
fn marked(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            marked(&path, found);
        } else if !path.ends_with("failpoint.rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let names = text.split("failpoint!(\"").skip(1).filter_map(|rest| rest.split_once('"'));
            found.extend(names.map(|(name, _)| name.to_owned()));
        }
    }
}

#[test]
fn every_point_is_marked_once_and_has_its_scenarios() {
    let mut found = Vec::new();
    marked(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    let once: BTreeSet<_> = found.iter().map(String::as_str).collect();
    assert_eq!(once.len(), found.len(), "a place is marked twice: {found:?}");
    let listed: BTreeSet<_> = POINTS.iter().copied().collect();
    assert_eq!(once, listed, "places that are marked, and places that are listed");
    for (prefix, file) in ELSEWHERE {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let of_kind = || listed.iter().filter(|point| point.starts_with(prefix));
        assert!(of_kind().count() > 0, "there is no {prefix}");
        let all = text.contains("POINTS.iter()") && text.contains(&format!("starts_with(\"{prefix}\")"));
        assert!(all || of_kind().all(|point| text.contains(&format!("\"{point}\""))), "{file} leaves {prefix} out");
    }
    let here = |point: &&str| !ELSEWHERE.iter().any(|(prefix, _)| point.starts_with(prefix));
    let listed: BTreeSet<_> = listed.into_iter().filter(here).collect();
    let covered: BTreeSet<_> = MATRIX.iter().filter(|(_, scenarios)| !scenarios.is_empty()).map(|row| row.0).collect();
    assert_eq!(covered, listed, "places with a scenario, and places that are listed");
    assert_eq!(covered.len(), MATRIX.len(), "a place has two rows");
}

/// One scenario with one death or two.
struct World {
    point: &'static str,
    mint: TestMint,
    purse: Purse,
    upstream: Upstream,
    recipient: Recipient,
    node: ChildNode,
    deaths: u32,
    /// Whether the node is to die at the same place once more, while it cleans up.
    again: bool,
    /// What came into the world, in sat.
    funds: u64,
    /// What the mint takes for a swap of few proofs, in sat.
    fee: u64,
}

/// An answer of the node's.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{self:?}"))
    }

    fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

async fn read(request: RequestBuilder) -> Option<Answer> {
    let answer = request.send().await.ok()?;
    let status = answer.status().as_u16();
    let header = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
        (name.to_string(), value.to_str().unwrap_or_default().to_owned())
    };
    let headers = answer.headers().iter().map(header).collect();
    let text = answer.text().await.ok()?;
    Some(Answer { status, headers, text })
}

impl World {
    async fn new(scenario: Scenario, point: &'static str, again: bool) -> Self {
        let unpaid = scenario == TopUpInvoice;
        let fee_ppk = if scenario == RefundAtAFee { 100 } else { 0 };
        let mint = TestMint::with_options(MintOptions { unpaid, fee_ppk, ..MintOptions::default() }).await;
        let purse = Purse::new(&mint).await;
        if !unpaid {
            purse.mint_sats(START).await;
        }
        let (upstream, recipient) = (Upstream::start().await, Recipient::start().await);
        let address = recipient.name();
        let mut settings = vec![("REFUND_PROCESSING_INTERVAL", "1"), ("LOG_LEVEL", "warn")];
        match scenario {
            Payout => settings.extend([
                ("RECEIVE_LN_ADDRESS", address.as_str()),
                ("PAYOUT_INTERVAL", "1"),
                ("MODEL_BASED_PRICING", "false"),
                ("COST_PER_REQUEST", "200"),
            ]),
            ChildKey => settings.push(("CHILD_KEY_COST", "1000")),
            _ => {}
        }
        let mut node = ChildNode::prepare(&mint.url(), &upstream, &settings).await;
        // The first token of this scenario makes the key that the second one fills.
        let pass = if scenario == TopUpToken { 2 } else { 1 };
        assert!(node.restart_armed(&format!("{point}:{pass}")).await, "{point}: it dies before anything is asked");
        let (funds, fee) = (if unpaid { 0 } else { START }, u64::from(fee_ppk > 0));
        Self { point, mint, purse, upstream, recipient, node, deaths: 0, again, funds, fee }
    }

    /// It has died, or is about to: starts it again.
    async fn revive(&mut self) {
        self.node.died().await;
        self.deaths += 1;
        if std::mem::take(&mut self.again) {
            if self.node.restart_armed(self.point).await {
                return;
            }
            self.deaths += 1;
        }
        self.node.restart().await;
    }

    /// Sends once. `None`: it died over it, and is back.
    async fn send(&mut self, request: impl Fn(&ChildNode) -> RequestBuilder) -> Option<Answer> {
        let answer = read(request(&self.node)).await;
        if answer.is_none() {
            self.revive().await;
        }
        answer
    }

    /// Sends until there is an answer, and it is not that something is pending.
    async fn ask(&mut self, request: impl Fn(&ChildNode) -> RequestBuilder) -> Answer {
        let patience = Patience::new();
        loop {
            match self.send(&request).await {
                Some(answer) if !matches!(answer.status, 425 | 503) => return answer,
                _ => patience.pause(&format!("{}: there is an answer", self.point)).await,
            }
        }
    }

    /// Balance of a key, in msat.
    async fn balance(&mut self, key: &str) -> u64 {
        let info = self.ask(|node| node.get("/v1/wallet/info").bearer_auth(key)).await.ok();
        assert_eq!(info["reserved"], 0, "{}: {info}", self.point);
        info["balance"].as_u64().unwrap()
    }

    /// Takes all of a key back as a token, twice, which is once. Returns what it was worth, in sat.
    async fn take_back(&mut self, key: &str) -> u64 {
        let claim = |node: &ChildNode| node.post("/v1/wallet/refund").bearer_auth(key);
        let back = self.ask(claim).await.ok();
        assert_eq!(self.ask(claim).await.ok()["token"], back["token"], "{}", self.point);
        let worth: u64 = back["sats"].as_str().unwrap().parse().unwrap();
        let token = back["token"].as_str().unwrap();
        let face = cdk::nuts::Token::from_str(token).unwrap().value().unwrap();
        assert_eq!(u64::from(face), worth, "{}: it is worth what it is said to be", self.point);
        self.purse.receive(token).await.expect("a refund is good");
        worth
    }

    /// Fetches what is left of a token that rode on a request whose answer did not arrive.
    async fn claim(&mut self, token: &str) -> u64 {
        let claim = |node: &ChildNode| node.post("/v1/wallet/refund").header("x-cashu", token);
        let answer = self.ask(claim).await;
        if answer.status == 404 {
            // It never was taken.
            return self.purse.receive(token).await.expect("a token that was not taken is good");
        }
        let back = answer.ok();
        assert_eq!(self.ask(claim).await.ok()["token"], back["token"], "{}", self.point);
        self.purse.receive(back["token"].as_str().unwrap()).await.expect("change is good")
    }

    /// Whether the first request's charge was on record when the node died.
    fn was_charged(&self) -> bool {
        self.point == "exchange.settled" || self.point.starts_with("return.") || self.point == "replay.kept"
    }

    /// Waits until no operation is open.
    async fn rest(&mut self) {
        let patience = Patience::new();
        loop {
            if self.node.has_died() {
                self.revive().await;
            }
            if self.node.db.open_operations().await == 0 {
                return;
            }
            patience.pause(&format!("{}: no operation is open", self.point)).await;
        }
    }

    /// Proves the books, and at the mint that nothing is missing. Returns liabilities and earnings, in msat.
    async fn end(mut self) -> (i64, i64) {
        assert!(self.deaths > 0, "{}: it never died", self.point);
        self.node.kill();
        let books = self.node.db.books().await;
        assert_eq!(books.open_holds, 0, "{}: nothing is held", self.point);
        let held: i64 = books.ecash.values().sum();
        let held = u64::try_from(held).unwrap();
        assert_eq!(held % 1000, 0);
        let purse = self.purse.balance().await;
        let outstanding = self.mint.outstanding().await;
        assert_eq!(purse + held / 1000, outstanding, "{}: ecash that nobody can spend", self.point);
        let paid: u64 = self.mint.paid().await.iter().sum();
        let fees = self.funds.checked_sub(outstanding + paid).expect("nothing is made of nothing");
        // One sat for each payment, and one for each swap of few proofs with an input fee.
        assert!(fees <= 6, "{}: {fees} sats are gone", self.point);
        self.node.db.remove().await;
        (books.liabilities, books.earnings)
    }
}

async fn bearer(mut world: World) {
    let token = world.purse.send(100).await;
    let request = |node: &ChildNode| node.chat(&ask("hi")).bearer_auth(&token);
    world.ask(request).await.ok();
    // A request that died after its charge was asked again, which is another request.
    let served = 1 + if world.was_charged() { i64::from(world.deaths) } else { 0 };
    assert_eq!(world.take_back(&token).await, 100 - 2 * u64::try_from(served).unwrap());
    assert_eq!(world.end().await, (0, 2000 * served));
}

async fn one_shot(mut world: World, live: bool) {
    let token = world.purse.send(150).await;
    let cost = if world.was_charged() { 2 } else { 0 };
    let whole = |node: &ChildNode| node.chat(&ask("hi")).header("x-cashu", &token);
    let stream =
        |node: &ChildNode| node.chat(&ask_streaming("hi")).header("x-cashu", &token).header("x-cashu-change", "stream");
    let answer = if live { world.send(stream).await } else { world.send(whole).await };
    assert!(answer.is_none(), "{}: {answer:?}", world.point);
    let back = world.claim(&token).await;
    assert_eq!(back, 150 - cost, "{}", world.point);
    assert_eq!(world.end().await, (0, i64::try_from(cost).unwrap() * 1000));
}

async fn once(mut world: World) {
    let token = world.purse.send(100).await;
    let request = |node: &ChildNode| node.chat(&ask("hi")).bearer_auth(&token).header("idempotency-key", "one");
    let answer = world.ask(request).await;
    match world.point {
        // It was paid, and its answer had not been kept.
        "exchange.settled" => {
            assert_eq!((answer.status, answer.code().as_str()), (409, "idempotent_outcome_not_kept"));
            let path = answer.json()["error"]["receipt"].as_str().unwrap().to_owned();
            let receipt = world.ask(|node| node.get(&path).bearer_auth(&token)).await.ok();
            assert_eq!(receipt["receipt"]["status"], "captured", "{receipt}");
        }
        "replay.kept" => {
            answer.ok();
            assert_eq!(answer.headers["idempotent-replayed"], "true");
        }
        _ => drop(answer.ok()),
    }
    assert_eq!(world.take_back(&token).await, 98);
    assert_eq!(world.end().await, (0, 2000), "paid once");
}

fn failure() -> Script {
    Script::Answer { status: 500, media: "application/json", body: json!({ "error": "no" }).to_string() }
}

async fn undone(mut world: World) {
    let token = world.purse.send(100).await;
    world.upstream.next(failure());
    let request = |node: &ChildNode| node.chat(&ask("hi")).bearer_auth(&token).header("idempotency-key", "one");
    let mut answer = world.ask(request).await;
    if answer.status == 502 {
        // It died before the upstream was asked.
        answer = world.ask(request).await;
    }
    answer.ok();
    assert_eq!(world.take_back(&token).await, 98);
    assert_eq!(world.end().await, (0, 2000));
}

async fn undone_token(mut world: World) {
    let token = world.purse.send(150).await;
    world.upstream.next(failure());
    assert!(world.send(|node| node.chat(&ask("hi")).header("x-cashu", &token)).await.is_none());
    assert_eq!(world.claim(&token).await, 150);
    assert_eq!(world.end().await, (0, 0));
}

async fn refused(mut world: World) {
    let token = world.purse.send(100).await;
    world.purse.receive(&token).await.unwrap();
    let answer = world.ask(|node| node.chat(&ask("hi")).bearer_auth(&token)).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "cashu_token_already_spent"));
    assert_eq!(world.end().await, (0, 0));
}

/// A key with a balance that cannot be paid without a swap: 98 of 64 + 32 + 4.
async fn key(world: &mut World) -> String {
    let token = world.purse.send(100 + world.fee).await;
    world.ask(|node| node.chat(&ask("hi")).bearer_auth(&token)).await.ok();
    token
}

async fn refund(mut world: World) {
    let key = key(&mut world).await;
    assert_eq!(world.take_back(&key).await, 98 - world.fee, "less the fee of one swap");
    assert_eq!(world.end().await, (0, 2000));
}

async fn replanned(mut world: World) {
    let key = key(&mut world).await;
    let amounts = (0..32).map(|bit| 1_u64 << bit).collect();
    world.mint.mint().rotate_keyset(cdk::nuts::CurrencyUnit::Sat, amounts, 0, true, None).await.unwrap();
    world.purse.wallet().keysets(cdk_common::wallet::KeysetLoadPolicy::Refresh).await.unwrap();
    refund_of(world, &key, 98).await;
}

async fn refund_of(mut world: World, key: &str, worth: u64) {
    assert_eq!(world.take_back(key).await, worth);
    assert_eq!(world.end().await, (0, 2000));
}

async fn pay_refund(mut world: World) {
    let token = world.purse.send(500).await;
    world.ask(|node| node.chat(&ask("hi")).bearer_auth(&token)).await.ok();
    let to = json!({ "lightning_address": world.recipient.name() });
    let pay = |node: &ChildNode| node.post("/v1/wallet/refund").json(&to).bearer_auth(&token);
    let back = world.ask(pay).await.ok();
    let sent: u64 = back["sats"].as_str().unwrap().parse().unwrap();
    let (left, fee) = (world.balance(&token).await, back["fee_msats"].as_u64().unwrap());
    assert_eq!(sent * 1000 + fee + left, 498_000, "{}: {back}", world.point);
    assert_eq!(world.ask(pay).await.ok(), back, "asked again, nothing is paid again");
    assert_eq!(world.mint.paid().await, [sent], "{}: paid once", world.point);
    assert_eq!(world.end().await, (i64::try_from(left).unwrap(), 2000));
}

async fn pay_returned(mut world: World) {
    let key = key(&mut world).await;
    world.recipient.set(Mood::Unpayable);
    let to = json!({ "lightning_address": world.recipient.name() });
    let pay = |node: &ChildNode| node.post("/v1/wallet/refund").json(&to).bearer_auth(&key);
    assert!(world.send(pay).await.is_none());
    assert_eq!(world.ask(pay).await.status, 502);
    assert_eq!(world.mint.paid().await, [0; 0]);
    refund_of(world, &key, 98).await;
}

async fn top_up_token(mut world: World) {
    let key = key(&mut world).await;
    let more = world.purse.send(50).await;
    let fill = |node: &ChildNode| node.post("/v1/wallet/topup").bearer_auth(&key).json(&json!({ "cashu_token": more }));
    for _ in 0..2 {
        assert_eq!(world.ask(fill).await.ok()["msats"], 50_000, "{}", world.point);
        assert_eq!(world.balance(&key).await, 148_000, "{}: credited once", world.point);
    }
    refund_of(world, &key, 148).await;
}

async fn top_up_invoice(mut world: World) {
    let wanted = json!({ "amount_sats": 30, "purpose": "create" });
    let made = world.ask(|node| node.post("/lightning/invoice").json(&wanted)).await.ok();
    world.mint.pay(made["bolt11"].as_str().unwrap(), 30).await;
    let path = format!("/lightning/invoice/{}/status", made["invoice_id"].as_str().unwrap());
    let patience = Patience::new();
    let mut paid = world.ask(|node| node.get(&path)).await.ok();
    while paid["status"] != "paid" {
        patience.pause(&format!("{}: the invoice is paid", world.point)).await;
        paid = world.ask(|node| node.get(&path)).await.ok();
    }
    let key = paid["api_key"].as_str().unwrap().to_owned();
    assert_eq!(world.balance(&key).await, 30_000);
    assert_eq!(world.take_back(&key).await, 30);
    world.funds += 30;
    assert_eq!(world.end().await, (0, 0));
}

/// Waits until the node has died, and then has paid what it has to pay by itself.
async fn until_paid(world: &mut World, key: &str, left: impl Fn(u64) -> bool) {
    let patience = Patience::new();
    loop {
        let balance = world.balance(key).await;
        if world.deaths > 0 && world.mint.paid().await.len() == 1 && left(balance) {
            return world.rest().await;
        }
        patience.pause(&format!("{}: one payment is made", world.point)).await;
    }
}

async fn expiry(mut world: World) {
    let token = world.purse.send(500).await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let address = world.recipient.name();
    let request = |node: &ChildNode| {
        let request = node.chat(&ask("hi")).bearer_auth(&token);
        request.header("refund-lnurl", &address).header("key-expiry-time", (now + 1).to_string())
    };
    world.ask(request).await.ok();
    until_paid(&mut world, &token, |balance| balance < 10_000).await;
    let left = world.balance(&token).await;
    let sent = world.mint.paid().await;
    assert!(sent[0] > 480, "{sent:?}");
    let sent = i64::try_from(sent[0]).unwrap() * 1000;
    let (owed, earned) = world.end().await;
    assert_eq!((owed, earned), (i64::try_from(left).unwrap(), 2000));
    assert!((492_000..=498_000).contains(&(sent + owed)), "less the fee of one payment: {sent} {owed}");
}

async fn payout(mut world: World) {
    let token = world.purse.send(900).await;
    world.ask(|node| node.chat(&ask("hi")).bearer_auth(&token)).await.ok();
    until_paid(&mut world, &token, |balance| balance == 700_000).await;
    let sent = world.mint.paid().await;
    assert!((190..200).contains(&sent[0]), "{sent:?}");
    assert_eq!(world.take_back(&token).await, 700, "clients' money stays");
    let (owed, earned) = world.end().await;
    assert_eq!(owed, 0);
    assert!((0..=10_000).contains(&earned), "{earned}");
}

async fn child_key(mut world: World) {
    let key = key(&mut world).await;
    let buy = |node: &ChildNode| node.post("/v1/wallet/child-key").bearer_auth(&key).json(&json!({ "count": 1 }));
    assert!(world.send(buy).await.is_none());
    let history = world.ask(|node| node.get("/v1/wallet/history").bearer_auth(&key)).await.ok();
    let bought: Vec<_> =
        history["transactions"].as_array().unwrap().iter().filter(|one| one["kind"] == "child_key").collect();
    assert_eq!(bought.len(), usize::try_from(world.deaths).unwrap(), "those before were sold: {history}");
    for one in bought {
        let again = json!({ "id": one["id"] });
        let again = |node: &ChildNode| node.post("/v1/wallet/child-key").bearer_auth(&key).json(&again);
        let had = world.ask(again).await.ok();
        let child = had["api_keys"][0].as_str().unwrap();
        assert_eq!((&had["cost_msats"], world.balance(child).await), (&json!(0), 1000 * u64::from(98 - world.deaths)));
    }
    let sold = world.ask(buy).await.ok();
    let left = 97 - world.deaths;
    assert_eq!(sold["parent_balance"], 1000 * left, "{sold}");
    assert_eq!(world.take_back(&key).await, u64::from(left));
    assert_eq!(world.end().await, (0, i64::from(100 - left) * 1000));
}

async fn live_and_die(scenario: Scenario, point: &'static str, again: bool) {
    let world = World::new(scenario, point, again).await;
    match scenario {
        Bearer => bearer(world).await,
        Buffered => one_shot(world, false).await,
        Live => one_shot(world, true).await,
        Once => once(world).await,
        Undone => undone(world).await,
        UndoneToken => undone_token(world).await,
        Refused => refused(world).await,
        Refund | RefundAtAFee => refund(world).await,
        Replanned => replanned(world).await,
        PayRefund => pay_refund(world).await,
        PayReturned => pay_returned(world).await,
        TopUpToken => top_up_token(world).await,
        TopUpInvoice => top_up_invoice(world).await,
        Expiry => expiry(world).await,
        Payout => payout(world).await,
        ChildKey => child_key(world).await,
    }
}

/// All places that a scenario passes, a few at a time: one death, and where the node passes the place
/// again while it cleans up, two.
async fn at_every_point(scenario: Scenario) {
    let rows = MATRIX.iter().filter(|(_, scenarios)| scenarios.contains(&scenario));
    // The node cleans up in one way whatever the scenario; what a client asks for again is another life.
    let cleans_up = |point: &str| ["redeem.", "return.", "topup.", "pay."].iter().any(|kind| point.starts_with(kind));
    let twice = |row: &(&str, &[Scenario])| cleans_up(row.0) && row.1.first() == Some(&scenario);
    let lives =
        rows.flat_map(|row| [false, true].into_iter().filter(|again| !again || twice(row)).map(|again| (row.0, again)));
    let lives = futures_util::stream::iter(lives).map(|(point, again)| async move {
        let life = tokio::spawn(live_and_die(scenario, point, again));
        life.await.map_err(|error| format!("{point}, {}: {error}", if again { "twice" } else { "once" }))
    });
    let failed: Vec<_> = lives.buffer_unordered(AT_A_TIME).filter_map(|life| async { life.err() }).collect().await;
    assert_eq!(failed, Vec::<String>::new(), "{scenario:?}");
}

macro_rules! scenarios {
    ($($name:ident: $scenario:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                at_every_point($scenario).await;
            }
        )*

        #[test]
        fn every_scenario_is_played() {
            let played = [$($scenario),*];
            assert!(MATRIX.iter().flat_map(|row| row.1).all(|scenario| played.contains(scenario)));
        }
    };
}

scenarios! {
    killed_over_a_request_of_a_key: Bearer,
    killed_over_a_token_that_rides_along: Buffered,
    killed_over_a_live_stream: Live,
    killed_over_a_request_with_an_idempotency_key: Once,
    killed_over_a_request_that_failed: Undone,
    killed_over_a_token_whose_request_failed: UndoneToken,
    killed_over_a_token_that_is_no_good: Refused,
    killed_over_a_refund: Refund,
    killed_over_a_refund_with_fees: RefundAtAFee,
    killed_over_a_refund_at_a_mint_with_new_keys: Replanned,
    killed_over_a_refund_over_lightning: PayRefund,
    killed_over_a_payment_that_cannot_be_made: PayReturned,
    killed_over_a_top_up: TopUpToken,
    killed_over_a_lightning_top_up: TopUpInvoice,
    killed_over_a_key_whose_time_is_over: Expiry,
    killed_over_a_payout: Payout,
    killed_over_the_sale_of_child_keys: ChildKey,
}
