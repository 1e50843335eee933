//! The operator's side: pages rendered here, of plain forms and with nothing from elsewhere, and the same as JSON.
//!
//! A page is a file: `view` says what there is to see, one function a verb does what can be done, and two thin faces
//! show it: HTML, whose handlers of forms are called like the verb with `_form`, and JSON (`api`), with `_call`. `pages`
//! and `api` of the file are its routes; `frame::PAGES` has it in the header. The verb itself is one of
//! `crate::operator`, which commands have, too; here it is asked for in this node, which learns of it at once, and a
//! refusal gets its words and its status. `Actor` says by whom it is done, and the trail keeps it.
//!
//! Invariants:
//! * Every page but the login needs a session (`/metrics` a token); every POST comes from a page of this node (the
//!   browser says so by `Origin` or `Sec-Fetch-Site`) *and* carries the token of its form.
//! * Every call below `/admin/api` needs a bearer token with the scope for it; a cookie is not looked at.
//! * What an operator changed is in the trail, by whom and when. Money is noted there before it moves.
//! * A client's key appears as the start of its hash, never as itself.
//! * Handlers hold no policy: they ask the ledger and the wallet, and render.

mod access;
mod announcements;
mod api;
mod backup;
mod events;
mod frame;
mod input;
mod keys;
mod login;
mod maintenance;
mod metrics;
mod models;
mod network;
mod notice;
mod operator;
mod overview;
mod password;
mod repo;
pub(crate) mod requests;
mod session;
pub mod settings;
mod tariffs;
mod throttle;
pub mod trail;
mod upstreams;
mod vouchers;
mod wallet;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use self::notice::{Notice, shown_again};
use self::operator::Actor;
use crate::audit::Latest;
use crate::backup::BackupError;
use crate::catalog::import::{ImportError, Importer};
use crate::catalog::rivals::Rivals;
use crate::exchange::Exchange;
use crate::ledger::Ledger;
use crate::nostr::{Announcer, Directory};
use crate::openapi::Described;
use crate::operator::Desk;
use crate::operator::proof::Unproven;
use crate::pages::{self, format};
use crate::payment::payer::Till;
use crate::store::StoreError;
use crate::tor::Onion;
use crate::upstream::Pool;
use crate::wallet::{Wallet, WalletError};

pub use access::{Token, Wanted as WantedToken, by_command};
pub use metrics::router as metrics_router;
pub use password::{Password, PasswordState, ensure_password};

/// Forms here are a password and a token.
const MAX_FORM_BYTES: usize = 16 * 1024;
/// Where it is a token, a document of settings, or a text in a script of which each letter is nine bytes in a form.
const MAX_LONG_FORM_BYTES: usize = 64 * 1024;

const STYLE: &str = include_str!("../../templates/style.css");

/// What the pages know.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// What serves requests.
    pub exchange: Arc<Exchange>,
    pub ledger: Ledger,
    pub wallet: Wallet,
    pub till: Till,
    pub pool: Arc<Pool>,
    pub importer: Arc<Importer>,
    /// As [`ensure_password`] gave it.
    pub password: Password,
    pub version: &'static str,
    /// Who may log in by signing: npubs.
    pub npubs: Arc<[String]>,
    /// The addresses that a signature may be for, beside those of this machine and the node's own onion.
    pub origins: Arc<[String]>,
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
    /// What they charge.
    pub rivals: Option<Rivals>,
}

impl AdminState {
    /// The node's name, for the headline.
    fn name(&self) -> String {
        self.exchange.settings.now().info.name.clone()
    }

    fn now_ms(&self) -> i64 {
        self.ledger.clock().now_ms()
    }

    /// Where this one acts.
    fn desk<'a>(&'a self, actor: &'a Actor) -> Desk<'a> {
        Desk { store: self.ledger.store(), clock: &**self.ledger.clock(), actor: actor.as_str() }
    }

    /// Refuses what moves money while none may: before the mints of a node that was restored were asked, above all.
    fn may_move(&self) -> Result<(), AdminError> {
        let halted = self.wallet.halted();
        halted.map_or(Ok(()), |why| Err(AdminError::conflict(format!("No money moves now: {why}."))))
    }
}

