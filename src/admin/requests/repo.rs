//! The statements behind the requests. All of them run on SQLite and PostgreSQL alike.
//!
//! A request is the row of its hold, and no index was made for these pages: placing a hold is what every request
//! waits for. Ids of holds sort by time, so the list is a walk along them, backwards from a place, and what is looked
//! for is picked out on the way. How long such a walk may be is bounded; where a model or an upstream is looked for,
//! the hourly sums say which hours can be left out. What a key was charged for is found along the chain of its
//! charges, and what runs by the index over open holds.

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::filter::{Filter, Status};
use crate::clock::HOUR_MS;
use crate::ledger::AccountId;
use crate::store::{Store, StoreError, ids};

/// What the upstreams did for the requests: written beside the money, a moment later.
const WITH_OUTLAYS: &str = "LEFT JOIN outlays o ON o.id = h.id";

const COLUMNS: &str = "h.id, h.request, h.state, h.amount, h.charged, h.ended_at, h.receipt, \
    COALESCE(SUBSTR(a.key_hash, 1, 8), ''), a.kind, o.upstream, o.msat";

/// A request for which money was set aside.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The id of the hold that set the money aside. Later ones are higher.
    pub hold: i64,
    pub id: String,
    pub state: String,
    pub held_msat: i64,
    pub charged_msat: i64,
    pub began_ms: i64,
    pub ended_ms: Option<i64>,
    /// See [`crate::ledger::Hold::noting`].
    pub record: String,
    /// The first digits of the hash of the key.
    pub key: String,
    /// A token that rode along, rather than a key.
    pub is_token: bool,
    pub upstream: Option<String>,
    pub cost_msat: Option<i64>,
}

fn read(row: &AnyRow) -> Result<Row, StoreError> {
    let hold = row.try_get(0)?;
    Ok(Row {
        hold,
        id: row.try_get(1)?,
        state: row.try_get(2)?,
        held_msat: row.try_get(3)?,
        charged_msat: row.try_get(4)?,
        // By which a range of time is found; the row itself was written a moment later.
        began_ms: ids::made_ms(hold),
        ended_ms: row.try_get(5)?,
        record: row.try_get(6)?,
        key: row.try_get(7)?,
        is_token: row.try_get::<String, _>(8)? == "token",
        upstream: row.try_get(9)?,
        cost_msat: row.try_get(10)?,
    })
}

/// Conditions on a request in SQL, and the texts that they name, the first of them as `$first`.
struct Conditions {
    sql: String,
    texts: Vec<String>,
    first: usize,
    /// The condition on the outlay alone, if there is one.
    outlay: Option<String>,
}

impl Conditions {
    fn of(filter: &Filter, first: usize) -> Self {
        let mut these = Self { sql: String::new(), texts: Vec::new(), first, outlay: None };
        if let Some(model) = &filter.model {
            // A record begins with the model, or with the failure and then the model.
            let name = escaped(&serde_json::Value::from(model.as_str()).to_string());
            let plain = these.mark(format!("{{\"model\":{name},%"));
            let failed = these.mark(format!("{{\"failure\":\"%\",\"model\":{name},%"));
            these.push(&format!("(h.receipt LIKE {plain} ESCAPE '!' OR h.receipt LIKE {failed} ESCAPE '!')"));
        }
        if let Some(upstream) = &filter.upstream {
            let upstream = these.mark(upstream.clone());
            these.push(&format!("o.upstream = {upstream}"));
            these.outlay = Some(format!("upstream = {upstream}"));
        }
        match &filter.status {
            None => {}
            Some(Status::Running) => these.push("h.state = 'open'"),
            Some(Status::Charged) => these.push("h.charged > 0"),
            Some(Status::Free) => {
                these.push("h.state <> 'open' AND h.charged = 0 AND h.receipt NOT LIKE '{\"failure\":%'")
            }
            Some(Status::Failed) => these.push("h.receipt LIKE '{\"failure\":%'"),
            Some(Status::FailedWith(code)) => {
                let code = these.mark(format!("{{\"failure\":\"{}\",%", escaped(code)));
                these.push(&format!("h.receipt LIKE {code} ESCAPE '!'"));
            }
        }
        these
    }

