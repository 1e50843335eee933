//! The statements of the price lists. All of them run on SQLite and PostgreSQL alike.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use sqlx::{AssertSqlSafe, Row as _};

use super::listed::Listed;
use crate::catalog::card::Card;
use crate::store::{Durability, Placeholders, Store, StoreError, Tx};

/// What a source said last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    /// The digest of its URL, which the tag belongs to.
    pub address: String,
    pub etag: String,
    /// The digest of the body, so that a server without tags is understood as well.
    pub digest: String,
    pub list: String,
    /// What could not be taken of it, a line each.
    pub notes: String,
    /// Why it could not be asked the last time; empty: it could.
    pub trouble: String,
    pub checked_ms: i64,
    pub changed_ms: Option<i64>,
}

/// A model that is offered because a source lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct Synced {
    pub source: String,
    pub listed: Listed,
}

/// What the operator decided about a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    pub is_off: bool,
    pub is_hidden: bool,
    /// It may be sold for less than the upstream takes.
    pub below_cost: bool,
    /// The digest of the change that was refused; empty: none.
    pub refused: String,
    /// Prices over those of the source.
    pub prices: Card,
    /// Further names that it is served under.
    pub names: Vec<String>,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub revision: i64,
    pub sources: Vec<Source>,
    pub synced: BTreeMap<String, Synced>,
    pub choices: BTreeMap<String, Choice>,
}

/// What is to be written.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Sources that said something new.
    pub sources: Vec<Source>,
    /// Sources that did not.
    pub asked: Vec<Source>,
    pub put: Vec<Synced>,
    pub gone: Vec<String>,
    pub choices: Vec<(String, Choice)>,
    /// Whether anybody would see a difference.
    pub is_news: bool,
}

/// The number of changes that there were.
pub async fn revision(store: &Store) -> Result<i64, StoreError> {
    let row = sqlx::query("SELECT revision FROM price_revision WHERE id = 1").fetch_one(store.read()).await?;
    Ok(row.try_get(0)?)
}

/// When each source was asked last, and whether it answered.
pub async fn checked(store: &Store) -> Result<Vec<(String, i64, bool)>, StoreError> {
    let rows = sqlx::query("SELECT name, checked_at, trouble FROM price_sources").fetch_all(store.read()).await?;
    let row = |row: &sqlx::any::AnyRow| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get::<String, _>(2)?.is_empty()));
    rows.iter().map(row).collect()
}

/// Whether any source has ever listed anything.
pub async fn has_list(store: &Store) -> Result<bool, StoreError> {
    let sql = "SELECT name FROM price_sources WHERE list <> '' UNION ALL SELECT id FROM synced_models LIMIT 1";
    Ok(sqlx::query(sql).fetch_optional(store.read()).await?.is_some())
}

/// Everything, as it was not changed while it was read.
pub async fn load(store: &Store) -> Result<State, StoreError> {
    loop {
        let before = revision(store).await?;
        let state = read(store, before).await?;
        if revision(store).await? == before {
            return Ok(state);
        }
    }
}

async fn read(store: &Store, revision: i64) -> Result<State, StoreError> {
    let mut state = State { revision, ..State::default() };
    let sql = "SELECT name, address, etag, digest, list, notes, trouble, checked_at, changed_at FROM price_sources";
    for row in sqlx::query(sql).fetch_all(store.read()).await? {
        state.sources.push(Source {
            name: row.try_get(0)?,
            address: row.try_get(1)?,
            etag: row.try_get(2)?,
            digest: row.try_get(3)?,
            list: row.try_get(4)?,
            notes: row.try_get(5)?,
            trouble: row.try_get(6)?,
            checked_ms: row.try_get(7)?,
            changed_ms: row.try_get(8)?,
        });
    }
    for row in sqlx::query("SELECT id, source, entry FROM synced_models").fetch_all(store.read()).await? {
        let (id, source): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        if let Some(listed) = readable(&id, row.try_get(2)?) {
            state.synced.insert(id, Synced { source, listed });
        }
    }
    for row in
        sqlx::query("SELECT id, is_off, below_cost, refused, is_hidden, own_prices, own_names FROM model_choices")
            .fetch_all(store.read())
            .await?
    {
        let wrong = |what| StoreError::Inconsistent { table: "model_choices", what };
        let choice = Choice {
            is_off: row.try_get::<i64, _>(1)? != 0,
            below_cost: row.try_get::<i64, _>(2)? != 0,
            refused: row.try_get(3)?,
            is_hidden: row.try_get::<i64, _>(4)? != 0,
            prices: own_prices(row.try_get(5)?).map_err(wrong)?,
            names: serde_json::from_str(row.try_get(6)?).map_err(|error| wrong(error.to_string()))?,
        };
        state.choices.insert(row.try_get(0)?, choice);
    }
    Ok(state)
}

