//! The node's listing on Nostr: said when there is something to say, to relays of every manner.

use std::sync::Arc;
use std::time::Duration;

use coinslot::clock::{Clock, SharedClock};
use coinslot::config::Config;
use coinslot::net::ClientOptions;
use coinslot::net::dialer::Dialer;
use coinslot::nostr::{Announcer, Caller, Draft, Identity, Listing};
use coinslot::store::Store;
use nostr::{Event, JsonUtil};
use serde_json::{Value, json};

use crate::support::answers::until;
use crate::support::clock::Ahead;
use crate::support::db::TestDb;
use crate::support::mint::TestMint;
use crate::support::node::{TestNode, models};
use crate::support::relay::{FakeRelay, Manner, RealRelay};
use crate::support::upstream::Upstream;

/// The example of NIP-19.
pub const NSEC: &str = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5";
const PUBKEY: &str = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";
const HOUR: Duration = Duration::from_secs(3600);

/// A node's voice, without the node.
struct Voice {
    _db: TestDb,
    store: Store,
    clock: Arc<Ahead>,
    relays: Vec<String>,
    patience: Duration,
}

impl Voice {
    async fn new(relays: &[String]) -> Self {
        let patience = Duration::from_secs(20);
        let db = TestDb::new().await;
        Self { store: db.open().await, _db: db, clock: Arc::default(), relays: relays.to_vec(), patience }
    }

    /// As a process has it that starts on this database.
    fn start(&self) -> Announcer {
        let caller = caller(&self.clock, self.patience);
        Announcer::new(self.store.clone(), caller, self.relays.clone(), None, "0.1.0")
    }
}

/// What a node brings to its relays.
pub fn caller(clock: &Arc<Ahead>, patience: Duration) -> Caller {
    let vars = [("NSEC".to_owned(), NSEC.to_owned())].into();
    let identity = Identity::configured(&Config::from_vars(&vars).unwrap()).unwrap().unwrap();
    let clock: SharedClock = Arc::clone(clock) as SharedClock;
    Caller { dialer: Dialer::new(&ClientOptions::default()).unwrap(), identity, clock, patience }
}

pub fn listing() -> Listing {
    Listing {
        name: "a node".into(),
        about: "sells".into(),
        urls: vec!["https://node.example.com".into(), "http://abc.onion".into()],
        mints: vec!["https://mint.example.com".into()],
        version: "0.1.0".into(),
        models: 3,
        page: None,
    }
}

fn tags<'a>(event: &'a Value, name: &str) -> Vec<&'a str> {
    let tags = event["tags"].as_array().unwrap().iter();
    tags.filter(|tag| tag[0] == name).map(|tag| tag[1].as_str().unwrap()).collect()
}

