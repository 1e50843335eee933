//! The database: SQLite embedded in a file, or PostgreSQL. The same queries run on both.
//!
//! Two durability classes, and the transaction says which (see [`Durability`]). On SQLite they are
//! two connections of one WAL file, and a process-wide *gate* lets one write transaction run at a
//! time, so that writers queue fairly instead of polling a busy database; the ecash store of the
//! wallet takes the same gate, and so does the connection of what paid requests write ([`HotDesk`],
//! [`Store::begin_short`]), whose statements run where they are asked, and which changes its class between two
//! transactions. On PostgreSQL they are two pools that differ in `synchronous_commit`, and there is no gate.
//!
//! No transaction is ever open while the node talks to a mint, an upstream or a client.

mod desk;
mod dump;
mod hand;
pub mod ids;
mod inline;
mod lineage;
mod lock;
mod migrate;
mod open;
mod placeholders;
mod reader;
mod settings;
mod told;
mod tx;
mod values;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::error::ErrorKind;
use sqlx::{AnyConnection, AnyPool, Row as _};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedRwLockReadGuard, RwLock};

use crate::money::Msat;

pub use desk::{Desk, HotDesk, HotTurn, Turn};
pub use dump::{check_vacant, dump, load, move_into_place};
pub use hand::Hand;
pub use inline::{Cell, Inline, Value};
pub use lineage::Lineage;
pub use lock::FileLock;
pub use migrate::latest_version;
pub use open::{private_dir, private_file};
pub use placeholders::Placeholders;
pub use reader::{Reader, Snapshot, UNUSED};
pub use tx::Tx;

/// A log of SQLite that is longer, in pages, is begun anew.
const LONG_LOG: i64 = 4_096;
/// Pages that are moved while nobody writes.
const SHORT_TAIL: i64 = 256;
/// How often it is tried to come near the end of the log before that.
const CHASES: u32 = 6;

/// How sure a commit must be before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Synced: survives power loss. For whatever creates or destroys value outside this database.
    Full,
    /// Committed, not synced: survives the death of the process; a power loss may undo the last
    /// milliseconds, in the client's favour. For holds and settlements.
    ProcessSafe,
}

/// What went wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("database: {0}")]
    Sql(#[from] sqlx::Error),
    /// What went wrong with SQLite, without sqlx between.
    #[error("database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A commit whose answer is not known: it may count.
    #[error("database, at a commit: {0}")]
    Unconfirmed(#[source] sqlx::Error),
    #[error("{0}")]
    Io(String),
    /// Another process has the SQLite file.
    #[error("another process is using {0}; only one node may run on a SQLite file")]
    InUse(String),
    #[error(
        "the database is at schema version {found}, which is newer than this program's {known}; use a newer coinslot"
    )]
    TooNew { found: i64, known: i64 },
    #[error(
        "the database is at schema version {found}, which is older than this program's {known}; use the program of the \
         node that runs on it, or stop that and start a node of this program"
    )]
    TooOld { found: i64, known: i64 },
    /// A row holds something that cannot be.
    #[error("inconsistent row in {table}: {what}")]
    Inconsistent { table: &'static str, what: String },
    /// What SQLite says of a file that it finds broken.
    #[error("the database file is damaged: {0}")]
    Damaged(String),
}

impl StoreError {
    /// Whether the statement broke a uniqueness rule.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => error.is_unique_violation(),
            Self::Sqlite(error) => inline::broken_rule(error) == ErrorKind::UniqueViolation,
            _ => false,
        }
    }

    /// Whether SQLite was in use by another for too long.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Sqlite(error) if inline::is_busy(error))
    }

    /// Whether PostgreSQL rolled it back because two waited for each other: it can be tried again as it was.
    #[must_use]
    pub fn is_deadlock(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(error)) if error.code().as_deref() == Some("40P01"))
    }

    /// Whether the statement broke a rule of the schema: trying again cannot help.
    #[must_use]
    pub fn is_constraint(&self) -> bool {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => !matches!(error.kind(), ErrorKind::Other),
            Self::Sqlite(error) => inline::broken_rule(error) != ErrorKind::Other,
            Self::Inconsistent { .. } => true,
            _ => false,
        }
    }
}

/// An amount as a row of this table has it.
///
/// # Errors
/// When it is below zero, or more than there can be.
pub fn amount(table: &'static str, value: i64) -> Result<Msat, StoreError> {
    Msat::from_db(value).ok_or_else(|| StoreError::Inconsistent { table, what: format!("amount {value}") })
}

/// Where the data is, for the one other component that opens it itself: the ecash store.
#[derive(Clone)]
pub enum Location {
    Sqlite(PathBuf),
    Postgres(String),
}

impl Location {
    /// Where a URL points to; `coinslot.db` in the data directory without one.
    #[must_use]
    pub fn of(data_dir: &Path, url: Option<&str>) -> Self {
        match url {
            Some(url) if url.starts_with("postgres") => Self::Postgres(url.to_owned()),
            Some(url) => {
                let path = url.trim_start_matches("sqlite:").trim_start_matches("//");
                Self::Sqlite(PathBuf::from(path.split('?').next().unwrap_or(path)))
            }
            None => Self::Sqlite(data_dir.join("coinslot.db")),
        }
    }
}

