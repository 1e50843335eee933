//! A mint that stalls, lies, drowns its callers or speaks nonsense, in every call that a node makes. As
//! long as it does, clients get a documented code and keep their money or a way to it; when it behaves
//! again, everything ends well: nothing is lost, nothing is credited or paid twice, the books prove.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cdk::nuts::CurrencyUnit;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::support::chaos::{Chaos, Junk, Lie, Mode};
use crate::support::clock::Ahead;
use crate::support::lnurl::{Mood, Recipient};
use crate::support::mint::TestMint;
use crate::support::node::{TestNode, ask};
use crate::support::purse::Purse;
use crate::support::upstream::Upstream;

const SWAP: &str = "/v1/swap";
const RESTORE: &str = "/v1/restore";
const STATES: &str = "/v1/checkstate";
const MINT_QUOTE: &str = "/v1/mint/quote/bolt11";
const MINT_QUOTE_STATE: &str = "/v1/mint/quote/bolt11/*";
const MINT: &str = "/v1/mint/bolt11";
const MELT_QUOTE: &str = "/v1/melt/quote/bolt11";
const MELT_QUOTE_STATE: &str = "/v1/melt/quote/bolt11/*";
const MELT: &str = "/v1/melt/bolt11";
const KEYSETS: &str = "/v1/keysets";
const KEYS: &str = "/v1/keys/*";

/// What can go wrong with any call.
const ANY: &[Mode] = &[
    Mode::Cut,
    Mode::DropReply,
    Mode::Drip,
    Mode::Limit(None),
    Mode::Limit(Some(3)),
    Mode::Say(Junk::Html),
    Mode::Say(Junk::Huge),
    Mode::Say(Junk::Deep),
    Mode::Say(Junk::Empty),
    Mode::Say(Junk::Forbidden),
    Mode::Say(Junk::Lost),
    Mode::Say(Junk::Unsure),
];
/// What can be untrue of signatures.
const SIGNATURES: &[Mode] = &[
    Mode::Lie(Lie::Amounts),
    Mode::Lie(Lie::Missing),
    Mode::Lie(Lie::Dleq),
    Mode::Lie(Lie::Nothing),
    Mode::Lie(Lie::Foreign),
];

const fn lie(state: &'static str) -> Mode {
    Mode::Lie(Lie::State(state))
}

/// Less than it takes for a mint's word to be believed, and more.
const A_WHILE: Duration = Duration::from_secs(130);
const LONG: Duration = Duration::from_secs(700);

/// What a client does in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Pays with a new token as key, and with one that rides along; takes a balance back.
    Ecash,
    /// Has a key filled over Lightning.
    TopUp,
    /// Sends a balance to a Lightning address.
    Pay,
}

struct World {
    mint: TestMint,
    chaos: Chaos,
    purse: Purse,
    recipient: Recipient,
    clock: Arc<Ahead>,
    node: TestNode,
    /// Requests that were served and paid.
    served: u64,
    /// What came into the world, in sat.
    funds: u64,
}

/// What was asked for while the mint misbehaved, and what was said.
#[derive(Default)]
struct Asked {
    key: String,
    one_shot: String,
    change: Option<String>,
    refund: String,
    pay: String,
    pay_owed: u64,
    invoice: Option<String>,
}

async fn answer(request: RequestBuilder) -> (u16, Option<String>, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let cashu = answer.headers().get("x-cashu").map(|token| token.to_str().unwrap().to_owned());
    (status, cashu, answer.json().await.unwrap())
}

/// Whatever is said to a client is in the manual.
fn documented(what: &str, status: u16, body: &Value) {
    if status == 200 {
        return;
    }
    let code = body["error"]["code"].as_str().unwrap_or_else(|| panic!("{what}: {status} {body}"));
    assert!([400, 425, 502, 503].contains(&status), "{what}: {status} {body}");
    assert!(include_str!("../../README.md").contains(&format!("| `{code}` |")), "{what}: {code} is not documented");
}

