//! arti, in this process: a client that is made again until it is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arti_client::{TorClient, TorClientConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tor_hsservice::OnionServiceConfig;
use tor_rtcompat::PreferredRuntime;
use url::Url;

use super::settings::Settings;
use super::{TorError, socks};
use crate::config;

pub(super) type Client = Arc<TorClient<PreferredRuntime>>;

/// The client, or why there is none yet.
pub(super) type Standing = Result<Client, String>;

/// Between two tries, doubled by each that fails.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The Tor inside this program.
pub(super) struct Inside {
    proxy: Url,
    pub(super) client: watch::Receiver<Option<Standing>>,
    pub(super) service: OnionServiceConfig,
    pub(super) data_dir: PathBuf,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The proxy's address holds a password.
        f.write_str("Inside(…)")
    }
}

impl Inside {
    pub(super) async fn open(
        config: &config::Tor,
        data_dir: &Path,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, TorError> {
        // arti does not choose a provider of cryptography.
        crate::net::install_crypto();
        let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        let Settings { client: settings, service } = Settings::read(config, &data_dir)?;
        let (sender, client) = watch::channel(None);
        let proxy = socks::open(client.clone(), tasks, stop).await?;
        tasks.spawn(keep(settings, sender, stop.clone()));
        Ok(Self { proxy, client, service, data_dir, tasks: tasks.clone(), stop: stop.clone() })
    }

    /// The SOCKS proxy that leads through it.
    pub(super) const fn proxy(&self) -> &Url {
        &self.proxy
    }
}

/// Pauses that grow.
pub(super) struct Pauses(Duration);

impl Pauses {
    pub(super) const fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    pub(super) const fn begin_again(&mut self) {
        self.0 = FIRST_PAUSE;
    }

    /// Whether to go on after it.
    pub(super) async fn pause(&mut self, stop: &CancellationToken) -> bool {
        let pause = self.0;
        self.0 = pause.saturating_mul(2).min(LONGEST_PAUSE);
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = stop.cancelled() => false,
        }
    }
}

/// Makes the client, which asks for nothing before somebody wants to connect, or the onion is launched.
async fn keep(settings: TorClientConfig, sender: watch::Sender<Option<Standing>>, stop: CancellationToken) {
    let mut pauses = Pauses::new();
    loop {
        match TorClient::builder().config(settings.clone()).create_unbootstrapped_async().await {
            Ok(client) => {
                sender.send_replace(Some(Ok(client)));
                stop.cancelled().await;
                break;
            }
            Err(error) => {
                let why = explain(&error);
                tracing::warn!(%why, "Tor does not start");
                sender.send_replace(Some(Err(why)));
            }
        }
        if !pauses.pause(&stop).await {
            break;
        }
    }
    // It ends when nobody has it any more.
    sender.send_replace(None);
}

/// Learns the way around Tor, and keeps trying.
pub(super) async fn bootstrap(client: &Client, stop: &CancellationToken) {
    let mut pauses = Pauses::new();
    // Without a network this neither ends nor fails, and goes on when there is one.
    while let Err(error) = client.bootstrap().await {
        tracing::warn!(why = explain(&error), "Tor is not reached");
        if !pauses.pause(stop).await {
            return;
        }
    }
    tracing::info!("connected to Tor");
}

/// An error with its causes, each once: arti's own text leaves them out.
pub(super) fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