/// The open database.
#[derive(Clone)]
pub struct Store {
    full: AnyPool,
    fast: AnyPool,
    read: AnyPool,
    gate: Option<Arc<Mutex<()>>>,
    /// The one connection of no pool, while it is open; see [`HotDesk`].
    inline: Arc<Mutex<Option<Inline>>>,
    /// Held by whoever uses that.
    users: Arc<RwLock<()>>,
    location: Location,
    begin: &'static str,
    /// Every commit is synced, whatever its class.
    strict: bool,
    _lock: Option<Arc<lock::FileLock>>,
}

impl Store {
    /// A place to write at, statement by statement.
    #[must_use]
    pub fn desk(&self, durability: Durability) -> Desk {
        Desk::new(self.clone(), durability)
    }

    /// A place to write at for the statements of every paid request.
    #[must_use]
    pub fn hot_desk(&self) -> HotDesk {
        HotDesk::new(self.clone())
    }

    async fn enter(&self) -> Option<OwnedMutexGuard<()>> {
        match &self.gate {
            Some(gate) => Some(Arc::clone(gate).lock_owned().await),
            None => None,
        }
    }

    /// For a user of the connection of no pool. Once the store is being closed, there are no further ones; those there
    /// are go on until they leave.
    fn stay_open(&self) -> Result<OwnedRwLockReadGuard<()>, StoreError> {
        match Arc::clone(&self.users).try_read_owned() {
            Ok(user) if !self.fast.is_closed() => Ok(user),
            _ => Err(sqlx::Error::PoolClosed.into()),
        }
    }

    fn writers(&self, durability: Durability) -> &AnyPool {
        match durability {
            Durability::Full => &self.full,
            Durability::ProcessSafe => &self.fast,
        }
    }

    /// Whether a commit of this class waits for the disk.
    #[must_use]
    pub fn syncs(&self, durability: Durability) -> bool {
        self.strict || durability == Durability::Full
    }

    /// A pool for queries that change nothing.
    #[must_use]
    pub fn read(&self) -> &AnyPool {
        &self.read
    }

    /// The write gate, where there is one.
    #[must_use]
    pub fn gate(&self) -> Option<Arc<Mutex<()>>> {
        self.gate.clone()
    }

    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Whether other processes may serve from it at the same time.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.location, Location::Postgres(_))
    }

    /// Moves what is in SQLite's write-ahead log to the database. Under load something is written meanwhile, and the
    /// log would grow without end: where it is long, writers are held up while the little is moved that is left.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        if let Location::Postgres(_) = self.location {
            return Ok(());
        }
        let mut reader = self.read.acquire().await?;
        let mut log = move_log(&mut reader).await?;
        if log < LONG_LOG {
            return Ok(());
        }
        // Each time less was written meanwhile, since there was less to move.
        for _ in 0..CHASES {
            let longer = move_log(&mut reader).await?;
            let written = longer.saturating_sub(log);
            log = longer;
            if written <= SHORT_TAIL {
                break;
            }
        }
        let _gate = self.enter().await;
        move_log(&mut reader).await?;
        // Once all of it is in the database, the next writer begins the log anew, and waits for the disk: better here
        // than where a request waits. This writes the first page as it is.
        let mut writer = self.fast.acquire().await?;
        sqlx::query("PRAGMA user_version = 0").execute(&mut *writer).await?;
        Ok(())
    }

    /// Closes all connections; on SQLite this also folds the write-ahead log into the file.
    pub async fn close(&self) {
        self.read.close().await;
        self.fast.close().await;
        let _no_user = self.users.write().await;
        self.inline.lock().await.take();
        self.full.close().await;
    }
}

/// Moves what is in the log of SQLite to the database. Returns how long the log is, in pages.
async fn move_log(connection: &mut AnyConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(connection).await?.try_get(1)?)
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.location {
            Location::Sqlite(_) => "sqlite",
            Location::Postgres(_) => "postgres",
        };
        f.debug_struct("Store").field("kind", &kind).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_commit_that_fails_is_not_called_undone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), None, false).await.unwrap();
        let table = "CREATE TABLE t (id INTEGER REFERENCES accounts (id) DEFERRABLE INITIALLY DEFERRED)";
        let mut tx = store.begin(Durability::Full).await.unwrap();
        sqlx::query(table).execute(tx.hand()).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = store.begin(Durability::Full).await.unwrap();
        sqlx::query("INSERT INTO t VALUES (-1)").execute(tx.hand()).await.unwrap();
        let failed = tx.commit().await.unwrap_err();
        assert!(matches!(failed, StoreError::Unconfirmed(_)), "{failed:?}");
        // Whoever comes next is not in the middle of it.
        let mut tx = store.begin(Durability::Full).await.unwrap();
        let left: i64 = sqlx::Row::get(&sqlx::query("SELECT COUNT(*) FROM t").fetch_one(tx.hand()).await.unwrap(), 0);
        assert_eq!(left, 0);
        drop(tx);
        store.close().await;
    }
}
