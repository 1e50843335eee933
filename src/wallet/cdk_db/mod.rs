//! The wallet store of cdk in the node's own database: `cdk-sql-common` asks for a connector, this is ours.
//!
//! cdk writes its SQL once and leaves the driver to a connector. The published SQLite connector
//! pins an sqlite3 that cannot be linked beside sqlx, so this module runs cdk's statements on the
//! store's connections without a thread ([`Inline`](crate::store::Inline)) and on sqlx's native
//! PostgreSQL ones. cdk picks its migrations by the driver's name.
//!
//! Invariants:
//! - A connection is opened by the first statement (cdk creates it in a synchronous call), belongs
//!   to one user at a time, and is never reopened inside a transaction.
//! - With a write gate (SQLite), every transaction and every lone writing statement holds it. The
//!   gate is taken before `BEGIN` and given back after `COMMIT` or `ROLLBACK` succeeded, or after
//!   the connection was closed. It is not re-entrant: never call the wallet while holding it.
//! - An abandoned transaction is rolled back by cdk in the background; if that fails the connection
//!   is discarded. A lost connection marks itself stale and never comes back from the pool.
//! - Commits wait for the disk where the settings say so (`synced`).
//! - A statement on SQLite runs in one piece, between two awaits: whoever is dropped leaves none half done.
//! - No number is ever truncated: a value that does not fit its column is an error.
//! - Neither SQL values nor connection URLs reach logs or `Debug` output.

mod drivers;

use std::fmt;
use std::io::ErrorKind::TimedOut;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cdk_common::database::{Error, WalletDatabase};
use cdk_sql_common::database::{DatabaseConnector, DatabaseExecutor, DatabaseTransaction};
use cdk_sql_common::pool::{DatabaseConfig, DatabasePool, Error as PoolError};
use cdk_sql_common::stmt::{Column, Statement};
use cdk_sql_common::wallet::SQLWalletDatabase;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::store::{Durability, Location, Store};
use drivers::{Answer, Call, Want};
pub use drivers::{Driver, Postgres, Sqlite};

/// How long a caller waits for a free connection of the pool.
const POOL_WAIT: Duration = Duration::from_secs(30);
/// How long a writer waits for the gate before it gives up with `Locked`.
const GATE_WAIT: Duration = Duration::from_secs(30);
/// How long opening a connection may take.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// A connection idle for longer is probed before it is used again.
const PROBE_AFTER: Duration = Duration::from_secs(1);

/// Any wallet store, as `cdk::wallet::WalletBuilder::localstore` takes it.
pub type WalletStore = Arc<dyn WalletDatabase<Error> + Send + Sync>;
/// cdk's wallet database on SQLite.
pub type SqliteWalletDb = SQLWalletDatabase<Adapter<Sqlite>>;
/// cdk's wallet database on PostgreSQL.
pub type PostgresWalletDb = SQLWalletDatabase<Adapter<Postgres>>;

/// Where the SQLite wallet lives. cdk's first migration takes over and drops a table named
/// `_sqlx_migrations`, and its tables have common names: nothing else in the file may use them.
#[derive(Clone, Debug)]
pub struct CdkSqliteConfig {
    /// The database file; created, readable by the owner alone, when absent.
    pub path: PathBuf,
    /// The write gate shared with everything else in this process that writes to the same file.
    pub gate: Option<Arc<Mutex<()>>>,
    /// Whether each commit waits for the disk.
    pub synced: bool,
}

/// Where the PostgreSQL wallet lives. `?options[search_path]=name` in the URL selects a schema.
#[derive(Clone)]
pub struct CdkPostgresConfig {
    /// The connection URL, possibly with a password.
    pub url: String,
    /// Whether each commit waits for the disk.
    pub synced: bool,
}

impl fmt::Debug for CdkPostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CdkPostgresConfig(..)")
    }
}

impl DatabaseConfig for CdkSqliteConfig {
    fn max_size(&self) -> usize {
        4
    }

    fn default_timeout(&self) -> Duration {
        POOL_WAIT
    }
}

impl DatabaseConfig for CdkPostgresConfig {
    fn max_size(&self) -> usize {
        8
    }

    fn default_timeout(&self) -> Duration {
        POOL_WAIT
    }
}

