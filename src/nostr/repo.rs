//! The statements of what is said on Nostr, by this node and by others. All of them run on SQLite and
//! PostgreSQL alike.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::SignedEvent;
use super::directory::about;
use super::provider::Opinion;
use crate::store::{Durability, Reader, Store, StoreError};

/// What this node said last under one address.
#[derive(Clone, Debug)]
pub struct Said {
    /// Empty: that it is down.
    pub fingerprint: String,
    pub event: SignedEvent,
    pub relay_list: String,
    /// What opens it (NIP-89), as JSON; empty: nothing.
    pub handler: String,
    /// In seconds, like the event's own.
    pub created_at: i64,
    /// In seconds.
    pub expires_at: i64,
}

/// How a relay stands to this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayStatus {
    pub url: String,
    /// The event that it said it has.
    pub event_id: String,
    pub ok_ms: Option<i64>,
    /// In a row.
    pub failures: i64,
    pub retry_ms: i64,
    /// Why it does not have the newest event, in its words or this node's.
    pub said: String,
}

/// What the node of a database said last, for who only looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// `38421:<public key>:<d>` (NIP-01).
    pub address: String,
    pub pubkey: String,
    pub event_id: String,
    /// It said that it is down.
    pub is_down: bool,
}

impl Told {
    /// # Errors
    /// When the database does not answer.
    pub async fn read(reader: &Reader) -> Result<Option<Self>, StoreError> {
        let mut look = reader.snapshot().await?;
        let row =
            sqlx::query("SELECT address, event_id, fingerprint FROM nostr_listings ORDER BY created_at DESC LIMIT 1");
        let Some(row) = row.fetch_optional(&mut *look).await? else { return Ok(None) };
        let address: String = row.try_get(0)?;
        Ok(Some(Self {
            pubkey: address.split(':').nth(1).unwrap_or_default().to_owned(),
            event_id: row.try_get(1)?,
            is_down: row.try_get::<String, _>(2)?.is_empty(),
            address,
        }))
    }

    /// What is said of the node.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn opinions(&self, reader: &Reader, url: &str) -> Result<Vec<Opinion>, StoreError> {
        let mut look = reader.snapshot().await?;
        let mut found = Vec::new();
        for name in names(&self.address, url) {
            found.extend(about(&mut look, &name).await?);
        }
        Ok(found)
    }
}

/// By what others may name the node whose listing has this address: that, its key, its URL.
#[must_use]
pub fn names(address: &str, url: &str) -> Vec<String> {
    let mut names = vec![address.to_owned()];
    names.extend(address.split(':').nth(1).map(str::to_owned));
    let bare = url.trim_end_matches('/');
    if !bare.is_empty() {
        names.extend([bare.to_owned(), format!("{bare}/")]);
    }
    names
}

pub(super) async fn said(store: &Store, address: &str) -> Result<Option<Said>, StoreError> {
    let row = sqlx::query(
        "SELECT fingerprint, event_id, event, relay_list, created_at, expires_at, handler FROM nostr_listings \
         WHERE address = $1",
    );
    let row = row.bind(address).fetch_optional(store.read()).await?;
    row.map(|row| {
        Ok(Said {
            fingerprint: row.try_get(0)?,
            event: SignedEvent::kept(row.try_get(1)?, row.try_get(2)?),
            relay_list: row.try_get(3)?,
            created_at: row.try_get(4)?,
            expires_at: row.try_get(5)?,
            handler: row.try_get(6)?,
        })
    })
    .transpose()
}

/// Keeps what is to be said, unless another process has said something newer. What was said after `latest` was said by
/// a clock that was wrong, and is no such thing.
pub(super) async fn say(store: &Store, address: &str, said: &Said, latest: i64) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    sqlx::query(
        "INSERT INTO nostr_listings (address, fingerprint, event_id, event, relay_list, created_at, expires_at, handler) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (address) DO UPDATE SET \
         fingerprint = excluded.fingerprint, event_id = excluded.event_id, event = excluded.event, \
         relay_list = excluded.relay_list, handler = excluded.handler, created_at = excluded.created_at, expires_at = excluded.expires_at \
         WHERE nostr_listings.created_at < excluded.created_at OR nostr_listings.created_at > $9",
    )
    .bind(address)
    .bind(said.fingerprint.as_str())
    .bind(said.event.id())
    .bind(said.event.as_json())
    .bind(said.relay_list.as_str())
    .bind(said.created_at)
    .bind(said.expires_at)
    .bind(said.handler.as_str())
    .bind(latest)
    .execute(tx.hand())
    .await?;
    tx.commit().await
}

pub(super) async fn statuses(store: &Store, address: &str) -> Result<Vec<RelayStatus>, StoreError> {
    let rows = sqlx::query(
        "SELECT url, event_id, ok_at, failures, retry_at, said FROM nostr_relays WHERE address = $1 ORDER BY url",
    );
    rows.bind(address).fetch_all(store.read()).await?.iter().map(status).collect()
}

fn status(row: &AnyRow) -> Result<RelayStatus, StoreError> {
    Ok(RelayStatus {
        url: row.try_get(0)?,
        event_id: row.try_get(1)?,
        ok_ms: row.try_get(2)?,
        failures: row.try_get(3)?,
        retry_ms: row.try_get(4)?,
        said: row.try_get(5)?,
    })
}

pub(super) async fn set_status(store: &Store, address: &str, status: &RelayStatus) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::ProcessSafe).await?;
    sqlx::query(
        "INSERT INTO nostr_relays (address, url, event_id, ok_at, failures, retry_at, said) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (address, url) DO UPDATE SET event_id = excluded.event_id, \
         ok_at = excluded.ok_at, failures = excluded.failures, retry_at = excluded.retry_at, said = excluded.said",
    )
    .bind(address)
    .bind(status.url.as_str())
    .bind(status.event_id.as_str())
    .bind(status.ok_ms)
    .bind(status.failures)
    .bind(status.retry_ms)
    .bind(status.said.as_str())
    .execute(tx.hand())
    .await?;
    tx.commit().await
}
