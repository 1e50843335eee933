//! The statements of the ledger. All of them run on SQLite and PostgreSQL alike.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::LazyLock;

use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::account::{Account, AccountId, AccountKind, Balance, House};
use super::writer::End;
use crate::money::Msat;
use crate::store::{Durability, Store, StoreError, Tx};

/// A hold to be placed.
pub(super) struct Place<'a> {
    pub id: i64,
    pub account: AccountId,
    pub amount: Msat,
    pub request: &'a str,
}

/// What ending a batch of holds did.
#[derive(Default)]
pub(super) struct Settled {
    /// Whether the hold was open until now.
    pub ended: HashMap<i64, bool>,
    pub balances: HashMap<AccountId, Balance>,
}

/// Row counts for which a statement is prepared. A batch is cut into these, so that the database
/// sees few different texts.
const SIZES: [usize; 4] = [64, 16, 4, 1];

/// A statement over a list of rows, once per size.
struct Listed([String; SIZES.len()]);

impl Listed {
    fn new(before: &str, columns: usize, after: &str) -> Self {
        Self(SIZES.map(|rows| {
            let mut sql = String::from(before);
            for row in 0..rows {
                sql.push_str(if row == 0 { "(" } else { ", (" });
                for column in 0..columns {
                    let number = row.saturating_mul(columns).saturating_add(column).saturating_add(1);
                    let comma = if column == 0 { "" } else { ", " };
                    // Writing to a String cannot fail.
                    let _ok = write!(sql, "{comma}${number}");
                }
                sql.push(')');
            }
            sql.push_str(after);
            sql
        }))
    }

    /// Cuts `rows` into chunks for which there is a text.
    fn chunks<'a, T>(&'a self, mut rows: &'a [T]) -> Vec<(&'a str, &'a [T])> {
        let mut chunks = Vec::new();
        for (size, sql) in SIZES.iter().zip(&self.0) {
            while let Some((chunk, rest)) = rows.split_at_checked(*size).filter(|(c, _)| !c.is_empty()) {
                chunks.push((sql.as_str(), chunk));
                rows = rest;
            }
        }
        chunks
    }
}

/// The atomic check-and-hold: the row changes only if enough is available.
static ADD_HELD: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new(
        "WITH d (id, amount) AS (VALUES ",
        2,
        ") UPDATE accounts SET held = accounts.held + d.amount FROM d WHERE accounts.id = d.id \
         AND accounts.kind IN ('key', 'token') AND accounts.posted - accounts.held >= d.amount \
         RETURNING accounts.id",
    )
});

static INSERT_HOLDS: LazyLock<Listed> =
    LazyLock::new(|| Listed::new("INSERT INTO holds (id, account, amount, request, owner, created_at) VALUES ", 6, ""));

static END_HOLDS: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new(
        // The account and the owner are looked at too: should the ids of two processes ever meet,
        // one must not end the other's hold.
        "WITH d (id, account, owner, charged, ended_at) AS (VALUES ",
        5,
        ") UPDATE holds SET charged = d.charged, ended_at = d.ended_at, \
         state = CASE WHEN d.charged > 0 THEN 'captured' ELSE 'released' END \
         FROM d WHERE holds.id = d.id AND holds.account = d.account AND holds.owner = d.owner \
         AND holds.state = 'open' RETURNING holds.id",
    )
});

static INSERT_TRANSFERS: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new("INSERT INTO transfers (id, debit, credit, amount, kind, reference, created_at) VALUES ", 7, "")
});

static MOVE: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new(
        "WITH d (id, posted, held, spent, requests) AS (VALUES ",
        5,
        ") UPDATE accounts SET posted = accounts.posted + d.posted, held = accounts.held + d.held, \
         spent = accounts.spent + d.spent, requests = accounts.requests + d.requests \
         FROM d WHERE accounts.id = d.id RETURNING accounts.id, accounts.posted, accounts.held",
    )
});

