//! Embedded, ordered, forward-only migrations.
//!
//! A database newer than the program is refused. Before the first pending migration of an
//! existing SQLite file, a copy is taken beside it, readable by the owner alone.

use std::cmp::Ordering;
use std::path::Path;

use sqlx::{AnyExecutor, AnyPool, AssertSqlSafe, Executor, Row};

use super::{Durability, Location, Store, StoreError, open};

/// Portable text, and what only one of the databases understands.
struct Migration {
    version: i64,
    common: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

/// By rising version. 10, 12, 20 and 25 are nobody's, and stay so: a database that is past them would not run them.
const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        common: include_str!("../migrations/0001_ledger.sql"),
        sqlite: include_str!("../migrations/0001_ledger.sqlite.sql"),
        postgres: include_str!("../migrations/0001_ledger.postgres.sql"),
    },
    Migration { version: 2, common: include_str!("../migrations/0002_wallet.sql"), sqlite: "", postgres: "" },
    Migration { version: 3, common: include_str!("../migrations/0003_admin.sql"), sqlite: "", postgres: "" },
    Migration { version: 4, common: include_str!("../migrations/0004_operations.sql"), sqlite: "", postgres: "" },
    Migration {
        version: 5,
        common: include_str!("../migrations/0005_keys.sql"),
        sqlite: include_str!("../migrations/0005_keys.sqlite.sql"),
        postgres: include_str!("../migrations/0005_keys.postgres.sql"),
    },
    Migration { version: 6, common: include_str!("../migrations/0006_receipts.sql"), sqlite: "", postgres: "" },
    Migration { version: 7, common: include_str!("../migrations/0007_replays.sql"), sqlite: "", postgres: "" },
    Migration {
        version: 8,
        common: include_str!("../migrations/0008_vouchers.sql"),
        sqlite: include_str!("../migrations/0008_vouchers.sqlite.sql"),
        postgres: include_str!("../migrations/0008_vouchers.postgres.sql"),
    },
    Migration { version: 9, common: include_str!("../migrations/0009_unclaimed.sql"), sqlite: "", postgres: "" },
    Migration {
        version: 11,
        common: include_str!("../migrations/0011_recovery.sql"),
        sqlite: include_str!("../migrations/0011_recovery.sqlite.sql"),
        postgres: include_str!("../migrations/0011_recovery.postgres.sql"),
    },
    Migration { version: 13, common: include_str!("../migrations/0013_sweep.sql"), sqlite: "", postgres: "" },
    Migration { version: 14, common: include_str!("../migrations/0014_found.sql"), sqlite: "", postgres: "" },
    Migration { version: 15, common: include_str!("../migrations/0015_upstreams.sql"), sqlite: "", postgres: "" },
    Migration { version: 16, common: include_str!("../migrations/0016_nostr.sql"), sqlite: "", postgres: "" },
    Migration { version: 17, common: include_str!("../migrations/0017_prices.sql"), sqlite: "", postgres: "" },
    Migration {
        version: 18,
        common: include_str!("../migrations/0018_prices.sql"),
        sqlite: include_str!("../migrations/0018_prices.sqlite.sql"),
        postgres: include_str!("../migrations/0018_prices.postgres.sql"),
    },
    Migration { version: 19, common: include_str!("../migrations/0019_upstream_bars.sql"), sqlite: "", postgres: "" },
    Migration {
        version: 21,
        common: include_str!("../migrations/0021_charges.sql"),
        sqlite: include_str!("../migrations/0021_charges.sqlite.sql"),
        postgres: include_str!("../migrations/0021_charges.postgres.sql"),
    },
    Migration { version: 22, common: include_str!("../migrations/0022_traffic.sql"), sqlite: "", postgres: "" },
    Migration { version: 23, common: include_str!("../migrations/0023_operators.sql"), sqlite: "", postgres: "" },
    Migration {
        version: 24,
        common: include_str!("../migrations/0024_key_management.sql"),
        sqlite: "",
        postgres: include_str!("../migrations/0024_key_management.postgres.sql"),
    },
    Migration { version: 26, common: include_str!("../migrations/0026_pages.sql"), sqlite: "", postgres: "" },
    Migration { version: 27, common: include_str!("../migrations/0027_alarms.sql"), sqlite: "", postgres: "" },
    Migration { version: 28, common: include_str!("../migrations/0028_outlays.sql"), sqlite: "", postgres: "" },
    Migration { version: 29, common: include_str!("../migrations/0029_rivals.sql"), sqlite: "", postgres: "" },
    Migration { version: 30, common: include_str!("../migrations/0030_access.sql"), sqlite: "", postgres: "" },
    Migration {
        version: 31,
        common: include_str!("../migrations/0031_request_sums.sql"),
        sqlite: include_str!("../migrations/0031_request_sums.sqlite.sql"),
        postgres: include_str!("../migrations/0031_request_sums.postgres.sql"),
    },
    Migration { version: 32, common: include_str!("../migrations/0032_own_prices.sql"), sqlite: "", postgres: "" },
];

