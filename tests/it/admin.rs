//! The operator's pages, driven as a browser would.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use coinslot::admin::{AdminState, OnNostr, ensure_password, router};
use coinslot::catalog::import::Importer;
use coinslot::catalog::rivals::Rivals;
use coinslot::catalog::route::Market;
use coinslot::clock::{Clock, SharedClock};
use coinslot::config::{Clients, KeyLimits, Secret};
use coinslot::exchange::{Deliveries, Exchange, Maintenance, Replays, Settings};
use coinslot::ledger::{AccountId, AccountKind, Ledger, TransferKind, account, repo};
use coinslot::money::{Cost, MintUnit, Msat, Usage};
use coinslot::net;
use coinslot::net::dialer::Dialer;
use coinslot::nostr::{Announcer, Caller, Directory, Identity, Listing};
use coinslot::openapi::{About, publish};
use coinslot::payment::payer::Till;
use coinslot::payment::throttle::KeyThrottle;
use coinslot::price::PriceBook;
use coinslot::store::{Durability, Store};
use coinslot::vault::Vault;
use coinslot::wallet::{Options, Seed, Wallet};
use nostr::{EventBuilder, JsonUtil, Keys, Kind, Tag, Timestamp};
use sha2::{Digest, Sha256};
use sqlx::Row;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::support::clock::Stepped;
use crate::support::relay::{FakeRelay, Manner};

const START_MS: i64 = 1_790_000_000_000;
const PASSWORD: &str = "correct horse";
const MINT: &str = "https://mint.example";
const HOST: &str = "127.0.0.1:8000";
/// What the node is called elsewhere.
const FAR: &str = "node.example";

/// A node's admin pages over a store of their own.
struct House {
    app: Router,
    clock: Arc<Stepped>,
    ledger: Ledger,
    network: OnNostr,
    _tasks: JoinSet<()>,
    _dir: TempDir,
}

/// What a request got.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn location(&self) -> &str {
        self.headers[header::LOCATION].to_str().unwrap()
    }

    fn set_cookie(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.get_all(header::SET_COOKIE).iter().map(|line| line.to_str().unwrap());
        lines.find(|line| line.starts_with(&format!("{name}=")))
    }

    /// `name=value`, as the browser sends it back.
    fn cookie(&self, name: &str) -> String {
        self.set_cookie(name).expect(name).split(';').next().unwrap().to_owned()
    }

    fn csrf(&self) -> String {
        let rest = self.text.split_once(r#"name="csrf" value=""#).expect("a form token").1;
        rest.split_once('"').unwrap().0.to_owned()
    }
}

impl House {
    async fn open(configured: Option<&str>, name: &str) -> Self {
        Self::build(configured, name, &[], &[]).await
    }

    async fn build(configured: Option<&str>, name: &str, relays: &[String], npubs: &[&str]) -> Self {
        Self::build_in_tor(configured, name, relays, npubs, "").await
    }

