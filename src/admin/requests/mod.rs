//! Requests: those that run, with a button that ends one; those of the past, by model, upstream, time, outcome and
//! key; and of any one its `story`.

pub(crate) mod csv;
pub(crate) mod filter;
pub(crate) mod list;
pub(crate) mod repo;
pub(crate) mod story;

use askama::Template;
use axum::extract::{Form, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{ApiError, Complaint, Part, Search};
use super::frame::Frame;
use super::operator::{Actor, Operator, Scope};
use super::session::Session;
use super::{AdminError, AdminState, Notice, page, shown_again};
use filter::{Filter, Said};
use list::{Found, Listed, Manner};
use story::Story;

const PATH: &str = "/admin/requests";
/// Requests on a page.
const MOST: i64 = 50;
/// Requests that are shown as running.
const MOST_RUNNING: i64 = 200;

pub(super) fn pages() -> Router<AdminState> {
    Router::new()
        .route(PATH, get(show))
        .route("/admin/requests/abort", post(abort_form))
        .route("/admin/requests.csv", get(csv::of_session))
}

pub(super) fn api() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(list_call))
        .routes(routes!(running_call))
        .routes(routes!(story_call))
        .routes(routes!(abort_call))
        .routes(routes!(csv::csv_call))
}

/// A page of requests, the newest first.
#[derive(Serialize, ToSchema)]
struct View {
    requests: Vec<Listed>,
    /// Go on with this as `after`; absent: there is no more. A page may be empty and not the last: only so many
    /// requests are looked at for one.
    next: Option<String>,
}

/// How far one page looks.
fn manner(state: &AdminState, filter: &Filter, limit: i64) -> Manner {
    let market = &state.exchange.market;
    // The sums know a model by its id, and the requests as it was called.
    let is_id = |name: &String| market.canonical(name).is_none_or(|id| id == *name);
    Manner { limit, looks: list::PAGE_LOOKS, skips: filter.model.as_ref().is_none_or(is_id) }
}

async fn find(state: &AdminState, filter: &Filter, manner: Manner) -> Result<Found, AdminError> {
    let store = state.ledger.store();
    if filter.model.is_some() || filter.upstream.is_some() {
        // What was counted last is looked up too.
        state.exchange.traffic.sums().keep(store).await?;
    }
    Ok(list::find(store, filter, manner).await?)
}

async fn view(state: &AdminState, said: &Said) -> Result<View, AdminError> {
    let filter = said.read()?;
    let found = find(state, &filter, manner(state, &filter, MOST)).await?;
    let mut requests: Vec<Listed> = found.rows.into_iter().map(Listed::of).collect();
    name_running(state, &mut requests);
    Ok(View { requests, next: found.next.map(|hold| hold.to_string()) })
}

/// A request that runs. Amounts are msat, times ms since the Unix epoch.
#[derive(Serialize, ToSchema)]
struct RunningView {
    request: Listed,
    /// It runs in this process, which can end it.
    is_here: bool,
}

/// What runs, in this process and in others.
async fn running(state: &AdminState) -> Result<Vec<RunningView>, AdminError> {
    let rows = repo::running(state.ledger.store(), MOST_RUNNING).await?;
    let here = state.exchange.ongoing.list();
    let is_here = |id: &str| here.iter().any(|one| one.request == id);
    let mut all: Vec<Listed> = rows.into_iter().map(Listed::of).collect();
    name_running(state, &mut all);
    Ok(all.into_iter().map(|request| RunningView { is_here: is_here(&request.id), request }).collect())
}

/// What a request runs for is not written before its end, but this process knows of its own.
fn name_running(state: &AdminState, requests: &mut [Listed]) {
    if requests.iter().all(|one| one.status != "running") {
        return;
    }
    let here = state.exchange.ongoing.list();
    for request in requests.iter_mut().filter(|one| one.status == "running") {
        if let Some(one) = here.iter().find(|one| one.request == request.id) {
            request.model = Some(one.model.clone());
            request.upstream = Some(one.upstream.to_string());
        }
    }
}

/// The story of a request, by the id that its client has.
async fn story(state: &AdminState, id: &str) -> Result<Option<Story>, AdminError> {
    // Ids are looked up as they are made.
    let Ok(id) = uuid::Uuid::try_parse(id.trim()) else { return Ok(None) };
    Ok(story::of(state.ledger.store(), &id.to_string()).await?)
}

/// Ends a request of this process. What it has delivered is charged, and the rest is free again.
async fn abort(state: &AdminState, actor: &Actor, id: &str) -> Result<(), AdminError> {
    let not_here = || AdminError::not_found("No such request runs in this process.");
    if !state.exchange.ongoing.list().iter().any(|one| one.request == id) {
        return Err(not_here());
    }
    state.desk(actor).note("requests.abort", id, &json!({})).await?;
    if state.exchange.abort(id) { Ok(()) } else { Err(not_here()) }
}

#[derive(Template)]
#[template(path = "admin/requests.html")]
struct Page {
    frame: Frame,
    message: String,
    /// The id that was looked for; empty: none.
    id: String,
    story: Option<Told>,
    said: Said,
    /// The filter as the end of an address, with what comes after this page.
    next: Option<String>,
    /// The same without it, for the CSV.
    query: String,
    is_filtered: bool,
    running: Vec<RunningView>,
    requests: Vec<Listed>,
}

