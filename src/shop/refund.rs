//! Money back: as a token with its QR code, or to a Lightning address.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::{Sent, answer, render};
use crate::http::{self, Node};
use crate::pages::format;
use crate::pages::qr::{self, Qr};
use crate::payment;
use crate::payment::refunds::{Given, destination};

#[derive(Template)]
#[template(path = "shop/refund.html")]
struct Page {
    name: String,
    /// With `sk-`, or the token that was shown.
    key: String,
    amount: String,
    /// Ecash, and where it is worth something.
    token: Option<(String, String)>,
    qr: Option<Qr>,
    /// Who got it over Lightning, and what is left for the fee.
    sent: Option<(String, String)>,
    /// Ecash of foreign mints that was left over.
    remainders: Vec<String>,
}

/// Gives back what is there.
pub(super) async fn give(State(node): State<Node>, sent: Sent) -> Response {
    let page = async {
        node.exchange.till.may_move()?;
        let typed = sent.0?;
        let key = typed.key.trim().to_owned();
        let payment = payment::read_key(&key)?;
        let to = destination(&typed.address, "")?;
        let made = http::spawn(&node, async move |node: Node| node.exchange.till.give_back(&payment, to).await).await?;
        let name = node.info().name;
        let remainders = made.remainders;
        render(&match made.given {
            Given::Token { token, amount, mint } => Page {
                name,
                key,
                amount: format::sat(amount.to_db()),
                qr: qr::of(&token),
                token: Some((token, mint)),
                sent: None,
                remainders,
            },
            Given::Sent { recipient, amount, fee } => Page {
                name,
                key,
                amount: format::sat(amount.to_db()),
                qr: None,
                token: None,
                sent: Some((recipient, format::sat(fee.to_db()))),
                remainders,
            },
            Given::Nothing => Page { name, key, amount: String::new(), qr: None, token: None, sent: None, remainders },
        })
    };
    answer(&node, page.await)
}
