//! Notices when the database is older than what was done with it: a backup that was restored, or
//! yesterday's file put back.
//!
//! Two places remember how far they have come together, the database and a file in the data
//! directory: a number that goes up at every start and every minute, and a random stamp that is new
//! each time. The database goes first, synced, and the file follows; so after a crash between the
//! two the database is one step ahead, and knows the stamp of the step before. Everything else means
//! that one of them is not the one that the other has known:
//!
//! | file | database | |
//! |---|---|---|
//! | n, s | n, s | the same |
//! | n, s | n+1, after s | the same, a crash came between |
//! | none | of no data directory | new |
//! | n, s | a new one, in which nothing ever happened | new |
//! | none | known to others, one of which runs | joins them (PostgreSQL) |
//! | anything else | | restored |
//!
//! What this cannot see is a copy that was put back within the minute in which it was made.

use std::path::{Path, PathBuf};

use sqlx::{AnyExecutor, Row};
use tokio::sync::Mutex;

use super::{Durability, Hand, Store, StoreError};
use crate::vault::hex;

const FILE: &str = "epoch";
/// The stamp of a data directory that a backup was restored into, and that no database fits.
const RESTORED: &str = "restored";

/// A step that both have made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    epoch: i64,
    stamp: String,
}

/// What the database says.
struct Place {
    mark: Mark,
    previous: String,
}

/// The data directory and the database, going on together.
#[derive(Debug)]
pub struct Lineage {
    store: Store,
    path: PathBuf,
    node: String,
    now: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// What the database was left with.
    database: Mark,
    /// Whether the file says the same.
    in_file: bool,
    /// The step that was tried last, if nobody said whether it was written.
    tried: Option<Mark>,
}

impl Known {
    /// What is in the database, and not in the file yet.
    const fn new(database: Mark) -> Self {
        Self { database, in_file: false, tried: None }
    }

    /// Goes on from the step that was tried last, if that is what is `there`.
    fn takes_up(&mut self, there: Option<&Place>) -> bool {
        match self.tried.take() {
            Some(tried) if there.is_some_and(|there| there.mark == tried) => {
                *self = Self::new(tried);
                true
            }
            _ => false,
        }
    }
}

/// What is told of it at the start.
struct Sight {
    file: Option<Mark>,
    row: Option<Place>,
    /// Whether the database knows any data directory.
    known: bool,
    /// Whether anything ever happened in it.
    blank: bool,
    /// Whether other processes use it now.
    peers: bool,
    shared: bool,
}

impl Sight {
    /// Why this database is not the one that this data directory has known.
    fn objection(&self) -> Option<&'static str> {
        match (&self.file, &self.row) {
            (Some(file), _) if file.stamp == RESTORED && !self.blank => Some("it was restored from a backup"),
            (Some(file), Some(row)) if row.follows(file) => None,
            (Some(file), Some(row)) if row.mark.epoch < file.epoch => {
                Some("the database is older than what this data directory has seen")
            }
            (Some(_), Some(_)) => Some("the database was used elsewhere meanwhile"),
            (Some(_), None) if self.blank => None,
            (Some(_), None) => Some("the database does not know this data directory, which has seen one before"),
            (None, None) if !self.known || (self.shared && self.peers) => None,
            // The first start of all died before it came to the file.
            (None, Some(row)) if row.mark.epoch == 1 => None,
            (None, _) => Some("the database was used with another data directory"),
        }
    }

    async fn take(
        hand: &mut Hand<'_>,
        file: Option<Mark>,
        node: &str,
        dead_before_ms: i64,
        shared: bool,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            row: find(hand.again(), node).await?,
            known: count(hand.again(), "SELECT COUNT(*) FROM lineage").await? > 0,
            blank: count(hand.again(), "SELECT COUNT(*) FROM operations").await? == 0
                && count(hand.again(), "SELECT COUNT(*) FROM transfers").await? == 0,
            peers: peers(hand.again(), node, dead_before_ms).await?,
            shared,
            file,
        })
    }
}

impl Place {
    fn follows(&self, file: &Mark) -> bool {
        let is_next = file.epoch.checked_add(1) == Some(self.mark.epoch) && self.previous == file.stamp;
        self.mark == *file || is_next
    }
}

