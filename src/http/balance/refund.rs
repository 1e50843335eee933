//! `POST /refund`: the balance of a key, as a token or over Lightning, or the change of a token that
//! rode on a request. With the `id` of an entry of the history, an earlier one again: whoever lost the
//! answer and has paid in since still gets it.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{history, paying, read_json, respond, spawn};
use crate::failure::Failure;
use crate::http::refusals::Refusals;
use crate::http::{Node, headers, shapes};
use crate::money::{MintUnit, Msat};
use crate::payment;
use crate::payment::refunds::{Ask, Given, Refunded, destination};

#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = WantedRefund)]
struct Wanted {
    /// A Lightning address or an LNURL; else a token.
    lightning_address: Option<String>,
    /// A mint of this node's whose token is wanted; else one of the mint that was paid at.
    mint: Option<String>,
    /// Of an entry of the history that went out: that refund is wanted again, and no new one.
    id: Option<String>,
}

/// Serves the call.
#[utoipa::path(post, path = "/v1/balance/refund", tag = "money", summary = "Gives back what is on a key, or the change of a token", request_body = Option<Wanted>, responses((status = 200, body = shapes::Refund), Refusals), security(("bearer" = []), ("cashu" = [])))]
pub async fn serve(State(node): State<Node>, request: Request) -> Response<Body> {
    let headers = request.headers().clone();
    let one_shot = headers::text(&headers, headers::X_CASHU).map(str::trim).filter(|token| !token.is_empty());
    if let Some(token) = one_shot {
        let token = token.to_owned();
        let outcome = async {
            // Whatever else such a call brings along has never mattered.
            let wanted: Wanted = read_json(request).await.unwrap_or_default();
            let entry = wanted.id.as_deref().map(history::entry).transpose()?;
            spawn(&node, move |node| async move {
                let id = payment::read_token(&token)?.id;
                node.exchange.till.claim_change(&id, entry).await
            })
            .await
        };
        return match outcome.await {
            Ok(refunded) => {
                let mut response = respond(Ok(describe(&refunded)));
                if let Given::Token { token, .. } = &refunded.given {
                    headers::put(response.headers_mut(), headers::X_CASHU, token);
                }
                response
            }
            Err(failure) => respond(Err(failure)),
        };
    }
    let outcome = async {
        let (payment, _) = paying(&headers)?;
        let ask = read_ask(&read_json(request).await?)?;
        let made = spawn(&node, move |node| async move { node.exchange.till.refund(&payment, &ask).await });
        Ok(describe(&made.await?))
    };
    respond(outcome.await)
}

fn read_ask(wanted: &Wanted) -> Result<Ask, Failure> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    match &wanted.id {
        Some(id) => history::entry(id).map(Ask::Again),
        None => destination(&text(&wanted.lightning_address), &text(&wanted.mint)).map(Ask::Balance),
    }
}

fn describe(refunded: &Refunded) -> Value {
    let mut body = match &refunded.given {
        Given::Token { token, amount, mint } => {
            let (name, units) = counted(*amount, refunded.unit);
            json!({ "token": token, name: units, "recipient": null, "mint": mint })
        }
        Given::Sent { recipient, amount, fee } => {
            let (name, units) = counted(*amount, refunded.unit);
            json!({ "recipient": recipient, name: units, "fee_msats": fee.get() })
        }
        Given::Nothing => {
            let (name, units) = counted(Msat::ZERO, refunded.unit);
            json!({ "token": null, name: units, "recipient": null })
        }
    };
    if let Some(body) = body.as_object_mut().filter(|_| !refunded.remainders.is_empty()) {
        body.insert("foreign_remainders".into(), json!(refunded.remainders));
    }
    body
}

/// An amount in the unit of its ecash, as a text, under its unit's name.
fn counted(amount: Msat, unit: MintUnit) -> (&'static str, String) {
    match unit {
        MintUnit::Sat => ("sats", amount.floor_sat().get().to_string()),
        MintUnit::Msat => ("msats", amount.get().to_string()),
    }
}
