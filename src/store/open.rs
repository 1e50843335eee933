//! Opening the database: files and modes, connection settings, migrations.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, Connection as _, Executor};
use tokio::sync::Mutex;

use super::lock::FileLock;
use super::{Location, Store, StoreError, dump, migrate};

/// Longest wait for a connection of a pool, or for SQLite's own lock.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for a database server to say anything at all.
const REACH: Duration = Duration::from_secs(10);
/// Between two looks for a server that is not there yet.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
/// What every writing connection to SQLite is told.
pub(super) const PRAGMAS: [&str; 5] = [
    "PRAGMA journal_mode = WAL",
    "PRAGMA busy_timeout = 30000",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
    // A job does it; in a writer it would make a request wait for its syncs.
    "PRAGMA wal_autocheckpoint = 0",
];

impl Store {
    /// Opens (and creates or migrates) the database at `url`, or `coinslot.db` in `data_dir`.
    ///
    /// # Errors
    /// When the file is in use, too new, or not to be opened.
    pub async fn open(data_dir: &Path, url: Option<&str>, strict: bool) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        private_dir(data_dir)?;
        match Location::of(data_dir, url) {
            Location::Postgres(url) => Self::open_postgres(&url, strict).await,
            Location::Sqlite(path) => Self::open_sqlite(&path, strict).await,
        }
    }

    /// Opens the database for the short transactions of an operator's command, also while a node runs
    /// on it.
    ///
    /// On SQLite the node has the file's lock. That lock keeps a second *node* away: two of them on one
    /// file would be two owners of every open operation, and two memories of which coins are free. A
    /// command that works on the ledger alone needs neither: SQLite lets one writer at a time commit,
    /// every writer waits for it (`BEGIN IMMEDIATE`, `busy_timeout`), and the node keeps no balance in
    /// its memory. What it must not do is touch the ecash store or the schema.
    ///
    /// On PostgreSQL it cannot be seen whether a node runs, so there a command only makes tables where none are: those
    /// of an earlier version may be in use.
    ///
    /// # Errors
    /// As [`Store::open`]; and beside a node, or on PostgreSQL, when the tables are of an earlier version.
    pub async fn open_beside(data_dir: &Path, url: Option<&str>) -> Result<Self, StoreError> {
        if let Location::Postgres(url) = Location::of(data_dir, url) {
            sqlx::any::install_default_drivers();
            private_dir(data_dir)?;
            let store = Self::connect_postgres(&url, false).await?;
            match migrate::current_version(&store.location, &store.full).await? {
                0 => migrate::run(&store).await?,
                _ => migrate::check(&store).await?,
            }
            return Ok(store);
        }
        match Self::open(data_dir, url, false).await {
            Err(StoreError::InUse(path)) => {
                let store = Self::connect_sqlite(Path::new(&path), false, None).await?;
                migrate::check(&store).await?;
                Ok(store)
            }
            // What the command waits for, its input or a mint, shall keep no node from starting.
            opened => opened.map(|store| Self { _lock: None, ..store }),
        }
    }

    async fn open_sqlite(path: &Path, strict: bool) -> Result<Self, StoreError> {
        let lock = FileLock::take(&path.with_extension("lock"), &path.display().to_string())?;
        private_file(path)?;
        let store = Self::connect_sqlite(path, strict, Some(lock)).await?;
        migrate::run(&store).await?;
        Ok(store)
    }

    async fn connect_sqlite(path: &Path, strict: bool, lock: Option<FileLock>) -> Result<Self, StoreError> {
        let url = format!("sqlite://{}", path.display());
        let full = sqlite_pool(&url, 1, "FULL").await?;
        // One more for the ledger's desk, where that is not `inline`.
        let (writers, synchronous) = if strict { (2, "FULL") } else { (1, "NORMAL") };
        let fast = sqlite_pool(&url, writers, synchronous).await?;
        let read = sqlite_pool(&url, 4, "NORMAL").await?;
        Ok(Self {
            full,
            fast,
            read,
            gate: Some(Arc::new(Mutex::new(()))),
            inline: Arc::default(),
            users: Arc::default(),
            location: Location::Sqlite(path.to_owned()),
            begin: "BEGIN IMMEDIATE",
            strict,
            _lock: lock.map(Arc::new),
        })
    }

    /// Makes the tables of an earlier version in an empty PostgreSQL database, for a dump to be loaded. Empty ones of a
    /// later version, left by the try before, make room for them.
    ///
    /// # Errors
    /// When the database does not answer, or tables of a later version are not empty.
    pub async fn open_at(url: &str, version: i64) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let store = Self::connect_postgres(url, false).await?;
        if migrate::current_version(&store.location, &store.full).await? > version {
            dump::clear(&store).await?;
        }
        migrate::run_to(&store, version).await?;
        Ok(store)
    }

    /// A node waits for its server, which may be started at the same time.
    async fn open_postgres(url: &str, strict: bool) -> Result<Self, StoreError> {
        let until = Instant::now() + PATIENCE;
        while let Err(error) = reach(url).await {
            if Instant::now() >= until {
                return Err(error);
            }
            tracing::warn!(%error, "waiting for the database");
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        let store = Self::connect_postgres(url, strict).await?;
        migrate::run(&store).await?;
        Ok(store)
    }

    async fn connect_postgres(url: &str, strict: bool) -> Result<Self, StoreError> {
        reach(url).await?;
        let full = postgres_pool(url, 8, "on").await?;
        let fast = postgres_pool(url, 3, if strict { "on" } else { "off" }).await?;
        let read = postgres_pool(url, 8, "on").await?;
        Ok(Self {
            full,
            fast,
            read,
            gate: None,
            inline: Arc::default(),
            users: Arc::default(),
            location: Location::Postgres(url.to_owned()),
            begin: "BEGIN",
            strict,
            _lock: None,
        })
    }
}

