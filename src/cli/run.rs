//! `coinslot`: reads the configuration, runs a node until it is told to stop, and maps the end to an
//! exit code.

use std::fmt::Arguments;
use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use crate::clock::SystemClock;
use crate::config::Config;
use crate::node;

pub(super) fn main() -> ExitCode {
    let Some(config) = super::configured() else { return ExitCode::FAILURE };
    if let Err(error) = super::log_to_stderr(&config.log) {
        eprintln!("LOG_LEVEL: {error}");
        return ExitCode::FAILURE;
    }
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(serve(config)),
        Err(error) => {
            eprintln!("the runtime does not start: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> ExitCode {
    // Before the start, which may take a while: the first process of a container is ended by no signal that it does
    // not wait for.
    let first_signal = match signals() {
        Ok(signal) => signal,
        Err(error) => {
            eprintln!("signals cannot be received: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut first_signal = std::pin::pin!(first_signal);
    let started = tokio::select! {
        // One that is done is stopped in order, and says first what it says only once.
        biased;
        started = node::start(config, Arc::new(SystemClock)) => started,
        // Nothing listens yet, no job has begun, and what was written is what a crash would leave: the next start goes
        // on from there.
        () = &mut first_signal => {
            say(format_args!("stopped before it listened"));
            return ExitCode::SUCCESS;
        }
    };
    let running = match started {
        Ok(running) => running,
        Err(error) => {
            eprintln!("coinslot does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    say(format_args!("coinslot {} listens on http://{}", env!("CARGO_PKG_VERSION"), running.address()));
    say(format_args!("operator's page: http://{}/admin", running.admin_address()));
    if let Some(password) = running.generated_password() {
        say(format_args!("its password, shown this once: {}", password.expose()));
    }
    if let Some(npub) = running.generated_npub() {
        say(format_args!("its Nostr identity, made now: {npub}"));
    }
    for notice in running.exchange().settings.now().notices() {
        say(format_args!("{notice}"));
    }
    tell_supervisor(true);
    first_signal.await;
    tell_supervisor(false);
    say(format_args!("stopping: running requests finish; a second signal stops at once"));
    match signals() {
        Ok(second_signal) => running.shutdown(second_signal).await,
        Err(_) => running.shutdown(std::future::pending()).await,
    }
    ExitCode::SUCCESS
}

/// Says it to who started the program. Where nobody hears it any more, the node runs and stops all the same.
fn say(line: Arguments<'_>) {
    let _unheard = writeln!(std::io::stdout().lock(), "{line}");
}

/// Tells systemd that the node listens, or that it stops, where that has started the program and waits for
/// it (`Type=notify`).
fn tell_supervisor(listens: bool) {
    #[cfg(unix)]
    {
        let state = if listens { sd_notify::NotifyState::Ready } else { sd_notify::NotifyState::Stopping };
        if let Err(error) = sd_notify::notify(&[state]) {
            tracing::warn!(%error, "systemd does not hear how the node is");
        }
    }
    #[cfg(not(unix))]
    let _nobody = listens;
}

/// Resolves at the next Ctrl-C or termination signal from now on.
fn signals() -> std::io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let (mut interrupt, mut terminate) = {
        use tokio::signal::unix::{SignalKind, signal};
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _interrupted = tokio::signal::ctrl_c().await;
    })
}
