//! Settings in a browser, with the maintenance switch.

use std::collections::BTreeMap;

use askama::Template;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Form, State};
use axum::http::header;
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::super::frame::Frame;
use super::super::maintenance;
use super::super::session::Session;
use super::super::{AdminError, AdminState, MAX_LONG_FORM_BYTES, Notice, page, shown_again};
use super::{View, pack, set, take, views};
use crate::operator::parcel::{Parcel, Taken};

const PATH: &str = "/admin/settings";

pub(in crate::admin) fn pages() -> Router<AdminState> {
    Router::new()
        .route(PATH, get(show).post(set_form))
        .route("/admin/settings/maintenance", post(turn_form))
        .route("/admin/settings/export", get(export))
        .route("/admin/settings/import", post(import_form))
        .layer(DefaultBodyLimit::max(MAX_LONG_FORM_BYTES))
}

#[derive(Template)]
#[template(path = "admin/settings.html")]
struct Page {
    frame: Frame,
    message: String,
    maintenance: maintenance::View,
    settings: Vec<View>,
    /// What importing would change.
    taken: Option<Taken>,
    /// What was to be imported, to be sent again.
    document: String,
}

#[derive(Deserialize)]
struct Set {
    csrf: String,
    name: String,
    #[serde(default)]
    value: String,
    /// Takes back what was told.
    #[serde(default)]
    unset: Option<String>,
}

#[derive(Deserialize)]
struct Turn {
    csrf: String,
    on: String,
}

#[derive(Deserialize)]
struct Import {
    csrf: String,
    document: String,
    #[serde(default)]
    act: String,
}

async fn show(State(state): State<AdminState>, session: Session) -> Result<Response, AdminError> {
    render(&state, &session, Notice::none(), Said::default()).await
}

async fn set_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Set>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let value = Some(form.value).filter(|_| form.unset.is_none());
    let changes = BTreeMap::from([(form.name, value)]);
    let changed = set(&state, session.actor(), &changes).await;
    again(&state, &session, changed.map(drop)).await
}

async fn turn_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Turn>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    again(&state, &session, maintenance::turn(&state, session.actor(), form.on == "yes").await).await
}

/// The document, as a file.
async fn export(State(state): State<AdminState>, _session: Session) -> Result<Response, AdminError> {
    let parcel = pack(&state).await?;
    let text = serde_json::to_string_pretty(&parcel).map_err(|error| AdminError::invalid(error.to_string()))?;
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"coinslot-settings.json\""),
    ];
    Ok((AppendHeaders(headers), text).into_response())
}

async fn import_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Import>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let dry_run = form.act != "import";
    let read = serde_json::from_str::<Parcel>(&form.document);
    let read = read.map_err(|error| AdminError::invalid(format!("This is no such document: {error}.")));
    let taken = match read {
        Ok(parcel) => take(&state, session.actor(), &parcel, dry_run).await,
        Err(error) => Err(error),
    };
    let (notice, taken) = match taken {
        Ok(taken) => (Notice::none(), Some(taken)),
        Err(error) => (error.told()?, None),
    };
    render(&state, &session, notice, Said { taken, document: form.document }).await
}

/// What a page says beside the settings.
#[derive(Default)]
struct Said {
    taken: Option<Taken>,
    document: String,
}

async fn again(state: &AdminState, session: &Session, outcome: Result<(), AdminError>) -> Result<Response, AdminError> {
    let refused = async |notice| render(state, session, notice, Said::default()).await;
    shown_again(outcome.map(|()| PATH), refused).await
}

async fn render(state: &AdminState, session: &Session, notice: Notice, said: Said) -> Result<Response, AdminError> {
    let html = page(&Page {
        frame: Frame::of(state, session, PATH),
        message: notice.message,
        maintenance: maintenance::view(state),
        settings: views(state).await?,
        taken: said.taken,
        document: said.document,
    })?;
    Ok((notice.status, html).into_response())
}
