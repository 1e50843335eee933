//! The statements of vouchers. All of them run on SQLite and PostgreSQL alike.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::{Batch, Ended, New, State, Voucher};
use crate::ledger::repo as books;
use crate::ledger::{Account, AccountId};
use crate::store::{StoreError, Tx, amount};

const TABLE: &str = "vouchers";

/// Which open vouchers end.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    Id(i64),
    Note(&'a str),
    /// Those whose time was over at `now_ms`, the longest over first.
    Due {
        now_ms: i64,
        limit: usize,
    },
}

/// One voucher to be inserted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub id: i64,
    pub account: AccountId,
    /// In its batch.
    pub place: i64,
    pub voucher: &'a New,
    pub paid_by: Option<AccountId>,
}

/// A voucher, and whose money it was and is.
#[derive(Debug)]
pub(super) struct Found {
    pub voucher: Voucher,
    pub account: AccountId,
    pub redeemed_by: Option<AccountId>,
}

const COLUMNS: &str =
    "SELECT id, hint, amount, note, state, created_at, expires_at, ended_at, account, redeemed_by FROM vouchers";

pub(super) async fn has_batch(tx: &mut Tx, batch: &str) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT id FROM vouchers WHERE batch = $1 LIMIT 1").bind(batch);
    Ok(row.fetch_optional(tx.hand()).await?.is_some())
}

/// # Errors
/// A duplicate error when another process has issued the same batch.
pub(super) async fn insert(tx: &mut Tx, row: Row<'_>, batch: Batch<'_>, now_ms: i64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO vouchers (id, code_hash, hint, account, amount, batch, place, note, expires_at, created_at, paid_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(row.id)
    .bind(row.voucher.code_hash.as_str())
    .bind(row.voucher.hint.as_str())
    .bind(row.account.get())
    .bind(batch.amount.to_db())
    .bind(batch.id)
    .bind(row.place)
    .bind(batch.note)
    .bind(batch.expires_ms)
    .bind(now_ms)
    .bind(row.paid_by.map(AccountId::get))
    .execute(tx.hand())
    .await?;
    Ok(())
}

/// Accounts of what recoveries found.
pub(super) async fn found(tx: &mut Tx) -> Result<Vec<Account>, StoreError> {
    let ids = sqlx::query("SELECT id FROM accounts WHERE kind = 'change' AND mint <> '' ORDER BY id");
    let ids = ids.fetch_all(tx.hand()).await?;
    let mut accounts = Vec::new();
    for row in ids {
        accounts.extend(books::find_locked(tx, AccountId(row.try_get(0)?)).await?);
    }
    Ok(accounts)
}

/// Redeems an open voucher, for `to` or for its own account: the one statement that decides who of
/// many gets it.
pub(super) async fn redeem(
    tx: &mut Tx,
    code_hash: &str,
    to: Option<AccountId>,
    now_ms: i64,
) -> Result<Option<Ended>, StoreError> {
    let row = sqlx::query(
        "UPDATE vouchers SET state = 'redeemed', ended_at = $1, \
         redeemed_by = CASE WHEN $2 = 0 THEN account ELSE $3 END \
         WHERE code_hash = $4 AND state = 'open' AND (expires_at IS NULL OR expires_at > $5) \
         RETURNING id, account, amount, paid_by",
    )
    .bind(now_ms)
    .bind(i64::from(to.is_some()))
    .bind(to.map_or(0, AccountId::get))
    .bind(code_hash)
    .bind(now_ms)
    .fetch_optional(tx.hand())
    .await?;
    row.as_ref().map(ended).transpose()
}

/// Ends open vouchers. Whoever redeems one at the same moment wins or comes too late.
pub(super) async fn end(tx: &mut Tx, state: State, which: Which<'_>, now_ms: i64) -> Result<Vec<Ended>, StoreError> {
    let condition = match which {
        Which::Id(_) => "id = $3",
        Which::Note(_) => "note = $3",
        Which::Due { .. } => {
            "id IN (SELECT v.id FROM vouchers v WHERE v.state = 'open' AND v.expires_at <= $3 \
             ORDER BY v.expires_at, v.id LIMIT $4)"
        }
    };
    let sql = format!(
        "UPDATE vouchers SET state = $1, ended_at = $2 WHERE state = 'open' AND {condition} \
         RETURNING id, account, amount, paid_by"
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(state.as_str()).bind(now_ms);
    let query = match which {
        Which::Id(id) => query.bind(id),
        Which::Note(note) => query.bind(note),
        Which::Due { now_ms, limit } => query.bind(now_ms).bind(i64::try_from(limit).unwrap_or(i64::MAX)),
    };
    query.fetch_all(tx.hand()).await?.iter().map(ended).collect()
}

pub(super) async fn find(connection: &mut AnyConnection, code_hash: &str) -> Result<Option<Found>, StoreError> {
    let sql = format!("{COLUMNS} WHERE code_hash = $1");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(code_hash).fetch_optional(connection).await?;
    let found = |row: &AnyRow| {
        Ok(Found {
            voucher: read(row)?,
            account: AccountId(row.try_get(8)?),
            redeemed_by: row.try_get::<Option<i64>, _>(9)?.map(AccountId),
        })
    };
    row.as_ref().map(found).transpose()
}

pub(super) async fn list(connection: &mut AnyConnection, before: i64, limit: i64) -> Result<Vec<Voucher>, StoreError> {
    let sql = format!("{COLUMNS} WHERE id < $1 ORDER BY id DESC LIMIT $2");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(before).bind(limit).fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

fn ended(row: &AnyRow) -> Result<Ended, StoreError> {
    Ok(Ended {
        id: row.try_get(0)?,
        account: AccountId(row.try_get(1)?),
        amount: amount(TABLE, row.try_get(2)?)?,
        paid_by: row.try_get::<Option<i64>, _>(3)?.map(AccountId),
    })
}

fn read(row: &AnyRow) -> Result<Voucher, StoreError> {
    let state: String = row.try_get(4)?;
    let known = State::ALL.into_iter().find(|known| known.as_str() == state);
    Ok(Voucher {
        id: row.try_get(0)?,
        hint: row.try_get(1)?,
        amount: amount(TABLE, row.try_get(2)?)?,
        note: row.try_get(3)?,
        state: known.ok_or_else(|| bad(format!("state {state}")))?,
        created_ms: row.try_get(5)?,
        expires_ms: row.try_get(6)?,
        ended_ms: row.try_get(7)?,
    })
}

fn bad(what: String) -> StoreError {
    StoreError::Inconsistent { table: TABLE, what }
}
