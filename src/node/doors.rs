//! Where a node is reached: one door for everybody, and, with `ADMIN_LISTEN`, one more that the operator's side is
//! behind, and that alone.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::StartError;
use crate::config::Config;
use crate::exchange::Exchange;
use crate::http;
use crate::http::peer::Proxies;
use crate::http::serve::{self, Entrance};
use crate::openapi::{self, About, Described};
use crate::tor::Visits;

/// What listens.
pub(super) struct Doors {
    pub address: SocketAddr,
    /// Where the operator's side is: the same, but for `ADMIN_LISTEN`.
    pub admin_address: SocketAddr,
    front: Entrance,
    /// The operator's, with `ADMIN_LISTEN`.
    own: Option<Entrance>,
}

impl Doors {
    /// Listens. Connections wait until they are served.
    pub async fn open(config: &Config, visits: Option<Visits>) -> Result<Self, StartError> {
        let open = async |wanted| {
            let (listener, address) = listen(wanted).await?;
            let proxies = Proxies::new(&config.server.trusted_proxies);
            Ok::<_, StartError>((Entrance { listener, proxies, visits: None }, address))
        };
        let (mut front, address) = open(SocketAddr::new(config.server.host, config.server.port)).await?;
        front.visits = visits;
        let Some(wanted) = config.admin.listen else {
            return Ok(Self { address, admin_address: address, front, own: None });
        };
        let (own, admin_address) = open(wanted).await?;
        tracing::info!(%admin_address, "the operator's pages are served here alone");
        Ok(Self { address, admin_address, front, own: Some(own) })
    }

    /// Serves what is for the public, and what is for operators, until `drain` is cancelled, and the rest until `stop`
    /// is.
    pub fn serve(
        self,
        config: &Config,
        exchange: &Arc<Exchange>,
        (public, operators): (Described<()>, Described<()>),
        background: &TaskTracker,
        (drain, stop): (&CancellationToken, &CancellationToken),
    ) {
        let (name, version) = (config.info.name.as_str(), env!("CARGO_PKG_VERSION"));
        let serve = |entrance, routes, description: &str| {
            let router = http::watched(openapi::publish(routes, About { name, description, version }), exchange);
            background.spawn(serve::run(entrance, router, exchange.tracker.clone(), drain.clone(), stop.clone()));
        };
        match self.own {
            None => serve(self.front, public.merge(operators), &config.info.description),
            Some(own) => {
                serve(self.front, public, &config.info.description);
                serve(own, operators, "The operator's side of this node.");
            }
        }
    }
}

/// Where the operator is known to reach the node.
pub(super) fn origins(config: &Config) -> Arc<[String]> {
    let own = config.admin.listen.map(|address| format!("http://{address}"));
    [config.info.http_url.clone(), config.info.onion_url.clone()].into_iter().chain(own).collect()
}

async fn listen(wanted: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |error| StartError::Listen { address: wanted, error };
    let listener = TcpListener::bind(wanted).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
