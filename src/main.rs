//! The `coinslot` program: read the configuration, run a node, map the end to an exit code.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use coinslot::clock::SystemClock;
use coinslot::config::{Config, Log};
use coinslot::node;
use coinslot::nostr::Identity;

const USAGE: &str = "\
coinslot: sells any OpenAI-compatible API for Cashu ecash

  coinslot           run a node; settings come from the environment and .env (see .env.example)
  coinslot check     validate the settings and exit
  coinslot --version
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run(),
        ["check"] => check(),
        ["--version" | "-V"] => {
            println!("coinslot {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["--help" | "-h" | "help"] => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Reads the configuration, or says every fault of it in a line.
fn configured() -> Result<Config, ExitCode> {
    let configured = Config::from_process().and_then(|config| {
        Identity::configured(&config)?;
        Ok(config)
    });
    configured.map_err(|faults| {
        eprintln!("{faults}");
        ExitCode::FAILURE
    })
}

fn check() -> ExitCode {
    let config = match configured() {
        Ok(config) => config,
        Err(code) => return code,
    };
    for notice in config.notices() {
        println!("{notice}");
    }
    match coinslot::catalog::file::load(&config.pricing.models_path) {
        Ok(loaded) => {
            for problem in &loaded.problems {
                println!("models: {problem}");
            }
            println!("The configuration is valid; {} models are offered.", loaded.catalog.offered().count());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("MODELS_PATH: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> ExitCode {
    let config = match configured() {
        Ok(config) => config,
        Err(code) => return code,
    };
    if let Err(error) = log_to_stderr(&config.log) {
        eprintln!("LOG_LEVEL: {error}");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the runtime does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> ExitCode {
    let notices = config.notices();
    let started = node::start(config, Arc::new(SystemClock)).await;
    let (running, first_signal) = match (started, signals()) {
        (Ok(running), Ok(signals)) => (running, signals),
        (Err(error), _) => {
            eprintln!("coinslot does not start: {error}");
            return ExitCode::FAILURE;
        }
        (_, Err(error)) => {
            eprintln!("signals cannot be received: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("coinslot {} listens on http://{}", env!("CARGO_PKG_VERSION"), running.address());
    println!("operator's page: http://{}/admin", running.address());
    if let Some(password) = running.generated_password() {
        println!("its password, shown this once: {}", password.expose());
    }
    if let Some(npub) = running.generated_npub() {
        println!("its Nostr identity, made now: {npub}");
    }
    for notice in notices {
        println!("{notice}");
    }
    first_signal.await;
    println!("stopping: running requests finish; a second signal stops at once");
    match signals() {
        Ok(second_signal) => running.shutdown(second_signal).await,
        Err(_) => running.shutdown(std::future::pending()).await,
    }
    ExitCode::SUCCESS
}

/// Resolves at the next Ctrl-C or termination signal.
fn signals() -> std::io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _interrupted = tokio::signal::ctrl_c().await;
    })
}

fn log_to_stderr(log: &Log) -> Result<(), String> {
    let filter = tracing_subscriber::EnvFilter::try_new(&log.level).map_err(|error| error.to_string())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = if log.json { builder.json().try_init() } else { builder.try_init() };
    installed.map_err(|error| error.to_string())
}
