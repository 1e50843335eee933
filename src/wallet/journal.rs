//! The journal of everything that crosses to a mint.
//!
//! ```text
//!   planned ──► acting ──► done
//!      │          └──────► refused     (the mint surely did not act)
//!      └ nothing sent yet
//! ```
//!
//! A row is written, and synced, before the act, with all that is needed to finish it; the outcome
//! after. An operation whose outcome is unknown stays `acting` until evidence decides it: nothing
//! is guessed. The ledger's side of an outcome is posted in the same transaction as the outcome.

use sqlx::{AnyConnection, AssertSqlSafe, Row};

use crate::ledger::AccountId;
use crate::money::{MintUnit, Msat};
use crate::store::{StoreError, Tx};

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client's token becomes the node's ecash and the client's credit.
    Redeem,
    /// What is left of a token that rode on one request goes back.
    Change,
    /// The balance of a key goes back.
    Refund,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Planned,
    Acting,
    Done,
    Refused,
}

impl Kind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redeem => "redeem",
            Self::Change => "change",
            Self::Refund => "refund",
        }
    }
}

impl State {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Acting => "acting",
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}

/// One row of the journal.
#[derive(Clone)]
pub struct Operation {
    pub id: String,
    pub kind: Kind,
    pub state: State,
    pub account: AccountId,
    pub mint: String,
    pub unit: MintUnit,
    /// Redeem: what was credited. Change and refund: what is owed.
    pub amount: Msat,
    /// The swap, where one is needed.
    pub plan: String,
    /// Change and refund: the token. Redeem: why it was refused.
    pub result: String,
    pub owner: String,
    pub updated_at: i64,
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operation")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("state", &self.state)
            .field("mint", &self.mint)
            .field("amount", &self.amount)
            .finish_non_exhaustive()
    }
}

const COLUMNS: &str =
    "SELECT id, kind, state, account, mint, unit, amount, plan, result, owner, updated_at FROM operations";

fn read(row: &sqlx::any::AnyRow) -> Result<Operation, StoreError> {
    let bad = |what: String| StoreError::Inconsistent { table: "operations", what };
    let kind: String = row.try_get(1)?;
    let state: String = row.try_get(2)?;
    let unit: String = row.try_get(5)?;
    let amount: i64 = row.try_get(6)?;
    Ok(Operation {
        id: row.try_get(0)?,
        kind: [Kind::Redeem, Kind::Change, Kind::Refund]
            .into_iter()
            .find(|known| known.as_str() == kind)
            .ok_or_else(|| bad(format!("kind {kind}")))?,
        state: [State::Planned, State::Acting, State::Done, State::Refused]
            .into_iter()
            .find(|known| known.as_str() == state)
            .ok_or_else(|| bad(format!("state {state}")))?,
        account: AccountId(row.try_get(3)?),
        mint: row.try_get(4)?,
        unit: MintUnit::parse(&unit).ok_or_else(|| bad(format!("unit {unit}")))?,
        amount: Msat::from_db(amount).ok_or_else(|| bad(format!("amount {amount}")))?,
        plan: row.try_get(7)?,
        result: row.try_get(8)?,
        owner: row.try_get(9)?,
        updated_at: row.try_get(10)?,
    })
}

