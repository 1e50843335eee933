//! HTTP: parse, call, render. No policy lives here.

mod announcements;
mod balance;
pub mod envelope;
mod extract;
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
mod refusals;
pub mod serve;
mod shapes;
mod sold;
mod spool;
mod status;
mod unsupported;
mod usage;
mod watch;

use std::ops::Deref;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::post;
use tokio_util::sync::CancellationToken;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};
use tower_http::decompression::RequestDecompressionLayer;
use utoipa::openapi::path::PathItem;
use utoipa_axum::routes;

use crate::audit::Latest;
use crate::config;
use crate::dialect::{self, Dialect, Protocol};
use crate::exchange::Exchange;
use crate::failure::{Code, Failure};
use crate::http::extract::Path;
use crate::nostr::{Announcer, Directory};
use crate::openapi::Described;
use crate::tor::Onion;
use envelope::Asked;
use proxy::Target;

pub(crate) use balance::spawn;
pub(crate) use health::reasons;
pub(crate) use info::root;
pub use spool::Spool;
pub(crate) use status::look as status;
pub use watch::watched;

/// What is served at a door.
pub type Router = axum::Router;

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
    /// Where it is in Tor.
    pub onion: Onion,
}

impl Node {
    #[must_use]
    pub fn new(exchange: Arc<Exchange>, spool: Spool, draining: CancellationToken) -> Self {
        Self(Arc::new(Parts {
            exchange,
            onion: Onion::given(""),
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

    /// This node, showing the outcomes of these audits.
    #[must_use]
    pub fn showing(self, audit: Latest) -> Self {
        self.with(|parts| parts.audit = audit)
    }

    /// This node, on Nostr.
    #[must_use]
    pub fn on_nostr(self, announcer: Option<Announcer>, directory: Option<Directory>) -> Self {
        self.with(|parts| (parts.announcer, parts.directory) = (announcer, directory))
    }

    /// This node, in Tor.
    #[must_use]
    pub fn in_tor(self, onion: Onion) -> Self {
        self.with(|parts| parts.onion = onion)
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
pub fn router(
    node: Node,
    front: (axum::routing::MethodRouter<Node>, PathItem),
    cors_origins: &[String],
) -> Described<()> {
    let mut routes = Described::new()
        .schemas(refusals::schemas())
        .row("/", &[], front.0, front.1)
        .at(routes!(health::alive), &[])
        .at(routes!(health::ready), &[])
        .at(routes!(status::show), &[])
        .under(routes!(info::info), &VERSIONS, &[])
        .under(routes!(rate::show), &VERSIONS, &[])
        .under(routes!(announcements::list), &VERSIONS, &[])
        .under(routes!(models::list), &VERSIONS, &["/v1/models/", "/models/", "/v1beta/models"])
        .under(routes!(paths::list), &VERSIONS, &["/v1/models/paths/", "/models/paths/"])
        .under(routes!(paths::one), &VERSIONS, &[])
        .below(routes!(models::one), &MODELS)
        .under(routes!(providers::list), &VERSIONS, &["/v1/providers/", "/providers/"])
        .under(routes!(prices::one), &VERSIONS, &[])
        .under(routes!(receipts::one), &VERSIONS, &[])
        .under(routes!(usage::show), &VERSIONS, &[])
        .under(routes!(quote::chat), &VERSIONS, &[])
        .below(routes!(quote::any), &["/quote/{path}"]);
    let (of_models, plain): (Vec<_>, Vec<_>) =
        dialect::REGISTRY.iter().copied().partition(|dialect| dialect.is_of_a_model());
    for dialect in plain {
        let (path, bare) = (format!("/v1/{}", dialect.path()), format!("/{}", dialect.path()));
        routes = routes.row(&path, &[&bare], paid(dialect), sold::describe(dialect));
    }
    let greedy = ["/v1beta/models/{*id}", "/v1/models/{*id}", "/models/{*id}"];
    let methods = of_models
        .iter()
        .map(|dialect| (format!("/v1beta/models/{{model}}:{}", dialect.path()), sold::describe(*dialect)));
    routes = lightning::mount(balance::mount(routes.rows(&greedy, post(of_a_model), &[], methods)));
    // What is inflated is bounded where it is read: no more is inflated than may be read. An encoding
    // that is not known is left to the reader too, which refuses it.
    let inflate = RequestDecompressionLayer::new().pass_through_unaccepted(true);
    let cors = cors(cors_origins);
    routes.map(|router| {
        let router = router.fallback(not_found).method_not_allowed_fallback(not_allowed).with_state(node.clone());
        // As one layer: each of its own would put the request and its answer into a further box.
        router.layer((cors, from_fn_with_state(node, hold_back), inflate))
    })
}

/// With the version or without.
const VERSIONS: [&str; 2] = ["/v1", ""];
/// Where else a model is looked up.
const MODELS: [&str; 2] = ["/models/{id}", "/v1beta/models/{id}"];

/// While no money may move, only what reads gets through. A look at a key may redeem it: that, the wallet refuses.
async fn hold_back(State(node): State<Node>, request: Request, next: Next) -> Response<Body> {
    let moves = request.method() == Method::POST || request.uri().path().ends_with("/create");
    if !moves {
        return next.run(request).await;
    }
    match node.exchange.till.may_move() {
        Ok(()) => next.run(request).await,
        Err(failure) => refuse(&failure, vendor_of(request.uri().path(), request.headers())),
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
    let (code, why) = match unsupported::reason(path) {
        Some(reason) => (Code::UnsupportedPath, reason.to_owned()),
        None => (Code::NotFound, format!("nothing is there for {}.", request.method())),
    };
    // The network's clients know by these words that the node does not have the route at all.
    let message = format!("Path '{}' not found: {why}", clean(path));
    refuse(&Failure::client(code, message), vendor_of(path, request.headers()))
}

async fn not_allowed(request: Request) -> Response<Body> {
    let protocol = vendor_of(request.uri().path(), request.headers());
    if headers::asks_for_websocket(request.headers()) {
        return refuse(&Failure::client(Code::UpgradeRequired, "This node speaks HTTP only."), protocol);
    }
    let message = format!("{} is not allowed here.", request.method());
    refuse(&Failure::client(Code::MethodNotAllowed, message), protocol)
}

/// The vendor whose conventions a client follows, where no dialect says it.
fn vendor_of(path: &str, headers: &HeaderMap) -> Protocol {
    if path.starts_with("/v1beta/") || headers.contains_key(headers::X_GOOG_API_KEY) {
        Protocol::Gemini
    } else if headers.contains_key(headers::ANTHROPIC_VERSION) {
        Protocol::Anthropic
    } else {
        Protocol::OpenAi
    }
}

/// Whose envelope failures of a route of this protocol come in. Anthropic's clients send headers of its own to its
/// routes; those of this network send neither, and look there for what they look for everywhere.
fn envelope_of(protocol: Protocol, headers: &HeaderMap) -> Protocol {
    let own = [headers::ANTHROPIC_VERSION, headers::X_API_KEY];
    match protocol {
        Protocol::Anthropic if !own.iter().any(|name| headers.contains_key(name)) => Protocol::OpenAi,
        protocol => protocol,
    }
}

/// A refusal that concerns no route.
fn refuse(failure: &Failure, protocol: Protocol) -> Response<Body> {
    let request_id = watch::id();
    envelope::render(failure, &Asked { protocol, request_id: &request_id, ..Asked::default() })
}

/// A path as an error may show it: short, and without anything that might be a credential.
fn clean(path: &str) -> String {
    if path.contains("cashu") || path.contains("sk-") {
        return "…".to_owned();
    }
    path.chars().filter(|c| !c.is_control() && *c != '\'').take(100).collect()
}

fn cors(origins: &[String]) -> CorsLayer {
    let allowed: Vec<HeaderValue> = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    // Only to sites that are named: with any, browsers refuse it.
    let with_credentials = !allowed.is_empty();
    let origin = if allowed.is_empty() { AllowOrigin::any() } else { AllowOrigin::list(allowed) };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_credentials(with_credentials)
        .allow_methods(AllowMethods::list([Method::GET, Method::POST, Method::OPTIONS]))
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::list(headers::exposed()))
}
