//! Two processes on one PostgreSQL. One is killed in the middle of everything; the other finishes what
//! it had begun, and whatever a client holds afterwards is worth what it should be.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cdk::nuts::CurrencyUnit;
use serde_json::{Value, json};

use crate::process::Program;
use crate::support::answers::{PATIENCE, decided, read};
use crate::support::chaos::{Chaos, Mode};
use crate::support::db::{TestDb, on_postgres};
use crate::support::lnurl::Recipient;
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, ask, ask_streaming, balance_of, client};
use crate::support::purse::Purse;
use crate::support::upstream::{Script, Upstream, delta};

const START: u64 = 4_000;
const SWAP: &str = "/v1/swap";
/// What one request of the test model costs.
const COST_MSAT: u64 = 2_000;
const TIMEOUT_SECS: u64 = 5;

/// What a client does over and over, until its node is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Requests with a token as key.
    Key,
    /// The same, streamed.
    Stream,
    /// One request with a token, its change, and the next.
    OneShot,
    /// A request, then the balance back.
    Refund,
    /// A request, then the balance to a Lightning address.
    Melt,
    /// Keys filled over Lightning.
    Invoice,
}

const HABITS: [Habit; 6] = [Habit::Key, Habit::Stream, Habit::OneShot, Habit::Refund, Habit::Melt, Habit::Invoice];

/// A client, and what it will want to have back.
struct Client {
    habit: Habit,
    http: reqwest::Client,
    /// Its tokens, the next one last. Those that it has not shown to anybody are still here at the end.
    tokens: Vec<String>,
    shown: Vec<Shown>,
    invoices: Vec<String>,
}

struct Shown {
    token: String,
    one_shot: bool,
    requests: u64,
}

impl Client {
    fn new(habit: Habit, tokens: Vec<String>) -> Self {
        Self { habit, http: client(), tokens, shown: Vec::new(), invoices: Vec::new() }
    }

    /// Goes on until its tokens are used up, the node is gone, or it is told to stop.
    async fn run(mut self, node: String, recipient: String, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::SeqCst) {
            if self.step(&node, &recipient).await.is_err() {
                break;
            }
        }
        self
    }

    async fn step(&mut self, node: &str, recipient: &str) -> reqwest::Result<()> {
        if self.habit == Habit::Invoice {
            return self.fill(node).await;
        }
        let one_shot = self.habit == Habit::OneShot;
        let keeps = matches!(self.habit, Habit::Key | Habit::Stream);
        if !keeps || self.shown.is_empty() || self.shown.last().is_some_and(|shown| shown.requests >= 20) {
            let Some(token) = self.tokens.pop() else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                return Ok(());
            };
            self.shown.push(Shown { token, one_shot, requests: 0 });
        }
        let shown = self.shown.last_mut().expect("a token was shown");
        shown.requests += 1;
        let token = shown.token.clone();
        let body = if self.habit == Habit::Stream { ask_streaming("hi") } else { ask("hi") };
        let request = self.http.post(format!("{node}/v1/chat/completions")).json(&body);
        let request = if one_shot { request.header("x-cashu", &token) } else { request.bearer_auth(&token) };
        request.send().await?.bytes().await?;
        let refund = self.http.post(format!("{node}/v1/wallet/refund")).bearer_auth(&token);
        match self.habit {
            Habit::Refund => refund.send().await?.bytes().await.map(drop),
            Habit::Melt => refund.json(&json!({ "lightning_address": recipient })).send().await.map(drop),
            _ => Ok(()),
        }
    }

    async fn fill(&mut self, node: &str) -> reqwest::Result<()> {
        let wanted = json!({ "amount_sats": 20, "purpose": "create" });
        let made: Value =
            self.http.post(format!("{node}/lightning/invoice")).json(&wanted).send().await?.json().await?;
        self.invoices.extend(made["invoice_id"].as_str().map(str::to_owned));
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(())
    }

    /// Everything back, from the node that is left. Returns tokens, each named once.
    async fn collect(self, node: &str) -> BTreeSet<String> {
        let mut back: BTreeSet<String> = self.tokens.into_iter().collect();
        let http = &self.http;
        for Shown { token, one_shot, requests } in self.shown {
            let what = format!("{:?} after {requests} requests", self.habit);
            let claim = || {
                let request = http.post(format!("{node}/v1/wallet/refund"));
                if one_shot { request.header("x-cashu", &token) } else { request.bearer_auth(&token) }
            };
            let (status, body) = read(decided(&what, PATIENCE, claim).await).await;
            match (status, body["token"].as_str()) {
                (200, Some(token)) => drop(back.insert(token.to_owned())),
                // It went over Lightning, or there is nothing left of it.
                (200, None) if self.habit == Habit::Melt => {}
                (400, _) if self.habit == Habit::Melt => {}
                // It never arrived.
                (401 | 404, _) => drop(back.insert(token)),
                _ => panic!("{what}: {status} {body}"),
            }
        }
        for id in self.invoices {
            let status = || http.get(format!("{node}/lightning/invoice/{id}/status"));
            let end = Instant::now() + PATIENCE;
            let key = loop {
                let (_, body) = read(status().send().await.unwrap()).await;
                if let Some(key) = body["api_key"].as_str() {
                    break key.to_owned();
                }
                assert!(Instant::now() < end, "an invoice is not credited: {body}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            };
            let claim = || http.post(format!("{node}/v1/wallet/refund")).bearer_auth(&key);
            let (status, body) = read(decided("a filled key", PATIENCE, claim).await).await;
            assert_eq!((status, body["sats"].as_str()), (200, Some("20")), "{body}");
            back.insert(body["token"].as_str().unwrap().to_owned());
        }
        back
    }
}

/// Shows what a node said, where a test fails.
struct Telling<'a>(&'a Program);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.said());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_killed_under_load_and_the_other_takes_over() {
    if !on_postgres() {
        eprintln!("SKIPPED: set TEST_DATABASE=postgres and TEST_POSTGRES_URL to run two nodes on one database");
        return;
    }
    let mint = TestMint::start().await;
    let chaos = Chaos::before(&mint.url());
    let purse = Purse::with_unit(&chaos.url(), CurrencyUnit::Sat).await;
    purse.mint_sats(START).await;
    let (upstream, recipient) = (Upstream::start().await, Recipient::start().await);
    let db = TestDb::new().await;
    let (url, mint_url, timeout) = (db.url().expect("PostgreSQL"), chaos.url(), TIMEOUT_SECS.to_string());
    let more: Vec<(&str, &str)> = vec![
        ("DATABASE_URL", &url),
        ("CASHU_MINTS", &mint_url),
        ("SECRET_KEY", "one secret key for both of the nodes"),
        ("NODE_TIMEOUT_SECONDS", &timeout),
        ("MINT_MAX_CONCURRENCY", "16"),
    ];
    let mut nodes = Vec::new();
    for name in ["one", "two"] {
        let dir = db.dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        nodes.push(Program::start(&dir, &mint, &upstream, &more).await);
    }
    let (two, one) = (nodes.pop().unwrap(), nodes.pop().unwrap());

