//! Other nodes on Nostr: what relays of every manner say of them, and what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use coinslot::clock::Clock;
use coinslot::net::NetError;
use coinslot::net::public::Reach;
use coinslot::net::way::Way;
use coinslot::nostr::directory::Listed;
use coinslot::nostr::{Announcer, Directory};
use coinslot::store::{Store, StoreError};
use futures_util::future::join_all;
use nostr::nips::nip19::ToBech32;
use nostr::{Event, EventBuilder, JsonUtil, Keys, Kind, Tag, Timestamp};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::announce::{self, caller};
use crate::price_sync::Browser;
use crate::support::answers::until;
use crate::support::clock::Ahead;
use crate::support::db::TestDb;
use crate::support::mint::TestMint;
use crate::support::node::TestNode;
use crate::support::proxy::Proxy;
use crate::support::relay::{FakeRelay, Manner, RealRelay, Then};
use crate::support::upstream::Upstream;

const HOUR: Duration = Duration::from_secs(3600);

/// A node's view of the others, without the node.
struct View {
    _db: TestDb,
    store: Store,
    clock: Arc<Ahead>,
}

impl View {
    async fn new() -> Self {
        let db = TestDb::new().await;
        Self { store: db.open().await, _db: db, clock: Arc::default() }
    }

    fn of(&self, relays: &[String]) -> Looking {
        self.reaching(relays, Reach::Public)
    }

    fn reaching(&self, relays: &[String], reach: Reach) -> Looking {
        let caller = caller(&self.clock, Duration::from_secs(5));
        Looking {
            directory: Directory::new(self.store.clone(), caller, reach, Way::default()),
            relays: relays.to_vec(),
        }
    }

    fn now(&self) -> u64 {
        self.clock.now_secs().unsigned_abs()
    }
}

/// A directory, and the relays that it is kept by.
struct Looking {
    directory: Directory,
    relays: Vec<String>,
}

impl std::ops::Deref for Looking {
    type Target = Directory;

    fn deref(&self) -> &Directory {
        &self.directory
    }
}

impl Looking {
    /// Asks each relay for what it has, and hears no more of it.
    async fn refresh(&self) -> Result<Vec<String>, StoreError> {
        let asked = self.relays.iter().map(|relay| self.directory.listen(relay, std::future::ready(())));
        let troubles: Result<Vec<Option<String>>, StoreError> = join_all(asked).await.into_iter().collect();
        Ok(troubles?.into_iter().flatten().collect())
    }
}

fn event(keys: &Keys, kind: u16, at: u64, tags: &[[&str; 2]], content: &str) -> Event {
    let tags = tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap());
    let event = EventBuilder::new(Kind::from_u16(kind), content).tags(tags).custom_created_at(Timestamp::from_secs(at));
    event.sign_with_keys(keys).unwrap()
}

