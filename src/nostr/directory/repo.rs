//! The statements of the directory. All of them run on SQLite and PostgreSQL alike.

use nostr::{Event, JsonUtil};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::{Health, Listed};
use crate::clock::DAY_MS;
use crate::net::public::Reach;
use crate::nostr::provider::{Opinion, Provider};
use crate::store::{Durability, Store, StoreError, Tx};

/// Addresses that are kept: of one author, and of all.
const MOST_OF_ONE: i64 = 4;
const MOST: i64 = 500;
/// Opinions that are kept.
const MOST_OPINIONS: i64 = 1_000;
/// What no relay has shown for so long is forgotten.
const FORGET_MS: i64 = 30 * DAY_MS;

/// By what a stored event is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge {
    /// In seconds.
    pub now: i64,
    pub reach: Reach,
}

/// Keeps what is newer than what is there, as far as there is room.
pub(super) async fn merge(
    store: &Store,
    providers: &[(Provider, Event)],
    opinions: &[Opinion],
    now_ms: i64,
) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::ProcessSafe).await?;
    for (provider, event) in providers {
        if is_known(&mut tx, &provider.address()).await? || make_room(&mut tx, &provider.pubkey, now_ms).await? {
            put(&mut tx, provider, event, now_ms).await?;
        }
    }
    for opinion in opinions {
        put_opinion(&mut tx, opinion, now_ms).await?;
    }
    sqlx::query(
        "DELETE FROM nostr_opinions WHERE address NOT IN \
         (SELECT address FROM nostr_opinions ORDER BY seen_at DESC, created_at DESC, address LIMIT $1)",
    )
    .bind(MOST_OPINIONS)
    .execute(tx.hand())
    .await?;
    tx.commit().await
}

async fn is_known(tx: &mut Tx, address: &str) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT address FROM nostr_providers WHERE address = $1").bind(address);
    Ok(row.fetch_optional(tx.hand()).await?.is_some())
}

/// Whether there is room for one more of this author. Where there is none for anybody, one goes that has
/// ended, or was looked at and never answered.
async fn make_room(tx: &mut Tx, pubkey: &str, now_ms: i64) -> Result<bool, StoreError> {
    let of_one = sqlx::query("SELECT COUNT(*) FROM nostr_providers WHERE pubkey = $1").bind(pubkey);
    if of_one.fetch_one(tx.hand()).await?.try_get::<i64, _>(0)? >= MOST_OF_ONE {
        return Ok(false);
    }
    let all = sqlx::query("SELECT COUNT(*) FROM nostr_providers").fetch_one(tx.hand()).await?;
    if all.try_get::<i64, _>(0)? < MOST {
        return Ok(true);
    }
    let gone = sqlx::query(
        "DELETE FROM nostr_providers WHERE address = (SELECT address FROM nostr_providers \
         WHERE listed = 0 OR expires_at <= $1 OR (probed_at IS NOT NULL AND healthy_at IS NULL) \
         ORDER BY CASE WHEN listed = 0 OR expires_at <= $2 THEN 0 ELSE 1 END, seen_at, address LIMIT 1)",
    )
    .bind(now_ms / 1000)
    .bind(now_ms / 1000)
    .execute(tx.hand())
    .await?;
    Ok(gone.rows_affected() > 0)
}

/// Of two events of one second, the one with the lower id counts (NIP-01).
async fn put(tx: &mut Tx, provider: &Provider, event: &Event, now_ms: i64) -> Result<(), StoreError> {
    let address = provider.address();
    sqlx::query(
        "INSERT INTO nostr_providers (address, pubkey, event_id, event, created_at, expires_at, listed, first_seen, seen_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (address) DO UPDATE SET event_id = excluded.event_id, \
         event = excluded.event, created_at = excluded.created_at, expires_at = excluded.expires_at, \
         listed = excluded.listed WHERE nostr_providers.created_at < excluded.created_at \
         OR (nostr_providers.created_at = excluded.created_at AND nostr_providers.event_id > excluded.event_id)",
    )
    .bind(address.as_str())
    .bind(provider.pubkey.as_str())
    .bind(provider.id.as_str())
    .bind(event.as_json())
    .bind(provider.created_at)
    .bind(provider.expires_at)
    .bind(i64::from(!provider.endpoint_urls.is_empty()))
    .bind(now_ms)
    .bind(now_ms)
    .execute(tx.hand())
    .await?;
    sqlx::query("UPDATE nostr_providers SET seen_at = $1 WHERE address = $2 AND event_id = $3")
        .bind(now_ms)
        .bind(address.as_str())
        .bind(provider.id.as_str())
        .execute(tx.hand())
        .await?;
    Ok(())
}

async fn put_opinion(tx: &mut Tx, opinion: &Opinion, now_ms: i64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO nostr_opinions (address, kind, author, event_id, about, labels, created_at, seen_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (address) DO UPDATE SET event_id = excluded.event_id, \
         about = excluded.about, labels = excluded.labels, created_at = excluded.created_at, seen_at = excluded.seen_at \
         WHERE nostr_opinions.created_at <= excluded.created_at",
    )
    .bind(opinion.address.as_str())
    .bind(i64::from(opinion.kind))
    .bind(opinion.author.as_str())
    .bind(opinion.id.as_str())
    .bind(opinion.about.as_str())
    .bind(opinion.labels.join(","))
    .bind(opinion.created_at)
    .bind(now_ms)
    .execute(tx.hand())
    .await?;
    Ok(())
}

