//! What coinslot costs: one run, one machine, the same upstream for everyone.
//!
//! ```text
//!   core 1: load generator ──────────────────────────► upstream     direct
//!           load generator ──► core 0: axum + reqwest ──► upstream  floor
//!           load generator ──► core 0: coinslot ────────► upstream  coinslot, paid with ecash
//!                                      └──► mint (core 1)
//! ```
//!
//! The floor does nothing but pass bytes on, with the settings of the node's own HTTP client. The
//! node is the release binary on an SQLite file, with keys that were opened by real tokens at a
//! real mint. Peers take turns within a round, and the median of the rounds is shown, so that a
//! slow moment of the machine does not hit one of them alone.
//!
//! `cargo bench --bench proxy` takes under five minutes; `-- --quick` about 20 seconds and less
//! care; `-- --only json` (or `latency`, `streams`, `dialects`, `models`, `x-cashu`, `group`) one part.
//! `-- --only count` counts instructions instead of time, where valgrind is installed.
#![allow(
    clippy::as_conversions,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::float_arithmetic,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod answers;
mod count;
mod dialects;
mod floor;
mod group;
mod load;
mod machine;
mod money;
mod node;
mod report;
mod support;
mod upstream;
mod wire;

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use load::{CHAT_END, Load, Sample, StreamEnd, measure, median};
use machine::Proxy;
use money::Bank;
use node::Node;
use report::{Figure, Report, Target, shown};
use upstream::Upstream;
use wire::Connection;

/// Value of an ordinary key, and of the one that takes all the load, in sats.
const KEY_SATS: u64 = 1 << 10;
const HOT_SATS: u64 = 1 << 18;
/// Values of the proofs in a token that rides on one request.
const TOKEN: [u64; 3] = [64, 32, 4];

/// How much of everything.
struct Plan {
    rounds: usize,
    each: Duration,
    keys: usize,
    opening: Duration,
    tokens: usize,
    only: Option<String>,
}

impl Plan {
    fn of(arguments: &[String]) -> Self {
        let only = arguments.iter().position(|word| word == "--only").and_then(|at| arguments.get(at + 1)).cloned();
        if only.as_deref() == Some("count") {
            let (each, opening) = (Duration::from_secs(5), Duration::from_secs(60));
            Self { rounds: 1, each, keys: 200, opening, tokens: 15, only }
        } else if arguments.iter().any(|word| word == "--quick") {
            let (each, opening) = (Duration::from_millis(700), Duration::from_secs(3));
            Self { rounds: 1, each, keys: 200, opening, tokens: 15, only }
        } else {
            let (each, opening) = (Duration::from_millis(2500), Duration::from_secs(60));
            Self { rounds: 3, each, keys: 10_000, opening, tokens: 100, only }
        }
    }

    /// The programs run under callgrind: asked for by name alone, as it is slow.
    fn counts(&self) -> bool {
        self.only.as_deref() == Some("count")
    }

    fn has(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, upstream] = arguments.as_slice()
        && first == "--floor"
    {
        return floor::run(upstream);
    }
    let plan = Plan::of(&arguments);
    let mut report = Report::default();
    report.note(machine::description());
    if !machine::pin_load() {
        report.note("processes are not pinned to cores (no taskset): compare nothing here with other runs".to_owned());
    }
    let begin = Instant::now();
    let groups = if plan.has("group") { group::measure(&[1, 4, 16, 64, 256], plan.each / 2) } else { Vec::new() };
    // Its threads must not be started, nor ended, by the load's own runtime.
    let bank = Bank::open();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let world = World::build(&plan, &bank, &mut report).await;
        world.run(&plan, &mut report).await;
    });
    for line in groups {
        report.note(format!(
            "ledger alone, {} at once: {} billed requests/s, {:.2} commits per request",
            line.concurrency,
            shown(line.per_second),
            line.commits_per_request
        ));
    }
    report.note(format!("the whole run took {:.0} s", begin.elapsed().as_secs_f64()));
    report.print();
}

/// Everyone who takes part.
struct World<'a> {
    upstream: Upstream,
    bank: &'a Bank,
    floor: Proxy,
    floor_address: SocketAddr,
    node: Node,
    keys: Vec<String>,
    hot_key: String,
}

/// Who a load goes to.
#[derive(Clone, Copy)]
enum Peer {
    Direct,
    Floor,
    Coinslot,
}

