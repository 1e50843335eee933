//! What the description of the API says of answers. They are written as JSON where they are made; the tests of
//! `tests/schema` send requests and compare.

#![allow(dead_code, reason = "said in the description of the API")]

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

/// What this node is.
#[derive(ToSchema)]
pub(crate) struct Info {
    name: String,
    description: String,
    version: String,
    /// Its public Nostr key.
    npub: String,
    /// The key that signs receipts, as 64 hexadecimal digits.
    receipt_pubkey: String,
    /// The mints whose ecash is taken; the first is the primary.
    mints: Vec<String>,
    http_url: String,
    onion_url: String,
    child_key_cost_msats: u64,
    software: String,
    /// Of the ecash that is taken: `sat` or `msat`.
    unit: String,
}

/// What a bitcoin is billed at.
#[derive(ToSchema)]
pub(crate) struct Rate {
    btc_usd: Option<String>,
    sats_per_usd: Option<String>,
    state: String,
    /// In seconds since the Unix epoch.
    as_of: Option<i64>,
    age_seconds: Option<i64>,
    /// In seconds since the Unix epoch, where there is no rate.
    last_answer_at: Option<i64>,
    /// Factors of every price.
    fees: BTreeMap<String, String>,
    sources: Vec<Value>,
}

/// What the operator says to everybody.
#[derive(ToSchema)]
pub(crate) struct Announcements {
    announcements: Vec<Announcement>,
}

#[derive(ToSchema)]
pub(crate) struct Announcement {
    id: String,
    title: String,
    /// Markdown.
    body: String,
    /// `info`, `warning` or `critical`.
    level: String,
    /// In seconds since the Unix epoch.
    from: i64,
    /// The same; `null`: it has no end.
    until: Option<i64>,
    updated: i64,
}

/// What is left on a key, and what it has used.
#[derive(ToSchema)]
pub(crate) struct Usage {
    remaining: u64,
    /// `msat`
    unit: String,
    is_active: bool,
    total_used: u64,
    total_requests: u64,
    /// In seconds since the Unix epoch.
    expires_at: Option<i64>,
    remaining_sats: u64,
    remaining_usd: Option<String>,
    total_used_sats: u64,
    total_used_usd: Option<String>,
    btc_usd: Option<String>,
}

/// What a request must be paid with at most.
#[derive(ToSchema)]
pub(crate) struct Quote {
    /// `quote`
    object: String,
    model: Option<String>,
    required_msat: u64,
    /// The same in the unit.
    amount: u64,
    unit: String,
    mints: Vec<String>,
    /// A payment request (NUT-18).
    request: String,
    btc_usd: Option<String>,
}

/// The models, in OpenAI's shape. With `anthropic-version` they are in Anthropic's, with `x-goog-api-key` in Google's.
#[derive(ToSchema)]
pub(crate) struct Models {
    data: Option<Vec<Value>>,
    /// In Google's shape.
    models: Option<Vec<Value>>,
}

/// By which ways models are reached.
#[derive(ToSchema)]
pub(crate) struct Paths {
    data: Vec<Value>,
    /// In seconds since the Unix epoch.
    updated_at: i64,
}

/// Other nodes.
#[derive(ToSchema)]
pub(crate) struct Providers {
    providers: Vec<Value>,
}

/// What was charged and why, and the event that signs it.
#[derive(ToSchema)]
pub(crate) struct Receipt {
    #[schema(value_type = Object)]
    receipt: Value,
    /// Its content is the receipt's exact text (NIP-01).
    #[schema(value_type = Object)]
    event: Value,
}

/// Whether the node could serve a paid request.
#[derive(ToSchema)]
pub(crate) struct Ready {
    ready: bool,
    /// Why not.
    reasons: Vec<String>,
    alarms: Vec<String>,
    mints: Vec<Value>,
    upstreams: BTreeMap<String, u64>,
    network: Value,
}

/// How the models, the mints and the rate are.
#[derive(ToSchema)]
pub(crate) struct Status {
    /// `operational`, `degraded`, `failed` or `no_data`.
    state: String,
    /// In seconds since the Unix epoch.
    as_of: Option<i64>,
    reasons: Vec<String>,
    #[schema(value_type = Object)]
    rate: Value,
    mints: Vec<Value>,
    points: u64,
    seconds_per_point: BTreeMap<String, i64>,
    models: Vec<Value>,
}

/// A key and its balance, in msat.
#[derive(ToSchema)]
pub(crate) struct Key {
    api_key: String,
    balance: u64,
    reserved: u64,
    available: u64,
    total: u64,
    is_child: bool,
    parent_key_preview: Option<String>,
    total_requests: u64,
    total_spent: u64,
    child_keys: Option<Vec<Value>>,
    balance_limit: Option<u64>,
    balance_limit_reset: Option<String>,
    /// In seconds since the Unix epoch.
    validity_date: Option<i64>,
    refund_lnurl: Option<String>,
    /// In seconds since the Unix epoch.
    key_expiry_time: Option<i64>,
    price_profile: Option<String>,
    mint: String,
    unit: String,
}

/// A key that was made, and its balance in msat.
#[derive(ToSchema)]
pub(crate) struct NewKey {
    api_key: String,
    balance: u64,
}

/// What was added to a key.
#[derive(ToSchema)]
pub(crate) struct ToppedUp {
    msats: u64,
}

/// What was given back: a token, or a payment to `recipient`. Neither, where only `foreign_remainders` are left.
#[derive(ToSchema)]
pub(crate) struct Refund {
    token: Option<String>,
    recipient: Option<String>,
    sats: Option<String>,
    msats: Option<String>,
    mint: Option<String>,
    fee_msats: Option<u64>,
    foreign_remainders: Option<Value>,
}

/// What came and went, the newest first.
#[derive(ToSchema)]
pub(crate) struct History {
    transactions: Vec<Value>,
}

/// Keys that spend their parent's money.
#[derive(ToSchema)]
pub(crate) struct ChildKeys {
    api_keys: Vec<String>,
    count: u64,
    cost_msats: u64,
    cost_sats: u64,
    parent_balance: u64,
    parent_balance_sats: u64,
}

/// What was done.
#[derive(ToSchema)]
pub(crate) struct Done {
    success: bool,
    message: String,
}

/// The money of a voucher, and the key that it is on.
#[derive(ToSchema)]
pub(crate) struct Voucher {
    api_key: String,
    msats: u64,
    balance: Option<u64>,
}

/// An invoice to be paid.
#[derive(ToSchema)]
pub(crate) struct Invoice {
    invoice_id: String,
    bolt11: String,
    amount_sats: u64,
    /// In seconds since the Unix epoch.
    expires_at: i64,
    payment_hash: String,
}

/// How an invoice stands.
#[derive(ToSchema)]
pub(crate) struct InvoiceStatus {
    invoice_id: String,
    /// `pending`, `settlement_pending`, `paid`, `expired`, `cancelled` or `reconciliation_required`.
    status: String,
    /// Once it is paid.
    api_key: Option<String>,
    amount_sats: u64,
    payment_hash: String,
    paid_at: Option<i64>,
    created_at: i64,
    expires_at: i64,
}