/// Writes a new operation. `token_hash` makes it the only one for that token.
pub(super) async fn insert(tx: &mut Tx, operation: &Operation, token_hash: Option<&str>) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO operations (id, kind, state, account, mint, unit, amount, token_hash, plan, \
         result, owner, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(operation.id.as_str())
    .bind(operation.kind.as_str())
    .bind(operation.state.as_str())
    .bind(operation.account.get())
    .bind(operation.mint.as_str())
    .bind(operation.unit.as_str())
    .bind(operation.amount.to_db())
    .bind(token_hash)
    .bind(operation.plan.as_str())
    .bind(operation.result.as_str())
    .bind(operation.owner.as_str())
    .bind(operation.updated_at)
    .bind(operation.updated_at)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Moves an unfinished operation of `owner` on. Returns whether it was unfinished until now: an
/// outcome is recorded once, and only who records it may post it to the ledger.
pub(super) async fn advance(
    tx: &mut Tx,
    id: &str,
    owner: &str,
    state: State,
    plan: &str,
    result: &str,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE operations SET state = $1, plan = $2, result = $3, updated_at = $4 \
         WHERE id = $5 AND owner = $6 AND state IN ('planned', 'acting')",
    )
    .bind(state.as_str())
    .bind(plan)
    .bind(result)
    .bind(now_ms)
    .bind(id)
    .bind(owner)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Makes an unfinished operation this process's own, if it is already, or if its owner was not seen
/// since `dead_before_ms`. Returns whether it is: nobody else works on it then. Two processes that
/// sent the same swap would each take the other's success for somebody else's spending.
pub(super) async fn adopt(tx: &mut Tx, id: &str, owner: &str, dead_before_ms: i64) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE operations SET owner = $1 WHERE id = $2 AND state IN ('planned', 'acting') AND (owner = $3 \
         OR NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = operations.owner AND n.seen_at >= $4))",
    )
    .bind(owner)
    .bind(id)
    .bind(owner)
    .bind(dead_before_ms)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Claims the secrets of a token for an operation.