/// The schema version that this program needs.
#[must_use]
pub fn latest_version() -> i64 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

/// Brings the database to [`latest_version`].
pub(super) async fn run(store: &Store) -> Result<(), StoreError> {
    run_to(store, latest_version()).await
}

/// Brings the database to this version.
pub(super) async fn run_to(store: &Store, known: i64) -> Result<(), StoreError> {
    let found = current_version(&store.location, &store.full).await?;
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    if found == known {
        return Ok(());
    }
    if let (Location::Sqlite(path), true) = (&store.location, found > 0) {
        backup(store, path, found).await?;
    }
    let mut tx = store.begin(Durability::Full).await?;
    if matches!(store.location, Location::Postgres(_)) {
        tx.hand().execute("SELECT pg_advisory_xact_lock(7011741)").await?;
    }
    tx.hand().execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL PRIMARY KEY)").await?;
    // Another process may have migrated while this one waited for the lock.
    let found = version_in(tx.hand()).await?;
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > found && migration.version <= known) {
        let (common, own) = match store.location {
            Location::Sqlite(_) => (migration.common.to_owned(), migration.sqlite),
            Location::Postgres(_) => (for_postgres(migration.common), migration.postgres),
        };
        sqlx::raw_sql(AssertSqlSafe(common)).execute(tx.hand()).await?;
        if !own.is_empty() {
            sqlx::raw_sql(own).execute(tx.hand()).await?;
        }
        sqlx::query("INSERT INTO schema_version (version) VALUES ($1)")
            .bind(migration.version)
            .execute(tx.hand())
            .await?;
    }
    tx.commit().await
}

/// Whether the database is at [`latest_version`], for who may not bring it there.
pub(super) async fn check(store: &Store) -> Result<(), StoreError> {
    let (found, known) = (current_version(&store.location, &store.full).await?, latest_version());
    match found.cmp(&known) {
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(StoreError::TooNew { found, known }),
        Ordering::Less => Err(StoreError::TooOld { found, known }),
    }
}

/// Migrations are written in SQLite's strict dialect; PostgreSQL differs in two words.
fn for_postgres(sql: &str) -> String {
    sql.replace(") STRICT;", ");").replace(" INTEGER", " BIGINT")
}

/// The schema version of a database; 0 where it has no tables yet.
pub(super) async fn current_version(location: &Location, pool: &AnyPool) -> Result<i64, StoreError> {
    let probe = match location {
        Location::Sqlite(_) => "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'schema_version'",
        Location::Postgres(_) => {
            "SELECT COUNT(*) FROM information_schema.tables \
             WHERE table_name = 'schema_version' AND table_schema = current_schema()"
        }
    };
    let tables: i64 = sqlx::query(probe).fetch_one(pool).await?.try_get(0)?;
    if tables == 0 {
        return Ok(0);
    }
    let mut connection = pool.acquire().await?;
    version_in(&mut *connection).await
}

async fn version_in(executor: impl AnyExecutor<'_>) -> Result<i64, StoreError> {
    let row = sqlx::query("SELECT COALESCE(MAX(version), 0) FROM schema_version").fetch_one(executor).await?;
    Ok(row.try_get(0)?)
}

async fn backup(store: &Store, path: &Path, version: i64) -> Result<(), StoreError> {
    let mut copy;
    let mut attempt = 0_u32;
    loop {
        let suffix = if attempt == 0 { String::new() } else { format!("-{attempt}") };
        copy = path.with_extension(format!("db.backup-v{version}{suffix}"));
        if !copy.exists() {
            break;
        }
        attempt = attempt.saturating_add(1);
    }
    // SQLite fills a file that is there and empty; it would create one with the process's umask.
    open::private_file(&copy)?;
    sqlx::query("VACUUM INTO $1").bind(copy.display().to_string()).execute(&store.full).await?;
    tracing::info!(copy = %copy.display(), "copied the database before migrating it");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is missing is found by the highest version that a database has, so one listed late would be left out.
    #[test]
    fn migrations_are_listed_by_rising_version() {
        for pair in MIGRATIONS.windows(2) {
            assert!(pair[0].version < pair[1].version, "{} before {}", pair[0].version, pair[1].version);
        }
        assert_eq!(MIGRATIONS.iter().map(|migration| migration.version).max(), Some(latest_version()));
    }
}
