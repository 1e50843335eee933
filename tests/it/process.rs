//! The built program as a process of its own: for what only a process has, its log and its death.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::support::answers::Patience;
use crate::support::db::TestDb;
use crate::support::mint::TestMint;
use crate::support::node::{UPSTREAM_KEY, balance_of, client, models};
use crate::support::port::Kept;
use crate::support::upstream::Upstream;

/// The settings of every program here. `DATA_DIR` and `MODELS_PATH` are the defaults in its folder.
fn defaults(mint_url: &str, upstream: &Upstream) -> BTreeMap<String, String> {
    [
        ("CASHU_MINTS", mint_url),
        ("UPSTREAM_BASE_URL", &upstream.url()),
        ("UPSTREAM_API_KEY", UPSTREAM_KEY),
        ("PORT", "0"),
        ("BTC_USD_FIXED", "100000"),
        ("EXCHANGE_FEE", "1"),
        ("UPSTREAM_PROVIDER_FEE", "1"),
        ("CHANGE_LADDER_COINS", "0"),
        ("UPSTREAM_BREAKER_FAILURES", "0"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// A running `coinslot`; killed when dropped.
pub struct Program {
    child: Child,
    url: String,
    said: Arc<Mutex<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Program {
    /// Starts on the data in this directory, which a program before may have left.
    pub async fn start(dir: &Path, mint: &TestMint, upstream: &Upstream, more: &[(&str, &str)]) -> Self {
        let mut settings = defaults(&mint.url(), upstream);
        settings.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Self::with_settings(dir, &settings).await
    }

    /// Starts with these settings and nothing of this process's environment.
    async fn with_settings(dir: &Path, settings: &BTreeMap<String, String>) -> Self {
        let mut program = Self::launch(dir, settings);
        if !program.is_listening().await {
            panic!("it ended: {}", program.said());
        }
        program
    }

    /// Starts, without waiting for anything.
    fn launch(dir: &Path, settings: &BTreeMap<String, String>) -> Self {
        let mut child = command(dir, settings).stderr(Stdio::piped()).spawn().expect("the program starts");
        let said = Arc::new(Mutex::new(String::new()));
        let readers =
            vec![read(child.stdout.take().expect("stdout"), &said), read(child.stderr.take().expect("stderr"), &said)];
        Self { child, url: String::new(), said, readers }
    }

    /// Waits until it listens. Returns whether it does; else it has ended.
    async fn is_listening(&mut self) -> bool {
        for _ in 0..6_000 {
            if let Some((_, rest)) = self.said().split_once(" listens on ") {
                rest.lines().next().expect("a line").clone_into(&mut self.url);
                return true;
            }
            if self.child.try_wait().expect("its state").is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it does not listen after 60 s: {}", self.said());
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// All that it wrote so far, to stdout and stderr.
    pub fn said(&self) -> String {
        self.said.lock().expect("said").clone()
    }

    /// Kills it, as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// Waits until it has ended by itself, and gives the signal that ended it.
    async fn ended(mut self) -> Option<i32> {
        self.exited().await.signal()
    }

    async fn exited(&mut self) -> ExitStatus {
        let patience = Patience::new();
        loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                return status;
            }
            patience.pause(&format!("it ends: {}", self.said())).await;
        }
    }

    /// Asks it to stop, waits until it has, and gives all that it wrote.
    pub async fn stop(mut self) -> String {
        let asked = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().expect("kill");
        assert!(asked.success());
        let status = self.exited().await;
        assert!(status.success(), "{status}: {}", self.said());
        self.readers.drain(..).for_each(|reader| reader.join().expect("reader"));
        self.said()
    }
}

/// The program in this directory, with these settings and nothing of this process's environment.
fn command(dir: &Path, settings: &BTreeMap<String, String>) -> Command {
    std::fs::write(dir.join("models.json"), models().to_string()).expect("models.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_coinslot"));
    command.env_clear().current_dir(dir).envs(settings).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn read(from: impl Read + Send + 'static, said: &Arc<Mutex<String>>) -> std::thread::JoinHandle<()> {
    let said = Arc::clone(said);
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            said.lock().expect("said").push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

/// What a verb of the program came to.
#[derive(Debug)]
pub struct Outcome {
    /// Less than 0: the signal that ended it.
    pub code: i32,
    pub said: String,
    pub complained: String,
}

/// Runs the program with these words to its end.
pub async fn run(dir: &Path, settings: &BTreeMap<String, String>, words: &[&str]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coinslot"));
    command.args(words);
    outcome(command, dir, settings).await
}

/// What comes of this command.
async fn outcome(mut command: Command, dir: &Path, settings: &BTreeMap<String, String>) -> Outcome {
    command.env_clear().current_dir(dir).envs(settings).stdin(Stdio::null());
    // The mint may be in this process: nothing here may wait for it.
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ends").expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Outcome {
        code: output.status.code().or(output.status.signal().map(i32::wrapping_neg)).expect("an end"),
        said: text(output.stdout),
        complained: text(output.stderr),
    }
}

/// A running `coinslot`, on data that outlives it.
pub struct ChildNode {
    pub db: TestDb,
    settings: BTreeMap<String, String>,
    program: Option<Program>,
    client: reqwest::Client,
}

impl ChildNode {
    /// Starts a node that takes the ecash of the mint at this URL.
    pub async fn start(mint_url: &str, upstream: &Upstream, more: &[(&str, &str)]) -> Self {
        let mut node = Self::prepare(mint_url, upstream, more).await;
        node.restart().await;
        node
    }

    /// The same, not started yet.
    pub async fn prepare(mint_url: &str, upstream: &Upstream, more: &[(&str, &str)]) -> Self {
        let db = TestDb::new().await;
        let mut settings = defaults(mint_url, upstream);
        if let Some(url) = db.url() {
            settings.insert("DATABASE_URL".to_owned(), url);
        }
        settings.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Self { db, settings, program: None, client: client() }
    }

    /// Runs a verb of the program with this node's settings, whether the node runs or not.
    pub async fn verb(&self, words: &[&str]) -> Outcome {
        run(&self.db.dir(), &self.settings, words).await
    }

    /// The same with another setting.
    pub async fn verb_with(&self, name: &str, value: &str, words: &[&str]) -> Outcome {
        let mut settings = self.settings.clone();
        settings.insert(name.to_owned(), value.to_owned());
        run(&self.db.dir(), &settings, words).await
    }

    /// The same where no file gets longer than a kilobyte.
    pub async fn verb_without_room(&self, words: &[&str]) -> Outcome {
        let mut command = Command::new("/bin/sh");
        let limited = "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"";
        command.args(["-c", limited, env!("CARGO_BIN_EXE_coinslot")]).args(words);
        outcome(command, &self.db.dir(), &self.settings).await
    }

    /// All that the running program wrote so far.
    pub fn said(&self) -> String {
        self.program.as_ref().expect("the node runs").said()
    }

    fn program(&mut self) -> Program {
        self.program.take().expect("the node runs")
    }

    /// `kill -9`: no handler runs, nothing is flushed.
    pub fn kill(&mut self) {
        self.program().kill();
    }

    /// Starts it again on the same data.
    pub async fn restart(&mut self) {
        assert!(self.program.is_none(), "kill it first");
        self.program = Some(Program::with_settings(&self.db.dir(), &self.settings).await);
    }

    /// Starts it again, to be killed by a [`coinslot::failpoint`]. Returns whether it listens; else it
    /// has met that end already.
    pub async fn restart_armed(&mut self, point: &str) -> bool {
        assert!(self.program.is_none(), "it is running");
        let mut settings = self.settings.clone();
        settings.insert("COINSLOT_FAILPOINT".to_owned(), point.to_owned());
        let mut program = Program::launch(&self.db.dir(), &settings);
        if program.is_listening().await {
            self.program = Some(program);
            return true;
        }
        assert_eq!(program.ended().await, Some(9), "killed, and nothing else, at {point}");
        false
    }

    /// Whether it has ended.
    pub fn has_died(&mut self) -> bool {
        self.program.as_mut().expect("it was started").child.try_wait().expect("its state").is_some()
    }

    /// Waits until a failpoint has killed it.
    pub async fn died(&mut self) {
        let program = self.program();
        let said = Arc::clone(&program.said);
        let signal = program.ended().await;
        assert_eq!(signal, Some(9), "killed, and nothing else: {}", said.lock().expect("said"));
    }

    /// Asks it to stop, waits until it has, well, and gives all that it wrote.
    pub async fn stop(&mut self) -> String {
        self.program().stop().await
    }

    /// From the next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.insert(name.to_owned(), value.to_owned());
    }

    /// The same.
    pub fn unset(&mut self, name: &str) {
        self.settings.remove(name);
    }

    pub fn url(&self) -> &str {
        self.program.as_ref().expect("the node runs").url()
    }

    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}{path}", self.url()))
    }

    pub fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(format!("{}{path}", self.url()))
    }

    pub fn chat(&self, body: &Value) -> reqwest::RequestBuilder {
        self.post("/v1/chat/completions").json(body)
    }

    /// See [`balance_of`].
    pub async fn balance(&self, key: &str) -> (u64, u64, u64) {
        balance_of(self.get("/v1/wallet/info"), key).await
    }
}

