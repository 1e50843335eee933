//! The trail to read: page by page, of one actor or one kind of act if wanted.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Html;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::api::{ApiError, Complaint, Search};
use super::super::frame::Frame;
use super::super::operator::{Operator, Scope};
use super::super::session::Session;
use super::super::{AdminError, AdminState, format, page};
use super::{Noted, Wanted, latest};

const PATH: &str = "/admin/trail";
/// Acts on a page.
const USUAL: i64 = 50;
const MOST: i64 = 500;

pub(in crate::admin) fn pages() -> Router<AdminState> {
    Router::new().route(PATH, get(show))
}

pub(in crate::admin) fn api() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(list_call))
}

/// What is looked for.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// Only what this one did.
    actor: String,
    /// Only acts of this kind, like `vouchers.issue`.
    action: String,
    /// The `next` of the page before.
    after: String,
    /// 50 if absent, 500 at most.
    limit: Option<i64>,
}

/// A page of the trail, newest first.
#[derive(Serialize, ToSchema)]
struct View {
    acts: Vec<Noted>,
    /// The `after` of the page that follows, if one does.
    next: Option<String>,
}

async fn view(state: &AdminState, asked: &Asked) -> Result<View, AdminError> {
    let limit = asked.limit.unwrap_or(USUAL).clamp(1, MOST);
    let wanted = Wanted { actor: asked.actor.trim(), action: asked.action.trim(), after: asked.after.trim() };
    let mut acts = latest(state.ledger.store(), wanted, limit.saturating_add(1)).await?;
    let shown = usize::try_from(limit).unwrap_or(usize::MAX);
    let goes_on = acts.len() > shown;
    acts.truncate(shown);
    let next = acts.last().filter(|_| goes_on).map(|act| act.id.clone());
    Ok(View { acts, next })
}

#[derive(Template)]
#[template(path = "admin/trail.html")]
struct Page {
    frame: Frame,
    actor: String,
    action: String,
    rows: Vec<Row>,
    /// The address of the next page.
    older: Option<String>,
}

struct Row {
    time: String,
    actor: String,
    action: String,
    subject: String,
    detail: String,
}

async fn show(
    State(state): State<AdminState>,
    session: Session,
    Query(asked): Query<Asked>,
) -> Result<Html<String>, AdminError> {
    let view = view(&state, &asked).await?;
    let row = |act: Noted| Row {
        time: format::utc(act.at_ms),
        actor: act.actor,
        action: act.action,
        subject: act.subject,
        detail: if act.detail.as_object().is_some_and(serde_json::Map::is_empty) {
            String::new()
        } else {
            act.detail.to_string()
        },
    };
    let older = view.next.map(|after| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs([("actor", asked.actor.trim()), ("action", asked.action.trim()), ("after", &after)]);
        format!("{PATH}?{}", query.finish())
    });
    page(&Page {
        frame: Frame::of(&state, &session, PATH),
        actor: asked.actor.trim().chars().take(200).collect(),
        action: asked.action.trim().chars().take(200).collect(),
        rows: view.acts.into_iter().map(row).collect(),
        older,
    })
}

/// What operators did, newest first.
#[utoipa::path(get, path = "/admin/api/trail", tag = "admin",
    security(("operator" = ["read"])), params(Asked), responses(
    (status = 200, body = View), (status = 403, body = Complaint),
))]
async fn list_call(
    State(state): State<AdminState>,
    operator: Operator,
    Search(asked): Search<Asked>,
) -> Result<Json<View>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(view(&state, &asked).await?))
}
