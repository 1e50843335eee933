//! The statements of keys' terms. All of them run on SQLite and PostgreSQL alike.

use sqlx::{AnyConnection, AnyExecutor, AssertSqlSafe, Row};

use super::{ExpiredKey, ExpiredPage, Expiry, Limits, Reset, Terms};
use crate::clock::{DAY_MS, HOUR_MS};
use crate::ledger::AccountId;
use crate::money::Msat;
use crate::store::{StoreError, Tx, amount};

const TABLE: &str = "key_terms";

/// When the window is over, what was used counts as nothing; so it does where holds are placed.
const TERMS: &str = "SELECT t.account, a.key_hash, t.parent, t.cap, t.reset, t.valid_until, \
     CASE WHEN $1 >= t.resets_at THEN 0 ELSE t.used END, t.held, t.spent, t.requests, t.refund_address, t.expires_at, \
     t.blocked_at, (SELECT p.blocked_at FROM key_terms p WHERE p.account = t.parent), t.label, t.profile, \
     (SELECT p.valid_until FROM key_terms p WHERE p.account = t.parent) \
     FROM key_terms t JOIN accounts a ON a.id = t.account";

/// The terms of a key, where it has any.
///
/// # Errors
/// When the database does not answer.
pub async fn find(
    executor: impl AnyExecutor<'_>,
    account: AccountId,
    now_ms: i64,
) -> Result<Option<Terms>, StoreError> {
    let sql = format!("{TERMS} WHERE t.account = $2");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(now_ms).bind(account.get()).fetch_optional(executor).await?;
    row.as_ref().map(read).transpose()
}

/// The child keys of a parent, oldest first.
///
/// # Errors
/// When the database does not answer.
pub async fn children(
    connection: &mut AnyConnection,
    parent: AccountId,
    now_ms: i64,
) -> Result<Vec<Terms>, StoreError> {
    let sql = format!("{TERMS} WHERE t.parent = $2 ORDER BY t.account");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(now_ms).bind(parent.get()).fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

pub(super) async fn count_children(executor: impl AnyExecutor<'_>, parent: AccountId) -> Result<i64, StoreError> {
    let row = sqlx::query("SELECT COUNT(*) FROM key_terms WHERE parent = $1").bind(parent.get());
    Ok(row.fetch_one(executor).await?.try_get(0)?)
}

/// The window of a new row is over from the start: the first charge opens the next one.
fn first_window(limits: Limits) -> Option<i64> {
    limits.reset.map(|_| 0)
}

pub(super) async fn insert_child(
    tx: &mut Tx,
    child: AccountId,
    parent: AccountId,
    limits: Limits,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO key_terms (account, parent, cap, reset, resets_at, valid_until) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(child.get())
    .bind(parent.get())
    .bind(limits.cap.map(Msat::to_db))
    .bind(limits.reset.map(Reset::as_str))
    .bind(first_window(limits))
    .bind(limits.valid_until)
    .execute(tx.hand())
    .await?;
    Ok(())
}

/// Ends the windows that no clock can have begun which is right: it was ahead, and was set back since. What was used in
/// them is forgotten. Clocks of several nodes may differ by an hour.
pub(super) async fn end_windows_ahead(tx: &mut Tx, now_ms: i64) -> Result<u64, StoreError> {
    let ended = sqlx::query(
        "UPDATE key_terms SET resets_at = 0 WHERE resets_at - $1 > \
         CASE reset WHEN 'daily' THEN 86400000 WHEN 'weekly' THEN 604800000 ELSE 2678400000 END",
    );
    let ended = ended.bind(now_ms.saturating_add(HOUR_MS)).execute(tx.hand()).await?;
    Ok(ended.rows_affected())
}

/// Gives a key these limits instead of those it has. What it used so far counts on, unless the
/// period is another.
///
/// # Errors
/// When the database does not answer.
pub async fn put_limits(tx: &mut Tx, account: AccountId, limits: Limits) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO key_terms (account, cap, reset, resets_at, valid_until) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (account) DO UPDATE SET cap = excluded.cap, reset = excluded.reset, \
         resets_at = CASE WHEN excluded.reset = key_terms.reset THEN key_terms.resets_at ELSE excluded.resets_at END, \
         valid_until = excluded.valid_until",
    )
    .bind(account.get())
    .bind(limits.cap.map(Msat::to_db))
    .bind(limits.reset.map(Reset::as_str))
    .bind(first_window(limits))
    .bind(limits.valid_until)
    .execute(tx.hand())
    .await?;
    Ok(())
}

/// Notes where the balance of a top key goes, and when.
///
/// # Errors
/// A constraint error for a child key.
pub async fn put_expiry(tx: &mut Tx, account: AccountId, expiry: &Expiry) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO key_terms (account, refund_address, expires_at) VALUES ($1, $2, $3) \
         ON CONFLICT (account) DO UPDATE SET refund_address = excluded.refund_address, \
         expires_at = excluded.expires_at",
    )
    .bind(account.get())
    .bind(expiry.address.as_str())
    .bind(expiry.at)
    .execute(tx.hand())
    .await?;
    Ok(())
}

