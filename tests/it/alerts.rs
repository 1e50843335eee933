//! What is wrong is told: once, to everybody who is to be told, and in nobody else's words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use cdk::nuts::CurrencyUnit;
use coinslot::alerts::{self, Alerts, Kind, Reading, Sender, State, Watchman};
use coinslot::audit::Latest;
use coinslot::clock::SharedClock;
use coinslot::config::Config;
use coinslot::money::Msat;
use coinslot::net::ClientOptions;
use coinslot::net::dialer::Dialer;
use coinslot::nostr::{Announcer, Caller};
use coinslot::store::{Durability, Store};
use coinslot::wallet::Change;
use hmac::{Hmac, Mac as _};
use nostr::nips::nip19::ToBech32 as _;
use nostr::nips::nip59::UnwrappedGift;
use nostr::{Event, EventBuilder, JsonUtil as _, Keys, Kind as EventKind, Tag};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::announce::caller;
use crate::lightning::{node_ahead, ok};
use crate::pool::{World, refuse};
use crate::price_sync::Browser;
use crate::process::ChildNode;
use crate::support::answers::until;
use crate::support::chaos::{Chaos, Lie, Mode};
use crate::support::clock::Ahead;
use crate::support::db::TestDb;
use crate::support::hook::Hook;
use crate::support::lnurl::{Mood, Recipient};
use crate::support::mint::TestMint;
use crate::support::node::{TestNode, ask};
use crate::support::program;
use crate::support::purse::Purse;
use crate::support::relay::{FakeRelay, Manner, RealRelay};
use crate::support::upstream::Upstream;