/// Forgets what no relay shows any more.
pub(super) async fn prune(store: &Store, now_ms: i64) -> Result<(), StoreError> {
    let before = now_ms.saturating_sub(FORGET_MS);
    let mut tx = store.begin(Durability::ProcessSafe).await?;
    for sql in ["DELETE FROM nostr_providers WHERE seen_at < $1", "DELETE FROM nostr_opinions WHERE seen_at < $1"] {
        sqlx::query(sql).bind(before).execute(tx.hand()).await?;
    }
    tx.commit().await
}

/// Nodes that nobody has looked at since `before_ms`, the one that waits longest first.
pub(super) async fn due(store: &Store, judge: Judge, before_ms: i64, most: usize) -> Result<Vec<Provider>, StoreError> {
    let sql = format!(
        "SELECT event FROM nostr_providers WHERE {UP} AND COALESCE(probed_at, 0) <= $2 \
         ORDER BY COALESCE(probed_at, 0), address LIMIT $3"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(judge.now).bind(before_ms).bind(limit(most));
    let rows = rows.fetch_all(store.read()).await?;
    rows.iter().filter_map(|row| provider(row, judge).transpose()).collect()
}

pub(super) async fn set_health(store: &Store, address: &str, health: &Health, now_ms: i64) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::ProcessSafe).await?;
    sqlx::query(
        "UPDATE nostr_providers SET probed_at = $1, status = $2, endpoint = $3, answer = $4, \
         healthy_at = CASE WHEN $5 = 1 THEN $6 ELSE healthy_at END WHERE address = $7",
    )
    .bind(now_ms)
    .bind(health.status)
    .bind(health.endpoint.as_str())
    .bind(health.answer.as_ref().map(serde_json::Value::to_string))
    .bind(i64::from(health.is_good()))
    .bind(now_ms)
    .bind(address)
    .execute(tx.hand())
    .await?;
    tx.commit().await
}

/// Up by its own word.
const UP: &str = "listed = 1 AND (expires_at IS NULL OR expires_at > $1)";

pub(super) async fn listed(store: &Store, judge: Judge, pubkey: Option<&str>) -> Result<Vec<Listed>, StoreError> {
    let sql = format!(
        "SELECT event, probed_at, status, endpoint, answer FROM nostr_providers WHERE {UP} AND ($2 = '' OR pubkey = $3) \
         ORDER BY CASE WHEN status = 200 THEN 0 ELSE 1 END, COALESCE(healthy_at, 0) DESC, first_seen, address LIMIT $4"
    );
    let wanted = pubkey.unwrap_or_default();
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(judge.now).bind(wanted).bind(wanted).bind(MOST);
    let rows = rows.fetch_all(store.read()).await?;
    let listed = |row: &AnyRow| {
        let Some(provider) = provider(row, judge)? else { return Ok(None) };
        Ok(Some(Listed { provider, health: health(row)? }))
    };
    rows.iter().filter_map(|row| listed(row).transpose()).collect()
}

pub(super) async fn opinions(store: &Store, names: &[String]) -> Result<Vec<Opinion>, StoreError> {
    let mut connection = store.read().acquire().await?;
    let mut found = Vec::new();
    for name in names {
        found.extend(about(&mut connection, name).await?);
    }
    Ok(found)
}

pub(in crate::nostr) async fn about(connection: &mut AnyConnection, name: &str) -> Result<Vec<Opinion>, StoreError> {
    let rows = sqlx::query(
        "SELECT address, event_id, kind, author, about, labels, created_at FROM nostr_opinions WHERE about = $1 \
         ORDER BY created_at DESC LIMIT 50",
    );
    let rows = rows.bind(name).fetch_all(connection).await?;
    let opinion = |row: &AnyRow| {
        let labels: String = row.try_get(5)?;
        Ok(Opinion {
            address: row.try_get(0)?,
            id: row.try_get(1)?,
            kind: u16::try_from(row.try_get::<i64, _>(2)?).unwrap_or_default(),
            author: row.try_get(3)?,
            about: row.try_get(4)?,
            labels: labels.split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect(),
            created_at: row.try_get(6)?,
        })
    };
    rows.iter().map(opinion).collect()
}

/// Reads the event anew: what it says is in no other column.
fn provider(row: &AnyRow, judge: Judge) -> Result<Option<Provider>, StoreError> {
    let event: String = row.try_get(0)?;
    let event = Event::from_json(&event).map_err(|error| bad(&error.to_string()))?;
    Ok(Provider::read(&event, judge.now, judge.reach).ok())
}

fn health(row: &AnyRow) -> Result<Option<Health>, StoreError> {
    if row.try_get::<Option<i64>, _>(1)?.is_none() {
        return Ok(None);
    }
    let answer: Option<String> = row.try_get(4)?;
    Ok(Some(Health {
        status: row.try_get(2)?,
        endpoint: row.try_get::<Option<String>, _>(3)?.unwrap_or_default(),
        answer: answer.and_then(|answer| serde_json::from_str(&answer).ok()),
    }))
}

fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

fn bad(what: &str) -> StoreError {
    StoreError::Inconsistent { table: "nostr_providers", what: what.to_owned() }
}
