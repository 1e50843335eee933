//! Announcements: what the shop window and `/v1/announcements` say to everybody.

use askama::Template;
use axum::extract::{DefaultBodyLimit, Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{ApiError, Body, Complaint};
use super::frame::Frame;
use super::operator::{Actor, Operator, Scope};
use super::session::Session;
use super::{AdminError, AdminState, MAX_LONG_FORM_BYTES, Notice, format, page, shown_again};
use crate::news::{self, Announcement, Level, Text};
use crate::operator::announcements::{self as acts, ActError};

const PATH: &str = "/admin/announcements";

pub(super) fn pages() -> Router<AdminState> {
    let set = post(set_form).layer(DefaultBodyLimit::max(MAX_LONG_FORM_BYTES));
    Router::new()
        .route(PATH, get(show))
        .route("/admin/announcements/set", set)
        .route("/admin/announcements/remove", post(remove_form))
}

pub(super) fn api() -> OpenApiRouter<AdminState> {
    let calls = OpenApiRouter::new().routes(routes!(list_call, set_call)).routes(routes!(remove_call));
    calls.layer(DefaultBodyLimit::max(MAX_LONG_FORM_BYTES))
}

/// An announcement.
#[derive(Serialize, ToSchema)]
struct View {
    id: String,
    title: String,
    /// Markdown.
    body: String,
    /// `info`, `warning` or `critical`.
    level: &'static str,
    /// From when it is shown, in ms since the Unix epoch.
    from_ms: i64,
    /// Until when; absent: until it is removed.
    until_ms: Option<i64>,
    updated_ms: i64,
    /// It is shown now.
    is_shown: bool,
}

async fn view(state: &AdminState) -> Result<Vec<View>, AdminError> {
    let now_ms = state.now_ms();
    let one = |one: Announcement| View {
        is_shown: one.is_shown(now_ms),
        id: one.id,
        title: one.text.title,
        body: one.text.body,
        level: one.text.level.as_str(),
        from_ms: one.text.starts_ms,
        until_ms: one.text.ends_ms,
        updated_ms: one.updated_ms,
    };
    Ok(news::all(state.ledger.store()).await?.into_iter().map(one).collect())
}

/// Announces something, or changes what is announced under this id.
async fn set(state: &AdminState, actor: &Actor, id: Option<&str>, text: &Text) -> Result<String, AdminError> {
    acts::set(state.desk(actor), id, text).await.map_err(refused)
}

/// Takes one down.
async fn remove(state: &AdminState, actor: &Actor, id: &str) -> Result<(), AdminError> {
    acts::remove(state.desk(actor), id).await.map_err(refused)
}

fn refused(error: ActError) -> AdminError {
    match error {
        ActError::Invalid(problem) => AdminError::invalid(format!("Not done: {problem}.")),
        ActError::Unknown => AdminError::not_found("There is no such announcement."),
        ActError::Put(error) => AdminError::conflict(format!("Not done: {error}.")),
        ActError::Store(error) => error.into(),
    }
}

#[derive(Template)]
#[template(path = "admin/announcements.html")]
struct Page {
    frame: Frame,
    message: String,
    /// Of one that is new.
    new: Fields,
    rows: Vec<Row>,
}

struct Row {
    id: String,
    title: String,
    level: &'static str,
    from: String,
    until: String,
    is_shown: bool,
    is_open: bool,
    fields: Fields,
}

/// What stands in a form: what is announced, or what was refused.
#[derive(Default)]
struct Fields {
    title: String,
    body: String,
    level: &'static str,
    from: String,
    until: String,
}

#[derive(Deserialize)]
struct SetForm {
    csrf: String,
    /// Empty: a new one.
    #[serde(default)]
    id: String,
    title: String,
    #[serde(default)]
    body: String,
    level: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    until: String,
}

#[derive(Deserialize)]
struct Remove {
    csrf: String,
    id: String,
}

async fn show(State(state): State<AdminState>, session: Session) -> Result<Response, AdminError> {
    render(&state, &session, Notice::none(), None).await
}

async fn set_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<SetForm>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let id = Some(form.id.as_str()).filter(|id| !id.is_empty());
    let outcome = match read(&form, state.now_ms()) {
        Ok(text) => set(&state, session.actor(), id, &text).await,
        Err(problem) => Err(AdminError::invalid(problem)),
    };
    again(&state, &session, outcome.map(drop), Some(form)).await
}

async fn remove_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Remove>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    again(&state, &session, remove(&state, session.actor(), &form.id).await, None).await
}

