//! The statements of the ledger. All of them run on SQLite and PostgreSQL alike.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use sqlx::{AnyConnection, AnyExecutor, AssertSqlSafe, Row};

use super::account::{Account, AccountId, AccountKind, Balance};
use super::terms::Source;
use super::transfer::TransferKind;
use super::writer::End;
use crate::money::Msat;
use crate::store::Value::{Number, Text};
use crate::store::{Durability, Hand, Location, Placeholders, Store, StoreError, Tx, Value};

/// A hold to be placed.
pub(super) struct Place<'a> {
    pub id: i64,
    pub source: Source,
    pub amount: Msat,
    /// This amount and all that the same batch places on the account before it.
    pub due: Msat,
    /// This amount and all that the same batch places before it for the same spender.
    pub spender_due: Msat,
    pub request: &'a str,
}

impl Place<'_> {
    fn values(&self) -> [Value<'_>; 7] {
        let Self { id, source, amount, due, spender_due, request } = self;
        let [amount, due, spender_due] = [amount, due, spender_due].map(|amount| Number(amount.to_db()));
        let (account, spender) = (Number(source.account.get()), Number(source.spender.get()));
        [Number(*id), account, spender, amount, due, spender_due, Text(request)]
    }
}

fn end_values(end: &End) -> [Value<'_>; 4] {
    [Number(end.id), Number(end.account.get()), Number(end.charge.to_db()), Text(&end.record)]
}

/// Row counts for which a statement is prepared. A batch is filled up to the next of them with rows
/// that match nothing, so that the database sees few different texts.
const SIZES: [usize; 10] = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64];

/// Most rows that one statement takes.
pub(super) const MAX_ROWS: usize = 64;

/// A statement over a list of rows, once per size. Its first two parameters are the same for all of them: whose they
/// are, `{owner}`, and what time it is, `{at}`. The list is among its tables at `{from}`.
struct Listed([String; SIZES.len()]);

/// What a statement is given a list of: the name that it has there, those of its columns, and how it is named where
/// tables are.
struct Rows {
    name: &'static str,
    columns: &'static [&'static str],
    from: &'static str,
}

/// Owner and time come before the rows.
const FIRST: usize = 3;

impl Listed {
    fn new(marks: Placeholders, list: &Rows, sql: &str) -> Self {
        let sql = sql.replace("{owner}", &marks.nth(1)).replace("{at}", &marks.nth(2));
        Self(SIZES.map(|rows| match rows {
            1 => Self::of_one(marks, list, &sql),
            _ => Self::of_many(marks, list, rows, &sql),
        }))
    }

    /// Without a list: for one, SQLite makes a table in memory and throws it away, which costs more than the row.
    fn of_one(marks: Placeholders, list: &Rows, sql: &str) -> String {
        let mut columns: Vec<(usize, &str)> = (FIRST..).zip(list.columns.iter().copied()).collect();
        // The name of one may be how another's begins.
        columns.sort_by_key(|(_, column)| std::cmp::Reverse(column.len()));
        let place = |sql: String, (number, column): (usize, &str)| {
            sql.replace(&format!("{}.{column}", list.name), &marks.nth(number))
        };
        columns.into_iter().fold(sql.replace("{from}", ""), place)
    }

    fn of_many(marks: Placeholders, list: &Rows, rows: usize, sql: &str) -> String {
        let rows = marks.rows(FIRST, rows, list.columns.len());
        let (name, columns) = (list.name, list.columns.join(", "));
        let sql = sql.replace("{from}", list.from);
        format!("WITH {name} ({columns}) AS (VALUES {rows}) {sql}")
    }