async fn sqlite_pool(url: &str, size: u32, synchronous: &'static str) -> Result<AnyPool, StoreError> {
    let options = AnyConnectOptions::from_str(url)?;
    let pool = AnyPoolOptions::new()
        .max_connections(size)
        .min_connections(1)
        .acquire_timeout(PATIENCE)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                for pragma in PRAGMAS {
                    connection.execute(pragma).await?;
                }
                connection
                    .execute(match synchronous {
                        "FULL" => "PRAGMA synchronous = FULL",
                        _ => "PRAGMA synchronous = NORMAL",
                    })
                    .await?;
                Ok(())
            })
        })
        .connect_with(options)
        .await?;
    Ok(pool)
}

/// Connections that write nothing, beside those of a node.
pub(super) async fn read_only_pool(path: &Path) -> Result<AnyPool, StoreError> {
    let options = AnyConnectOptions::from_str(&format!("sqlite://{}?mode=ro", path.display()))?;
    let pool = AnyPoolOptions::new().max_connections(2).acquire_timeout(PATIENCE).after_connect(|connection, _| {
        Box::pin(async move {
            connection.execute("PRAGMA busy_timeout = 30000").await?;
            connection.execute("PRAGMA temp_store = MEMORY").await?;
            Ok(())
        })
    });
    Ok(pool.connect_with(options).await?)
}

/// Whether a server is there: a pool tries for so long, and says no more in the end than that it did. What else may be
/// wrong is left to the pool.
pub(super) async fn reach(url: &str) -> Result<(), StoreError> {
    let options = AnyConnectOptions::from_str(url)?;
    let silent = |why: String| Err(StoreError::Io(format!("the database does not answer: {why}")));
    match tokio::time::timeout(REACH, AnyConnection::connect_with(&options)).await {
        Err(_) => silent(format!("nothing came from it in {} s", REACH.as_secs())),
        Ok(Err(error @ sqlx::Error::Io(_))) => silent(error.to_string()),
        Ok(Err(_)) => Ok(()),
        Ok(Ok(connection)) => Ok(connection.close().await?),
    }
}

pub(super) async fn postgres_pool(url: &str, size: u32, synchronous: &'static str) -> Result<AnyPool, StoreError> {
    let options = AnyConnectOptions::from_str(url)?;
    let pool = AnyPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(PATIENCE)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                connection
                    .execute(match synchronous {
                        "off" => "SET synchronous_commit = off",
                        _ => "SET synchronous_commit = on",
                    })
                    .await?;
                connection.execute("SET lock_timeout = '30s'").await?;
                Ok(())
            })
        })
        .connect_with(options)
        .await?;
    Ok(pool)
}

/// Creates the directory, for its owner alone.
///
/// # Errors
/// When it cannot be made.
pub fn private_dir(path: &Path) -> Result<(), StoreError> {
    let io = |error: std::io::Error| StoreError::Io(format!("{}: {error}", path.display()));
    std::fs::create_dir_all(path).map_err(io)?;
    restrict(path, 0o700).map_err(io)
}

/// Creates the file empty when it is absent, for its owner alone, before SQLite can create it
/// with the process's umask. SQLite gives its side files the mode of the main one.
///
/// # Errors
/// When it cannot be made.
pub fn private_file(path: &Path) -> Result<(), StoreError> {
    let io = |error: std::io::Error| StoreError::Io(format!("{}: {error}", path.display()));
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(io)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(io)?;
    restrict(path, 0o600).map_err(io)
}

#[cfg(unix)]
pub(super) fn restrict(path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
pub(super) fn restrict(_path: &Path, _mode: u32) -> std::io::Result<()> {
    Ok(())
}