impl World {
    async fn new() -> Self {
        let mint = TestMint::start().await;
        let chaos = Chaos::before(&mint.url());
        let purse = Purse::with_unit(&chaos.url(), CurrencyUnit::Sat).await;
        let funds = 20_000;
        purse.mint_sats(funds).await;
        let upstream = Box::leak(Box::new(Upstream::start().await));
        let clock = Arc::new(Ahead::default());
        let soon = [("MINT_OPERATION_TIMEOUT_SECONDS", "3")];
        let node = TestNode::with_clock(&chaos.url(), upstream, clock.clone(), &soon).await;
        node.quiet().await;
        Self { mint, chaos, purse, recipient: Recipient::start().await, clock, node, served: 0, funds }
    }

    fn wallet(&self) -> coinslot::wallet::Wallet {
        self.node.running().exchange().till.wallet().clone()
    }

    /// A key with this much on it, less a request's cost.
    async fn key(&mut self, sats: u64) -> String {
        let token = self.purse.send(sats).await;
        let (status, _, body) = answer(self.node.chat(&ask("hi")).bearer_auth(&token)).await;
        assert_eq!(status, 200, "{body}");
        self.served += 1;
        token
    }

    /// The journal is carried on, as the job does every now and then. Returns what is still open.
    async fn resume(&self, times: u32, pause: Duration) -> i64 {
        for _ in 0..times {
            self.clock.step(pause);
            self.wallet().resume(0).await.unwrap();
            if self.open().await == 0 {
                return 0;
            }
        }
        self.open().await
    }

    async fn open(&self) -> i64 {
        let mut reader = self.wallet().ledger().store().read().acquire().await.unwrap();
        let open = "SELECT COUNT(*) FROM operations WHERE state IN ('planned', 'acting', 'unknown')";
        sqlx::Row::try_get(&sqlx::query(open).fetch_one(&mut *reader).await.unwrap(), 0).unwrap()
    }

    /// One round of these acts, at a mint that treats these calls so.
    async fn round(&mut self, acts: &[Act], calls: &[(&str, Mode)]) {
        let what = format!("{acts:?} {calls:?}");
        let mut asked = Asked::default();
        if acts.contains(&Act::Pay) {
            asked.pay = self.key(500).await;
            asked.pay_owed = self.node.balance(&asked.pay).await.0;
        }
        if acts.contains(&Act::Ecash) {
            (asked.refund, asked.one_shot) = (self.key(100).await, self.purse.send(150).await);
            if calls.iter().any(|(path, _)| [KEYSETS, KEYS].contains(path)) {
                self.rotate().await;
            }
            asked.key = self.purse.send(100).await;
        }
        let paid = self.mint.paid().await.len();
        calls.iter().for_each(|(path, mode)| self.chaos.set(path, *mode));
        let mut before: HashMap<_, _> = calls.iter().map(|(path, _)| (*path, self.chaos.hits(path))).collect();
        self.act(&what, acts, &mut asked).await;
        // Time passes, and the mint stays as it is.
        self.resume(2, A_WHILE).await;
        for (path, mode) in calls {
            let hits = self.chaos.hits(path) - before.remove(path).unwrap_or(0);
            assert!(hits > 0, "{what}: nobody met {mode:?}");
        }
        self.node_is_sound(&what).await;
        self.chaos.calm();
        self.clock.step(Duration::from_secs(30));
        self.settle(&what, acts, &asked).await;
        assert_eq!(self.resume(4, LONG).await, 0, "{what}: nothing is left to do");
        let payments = self.mint.paid().await.len() - paid;
        assert_eq!(payments, usize::from(acts.contains(&Act::Pay)), "{what}: paid once");
        self.prove(&what).await;
    }

    /// The mint has new keys, which the purse knows of and the node does not.
    async fn rotate(&self) {
        let amounts = (0..32).map(|bit| 1_u64 << bit).collect();
        self.mint.mint().rotate_keyset(CurrencyUnit::Sat, amounts, 0, true, None).await.unwrap();
        self.purse.wallet().keysets(cdk_common::wallet::KeysetLoadPolicy::Refresh).await.unwrap();
        let balance = self.purse.balance().await;
        // All that it has is of the new keys then.
        let all = self.purse.send(balance).await;
        self.purse.receive(&all).await.unwrap();
    }

