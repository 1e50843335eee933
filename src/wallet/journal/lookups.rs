//! What the journal knows: rows found by what they are about, and those that are due.

use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::{Kind, Movement, OPEN, Operation, State};
use crate::ledger::AccountId;
use crate::money::{MintUnit, Msat};
use crate::store::StoreError;

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

/// The operation that accepted a token.
pub(in crate::wallet) async fn find_by_token(
    connection: &mut AnyConnection,
    token_hash: &str,
) -> Result<Option<Operation>, StoreError> {
    one(connection, "token_hash = $1", token_hash).await
}

/// The operation with this id.
pub(in crate::wallet) async fn find(connection: &mut AnyConnection, id: &str) -> Result<Option<Operation>, StoreError> {
    one(connection, "id = $1", id).await
}

/// The newest operation of this kind with this invoice.
pub(in crate::wallet) async fn find_by_payment_hash(
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
pub(in crate::wallet) async fn count_open(
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
pub(in crate::wallet) async fn payout_under_way(
    connection: &mut AnyConnection,
    mint: &str,
    unit: MintUnit,
) -> Result<bool, StoreError> {
    let sql = format!("SELECT id FROM operations WHERE {OPEN} AND kind = 'payout' AND mint = $1 AND unit = $2");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(mint).bind(unit.as_str()).fetch_optional(connection).await?;
    Ok(row.is_some())
}

/// What is owed at a mint, and not yet paid out, by open operations. In msat.
pub(in crate::wallet) async fn owed_at(
    connection: &mut AnyConnection,
    mint: &str,
    unit: MintUnit,
) -> Result<i64, StoreError> {
    let sql = format!(
        "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM operations WHERE {OPEN} \
         AND kind IN ('change', 'refund', 'expiry', 'payout') AND mint = $1 AND unit = $2"
    );
    let row = sqlx::query(AssertSqlSafe(sql)).bind(mint).bind(unit.as_str()).fetch_one(connection).await?;
    Ok(row.try_get(0)?)
}

/// Operations that failed and whose proofs are still set aside for them.
pub(in crate::wallet) async fn failed_with_proofs(
    connection: &mut AnyConnection,
) -> Result<Vec<Operation>, StoreError> {
    let sql = format!(
        "{COLUMNS} WHERE state = 'failed' AND id IN \
         (SELECT used_by_operation FROM proof WHERE state = 'RESERVED' AND used_by_operation IS NOT NULL)"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

/// Whether the token of this redemption opens the account that it was credited to.
pub(in crate::wallet) async fn opens_account(connection: &mut AnyConnection, id: &str) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "SELECT o.id FROM operations o JOIN accounts a ON a.id = o.account AND a.key_hash = o.token_hash WHERE o.id = $1",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    Ok(row.is_some())
}

/// The operation that accepted a secret, and how many secrets it accepted in all.
pub(in crate::wallet) async fn find_by_secret(
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
pub(in crate::wallet) async fn newest(
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
pub(in crate::wallet) async fn due(
    connection: &mut AnyConnection,
    now_ms: i64,
    started_ms: i64,
) -> Result<Vec<Operation>, StoreError> {
    let sql = format!("{COLUMNS} WHERE {OPEN} AND (due_at <= $1 OR updated_at < $2) ORDER BY due_at LIMIT 200");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(now_ms).bind(started_ms).fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

/// All that is open.
pub(in crate::wallet) async fn all_open(connection: &mut AnyConnection) -> Result<Vec<Operation>, StoreError> {
    let sql = format!("{COLUMNS} WHERE {OPEN} ORDER BY created_at, id");
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

/// Accounts of one-shot tokens that still have money, no open hold, and were last touched before
/// `before_ms`, by `owner` or by a process that was not seen since `dead_before_ms`: their request
/// ended without giving change, or its process died.
pub(in crate::wallet) async fn stranded(
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

/// What came and went on an account with an id below `before`, newest first. The transfers of
/// charges have negative ids, and are left out.
pub(in crate::wallet) async fn movements(
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
