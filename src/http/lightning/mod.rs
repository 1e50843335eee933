//! Invoices that fill keys: `/lightning/*`, also under the balance prefixes. One verb a file.

mod invoice;
mod recover;
mod status;

use serde_json::{Value, json};
use utoipa_axum::routes;

use super::Node;
use crate::openapi::Described;
use crate::payment::lightning::Billed;
use crate::wallet::InvoiceStatus;

/// Names under which they are served.
const PREFIXES: [&str; 5] =
    ["/lightning", "/v1/lightning", "/v2/lightning", "/v1/balance/lightning", "/v1/wallet/lightning"];

/// The routes of all verbs.
pub fn mount(routes: Described<Node>) -> Described<Node> {
    routes.under(routes!(invoice::serve), &PREFIXES, &[]).under(routes!(status::serve), &PREFIXES, &[]).under(
        routes!(recover::serve),
        &PREFIXES,
        &[],
    )
}

fn describe(billed: &Billed) -> Value {
    let invoice = &billed.invoice;
    let status = match invoice.status {
        InvoiceStatus::Pending => "pending",
        InvoiceStatus::Settling => "settlement_pending",
        InvoiceStatus::Paid => "paid",
        InvoiceStatus::Expired => "expired",
        InvoiceStatus::Cancelled => "cancelled",
        InvoiceStatus::Stuck => "reconciliation_required",
    };
    json!({
        "invoice_id": invoice.id,
        "status": status,
        "api_key": billed.key.as_ref().map(|key| format!("sk-{key}")),
        "amount_sats": invoice.amount.floor_sat().get(),
        "payment_hash": invoice.payment_hash,
        "paid_at": invoice.paid_at,
        "created_at": invoice.created_at,
        "expires_at": invoice.expires_at,
    })
}