impl<'a> World<'a> {
    async fn build(plan: &Plan, bank: &'a Bank, report: &mut Report) -> Self {
        let upstream = Upstream::start().await;
        let myself = std::env::current_exe().expect("this program");
        let under: &[String] = if plan.counts() { &count::wrapped() } else { &[] };
        let mut floor =
            Proxy::start(under, &myself, &["--floor", &upstream.base_url()], Path::new("."), &count::environment());
        let floor_address = floor.first_line().parse().expect("the floor's address");
        let node = Node::start(under, &upstream.base_url(), &bank.url()).await;

        let hot = bank.tokens(&[HOT_SATS], 1).await;
        let hot_key = money::open_keys(node.address, hot, plan.opening).await.remove(0);
        let tokens = bank.tokens(&[KEY_SATS], plan.keys).await;
        let begin = Instant::now();
        let keys = money::open_keys(node.address, tokens, plan.opening).await;
        report.note(format!(
            "{} keys, each opened by a token that the node redeemed at the mint, {} a second",
            keys.len(),
            shown(keys.len() as f64 / begin.elapsed().as_secs_f64())
        ));
        Self { upstream, bank, floor, floor_address, node, keys, hot_key }
    }

    async fn run(&self, plan: &Plan, report: &mut Report) {
        if plan.counts() {
            count::measure(self, plan, report).await;
        }
        if plan.has("json") {
            self.json(plan, report).await;
        }
        if plan.has("latency") {
            self.latency(plan, report).await;
        }
        if plan.has("streams") {
            self.streams(plan, report).await;
        }
        if plan.has("dialects") {
            dialects::measure(self, plan, report).await;
        }
        if plan.has("models") {
            self.models(plan, report).await;
        }
        if plan.has("x-cashu") {
            self.x_cashu(plan, report).await;
        }
        let ((now, most), (floor, _)) = (self.node.proxy.memory_mb(), self.floor.memory_mb());
        let coinslot = format!("{now:.0} (at most {most:.0})");
        report.absolute("memory after the run, MB", shown(floor), coinslot, "≤ 50 MB", Some(now <= 50.0));
        self.check_books(report).await;
    }

    /// Billed JSON at full load: many keys, and one.
    async fn json(&self, plan: &Plan, report: &mut Report) {
        let body = chat("json", false);
        let cases = [
            (Peer::Direct, requests(&[], &body)),
            (Peer::Floor, requests(&[], &body)),
            (Peer::Coinslot, requests(&self.keys, &body)),
            (Peer::Coinslot, requests(std::slice::from_ref(&self.hot_key), &body)),
        ];
        let [direct, floor, many, hot] = self.rounds(plan, 64, &cases, None).await;
        let cpu = Figure { direct: None, floor: floor.cpu_us, coinslot: many.cpu_us };
        report.compare(
            "JSON, 64 connections, many keys: requests/s",
            Figure { direct: Some(direct.per_second), floor: floor.per_second, coinslot: many.per_second },
            &Target::AtLeast(0.65),
            "≥ 0.65 × floor",
        );
        report.compare("… CPU per request, µs", cpu, &Target::AtMost(1.6), "≤ 1.6 × floor");
        report.compare("… p50, µs", figure(&direct, &floor, &many, |sample| sample.p50), &Target::None, "");
        report.compare("… p99, µs", figure(&direct, &floor, &many, |sample| sample.p99), &Target::None, "");
        report.absolute(
            "… one hot key: requests/s",
            format!("{} (many keys)", shown(many.per_second)),
            shown(hot.per_second),
            "within 10 % of many keys",
            Some(hot.per_second >= 0.9 * many.per_second),
        );
        report.note(format!(
            "share of its core that the proxy used at full load: floor {:.2}, coinslot {:.2}",
            floor.busy, many.busy
        ));
    }

