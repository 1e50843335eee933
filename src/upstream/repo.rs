//! The statements of the pool. All of them run on SQLite and PostgreSQL alike.

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use sqlx::Row as _;

use super::bar::Bar;
use super::outlay::Outlay;
use crate::store::Value::{Number, Text};
use crate::store::{Durability, HotDesk, Location, Placeholders, Store, StoreError, Value};

/// A stored upstream.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub name: String,
    pub from_environment: bool,
    pub spec: String,
    pub sealed: String,
}

/// All stored upstreams, in the order in which they were described.
pub(super) async fn upstreams(store: &Store) -> Result<Vec<Stored>, StoreError> {
    let rows = sqlx::query("SELECT name, origin, spec, sealed FROM upstreams ORDER BY position, name")
        .fetch_all(store.read())
        .await?;
    let stored = rows.iter().map(|row| {
        Ok(Stored {
            name: row.try_get(0)?,
            from_environment: row.try_get::<String, _>(1)? == "environment",
            spec: row.try_get(2)?,
            sealed: row.try_get(3)?,
        })
    });
    stored.collect()
}

/// Makes these the ones that the environment describes.
pub(super) async fn replace_environment(store: &Store, rows: &[Stored], now_ms: i64) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    sqlx::query("DELETE FROM upstreams WHERE origin = 'environment'").execute(tx.hand()).await?;
    for (position, row) in (0_i64..).zip(rows) {
        sqlx::query(
            "INSERT INTO upstreams (name, origin, position, spec, sealed, updated_at) \
             VALUES ($1, 'environment', $2, $3, $4, $5) ON CONFLICT (name, origin) DO UPDATE \
             SET position = excluded.position, spec = excluded.spec, sealed = excluded.sealed, \
             updated_at = excluded.updated_at",
        )
        .bind(&row.name)
        .bind(position)
        .bind(&row.spec)
        .bind(&row.sealed)
        .bind(now_ms)
        .execute(tx.hand())
        .await?;
    }
    tx.commit().await
}

/// The setting that changes with the operator's upstreams, for other processes to see.
const VERSION: &str = "upstreams_version";

/// The version of what the operator has stored.
pub(super) async fn version(store: &Store) -> Result<Option<String>, StoreError> {
    store.setting(VERSION).await
}

/// Stores an upstream of the operator's where there was none, or in the place of the one that was there. `false`: by
/// now it is otherwise, and nothing was stored.
pub(super) async fn put_own(
    store: &Store,
    before: Option<&Stored>,
    row: &Stored,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let insert = "INSERT INTO upstreams (spec, sealed, updated_at, name, origin, position) \
         SELECT $1, $2, $3, $4, 'operator', COALESCE(MAX(position), -1) + 1 FROM upstreams WHERE origin = 'operator' \
         ON CONFLICT (name, origin) DO NOTHING";
    let update = "UPDATE upstreams SET spec = $1, sealed = $2, updated_at = $3 \
         WHERE name = $4 AND origin = 'operator' AND spec = $5 AND sealed = $6";
    let put = sqlx::query(if before.is_some() { update } else { insert });
    let put = put.bind(&row.spec).bind(&row.sealed).bind(now_ms).bind(&row.name);
    let put = match before {
        Some(before) => put.bind(&before.spec).bind(&before.sealed),
        None => put,
    };
    let mut tx = store.begin(Durability::Full).await?;
    if put.execute(tx.hand()).await?.rows_affected() != 1 {
        return Ok(false);
    }
    tx.set_setting(VERSION, &uuid::Uuid::new_v4().to_string(), now_ms).await?;
    tx.commit().await?;
    Ok(true)
}

/// Removes an upstream of the operator's. Returns whether there was one.
pub(super) async fn remove_own(store: &Store, name: &str, now_ms: i64) -> Result<bool, StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    let removed = sqlx::query("DELETE FROM upstreams WHERE name = $1 AND origin = 'operator'").bind(name);
    let removed = removed.execute(tx.hand()).await?.rows_affected() > 0;
    tx.set_setting(VERSION, &uuid::Uuid::new_v4().to_string(), now_ms).await?;
    tx.commit().await?;
    Ok(removed)
}

/// Most rows that one statement takes.
pub(super) const MAX_ROWS: usize = 64;

/// Parameters of one row.
const COLUMNS: usize = 8;

/// Row counts for which there is a statement: the database sees few different texts.
const SIZES: [usize; 3] = [64, 8, 1];

/// For SQLite and for PostgreSQL.
static INSERTS: LazyLock<[[String; SIZES.len()]; 2]> = LazyLock::new(|| {
    [Placeholders::Question, Placeholders::Dollar].map(|marks| SIZES.map(|rows| insert_outlays(rows, marks)))
});

