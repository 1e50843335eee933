//! The operator's pages, rendered here: plain forms, no script, nothing from elsewhere.
//!
//! Invariants:
//! * Every page but the login needs a session (`/metrics` a token); every POST comes from a page of this node (the
//!   browser says so by `Origin` or `Sec-Fetch-Site`) *and* carries the token of its form.
//! * A client's key appears as the start of its hash, never as itself.
//! * Handlers hold no policy: they ask the ledger and the wallet, and render.

mod login;
mod metrics;
mod models;
mod network;
mod overview;
mod password;
mod repo;
mod requests;
mod session;
mod throttle;
mod upstreams;
mod vouchers;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use crate::audit::Latest;
use crate::catalog::import::{ImportError, Importer};
use crate::ledger::Ledger;
use crate::nostr::{Announcer, Directory};
use crate::pages::{self, format};
use crate::payment::payer::Till;
use crate::store::StoreError;
use crate::tor::Onion;
use crate::upstream::Pool;
use crate::wallet::{Wallet, WalletError};

pub use metrics::router as metrics_router;
pub use password::{Password, PasswordState, ensure_password};

/// Forms here are a password and a token.
const MAX_FORM_BYTES: usize = 16 * 1024;

const STYLE: &str = include_str!("../../templates/style.css");

/// What the pages know.
#[derive(Clone, Debug)]
pub struct AdminState {
    pub ledger: Ledger,
    pub wallet: Wallet,
    pub till: Till,
    pub pool: Arc<Pool>,
    pub importer: Arc<Importer>,
    /// As [`ensure_password`] gave it.
    pub password: Password,
    /// The node's name, for the headline.
    pub name: String,
    pub version: &'static str,
    /// Whether the pages are reached by HTTPS, so that cookies may insist on it.
    pub secure_cookies: bool,
    /// The last proof of the books.
    pub audit: Latest,
    pub network: OnNostr,
    /// The node in Tor.
    pub onion: Onion,
}

/// The node on Nostr.
#[derive(Clone, Debug)]
pub struct OnNostr {
    pub npub: String,
    pub http_url: String,
    pub announcer: Announcer,
    /// The others there, where the node looks for them.
    pub directory: Option<Directory>,
}

impl AdminState {
    fn now_ms(&self) -> i64 {
        self.ledger.clock().now_ms()
    }

    /// Whether cookies may insist on HTTPS. In Tor there is none: a browser would keep them to itself, and
    /// nobody could log in.
    fn may_insist(&self, headers: &HeaderMap) -> bool {
        self.secure_cookies && !pages::is_in_tor(headers)
    }
}

/// All routes below `/admin`, to be merged into the node's.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/admin", get(overview::show))
        .route("/admin/", get(async || Redirect::to("/admin")))
        .route("/admin/login", get(login::show).post(login::log_in))
        .route("/admin/logout", post(login::log_out))
        .route("/admin/models", get(models::show))
        .route("/admin/models/sync", post(models::sync))
        .route("/admin/models/decide", post(models::decide))
        .route("/admin/models/switch", post(models::switch))
        .route("/admin/network", get(network::show))
        .route("/admin/requests", get(requests::show))
        .route("/admin/upstreams", get(upstreams::show))
        .route("/admin/upstreams/clear", post(upstreams::clear))
        .route("/admin/vouchers", get(vouchers::show).post(vouchers::issue))
        .route("/admin/vouchers/revoke", post(vouchers::revoke))
        .route("/admin/style.css", get(style))
        .route("/admin/{*rest}", get(async || (StatusCode::NOT_FOUND, "There is no such page.")))
        .with_state(state)
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .layer(middleware::from_fn(pages::refuse_foreign_posts))
        .layer(middleware::map_response(pages::harden))
}

async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE)
}

/// Why a page cannot be shown. Logged; the browser sees nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Wallet(#[from] WalletError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error("cookie: {0}")]
    Cookie(String),
    #[error("password hash: {0}")]
    Hash(String),
    #[error(transparent)]
    Template(#[from] askama::Error),
    /// A form of another session, or of nobody's.
    #[error("a form was out of date")]
    OutOfDate,
}

impl From<sqlx::Error> for AdminError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(StoreError::Sql(error))
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        if matches!(self, Self::OutOfDate) {
            return (StatusCode::FORBIDDEN, "This form was out of date. Go back and reload.").into_response();
        }
        tracing::error!(error = %self, "an admin page failed");
        (StatusCode::INTERNAL_SERVER_ERROR, "This page cannot be shown now. The log says why.").into_response()
    }
}

fn page(template: &impl askama::Template) -> Result<Html<String>, AdminError> {
    Ok(Html(template.render()?))
}
