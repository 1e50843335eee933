//! `coinslot doctor`: every mistake is found, and named with its remedy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use coinslot::clock::{SharedClock, SystemClock};
use coinslot::config::Config;
use coinslot::doctor::{Report, Verdict, examine};
use coinslot::tor::Tor;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::announce::NSEC;
use crate::onion::in_tor;
use crate::support::answers::until;
use crate::support::clock::Ahead;
use crate::support::db::on_postgres;
use crate::support::mint::TestMint;
use crate::support::node::TestNode;
use crate::support::proxy::Proxy;
use crate::support::relay::{FakeRelay, Manner, RealRelay};
use crate::support::upstream::Upstream;
use crate::{process, support};

async fn look(settings: &BTreeMap<String, String>, clock: SharedClock) -> Report {
    let config = Config::from_vars(settings).unwrap();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let tor = Tor::open(&config, &tasks, &stop).await.unwrap();
    let report = examine(&config, tor.ways(), clock).await.unwrap();
    stop.cancel();
    report
}

/// Verdict and finding of a check's lines, the place of the files aside: tests may have it anywhere.
fn lines(report: &Report, check: &str) -> Vec<(Verdict, String)> {
    let of_check = report.findings.iter().filter(|finding| finding.check == check);
    let of_check = of_check.filter(|finding| check != "database" || finding.subject.is_empty());
    of_check.map(|finding| (finding.verdict, finding.found.clone())).collect()
}

