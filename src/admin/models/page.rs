//! Models in a browser.

use askama::Template;
use axum::Router;
use axum::extract::{Form, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::super::frame::Frame;
use super::super::session::Session;
use super::super::{AdminError, AdminState, Notice, format, page, shown_again};
use super::{one, refused};
use crate::catalog::card::{self, Card, Change};
use crate::catalog::import::plan::{Kind, Proposal};
use crate::catalog::import::repo::Source;
use crate::catalog::import::{self, Decision, Offer};
use crate::operator::models as acts;

pub(super) const PATH: &str = "/admin/models";
/// Models, and changes, that are shown.
const SHOWN: usize = 1_000;

pub(super) fn pages() -> Router<AdminState> {
    Router::new()
        .route(PATH, get(show))
        .route("/admin/models/sync", post(sync_form))
        .route("/admin/models/decide", post(decide_form))
        .route("/admin/models/switch", post(switch_form))
}

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
    href: String,
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
    is_listed: bool,
    may_be_below_cost: bool,
}

#[derive(Deserialize)]
struct Confirmed {
    csrf: String,
}

#[derive(Deserialize)]
struct Decide {
    csrf: String,
    id: String,
    #[serde(default)]
    digest: String,
    verdict: String,
}

#[derive(Deserialize)]
struct Switch {
    csrf: String,
    id: String,
    #[serde(default = "sold")]
    what: String,
    on: String,
}

fn sold() -> String {
    "sold".to_owned()
}

async fn show(State(state): State<AdminState>, session: Session) -> Result<Response, AdminError> {
    render(&state, &session, Notice::none()).await
}

async fn sync_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Confirmed>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let synced = acts::sync(state.desk(session.actor()), &state.importer).await.map_err(refused);
    again(&state, &session, synced.map(drop)).await
}

async fn decide_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Decide>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let desk = state.desk(session.actor());
    let verdict = match form.verdict.as_str() {
        "at_cost" => None,
        "apply" => Some(Decision::Apply),
        "apply_below_cost" => Some(Decision::ApplyBelowCost),
        _ => Some(Decision::Refuse),
    };
    let decided = match verdict {
        Some(verdict) => acts::decide(desk, &state.importer, &form.id, Some(&form.digest), verdict).await.map(drop),
        None => acts::take_back(desk, &state.importer, &form.id).await,
    };
    again(&state, &session, decided.map_err(refused)).await
}

async fn switch_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Switch>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let on = form.on == "yes";
    let what = if form.what == "listed" { import::Switch::Listed(on) } else { import::Switch::Sold(on) };
    let switched = acts::switch(state.desk(session.actor()), &state.importer, &form.id, what).await;
    again(&state, &session, switched.map_err(refused)).await
}

async fn again(state: &AdminState, session: &Session, outcome: Result<(), AdminError>) -> Result<Response, AdminError> {
    shown_again(outcome.map(|()| PATH), async |notice| render(state, session, notice).await).await
}

async fn render(state: &AdminState, session: &Session, notice: Notice) -> Result<Response, AdminError> {
    let overview = state.importer.overview().await?;
    let waiting: Vec<WaitingRow> = overview.plan.waiting().take(SHOWN).map(waiting_row).collect();
    let html = page(&Page {
        frame: Frame::of(state, session, PATH),
        message: notice.message,
        has_sources: state.importer.has_sources(),
        sources: overview.sources.iter().map(source_row).collect(),
        refused: overview.plan.proposals.iter().filter(|proposal| proposal.is_refused).count(),
        waiting,
        hidden: overview.offers.len().saturating_sub(SHOWN),
        rows: overview.offers.iter().take(SHOWN).map(row).collect(),
    })?;
    Ok((notice.status, html).into_response())
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
        Kind::Free | Kind::Unsure | Kind::Lower => proposal.changes.iter().map(Change::in_words).collect(),
    };
    WaitingRow {
        id: proposal.id.clone(),
        kind: match proposal.kind {
            Kind::Free => "new, and given away",
            Kind::Unsure => "new, and another upstream that would be asked says no price",
            Kind::Lower => "lower",
            Kind::Gone => "no longer listed",
        },
        source: proposal.source.clone(),
        changes,
        digest: proposal.digest.clone(),
    }
}

fn row(offer: &Offer) -> Row {
    let model = &offer.model;
    let price =
        |name: &str| offer.card.get(name).map_or_else(|| "–".to_owned(), |price| card::shown(name, Some(price)));
    let notes = [
        (!offer.own_prices.is_empty(), "your prices"),
        (!offer.derived.is_empty(), "cache price derived"),
        (offer.is_below_cost, "below cost"),
        (offer.may_be_below_cost, "below cost allowed"),
        (!offer.is_served, "no upstream has it"),
        (!model.enabled && !offer.is_off, "off in your list"),
        (model.enabled && !model.visible, "not listed"),
    ];
    Row {
        id: model.id.clone(),
        href: one::href(&model.id),
        name: model.name.clone(),
        source: offer.source.clone(),
        input: price("prompt"),
        output: price("completion"),
        cache: price("input_cache_read"),
        more: others(&offer.card),
        notes: notes.into_iter().filter_map(|(is_so, note)| is_so.then_some(note)).collect(),
        is_on: model.enabled,
        can_switch: model.enabled || offer.is_off,
        is_listed: model.visible,
        may_be_below_cost: offer.may_be_below_cost,
    }
}

/// The prices that have no column.
fn others(card: &Card) -> String {
    let columns = ["prompt", "completion", "input_cache_read"];
    let others = card.iter().filter(|(name, price)| !columns.contains(name) && !price.is_zero());
    others.map(|(name, price)| format!("{name} {}", card::shown(name, Some(price)))).collect::<Vec<_>>().join(", ")
}
