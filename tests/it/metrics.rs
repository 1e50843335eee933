//! `/metrics`: who may read it, that it is well-formed, and that every counter says what was really done.

use std::collections::{BTreeMap, BTreeSet};

use coinslot::ledger::vouchers::Funds;
use coinslot::money::Msat;
use coinslot::payment::vouchers::BatchOrder;
use serde_json::{Value, json};

use crate::pool::{KEYS, NAMES, World, refuse};
use crate::price_sync::Browser;
use crate::support::answers::until;
use crate::support::node::{MODEL, ask, ask_streaming, models};
use crate::support::upstream::{Script, delta, sse};

const TOKEN: &str = "a-metrics-token-canary";

type Labels = BTreeMap<String, String>;

/// A text in Prometheus' format, read strictly.
struct Scrape {
    text: String,
    /// Kind of each family.
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), String>,
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// The labels at the start of `text`, after `{`, and what follows their `}`.
fn labels_of(mut text: &str) -> (Labels, &str) {
    let mut labels = Labels::new();
    loop {
        let (name, rest) = text.split_once("=\"").expect("a label");
        assert!(is_name(name), "{text}");
        let (mut value, mut chars) = (String::new(), rest.char_indices());
        let end = loop {
            match chars.next().expect("a closing quote") {
                (at, '"') => break at,
                (_, '\\') => match chars.next().expect("an escape").1 {
                    'n' => value.push('\n'),
                    escaped @ ('\\' | '"') => value.push(escaped),
                    other => panic!("\\{other}"),
                },
                (_, plain) => value.push(plain),
            }
        };
        assert_eq!(labels.insert(name.to_owned(), value), None, "{text}");
        text = &rest[end + 1..];
        match text.split_at(1) {
            (",", rest) => text = rest,
            ("}", rest) => return (labels, rest),
            other => panic!("{other:?}"),
        }
    }
}

impl Scrape {
    fn read(text: String) -> Self {
        assert!(text.ends_with('\n'));
        let (mut kinds, mut samples) = (BTreeMap::new(), BTreeMap::new());
        let (mut helped, mut family) = (String::new(), String::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help");
                assert!(is_name(name) && name.starts_with("coinslot_") && !help.is_empty(), "{line}");
                name.clone_into(&mut helped);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a kind");
                assert_eq!(name, helped, "help and kind belong together");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert_eq!(kinds.insert(name.to_owned(), kind.to_owned()), None, "{name} comes once");
                name.clone_into(&mut family);
            } else {
                let end = line.find(['{', ' ']).expect("a sample");
                let (name, rest) = line.split_at(end);
                let (labels, rest) = match rest.strip_prefix('{') {
                    Some(rest) => labels_of(rest),
                    None => (Labels::new(), rest),
                };
                let value = rest.strip_prefix(' ').expect("a value");
                value.parse::<f64>().expect("a number");
                let suffix = name.strip_prefix(family.as_str()).expect("of the family that was begun");
                let is_part = kinds[&family] == "histogram" && ["_bucket", "_sum", "_count"].contains(&suffix);
                assert!(is_part || suffix.is_empty() && kinds[&family] != "histogram", "{line}");
                let before = samples.insert((name.to_owned(), labels), value.to_owned());
                assert_eq!(before, None, "{line} comes once");
            }
        }
        let scrape = Self { text, kinds, samples };
        scrape.check_histograms();
        scrape
    }

    fn check_histograms(&self) {
        for name in self.kinds.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            let mut buckets: BTreeMap<Labels, Vec<(f64, u64)>> = BTreeMap::new();
            for ((_, labels), value) in self.of(&format!("{name}_bucket")) {
                let mut labels = labels.clone();
                let bound = match labels.remove("le").expect("a bound").as_str() {
                    "+Inf" => f64::INFINITY,
                    bound => bound.parse().unwrap(),
                };
                buckets.entry(labels).or_default().push((bound, value.parse().unwrap()));
            }
            for (labels, mut counts) in buckets {
                counts.sort_by(|one, other| one.0.total_cmp(&other.0));
                assert!(counts.is_sorted_by_key(|(_, count)| *count), "{name} {labels:?}");
                let (bound, count) = *counts.last().unwrap();
                assert!(bound.is_infinite());
                assert_eq!(self.samples[&(format!("{name}_count"), labels.clone())], count.to_string());
                assert!(self.samples.contains_key(&(format!("{name}_sum"), labels)));
            }
        }
    }

    fn of(&self, name: &str) -> impl Iterator<Item = (&(String, Labels), &String)> {
        let name = name.to_owned();
        self.samples.iter().filter(move |((found, _), _)| *found == name)
    }

    /// A sample; zero where there is none.
    fn get(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).map_or(0, |value| value.parse().unwrap())
    }

    fn sum(&self, name: &str) -> u64 {
        self.of(name).map(|(_, value)| value.parse::<u64>().unwrap()).sum()
    }

    /// All values of a label.
    fn values(&self, label: &str) -> BTreeSet<String> {
        self.samples.keys().filter_map(|(_, labels)| labels.get(label).cloned()).collect()
    }
}

