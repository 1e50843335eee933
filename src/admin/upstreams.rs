//! Upstreams: how each is, and a button that forgets what is held against it.

use askama::Template;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{ApiError, Body, Complaint};
use super::frame::Frame;
use super::operator::{Actor, Operator, Scope};
use super::session::Session;
use super::trail::{self, Act};
use super::{AdminError, AdminState, format, page};
use crate::upstream::Condition;

const PATH: &str = "/admin/upstreams";

pub(super) fn pages() -> Router<AdminState> {
    Router::new().route(PATH, get(show)).route("/admin/upstreams/clear", post(clear))
}

pub(super) fn api() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(list_call)).routes(routes!(clear_call))
}

/// An upstream, as it is seen from this process.
#[derive(Serialize, ToSchema)]
struct View {
    name: String,
    /// Its preset.
    kind: &'static str,
    /// In words.
    state: String,
    /// Whether it is left alone.
    is_alone: bool,
    /// There is something to forget.
    can_be_cleared: bool,
    /// USD.
    #[schema(value_type = String)]
    spent_today_usd: rust_decimal::Decimal,
    /// USD.
    #[schema(value_type = String)]
    spent_this_month_usd: rust_decimal::Decimal,
}

fn view(state: &AdminState) -> Vec<View> {
    let view = |one: &Condition| {
        let (said, is_alone) = state_of(one);
        View {
            name: one.name.to_string(),
            kind: one.kind,
            state: said,
            is_alone,
            can_be_cleared: one.bar.is_some() || one.rests || !one.out.is_empty(),
            spent_today_usd: one.today_usd.normalize(),
            spent_this_month_usd: one.month_usd.normalize(),
        }
    };
    state.pool.conditions().iter().map(view).collect()
}

/// Forgets what is held against an upstream.
async fn forget(state: &AdminState, actor: &Actor, name: &str) -> Result<(), AdminError> {
    if !state.pool.clear(state.ledger.store(), name).await? {
        return Err(AdminError::not_found("There is no such upstream."));
    }
    trail::note(state, actor, Act { action: "upstreams.clear", subject: name }, &json!({})).await
}

#[derive(Template)]
#[template(path = "admin/upstreams.html")]
struct Page {
    frame: Frame,
    message: String,
    rows: Vec<View>,
}

#[derive(Deserialize)]
struct Clear {
    csrf: String,
    name: String,
}

async fn show(State(state): State<AdminState>, session: Session) -> Result<Response, AdminError> {
    render(&state, &session, StatusCode::OK, String::new())
}

async fn clear(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Clear>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    match forget(&state, session.actor(), &form.name).await {
        Ok(()) => Ok(Redirect::to(PATH).into_response()),
        Err(error) => {
            let (status, message) = error.told()?;
            render(&state, &session, status, message)
        }
    }
}

fn render(state: &AdminState, session: &Session, status: StatusCode, message: String) -> Result<Response, AdminError> {
    let html = page(&Page { frame: Frame::of(state, session, PATH), message, rows: view(state) })?;
    Ok((status, html).into_response())
}

/// The upstreams, and how each is.
#[utoipa::path(get, path = "/admin/api/upstreams", tag = "admin", responses(
    (status = 200, body = Vec<View>), (status = 403, body = Complaint),
))]
async fn list_call(State(state): State<AdminState>, operator: Operator) -> Result<Json<Vec<View>>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(view(&state)))
}

#[derive(Deserialize, ToSchema)]
struct ClearCall {
    name: String,
}

/// Forgets what is held against an upstream.
#[utoipa::path(post, path = "/admin/api/upstreams/clear", tag = "admin", request_body = ClearCall, responses(
    (status = 204), (status = 403, body = Complaint), (status = 404, body = Complaint),
))]
async fn clear_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<ClearCall>,
) -> Result<StatusCode, ApiError> {
    forget(&state, operator.may(Scope::Manage)?, &call.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How an upstream is, and whether that is bad.
pub(super) fn state_of(one: &Condition) -> (String, bool) {
    let out: Vec<String> = one.out.iter().map(|(model, secs)| format!("{model} for {secs} s")).collect();
    match (one.bar, one.is_capped) {
        (Some((bar, since_ms)), _) => (format!("barred since {}: {}", format::utc(since_ms), bar.text()), true),
        (None, true) => ("its spend cap is reached".to_owned(), true),
        (None, false) if !out.is_empty() => (format!("left alone: {}", out.join(", ")), true),
        (None, false) if one.rests => ("goes last for a while".to_owned(), false),
        (None, false) => ("is asked".to_owned(), false),
    }
}