/// Places the holds that their accounts can bear. Returns those refused, with the account's
/// balance (`None`: there is no such account).
pub(super) async fn place_holds(
    tx: &mut Tx,
    places: &[Place<'_>],
    owner: &str,
    now_ms: i64,
) -> Result<Vec<(i64, Option<Balance>)>, StoreError> {
    let mut by_account: BTreeMap<AccountId, Vec<&Place<'_>>> = BTreeMap::new();
    for place in places {
        by_account.entry(place.account).or_default().push(place);
    }
    let mut sums = Vec::with_capacity(by_account.len());
    for (account, places) in &by_account {
        let mut sum = Msat::ZERO;
        for place in places {
            sum = sum.checked_add(place.amount).ok_or_else(|| out_of_range("holds"))?;
        }
        sums.push((*account, sum));
    }
    let mut borne = HashSet::new();
    for (sql, chunk) in ADD_HELD.chunks(&sums) {
        borne.extend(add_held(tx, sql, chunk).await?);
    }
    let mut placed = Vec::with_capacity(places.len());
    let mut refused = Vec::new();
    for (account, places) in by_account {
        if borne.contains(&account) {
            placed.extend(places);
            continue;
        }
        // Several together are too much: first come, first served. One alone was refused already.
        let several = places.len() > 1;
        for place in places {
            if several && !hold_one(tx, place).await?.is_empty() {
                placed.push(place);
            } else {
                refused.push((place.id, balance_of(tx, account).await?));
            }
        }
    }
    for (sql, chunk) in INSERT_HOLDS.chunks(&placed) {
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for place in chunk {
            query = query
                .bind(place.id)
                .bind(place.account.get())
                .bind(place.amount.to_db())
                .bind(place.request)
                .bind(owner)
                .bind(now_ms);
        }
        query.execute(&mut **tx).await?;
    }
    Ok(refused)
}

async fn hold_one(tx: &mut Tx, place: &Place<'_>) -> Result<Vec<AccountId>, StoreError> {
    let one = [(place.account, place.amount)];
    match ADD_HELD.chunks(&one).first() {
        Some((sql, chunk)) => add_held(tx, sql, chunk).await,
        None => Ok(Vec::new()),
    }
}

async fn add_held(tx: &mut Tx, sql: &str, rows: &[(AccountId, Msat)]) -> Result<Vec<AccountId>, StoreError> {
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for (account, amount) in rows {
        query = query.bind(account.get()).bind(amount.to_db());
    }
    let rows = query.fetch_all(&mut **tx).await?;
    rows.iter().map(|row| Ok(AccountId(row.try_get(0)?))).collect()
}

/// Ends the holds that are open, with their transfers to income.
pub(super) async fn end_holds(
    tx: &mut Tx,
    ends: &[&End],
    owner: &str,
    house: House,
    now_ms: i64,
) -> Result<Settled, StoreError> {
    let mut settled = Settled::default();
    for (sql, chunk) in END_HOLDS.chunks(ends) {
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for end in chunk {
            query = query.bind(end.id).bind(end.account.get()).bind(owner).bind(end.charge.to_db()).bind(now_ms);
        }
        for row in query.fetch_all(&mut **tx).await? {
            settled.ended.insert(row.try_get(0)?, true);
        }
    }
    let mut counted = HashSet::new();
    let really: Vec<&&End> =
        ends.iter().filter(|end| settled.ended.contains_key(&end.id) && counted.insert(end.id)).collect();
    let charged: Vec<&&&End> = really.iter().filter(|end| !end.charge.is_zero()).collect();
    for (sql, chunk) in INSERT_TRANSFERS.chunks(&charged) {
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for end in chunk {
            query = query
                .bind(end.transfer)
                .bind(end.account.get())
                .bind(house.income.get())
                .bind(end.charge.to_db())
                .bind("charge")
                .bind(end.reference.as_str())
                .bind(now_ms);
        }
        query.execute(&mut **tx).await?;
    }
    settled.balances = move_accounts(tx, &moves_of(&really, house)?).await?;
    settled.balances.remove(&house.income);
    Ok(settled)
}

/// Changes the cached figures of accounts. Returns their balances afterwards.
async fn move_accounts(tx: &mut Tx, moves: &[(AccountId, Step)]) -> Result<HashMap<AccountId, Balance>, StoreError> {
    let mut balances = HashMap::new();
    for (sql, chunk) in MOVE.chunks(moves) {
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for (account, step) in chunk {
            query = query.bind(account.get()).bind(step.posted).bind(step.held).bind(step.spent).bind(step.requests);
        }
        for row in query.fetch_all(&mut **tx).await? {
            balances.insert(AccountId(row.try_get(0)?), read_balance(row.try_get(1)?, row.try_get(2)?)?);
        }
    }
    Ok(balances)
}

/// Change of one account's cached figures.
#[derive(Clone, Copy, Default)]
struct Step {
    posted: i64,
    held: i64,
    spent: i64,
    requests: i64,
}

fn moves_of(ends: &[&&End], house: House) -> Result<Vec<(AccountId, Step)>, StoreError> {
    let range = || out_of_range("settlements");
    let mut steps: BTreeMap<AccountId, Step> = BTreeMap::new();
    for end in ends {
        let charge = end.charge.to_db();
        let step = steps.entry(end.account).or_default();
        step.posted = step.posted.checked_sub(charge).ok_or_else(range)?;
        step.held = step.held.checked_sub(end.held.to_db()).ok_or_else(range)?;
        step.spent = step.spent.checked_add(charge).ok_or_else(range)?;
        step.requests = step.requests.checked_add(i64::from(charge > 0)).ok_or_else(range)?;
        if charge > 0 {
            let income = steps.entry(house.income).or_default();
            income.posted = income.posted.checked_add(charge).ok_or_else(range)?;
        }
    }
    Ok(steps.into_iter().collect())
}

fn out_of_range(table: &'static str) -> StoreError {
    StoreError::Inconsistent { table, what: "amounts out of range".into() }
}

fn read_balance(posted: i64, held: i64) -> Result<Balance, StoreError> {
    match (Msat::from_db(posted), Msat::from_db(held)) {
        (Some(posted), Some(held)) => Ok(Balance { posted, held }),
        _ => Err(StoreError::Inconsistent { table: "accounts", what: format!("posted {posted}, held {held}") }),
    }
}

/// Balance of a client's account.
///
/// # Errors
/// When the database does not answer.
pub async fn balance_of(connection: &mut AnyConnection, account: AccountId) -> Result<Option<Balance>, StoreError> {
    let row = sqlx::query("SELECT posted, held FROM accounts WHERE id = $1")
        .bind(account.get())
        .fetch_optional(connection)
        .await?;
    row.map(|row| read_balance(row.try_get(0)?, row.try_get(1)?)).transpose()
}

/// One movement of money.
#[derive(Clone, Copy, Debug)]
pub struct Transfer<'a> {
    pub id: i64,
    pub debit: AccountId,
    pub credit: AccountId,
    pub amount: Msat,
    pub kind: &'a str,
    pub reference: &'a str,
}

