//! The statements of the operator's list of keys. All of them run on SQLite and PostgreSQL alike.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, AssertSqlSafe, Row as _};

use super::{Adjusted, Adjustment, Filter, Key, Place, State};
use crate::ledger::AccountId;
use crate::ledger::account::Balance;
use crate::ledger::terms::{Expiry, Limits, Reset};
use crate::store::{StoreError, Tx, amount};

const ACCOUNTS: &str = "accounts";
const TERMS: &str = "key_terms";

/// Of an account `a` and its terms `t`, if it has any. When the window is over, what was used counts as nothing. A
/// child key's last use is its last hold; that of others is their last charge.
const KEYS: &str = "SELECT a.id, a.key_hash, a.posted, a.held, a.spent, a.requests, a.mint, a.unit, a.created_at, \
     t.parent, (SELECT p.key_hash FROM accounts p WHERE p.id = t.parent), \
     (SELECT COUNT(*) FROM key_terms c WHERE c.parent = a.id), COALESCE(t.label, ''), \
     COALESCE(t.profile, (SELECT p.profile FROM key_terms p WHERE p.account = t.parent)), \
     t.cap, t.reset, t.valid_until, CASE WHEN $1 >= t.resets_at THEN 0 ELSE COALESCE(t.used, 0) END, \
     t.held, t.spent, t.requests, t.blocked_at, \
     (SELECT p.blocked_at FROM key_terms p WHERE p.account = t.parent), t.refund_address, t.expires_at, \
     CASE WHEN t.parent IS NULL THEN (SELECT x.created_at FROM transfers x WHERE x.id = a.last_charge) \
     ELSE (SELECT h.created_at FROM holds h WHERE h.spender = a.id ORDER BY h.id DESC LIMIT 1) END, t.profile, \
     (SELECT p.valid_until FROM key_terms p WHERE p.account = t.parent)";

/// A key of this kind, and not the account that a voucher waits on.
const IS_KEY: &str = "a.key_hash IS NOT NULL AND NOT EXISTS \
     (SELECT 1 FROM vouchers v WHERE v.account = a.id AND (v.redeemed_by IS NULL OR v.redeemed_by <> v.account))";

/// There is or was money on it, or somebody has looked after it. An account without any belongs to an invoice that was
/// not paid, or a token that was not taken: nobody spends it. The statement in it is asked of the few without figures.
const IS_FILLED: &str = "(a.posted <> 0 OR a.requests > 0 OR t.parent IS NOT NULL OR t.blocked_at IS NOT NULL \
     OR t.label <> '' OR (SELECT x.id FROM transfers x WHERE x.credit = a.id AND x.id > 0 LIMIT 1) IS NOT NULL)";

enum Value {
    Number(i64),
    Text(String),
}

/// Which ids a filter lets through, as a statement whose parameters begin with `$2`.
struct Search {
    sql: String,
    values: Vec<Value>,
    /// Found in order of time, and not of ids.
    by_time: bool,
}

