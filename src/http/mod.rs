//! HTTP: parse, call, render. No policy lives here.

mod balance;
pub mod envelope;
pub mod headers;
mod health;
mod idempotency;
mod info;
mod lightning;
mod models;
pub mod peer;
mod proxy;
mod rate;
mod receipts;
pub mod serve;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Response};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{get, post};
use tokio_util::sync::CancellationToken;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};

use crate::audit::Latest;
use crate::config;
use crate::dialect::{self, Dialect};
use crate::exchange::Exchange;
use crate::failure::{Code, Failure};
use envelope::Asked;

pub(crate) use balance::spawn;
pub(crate) use health::reasons;
pub(crate) use info::root;

/// Routes that can be served, of this module or another.
pub type Routes = Router;

/// What the handlers share.
#[derive(Clone, Debug)]
pub struct Node {
    pub exchange: Arc<Exchange>,
    pub info: Arc<config::Info>,
    pub max_body_bytes: usize,
    pub listing: Arc<models::Listing>,
    /// Cancelled when the node stops accepting.
    pub draining: CancellationToken,
    /// The last proof of the books.
    pub audit: Latest,
}

impl Node {
    #[must_use]
    pub fn new(
        exchange: Arc<Exchange>,
        mut info: config::Info,
        max_body_bytes: usize,
        draining: CancellationToken,
    ) -> Self {
        if info.npub.is_empty() {
            exchange.identity.npub().clone_into(&mut info.npub);
        }
        Self {
            exchange,
            info: Arc::new(info),
            max_body_bytes,
            listing: Arc::default(),
            draining,
            audit: Latest::default(),
        }
    }

    /// The same node, showing the outcomes of these audits.
    #[must_use]
    pub fn showing(self, audit: Latest) -> Self {
        Self { audit, ..self }
    }
}

/// Every public route of the node. `front` answers at `/`.
pub fn router(node: Node, front: axum::routing::MethodRouter<Node>, cors_origins: &[String]) -> Routes {
    let mut router =
        Router::new().route("/", front).route("/healthz", get(health::alive)).route("/readyz", get(health::ready));
    for prefix in ["/v1", ""] {
        let at = |path: &str| format!("{prefix}{path}");
        router = router
            .route(&at("/info"), get(info::info))
            .route(&at("/rate"), get(rate::show))
            .route(&at("/models"), get(models::list))
            .route(&at("/models/"), get(models::list))
            .route(&at("/models/{*id}"), get(models::one))
            .route(&at("/receipts/{id}"), get(receipts::one));
        for dialect in dialect::REGISTRY.iter().copied() {
            router = router.route(&at(&format!("/{}", dialect.path())), paid(dialect));
        }
    }
    router = lightning::mount(balance::mount(router));
    let router = router.fallback(not_found).method_not_allowed_fallback(not_allowed).with_state(node.clone());
    router.layer(from_fn_with_state(node, hold_back)).layer(cors(cors_origins))
}

/// While no money may move, only what reads gets through.
async fn hold_back(State(node): State<Node>, request: Request, next: Next) -> Response<Body> {
    let moves = request.method() == Method::POST || request.uri().path().ends_with("/create");
    if !moves {
        return next.run(request).await;
    }
    match node.exchange.till.wallet().halted() {
        None => next.run(request).await,
        Some(why) => refuse(&Failure::unavailable(Code::Recovering, format!("Nothing was taken: {why}."), 60)),
    }
}

fn paid(dialect: &'static dyn Dialect) -> axum::routing::MethodRouter<Node> {
    post(move |state: State<Node>, request: Request| proxy::serve(state, dialect, request))
}

async fn not_found(request: Request) -> Response<Body> {
    let message = format!("There is no {} {} here.", request.method(), clean(request.uri().path()));
    refuse(&Failure::client(Code::NotFound, message))
}

async fn not_allowed(request: Request) -> Response<Body> {
    if headers::asks_for_websocket(request.headers()) {
        return refuse(&Failure::client(Code::UpgradeRequired, "This node speaks HTTP only."));
    }
    refuse(&Failure::client(Code::MethodNotAllowed, format!("{} is not allowed here.", request.method())))
}

/// A new request id. Ids sort by time, so the index over them grows at its end.
fn new_id(node: &Node) -> String {
    let now_ms = u64::try_from(node.exchange.ledger.clock().now_ms()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(now_ms, &rand::random()).into_uuid().to_string()
}

/// A refusal that concerns no route.
fn refuse(failure: &Failure) -> Response<Body> {
    let request_id = uuid::Uuid::new_v4().to_string();
    envelope::render(failure, &Asked { request_id: &request_id, ..Asked::default() })
}

/// A path as an error may show it: short, and without anything that might be a credential.
fn clean(path: &str) -> String {
    if path.contains("cashu") || path.contains("sk-") {
        return "such path".to_owned();
    }
    path.chars().filter(|c| !c.is_control()).take(100).collect()
}

fn cors(origins: &[String]) -> CorsLayer {
    let allowed: Vec<HeaderValue> = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    let origin = if allowed.is_empty() { AllowOrigin::any() } else { AllowOrigin::list(allowed) };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods(AllowMethods::list([Method::GET, Method::POST, Method::OPTIONS]))
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::list(headers::exposed()))
}
