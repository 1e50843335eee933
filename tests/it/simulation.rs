//! A node, its mint and its clients through days of bad luck: random steps, several at a time, every
//! call to the mint put in a random order, lost on the way there or back, or refused, and the node killed
//! between any two of them.
//!
//! All of it follows from a seed, which a failure names: `SIMULATION_SEED=7` plays that one,
//! `SIMULATION_SEEDS=500` that many, from `SIMULATION_FIRST` on. After each, the luck turns, everybody asks for all that is theirs,
//! and the sums are held against a model that knows nothing but what went into which hands.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cdk::nuts::{CurrencyUnit, Token};
use coinslot::clock::Clock;
use coinslot::config::Config;
use coinslot::node::{self, Running};
use coinslot::wallet::Wallet;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::support::answers::{PATIENCE, decided, read};
use crate::support::clock::Ahead;
use crate::support::db::{TestDb, on_postgres};
use crate::support::lnurl::Recipient;
use crate::support::lossy::{Fate, Lossy};
use crate::support::mint::{MintOptions, TestMint};
use crate::support::node::{MODEL, UPSTREAM_KEY, balance_of, client, models};
use crate::support::purse::Purse;
use crate::support::tokens;
use crate::support::upstream::{Script, Upstream};

/// Seeds that the suite plays, and the time after which it plays no further one.
const SEEDS: u64 = 24;
const ENOUGH: Duration = Duration::from_secs(15);
/// A bound that a slow machine keeps, too.
const TOO_LONG: Duration = Duration::from_secs(180);
const BURSTS: usize = 10;
/// The most that one request costs.
const COST_MSAT: u64 = 2_000;
/// How long it may take to come to rest.
const CALMING: Duration = Duration::from_secs(30);

/// A node with threads of its own, so that all of it can die at once.
struct Mortal {
    runtime: Runtime,
    running: Running,
}

impl Mortal {
    fn start(settings: BTreeMap<String, String>, clock: Arc<Ahead>) -> Self {
        let born = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let config = Config::from_vars(&settings).expect("settings");
            let running = runtime.block_on(node::start(config, clock)).expect("the node starts");
            Self { runtime, running }
        });
        born.join().expect("the node starts")
    }

    /// Every task stops where it is; nothing is finished, told or closed.
    fn die(self) {
        let Self { runtime, running } = self;
        let dying = std::thread::spawn(move || {
            runtime.shutdown_timeout(Duration::from_secs(10));
            drop(running);
        });
        dying.join().expect("the node dies");
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.address())
    }

    fn wallet(&self) -> Wallet {
        self.running.exchange().till.wallet().clone()
    }

    /// Runs something on the node's own threads.
    async fn inside<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.spawn(work).await.expect("it lives")
    }
}

/// A token used as key.
#[derive(Clone, Debug, Default)]
struct Key {
    token: String,
    /// What came onto it, in sats, and whether the client was told so.
    paid_in: u64,
    top_ups: Vec<(String, u64, bool)>,
    requests: u64,
    /// Refunds that the client has in hand.
    back: BTreeSet<String>,
    /// Of a refund the client did not hear: it asks again before it does anything else.
    must_refund: bool,
    /// What is left of it goes to its owner's address in time.
    expires: bool,
}

/// A token that rides on one request.
#[derive(Clone, Default)]
struct Shot {
    token: String,
    paid_in: u64,
    back: Option<String>,
}

struct Bill {
    id: String,
    bolt11: String,
    sats: u64,
    paid: bool,
}

