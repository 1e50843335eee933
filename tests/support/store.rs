//! Throw-away databases for tests: a SQLite file of its own, or a PostgreSQL schema of its own.

use std::path::{Path, PathBuf};

use cdk_sql_common::SQLMintDatabase;
use coinslot::store::Store;
use coinslot::wallet::cdk_db::{self, Adapter, CdkPostgresConfig, CdkSqliteConfig, Postgres, Sqlite};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use url::Url;

/// cdk's mint database on SQLite.
pub type SqliteMintDb = SQLMintDatabase<Adapter<Sqlite>>;
/// cdk's mint database on PostgreSQL.
pub type PostgresMintDb = SQLMintDatabase<Adapter<Postgres>>;

/// A SQLite file as its migrations make it: they run once in this process, and every test gets a copy.
pub struct Made(OnceCell<Vec<u8>>);

impl Made {
    pub const fn new() -> Self {
        Self(OnceCell::const_new())
    }

    /// Puts a copy there, of what `make` makes at a path the first time.
    pub async fn copy_to(&self, path: &Path, make: impl AsyncFnOnce(&Path)) {
        let made = self.0.get_or_init(async || {
            let store = TempStore::new();
            make(&store.path()).await;
            let copy = store.dir.path().join("copy");
            let connection = rusqlite::Connection::open(store.path()).expect("it was made");
            connection.execute("VACUUM INTO ?1", [copy.display().to_string()]).expect("a copy");
            std::fs::read(copy).expect("a copy")
        });
        std::fs::write(path, made.await).expect("room for a copy");
    }
}

/// A directory that is removed with this value, and room for one database file in it.
pub struct TempStore {
    dir: TempDir,
}

impl TempStore {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("coinslot-").tempdir().expect("a temporary directory");
        Self { dir }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("test.sqlite3")
    }

    /// Settings with a write gate of its own, as the node uses it.
    pub fn config(&self) -> CdkSqliteConfig {
        let gate = Some(std::sync::Arc::new(tokio::sync::Mutex::new(())));
        CdkSqliteConfig { path: self.path(), gate, synced: true }
    }
}

/// A PostgreSQL schema of its own.
pub struct TempSchema {
    server: String,
    name: String,
}

impl TempSchema {
    /// Makes a schema, or says that the test is skipped when `TEST_POSTGRES_URL` is not set.
    pub async fn create() -> Option<Self> {
        let Ok(server) = std::env::var("TEST_POSTGRES_URL") else {
            eprintln!("SKIPPED: set TEST_POSTGRES_URL to run this test on PostgreSQL");
            return None;
        };
        let schema = Self { server, name: new_name() };
        admin(&schema.server, format!("CREATE SCHEMA {}", schema.name)).await;
        Some(schema)
    }

    /// The server's URL with this schema as search path.
    pub fn url(&self) -> String {
        let mark = if self.server.contains('?') { '&' } else { '?' };
        format!("{}{mark}options[search_path]={}", self.server, self.name)
    }

    pub fn config(&self) -> CdkPostgresConfig {
        CdkPostgresConfig { url: self.url(), synced: true }
    }

    /// Removes the schema. After a failed test it stays, to be looked at.
    pub async fn remove(self) {
        admin(&self.server, format!("DROP SCHEMA {} CASCADE", self.name)).await;
    }
}

/// A PostgreSQL database of its own, with the tables of a node that was never started: they are made once in this
/// process, and copied. A server that is not thrown away keeps the one that is copied, `test_…`.
pub struct TempDatabase {
    server: Url,
    name: String,
}

static TEMPLATE: OnceCell<String> = OnceCell::const_new();

impl TempDatabase {
    /// Makes a database on the server of `TEST_POSTGRES_URL`, whose role may do that.
    pub async fn create() -> Self {
        let server: Url = std::env::var("TEST_POSTGRES_URL").expect("TEST_POSTGRES_URL is set").parse().expect("a URL");
        let template = TEMPLATE.get_or_init(async || {
            let template = Self { server: server.clone(), name: new_name() };
            admin(server.as_str(), format!("CREATE DATABASE {}", template.name)).await;
            let dir = TempStore::new();
            let store = Store::open(dir.dir.path(), Some(&template.url()), false).await.expect("a store");
            drop(cdk_db::open(&store).await.expect("an ecash store"));
            store.close().await;
            template.name
        });
        let database = Self { name: new_name(), server: server.clone() };
        // The server waits until nobody is connected any more to the one that is copied.
        admin(server.as_str(), format!("CREATE DATABASE {} TEMPLATE {}", database.name, template.await)).await;
        database
    }

    pub fn url(&self) -> String {
        let mut url = self.server.clone();
        url.set_path(&self.name);
        url.into()
    }

    /// Removes the database. After a failed test it stays, to be looked at.
    pub async fn remove(self) {
        admin(self.server.as_str(), format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

fn new_name() -> String {
    format!("test_{}", uuid::Uuid::new_v4().simple())
}

async fn admin(server: &str, sql: String) {
    let mut connection = PgConnection::connect(server).await.expect("TEST_POSTGRES_URL");
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.expect("a statement for the server");
    connection.close().await.expect("close");
}
