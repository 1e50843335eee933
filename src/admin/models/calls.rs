//! Models for programs. Prices are in USD for one token, or for one of what they are of, as text.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::api::{ApiError, Body, Complaint};
use super::super::operator::{Operator, Scope};
use super::super::{AdminError, AdminState};
use super::refused;
use crate::catalog::card::Change;
use crate::catalog::import::plan::Proposal;
use crate::catalog::import::repo::Source;
use crate::catalog::import::{Decision, Offer, Overrides, Switch};
use crate::operator::models as acts;
use crate::price::decimal;

pub(in crate::admin) fn api() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(list_call))
        .routes(routes!(sync_call))
        .routes(routes!(decide_call))
        .routes(routes!(switch_call))
        .routes(routes!(own_call))
}

/// What is sold, and what waits.
#[derive(Serialize, ToSchema)]
struct View {
    models: Vec<Model>,
    waiting: Vec<Waiting>,
    /// Lists that prices are taken from.
    sources: Vec<PriceList>,
}

#[derive(Serialize, ToSchema)]
struct Model {
    id: String,
    name: String,
    /// Who says what it costs.
    source: String,
    enabled: bool,
    listed: bool,
    /// Some upstream has it.
    served: bool,
    /// Some upstream takes more for it.
    below_cost: bool,
    /// The operator lets it be sold below cost.
    below_cost_allowed: bool,
    pricing: BTreeMap<String, String>,
    /// Prices that no source says.
    derived_prices: Vec<String>,
    /// Prices that the operator said.
    own_prices: BTreeMap<String, String>,
    /// Further names that the operator gave it.
    own_names: Vec<String>,
}

#[derive(Serialize, ToSchema)]
struct Waiting {
    id: String,
    /// `free`, `lower` or `gone`.
    kind: &'static str,
    source: String,
    changes: Vec<PriceChange>,
    /// What is decided about.
    digest: String,
    /// It was refused before.
    refused: bool,
}

#[derive(Serialize, ToSchema)]
struct PriceChange {
    name: String,
    was: Option<String>,
    is: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct PriceList {
    name: String,
    /// Why it could not be asked; empty: it could.
    trouble: String,
    /// ms since the Unix epoch.
    checked_ms: i64,
    changed_ms: Option<i64>,
}

fn model(offer: Offer) -> Model {
    Model {
        id: offer.model.id.clone(),
        name: offer.model.name.clone(),
        source: offer.source,
        enabled: offer.model.enabled,
        listed: offer.model.enabled && offer.model.visible,
        served: offer.is_served,
        below_cost: offer.is_below_cost,
        below_cost_allowed: offer.may_be_below_cost,
        pricing: offer.card.texts(),
        derived_prices: offer.derived,
        own_prices: offer.own_prices.texts(),
        own_names: offer.own_names,
    }
}

fn change(change: &Change) -> PriceChange {
    let text = |price: Option<rust_decimal::Decimal>| price.map(|price| price.to_string());
    PriceChange { name: change.name.clone(), was: text(change.was), is: text(change.is) }
}

fn waiting(proposal: &Proposal) -> Waiting {
    Waiting {
        id: proposal.id.clone(),
        kind: proposal.kind.name(),
        source: proposal.source.clone(),
        changes: proposal.changes.iter().map(change).collect(),
        digest: proposal.digest.clone(),
        refused: proposal.is_refused,
    }
}

fn price_list(source: Source) -> PriceList {
    PriceList {
        name: source.name,
        trouble: source.trouble,
        checked_ms: source.checked_ms,
        changed_ms: source.changed_ms,
    }
}

/// Models, their prices, and changes that wait for a decision.
#[utoipa::path(get, path = "/admin/api/models", tag = "admin", security(("operator" = ["read"])), responses(
    (status = 200, body = View), (status = 403, body = Complaint),
))]
async fn list_call(State(state): State<AdminState>, operator: Operator) -> Result<Json<View>, ApiError> {
    operator.may(Scope::Read)?;
    let overview = state.importer.overview().await.map_err(AdminError::from)?;
    Ok(Json(View {
        models: overview.offers.into_iter().map(model).collect(),
        waiting: overview.plan.proposals.iter().map(waiting).collect(),
        sources: overview.sources.into_iter().map(price_list).collect(),
    }))
}

/// What came of asking.
#[derive(Serialize, ToSchema)]
struct Synced {
    new: Vec<String>,
    raised: Vec<String>,
    waiting: Vec<Waiting>,
    /// Sources that could not be asked, and why.
    errors: BTreeMap<String, String>,
}