/// Gives a key a profile of prices, or takes it away.
///
/// # Errors
/// A constraint error when there is no such profile.
pub async fn put_profile(tx: &mut Tx, account: AccountId, profile: Option<&str>) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO key_terms (account, profile) VALUES ($1, $2) \
         ON CONFLICT (account) DO UPDATE SET profile = excluded.profile",
    )
    .bind(account.get())
    .bind(profile)
    .execute(tx.hand())
    .await?;
    Ok(())
}

/// Forgets what a key used in its window.
///
/// # Errors
/// When the database does not answer.
pub async fn zero_window(tx: &mut Tx, account: AccountId) -> Result<(), StoreError> {
    sqlx::query("UPDATE key_terms SET used = 0 WHERE account = $1").bind(account.get()).execute(tx.hand()).await?;
    Ok(())
}

/// Keys whose expiry has passed, that have money worth sending and nothing running, longest expired first.
/// Without those whose time was over when this database was recovered from a copy: the original may have paid
/// them since; and without those that could not be paid within the last day: that seldom changes from one look to the
/// next.
///
/// # Errors
/// When the database does not answer.
pub async fn expired_keys(
    connection: &mut AnyConnection,
    now_ms: i64,
    page: ExpiredPage,
) -> Result<Vec<ExpiredKey>, StoreError> {
    let (at, account) = page.after.map_or((i64::MIN, i64::MIN), |(at, account)| (at, account.get()));
    let rows = sqlx::query(
        "SELECT t.account, t.refund_address, t.expires_at, a.posted FROM key_terms t \
         JOIN accounts a ON a.id = t.account WHERE t.expires_at < $1 AND t.refund_address IS NOT NULL \
         AND t.expires_at > COALESCE((SELECT MAX(ended_at) / 1000 FROM recoveries), -1) \
         AND t.expires_at >= $2 AND (t.expires_at > $3 OR t.account > $4) \
         AND a.posted > 0 AND a.posted >= $5 AND a.held = 0 \
         AND NOT EXISTS (SELECT 1 FROM operations o WHERE o.account = t.account AND o.kind = 'expiry' \
         AND o.state = 'failed' AND o.updated_at > $6 AND o.updated_at <= $7) \
         ORDER BY t.expires_at, t.account LIMIT $8",
    )
    .bind(now_ms.div_euclid(1000))
    .bind(at)
    .bind(at)
    .bind(account)
    .bind(page.least.to_db())
    .bind(now_ms.saturating_sub(DAY_MS))
    .bind(now_ms)
    .bind(page.limit)
    .fetch_all(connection)
    .await?;
    let expired = |row: &sqlx::any::AnyRow| {
        Ok(ExpiredKey {
            account: AccountId(row.try_get(0)?),
            expiry: Expiry { address: row.try_get(1)?, at: row.try_get(2)? },
            balance: amount("accounts", row.try_get(3)?)?,
        })
    };
    rows.iter().map(expired).collect()
}

fn read(row: &sqlx::any::AnyRow) -> Result<Terms, StoreError> {
    let reset: Option<String> = row.try_get(4)?;
    let cap: Option<i64> = row.try_get(3)?;
    let parent: Option<i64> = row.try_get(2)?;
    let requests: i64 = row.try_get(9)?;
    let address: Option<String> = row.try_get(10)?;
    let at: Option<i64> = row.try_get(11)?;
    Ok(Terms {
        account: AccountId(row.try_get(0)?),
        key_hash: row.try_get::<Option<String>, _>(1)?.unwrap_or_default(),
        parent: parent.map(AccountId),
        limits: Limits {
            cap: cap.map(|cap| amount(TABLE, cap)).transpose()?,
            reset: reset.map(|name| Reset::parse(&name).ok_or_else(|| bad(format!("reset {name}")))).transpose()?,
            valid_until: row.try_get(5)?,
        },
        used: amount(TABLE, row.try_get(6)?)?,
        held: amount(TABLE, row.try_get(7)?)?,
        spent: amount(TABLE, row.try_get(8)?)?,
        requests: u64::try_from(requests).map_err(|_| bad(format!("requests {requests}")))?,
        expiry: address.zip(at).map(|(address, at)| Expiry { address, at }),
        blocked_ms: row.try_get(12)?,
        parent_is_blocked: row.try_get::<Option<i64>, _>(13)?.is_some(),
        parent_valid_until: row.try_get(16)?,
        label: row.try_get(14)?,
        profile: row.try_get(15)?,
    })
}

fn bad(what: String) -> StoreError {
    StoreError::Inconsistent { table: TABLE, what }
}