/// Writes what requests cost, and adds it to the sums. At most [`MAX_ROWS`], so that nobody waits long for
/// the database.
pub(super) async fn write_outlays(store: &Store, batch: &[Outlay]) -> Result<(), StoreError> {
    let mut desk = store.hot_desk();
    let written = write_at(&mut desk, store.location(), batch).await;
    if written.is_err() {
        desk.leave().await;
    }
    written
}

async fn write_at(desk: &mut HotDesk, at: &Location, batch: &[Outlay]) -> Result<(), StoreError> {
    let [of_sqlite, of_postgres] = &*INSERTS;
    let inserts = if matches!(at, Location::Postgres(_)) { of_postgres } else { of_sqlite };
    let mut turn = desk.turn().await?;
    let mut tx = turn.begin().await?;
    let (mut rest, mut new) = (batch, HashSet::with_capacity(batch.len()));
    for (size, sql) in SIZES.iter().zip(inserts) {
        while let Some((some, others)) = rest.split_at_checked(*size) {
            let values: Vec<Value<'_>> = some.iter().flat_map(row).collect();
            new.extend(tx.hand().read::<1>(sql, &values).await?.into_iter().filter_map(|[id]| id));
            rest = others;
        }
    }
    let mut sums: BTreeMap<(&str, i64), (i64, i64)> = BTreeMap::new();
    // What was there already is in the sums, too.
    for outlay in batch.iter().filter(|outlay| new.contains(&outlay.id)) {
        let (requests, nano) = sums.entry((&outlay.upstream, outlay.day())).or_default();
        *requests = requests.saturating_add(1);
        *nano = nano.saturating_add(outlay.nano_usd().unwrap_or(0));
    }
    for ((upstream, day), (requests, nano_usd)) in sums {
        let sql = "INSERT INTO upstream_days (upstream, day, requests, nano_usd) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (upstream, day) DO UPDATE SET requests = upstream_days.requests + excluded.requests, \
             nano_usd = upstream_days.nano_usd + excluded.nano_usd";
        tx.hand().run(sql, &[Text(upstream), Number(day), Number(requests), Number(nano_usd)]).await?;
    }
    tx.commit().await
}

fn row(outlay: &Outlay) -> [Value<'_>; COLUMNS] {
    let msat = outlay.msat.and_then(|msat| i64::try_from(msat).ok());
    let charged = i64::try_from(outlay.charged).unwrap_or(i64::MAX);
    let (nano_usd, at_ms) = (outlay.nano_usd(), Number(outlay.at_ms));
    let (upstream, model, attempts) = (Text(&outlay.upstream), Text(&outlay.model), Text(&outlay.attempts));
    [Number(outlay.id), upstream, model, nano_usd.into(), msat.into(), Number(charged), attempts, at_ms]
}

/// One statement for so many rows, which returns the ids of those that it wrote. A row that is there has been written
/// by an attempt whose outcome was not known.
fn insert_outlays(rows: usize, marks: Placeholders) -> String {
    format!(
        "INSERT INTO outlays (id, upstream, model, nano_usd, msat, charged, attempts, created_at) VALUES {} \
         ON CONFLICT (id) DO NOTHING RETURNING id",
        marks.rows(1, rows, COLUMNS)
    )
}

/// What was spent at each upstream on this day, and since the first of its month, in nanodollars.
pub(super) async fn sums(store: &Store, day: i64, first: i64) -> Result<Vec<(String, i64, i64)>, StoreError> {
    let rows = sqlx::query(
        "SELECT upstream, CAST(SUM(CASE WHEN day = $1 THEN nano_usd ELSE 0 END) AS BIGINT), \
         CAST(SUM(nano_usd) AS BIGINT) FROM upstream_days WHERE day >= $2 GROUP BY upstream",
    )
    .bind(day)
    .bind(first)
    .fetch_all(store.read())
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
}

/// What is stored of an upstream that may be barred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredBar {
    pub generation: i64,
    /// Why, and since when, in ms since the Unix epoch.
    pub bar: Option<(Bar, i64)>,
}

/// Makes a row for each name that has none; one with another identity is cleared.
pub(super) async fn enrol(store: &Store, rows: &[(String, String)]) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    for (name, identity) in rows {
        sqlx::query(
            "INSERT INTO upstream_bars (name, identity, generation) VALUES ($1, $2, 0) ON CONFLICT (name) DO UPDATE \
             SET identity = excluded.identity, generation = upstream_bars.generation + 1, bar = NULL, since = NULL \
             WHERE upstream_bars.identity <> excluded.identity",
        )
        .bind(name)
        .bind(identity)
        .execute(tx.hand())
        .await?;
    }
    tx.commit().await
}