/// One thing that somebody does.
#[derive(Clone, Debug)]
enum Act {
    Chat { key: usize, stream: bool, model: &'static str, expires: bool },
    TopUp { key: usize, which: usize },
    Refund { key: usize },
    Shoot { shot: usize, stream: bool, model: &'static str },
    Claim { shot: usize },
    Invoice { sats: u64 },
    Look { bill: usize },
    Resume,
    Sweep,
}

/// What came of it, to whoever did it.
enum Heard {
    Nothing,
    Billed(u64),
    ToppedUp,
    Refunded(Option<String>),
    Change(Option<String>, u64),
    Bill(Bill),
}

/// One mint with a customer, for all seeds.
struct Town {
    mint: TestMint,
    purse: Purse,
    fee_ppk: u64,
}

impl Town {
    async fn with_fee(fee_ppk: u64) -> Self {
        let mint = TestMint::with_options(MintOptions { fee_ppk, ..MintOptions::default() }).await;
        let purse = Purse::new(&mint).await;
        purse.mint_sats(1_000_000).await;
        Self { mint, purse, fee_ppk }
    }

    /// The same money under another name of the mint.
    fn renamed(&self, token: &str, url: &str) -> String {
        let proofs = tokens::proofs(&self.mint, &Token::from_str(token).expect("a token"));
        tokens::token(url, proofs, CurrencyUnit::Sat)
    }
}

struct World<'a> {
    town: &'a Town,
    rng: StdRng,
    lossy: Lossy,
    clock: Arc<Ahead>,
    node: Option<Mortal>,
    settings: BTreeMap<String, String>,
    upstream: Upstream,
    recipient: Recipient,
    http: reqwest::Client,
    db: TestDb,
    keys: Vec<Key>,
    shots: Vec<Shot>,
    bills: Vec<Bill>,
    billed_msat: u64,
    deaths: u64,
    /// What happened, for whoever reads a failure.
    story: Vec<String>,
}

impl<'a> World<'a> {
    async fn new(town: &'a Town, seed: u64) -> Self {
        let (db, lossy, upstream) = (TestDb::new().await, Lossy::before(&town.mint).await, Upstream::start().await);
        let path = |name: &str| db.dir().join(name).display().to_string();
        std::fs::write(path("models.json"), models().to_string()).unwrap();
        let mut settings: BTreeMap<String, String> = [
            ("PORT", "0".to_owned()),
            ("DATA_DIR", path("data")),
            ("MODELS_PATH", path("models.json")),
            ("CASHU_MINTS", lossy.url()),
            ("UPSTREAM_BASE_URL", upstream.url()),
            ("UPSTREAM_API_KEY", UPSTREAM_KEY.to_owned()),
            ("BTC_USD_FIXED", "100000".to_owned()),
            ("EXCHANGE_FEE", "1".to_owned()),
            ("UPSTREAM_PROVIDER_FEE", "1".to_owned()),
            ("UPSTREAM_BREAKER_FAILURES", "0".to_owned()),
            ("ADMIN_PASSWORD", "an admin password".to_owned()),
            ("SECRET_KEY", "the same secret key in every life".to_owned()),
            // Only the simulation sweeps.
            ("REFUND_PROCESSING_INTERVAL", "0".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if let Some(url) = db.url() {
            settings.insert("DATABASE_URL".to_owned(), url);
        }
        let clock = Arc::new(Ahead::default());
        let node = Some(Mortal::start(settings.clone(), Arc::clone(&clock)));
        Self {
            town,
            rng: StdRng::seed_from_u64(seed),
            lossy,
            clock,
            node,
            settings,
            upstream,
            recipient: Recipient::start().await,
            http: client(),
            db,
            keys: Vec::new(),
            shots: Vec::new(),
            bills: Vec::new(),
            billed_msat: 0,
            deaths: 0,
            story: Vec::new(),
        }
    }

    fn node(&self) -> &Mortal {
        self.node.as_ref().expect("the node lives")
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(self.node().url(path))
    }

    fn die_and_rise(&mut self) {
        self.story.push("killed".to_owned());
        self.deaths += 1;
        self.node.take().expect("the node lives").die();
        self.node = Some(Mortal::start(self.settings.clone(), Arc::clone(&self.clock)));
    }

    /// A token of the customer's, for the node.
    async fn token(&mut self) -> (String, u64) {
        let sats = self.rng.random_range(30..150);
        (self.town.renamed(&self.town.purse.send(sats).await, &self.lossy.url()), sats)
    }

    /// What somebody might do now. One client does one thing at a time.
    async fn act(&mut self, busy: &BTreeSet<(bool, usize)>) -> Option<(Act, Option<(bool, usize)>)> {
        let stream = self.rng.random_bool(0.3);
        let model = *[MODEL, MODEL, "toy/cheap"].choose(&mut self.rng).expect("models");
        let key = self.rng.random_range(0..=self.keys.len()).min(3);
        let who = Some((true, key));
        match self.rng.random_range(0..20) {
            0..=5 => {
                if key == self.keys.len() {
                    let (token, paid_in) = self.token().await;
                    self.keys.push(Key { token, paid_in, ..Key::default() });
                }
                if self.keys[key].must_refund {
                    return Some((Act::Refund { key }, who)).filter(|_| !busy.contains(&(true, key)));
                }
                let expires = self.rng.random_bool(0.1);
                // Requests of one key may race with each other.
                Some((Act::Chat { key, stream, model, expires }, who)).filter(|_| !busy.contains(&(true, key)))
            }
            6 | 7 if key < self.keys.len() && !self.keys[key].must_refund && !busy.contains(&(true, key)) => {
                let (token, sats) = self.token().await;
                self.keys[key].top_ups.push((token, sats, false));
                Some((Act::TopUp { key, which: self.keys[key].top_ups.len() - 1 }, who))
            }
            8 | 9 if key < self.keys.len() && !busy.contains(&(true, key)) => Some((Act::Refund { key }, who)),
            10..=13 => {
                let (token, paid_in) = self.token().await;
                self.shots.push(Shot { token, paid_in, back: None });
                let shot = self.shots.len() - 1;
                Some((Act::Shoot { shot, stream, model }, Some((false, shot))))
            }
            14 if !self.shots.is_empty() => {
                let shot = self.rng.random_range(0..self.shots.len());
                Some((Act::Claim { shot }, Some((false, shot))))
            }
            15 => Some((Act::Invoice { sats: self.rng.random_range(1..200) }, None)),
            16 if !self.bills.is_empty() => {
                let bill = self.rng.random_range(0..self.bills.len());
                if self.rng.random_bool(0.5) && !self.bills[bill].paid {
                    self.bills[bill].paid = true;
                    self.lossy.pay(&self.bills[bill].bolt11);
                }
                Some((Act::Look { bill }, None))
            }
            17 => Some((Act::Resume, None)),
            18 => Some((Act::Sweep, None)),
            _ => None,
        }
    }

    fn request(&self, act: &Act) -> Option<RequestBuilder> {
        let chat = |stream: bool, model: &str| {
            let messages = json!([{ "role": "user", "content": "hi" }]);
            let body = json!({ "model": model, "messages": messages, "stream": stream, "max_tokens": 100 });
            self.post("/v1/chat/completions").json(&body)
        };
        Some(match act {
            Act::Chat { key, stream, model, expires } => {
                let request = chat(*stream, model).bearer_auth(&self.keys[*key].token);
                if !expires {
                    return Some(request);
                }
                let at = self.clock.now_ms() / 1000 + 600;
                request.header("refund-lnurl", self.recipient.name()).header("key-expiry-time", at.to_string())
            }
            Act::TopUp { key, which } => {
                let key = &self.keys[*key];
                self.post("/v1/wallet/topup")
                    .bearer_auth(&key.token)
                    .json(&json!({ "cashu_token": key.top_ups[*which].0 }))
            }
            Act::Refund { key } => self.post("/v1/wallet/refund").bearer_auth(&self.keys[*key].token),
            Act::Shoot { shot, stream, model } => chat(*stream, model).header("x-cashu", &self.shots[*shot].token),
            Act::Claim { shot } => self.post("/v1/wallet/refund").header("x-cashu", &self.shots[*shot].token),
            Act::Invoice { sats } => {
                self.post("/lightning/invoice").json(&json!({ "amount_sats": sats, "purpose": "create" }))
            }
            Act::Look { bill } => {
                self.http.get(self.node().url(&format!("/lightning/invoice/{}/status", self.bills[*bill].id)))
            }
            Act::Resume | Act::Sweep => return None,
        })
    }

    /// Some things at once, while the mint's calls come and go in an order of this seed's.
    async fn burst(&mut self) {
        let mut busy = BTreeSet::new();
        let mut acts = Vec::new();
        for _ in 0..self.rng.random_range(1..=4) {
            if let Some((act, who)) = self.act(&busy).await {
                busy.extend(who);
                acts.push(act);
            }
        }
        if self.rng.random_bool(0.15) {
            self.upstream.next(Script::Answer { status: 500, media: "application/json", body: "{}".to_owned() });
        }
        let mut crash = self.rng.random_bool(0.35).then(|| self.rng.random_range(0..6));
        let luck = *[0.0, 0.1, 0.3].choose(&mut self.rng).expect("luck");
        self.story.push(format!("{acts:?} luck {luck} crash {crash:?}"));
        self.lossy.guard();
        let mut running = JoinSet::new();
        for (at, act) in acts.iter().enumerate() {
            if let Act::Chat { key, expires, .. } = act {
                self.keys[*key].requests += 1;
                self.keys[*key].expires |= expires;
            }
            if let Act::Refund { key } = act {
                self.keys[*key].must_refund = true;
            }
            let (wallet, handle) = (self.node().wallet(), self.node().runtime.handle().clone());
            match (self.request(act), act) {
                (Some(request), act) => drop(running.spawn(heard(at, act.clone(), request))),
                (None, Act::Sweep) => drop(running.spawn(async move {
                    // One key at a time: which calls wait together must follow from the seed.
                    let mut round = coinslot::jobs::RefundRound::new(1, 500);
                    let swept = handle.spawn(async move { round.go_on(&wallet).await });
                    // It dies with the node.
                    drop(swept.await);
                    (at, Heard::Nothing)
                })),
                (None, _) => drop(running.spawn(async move {
                    drop(handle.spawn(async move { wallet.resume(0).await }).await);
                    (at, Heard::Nothing)
                })),
            }
        }
        let (mut decisions, end) = (0, Instant::now() + PATIENCE);
        while !running.is_empty() {
            while let Some(done) = running.try_join_next() {
                let (at, heard) = done.expect("a client lives");
                self.note(&acts[at], heard);
            }
            let waiting = self.lossy.waiting(running.len()).await;
            if crash == Some(decisions) {
                crash = None;
                self.die_and_rise();
                continue;
            }
            if let Some(call) = waiting.choose(&mut self.rng) {
                let fate = match self.rng.random_bool(luck) {
                    false => Fate::Pass,
                    true if self.rng.random_bool(0.3) => Fate::Refuse,
                    true => Fate::Lose,
                };
                self.story.push(format!("  {} {} {fate:?}", call.path, if call.answered { "answer" } else { "call" }));
                self.lossy.decide(call, fate);
                decisions += 1;
            }
            assert!(Instant::now() < end, "somebody waits for ever: {:#?}", self.story);
        }
        if crash.is_some() {
            self.die_and_rise();
        }
        if self.rng.random_bool(0.4) {
            let secs = *[3, 11, 60, 700].choose(&mut self.rng).expect("times");
            self.story.push(format!("{secs} s later"));
            self.clock.step(Duration::from_secs(secs));
        }
    }

    fn note(&mut self, act: &Act, heard: Heard) {
        match (act, heard) {
            (_, Heard::Billed(msat)) => self.billed_msat += msat,
            (Act::TopUp { key, which }, Heard::ToppedUp) => self.keys[*key].top_ups[*which].2 = true,
            (Act::Refund { key }, Heard::Refunded(token)) => {
                self.keys[*key].must_refund = false;
                self.keys[*key].back.extend(token);
            }
            (Act::Shoot { shot, .. } | Act::Claim { shot }, Heard::Change(token, msat)) => {
                self.billed_msat += msat;
                let back = &mut self.shots[*shot].back;
                if let (Some(old), Some(new)) = (&back, &token) {
                    assert_eq!(old, new, "two different tokens for one change: {:#?}", self.story);
                }
                *back = back.take().or(token);
            }
            (_, Heard::Bill(bill)) => self.bills.push(bill),
            _ => {}
        }
    }

    /// The luck turns. What was begun is finished.
    async fn calm(&mut self) {
        self.story.push("calm".to_owned());
        self.lossy.open();
        let end = Instant::now() + CALMING;
        for round in 0.. {
            // Past every pause, and in the end past the time of every invoice.
            self.clock.step(Duration::from_secs(if round == 2 { 30 * 3600 } else { 700 }));
            let wallet = self.node().wallet();
            let open = self.node().inside(async move { wallet.resume(0).await }).await.expect("the journal");
            let ledger = self.node().running.exchange().ledger.clone();
            let books = self.node().inside(async move { ledger.books().await }).await.expect("books");
            let rest = (open, books.open_holds);
            if round > 3 && rest == (0, 0) {
                return;
            }
            assert!(Instant::now() < end, "it does not come to rest: {rest:?}: {:#?}", self.story);
            // What needs so many rounds needs time rather than days.
            tokio::time::sleep(Duration::from_millis(if round < 40 { 10 } else { 250 })).await;
        }
    }

    async fn claim(&self, what: &str, request: impl Fn() -> RequestBuilder) -> (u16, Value) {
        read(decided(what, PATIENCE, request).await).await
    }

    /// Refunds of a key that nobody heard of before something else came onto it, a top-up under way for one: they are
    /// in its history.
    async fn collect_earlier(&mut self, at: usize, key: &str) {
        let history = || self.http.get(self.node().url("/v1/wallet/history?limit=500")).bearer_auth(key);
        let (status, body) = self.claim("a history", history).await;
        assert_eq!(status, 200, "{body}: {:#?}", self.story);
        let is_refund = |entry: &&Value| entry["type"] == "out" && entry["kind"] == "refund";
        for entry in body["transactions"].as_array().expect("entries").iter().filter(is_refund) {
            let again = json!({ "id": entry["id"] });
            let refund = || self.post("/v1/wallet/refund").bearer_auth(key).json(&again);
            let (status, body) = self.claim("an earlier refund", refund).await;
            match (status, body["token"].as_str()) {
                (200, Some(token)) => drop(self.keys[at].back.insert(token.to_owned())),
                // It came back onto the key.
                (400, _) => {}
                _ => panic!("{status} {body}: {:#?}", self.story),
            }
        }
    }

    /// Everybody takes what is theirs. Returns what the customer got for keys, for shots and for bills.
    async fn collect(&mut self) {
        for at in 0..self.keys.len() {
            let key = self.keys[at].clone();
            // A refund that nobody heard of is asked for before anything else comes onto the key.
            for round in 0..2 {
                let refund = || self.post("/v1/wallet/refund").bearer_auth(&key.token);
                let (status, body) = self.claim("a refund", refund).await;
                match (status, body["token"].as_str()) {
                    (200, Some(token)) => drop(self.keys[at].back.insert(token.to_owned())),
                    // Nothing left, it went to its owner's address, or nobody ever took it.
                    (200 | 400 | 401, _) => {}
                    _ => panic!("{status} {body}: {:#?}", self.story),
                }
                if round == 1 {
                    break;
                }
                for (token, ..) in key.top_ups.iter().filter(|(_, _, told)| !told) {
                    let again = json!({ "cashu_token": token });
                    let top_up = || self.post("/v1/wallet/topup").bearer_auth(&key.token).json(&again);
                    let (status, body) = self.claim("a top-up", top_up).await;
                    assert_eq!(status, 200, "{body}: {:#?}", self.story);
                }
            }
            if !self.keys[at].back.is_empty() {
                self.collect_earlier(at, &key.token).await;
            }
        }
        for at in 0..self.shots.len() {
            let token = self.shots[at].token.clone();
            let claim = || self.post("/v1/wallet/refund").header("x-cashu", &token);
            let (status, body) = self.claim("change", claim).await;
            let back = match (status, body["token"].as_str()) {
                (200, Some(token)) => Some(token.to_owned()),
                (404, _) => Some(token),
                (400, _) => None,
                _ => panic!("{status} {body}: {:#?}", self.story),
            };
            if let Some(before) = &self.shots[at].back {
                assert_eq!(back.as_ref(), Some(before), "another token for the same change: {:#?}", self.story);
            }
            self.shots[at].back = back;
        }
    }

    /// The sums. `before` is what the mint owed to others than the customer before.
    async fn reckon(mut self, seed: u64, before: u64) {
        let (town, story) = (self.town, std::mem::take(&mut self.story));
        let fees = u64::from(town.fee_ppk > 0);
        let direct = town.mint.url();
        let (mut paid_in, mut back_in_all) = (0, 0);
        for key in &self.keys {
            let came: u64 = key.paid_in + key.top_ups.iter().map(|(_, sats, _)| sats).sum::<u64>();
            let mut back = 0;
            for token in &key.back {
                back += town.purse.receive(&town.renamed(token, &direct)).await.unwrap_or_else(|error| {
                    panic!("seed {seed}: a refund is not good: {error}: {story:#?}");
                });
            }
            // A token that was refused, or never taken, is still good at the mint.
            if let Ok(untouched) = town.purse.receive(&town.renamed(&key.token, &direct)).await {
                back += untouched;
            }
            assert!(back <= came, "seed {seed}: {back} of {came}: {story:#?}");
            let info = || self.http.get(self.node().url("/v1/wallet/info"));
            let known = info().bearer_auth(&key.token).send().await.expect("info").status() == 200;
            if fees == 0 && !key.expires && known {
                // To the msat: what came is what went back, what was spent and what is left.
                let (left, held, spent) = balance_of(info(), &key.token).await;
                let accounted = back * 1000 + left + spent;
                assert_eq!((accounted, held), (came * 1000, 0), "seed {seed}: {key:?} {left} {spent}: {story:#?}");
                assert!(spent <= key.requests * COST_MSAT, "seed {seed}: {spent}: {story:#?}");
            }
            (paid_in, back_in_all) = (paid_in + came, back_in_all + back);
        }
        for shot in &self.shots {
            let mut back = 0;
            if let Some(token) = &shot.back {
                back = town.purse.receive(&town.renamed(token, &direct)).await.unwrap_or_else(|error| {
                    panic!("seed {seed}: change is not good: {error}: {story:#?}");
                });
            }
            let least = shot.paid_in - COST_MSAT.div_ceil(1000) - 6 * fees;
            assert!((least..=shot.paid_in).contains(&back), "seed {seed}: {back} of {}: {story:#?}", shot.paid_in);
            (paid_in, back_in_all) = (paid_in + shot.paid_in, back_in_all + back);
        }
        for bill in self.bills.iter().filter(|bill| bill.paid) {
            let status = || self.http.get(self.node().url(&format!("/lightning/invoice/{}/status", bill.id)));
            let (_, body) = self.claim("an invoice", status).await;
            let key = body["api_key"].as_str().unwrap_or_else(|| panic!("seed {seed}: {body}: {story:#?}")).to_owned();
            let refund = || self.post("/v1/wallet/refund").bearer_auth(&key);
            let (status, body) = self.claim("a filled key", refund).await;
            assert_eq!(status, 200, "seed {seed}: {body}: {story:#?}");
            let token = town.renamed(body["token"].as_str().expect("a token"), &direct);
            let back = town.purse.receive(&token).await.expect("it is good");
            assert!(back <= bill.sats && back + 6 * fees >= bill.sats, "seed {seed}: {back} of {}", bill.sats);
            (paid_in, back_in_all) = (paid_in + bill.sats, back_in_all + back);
        }
        let shots = self.shots.len();
        let requests = self.keys.iter().map(|key| key.requests).sum::<u64>() + u64::try_from(shots).unwrap();
        self.node.take().expect("the node lives").die();
        let books = self.db.books().await;
        assert_eq!(books.open_holds, 0, "seed {seed}: {story:#?}");
        let sats = |msat: i64| u64::try_from(msat).expect("no debt") / 1000;
        let others = town.mint.outstanding().await - town.purse.balance().await;
        let ecash = sats(books.ecash.values().sum());
        assert_eq!(others, before + ecash, "seed {seed}: what the mint signed is not what they hold: {story:#?}");
        let paid_out: u64 = self.recipient.asked().len().try_into().unwrap();
        let earned = u64::try_from(books.earnings).unwrap_or(0);
        assert!(earned <= requests * COST_MSAT, "seed {seed}: {earned} of {requests} requests: {story:#?}");
        assert!(fees > 0 || paid_out > 0 || earned >= self.billed_msat, "seed {seed}: {earned}: {story:#?}");
        if fees == 0 && paid_out == 0 {
            // To the sat: nobody lost anything, and nobody got anything for nothing.
            assert_eq!(back_in_all + sats(books.liabilities + books.earnings), paid_in, "seed {seed}: {story:#?}");
        }
        self.db.remove().await;
    }
}

/// Does one thing, and tells what came of it.
async fn heard(at: usize, act: Act, request: RequestBuilder) -> (usize, Heard) {
    let Ok(answer) = request.send().await else { return (at, Heard::Nothing) };
    (at, understood(&act, answer).await.unwrap_or(Heard::Nothing))
}

async fn understood(act: &Act, answer: Response) -> Option<Heard> {
    let header = |name: &str| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
    let status = answer.status().as_u16();
    let (token, cost) = (header("x-cashu"), header("x-routstr-cost-msats").and_then(|cost| cost.parse().ok()));
    let text = answer.text().await.ok()?;
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    let cost = cost.filter(|_| status == 200).unwrap_or(0);
    Some(match act {
        Act::Chat { .. } => Heard::Billed(cost),
        Act::TopUp { .. } if status == 200 => Heard::ToppedUp,
        Act::Refund { .. } if status == 200 => Heard::Refunded(body["token"].as_str().map(str::to_owned)),
        // There was nothing to give.
        Act::Refund { .. } if matches!(status, 400 | 401) => Heard::Refunded(None),
        Act::Shoot { .. } => Heard::Change(token.filter(|_| status != 402), cost),
        Act::Claim { .. } => Heard::Change(token, 0),
        Act::Invoice { sats } if status == 200 => Heard::Bill(Bill {
            id: body["invoice_id"].as_str()?.to_owned(),
            bolt11: body["bolt11"].as_str()?.to_owned(),
            sats: *sats,
            paid: false,
        }),
        _ => Heard::Nothing,
    })
}

/// One life. Returns what was billed, in msat, and how often the node died.
async fn play(town: &Town, seed: u64) -> (u64, u64) {
    let before = town.mint.outstanding().await - town.purse.balance().await;
    let mut world = World::new(town, seed).await;
    for _ in 0..BURSTS {
        world.burst().await;
    }
    world.calm().await;
    world.collect().await;
    let load = (world.billed_msat, world.deaths);
    world.reckon(seed, before).await;
    load
}

#[test]
fn whatever_happens_the_money_is_accounted_for() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let one = number("SIMULATION_SEED");
    let wanted = if one.is_some() { 1 } else { number("SIMULATION_SEEDS").unwrap_or(SEEDS) };
    let bounded = one.is_none() && number("SIMULATION_SEEDS").is_none();
    let first = one.or_else(|| number("SIMULATION_FIRST")).unwrap_or_else(|| rand::random::<u32>().into());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Ok(filter) = std::env::var("TEST_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init().ok();
    }
    let begun = Instant::now();
    runtime.block_on(async {
        let towns = [Town::with_fee(0).await, Town::with_fee(100).await];
        let (mut lives, mut billed_msat, mut deaths) = ([0; 2], 0, 0);
        for seed in first..first.saturating_add(wanted) {
            if bounded && begun.elapsed() > ENOUGH && !lives.contains(&0) {
                break;
            }
            eprintln!("SIMULATION_SEED={seed}");
            let town = usize::from(seed % 3 == 2);
            let load = play(&towns[town], seed).await;
            lives[town] += 1;
            (billed_msat, deaths) = (billed_msat + load.0, deaths + load.1);
        }
        let was_load = !lives.contains(&0) && billed_msat > 0 && deaths > 0;
        assert!(was_load || wanted < 3, "that was no load: {lives:?} {billed_msat} msat, {deaths} deaths");
    });
    assert!(on_postgres() || begun.elapsed() < TOO_LONG || !bounded, "the simulation takes too long");
}
