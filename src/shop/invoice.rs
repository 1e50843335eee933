//! Money in over Lightning. The page with the invoice has a frame inside that looks by itself whether it
//! is paid; the frame's address shows that, and no more. The invoice's id, which the key it makes can be
//! had with, stays in a hidden field.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, X_FRAME_OPTIONS};
use axum::response::Response;

use super::{Sender, Sent, answer, key as key_page, moment, render};
use crate::failure::{Code, Failure};
use crate::http::{self, Node};
use crate::ledger::terms::Limits;
use crate::pages::format;
use crate::pages::qr::{self, Qr};
use crate::payment::lightning;
use crate::payment::sight::Sight;
use crate::wallet::{Invoice, InvoiceStatus};

/// Seconds after which the frame looks again. The mint is asked every other second at most.
const LOOKS_EVERY: u32 = 3;

/// The frame is shown in this node's own page, and nowhere else.
const FRAME_POLICY: &str = "default-src 'none'; style-src 'self'; frame-ancestors 'self'; base-uri 'none'";

#[derive(Template)]
#[template(path = "shop/invoice.html")]
struct Page {
    name: String,
    sats: String,
    bolt11: String,
    qr: Option<Qr>,
    expires: String,
    /// What the frame looks at.
    watched: String,
    /// What the payment is added to; nothing when it makes a key.
    key: String,
    id: String,
    news: &'static str,
}

#[derive(Template)]
#[template(path = "shop/frame.html")]
struct Frame {
    state: &'static str,
    class: &'static str,
    /// Seconds after which to look again.
    refresh: Option<u32>,
}

/// Makes an invoice for the key that is typed, or for a key of its own.
pub(super) async fn make(State(node): State<Node>, Sender(address): Sender, sent: Sent) -> Response {
    let page = async {
        node.exchange.till.may_move()?;
        let typed = sent.0?;
        let sats = lightning::amount(typed.sats.trim().parse().ok())?;
        let key = typed.key.trim().to_owned();
        let payment = if key.is_empty() { None } else { Some(lightning::key_to_fill(&key)?) };
        let made = http::spawn(&node, async move |node: Node| {
            let till = &node.exchange.till;
            match payment {
                Some(payment) => till.invoice_for(till.account_to_fill(&payment).await?, sats, address).await,
                None => till.invoice_for_key(sats, Limits::default(), address).await,
            }
        });
        show(&node, made.await?, key, "")
    };
    answer(&node, page.await)
}

/// The key that a paid invoice made; until then the invoice.
pub(super) async fn key(State(node): State<Node>, sent: Sent) -> Response {
    let page = async {
        let id = sent.0?.id;
        let looked = http::spawn(&node, async move |node: Node| node.exchange.till.invoice_status(id.trim()).await);
        let billed = looked.await?;
        let Some(key) = billed.key else {
            return show(&node, billed.invoice, String::new(), "It is not paid yet.");
        };
        let sight = node.exchange.till.look_at(crate::payment::Payment::Key(key)).await?;
        let Sight::Known(account, key) = sight else {
            return Err(Failure::client(Code::InvoiceNotFound, "Invoice not found"));
        };
        let news = "It is paid. This is your key: keep it, for whoever has it has the money.";
        key_page::show(&node, &account, &key, news, true).await
    };
    answer(&node, page.await)
}

fn show(node: &Node, invoice: Invoice, key: String, news: &'static str) -> Result<Response, Failure> {
    render(&Page {
        name: node.info().name,
        sats: format::count(i64::try_from(invoice.amount.floor_sat().get()).unwrap_or(i64::MAX)),
        qr: qr::of_invoice(&invoice.bolt11),
        watched: node.exchange.till.watched(&invoice.id)?,
        bolt11: invoice.bolt11,
        expires: moment(invoice.expires_at.saturating_mul(1000)),
        key,
        id: invoice.id,
        news,
    })
}

/// The frame: how the invoice stands.
pub(super) async fn watch(State(node): State<Node>, Path(name): Path<String>) -> Response {
    let looked = http::spawn(&node, async move |node: Node| node.exchange.till.watch(&name).await);
    let page = async {
        let (state, class, again) = describe(looked.await?);
        render(&Frame { state, class, refresh: again.then_some(LOOKS_EVERY) })
    };
    let mut response = answer(&node, page.await);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(FRAME_POLICY));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    response
}

/// In words, as what it is meant, and whether it may change soon.
const fn describe(status: InvoiceStatus) -> (&'static str, &'static str, bool) {
    match status {
        InvoiceStatus::Pending => ("Waiting for the payment…", "waits", true),
        InvoiceStatus::Settling => ("Paid. The ecash is being fetched…", "waits", true),
        InvoiceStatus::Paid => ("Paid. Go on with the button below.", "good", false),
        InvoiceStatus::Expired => ("Not paid in time. A payment that is under way may still count.", "bad", false),
        InvoiceStatus::Cancelled => ("This invoice has ended. Do not pay it any more.", "bad", false),
        InvoiceStatus::Stuck => ("The mint of this invoice is gone: ask the operator.", "bad", false),
    }
}