fn read(form: &SetForm, now_ms: i64) -> Result<Text, String> {
    let time = |text: &str| {
        let read = || format::read_date(text).ok_or(format::DATES);
        Some(text.trim()).filter(|text| !text.is_empty()).map(|_| read()).transpose()
    };
    Ok(Text {
        title: form.title.clone(),
        // Browsers end lines in this way, and count an end as one letter.
        body: form.body.replace("\r\n", "\n"),
        level: Level::parse(&form.level).unwrap_or_default(),
        starts_ms: time(&form.from)?.unwrap_or(now_ms),
        ends_ms: time(&form.until)?,
    })
}

/// The page once more. What was refused of a form is in it again.
async fn again(
    state: &AdminState,
    session: &Session,
    outcome: Result<(), AdminError>,
    typed: Option<SetForm>,
) -> Result<Response, AdminError> {
    shown_again(outcome.map(|()| PATH), async |notice| render(state, session, notice, typed).await).await
}

async fn render(
    state: &AdminState,
    session: &Session,
    notice: Notice,
    typed: Option<SetForm>,
) -> Result<Response, AdminError> {
    let mut rows: Vec<Row> = view(state).await?.into_iter().map(row).collect();
    let mut new = Fields::default();
    if let Some(typed) = typed {
        let level = Level::parse(&typed.level).unwrap_or_default().as_str();
        let SetForm { id, title, body, from, until, .. } = typed;
        let fields = Fields { title, body, level, from, until };
        match rows.iter_mut().find(|row| row.id == id) {
            Some(row) => (row.fields, row.is_open) = (fields, true),
            None => new = fields,
        }
    }
    let html = page(&Page { frame: Frame::of(state, session, PATH), message: notice.message, new, rows })?;
    Ok((notice.status, html).into_response())
}

fn row(one: View) -> Row {
    let (from, until) = (format::utc(one.from_ms), one.until_ms.map(format::utc).unwrap_or_default());
    Row {
        id: one.id,
        title: one.title.clone(),
        level: one.level,
        from: from.clone(),
        until: until.clone(),
        is_shown: one.is_shown,
        is_open: one.is_shown,
        fields: Fields { title: one.title, body: one.body, level: one.level, from, until },
    }
}

/// All announcements, the latest first.
#[utoipa::path(get, path = "/admin/api/announcements", tag = "admin", security(("operator" = ["read"])), responses(
    (status = 200, body = Vec<View>), (status = 403, body = Complaint),
))]
async fn list_call(State(state): State<AdminState>, operator: Operator) -> Result<Json<Vec<View>>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(view(&state).await?))
}

/// How much it matters.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Weight {
    #[default]
    Info,
    Warning,
    Critical,
}

#[derive(Deserialize, ToSchema)]
struct SetCall {
    /// Of the one that is changed; absent: a new one.
    #[serde(default)]
    id: Option<String>,
    title: String,
    /// Markdown. HTML in it is shown as text; links are to the web or to this node.
    #[serde(default)]
    body: String,
    #[serde(default)]
    level: Weight,
    /// In ms since the Unix epoch; now, if absent.
    #[serde(default)]
    from_ms: Option<i64>,
    /// Until it is removed, if absent.
    #[serde(default)]
    until_ms: Option<i64>,
}

#[derive(Serialize, ToSchema)]
struct Stored {
    id: String,
}

/// Announces something, or changes what is announced.
#[utoipa::path(post, path = "/admin/api/announcements", tag = "admin",
    security(("operator" = ["manage"])), request_body = SetCall, responses(
    (status = 200, body = Stored), (status = 400, body = Complaint), (status = 403, body = Complaint),
    (status = 404, body = Complaint), (status = 409, body = Complaint),
))]
async fn set_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<SetCall>,
) -> Result<Json<Stored>, ApiError> {
    let actor = operator.may(Scope::Manage)?;
    let level = match call.level {
        Weight::Info => Level::Info,
        Weight::Warning => Level::Warning,
        Weight::Critical => Level::Critical,
    };
    let starts_ms = call.from_ms.unwrap_or_else(|| state.now_ms());
    let text = Text { title: call.title, body: call.body, level, starts_ms, ends_ms: call.until_ms };
    Ok(Json(Stored { id: set(&state, actor, call.id.as_deref(), &text).await? }))
}

#[derive(Deserialize, ToSchema)]
struct RemoveCall {
    id: String,
}

/// Takes an announcement down.
#[utoipa::path(post, path = "/admin/api/announcements/remove", tag = "admin",
    security(("operator" = ["manage"])), request_body = RemoveCall, responses(
    (status = 204), (status = 403, body = Complaint), (status = 404, body = Complaint),
))]
async fn remove_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<RemoveCall>,
) -> Result<StatusCode, ApiError> {
    remove(&state, operator.may(Scope::Manage)?, &call.id).await?;
    Ok(StatusCode::NO_CONTENT)
}