impl Search {
    fn new(filter: &Filter, after: Place, limit: i64, now_ms: i64) -> Self {
        // Where the terms say which keys, the search goes through the terms, and by their order.
        let by_terms = filter.label.is_some()
            || filter.profile.is_some()
            || matches!(filter.state, Some(State::Blocked | State::Ended | State::Child));
        let tables = if by_terms {
            "key_terms t JOIN accounts a ON a.id = t.account"
        } else {
            "accounts a LEFT JOIN key_terms t ON t.account = a.id"
        };
        // The index of kinds has the keys in order of time. Where another index finds fewer, it is kept out of sight.
        let kind = if by_terms || filter.hash.is_some() { "a.kind || '' = 'key'" } else { "a.kind = 'key'" };
        // Whoever names one means it.
        let filled = if filter.hash.is_some() { "1 = 1" } else { IS_FILLED };
        let sql = format!("SELECT a.id AS id FROM {tables} WHERE {kind} AND {IS_KEY} AND {filled}");
        let by_time = !by_terms && filter.hash.is_none();
        let mut search = Self { sql, values: Vec::new(), by_time };
        let order = if let Some(hash) = &filter.hash {
            // No hash has a letter that comes after f.
            search.with("a.key_hash >= ", Value::Text(hash.clone()), "");
            search.with("a.key_hash < ", Value::Text(format!("{hash}g")), "");
            "a.key_hash"
        } else if by_terms {
            search.with("t.account < ", Value::Number(after.id), "");
            "t.account DESC"
        } else {
            search.with("a.created_at <= ", Value::Number(after.created_ms), "");
            search.with("(a.created_at < ", Value::Number(after.created_ms), "");
            search.values.push(Value::Number(after.id));
            search.sql = format!("{} OR a.id < ${})", search.sql, search.last());
            "a.created_at DESC, a.id DESC"
        };
        if let Some(label) = &filter.label {
            let wildcards = ['!', '%', '_'];
            let escaped = wildcards.iter().fold(label.clone(), |text, one| text.replace(*one, &format!("!{one}")));
            search.with(
                "t.label <> '' AND LOWER(t.label) LIKE LOWER(",
                Value::Text(format!("%{escaped}%")),
                ") ESCAPE '!'",
            );
        }
        if let Some(profile) = &filter.profile {
            search.with("t.profile = ", Value::Text(profile.clone()), "");
        }
        match filter.state {
            None => {}
            Some(State::Blocked) => search.sql.push_str(" AND t.blocked_at IS NOT NULL"),
            Some(State::Child) => search.sql.push_str(" AND t.parent IS NOT NULL"),
            Some(State::Funded) => search.sql.push_str(" AND a.posted > 0"),
            Some(State::Ended) => search.with("t.valid_until * 1000 <= ", Value::Number(now_ms), ""),
            Some(State::Usable) => {
                search.with(
                    "t.blocked_at IS NULL AND NOT EXISTS (SELECT 1 FROM key_terms p WHERE p.account = t.parent \
                     AND (p.blocked_at IS NOT NULL OR p.valid_until * 1000 <= ",
                    Value::Number(now_ms),
                    "))",
                );
                search.with("(t.valid_until IS NULL OR t.valid_until * 1000 > ", Value::Number(now_ms), ")");
            }
        }
        search.values.push(Value::Number(limit));
        search.sql = format!("{} ORDER BY {order} LIMIT ${}", search.sql, search.last());
        search
    }

    fn with(&mut self, before: &str, value: Value, after: &str) {
        self.values.push(value);
        self.sql = format!("{} AND {before}${}{after}", self.sql, self.last());
    }

    /// The number of the last parameter. The first one is the time.
    fn last(&self) -> usize {
        self.values.len().saturating_add(1)
    }
}

pub(super) async fn list(
    connection: &mut AnyConnection,
    filter: &Filter,
    after: Place,
    limit: i64,
    now_ms: i64,
) -> Result<Vec<Key>, StoreError> {
    let search = Search::new(filter, after, limit, now_ms);
    let sql = format!(
        "{KEYS} FROM ({}) k JOIN accounts a ON a.id = k.id LEFT JOIN key_terms t ON t.account = a.id \
         ORDER BY {}",
        search.sql,
        if search.by_time { "a.created_at DESC, a.id DESC" } else { "a.id DESC" }
    );
    let mut query = sqlx::query(AssertSqlSafe(sql)).bind(now_ms);
    for value in search.values {
        query = match value {
            Value::Number(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
        };
    }
    query.fetch_all(connection).await?.iter().map(read).collect()
}

pub(super) async fn one(executor: impl AnyExecutor<'_>, id: AccountId, now_ms: i64) -> Result<Option<Key>, StoreError> {
    let sql = format!(
        "{KEYS} FROM accounts a LEFT JOIN key_terms t ON t.account = a.id WHERE a.kind = 'key' AND {IS_KEY} AND a.id = $2"
    );
    let row = sqlx::query(AssertSqlSafe(sql)).bind(now_ms).bind(id.get()).fetch_optional(executor).await?;
    row.as_ref().map(read).transpose()
}

/// Makes the row of a key's terms, if it has none; and nobody else changes it before the transaction ends.
pub(super) async fn ensure_terms(tx: &mut Tx, key: AccountId) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO key_terms (account) VALUES ($1) ON CONFLICT (account) DO UPDATE SET account = excluded.account",
    )
    .bind(key.get())
    .execute(tx.hand())
    .await?;
    Ok(())
}

/// Blocks a key since then, or not at all. One that is blocked stays so since when it was.
pub(super) async fn put_block(tx: &mut Tx, key: AccountId, since_ms: Option<i64>) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO key_terms (account, blocked_at) VALUES ($1, $2) ON CONFLICT (account) DO UPDATE SET \
         blocked_at = CASE WHEN excluded.blocked_at IS NULL THEN NULL \
         ELSE COALESCE(key_terms.blocked_at, excluded.blocked_at) END",
    )
    .bind(key.get())
    .bind(since_ms)
    .execute(tx.hand())
    .await?;
    Ok(())
}

