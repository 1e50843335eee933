//! `GET /v1/announcements`: what the operator has to say to everybody now.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Node, shapes};
use crate::news;

/// The texts are Markdown of the operator's: whoever shows them as HTML makes them harmless first.
#[utoipa::path(get, path = "/v1/announcements", tag = "node", summary = "What the operator says to everybody", responses((status = 200, body = shapes::Announcements), (status = 503, description = "They cannot be read now", body = shapes::Announcements)), security(()))]
pub async fn list(State(node): State<Node>) -> (StatusCode, Json<Value>) {
    let ledger = &node.exchange.ledger;
    match news::shown(ledger.store(), ledger.clock().now_ms()).await {
        Ok(shown) => {
            let one = |one: &news::Announcement| {
                json!({
                    "id": one.id,
                    "title": one.text.title,
                    "body": one.text.body,
                    "level": one.text.level,
                    "from": one.text.starts_ms.div_euclid(1000),
                    "until": one.text.ends_ms.map(|end| end.div_euclid(1000)),
                    "updated": one.updated_ms.div_euclid(1000),
                })
            };
            (StatusCode::OK, Json(json!({ "announcements": shown.iter().map(one).collect::<Vec<_>>() })))
        }
        Err(error) => {
            tracing::error!(%error, "the announcements cannot be read");
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "announcements": [] })))
        }
    }
}