    /// What clients ask for while the mint misbehaves.
    async fn act(&mut self, what: &str, acts: &[Act], asked: &mut Asked) {
        if acts.contains(&Act::Ecash) {
            let (status, _, body) = answer(self.node.chat(&ask("hi")).bearer_auth(&asked.key)).await;
            documented(what, status, &body);
            self.served += u64::from(status == 200);
            let (status, cashu, body) = answer(self.node.chat(&ask("hi")).header("x-cashu", &asked.one_shot)).await;
            documented(what, status, &body);
            self.served += u64::from(status == 200);
            asked.change = cashu.filter(|_| status == 200);
            let (status, _, body) = answer(self.node.post("/v1/wallet/refund").bearer_auth(&asked.refund)).await;
            documented(what, status, &body);
        }
        if acts.contains(&Act::TopUp) {
            let wanted = json!({ "amount_sats": 30, "purpose": "create" });
            let (status, _, body) = answer(self.node.post("/lightning/invoice").json(&wanted)).await;
            documented(what, status, &body);
            if status == 200 {
                let id = body["invoice_id"].as_str().unwrap().to_owned();
                self.clock.step(Duration::from_secs(3));
                let (status, _, body) = answer(self.node.get(&format!("/lightning/invoice/{id}/status"))).await;
                documented(what, status, &body);
                assert!(status == 200 && body["status"] != "cancelled", "{what}: {body}");
                asked.invoice = Some(id);
            }
        }
        if acts.contains(&Act::Pay) {
            for _ in 0..2 {
                let (status, _, body) = answer(self.pay(&asked.pay)).await;
                documented(what, status, &body);
                if status == 502 {
                    let balance = self.node.balance(&asked.pay).await.0;
                    assert_eq!(balance, asked.pay_owed, "{what}: what was not paid is on the key: {body}");
                }
            }
        }
    }

    fn pay(&self, key: &str) -> RequestBuilder {
        let to = json!({ "lightning_address": self.recipient.name() });
        self.node.post("/v1/wallet/refund").json(&to).bearer_auth(key)
    }

    /// Whatever goes on, the ledger sums to zero, and nobody has more than there is.
    async fn node_is_sound(&self, what: &str) {
        let books = self.node.running().exchange().ledger.books().await.unwrap();
        assert_eq!(books.faults, Vec::<String>::new(), "{what}");
    }

    /// Asks until it is not pending any more.
    async fn decided(&self, what: &str, request: impl Fn() -> RequestBuilder) -> (u16, Value) {
        for _ in 0..12 {
            let (status, _, body) = answer(request()).await;
            if !matches!(status, 425 | 503) {
                return (status, body);
            }
            self.resume(1, LONG).await;
        }
        panic!("{what}: still pending");
    }

