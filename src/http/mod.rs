//! HTTP: parse, call, render. No policy lives here.

mod announcements;
mod balance;
pub mod envelope;
pub mod headers;
mod health;
mod idempotency;
mod info;
mod lightning;
mod models;
mod paths;
pub mod peer;
mod prices;
mod providers;
mod proxy;
mod quote;
mod rate;
mod receipts;
pub mod serve;
mod spool;
mod status;
mod unsupported;
mod usage;

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{get, post};
use tokio_util::sync::CancellationToken;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};
use tower_http::decompression::RequestDecompressionLayer;

use crate::audit::Latest;
use crate::config;
use crate::dialect::{self, Dialect, Protocol};
use crate::exchange::Exchange;
use crate::failure::{Code, Failure};
use crate::nostr::{Announcer, Directory};
use envelope::Asked;
use proxy::Target;

pub(crate) use balance::spawn;
pub(crate) use health::reasons;
pub(crate) use info::root;
pub use spool::Spool;
pub(crate) use status::look as status;

/// Routes that can be served, of this module or another.
pub type Routes = Router;

/// What the handlers share. A request is passed through several hands, each with a copy of its own.
#[derive(Clone, Debug)]
pub struct Node(Arc<Parts>);

/// What is behind a [`Node`].
#[derive(Clone, Debug)]
pub struct Parts {
    pub exchange: Arc<Exchange>,
    pub spool: Spool,
    pub listing: Arc<models::Listing>,
    /// Cancelled when the node stops accepting.
    pub draining: CancellationToken,
    /// The last proof of the books.
    pub audit: Latest,
    /// The other nodes, where this one looks for them.
    pub directory: Option<Directory>,
    /// What this node says of itself on Nostr.
    pub announcer: Option<Announcer>,
}

impl Node {
    #[must_use]
    pub fn new(exchange: Arc<Exchange>, spool: Spool, draining: CancellationToken) -> Self {
        Self(Arc::new(Parts {
            exchange,
            spool,
            listing: Arc::default(),
            draining,
            audit: Latest::default(),
            directory: None,
            announcer: None,
        }))
    }

    /// What the node says about itself.
    #[must_use]
    pub fn info(&self) -> config::Info {
        let mut info = self.exchange.settings.now().info.clone();
        if info.npub.is_empty() {
            self.exchange.identity.npub().clone_into(&mut info.npub);
        }
        info
    }

    /// The same node, showing the outcomes of these audits.
    #[must_use]
    pub fn showing(self, audit: Latest) -> Self {
        self.with(|parts| parts.audit = audit)
    }

    /// The same node, on Nostr.
    #[must_use]
    pub fn on_nostr(self, announcer: Option<Announcer>, directory: Option<Directory>) -> Self {
        self.with(|parts| (parts.announcer, parts.directory) = (announcer, directory))
    }

    fn with(self, change: impl FnOnce(&mut Parts)) -> Self {
        let mut parts = Arc::unwrap_or_clone(self.0);
        change(&mut parts);
        Self(Arc::new(parts))
    }
}