    /// A tor daemon brings visitors of this address; empty: there is none.
    async fn build_in_tor(
        configured: Option<&str>,
        name: &str,
        relays: &[String],
        npubs: &[&str],
        onion: &str,
    ) -> Self {
        net::install_crypto();
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), None, false).await.unwrap();
        let clock = Stepped::at(START_MS);
        let shared: SharedClock = clock.clone();
        let (ledger, writer) = Ledger::open(store.clone(), shared.clone(), "a node".into()).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(writer);
        let options = Options {
            mints: vec![MINT.into()],
            unit: MintUnit::Sat,
            timeout: Duration::from_secs(1),
            concurrency: 1,
            calls_per_minute: std::iter::once((MINT.into(), 20)).collect(),
            seed: Seed::new([7; 64]),
            ladder_coins: 0,
            lightning_fee_percent: 3,
            strangers: net::public::Reach::Public,
            to_strangers: net::way::Way::default(),
            foreign_fee_percent: None,
        };
        let client = net::client(&net::ClientOptions::default()).unwrap();
        let wallet = Wallet::open(ledger.clone(), options, &client).await.unwrap();
        let secret = configured.map(|text| Secret::new(text.to_owned()));
        let vault = Vault::open(dir.path(), Some(&Secret::new("a secret".into()))).unwrap();
        let upstreams = coinslot::config::Config::from_vars(&std::collections::BTreeMap::new()).unwrap().upstreams;
        let pool = coinslot::upstream::Pool::open(&upstreams, &store, &vault, &net::way::Way::default(), &shared)
            .await
            .unwrap();
        let vars = std::collections::BTreeMap::from([("NAME".to_owned(), name.to_owned())]);
        let config = coinslot::config::Config::from_vars(&vars).unwrap();
        let pricing = config.pricing.clone();
        let loaded = coinslot::catalog::file::load(&dir.path().join("models.json")).unwrap();
        let importer = Importer::new(
            store.clone(),
            Arc::clone(&pool),
            Arc::clone(&shared),
            &pricing,
            &net::way::Way::default(),
            &loaded,
        )
        .unwrap();
        let network = on_nostr(&store, &shared, relays);
        let book = Arc::new(PriceBook::from_config(&pricing, &net::way::Way::default(), shared.clone()).unwrap());
        let importer = Arc::new(importer);
        let till = Till::new(wallet.clone(), vault.clone(), Msat::ZERO, Clients::default());
        let exchange = Exchange {
            market: Market::new(importer.shelf().clone(), book, pricing, shared.clone()),
            importer: importer.clone(),
            tariffs_version: Mutex::default(),
            till: till.clone(),
            ledger: ledger.clone(),
            pool: pool.clone(),
            settings: Settings::of(config),
            maintenance: Maintenance::new(None),
            throttle: KeyThrottle::new(KeyLimits::default(), shared.clone()),
            tracker: TaskTracker::new(),
            deliveries: Deliveries::default(),
            keep_alive: None,
            drains: Exchange::drain_permits(),
            replays: Replays::new(ledger.clone(), vault, 1 << 30),
            identity: Identity::throwaway().unwrap(),
            metrics: Arc::default(),
            traces: None,
            traffic: Arc::default(),
            ongoing: Arc::default(),
        };
        let state = AdminState {
            exchange: Arc::new(exchange),
            network: network.clone(),
            ledger: ledger.clone(),
            pool,
            importer,
            till,
            wallet,
            password: ensure_password(&store, &shared, secret.as_ref()).await.unwrap().password,
            version: "0.0.0-test",
            npubs: npubs.iter().map(|npub| (*npub).to_owned()).collect(),
            origins: [format!("https://{FAR}")].into(),
            audit: coinslot::audit::Latest::default(),
            onion: coinslot::tor::Onion::given(onion),
        };
        let about = About { name: "a node", description: "", version: "0.0.0-test" };
        Self { app: publish(router(state), about), clock, ledger, network, _tasks: tasks, _dir: dir }
    }

    async fn usual() -> Self {
        Self::open(Some(PASSWORD), "a node").await
    }

    fn step(&self, by: Duration) {
        self.clock.step(i64::try_from(by.as_millis()).unwrap());
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
        ] {
            assert_eq!(parts.headers[name], value);
        }
        let policy = parts.headers["content-security-policy"].to_str().unwrap();
        for rule in ["default-src 'none'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(policy.contains(rule), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        // The overview has one script, of this node's.
        assert!(
            !policy.replacen("script-src 'self';", "", usize::from(text.contains("/admin/live.js"))).contains("script")
        );
        Answer { status: parts.status, headers: parts.headers, text }
    }

    fn request(&self, request: axum::http::request::Builder, host: &str, cookie: &str) -> axum::http::request::Builder {
        request.header(header::HOST, host).header(header::COOKIE, cookie)
    }

    async fn get(&self, path: &str, cookie: &str) -> Answer {
        self.get_at(HOST, path, cookie).await
    }

    async fn get_at(&self, host: &str, path: &str, cookie: &str) -> Answer {
        let request = Request::get(path).header(header::HOST, host).header(header::COOKIE, cookie);
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, cookie: &str, form: &[(&str, &str)]) -> Answer {
        self.post_from(&format!("http://{HOST}"), path, cookie, form).await
    }

    async fn post_from(&self, origin: &str, path: &str, cookie: &str, form: &[(&str, &str)]) -> Answer {
        self.post_at(HOST, origin, path, cookie, form).await
    }

    async fn post_at(&self, host: &str, origin: &str, path: &str, cookie: &str, form: &[(&str, &str)]) -> Answer {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let request = Request::post(path)
            .header(header::HOST, host)
            .header(header::ORIGIN, origin)
            .header(header::COOKIE, cookie)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(body.finish())).unwrap()).await
    }

    /// Fills in the login form.
    async fn try_password(&self, password: &str) -> Answer {
        self.try_password_at(HOST, password).await
    }

    async fn try_password_at(&self, host: &str, password: &str) -> Answer {
        let page = self.get_at(host, "/admin/login", "").await;
        let form = [("csrf", &*page.csrf()), ("password", password)];
        let cookie = page.cookie("coinslot_login");
        self.post_at(host, &format!("http://{host}"), "/admin/login", &cookie, &form).await
    }

    /// The session's cookie.
    async fn log_in(&self) -> String {
        let answer = self.try_password(PASSWORD).await;
        assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, "/admin"));
        answer.cookie("coinslot_session")
    }

    async fn sessions(&self) -> Vec<String> {
        let rows = sqlx::query("SELECT id_hash FROM sessions").fetch_all(self.ledger.store().read()).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn assert_logged_out(&self, cookie: &str) {
        let answer = self.get("/admin", cookie).await;
        assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, "/admin/login"));
    }

    /// Posts to the ledger without any ecash behind it.
    async fn credit(&self, key_hash: &str, mint: &str, msat: u64) -> AccountId {
        let (ledger, now) = (&self.ledger, self.clock.now_ms());
        let mut tx = ledger.store().begin(Durability::Full).await.unwrap();
        let house = account::house_account(&mut tx, ledger.next_id(), AccountKind::Mint, mint, "sat", now);
        let house = house.await.unwrap();
        let id = ledger.next_id();
        let client = repo::ensure_client(&mut tx, id, AccountKind::Key, key_hash, mint, "sat", now).await.unwrap();
        let transfer = repo::Transfer {
            id: ledger.next_id(),
            debit: house,
            credit: client.id,
            amount: Msat::new(msat).unwrap(),
            kind: TransferKind::Redeem,
            reference: "a test",
        };
        repo::transfer(&mut tx, transfer, now).await.unwrap();
        tx.commit().await.unwrap();
        client.id
    }

    async fn charge(&self, account: AccountId, msat: u64) {
        let hold = self.ledger.hold(account, Msat::new(msat).unwrap(), "a request").await.unwrap();
        let mut cost = Cost::new(Usage::default(), None);
        cost.total = Msat::new(msat).unwrap();
        hold.capture(cost).await.unwrap();
    }

    /// Presses the button, and looks at the page.
    async fn proven(&self, session: &str) -> String {
        let csrf = self.get("/admin", session).await.csrf();
        let answer = self.post("/admin/prove", session, &[("csrf", &csrf)]).await;
        assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, "/admin"));
        self.get("/admin", session).await.text
    }

    async fn execute(&self, sql: &'static str) {
        let mut tx = self.ledger.store().begin(Durability::Full).await.unwrap();
        sqlx::query(sql).execute(tx.hand()).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn the_right_password_opens_the_overview_and_a_wrong_one_does_not() {
    let house = House::usual().await;
    house.assert_logged_out("").await;
    house.assert_logged_out("coinslot_session=made-up").await;

    let wrong = house.try_password("wrong").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert!(wrong.set_cookie("coinslot_session").is_none());
    assert!(wrong.text.contains("That is not the password."));
    assert!(house.sessions().await.is_empty());

    house.step(Duration::from_secs(1));
    let right = house.try_password(PASSWORD).await;
    let line = right.set_cookie("coinslot_session").unwrap();
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/admin", "; Max-Age=86400"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!line.contains("Secure"), "{line}");
    let cookie = right.cookie("coinslot_session");
    let value = cookie.split_once('=').unwrap().1;
    assert!(house.sessions().await.iter().all(|hash| hash.len() == 64 && !hash.contains(value)));

    assert_eq!(house.get("/admin", &cookie).await.status, StatusCode::OK);
    let again = house.get("/admin/login", &cookie).await;
    assert_eq!((again.status, again.location()), (StatusCode::SEE_OTHER, "/admin"));
}

#[tokio::test]
async fn cookies_insist_on_https_but_on_this_machine_and_in_tor() {
    let house = House::usual().await;
    let onion = format!("{}.onion", "a".repeat(56));
    for (scheme, host, secure) in
        [("https", FAR, true), ("http", &*onion, false), ("http", "[::1]:8000", false), ("https", "localhost", true)]
    {
        let origin = format!("{scheme}://{host}");
        let form = house.send(house.request(Request::get("/admin/login"), host, "").body(Body::empty()).unwrap()).await;
        let body = format!("csrf={}&password={}", form.csrf(), PASSWORD.replace(' ', "+"));
        let request = house.request(Request::post("/admin/login"), host, &form.cookie("coinslot_login"));
        let request = request.header(header::ORIGIN, &origin);
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let answer = house.send(request.body(Body::from(body)).unwrap()).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{origin}: {}", answer.text);
        let cookie = answer.set_cookie("coinslot_session").unwrap();
        assert_eq!(cookie.ends_with("; Secure"), secure, "{origin}: {cookie}");
        house.step(Duration::from_secs(60));
    }
    // The browser would lose the cookie on the way, so nobody is let in without a word.
    let form = house.get("/admin/login", "").await;
    let csrf = form.csrf();
    let request = house.request(Request::post("/admin/login"), FAR, &form.cookie("coinslot_login"));
    let request = request.header(header::ORIGIN, format!("http://{FAR}"));
    let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let body = Body::from(format!("csrf={csrf}&password={}", PASSWORD.replace(' ', "+")));
    let answer = house.send(request.body(body).unwrap()).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.text.contains("Nothing encrypts the way") && answer.set_cookie("coinslot_session").is_none());
}

