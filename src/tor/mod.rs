//! The node in Tor: an onion address of its own, and ways out through Tor.
//!
//! The only importer of arti. A node with `TOR=true` is in Tor by itself; one with `TOR_PROXY_URL` sends
//! what goes out through somebody's tor daemon. Neither is waited for: a node whose Tor is not there yet,
//! or any more, serves all others, and says on its pages what it knows. Nothing that belongs into Tor goes
//! out otherwise ([`crate::net::way`]).
//!
//! Without the feature `tor` there is no arti, and what is here is small.

#[cfg(feature = "tor")]
mod inside;
#[cfg(feature = "tor")]
mod service;
#[cfg(feature = "tor")]
mod settings;
#[cfg(feature = "tor")]
mod socks;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::config::{self, Config, Purpose, Secret};
use crate::net::way::{Way, Ways};

/// Why a node that should be in Tor does not start. What time can mend is none of these.
#[derive(Debug, thiserror::Error)]
pub enum TorError {
    #[error("TOR_PROXY_URL is no address")]
    Proxy,
    #[error("TOR_CONFIG: {0}")]
    Config(String),
    #[error("the way into Tor: {0}")]
    Listen(std::io::Error),
}

/// What is known of the node's onion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has none of its own.
    Off,
    /// What arti says of it.
    Starting(String),
    /// Reachable, arti believes.
    Reachable(&'static str),
    /// Why not; it is tried again.
    Failed(String),
}

/// The address of the node's own onion, once it has one, and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    url: String,
    state: State,
}

/// Where the node is found in Tor. Clones see the same.
#[derive(Clone, Debug)]
pub struct Onion {
    /// `ONION_URL`
    given: String,
    own: watch::Receiver<Standing>,
}

impl Onion {
    /// Where a node is found that has no onion of its own.
    #[must_use]
    pub fn given(url: &str) -> Self {
        let (_, own) = watch::channel(Standing { url: String::new(), state: State::Off });
        Self { given: url.to_owned(), own }
    }

    /// The address that clients are told: the operator's, or else the node's own; empty: there is none.
    #[must_use]
    pub fn url(&self) -> String {
        if self.given.is_empty() { self.own.borrow().url.clone() } else { self.given.clone() }
    }

    /// Whether the operator says that a tor daemon beside the node brings visitors.
    #[must_use]
    pub fn is_given(&self) -> bool {
        !self.given.is_empty()
    }

    /// The node's own address, told or not.
    #[must_use]
    pub fn own_url(&self) -> String {
        self.own.borrow().url.clone()
    }

    #[must_use]
    pub fn state(&self) -> State {
        self.own.borrow().state.clone()
    }

    /// Waits until clients are to be told another address than this one.
    pub async fn differs_from(&self, url: &str) {
        let mut own = self.own.clone();
        while self.url() == url {
            // Nobody will ever say anything else.
            if !self.given.is_empty() || own.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// What a connection is to whoever serves it.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A connection to the onion.
pub struct Visit {
    pub stream: Box<dyn Duplex>,
    /// The circuit that it came by: the same client, as long as it keeps it.
    pub circuit: u64,
    /// How long what was written to it may still be leaving, after its end.
    pub linger: Duration,
}

/// Connections as they come. When it is dropped, no more are taken.
pub type Visits = mpsc::Receiver<Visit>;

/// The node's Tor, or its way there.
#[derive(Debug)]
pub struct Tor {
    ways: Ways,
    onion_url: String,
    #[cfg(feature = "tor")]
    inside: Option<inside::Inside>,
}

impl Tor {
    /// What the settings ask for; its tasks end with `stop`. Waits for nobody.
    ///
    /// # Errors
    /// When settings cannot be used.
    pub async fn open(config: &Config, tasks: &TaskTracker, stop: &CancellationToken) -> Result<Self, TorError> {
        let daemon = config.tor.proxy.as_ref().map(Secret::expose).map(Url::parse);
        let daemon = daemon.transpose().map_err(|_| TorError::Proxy)?;
        let onion_url = config.info.onion_url.clone();
        #[cfg(feature = "tor")]
        {
            let inside = match config.tor.enabled {
                true => Some(inside::Inside::open(&config.tor, &config.storage.data_dir, tasks, stop).await?),
                false => None,
            };
            let proxy = daemon.or_else(|| inside.as_ref().map(|inside| inside.proxy().clone()));
            Ok(Self { ways: ways(proxy.as_ref(), &config.tor), onion_url, inside })
        }
        #[cfg(not(feature = "tor"))]
        {
            // Read, so that both builds take the same.
            let _ = (tasks, stop);
            Ok(Self { ways: ways(daemon.as_ref(), &config.tor), onion_url })
        }
    }

    /// Whether the settings can be used. The ways of the answer lead nowhere.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn check(config: &Config) -> Result<Ways, TorError> {
        #[cfg(feature = "tor")]
        if config.tor.enabled {
            settings::Settings::read(&config.tor, &config.storage.data_dir)?;
        }
        let nowhere = Url::parse("socks5h://127.0.0.1:9").map_err(|_| TorError::Proxy)?;
        Ok(ways(config.tor.is_there().then_some(&nowhere), &config.tor))
    }

    #[must_use]
    pub const fn ways(&self) -> &Ways {
        &self.ways
    }

    /// Makes the node appear in Tor, if it is to, and hands out who comes.
    pub async fn appear(&self) -> (Onion, Option<Visits>) {
        #[cfg(feature = "tor")]
        if let Some(inside) = &self.inside {
            let (own, visits) = service::appear(inside).await;
            return (Onion { given: self.onion_url.clone(), own }, Some(visits));
        }
        std::future::ready((Onion::given(&self.onion_url), None)).await
    }
}

fn ways(proxy: Option<&Url>, config: &config::Tor) -> Ways {
    let way = |purpose: Purpose| {
        let all = config.purposes.contains(&purpose);
        proxy.map(|proxy| Way::through(proxy.clone(), purpose.name(), all)).unwrap_or_default()
    };
    Ways {
        upstreams: way(Purpose::Upstreams),
        mints: way(Purpose::Mints),
        relays: way(Purpose::Relays),
        prices: way(Purpose::Prices),
        strangers: way(Purpose::Strangers),
        reports: way(Purpose::Reports),
    }
}

/// Where the node keeps what it has in Tor.
fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("tor")
}

/// The file that says where the node is in Tor, for who looks from beside it.
fn hostname(data_dir: &Path) -> PathBuf {
    folder(data_dir).join("hostname")
}

/// The address of the onion that the node of this directory had last.
#[must_use]
pub fn known_url(data_dir: &Path) -> Option<String> {
    let host = std::fs::read_to_string(hostname(data_dir)).ok()?;
    let host = host.trim();
    (!host.is_empty()).then(|| format!("http://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_onion_is_told_once_it_is_known_and_the_operators_comes_first() {
        let (sender, own) = watch::channel(Standing { url: String::new(), state: State::Starting("0%".into()) });
        let mine = Onion { given: String::new(), own: own.clone() };
        let given = Onion { given: "http://given.onion".into(), own };
        assert_eq!(mine.url(), "");
        let waiting = mine.differs_from("");
        sender.send_modify(|standing| standing.url = "http://own.onion".into());
        waiting.await;
        assert_eq!((mine.url().as_str(), mine.own_url().as_str()), ("http://own.onion", "http://own.onion"));
        assert_eq!((given.url().as_str(), given.own_url().as_str()), ("http://given.onion", "http://own.onion"));
        given.differs_from("").await;
        assert_eq!(Onion::given("").state(), State::Off);
    }
}
