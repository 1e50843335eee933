//! What was used, in sums: for programs, and as CSV.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::api::{ApiError, Complaint, Search};
use super::super::operator::{Operator, Scope};
use super::super::session::Session;
use super::super::{AdminError, AdminState, format};
use crate::clock::{DAY_MS, HOUR_MS};
use crate::pages::csv;
use crate::status::Sum;
use crate::status::sums::repo::{self, By};
use crate::status::sums::{COLUMNS, Span};
use crate::store::{Store, StoreError};

/// Most rows of one answer. One that would have more is refused, for nobody would see what it lacks.
const MOST: i64 = 1_000;
/// Rows that are read at a time.
const CHUNK: i64 = 500;
/// Hours are summed over this long at most, days over as long as you like.
const MOST_HOURS: i64 = 31 * 24;

/// What is wanted.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct Said {
    /// From then on: `2026-11-26`, `2026-11-26T10:00` (UTC), or ms since the Unix epoch. Empty: of the last 30 days.
    from: String,
    /// Before that. Empty: until now.
    to: String,
    /// hour, day, model or upstream. Empty: day.
    by: String,
}

/// A sum, and what it is of.
#[derive(Serialize, ToSchema)]
pub(super) struct Part {
    /// When its hour or day begins, in ms since the Unix epoch.
    start_ms: Option<i64>,
    model: Option<String>,
    upstream: Option<String>,
    sum: Sum,
}

fn range(said: &Said, now_ms: i64) -> Result<(i64, i64), AdminError> {
    let time = |text: &str, default: i64| match text.trim() {
        "" => Ok(default),
        text => {
            format::read_utc(text).ok_or_else(|| AdminError::invalid(format!("\"{text}\" is not a valid time in UTC.")))
        }
    };
    let from_ms = time(&said.from, Span::Day.start(now_ms.saturating_sub(29 * DAY_MS)))?;
    Ok((from_ms, time(&said.to, now_ms.saturating_add(1))?))
}

async fn usage(state: &AdminState, said: &Said) -> Result<Vec<Part>, AdminError> {
    let store = state.ledger.store();
    let (from_ms, to_ms) = range(said, state.now_ms())?;
    let (by, span) = match said.by.as_str() {
        "hour" if to_ms.saturating_sub(from_ms) > MOST_HOURS * HOUR_MS => {
            return Err(AdminError::invalid(format!("Of hours, ask for {} days at most.", MOST_HOURS / 24)));
        }
        "hour" => (By::Start, Span::Hour),
        "" | "day" => (By::Start, Span::Day),
        "model" => (By::Model, Span::Day),
        "upstream" => (By::Upstream, Span::Day),
        _ => return Err(AdminError::invalid("by is hour, day, model or upstream.")),
    };
    state.exchange.traffic.sums().keep(store).await?;
    let groups = repo::grouped(store, by, span, (from_ms, to_ms), MOST.saturating_add(1)).await?;
    if i64::try_from(groups.len()).unwrap_or(i64::MAX) > MOST {
        let why = format!("These are more than {MOST} sums. Ask for a shorter time, or for the CSV, which has no end.");
        return Err(AdminError::invalid(why));
    }
    let part = |group: repo::Group| {
        let named = |wanted: By| (by == wanted).then(|| group.name.clone());
        Part {
            start_ms: named(By::Start).and_then(|start| start.parse().ok()),
            model: named(By::Model),
            upstream: named(By::Upstream),
            sum: group.sum,
        }
    };
    Ok(groups.into_iter().map(part).collect())
}

/// What was used, by hour, day, model or upstream: a thousand sums at most, and what would be more is refused.
#[utoipa::path(get, path = "/admin/api/usage", tag = "admin",
    security(("operator" = ["read"])), params(Said), responses(
    (status = 200, body = Vec<Part>), (status = 400, body = Complaint), (status = 403, body = Complaint),
))]
pub(super) async fn usage_call(
    State(state): State<AdminState>,
    operator: Operator,
    Search(said): Search<Said>,
) -> Result<Json<Vec<Part>>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(usage(&state, &said).await?))
}

/// What is left to be sent.
struct Rest {
    store: Store,
    span: Span,
    /// What was sent last.
    last: (i64, String, String),
    to_ms: i64,
    is_first: bool,
}

async fn answer(state: &AdminState, said: &Said) -> Result<Response, AdminError> {
    let (from_ms, to_ms) = range(said, state.now_ms())?;
    let span = match said.by.as_str() {
        "hour" => Span::Hour,
        "" | "day" => Span::Day,
        _ => return Err(AdminError::invalid("by is hour or day: each line has its model and upstream.")),
    };
    state.exchange.traffic.sums().keep(state.ledger.store()).await?;
    // Every sum has a model, so this comes before all those that begin then.
    let last = (from_ms, String::new(), String::new());
    let rest = Rest { store: state.ledger.store().clone(), span, last, to_ms, is_first: true };
    let body = stream::try_unfold(Some(rest), async |rest| {
        let Some(mut rest) = rest else { return Ok::<_, StoreError>(None) };
        let after = (rest.last.0, rest.last.1.as_str(), rest.last.2.as_str());
        let rows = repo::after(&rest.store, rest.span, after, rest.to_ms, CHUNK).await?;
        let mut text = if rest.is_first { head() } else { String::new() };
        rows.iter().for_each(|row| text.push_str(&line(row)));
        let is_last = i64::try_from(rows.len()).unwrap_or(0) < CHUNK;
        rest.is_first = false;
        if let Some(row) = rows.into_iter().next_back() {
            rest.last = (row.start, row.model, row.upstream);
        }
        Ok(Some((Bytes::from(text), (!is_last).then_some(rest))))
    });
    Ok((csv::headers("usage.csv"), Body::from_stream(body)).into_response())
}

fn head() -> String {
    csv::line(["start", "model", "upstream"].into_iter().chain(COLUMNS))
}

fn line(row: &repo::Stored) -> String {
    let numbers = row.sum.numbers().map(|number| number.to_string());
    let mut cells = vec![format::utc(row.start), row.model.clone(), row.upstream.clone()];
    cells.extend(numbers);
    csv::line(cells)
}

pub(super) async fn csv_of_session(
    State(state): State<AdminState>,
    _session: Session,
    Query(said): Query<Said>,
) -> Result<Response, AdminError> {
    answer(&state, &said).await
}

/// The sums of each model at each upstream by day or hour, as CSV.
#[utoipa::path(get, path = "/admin/api/usage.csv", tag = "admin",
    security(("operator" = ["read"])), params(Said), responses(
    (status = 200, content_type = "text/csv"), (status = 400, body = Complaint), (status = 403, body = Complaint),
))]
pub(super) async fn csv_call(
    State(state): State<AdminState>,
    operator: Operator,
    Search(said): Search<Said>,
) -> Result<Response, ApiError> {
    operator.may(Scope::Read)?;
    Ok(answer(&state, &said).await?)
}