/// Opens the wallet store in the node's own database.
///
/// Its commits do not wait for the disk, unless all do: what is written here before a synced commit of the journal is
/// as durable as that. So whoever acts on what is stored here, at a mint or by giving it away, writes so in the
/// journal first, and nothing is stored here that must outlive an entry of the journal which comes before it.
///
/// # Errors
/// When the database does not answer.
pub async fn open(store: &Store) -> Result<WalletStore, Error> {
    let synced = store.syncs(Durability::ProcessSafe);
    match store.location() {
        Location::Sqlite(path) => open_sqlite(CdkSqliteConfig { path: path.clone(), gate: store.gate(), synced }).await,
        Location::Postgres(url) => open_postgres(CdkPostgresConfig { url: url.clone(), synced }).await,
    }
}

/// Opens the wallet store in a SQLite file and migrates it.
pub async fn open_sqlite(config: CdkSqliteConfig) -> Result<WalletStore, Error> {
    Ok(Arc::new(SqliteWalletDb::new(config).await?))
}

/// Opens the wallet store in a PostgreSQL schema and migrates it. Several processes may do so at
/// once: they take turns.
pub async fn open_postgres(config: CdkPostgresConfig) -> Result<WalletStore, Error> {
    let mut turn = Postgres::open(&config).await.map_err(|fault| fault.error)?;
    Postgres::take_turn(&mut turn).await?;
    let store = PostgresWalletDb::new(config).await?;
    Postgres::widen(&mut turn).await?;
    Postgres::close(turn).await;
    Ok(Arc::new(store))
}

/// What cdk's pool hands out: a connection of driver `D` that opens itself when first used.
pub struct Session<D: Driver> {
    config: D::Config,
    stale: Arc<AtomicBool>,
    state: Mutex<State<D::Raw>>,
}

struct State<R> {
    raw: Option<R>,
    in_transaction: bool,
    guard: Option<OwnedMutexGuard<()>>,
    used: Instant,
}

impl<D: Driver> fmt::Debug for Session<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", D::NAME)
    }
}

impl<D: Driver> Session<D> {
    async fn gate(&self) -> Result<Option<OwnedMutexGuard<()>>, Error> {
        let Some(gate) = D::gate(&self.config) else {
            return Ok(None);
        };
        let guard = tokio::time::timeout(GATE_WAIT, gate.lock_owned()).await;
        guard.map(Some).map_err(|_| Error::Locked)
    }

    /// Makes sure that there is a working connection; only outside a transaction.
    async fn ready(&self, state: &mut State<D::Raw>) -> Result<(), Error> {
        if state.used.elapsed() > PROBE_AFTER
            && let Some(raw) = state.raw.as_mut()
            && !D::alive(raw).await
        {
            state.raw = None;
        }
        if state.raw.is_none() {
            let opened = tokio::time::timeout(CONNECT_WAIT, D::open(&self.config)).await;
            let opened = opened.unwrap_or_else(|_| Err(sqlx::Error::from(std::io::Error::from(TimedOut)).into()));
            state.raw = Some(opened.map_err(|fault| fault.error)?);
        }
        Ok(())
    }

    async fn drive(&self, state: &mut State<D::Raw>, call: Call) -> Result<Answer, Error> {
        let raw = state.raw.as_mut().ok_or_else(lost)?;
        let result = D::run(raw, call).await;
        state.used = Instant::now();
        result.map_err(|fault| {
            if fault.broken {
                self.stale.store(true, Ordering::SeqCst);
                state.raw = None;
            }
            fault.error
        })
    }

    async fn control(&self, state: &mut State<D::Raw>, sql: &str) -> Result<(), Error> {
        let call = Call { sql: sql.to_owned(), values: Vec::new(), want: Want::Batch };
        self.drive(state, call).await.map(drop)
    }

    async fn ask(&self, statement: Statement, want: Want) -> Result<Answer, Error> {
        let (sql, values) = statement.to_sql()?;
        let mut state = self.state.lock().await;
        let mut guard = None;
        if !state.in_transaction {
            if want == Want::Batch || writes(&sql) {
                guard = self.gate().await?;
            }
            self.ready(&mut state).await?;
        }
        let answer = self.drive(&mut state, Call { sql, values, want }).await;
        drop(guard);
        answer
    }
}