    /// Billed JSON, one request at a time.
    async fn latency(&self, plan: &Plan, report: &mut Report) {
        for (model, what, what_99) in [
            ("json", "JSON, 1 connection: p50, µs", "… p99, µs"),
            ("chunked", "JSON that comes in chunks, 1 connection: p50, µs", "… p99, µs"),
        ] {
            let body = chat(model, false);
            let cases = [
                (Peer::Direct, requests(&[], &body)),
                (Peer::Floor, requests(&[], &body)),
                (Peer::Coinslot, requests(&self.keys, &body)),
            ];
            let [direct, floor, coinslot] = self.rounds(plan, 1, &cases, None).await;
            let p50 = figure(&direct, &floor, &coinslot, |sample| sample.p50);
            let p99 = figure(&direct, &floor, &coinslot, |sample| sample.p99);
            report.compare(what, p50, &Target::Within(100.0), "≤ floor + 100");
            report.compare(what_99, p99, &Target::AtMost(2.0), "≤ 2 × floor");
        }
    }

    /// Billed streams: at a pace, as models write, and in one burst.
    async fn streams(&self, plan: &Plan, report: &mut Report) {
        let cases = |model| {
            let body = chat(model, true);
            [
                (Peer::Direct, requests(&[], &body)),
                (Peer::Floor, requests(&[], &body)),
                (Peer::Coinslot, requests(&self.keys, &body)),
            ]
        };
        self.upstream.beat(true);
        let [direct, floor, coinslot] = self.rounds(plan, upstream::STREAMS, &cases("paced"), Some(CHAT_END)).await;
        self.upstream.beat(false);
        let of = |field| figure(&direct, &floor, &coinslot, field);
        let cpu = Figure { direct: None, floor: floor.cpu_us, coinslot: coinslot.cpu_us };
        report.compare("streams, 8 × 100 events: CPU per stream, µs", cpu, &Target::AtMost(1.25), "≤ 1.25 × floor");
        report.compare(
            "… event transit p50, µs",
            of(|sample| sample.transit_p50),
            &Target::Within(30.0),
            "≤ floor + 30",
        );
        report.compare("… event transit p99, µs", of(|sample| sample.transit_p99), &Target::None, "");
        report.compare(
            "… first byte p50, µs",
            of(|sample| sample.first_byte_p50),
            &Target::Within(150.0),
            "≤ floor + 150",
        );

        let [_, floor, coinslot] = self.rounds(plan, upstream::STREAMS, &cases("burst"), Some(CHAT_END)).await;
        let cpu = Figure { direct: None, floor: floor.cpu_us, coinslot: coinslot.cpu_us };
        report.compare("streams in one burst: CPU per stream, µs", cpu, &Target::None, "");
    }

    /// The list of models, which the floor fetches from the upstream each time.
    async fn models(&self, plan: &Plan, report: &mut Report) {
        let request = wire::get("/v1/models", &[]);
        let mut connection = Connection::open(self.node.address).await.expect("connection");
        let list = connection.fetch(&request).await.expect("models");
        assert_eq!(list.status, 200, "{}", list.head);
        self.upstream.set_models(&list.body);
        let cases = [(Peer::Floor, Rc::new(vec![request.clone()])), (Peer::Coinslot, Rc::new(vec![request]))];
        let [floor, coinslot] = self.rounds(plan, 64, &cases, None).await;
        let figure = Figure { direct: None, floor: floor.per_second, coinslot: coinslot.per_second };
        report.compare("/v1/models, 400 models: requests/s", figure, &Target::AtLeast(0.8), "≥ 0.8 × floor");
        let cpu = Figure { direct: None, floor: floor.cpu_us, coinslot: coinslot.cpu_us };
        report.compare("… CPU per request, µs", cpu, &Target::None, "");
        report.note(format!("the list of models is {} KB", list.body.len() / 1000));
    }

