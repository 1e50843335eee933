//! A node of its own for every test, on SQLite, or on PostgreSQL when `TEST_DATABASE=postgres`.
//!
//! [`TestNode::finish`] ends every test: it proves the books. `TEST_LOG=coinslot=debug` shows the log.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coinslot::audit::Auditor;
use coinslot::clock::{SharedClock, SystemClock};
use coinslot::config::Config;
use coinslot::node::{self, Running, StartError};
use coinslot::store::{Store, StoreError};
use coinslot::wallet::cdk_db;
use coinslot::wallet::holdings::Inspector;
use coinslot::wallet::mint::Limits;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::answers::until;
use super::mint::TestMint;
use super::store::{Made, TempDatabase};
use super::upstream::Upstream;

/// The upstream's key in tests; must appear nowhere.
pub const UPSTREAM_KEY: &str = "sk-upstream-secret-0123456789";

/// 10 msat a prompt token, 20 msat a completion token at the test rate.
pub const MODEL: &str = "toy/echo-1";

/// A model that has a price for everything, a different one for each.
pub const RICH: &str = "toy/rich";
/// In msat at the test rate: 1, 12.5, 20, 30; 40, 4, 80; 15, 60; 40,000, 60,000; 10,000, 3,000, 5,000, 2,000;
/// 100, 7; and half and twice the price for what comes when there is room, and first.
const RICH_PRICES: [(&str, &str); 22] = [
    ("input_cache_read", "0.000001"),
    ("input_cache_write", "0.0000125"),
    ("input_cache_write_1h", "0.00002"),
    ("internal_reasoning", "0.00003"),
    ("audio", "0.00004"),
    ("input_audio_cache", "0.000004"),
    ("audio_output", "0.00008"),
    ("image_token", "0.000015"),
    ("image_output", "0.00006"),
    ("output_image", "0.04"),
    ("output_image/1024x1536", "0.06"),
    ("web_search", "0.01"),
    ("web_query", "0.003"),
    ("code_session", "0.005"),
    ("query", "0.002"),
    ("second", "0.0001"),
    ("character", "0.000007"),
    ("prompt_flex", "0.000005"),
    ("completion_flex", "0.00001"),
    ("prompt_priority", "0.00002"),
    ("completion_priority", "0.00004"),
    ("input_cache_read_priority", "0.000002"),
];

/// The jobs that may ask a mint, and are run at the start.
const ASKING: [&str; 6] =
    ["refresh_keysets", "refill_ladder", "check_books", "take_back_unclaimed", "resume_operations", "refund_expired"];

/// A node, and all that it needs.
pub struct TestNode {
    running: Option<Running>,
    settings: BTreeMap<String, String>,
    clock: SharedClock,
    dir: TempDir,
    database: Option<TempDatabase>,
    client: reqwest::Client,
}

/// The models that tests are sold.
pub fn models() -> Value {
    let model = |id: &str, prompt: &str, completion: &str| {
        json!({
            "id": id, "name": id, "created": 1, "description": "", "context_length": 10_000,
            "architecture": { "modality": "text->text", "input_modalities": [], "output_modalities": [], "tokenizer": "Other", "instruct_type": null },
            "pricing": { "prompt": prompt, "completion": completion, "request": "0", "image": "0", "web_search": "0", "internal_reasoning": "0" },
            "top_provider": { "context_length": 10_000, "max_completion_tokens": 1_000, "is_moderated": false },
            "per_request_limits": null, "supported_parameters": [],
        })
    };
    let mut cached = model("toy/cached", "0.00001", "0.00002");
    cached["pricing"]["input_cache_read"] = json!("0.000001");
    cached["pricing"]["input_cache_write"] = json!("0.0000125");
    cached["pricing"]["internal_reasoning"] = json!("0.00003");
    cached["pricing"]["web_search"] = json!("0.01");
    let mut rich = model(RICH, "0.00001", "0.00002");
    for (name, price) in RICH_PRICES {
        rich["pricing"][name] = json!(price);
    }
    json!({ "models": [model(MODEL, "0.00001", "0.00002"), cached, model("toy/cheap", "0.0000000001", "0.0000000002"), rich] })
}

