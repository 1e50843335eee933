//! The statements of [`super::replay`]. All of them run on SQLite and PostgreSQL alike.

use sqlx::{AnyConnection, Row as _};

use crate::store::{Durability, Store, StoreError};

/// Where a request with an Idempotency-Key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running,
    Kept,
    /// It was served, and its answer is gone.
    NotKept,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Kept => "kept",
            Self::NotKept => "not_kept",
        }
    }
}

/// One request with an Idempotency-Key.
#[derive(Debug)]
pub(super) struct Row {
    pub fingerprint: String,
    pub request: String,
    pub state: State,
    pub owner: String,
    pub outcome: String,
}

/// A request that begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim<'a> {
    pub id: &'a str,
    pub fingerprint: &'a str,
    pub request: &'a str,
    pub owner: &'a str,
    pub now_ms: i64,
}

/// The request with this id, unless it began before `after_ms`.
pub(super) async fn find(connection: &mut AnyConnection, id: &str, after_ms: i64) -> Result<Option<Row>, StoreError> {
    let row = sqlx::query(
        "SELECT fingerprint, request, state, owner, outcome FROM replays WHERE id = $1 AND created_at >= $2",
    )
    .bind(id)
    .bind(after_ms)
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let state: String = row.try_get(2)?;
    let known = [State::Running, State::Kept, State::NotKept].into_iter().find(|known| known.as_str() == state);
    Ok(Some(Row {
        fingerprint: row.try_get(0)?,
        request: row.try_get(1)?,
        state: known.ok_or_else(|| StoreError::Inconsistent { table: "replays", what: format!("state {state}") })?,
        owner: row.try_get(3)?,
        outcome: row.try_get(4)?,
    }))
}

/// Writes a claim unless there is one that began at `after_ms` or later. Returns whether it did.
pub(super) async fn insert(store: &Store, claim: Claim<'_>, after_ms: i64) -> Result<bool, StoreError> {
    let mut desk = store.desk(Durability::ProcessSafe);
    let written = sqlx::query(
        "INSERT INTO replays (id, fingerprint, request, state, owner, outcome, created_at) \
         VALUES ($1, $2, $3, 'running', $4, '', $5) \
         ON CONFLICT (id) DO UPDATE SET fingerprint = excluded.fingerprint, request = excluded.request, \
         state = excluded.state, owner = excluded.owner, outcome = '', created_at = excluded.created_at \
         WHERE replays.created_at < $6",
    )
    .bind(claim.id)
    .bind(claim.fingerprint)
    .bind(claim.request)
    .bind(claim.owner)
    .bind(claim.now_ms)
    .bind(after_ms)
    .execute(&mut *desk.turn().await?)
    .await?;
    Ok(written.rows_affected() == 1)
}

/// Takes a claim over that a dead process left at `before`. Returns whether it was still there.
pub(super) async fn take_over(store: &Store, claim: Claim<'_>, before: &str) -> Result<bool, StoreError> {
    let mut desk = store.desk(Durability::ProcessSafe);
    let taken = sqlx::query(
        "UPDATE replays SET request = $1, owner = $2, created_at = $3 \
         WHERE id = $4 AND request = $5 AND state = 'running'",
    )
    .bind(claim.request)
    .bind(claim.owner)
    .bind(claim.now_ms)
    .bind(claim.id)
    .bind(before)
    .execute(&mut *desk.turn().await?)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// Writes how the claim of this request ended.
pub(super) async fn finish(
    store: &Store,
    id: &str,
    request: &str,
    state: State,
    outcome: &str,
) -> Result<(), StoreError> {
    let mut desk = store.desk(Durability::ProcessSafe);
    sqlx::query("UPDATE replays SET state = $1, outcome = $2 WHERE id = $3 AND request = $4")
        .bind(state.as_str())
        .bind(outcome)
        .bind(id)
        .bind(request)
        .execute(&mut *desk.turn().await?)
        .await?;
    Ok(())
}

/// Removes the claim of a request that cost nothing.
pub(super) async fn remove(store: &Store, id: &str, request: &str) -> Result<(), StoreError> {
    let mut desk = store.desk(Durability::ProcessSafe);
    sqlx::query("DELETE FROM replays WHERE id = $1 AND request = $2 AND state = 'running'")
        .bind(id)
        .bind(request)
        .execute(&mut *desk.turn().await?)
        .await?;
    Ok(())
}

/// Answers that one statement removes. Each may have megabytes, and every paid request waits for its end.
const PRUNED_AT_ONCE: i64 = 100;

/// Removes what began before `before_ms`. Returns how many.
pub(super) async fn prune(store: &Store, before_ms: i64) -> Result<u64, StoreError> {
    let mut desk = store.desk(Durability::ProcessSafe);
    let mut all: u64 = 0;
    loop {
        let some = sqlx::query(
            "DELETE FROM replays WHERE id IN \
             (SELECT id FROM replays WHERE created_at < $1 ORDER BY created_at LIMIT $2)",
        );
        let gone = some.bind(before_ms).bind(PRUNED_AT_ONCE).execute(&mut *desk.turn().await?).await?.rows_affected();
        all = all.saturating_add(gone);
        if gone == 0 {
            return Ok(all);
        }
    }
}

/// What all outcomes take, in bytes. Neither database reads them for it.
pub(super) async fn kept_bytes(store: &Store) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT CAST(COALESCE(SUM(OCTET_LENGTH(outcome)), 0) AS BIGINT) FROM replays")
        .fetch_one(store.read())
        .await?;
    let bytes: i64 = row.try_get(0)?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}
