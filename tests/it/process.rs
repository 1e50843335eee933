//! The real program as a process of its own, to be killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::db::TestDb;
use crate::support::node::{UPSTREAM_KEY, client, models};
use crate::support::upstream::Upstream;

/// A running `coinslot`, on data that outlives it.
pub struct ChildNode {
    pub db: TestDb,
    settings: BTreeMap<String, String>,
    child: Option<Child>,
    url: String,
    client: reqwest::Client,
}

impl ChildNode {
    /// Starts a node that takes the ecash of the mint at this URL.
    pub async fn start(mint_url: &str, upstream: &Upstream, more: &[(&str, &str)]) -> Self {
        let db = TestDb::new().await;
        std::fs::write(db.dir().join("models.json"), models().to_string()).expect("models.json");
        let path = |name: &str| db.dir().join(name).display().to_string();
        let mut settings: BTreeMap<String, String> = [
            ("PORT", "0".to_owned()),
            ("DATA_DIR", path("data")),
            ("MODELS_PATH", path("models.json")),
            ("BTC_USD_FIXED", "100000".to_owned()),
            ("EXCHANGE_FEE", "1".to_owned()),
            ("UPSTREAM_PROVIDER_FEE", "1".to_owned()),
            ("ADMIN_PASSWORD", "an admin password".to_owned()),
            ("CASHU_MINTS", mint_url.to_owned()),
            ("UPSTREAM_BASE_URL", upstream.url()),
            ("UPSTREAM_API_KEY", UPSTREAM_KEY.to_owned()),
            ("LOG_LEVEL", "warn".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if let Some(url) = db.url() {
            settings.insert("DATABASE_URL".to_owned(), url);
        }
        settings.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let mut node = Self { db, settings, child: None, url: String::new(), client: client() };
        node.run();
        node
    }

    fn run(&mut self) {
        let log = File::options().create(true).append(true).open(self.db.dir().join("stderr.log")).expect("stderr.log");
        let mut child = Command::new(env!("CARGO_BIN_EXE_coinslot"))
            .current_dir(self.db.dir())
            .env_clear()
            .envs(&self.settings)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().expect("stdout");
        self.child = Some(child);
        let (lines, said) = mpsc::channel();
        std::thread::spawn(move || {
            // Reads to the end, so that the node never waits for its reader.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _gone = lines.send(line);
            }
        });
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = said.recv_timeout(left).unwrap_or_else(|_| panic!("the node does not start: {}", self.log()));
            if let Some((_, url)) = line.split_once("listens on ") {
                self.url = url.trim().to_owned();
                return;
            }
        }
    }

    /// What it wrote to standard error, in all its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.db.dir().join("stderr.log")).unwrap_or_default()
    }

    /// `kill -9`: no handler runs, nothing is flushed.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    /// Starts it again on the same data.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "kill it first");
        self.run();
    }

    /// Asks it to stop, and waits until it is gone. Returns whether it ended well.
    pub fn terminate(&mut self) -> bool {
        let mut child = self.child.take().expect("the node runs");
        let sent = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().expect("kill");
        assert!(sent.success());
        child.wait().expect("wait").success()
    }

    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    pub fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(format!("{}{path}", self.url))
    }

    pub fn chat(&self, body: &Value) -> reqwest::RequestBuilder {
        self.post("/v1/chat/completions").json(body)
    }

    /// Balance, held, and spent of a key or token, in msat.
    pub async fn balance(&self, key: &str) -> (u64, u64, u64) {
        let info: Value = self.get("/v1/wallet/info").bearer_auth(key).send().await.expect("info").json().await.expect("JSON");
        let field = |name: &str| info[name].as_u64().unwrap_or_else(|| panic!("no {name} in {info}"));
        (field("balance"), field("reserved"), field("total_spent"))
    }
}

impl Drop for ChildNode {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}
