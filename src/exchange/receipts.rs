//! Signed receipts: what a request was charged and why, for whoever paid it.
//!
//! The text is put together from the row that ended the request's hold, which never changes, and
//! signed when it is asked for; so the same receipt is the same event (NIP-01), kind [`KIND`].

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Exchange;
use crate::failure::{Code, Failure};
use crate::ledger::repo::{self, Entry, HoldState};
use crate::ledger::{Account, AccountKind};
use crate::nostr::Draft;
use crate::payment::Payment;
use crate::store::StoreError;

/// Kind of a receipt's event: a regular one (NIP-01) that no NIP has taken.
pub const KIND: u16 = 4402;

/// Seconds after which to ask again for the receipt of a request that runs.
const RETRY: u64 = 1;

/// A receipt, and the event that has its exact text as content.
#[derive(Debug, Serialize)]
pub struct SignedReceipt {
    receipt: Box<RawValue>,
    event: Box<RawValue>,
}

/// What a receipt says. Amounts are msat, times ms since the Unix epoch.
#[derive(Serialize)]
struct Text<'a> {
    request_id: &'a str,
    /// Public key of the node that signs.
    node: &'a str,
    status: &'static str,
    charged_msat: u64,
    held_msat: u64,
    created_at_ms: i64,
    settled_at_ms: i64,
    #[serde(flatten)]
    record: Map<String, Value>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    token: Option<Paid<'a>>,
}

/// For a request that was paid by a token of its own.
#[derive(Serialize)]
struct Paid<'a> {
    mint: &'a str,
    unit: &'a str,
    /// What the change is worth; absent as long as none was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    change_msat: Option<u64>,
}

impl Exchange {
    /// The receipt of a request, for the key or token that paid it, and the parent of a child key.
    ///
    /// # Errors
    /// [`Code::ReceiptNotFound`], alike for a request that is another's and one that never was;
    /// [`Code::ReceiptPending`] while it runs.
    pub async fn receipt(&self, request: &str, payment: &Payment) -> Result<SignedReceipt, Failure> {
        let key = payment.key_hex().ok_or_else(not_found)?;
        let account = self.till.look_up(key).await?;
        let entry = self.entry(request).await?;
        let (account, entry) = match (account, entry) {
            (Some(account), Some(entry)) if [entry.account, entry.spender].contains(&account.id) => (account, entry),
            _ => return Err(not_found()),
        };
        let status = match entry.state {
            HoldState::Open => return Err(pending()),
            HoldState::Captured => "captured",
            HoldState::Released => "released",
        };
        self.sign(request, status, &entry, &account).await.map_err(|error| {
            tracing::error!(%error, request, "a receipt could not be made");
            Failure::internal()
        })
    }

    pub(super) async fn entry(&self, request: &str) -> Result<Option<Entry>, Failure> {
        let find = async {
            let mut reader = self.ledger.store().read().acquire().await?;
            repo::find_request(&mut reader, request).await
        };
        find.await.map_err(|error: StoreError| {
            tracing::error!(%error, request, "a request could not be looked up");
            Failure::internal()
        })
    }

    async fn sign(
        &self,
        request: &str,
        status: &'static str,
        entry: &Entry,
        account: &Account,
    ) -> Result<SignedReceipt, Box<dyn std::error::Error + Send + Sync>> {
        let token = match account.kind {
            AccountKind::Token => Some(Paid {
                mint: &account.mint,
                unit: &account.unit,
                change_msat: self.till.wallet().change_given(account.id).await?.map(|change| change.get()),
            }),
            _ => None,
        };
        let text = serde_json::to_string(&Text {
            request_id: request,
            node: &self.identity.pubkey(),
            status,
            charged_msat: entry.charged.get(),
            held_msat: entry.held.get(),
            created_at_ms: entry.created_ms,
            settled_at_ms: entry.ended_ms,
            record: self.ledger.spell_out(&entry.record).await?,
            token,
        })?;
        let event = self.identity.sign(Draft {
            kind: KIND,
            created_at: u64::try_from(entry.ended_ms.div_euclid(1000)).unwrap_or_default(),
            tags: vec![vec!["request".to_owned(), request.to_owned()]],
            content: text.clone(),
        })?;
        Ok(SignedReceipt {
            receipt: RawValue::from_string(text)?,
            event: RawValue::from_string(event.as_json().to_owned())?,
        })
    }
}

/// The one answer for what is not there and what is not the caller's.
#[must_use]
pub fn not_found() -> Failure {
    Failure::client(Code::ReceiptNotFound, "There is no receipt of such a request for this key or token.")
}

fn pending() -> Failure {
    Failure::client(Code::ReceiptPending, "The request is still running; ask again.").retrying(RETRY)
}
