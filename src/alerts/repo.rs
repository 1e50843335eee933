//! The statements of alarms and notes. All of them run on SQLite and PostgreSQL alike.

use std::collections::BTreeMap;
use std::fmt;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::judge::Alarm;
use super::{Id, KEPT_MS, Kind, Note, What};
use crate::pages::format;
use crate::store::{Durability, Store, StoreError, Tx};

/// An alarm that the operator was told of, and that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    pub kind: Kind,
    pub subject: String,
    pub said: String,
    pub since_ms: i64,
    /// When it was last told.
    pub told_ms: Option<i64>,
}

/// For the operator's page, and the command line.
impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = if self.subject.is_empty() { String::new() } else { format!(" ({})", self.subject) };
        let (title, since) = (self.kind.title(), format::utc(self.since_ms));
        write!(f, "{title}{about}. {}. Since {since}.", self.said)
    }
}

/// What one process sees.
pub(super) struct Sighting {
    pub id: Id,
    pub node: String,
    pub seen_ms: i64,
}

/// What a process has seen in one look.
pub(super) struct Look<'a> {
    pub now_ms: i64,
    pub node: &'a str,
    /// To be written down, and no longer so.
    pub fresh: Vec<&'a Id>,
    pub gone: Vec<&'a Id>,
    /// What was seen before that counts no more.
    pub stale_ms: i64,
}

/// An alarm that is another now.
pub(super) struct Change<'a> {
    pub id: &'a Id,
    pub before: Option<&'a Alarm>,
    pub after: Alarm,
    pub what: Option<What>,
}

/// A note that a target has not heard yet.
pub(super) struct Waiting {
    pub note: Note,
    pub event: String,
    pub attempts: i64,
    pub retry_ms: i64,
    /// What came of the last attempt.
    pub outcome: String,
}

/// The alarms that go on, the oldest first.
///
/// # Errors
/// When the database does not answer.
pub async fn open(store: &Store) -> Result<Vec<Open>, StoreError> {
    let all = alarms(store).await?;
    let loud = all.into_iter().filter(|(_, alarm)| alarm.is_loud());
    let mut open: Vec<Open> = loud
        .map(|((kind, subject), Alarm { said, since_ms, told_ms, .. })| Open { kind, subject, said, since_ms, told_ms })
        .collect();
    open.sort_by_key(|one| one.since_ms);
    Ok(open)
}

/// All alarms, those that are over included. A kind that this version does not know is left alone.
pub(super) async fn alarms(store: &Store) -> Result<BTreeMap<Id, Alarm>, StoreError> {
    let rows = sqlx::query("SELECT kind, subject, said, since, told_at, is_told, ended_at, turn FROM alarms")
        .fetch_all(store.read())
        .await?;
    let mut found = BTreeMap::new();
    for row in &rows {
        let Some(id) = id_of(row)? else { continue };
        let alarm = Alarm {
            said: row.try_get(2)?,
            since_ms: row.try_get(3)?,
            told_ms: row.try_get(4)?,
            is_told: row.try_get::<i64, _>(5)? != 0,
            ended_ms: row.try_get(6)?,
            turn: row.try_get(7)?,
        };
        found.insert(id, alarm);
    }
    Ok(found)
}

fn id_of(row: &AnyRow) -> Result<Option<Id>, StoreError> {
    let (kind, subject): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Kind::parse(&kind).map(|kind| (kind, subject)))
}

pub(super) async fn sightings(store: &Store) -> Result<Vec<Sighting>, StoreError> {
    let rows = sqlx::query("SELECT kind, subject, node, seen_at FROM alarm_sightings").fetch_all(store.read()).await?;
    let mut found = Vec::new();
    for row in &rows {
        let Some(id) = id_of(row)? else { continue };
        found.push(Sighting { id, node: row.try_get(2)?, seen_ms: row.try_get(3)? });
    }
    Ok(found)
}