    /// What clients fetch when the mint behaves again: all of their money.
    async fn settle(&mut self, what: &str, acts: &[Act], asked: &Asked) {
        let refund = |token: &str| self.node.post("/v1/wallet/refund").bearer_auth(token);
        if acts.contains(&Act::Ecash) {
            let (status, body) = self.decided(what, || self.node.chat(&ask("hi")).bearer_auth(&asked.key)).await;
            assert_eq!(status, 200, "{what}: the same token again: {body}");
            let claim = || self.node.post("/v1/wallet/refund").header("x-cashu", &asked.one_shot);
            let (status, body) = self.decided(what, claim).await;
            match (&asked.change, status) {
                (Some(change), 200) => assert_eq!(body["token"], change.as_str(), "{what}"),
                (None, 200) => {}
                (None, 404) => {}
                _ => panic!("{what}: {status} {body}"),
            }
            let token = if status == 404 { &asked.one_shot } else { body["token"].as_str().unwrap() };
            let worth = self.purse.receive(token).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(worth, if asked.change.is_some() { 148 } else { 150 }, "{what}");
            for key in [&asked.key, &asked.refund] {
                let (status, body) = self.decided(what, || refund(key)).await;
                assert_eq!(status, 200, "{what}: {body}");
                self.purse
                    .receive(body["token"].as_str().unwrap())
                    .await
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
            }
            self.served += 1;
        }
        if let Some(id) = &asked.invoice {
            let path = format!("/lightning/invoice/{id}/status");
            let mut body = Value::Null;
            for _ in 0..8 {
                body = answer(self.node.get(&path)).await.2;
                if body["status"] == "paid" {
                    break;
                }
                self.resume(1, LONG).await;
            }
            assert_eq!(body["status"], "paid", "{what}: {body}");
            let key = body["api_key"].as_str().unwrap();
            assert_eq!(self.node.balance(key).await, (30_000, 0, 0), "{what}: credited once");
            let (_, back) = self.decided(what, || refund(key)).await;
            assert_eq!(self.purse.receive(back["token"].as_str().unwrap()).await.unwrap(), 30);
            self.funds += 30;
        }
        if acts.contains(&Act::Pay) {
            let (status, body) = self.decided(what, || self.pay(&asked.pay)).await;
            assert_eq!(status, 200, "{what}: {body}");
            let sent: u64 = body["sats"].as_str().unwrap().parse().unwrap();
            let (left, fee) = (self.node.balance(&asked.pay).await.0, body["fee_msats"].as_u64().unwrap());
            assert_eq!(sent * 1000 + fee + left, asked.pay_owed, "{what}: {body}");
            assert!(fee <= 15_000, "{what}: {body}");
            if left >= 1000 {
                let to = json!({});
                let token = self.node.post("/v1/wallet/refund").json(&to).bearer_auth(&asked.pay);
                let back = answer(token).await.2;
                self.purse.receive(back["token"].as_str().unwrap()).await.unwrap();
            }
        }
    }

    /// The books prove, and at the mint nothing is missing.
    async fn prove(&self, what: &str) {
        self.node.prove().await;
        let books = self.node.running().exchange().ledger.books().await.unwrap();
        let held = u64::try_from(books.ecash.values().sum::<i64>()).unwrap();
        let outstanding = self.mint.outstanding().await;
        assert_eq!(self.purse.balance().await + held / 1000, outstanding, "{what}: ecash that nobody can spend");
        // The test's Lightning network takes one sat for each payment.
        let paid = self.mint.paid().await;
        let gone = paid.iter().sum::<u64>() + u64::try_from(paid.len()).unwrap();
        assert_eq!(outstanding + gone, self.funds, "{what}");
        assert_eq!(held, self.served * 2000, "{what}: what was earned is what was served");
    }
}

/// Rounds in one world, one after the other.
async fn rounds(acts: &[Act], calls: impl IntoIterator<Item = Vec<(&str, Mode)>>) {
    let mut world = World::new().await;
    for calls in calls {
        world.round(acts, &calls).await;
    }
    world.node.finish().await;
}

fn each<'a>(path: &'a str, modes: &[&[Mode]]) -> Vec<Vec<(&'a str, Mode)>> {
    modes.concat().into_iter().map(|mode| vec![(path, mode)]).collect()
}