    fn push(&mut self, condition: &str) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
    }

    /// The mark of one more text.
    fn mark(&mut self, text: String) -> String {
        self.texts.push(text);
        format!("${}", self.first.saturating_add(self.texts.len()).saturating_sub(1))
    }
}

/// A text that stands for itself in LIKE, with `!` as the escape.
fn escaped(text: &str) -> String {
    text.replace('!', "!!").replace('%', "!%").replace('_', "!_")
}

/// Where a walk along the requests goes: backwards, from below the first id down to the second one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub below: i64,
    pub down_to: i64,
}

/// What a part of a walk came to.
pub(super) struct Part {
    pub rows: Vec<Row>,
    pub looked_at: i64,
    /// The last id that was looked at; `None`: there were no more.
    pub reached: Option<i64>,
}

/// Looks at so many requests, the newest first, and picks out at most `limit` of them.
pub(super) async fn walk(store: &Store, filter: &Filter, way: Way, looks: i64, limit: i64) -> Result<Part, StoreError> {
    let conditions = Conditions::of(filter, 4);
    // Outlays are short rows with the same ids, so those of an upstream are counted there.
    let table = if conditions.outlay.is_some() { "outlays" } else { "holds" };
    let bounds = format!(
        "SELECT MIN(id), COUNT(*) FROM \
         (SELECT id FROM {table} WHERE id < $1 AND id >= $2 ORDER BY id DESC LIMIT $3) AS looked_at"
    );
    let bounds = sqlx::query(AssertSqlSafe(bounds)).bind(way.below).bind(way.down_to).bind(looks);
    let row = bounds.fetch_one(store.read()).await?;
    let (lowest, looked_at): (Option<i64>, i64) = (row.try_get(0)?, row.try_get(1)?);
    let Some(lowest) = lowest else { return Ok(Part { rows: Vec::new(), looked_at, reached: None }) };
    // Those of a rare upstream are picked out before anything else is read.
    let (picked, holds) = match &conditions.outlay {
        Some(condition) => (
            format!(
                "WITH picked AS MATERIALIZED (SELECT id AS hold FROM outlays WHERE id < $1 AND id >= $2 AND {condition}) "
            ),
            "picked p JOIN holds h ON h.id = p.hold",
        ),
        None => (String::new(), "holds h"),
    };
    let sql = format!(
        "{picked}SELECT {COLUMNS} FROM {holds} JOIN accounts a ON a.id = COALESCE(h.spender, h.account) {WITH_OUTLAYS} \
         WHERE h.id < $1 AND h.id >= $2{} ORDER BY h.id DESC LIMIT $3",
        conditions.sql
    );
    let mut query = sqlx::query(AssertSqlSafe(sql)).bind(way.below).bind(lowest).bind(limit);
    for text in conditions.texts {
        query = query.bind(text);
    }
    let rows = query.fetch_all(store.read()).await?;
    let rows = rows.iter().map(read).collect::<Result<Vec<Row>, _>>()?;
    let is_full = rows.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let reached = if is_full { rows.last().map(|row| row.hold) } else { (looked_at >= looks).then_some(lowest) };
    Ok(Part { rows, looked_at, reached })
}

/// The requests that run now, of every process, the newest first.
pub(crate) async fn running(store: &Store, limit: i64) -> Result<Vec<Row>, StoreError> {
    // They are few: found by the index over them, and never by a walk along all requests.
    let sql = format!(
        "WITH running AS MATERIALIZED (SELECT id AS hold FROM holds WHERE state = 'open' AND owner >= '') \
         SELECT {COLUMNS} FROM running r JOIN holds h ON h.id = r.hold \
         JOIN accounts a ON a.id = COALESCE(h.spender, h.account) {WITH_OUTLAYS} ORDER BY h.id DESC LIMIT $1"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(limit).fetch_all(store.read()).await?;
    rows.iter().map(read).collect()
}

/// A key that is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub id: AccountId,
    /// It spends another's money: see [`crate::ledger::terms`].
    pub is_child: bool,
}