/// Where there is no HTTPS, a cookie that insists on it never comes back.
#[tokio::test]
async fn in_tor_cookies_are_plain_and_strangers_who_guess_delay_only_who_comes_that_way() {
    let onion = "abcdef.onion";
    let house = House::build_in_tor(Some(PASSWORD), "a node", &[], &[], &format!("http://{onion}")).await;
    let wrong = house.try_password_at(onion, "wrong").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert!(wrong.set_cookie("coinslot_login").unwrap().ends_with("Max-Age=3600"));
    assert_eq!(house.try_password_at(onion, PASSWORD).await.status, StatusCode::TOO_MANY_REQUESTS);
    let near = house.try_password("wrong").await;
    assert_eq!(near.status, StatusCode::UNAUTHORIZED, "another door, another delay");
    house.step(Duration::from_secs(1));
    let answer = house.try_password_at(onion, PASSWORD).await;
    assert_eq!(answer.location(), "/admin");
    let session = answer.set_cookie("coinslot_session").unwrap();
    assert!(session.contains("HttpOnly; SameSite=Strict") && !session.contains("Secure"), "{session}");
    let cookie = answer.cookie("coinslot_session");
    let csrf = house.get_at(onion, "/admin", &cookie).await.csrf();
    let form = [("csrf", &*csrf)];
    let out = house.post_at(onion, &format!("http://{onion}"), "/admin/logout", &cookie, &form).await;
    assert!(out.set_cookie("coinslot_session").unwrap().ends_with("Max-Age=0"));
    house.assert_logged_out(&cookie).await;

    // Where no daemon brings anybody, who names an onion came by the usual door.
    let house = House::usual().await;
    assert_eq!(house.try_password_at(onion, "wrong").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(house.try_password(PASSWORD).await.status, StatusCode::TOO_MANY_REQUESTS);
    house.step(Duration::from_secs(1));
    assert_eq!(house.try_password(PASSWORD).await.location(), "/admin");
}

#[tokio::test]
async fn failures_make_the_next_attempt_wait_ever_longer() {
    let house = House::usual().await;
    for seconds in [1_u64, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(house.try_password("wrong").await.status, StatusCode::UNAUTHORIZED);
        // The right one is not even looked at.
        let locked = house.try_password(PASSWORD).await;
        assert_eq!(locked.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(locked.headers[header::RETRY_AFTER], seconds.to_string());
        house.step(Duration::from_millis(seconds * 1000 - 1));
        let locked = house.try_password(PASSWORD).await;
        assert_eq!(locked.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(locked.headers[header::RETRY_AFTER], "1");
        house.step(Duration::from_millis(1));
    }
    house.log_in().await;
    assert_eq!(house.try_password("wrong").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(house.try_password("wrong").await.headers[header::RETRY_AFTER], "1");
}

#[tokio::test]
async fn attempts_that_arrive_together_are_not_free() {
    let house = House::usual().await;
    let attempts = (0..8).map(|_| house.try_password("wrong"));
    let statuses: Vec<_> = futures_util::future::join_all(attempts).await.iter().map(|a| a.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::UNAUTHORIZED).count(), 1, "{statuses:?}");
}

#[tokio::test]
async fn a_form_without_its_token_is_refused() {
    let house = House::usual().await;
    let page = house.get("/admin/login", "").await;
    let (cookie, csrf) = (page.cookie("coinslot_login"), page.csrf());
    let other = house.get("/admin/login", "").await.csrf();
    for (cookie, token) in [("", &*csrf), (&*cookie, ""), (&*cookie, &*other), ("coinslot_login=", "")] {
        let answer = house.post("/admin/login", cookie, &[("csrf", token), ("password", PASSWORD)]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{cookie} {token}");
        assert!(answer.set_cookie("coinslot_session").is_none());
    }
    let missing = house.post("/admin/login", &cookie, &[("password", PASSWORD)]).await;
    assert!(missing.status.is_client_error());

    let session = house.log_in().await;
    for form in [&[][..], &[("csrf", "")], &[("csrf", &*csrf)]] {
        let answer = house.post("/admin/logout", &session, form).await;
        assert!(answer.status.is_client_error(), "{form:?}");
    }
    assert_eq!(house.get("/admin", &session).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_form_from_elsewhere_is_refused() {
    let house = House::usual().await;
    let session = house.log_in().await;
    let csrf = house.get("/admin", &session).await.csrf();
    for origin in ["https://evil.example", "null", "http://node.example", "http://node.example:8000.evil"] {
        let answer = house.post_from(origin, "/admin/logout", &session, &[("csrf", &csrf)]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin}");
        let page = house.get("/admin/login", "").await;
        let form = [("csrf", &*page.csrf()), ("password", PASSWORD)];
        let answer = house.post_from(origin, "/admin/login", &page.cookie("coinslot_login"), &form).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin}");
    }
    assert_eq!(house.get("/admin", &session).await.status, StatusCode::OK);
}

#[tokio::test]
async fn login_takes_no_session_id_from_the_browser() {
    let house = House::usual().await;
    let first = house.log_in().await;
    let page = house.get("/admin/login", "").await;
    let form = [("csrf", &*page.csrf()), ("password", PASSWORD)];
    for planted in ["coinslot_session=planted", &first] {
        let cookies = format!("{planted}; {}", page.cookie("coinslot_login"));
        let answer = house.post("/admin/login", &cookies, &form).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER);
        assert_ne!(answer.cookie("coinslot_session"), planted);
        house.assert_logged_out(planted).await;
    }
    assert_eq!(house.sessions().await.len(), 2);
}

#[tokio::test]
async fn logout_ends_the_session_on_the_server() {
    let house = House::usual().await;
    let (session, other) = (house.log_in().await, house.log_in().await);
    let csrf = house.get("/admin", &session).await.csrf();
    let answer = house.post("/admin/logout", &session, &[("csrf", &csrf)]).await;
    assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, "/admin/login"));
    assert!(answer.set_cookie("coinslot_session").unwrap().contains("Max-Age=0"));
    house.assert_logged_out(&session).await;
    assert_eq!(house.get("/admin", &other).await.status, StatusCode::OK);
    let again = house.post("/admin/logout", &session, &[("csrf", &csrf)]).await;
    assert_eq!(again.location(), "/admin/login");
}

#[tokio::test]
async fn a_session_ends_after_a_day_and_its_row_goes_at_the_next_login() {
    let house = House::usual().await;
    let session = house.log_in().await;
    house.step(Duration::from_secs(24 * 3600 - 1));
    assert_eq!(house.get("/admin", &session).await.status, StatusCode::OK);
    house.step(Duration::from_secs(1));
    house.assert_logged_out(&session).await;
    assert_eq!(house.sessions().await.len(), 1);
    house.log_in().await;
    assert_eq!(house.sessions().await.len(), 1);
    house.assert_logged_out(&session).await;
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_with_the_same_headers() {
    let house = House::usual().await;
    assert_eq!(house.get("/admin/nothing/here", "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(house.get("/admin/", "").await.location(), "/admin");
    assert_eq!(house.get("/admin/logout", "").await.status, StatusCode::METHOD_NOT_ALLOWED);
    let style = house.get("/admin/style.css", "").await;
    assert_eq!(style.headers[header::CONTENT_TYPE], "text/css; charset=utf-8");
    let long = "x".repeat(20_000);
    let page = house.get("/admin/login", "").await;
    let form = [("csrf", &*page.csrf()), ("password", &long)];
    let answer = house.post("/admin/login", &page.cookie("coinslot_login"), &form).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn the_password_is_the_configured_one_or_one_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), None, false).await.unwrap();
    let clock: SharedClock = Stepped::at(START_MS);
    let configured = Secret::new(PASSWORD.to_owned());
    let state = ensure_password(&store, &clock, Some(&configured)).await.unwrap();
    assert!(state.generated.is_none());
    assert_eq!(store.setting("admin_password_hash").await.unwrap(), None);

    // Processes that start together: one learns the password.
    let starts = (0..3).map(|_| ensure_password(&store, &clock, None));
    let made: Vec<_> = futures_util::future::join_all(starts).await.into_iter().map(Result::unwrap).collect();
    let told: Vec<_> = made.iter().filter_map(|state| state.generated.clone()).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].expose().len() >= 30);
    let stored = store.setting("admin_password_hash").await.unwrap().unwrap();
    assert!(stored.starts_with("$argon2id$") && !stored.contains(told[0].expose()));
    let empty = Secret::new(String::new());
    assert!(ensure_password(&store, &clock, Some(&empty)).await.unwrap().generated.is_none());

    store.set_setting("admin_password_hash", "not a hash", START_MS).await.unwrap();
    assert!(ensure_password(&store, &clock, None).await.is_err());
}

#[tokio::test]
async fn the_overview_tells_how_the_node_stands() {
    let house = House::open(Some(PASSWORD), "<script>alert('node')</script>").await;
    let session = house.log_in().await;
    let quiet = house.get("/admin", &session).await.text;
    assert!(quiet.contains("The books were not proven since the node started."), "{quiet}");
    let quiet = house.proven(&session).await;
    assert!(quiet.contains("The books were proven 0 s ago") && !quiet.contains("Needs attention"), "{quiet}");
    assert!(quiet.contains("The node does not sell") && quiet.contains("no upstream is configured"), "{quiet}");
    assert!(quiet.contains("none is unfinished."));

    let rich = house.credit("abcdef0123456789", MINT, 5_000_000_000).await;
    house.credit("0011223344556677", "https://\"><img src=x onerror=alert(1)>", 1_000).await;
    house.charge(rich, 1_000_000).await;
    house.step(Duration::from_secs(24 * 3600));
    let session = house.log_in().await;
    house.charge(rich, 234_567).await;
    let hold = house.ledger.hold(rich, Msat::new(5_500).unwrap(), "running").await.unwrap();
    house
        .execute(
            "INSERT INTO operations (id, kind, state, account, mint, unit, amount, owner, due_at, created_at, updated_at) \
             SELECT 'op', 'redeem', 'acting', id, 'm', 'sat', 1, 'o', 1790000000000, 1790000000000, 1790000000000 \
             FROM accounts WHERE kind = 'income'",
        )
        .await;
    let page = house.proven(&session).await;
    for shown in [
        "4,998,766.433",
        "1,234.567",
        "5.500",
        "running requests (1)",
        "1 d 0 h",
        "2026-09-22T14:13:20Z",
        "is not configured, but the ledger says it holds 1.000 sat",
        "The ecash does not cover what is owed",
        "the proofs are worth 5000000.000 sat less",
        "0.0.0-test",
        "17 of 20",
    ] {
        assert!(page.contains(shown), "{shown} is not in {page}");
    }
    for hidden in ["abcdef012", "<script>", "<img", "style=", "http-equiv"] {
        assert!(!page.contains(hidden), "{hidden} is in {page}");
    }
    hold.release().await.unwrap();

    house.execute("UPDATE accounts SET posted = posted + 5 WHERE key_hash = 'abcdef0123456789'").await;
    let page = house.proven(&session).await;
    assert!(page.contains("The books are not proven") && page.contains("transfers say"), "{page}");
    assert!(page.contains("all accounts together are 5, not 0"), "{page}");
}

fn on_nostr(store: &Store, clock: &SharedClock, relays: &[String]) -> OnNostr {
    let caller = Caller {
        dialer: Dialer::new(&net::ClientOptions::default()).unwrap(),
        identity: Identity::throwaway().unwrap(),
        clock: clock.clone(),
        patience: Duration::from_secs(5),
    };
    let announcer = Announcer::new(store.clone(), caller.clone(), relays.to_vec(), None, "0.0.0-test");
    let npub = caller.identity.npub().to_owned();
    let directory = Directory::new(store.clone(), caller, net::public::Reach::Public, net::way::Way::default());
    let directory = (!relays.is_empty()).then_some(directory);
    let rivals = directory.is_some().then(|| Rivals::new(store.clone(), clock.clone()));
    OnNostr { npub, http_url: "https://node.example.com".into(), announcer, directory, rivals }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_page_tells_how_the_node_appears_and_escapes_what_others_say() {
    let house = House::usual().await;
    let session = house.log_in().await;
    let page = house.get("/admin/network", &session).await.text;
    assert!(page.contains("not on Nostr: RELAYS is not set") && page.contains("does not look for others"), "{page}");
    assert!(page.contains(&house.network.npub));
    assert_eq!(house.get("/admin/network", "").await.location(), "/admin/login");

    let relay = FakeRelay::start(Manner::Refuse("blocked: <b>no</b>")).await;
    let house = House::build(Some(PASSWORD), "a node", &[relay.url()], &[]).await;
    let network = house.network.clone();
    let announcer = &network.announcer;
    let listing = Listing {
        name: "<i>mine</i>".into(),
        about: String::new(),
        urls: vec!["https://node.example.com".into()],
        mints: Vec::new(),
        version: "1".into(),
        models: 1,
        page: None,
    };
    announcer.keep(Some(&listing)).await.unwrap();
    let session = house.log_in().await;
    let page = house.get("/admin/network", &session).await.text;
    assert!(page.contains("no relay has the listing yet") && page.contains("it refused: blocked:"), "{page}");

    let keys = Keys::generate();
    let event = |kind: u16, tags: &[[&str; 2]], content: &str| {
        let tags = tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap());
        let at = Timestamp::from_secs(START_MS.unsigned_abs() / 1000);
        let event = EventBuilder::new(Kind::from_u16(kind), content).tags(tags).custom_created_at(at);
        event.sign_with_keys(&keys).unwrap().as_json()
    };
    let (script, url) = (r#"{"name":"<script>alert(1)</script>"}"#, "https://other.example.com");
    let own = announcer.address();
    relay.behave(Manner::Give(vec![
        event(38421, &[["d", "x"], ["u", url], ["version", "<img src=x>"]], script),
        event(38000, &[["d", "y"], ["k", "38421"], ["a", &own], ["t", "<b>fast"]], ""),
    ]));
    house.step(Duration::from_secs(2 * 3600));
    announcer.keep(Some(&listing)).await.unwrap();
    network.directory.as_ref().unwrap().listen(&relay.url(), std::future::ready(())).await.unwrap();
    let page = house.get("/admin/network", &session).await.text;
    let author = keys.public_key().to_hex();
    for shown in [
        own.as_str(),
        "<p class=\"good\">listed</p>",
        "2026-09-21T16:13:20Z",
        "recommendation",
        author.as_str(),
        "&#60;b&#62;fast",
        url,
        "&#60;script&#62;",
        "2 taken, 0 refused",
        "1 are listed; 0 of them answered",
    ] {
        assert!(page.contains(shown), "{shown} is not in {page}");
    }
    for hidden in ["<script", "<img", "<b>", "<i>", "style="] {
        assert!(!page.contains(hidden), "{hidden} is in {page}");
    }
}

#[tokio::test]
async fn vouchers_are_issued_shown_once_and_revoked() {
    let house = House::usual().await;
    let answer = house.get("/admin/vouchers", "").await;
    assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, "/admin/login"));
    let session = house.log_in().await;
    let earner = house.credit("a client", MINT, 100_000).await;
    house.charge(earner, 60_000).await;
    // Nothing is given away before the books are right.
    let without = house.get("/admin/vouchers", &session).await.csrf();
    let early = [("csrf", &*without), ("batch", "early"), ("sats", "1"), ("count", "1")];
    assert_eq!(house.post("/admin/vouchers", &session, &early).await.status, StatusCode::CONFLICT);
    house
        .execute(
            "INSERT INTO proof (y, mint_url, state, unit, amount, keyset_id, secret, c) VALUES \
             (X'0279BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798', 'https://mint.example', \
             'UNSPENT', 'sat', 100, '00', 'a secret', X'02')",
        )
        .await;
    let page = house.get("/admin/vouchers", &session).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.text.contains("No voucher was issued yet.") && page.text.contains("60.000"), "{}", page.text);
    let csrf = page.csrf();
    let form = |batch: &str, sats: &str, count: &str, csrf: &str| -> Vec<(&'static str, String)> {
        let pairs =
            [("batch", batch), ("sats", sats), ("count", count), ("days", "7"), ("note", "<b>fair"), ("csrf", csrf)];
        pairs.map(|(name, value)| (name, value.to_owned())).to_vec()
    };
    let send = async |form: Vec<(&'static str, String)>| {
        let pairs: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        house.post("/admin/vouchers", &session, &pairs).await
    };
    assert_eq!(send(form("one", "10", "2", "wrong")).await.status, StatusCode::FORBIDDEN);
    assert!(house.ledger.vouchers(10).await.unwrap().is_empty());
    for (sats, count) in [("0", "1"), ("x", "1"), ("1", "101"), ("1", ""), ("31", "2")] {
        let refused = send(form("one", sats, count, &csrf)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{count} of {sats}: {}", refused.text);
        assert!(refused.text.contains(r#"role="alert""#));
    }

    let issued = send(form("one", "10", "2", &csrf)).await;
    assert_eq!(issued.status, StatusCode::OK, "{}", issued.text);
    let codes: Vec<&str> =
        issued.text.split("<li><code>").skip(1).map(|rest| rest.split_once('<').unwrap().0).collect();
    assert_eq!(codes.len(), 2);
    assert!(codes.iter().all(|code| code.starts_with("CS-") && code.len() == 32), "{codes:?}");
    assert!(!issued.text.contains("<b>"), "notes are text");
    // A page that is loaded again issues nothing again.
    let again = send(form("one", "10", "2", &csrf)).await;
    assert!(again.status == StatusCode::CONFLICT && again.text.contains("issued already"), "{}", again.text);
    let listed = house.get("/admin/vouchers", &session).await;
    assert!(codes.iter().all(|code| !listed.text.contains(code) && listed.text.contains(&code[..7])));
    assert_eq!(listed.text.matches("/admin/vouchers/revoke").count(), 2);
    let overview = house.proven(&session).await;
    assert!(overview.contains("promised by") && overview.contains("20.000"), "{overview}");

    let id = house.ledger.vouchers(1).await.unwrap()[0].id.to_string();
    let revoke =
        async |csrf: &str| house.post("/admin/vouchers/revoke", &session, &[("csrf", csrf), ("id", &id)]).await;
    assert_eq!(revoke("wrong").await.status, StatusCode::FORBIDDEN);
    assert_eq!(revoke(&csrf).await.status, StatusCode::SEE_OTHER);
    assert_eq!(revoke(&csrf).await.status, StatusCode::CONFLICT);
    let nothing = house.post("/admin/vouchers/revoke", &session, &[("csrf", &csrf), ("id", "7")]).await;
    assert!(nothing.status == StatusCode::NOT_FOUND && nothing.text.contains("There is no such voucher."));
    // What is promised is said as it is now, whenever the books were proven.
    let overview = house.get("/admin", &session).await.text;
    let promised = overview.split_once("promised by").unwrap().1.split_once("</dd>").unwrap().0;
    assert!(promised.contains("10.000"), "{promised}");
    house.step(Duration::from_secs(8 * 24 * 3600));
    let session = house.log_in().await;
    let over = house.get("/admin/vouchers", &session).await;
    assert!(over.text.contains("expired") && !over.text.contains("/admin/vouchers/revoke"), "{}", over.text);
    let books = house.ledger.books().await.unwrap();
    assert_eq!((books.faults, books.earnings, books.vouchers), (Vec::new(), 50_000, 10_000));
}

impl House {
    /// A call of the API with this bearer token.
    async fn call(&self, method: &str, path: &str, token: &str, body: serde_json::Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// Stores a token for programs, as `/admin` does.
    async fn token(&self, token: &'static str, scopes: &'static str) {
        let hash: String = Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut tx = self.ledger.store().begin(Durability::Full).await.unwrap();
        sqlx::query(
            "INSERT INTO admin_tokens (id, token_hash, name, scopes, created_at) VALUES ($1, $2, 'cron', $3, 1)",
        )
        .bind(token)
        .bind(hash)
        .bind(scopes)
        .execute(tx.hand())
        .await
        .unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_may_what_its_token_says_and_what_it_did_is_in_the_trail() {
    let house = House::usual().await;
    house.token("reader", "read").await;
    house.token("writer", "read manage").await;
    let session = house.log_in().await;

    for (token, cookie) in [("nobody", ""), ("", &*session)] {
        let request = Request::get("/admin/api/upstreams")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::COOKIE, cookie);
        let answer = house.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "a cookie is no token");
        assert_eq!(answer.text, r#"{"detail":"Unauthorized","code":"forbidden"}"#);
    }
    let list = house.call("GET", "/admin/api/upstreams", "reader", serde_json::json!(null)).await;
    assert_eq!((list.status, list.text.as_str()), (StatusCode::OK, "[]"));

    let clear = serde_json::json!({"name": "x"});
    let refused = house.call("POST", "/admin/api/upstreams/clear", "reader", clear.clone()).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.text.contains("manage"), "{}", refused.text);
    let unknown = house.call("POST", "/admin/api/upstreams/clear", "writer", clear).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let malformed = house.call("POST", "/admin/api/upstreams/clear", "writer", serde_json::json!({"nam": 1})).await;
    assert_eq!(malformed.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(malformed.text.contains(r#""code":"invalid_request""#), "{}", malformed.text);
}

/// A program reads every refusal alike, also where there is no such call.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_call_is_refused_as_calls_are() {
    let house = House::usual().await;
    let nothing = r#"{"detail":"There is no such call. /openapi.json lists those that there are.","code":"not_found"}"#;
    for (method, path) in [
        ("GET", "/admin/api"),
        ("GET", "/admin/api/"),
        ("GET", "/admin/api/nothing"),
        ("POST", "/admin/api/nothing"),
        ("DELETE", "/admin/api/upstreams/a/b/c"),
    ] {
        let answer = house.call(method, path, "nobody", serde_json::json!({})).await;
        assert_eq!((answer.status, answer.text.as_str()), (StatusCode::NOT_FOUND, nothing), "{method} {path}");
    }
    let other = house.call("PUT", "/admin/api/upstreams", "nobody", serde_json::json!({})).await;
    assert_eq!(other.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(other.text, r#"{"detail":"PUT is not allowed here.","code":"method_not_allowed"}"#);
    let long = serde_json::json!({ "password": "x".repeat(20_000) });
    let answer = house.call("POST", "/admin/api/login", "nobody", long).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.text.contains(r#""code":"invalid_request""#), "{}", answer.text);
    // The pages are for people.
    let page = house.get("/admin/nothing", "").await;
    assert_eq!((page.status, page.text.as_str()), (StatusCode::NOT_FOUND, "There is no such page."));
}

#[tokio::test(flavor = "multi_thread")]
async fn amounts_are_shown_in_the_unit_that_was_chosen() {
    let house = House::usual().await;
    let session = house.log_in().await;
    let page = house.get("/admin/vouchers", &session).await;
    assert!(page.text.contains("Worth, sat"), "{}", page.text);
    let csrf = page.csrf();

    let elsewhere = [("csrf", &*csrf), ("unit", "msat"), ("back", "https://evil.example")];
    assert_eq!(house.post("/admin/unit", &session, &elsewhere).await.location(), "/admin");
    let form = [("csrf", &*csrf), ("unit", "msat"), ("back", "/admin/vouchers")];
    let chosen = house.post("/admin/unit", &session, &form).await;
    assert_eq!((chosen.status, chosen.location()), (StatusCode::SEE_OTHER, "/admin/vouchers"));
    let cookies = format!("{session}; {}", chosen.cookie("coinslot_unit"));
    assert!(house.get("/admin/vouchers", &cookies).await.text.contains("Worth, msat"));

    // Nobody has asked for the rate yet: then USD would be a guess.
    let cookies = format!("{session}; coinslot_unit=USD");
    assert!(house.get("/admin/vouchers", &cookies).await.text.contains("Worth, sat"));
}
