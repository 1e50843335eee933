//! The statements of what others charge. All of them run on SQLite and PostgreSQL alike.

use std::collections::BTreeMap;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::Quote;
use crate::money::Msat;
use crate::store::{Durability, Store, StoreError};

/// A node that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub asked_ms: i64,
    /// Why its prices are not known; empty: they are.
    pub trouble: String,
}

pub(super) async fn nodes(store: &Store) -> Result<BTreeMap<String, Node>, StoreError> {
    let rows = sqlx::query("SELECT address, asked_at, trouble FROM rivals").fetch_all(store.read()).await?;
    let node = |row: &AnyRow| Ok((row.try_get(0)?, Node { asked_ms: row.try_get(1)?, trouble: row.try_get(2)? }));
    rows.iter().map(node).collect()
}

/// Puts what a node charges in the place of what it charged.
pub(super) async fn keep(
    store: &Store,
    address: &str,
    asked_ms: i64,
    trouble: &str,
    quotes: &BTreeMap<String, Quote>,
) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::ProcessSafe).await?;
    sqlx::query(
        "INSERT INTO rivals (address, asked_at, trouble) VALUES ($1, $2, $3) \
         ON CONFLICT (address) DO UPDATE SET asked_at = excluded.asked_at, trouble = excluded.trouble",
    )
    .bind(address)
    .bind(asked_ms)
    .bind(trouble)
    .execute(tx.hand())
    .await?;
    sqlx::query("DELETE FROM rival_prices WHERE address = $1").bind(address).execute(tx.hand()).await?;
    for (model, quote) in quotes {
        sqlx::query(
            "INSERT INTO rival_prices (address, model, prompt, completion, request) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(address)
        .bind(model.as_str())
        .bind(stored(quote.prompt)?)
        .bind(stored(quote.completion)?)
        .bind(stored(quote.request)?)
        .execute(tx.hand())
        .await?;
    }
    tx.commit().await
}

pub(super) async fn forget(store: &Store, address: &str) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::ProcessSafe).await?;
    for sql in ["DELETE FROM rival_prices WHERE address = $1", "DELETE FROM rivals WHERE address = $1"] {
        sqlx::query(sql).bind(address).execute(tx.hand()).await?;
    }
    tx.commit().await
}

/// Address, model and price, by address.
pub(super) async fn quotes(store: &Store) -> Result<Vec<(String, String, Quote)>, StoreError> {
    let rows =
        sqlx::query("SELECT address, model, prompt, completion, request FROM rival_prices ORDER BY address, model");
    let quote = |row: &AnyRow| {
        let quote = Quote { prompt: msat(row, 2)?, completion: msat(row, 3)?, request: msat(row, 4)? };
        Ok((row.try_get(0)?, row.try_get(1)?, quote))
    };
    rows.fetch_all(store.read()).await?.iter().map(quote).collect()
}

fn stored(amount: Msat) -> Result<i64, StoreError> {
    i64::try_from(amount.get()).map_err(|_| bad())
}

fn msat(row: &AnyRow, column: usize) -> Result<Msat, StoreError> {
    u64::try_from(row.try_get::<i64, _>(column)?).ok().and_then(Msat::new).ok_or_else(bad)
}

fn bad() -> StoreError {
    StoreError::Inconsistent { table: "rival_prices", what: "a price is out of range".to_owned() }
}
