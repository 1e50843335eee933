//! The accept loop: TCP without Nagle's delay, limits on slow headers, and an end in two steps.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::peer::Proxies;

/// How long a client may take for the head of a request, and how long an idle connection lives.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after the system refused a connection (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where clients come in.
#[derive(Debug)]
pub struct Entrance {
    pub listener: TcpListener,
    pub proxies: Proxies,
}

/// Serves until `drain` is cancelled; then stops accepting, lets running exchanges end, and
/// returns when all are done or `stop` is cancelled.
pub async fn run(
    entrance: Entrance,
    router: Router,
    tracker: TaskTracker,
    drain: CancellationToken,
    stop: CancellationToken,
) {
    let Entrance { listener, proxies } = entrance;
    let mut server = Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).keep_alive(true);
    server.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.cancelled() => break,
        };
        let (stream, peer): (TcpStream, SocketAddr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // With Nagle's algorithm on, a small chunk waits 40 ms for the acknowledgement of the last.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let (socket, proxies, router) = (peer.ip(), proxies.clone(), TowerToHyperService::new(router.clone()));
        let service = service_fn(move |mut request: Request<Incoming>| {
            let peer = proxies.client(socket, request.headers());
            request.extensions_mut().insert(peer);
            router.call(request)
        });
        let connection = server.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection.into_owned());
        let stop = stop.clone();
        tracker.spawn(async move {
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::trace!(%error, "a connection ended early");
                    }
                }
                () = stop.cancelled() => {}
            }
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = stop.cancelled() => {}
    }
}
