//! An empty database of the kind under test, and the books in it.

use std::path::PathBuf;
use std::sync::Arc;

use coinslot::audit::Auditor;
use coinslot::clock::SystemClock;
use coinslot::ledger::PATIENCE;
use coinslot::ledger::books::Books;
use coinslot::store::{Reader, Store};
use sqlx::{AnyConnection, Connection, Row};
use tempfile::TempDir;

use super::store::TempSchema;

/// Room for one node's data: SQLite, or PostgreSQL when `TEST_DATABASE=postgres`.
pub struct TestDb {
    dir: TempDir,
    schema: Option<TempSchema>,
}

/// Whether this run is on PostgreSQL.
pub fn on_postgres() -> bool {
    std::env::var("TEST_DATABASE").as_deref() == Ok("postgres")
}

impl TestDb {
    pub async fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("coinslot-db-").tempdir().expect("a temporary directory");
        let schema =
            if on_postgres() { Some(TempSchema::create().await.expect("TEST_POSTGRES_URL is set")) } else { None };
        Self { dir, schema }
    }

    /// A directory for whatever the test wants to put beside the data.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// `DATABASE_URL`, where the default will not do.
    pub fn url(&self) -> Option<String> {
        self.schema.as_ref().map(TempSchema::url)
    }

    pub async fn open(&self) -> Store {
        self.open_with(false).await
    }

    pub async fn open_with(&self, strict: bool) -> Store {
        Store::open(&self.data_dir(), self.url().as_deref(), strict).await.expect("the database opens")
    }

    /// How many operations are open, also while a node is running.
    pub async fn open_operations(&self) -> i64 {
        sqlx::any::install_default_drivers();
        let file = || format!("sqlite:{}?mode=ro", self.data_dir().join("coinslot.db").display());
        let mut connection = AnyConnection::connect(&self.url().unwrap_or_else(file)).await.expect("a connection");
        let open = "SELECT COUNT(*) FROM operations WHERE state IN ('planned', 'acting', 'unknown')";
        let row = sqlx::query(open).fetch_one(&mut connection).await.expect("operations");
        connection.close().await.expect("close");
        row.try_get(0).expect("a count")
    }

    /// The books of a node that is not running, proven against its ecash.
    pub async fn books(&self) -> Books {
        // What was left behind is migrated by whoever opens it, as a node would.
        self.open().await.close().await;
        let reader = Reader::open(&self.data_dir(), self.url().as_deref()).await.expect("the database can be read");
        let auditor = Auditor {
            reader: reader.clone(),
            clock: Arc::new(SystemClock),
            inspector: None,
            ledger: None,
            patience: PATIENCE,
            most_asked: 0,
        };
        let report = auditor.prove().await.expect("the audit");
        assert_eq!(report.faults, Vec::<String>::new());
        let books = Books::read(&mut reader.snapshot().await.expect("a snapshot")).await.expect("books");
        reader.close().await;
        books
    }

    pub async fn remove(self) {
        if let Some(schema) = self.schema {
            schema.remove().await;
        }
    }
}
