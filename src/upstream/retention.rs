//! Forgetting what is no money: of each request, which upstreams were asked and what it cost there, once that is old.
//! What was held and charged, and the sums, stay for ever.

mod repo;

use std::time::Duration;

use crate::config::Retention;
use crate::store::{Store, StoreError};

/// Where it is noted up to when failed requests were forgotten: what was charged among them stays, and is not
/// looked through again.
const MARK: &str = "failed_pruned_to";

/// How many requests were forgotten, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// For their age alone.
    pub requests: u64,
    /// Because they cost their client nothing.
    pub failed: u64,
}

/// Before when each kind is old.
#[derive(Clone, Copy, Debug)]
struct Limits {
    requests_ms: Option<i64>,
    failed_ms: Option<i64>,
}

impl Limits {
    fn of(retention: Retention, now_ms: i64) -> Self {
        let before = |kept: Option<Duration>| {
            kept.map(|kept| now_ms.saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX)))
        };
        Self { requests_ms: before(retention.requests), failed_ms: before(retention.failed) }
    }
}

/// How many requests would be forgotten now.
///
/// # Errors
/// When the database does not answer.
pub async fn preview(store: &Store, retention: Retention, now_ms: i64) -> Result<Forgotten, StoreError> {
    let Limits { requests_ms, failed_ms } = Limits::of(retention, now_ms);
    let requests = match requests_ms {
        Some(before_ms) => repo::count(store, i64::MIN, before_ms, false).await?,
        None => 0,
    };
    let failed = match failed_ms {
        Some(before_ms) => repo::count(store, requests_ms.unwrap_or(i64::MIN), before_ms, true).await?,
        None => 0,
    };
    Ok(Forgotten { requests, failed })
}

/// Forgets what is old, some of it at a time, so that nobody waits long for the database.
///
/// # Errors
/// When the database does not answer. What is forgotten by then stays so.
pub async fn prune(store: &Store, retention: Retention, now_ms: i64) -> Result<Forgotten, StoreError> {
    let Limits { requests_ms, failed_ms } = Limits::of(retention, now_ms);
    let mut forgotten = Forgotten::default();
    if let Some(before_ms) = requests_ms {
        forgotten.requests = forget(store, i64::MIN, before_ms, false).await?;
    }
    if let Some(before_ms) = failed_ms {
        let mark = store.setting(MARK).await?.and_then(|text| text.parse::<i64>().ok());
        let from_ms = mark.or(requests_ms).unwrap_or(i64::MIN);
        forgotten.failed = forget(store, from_ms, before_ms, true).await?;
        if before_ms > from_ms {
            store.set_setting(MARK, &before_ms.to_string(), now_ms).await?;
        }
    }
    Ok(forgotten)
}

async fn forget(store: &Store, from_ms: i64, before_ms: i64, only_failed: bool) -> Result<u64, StoreError> {
    let (mut from_ms, mut gone) = (from_ms, 0_u64);
    while let Some(to_ms) = repo::batch_end(store, from_ms, before_ms).await? {
        gone = gone.saturating_add(repo::forget(store, (from_ms, to_ms), only_failed).await?);
        from_ms = to_ms.saturating_add(1);
    }
    Ok(gone)
}
