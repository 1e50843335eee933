//! Who gets in: the sessions that are open, tokens for programs, the password, who may sign instead of it.

mod calls;
mod repo;
pub(super) mod signing;
mod tokens;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::frame::Frame;
use super::operator::{Actor, Scope};
use super::password::{self, Door, Verdict};
use super::session::{self, Session};
use super::{AdminError, AdminState, Notice, format, page, shown_again};
use crate::config::{Secret, check_password};
use crate::operator::Desk;
use crate::store::{Store, StoreError};

pub(super) use calls::api;
pub use tokens::{Token, Wanted};

const PATH: &str = "/admin/access";

pub(super) fn pages() -> Router<AdminState> {
    Router::new()
        .route(PATH, get(show))
        .route("/admin/access/tokens", post(create))
        .route("/admin/access/tokens/revoke", post(revoke))
        .route("/admin/access/password", post(change))
        .route("/admin/access/log-out", post(log_out))
}

/// A session that is open.
#[derive(Serialize, ToSchema)]
struct OpenSession {
    /// The start of its hash.
    id: String,
    /// Whose it is: `password`, or an npub.
    actor: String,
    /// `page` or `api`.
    via: String,
    /// In ms since the Unix epoch.
    created_at: i64,
    /// In ms since the Unix epoch.
    expires_at: i64,
    /// Whether it is the one that asks.
    is_this: bool,
}

/// Who gets in, and how.
#[derive(Serialize, ToSchema)]
struct View {
    sessions: Vec<OpenSession>,
    tokens: Vec<Token>,
    /// Who may log in by signing.
    npubs: Vec<String>,
    /// The environment says what the password is, and wins.
    password_is_configured: bool,
}

async fn view(state: &AdminState, own: Option<&str>) -> Result<View, AdminError> {
    let store = state.ledger.store();
    let session = |found: repo::OpenSession| OpenSession {
        id: found.id_hash.chars().take(12).collect(),
        is_this: own == Some(found.id_hash.as_str()),
        actor: found.actor.as_str().to_owned(),
        via: found.via,
        created_at: found.created_ms,
        expires_at: found.expires_ms,
    };
    let open = repo::sessions(store, state.now_ms()).await?.into_iter();
    let open = open.filter(|found| found.actor.may_log_in(&state.npubs));
    Ok(View {
        sessions: open.map(session).collect(),
        tokens: tokens::list(store).await?,
        npubs: state.npubs.to_vec(),
        password_is_configured: state.password.is_configured(),
    })
}

/// Sets another password, and ends all sessions but the one that asks.
async fn change_password(
    state: &AdminState,
    actor: &Actor,
    (own, door): (Option<&str>, Door),
    (old, new): (Secret, Secret),
) -> Result<(), AdminError> {
    if state.password.is_configured() {
        return Err(AdminError::conflict("ADMIN_PASSWORD is set, and the environment wins. Change it there."));
    }
    check_password(new.expose()).map_err(|why| AdminError::invalid(format!("The new password {why}.")))?;
    state.password.check(old, door).await?.admit()?;
    let (store, now_ms) = (state.ledger.store(), state.now_ms());
    let hash = password::hash(new).await?;
    repo::replace_password(store, &hash, own, now_ms).await?;
    Ok(state.desk(actor).note("access.password", "password", &json!({})).await?)
}

/// Ends all sessions, of people and programs. Tokens stay.
async fn log_out_everywhere(state: &AdminState, actor: &Actor) -> Result<(), AdminError> {
    repo::close_sessions(state.ledger.store(), None).await?;
    Ok(state.desk(actor).note("access.log-out", "all sessions", &json!({})).await?)
}

/// Writes down that a token is used.
pub(super) async fn note_use(store: &Store, hash: &str, now_ms: i64) -> Result<(), StoreError> {
    repo::note_use(store, hash, now_ms).await
}

/// What the program's own verbs do here: whoever has the database has it all.
pub mod by_command {
    use super::{AdminError, Desk, Secret, Store, Token, Wanted, json, password, repo, tokens};

    /// Puts a new password in the place of the stored one, and ends all sessions. It is nowhere else in clear.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn reset_password(desk: Desk<'_>) -> Result<Secret, AdminError> {
        let (secret, hash) = password::made().await?;
        repo::replace_password(desk.store, &hash, None, desk.now_ms()).await?;
        desk.note("access.password", "password", &json!({ "reset": true })).await?;
        Ok(secret)
    }

    /// All tokens.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tokens(store: &Store) -> Result<Vec<Token>, AdminError> {
        tokens::list(store).await
    }

    /// Makes a token. It is nowhere else in clear.
    ///
    /// # Errors
    /// [`AdminError::Refused`] for what makes no sense.
    pub async fn create_token(desk: Desk<'_>, wanted: &Wanted) -> Result<(Token, Secret), AdminError> {
        tokens::create(desk, &tokens::Maker::OF_ALL, wanted).await
    }

    /// Makes a token useless.
    ///
    /// # Errors
    /// [`AdminError::Refused`] when there is none.
    pub async fn revoke_token(desk: Desk<'_>, id: &str) -> Result<(), AdminError> {
        tokens::revoke(desk, id).await
    }
}

