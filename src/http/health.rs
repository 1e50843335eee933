//! `GET /healthz`: the process is alive. `GET /readyz`: it could serve a paid request, or why not.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Node, shapes};
use crate::audit::Solvency;
use crate::wallet::{Condition, MintHealth};

/// What runs here.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Of which commit, where the build was told (`COINSLOT_COMMIT`).
const COMMIT: Option<&str> = option_env!("COINSLOT_COMMIT");

/// Dials nobody.
#[utoipa::path(get, path = "/healthz", tag = "node", summary = "Whether the process is alive", responses((status = 200, body = String)), security(()))]
pub async fn alive() -> &'static str {
    "ok"
}

/// Why a paid request could not be served now; nothing when it could: see [`crate::exchange::Exchange::reasons`].
pub(crate) async fn reasons(node: &Node) -> Vec<String> {
    let draining = node.draining.is_cancelled().then(|| "the node is shutting down".to_owned());
    draining.into_iter().chain(node.exchange.reasons().await).collect()
}

/// 200 when everything that a paid request needs is there, else 503 with the [`reasons`]. `mints` says how
/// each is.
///
/// Books that are not proven are an alarm, and no reason: a request could be served all the same, and
/// a fault of one row must not take every node of a database out of service at once. What is off is
/// for the operator's eyes.
#[utoipa::path(get, path = "/readyz", tag = "node", summary = "Whether a paid request could be served, or why not", description = "", responses((status = 200, body = shapes::Ready), (status = 503, description = "It could not", body = shapes::Ready)), security(()))]
pub async fn ready(State(node): State<Node>) -> (StatusCode, Json<Value>) {
    let reasons = reasons(&node).await;
    let health = node.exchange.till.wallet().health();
    // Which they are is nobody's business, and one that is left alone for one model serves the others.
    let upstreams = node.exchange.pool.conditions();
    let alone = upstreams.iter().filter(|one| one.bar.is_some() || one.is_capped || !one.out.is_empty()).count();
    let upstreams = json!({ "configured": upstreams.len(), "left_alone": alone });
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mints: Vec<Value> = health.iter().map(mint).collect();
    let alarms: Vec<&str> = node.audit.verdict().and_then(Solvency::alarm).into_iter().collect();
    let network = network(&node).await;
    let body = json!({
        "ready": reasons.is_empty(), "reasons": reasons, "alarms": alarms, "mints": mints,
        "upstreams": upstreams, "network": network, "version": VERSION, "commit": COMMIT,
    });
    (status, Json(body))
}

/// Whether clients find the node on Nostr, and at how many relays. It serves without.
async fn network(node: &Node) -> Value {
    let Some(announcer) = &node.announcer else { return Value::Null };
    match announcer.announced().await {
        Ok(announced) => json!({
            "listed": announced.event.is_some() && !announced.is_down,
            "relays": announced.relays.iter().filter(|(_, has_it)| *has_it).count(),
        }),
        Err(error) => {
            tracing::error!(%error, "the listing cannot be read");
            Value::Null
        }
    }
}

fn mint(health: &MintHealth) -> Value {
    let (state, retry_after) = match health.condition {
        Condition::Closed => ("closed", None),
        Condition::Open { secs, .. } => ("open", Some(secs)),
        Condition::HalfOpen => ("half-open", None),
    };
    json!({
        "url": health.mint,
        "circuit": state,
        "retry_after": retry_after,
        "calls_per_minute": health.calls.map(|(total, _)| total),
        "calls_left": health.calls.map(|(_, left)| left),
        "waiting": health.waiting,
        "last_error": health.trouble.map(|(trouble, _)| trouble.as_str()),
        "last_error_at": health.trouble.map(|(_, at_ms)| at_ms.div_euclid(1000)),
        "last_success_at": health.answered_ms.map(|at_ms| at_ms.div_euclid(1000)),
    })
}