///
/// # Errors
/// A duplicate error when one of them was accepted before.
pub(super) async fn claim_secrets(tx: &mut Tx, id: &str, hashes: &[String]) -> Result<(), StoreError> {
    for hash in hashes {
        sqlx::query("INSERT INTO claimed_secrets (secret_hash, operation) VALUES ($1, $2)")
            .bind(hash.as_str())
            .bind(id)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Gives the secrets of a refused token free: its owner may present it again.
pub(super) async fn release_claim(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM claimed_secrets WHERE operation = $1").bind(id).execute(&mut **tx).await?;
    sqlx::query("UPDATE operations SET token_hash = NULL WHERE id = $1").bind(id).execute(&mut **tx).await?;
    Ok(())
}

/// The operation that accepted a token.
pub(super) async fn find_by_token(
    connection: &mut AnyConnection,
    token_hash: &str,
) -> Result<Option<Operation>, StoreError> {
    one(connection, "token_hash = $1", token_hash).await
}

/// The operation with this id.
pub(super) async fn find(connection: &mut AnyConnection, id: &str) -> Result<Option<Operation>, StoreError> {
    one(connection, "id = $1", id).await
}

/// Whether the token of this redemption opens the account that it was credited to.
pub(super) async fn opens_account(connection: &mut AnyConnection, id: &str) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "SELECT o.id FROM operations o JOIN accounts a ON a.id = o.account AND a.key_hash = o.token_hash WHERE o.id = $1",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    Ok(row.is_some())
}

/// The operation that accepted a secret, and how many secrets it accepted in all.
pub(super) async fn find_by_secret(
    connection: &mut AnyConnection,
    hash: &str,
) -> Result<Option<(Operation, usize)>, StoreError> {
    let row = sqlx::query("SELECT operation FROM claimed_secrets WHERE secret_hash = $1")
        .bind(hash)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let id: String = row.try_get(0)?;
    let count: i64 = sqlx::query("SELECT COUNT(*) FROM claimed_secrets WHERE operation = $1")
        .bind(id.as_str())
        .fetch_one(&mut *connection)
        .await?
        .try_get(0)?;
    let operation = find(connection, &id).await?;
    Ok(operation.map(|operation| (operation, usize::try_from(count).unwrap_or(0))))
}

/// The newest operation on an account of one of these kinds.
pub(super) async fn newest(
    connection: &mut AnyConnection,
    account: AccountId,
) -> Result<Option<Operation>, StoreError> {
    let sql = format!("{COLUMNS} WHERE account = $1 AND state <> 'refused' ORDER BY created_at DESC, id DESC LIMIT 1");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(account.get()).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

/// All that is unfinished and was not touched since `before_ms`, oldest first.
pub(super) async fn unfinished(connection: &mut AnyConnection, before_ms: i64) -> Result<Vec<Operation>, StoreError> {
    let sql =
        format!("{COLUMNS} WHERE state IN ('planned', 'acting') AND updated_at <= $1 ORDER BY updated_at LIMIT 200");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(before_ms).fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

/// Accounts of one-shot tokens that still have money, no open hold, and were last touched before
/// `before_ms`, by `owner` or by a process that was not seen since `dead_before_ms`: their request
/// ended without giving change, or its process died.
pub(super) async fn stranded(
    connection: &mut AnyConnection,
    owner: &str,
    before_ms: i64,
    dead_before_ms: i64,
) -> Result<Vec<AccountId>, StoreError> {
    let rows = sqlx::query(
        "SELECT a.id FROM accounts a WHERE a.kind = 'token' AND a.held = 0 AND a.posted > 0 \
         AND NOT EXISTS (SELECT 1 FROM operations o WHERE o.account = a.id AND o.updated_at > $1) \
         AND NOT EXISTS (SELECT 1 FROM holds h WHERE h.account = a.id AND h.ended_at > $2) \
         AND NOT EXISTS (SELECT 1 FROM operations o JOIN nodes n ON n.id = o.owner \
         WHERE o.account = a.id AND o.owner <> $3 AND n.seen_at >= $4) \
         AND a.posted >= CASE a.unit WHEN 'sat' THEN 1000 ELSE 1 END LIMIT 200",
    )
    .bind(before_ms)
    .bind(before_ms)
    .bind(owner)
    .bind(dead_before_ms)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok(AccountId(row.try_get(0)?))).collect()
}

/// One movement of a client's money, as it may be shown: never a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// Of the transfer. Newer ones are higher.
    pub id: i64,
    /// Onto the account.
    pub incoming: bool,
    /// `redeem`, `refund`, `change`, `child_key`.
    pub kind: String,
    pub amount: Msat,
    /// Of the ecash; empty where none was moved.
    pub mint: String,
    pub unit: MintUnit,
    pub created_ms: i64,
    /// Whether it is complete: of ecash that goes out, whether its token was made.
    pub done: bool,
}

/// What came and went on an account with an id below `before`, newest first. The transfers of
/// charges have negative ids, and are left out.
pub(super) async fn movements(
    connection: &mut AnyConnection,
    account: AccountId,
    before: i64,
    limit: i64,
) -> Result<Vec<Movement>, StoreError> {
    let rows = sqlx::query(
        "SELECT t.id, t.kind, t.amount, t.created_at, t.credit, o.mint, o.unit, o.state \
         FROM transfers t LEFT JOIN operations o ON o.id = t.reference \
         WHERE (t.debit = $1 OR t.credit = $2) AND t.id > 0 AND t.id < $3 ORDER BY t.id DESC LIMIT $4",
    )
    .bind(account.get())
    .bind(account.get())
    .bind(before)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let movement = |row: &sqlx::any::AnyRow| {
        let bad = |what: &str| StoreError::Inconsistent { table: "transfers", what: what.to_owned() };
        let (unit, state): (Option<String>, Option<String>) = (row.try_get(6)?, row.try_get(7)?);
        let unit = unit.map_or(Some(MintUnit::Msat), |unit| MintUnit::parse(&unit));
        Ok(Movement {
            id: row.try_get(0)?,
            kind: row.try_get(1)?,
            amount: Msat::from_db(row.try_get(2)?).ok_or_else(|| bad("amount"))?,
            created_ms: row.try_get(3)?,
            incoming: row.try_get::<i64, _>(4)? == account.get(),
            mint: row.try_get::<Option<String>, _>(5)?.unwrap_or_default(),
            unit: unit.ok_or_else(|| bad("unit"))?,
            done: state.is_none_or(|state| state == State::Done.as_str()),
        })
    };
    rows.iter().map(movement).collect()
}

async fn one(connection: &mut AnyConnection, condition: &str, value: &str) -> Result<Option<Operation>, StoreError> {
    let sql = format!("{COLUMNS} WHERE {condition}");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(value).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}