    /// Tokens that ride on one request: redeemed, spent and given change.
    async fn x_cashu(&self, plan: &Plan, report: &mut Report) {
        let mut trips = self.bank.round_trips(&TOKEN, plan.tokens).await;
        let tokens = self.bank.tokens(&TOKEN, plan.tokens).await;
        let body = chat("json", false);
        let mut connection = Connection::open(self.node.address).await.expect("connection");
        let (swaps, calls) = (self.bank.swaps(), self.bank.calls());
        let mut times = Vec::new();
        for token in &tokens {
            let request = wire::post("/v1/chat/completions", &[("x-cashu", token)], &body);
            let begin = Instant::now();
            let answer = connection.fetch(&request).await.expect("answer");
            times.push(u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
            assert!(answer.status == 200 && answer.head.contains("x-cashu: cashu"), "{}", answer.head);
        }
        let count = tokens.len() as f64;
        let per_request = |before: u64, now: u64| (now - before) as f64 / count;
        let (trip, time) = (load::quantile(&mut trips, 0.5), load::quantile(&mut times, 0.5));
        report.absolute(
            "X-Cashu, plain token of 3 proofs: p50, µs",
            format!("{} (one swap at the mint)", shown(trip)),
            format!("{} ({:+.0})", shown(time), time - trip),
            "≤ one mint round trip + 3,000",
            Some(time <= trip + 3_000.0),
        );
        let swapped = per_request(swaps, self.bank.swaps());
        report.absolute(
            "… calls to the mint per request",
            "–".to_owned(),
            format!("{} swaps, {} in all", shown(swapped), shown(per_request(calls, self.bank.calls()))),
            "change without a call: 1 swap",
            Some(swapped <= 1.1),
        );
    }

    /// Runs each case in each round; the medians come in the order of the cases.
    async fn rounds<const N: usize>(
        &self,
        plan: &Plan,
        connections: usize,
        cases: &[(Peer, Rc<Vec<Vec<u8>>>); N],
        streams: Option<StreamEnd>,
    ) -> [Sample; N] {
        let mut samples: [Vec<Sample>; N] = std::array::from_fn(|_| Vec::new());
        for _ in 0..plan.rounds {
            for (samples, (peer, requests)) in samples.iter_mut().zip(cases) {
                let (target, proxy) = match peer {
                    Peer::Direct => (self.upstream.address, None),
                    Peer::Floor => (self.floor_address, Some(&self.floor)),
                    Peer::Coinslot => (self.node.address, Some(&self.node.proxy)),
                };
                let load = Load { target, connections, requests: Rc::clone(requests), duration: plan.each };
                samples.push(measure(&load, proxy, streams).await);
            }
        }
        samples.map(|samples| median(&samples))
    }

    /// All this money was real: what keys were charged must be so many times the one price.
    async fn check_books(&self, report: &mut Report) {
        let sample = self.keys.iter().step_by((self.keys.len() / 100).max(1));
        let (mut keys, mut requests, mut spent) = (0, 0, 0);
        for (key, sats) in sample.map(|key| (key, KEY_SATS)).chain([(&self.hot_key, HOT_SATS)]) {
            let info = self.node.wallet_info(key).await;
            let field = |name: &str| info[name].as_u64().unwrap_or_else(|| panic!("{name} in {info}"));
            assert_eq!(field("balance") + field("total_spent"), sats * 1000, "{info}");
            assert_eq!(field("reserved"), 0, "{info}");
            keys += 1;
            requests += field("total_requests");
            spent += field("total_spent");
        }
        assert_eq!(spent % requests.max(1), 0, "{spent} msat for {requests} requests of one price");
        report.note(format!(
            "checked afterwards: {keys} keys paid {spent} msat for {requests} requests, {} msat each, nothing reserved",
            spent / requests.max(1)
        ));
    }
}

fn figure(direct: &Sample, floor: &Sample, coinslot: &Sample, field: fn(&Sample) -> f64) -> Figure {
    Figure { direct: Some(field(direct)), floor: field(floor), coinslot: field(coinslot) }
}

/// A chat request for each key, or one without.
fn requests(keys: &[String], body: &str) -> Rc<Vec<Vec<u8>>> {
    requests_to("/v1/chat/completions", keys, body)
}

/// The same to any path.
fn requests_to(path: &str, keys: &[String], body: &str) -> Rc<Vec<Vec<u8>>> {
    if keys.is_empty() {
        return Rc::new(vec![wire::post(path, &[], body)]);
    }
    let bearers = keys.iter().map(|key| format!("Bearer {key}"));
    Rc::new(bearers.map(|bearer| wire::post(path, &[("authorization", &bearer)], body)).collect())
}

/// The body of a chat request, like one of the first turns of a conversation.
fn chat(model: &str, stream: bool) -> String {
    let streaming = if stream { r#","stream":true,"stream_options":{"include_usage":true}"# } else { "" };
    let text = "Explain in a few sentences why the sky is blue, and why it is red in the evening.";
    format!(
        "{{\"model\":\"bench/{model}\",\"messages\":[{{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"}},\
         {{\"role\":\"user\",\"content\":\"{text} {text}\"}}],\"max_tokens\":64,\"temperature\":0.7{streaming}}}"
    )
}