/// The database of a node that was never started.
static MADE: Made = Made::new();

/// Spares a node its migrations.
async fn make_database(data: &Path) {
    let make = async |path: &Path| {
        let url = format!("sqlite:{}", path.display());
        let dir = path.parent().expect("a directory");
        let store = Store::open(dir, Some(&url), false).await.expect("a store");
        drop(cdk_db::open(&store).await.expect("an ecash store"));
        store.close().await;
    };
    std::fs::create_dir(data).expect("a data directory");
    MADE.copy_to(&data.join("coinslot.db"), make).await;
}

impl TestNode {
    /// A node in front of this upstream that takes this mint's ecash.
    pub async fn start(mint: &TestMint, upstream: &Upstream) -> Self {
        Self::with(mint, upstream, &[]).await
    }

    /// The same with further settings.
    pub async fn with(mint: &TestMint, upstream: &Upstream, more: &[(&str, &str)]) -> Self {
        let more = [&[("UPSTREAM_API_KEY", UPSTREAM_KEY)][..], more].concat();
        Self::with_clock(&mint.url(), upstream, Arc::new(SystemClock), &more).await
    }

    /// A node with this clock, which takes the ecash of the mint at this URL.
    pub async fn with_clock(mint_url: &str, upstream: &Upstream, clock: SharedClock, more: &[(&str, &str)]) -> Self {
        let settings = [("CASHU_MINTS", mint_url), ("UPSTREAM_BASE_URL", &upstream.url())];
        let settings = settings.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self::with_settings(settings.collect(), clock).await
    }

    /// A node with these settings and the tests' own defaults.
    pub async fn with_settings(more: BTreeMap<String, String>, clock: SharedClock) -> Self {
        if let Ok(filter) = std::env::var("TEST_LOG") {
            let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer();
            subscriber.try_init().ok();
        }
        let dir = tempfile::Builder::new().prefix("coinslot-node-").tempdir().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(dir.path().join("models.json"), models().to_string()).expect("models.json");
        let database = match std::env::var("TEST_DATABASE").as_deref() {
            Ok("postgres") => Some(TempDatabase::create().await),
            _ => None,
        };
        let mut settings: BTreeMap<String, String> = [
            ("PORT", "0".to_owned()),
            ("DATA_DIR", path("data")),
            ("MODELS_PATH", path("models.json")),
            ("BTC_USD_FIXED", "100000".to_owned()),
            ("EXCHANGE_FEE", "1".to_owned()),
            ("UPSTREAM_PROVIDER_FEE", "1".to_owned()),
            // Calls to the mint are counted and lost on purpose: as few as can be happen in the background, and these
            // at the start (see `TestNode::quiet`).
            ("CHANGE_LADDER_COINS", "0".to_owned()),
            ("ADMIN_PASSWORD", "an admin password".to_owned()),
            // Tests let their one upstream fail as often as they like.
            ("UPSTREAM_BREAKER_FAILURES", "0".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        match &database {
            Some(database) => drop(settings.insert("DATABASE_URL".to_owned(), database.url())),
            None => make_database(&dir.path().join("data")).await,
        }
        settings.extend(more);
        let mut node = Self { running: None, settings, clock, dir, database, client: client() };
        node.run().await;
        node
    }

    async fn run(&mut self) {
        // A command that another test starts just now shares this process's locks until it runs.
        let patience = Instant::now() + Duration::from_secs(30);
        while self.running.is_none() {
            let config = Config::from_vars(&self.settings).expect("settings");
            match node::start(config, Arc::clone(&self.clock)).await {
                Err(StartError::Store(StoreError::InUse(_))) if Instant::now() < patience => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                started => self.running = Some(started.expect("the node starts")),
            }
        }
    }

    /// Stops the node and starts it again on the same data.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.run().await;
    }

    /// The same, with one setting changed.
    pub async fn restart_with(&mut self, name: &str, value: &str) {
        self.stop().await;
        self.settings.insert(name.to_owned(), value.to_owned());
        self.run().await;
    }

    /// Stops the node, which [`TestNode::restart`] starts again.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown(std::future::pending()).await;
        }
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().expect("the node runs")
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.running().address())
    }

    pub fn data_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}{path}", self.url()))
    }

    pub fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(format!("{}{path}", self.url()))
    }

    pub fn patch(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.patch(format!("{}{path}", self.url()))
    }

    pub fn delete(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.delete(format!("{}{path}", self.url()))
    }

    /// A chat request for the test model.
    pub fn chat(&self, body: &Value) -> reqwest::RequestBuilder {
        self.post("/v1/chat/completions").json(body)
    }

    /// See [`balance_of`].
    pub async fn balance(&self, key: &str) -> (u64, u64, u64) {
        balance_of(self.get("/v1/wallet/info"), key).await
    }

    /// Waits until a background job has been run since the start, so that it does not come in between.
    pub async fn has_run(&self, job: &str) {
        let metrics = &self.running().exchange().metrics;
        until(&format!("{job} was run"), async || metrics.jobs.all().contains_key(job)).await;
    }

    /// Waits until what asks the mints at every start has done so, so that calls can be counted: their keysets are
    /// asked for, and what became of the ecash that is held. For mints that answer.
    pub async fn quiet(&self) {
        for job in ASKING {
            self.has_run(job).await;
        }
    }

    /// Waits until no hold is open and nothing is left to finish.
    pub async fn settled(&self) {
        at_rest(self.running()).await;
    }

    /// Proves the books, the ecash, and what the mints know of it. A mint that the test has stopped
    /// says nothing.
    pub async fn prove(&self) {
        assert_eq!(faults_of(self.running(), &self.client).await, Vec::<String>::new());
    }

    /// Ends the test: proves the books and stops the node.
    pub async fn finish(mut self) {
        self.prove().await;
        self.stop().await;
        if let Some(database) = self.database.take() {
            database.remove().await;
        }
    }
}