impl Lineage {
    /// Says in the data directory that whatever database is put there is a restored one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn foretell_recovery(data_dir: &Path) -> Result<(), StoreError> {
        let path = data_dir.join(FILE);
        let epoch = read(&path)?.map_or(0, |mark| mark.epoch);
        write(&path, &Mark { epoch, stamp: RESTORED.to_owned() })
    }

    /// Compares the two as [`Lineage::open`] does, and leaves them as they are: why the next start would find that a
    /// recovery is due. A data directory that has seen no database, such as that of another machine's shell, says nothing.
    ///
    /// # Errors
    /// When the database does not answer, or the file cannot be read.
    pub async fn objection(store: &Store, data_dir: &Path, node: &str) -> Result<Option<&'static str>, StoreError> {
        // The file first: beside a running node the database may be one step ahead of it, never behind.
        let Some(file) = read(&data_dir.join(FILE))? else { return Ok(None) };
        let mut reader = store.read().acquire().await?;
        let sight = Sight::take(&mut Hand::Pooled(&mut reader), Some(file), node, i64::MAX, store.is_shared()).await?;
        Ok(sight.objection())
    }

    /// Compares the two, and goes one step on. When the database is not the one it should be, that is
    /// written into it before anything else is done: a recovery is due, for the reason returned. Nobody is logged in to
    /// it any more, and no program has a token.
    ///
    /// # Errors
    /// When the database does not answer, or the file cannot be written.
    pub async fn open(
        store: &Store,
        data_dir: &Path,
        node: &str,
        now_ms: i64,
        dead_before_ms: i64,
    ) -> Result<(Self, Option<&'static str>), StoreError> {
        let path = data_dir.join(FILE);
        let file = read(&path)?;
        let mut tx = store.begin(Durability::Full).await?;
        let sight = Sight::take(&mut tx.hand(), file, node, dead_before_ms, store.is_shared()).await?;
        let objection = sight.objection();
        let before = match (&sight.file, &sight.row) {
            (file, Some(row)) if objection.is_none() => {
                if file.as_ref() != Some(&row.mark) {
                    write(&path, &row.mark)?;
                }
                row.mark.clone()
            }
            (file, row) => {
                let epochs = [file.as_ref().map(|mark| mark.epoch), row.as_ref().map(|row| row.mark.epoch)];
                let stamp = file.as_ref().map(|mark| mark.stamp.clone()).unwrap_or_default();
                Mark { epoch: epochs.into_iter().flatten().max().unwrap_or(0), stamp }
            }
        };
        let mark = Mark { epoch: before.epoch.saturating_add(1), stamp: stamp() };
        sqlx::query(
            "INSERT INTO lineage (node, epoch, stamp, previous) VALUES ($1, $2, $3, $4) ON CONFLICT (node) \
             DO UPDATE SET epoch = excluded.epoch, stamp = excluded.stamp, previous = excluded.previous",
        )
        .bind(node)
        .bind(mark.epoch)
        .bind(mark.stamp.as_str())
        .bind(before.stamp.as_str())
        .execute(tx.hand())
        .await?;
        if let Some(reason) = objection {
            demand_recovery(tx.hand(), reason, now_ms).await?;
            shut_out(&mut tx.hand()).await?;
        }
        tx.commit().await?;
        write(&path, &mark)?;
        let now = Mutex::new(Known { database: mark, in_file: true, tried: None });
        let lineage = Self { store: store.clone(), path, node: node.to_owned(), now };
        Ok((lineage, objection))
    }

    /// Goes one step on. `false`: the database is not as this process left it; somebody has put
    /// another in its place.
    ///
    /// # Errors
    /// When the database does not answer, or the file cannot be written: then the next step writes
    /// it first.
    pub async fn step(&self) -> Result<bool, StoreError> {
        let mut now = self.now.lock().await;
        if !now.in_file {
            write(&self.path, &now.database)?;
            now.in_file = true;
        }
        let mark = Mark { epoch: now.database.epoch.saturating_add(1), stamp: stamp() };
        let mut tx = self.store.begin(Durability::Full).await?;
        let moved = sqlx::query(
            "UPDATE lineage SET epoch = $1, stamp = $2, previous = $3 WHERE node = $4 AND epoch = $5 AND stamp = $6",
        )
        .bind(mark.epoch)
        .bind(mark.stamp.as_str())
        .bind(now.database.stamp.as_str())
        .bind(self.node.as_str())
        .bind(now.database.epoch)
        .bind(now.database.stamp.as_str())
        .execute(tx.hand())
        .await?
        .rows_affected();
        if moved == 0 {
            // The answer to the last one may be all that was lost of it.
            let there = find(tx.hand(), &self.node).await?;
            if !now.takes_up(there.as_ref()) {
                return Ok(false);
            }
        } else {
            now.tried = Some(mark.clone());
            tx.commit().await?;
            *now = Known::new(mark);
        }
        write(&self.path, &now.database)?;
        now.in_file = true;
        Ok(true)
    }
}

/// Writes down that no money may move before a recovery is done.
///
/// # Errors
/// When the database does not answer.
pub(super) async fn demand_recovery(
    executor: impl AnyExecutor<'_>,
    reason: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO recoveries (id, reason, began_at) SELECT $1, $2, $3 \
         WHERE NOT EXISTS (SELECT 1 FROM recoveries WHERE ended_at IS NULL)",
    )
    .bind(stamp())
    .bind(reason)
    .bind(now_ms)
    .execute(executor)
    .await?;
    Ok(())
}

/// Ends the operator's sessions and tokens: those that were ended or revoked after the copy was made are in it again.
async fn shut_out(hand: &mut Hand<'_>) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM sessions").execute(hand.again()).await?;
    sqlx::query("DELETE FROM admin_tokens").execute(hand.again()).await?;
    Ok(())
}

