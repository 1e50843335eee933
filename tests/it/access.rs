//! Who gets into the operator's side: sessions of people and programs, tokens, the password, signatures.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coinslot::clock::Clock;
use nostr::nips::nip19::ToBech32;
use nostr::{EventBuilder, JsonUtil, Keys, Kind, Tag, Timestamp};
use serde_json::{Value, json};
use sqlx::Row;

use crate::lightning::node_ahead;
use crate::price_sync::{Browser, csrf};
use crate::support::clock::Ahead;
use crate::support::mint::TestMint;
use crate::support::node::{TestNode, client};
use crate::support::program;
use crate::support::upstream::Upstream;

const PASSWORD: &str = "an admin password";

struct World {
    clock: Arc<Ahead>,
    node: TestNode,
    _mint: TestMint,
    _upstream: Upstream,
}

impl World {
    async fn new(more: &[(&str, &str)]) -> Self {
        let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
        let clock = Arc::new(Ahead::default());
        let node = node_ahead(&mint, &upstream, &clock, more).await;
        Self { clock, node, _mint: mint, _upstream: upstream }
    }

    async fn log_in(&self, password: &str) -> Said {
        said(self.node.post("/admin/api/login").json(&json!({ "password": password }))).await
    }

    /// Guesses until the next attempt is half a minute away: a slow machine takes some seconds for one.
    async fn guess(&self, attempt: impl AsyncFn() -> Said) -> Said {
        let mut guessed = attempt().await;
        for pause in [1, 2, 4, 8, 16] {
            self.clock.step(Duration::from_secs(pause));
            guessed = attempt().await;
            assert_eq!(guessed.status, 401, "{}", guessed.body);
        }
        guessed
    }

    /// The token of a session.
    async fn session(&self) -> String {
        self.log_in(PASSWORD).await.text("token")
    }

    async fn make_token(&self, by: &str, name: &str, scopes: &[&str], days: Option<u64>) -> Said {
        let wanted = json!({ "name": name, "scopes": scopes, "expires_in_days": days });
        said(self.node.post("/admin/api/cli-tokens").bearer_auth(by).json(&wanted)).await
    }

    async fn may_look(&self, token: &str) -> bool {
        self.node.get("/admin/api/cli-tokens").bearer_auth(token).send().await.unwrap().status() == 200
    }

