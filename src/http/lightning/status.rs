//! `GET /invoice/{id}/status`: how an invoice stands. Asks the mint, at most every other second.

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;

use super::describe;
use crate::http::balance::{respond, spawn};
use crate::http::extract::Path;
use crate::http::refusals::Refusals;
use crate::http::{Node, shapes};

/// Serves the call.
#[utoipa::path(get, path = "/lightning/invoice/{id}/status", tag = "money", summary = "How an invoice stands", params(("id" = String, Path)), responses((status = 200, body = shapes::InvoiceStatus), Refusals), security(()))]
pub async fn serve(State(node): State<Node>, Path(id): Path<String>) -> Response<Body> {
    let looked = spawn(&node, move |node| async move { node.exchange.till.invoice_status(&id).await });
    respond(looked.await.map(|billed| describe(&billed)))
}
