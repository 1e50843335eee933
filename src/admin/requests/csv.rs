//! Requests as CSV: all that a filter takes, page by page while they are sent, so that no number of them is too many.

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::super::api::{ApiError, Complaint, Search};
use super::super::operator::{Operator, Scope};
use super::super::session::Session;
use super::super::{AdminError, AdminState};
use super::filter::{Filter, Said};
use super::list::{self, Listed, Manner};
use crate::pages::{csv, format};
use crate::store::{Store, StoreError};

/// Requests that are read at a time.
const CHUNK: i64 = 1_000;

/// The columns.
const HEAD: [&str; 15] = [
    "id",
    "began",
    "took_ms",
    "model",
    "upstream",
    "status",
    "failure",
    "paid_by",
    "key",
    "held_msat",
    "charged_msat",
    "cost_msat",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
];

/// The line of the columns' names.
pub(crate) fn head() -> String {
    csv::line(HEAD)
}

/// A request as a line.
pub(crate) fn line(one: &Listed) -> String {
    let number = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    csv::line([
        one.id.clone(),
        format::utc(one.began_ms),
        number(one.took_ms),
        text(&one.model),
        text(&one.upstream),
        one.status.to_owned(),
        text(&one.failure),
        one.paid_by.to_owned(),
        one.key.clone(),
        one.held_msat.to_string(),
        one.charged_msat.to_string(),
        number(one.cost_msat),
        one.input_tokens.to_string(),
        one.cached_tokens.to_string(),
        one.output_tokens.to_string(),
    ])
}

/// The next lines, and what to look for then; `None`: there are no more.
async fn lines(store: &Store, filter: Filter, skips: bool) -> Result<(String, Option<Filter>), StoreError> {
    let mut found = list::find(store, &filter, Manner { limit: CHUNK, looks: list::PAGE_LOOKS, skips }).await?;
    let rows = std::mem::take(&mut found.rows);
    Ok((rows.into_iter().map(|row| line(&Listed::of(row))).collect(), found.rest(filter)))
}

/// What is left to be sent.
struct Rest {
    store: Store,
    filter: Filter,
    skips: bool,
    is_first: bool,
}

async fn answer(state: &AdminState, said: &Said) -> Result<Response, AdminError> {
    let filter = said.read()?;
    let skips = super::manner(state, &filter, CHUNK).skips;
    state.exchange.traffic.sums().keep(state.ledger.store()).await?;
    let rest = Rest { store: state.ledger.store().clone(), filter, skips, is_first: true };
    let body = stream::try_unfold(Some(rest), async |rest| {
        let Some(rest) = rest else { return Ok::<_, StoreError>(None) };
        let (mut text, next) = lines(&rest.store, rest.filter, rest.skips).await?;
        if rest.is_first {
            text.insert_str(0, &head());
        }
        let (store, skips) = (rest.store, rest.skips);
        Ok(Some((Bytes::from(text), next.map(|filter| Rest { store, filter, skips, is_first: false }))))
    });
    Ok((csv::headers("requests.csv"), Body::from_stream(body)).into_response())
}

pub(super) async fn of_session(
    State(state): State<AdminState>,
    _session: Session,
    Query(said): Query<Said>,
) -> Result<Response, AdminError> {
    answer(&state, &said).await
}

/// All requests that the filter takes, as CSV.
#[utoipa::path(get, path = "/admin/api/requests.csv", tag = "admin",
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