    /// All that the database has in these columns, as text.
    async fn stored(&self, query: &'static str) -> Vec<String> {
        let store = self.node.running().exchange().ledger.store().clone();
        let rows = sqlx::query(query).fetch_all(store.read()).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn acts(&self) -> Vec<String> {
        self.stored("SELECT actor || ': ' || action FROM admin_trail ORDER BY at, id").await
    }

    fn command(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = program::coinslot(self.node.settings(), &[&["admin"][..], words].concat());
        (output.status.code(), program::said(&output))
    }
}

struct Said {
    status: u16,
    retry_after: Option<String>,
    body: Value,
}

impl Said {
    fn text(&self, member: &str) -> String {
        self.body[member].as_str().unwrap_or_else(|| panic!("no {member} in {}", self.body)).to_owned()
    }
}

async fn said(request: reqwest::RequestBuilder) -> Said {
    let answer = request.send().await.unwrap();
    let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} {text}"));
    Said { status, retry_after, body }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_logs_in_for_an_hour_and_out() {
    let world = World::new(&[]).await;
    let wrong = world.guess(async || world.log_in("wrong").await).await;
    assert_eq!((wrong.status, wrong.text("code")), (401, "unauthorized".to_owned()));
    // The page and the call have one patience.
    let early = world.log_in(PASSWORD).await;
    assert_eq!((early.status, early.text("code")), (429, "too_many_attempts".to_owned()));
    assert!(early.retry_after.is_some());
    world.clock.step(Duration::from_secs(32));
    let right = world.log_in(PASSWORD).await;
    assert_eq!((right.status, &right.body["ok"], &right.body["expires_in"]), (200, &json!(true), &json!(3600)));
    let token = right.text("token");
    assert!(world.may_look(&token).await && !world.may_look("made-up").await);
    assert_eq!(world.node.get("/admin/api/access").send().await.unwrap().status(), 403);

    // A cookie opens no call, and the token of a program no page.
    let browser = Browser::log_in(&world.node).await;
    let (name, cookie) = browser.cookie().split_once('=').unwrap();
    assert!(!world.may_look(cookie).await);
    let page = world.node.get("/admin").header("cookie", format!("{name}={token}")).send().await.unwrap();
    assert_eq!(page.status(), 303);
    let access = said(world.node.get("/admin/api/access").bearer_auth(&token)).await.body;
    let sessions: Vec<_> = access["sessions"].as_array().unwrap().iter().collect();
    let kinds: HashSet<_> = sessions.iter().map(|one| (one["via"].as_str(), one["is_this"].as_bool())).collect();
    assert_eq!(kinds, HashSet::from([(Some("page"), Some(false)), (Some("api"), Some(true))]));
    assert!(!access.to_string().contains(&token) && !access.to_string().contains(cookie));

    world.clock.step(Duration::from_secs(3600 - 30));
    assert!(world.may_look(&token).await);
    world.clock.step(Duration::from_secs(30));
    assert!(!world.may_look(&token).await, "an hour is over");

    let token = world.session().await;
    let out = said(world.node.post("/admin/api/logout").bearer_auth(&token)).await;
    assert_eq!((out.status, &out.body["ok"]), (200, &json!(true)));
    assert!(!world.may_look(&token).await);
    for body in ["{", "{}", r#"{"password": 1}"#] {
        let request = world.node.post("/admin/api/login").header("content-type", "application/json").body(body);
        assert_eq!(said(request).await.status, 400, "{body}");
    }
    assert_eq!(said(world.node.post("/admin/api/login").body("x")).await.status, 415);
    world.node.finish().await;
}

/// Who guesses keeps nobody out but themselves, and for a while strangers.
#[tokio::test(flavor = "multi_thread")]
async fn the_operator_gets_in_while_strangers_guess() {
    let world = World::new(&[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let from = async |address: &str, password: &str| {
        let login = world.node.post("/admin/api/login").header("x-forwarded-for", address);
        said(login.json(&json!({ "password": password }))).await
    };
    let home = "9.9.9.9";
    assert_eq!(from(home, PASSWORD).await.status, 200);
    // Ten minutes long, once a second.
    let mut guesses = 0;
    for _ in 0..600 {
        world.clock.step(Duration::from_secs(1));
        let status = from("8.8.8.8", "wrong").await.status;
        assert!([401, 429].contains(&status), "{status}");
        guesses += u32::from(status == 401);
    }
    assert_eq!(guesses, 10, "each has to wait twice as long");
    assert_eq!(from("1.1.1.1", PASSWORD).await.status, 200, "nobody has been here, and nobody was in the way");
    // New addresses are no new guesses.
    let number = AtomicU8::new(0);
    let stranger = || format!("5.5.5.{}", number.fetch_add(1, Ordering::Relaxed));
    let wrong = world.guess(async || from(&stranger(), "wrong").await).await;
    assert_eq!(wrong.status, 401);
    let early = from(&stranger(), PASSWORD).await;
    assert_eq!((early.status, early.text("code")), (429, "too_many_attempts".to_owned()));
    assert!(early.retry_after.is_some());
    // Who has been here is no stranger, and neither is the machine itself.
    assert_eq!(from(home, PASSWORD).await.status, 200);
    assert_eq!(world.log_in(PASSWORD).await.status, 200);
    assert_eq!(from(&stranger(), PASSWORD).await.status, 429, "that helps no stranger");
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_and_may_what_its_scopes_say() {
    let world = World::new(&[]).await;
    let session = world.session().await;
    let made = world.make_token(&session, "statistics", &["read"], Some(1)).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let (reader, id) = (made.text("token"), made.text("id"));
    assert!(reader.starts_with("coinslot_") && reader.len() > 50);
    assert!(world.may_look(&reader).await);
    let listed = said(world.node.get("/admin/api/cli-tokens").bearer_auth(&session)).await.body;
    assert_eq!(listed[0]["name"], "statistics");
    assert!(listed[0]["last_used_at"].is_i64(), "{listed}");
    assert!(!listed.to_string().contains(&reader));
    let hashes = world.stored("SELECT token_hash FROM admin_tokens").await;
    assert!(hashes.iter().all(|hash| hash.len() == 64 && !reader.contains(hash)));

    // Who may read can neither change anything nor make itself another token.
    let refused = world.make_token(&reader, "more", &["read"], None).await;
    assert_eq!((refused.status, refused.text("code")), (403, "forbidden".to_owned()));
    let everywhere = world.node.delete("/admin/api/access").bearer_auth(&reader).send().await.unwrap();
    assert_eq!(everywhere.status(), 403);
    let manager = world.make_token(&session, "manager", &["read", "manage"], None).await.text("token");
    assert_eq!(world.make_token(&manager, "rich", &["money"], None).await.status, 403);
    assert_eq!(world.make_token(&manager, "poor", &["read"], None).await.status, 201);
    assert_eq!(said(world.node.post("/admin/api/logout").bearer_auth(&manager)).await.status, 409);
    // One that ends leaves none behind that goes on.
    let brief = world.make_token(&session, "brief", &["read", "manage"], Some(1)).await;
    for days in [None, Some(2), Some(3_650)] {
        let heir = world.make_token(&brief.text("token"), "heir", &["read"], days).await;
        assert_eq!((heir.status, &heir.body["expires_at"]), (201, &brief.body["expires_at"]), "{days:?}");
    }
    assert!(brief.body["expires_at"].is_i64(), "{}", brief.body);

    for (name, scopes, days) in [
        ("", &["read"][..], None),
        ("a\u{0}b", &["read"], None),
        (&*"x".repeat(65), &["read"], None),
        ("x", &[], None),
        ("x", &["read", "all"], None),
        ("x", &["read"], Some(0)),
        ("x", &["read"], Some(100_000)),
    ] {
        assert_eq!(world.make_token(&session, name, scopes, days).await.status, 400, "{name:?} {scopes:?} {days:?}");
    }
    world.clock.step(Duration::from_secs(24 * 3600));
    assert!(!world.may_look(&reader).await, "a day is over");
    assert!(world.may_look(&manager).await);
    for (id, status) in [(id.as_str(), 200), (&id, 404), ("%00", 400), ("none", 404)] {
        let path = format!("/admin/api/cli-tokens/{id}");
        assert_eq!(said(world.node.delete(&path).bearer_auth(&manager)).await.status, status, "{id}");
    }
    let acts = world.acts().await;
    assert_eq!(acts.iter().filter(|act| **act == "password: tokens.create").count(), 3, "{acts:?}");
    assert!(acts.contains(&"token manager: tokens.revoke".to_owned()), "{acts:?}");
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_makes_tokens_and_logs_everybody_out() {
    let npub = Keys::generate().public_key().to_bech32().unwrap();
    let world = World::new(&[("ADMIN_NPUBS", &npub)]).await;
    assert_eq!(world.node.get("/admin/access").send().await.unwrap().status(), 303, "only for the operator");
    let browser = Browser::log_in(&world.node).await;
    let page = browser.page_at("/admin/access").await;
    assert!(page.contains("There is no token.") && page.contains(&npub), "{page}");
    assert!(page.contains("the environment wins"), "{page}");
    let token = csrf(&page);
    let form = [("csrf", &*token), ("name", "<b>mine"), ("read", "1"), ("money", "1"), ("days", "")];
    assert_eq!(
        browser.post("/admin/access/tokens", &[("csrf", "x"), ("name", "a"), ("read", "1")]).await.status(),
        403
    );
    assert_eq!(browser.post("/admin/access/tokens", &[("csrf", &token), ("name", "a")]).await.status(), 400);
    let made = browser.post("/admin/access/tokens", &form).await.text().await.unwrap();
    let secret = made.split_once("<code class=\"secret\">").unwrap().1.split_once('<').unwrap().0.to_owned();
    assert!(made.contains("&#60;b&#62;mine") && !made.contains("<b>"), "{made}");
    assert!(world.may_look(&secret).await);
    let page = browser.page_at("/admin/access").await;
    assert!(page.contains("read, money") && !page.contains(&secret), "{page}");
    let id = page.split_once("name=\"id\" value=\"").unwrap().1.split_once('"').unwrap().0;
    let revoked = browser.post("/admin/access/tokens/revoke", &[("csrf", &token), ("id", id)]).await;
    assert_eq!(revoked.status(), 303);
    assert!(!world.may_look(&secret).await);
    let twice = browser.post("/admin/access/tokens/revoke", &[("csrf", &token), ("id", id)]).await;
    assert_eq!(twice.status(), 404);

    let session = world.session().await;
    assert_eq!(browser.post("/admin/access/log-out", &[("csrf", "x")]).await.status(), 403);
    assert!(world.may_look(&session).await);
    let out = browser.post("/admin/access/log-out", &[("csrf", &token)]).await;
    assert_eq!((out.status().as_u16(), out.headers()["location"].to_str().unwrap()), (303, "/admin/login"));
    assert!(!world.may_look(&session).await);
    let gone = world.node.get("/admin").header("cookie", browser.cookie()).send().await.unwrap();
    assert_eq!(gone.status(), 303);
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_is_changed_where_the_environment_does_not_say_it() {
    let world = World::new(&[("ADMIN_PASSWORD", "")]).await;
    let old = world.node.running().generated_password().unwrap().expose().to_owned();
    let (session, other) = (world.log_in(&old).await.text("token"), world.log_in(&old).await.text("token"));
    let browser = Browser::with_password(&world.node, &old).await;
    let change = async |old: &str, new: &str| {
        let call = json!({ "old_password": old, "new_password": new });
        said(world.node.patch("/admin/api/password").bearer_auth(&session).json(&call)).await
    };
    let new = "a better password";
    for weak in ["tooshort1", "passwordpassword", "aaaaaaaaaaaaaa"] {
        let refused = change(&old, weak).await;
        assert_eq!(refused.status, 400, "{weak}");
        assert!(!refused.body.to_string().contains(weak));
    }
    assert_eq!(world.guess(async || change("not the old one", new).await).await.status, 401);
    assert_eq!(change(&old, new).await.status, 429);
    world.clock.step(Duration::from_secs(32));
    assert_eq!(change(&old, new).await.status, 200);
    // All sessions have ended but the one that asked.
    assert!(world.may_look(&session).await && !world.may_look(&other).await);
    let page = world.node.get("/admin").header("cookie", browser.cookie()).send().await.unwrap();
    assert_eq!(page.status(), 303);
    assert_eq!(world.log_in(&old).await.status, 401);
    world.clock.step(Duration::from_secs(1));

    let browser = Browser::with_password(&world.node, new).await;
    let token = csrf(&browser.page_at("/admin/access").await);
    let newest = "the newest password";
    let form = |old, again| [("csrf", token.clone()), ("old", old), ("new", newest.to_owned()), ("again", again)];
    let send = async |form: [(&str, String); 4]| {
        let pairs: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        browser.post("/admin/access/password", &pairs).await
    };
    assert_eq!(send(form(new.to_owned(), "another one".to_owned())).await.status(), 400);
    let changed = send(form(new.to_owned(), newest.to_owned())).await;
    assert_eq!(changed.status(), 200);
    assert!(changed.text().await.unwrap().contains("The password is changed"));
    assert!(!world.may_look(&session).await);
    let of_newest = world.log_in(newest).await.text("token");
    let acts = world.acts().await;
    assert_eq!(acts, ["password: access.password", "password: access.password"]);
    let stored = world.stored("SELECT value FROM settings WHERE name = 'admin_password_hash'").await;
    assert!(stored[0].starts_with("$argon2id$"), "{stored:?}");

    // Where the environment says it, it wins, and who came in by another one is out.
    let (cookie, mut world) = (browser.cookie().to_owned(), world);
    let opens = async |world: &World| world.node.get("/admin").header("cookie", &cookie).send().await.unwrap().status();
    assert!(world.may_look(&of_newest).await && opens(&world).await == 200);
    world.node.restart_with("ADMIN_PASSWORD", PASSWORD).await;
    assert!(!world.may_look(&of_newest).await && opens(&world).await == 303);
    let session = world.session().await;
    world.node.restart().await;
    assert!(world.may_look(&session).await, "it is the same password");
    world.node.restart_with("ADMIN_PASSWORD", "another of the operator").await;
    assert!(!world.may_look(&session).await);
    let session = world.log_in("another of the operator").await.text("token");
    world.node.restart_with("ADMIN_PASSWORD", "").await;
    assert!(!world.may_look(&session).await);
    world.node.restart_with("ADMIN_PASSWORD", PASSWORD).await;
    let session = world.session().await;
    let call = json!({ "old_password": PASSWORD, "new_password": new });
    let refused = said(world.node.patch("/admin/api/password").bearer_auth(&session).json(&call)).await;
    assert_eq!(refused.status, 409);
    assert!(refused.text("detail").contains("ADMIN_PASSWORD is set"), "{}", refused.body);
    world.node.finish().await;
}

/// A signed login, as `Authorization` has it.
fn signed(keys: &Keys, at_ms: i64, url: &str, method: &str, salt: &str) -> String {
    let tags = [["u", url], ["method", method]].map(|tag| Tag::parse(tag).unwrap());
    let at = Timestamp::from_secs(at_ms.unsigned_abs() / 1000);
    let event = EventBuilder::new(Kind::from_u16(27_235), salt).tags(tags).custom_created_at(at);
    STANDARD.encode(event.sign_with_keys(keys).unwrap().as_json())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_listed_logs_in_by_a_signature_once() {
    let (keys, other) = (Keys::generate(), Keys::generate());
    let npub = keys.public_key().to_bech32().unwrap();
    let mut world = World::new(&[("ADMIN_NPUBS", &npub), ("HTTP_URL", "https://node.example")]).await;
    let send = async |node: &TestNode, encoded: &str| {
        said(node.post("/admin/api/login").header("authorization", format!("Nostr {encoded}"))).await
    };
    let now = world.clock.now_ms();
    let here = format!("{}/admin/api/login", world.node.url());
    let good = signed(&keys, now, "https://node.example/admin/api/login", "POST", "");
    let entered = send(&world.node, &good).await;
    assert_eq!(entered.status, 200, "{}", entered.body);
    let token = entered.text("token");
    let access = said(world.node.get("/admin/api/access").bearer_auth(&token)).await.body;
    assert_eq!(access["sessions"][0]["actor"], npub);
    assert_eq!(send(&world.node, &signed(&keys, now, &here, "POST", "")).await.status, 200);

    for (encoded, why) in [
        (good.clone(), "used before"),
        (signed(&other, now, &here, "POST", ""), "not in ADMIN_NPUBS"),
        (signed(&keys, now, "https://evil.example/admin/api/login", "POST", ""), "another address"),
        (signed(&keys, now, &here.replace("/api/login", "/login/nostr"), "POST", ""), "another address"),
        (signed(&keys, now, &here, "GET", ""), "another method"),
        (signed(&keys, now - 120_000, &here, "POST", ""), "last minute"),
        (signed(&keys, now + 120_000, &here, "POST", ""), "last minute"),
        ("bm9uc2Vuc2U=".to_owned(), "no Nostr event"),
    ] {
        let refused = send(&world.node, &encoded).await;
        assert_eq!(refused.status, 401, "{why}");
        assert!(refused.text("detail").contains(why), "{why}: {}", refused.body);
    }
    // No cookie, no Host and no restart make it good again.
    world.node.restart().await;
    assert_eq!(send(&world.node, &good).await.status, 401);
    assert_eq!(world.stored("SELECT id FROM login_events").await.len(), 2);

    // What was signed by mistake does not slow down the password.
    assert_eq!(world.log_in(PASSWORD).await.status, 200);
    world.clock.step(Duration::from_secs(200));
    let late = signed(&keys, world.clock.now_ms(), "https://node.example/admin/api/login", "POST", "");
    assert_eq!(send(&world.node, &late).await.status, 200);
    assert_eq!(world.stored("SELECT id FROM login_events").await.len(), 1, "what has passed is forgotten");

    // Who is listed no more is out with the next start, and whoever has the password stays.
    let by_password = world.session().await;
    assert!(world.may_look(&token).await);
    world.node.restart_with("ADMIN_NPUBS", &other.public_key().to_bech32().unwrap()).await;
    assert!(!world.may_look(&token).await && world.may_look(&by_password).await);
    let access = said(world.node.get("/admin/api/access").bearer_auth(&by_password)).await.body;
    assert!(!access.to_string().contains(&npub), "{access}");
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_login_page_has_a_script_only_where_somebody_may_sign() {
    let keys = Keys::generate();
    let mut world = World::new(&[("ADMIN_NPUBS", &keys.public_key().to_bech32().unwrap())]).await;
    let page = world.node.get("/admin/login").send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
    let cookie = page.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let html = page.text().await.unwrap();
    assert!(html.contains("<script src=\"/admin/login.js\" defer></script>"), "{html}");
    let script = world.node.get("/admin/login.js").send().await.unwrap();
    assert_eq!(script.headers()["content-type"], "text/javascript; charset=utf-8");
    assert!(script.text().await.unwrap().contains("window.nostr"));

    let send = async |event: &str, csrf: &str, origin: &str| {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.extend_pairs([("csrf", csrf), ("event", event)]);
        let request = world.node.post("/admin/login/nostr").header("cookie", &cookie).header("origin", origin);
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(body.finish());
        request.send().await.unwrap()
    };
    let here = format!("{}/admin/login/nostr", world.node.url());
    let event = signed(&keys, world.clock.now_ms(), &here, "POST", "");
    let origin = world.node.url();
    assert_eq!(send(&event, &csrf(&html), "https://evil.example").await.status(), 403);
    assert_eq!(send(&event, "x", &origin).await.status(), 403);
    assert_eq!(send("x", &csrf(&html), &origin).await.status(), 401);
    let entered = send(&event, &csrf(&html), &origin).await;
    assert_eq!((entered.status().as_u16(), entered.headers()["location"].to_str().unwrap()), (303, "/admin"));
    let again = send(&event, &csrf(&html), &origin).await;
    assert_eq!(again.status(), 401);
    assert!(again.text().await.unwrap().contains("used before"));
    let lines = entered.headers().get_all("set-cookie").iter().map(|line| line.to_str().unwrap());
    let session = lines.filter_map(|line| line.split(';').next()).find(|line| line.starts_with("coinslot_session="));
    let opens = async |world: &World| {
        world.node.get("/admin").header("cookie", session.unwrap()).send().await.unwrap().status().as_u16()
    };
    assert_eq!(opens(&world).await, 200);
    world.node.restart_with("ADMIN_NPUBS", "").await;
    assert_eq!(opens(&world).await, 303, "whose session it is may not log in any more");
    world.node.finish().await;

    let world = World::new(&[]).await;
    let page = world.node.get("/admin/login").send().await.unwrap();
    assert!(!page.headers()["content-security-policy"].to_str().unwrap().contains("script"));
    assert!(!page.text().await.unwrap().contains("<script"));
    let refused = said(world.node.post("/admin/api/login").header("authorization", "Nostr x")).await;
    assert!(refused.status == 401 && refused.text("detail").contains("ADMIN_NPUBS is not set"), "{}", refused.body);
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_side_has_a_door_of_its_own() {
    let more = [("ADMIN_LISTEN", "127.0.0.1:0"), ("METRICS_TOKEN", "a-metrics-token-of-16")];
    let world = World::new(&more).await;
    let own = format!("http://{}", world.node.running().admin_address());
    assert_ne!(own, world.node.url());
    for path in
        ["/admin", "/admin/", "/admin/login", "/admin/api/access", "/admin/style.css", "/admin/metrics", "/metrics"]
    {
        let public = world.node.get(path).bearer_auth("a-metrics-token-of-16").send().await.unwrap();
        assert_eq!(public.status(), 404, "{path}");
    }
    let posted = world.node.post("/admin/api/login").json(&json!({ "password": PASSWORD })).send().await.unwrap();
    assert_eq!(posted.status(), 404);
    let entered = said(client().post(format!("{own}/admin/api/login")).json(&json!({ "password": PASSWORD }))).await;
    assert_eq!(entered.status, 200);
    assert_eq!(client().get(format!("{own}/admin/login")).send().await.unwrap().status(), 200);
    let metrics = client().get(format!("{own}/metrics")).bearer_auth("a-metrics-token-of-16").send().await.unwrap();
    assert_eq!(metrics.status(), 200);
    for path in ["/v1/models", "/v1/info", "/", "/healthz", "/v1/chat/completions"] {
        assert_eq!(client().get(format!("{own}{path}")).send().await.unwrap().status(), 404, "{path}");
    }
    // Each door describes what is behind it.
    let paths = async |url: String| {
        let document: Value = client().get(format!("{url}/openapi.json")).send().await.unwrap().json().await.unwrap();
        document["paths"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    let (public, operators) = (paths(world.node.url()).await, paths(own).await);
    assert!(public.iter().any(|path| path == "/v1/chat/completions"));
    assert!(!public.iter().any(|path| path.starts_with("/admin") || path == "/metrics"), "{public:?}");
    assert!(operators.iter().any(|path| path == "/admin/api/login"));
    assert!(!operators.iter().any(|path| path.starts_with("/v1")), "{operators:?}");
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_resets_the_password_and_makes_tokens() {
    let mut world = World::new(&[("ADMIN_PASSWORD", "")]).await;
    let old = world.node.running().generated_password().unwrap().expose().to_owned();
    let session = world.log_in(&old).await.text("token");
    let (code, said) = world.command(&["reset-password"]);
    assert_eq!(code, Some(0), "{said}");
    let new = said.split_once("password is ").unwrap().1.lines().next().unwrap().to_owned();
    assert!(new.len() >= 30 && new != old);
    assert!(!world.may_look(&session).await, "all sessions have ended");
    assert_eq!(world.log_in(&new).await.status, 200);
    assert_eq!(world.log_in(&old).await.status, 401);

    let (_, said) = world.command(&["tokens", "list"]);
    assert_eq!(said, "no token was made yet\n");
    let (code, made) =
        world.command(&["tokens", "create", "backups", "--scope", "read", "--scope", "money", "--days", "2", "--json"]);
    let made: Value = serde_json::from_str(&made).unwrap_or_else(|_| panic!("{code:?} {made}"));
    assert_eq!((code, &made["scopes"]), (Some(0), &json!(["read", "money"])));
    let token = made["token"].as_str().unwrap();
    assert!(world.may_look(token).await);
    let (_, listed) = world.command(&["tokens", "list"]);
    assert!(listed.contains("backups") && listed.contains("read money") && !listed.contains(token), "{listed}");
    assert_eq!(world.command(&["tokens", "create", "x", "--scope", "all"]).0, Some(1));
    assert_eq!(world.command(&["tokens", "revoke", made["id"].as_str().unwrap()]).0, Some(0));
    assert!(!world.may_look(token).await);
    assert_eq!(world.command(&["tokens", "revoke", "none"]).0, Some(1));
    assert_eq!(world.command(&["tokens"]).0, Some(2));
    let acts = world.acts().await;
    let wanted = ["access.password", "tokens.create", "tokens.revoke"].map(|act| format!("cli: {act}"));
    assert_eq!(acts, wanted);

    world.node.restart_with("ADMIN_PASSWORD", PASSWORD).await;
    let (code, said) = world.command(&["reset-password"]);
    assert!(code == Some(1) && said.contains("ADMIN_PASSWORD is set"), "{said}");
    world.node.finish().await;
}