    // Held by the first, for certain, when it dies: a stream in its middle.
    let held = purse.send(100).await;
    upstream.next(Script::Paused { before: vec![delta(MODEL, "first")], after: vec![] });
    let request = client().post(format!("{}/v1/chat/completions", one.url())).json(&ask_streaming("hi"));
    let mut stream = request.bearer_auth(&held).send().await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some());
    let info = || client().get(format!("{}/v1/wallet/info", two.url()));
    assert!(balance_of(info(), &held).await.1 > 0, "both see the same hold");

    let mut ready = Vec::new();
    for habit in HABITS {
        let wanted = match habit {
            Habit::Invoice => 0,
            Habit::Key | Habit::Stream => 2,
            _ => 4,
        };
        for node in [&one, &one, &two] {
            let mut tokens = Vec::new();
            for _ in 0..wanted {
                tokens.push(purse.send(60).await);
            }
            ready.push((Client::new(habit, tokens), node.url().to_owned()));
        }
    }
    let (stop, swaps) = (Arc::new(AtomicBool::new(false)), chaos.hits(SWAP));
    let run = |(client, node): (Client, String)| tokio::spawn(client.run(node, recipient.name(), Arc::clone(&stop)));
    let running: Vec<_> = ready.into_iter().map(run).collect();
    // In the middle of it all, every swap on its way is answered by the mint and heard by nobody.
    chaos.hit(SWAP, swaps + 12).await;
    let before = chaos.hits(SWAP);
    chaos.set(SWAP, Mode::StallReply);
    chaos.hit(SWAP, before + 1).await;
    one.kill();
    let killed = Instant::now();
    chaos.calm();
    stop.store(true, Ordering::SeqCst);
    // A slow machine may have heard that it is still alive, and nothing else.
    while let Ok(Some(piece)) = stream.chunk().await {
        assert!(piece.starts_with(b":"), "{piece:?}");
    }
    let mut clients = Vec::new();
    for client in running {
        clients.push(client.await.unwrap());
    }

    let telling = Telling(&two);
    // The hold of the dead is released by the living, and its client keeps its money.
    while balance_of(info(), &held).await != (100_000, 0, 0) {
        assert!(killed.elapsed() < PATIENCE, "the hold of the dead is not released");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(killed.elapsed() >= Duration::from_secs(TIMEOUT_SECS / 2), "it was not dead yet");
    let requests: u64 = clients.iter().flat_map(|client| &client.shown).map(|shown| shown.requests).sum();
    let filled: u64 = clients.iter().map(|client| 20 * u64::try_from(client.invoices.len()).unwrap()).sum();
    let mut back = BTreeSet::new();
    for client in clients {
        back.extend(client.collect(two.url()).await);
    }
    let claim = || client().post(format!("{}/v1/wallet/refund", two.url())).bearer_auth(&held);
    let (status, body) = read(decided("the stream's key", PATIENCE, claim).await).await;
    assert_eq!((status, body["sats"].as_str()), (200, Some("100")), "{body}");
    back.insert(body["token"].as_str().unwrap().to_owned());
    for token in &back {
        purse.receive(token).await.expect("what clients hold is good");
    }

    drop(telling);
    let said = two.stop().await;
    let books = db.books().await;
    assert_eq!(books.open_holds, 0, "{said}");
    let ecash = u64::try_from(books.ecash.values().sum::<i64>()).unwrap() / 1000;
    let left = purse.balance().await;
    // To the mint, everything that it signed is with the customers or the node.
    assert_eq!(left + ecash, mint.outstanding().await, "{said}");
    let paid = mint.paid().await;
    let paid_out: u64 = paid.iter().sum();
    // To the customers, nothing is missing but what requests cost and payments took, and nobody got more
    // than was paid. What is owed still is crumbs, and invoices of which no client heard.
    let owed = u64::try_from(books.liabilities).unwrap() / 1000;
    let most = requests * COST_MSAT / 1000 + 2 * u64::try_from(paid.len()).unwrap() + 1;
    assert!(left + paid_out <= START + filled, "{left} {paid_out} {filled}");
    assert!(left + paid_out + owed + most >= START + filled, "{left} {paid_out} {owed} {most} {filled}");
    assert!(requests > 5 && filled > 0 && paid_out > 0, "that was no load: {requests} {filled} {paid_out}");
    db.remove().await;
}