/// All routes below `/admin`, to be merged into the node's. Of them, the calls are described: the pages are for a
/// person who is logged in.
pub fn router(state: AdminState) -> Described<()> {
    let pages = Router::new()
        .merge(overview::pages())
        .route("/admin/", get(async || Redirect::to("/admin")))
        .merge(access::pages())
        .route("/admin/login", get(login::show).post(login::log_in))
        .route("/admin/login/nostr", post(login::by_signature))
        .route("/admin/login.js", get(login::script))
        .route("/admin/logout", post(login::log_out))
        .merge(models::pages())
        .route("/admin/network", get(network::show))
        .merge(requests::pages())
        .merge(events::pages())
        .merge(upstreams::pages())
        .merge(keys::pages())
        .merge(wallet::pages())
        .merge(announcements::pages())
        .merge(backup::pages())
        .merge(settings::pages())
        .merge(tariffs::pages())
        .merge(trail::pages())
        .merge(vouchers::pages())
        .route("/admin/unit", post(frame::choose_unit))
        .route("/admin/style.css", get(style))
        .route("/admin/{*rest}", get(async || (StatusCode::NOT_FOUND, "There is no such page.")))
        .layer(middleware::from_fn(pages::refuse_foreign_posts));
    api::calls().map(|calls| {
        pages
            .merge(calls)
            .with_state(state)
            .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
            .layer(middleware::from_fn(input::refuse_nul))
            .layer(middleware::map_response(pages::harden))
    })
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
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error("cookie: {0}")]
    Cookie(String),
    #[error("password hash: {0}")]
    Hash(String),
    #[error(transparent)]
    Template(#[from] askama::Error),
    #[error("a task failed: {0}")]
    Task(String),
    /// After a wrong password: so many seconds are to pass.
    #[error("too soon after a wrong password")]
    TooSoon(u64),
    /// A form of another session, or of nobody's.
    #[error("a form was out of date")]
    OutOfDate,
    /// What was asked for is not done, for a reason that the operator is told.
    #[error("{message}")]
    Refused {
        status: StatusCode,
        /// For programs.
        code: &'static str,
        message: String,
    },
}

impl AdminError {
    /// What was asked for makes no sense.
    fn invalid(message: impl Into<String>) -> Self {
        Self::Refused { status: StatusCode::BAD_REQUEST, code: "invalid_request", message: message.into() }
    }

    /// Who asks did not show who they are.
    fn unauthorized(message: impl Into<String>) -> Self {
        Self::Refused { status: StatusCode::UNAUTHORIZED, code: "unauthorized", message: message.into() }
    }

    fn forbidden(message: impl Into<String>) -> Self {
        Self::Refused { status: StatusCode::FORBIDDEN, code: "forbidden", message: message.into() }
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self::Refused { status: StatusCode::NOT_FOUND, code: "not_found", message: message.into() }
    }

    /// It makes sense, but not as things are.
    fn conflict(message: impl Into<String>) -> Self {
        Self::Refused { status: StatusCode::CONFLICT, code: "conflict", message: message.into() }
    }

    /// What a page shows again with the reason, where there is one for the operator.
    ///
    /// # Errors
    /// All other failures, as they are.
    fn told(self) -> Result<Notice, Self> {
        match self {
            Self::Refused { status, message, .. } => Ok(Notice { status, message }),
            Self::TooSoon(secs) => Ok(Notice { status: StatusCode::TOO_MANY_REQUESTS, message: too_soon(secs) }),
            other => Err(other),
        }
    }
}

fn too_soon(secs: u64) -> String {
    format!("Too many attempts. Try again in {secs} s.")
}

impl From<Unproven> for AdminError {
    fn from(unproven: Unproven) -> Self {
        match unproven {
            Unproven::At(_) => Self::conflict(format!("Nothing was moved: {unproven}. The overview says what is off.")),
            Unproven::Store(error) => error.into(),
        }
    }
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
        if let Self::Refused { status, message, .. } = self {
            return (status, message).into_response();
        }
        if let Self::TooSoon(secs) = self {
            return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, secs.to_string())], too_soon(secs))
                .into_response();
        }
        tracing::error!(error = %self, "an admin page failed");
        (StatusCode::INTERNAL_SERVER_ERROR, "This page cannot be shown now. The log says why.").into_response()
    }
}

fn page(template: &impl askama::Template) -> Result<Html<String>, AdminError> {
    Ok(Html(template.render()?))
}