#[async_trait::async_trait]
impl<D: Driver> DatabaseExecutor for Session<D> {
    fn name() -> &'static str {
        D::NAME
    }

    async fn execute(&self, statement: Statement) -> Result<usize, Error> {
        let affected = self.ask(statement, Want::Affected).await?.affected;
        usize::try_from(affected).map_err(|_| Error::InvalidDbResponse)
    }

    async fn fetch_one(&self, statement: Statement) -> Result<Option<Vec<Column>>, Error> {
        Ok(self.fetch_all(statement).await?.into_iter().next())
    }

    async fn fetch_all(&self, statement: Statement) -> Result<Vec<Vec<Column>>, Error> {
        Ok(self.ask(statement, Want::Rows).await?.rows)
    }

    async fn pluck(&self, statement: Statement) -> Result<Option<Column>, Error> {
        let row = self.fetch_one(statement).await?;
        Ok(row.and_then(|row| row.into_iter().next()))
    }

    async fn batch(&self, statement: Statement) -> Result<(), Error> {
        self.ask(statement, Want::Batch).await.map(drop)
    }
}

/// `BEGIN`, `COMMIT` and `ROLLBACK` together with the gate.
#[derive(Debug)]
pub struct GatedTransaction;

#[async_trait::async_trait]
impl<D: Driver> DatabaseTransaction<Session<D>> for GatedTransaction {
    async fn begin(session: &mut Session<D>) -> Result<(), Error> {
        let session = &*session;
        let mut state = session.state.lock().await;
        if state.in_transaction {
            return Err(Error::Internal("transaction inside a transaction".to_owned()));
        }
        let guard = session.gate().await?;
        session.ready(&mut state).await?;
        // Noted before it is sent: a caller that goes away meanwhile still gets its rollback.
        state.guard = guard;
        state.in_transaction = true;
        let begun = session.control(&mut state, D::BEGIN).await;
        if begun.is_err() {
            state.in_transaction = false;
            state.guard = None;
        }
        begun
    }

    async fn commit(session: &mut Session<D>) -> Result<(), Error> {
        let session = &*session;
        let mut state = session.state.lock().await;
        session.control(&mut state, "COMMIT").await?;
        state.in_transaction = false;
        state.guard = None;
        Ok(())
    }

    async fn rollback(session: &mut Session<D>) -> Result<(), Error> {
        let session = &*session;
        let mut state = session.state.lock().await;
        // Without a connection the database has rolled back by itself.
        if state.in_transaction && state.raw.is_some() {
            session.control(&mut state, "ROLLBACK").await?;
        }
        state.in_transaction = false;
        state.guard = None;
        Ok(())
    }
}

impl<D: Driver> DatabaseConnector for Session<D> {
    type Transaction = GatedTransaction;
}

/// Ties a driver to cdk's pool.
#[derive(Debug)]
pub struct Adapter<D>(PhantomData<D>);

impl<D: Driver> DatabasePool for Adapter<D> {
    type Connection = Session<D>;
    type Config = D::Config;
    type Error = Error;

    fn new_resource(
        config: &D::Config,
        stale: Arc<AtomicBool>,
        _timeout: Duration,
    ) -> Result<Session<D>, PoolError<Error>> {
        let used = Instant::now();
        let state = State { raw: None, in_transaction: false, guard: None, used };
        Ok(Session { config: config.clone(), stale, state: Mutex::new(state) })
    }

    fn drop(session: Session<D>) {
        // The gate, if still held, is given back only after the open transaction is gone.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let State { raw, guard, .. } = session.state.into_inner();
                if let Some(raw) = raw {
                    D::close(raw).await;
                }
                drop(guard);
            });
        }
    }
}

/// Whether a statement may change the database. Says yes when in doubt.
fn writes(sql: &str) -> bool {
    let mut words = sql.split(|c: char| !c.is_alphanumeric() && c != '_');
    let first = words.find(|word| !word.is_empty()).unwrap_or_default();
    match first.to_ascii_uppercase().as_str() {
        "SELECT" | "PRAGMA" => false,
        "WITH" => {
            words.any(|word| ["INSERT", "UPDATE", "DELETE", "REPLACE"].iter().any(|w| word.eq_ignore_ascii_case(w)))
        }
        _ => true,
    }
}

fn lost() -> Error {
    Error::Internal("the database connection was lost".to_owned())
}
