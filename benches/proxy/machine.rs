//! The machine: which core runs what, and what a process used of it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The core of the process under test.
pub const PROXY_CORE: &str = "0";
/// The core of everything else: load generator, upstream, mint.
pub const LOAD_CORE: &str = "1";

/// Moves this process, and every thread it starts from now on, to the load's core.
pub fn pin_load() -> bool {
    taskset(&["-pc", LOAD_CORE, &std::process::id().to_string()])
}

fn taskset(arguments: &[&str]) -> bool {
    let run = Command::new("taskset").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

/// A process under test, alone on its core. It ends with this value.
pub struct Proxy {
    process: Child,
}

/// What a process has used so far.
pub struct Used {
    by_thread: HashMap<String, u64>,
}

impl Proxy {
    /// Starts `program` on the proxy's core, as what the command `under` runs if there is one. Its standard output
    /// can be read by line.
    pub fn start(
        under: &[String],
        program: &Path,
        arguments: &[&str],
        folder: &Path,
        environment: &[(&str, String)],
    ) -> Self {
        let pinned = taskset(&["-c", PROXY_CORE, "true"]);
        let pin: &[&str] = if pinned { &["taskset", "-c", PROXY_CORE] } else { &[] };
        let mut words = pin.iter().map(OsStr::new).chain(under.iter().map(OsStr::new)).chain([program.as_os_str()]);
        let process = Command::new(words.next().expect("a program"))
            .args(words)
            .args(arguments)
            .current_dir(folder)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (*name, value.as_str())))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the process under test");
        Self { process }
    }

    /// The first line it prints; what follows is read and dropped.
    pub fn first_line(&mut self) -> String {
        let mut lines = BufReader::new(self.process.stdout.take().expect("standard output")).lines();
        let first = lines.next().and_then(Result::ok).unwrap_or_default();
        std::thread::spawn(move || lines.for_each(drop));
        first
    }

    /// Reads and drops whatever it prints.
    pub fn mute(&mut self) {
        if let Some(output) = self.process.stdout.take() {
            std::thread::spawn(move || BufReader::new(output).lines().for_each(drop));
        }
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().is_ok_and(|ended| ended.is_some())
    }

    /// CPU time of every thread, from the scheduler's own count in nanoseconds: the ticks of
    /// `/proc/<pid>/stat` are too coarse for short cases.
    pub fn used(&self) -> Used {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id()));
        let by_thread = tasks.into_iter().flatten().filter_map(|task| {
            let task = task.ok()?;
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            let nanos = text.split(' ').next()?.parse().ok()?;
            Some((task.file_name().to_string_lossy().into_owned(), nanos))
        });
        Used { by_thread: by_thread.collect() }
    }

    /// Memory in use now and at most so far, in MB.
    pub fn memory_mb(&self) -> (f64, f64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
            line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Used {
    /// CPU time since `earlier`. Threads that ended in between are missing from it; workers do
    /// not end.
    pub fn since(&self, earlier: &Self) -> Duration {
        let nanos = self
            .by_thread
            .iter()
            .map(|(thread, now)| now.saturating_sub(earlier.by_thread.get(thread).copied().unwrap_or(0)));
        Duration::from_nanos(nanos.sum())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

/// What the numbers were measured on, in a line.
pub fn description() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<_> = info.lines().filter_map(|line| line.strip_prefix("model name")).collect();
    let model = models.first().map_or("unknown", |line| line.trim_start_matches([' ', '\t', ':']));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} × {model}, Linux {}", models.len(), kernel.split(['.', '-']).take(2).collect::<Vec<_>>().join("."))
}