fn listing(keys: &Keys, d: &str, at: u64, url: &str) -> Event {
    event(keys, 38421, at, &[["d", d], ["u", url], ["mint", "https://m.example.com"]], r#"{"name":"n","about":"a"}"#)
}

async fn urls(directory: &Directory) -> Vec<String> {
    let listed = directory.providers(None, 1_000).await.unwrap();
    let mut urls: Vec<String> = listed.into_iter().map(|listed| listed.provider.endpoint_url).collect();
    urls.sort();
    urls
}

fn json_of(events: &[Event]) -> Vec<String> {
    events.iter().map(JsonUtil::as_json).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_listing_of_each_address_is_kept_whoever_tells_it() {
    let view = View::new().await;
    let (open, closed) = (RealRelay::start().await, RealRelay::with_auth().await);
    let (ann, bob) = (Keys::generate(), Keys::generate());
    open.put(&listing(&ann, "x", view.now() - 100, "https://ann-1.example.com")).await;
    open.put(&listing(&ann, "y", view.now() - 100, "https://ann-2.example.com")).await;
    open.put(&listing(&bob, "x", view.now() - 100, "https://bob.example.com")).await;
    let directory = view.of(&[open.url(), closed.url()]);
    assert_eq!(directory.refresh().await.unwrap(), Vec::<String>::new());
    assert_eq!(
        urls(&directory).await,
        ["https://ann-1.example.com", "https://ann-2.example.com", "https://bob.example.com"]
    );
    open.put(&listing(&ann, "x", view.now() - 50, "https://ann-3.example.com")).await;
    // Down, by its own word.
    open.put(&event(&bob, 38421, view.now() - 50, &[["d", "x"], ["status", "down"]], "{}")).await;
    directory.refresh().await.unwrap();
    assert_eq!(urls(&directory).await, ["https://ann-2.example.com", "https://ann-3.example.com"]);
    // It is in the database: the next process knows it without asking.
    let next = view.of(&[]);
    assert_eq!(urls(&next).await.len(), 2);
    let of_ann = next.providers(Some(&ann.public_key().to_hex()), 42).await.unwrap();
    assert_eq!(of_ann.len(), 2);
    assert!(next.providers(Some(&bob.public_key().to_hex()), 42).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_listing_does_not_come_back() {
    let view = View::new().await;
    let keys = Keys::generate();
    let old = listing(&keys, "x", view.now() - 500, "https://old.example.com");
    let new = listing(&keys, "x", view.now() - 100, "https://new.example.com");
    let gone = event(&keys, 38421, view.now() - 50, &[["d", "x"]], "{}");
    let relay = FakeRelay::start(Manner::Give(json_of(&[new.clone(), old.clone()]))).await;
    let directory = view.of(&[relay.url()]);
    directory.refresh().await.unwrap();
    assert_eq!(urls(&directory).await, ["https://new.example.com"]);
    relay.behave(Manner::Give(json_of(std::slice::from_ref(&old))));
    directory.refresh().await.unwrap();
    assert_eq!(urls(&directory).await, ["https://new.example.com"]);
    // Not after its author took it back, either.
    relay.behave(Manner::Give(json_of(&[gone])));
    directory.refresh().await.unwrap();
    relay.behave(Manner::Give(json_of(&[old, new])));
    directory.refresh().await.unwrap();
    assert_eq!(urls(&directory).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forged_or_not_for_now_is_not_taken() {
    let view = View::new().await;
    let keys = Keys::generate();
    let now = view.now();
    let good = listing(&keys, "x", now, "https://good.example.com");
    let forged = good.as_json().replace("good.example", "evil.example");
    let mut stolen: Value = serde_json::from_str(&good.as_json()).unwrap();
    stolen["pubkey"] = json!(Keys::generate().public_key().to_hex());
    let bad = [
        listing(&keys, "future", now + 3600, "https://future.example.com"),
        event(&keys, 38421, now, &[["d", "e"], ["u", "https://expired.example.com"], ["expiration", "1700000000"]], ""),
        event(&keys, 38421, now, &[["d", "l"], ["u", "https://large.example.com"]], &"x".repeat(40_000)),
        event(&keys, 1, now, &[["u", "https://other-kind.example.com"]], ""),
        listing(&keys, "p", now, "http://127.0.0.1:8000"),
    ];
    let mut given = json_of(&bad);
    given.extend([forged, stolen.to_string(), good.as_json(), "{}".to_owned(), "[[[[".to_owned()]);
    let relay = FakeRelay::start(Manner::Give(given)).await;
    let directory = view.of(&[relay.url()]);
    directory.refresh().await.unwrap();
    assert_eq!(urls(&directory).await, ["https://good.example.com"]);
    let heard = directory.heard()[&relay.url()].clone();
    // The one of a private address counts as one that names none.
    assert_eq!((heard.taken, heard.refused, heard.is_flood), (2, 4, false), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_listing_is_not_shown_any_more() {
    let view = View::new().await;
    let keys = Keys::generate();
    let end = (view.now() + 7200).to_string();
    let tags = [["d", "x"], ["u", "https://brief.example.com"], ["expiration", end.as_str()]];
    let relay = FakeRelay::start(Manner::Give(json_of(&[event(&keys, 38421, view.now(), &tags, "")]))).await;
    let directory = view.of(&[relay.url()]);
    directory.refresh().await.unwrap();
    assert_eq!(urls(&directory).await.len(), 1);
    view.clock.step(2 * HOUR);
    assert_eq!(urls(&directory).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_cut_short_and_fills_nothing() {
    let view = View::new().await;
    let now = view.now();
    let one = Keys::generate();
    let of_one: Vec<Event> =
        (0..20).map(|n| listing(&one, &n.to_string(), now, &format!("https://one-{n}.example.com"))).collect();
    let strangers: Vec<Event> =
        (0..400).map(|n| listing(&Keys::generate(), "x", now, &format!("https://n{n}.example.com"))).collect();
    let flooding = FakeRelay::start(Manner::Flood(json_of(&of_one))).await;
    let directory = view.of(&[flooding.url()]);
    directory.refresh().await.unwrap();
    assert!(directory.heard()[&flooding.url()].is_flood);
    assert_eq!(urls(&directory).await.len(), 4, "of one author");
    flooding.behave(Manner::Flood(json_of(&strangers)));
    directory.refresh().await.unwrap();
    assert_eq!(urls(&directory).await.len(), 4, "it is left alone for a while");
    view.clock.step(Duration::from_secs(901));
    directory.refresh().await.unwrap();
    assert_eq!(urls(&directory).await.len(), 304, "of one question");
    let more: Vec<Event> =
        (0..300).map(|n| listing(&Keys::generate(), "x", now, &format!("https://m{n}.example.com"))).collect();
    flooding.behave(Manner::Flood(json_of(&more)));
    view.clock.step(Duration::from_secs(901));
    directory.refresh().await.unwrap();
    assert_eq!(urls(&directory).await.len(), 500, "of all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_fails_holds_no_other_up_and_is_left_alone_for_a_while() {
    let view = View::new().await;
    let good = RealRelay::start().await;
    good.put(&listing(&Keys::generate(), "x", view.now(), "https://good.example.com")).await;
    let (rude, refusing) =
        (FakeRelay::start(Manner::Drop).await, FakeRelay::start(Manner::Refuse("restricted: members only")).await);
    let loud = FakeRelay::start(Manner::Shout).await;
    let directory = view.of(&[rude.url(), refusing.url(), loud.url(), good.url()]);
    assert_eq!(directory.refresh().await.unwrap().len(), 3);
    assert_eq!(urls(&directory).await.len(), 1);
    let heard = directory.heard();
    assert_eq!(heard[&rude.url()].trouble.as_deref(), Some("the connection broke off"));
    assert_eq!(heard[&refusing.url()].trouble.as_deref(), Some("it refused: restricted: members only"));
    assert_eq!(heard[&loud.url()].trouble.as_deref(), Some("the server sends more than it may"));
    directory.refresh().await.unwrap();
    assert_eq!((rude.heard("REQ").len(), refusing.heard("REQ").len()), (1, 1));
    view.clock.step(Duration::from_secs(31));
    directory.refresh().await.unwrap();
    assert_eq!((rude.heard("REQ").len(), refusing.heard("REQ").len()), (2, 1));
    // The clock was ahead, and is set back.
    view.clock.step_back(24 * HOUR);
    assert_eq!(directory.pause(&rude.url()), Duration::ZERO);
    directory.refresh().await.unwrap();
    assert_eq!((rude.heard("REQ").len(), refusing.heard("REQ").len()), (3, 2));
}

/// What nobody has asked for comes, too, until the relay is left.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_relay_hears_of_is_known_at_once() {
    let view = View::new().await;
    let relay = RealRelay::start().await;
    let (ann, bob) = (Keys::generate(), Keys::generate());
    relay.put(&listing(&ann, "x", view.now() - 100, "https://ann.example.com")).await;
    let directory = view.of(&[relay.url()]);
    let (url, end) = (relay.url(), CancellationToken::new());
    let talk = async { directory.listen(&url, end.cancelled()).await.unwrap() };
    let meanwhile = async {
        until("the relay is listened to", async || directory.heard().get(&url).is_some_and(|heard| heard.is_live))
            .await;
        let wait = async |expected: &[&str]| until("it is known", async || urls(&directory).await == expected).await;
        wait(&["https://ann.example.com"]).await;
        relay.put(&listing(&bob, "x", view.now() - 50, "https://bob.example.com")).await;
        wait(&["https://ann.example.com", "https://bob.example.com"]).await;
        relay.put(&event(&ann, 38421, view.now() - 40, &[["d", "x"], ["status", "down"]], "{}")).await;
        wait(&["https://bob.example.com"]).await;
        // Not a word of it is believed that would not be otherwise.
        relay.put(&listing(&bob, "y", view.now() - 40, "http://127.0.0.1:8000")).await;
        let about = format!("38421:{}:x", bob.public_key().to_hex());
        relay.put(&event(&ann, 38000, view.now(), &[["d", "r"], ["k", "38421"], ["a", &about]], "good")).await;
        let names = [about];
        until("it is known", async || directory.opinions(&names).await.unwrap().len() == 1).await;
        assert_eq!(urls(&directory).await, ["https://bob.example.com"]);
        end.cancel();
    };
    assert_eq!(tokio::join!(talk, meanwhile).0, None);
    let heard = directory.heard()[&url].clone();
    assert_eq!((heard.taken, heard.is_live, heard.failures, heard.trouble), (5, false, 0, None));
    assert_eq!(directory.pause(&url), Duration::ZERO, "the next conversation follows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_does_not_go_on_is_asked_now_and_then() {
    let view = View::new().await;
    let event = listing(&Keys::generate(), "x", view.now(), "https://good.example.com");
    let given = json_of(&[event]);
    let rude = FakeRelay::start(Manner::Answer(given.clone(), Then::HangUp)).await;
    let closing = FakeRelay::start(Manner::Answer(given, Then::Close("restricted: no more"))).await;
    let directory = view.of(&[]);
    let listen = async |url: &str| directory.listen(url, std::future::pending()).await.unwrap();
    let trouble = format!("{}: it closed the connection", rude.url());
    assert!(listen(&rude.url()).await.is_some_and(|said| said == trouble || said.ends_with("broke off")));
    assert_eq!(urls(&directory).await, ["https://good.example.com"], "what it gave is kept");
    let refused = Some(format!("{}: it refused: restricted: no more", closing.url()));
    assert_eq!(listen(&closing.url()).await, refused);
    // The clock goes on while the test runs.
    let pauses = |url: &str, secs: u64| {
        let pause = directory.pause(url).as_secs();
        assert!((secs - 10..=secs).contains(&pause), "{pause} is not {secs}");
    };
    pauses(&rude.url(), 30);
    pauses(&closing.url(), 3600);
    assert_eq!(listen(&rude.url()).await, None);
    assert_eq!(rude.heard("REQ").len(), 3, "not before its time");
    for pause in [60, 120, 240, 480, 900, 900] {
        view.clock.step(Duration::from_secs(900));
        assert_eq!(listen(&rude.url()).await, None, "said once");
        pauses(&rude.url(), pause);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_floods_later_is_left() {
    let view = View::new().await;
    let first = listing(&Keys::generate(), "x", view.now(), "https://first.example.com");
    let strangers: Vec<Event> =
        (0..700).map(|n| listing(&Keys::generate(), "x", view.now(), &format!("https://n{n}.example.com"))).collect();
    let relay = FakeRelay::start(Manner::Answer(json_of(&[first]), Then::Flood(json_of(&strangers)))).await;
    let directory = view.of(&[]);
    assert_eq!(directory.listen(&relay.url(), std::future::pending()).await.unwrap(), None);
    let heard = directory.heard()[&relay.url()].clone();
    assert!(heard.is_flood && !heard.is_live && heard.taken <= 1_100, "{heard:?}");
    let pause = directory.pause(&relay.url()).as_secs();
    assert!((880..=900).contains(&pause), "{pause}");
    assert_eq!(urls(&directory).await.len(), 500, "of all");
}

/// Nothing is said to, or believed of, a server that cannot prove its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_with_a_certificate_of_nobody_is_not_talked_to() {
    let view = View::new().await;
    let relay = FakeRelay::start(Manner::Give(json_of(&[listing(
        &Keys::generate(),
        "x",
        view.now(),
        "https://evil.example.com",
    )])))
    .await;
    let door = Proxy::tls_to(relay.url().strip_prefix("ws://").unwrap().parse().unwrap()).await;
    let url = format!("wss://localhost:{}", door.address.port());
    let directory = view.of(std::slice::from_ref(&url));
    let trouble = format!("{url}: no connection could be made");
    assert_eq!(directory.refresh().await.unwrap(), [trouble.as_str()]);
    let caller = caller(&view.clock, Duration::from_secs(5));
    let announcer = Announcer::new(view.store.clone(), caller, vec![url.clone()], None, "0.1.0");
    assert_eq!(announcer.keep(Some(&announce::listing())).await.unwrap(), [trouble]);
    assert!(door.calls() > 1, "it was tried");
    assert_eq!((door.heard(), relay.heard("REQ"), relay.heard("EVENT")), (Vec::new(), Vec::new(), Vec::new()));
    assert!(urls(&directory).await.is_empty() && !announcer.announced().await.unwrap().relays[0].1);
}

/// A node of the network, as far as being looked at goes.
pub async fn stranger(status: u16, body: &'static str) -> String {
    let answer = move || async move { (axum::http::StatusCode::from_u16(status).unwrap(), body) };
    let router = Router::new().route("/v1/info", get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_is_known_and_nobody_is_led_into_this_network() {
    let view = View::new().await;
    let up = stranger(200, r#"{"name":"up","mints":[]}"#).await;
    let broken = stranger(500, "{}").await;
    let html = stranger(200, "<html>").await;
    let gone = "http://127.0.0.1:1".to_owned();
    let (onion, long) = ("http://abc.onion".to_owned(), stranger(200, long_json()).await);
    let relay = RealRelay::start().await;
    for url in [&up, &broken, &html, &gone, &onion, &long] {
        relay.put(&listing(&Keys::generate(), "x", view.now(), url)).await;
    }
    let open = view.reaching(&[relay.url()], Reach::Anywhere);
    open.refresh().await.unwrap();
    assert!(open.providers(None, 42).await.unwrap().iter().all(|listed| listed.health.is_none()));
    open.probe(Duration::ZERO).await.unwrap();
    let listed = open.providers(None, 42).await.unwrap();
    assert_eq!(listed[0].provider.endpoint_url, up, "those that answer come first");
    let health = |url: &str| {
        let found: &Listed = listed.iter().find(|listed| listed.provider.endpoint_url == url).unwrap();
        let health = found.health.clone().unwrap();
        (health.status, health.is_good())
    };
    assert_eq!(health(&up), (Some(200), true));
    assert_eq!((health(&gone), health(&onion)), ((None, false), (None, false)));
    assert!(!health(&broken).1 && !health(&html).1 && !health(&long).1);
    // With the rules that hold outside of tests, none of them is asked, or shown.
    let view = View::new().await;
    let guarded = view.of(&[relay.url()]);
    guarded.refresh().await.unwrap();
    guarded.probe(Duration::ZERO).await.unwrap();
    assert_eq!(urls(&guarded).await, [onion]);
    let up = listed.iter().find(|listed| listed.provider.endpoint_url == up).unwrap();
    let refused = guarded.ask(&up.provider, "/v1/models", 1_000).await.unwrap_err();
    assert!(matches!(refused, NetError::Address(_)), "{refused:?}");
}

/// Whoever names another's address first gains nothing by it.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_two_name_is_that_of_whom_the_node_there_says() {
    let view = View::new().await;
    let (thief, owner) = (Keys::generate(), Keys::generate());
    let info = json!({ "name": "n", "npub": owner.public_key().to_bech32().unwrap() }).to_string();
    let url = stranger(200, Box::leak(info.into_boxed_str())).await;
    let relay = RealRelay::start().await;
    let directory = view.reaching(&[relay.url()], Reach::Anywhere);
    relay.put(&listing(&thief, "x", view.now(), &url)).await;
    directory.refresh().await.unwrap();
    view.clock.step(Duration::from_secs(1));
    relay.put(&listing(&owner, "x", view.now(), &url)).await;
    directory.refresh().await.unwrap();
    let shown = async || {
        let listed = directory.providers(None, 42).await.unwrap();
        assert_eq!(listed.len(), 1);
        listed[0].provider.pubkey.clone()
    };
    assert_eq!(shown().await, thief.public_key().to_hex(), "nobody has looked yet");
    directory.probe(Duration::ZERO).await.unwrap();
    assert_eq!(shown().await, owner.public_key().to_hex());
}

fn long_json() -> &'static str {
    Box::leak(format!(r#"{{"name":"{}"}}"#, "x".repeat(20_000)).into_boxed_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn opinions_are_kept_by_what_they_are_about() {
    let view = View::new().await;
    let (fan, stranger, node) = (Keys::generate(), Keys::generate(), Keys::generate());
    let about = format!("38421:{}:x", node.public_key().to_hex());
    let mint = format!("38172:{}:x", node.public_key().to_hex());
    let events = [
        event(&fan, 38000, view.now(), &[["d", "r"], ["k", "38421"], ["a", &about], ["t", "fast"]], "good"),
        event(&fan, 38000, view.now(), &[["d", "m"], ["k", "38421"], ["a", &mint]], "a mint"),
        event(&stranger, 38425, view.now(), &[["d", "r"], ["node", &about], ["t", "blacklisted"]], "not the curator"),
    ];
    let relay = FakeRelay::start(Manner::Give(json_of(&events))).await;
    let directory = view.of(&[relay.url()]);
    directory.refresh().await.unwrap();
    let opinions = directory.opinions(&[about, mint]).await.unwrap();
    assert_eq!(opinions.len(), 1, "{opinions:?}");
    assert_eq!(
        (opinions[0].author.as_str(), &opinions[0].labels),
        (fan.public_key().to_hex().as_str(), &vec!["fast".to_owned()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_is_given_out_as_the_network_reads_it() {
    let relay = RealRelay::start().await;
    let now = coinslot::clock::SystemClock.now_secs().unsigned_abs();
    let keys = Keys::generate();
    let up = stranger(200, r#"{"name":"up"}"#).await;
    let event = listing(&keys, "west", now, &up);
    relay.put(&event).await;
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let mut node = TestNode::with(&mint, &upstream, &[("RELAYS", &relay.url())]).await;
    let fetch = async |path: &str| node.get(path).send().await.unwrap().json::<Value>().await.unwrap();
    let own = format!("/v1/providers/?include_json=true&pubkey={}", keys.public_key().to_hex());
    until("it is looked at", async || !fetch(&own).await["providers"][0]["health"].is_null()).await;
    let shown = fetch(&own).await;
    let entry = &shown["providers"][0];
    assert_eq!(entry["health"], json!({ "status_code": 200, "endpoint": "info", "json": { "name": "up" } }));
    let expected = json!({
        "id": "west", "event_id": event.id.to_hex(), "pubkey": keys.public_key().to_hex(), "created_at": now, "kind": 38421,
        "endpoint_url": up, "endpoint_urls": [up], "name": "n", "description": "a",
        "mint_urls": ["https://m.example.com"], "version": "", "content": r#"{"name":"n","about":"a"}"#,
    });
    assert_eq!(entry["provider"], expected);
    // The others come when this one was looked at, so that nothing else had a part in its time.
    for n in 0..50 {
        relay.put(&listing(&Keys::generate(), "x", now, &format!("https://n{n}.example.com"))).await;
    }
    until("as many as are shown are there", async || {
        fetch("/v1/providers").await["providers"].as_array().unwrap().len() == 42
    })
    .await;
    for path in ["/v1/providers", "/v1/providers/", "/providers"] {
        let all = fetch(path).await;
        assert_eq!(all["providers"].as_array().unwrap().len(), 42, "{path}");
        assert!(all["providers"].as_array().unwrap().contains(&expected), "{path}");
    }
    // What comes while the node runs is there at once, and what goes is gone.
    let late = Keys::generate();
    let of_late = format!("/v1/providers?pubkey={}", late.public_key().to_hex());
    relay.put(&listing(&late, "x", now, "https://late.example.com")).await;
    until("it is heard of", async || fetch(&of_late).await["providers"][0]["id"] == "x").await;
    relay.put(&self::event(&late, 38421, now + 1, &[["d", "x"], ["status", "down"]], "{}")).await;
    until("it is gone", async || fetch(&of_late).await["providers"] == json!([])).await;
    let nobody = fetch("/v1/providers?pubkey=x").await;
    assert_eq!(nobody, json!({ "providers": [] }));
    // Nobody waits for a relay that goes on talking.
    node.prove().await;
    let begun = std::time::Instant::now();
    node.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    node.restart_with("PROVIDERS_REFRESH_INTERVAL_SECONDS", "0").await;
    assert_eq!(node.get("/v1/providers").send().await.unwrap().status(), 404);
    node.finish().await;
}

/// Of the others, each address once, and only who answered as a node does is said to answer.
#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_told_how_many_others_there_are() {
    let relay = RealRelay::start().await;
    let now = coinslot::clock::SystemClock.now_secs().unsigned_abs();
    let own = Keys::generate();
    let [mine, up, broken] = [stranger(200, "{}").await, stranger(200, "{}").await, stranger(200, "<html>").await];
    relay.put(&listing(&own, "mine", now, &mine)).await;
    for url in [&up, &up, &broken] {
        relay.put(&listing(&Keys::generate(), "x", now, url)).await;
    }
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let nsec = own.secret_key().to_bech32().unwrap();
    let node = TestNode::with(&mint, &upstream, &[("RELAYS", &relay.url()), ("NSEC", &nsec)]).await;
    let fetch =
        async || -> Value { node.get("/v1/providers?include_json=true").send().await.unwrap().json().await.unwrap() };
    until("all are looked at", async || {
        let shown = fetch().await["providers"].as_array().unwrap().clone();
        shown.len() == 3 && shown.iter().all(|one| !one["health"].is_null())
    })
    .await;
    let page = Browser::log_in(&node).await.page_at("/admin/network").await;
    assert!(page.contains("2 are listed; 1 of them answered last"), "{page}");
    assert!(page.contains(&up) && page.contains(&broken) && !page.contains(&mine), "{page}");
    node.finish().await;
}