/// Writes what was seen, what follows from it, and the notes about that to each of these targets: all or nothing.
/// Where nothing has changed, nothing is written.
pub(super) async fn write(
    store: &Store,
    look: &Look<'_>,
    changes: &[Change<'_>],
    targets: &[&'static str],
) -> Result<(), StoreError> {
    if look.fresh.is_empty() && look.gone.is_empty() && changes.is_empty() {
        return Ok(());
    }
    let durability = if changes.is_empty() { Durability::ProcessSafe } else { Durability::Full };
    let mut tx = store.begin(durability).await?;
    write_sightings(&mut tx, look).await?;
    for change in changes {
        // Of several processes that see the same, one says it.
        if put(&mut tx, change).await?
            && let Some(what) = change.what
        {
            for target in targets {
                add_note(&mut tx, change, what, target, look.now_ms).await?;
            }
        }
    }
    if !changes.is_empty() {
        prune(&mut tx, look.now_ms.saturating_sub(KEPT_MS)).await?;
    }
    tx.commit().await
}

async fn write_sightings(tx: &mut Tx, look: &Look<'_>) -> Result<(), StoreError> {
    for (kind, subject) in &look.fresh {
        sqlx::query(
            "INSERT INTO alarm_sightings (kind, subject, node, seen_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (kind, subject, node) DO UPDATE SET seen_at = excluded.seen_at",
        )
        .bind(kind.name())
        .bind(subject.as_str())
        .bind(look.node)
        .bind(look.now_ms)
        .execute(tx.hand())
        .await?;
    }
    for (kind, subject) in &look.gone {
        sqlx::query("DELETE FROM alarm_sightings WHERE kind = $1 AND subject = $2 AND node = $3")
            .bind(kind.name())
            .bind(subject.as_str())
            .bind(look.node)
            .execute(tx.hand())
            .await?;
    }
    sqlx::query("DELETE FROM alarm_sightings WHERE seen_at < $1 AND node <> $2")
        .bind(look.stale_ms)
        .bind(look.node)
        .execute(tx.hand())
        .await?;
    Ok(())
}

/// Returns whether it was this process that changed it.
async fn put(tx: &mut Tx, change: &Change<'_>) -> Result<bool, StoreError> {
    let ((kind, subject), after) = (change.id, &change.after);
    let sql = match change.before {
        None => {
            "INSERT INTO alarms (said, since, told_at, is_told, ended_at, kind, subject, turn) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (kind, subject) DO NOTHING"
        }
        Some(_) => {
            "UPDATE alarms SET said = $1, since = $2, told_at = $3, is_told = $4, ended_at = $5, turn = turn + 1 \
             WHERE kind = $6 AND subject = $7 AND turn = $8"
        }
    };
    let done = sqlx::query(sql)
        .bind(after.said.as_str())
        .bind(after.since_ms)
        .bind(after.told_ms)
        .bind(i64::from(after.is_told))
        .bind(after.ended_ms)
        .bind(kind.name())
        .bind(subject.as_str())
        .bind(after.turn)
        .execute(tx.hand())
        .await?;
    Ok(done.rows_affected() > 0)
}

async fn add_note(tx: &mut Tx, change: &Change<'_>, what: What, target: &str, now_ms: i64) -> Result<(), StoreError> {
    let (kind, subject) = change.id;
    sqlx::query(
        "INSERT INTO alarm_notes \
         (id, target, what, kind, subject, said, since, made_at, event, attempts, retry_at, outcome) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, '', 0, 0, '')",
    )
    .bind(uuid::Uuid::new_v4().to_string())
    .bind(target)
    .bind(what.name())
    .bind(kind.name())
    .bind(subject.as_str())
    .bind(change.after.said.as_str())
    .bind(change.after.since_ms)
    .bind(now_ms)
    .execute(tx.hand())
    .await?;
    Ok(())
}

/// Forgets what was over, and told, before then.
async fn prune(tx: &mut Tx, before_ms: i64) -> Result<(), StoreError> {
    for sql in ["DELETE FROM alarms WHERE ended_at < $1", "DELETE FROM alarm_notes WHERE made_at < $1"] {
        sqlx::query(sql).bind(before_ms).execute(tx.hand()).await?;
    }
    Ok(())
}

/// The oldest note that this target has not heard.
pub(super) async fn next(store: &Store, target: &str) -> Result<Option<Waiting>, StoreError> {
    let row = sqlx::query(
        "SELECT id, what, kind, subject, said, since, made_at, event, attempts, retry_at, outcome FROM alarm_notes \
         WHERE target = $1 AND done_at IS NULL ORDER BY made_at, id LIMIT 1",
    );
    let row = row.bind(target).fetch_optional(store.read()).await?;
    row.map(|row| {
        let what: String = row.try_get(1)?;
        let bad = || StoreError::Inconsistent { table: "alarm_notes", what: format!("what {what}") };
        let note = Note {
            id: row.try_get(0)?,
            what: What::parse(&what).ok_or_else(bad)?,
            kind: Kind::parse(&row.try_get::<String, _>(2)?),
            subject: row.try_get(3)?,
            said: row.try_get(4)?,
            since_ms: row.try_get(5)?,
            made_ms: row.try_get(6)?,
        };
        Ok(Waiting {
            note,
            event: row.try_get(7)?,
            attempts: row.try_get(8)?,
            retry_ms: row.try_get(9)?,
            outcome: row.try_get(10)?,
        })
    })
    .transpose()
}

/// Takes a note for this process until then. Returns whether nobody was quicker.
pub(super) async fn lease(store: &Store, waiting: &Waiting, target: &str, until_ms: i64) -> Result<bool, StoreError> {
    let mut tx = store.begin(Durability::ProcessSafe).await?;
    let done = sqlx::query(
        "UPDATE alarm_notes SET attempts = attempts + 1, retry_at = $1 \
         WHERE id = $2 AND target = $3 AND done_at IS NULL AND attempts = $4",
    )
    .bind(until_ms)
    .bind(waiting.note.id.as_str())
    .bind(target)
    .bind(waiting.attempts)
    .execute(tx.hand())
    .await?;
    tx.commit().await?;
    Ok(done.rows_affected() > 0)
}

/// Keeps what goes to relays.
pub(super) async fn keep_event(store: &Store, id: &str, target: &str, event: &str) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    sqlx::query("UPDATE alarm_notes SET event = $1 WHERE id = $2 AND target = $3")
        .bind(event)
        .bind(id)
        .bind(target)
        .execute(tx.hand())
        .await?;
    tx.commit().await
}

/// The target has heard it, or never will.
pub(super) async fn done(store: &Store, id: &str, target: &str, outcome: &str, now_ms: i64) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    sqlx::query("UPDATE alarm_notes SET outcome = $1, done_at = $2, event = '' WHERE id = $3 AND target = $4")
        .bind(outcome)
        .bind(now_ms)
        .bind(id)
        .bind(target)
        .execute(tx.hand())
        .await?;
    tx.commit().await
}

/// The target has not heard it, and is asked again then.
pub(super) async fn failed(
    store: &Store,
    id: &str,
    target: &str,
    outcome: &str,
    retry_ms: i64,
) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::ProcessSafe).await?;
    sqlx::query("UPDATE alarm_notes SET outcome = $1, retry_at = $2 WHERE id = $3 AND target = $4")
        .bind(outcome)
        .bind(retry_ms)
        .bind(id)
        .bind(target)
        .execute(tx.hand())
        .await?;
    tx.commit().await
}
