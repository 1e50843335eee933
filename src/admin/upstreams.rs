//! Upstreams: how each is, and a button that forgets what is held against it.

use askama::Template;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::session::Session;
use super::{AdminError, AdminState, format, page};
use crate::upstream::Condition;

const PATH: &str = "/admin/upstreams";

#[derive(Template)]
#[template(path = "admin/upstreams.html")]
struct Page {
    name: String,
    csrf: String,
    message: String,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    kind: &'static str,
    state: String,
    is_alone: bool,
    /// There is something to forget.
    can_be_cleared: bool,
}

#[derive(Deserialize)]
pub(super) struct Clear {
    csrf: String,
    name: String,
}

pub(super) async fn show(State(state): State<AdminState>, session: Session) -> Result<Response, AdminError> {
    render(state, &session, StatusCode::OK, String::new())
}

pub(super) async fn clear(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Clear>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    if !state.pool.clear(state.ledger.store(), &form.name).await? {
        return render(state, &session, StatusCode::NOT_FOUND, "There is no such upstream.".to_owned());
    }
    tracing::info!(upstream = %form.name, "the operator cleared an upstream");
    Ok(Redirect::to(PATH).into_response())
}

fn render(state: AdminState, session: &Session, status: StatusCode, message: String) -> Result<Response, AdminError> {
    let html = page(&Page {
        name: state.name,
        csrf: session.csrf().to_owned(),
        message,
        rows: state.pool.conditions().iter().map(row).collect(),
    })?;
    Ok((status, html).into_response())
}

fn row(one: &Condition) -> Row {
    let (state, is_alone) = state_of(one);
    let can_be_cleared = one.bar.is_some() || one.rests || !one.out.is_empty();
    Row { name: one.name.to_string(), kind: one.kind, state, is_alone, can_be_cleared }
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