    /// The text for these rows and its parameters, filled up with rows of `nothing`. `whose`: owner and time.
    fn of<'v, const N: usize>(
        &self,
        whose: (&'v str, i64),
        rows: impl ExactSizeIterator<Item = [Value<'v>; N]>,
        nothing: [Value<'v>; N],
    ) -> Result<(&str, Vec<Value<'v>>), StoreError> {
        let sized = SIZES.iter().zip(&self.0).find(|(size, _)| **size >= rows.len());
        let (size, sql) = sized.ok_or_else(|| out_of_range("holds"))?;
        let empty = std::iter::repeat_n(nothing, size.saturating_sub(rows.len()));
        let whose = [Text(whose.0), Number(whose.1)].into_iter();
        Ok((sql, whose.chain(rows.chain(empty).flatten()).collect()))
    }
}

/// The statements of the hot path, for one kind of database.
pub(super) struct Hot {
    place: Listed,
    end: Listed,
}

static SQLITE: LazyLock<Hot> =
    LazyLock::new(|| Hot::new(Placeholders::Question, "key_terms t ON t.account = v.spender", ""));

/// Other processes may write at the same time: what is read stays true until it is written. The side
/// of an outer join that may be empty can only be locked by a query of its own.
static POSTGRES: LazyLock<Hot> = LazyLock::new(|| {
    let terms = "LATERAL (SELECT * FROM key_terms k WHERE k.account = v.spender FOR UPDATE) t ON true";
    Hot::new(Placeholders::Dollar, terms, " FOR UPDATE OF a")
});

impl Hot {
    pub(super) fn of(location: &Location) -> &'static Self {
        match location {
            Location::Sqlite(_) => &SQLITE,
            Location::Postgres(_) => &POSTGRES,
        }
    }

    fn new(marks: Placeholders, terms: &str, locking: &str) -> Self {
        // The atomic check-and-hold: a row comes into being only if enough is available, and the
        // terms of the key, where it has any, allow it. A trigger sets it aside on the account.
        let columns = &["id", "account", "spender", "amount", "due", "spender_due", "request"];
        let place = Listed::new(
            marks,
            &Rows { name: "v", columns, from: "v CROSS JOIN " },
            &format!(
                "INSERT INTO holds (id, account, amount, request, owner, created_at, spender) \
                 SELECT v.id, v.account, v.amount, v.request, {{owner}}, {{at}}, t.account \
                 FROM {{from}}accounts a LEFT JOIN {terms} \
                 WHERE a.id = v.account AND a.kind IN ('key', 'token') AND a.posted - a.held >= v.due \
                 AND (t.account IS NULL OR (COALESCE(t.parent, t.account) = v.account \
                 AND t.blocked_at IS NULL \
                 AND NOT EXISTS (SELECT 1 FROM key_terms p WHERE p.account = t.parent \
                 AND (p.blocked_at IS NOT NULL OR p.valid_until * 1000 <= {{at}})) \
                 AND (t.valid_until IS NULL OR t.valid_until * 1000 > {{at}}) \
                 AND (t.cap IS NULL OR t.cap - t.held \
                 - CASE WHEN {{at}} >= t.resets_at THEN 0 ELSE t.used END >= v.spender_due))) \
                 ORDER BY a.id{locking}"
            ),
        );
        // The end of holds; a trigger books it on the accounts. What was available, and what a child
        // key's cap had left, is read as it was just before. The account and the owner are looked at too: should the
        // ids of two processes ever meet, one must not end the other's hold.
        let end = Listed::new(
            marks,
            &Rows { name: "d", columns: &["id", "account", "charged", "receipt"], from: "FROM d" },
            "UPDATE holds SET charged = d.charged, ended_at = {at}, receipt = d.receipt, \
             state = CASE WHEN d.charged > 0 THEN 'captured' ELSE 'released' END \
             {from} WHERE holds.id = d.id AND holds.account = d.account AND holds.owner = {owner} \
             AND holds.state = 'open' \
             RETURNING holds.id, (SELECT a.posted - a.held FROM accounts a WHERE a.id = holds.account), \
             CASE WHEN holds.spender <> holds.account THEN (SELECT t.cap - t.held \
             - CASE WHEN holds.ended_at >= t.resets_at THEN 0 ELSE t.used END \
             FROM key_terms t WHERE t.account = holds.spender) END",
        );
        Self { place, end }
    }
}

/// Places the holds that their accounts can bear, at most [`MAX_ROWS`]. Returns the ids of those that
/// were not placed.
pub(super) async fn place_holds(
    hand: &mut Hand<'_>,
    hot: &'static Hot,
    places: &[Place<'_>],
    owner: &str,
    now_ms: i64,
) -> Result<HashSet<i64>, StoreError> {
    let nothing = [Number(0), Number(-1), Number(-1), Number(1), Number(1), Number(1), Text("")];
    let (sql, values) = hot.place.of((owner, now_ms), places.iter().map(Place::values), nothing)?;
    let placed = hand.run(sql, &values).await?;
    let mut missing = HashSet::new();
    if usize::try_from(placed) == Ok(places.len()) {
        return Ok(missing);
    }
    for place in places {
        let values = [Number(place.id), Number(place.source.account.get()), Text(owner)];
        let sql = "SELECT id FROM holds WHERE id = $1 AND account = $2 AND owner = $3";
        if hand.read::<1>(sql, &values).await?.is_empty() {
            missing.insert(place.id);
        }
    }
    Ok(missing)
}

/// Ends the holds that are open, at most [`MAX_ROWS`]. Returns what is available afterwards, by hold.
pub(super) async fn end_holds(
    hand: &mut Hand<'_>,
    hot: &'static Hot,
    ends: &[&End],
    owner: &str,
    now_ms: i64,
) -> Result<HashMap<i64, Msat>, StoreError> {
    let nothing = [Number(0), Number(-1), Number(0), Text("")];
    let (sql, values) = hot.end.of((owner, now_ms), ends.iter().map(|end| end_values(end)), nothing)?;
    let rows = hand.read::<3>(sql, &values).await?;
    let mut before = HashMap::with_capacity(rows.len());
    for [id, available, left] in rows {
        let (Some(id), Some(available)) = (id, available) else { return Err(out_of_range("holds")) };
        before.insert(id, left.map_or(available, |left| left.min(available)));
    }
    let freed = |end: &&End| {
        let before = before.get(&end.id)?;
        let after = before.checked_add(end.held.to_db())?.checked_sub(end.charge.to_db())?;
        // A cap that was lowered meanwhile may leave less than nothing.
        Some((end.id, Msat::from_db(after.max(0))?))
    };
    Ok(ends.iter().filter_map(freed).collect())
}

/// What is available after the end of a hold, if this owner has written that very end before.
pub(super) async fn recall_end(
    connection: &mut AnyConnection,
    end: &End,
    owner: &str,
) -> Result<Option<Msat>, StoreError> {
    let row = sqlx::query(
        "SELECT a.posted - a.held, CASE WHEN h.spender <> h.account THEN (SELECT t.cap - t.held \
         - CASE WHEN h.ended_at >= t.resets_at THEN 0 ELSE t.used END \
         FROM key_terms t WHERE t.account = h.spender) END \
         FROM holds h JOIN accounts a ON a.id = h.account \
         WHERE h.id = $1 AND h.account = $2 AND h.owner = $3 AND h.state <> 'open' AND h.charged = $4",
    );
    let row = row.bind(end.id).bind(end.account.get()).bind(owner).bind(end.charge.to_db());
    let Some(row) = row.fetch_optional(connection).await? else { return Ok(None) };
    let (available, left): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Msat::from_db(left.map_or(available, |left| left.min(available)).max(0)))
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
pub async fn balance_of(executor: impl AnyExecutor<'_>, account: AccountId) -> Result<Option<Balance>, StoreError> {
    let row = sqlx::query("SELECT posted, held FROM accounts WHERE id = $1")
        .bind(account.get())
        .fetch_optional(executor)
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
    pub kind: TransferKind,
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
    .bind(transfer.kind.as_str())
    .bind(transfer.reference)
    .bind(now_ms)
    .execute(tx.hand())
    .await?;
    let (debit, credit) = (transfer.debit.get(), transfer.credit.get());
    sqlx::query("UPDATE accounts SET posted = posted + CASE WHEN id = $1 THEN $2 ELSE $3 END WHERE id IN ($4, $5)")
        .bind(debit)
        .bind(transfer.amount.to_db().saturating_neg())
        .bind(transfer.amount.to_db())
        .bind(debit)
        .bind(credit)
        .execute(tx.hand())
        .await?;
    Ok(())
}

/// What a transfer out of this account was for.
///
/// # Errors
/// When the database does not answer.
pub async fn reference_of(
    connection: &mut AnyConnection,
    account: AccountId,
    transfer: i64,
) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT reference FROM transfers WHERE id = $1 AND debit = $2")
        .bind(transfer)
        .bind(account.get())
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Creates a client's account, or finds the one with this key hash; one that was never used gets this kind.
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
    static SQL: LazyLock<String> = LazyLock::new(|| {
        format!(
            "INSERT INTO accounts (id, kind, key_hash, mint, unit, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (key_hash) DO UPDATE SET kind = excluded.kind \
             WHERE accounts.kind <> excluded.kind AND accounts.posted = 0 AND accounts.held = 0 \
             AND accounts.requests = 0 RETURNING {COLUMNS}"
        )
    });
    let created = sqlx::query(AssertSqlSafe(SQL.as_str()))
        .bind(new_id)
        .bind(kind.as_str())
        .bind(key_hash)
        .bind(mint)
        .bind(unit)
        .bind(now_ms)
        .fetch_optional(tx.hand())
        .await?;
    if let Some(created) = created {
        return read_account(&created);
    }
    find_by_key(tx.hand(), key_hash).await?.ok_or_else(|| StoreError::Inconsistent {
        table: "accounts",
        what: "an account is gone right after its insertion".into(),
    })
}

const COLUMNS: &str = "id, kind, posted, held, spent, requests, mint, unit, \
     (SELECT t.parent FROM key_terms t WHERE t.account = accounts.id), \
     (SELECT COALESCE(t.profile, p.profile) FROM key_terms t LEFT JOIN key_terms p ON p.account = t.parent \
     WHERE t.account = accounts.id)";

/// Ecash at a mint, by the books, less what its clients have on their accounts, known or not. In msat; negative
/// when clients of this mint are owed what is held at another.
///
/// # Errors
/// When the database does not answer.
pub async fn surplus_at(executor: impl AnyExecutor<'_>, mint: &str, unit: &str) -> Result<i64, StoreError> {
    let row = sqlx::query(
        "SELECT CAST(COALESCE(-SUM(posted), 0) AS BIGINT) \
         FROM accounts WHERE mint = $1 AND unit = $2 AND kind IN ('mint', 'key', 'token', 'change')",
    )
    .bind(mint)
    .bind(unit)
    .fetch_one(executor)
    .await?;
    Ok(row.try_get(0)?)
}

/// What was charged and not yet paid out, less the fees that mints took. In msat.
///
/// # Errors
/// When the database does not answer.
pub async fn earnings(executor: impl AnyExecutor<'_>) -> Result<i64, StoreError> {
    let row = sqlx::query(
        "SELECT CAST(COALESCE(SUM(posted), 0) AS BIGINT) FROM accounts WHERE kind IN ('income', 'mint_fees')",
    )
    .fetch_one(executor)
    .await?;
    Ok(row.try_get(0)?)
}

/// The account that a key opens.
///
/// # Errors
/// When the database does not answer.
pub async fn find_by_key(executor: impl AnyExecutor<'_>, key_hash: &str) -> Result<Option<Account>, StoreError> {
    static SQL: LazyLock<String> = LazyLock::new(|| format!("SELECT {COLUMNS} FROM accounts WHERE key_hash = $1"));
    let row = sqlx::query(AssertSqlSafe(SQL.as_str())).bind(key_hash).fetch_optional(executor).await?;
    row.as_ref().map(read_account).transpose()
}

/// The account with this id.
///
/// # Errors
/// When the database does not answer.
pub async fn find(executor: impl AnyExecutor<'_>, id: AccountId) -> Result<Option<Account>, StoreError> {
    static SQL: LazyLock<String> = LazyLock::new(|| format!("SELECT {COLUMNS} FROM accounts WHERE id = $1"));
    let row = sqlx::query(AssertSqlSafe(SQL.as_str())).bind(id.get()).fetch_optional(executor).await?;
    row.as_ref().map(read_account).transpose()
}

/// The hash of the key that opens an account.
///
/// # Errors
/// When the database does not answer.
pub async fn key_hash(connection: &mut AnyConnection, id: AccountId) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT key_hash FROM accounts WHERE id = $1").bind(id.get());
    row.fetch_optional(connection).await?.map_or(Ok(None), |row| Ok(row.try_get(0)?))
}

