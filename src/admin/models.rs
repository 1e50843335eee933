//! Models: what is sold at which price, who says so, and which changes wait for a decision.

use askama::Template;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::frame::Frame;
use super::session::Session;
use super::{AdminError, AdminState, format, page};
use crate::catalog::card::{self, Card, Change};
use crate::catalog::import::plan::{Kind, Proposal};
use crate::catalog::import::repo::Source;
use crate::catalog::import::{self, ImportError, Offer, Verdict};

const PATH: &str = "/admin/models";
/// Models, and changes, that are shown.
const SHOWN: usize = 1_000;

#[derive(Template)]
#[template(path = "admin/models.html")]
struct Page {
    frame: Frame,
    message: String,
    has_sources: bool,
    sources: Vec<SourceRow>,
    waiting: Vec<WaitingRow>,
    refused: usize,
    rows: Vec<Row>,
    hidden: usize,
}

struct SourceRow {
    name: String,
    trouble: String,
    checked: String,
    changed: Option<String>,
    notes: Vec<String>,
}

struct WaitingRow {
    id: String,
    kind: &'static str,
    source: String,
    changes: Vec<String>,
    digest: String,
}

struct Row {
    id: String,
    name: String,
    source: String,
    input: String,
    output: String,
    cache: String,
    more: String,
    notes: Vec<&'static str>,
    is_on: bool,
    /// The button switches it.
    can_switch: bool,
}

#[derive(Deserialize)]
pub(super) struct Ask {
    csrf: String,
}

#[derive(Deserialize)]
pub(super) struct Decide {
    csrf: String,
    id: String,
    digest: String,
    verdict: String,
}

#[derive(Deserialize)]
pub(super) struct Switch {
    csrf: String,
    id: String,
    on: String,
}

pub(super) async fn show(State(state): State<AdminState>, session: Session) -> Result<Response, AdminError> {
    render(state, &session, StatusCode::OK, String::new()).await
}

pub(super) async fn sync(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Ask>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    state.importer.sync().await?;
    tracing::info!("the operator had the sources of prices asked");
    Ok(Redirect::to(PATH).into_response())
}

pub(super) async fn decide(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Decide>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let verdict = match form.verdict.as_str() {
        "apply" => Verdict::Apply,
        _ => Verdict::Refuse,
    };
    match state.importer.decide(&form.id, Some(&form.digest), verdict).await {
        Ok(proposal) => {
            tracing::info!(model = proposal.id, ?verdict, "the operator decided about a price");
            Ok(Redirect::to(PATH).into_response())
        }
        Err(error) => refuse(state, &session, error).await,
    }
}

pub(super) async fn switch(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Switch>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    match state.importer.switch(&form.id, import::Switch::Sold(form.on == "yes")).await {
        Ok(()) => Ok(Redirect::to(PATH).into_response()),
        Err(error) => refuse(state, &session, error).await,
    }
}

/// What the operator could not know is told; all else is a failure of the page.
async fn refuse(state: AdminState, session: &Session, error: ImportError) -> Result<Response, AdminError> {
    match error {
        ImportError::Store(_) | ImportError::Unreadable(_) => Err(error.into()),
        told => {
            let message = format!("Not done: {told}.");
            render(state, session, StatusCode::CONFLICT, message).await
        }
    }
}

async fn render(
    state: AdminState,
    session: &Session,
    status: StatusCode,
    message: String,
) -> Result<Response, AdminError> {
    let overview = state.importer.overview().await?;
    let waiting: Vec<WaitingRow> = overview.plan.waiting().take(SHOWN).map(waiting_row).collect();
    let html = page(&Page {
        frame: Frame::of(&state, session, PATH),
        message,
        has_sources: state.importer.has_sources(),
        sources: overview.sources.iter().map(source_row).collect(),
        refused: overview.plan.proposals.iter().filter(|proposal| proposal.is_refused).count(),
        waiting,
        hidden: overview.offers.len().saturating_sub(SHOWN),
        rows: overview.offers.iter().take(SHOWN).map(row).collect(),
    })?;
    Ok((status, html).into_response())
}

fn source_row(source: &Source) -> SourceRow {
    SourceRow {
        name: source.name.clone(),
        trouble: source.trouble.clone(),
        checked: format::utc(source.checked_ms),
        changed: source.changed_ms.map(format::utc),
        notes: source.notes.lines().map(str::to_owned).collect(),
    }
}

fn waiting_row(proposal: &Proposal) -> WaitingRow {
    let changes = match proposal.kind {
        Kind::Gone => Vec::new(),
        Kind::Free | Kind::Lower => proposal.changes.iter().map(said).collect(),
    };
    WaitingRow {
        id: proposal.id.clone(),
        kind: match proposal.kind {
            Kind::Free => "new, and given away",
            Kind::Lower => "lower",
            Kind::Gone => "no longer listed",
        },
        source: proposal.source.clone(),
        changes,
        digest: proposal.digest.clone(),
    }
}

/// A change in words.
fn said(change: &Change) -> String {
    let Change { name, was, is } = change;
    format!("{name}: {} → {}", card::shown(name, *was), card::shown(name, *is))
}

fn row(offer: &Offer) -> Row {
    let model = &offer.model;
    let price =
        |name: &str| offer.card.get(name).map_or_else(|| "–".to_owned(), |price| card::shown(name, Some(price)));
    let notes = [
        (!offer.derived.is_empty(), "cache price derived"),
        (offer.is_below_cost, "below cost"),
        (!offer.is_served, "no upstream has it"),
        (!model.enabled && !offer.is_off, "off in your list"),
        (model.enabled && !model.visible, "not listed"),
    ];
    Row {
        id: model.id.clone(),
        name: model.name.clone(),
        source: offer.source.clone(),
        input: price("prompt"),
        output: price("completion"),
        cache: price("input_cache_read"),
        more: others(&offer.card),
        notes: notes.into_iter().filter_map(|(is_so, note)| is_so.then_some(note)).collect(),
        is_on: model.enabled,
        can_switch: model.enabled || offer.is_off,
    }
}

/// The prices that have no column.
fn others(card: &Card) -> String {
    let columns = ["prompt", "completion", "input_cache_read"];
    let others = card.iter().filter(|(name, price)| !columns.contains(name) && !price.is_zero());
    others.map(|(name, price)| format!("{name} {}", card::shown(name, Some(price)))).collect::<Vec<_>>().join(", ")
}
