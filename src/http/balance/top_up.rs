//! `POST /topup`: adds a token to the key, or to the parent of a child key. The same token again
//! answers the same.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use serde::Deserialize;
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::{paying, read_json, respond, spawn};
use crate::failure::{Code, Failure};
use crate::http::extract::Query;
use crate::http::refusals::Refusals;
use crate::http::{Node, shapes};
use crate::payment;

#[derive(Debug, Default, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
pub struct TopUp {
    cashu_token: Option<String>,
}

/// Serves the call.
#[utoipa::path(post, path = "/v1/balance/topup", tag = "money", summary = "Adds a token to a key", request_body = Option<TopUp>, params(TopUp), responses((status = 200, body = shapes::ToppedUp), Refusals), security(("bearer" = [])))]
pub async fn serve(State(node): State<Node>, Query(query): Query<TopUp>, request: Request) -> Response<Body> {
    let headers = request.headers().clone();
    let outcome = async {
        let (payment, expiry) = paying(&headers)?;
        let body: TopUp = read_json(request).await?;
        let token = body
            .cashu_token
            .or(query.cashu_token)
            .filter(|token| !token.trim().is_empty())
            .ok_or_else(|| Failure::client(Code::InvalidRequest, "A cashu_token is required."))?;
        let token = payment::read_token(token.trim())?;
        let credited = spawn(&node, move |node| async move {
            let (account, _) = node.exchange.till.open(payment, expiry).await?;
            node.exchange.till.top_up(&account, &token).await
        })
        .await?;
        Ok(json!({ "msats": credited.get() }))
    };
    respond(outcome.await)
}