pub(super) async fn put_label(tx: &mut Tx, key: AccountId, label: &str) -> Result<(), StoreError> {
    let query = sqlx::query("UPDATE key_terms SET label = $1 WHERE account = $2").bind(label).bind(key.get());
    query.execute(tx.hand()).await?;
    Ok(())
}

pub(super) async fn insert_adjustment(
    tx: &mut Tx,
    wanted: Adjustment<'_>,
    msat: i64,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO adjustments (id, account, msat, reason, actor, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(wanted.id)
    .bind(wanted.key.get())
    .bind(msat)
    .bind(wanted.reason)
    .bind(wanted.actor)
    .bind(now_ms)
    .execute(tx.hand())
    .await?;
    Ok(())
}

pub(super) async fn adjustment(
    executor: impl AnyExecutor<'_>,
    id: &str,
) -> Result<Option<(AccountId, Adjusted)>, StoreError> {
    let row =
        sqlx::query("SELECT id, msat, reason, actor, created_at, account FROM adjustments WHERE id = $1").bind(id);
    let row = row.fetch_optional(executor).await?;
    row.as_ref().map(|row| Ok((AccountId(row.try_get(5)?), read_adjusted(row)?))).transpose()
}

pub(super) async fn adjustments(
    connection: &mut AnyConnection,
    key: AccountId,
    limit: i64,
) -> Result<Vec<Adjusted>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, msat, reason, actor, created_at FROM adjustments WHERE account = $1 \
         ORDER BY created_at DESC, id DESC LIMIT $2",
    )
    .bind(key.get())
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(read_adjusted).collect()
}

fn read_adjusted(row: &AnyRow) -> Result<Adjusted, StoreError> {
    Ok(Adjusted {
        id: row.try_get(0)?,
        msat: row.try_get(1)?,
        reason: row.try_get(2)?,
        actor: row.try_get(3)?,
        created_ms: row.try_get(4)?,
    })
}

fn read(row: &AnyRow) -> Result<Key, StoreError> {
    let parent: Option<i64> = row.try_get(9)?;
    let (cap, reset): (Option<i64>, Option<String>) = (row.try_get(14)?, row.try_get(15)?);
    let (address, at): (Option<String>, Option<i64>) = (row.try_get(23)?, row.try_get(24)?);
    let posted = amount(ACCOUNTS, row.try_get(2)?)?;
    // What a child key spends is counted with its terms, and is on its parent's account.
    let table = if parent.is_some() { TERMS } else { ACCOUNTS };
    let figures = |of_account: usize, of_terms: usize| -> Result<i64, StoreError> {
        let own: Option<i64> = row.try_get(of_terms)?;
        Ok(if parent.is_some() { own.unwrap_or(0) } else { row.try_get(of_account)? })
    };
    Ok(Key {
        id: AccountId(row.try_get(0)?),
        hash: row.try_get(1)?,
        balance: Balance { posted, held: amount(ACCOUNTS, row.try_get(3)?)? },
        held: amount(table, figures(3, 18)?)?,
        spent: amount(table, figures(4, 19)?)?,
        requests: figures(5, 20)?,
        mint: row.try_get(6)?,
        unit: row.try_get(7)?,
        created_ms: row.try_get(8)?,
        parent: parent.map(AccountId),
        parent_hash: row.try_get(10)?,
        children: row.try_get(11)?,
        label: row.try_get(12)?,
        profile: row.try_get(13)?,
        own_profile: row.try_get(26)?,
        limits: Limits {
            cap: cap.map(|cap| amount(TERMS, cap)).transpose()?,
            reset: reset.map(|name| Reset::parse(&name).ok_or_else(|| bad(format!("reset {name}")))).transpose()?,
            valid_until: row.try_get(16)?,
        },
        used: amount(TERMS, row.try_get(17)?)?,
        blocked_ms: row.try_get(21)?,
        parent_is_blocked: row.try_get::<Option<i64>, _>(22)?.is_some(),
        parent_valid_until: row.try_get(27)?,
        expiry: address.zip(at).map(|(address, at)| Expiry { address, at }),
        last_used_ms: row.try_get(25)?,
    })
}

fn bad(what: String) -> StoreError {
    StoreError::Inconsistent { table: TERMS, what }
}