#[derive(Template)]
#[template(path = "admin/access.html")]
struct Page {
    frame: Frame,
    message: String,
    /// Name and text of a token that was made just now.
    made: Option<(String, String)>,
    done: &'static str,
    view: View,
    now_ms: i64,
}

impl Page {
    fn has_expired(&self, token: &Token) -> bool {
        token.expires_at.is_some_and(|at| at <= self.now_ms)
    }
}

/// What was done.
#[derive(Default)]
struct News {
    made: Option<(String, String)>,
    done: &'static str,
}

async fn render(state: &AdminState, session: &Session, notice: Notice, news: News) -> Result<Response, AdminError> {
    let News { made, done } = news;
    let view = view(state, Some(session.id_hash())).await?;
    let frame = Frame::of(state, session, PATH);
    let html = page(&Page { frame, message: notice.message, made, done, view, now_ms: state.now_ms() })?;
    Ok((notice.status, html).into_response())
}

async fn show(State(state): State<AdminState>, session: Session) -> Result<Response, AdminError> {
    render(&state, &session, Notice::none(), News::default()).await
}

/// What the forms of the page say.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Sent {
    csrf: String,
    name: String,
    read: Option<String>,
    manage: Option<String>,
    money: Option<String>,
    days: String,
    id: String,
    old: String,
    new: String,
    again: String,
}

type Form = axum::extract::Form<Sent>;

impl Sent {
    fn wanted(&self) -> Result<Wanted, AdminError> {
        let days = match self.days.trim() {
            "" => None,
            days => Some(days.parse().map_err(|_| AdminError::invalid("The days are not a whole number."))?),
        };
        let ticked = [(&self.read, Scope::Read), (&self.manage, Scope::Manage), (&self.money, Scope::Money)];
        let scopes = ticked.into_iter().filter(|(tick, _)| tick.is_some());
        let scopes = scopes.map(|(_, scope)| scope.as_str().to_owned()).collect();
        Ok(Wanted { name: self.name.clone(), scopes, days })
    }
}

async fn create(
    State(state): State<AdminState>,
    session: Session,
    axum::extract::Form(sent): Form,
) -> Result<Response, AdminError> {
    session.confirm(&sent.csrf)?;
    let made = async { tokens::create(state.desk(session.actor()), &tokens::Maker::OF_ALL, &sent.wanted()?).await };
    let (notice, made) = match made.await {
        Ok((token, secret)) => (Notice::none(), Some((token.name, secret.expose().to_owned()))),
        Err(error) => (error.told()?, None),
    };
    render(&state, &session, notice, News { made, ..News::default() }).await
}

async fn revoke(
    State(state): State<AdminState>,
    session: Session,
    axum::extract::Form(sent): Form,
) -> Result<Response, AdminError> {
    session.confirm(&sent.csrf)?;
    let revoked = tokens::revoke(state.desk(session.actor()), &sent.id).await;
    shown_again(revoked.map(|()| PATH), async |notice| render(&state, &session, notice, News::default()).await).await
}

async fn change(
    State(state): State<AdminState>,
    door: Door,
    session: Session,
    axum::extract::Form(sent): Form,
) -> Result<Response, AdminError> {
    session.confirm(&sent.csrf)?;
    if sent.new != sent.again {
        let message = "The new password was not the same twice.".to_owned();
        let notice = Notice { status: StatusCode::BAD_REQUEST, message };
        return render(&state, &session, notice, News::default()).await;
    }
    let both = (Secret::new(sent.old), Secret::new(sent.new));
    let (notice, done) = match change_password(&state, session.actor(), (Some(session.id_hash()), door), both).await {
        Ok(()) => (Notice::none(), "The password is changed, and all other sessions have ended."),
        Err(error) => (error.told()?, ""),
    };
    render(&state, &session, notice, News { done, ..News::default() }).await
}

async fn log_out(
    State(state): State<AdminState>,
    session: Session,
    headers: HeaderMap,
    axum::extract::Form(sent): Form,
) -> Result<Response, AdminError> {
    session.confirm(&sent.csrf)?;
    log_out_everywhere(&state, session.actor()).await?;
    let cookie = AppendHeaders([(header::SET_COOKIE, session::forget(&headers)?)]);
    Ok((cookie, Redirect::to("/admin/login")).into_response())
}

impl Verdict {
    /// Lets pass who had the password.
    ///
    /// # Errors
    /// [`AdminError::Refused`] and [`AdminError::TooSoon`] for others.
    pub(super) fn admit(self) -> Result<(), AdminError> {
        match self {
            Self::Right => Ok(()),
            Self::Wrong => {
                tracing::warn!("a wrong operator's password was given");
                Err(AdminError::unauthorized("That is not the password."))
            }
            Self::TooSoon(wait) => {
                let secs = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
                Err(AdminError::TooSoon(secs))
            }
        }
    }
}
