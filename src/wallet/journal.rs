//! The journal of everything that crosses to a mint, a Lightning address or a client.
//!
//! ```text
//!   planned ──► acting ──► done
//!      │          ├──────► failed     (surely nothing happened)
//!      │          └──► unknown ──► done | failed | planned again
//!      └ nothing sent yet
//! ```
//!
//! A row is written, and synced, before the act, with all that is needed to finish it; the outcome
//! after. An operation whose outcome is unknown stays open until evidence decides it: nothing is
//! guessed. The ledger's side of an outcome is posted in the same transaction as the outcome.
//!
//! A row has an owner, the process that works on it, and a lease: until `due_at` the owner is at
//! work, or waits before the next attempt. After it, the owner takes the row up again; another
//! process does so only when the owner is dead.

use sqlx::{AnyConnection, AssertSqlSafe, Row};

use crate::ledger::AccountId;
use crate::money::{MintUnit, Msat};
use crate::store::{StoreError, Tx};

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A client's token becomes the node's ecash and the client's credit.
    Redeem,
    /// A client's Lightning payment becomes ecash and credit (NUT-04).
    TopUp,
    /// What is left of a token that rode on one request goes back.
    Change,
    /// The balance of a key goes back, because its owner asked.
    Refund,
    /// The balance of a key goes back, because its time is over.
    Expiry,
    /// Earnings go to the operator.
    Payout,
    /// The node's ecash is exchanged for ecash in handier amounts.
    Sweep,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Planned,
    Acting,
    Unknown,
    Done,
    Failed,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Redeem, Self::TopUp, Self::Change, Self::Refund, Self::Expiry, Self::Payout, Self::Sweep];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redeem => "redeem",
            Self::TopUp => "topup",
            Self::Change => "change",
            Self::Refund => "refund",
            Self::Expiry => "expiry",
            Self::Payout => "payout",
            Self::Sweep => "sweep",
        }
    }

    /// Whether money leaves an account to its owner.
    #[must_use]
    pub fn is_return(self) -> bool {
        matches!(self, Self::Change | Self::Refund | Self::Expiry | Self::Payout)
    }
}

impl State {
    const ALL: [Self; 5] = [Self::Planned, Self::Acting, Self::Unknown, Self::Done, Self::Failed];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Acting => "acting",
            Self::Unknown => "unknown",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// Whether there is still something to do.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Planned | Self::Acting | Self::Unknown)
    }
}

/// The same in SQL.
const OPEN: &str = "state IN ('planned', 'acting', 'unknown')";

/// How long whoever writes a row has for its next step, in ms.
pub(super) const LEASE_MS: i64 = 30_000;