/// The account with this id, which nobody else changes before the transaction ends.
///
/// # Errors
/// When the database does not answer.
pub async fn find_locked(tx: &mut Tx, id: AccountId) -> Result<Option<Account>, StoreError> {
    static SQL: LazyLock<String> =
        LazyLock::new(|| format!("UPDATE accounts SET held = held WHERE id = $1 RETURNING {COLUMNS}"));
    let row = sqlx::query(AssertSqlSafe(SQL.as_str())).bind(id.get()).fetch_optional(tx.hand()).await?;
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
        parent: row.try_get::<Option<i64>, _>(8)?.map(AccountId),
        profile: row.try_get(9)?,
    })
}

/// Releases the open holds of an owner that is dead. Should it not be dead after all, a hold that it
/// ends meanwhile is not released: each ends once.
pub(super) async fn release_orphans(store: &Store, owner: &str, now_ms: i64) -> Result<u64, StoreError> {
    for _ in 1..ORPHAN_ATTEMPTS {
        match try_release_orphans(store, owner, now_ms).await {
            // An owner that is not dead after all ends them too, in another order. Whoever is rolled back tries again.
            Err(error) if error.is_deadlock() => tracing::debug!(%error, "tried again"),
            outcome => return outcome,
        }
    }
    try_release_orphans(store, owner, now_ms).await
}