/// Asks the sources of prices now.
#[utoipa::path(post, path = "/admin/api/models/sync", tag = "admin", security(("operator" = ["manage"])), responses(
    (status = 200, body = Synced), (status = 403, body = Complaint), (status = 409, body = Complaint),
))]
async fn sync_call(State(state): State<AdminState>, operator: Operator) -> Result<Json<Synced>, ApiError> {
    let outcome = acts::sync(state.desk(operator.may(Scope::Manage)?), &state.importer).await.map_err(refused)?;
    Ok(Json(Synced {
        waiting: outcome.plan.waiting().map(waiting).collect(),
        raised: outcome.plan.raised.iter().map(|(id, _)| id.clone()).collect(),
        new: outcome.plan.added,
        errors: outcome.troubles.into_iter().collect(),
    }))
}

/// What the operator says to a change.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Said {
    Apply,
    /// And sell the model below cost from now on.
    ApplyBelowCost,
    Refuse,
    /// Sell it at cost again.
    AtCost,
}

#[derive(Deserialize, ToSchema)]
struct DecideCall {
    id: String,
    /// Of the change; whatever waits, if absent.
    #[serde(default)]
    digest: Option<String>,
    verdict: Said,
}

/// Applies or refuses a change that waits.
#[utoipa::path(post, path = "/admin/api/models/decide", tag = "admin",
    security(("operator" = ["manage"])), request_body = DecideCall, responses(
    (status = 204), (status = 403, body = Complaint), (status = 409, body = Complaint),
))]
async fn decide_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<DecideCall>,
) -> Result<StatusCode, ApiError> {
    let desk = state.desk(operator.may(Scope::Manage)?);
    let verdict = match call.verdict {
        Said::Apply => Decision::Apply,
        Said::ApplyBelowCost => Decision::ApplyBelowCost,
        Said::Refuse => Decision::Refuse,
        Said::AtCost => {
            acts::take_back(desk, &state.importer, &call.id).await.map_err(refused)?;
            return Ok(StatusCode::NO_CONTENT);
        }
    };
    acts::decide(desk, &state.importer, &call.id, call.digest.as_deref(), verdict).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is to be switched; what is absent stays as it is.
#[derive(Deserialize, ToSchema)]
struct SwitchCall {
    id: String,
    /// Whether it is sold.
    #[serde(default)]
    sold: Option<bool>,
    /// Whether it is in the list. One that is not is sold to whoever names it.
    #[serde(default)]
    listed: Option<bool>,
}

/// Sells a model or does not; lists it or does not.
#[utoipa::path(post, path = "/admin/api/models/switch", tag = "admin",
    security(("operator" = ["manage"])), request_body = SwitchCall, responses(
    (status = 204), (status = 403, body = Complaint), (status = 404, body = Complaint),
))]
async fn switch_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<SwitchCall>,
) -> Result<StatusCode, ApiError> {
    let desk = state.desk(operator.may(Scope::Manage)?);
    for what in [call.sold.map(Switch::Sold), call.listed.map(Switch::Listed)].into_iter().flatten() {
        acts::switch(desk, &state.importer, &call.id, what).await.map_err(refused)?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// What the operator says of a model; what is absent stays as it is.
#[derive(Deserialize, ToSchema)]
struct OwnCall {
    id: String,
    /// Prices by name, as text; null: what the source says counts again.
    #[serde(default)]
    prices: BTreeMap<String, Option<String>>,
    /// All further names that it is to have from the operator.
    #[serde(default)]
    names: Option<Vec<String>>,
}

/// Gives a model prices and names of the operator's, which go over those of its source.
#[utoipa::path(post, path = "/admin/api/models/own", tag = "admin",
    security(("operator" = ["manage"])), request_body = OwnCall, responses(
    (status = 204), (status = 400, body = Complaint), (status = 403, body = Complaint), (status = 404, body = Complaint),
))]
async fn own_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<OwnCall>,
) -> Result<StatusCode, ApiError> {
    let desk = state.desk(operator.may(Scope::Manage)?);
    let prices = call.prices.into_iter().map(|(name, price)| match price.as_deref().map(decimal::parse) {
        Some(None) => Err(AdminError::invalid(format!("The {name} price is no number."))),
        Some(price) => Ok((name, price)),
        None => Ok((name, None)),
    });
    let own = Overrides { prices: prices.collect::<Result<_, _>>()?, names: call.names, seen: None };
    acts::set_own(desk, &state.importer, &call.id, &own).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}
