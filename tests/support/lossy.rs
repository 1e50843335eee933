//! A second door to a mint, where a test decides what becomes of each call.
//!
//! While it is open everything passes. While it is guarded, a call waits twice, before the mint hears
//! of it and before its answer goes back, and [`Lossy::decide`] says how it goes on. What the mint was
//! asked it does to the end, whether or not anybody still listens.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::{ServiceExt as _, service_fn};

use super::mint::TestMint;

/// How a waiting call goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Pass,
    /// The connection breaks.
    Lose,
    /// The mint has no time; it did nothing. Of an answer that waits: [`Fate::Lose`].
    Refuse,
}

/// A call that waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    pub path: String,
    pub size: usize,
    /// Whether it is the answer that waits.
    pub answered: bool,
    id: u64,
}

#[derive(Default)]
struct State {
    guarded: bool,
    waiting: BTreeMap<u64, (Waiting, oneshot::Sender<Fate>)>,
    next: u64,
    /// Invoices of the mint that count as paid. Its Lightning network pays them all at once.
    paid: BTreeSet<String>,
    changed: Option<Instant>,
}

struct Shared {
    state: Mutex<State>,
    mint: Router,
}

/// The door; serves until it is dropped.
pub struct Lossy {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// The connection breaks.
#[derive(Debug, thiserror::Error)]
#[error("lost")]
struct Lost;

impl Lossy {
    pub async fn before(mint: &TestMint) -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), mint: mint.router() });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("address");
        let server = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared, server }
    }

    /// What a node takes for the mint's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on calls wait.
    pub fn guard(&self) {
        self.state().guarded = true;
    }

    /// Everything passes, what waits included.
    pub fn open(&self) {
        let mut state = self.state();
        state.guarded = false;
        for (_, (_, decide)) in std::mem::take(&mut state.waiting) {
            decide.send(Fate::Pass).ok();
        }
    }

    /// From now on this invoice counts as paid.
    pub fn pay(&self, bolt11: &str) {
        self.state().paid.insert(bolt11.to_owned());
    }

    /// The calls that wait, in an order that does not depend on which came first, once so many do or
    /// nothing new has come for a moment.
    pub async fn waiting(&self, wanted: usize) -> Vec<Waiting> {
        const MOMENT: Duration = Duration::from_millis(15);
        let begun = Instant::now();
        loop {
            let (mut waiting, idle) = {
                let mut state = self.state();
                state.waiting.retain(|_, (_, decide)| !decide.is_closed());
                let idle = state.changed.map_or(begun, |changed| changed.max(begun)).elapsed();
                (state.waiting.values().map(|(waiting, _)| waiting.clone()).collect::<Vec<_>>(), idle)
            };
            if waiting.len() >= wanted || idle >= MOMENT {
                waiting.sort();
                return waiting;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub fn decide(&self, waiting: &Waiting, fate: Fate) {
        let mut state = self.state();
        state.changed = Some(Instant::now());
        if let Some((_, decide)) = state.waiting.remove(&waiting.id) {
            // Whoever called may be dead.
            decide.send(fate).ok();
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().expect("state")
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    async fn fate(&self, path: &str, size: usize, answered: bool) -> Fate {
        let decided = {
            let mut state = self.state.lock().expect("state");
            // Nothing hangs on the keys of a mint: they are asked for again.
            if !state.guarded || path.starts_with("/v1/keys") {
                return Fate::Pass;
            }
            let (decide, decided) = oneshot::channel();
            let id = state.next;
            state.next += 1;
            state.changed = Some(Instant::now());
            state.waiting.insert(id, (Waiting { path: path.to_owned(), size, answered, id }, decide));
            decided
        };
        decided.await.unwrap_or(Fate::Lose)
    }

    async fn call<B>(self: Arc<Self>, request: Request<B>) -> Result<Response<Body>, Lost>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let body = to_bytes(Body::new(body), 1 << 20).await.map_err(|_| Lost)?;
        let path = parts.uri.path().to_owned();
        match self.fate(&path, body.len(), false).await {
            Fate::Pass => {}
            Fate::Lose => return Err(Lost),
            Fate::Refuse => {
                let response = Response::builder().status(StatusCode::TOO_MANY_REQUESTS).header("retry-after", "1");
                return Ok(response.body(Body::empty()).expect("a response"));
            }
        }
        let asked = self.mint.clone().oneshot(Request::from_parts(parts, Body::from(body)));
        let response = tokio::spawn(asked).await.expect("the mint lives").expect("it answers");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 24).await.expect("a body");
        match self.fate(&path, body.len(), true).await {
            Fate::Pass => {
                let mut response = Response::new(Body::from(self.unpaid(&path, body)));
                *response.status_mut() = parts.status;
                Ok(response)
            }
            Fate::Lose | Fate::Refuse => Err(Lost),
        }
    }

    /// The state of a quote whose invoice does not count as paid.
    fn unpaid(&self, path: &str, body: Bytes) -> Bytes {
        let Ok(mut quote) = serde_json::from_slice::<Value>(&body) else { return body };
        let is_paid = |bolt11| self.state.lock().expect("state").paid.contains(bolt11);
        let unpaid = path.starts_with("/v1/mint/quote/") && quote["request"].as_str().is_some_and(|it| !is_paid(it));
        if !unpaid {
            return body;
        }
        quote["state"] = "UNPAID".into();
        quote.to_string().into()
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _peer)) = listener.accept().await else { continue };
        stream.set_nodelay(true).ok();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = TowerToHyperService::new(service_fn(move |request| Arc::clone(&shared).call(request)));
            Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}
