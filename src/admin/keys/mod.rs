//! Keys: found by the first digits of their hash, by label, profile or state, the newest first. Each has a page of
//! its own ([`one`]), where it is blocked, given other terms, and its balance adjusted.

mod one;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{ApiError, Complaint, Search};
use super::frame::Frame;
use super::operator::{Operator, Scope};
use super::session::Session;
use super::{AdminError, AdminState, Notice, format, page};
use crate::ledger::keys::{self as books, Filter, Key, Place};
use crate::ledger::terms::Reset;
use crate::money::Msat;

const PATH: &str = "/admin/keys";
/// Keys of a part, unless another number is asked for.
const LISTED: i64 = 50;

pub(super) fn pages() -> Router<AdminState> {
    Router::new()
        .route(PATH, get(show))
        .route("/admin/keys/{id}", get(one::show).post(one::edit_form))
        .route("/admin/keys/{id}/block", post(one::block_form))
        .route("/admin/keys/{id}/unblock", post(one::unblock_form))
        .route("/admin/keys/{id}/adjust", post(one::adjust_form))
}

pub(super) fn api() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(list_call))
        .routes(routes!(one::show_call, one::edit_call))
        .routes(routes!(one::block_call))
        .routes(routes!(one::unblock_call))
        .routes(routes!(one::adjust_call))
}

/// Which keys are wanted.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// First digits of the hash, at least eight.
    hash: String,
    /// A part of the label.
    label: String,
    /// Profile of prices, of their own.
    profile: String,
    /// usable, blocked, ended, child or funded
    state: String,
    /// `next` of the part before.
    after: String,
    /// Most that are listed, up to 200.
    limit: Option<i64>,
}

/// A part of the keys, the newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = KeyPage)]
struct View {
    keys: Vec<KeyView>,
    /// `after` of the next part, if there is one.
    next: Option<String>,
}

/// Another key, by name.
#[derive(Serialize, ToSchema)]
#[schema(as = KeyName)]
struct Named {
    id: String,
    hash: String,
}

/// A key.
#[derive(Serialize, ToSchema)]
#[schema(as = Key)]
struct KeyView {
    id: String,
    /// The first digits of its hash.
    hash: String,
    label: String,
    /// usable, blocked, "parent blocked", ended or "parent ended"
    state: &'static str,
    /// Of its own. A child key spends its parent's.
    balance_msat: i64,
    /// Set aside for its requests that run.
    held_msat: i64,
    spent_msat: i64,
    requests: i64,
    mint: String,
    unit: String,
    /// Its profile of prices, or its parent's.
    profile: Option<String>,
    own_profile: Option<String>,
    limit_msat: Option<i64>,
    /// daily, weekly or monthly
    limit_reset: Option<&'static str>,
    /// Of the limit, in the window.
    limit_used_msat: i64,
    /// Times in ms since the Unix epoch.
    valid_until_ms: Option<i64>,
    /// Where its balance goes after `refund_at_ms`, shortened.
    refund_to: Option<String>,
    refund_at_ms: Option<i64>,
    parent: Option<Named>,
    children: i64,
    created_ms: i64,
    blocked_ms: Option<i64>,
    last_used_ms: Option<i64>,
}

impl KeyView {
    fn of(key: &Key, now_ms: i64) -> Self {
        let ms = |secs: i64| secs.saturating_mul(1000);
        let parent = key.parent.zip(key.parent_hash.as_ref());
        Self {
            id: key.id.get().to_string(),
            hash: key.short(),
            label: key.label.clone(),
            state: key.state(now_ms),
            balance_msat: key.balance.posted.to_db(),
            held_msat: key.held.to_db(),
            spent_msat: key.spent.to_db(),
            requests: key.requests,
            mint: key.mint.clone(),
            unit: key.unit.clone(),
            profile: key.profile.clone(),
            own_profile: key.own_profile.clone(),
            limit_msat: key.limits.cap.map(Msat::to_db),
            limit_reset: key.limits.reset.map(Reset::as_str),
            limit_used_msat: key.used.to_db(),
            valid_until_ms: key.limits.valid_until.map(ms),
            refund_to: key.expiry.as_ref().map(|expiry| books::shorten(&expiry.address)),
            refund_at_ms: key.expiry.as_ref().map(|expiry| ms(expiry.at)),
            parent: parent.map(|(id, hash)| Named { id: id.get().to_string(), hash: books::short(hash) }),
            children: key.children,
            created_ms: key.created_ms,
            blocked_ms: key.blocked_ms,
            last_used_ms: key.last_used_ms,
        }
    }
}

