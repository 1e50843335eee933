//! `GET /v1/usage`: what is left on a key and what it has used, in msat, sats and USD. The key is read where a
//! paid request carries it, never from the address. A token that was never used here is looked at, and stays
//! its owner's.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::refusals::Refusals;
use super::{Node, balance, proxy, shapes};
use crate::failure::Failure;
use crate::money::Msat;
use crate::payment::sight::Sight;
use crate::payment::{self, Payment};

/// Msat in a bitcoin.
const BTC: u64 = 100_000_000_000;
/// Digits of a dollar that are shown.
const USD_DIGITS: u32 = 8;

/// Serves the call.
#[utoipa::path(get, path = "/v1/usage", tag = "money", summary = "What is left on a key, and what it has used", responses((status = 200, body = shapes::Usage), Refusals), security(("bearer" = [])))]
pub async fn show(State(node): State<Node>, headers: HeaderMap) -> Response<Body> {
    balance::respond(look(&node, &headers).await)
}

async fn look(node: &Node, headers: &HeaderMap) -> Result<Value, Failure> {
    let exchange = &node.exchange;
    let payment = match payment::read(proxy::credentials(headers)?, |_| false)? {
        Payment::Asking => return Err(payment::unauthorized()),
        payment => payment,
    };
    let now_ms = exchange.ledger.clock().now_ms();
    let (remaining, used, requests, valid_until, is_active) = match exchange.till.look_at(payment).await? {
        Sight::Fresh(_, net) => (net, Msat::ZERO, 0, None, true),
        Sight::Known(account, _) => {
            let figures = exchange.till.statement(&account).await?.figures(&account, now_ms);
            let limits = figures.limits;
            (
                figures.available,
                figures.spent,
                figures.requests,
                limits.valid_until,
                !limits.has_ended(now_ms) && !figures.is_blocked,
            )
        }
    };
    let btc_usd = exchange.market.rate().rate.ok().map(|rate| rate.btc_usd);
    let usd = |amount: Msat| {
        let usd = Decimal::from(amount.get()).checked_mul(btc_usd?)?.checked_div(Decimal::from(BTC))?;
        Some(usd.round_dp(USD_DIGITS).normalize())
    };
    Ok(json!({
        "remaining": remaining.get(),
        "unit": "msat",
        "is_active": is_active,
        "total_used": used.get(),
        "total_requests": requests,
        "expires_at": valid_until,
        "remaining_sats": remaining.get() / 1000,
        "remaining_usd": usd(remaining),
        "total_used_sats": used.get() / 1000,
        "total_used_usd": usd(used),
        "btc_usd": btc_usd,
    }))
}