/// A call that comes only after the reply to another was lost.
fn after<'a>(first: &'a str, path: &'a str, modes: &[&[Mode]]) -> Vec<Vec<(&'a str, Mode)>> {
    modes.concat().into_iter().map(|mode| vec![(first, Mode::DropReply), (path, mode)]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn swaps() {
    rounds(&[Act::Ecash], each(SWAP, &[ANY, SIGNATURES])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restoring_after_a_lost_swap() {
    rounds(&[Act::Ecash], after(SWAP, RESTORE, &[ANY, SIGNATURES])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn states_after_a_swap_that_is_not_restored() {
    let states = [lie("SPENT"), lie("UNSPENT"), lie("PENDING")];
    let modes = [ANY, &states].concat().into_iter();
    let first = Mode::DropReply;
    rounds(&[Act::Ecash], modes.map(|mode| vec![(SWAP, first), (RESTORE, Mode::Lie(Lie::Nothing)), (STATES, mode)]))
        .await;
}

/// The request never arrives, and the mint claims that it did, or that something did.
#[tokio::test(flavor = "multi_thread")]
async fn states_after_a_swap_that_never_arrived() {
    let states = [lie("SPENT"), lie("UNSPENT"), lie("PENDING")];
    rounds(&[Act::Ecash], states.into_iter().map(|mode| vec![(SWAP, Mode::Cut), (STATES, mode)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mint_quotes() {
    rounds(&[Act::TopUp], each(MINT_QUOTE, &[ANY, &[Mode::Lie(Lie::Name)]])).await;
    let states = [lie("PAID"), lie("UNPAID"), lie("ISSUED"), lie("NONSENSE")];
    rounds(&[Act::TopUp], each(MINT_QUOTE_STATE, &[ANY, &states])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn minting() {
    rounds(&[Act::TopUp], each(MINT, &[ANY, SIGNATURES])).await;
    rounds(&[Act::TopUp], after(MINT, RESTORE, &[ANY, SIGNATURES])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn melt_quotes() {
    rounds(&[Act::Pay], each(MELT_QUOTE, &[ANY, &[Mode::Lie(Lie::Name)]])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn melting() {
    let states = [lie("PAID"), lie("UNPAID"), lie("PENDING"), lie("FAILED")];
    rounds(&[Act::Pay], each(MELT, &[ANY, SIGNATURES, &states])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn melt_quotes_after_a_lost_payment() {
    let states = [lie("PAID"), lie("UNPAID"), lie("PENDING"), lie("FAILED")];
    rounds(&[Act::Pay], after(MELT, MELT_QUOTE_STATE, &[ANY, SIGNATURES, &states])).await;
}

/// The payment never arrives, and the mint claims that it did.
#[tokio::test(flavor = "multi_thread")]
async fn melt_quotes_after_a_payment_that_never_arrived() {
    let states = [lie("PAID"), lie("UNPAID"), lie("PENDING"), lie("FAILED")];
    rounds(&[Act::Pay], states.into_iter().map(|mode| vec![(MELT, Mode::Cut), (MELT_QUOTE_STATE, mode)])).await;
}

/// The payment was made, its quote is said to be unpaid, and its ecash is in any state.
#[tokio::test(flavor = "multi_thread")]
async fn states_after_a_payment_that_is_denied() {
    let states = [lie("SPENT"), lie("UNSPENT"), lie("PENDING"), Mode::Cut];
    let calls = |mode| vec![(MELT, Mode::DropReply), (MELT_QUOTE_STATE, lie("UNPAID")), (STATES, mode)];
    rounds(&[Act::Pay], states.map(calls)).await;
    let also = [calls(lie("SPENT")), vec![(RESTORE, Mode::Lie(Lie::Nothing))]].concat();
    rounds(&[Act::Pay], [also]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keysets_and_keys() {
    rounds(&[Act::Ecash], each(KEYSETS, &[ANY, &[Mode::Lie(Lie::Fees)]])).await;
    rounds(&[Act::Ecash], each(KEYS, &[ANY, &[Mode::Lie(Lie::Keys)]])).await;
}

/// A mint that is gone altogether, in every moment of it.
#[tokio::test(flavor = "multi_thread")]
async fn everything() {
    let all = [Act::Ecash, Act::TopUp, Act::Pay];
    rounds(&all, each("", &[ANY])).await;
}

/// A payment whose request was lost is under way for all that the node knows. The mint must say for a
/// while that it was not made; then, and not before, the money is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_is_never_made_ends() {
    let mut world = World::new().await;
    let key = world.key(500).await;
    let owed = world.node.balance(&key).await.0;
    world.recipient.set(Mood::Unpayable);
    world.chaos.set(MELT, Mode::DropReply);
    let (status, _, body) = answer(world.pay(&key)).await;
    assert_eq!((status, &body["error"]["code"]), (425, &json!("refund_pending")), "{body}");
    world.chaos.calm();
    for _ in 0..20 {
        // However often its client asks.
        assert_eq!(answer(world.pay(&key)).await.0, 425);
    }
    assert_eq!(world.node.balance(&key).await, (0, 0, 2000));
    let mut rounds = 0;
    while world.resume(1, A_WHILE).await > 0 {
        rounds += 1;
        assert!(rounds < 24, "it does not end");
    }
    assert!(rounds >= 4, "it ended after {rounds} rounds");
    assert_eq!(world.node.balance(&key).await, (owed, 0, 2000));
    assert_eq!(world.mint.paid().await, [0; 0]);
    let back = answer(world.node.post("/v1/wallet/refund").bearer_auth(&key)).await.2;
    assert_eq!(world.purse.receive(back["token"].as_str().unwrap()).await.unwrap() * 1000, owed);
    world.prove("a payment that is never made").await;
    world.node.finish().await;
}

/// A token that somebody else spent while the answer to its swap was lost: its redemption ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_spent_elsewhere_is_refused_in_the_end() {
    let world = World::new().await;
    let token = world.purse.send(100).await;
    world.chaos.set(SWAP, Mode::Cut);
    assert_eq!(answer(world.node.chat(&ask("hi")).bearer_auth(&token)).await.0, 503);
    world.chaos.calm();
    world.purse.receive(&token).await.unwrap();
    for _ in 0..5 {
        let (status, _, body) = answer(world.node.chat(&ask("hi")).bearer_auth(&token)).await;
        assert_eq!((status, &body["error"]["code"]), (503, &json!("cashu_mint_timeout")), "{body}");
    }
    assert_eq!(world.resume(8, LONG).await, 0);
    let (status, _, body) = answer(world.node.chat(&ask("hi")).bearer_auth(&token)).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("cashu_token_already_spent")), "{body}");
    world.prove("a token that was spent elsewhere").await;
    world.node.finish().await;
}

/// What a mint says that does not know what became of a swap.
const UNSURE: Mode = Mode::Reply(
    "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 40\r\n\r\n\
     {\"code\":50000,\"detail\":\"Internal Error\"}",
);

/// A mint that did nothing, and says that it does not know: the token is kept for a while, and is credited once the
/// mint knows better.
#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_knows_not_what_it_did_takes_no_token_in_vain() {
    let world = World::new().await;
    let (token, one_shot) = (world.purse.send(100).await, world.purse.send(150).await);
    world.chaos.set(SWAP, UNSURE);
    for request in
        [world.node.chat(&ask("hi")).bearer_auth(&token), world.node.chat(&ask("hi")).header("x-cashu", &one_shot)]
    {
        let (status, cashu, body) = answer(request).await;
        assert_eq!((status, &body["error"]["code"]), (503, &json!("cashu_mint_timeout")), "{body}");
        assert_eq!(cashu, None);
    }
    assert_eq!(world.resume(1, A_WHILE).await, 2, "it is not believed at once");
    world.chaos.calm();
    assert_eq!(world.resume(4, A_WHILE).await, 0);
    assert_eq!(world.node.balance(&token).await, (100_000, 0, 0));
    for (refund, worth) in [
        (world.node.post("/v1/wallet/refund").bearer_auth(&token), 100),
        (world.node.post("/v1/wallet/refund").header("x-cashu", &one_shot), 150),
    ] {
        let (status, _, body) = answer(refund).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(world.purse.receive(body["token"].as_str().unwrap()).await.unwrap(), worth, "{body}");
    }
    world.prove("a mint that knows better in the end").await;
    world.node.finish().await;
}

/// The same, of one that says so for long: the token is its owner's again.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_a_mint_will_not_swap_is_free_in_the_end() {
    let world = World::new().await;
    let token = world.purse.send(100).await;
    world.chaos.set(SWAP, UNSURE);
    assert_eq!(answer(world.node.chat(&ask("hi")).bearer_auth(&token)).await.0, 503);
    assert_eq!(world.resume(2, A_WHILE).await, 1);
    assert_eq!(answer(world.node.chat(&ask("hi")).bearer_auth(&token)).await.0, 503, "kept until it is decided");
    assert_eq!(world.resume(1, LONG).await, 0);
    world.chaos.calm();
    assert_eq!(world.purse.receive(&token).await.unwrap(), 100, "nobody has spent it");
    world.prove("a token that is free again").await;
    world.node.finish().await;
}
