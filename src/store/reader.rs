//! Looking at the database without changing it: beside a running node, or at the files of one that
//! is stopped. All that one look sees is from one moment.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use sqlx::{Any, AnyConnection, AnyPool, Row};

use super::{Hand, Location, Store, StoreError, latest_version, migrate, open};

/// What is said of a database in which no node has kept anything.
pub const UNUSED: &str = "no node has run on this database yet";

/// A database that is only read.
#[derive(Clone)]
pub struct Reader {
    pool: AnyPool,
    location: Location,
}

/// The database as it was at one moment, whatever is written meanwhile.
pub struct Snapshot {
    inner: sqlx::Transaction<'static, Any>,
}

impl Reader {
    /// Opens the database that [`Store::open`] would, beside whoever uses it. Creates and migrates
    /// nothing.
    ///
    /// # Errors
    /// When it is not there, or not of this program's version.
    pub async fn open(data_dir: &Path, url: Option<&str>) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let location = Location::of(data_dir, url);
        let pool = match &location {
            Location::Sqlite(path) if !path.exists() => {
                return Err(StoreError::Io(format!("there is no database at {}", path.display())));
            }
            Location::Sqlite(path) => open::read_only_pool(path).await?,
            Location::Postgres(url) => {
                open::reach(url).await?;
                open::postgres_pool(url, 2, "on").await?
            }
        };
        let reader = Self { pool, location };
        let known = latest_version();
        match migrate::current_version(&reader.location, &reader.pool).await? {
            0 => Err(StoreError::Io(UNUSED.to_owned())),
            found if found > known => Err(StoreError::TooNew { found, known }),
            found if found < known => Err(StoreError::Io(format!(
                "the database is at schema version {found}, and this program's is {known}: start the node once"
            ))),
            _ => Ok(reader),
        }
    }

    /// A look at the whole database at one moment.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let begin = match self.location {
            // What the first statement sees, all see.
            Location::Sqlite(_) => "BEGIN",
            Location::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        Ok(Snapshot { inner: self.pool.begin_with(begin).await? })
    }

    pub(super) fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// Whether nothing has happened in it yet that would be missed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn is_blank(&self) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT (SELECT COUNT(*) FROM operations) + (SELECT COUNT(*) FROM transfers)");
        Ok(row.fetch_one(&self.pool).await?.try_get::<i64, _>(0)? == 0)
    }

    /// The value of a setting, as [`Store::setting`] has it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        super::settings::read(&self.pool, name).await
    }

    /// What the node was told, as [`Store::told`] has it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn told(&self) -> Result<BTreeMap<String, String>, StoreError> {
        super::told::read(&self.pool).await
    }

    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Whether a SQLite file is whole, as far as a quick look tells (`PRAGMA quick_check`); the first
    /// thing that is wrong. PostgreSQL checks its pages itself.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn quick_check(&self) -> Result<Option<String>, StoreError> {
        if let Location::Postgres(_) = self.location {
            return Ok(None);
        }
        let said: String = match sqlx::query("PRAGMA quick_check(1)").fetch_one(&self.pool).await {
            Ok(row) => row.try_get(0)?,
            // What is so broken that it cannot be checked is damaged all the same.
            Err(sqlx::Error::Database(error)) => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        Ok((said != "ok").then_some(said))
    }

    /// Why what the database has acknowledged might be lost, or is: each with the remedy.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn doubts(&self) -> Result<Vec<(String, &'static str)>, StoreError> {
        let mut doubts = Vec::new();
        match self.location {
            Location::Sqlite(_) => {
                if let Some(fault) = self.quick_check().await? {
                    doubts.push((format!("is damaged: {fault}"), "Stop the node, and restore a backup."));
                }
            }
            Location::Postgres(_) => {
                for (show, name) in [("SHOW fsync", "fsync"), ("SHOW full_page_writes", "full_page_writes")] {
                    let said: String = sqlx::query(show).fetch_one(&self.pool).await?.try_get(0)?;
                    if said == "off" {
                        let found = format!("PostgreSQL runs with {name}=off: a power cut may destroy the database");
                        doubts.push((found, "Set it to on in postgresql.conf."));
                    }
                }
            }
        }
        Ok(doubts)
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl Store {
    /// This database, to be looked at only.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { pool: self.read().clone(), location: self.location().clone() }
    }
}

impl Snapshot {
    /// What runs its statements.
    pub fn hand(&mut self) -> Hand<'_> {
        Hand::Pooled(&mut self.inner)
    }
}

impl Deref for Snapshot {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.inner
    }
}

impl DerefMut for Snapshot {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader(…)")
    }
}
