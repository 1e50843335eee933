//! `POST /child-key/reset`: lets a child key spend its whole limit anew. For its parent alone.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::{paying, read_json, respond, spawn};
use crate::failure::{Code, Failure};
use crate::http::refusals::Refusals;
use crate::http::{Node, shapes};

#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = WantedReset)]
struct Wanted {
    /// The child's secret (`sk-…`), or the id that `/info` shows.
    child_key: Option<String>,
}

/// Serves the call.
#[utoipa::path(post, path = "/v1/balance/child-key/reset", tag = "money", summary = "Lets a child key spend its whole limit anew", request_body = Wanted, responses((status = 200, body = shapes::Done), Refusals), security(("bearer" = [])))]
pub async fn serve(State(node): State<Node>, request: Request) -> Response<Body> {
    let headers = request.headers().clone();
    let outcome = async {
        let (payment, expiry) = paying(&headers)?;
        let wanted: Wanted = read_json(request).await?;
        let child =
            wanted.child_key.ok_or_else(|| Failure::client(Code::InvalidRequest, "A child_key is required."))?;
        spawn(&node, move |node| async move {
            let till = &node.exchange.till;
            let (parent, _) = till.open(payment, expiry).await?;
            till.reset_child(&parent, child.trim()).await
        })
        .await?;
        Ok(json!({ "success": true, "message": "The child key can spend its whole limit again." }))
    };
    respond(outcome.await)
}
