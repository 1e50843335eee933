//! What is under way at mints, for the operator: how far each operation is, and what evidence it waits for.

use sqlx::AnyConnection;

use super::journal::{self, Kind, Operation};
use super::plan::Plan;
use crate::money::{MintUnit, Msat};
use crate::store::{Durability, Store, StoreError};

/// Operations that are listed.
const MOST: i64 = 200;
/// An operation older than this is stuck.
pub const YOUNG_MS: i64 = 10 * 60 * 1000;

/// An operation that has not ended. Holds nothing that is worth money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underway {
    pub id: String,
    /// As the journal calls it.
    pub kind: &'static str,
    pub state: &'static str,
    pub mint: String,
    pub unit: MintUnit,
    pub amount: Msat,
    /// In ms.
    pub created_ms: i64,
    /// When the journal looks at it again.
    pub due_ms: i64,
    /// Looked at so often without an outcome.
    pub attempts: u32,
    /// What would decide it.
    pub awaited: &'static str,
    /// What was said last: the mint's words, or why it could not be asked.
    pub said: String,
}

/// Operations that have not ended, the oldest first, and how many invoices wait to be paid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct All {
    pub operations: Vec<Underway>,
    pub invoices: u64,
}

/// What is under way.
///
/// # Errors
/// When the database does not answer.
pub async fn read(connection: &mut AnyConnection) -> Result<All, StoreError> {
    let open = journal::under_way(connection, MOST).await?;
    let topups = journal::count_open(connection, Kind::TopUp, None, 0).await?;
    let settling = open.iter().filter(|operation| operation.kind == Kind::TopUp).count();
    let invoices = topups.saturating_sub(u64::try_from(settling).unwrap_or(u64::MAX));
    Ok(All { operations: open.into_iter().map(describe).collect(), invoices })
}

/// Makes an operation due at once: the node that owns it carries it on within seconds. For a command beside the
/// node. Returns whether it is open.
///
/// # Errors
/// When the database does not answer.
pub async fn hurry(store: &Store, id: &str, now_ms: i64) -> Result<bool, StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    let is_open = journal::hurry(&mut tx, id, now_ms).await?;
    tx.commit().await?;
    Ok(is_open)
}

fn describe(operation: Operation) -> Underway {
    Underway {
        awaited: awaited(&operation),
        id: operation.id,
        kind: operation.kind.as_str(),
        state: operation.state.as_str(),
        mint: operation.mint,
        unit: operation.unit,
        amount: operation.amount,
        created_ms: operation.created_at,
        due_ms: operation.due_at,
        attempts: operation.attempts,
        said: operation.result,
    }
}

/// What would decide an operation.
fn awaited(operation: &Operation) -> &'static str {
    match (operation.kind, Plan::of(operation)) {
        (Kind::TopUp, Plan::None) => "nothing was sent: the mint's invoice",
        (Kind::TopUp, _) => "whether the invoice is paid, and the ecash signed (NUT-04, NUT-09)",
        (_, Plan::None) if operation.recipient.is_empty() => "nothing was sent: coins to pay with",
        (_, Plan::None) => "nothing was sent: an invoice of the recipient, and coins to pay with",
        (_, Plan::Melt(_)) => "whether the payment was made: its preimage, or its inputs (NUT-05, NUT-07)",
        _ => "whether the mint signed the outputs, or has the inputs unspent (NUT-09, NUT-07)",
    }
}