/// A story, with what is looked up by name for the page.
struct Told {
    story: Story,
    sheets: Vec<(&'static str, Vec<(String, String)>)>,
}

/// What the address says.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wanted {
    id: String,
    #[serde(flatten)]
    said: Said,
}

async fn show(
    State(state): State<AdminState>,
    session: Session,
    Query(wanted): Query<Wanted>,
) -> Result<Response, AdminError> {
    render(&state, &session, wanted, Notice::none()).await
}

async fn render(
    state: &AdminState,
    session: &Session,
    wanted: Wanted,
    mut notice: Notice,
) -> Result<Response, AdminError> {
    let Wanted { id, said } = wanted;
    let story = if id.trim().is_empty() { None } else { story(state, &id).await? };
    let view = match view(state, &said).await {
        Ok(view) => view,
        Err(error) => {
            notice = error.told()?;
            View { requests: Vec::new(), next: None }
        }
    };
    let query = address(&Said { after: String::new(), ..said.clone() });
    let next = view.next.map(|after| address(&Said { after, ..said.clone() }));
    let html = page(&Page {
        frame: Frame::of(state, session, PATH),
        message: notice.message,
        id: id.trim().chars().take(100).collect(),
        story: story.map(|story| Told { sheets: sheets(&story), story }),
        is_filtered: !query.is_empty(),
        said,
        next,
        query,
        running: running(state).await?,
        requests: view.requests,
    })?;
    Ok((notice.status, html).into_response())
}

/// A filter as the end of an address.
fn address(said: &Said) -> String {
    let Said { model, upstream, status, from, to, key, after } = said;
    let all = [
        ("model", model),
        ("upstream", upstream),
        ("status", status),
        ("from", from),
        ("to", to),
        ("key", key),
        ("after", after),
    ];
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(all.into_iter().filter(|(_, value)| !value.is_empty()));
    query.finish()
}

fn sheets(story: &Story) -> Vec<(&'static str, Vec<(String, String)>)> {
    let all =
        [("All prices of that moment", &story.price_sheet), ("The bitcoin rate of that moment", &story.rate_sheet)];
    let said = |(title, sheet): (&'static str, &Option<Value>)| {
        let mut facts = Vec::new();
        flatten("", sheet.as_ref()?, &mut facts);
        Some((title, facts))
    };
    all.into_iter().filter_map(said).collect()
}

/// All texts and numbers in a value, each under the names that lead to it.
fn flatten(name: &str, value: &Value, facts: &mut Vec<(String, String)>) {
    let below = |part: &str| if name.is_empty() { part.to_owned() } else { format!("{name}.{part}") };
    match value {
        Value::Null => {}
        Value::Object(members) => members.iter().for_each(|(part, value)| flatten(&below(part), value, facts)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, value)| flatten(&below(&at.to_string()), value, facts));
        }
        Value::String(text) => facts.push((name.to_owned(), text.clone())),
        other => facts.push((name.to_owned(), other.to_string())),
    }
}

#[derive(Deserialize)]
struct Abort {
    csrf: String,
    id: String,
}

async fn abort_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Abort>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let aborted = abort(&state, session.actor(), &form.id).await;
    let refused = async |notice| render(&state, &session, Wanted::default(), notice).await;
    shown_again(aborted.map(|()| PATH), refused).await
}

/// Requests, the newest first.
#[utoipa::path(get, path = "/admin/api/requests", tag = "admin",
    security(("operator" = ["read"])), params(Said), responses(
    (status = 200, body = View), (status = 400, body = Complaint), (status = 403, body = Complaint),
))]
async fn list_call(
    State(state): State<AdminState>,
    operator: Operator,
    Search(said): Search<Said>,
) -> Result<Json<View>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(view(&state, &said).await?))
}

/// The requests that run now.
#[utoipa::path(get, path = "/admin/api/requests/running", tag = "admin", security(("operator" = ["read"])), responses(
    (status = 200, body = Vec<RunningView>), (status = 403, body = Complaint),
))]
async fn running_call(State(state): State<AdminState>, operator: Operator) -> Result<Json<Vec<RunningView>>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(running(&state).await?))
}

/// One request, from its payment to its receipt.
#[utoipa::path(get, path = "/admin/api/requests/{id}", tag = "admin",
    security(("operator" = ["read"])), params(("id" = String, Path)), responses(
    (status = 200, body = Story), (status = 403, body = Complaint), (status = 404, body = Complaint),
))]
async fn story_call(
    State(state): State<AdminState>,
    operator: Operator,
    Part(id): Part<String>,
) -> Result<Json<Story>, ApiError> {
    operator.may(Scope::Read)?;
    let found = story(&state, &id).await?;
    Ok(Json(found.ok_or_else(|| AdminError::not_found("No money was ever set aside for such a request."))?))
}

/// Ends a request that runs in this process.
#[utoipa::path(post, path = "/admin/api/requests/{id}/abort", tag = "admin",
    security(("operator" = ["manage"])), params(("id" = String, Path)), responses(
    (status = 204), (status = 403, body = Complaint), (status = 404, body = Complaint),
))]
async fn abort_call(
    State(state): State<AdminState>,
    operator: Operator,
    Part(id): Part<String>,
) -> Result<StatusCode, ApiError> {
    abort(&state, operator.may(Scope::Manage)?, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