/// What is held against each upstream.
pub(super) async fn bars(store: &Store) -> Result<Vec<(String, StoredBar)>, StoreError> {
    let rows = sqlx::query("SELECT name, generation, bar, since FROM upstream_bars").fetch_all(store.read()).await?;
    let stored = rows.iter().map(|row| {
        let bar: Option<String> = row.try_get(2)?;
        let since: Option<i64> = row.try_get(3)?;
        // One that a later version knows is as good a reason.
        let bar = bar.map(|name| (Bar::parse(&name).unwrap_or(Bar::AccountShut), since.unwrap_or(0)));
        Ok((row.try_get(0)?, StoredBar { generation: row.try_get(1)?, bar }))
    });
    stored.collect()
}

/// Bars an upstream for all processes, unless the operator has cleared it since.
pub(super) async fn write_bar(
    store: &Store,
    name: &str,
    generation: i64,
    bar: Bar,
    since_ms: i64,
) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    sqlx::query("UPDATE upstream_bars SET bar = $1, since = $2 WHERE name = $3 AND generation = $4 AND bar IS NULL")
        .bind(bar.name())
        .bind(since_ms)
        .bind(name)
        .bind(generation)
        .execute(tx.hand())
        .await?;
    tx.commit().await
}

/// Forgets what is held against an upstream, in every process. Returns whether there is such a one.
///
/// # Errors
/// When the database does not answer.
pub async fn clear(store: &Store, name: &str) -> Result<bool, StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    let cleared =
        sqlx::query("UPDATE upstream_bars SET generation = generation + 1, bar = NULL, since = NULL WHERE name = $1")
            .bind(name)
            .execute(tx.hand())
            .await?;
    tx.commit().await?;
    Ok(cleared.rows_affected() > 0)
}

/// An upstream as the database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    /// As `UPSTREAMS` has it, without secrets.
    pub spec: String,
    pub bar: Option<(Bar, i64)>,
}

/// All stored upstreams. Of two with one name, the environment's.
///
/// # Errors
/// When the database does not answer.
pub async fn listed(store: &Store) -> Result<Vec<Listed>, StoreError> {
    let mut all = upstreams(store).await?;
    all.sort_by_key(|row| !row.from_environment);
    let bars: BTreeMap<String, StoredBar> = bars(store).await?.into_iter().collect();
    let mut listed: Vec<Listed> = Vec::new();
    for Stored { name, spec, .. } in all {
        if listed.iter().all(|other| other.name != name) {
            let bar = bars.get(&name).and_then(|stored| stored.bar);
            listed.push(Listed { name, spec, bar });
        }
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;

    /// What another call has done since it was read is not undone.
    #[tokio::test]
    async fn an_upstream_is_stored_over_what_was_read_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), None, false).await.unwrap();
        let row = |spec: &str, sealed: &str| Stored {
            name: "one".to_owned(),
            from_environment: false,
            spec: spec.to_owned(),
            sealed: sealed.to_owned(),
        };
        let put = async |before: Option<&Stored>, row: &Stored| put_own(&store, before, row, 1).await.unwrap();
        let (first, second, third) = (row("{}", "a"), row("{}", "b"), row("{1}", "b"));
        assert!(!put(Some(&first), &second).await, "there is none");
        assert!(put(None, &first).await && !put(None, &second).await);
        assert!(put(Some(&first), &second).await && !put(Some(&first), &third).await);
        let before = version(&store).await.unwrap();
        assert!(!put(Some(&third), &first).await, "the key is the same, and not all else");
        assert_eq!(version(&store).await.unwrap(), before, "nobody need look");
        assert_eq!(upstreams(&store).await.unwrap()[0].sealed, "b");
        assert!(remove_own(&store, "one", 2).await.unwrap());
        assert!(!put(Some(&second), &third).await && upstreams(&store).await.unwrap().is_empty());
        store.close().await;
    }

    /// An answer that was lost makes a batch come again.
    #[tokio::test]
    async fn what_is_written_twice_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), None, false).await.unwrap();
        let of = |id| Outlay {
            id,
            upstream: "one".into(),
            model: "m".to_owned(),
            usd: Some(Decimal::ONE),
            msat: None,
            charged: 1,
            attempts: "[]".to_owned(),
            at_ms: 0,
        };
        write_outlays(&store, &[of(1), of(2)]).await.unwrap();
        write_outlays(&store, &[of(1), of(2), of(3)]).await.unwrap();
        let all = sums(&store, 0, 0).await.unwrap();
        assert_eq!(all, [("one".to_owned(), 3_000_000_000, 3_000_000_000)]);
        store.close().await;
    }
}