/// The one line of a check.
fn line(report: &Report, check: &str) -> (Verdict, String) {
    let found = lines(report, check);
    assert_eq!(found.len(), 1, "{report}");
    found[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_well_has_nothing_but_its_loopback_address_against_it() {
    let relay = RealRelay::start().await;
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let url = relay.url();
    let named = [("NSEC", NSEC), ("RELAYS", url.as_str()), ("HTTP_URL", "https://node.example.com")];
    let node = TestNode::with(&mint, &upstream, &named).await;
    until("the relay has it", async || !relay.find(json!({ "kinds": [38421] })).await.is_empty()).await;
    let mut settings = node.settings().clone();
    settings.insert("HTTP_URL".to_owned(), node.url());
    settings.insert("ONION_URL".to_owned(), "http://abc.onion".to_owned());
    let report = look(&settings, Arc::new(SystemClock)).await;
    let plain = "is not announced: it is plain http: clients would send their ecash in the clear".to_owned();
    assert_eq!(lines(&report, "url"), [(Verdict::Fault, plain), (Verdict::Good, "answers /v1/info".to_owned())]);
    for (check, verdict, found) in [
        ("cors", Verdict::Good, "any site's scripts may call the node"),
        ("mint", Verdict::Good, "answers and conforms; a coin costs 0/1000 sat"),
        ("rate", Verdict::Note, "BTC_USD_FIXED=100000 does not follow the market"),
        ("relay", Verdict::Good, "answers, and has the listing"),
        ("onion", Verdict::Note, "is in Tor, where this node has no way to look"),
        ("reviews", Verdict::Note, "nobody has reviewed or recommended the node yet"),
        ("clock", Verdict::Good, "agrees with that of other servers"),
    ] {
        assert_eq!(line(&report, check), (verdict, found.to_owned()));
    }
    // The server of the tests on PostgreSQL is a fast one, which the doctor does not let pass.
    let database = match on_postgres() {
        false => (Verdict::Good, "is whole, and syncs what it acknowledges"),
        true => (Verdict::Fault, "PostgreSQL runs with fsync=off: a power cut may destroy the database"),
    };
    assert_eq!(line(&report, "database"), (database.0, database.1.to_owned()));
    // A clock that is off, whoever's it is.
    let ahead = Arc::new(Ahead::default());
    ahead.step(Duration::from_secs(3600));
    let report = look(&settings, ahead).await;
    let (verdict, found) = line(&report, "clock");
    assert_eq!(verdict, Verdict::Fault);
    assert!(found.starts_with("differs by 36") || found.starts_with("differs by 3599"), "{found}");
    // Settings of another node than the one that answers.
    settings.insert("NSEC".to_owned(), "1".repeat(64));
    settings.insert("CASHU_MINTS".to_owned(), String::new());
    let report = look(&settings, Arc::new(SystemClock)).await;
    assert_eq!(lines(&report, "url")[1].1, "another node answers there, with another key");
    assert_eq!(line(&report, "mint").0, Verdict::Fault);
    node.finish().await;
}

/// What is in Tor is looked at through Tor, each thing by its own way, and is not called faulty for being there.
#[tokio::test(flavor = "multi_thread")]
async fn mints_and_the_address_in_tor_are_looked_at_through_tor() {
    let (mint, upstream, socks) = (TestMint::start().await, Upstream::start().await, Proxy::socks5().await);
    let (mint_url, proxy) = (in_tor(&mint.url(), "mint"), format!("socks5h://{}", socks.address));
    let more = [("NSEC", NSEC), ("CASHU_MINTS", &*mint_url), ("TOR_PROXY_URL", &*proxy)];
    let node = TestNode::with(&mint, &upstream, &more).await;
    let mut settings = node.settings().clone();
    settings.insert("HTTP_URL".to_owned(), in_tor(&node.url(), "node"));
    let report = look(&settings, Arc::new(SystemClock)).await;
    assert_eq!(line(&report, "mint"), (Verdict::Good, "answers and conforms; a coin costs 0/1000 sat".to_owned()));
    assert_eq!(lines(&report, "url")[1], (Verdict::Good, "answers /v1/info".to_owned()), "{report}");
    assert_eq!(line(&report, "cors").0, Verdict::Good, "{report}");
    let heard = socks.heard();
    assert!(heard.iter().any(|one| one.starts_with("strangers name node.onion:")), "{heard:?}");
    let known =
        |one: &String| one.starts_with("strangers name node.onion:") || one.starts_with("mints name mint.onion:");
    assert!(heard.iter().all(known), "{heard:?}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_has_a_line_and_a_remedy() {
    let (silent, empty) = (FakeRelay::start(Manner::Drop).await, FakeRelay::start(Manner::Give(Vec::new())).await);
    let site = Router::new().fallback(get(async || "a web site"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, site).await.unwrap() });
    let dir = tempfile::tempdir().unwrap();
    let given = [
        ("DATA_DIR", dir.path().join("none").display().to_string()),
        ("HTTP_URL", url.clone()),
        ("ONION_URL", "http://node.example.com".to_owned()),
        ("CASHU_MINTS", format!("{url},http://127.0.0.1:1")),
        ("RELAYS", format!("{},{}", silent.url(), empty.url())),
        ("BTC_USD_FEEDS", format!("kraken={url}")),
    ];
    let settings: BTreeMap<String, String> = given.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let report = look(&settings, Arc::new(SystemClock)).await;
    assert_eq!(report.verdict(), Verdict::Fault);
    assert_eq!(lines(&report, "url")[1], (Verdict::Fault, "/v1/info is not answered by a node".to_owned()));
    assert_eq!(line(&report, "cors").0, Verdict::Fault);
    assert!(lines(&report, "mint").iter().all(|(verdict, _)| *verdict == Verdict::Fault), "{report}");
    assert_eq!(lines(&report, "mint").len(), 2);
    let rates: Vec<Verdict> = lines(&report, "rate").into_iter().map(|(verdict, _)| verdict).collect();
    assert_eq!(rates, [Verdict::Warning, Verdict::Fault]);
    let relays: Vec<Verdict> = lines(&report, "relay").into_iter().map(|(verdict, _)| verdict).collect();
    assert_eq!(relays, [Verdict::Warning, Verdict::Note]);
    assert_eq!(line(&report, "onion").0, Verdict::Fault);
    assert_eq!(line(&report, "database").0, Verdict::Warning);
    for finding in &report.findings {
        assert!(finding.verdict < Verdict::Warning || !finding.remedy.is_empty(), "{finding} has no remedy");
    }
    // Nothing was made on the way.
    assert!(!dir.path().join("none").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verb_has_its_exit_codes_and_shows_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let settings: BTreeMap<String, String> =
        [("BTC_USD_FIXED", "100000"), ("NSEC", NSEC)].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let text = process::run(dir.path(), &settings, &["doctor"]).await;
    assert_eq!(text.code, 1);
    assert!(
        text.said.contains("FAULT url      HTTP_URL is not set") && text.said.contains("RELAYS is not set"),
        "{text:?}"
    );
    let json = process::run(dir.path(), &settings, &["doctor", "--json"]).await;
    let report: Value = serde_json::from_str(&json.said).unwrap();
    assert_eq!((json.code, &report["verdict"]), (1, &json!("fault")));
    assert_eq!(report["findings"][0]["check"], "url");
    assert_eq!(process::run(dir.path(), &settings, &["doctor", "--loud"]).await.code, 2);
    let wrong = [("NSEC".to_owned(), "nonsense".to_owned())].into();
    assert_eq!(process::run(dir.path(), &wrong, &["doctor"]).await.code, 2);
    assert!(!format!("{text:?}{json:?}").contains(NSEC));
    let mint = TestMint::start().await;
    let relay = support::relay::RealRelay::start().await;
    let well = [
        ("BTC_USD_FIXED", "100000"),
        ("CASHU_MINTS", &mint.url()),
        ("RELAYS", &relay.url()),
        ("ONION_URL", "http://abc.onion"),
    ];
    let mut well: BTreeMap<String, String> = well.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let outcome = process::run(dir.path(), &well, &["doctor"]).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    // Without a rate nothing is sold, but for fixed prices.
    well.remove("BTC_USD_FIXED");
    well.insert("BTC_USD_FEEDS".to_owned(), "kraken=http://127.0.0.1:9/".to_owned());
    for (by_list, code, line) in [
        ("true", 1, "FAULT rate     no feed gives a rate that the others do not contradict"),
        ("false", 0, "note  rate     no feed gives one, and fixed prices in sats need none"),
    ] {
        well.insert("MODEL_BASED_PRICING".to_owned(), by_list.to_owned());
        let outcome = process::run(dir.path(), &well, &["doctor"]).await;
        assert!(outcome.code == code && outcome.said.contains(line), "{by_list}: {outcome:?}");
    }
}