/// Posts a transfer and moves both balances. Nothing happens for an amount of zero.
///
/// # Errors
/// A constraint error when the debited account cannot bear it.
pub async fn transfer(tx: &mut Tx, transfer: Transfer<'_>, now_ms: i64) -> Result<(), StoreError> {
    if transfer.amount.is_zero() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO transfers (id, debit, credit, amount, kind, reference, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(transfer.id)
    .bind(transfer.debit.get())
    .bind(transfer.credit.get())
    .bind(transfer.amount.to_db())
    .bind(transfer.kind)
    .bind(transfer.reference)
    .bind(now_ms)
    .execute(&mut **tx)
    .await?;
    for (account, step) in [(transfer.debit, -1_i64), (transfer.credit, 1)] {
        sqlx::query("UPDATE accounts SET posted = posted + $1 * $2 WHERE id = $3")
            .bind(step)
            .bind(transfer.amount.to_db())
            .bind(account.get())
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Creates a client's account, or finds the one with this key hash.
///
/// # Errors
/// When the database does not answer.
pub async fn ensure_client(
    tx: &mut Tx,
    new_id: i64,
    kind: AccountKind,
    key_hash: &str,
    mint: &str,
    unit: &str,
    now_ms: i64,
) -> Result<Account, StoreError> {
    sqlx::query(
        "INSERT INTO accounts (id, kind, key_hash, mint, unit, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (key_hash) DO NOTHING",
    )
    .bind(new_id)
    .bind(kind.as_str())
    .bind(key_hash)
    .bind(mint)
    .bind(unit)
    .bind(now_ms)
    .execute(&mut **tx)
    .await?;
    find_by_key(tx, key_hash).await?.ok_or_else(|| StoreError::Inconsistent {
        table: "accounts",
        what: "an account is gone right after its insertion".into(),
    })
}

const ACCOUNT: &str = "SELECT id, kind, posted, held, spent, requests, mint, unit FROM accounts";

/// The account that a key opens.
///
/// # Errors
/// When the database does not answer.
pub async fn find_by_key(connection: &mut AnyConnection, key_hash: &str) -> Result<Option<Account>, StoreError> {
    static SQL: LazyLock<String> = LazyLock::new(|| format!("{ACCOUNT} WHERE key_hash = $1"));
    let row = sqlx::query(AssertSqlSafe(SQL.as_str())).bind(key_hash).fetch_optional(connection).await?;
    row.as_ref().map(read_account).transpose()
}

/// The account with this id.
///
/// # Errors
/// When the database does not answer.
pub async fn find(connection: &mut AnyConnection, id: AccountId) -> Result<Option<Account>, StoreError> {
    static SQL: LazyLock<String> = LazyLock::new(|| format!("{ACCOUNT} WHERE id = $1"));
    let row = sqlx::query(AssertSqlSafe(SQL.as_str())).bind(id.get()).fetch_optional(connection).await?;
    row.as_ref().map(read_account).transpose()
}

/// The account with this id, which nobody else changes before the transaction ends.
///
/// # Errors
/// When the database does not answer.
pub async fn find_locked(tx: &mut Tx, id: AccountId) -> Result<Option<Account>, StoreError> {
    let row = sqlx::query(
        "UPDATE accounts SET held = held WHERE id = $1 \
         RETURNING id, kind, posted, held, spent, requests, mint, unit",
    )
    .bind(id.get())
    .fetch_optional(&mut **tx)
    .await?;
    row.as_ref().map(read_account).transpose()
}

fn read_account(row: &sqlx::any::AnyRow) -> Result<Account, StoreError> {
    let kind: String = row.try_get(1)?;
    let bad = |what: String| StoreError::Inconsistent { table: "accounts", what };
    let spent: i64 = row.try_get(4)?;
    let requests: i64 = row.try_get(5)?;
    Ok(Account {
        id: AccountId(row.try_get(0)?),
        kind: AccountKind::parse(&kind).ok_or_else(|| bad(format!("kind {kind}")))?,
        balance: read_balance(row.try_get(2)?, row.try_get(3)?)?,
        spent: Msat::from_db(spent).ok_or_else(|| bad(format!("spent {spent}")))?,
        requests: u64::try_from(requests).map_err(|_| bad(format!("requests {requests}")))?,
        mint: row.try_get(6)?,
        unit: row.try_get(7)?,
    })
}

/// Releases the open holds of an owner that is dead. Should it not be dead after all, the holds that
/// it ends meanwhile are not released twice: what is given free is what this statement ended.
pub(super) async fn release_orphans(store: &Store, owner: &str, now_ms: i64) -> Result<u64, StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    let ended = sqlx::query(
        "UPDATE holds SET state = 'released', ended_at = $1 WHERE state = 'open' AND owner = $2 \
         RETURNING account, amount",
    )
    .bind(now_ms)
    .bind(owner)
    .fetch_all(&mut *tx)
    .await?;
    let mut steps: BTreeMap<AccountId, Step> = BTreeMap::new();
    for row in &ended {
        let amount: i64 = row.try_get(1)?;
        let step = steps.entry(AccountId(row.try_get(0)?)).or_default();
        step.held = step.held.checked_sub(amount).ok_or_else(|| out_of_range("holds"))?;
    }
    let steps: Vec<(AccountId, Step)> = steps.into_iter().collect();
    move_accounts(&mut tx, &steps).await?;
    tx.commit().await?;
    Ok(u64::try_from(ended.len()).unwrap_or(u64::MAX))
}

/// Silence after which a process is taken for dead, in ms.
pub const DEAD_AFTER_MS: i64 = 90_000;

/// Notes that a process is alive, and names those that were not seen since `dead_before_ms`.
///
/// # Errors
/// When the database does not answer.
pub async fn heartbeat(store: &Store, node: &str, now_ms: i64, dead_before_ms: i64) -> Result<Vec<String>, StoreError> {
    let mut tx = store.begin(Durability::ProcessSafe).await?;
    sqlx::query(
        "INSERT INTO nodes (id, seen_at) VALUES ($1, $2) \
         ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at",
    )
    .bind(node)
    .bind(now_ms)
    .execute(&mut *tx)
    .await?;
    let rows = sqlx::query("SELECT id FROM nodes WHERE seen_at < $1 AND id <> $2")
        .bind(dead_before_ms)
        .bind(node)
        .fetch_all(&mut *tx)
        .await?;
    tx.commit().await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
