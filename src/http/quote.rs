//! `POST /v1/quote/{path}`: what a request would have to be paid with at most. The body is that of the request
//! itself, `{path}` that of its route; without one it is a chat's. Nothing is redeemed, held, stored or sent
//! to an upstream, and no payment is needed; a key that has prices of its own gets its own. The sum is that of the payment request (NUT-18) that a 402 carries.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::envelope::{self, Asked};
use super::proxy::Target;
use super::refusals::Refusals;
use super::{Node, headers, models, peer, proxy, shapes};
use crate::dialect;
use crate::exchange::Sent;
use crate::failure::Failure;
use crate::http::extract::Path;

/// A chat.
#[utoipa::path(post, path = "/v1/quote", tag = "node", summary = "What a chat must be paid with at most", request_body = Object, responses((status = 200, body = shapes::Quote), Refusals), security((), ("bearer" = [])))]
pub async fn chat(State(node): State<Node>, request: Request) -> Response<Body> {
    of(node, &dialect::chat::Chat, None, request).await
}

/// Any route that is sold.
#[utoipa::path(post, path = "/v1/quote/{path}", tag = "node", summary = "What a request must be paid with at most, by its route and body", request_body = Object, params(("path" = String, Path, description = "Of the route that is sold, such as `chat/completions`")), responses((status = 200, body = shapes::Quote), Refusals), security((), ("bearer" = [])))]
pub async fn any(State(node): State<Node>, Path(path): Path<String>, request: Request) -> Response<Body> {
    let path = ["v1beta/", "v1/"].iter().find_map(|prefix| path.strip_prefix(prefix)).unwrap_or(&path);
    let target = match path.strip_prefix("models/") {
        Some(rest) => Target::of_a_model(rest),
        None => dialect::for_path(path).map(|dialect| Target { dialect, model: None }),
    };
    match target {
        Some(Target { dialect, model }) => of(node, dialect, model, request).await,
        None => super::not_found(request).await,
    }
}

async fn of(
    node: Node,
    dialect: &'static dyn dialect::Dialect,
    model: Option<String>,
    request: Request,
) -> Response<Body> {
    let request_id = super::watch::id();
    let protocol = super::envelope_of(dialect.protocol(), request.headers());
    let quoted = quote(&node, dialect, model, request).await;
    let asked = Asked { protocol, request_id: &request_id, ..Asked::default() };
    envelope::answer(quoted.map(|value| value.to_string()), &asked)
}

async fn quote(
    node: &Node,
    dialect: &'static dyn dialect::Dialect,
    model: Option<String>,
    request: Request,
) -> Result<Value, Failure> {
    let exchange = &node.exchange;
    exchange.till.admit_quote(peer::of(&request))?;
    proxy::check_sold(node, dialect)?;
    let (parts, body) = request.into_parts();
    let media = headers::text(&parts.headers, CONTENT_TYPE).unwrap_or_default().to_owned();
    let body = node.spool.read(&parts.headers, body, false).await?;
    let sent = Sent { model, wants_events: false, media, body, headers: Vec::new() };
    let profile = models::profile(node, &parts.headers).await?;
    let (model, candidate) = exchange.appraise(dialect, &sent, profile.as_ref())?;
    let asked = exchange.till.ask_for(candidate.hold)?;
    Ok(json!({
        "object": "quote",
        "model": model,
        "required_msat": candidate.hold.get(),
        "amount": asked.amount,
        "unit": asked.unit.as_str(),
        "mints": asked.mints,
        "request": asked.encoded,
        "btc_usd": candidate.btc_usd,
    }))
}