/// How often the release of a dead process's holds is tried.
const ORPHAN_ATTEMPTS: u32 = 5;

async fn try_release_orphans(store: &Store, owner: &str, now_ms: i64) -> Result<u64, StoreError> {
    let mut desk = store.desk(Durability::Full);
    let ended = sqlx::query("UPDATE holds SET state = 'released', ended_at = $1 WHERE state = 'open' AND owner = $2")
        .bind(now_ms)
        .bind(owner)
        .execute(&mut *desk.turn().await?)
        .await?;
    Ok(ended.rows_affected())
}

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
    .execute(tx.hand())
    .await?;
    let rows = sqlx::query("SELECT id FROM nodes WHERE seen_at < $1 AND id <> $2")
        .bind(dead_before_ms)
        .bind(node)
        .fetch_all(tx.hand())
        .await?;
    tx.commit().await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Whether a process was seen since `after_ms`.
///
/// # Errors
/// When the database does not answer.
pub async fn is_alive(connection: &mut AnyConnection, node: &str, after_ms: i64) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT id FROM nodes WHERE id = $1 AND seen_at >= $2")
        .bind(node)
        .bind(after_ms)
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Whether another process than this was seen since `after_ms`.
pub(super) async fn has_company(store: &Store, node: &str, after_ms: i64) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT id FROM nodes WHERE id <> $1 AND seen_at >= $2 LIMIT 1").bind(node).bind(after_ms);
    Ok(row.fetch_optional(store.read()).await?.is_some())
}