async fn at_rest(running: &Running) {
    let ledger = &running.exchange().ledger;
    until("no hold is open", async || ledger.books().await.expect("books").open_holds == 0).await;
}

/// What is wrong with the books of a node, its ecash, and what the mints know of it, once no hold is open any more.
pub async fn faults_of(running: &Running, client: &reqwest::Client) -> Vec<String> {
    at_rest(running).await;
    let exchange = running.exchange();
    let limits = Limits { timeout: Duration::from_secs(2), concurrency: 4, per_minute: None };
    let mints = exchange.till.wallet().mints().iter().map(|url| (url.clone(), limits)).collect();
    let inspector = Inspector::new(mints, client, exchange.ledger.clock());
    let auditor = Auditor::of(exchange.ledger.clone(), inspector, usize::MAX);
    let report = auditor.prove().await.expect("the audit");
    let mut faults = report.faults;
    if (report.held_msat, report.open_holds) != (0, 0) {
        faults.push(format!("{} msat are held by {} requests at rest", report.held_msat, report.open_holds));
    }
    faults
}

/// Balance, held, and spent of a key or token, in msat.
pub async fn balance_of(info: reqwest::RequestBuilder, key: &str) -> (u64, u64, u64) {
    let info: Value = info.bearer_auth(key).send().await.expect("info").json().await.expect("JSON");
    let field = |name: &str| info[name].as_u64().unwrap_or_else(|| panic!("no {name} in {info}"));
    (field("balance"), field("reserved"), field("total_spent"))
}

/// A client that takes no proxy from the environment and follows nothing.
pub fn client() -> reqwest::Client {
    coinslot::net::client(&coinslot::net::ClientOptions::default()).expect("client")
}

/// A request body for the test model.
pub fn ask(text: &str) -> Value {
    json!({ "model": MODEL, "messages": [{ "role": "user", "content": text }] })
}

/// The same, streamed.
pub fn ask_streaming(text: &str) -> Value {
    json!({ "model": MODEL, "messages": [{ "role": "user", "content": text }], "stream": true })
}
