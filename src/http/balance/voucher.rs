//! `POST /voucher {code}`: the money of a voucher, onto the key that asks or a key of its own. The same
//! again answers the same, so an answer that was lost is had once more.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use serde::Deserialize;
use serde_json::{Map, json};
use utoipa::ToSchema;

use super::{paying, read_json, respond, spawn};
use crate::failure::{Code, Failure};
use crate::http::refusals::Refusals;
use crate::http::{Node, peer, proxy, shapes};

#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = WantedVoucher)]
struct Wanted {
    code: Option<String>,
}

/// Serves the call.
#[utoipa::path(post, path = "/v1/balance/voucher", tag = "money", summary = "Puts the money of a voucher on a key, or makes one", request_body = Wanted, responses((status = 200, body = shapes::Voucher), Refusals), security((), ("bearer" = [])))]
pub async fn serve(State(node): State<Node>, request: Request) -> Response<Body> {
    let headers = request.headers().clone();
    let address = peer::of(&request);
    let outcome = async {
        let payment = if proxy::credentials(&headers)?.is_none() { None } else { Some(paying(&headers)?) };
        let wanted: Wanted = read_json(request).await?;
        let code = wanted.code.filter(|code| !code.trim().is_empty());
        let code = code.ok_or_else(|| Failure::client(Code::InvalidRequest, "A code is required."))?;
        let credited =
            spawn(&node, move |node| async move { node.exchange.till.redeem_voucher(&code, payment, address).await })
                .await?;
        let mut answer = Map::new();
        answer.insert("api_key".into(), json!(format!("sk-{}", credited.key)));
        answer.insert("msats".into(), json!(credited.amount.get()));
        // What a child key may spend of its parent's money is at /info.
        if credited.account.parent.is_none() {
            answer.insert("balance".into(), json!(credited.account.balance.available().get()));
        }
        Ok(answer.into())
    };
    respond(outcome.await)
}
