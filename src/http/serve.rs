//! The accept loop, for those who come by TCP and by the node's own onion: limits on slow headers, and an
//! end in two steps.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, Request};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::peer::Proxies;
use crate::net::Peer;
use crate::tor::{Visit, Visits};

/// How long a client may take for the head of a request, and how long an idle connection lives.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// Requests of one connection that are answered at once, in HTTP/2: whoever reads none of its answers has so many of them
/// kept here.
const MAX_STREAMS: u32 = 64;
/// How long a client may take nothing of what it asked for, as far as the system can see: an answer that nobody reads is
/// kept in memory until then.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(300);
/// Pause after the system refused a connection (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where clients come in.
pub struct Entrance {
    pub listener: TcpListener,
    pub proxies: Proxies,
    /// Those who come by the node's own onion, if it has one.
    pub visits: Option<Visits>,
}

/// Somebody who came in.
enum Guest {
    Near(TcpStream, SocketAddr),
    InTor(Visit),
}

impl Entrance {
    async fn next(&mut self) -> std::io::Result<Guest> {
        tokio::select! {
            accepted = self.listener.accept() => accepted.map(|(stream, peer)| Guest::Near(stream, peer)),
            visit = by_onion(&mut self.visits) => Ok(Guest::InTor(visit)),
        }
    }
}

async fn by_onion(visits: &mut Option<Visits>) -> Visit {
    if let Some(open) = visits
        && let Some(visit) = open.recv().await
    {
        return visit;
    }
    *visits = None;
    std::future::pending().await
}

/// What every connection shares.
struct House {
    server: Builder<TokioExecutor>,
    graceful: GracefulShutdown,
    router: Router,
    tracker: TaskTracker,
    stop: CancellationToken,
    /// How long who comes in may say nothing.
    patience: Duration,
    /// How long who is answered may take nothing.
    unread: Duration,
}

impl House {
    /// Serves one connection until its end and `linger` longer. `who` says of each request where it comes from.
    fn serve<S>(&self, stream: S, linger: Duration, who: impl Fn(&HeaderMap) -> Peer + Send + Sync + 'static)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (router, who) = (TowerToHyperService::new(self.router.clone()), Arc::new(who));
        let has_asked = Arc::new(AtomicBool::new(false));
        let silent = silence(Arc::clone(&has_asked), self.patience);
        let service = service_fn(move |mut request: Request<Incoming>| {
            has_asked.store(true, Ordering::Relaxed);
            let peer = who(request.headers());
            request.extensions_mut().insert(peer);
            router.call(request)
        });
        let connection = self.server.serve_connection(TokioIo::new(stream), service);
        let connection = self.graceful.watch(connection.into_owned());
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            let served = async {
                if let Err(error) = connection.await {
                    tracing::trace!(%error, "a connection ended early");
                }
                tokio::time::sleep(linger).await;
            };
            tokio::select! {
                () = served => {}
                () = silent => tracing::trace!("who came in asked for nothing"),
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Ends when a client has asked for nothing for so long after it came in; never when it has. What serves
/// connections has no timer until it knows which HTTP is spoken, nor for HTTP/2 before the first request.
async fn silence(has_asked: Arc<AtomicBool>, patience: Duration) {
    tokio::time::sleep(patience).await;
    if has_asked.load(Ordering::Relaxed) {
        std::future::pending().await
    }
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
    let mut server = Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).keep_alive(true);
    let http2 = &mut server.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30)).max_concurrent_streams(MAX_STREAMS);
    let graceful = GracefulShutdown::new();
    let (patience, unread) = (HEADER_TIMEOUT, UNREAD_TIMEOUT);
    open(entrance, House { server, graceful, router, tracker, stop, patience, unread }, drain).await;
}