async fn listed(relay: &RealRelay) -> Value {
    let found = relay.find(json!({ "kinds": [38421], "authors": [PUBKEY] })).await;
    assert_eq!(found.len(), 1, "an addressable event has one newest: {found:?}");
    Event::from_json(found[0].to_string()).unwrap().verify().unwrap();
    found[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_is_said_once_and_again_only_for_a_reason() {
    let (relay, counting) = (RealRelay::start().await, FakeRelay::start(Manner::Give(Vec::new())).await);
    let voice = Voice::new(&[relay.url(), counting.url()]).await;
    let announcer = voice.start();
    assert_eq!(announcer.keep(Some(&listing())).await.unwrap(), Vec::<String>::new());
    let first = listed(&relay).await;
    assert_eq!(tags(&first, "u"), ["https://node.example.com", "http://abc.onion"]);
    assert_eq!((tags(&first, "mint"), tags(&first, "version")), (vec!["https://mint.example.com"], vec!["0.1.0"]));
    assert_eq!((tags(&first, "d"), tags(&first, "model-count")), (vec![&PUBKEY[..12]], vec!["3"]));
    assert_eq!(first["content"], r#"{"name":"a node","about":"sells"}"#);
    let end: i64 = tags(&first, "expiration")[0].parse().unwrap();
    assert_eq!(end, first["created_at"].as_i64().unwrap() + 48 * 3600);
    // The relay list goes with it (NIP-65).
    let relays = relay.find(json!({ "kinds": [10002], "authors": [PUBKEY] })).await;
    assert_eq!(tags(&relays[0], "r"), [relay.url(), counting.url()]);

    // Neither time nor a crash is a reason.
    announcer.keep(Some(&listing())).await.unwrap();
    voice.clock.step(HOUR);
    voice.start().keep(Some(&listing())).await.unwrap();
    assert_eq!((listed(&relay).await, counting.listings().len()), (first.clone(), 1));

    // A change is.
    let more = Listing { models: 4, ..listing() };
    announcer.keep(Some(&more)).await.unwrap();
    let second = listed(&relay).await;
    assert_eq!((tags(&second, "model-count"), counting.listings().len()), (vec!["4"], 2));
    // So is the coming end.
    voice.clock.step(11 * HOUR);
    announcer.keep(Some(&more)).await.unwrap();
    assert_eq!(counting.listings().len(), 2);
    voice.clock.step(HOUR + Duration::from_secs(60));
    announcer.keep(Some(&more)).await.unwrap();
    let third = listed(&relay).await;
    assert_ne!(tags(&third, "expiration"), tags(&second, "expiration"));
    assert_eq!(counting.listings().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_says_so_and_one_that_starts_is_back() {
    let relay = RealRelay::start().await;
    let voice = Voice::new(&[relay.url()]).await;
    let announcer = voice.start();
    announcer.withdraw().await.unwrap();
    assert!(relay.find(json!({ "kinds": [38421] })).await.is_empty(), "there was nothing to take back");
    announcer.keep(Some(&listing())).await.unwrap();
    let up = listed(&relay).await;
    announcer.withdraw().await.unwrap();
    let down = listed(&relay).await;
    assert_eq!((tags(&down, "u"), tags(&down, "status")), (Vec::new(), vec!["down"]));
    // Within one second, too, the newer is newer.
    assert!(down["created_at"].as_i64() > up["created_at"].as_i64());
    announcer.withdraw().await.unwrap();
    assert_eq!(listed(&relay).await, down);
    assert!(announcer.announced().await.unwrap().is_down);
    voice.start().keep(Some(&listing())).await.unwrap();
    let back = listed(&relay).await;
    assert!(back["created_at"].as_i64() > down["created_at"].as_i64());
    assert_eq!(tags(&back, "u").len(), 2);
    // So does one that has no address any more.
    voice.start().keep(None).await.unwrap();
    assert_eq!(tags(&listed(&relay).await, "status"), ["down"]);
}

/// One that hangs up, one that says nothing, one that is not there: the others have the listing, and
/// those are left alone for longer and longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_fails_holds_nobody_up_and_is_asked_again_later() {
    let good = RealRelay::start().await;
    let (rude, silent) = (FakeRelay::start(Manner::Drop).await, FakeRelay::start(Manner::Silent).await);
    let (confused, loud) = (FakeRelay::start(Manner::Confuse).await, FakeRelay::start(Manner::Shout).await);
    let nobody = "ws://127.0.0.1:1".to_owned();
    let mut voice = Voice::new(&[rude.url(), silent.url(), confused.url(), loud.url(), nobody, good.url()]).await;
    voice.patience = Duration::from_secs(3);
    let announcer = voice.start();
    let troubles = announcer.keep(Some(&listing())).await.unwrap();
    assert_eq!(troubles.len(), 5, "{troubles:?}");
    listed(&good).await;
    let reasons = ["the connection broke off", "it did not answer in time", "it did not answer in time"];
    let reasons = reasons.into_iter().chain(["the server sends more than it may", "no connection could be made", ""]);
    for ((standing, has_it), reason) in announcer.announced().await.unwrap().relays.iter().zip(reasons) {
        assert_eq!((standing.said.as_str(), *has_it), (reason, reason.is_empty()), "{standing:?}");
    }
    // Not asked again before its time, not even by the next process.
    voice.start().keep(Some(&listing())).await.unwrap();
    assert_eq!((rude.heard("EVENT").len(), silent.heard("EVENT").len()), (1, 1));
    voice.clock.step(Duration::from_secs(31));
    assert_eq!(announcer.keep(Some(&listing())).await.unwrap(), Vec::<String>::new(), "said once");
    assert_eq!((rude.heard("EVENT").len(), silent.heard("EVENT").len()), (2, 2));
    voice.clock.step(Duration::from_secs(31));
    announcer.keep(Some(&listing())).await.unwrap();
    assert_eq!(rude.heard("EVENT").len(), 2, "the pause has doubled");
    // When it comes to its senses, it gets the listing, and its failures are forgotten.
    rude.behave(Manner::Give(Vec::new()));
    voice.clock.step(Duration::from_secs(31));
    announcer.keep(Some(&listing())).await.unwrap();
    let standing = announcer.announced().await.unwrap().relays[0].clone();
    assert_eq!((standing.1, standing.0.failures, standing.0.said.as_str()), (true, 0, ""));
}

/// Nothing that a clock wrote that was a year ahead is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_silences_nobody() {
    let year = 24 * 365 * HOUR;
    let (rude, counting) = (FakeRelay::start(Manner::Drop).await, FakeRelay::start(Manner::Give(Vec::new())).await);
    let voice = Voice::new(&[rude.url(), counting.url()]).await;
    voice.clock.step(year);
    voice.start().keep(Some(&listing())).await.unwrap();
    assert_eq!((rude.heard("EVENT").len(), counting.listings().len()), (1, 1));
    voice.clock.step_back(year);
    voice.start().keep(Some(&listing())).await.unwrap();
    assert_eq!((rude.heard("EVENT").len(), counting.listings().len()), (2, 2));
    let made = counting.listings()[1]["created_at"].as_i64().unwrap();
    assert!((voice.clock.now_secs() - made).abs() < 60, "{made}");
    voice.start().keep(Some(&listing())).await.unwrap();
    assert_eq!((rude.heard("EVENT").len(), counting.listings().len()), (2, 2), "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_kept_in_the_relay_s_words_and_respected() {
    let refusing = FakeRelay::start(Manner::Refuse("blocked: \u{7}not\nyou")).await;
    let voice = Voice::new(&[refusing.url()]).await;
    let announcer = voice.start();
    let troubles = announcer.keep(Some(&listing())).await.unwrap();
    assert_eq!(troubles, [format!("{}: it refused: blocked: notyou", refusing.url())]);
    let announced = announcer.announced().await.unwrap();
    let [(standing, has_it)] = announced.relays.as_slice() else { panic!("{announced:?}") };
    assert_eq!((has_it, standing.ok_ms, standing.failures), (&false, None, 1));
    voice.clock.step(HOUR - Duration::from_secs(60));
    announcer.keep(Some(&listing())).await.unwrap();
    assert_eq!(refusing.listings().len(), 1);
    voice.clock.step(Duration::from_secs(120));
    announcer.keep(Some(&listing())).await.unwrap();
    assert_eq!(refusing.listings().len(), 2);
    // What is no refusal.
    refusing.behave(Manner::Refuse("duplicate: had it"));
    voice.clock.step(2 * HOUR);
    announcer.keep(Some(&listing())).await.unwrap();
    assert!(announcer.announced().await.unwrap().relays[0].1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_it_is_told_who_this_node_is_and_nobody_else() {
    let closed = RealRelay::with_auth().await;
    let curious = FakeRelay::start(Manner::Curious).await;
    let unforgiving = FakeRelay::start(Manner::Unforgiving).await;
    let voice = Voice::new(&[closed.url(), curious.url(), unforgiving.url()]).await;
    let announcer = voice.start();
    announcer.keep(Some(&listing())).await.unwrap();
    let relays = announcer.announced().await.unwrap().relays;
    let has: Vec<bool> = relays.iter().map(|(_, has)| *has).collect();
    assert_eq!(has, [true, true, false], "{relays:?}");
    assert_eq!(curious.heard("AUTH"), Vec::<Value>::new(), "it did not need to know");
    assert_eq!(relays[2].0.said, "it did not accept this node's authentication: restricted: not you");
    let answers = unforgiving.heard("AUTH");
    assert_eq!(answers.len(), 1);
    let event = &answers[0][1];
    Event::from_json(event.to_string()).unwrap().verify().unwrap();
    assert_eq!((&event["kind"], &event["pubkey"], &event["content"]), (&json!(22242), &json!(PUBKEY), &json!("")));
    assert_eq!(
        (tags(event, "relay"), tags(event, "challenge")),
        (vec![unforgiving.url().as_str()], vec!["a challenge"])
    );
    assert!(event["created_at"].as_i64().unwrap().abs_diff(voice.clock.now_secs()) < 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_relay_does_not_take_is_not_sent_to_it() {
    let mut relays = Vec::new();
    for limits in [
        r#"{"max_message_length":100}"#,
        r#"{"max_content_length":5}"#,
        r#"{"max_event_tags":3}"#,
        r#"{"min_pow_difficulty":20}"#,
        r#"{"max_message_length":65536,"max_event_tags":100}"#,
        "nonsense",
    ] {
        let relay = FakeRelay::start(Manner::Give(Vec::new())).await;
        relay.describe(&format!(r#"{{"name":"r","limitation":{limits}}}"#));
        relays.push(relay);
    }
    let urls: Vec<String> = relays.iter().map(FakeRelay::url).collect();
    let voice = Voice::new(&urls).await;
    let announcer = voice.start();
    announcer.keep(Some(&listing())).await.unwrap();
    let sent: Vec<usize> = relays.iter().map(|relay| relay.listings().len()).collect();
    assert_eq!(sent, [0, 0, 0, 0, 1, 1]);
}

/// The key may be somebody's, with relays of their own.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_relays_that_the_operator_made_stays() {
    let (own, theirs) = (RealRelay::start().await, RealRelay::start().await);
    let voice = Voice::new(&[own.url(), theirs.url()]).await;
    let identity = caller(&voice.clock, voice.patience).identity;
    let tags = vec![vec!["r".to_owned(), "wss://mine.example.com".to_owned()]];
    let made = identity.sign(Draft { kind: 10002, created_at: 1_700_000_000, tags, content: String::new() }).unwrap();
    theirs.put(&Event::from_json(made.as_json()).unwrap()).await;
    voice.start().keep(Some(&listing())).await.unwrap();
    let filter = json!({ "kinds": [10002], "authors": [PUBKEY] });
    assert_eq!(theirs.find(filter.clone()).await[0]["id"], made.id());
    listed(&theirs).await;
    // The node's own is replaced when its relays change.
    let fewer = Voice { relays: vec![own.url()], ..voice };
    fewer.clock.step(Duration::from_secs(60));
    fewer.start().keep(Some(&Listing { models: 9, ..listing() })).await.unwrap();
    let found = own.find(filter).await;
    assert_eq!(found[0]["tags"], json!([["r", own.url()], ["client", "coinslot"]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_are_told_what_opens_the_listing_if_the_operator_wants_it() {
    let relay = RealRelay::start().await;
    let voice = Voice::new(&[relay.url()]).await;
    let announcer = voice.start();
    let handler = async || relay.find(json!({ "kinds": [31990], "authors": [PUBKEY] })).await;
    announcer.keep(Some(&listing())).await.unwrap();
    assert!(handler().await.is_empty(), "not unless it is wanted");
    let page = Listing { page: Some("https://node.example.com".into()), ..listing() };
    announcer.keep(Some(&page)).await.unwrap();
    let found = handler().await;
    Event::from_json(found[0].to_string()).unwrap().verify().unwrap();
    assert_eq!((tags(&found[0], "k"), tags(&found[0], "d")), (vec!["38421"], vec![&PUBKEY[..12]]));
    assert_eq!(tags(&found[0], "web"), ["https://node.example.com/#<bech32>"]);
    assert_eq!(found[0]["content"], r#"{"name":"a node","about":"sells"}"#);
    // It goes with the node, and comes with it.
    announcer.withdraw().await.unwrap();
    assert_eq!((handler().await.len(), tags(&handler().await[0], "web")), (1, Vec::new()));
    announcer.keep(Some(&page)).await.unwrap();
    assert_eq!(tags(&handler().await[0], "web").len(), 1);
    announcer.keep(Some(&listing())).await.unwrap();
    assert_eq!(tags(&handler().await[0], "web"), Vec::<&str>::new());
    assert_eq!(tags(&listed(&relay).await, "status"), Vec::<&str>::new());
}

/// Two processes of one name that are set up differently do not answer each other for ever.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_of_one_name_do_not_quarrel() {
    let counting = FakeRelay::start(Manner::Give(Vec::new())).await;
    let voice = Voice::new(&[counting.url()]).await;
    let (one, two) = (voice.start(), voice.start());
    let other = Listing { models: 7, ..listing() };
    one.keep(Some(&listing())).await.unwrap();
    for _ in 0..3 {
        two.keep(Some(&other)).await.unwrap();
        one.keep(Some(&listing())).await.unwrap();
    }
    assert_eq!(counting.listings().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_listed_while_it_runs_and_not_with_an_address_that_nobody_reaches() {
    let relay = RealRelay::start().await;
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let url = relay.url();
    let settings = |http_url| [("NSEC", NSEC), ("RELAYS", url.as_str()), ("HTTP_URL", http_url), ("NAME", "mine")];
    for private in ["http://127.0.0.1:8000", "https://localhost", "https://10.0.0.1", "http://node.example.com", ""] {
        let node = TestNode::with(&mint, &upstream, &settings(private)).await;
        let network = network(&node).await;
        assert_eq!((&network["listed"], &network["relays"]), (&json!(false), &json!(0)), "{private}");
        node.finish().await;
        assert!(relay.find(json!({})).await.is_empty(), "{private}");
    }
    let mut telling = settings("https://node.example.com/").to_vec();
    telling.push(("NOSTR_HANDLER", "true"));
    let node = TestNode::with(&mint, &upstream, &telling).await;
    until("a relay has it", async || network(&node).await["relays"] != 0).await;
    assert_eq!(network(&node).await["listed"], true);
    let up = listed(&relay).await;
    assert_eq!((tags(&up, "u"), tags(&up, "mint")), (vec!["https://node.example.com"], vec![mint.url().as_str()]));
    // Each once, however many names the list has it by.
    let count = models()["models"].as_array().unwrap().len().to_string();
    assert_eq!((tags(&up, "model-count"), &up["content"]), (vec![&*count], &json!(r#"{"name":"mine","about":""}"#)));
    let handler = relay.find(json!({ "kinds": [31990] })).await;
    assert_eq!(tags(&handler[0], "web"), ["https://node.example.com/#<bech32>"]);
    node.finish().await;
    assert_eq!(tags(&listed(&relay).await, "status"), ["down"]);
}

async fn network(node: &TestNode) -> Value {
    let ready: Value = node.get("/readyz").send().await.unwrap().json().await.unwrap();
    ready["network"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_relays_says_nothing_and_says_that() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let node = TestNode::with(&mint, &upstream, &[("HTTP_URL", "https://node.example.com")]).await;
    assert_eq!(network(&node).await, json!({ "listed": false, "relays": 0 }));
    let answer = node.get("/v1/providers").send().await.unwrap();
    assert_eq!(answer.status(), 404);
    node.finish().await;
}