impl Deref for Node {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Every public route of the node. `front` answers at `/`.
pub fn router(node: Node, front: axum::routing::MethodRouter<Node>, cors_origins: &[String]) -> Routes {
    let mut router = Router::new()
        .route("/", front)
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/status.json", get(status::show));
    for prefix in ["/v1", ""] {
        let at = |path: &str| format!("{prefix}{path}");
        router = router
            .route(&at("/info"), get(info::info))
            .route(&at("/rate"), get(rate::show))
            .route(&at("/announcements"), get(announcements::list))
            .route(&at("/models"), get(models::list))
            .route(&at("/models/"), get(models::list))
            .route(&at("/models/paths"), get(paths::list))
            .route(&at("/models/paths/"), get(paths::list))
            .route(&at("/models/paths/model"), get(paths::one))
            .route(&at("/models/{*id}"), get(models::one).post(of_a_model))
            .route(&at("/providers"), get(providers::list))
            .route(&at("/providers/"), get(providers::list))
            .route(&at("/prices/{id}"), get(prices::one))
            .route(&at("/receipts/{id}"), get(receipts::one))
            .route(&at("/usage"), get(usage::show))
            .route(&at("/quote"), post(quote::chat))
            .route(&at("/quote/{*path}"), post(quote::any));
        for dialect in dialect::REGISTRY.iter().copied().filter(|dialect| !dialect.is_of_a_model()) {
            router = router.route(&at(&format!("/{}", dialect.path())), paid(dialect));
        }
    }
    router = router
        .route("/v1beta/models", get(models::list))
        .route("/v1beta/models/{*id}", get(models::one).post(of_a_model));
    router = lightning::mount(balance::mount(router));
    let router = router.fallback(not_found).method_not_allowed_fallback(not_allowed).with_state(node.clone());
    // What is inflated is bounded where it is read: no more is inflated than may be read. An encoding
    // that is not known is left to the reader too, which refuses it.
    let inflate = RequestDecompressionLayer::new().pass_through_unaccepted(true);
    // As one layer: each of its own would put the request and its answer into a further box.
    router.layer((cors(cors_origins), from_fn_with_state(node, hold_back), inflate))
}

/// While no money may move, only what reads gets through.
async fn hold_back(State(node): State<Node>, request: Request, next: Next) -> Response<Body> {
    let moves = request.method() == Method::POST || request.uri().path().ends_with("/create");
    if !moves {
        return next.run(request).await;
    }
    match node.exchange.till.wallet().halted() {
        None => next.run(request).await,
        Some(why) => {
            let protocol = protocol_of(request.uri().path(), request.headers());
            refuse(&Failure::unavailable(Code::Recovering, format!("Nothing was taken: {why}."), 60), protocol)
        }
    }
}

fn paid(dialect: &'static dyn Dialect) -> axum::routing::MethodRouter<Node> {
    let target = Target { dialect, model: None };
    post(move |state: State<Node>, request: Request| proxy::serve(state, target, request))
}

/// A path that names a model and what it shall do: `models/{model}:{method}`.
async fn of_a_model(state: State<Node>, Path(rest): Path<String>, request: Request) -> Response<Body> {
    match Target::of_a_model(&rest) {
        Some(target) => proxy::serve(state, target, request).await,
        None => not_found(request).await,
    }
}

async fn not_found(request: Request) -> Response<Body> {
    let path = request.uri().path();
    let failure = match unsupported::reason(path) {
        Some(reason) => Failure::client(Code::UnsupportedPath, reason),
        None => {
            let message = format!("There is no {} {} here.", request.method(), clean(path));
            Failure::client(Code::NotFound, message)
        }
    };
    refuse(&failure, protocol_of(path, request.headers()))
}

async fn not_allowed(request: Request) -> Response<Body> {
    let protocol = protocol_of(request.uri().path(), request.headers());
    if headers::asks_for_websocket(request.headers()) {
        return refuse(&Failure::client(Code::UpgradeRequired, "This node speaks HTTP only."), protocol);
    }
    let message = format!("{} is not allowed here.", request.method());
    refuse(&Failure::client(Code::MethodNotAllowed, message), protocol)
}

/// The protocol that a client speaks, where no dialect says it.
fn protocol_of(path: &str, headers: &HeaderMap) -> Protocol {
    if path.starts_with("/v1beta/") || headers.contains_key(headers::X_GOOG_API_KEY) {
        Protocol::Gemini
    } else if headers.contains_key(headers::ANTHROPIC_VERSION) {
        Protocol::Anthropic
    } else {
        Protocol::OpenAi
    }
}

/// A new request id. Ids sort by time, so the index over them grows at its end.
fn new_id(node: &Node) -> String {
    let now_ms = u64::try_from(node.exchange.ledger.clock().now_ms()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(now_ms, &rand::random()).into_uuid().to_string()
}

/// A refusal that concerns no route.
fn refuse(failure: &Failure, protocol: Protocol) -> Response<Body> {
    let request_id = uuid::Uuid::new_v4().to_string();
    envelope::render(failure, &Asked { protocol, request_id: &request_id, ..Asked::default() })
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
