//! The built program as a process of its own: for what only a process has, its log and its death.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::mint::TestMint;
use crate::support::node::{UPSTREAM_KEY, models};
use crate::support::upstream::Upstream;

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
        std::fs::write(dir.join("models.json"), models().to_string()).expect("models.json");
        let (mint, upstream) = (mint.url(), upstream.url());
        let settings = [
            ("CASHU_MINTS", mint.as_str()), ("UPSTREAM_BASE_URL", &upstream), ("UPSTREAM_API_KEY", UPSTREAM_KEY),
            ("PORT", "0"), ("BTC_USD_FIXED", "100000"), ("EXCHANGE_FEE", "1"), ("UPSTREAM_PROVIDER_FEE", "1"),
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_coinslot"));
        command.env_clear().current_dir(dir).envs(settings).envs(more.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let said = Arc::new(Mutex::new(String::new()));
        let readers = vec![
            read(child.stdout.take().expect("stdout"), &said),
            read(child.stderr.take().expect("stderr"), &said),
        ];
        let mut program = Self { child, url: String::new(), said, readers };
        program.url = program.listening().await;
        program
    }

    async fn listening(&mut self) -> String {
        for _ in 0..1_000 {
            if let Some((_, rest)) = self.said().split_once(" listens on ") {
                return rest.lines().next().expect("a line").to_owned();
            }
            assert!(self.child.try_wait().expect("its state").is_none(), "it ended: {}", self.said());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it does not listen after 10 s: {}", self.said());
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

    /// Asks it to stop, waits until it has, and gives all that it wrote.
    pub async fn stop(mut self) -> String {
        let asked = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().expect("kill");
        assert!(asked.success());
        for _ in 0..2_000 {
            if let Some(status) = self.child.try_wait().expect("its state") {
                assert!(status.success(), "{status}: {}", self.said());
                self.readers.drain(..).for_each(|reader| reader.join().expect("reader"));
                return self.said();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it does not stop: {}", self.said());
    }
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