async fn scrape(world: &World) -> Scrape {
    let answer = world.node.get("/metrics").bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    Scrape::read(answer.text().await.unwrap())
}

async fn world(members: &[Value], more: &[(&str, &str)]) -> World {
    World::new(members, &[&[("METRICS_TOKEN", TOKEN)], more].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_operator_sees_them() {
    let world = world(&[json!({})], &[]).await;
    for wrong in ["", "a-metrics-token-canarx", "a-metrics-token", &world.key] {
        let answer = world.node.get("/metrics").bearer_auth(wrong).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["www-authenticate"]),
            (401, &"Bearer".parse().unwrap())
        );
        assert!(!answer.text().await.unwrap().contains("coinslot_"));
    }
    assert_eq!(world.node.get("/metrics").send().await.unwrap().status(), 401);
    assert_eq!(world.node.get("/metrics?token=a-metrics-token-canary").send().await.unwrap().status(), 401);
    assert!(scrape(&world).await.kinds.len() > 25);
    // A browser that is logged in needs no token.
    assert_eq!(world.node.get("/admin/metrics").send().await.unwrap().status(), 401);
    let browser = Browser::log_in(&world.node).await;
    Scrape::read(browser.page_at("/admin/metrics").await);
    world.finish().await;
    // Without a token nobody is served, not even on loopback.
    let world = World::new(&[json!({})], &[]).await;
    let answer = world.node.get("/metrics").bearer_auth("").send().await.unwrap();
    assert_eq!(answer.status(), 404);
    assert!(!answer.text().await.unwrap().contains("coinslot_"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_counter_says_what_was_done() {
    let world = world(&[json!({}), json!({})], &[]).await;
    let send = async |body: &Value, status: u16| {
        let reply = world.send(body).await;
        assert_eq!(reply.status, status, "{}", reply.text);
    };
    let prompt = "prompt-canary";
    for _ in 0..3 {
        send(&ask(prompt), 200).await;
    }
    send(&ask_streaming(prompt), 200).await;
    // Another one answers.
    world.upstreams[0].next(refuse(500));
    send(&ask(prompt), 200).await;
    // Both fail, each in its way. The first goes last now.
    world.upstreams[1].next(Script::Answer { status: 200, media: "application/json", body: "{}".to_owned() });
    world.upstreams[0].next(refuse(500));
    send(&ask(prompt), 502).await;
    // The client's mistake, found upstream, here, and in the model.
    world.upstreams.iter().for_each(|upstream| upstream.next(refuse(400)));
    send(&ask(prompt), 400).await;
    world.upstreams.iter().for_each(|upstream| {
        while !upstream.is_idle() {
            upstream.skip()
        }
    });
    let answer = world.node.post("/v1/chat/completions").bearer_auth(&world.key).body("{").send().await.unwrap();
    assert_eq!(answer.status(), 400);
    send(&json!({ "model": "model-canary", "messages": [{ "role": "user", "content": "hi" }] }), 400).await;
    // No money, and a key that is none.
    assert_eq!(world.node.chat(&ask(prompt)).send().await.unwrap().status(), 401);
    let stranger = format!("sk-{}", "ab".repeat(32));
    assert_eq!(world.node.chat(&ask(prompt)).bearer_auth(&stranger).send().await.unwrap().status(), 401);
    // Once, and again from what was kept.
    for _ in 0..2 {
        let request = world.node.chat(&ask("once")).bearer_auth(&world.key).header("idempotency-key", "k-1");
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    // A stream that breaks off after some words is paid for, and failed.
    let pieces = vec![sse(MODEL, &[], None)[0].clone(), delta(MODEL, &"word ".repeat(20))];
    for upstream in &world.upstreams {
        upstream.next(Script::Stream { pieces: pieces.clone(), cut: true });
    }
    send(&ask_streaming(prompt), 200).await;
    // Embeddings are of another dialect.
    world.upstreams.iter().for_each(|upstream| {
        while !upstream.is_idle() {
            upstream.skip()
        }
    });
    let answer = world.node.post("/v1/embeddings").json(&json!({ "model": MODEL, "input": "x".repeat(500) }));
    assert_eq!(answer.bearer_auth(&world.key).send().await.unwrap().status(), 200);

    let spent = world.spent().await;
    let seen = scrape(&world).await;
    let chat = |model: &str, outcome: &str| {
        seen.get("coinslot_requests_total", &[("dialect", "chat/completions"), ("model", model), ("outcome", outcome)])
    };
    assert_eq!(chat(MODEL, "served"), 6, "{}", seen.text);
    assert_eq!(chat(MODEL, "upstream_error"), 2, "{}", seen.text);
    assert_eq!(chat(MODEL, "client_error"), 1, "{}", seen.text);
    assert_eq!((chat("_none", "client_error"), chat("_other", "client_error")), (1, 1), "{}", seen.text);
    assert_eq!(chat("_none", "replayed"), 1);
    let refused = seen.of("coinslot_requests_total").filter(|((_, labels), _)| labels["outcome"] == "payment_error");
    assert_eq!(refused.map(|(_, value)| value.parse::<u64>().unwrap()).sum::<u64>(), 2, "{}", seen.text);
    assert_eq!(seen.sum("coinslot_requests_total"), 15, "{}", seen.text);
    // What clients paid is what the key was charged.
    assert_eq!(seen.sum("coinslot_charged_msat_total"), spent);
    let tokens = |kind: &str| seen.get("coinslot_tokens_total", &[("model", MODEL), ("kind", kind)]);
    assert!(tokens("input") >= 600 && tokens("output") >= 300, "{}", seen.text);
    assert_eq!(10 * tokens("input") + 20 * tokens("output"), spent, "the model's prices");
    let attempts = |outcome: &str| -> u64 {
        let name = "coinslot_upstream_attempts_total";
        NAMES[..2].iter().map(|upstream| seen.get(name, &[("upstream", upstream), ("outcome", outcome)])).sum()
    };
    // Six whole or streamed answers, one that broke off, and the embedding.
    assert_eq!((attempts("answered"), attempts("worthless"), attempts("refused")), (8, 1, 3), "{}", seen.text);
    assert_eq!(seen.sum("coinslot_upstream_attempts_total"), 12);
    let dialect = [("dialect", "chat/completions")];
    assert_eq!(seen.get("coinslot_request_duration_seconds_count", &dialect), 9, "who was admitted");
    assert_eq!(seen.get("coinslot_ttft_seconds_count", &dialect), 2, "streams alone");
    assert_eq!(seen.sum("coinslot_holds_open"), 0);
    // Each hold was placed and ended: seven that were paid for, the embedding, and two that were undone.
    assert_eq!(seen.sum("coinslot_ledger_entries_total"), 20);
    let commits = seen.sum("coinslot_ledger_commits_total");
    assert!(commits > 0 && commits <= 20);
    let mint = world.mint.url();
    assert_eq!((seen.get("coinslot_mint_up", &[("mint", &mint)]), seen.sum("coinslot_price_known")), (1, 1));
    assert_eq!(seen.get("coinslot_mint_circuit", &[("mint", &mint), ("state", "closed")]), 1);
    assert_eq!(seen.sum("coinslot_price_usd"), 100_000);
    until("jobs have run", async || scrape(&world).await.values("job_name").len() > 8).await;
    // Nothing of a client, and no secret.
    let secrets = [world.key.as_str(), prompt, "model-canary", "k-1", TOKEN, KEYS[0], KEYS[1], &stranger, "word"];
    for secret in secrets {
        assert!(!seen.text.contains(secret), "{secret}");
    }
    let labels: BTreeSet<&String> = seen.samples.keys().flat_map(|(_, labels)| labels.keys()).collect();
    let known = [
        "dialect", "job_name", "kind", "le", "method", "mint", "model", "outcome", "route", "state", "status", "unit",
        "upstream", "verdict", "version",
    ];
    assert!(labels.iter().all(|label| known.contains(&label.as_str())), "{labels:?}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mints_are_counted_and_the_books_are_those_of_the_last_audit() {
    let mut world = world(&[json!({})], &[]).await;
    world.node.restart().await;
    world.node.quiet().await;
    let seen = scrape(&world).await;
    assert!(seen.sum("coinslot_audit_timestamp_seconds") > 0, "it was audited");
    let verdict = |name: &str| seen.get("coinslot_audit_verdict", &[("verdict", name)]);
    assert_eq!(["proven", "not_asked", "short", "faulty"].map(verdict).iter().sum::<u64>(), 1, "{}", seen.text);
    assert_eq!((seen.sum("coinslot_solvent"), seen.sum("coinslot_shortfall_msat")), (1, 0));
    let due = seen.sum("coinslot_liabilities_msat") + seen.sum("coinslot_earnings_msat");
    assert_eq!((seen.sum("coinslot_ecash_msat"), seen.sum("coinslot_wallet_msat")), (due, due));
    assert_eq!(due, 1_000_000, "what is on the key");
    // After the start nothing in the background asks the mint.
    let (mint, token) = (world.mint.url(), world.purse.send(30).await);
    let calls =
        |seen: &Scrape, outcome| seen.get("coinslot_mint_calls_total", &[("mint", &mint), ("outcome", outcome)]);
    let before = calls(&seen, "answered");
    world.mint.reset_calls();
    assert_eq!(world.send_token(&ask("hi"), &token).await.status, 200);
    let seen = scrape(&world).await;
    assert_eq!(calls(&seen, "answered") - before, world.mint.all_calls().values().sum::<u64>());
    assert_eq!(["limited", "failed", "kept_back"].map(|outcome| calls(&seen, outcome)), [0; 3]);
    world.finish().await;
}

/// The test models, and so many others.
fn many_models(many: usize) -> String {
    let mut list = models();
    let model = list["models"][0].clone();
    for at in 0..many {
        let mut model = model.clone();
        model["id"] = json!(format!("many/m{at}"));
        list["models"].as_array_mut().unwrap().push(model);
    }
    list.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn models_with_counters_of_their_own_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("models.json");
    std::fs::write(&path, many_models(110)).unwrap();
    let world = world(&[json!({})], &[("MODELS_PATH", &path.display().to_string())]).await;
    let named = |model: &str| json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] });
    // Names that somebody makes up come first, and take no place.
    for at in 0..150 {
        assert_eq!(world.send(&named(&format!("made-up/{at}"))).await.status, 400);
    }
    for at in 0..110 {
        assert_eq!(world.send(&named(&format!("many/m{at}"))).await.status, 200);
    }
    let seen = scrape(&world).await;
    let labels = seen.values("model");
    assert_eq!(labels.len(), 101, "a hundred, and all others as one");
    assert!(labels.contains("_other") && !seen.text.contains("made-up"));
    let others = |outcome: &str| {
        let labels = [("dialect", "chat/completions"), ("model", "_other"), ("outcome", outcome)];
        seen.get("coinslot_requests_total", &labels)
    };
    assert_eq!((others("client_error"), others("served"), seen.sum("coinslot_requests_total")), (150, 10, 260));
    assert_eq!(seen.sum("coinslot_charged_msat_total"), world.spent().await);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_list_has_are_served_and_not_told() {
    let prices = [("MODEL_BASED_PRICING", "false"), ("COST_PER_REQUEST", "1")];
    let world = world(&[json!({})], &prices).await;
    for at in 0..3 {
        let body = json!({ "model": format!("made-up-{at}"), "messages": [{ "role": "user", "content": "hi" }] });
        assert_eq!(world.send(&body).await.status, 200);
    }
    let exchange = world.node.running().exchange();
    exchange.traffic.keep(exchange.ledger.store(), exchange.ledger.clock().now_ms()).await.unwrap();
    let seen = scrape(&world).await;
    assert!(!seen.text.contains("made-up"));
    assert_eq!(seen.sum("coinslot_requests_total"), 3);
    assert!(exchange.traffic.board().models.is_empty(), "nor on the status page");
    world.finish().await;
}

/// Every text under this name, however deep.
fn texts<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get(name).and_then(Value::as_str));
            members.values().for_each(|value| texts(value, name, found));
        }
        Value::Array(values) => values.iter().for_each(|value| texts(value, name, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_asks_for_what_there_is() {
    let mut world = world(&[json!({})], &[]).await;
    world.node.restart().await;
    world.send(&ask("hi")).await;
    world.send(&ask_streaming("hi")).await;
    let mut seen = scrape(&world).await;
    until("all is told", async || {
        seen = scrape(&world).await;
        !seen.values("unit").is_empty() && !seen.values("job_name").is_empty()
    })
    .await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/grafana.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut queries = Vec::new();
    texts(&dashboard, "expr", &mut queries);
    assert!(queries.len() > 20);
    let mut used = BTreeSet::new();
    for query in &queries {
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names: Vec<&str> = words.filter(|word| word.starts_with("coinslot_")).collect();
        assert!(!names.is_empty(), "{query}");
        for name in names {
            let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|suffix| name.strip_suffix(suffix));
            let mut of_histogram =
                parts.filter(|family| seen.kinds.get(*family).is_some_and(|kind| kind == "histogram"));
            let family = of_histogram.next_back().unwrap_or(name);
            let kind = seen.kinds.get(family).unwrap_or_else(|| panic!("{query}: {family}"));
            let is_rated = query.contains("rate(") || query.contains("increase(");
            assert_eq!(is_rated, kind != "gauge", "{query}");
            let labels: BTreeSet<&str> =
                seen.of(name).flat_map(|((_, labels), _)| labels.keys().map(String::as_str)).collect();
            for group in query.split(" by (").skip(1) {
                for label in group.split(')').next().unwrap().split(", ") {
                    assert!(labels.is_empty() || labels.contains(label), "{query}: {label}");
                }
            }
            used.insert(family.to_owned());
        }
    }
    let unused: Vec<_> = seen.kinds.keys().filter(|family| !used.contains(*family)).collect();
    let by_choice = [
        "coinslot_audit_timestamp_seconds",
        "coinslot_audit_verdict",
        "coinslot_build_info",
        "coinslot_held_msat",
        "coinslot_maintenance",
        "coinslot_mint_circuit",
        "coinslot_price_known",
    ];
    assert_eq!(unused, by_choice, "what the dashboard leaves out");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_counted_by_how_it_came_and_went() {
    let world = world(&[json!({})], &[]).await;
    let seen = scrape(&world).await;
    let redeemed = |seen: &Scrape, outcome| seen.get("coinslot_redemptions_total", &[("outcome", outcome)]);
    assert_eq!(redeemed(&seen, "credited"), 1, "the key's own token: {}", seen.text);
    assert_eq!(seen.sum("coinslot_payments_total"), 0, "it was only looked at");
    // A token that rides along, twice: the second time it is spent. A key, twice; and one that is none.
    let token = world.purse.send(40).await;
    assert_eq!(world.send_token(&ask("hi"), &token).await.status, 200);
    assert_eq!(world.send_token(&ask("hi"), &token).await.status, 400);
    for _ in 0..2 {
        assert_eq!(world.send(&ask("hi")).await.status, 200);
    }
    let stranger = format!("sk-{}", "ab".repeat(32));
    assert_eq!(world.node.chat(&ask("hi")).bearer_auth(&stranger).send().await.unwrap().status(), 401);
    // A token as a key, at its first sight; and one that the mint has seen before.
    let fresh = world.purse.send(30).await;
    assert_eq!(world.node.chat(&ask("hi")).bearer_auth(&fresh).send().await.unwrap().status(), 200);
    let spent = world.purse.send(20).await;
    world.purse.receive(&spent).await.unwrap();
    assert_eq!(world.node.chat(&ask("hi")).bearer_auth(&spent).send().await.unwrap().status(), 400);
    // An invoice fills a key.
    let invoice = world.node.post("/lightning/invoice").json(&json!({ "amount_sats": 50, "purpose": "create" }));
    assert_eq!(invoice.send().await.unwrap().status(), 200);
    let mut seen = scrape(&world).await;
    let paid = |seen: &Scrape, method, outcome| {
        seen.get("coinslot_payments_total", &[("method", method), ("outcome", outcome)])
    };
    until("it is credited", async || {
        world.node.running().exchange().till.wallet().resume(0).await.unwrap();
        seen = scrape(&world).await;
        paid(&seen, "lightning", "accepted") == 1
    })
    .await;
    // A voucher makes one, of what was given to the node.
    let gift = json!({ "token": world.purse.send(60).await });
    assert_eq!(world.node.post("/v1/wallet/donate").json(&gift).send().await.unwrap().status(), 200);
    let wanted = BatchOrder {
        funds: Funds::Earned,
        profile: None,
        batch: "one".to_owned(),
        count: 1,
        amount: Msat::new(20_000).unwrap(),
        note: String::new(),
        expires_ms: None,
    };
    let issued = world.node.running().exchange().till.issue_vouchers(&wanted).await.unwrap();
    for status in [200, 400] {
        let code = json!({ "code": if status == 200 { issued[0].code.expose() } else { "CS-code-canary" } });
        let voucher = world.node.post("/v1/wallet/voucher").json(&code).send().await.unwrap();
        assert_eq!(voucher.status().is_success(), status == 200);
    }
    let seen = scrape(&world).await;
    for (method, outcome, count) in [
        ("x_cashu", "accepted", 1),
        ("x_cashu", "refused", 1),
        ("key", "accepted", 3),
        ("key", "refused", 2),
        ("lightning", "accepted", 1),
        ("voucher", "accepted", 1),
    ] {
        assert_eq!(paid(&seen, method, outcome), count, "{method} {outcome}: {}", seen.text);
    }
    assert_eq!((redeemed(&seen, "credited"), redeemed(&seen, "refused")), (4, 1), "{}", seen.text);
    assert_eq!(seen.sum("coinslot_change_total"), 1, "{}", seen.text);
    // Each call to the mint has a duration.
    let mint = world.mint.url();
    let answered = seen.get("coinslot_mint_calls_total", &[("mint", &mint), ("outcome", "answered")]);
    assert_eq!(seen.get("coinslot_mint_call_duration_seconds_count", &[("mint", &mint)]), answered);
    // Routes that nobody pays for, by family and class. Paid ones are not among them.
    for path in ["/v1/models", "/v1/path-canary", "/v1/receipts/id-canary", "/readyz"] {
        world.node.get(path).send().await.unwrap();
    }
    let seen = scrape(&world).await;
    let answers = |route, status| seen.get("coinslot_http_responses_total", &[("route", route), ("status", status)]);
    assert_eq!((answers("models", "2xx"), answers("other", "4xx"), answers("receipts", "4xx")), (1, 1, 1));
    assert_eq!((answers("health", "2xx"), answers("lightning", "2xx"), answers("balance", "4xx")), (1, 1, 1));
    assert!(answers("admin", "2xx") >= 2 && answers("other", "2xx") == 0, "{}", seen.text);
    for secret in ["path-canary", "id-canary", "code-canary", &token, &fresh, &spent] {
        assert!(!seen.text.contains(secret), "{secret}");
    }
    world.finish().await;
}