/// Where the hold of a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldState {
    Open,
    Captured,
    Released,
}

/// What the books say of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The account that is charged.
    pub account: AccountId,
    /// The key that was presented.
    pub spender: AccountId,
    pub state: HoldState,
    pub held: Msat,
    pub charged: Msat,
    pub created_ms: i64,
    /// 0 while it is open.
    pub ended_ms: i64,
    /// See [`super::Hold::noting`]; empty when its process died.
    pub record: String,
}

/// The hold of a request, if money was ever set aside for it.
///
/// # Errors
/// When the database does not answer.
pub async fn find_request(connection: &mut AnyConnection, request: &str) -> Result<Option<Entry>, StoreError> {
    let row = sqlx::query(
        "SELECT account, state, amount, charged, created_at, COALESCE(ended_at, 0), receipt, COALESCE(spender, account) \
         FROM holds \
         WHERE request = $1 ORDER BY id DESC LIMIT 1",
    )
    .bind(request)
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let state: String = row.try_get(1)?;
    let state = match state.as_str() {
        "open" => HoldState::Open,
        "captured" => HoldState::Captured,
        "released" => HoldState::Released,
        _ => return Err(StoreError::Inconsistent { table: "holds", what: format!("state {state}") }),
    };
    let amount = |value: i64| Msat::from_db(value).ok_or_else(|| out_of_range("holds"));
    Ok(Some(Entry {
        account: AccountId(row.try_get(0)?),
        spender: AccountId(row.try_get(7)?),
        state,
        held: amount(row.try_get(2)?)?,
        charged: amount(row.try_get(3)?)?,
        created_ms: row.try_get(4)?,
        ended_ms: row.try_get(5)?,
        record: row.try_get(6)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every size has all its parameters, in their order; one row alone is no list.
    #[test]
    fn each_size_has_a_text_of_its_own() {
        for (hot, mark) in [(&*SQLITE, '?'), (&*POSTGRES, '$')] {
            for (listed, columns, name) in [(&hot.place, 7, "v."), (&hot.end, 4, "d.")] {
                for (rows, sql) in SIZES.iter().zip(&listed.0) {
                    assert!(!sql.contains('{'), "{sql}");
                    assert_eq!((sql.contains("(VALUES "), sql.contains(name)), (*rows > 1, *rows > 1), "{sql}");
                    let numbers = sql.split(mark).skip(1).map(|rest| {
                        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                        digits.parse::<usize>().unwrap()
                    });
                    let named: std::collections::BTreeSet<usize> = numbers.collect();
                    assert_eq!(named, (1..=columns * rows + 2).collect(), "{sql}");
                }
            }
        }
    }
}
