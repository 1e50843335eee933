//! The statements of profiles and windows. All of them run on SQLite and PostgreSQL alike.

use std::sync::Arc;

use sqlx::any::AnyRow;
use sqlx::{AnyExecutor, AssertSqlSafe, Row as _};

use crate::money::tariff::{Filter, Profile, Tariffs, Window};
use crate::store::{Store, StoreError, Tx};

pub(super) async fn all(store: &Store) -> Result<Tariffs, StoreError> {
    let profiles =
        sqlx::query("SELECT name, multiplier, only_models, not_models, below_cost FROM price_profiles ORDER BY name")
            .fetch_all(store.read())
            .await?;
    let windows = sqlx::query(
        "SELECT name, multiplier, only_models, not_models, below_cost, starts, ends, days, utc_offset \
         FROM price_windows ORDER BY name",
    )
    .fetch_all(store.read())
    .await?;
    Ok(Tariffs {
        profiles: profiles.iter().map(|row| read_profile(row).map(Arc::new)).collect::<Result<_, _>>()?,
        windows: windows.iter().map(|row| read_window(row).map(Arc::new)).collect::<Result<_, _>>()?,
    })
}

pub(super) async fn put_profile(tx: &mut Tx, profile: &Profile, now_ms: i64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO price_profiles (name, multiplier, only_models, not_models, below_cost, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name) DO UPDATE SET multiplier = excluded.multiplier, \
         only_models = excluded.only_models, not_models = excluded.not_models, \
         below_cost = excluded.below_cost, updated_at = excluded.updated_at",
    )
    .bind(profile.name.as_str())
    .bind(profile.multiplier.to_string())
    .bind(list(&profile.models.only))
    .bind(list(&profile.models.not))
    .bind(i64::from(profile.below_cost))
    .bind(now_ms)
    .execute(tx.hand())
    .await?;
    Ok(())
}

/// Terms of the account on which the money of a voucher waited that has ended since, and made no key: nobody pays by
/// them any more.
const OVER: &str = "EXISTS (SELECT 1 FROM vouchers v WHERE v.account = key_terms.account AND v.state <> 'open' \
     AND (v.redeemed_by IS NULL OR v.redeemed_by <> v.account))";

pub(super) async fn remove_profile(tx: &mut Tx, name: &str) -> Result<bool, StoreError> {
    let sql = format!("UPDATE key_terms SET profile = NULL WHERE profile = $1 AND {OVER}");
    sqlx::query(AssertSqlSafe(sql)).bind(name).execute(tx.hand()).await?;
    let gone = sqlx::query("DELETE FROM price_profiles WHERE name = $1").bind(name).execute(tx.hand()).await?;
    Ok(gone.rows_affected() == 1)
}

pub(super) async fn users(executor: impl AnyExecutor<'_>, name: &str) -> Result<i64, StoreError> {
    let sql = format!("SELECT COUNT(*) FROM key_terms WHERE profile = $1 AND NOT {OVER}");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(name);
    Ok(row.fetch_one(executor).await?.try_get(0)?)
}

pub(super) async fn put_window(tx: &mut Tx, window: &Window, now_ms: i64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO price_windows (name, multiplier, starts, ends, days, utc_offset, only_models, not_models, \
         below_cost, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT (name) DO UPDATE SET multiplier = excluded.multiplier, starts = excluded.starts, \
         ends = excluded.ends, days = excluded.days, utc_offset = excluded.utc_offset, \
         only_models = excluded.only_models, not_models = excluded.not_models, \
         below_cost = excluded.below_cost, updated_at = excluded.updated_at",
    )
    .bind(window.name.as_str())
    .bind(window.multiplier.to_string())
    .bind(i64::from(window.starts))
    .bind(i64::from(window.ends))
    .bind(i64::from(window.days))
    .bind(i64::from(window.utc_offset))
    .bind(list(&window.models.only))
    .bind(list(&window.models.not))
    .bind(i64::from(window.below_cost))
    .bind(now_ms)
    .execute(tx.hand())
    .await?;
    Ok(())
}

pub(super) async fn remove_window(tx: &mut Tx, name: &str) -> Result<bool, StoreError> {
    let gone = sqlx::query("DELETE FROM price_windows WHERE name = $1").bind(name).execute(tx.hand()).await?;
    Ok(gone.rows_affected() == 1)
}

fn list(patterns: &[String]) -> String {
    serde_json::to_string(patterns).unwrap_or_default()
}

fn read_profile(row: &AnyRow) -> Result<Profile, StoreError> {
    let name: String = row.try_get(0)?;
    let profile = Profile {
        multiplier: decimal(row, &name, "price_profiles")?,
        models: filter(row, &name, "price_profiles")?,
        below_cost: row.try_get::<i64, _>(4)? == 1,
        name,
    };
    let fault = |what: String| bad("price_profiles", &profile.name, &what);
    profile.check().map_err(fault)?;
    Ok(profile)
}

fn read_window(row: &AnyRow) -> Result<Window, StoreError> {
    let name: String = row.try_get(0)?;
    let minutes = |at: usize| number::<u16>(row, at, &name);
    let window = Window {
        multiplier: decimal(row, &name, "price_windows")?,
        models: filter(row, &name, "price_windows")?,
        below_cost: row.try_get::<i64, _>(4)? == 1,
        starts: minutes(5)?,
        ends: minutes(6)?,
        days: number(row, 7, &name)?,
        utc_offset: number(row, 8, &name)?,
        name,
    };
    let fault = |what: String| bad("price_windows", &window.name, &what);
    window.check().map_err(fault)?;
    Ok(window)
}

fn number<T: TryFrom<i64>>(row: &AnyRow, at: usize, name: &str) -> Result<T, StoreError> {
    let number: i64 = row.try_get(at)?;
    T::try_from(number).map_err(|_| bad("price_windows", name, &format!("{number} is out of range")))
}

fn decimal(row: &AnyRow, name: &str, table: &'static str) -> Result<rust_decimal::Decimal, StoreError> {
    let text: String = row.try_get(1)?;
    text.parse().map_err(|_| bad(table, name, &format!("multiplier {text}")))
}

fn filter(row: &AnyRow, name: &str, table: &'static str) -> Result<Filter, StoreError> {
    let patterns = |at: usize| -> Result<Vec<String>, StoreError> {
        let text: String = row.try_get(at)?;
        serde_json::from_str(&text).map_err(|_| bad(table, name, "patterns"))
    };
    Ok(Filter { only: patterns(2)?, not: patterns(3)? })
}

fn bad(table: &'static str, name: &str, what: &str) -> StoreError {
    StoreError::Inconsistent { table, what: format!("{name}: {what}") }
}
