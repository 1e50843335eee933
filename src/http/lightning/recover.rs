//! `POST /recover {bolt11}`: how the invoice with this text stands, for a client that lost its id.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use super::describe;
use crate::failure::{Code, Failure};
use crate::http::balance::{read_json, respond, spawn};
use crate::http::refusals::Refusals;
use crate::http::{Node, shapes};

#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = WantedStatus)]
struct Wanted {
    bolt11: Option<String>,
}

/// Serves the call.
#[utoipa::path(post, path = "/lightning/recover", tag = "money", summary = "How the invoice with this text stands", request_body = Wanted, responses((status = 200, body = shapes::InvoiceStatus), Refusals), security(()))]
pub async fn serve(State(node): State<Node>, request: Request) -> Response<Body> {
    let outcome = async {
        let wanted: Wanted = read_json(request).await?;
        let bolt11 = wanted.bolt11.ok_or_else(|| Failure::client(Code::InvalidRequest, "A bolt11 is required."))?;
        let looked = spawn(&node, move |node| async move { node.exchange.till.invoice_by_text(&bolt11).await });
        looked.await.map(|billed| describe(&billed))
    };
    respond(outcome.await)
}
