//! Profiles and windows in a browser.

use askama::Template;
use axum::Router;
use axum::extract::{Form, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::super::frame::Frame;
use super::super::session::Session;
use super::super::{AdminError, AdminState, Notice, page, shown_again};
use super::{Holder, View, attach, remove_profile, remove_window, set_profile, set_window, view};
use crate::operator::entry::{ProfileEntry, WindowEntry};

const PATH: &str = "/admin/profiles";

pub(in crate::admin) fn pages() -> Router<AdminState> {
    Router::new()
        .route(PATH, get(show))
        .route("/admin/profiles/set", post(set_profile_form))
        .route("/admin/profiles/remove", post(remove_profile_form))
        .route("/admin/profiles/attach", post(attach_form))
        .route("/admin/windows/set", post(set_window_form))
        .route("/admin/windows/remove", post(remove_window_form))
}

#[derive(Template)]
#[template(path = "admin/profiles.html")]
struct Page {
    frame: Frame,
    message: String,
    view: View,
}

/// A profile or a window, as a form has it: patterns and days are words.
#[derive(Deserialize)]
struct Entry {
    csrf: String,
    name: String,
    multiplier: String,
    #[serde(default)]
    models: String,
    #[serde(default)]
    not: String,
    #[serde(default)]
    below_cost: Option<String>,
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    days: String,
    #[serde(default)]
    offset: String,
}

#[derive(Deserialize)]
struct Named {
    csrf: String,
    name: String,
}

#[derive(Deserialize)]
struct Attach {
    csrf: String,
    /// Empty: the prices of the list.
    #[serde(default)]
    profile: String,
    #[serde(default)]
    key: String,
    #[serde(default)]
    voucher: String,
}

fn words(text: &str) -> Vec<String> {
    text.split([',', ' ', '\n', '\r', '\t']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

async fn show(State(state): State<AdminState>, session: Session) -> Result<Response, AdminError> {
    render(&state, &session, Notice::none()).await
}

async fn set_profile_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Entry>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let entry = ProfileEntry {
        name: form.name.trim().to_owned(),
        multiplier: form.multiplier,
        models: words(&form.models),
        not: words(&form.not),
        below_cost: form.below_cost.is_some(),
    };
    again(&state, &session, set_profile(&state, session.actor(), &entry).await).await
}

async fn remove_profile_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Named>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    again(&state, &session, remove_profile(&state, session.actor(), &form.name).await).await
}

async fn attach_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Attach>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let profile = Some(form.profile.trim()).filter(|profile| !profile.is_empty());
    let attached = match (form.key.trim(), form.voucher.trim()) {
        (key, "") => attach(&state, session.actor(), Holder::Key(key), profile).await,
        ("", voucher) => attach(&state, session.actor(), Holder::Voucher(voucher), profile).await,
        _ => Err(AdminError::invalid("Name a key or a voucher, and not both.")),
    };
    again(&state, &session, attached).await
}

async fn set_window_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Entry>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let offset = Some(form.offset.trim()).filter(|offset| !offset.is_empty()).unwrap_or("+00:00");
    let entry = WindowEntry {
        name: form.name.trim().to_owned(),
        multiplier: form.multiplier,
        from: form.from.trim().to_owned(),
        to: form.to.trim().to_owned(),
        days: words(&form.days),
        offset: offset.to_owned(),
        models: words(&form.models),
        not: words(&form.not),
        below_cost: form.below_cost.is_some(),
    };
    again(&state, &session, set_window(&state, session.actor(), &entry).await).await
}

async fn remove_window_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Named>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    again(&state, &session, remove_window(&state, session.actor(), &form.name).await).await
}

async fn again(state: &AdminState, session: &Session, outcome: Result<(), AdminError>) -> Result<Response, AdminError> {
    shown_again(outcome.map(|()| PATH), async |notice| render(state, session, notice).await).await
}

async fn render(state: &AdminState, session: &Session, notice: Notice) -> Result<Response, AdminError> {
    let view = view(state).await?;
    let html = page(&Page { frame: Frame::of(state, session, PATH), message: notice.message, view })?;
    Ok((notice.status, html).into_response())
}