async fn view(state: &AdminState, wanted: &Wanted) -> Result<View, AdminError> {
    let Wanted { hash, label, profile, state: standing, after, limit } = wanted;
    let filter = Filter::read(hash, label, profile, standing).map_err(AdminError::invalid)?;
    let after = match after.as_str() {
        "" => None,
        after => {
            let place = Place::parse(after);
            Some(place.ok_or_else(|| AdminError::invalid("There is no such part of the list."))?)
        }
    };
    let found = state.ledger.keys(&filter, after, limit.unwrap_or(LISTED)).await?;
    let now_ms = state.now_ms();
    let keys = found.keys.iter().map(|key| KeyView::of(key, now_ms)).collect();
    Ok(View { keys, next: found.next.map(|next| next.to_string()) })
}

#[derive(Template)]
#[template(path = "admin/keys.html")]
struct Page {
    frame: Frame,
    message: String,
    wanted: Wanted,
    states: Vec<&'static str>,
    profiles: Vec<String>,
    rows: Vec<Row>,
    /// The address of the next part.
    next: Option<String>,
}

struct Row {
    key: KeyView,
    created: String,
    used: Option<String>,
}

async fn show(
    State(state): State<AdminState>,
    session: Session,
    Query(wanted): Query<Wanted>,
) -> Result<Response, AdminError> {
    let (notice, view) = match view(&state, &wanted).await {
        Ok(view) => (Notice::none(), view),
        Err(error) => (error.told()?, View { keys: Vec::new(), next: None }),
    };
    let next = view.next.map(|after| address(&Wanted { after, ..wanted.clone() }));
    let rows = view.keys.into_iter().map(|key| Row {
        created: format::utc(key.created_ms),
        used: key.last_used_ms.map(format::utc),
        key,
    });
    let html = page(&Page {
        frame: Frame::of(&state, &session, PATH),
        message: notice.message,
        states: books::State::ALL.map(books::State::as_str).to_vec(),
        profiles: profiles(&state).await?,
        rows: rows.collect(),
        next,
        wanted,
    })?;
    Ok((notice.status, html).into_response())
}

/// The address of a part of the list.
fn address(wanted: &Wanted) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let Wanted { hash, label, profile, state, after, limit: _ } = wanted;
    for (name, value) in [("hash", hash), ("label", label), ("profile", profile), ("state", state), ("after", after)] {
        if !value.is_empty() {
            query.append_pair(name, value);
        }
    }
    format!("{PATH}?{}", query.finish())
}

/// The names of the profiles that there are.
async fn profiles(state: &AdminState) -> Result<Vec<String>, AdminError> {
    Ok(state.ledger.tariffs().await?.profiles.iter().map(|profile| profile.name.clone()).collect())
}

/// The keys of clients, the newest first.
#[utoipa::path(get, path = "/admin/api/keys", tag = "admin",
    security(("operator" = ["read"])), params(Wanted), responses(
    (status = 200, body = View), (status = 400, body = Complaint), (status = 403, body = Complaint),
))]
async fn list_call(
    State(state): State<AdminState>,
    operator: Operator,
    Search(wanted): Search<Wanted>,
) -> Result<Json<View>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(view(&state, &wanted).await?))
}