/// A command that was begun while no node ran waits for its input, and a node starts beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_waits_keeps_no_node_from_starting() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let mut node = ChildNode::start(&mint.url(), &upstream, &[]).await;
    node.stop().await;
    let mut verb = command(&node.db.dir(), &node.settings);
    verb.args(["profiles", "detach"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = verb.spawn().unwrap();
    let (stdin, stderr) = (child.stdin.take().unwrap(), child.stderr.take().unwrap());
    let verb = Program { child, url: String::new(), said: Arc::default(), readers: Vec::new() };
    // More than a pipe takes: when all of it is written, the command has the database and reads.
    let stdin = tokio::task::spawn_blocking(move || {
        let mut stdin = stdin;
        stdin.write_all(&[b'\n'; 512 * 1024]).map(|()| stdin)
    });
    let stdin = stdin.await.unwrap().expect("the command reads");
    node.restart().await;
    drop(stdin);
    let complained = tokio::task::spawn_blocking(move || std::io::read_to_string(stderr)).await.unwrap().unwrap();
    assert!(complained.contains("no key came on the standard input"), "it was waiting: {complained}");
    drop(verb);
    node.stop().await;
    node.db.remove().await;
}

/// A container's first process is ended by no signal that it does not wait for.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_a_start_that_waits() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let dir = tempfile::tempdir().unwrap();
    let mut settings = defaults(&mint.url(), &upstream);
    settings.insert("DATABASE_URL".to_owned(), "postgres://nobody:none@127.0.0.1:1/none".to_owned());
    let program = Program::launch(dir.path(), &settings);
    let patience = Patience::new();
    while !program.said().contains("waiting for the database") {
        patience.pause(&format!("it waits: {}", program.said())).await;
    }
    // Well, and not by the signal.
    let said = program.stop().await;
    assert!(said.contains("stopped before it listened") && !said.contains("does not start"), "{said}");
}