/// The keys and tokens whose hash begins like this.
pub(super) async fn keys(store: &Store, prefix: &str, limit: i64) -> Result<Vec<Key>, StoreError> {
    let rows = sqlx::query(
        "SELECT a.id, CASE WHEN t.parent IS NULL THEN 0 ELSE 1 END FROM accounts a \
         LEFT JOIN key_terms t ON t.account = a.id WHERE a.key_hash >= $1 AND a.key_hash < $2 \
         ORDER BY a.key_hash LIMIT $3",
    )
    // A hash is of hexadecimal digits.
    .bind(prefix)
    .bind(format!("{prefix}g"))
    .bind(limit)
    .fetch_all(store.read())
    .await?;
    let key = |row: &AnyRow| Ok(Key { id: AccountId(row.try_get(0)?), is_child: row.try_get::<i64, _>(1)? != 0 });
    rows.iter().map(key).collect()
}

/// Charges of a key that are looked at in one statement.
const STRETCH: i64 = 5_000;
/// By how much the clocks of those who wrote a chain may differ.
const SKEW_MS: i64 = HOUR_MS;

/// A charge of a key: its transfer has the id of its hold, below zero.
struct Link {
    hold: i64,
    ended_ms: i64,
    /// The transfer of the charge before.
    previous: Option<i64>,
}

/// What was found along the charges of a key.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Holds, the newest first.
    pub ids: Vec<i64>,
    /// Where each stretch of the chain that was looked at begins, and the lowest hold in it.
    stretches: Vec<(i64, i64)>,
    /// The transfer that comes behind them.
    rest: Option<i64>,
}

impl Chain {
    /// Where the charges of holds below this one begin: the transfer of the first stretch that has one; `None`: there
    /// are no more. The chain is in the order in which requests ended, so others may be among them.
    pub(super) fn place(&self, below: i64) -> Option<i64> {
        let first = self.stretches.iter().find(|(_, lowest)| *lowest < below);
        first.map_or(self.rest, |(start, _)| Some(*start))
    }
}

/// Where the chain of a key's charges begins: the transfer of the latest one.
pub(super) async fn latest_charge(store: &Store, key: Key) -> Result<Option<i64>, StoreError> {
    let row = sqlx::query("SELECT last_charge FROM accounts WHERE id = $1").bind(key.id.get());
    let row = row.fetch_optional(store.read()).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?.flatten())
}

/// The latest requests that a key was charged for, with ids like that: at most `limit`, the newest first. Of a key
/// with children, theirs too. Its chain is gone along from the transfer `from`, as far as it takes.
pub(super) async fn charges(
    store: &Store,
    key: Key,
    way: Way,
    from: Option<i64>,
    limit: usize,
) -> Result<Chain, StoreError> {
    let mut chain = Chain { rest: from, ..Chain::default() };
    if key.is_child {
        chain.ids = charges_of_child(store, key, way, limit).await?;
        return Ok(chain);
    }
    while let Some(start) = chain.rest {
        let links = stretch(store, start).await?;
        chain.rest = links.last().and_then(|last| last.previous);
        chain.stretches.extend(links.iter().map(|link| link.hold).min().map(|lowest| (start, lowest)));
        let holds = links.iter().map(|link| link.hold);
        chain.ids.extend(holds.filter(|hold| *hold < way.below && *hold >= way.down_to));
        chain.ids.sort_unstable_by(|one, other| other.cmp(one));
        chain.ids.truncate(limit);
        let is_full = chain.ids.len() >= limit;
        let lowest = chain.ids.last().copied().filter(|_| is_full).unwrap_or(way.down_to);
        // What ended before that began is behind it, and so is all that follows in the chain.
        let is_behind = |last: &Link| last.ended_ms.saturating_add(SKEW_MS) < ids::made_ms(lowest);
        if links.last().is_none_or(is_behind) {
            break;
        }
    }
    Ok(chain)
}

async fn stretch(store: &Store, from: i64) -> Result<Vec<Link>, StoreError> {
    let rows = sqlx::query(
        "WITH RECURSIVE chain (id, ended_at, previous, place) AS (\
         SELECT id, created_at, previous, CAST(1 AS BIGINT) FROM transfers WHERE id = $1 UNION ALL \
         SELECT t.id, t.created_at, t.previous, c.place + 1 FROM chain c JOIN transfers t ON t.id = c.previous \
         WHERE c.place < $2) SELECT -id, ended_at, previous FROM chain ORDER BY place",
    );
    let rows = rows.bind(from).bind(STRETCH).fetch_all(store.read()).await?;
    let link = |row: &AnyRow| Ok(Link { hold: row.try_get(0)?, ended_ms: row.try_get(1)?, previous: row.try_get(2)? });
    rows.iter().map(link).collect()
}

