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
use crate::http::peer::Proxies;
use crate::http::serve::{self, Entrance};
use crate::http::{self, Router};
use crate::openapi::{self, About, Described};
use crate::tor::Visits;

/// What listens, and what is served there.
pub(super) struct Doors {
    pub address: SocketAddr,
    /// Where the operator's side is: the same, but for `ADMIN_LISTEN`.
    pub admin_address: SocketAddr,
    all: Vec<(Entrance, Router)>,
}

impl Doors {
    /// Listens. Connections wait until they are served.
    pub async fn open(
        config: &Config,
        exchange: &Arc<Exchange>,
        public: Described<()>,
        operators: Described<()>,
        visits: Option<Visits>,
    ) -> Result<Self, StartError> {
        let (name, version) = (config.info.name.as_str(), env!("CARGO_PKG_VERSION"));
        let publish = |routes, description: &str| {
            http::watched(openapi::publish(routes, About { name, description, version }), exchange)
        };
        let open = async |wanted| {
            let (listener, address) = listen(wanted).await?;
            let proxies = Proxies::new(&config.server.trusted_proxies);
            Ok::<_, StartError>((Entrance { listener, proxies, visits: None }, address))
        };
        let (mut entrance, address) = open(SocketAddr::new(config.server.host, config.server.port)).await?;
        entrance.visits = visits;
        let Some(wanted) = config.admin.listen else {
            let router = publish(public.merge(operators), &config.info.description);
            return Ok(Self { address, admin_address: address, all: vec![(entrance, router)] });
        };
        let (own, admin_address) = open(wanted).await?;
        tracing::info!(%admin_address, "the operator's pages are served here alone");
        let operators = publish(operators, "The operator's side of this node.");
        let all = vec![(entrance, publish(public, &config.info.description)), (own, operators)];
        Ok(Self { address, admin_address, all })
    }

    /// Serves all until `drain` is cancelled, and the rest until `stop` is.
    pub fn serve(
        self,
        background: &TaskTracker,
        exchanges: &TaskTracker,
        (drain, stop): (&CancellationToken, &CancellationToken),
    ) {
        for (entrance, router) in self.all {
            background.spawn(serve::run(entrance, router, exchanges.clone(), drain.clone(), stop.clone()));
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