/// The pause after this many attempts without an outcome, in ms.
pub(super) fn pause_ms(attempts: u32) -> i64 {
    match attempts {
        0 => 10_000,
        1 => 30_000,
        2 => 60_000,
        3 => 120_000,
        _ => 600_000,
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
    /// Coming in: what is credited. Going out: what is owed.
    pub amount: Msat,
    /// A Lightning address or an LNURL; empty: it becomes a token.
    pub recipient: String,
    /// Of the Lightning invoice, where there is one.
    pub payment_hash: String,
    /// The act, where one is needed.
    pub plan: String,
    /// What came of it: the token, the proof of payment, or why it failed or is unknown.
    pub result: String,
    pub owner: String,
    pub due_at: i64,
    pub attempts: u32,
    pub created_at: i64,
    pub updated_at: i64,
}

impl Operation {
    /// A new one, planned now.
    pub(super) fn planned(kind: Kind, account: AccountId, mint: &str, unit: MintUnit, amount: Msat) -> Self {
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            kind,
            state: State::Planned,
            account,
            mint: mint.to_owned(),
            unit,
            amount,
            recipient: String::new(),
            payment_hash: String::new(),
            plan: String::new(),
            result: String::new(),
            owner: String::new(),
            due_at: 0,
            attempts: 0,
            created_at: 0,
            updated_at: 0,
        }
    }
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

const COLUMNS: &str = "SELECT id, kind, state, account, mint, unit, amount, recipient, payment_hash, plan, result, owner, \
     due_at, attempts, created_at, updated_at FROM operations";

fn read(row: &sqlx::any::AnyRow) -> Result<Operation, StoreError> {
    let bad = |what: String| StoreError::Inconsistent { table: "operations", what };
    let kind: String = row.try_get(1)?;
    let state: String = row.try_get(2)?;
    let unit: String = row.try_get(5)?;
    let amount: i64 = row.try_get(6)?;
    let attempts: i64 = row.try_get(13)?;
    Ok(Operation {
        id: row.try_get(0)?,
        kind: Kind::ALL.into_iter().find(|known| known.as_str() == kind).ok_or_else(|| bad(format!("kind {kind}")))?,
        state: State::ALL
            .into_iter()
            .find(|known| known.as_str() == state)
            .ok_or_else(|| bad(format!("state {state}")))?,
        account: AccountId(row.try_get(3)?),
        mint: row.try_get(4)?,
        unit: MintUnit::parse(&unit).ok_or_else(|| bad(format!("unit {unit}")))?,
        amount: Msat::from_db(amount).ok_or_else(|| bad(format!("amount {amount}")))?,
        recipient: row.try_get(7)?,
        payment_hash: row.try_get(8)?,
        plan: row.try_get(9)?,
        result: row.try_get(10)?,
        owner: row.try_get(11)?,
        due_at: row.try_get(12)?,
        attempts: u32::try_from(attempts).map_err(|_| bad(format!("attempts {attempts}")))?,
        created_at: row.try_get(14)?,
        updated_at: row.try_get(15)?,
    })
}

/// Writes a new operation of `owner`, leased to it. `token_hash` makes it the only one for that token.
pub(super) async fn insert(
    tx: &mut Tx,
    operation: &mut Operation,
    token_hash: Option<&str>,
    owner: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    owner.clone_into(&mut operation.owner);
    operation.due_at = now_ms.saturating_add(LEASE_MS);
    operation.created_at = now_ms;
    operation.updated_at = now_ms;
    sqlx::query(
        "INSERT INTO operations (id, kind, state, account, mint, unit, amount, token_hash, recipient, payment_hash, \
         plan, result, owner, due_at, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
    )
    .bind(operation.id.as_str())
    .bind(operation.kind.as_str())
    .bind(operation.state.as_str())
    .bind(operation.account.get())
    .bind(operation.mint.as_str())
    .bind(operation.unit.as_str())
    .bind(operation.amount.to_db())
    .bind(token_hash)
    .bind(operation.recipient.as_str())
    .bind(operation.payment_hash.as_str())
    .bind(operation.plan.as_str())
    .bind(operation.result.as_str())
    .bind(owner)
    .bind(operation.due_at)
    .bind(now_ms)
    .bind(now_ms)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// A step of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'a> {
    pub state: State,
    pub plan: &'a str,
    pub result: &'a str,
}

/// Moves an open operation of `owner` on, and renews its lease. Returns whether it was open until
/// now: an outcome is recorded once, and only who records it may post it to the ledger.
pub(super) async fn advance(
    tx: &mut Tx,
    id: &str,
    owner: &str,
    step: Step<'_>,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let sql = format!(
        "UPDATE operations SET state = $1, plan = $2, result = $3, due_at = $4, updated_at = $5 \
         WHERE id = $6 AND owner = $7 AND {OPEN}"
    );
    let done = sqlx::query(AssertSqlSafe(sql))
        .bind(step.state.as_str())
        .bind(step.plan)
        .bind(step.result)
        .bind(now_ms.saturating_add(LEASE_MS))
        .bind(now_ms)
        .bind(id)
        .bind(owner)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes that an attempt ended without an outcome. `state` is what is known: unknown where
/// something may have happened, planned where surely nothing did.
pub(super) async fn postpone(
    tx: &mut Tx,
    operation: &Operation,
    owner: &str,
    state: State,
    why: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE operations SET state = $1, result = $2, attempts = attempts + 1, due_at = $3, updated_at = $4 \
         WHERE id = $5 AND owner = $6 AND {OPEN}"
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(state.as_str())
        .bind(why)
        .bind(now_ms.saturating_add(pause_ms(operation.attempts)))
        .bind(now_ms)
        .bind(operation.id.as_str())
        .bind(owner)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Notes that there is nothing to do before `due_at`.
pub(super) async fn defer(tx: &mut Tx, id: &str, owner: &str, due_at: i64, now_ms: i64) -> Result<(), StoreError> {
    let sql = format!("UPDATE operations SET due_at = $1, updated_at = $2 WHERE id = $3 AND owner = $4 AND {OPEN}");
    sqlx::query(AssertSqlSafe(sql)).bind(due_at).bind(now_ms).bind(id).bind(owner).execute(&mut **tx).await?;
    Ok(())
}

/// Notes the invoice of an operation.
pub(super) async fn set_payment_hash(tx: &mut Tx, id: &str, payment_hash: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE operations SET payment_hash = $1 WHERE id = $2")
        .bind(payment_hash)
        .bind(id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Moves what is owed to another mint of the node's.
pub(super) async fn rehome(tx: &mut Tx, id: &str, owner: &str, mint: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE operations SET mint = $1 WHERE id = $2 AND owner = $3 AND state = 'planned' AND plan = ''")
        .bind(mint)
        .bind(id)
        .bind(owner)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Makes an open operation this process's own, if it is already, or if its owner was not seen
/// since `dead_before_ms`. Returns whether it is: nobody else works on it then. Two processes that
/// sent the same swap would each take the other's success for somebody else's spending.
pub(super) async fn adopt(tx: &mut Tx, id: &str, owner: &str, dead_before_ms: i64) -> Result<bool, StoreError> {
    let sql = format!(
        "UPDATE operations SET owner = $1 WHERE id = $2 AND {OPEN} AND (owner = $3 \
         OR NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = operations.owner AND n.seen_at >= $4))"
    );
    let done = sqlx::query(AssertSqlSafe(sql))
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

/// The newest operation of this kind with this invoice.
pub(super) async fn find_by_payment_hash(
    connection: &mut AnyConnection,
    kind: Kind,
    payment_hash: &str,
) -> Result<Option<Operation>, StoreError> {
    let sql =
        format!("{COLUMNS} WHERE payment_hash = $1 AND kind = $2 AND payment_hash <> '' ORDER BY created_at DESC");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(payment_hash).bind(kind.as_str()).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

/// How many operations of a kind are open: at any account, or at one.
pub(super) async fn count_open(
    connection: &mut AnyConnection,
    kind: Kind,
    account: Option<AccountId>,
) -> Result<u64, StoreError> {
    let sql = format!("SELECT COUNT(*) FROM operations WHERE {OPEN} AND kind = $1 AND (account = $2 OR $3 = 1)");
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(kind.as_str())
        .bind(account.map_or(0, AccountId::get))
        .bind(i64::from(account.is_none()))
        .fetch_one(connection)
        .await?;
    let count: i64 = row.try_get(0)?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Whether earnings are on their way out of a mint.
pub(super) async fn payout_under_way(
    connection: &mut AnyConnection,
    mint: &str,
    unit: MintUnit,
) -> Result<bool, StoreError> {
    let sql = format!("SELECT id FROM operations WHERE {OPEN} AND kind = 'payout' AND mint = $1 AND unit = $2");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(mint).bind(unit.as_str()).fetch_optional(connection).await?;
    Ok(row.is_some())
}

/// What is owed at a mint, and not yet paid out, by open operations. In msat.
pub(super) async fn owed_at(connection: &mut AnyConnection, mint: &str, unit: MintUnit) -> Result<i64, StoreError> {
    let sql = format!(
        "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM operations WHERE {OPEN} \
         AND kind IN ('change', 'refund', 'expiry', 'payout') AND mint = $1 AND unit = $2"
    );
    let row = sqlx::query(AssertSqlSafe(sql)).bind(mint).bind(unit.as_str()).fetch_one(connection).await?;
    Ok(row.try_get(0)?)
}

/// Operations that failed and whose proofs are still set aside for them.
pub(super) async fn failed_with_proofs(connection: &mut AnyConnection) -> Result<Vec<Operation>, StoreError> {
    let sql = format!(
        "{COLUMNS} WHERE state = 'failed' AND id IN \
         (SELECT used_by_operation FROM proof WHERE state = 'RESERVED' AND used_by_operation IS NOT NULL)"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(connection).await?;
    rows.iter().map(read).collect()
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
    let sql = format!(
        "{COLUMNS} WHERE account = $1 AND state <> 'failed' \
         AND (kind <> 'topup' OR state = 'done') ORDER BY created_at DESC, id DESC LIMIT 1"
    );
    let row = sqlx::query(AssertSqlSafe(sql)).bind(account.get()).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

/// All that is open and due, or was last touched before `started_ms`, when this process began;
/// the longest due first.
pub(super) async fn due(
    connection: &mut AnyConnection,
    now_ms: i64,
    started_ms: i64,
) -> Result<Vec<Operation>, StoreError> {
    let sql = format!("{COLUMNS} WHERE {OPEN} AND (due_at <= $1 OR updated_at < $2) ORDER BY due_at LIMIT 200");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(now_ms).bind(started_ms).fetch_all(connection).await?;
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