async fn charges_of_child(store: &Store, key: Key, way: Way, limit: usize) -> Result<Vec<i64>, StoreError> {
    let rows = sqlx::query(
        "SELECT id FROM holds WHERE spender = $1 AND id < $2 AND id >= $3 AND charged > 0 ORDER BY id DESC LIMIT $4",
    );
    let rows = rows.bind(key.id.get()).bind(way.below).bind(way.down_to);
    let rows = rows.bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(store.read()).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Those of these requests that the filter takes, the newest first.
pub(super) async fn among(store: &Store, filter: &Filter, ids: &[i64]) -> Result<Vec<Row>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    // Numbers as they are: in SQLite, to bind many marks takes longer than to look them all up.
    let numbers: Vec<String> = ids.iter().map(i64::to_string).collect();
    let conditions = Conditions::of(filter, 1);
    let sql = format!(
        "SELECT {COLUMNS} FROM holds h JOIN accounts a ON a.id = COALESCE(h.spender, h.account) {WITH_OUTLAYS} \
         WHERE h.id IN ({}){} ORDER BY h.id DESC",
        numbers.join(", "),
        conditions.sql
    );
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
    for text in conditions.texts {
        query = query.bind(text);
    }
    query.fetch_all(store.read()).await?.iter().map(read).collect()
}

/// The request with this id.
pub(crate) async fn one(store: &Store, request: &str) -> Result<Option<Row>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM (SELECT * FROM holds WHERE request = $1 ORDER BY id DESC LIMIT 1) h \
         JOIN accounts a ON a.id = COALESCE(h.spender, h.account) {WITH_OUTLAYS}"
    );
    let row = sqlx::query(AssertSqlSafe(sql)).bind(request.to_owned()).fetch_optional(store.read()).await?;
    row.as_ref().map(read).transpose()
}

/// Whose money a request spent, and how it came there.
#[derive(Clone, Debug)]
pub(crate) struct Paid {
    pub account: i64,
    /// Where the money is, and goes back to.
    pub mint: String,
    pub unit: String,
    /// The first digits of the hash of the key whose money it is, where another spends it.
    pub parent: Option<String>,
}

pub(crate) async fn paid(store: &Store, hold: i64) -> Result<Option<Paid>, StoreError> {
    let row = sqlx::query(
        "SELECT a.id, a.mint, a.unit, CASE WHEN h.spender <> h.account THEN SUBSTR(a.key_hash, 1, 8) END \
         FROM holds h JOIN accounts a ON a.id = h.account WHERE h.id = $1",
    )
    .bind(hold)
    .fetch_optional(store.read())
    .await?;
    let paid = |row: AnyRow| {
        let (account, mint, unit) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok(Paid { account, mint, unit, parent: row.try_get(3)? })
    };
    row.map(paid).transpose()
}

/// Something that was done at a mint for the token of a request.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub kind: String,
    pub state: String,
    /// What became of the token that was made.
    pub fate: String,
    pub mint: String,
    pub amount_msat: i64,
    pub at_ms: i64,
}

/// What was done at mints for this account, the oldest first.
pub(crate) async fn operations(store: &Store, account: i64, limit: i64) -> Result<Vec<Operation>, StoreError> {
    let rows = sqlx::query(
        "SELECT kind, state, fate, mint, amount, created_at FROM operations WHERE account = $1 \
         ORDER BY created_at LIMIT $2",
    )
    .bind(account)
    .bind(limit)
    .fetch_all(store.read())
    .await?;
    let operation = |row: &AnyRow| {
        let (kind, state, fate) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let (mint, amount_msat, at_ms) = (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
        Ok(Operation { kind, state, fate, mint, amount_msat, at_ms })
    };
    rows.iter().map(operation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_goes_on_where_something_is_left_of_it() {
        let chain = Chain { ids: Vec::new(), stretches: vec![(-90, 80), (-79, 30), (-70, 60)], rest: Some(-59) };
        for (below, place) in [(81, -90), (80, -79), (31, -79), (30, -59)] {
            assert_eq!(chain.place(below), Some(place), "{below}");
        }
        assert_eq!(Chain { rest: None, ..chain }.place(30), None);
    }
}