async fn open(mut entrance: Entrance, house: House, drain: CancellationToken) {
    loop {
        let guest = tokio::select! {
            guest = entrance.next() => guest,
            () = drain.cancelled() => break,
        };
        match guest {
            Ok(Guest::Near(stream, peer)) => {
                if let Err(error) = set_up(&stream, house.unread) {
                    tracing::debug!(%error, "a connection could not be set up");
                }
                let (socket, proxies) = (peer.ip(), entrance.proxies.clone());
                house.serve(stream, Duration::ZERO, move |headers| proxies.client(socket, headers));
            }
            // Whatever it says of an address is not believed: Tor has none to say.
            Ok(Guest::InTor(Visit { stream, circuit, linger })) => {
                house.serve(stream, linger, move |_| Peer::Circuit(circuit));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(entrance);
    let House { graceful, stop, .. } = house;
    tokio::select! {
        () = graceful.shutdown() => {}
        () = stop.cancelled() => {}
    }
}

/// What the system is to do for a connection that was accepted.
fn set_up(stream: &TcpStream, unread: Duration) -> std::io::Result<()> {
    // Where nothing is acknowledged, or the other end has no room, for so long, the connection is over.
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(unread))?;
    #[cfg(not(target_os = "linux"))]
    let _none = unread;
    // With Nagle's algorithm on, a small chunk waits 40 ms for the acknowledgement of the last.
    stream.set_nodelay(true)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::extract::Request;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::mpsc;

    use super::*;
    use crate::http::peer;

    /// What a router learns of a visitor by the onion, who claims to have an address; and that such
    /// connections are served to their end, as those by TCP are, and what they were told can leave.
    #[tokio::test]
    async fn a_visitor_by_the_onion_is_a_circuit_and_is_served_to_the_end() {
        let router = Router::new().fallback(async |request: Request| format!("{:?}", peer::of(&request)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (visits, receiver) = mpsc::channel(1);
        let trusting = Proxies::new(&["0.0.0.0/0".parse().unwrap()]);
        let entrance = Entrance { listener, proxies: trusting, visits: Some(receiver) };
        let (tracker, drain, stop) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
        let serving = TaskTracker::new().spawn(run(entrance, router, tracker.clone(), drain.clone(), stop));
        let (mut client, stream) = tokio::io::duplex(4096);
        let linger = Duration::from_millis(100);
        visits.send(Visit { stream: Box::new(stream), circuit: 7, linger }).await.unwrap();
        let ask = "GET / HTTP/1.1\r\nhost: abc.onion\r\nx-forwarded-for: 192.0.2.1\r\n\r\n";
        let mut answer = [0; 4096];
        for _ in 0..2 {
            client.write_all(ask.as_bytes()).await.unwrap();
            let length = client.read(&mut answer).await.unwrap();
            let text = String::from_utf8_lossy(&answer[..length]);
            assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("Some(Circuit(7))"), "{text}");
        }
        // It is idle: nothing keeps the node, and no more are taken.
        let told = Instant::now();
        drain.cancel();
        serving.await.unwrap();
        assert!(visits.is_closed());
        tracker.close();
        assert_eq!(client.read(&mut answer).await.unwrap(), 0);
        tracker.wait().await;
        assert!(told.elapsed() >= linger, "{:?}", told.elapsed());
    }

    fn house(router: Router) -> House {
        House {
            server: Builder::new(TokioExecutor::new()),
            graceful: GracefulShutdown::new(),
            router,
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            patience: HEADER_TIMEOUT,
            unread: UNREAD_TIMEOUT,
        }
    }

    /// Whoever says nothing, or not even which HTTP is spoken, is hung up on; who has asked once is not, though its
    /// connection is idle afterwards.
    #[tokio::test]
    async fn who_asks_for_nothing_is_hung_up_on() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let entrance = Entrance { listener, proxies: Proxies::new(&[]), visits: None };
        let drain = CancellationToken::new();
        let house = House { patience: Duration::from_millis(300), ..house(Router::new().fallback(async || "good")) };
        let serving = TaskTracker::new().spawn(open(entrance, house, drain.clone()));
        let mut asking = TcpStream::connect(address).await.unwrap();
        asking.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 1024];
        assert!(asking.read(&mut answer).await.unwrap() > 0);
        for said in ["", "PRI * HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0", "GET / HTTP/1.1\r\nhost"]
        {
            let mut silent = TcpStream::connect(address).await.unwrap();
            silent.write_all(said.as_bytes()).await.unwrap();
            let mut told = Vec::new();
            let end = tokio::time::timeout(Duration::from_secs(20), silent.read_to_end(&mut told)).await;
            // A reset is an end too.
            drop(end.unwrap_or_else(|_| panic!("held after {said:?}")));
        }
        asking.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(asking.read(&mut answer).await.unwrap() > 0, "it had asked before");
        drain.cancel();
        serving.await.unwrap();
    }

    /// An answer that nobody reads is not kept for ever.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_reads_nothing_is_hung_up_on() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let entrance = Entrance { listener, proxies: Proxies::new(&[]), visits: None };
        let drain = CancellationToken::new();
        let large = Router::new().fallback(async || vec![0_u8; 64 << 20]);
        let house = House { unread: Duration::from_millis(500), ..house(large) };
        let tracker = house.tracker.clone();
        let serving = TaskTracker::new().spawn(open(entrance, house, drain.clone()));
        let mut asking = TcpStream::connect(address).await.unwrap();
        asking.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        asking.readable().await.unwrap();
        tracker.close();
        let end = tokio::time::timeout(Duration::from_secs(60), tracker.wait()).await;
        assert!(end.is_ok(), "its answer is still there");
        drain.cancel();
        serving.await.unwrap();
    }
}
