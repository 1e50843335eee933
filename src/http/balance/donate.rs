//! `POST /donate`: takes a token as a gift to the node. The token comes in the body; in the query, where
//! others may read it, for clients that know no better.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Response, StatusCode};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{read_json, respond, spawn};
use crate::failure::{Blame, Failure};
use crate::http::Node;
use crate::http::extract::Query;
use crate::http::refusals;
use crate::payment;

#[derive(Debug, Default, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
pub struct Gift {
    token: Option<String>,
}

/// Serves the call.
#[utoipa::path(post, path = "/v1/balance/donate", tag = "money", summary = "Gives a token to the operator", request_body = Option<Gift>, params(Gift), responses(
    (status = 200, body = String),
    (status = 400, description = "No token that is good here", content((refusals::Failure = "application/json"), (String = "text/plain"))),
    (status = "default", description = "The token may be good, and is not lost", body = refusals::Failure),
), security(()))]
pub async fn serve(State(node): State<Node>, Query(query): Query<Gift>, request: Request) -> Response<Body> {
    let outcome = async {
        let body: Gift = read_json(request).await?;
        let token = body.token.or(query.token).unwrap_or_default();
        let token = payment::read_token(token.trim())?;
        spawn(&node, move |node| async move { node.exchange.till.donate(&token).await }).await
    };
    match outcome.await {
        Ok(_) => plain(StatusCode::OK, "Thanks!"),
        Err(Failure { blame: Blame::Payment, .. }) => plain(StatusCode::BAD_REQUEST, "Invalid token."),
        // The token may be good, and is not lost.
        Err(failure) => respond(Err(failure)),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