const HOUR: Duration = Duration::from_secs(3_600);
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The alarms of a node, without the node.
struct Desk {
    db: TestDb,
    store: Store,
    clock: Arc<Ahead>,
    settings: Vec<(&'static str, String)>,
}

impl Desk {
    async fn new(settings: Vec<(&'static str, String)>) -> Self {
        let db = TestDb::new().await;
        Self { store: db.open().await, db, clock: Arc::default(), settings }
    }

    /// As a process has them that starts on this database.
    fn start(&self, node: &str) -> Alerts {
        let vars = self.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let config = Config::from_vars(&vars).unwrap();
        let sender =
            Sender::new(&config, &coinslot::net::way::Way::default(), &caller(&self.clock, Duration::from_secs(20)))
                .unwrap();
        let clock: SharedClock = Arc::clone(&self.clock) as SharedClock;
        Alerts::new(self.store.clone(), clock, node.to_owned(), config.alerts.repeat, sender)
    }

    async fn finish(self) {
        self.store.close().await;
        self.db.remove().await;
    }
}

fn wrong(kind: Kind, subject: &str) -> Reading {
    Reading::new(kind, subject, State::Wrong("It is so".to_owned()))
}

/// Takes note of these, and tells what follows.
async fn turn(alerts: &Alerts, readings: &[Reading]) -> Vec<String> {
    alerts.take(readings).await.unwrap();
    alerts.tell().await.unwrap()
}

/// What a hook was told, in order.
fn told(hook: &Hook) -> Vec<String> {
    let line = |body: Value| {
        let field = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", field(&body["type"]), field(&body["data"]["kind"]), field(&body["data"]["subject"]))
    };
    hook.posted().iter().map(|posted| line(posted.json()).trim().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_told_once_again_after_hours_and_when_it_is_over() {
    let hook = Hook::start().await;
    let desk = Desk::new(vec![
        ("ALERT_WEBHOOK_URL", format!("{}/a/hook", hook.url())),
        ("ALERT_WEBHOOK_SECRET", SECRET.to_owned()),
        ("NAME", "my node".to_owned()),
    ])
    .await;
    let alerts = desk.start("one");
    let both = [wrong(Kind::UpstreamBarred, "openai"), wrong(Kind::Books, "")];
    for _ in 0..3 {
        assert_eq!(turn(&alerts, &both).await, Vec::<String>::new());
        desk.clock.step(Duration::from_secs(2));
    }
    let first = BTreeSet::from(["alarm.raised upstream_barred openai", "alarm.raised books_not_proven"]);
    assert_eq!(told(&hook).iter().map(String::as_str).collect::<BTreeSet<_>>(), first);
    assert_eq!(hook.posted().len(), 2);
    let open = alerts::open(&desk.store).await.unwrap();
    assert_eq!(
        open.iter().map(|one| one.kind).collect::<BTreeSet<_>>(),
        BTreeSet::from([Kind::Books, Kind::UpstreamBarred])
    );
    assert_eq!(alerts.board().iter().map(|(_, count)| count).sum::<usize>(), 2);

    // It is signed as Standard Webhooks has it, and says what it is.
    for posted in hook.posted() {
        assert_eq!((posted.path.as_str(), posted.header("content-type")), ("/a/hook", "application/json"));
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&STANDARD_NO_PAD.decode(&SECRET["whsec_".len()..]).unwrap()).unwrap();
        let signed = [posted.header("webhook-id"), posted.header("webhook-timestamp")].join(".");
        mac.update(format!("{signed}.").as_bytes());
        mac.update(&posted.body);
        let expected = STANDARD.encode(mac.finalize().into_bytes());
        assert_eq!(posted.header("webhook-signature"), format!("v1,{expected}"));
        assert_eq!(posted.json()["id"], posted.header("webhook-id"));
        assert!(posted.json()["text"].as_str().unwrap().starts_with("my node: ALARM, "), "{}", posted.json());
    }

    // Neither time nor a restart is a reason to say it again; hours are.
    desk.clock.step(HOUR);
    turn(&desk.start("one"), &both).await;
    assert_eq!(hook.posted().len(), 2);
    desk.clock.step(5 * HOUR);
    turn(&alerts, &both).await;
    assert_eq!(told(&hook)[2..].iter().filter(|line| line.starts_with("alarm.repeated")).count(), 2);

    // What is not known any more is as it was; what is well, or gone, is over.
    let unknown = Reading::new(Kind::Books, "", State::Unknown);
    turn(&desk.start("one"), &[unknown, Reading::new(Kind::UpstreamBarred, "openai", State::Well)]).await;
    assert_eq!(told(&hook)[4..], ["alarm.ended upstream_barred openai"]);
    turn(&alerts, &[]).await;
    assert_eq!(told(&hook)[5..], ["alarm.ended books_not_proven"]);
    turn(&alerts, &[]).await;
    assert_eq!(hook.posted().len(), 6);
    assert!(alerts::open(&desk.store).await.unwrap().is_empty());
    let ids: BTreeSet<String> = hook.posted().iter().map(|posted| posted.header("webhook-id").to_owned()).collect();
    assert_eq!(ids.len(), 6, "each note has its own id");
    desk.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_and_goes_is_told_after_a_while_and_not_each_time() {
    let hook = Hook::start().await;
    let desk = Desk::new(vec![("ALERT_WEBHOOK_URL", hook.url())]).await;
    let alerts = desk.start("one");
    let down = [wrong(Kind::MintDown, "https://mint.example")];
    // For less than a minute: nothing.
    turn(&alerts, &down).await;
    desk.clock.step(Duration::from_secs(50));
    turn(&alerts, &down).await;
    turn(&alerts, &[]).await;
    assert_eq!(told(&hook), Vec::<String>::new());
    // For longer.
    turn(&alerts, &down).await;
    desk.clock.step(Duration::from_secs(61));
    turn(&alerts, &down).await;
    turn(&alerts, &[]).await;
    let once = ["alarm.raised mint_down https://mint.example", "alarm.ended mint_down https://mint.example"];
    assert_eq!(told(&hook), once);
    // It flaps: nobody hears of it for ten minutes.
    for _ in 0..4 {
        turn(&alerts, &down).await;
        desk.clock.step(Duration::from_secs(70));
        turn(&alerts, &down).await;
        turn(&alerts, &[]).await;
    }
    assert_eq!(told(&hook), once);
    turn(&alerts, &down).await;
    desk.clock.step(Duration::from_secs(600));
    turn(&alerts, &down).await;
    assert_eq!(told(&hook)[2..], ["alarm.raised mint_down https://mint.example"]);
    desk.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_processes_one_tells_and_the_last_that_sees_it_ends_it() {
    let hook = Hook::start().await;
    let desk = Desk::new(vec![("ALERT_WEBHOOK_URL", hook.url())]).await;
    let (one, two) = (desk.start("one"), desk.start("two"));
    let barred = [wrong(Kind::UpstreamBarred, "openai")];
    let (first, second) = tokio::join!(one.take(&barred), two.take(&barred));
    first.unwrap();
    second.unwrap();
    let (first, second) = tokio::join!(one.tell(), two.tell());
    first.unwrap();
    second.unwrap();
    assert_eq!(told(&hook), ["alarm.raised upstream_barred openai"]);
    // For one of them it is over.
    turn(&one, &[]).await;
    turn(&two, &barred).await;
    assert_eq!(hook.posted().len(), 1);
    assert_eq!(one.board().iter().map(|(_, count)| count).sum::<usize>(), 1, "it goes on");
    // The other one is gone for good: what it saw is nobody's word any more.
    desk.clock.step(Duration::from_secs(240));
    turn(&one, &[]).await;
    assert_eq!(hook.posted().len(), 1);
    desk.clock.step(Duration::from_secs(120));
    turn(&one, &[]).await;
    assert_eq!(told(&hook)[1..], ["alarm.ended upstream_barred openai"]);
    desk.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_fails_hears_everything_later_and_in_order() {
    let (hook, relay) = (Hook::start().await, FakeRelay::start(Manner::Refuse("blocked: hunter2")).await);
    let operator = Keys::generate();
    let desk = Desk::new(vec![
        ("ALERT_WEBHOOK_URL", format!("{}/key-canary", hook.url())),
        ("ALERT_NPUB", operator.public_key().to_bech32().unwrap()),
        ("RELAYS", relay.url()),
    ])
    .await;
    hook.answer(503);
    let alerts = desk.start("one");
    let barred = [wrong(Kind::UpstreamBarred, "openai")];
    let mut troubles = turn(&alerts, &barred).await;
    troubles.sort();
    // In this node's words: no address, and nothing that a server said.
    assert_eq!(troubles, ["nostr: none of 1 relays took the message", "webhook: the server answered with status 503"]);
    // Said once, and not tried again before its time.
    desk.clock.step(Duration::from_secs(20));
    assert_eq!(turn(&alerts, &barred).await, Vec::<String>::new());
    assert_eq!(hook.posted().len(), 1);
    desk.clock.step(Duration::from_secs(11));
    assert_eq!(turn(&desk.start("one"), &barred).await, Vec::<String>::new());
    assert_eq!(hook.posted().len(), 2);
    turn(&alerts, &[]).await;
    desk.clock.step(HOUR);
    hook.answer(204);
    relay.behave(Manner::Give(Vec::new()));
    turn(&alerts, &[]).await;
    assert_eq!(told(&hook)[2..], ["alarm.raised upstream_barred openai", "alarm.ended upstream_barred openai"]);
    let ids: Vec<String> = hook.posted().iter().map(|posted| posted.header("webhook-id").to_owned()).collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3], "the same note has the same id: {ids:?}");
    let events = relay.heard("EVENT");
    let ids: Vec<&str> = events.iter().map(|message| message[1]["id"].as_str().unwrap()).collect();
    assert!(
        ids.len() == 4 && ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3],
        "and is the same event: {ids:?}"
    );
    desk.finish().await;
}

/// Nothing that a clock wrote that was a year ahead is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_silences_no_alarm() {
    let (hook, year) = (Hook::start().await, 24 * 365 * HOUR);
    let desk = Desk::new(vec![("ALERT_WEBHOOK_URL", hook.url())]).await;
    let alerts = desk.start("one");
    let (barred, down) = (wrong(Kind::UpstreamBarred, "openai"), wrong(Kind::MintDown, "https://mint.example"));
    desk.clock.step(year);
    hook.answer(503);
    turn(&alerts, &[barred.clone(), down.clone()]).await;
    assert_eq!(hook.posted().len(), 1);
    desk.clock.step_back(year);
    hook.answer(204);
    turn(&alerts, &[barred.clone(), down.clone()]).await;
    assert_eq!(hook.posted().len(), 2, "it is not waited for the year");
    desk.clock.step(Duration::from_secs(61));
    turn(&alerts, &[barred, down]).await;
    assert!(told(&hook).contains(&"alarm.raised mint_down https://mint.example".to_owned()), "{:?}", told(&hook));
    desk.finish().await;
}

/// What the operator reads in their inbox, by an implementation that is not the node's.
async fn read(relay: &RealRelay, operator: &Keys) -> Vec<(String, u64)> {
    let found = relay.find(json!({ "kinds": [1059], "#p": [operator.public_key().to_hex()] })).await;
    let mut read = Vec::new();
    for event in found {
        let wrap = Event::from_json(event.to_string()).unwrap();
        wrap.verify().unwrap();
        let sender = Event::from_json(event.to_string()).unwrap().pubkey;
        let gift = UnwrappedGift::from_gift_wrap(operator, &wrap).await.unwrap();
        assert_eq!(gift.rumor.kind, EventKind::PrivateDirectMessage);
        assert_eq!(gift.rumor.pubkey, gift.sender, "who says it is who sealed it");
        assert_ne!(sender, gift.sender, "the wrap is nobody's");
        assert!(wrap.created_at <= gift.rumor.created_at, "and of no time that says anything");
        assert!(!event.to_string().contains("ALARM"));
        read.push((gift.rumor.content, gift.rumor.created_at.as_secs()));
    }
    read.sort_by_key(|(_, at)| *at);
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_reads_it_on_nostr_and_nobody_else_does() {
    let (node_relay, inbox, other) = (RealRelay::start().await, RealRelay::start().await, RealRelay::start().await);
    let operator = Keys::generate();
    let desk = Desk::new(vec![
        ("ALERT_NPUB", operator.public_key().to_bech32().unwrap()),
        ("RELAYS", node_relay.url()),
        ("NAME", "my node".to_owned()),
    ])
    .await;
    let alerts = desk.start("one");
    // Nobody knows where the operator reads: the node's own relays.
    turn(&alerts, &[wrong(Kind::UpstreamBarred, "openai")]).await;
    let texts = read(&node_relay, &operator).await;
    assert_eq!(texts.len(), 1);
    assert!(texts[0].0.starts_with("my node: ALARM, an upstream refuses your account (openai). It is so. Since 20"));
    // Somebody else says where: that is nothing. The operator says it: there, and nowhere else.
    let list = |relay: &RealRelay, keys: &Keys| {
        let tag = Tag::parse(["relay", &relay.url()]).unwrap();
        EventBuilder::new(EventKind::from_u16(10050), "").tag(tag).sign_with_keys(keys).unwrap()
    };
    node_relay.put(&list(&other, &Keys::generate())).await;
    node_relay.put(&list(&inbox, &operator)).await;
    desk.clock.step(Duration::from_secs(5));
    turn(&alerts, &[]).await;
    let texts = read(&inbox, &operator).await;
    assert_eq!(texts.len(), 1);
    assert!(texts[0].0.starts_with("my node: over is that an upstream refuses your account (openai)."), "{texts:?}");
    assert_eq!(read(&node_relay, &operator).await.len(), 1);
    assert!(other.find(json!({ "kinds": [1059] })).await.is_empty());
    desk.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_stops_is_an_alarm_until_it_is_back() {
    let hook = Hook::start().await;
    let more = [("ALERT_WEBHOOK_URL", &*hook.url()), ("METRICS_TOKEN", "a-metrics-token-canary")];
    let mut world = World::new(&[json!({})], &more).await;
    let (mint, token) = (world.mint.url(), world.purse.send(30).await);
    let alarms = async |world: &World| {
        let page = world.node.get("/metrics").bearer_auth("a-metrics-token-canary").send().await.unwrap();
        page.text().await.unwrap().lines().any(|line| line == "coinslot_alerts{kind=\"mint_down\"} 1")
    };
    world.mint.stop().await;
    until("the mint is left alone", async || {
        world.send_token(&ask("hi"), &token).await;
        let health = world.node.running().exchange().till.wallet().health();
        health[0].condition != coinslot::wallet::Condition::Closed
    })
    .await;
    // Two looks, a minute apart.
    until("it was seen", async || {
        let rows = sqlx::query("SELECT kind FROM alarms WHERE kind = 'mint_down'");
        rows.fetch_all(world.node.running().exchange().ledger.store().read()).await.unwrap().len() == 1
    })
    .await;
    assert!(hook.posted().is_empty() && !alarms(&world).await);
    world.clock.step(Duration::from_secs(61));
    until("the operator is told", async || !hook.posted().is_empty()).await;
    let raised = hook.posted()[0].json();
    assert_eq!((&raised["type"], &raised["data"]["subject"]), (&json!("alarm.raised"), &json!(mint)));
    assert!(raised["data"]["message"].as_str().unwrap().starts_with("it cannot be reached, last at 20"), "{raised}");
    assert!(alarms(&world).await);
    let page = Browser::log_in(&world.node).await.page_at("/admin").await;
    assert!(page.contains(&format!("a mint is down ({mint}).")), "{page}");
    world.mint.restart().await;
    until("it is over", async || {
        world.clock.step(Duration::from_secs(1));
        world.send_token(&ask("hi"), &token).await;
        told(&hook).len() > 1
    })
    .await;
    assert_eq!(told(&hook)[1], format!("alarm.ended mint_down {mint}"));
    assert!(!alarms(&world).await);
    // Nothing that was paid with is in what was told.
    for posted in hook.posted() {
        let text = String::from_utf8_lossy(&posted.body).into_owned();
        assert!(!text.contains(&token) && !text.contains(&world.key), "{text}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down_is_an_alarm_in_the_nodes_own_words() {
    upstream_goes_down("2", 2).await;
}

/// What the operator switches off with the breaker is that one is left alone, and not that it is told.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down_is_an_alarm_without_a_breaker_too() {
    upstream_goes_down("0", 5).await;
}

/// With this setting, it is an alarm after so many failures in a row.
async fn upstream_goes_down(breaker_failures: &str, failures: usize) {
    let hook = Hook::start().await;
    let url = hook.url();
    let more = [("ALERT_WEBHOOK_URL", &*url), ("UPSTREAM_BREAKER_FAILURES", breaker_failures)];
    let world = World::new(&[json!({}), json!({})], &more).await;
    // One fails, and the other serves.
    for count in 1..=failures {
        world.upstreams[0].next(refuse(500));
        assert_eq!(world.send(&ask("prompt-canary")).await.status, 200);
        let conditions = world.node.running().exchange().pool.conditions();
        let one = conditions.iter().find(|one| &*one.name == crate::pool::NAMES[0]).unwrap();
        assert_eq!(one.down_since_ms.is_some(), count == failures, "{count}");
        world.clock.step(Duration::from_secs(16));
    }
    until("it was seen", async || {
        let rows = sqlx::query("SELECT kind FROM alarms WHERE kind = 'upstream_down'");
        rows.fetch_all(world.node.running().exchange().ledger.store().read()).await.unwrap().len() == 1
    })
    .await;
    world.clock.step(Duration::from_secs(61));
    until("the operator is told", async || !hook.posted().is_empty()).await;
    assert_eq!(told(&hook), [format!("alarm.raised upstream_down {}", crate::pool::NAMES[0])]);
    let text = String::from_utf8_lossy(&hook.posted()[0].body).into_owned();
    assert!(!text.contains("prompt-canary") && !text.contains(crate::pool::KEYS[0]), "{text}");
    // It answers again.
    until("it is over", async || {
        assert_eq!(world.send(&ask("prompt-canary")).await.status, 200);
        world.clock.step(Duration::from_secs(16));
        told(&hook).len() > 1
    })
    .await;
    assert_eq!(told(&hook)[1], format!("alarm.ended upstream_down {}", crate::pool::NAMES[0]));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_refuses_the_account_in_unknown_words_is_an_alarm() {
    let hook = Hook::start().await;
    let url = hook.url();
    let world = World::new(&[json!({}), json!({})], &[("ALERT_WEBHOOK_URL", &*url)]).await;
    let seen = async || {
        let rows = sqlx::query("SELECT kind FROM alarms WHERE kind = 'upstream_locked'");
        rows.fetch_all(world.node.running().exchange().ledger.store().read()).await.unwrap().len() == 1
    };
    // The other one serves, so nobody but the operator has to know.
    world.upstreams[0].next(refuse(403));
    assert_eq!(world.send(&ask("prompt-canary")).await.status, 200);
    until("it was seen", seen).await;
    world.clock.step(Duration::from_secs(61));
    until("the operator is told", async || !hook.posted().is_empty()).await;
    let name = crate::pool::NAMES[0];
    assert_eq!(told(&hook), [format!("alarm.raised upstream_locked {name}")]);
    let text = String::from_utf8_lossy(&hook.posted()[0].body).into_owned();
    assert!(text.contains("401, 402 or 403"), "{text}");
    assert!(!text.contains("fault-canary") && !text.contains("prompt-canary"), "{text}");
    // Its rest is over, and it answers.
    world.clock.step(Duration::from_secs(600));
    until("it is over", async || {
        assert_eq!(world.send(&ask("prompt-canary")).await.status, 200);
        world.clock.step(Duration::from_secs(16));
        told(&hook).len() > 1
    })
    .await;
    assert_eq!(told(&hook)[1], format!("alarm.ended upstream_locked {name}"));
    world.finish().await;
}

/// Runs statements on the database of a node that is stopped.
async fn plant(db: &TestDb, sql: &'static str) {
    let store = db.open().await;
    let mut tx = store.begin(Durability::Full).await.unwrap();
    sqlx::query(sql).execute(tx.hand()).await.unwrap();
    tx.commit().await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_neither_loses_a_note_nor_makes_another() {
    let hook = Hook::start().await;
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    for (point, heard) in [("alert.written", 0), ("alert.leased", 0), ("alert.delivered", 1)] {
        let before = hook.posted().len();
        let mut node = ChildNode::start(&mint.url(), &upstream, &[("ALERT_WEBHOOK_URL", &hook.url())]).await;
        node.stop().await;
        plant(&node.db, "UPDATE upstream_bars SET bar = 'no_credit', since = 1").await;
        if node.restart_armed(point).await {
            node.died().await;
        }
        assert_eq!(hook.posted().len() - before, heard, "{point}");
        // Whoever told it when it died had it for a while; that is over.
        plant(&node.db, "UPDATE alarm_notes SET retry_at = 0").await;
        node.restart().await;
        until("it is told", async || hook.posted().len() > before + heard).await;
        let listed = node.verb(&["alerts", "--json"]).await;
        let listed: Value = serde_json::from_str(&listed.said).unwrap();
        assert_eq!(listed["alerts"][0]["kind"], "upstream_barred", "{listed}");
        // The operator clears it, which is the end of it.
        assert_eq!(node.verb(&["upstreams", "clear", "default"]).await.code, 0);
        until("it is over", async || hook.posted().len() > before + heard + 1).await;
        let mut lines = told(&hook).split_off(before);
        lines.dedup();
        assert_eq!(lines, ["alarm.raised upstream_barred default", "alarm.ended upstream_barred default"], "{point}");
        let ids: BTreeSet<String> =
            hook.posted()[before..].iter().map(|posted| posted.header("webhook-id").to_owned()).collect();
        assert_eq!(ids.len(), 2, "{point}: one note each, however often it is told");
        node.stop().await;
        node.db.remove().await;
    }
}

/// What a watchman of this node finds wrong.
async fn found(node: &TestNode, announcer: &Announcer) -> BTreeMap<&'static str, String> {
    let exchange = Arc::clone(node.running().exchange());
    let (audit, announcer) = (Latest::default(), announcer.clone());
    let readings = Watchman { exchange, audit, announcer }.look().await.unwrap();
    let wrong = readings.into_iter().filter_map(|reading| match reading.state {
        State::Wrong(said) => Some((reading.kind.name(), format!("{} {said}", reading.subject).trim().to_owned())),
        _ => None,
    });
    wrong.collect()
}

fn announcer(node: &TestNode, relays: &[String]) -> Announcer {
    let exchange = node.running().exchange();
    let caller = Caller {
        dialer: Dialer::new(&ClientOptions::default()).unwrap(),
        identity: exchange.identity.clone(),
        clock: Arc::clone(exchange.ledger.clock()),
        patience: Duration::from_secs(20),
    };
    Announcer::new(exchange.ledger.store().clone(), caller, relays.to_vec(), None, "0.1.0")
}

#[tokio::test(flavor = "multi_thread")]
async fn payouts_stuck_operations_and_relays_are_looked_at() {
    let (mint, upstream, recipient) = (TestMint::start().await, Upstream::start().await, Recipient::start().await);
    let relay = FakeRelay::start(Manner::Drop).await;
    let chaos = Chaos::before(&mint.url());
    let purse = Purse::with_unit(&chaos.url(), CurrencyUnit::Sat).await;
    purse.mint_sats(1_000).await;
    let clock = Arc::new(Ahead::default());
    let (url, relays) = (chaos.url(), relay.url());
    let more = [
        ("CASHU_MINTS", &*url),
        ("MODEL_BASED_PRICING", "false"),
        ("COST_PER_REQUEST", "50"),
        ("RELAYS", &relays),
        ("HTTP_URL", "https://node.example.com"),
    ];
    let node = node_ahead(&mint, &upstream, &clock, &more).await;
    let voice = announcer(&node, &[relay.url()]);
    until("no relay has the listing", async || found(&node, &voice).await.contains_key("relays_down")).await;
    let said = found(&node, &voice).await;
    assert_eq!(said["relays_down"], "1 of 1 fail, so clients do not find the node");
    assert_eq!(said.len(), 1, "{said:?}");

    // Earnings that cannot be sent, and then can.
    let token = purse.send(500).await;
    for _ in 0..4 {
        assert_eq!(node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap().status(), 200);
    }
    let wallet = node.running().exchange().till.wallet().clone();
    let pay_to = async |to: &str| wallet.pay_out(to, Msat::new(100_000).unwrap()).await.unwrap();
    let pay_out = async || pay_to(&recipient.name()).await;
    recipient.set(Mood::Refuses);
    let outcome = pay_out().await;
    assert!(matches!(outcome[..], [Change::Failed(_)]), "{outcome:?}");
    assert!(!found(&node, &voice).await.contains_key("payout_failed"), "nothing is to be sent");
    // A running node is told where to.
    program::told(node.settings(), &["settings", "set", "RECEIVE_LN_ADDRESS", &recipient.name()]);
    node.running().exchange().learn_settings().await.unwrap();
    let said = found(&node, &voice).await;
    assert!(said["payout_failed"].starts_with(&format!("{url} 200.000 sat could not be sent")), "{said:?}");
    recipient.set(Mood::Good);
    clock.step(Duration::from_secs(1));
    assert!(matches!(pay_out().await[..], [Change::Sent { .. }]));
    assert!(!found(&node, &voice).await.contains_key("payout_failed"));
    // What is sent elsewhere, by hand, is told to who sends it.
    let other = Recipient::start().await;
    other.set(Mood::Refuses);
    for _ in 0..4 {
        assert_eq!(node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap().status(), 200);
    }
    clock.step(Duration::from_secs(1));
    assert!(matches!(pay_to(&other.name()).await[..], [Change::Failed(_)]));
    assert!(!found(&node, &voice).await.contains_key("payout_failed"));
    // What could not be sent and is then taken out by hand is not waited for any more: less than the minimum is left.
    recipient.set(Mood::Refuses);
    clock.step(Duration::from_secs(1));
    assert!(matches!(pay_out().await[..], [Change::Failed(_)]));
    assert!(found(&node, &voice).await.contains_key("payout_failed"));
    other.set(Mood::Good);
    clock.step(Duration::from_secs(1));
    assert!(matches!(pay_to(&other.name()).await[..], [Change::Sent { .. }]));
    assert!(!found(&node, &voice).await.contains_key("payout_failed"));

    // An invoice that nobody pays is nobody's operation.
    chaos.set("/v1/mint/quote/bolt11/*", Mode::Lie(Lie::State("UNPAID")));
    ok(node.post("/lightning/invoice").json(&json!({ "amount_sats": 1, "purpose": "create" }))).await;
    clock.step(Duration::from_secs(31 * 60));
    wallet.resume(0).await.unwrap();
    assert!(!found(&node, &voice).await.contains_key("operation_stuck"));
    let browser = Browser::log_in(&node).await;
    until("none is unfinished", async || {
        let page = browser.page_at("/admin").await;
        page.contains("none is unfinished.") && !page.contains("An operation at a mint")
    })
    .await;

    // A redemption whose mint says nothing.
    let token = purse.send(60).await;
    chaos.set("/v1/swap", Mode::DropReply);
    chaos.set("/v1/restore", Mode::Cut);
    chaos.set("/v1/checkstate", Mode::Cut);
    let unknown = node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap().status();
    assert!([425, 503].contains(&unknown.as_u16()), "{unknown}");
    clock.step(Duration::from_secs(29 * 60));
    assert!(!found(&node, &voice).await.contains_key("operation_stuck"));
    clock.step(Duration::from_secs(120));
    let said = found(&node, &voice).await;
    assert!(said["operation_stuck"].starts_with(&format!("{url} 1 unfinished since 20")), "{said:?}");
    chaos.calm();
    until("it is finished", async || {
        clock.step(Duration::from_secs(10));
        wallet.resume(0).await.unwrap();
        !found(&node, &voice).await.contains_key("operation_stuck")
    })
    .await;
    node.finish().await;

    // A rate that nobody gives.
    let feeds = [("BTC_USD_FIXED", ""), ("BTC_USD_FEEDS", "kraken=http://127.0.0.1:9/")];
    let node = TestNode::with(&mint, &upstream, &feeds).await;
    let said = found(&node, &announcer(&node, &[])).await;
    assert_eq!(said["rate_stale"], "No feed has answered; nothing that has a price in USD is sold");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_lists_alarms_and_sends_a_test() {
    let (hook, relay, operator) = (Hook::start().await, RealRelay::start().await, Keys::generate());
    let mint = TestMint::start().await;
    let upstream = Upstream::start().await;
    let npub = operator.public_key().to_bech32().unwrap();
    let (hook_url, relay_url) = (hook.url(), relay.url());
    let more = [("ALERT_WEBHOOK_URL", &*hook_url), ("ALERT_NPUB", &npub), ("RELAYS", &relay_url), ("NAME", "my node")];
    let mut node = ChildNode::start(&mint.url(), &upstream, &more).await;
    let listed = node.verb(&["alerts"]).await;
    assert_eq!((listed.code, listed.said.as_str()), (0, "No alarm goes on.\n"), "{listed:?}");
    let sent = node.verb(&["alerts", "--test"]).await;
    assert_eq!((sent.code, sent.said.as_str()), (0, "webhook    delivered\nnostr      delivered\n"), "{sent:?}");
    let posted = hook.posted()[0].json();
    assert_eq!((&posted["type"], &posted["data"]["kind"]), (&json!("test"), &Value::Null));
    let texts = read(&relay, &operator).await;
    assert_eq!(texts[0].0, "my node: This is a test. Nothing is wrong.");
    // One that does not arrive is named, and the other arrives all the same.
    hook.answer(500);
    let sent = node.verb(&["alerts", "--test", "--json"]).await;
    assert_eq!(sent.code, 1, "{sent:?}");
    let outcome: Value = serde_json::from_str(&sent.said).unwrap();
    assert_eq!(outcome["targets"][0]["error"], "the server answered with status 500");
    assert_eq!(outcome["targets"][1]["delivered"], true);
    assert_eq!(node.verb(&["alerts", "now"]).await.code, 2);
    node.stop().await;
    let nobody = node.verb_with("ALERT_WEBHOOK_URL", "", &["alerts", "--test"]).await;
    assert_eq!(nobody.code, 0, "the other target is left: {nobody:?}");
    node.db.remove().await;
}

/// Moves the balance of every key by so many msat, as no statement of the node's does.
pub async fn tamper(node: &TestNode, msat: i64) {
    let store = node.running().exchange().ledger.store().clone();
    let mut tx = store.begin(Durability::Full).await.unwrap();
    sqlx::query("UPDATE accounts SET posted = posted + $1 WHERE kind = 'key'")
        .bind(msat)
        .execute(tx.hand())
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ecash_that_does_not_cover_what_is_owed_is_an_alarm_until_it_does() {
    let hook = Hook::start().await;
    let mut world = World::new(&[json!({})], &[("ALERT_WEBHOOK_URL", &*hook.url())]).await;
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    world.node.settled().await;
    tamper(&world.node, 5_000_000).await;
    // The books are proven at every start.
    world.node.restart().await;
    until("the operator is told", async || {
        world.clock.step(Duration::from_secs(61));
        hook.posted().len() >= 2
    })
    .await;
    let mut raised = told(&hook);
    raised.sort();
    assert_eq!(raised, ["alarm.raised books_not_proven", "alarm.raised insolvent"]);
    let of = |kind: &str| hook.posted().iter().map(|posted| posted.json()).find(|told| told["data"]["kind"] == kind);
    let message = of("insolvent").unwrap()["data"]["message"].as_str().unwrap().to_owned();
    assert!(message.ends_with(" sat are missing"), "{message}");
    tamper(&world.node, -5_000_000).await;
    world.node.restart().await;
    until("it is over", async || {
        world.clock.step(Duration::from_secs(61));
        hook.posted().len() >= 4
    })
    .await;
    let mut ended = told(&hook).split_off(2);
    ended.sort();
    assert_eq!(ended, ["alarm.ended books_not_proven", "alarm.ended insolvent"]);
    world.finish().await;
}

/// To exchange coins costs the mint's fee, and before anything is earned there is nothing to pay it from.
#[tokio::test(flavor = "multi_thread")]
async fn change_that_runs_low_is_an_alarm_until_coins_can_be_exchanged() {
    const LADDER: &str = "CHANGE_LADDER_COINS";
    let (mint, upstream) = (TestMint::with_fee_ppk(100).await, Upstream::start().await);
    let purse = Purse::with_unit(&mint.url(), CurrencyUnit::Sat).await;
    purse.mint_sats(3_000).await;
    let settings = [("MODEL_BASED_PRICING", "false"), ("COST_PER_REQUEST", "50"), (LADDER, "0")];
    let mut node = TestNode::with(&mint, &upstream, &settings).await;
    let token = purse.send(1_000).await;
    let info = node.get("/v1/wallet/info").bearer_auth(&token).send().await.unwrap();
    assert_eq!(info.status(), 200);
    assert!(!found(&node, &announcer(&node, &[])).await.contains_key("change_low"), "none is wanted");
    node.restart_with(LADDER, "4").await;
    node.has_run("refill_ladder").await;
    let said = found(&node, &announcer(&node, &[])).await;
    let expected = format!("{} Coins in sat are not exchanged, so change needs calls to the mint", mint.url());
    assert_eq!(said.get("change_low"), Some(&expected), "{said:?}");
    assert_eq!(node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap().status(), 200);
    assert!(node.running().exchange().till.wallet().refill().await.unwrap() > 0);
    assert!(!found(&node, &announcer(&node, &[])).await.contains_key("change_low"));
    node.finish().await;
}