fn stamp() -> String {
    hex(&rand::random::<[u8; 16]>())
}

async fn find(executor: impl AnyExecutor<'_>, node: &str) -> Result<Option<Place>, StoreError> {
    let row = sqlx::query("SELECT epoch, stamp, previous FROM lineage WHERE node = $1").bind(node);
    let row = row.fetch_optional(executor).await?;
    row.map(|row| {
        let mark = Mark { epoch: row.try_get(0)?, stamp: row.try_get(1)? };
        Ok(Place { mark, previous: row.try_get(2)? })
    })
    .transpose()
}

async fn count(executor: impl AnyExecutor<'_>, sql: &'static str) -> Result<i64, StoreError> {
    Ok(sqlx::query(sql).fetch_one(executor).await?.try_get(0)?)
}

async fn peers(executor: impl AnyExecutor<'_>, node: &str, dead_before_ms: i64) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT COUNT(*) FROM nodes WHERE id <> $1 AND seen_at >= $2");
    let peers: i64 = row.bind(node).bind(dead_before_ms).fetch_one(executor).await?.try_get(0)?;
    Ok(peers > 0)
}

fn read(path: &Path) -> Result<Option<Mark>, StoreError> {
    let bad = |why: &dyn std::fmt::Display| StoreError::Io(format!("{}: {why}", path.display()));
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let (epoch, stamp) = text.trim().split_once(' ').ok_or_else(|| bad(&"it is not what this node wrote"))?;
            let epoch = epoch.parse().map_err(|_| bad(&"it is not what this node wrote"))?;
            Ok(Some(Mark { epoch, stamp: stamp.to_owned() }))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(bad(&error)),
    }
}

/// Replaces the file in one step, and syncs it: afterwards it is the old one or the new one.
fn write(path: &Path, mark: &Mark) -> Result<(), StoreError> {
    let io = |error: std::io::Error| StoreError::Io(format!("{}: {error}", path.display()));
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    crate::vault::write_private(&fresh, &format!("{} {}\n", mark.epoch, mark.stamp)).map_err(io)?;
    std::fs::rename(&fresh, path).map_err(io)?;
    if let Some(parent) = path.parent() {
        std::fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(io)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(epoch: i64, stamp: &str) -> Mark {
        Mark { epoch, stamp: stamp.to_owned() }
    }

    fn row(epoch: i64, stamp: &str, previous: &str) -> Option<Place> {
        Some(Place { mark: mark(epoch, stamp), previous: previous.to_owned() })
    }

    #[test]
    fn a_step_whose_answer_was_lost_is_taken_up_where_it_was_written() {
        let known = || Known { database: mark(7, "s"), in_file: true, tried: Some(mark(8, "t")) };
        let mut written = known();
        assert!(written.takes_up(row(8, "t", "s").as_ref()));
        assert_eq!((written.database, written.in_file, written.tried), (mark(8, "t"), false, None));
        for there in [None, row(8, "u", "s"), row(9, "t", "s"), row(6, "r", "q")] {
            assert!(!known().takes_up(there.as_ref()));
        }
        assert!(!Known { tried: None, ..known() }.takes_up(row(8, "t", "s").as_ref()));
    }

    #[test]
    fn only_what_went_on_together_is_the_same() {
        let sight = |file: Option<Mark>, row: Option<Place>| Sight {
            known: row.is_some(),
            file,
            row,
            blank: false,
            peers: false,
            shared: false,
        };
        let rows = [
            (sight(Some(mark(7, "s")), row(7, "s", "r")), false),
            (sight(Some(mark(7, "s")), row(8, "t", "s")), false),
            (sight(None, None), false),
            (sight(None, row(1, "s", "")), false),
            (Sight { blank: true, ..sight(Some(mark(7, "s")), None) }, false),
            (Sight { known: true, peers: true, shared: true, ..sight(None, None) }, false),
            // Yesterday's, one that went on elsewhere, one whose number only happens to fit.
            (sight(Some(mark(7, "s")), row(6, "r", "q")), true),
            (sight(Some(mark(7, "s")), row(9, "u", "t")), true),
            (sight(Some(mark(7, "s")), row(8, "t", "x")), true),
            (sight(Some(mark(7, "s")), row(7, "x", "r")), true),
            (sight(Some(mark(7, "s")), None), true),
            (sight(None, row(7, "s", "r")), true),
            (sight(Some(mark(0, RESTORED)), row(7, "s", "r")), true),
            (sight(Some(mark(0, RESTORED)), None), true),
            (sight(Some(mark(0, RESTORED)), row(1, "s", RESTORED)), true),
            (Sight { known: true, ..sight(None, None) }, true),
            (Sight { known: true, shared: true, ..sight(None, None) }, true),
        ];
        for (at, (sight, restored)) in rows.into_iter().enumerate() {
            assert_eq!(sight.objection().is_some(), restored, "row {at}");
        }
    }
}
