//! `GET /create?initial_balance_token=…`, `POST /create`: a key out of a token, with limits if wanted.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{limits, read_json, respond, spawn};
use crate::failure::{Code, Failure};
use crate::http::extract::Query;
use crate::http::refusals::Refusals;
use crate::http::{Node, proxy, shapes};
use crate::payment::{self, Payment};

#[derive(Debug, Default, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
pub struct Create {
    initial_balance_token: Option<String>,
    balance_limit: Option<Value>,
    balance_limit_reset: Option<Value>,
    validity_date: Option<Value>,
}

/// Makes a key of a token that is in the body.
#[utoipa::path(post, path = "/v1/balance/create", tag = "money", summary = "Makes a key of a token", request_body = Option<Create>, params(Create), responses((status = 200, body = shapes::NewKey), Refusals), security(()))]
pub async fn make(state: State<Node>, query: Query<Create>, request: Request) -> Response<Body> {
    serve(state, query, request).await
}

/// Serves the call.
#[utoipa::path(get, path = "/v1/balance/create", tag = "money", summary = "Makes a key of a token", description = "The token is in the address then; POST keeps it out of logs on the way.", params(Create), responses((status = 200, body = shapes::NewKey), Refusals), security(()))]
pub async fn serve(State(node): State<Node>, Query(query): Query<Create>, request: Request) -> Response<Body> {
    let headers = request.headers().clone();
    let outcome = async {
        let body: Create = read_json(request).await?;
        let token = body
            .initial_balance_token
            .or(query.initial_balance_token)
            .ok_or_else(|| Failure::client(Code::InvalidRequest, "An initial_balance_token is required."))?;
        let limits = limits::read(
            body.balance_limit.or(query.balance_limit).as_ref(),
            body.balance_limit_reset.or(query.balance_limit_reset).as_ref(),
            body.validity_date.or(query.validity_date).as_ref(),
            node.exchange.ledger.clock().now_secs(),
        )?;
        let token = payment::read_token(token.trim())?;
        let key = token.id.clone();
        let credentials = proxy::credentials(&headers)?;
        let expiry = payment::expiry::read(credentials, &Payment::TokenKey(Box::new(token.clone())))?;
        let account =
            spawn(&node, move |node| async move { node.exchange.till.create(token, limits, expiry).await }).await?;
        Ok(json!({ "api_key": format!("sk-{key}"), "balance": account.balance.available().get() }))
    };
    respond(outcome.await)
}