/// What was written of it, unless that cannot be read: all else is sold all the same, and it is new when a source
/// lists it again.
fn readable(id: &str, entry: &str) -> Option<Listed> {
    Listed::from_json(entry).inspect_err(|problem| tracing::warn!(id, problem, "a stored model is not offered")).ok()
}

fn own_prices(text: &str) -> Result<Card, String> {
    let listed: BTreeMap<String, Decimal> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut card = Card::default();
    for (name, price) in listed {
        card.set(&name, Some(price));
    }
    Ok(card)
}

/// Writes what follows from the state of this revision; `false`: there is a newer one, and nothing was
/// written.
pub async fn write(store: &Store, revision: i64, changes: &Changes, now_ms: i64) -> Result<bool, StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    let held = sqlx::query("UPDATE price_revision SET revision = revision + $1 WHERE id = 1 AND revision = $2")
        .bind(i64::from(changes.is_news))
        .bind(revision)
        .execute(tx.hand())
        .await?;
    if held.rows_affected() != 1 {
        return Ok(false);
    }
    for source in &changes.sources {
        put_source(&mut tx, source).await?;
    }
    for source in &changes.asked {
        note_source(&mut tx, source).await?;
    }
    for rows in changes.put.chunks(ROWS) {
        put_models(&mut tx, rows, now_ms).await?;
    }
    for id in &changes.gone {
        sqlx::query("DELETE FROM synced_models WHERE id = $1").bind(id).execute(tx.hand()).await?;
    }
    for (id, choice) in &changes.choices {
        put_choice(&mut tx, id, choice, now_ms).await?;
    }
    tx.commit().await?;
    Ok(true)
}

async fn put_source(tx: &mut Tx, source: &Source) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO price_sources (name, address, etag, digest, list, notes, trouble, checked_at, changed_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (name) DO UPDATE SET address = excluded.address, \
         etag = excluded.etag, digest = excluded.digest, list = excluded.list, notes = excluded.notes, \
         trouble = excluded.trouble, checked_at = excluded.checked_at, changed_at = excluded.changed_at",
    )
    .bind(&source.name)
    .bind(&source.address)
    .bind(&source.etag)
    .bind(&source.digest)
    .bind(&source.list)
    .bind(&source.notes)
    .bind(&source.trouble)
    .bind(source.checked_ms)
    .bind(source.changed_ms)
    .execute(tx.hand())
    .await?;
    Ok(())
}

/// Notes that it was asked. What it said before stays as it is.
async fn note_source(tx: &mut Tx, source: &Source) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO price_sources (name, address, etag, digest, list, notes, trouble, checked_at) \
         VALUES ($1, $2, '', '', '', '', $3, $4) ON CONFLICT (name) DO UPDATE \
         SET trouble = excluded.trouble, checked_at = excluded.checked_at",
    )
    .bind(&source.name)
    .bind(&source.address)
    .bind(&source.trouble)
    .bind(source.checked_ms)
    .execute(tx.hand())
    .await?;
    Ok(())
}

/// Models that one statement takes.
const ROWS: usize = 64;

async fn put_models(tx: &mut Tx, rows: &[Synced], now_ms: i64) -> Result<(), StoreError> {
    const COLUMNS: usize = 4;
    let sql = format!(
        "INSERT INTO synced_models (id, source, entry, updated_at) VALUES {} ON CONFLICT (id) DO UPDATE \
         SET source = excluded.source, entry = excluded.entry, updated_at = excluded.updated_at",
        Placeholders::Dollar.rows(1, rows.len(), COLUMNS)
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for row in rows {
        query = query.bind(&row.listed.id).bind(&row.source).bind(row.listed.to_json().to_string()).bind(now_ms);
    }
    query.execute(tx.hand()).await?;
    Ok(())
}

async fn put_choice(tx: &mut Tx, id: &str, choice: &Choice, now_ms: i64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO model_choices (id, is_off, is_hidden, below_cost, refused, own_prices, own_names, \
         updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO UPDATE SET is_off = excluded.is_off, \
         is_hidden = excluded.is_hidden, below_cost = excluded.below_cost, refused = excluded.refused, \
         own_prices = excluded.own_prices, own_names = excluded.own_names, updated_at = excluded.updated_at",
    )
    .bind(id)
    .bind(i64::from(choice.is_off))
    .bind(i64::from(choice.is_hidden))
    .bind(i64::from(choice.below_cost))
    .bind(&choice.refused)
    .bind(serde_json::json!(choice.prices.texts()).to_string())
    .bind(serde_json::json!(choice.names).to_string())
    .bind(now_ms)
    .execute(tx.hand())
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_cannot_be_read_is_none() {
        let entry = |prompt: &str| format!(r#"{{"id":"m","pricing":{{"prompt":"{prompt}","completion":"1e-6"}}}}"#);
        assert!(readable("m", &entry("1e-6")).is_some());
        for wrong in [entry("0.02"), entry("-1"), "{}".to_owned(), "oops".to_owned()] {
            assert_eq!(readable("m", &wrong), None, "{wrong}");
        }
    }
}