/// It is shown once, by the start that made it: one that fails has made none.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_was_made_is_shown_also_if_the_first_start_fails() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let dir = tempfile::tempdir().unwrap();
    let mut settings = defaults(&mint.url(), &upstream);
    let taken = Kept::free();
    settings.insert("PORT".to_owned(), taken.address().port().to_string());
    let _listener = taken.listen();
    let mut refused = Program::launch(dir.path(), &settings);
    assert!(!refused.is_listening().await);
    assert!(refused.said().contains("cannot listen"), "{}", refused.said());
    settings.insert("PORT".to_owned(), "0".to_owned());
    let said = Program::with_settings(dir.path(), &settings).await.stop().await;
    assert!(said.contains("its password, shown this once:"), "{said}");
}

/// Who started it may be gone: a node that nobody hears any more stops in order, as any other does.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_stdout_is_no_reason_to_panic() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let dir = tempfile::tempdir().unwrap();
    let child = command(dir.path(), &defaults(&mint.url(), &upstream)).stderr(Stdio::null()).spawn().unwrap();
    // Killed when dropped, whatever happens.
    let mut program = Program { child, url: String::new(), said: Arc::default(), readers: Vec::new() };
    let stdout = program.child.stdout.take().unwrap();
    let listens = tokio::task::spawn_blocking(move || {
        BufReader::new(stdout).lines().any(|line| line.is_ok_and(|line| line.contains(" listens on ")))
    });
    assert!(listens.await.unwrap());
    program.stop().await;
}
