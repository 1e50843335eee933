//! `GET /status.json`: for everybody, how the models, the mints and the rate are. Not by whom models are served,
//! and not how often.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Number, Value, json};

use super::{Node, health, shapes};
use crate::price;
use crate::status::{POINTS, SLOT_MS, Share, Span, Standing, State as Is};
use crate::wallet::{Condition, MintHealth};

/// What the page and the JSON tell.
pub(crate) struct Status {
    pub state: Is,
    /// When the models' numbers were drawn up, in ms since the Unix epoch.
    pub as_of_ms: Option<i64>,
    /// Why a paid request could not be served now.
    pub reasons: Vec<String>,
    pub rate: RateStatus,
    /// Address and state.
    pub mints: Vec<(String, Is)>,
    /// Every model that is sold, by id.
    pub models: Vec<(String, Standing)>,
}

/// How the price of bitcoin is.
pub(crate) struct RateStatus {
    pub state: Is,
    /// `None`: it is not known, or fixed and without age.
    pub age_ms: Option<i64>,
    /// The operator has set it.
    pub is_fixed: bool,
}

/// All of it, as it is now.
pub(crate) async fn look(node: &Node) -> Status {
    let exchange = &node.exchange;
    let board = exchange.traffic.board();
    let standing = |id: &str| board.models.get(id).cloned().unwrap_or_else(Standing::unknown);
    let sold = exchange.market.reached(&exchange.pool).into_iter();
    let mut models: Vec<(String, Standing)> = sold.map(|(id, _)| (id.clone(), standing(&id))).collect();
    models.sort_by(|(one, _), (other, _)| one.cmp(other));
    let health = exchange.till.wallet().health();
    let mints: Vec<(String, Is)> = health.iter().map(|mint| (mint.mint.clone(), of_mint(mint))).collect();
    let (rate, reasons) = (of_rate(node), health::reasons(node).await);
    let state = overall(&reasons, rate.state, &mints, &models);
    Status { state, as_of_ms: board.as_of_ms, reasons, rate, mints, models }
}

/// A node that sells nothing has failed. Where a part does not work, or all of its models do not, it is degraded.
fn overall(reasons: &[String], rate: Is, mints: &[(String, Is)], models: &[(String, Standing)]) -> Is {
    let parts = mints.iter().map(|(_, state)| *state).chain(models.iter().map(|(_, standing)| standing.state));
    let worst = parts.chain([rate]).max().unwrap_or(Is::Operational);
    match (reasons.is_empty(), worst) {
        (false, _) => Is::Failed,
        (true, Is::Failed | Is::Degraded) => Is::Degraded,
        (true, _) => Is::Operational,
    }
}

fn of_mint(mint: &MintHealth) -> Is {
    let last_trouble = mint.trouble.map(|(_, at_ms)| at_ms);
    match mint.condition {
        Condition::Open { limited: false, .. } => Is::Failed,
        Condition::Open { limited: true, .. } | Condition::HalfOpen => Is::Degraded,
        Condition::Closed if last_trouble > mint.answered_ms => Is::Degraded,
        Condition::Closed if mint.answered_ms.is_none() => Is::NoData,
        Condition::Closed => Is::Operational,
    }
}

fn of_rate(node: &Node) -> RateStatus {
    let view = node.exchange.market.rate();
    let age = |at_ms: i64| view.now_ms.saturating_sub(at_ms).max(0);
    match view.rate {
        Ok(rate) if rate.basis == price::RateBasis::Fixed => {
            RateStatus { state: Is::Operational, age_ms: None, is_fixed: true }
        }
        Ok(rate) => {
            let state = if rate.basis == price::RateBasis::Grace { Is::Degraded } else { Is::Operational };
            RateStatus { state, age_ms: Some(age(rate.as_of_ms)), is_fixed: false }
        }
        Err(stale) => RateStatus { state: Is::Failed, age_ms: stale.last_seen_ms.map(age), is_fixed: false },
    }
}

/// The answer.
#[utoipa::path(get, path = "/status.json", tag = "node", summary = "How the models, the mints and the rate are", responses((status = 200, body = shapes::Status)), security(()))]
pub(super) async fn show(State(node): State<Node>) -> Json<Value> {
    let status = look(&node).await;
    let mints = status.mints.iter().map(|(url, state)| json!({ "url": url, "state": state.as_str() }));
    Json(json!({
        "state": status.state.as_str(),
        "as_of": status.as_of_ms.map(|at_ms| at_ms.div_euclid(1000)),
        "reasons": status.reasons,
        "rate": {
            "state": status.rate.state.as_str(),
            "age_seconds": status.rate.age_ms.map(|age_ms| age_ms / 1000),
            "fixed": status.rate.is_fixed,
        },
        "mints": mints.collect::<Vec<_>>(),
        "points": POINTS,
        "seconds_per_point": { "24h": SLOT_MS / 1000, "7d": SLOT_MS / 1000 * 7 },
        "models": status.models.iter().map(model).collect::<Vec<_>>(),
    }))
}

/// Points are whole percents, the oldest first; `null`: no requests. Without any, there are none.
fn model((id, standing): &(String, Standing)) -> Value {
    let both = |of: fn(&Span) -> Value| {
        Map::from_iter([("24h".to_owned(), of(&standing.day)), ("7d".to_owned(), of(&standing.week))])
    };
    json!({
        "id": id,
        "state": standing.state.as_str(),
        "availability": both(|span| span.share.map_or(Value::Null, number)),
        "points": both(|span| span.points.iter().map(|point| point.map(Share::percent)).collect()),
    })
}

/// Percents with two decimals.
fn number(share: Share) -> Value {
    share.to_string().parse::<Number>().map_or(Value::Null, Value::Number)
}
