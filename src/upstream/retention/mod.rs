//! Forgetting what is no money: of each request, which upstreams were asked and what it cost there, once that is old.
//! What was held and charged, and the sums, stay for ever.

mod repo;

use std::time::Duration;

use crate::config::Retention;
use crate::store::{Store, StoreError, ids};

/// Where it is noted up to which id failed requests were forgotten: what was charged among them stays, and is not
/// looked through again.
const MARK: &str = "failed_pruned_below";

/// How many requests were forgotten, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// For their age alone.
    pub requests: u64,
    /// Because they cost their client nothing.
    pub failed: u64,
}

/// Below which id each kind is old: ids sort by the time at which a request began.
#[derive(Clone, Copy, Debug)]
struct Limits {
    requests: Option<i64>,
    failed: Option<i64>,
}

impl Limits {
    fn of(retention: Retention, now_ms: i64) -> Self {
        let before = |kept: Option<Duration>| {
            let kept_ms = i64::try_from(kept?.as_millis()).unwrap_or(i64::MAX);
            Some(ids::first_at(now_ms.saturating_sub(kept_ms).max(0)))
        };
        Self { requests: before(retention.requests), failed: before(retention.failed) }
    }
}

/// How many requests would be forgotten now.
///
/// # Errors
/// When the database does not answer.
pub async fn preview(store: &Store, retention: Retention, now_ms: i64) -> Result<Forgotten, StoreError> {
    let Limits { requests: requests_below, failed: failed_below } = Limits::of(retention, now_ms);
    let requests = match requests_below {
        Some(below) => repo::count(store, i64::MIN, below, false).await?,
        None => 0,
    };
    let failed = match failed_below {
        Some(below) => repo::count(store, requests_below.unwrap_or(i64::MIN), below, true).await?,
        None => 0,
    };
    Ok(Forgotten { requests, failed })
}

/// Forgets what is old, some of it at a time, so that nobody waits long for the database.
///
/// # Errors
/// When the database does not answer. What is forgotten by then stays so.
pub async fn prune(store: &Store, retention: Retention, now_ms: i64) -> Result<Forgotten, StoreError> {
    let Limits { requests: requests_below, failed: failed_below } = Limits::of(retention, now_ms);
    let mut forgotten = Forgotten::default();
    if let Some(below) = requests_below {
        forgotten.requests = forget(store, i64::MIN, below, false).await?;
    }
    if let Some(below) = failed_below {
        let mark = store.setting(MARK).await?.and_then(|text| text.parse::<i64>().ok());
        let from = mark.or(requests_below).unwrap_or(i64::MIN);
        forgotten.failed = forget(store, from, below, true).await?;
        if below > from {
            store.set_setting(MARK, &below.to_string(), now_ms).await?;
        }
    }
    Ok(forgotten)
}

async fn forget(store: &Store, from: i64, below: i64, only_failed: bool) -> Result<u64, StoreError> {
    let (mut from, mut gone) = (from, 0_u64);
    while let Some(to) = repo::batch_end(store, from, below).await? {
        gone = gone.saturating_add(repo::forget(store, (from, to), only_failed).await?);
        from = to.saturating_add(1);
    }
    Ok(gone)
}
