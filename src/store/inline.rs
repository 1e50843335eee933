//! SQLite where it is asked, for what paid requests write, and for the ecash store.
//!
//! sqlx gives every connection to SQLite a thread of its own. To hand a statement to it and to be woken by its answer
//! takes several times as long as a hold, and nobody else can run meanwhile on a machine with one core. These
//! statements read and write a few rows by their keys: less than what it would take to pass them on. Where they wait for
//! the disk, at the end of a transaction that is synced, or read many rows, other tasks are given to another thread
//! meanwhile. Checkpoints are a job.
//!
//! There is one such connection for holds, their ends and the steps of operations, which those who use it hand on with
//! the gate. What another one writes makes it forget every page that it has in memory; so what comes with requests comes
//! here, if it is short.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags, Row, Rows, ffi};
use sqlx::error::ErrorKind;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

use super::{StoreError, open};

/// Different texts that are kept prepared.
const PREPARED: usize = 96;
/// How long it waits before it tries again, while another process writes: an operator's command.
const PAUSE: Duration = Duration::from_millis(2);
/// Rows after which an answer is long.
const LONG: usize = 256;

/// What ends a transaction.
const COMMIT: &str = "COMMIT";
/// What begins one that writes: nobody else writes until it ends.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// A connection without a thread.
#[derive(Debug)]
pub struct Inline {
    connection: Connection,
    /// Its commits wait for the disk.
    synced: bool,
}

/// Several statements of which all count or none. Rolls back when dropped without a commit.
pub struct InlineTx<'a>(&'a mut Inline);

/// A parameter of a statement.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    Null,
    Number(i64),
    Real(f64),
    Text(&'a str),
    Blob(&'a [u8]),
}

/// A place in a row, as SQLite has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    Number(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

impl From<Option<i64>> for Value<'_> {
    fn from(number: Option<i64>) -> Self {
        number.map_or(Self::Null, Self::Number)
    }
}

impl Inline {
    /// A connection to a file that is there, whose commits wait for the disk if they are to be `synced`.
    ///
    /// # Errors
    /// When it is no database.
    pub fn open(path: &Path, synced: bool) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        for pragma in open::PRAGMAS {
            connection.execute_batch(pragma)?;
        }
        connection.execute_batch(synchronous(synced))?;
        // Whoever waits here keeps a thread from everybody else: see `patiently`.
        connection.busy_timeout(Duration::ZERO)?;
        connection.set_prepared_statement_cache_capacity(PREPARED);
        Ok(Self { connection, synced })
    }

    /// Whether no transaction was left open.
    pub(super) fn is_idle(&self) -> bool {
        self.connection.is_autocommit()
    }

    /// Whether its commits wait for the disk from now on. Between two transactions.
    pub(super) fn set_synced(&mut self, synced: bool) -> Result<(), StoreError> {
        if self.synced != synced {
            self.connection.execute_batch(synchronous(synced))?;
            self.synced = synced;
        }
        Ok(())
    }

    pub(super) async fn begin(&mut self) -> Result<InlineTx<'_>, StoreError> {
        self.open_tx().await?;
        Ok(InlineTx(self))
    }

    /// Begins a transaction, for who ends it by [`Inline::commit`] or [`Inline::roll_back`].
    pub(super) async fn open_tx(&mut self) -> Result<(), StoreError> {
        self.execute(BEGIN, &[]).await.map(drop)
    }

    pub(super) async fn commit(&mut self) -> Result<(), StoreError> {
        self.execute(COMMIT, &[]).await.map(drop)
    }

    /// Rolls back what was begun and not committed.
    pub(super) fn roll_back(&self) {
        // It is over after a commit, and where SQLite went back by itself.
        if !self.is_idle()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            // Whoever comes next sees that it is not idle, and takes another connection.
            tracing::warn!(%error, "a transaction could not be rolled back");
        }
    }

    /// Returns how many rows it changed.
    ///
    /// # Errors
    /// When the database refuses it, or another process does not let it have its turn.
    pub async fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        let changed = self.patiently(sql, |connection| bound(connection, sql, values)?.raw_execute()).await?;
        Ok(u64::try_from(changed).unwrap_or(u64::MAX))
    }

    /// Runs several statements without parameters. Returns how many rows the last of them changed.
    ///
    /// # Errors
    /// As [`Inline::execute`].
    pub async fn batch(&mut self, sql: &str) -> Result<u64, StoreError> {
        self.patiently(sql, |connection| connection.execute_batch(sql).map(|()| connection.changes())).await
    }

    /// Returns its rows.
    ///
    /// # Errors
    /// As [`Inline::execute`], and when a text is none.
    pub async fn rows(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Vec<Cell>>, StoreError> {
        self.patiently(sql, |connection| read_rows(&mut bound(connection, sql, values)?)).await
    }

    /// Returns rows of numbers.
    pub(super) async fn fetch<const N: usize>(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
    ) -> Result<Vec<[Option<i64>; N]>, StoreError> {
        self.patiently(sql, |connection| {
            read_all(bound(connection, sql, values)?.raw_query(), |row| {
                let mut numbers = [None; N];
                for (at, number) in numbers.iter_mut().enumerate() {
                    *number = row.get(at)?;
                }
                Ok(numbers)
            })
        })
        .await
    }

    /// Returns its rows, and how many it changed. Parameters are named by their numbers, as in `$1` and `?1`.
    ///
    /// # Errors
    /// As [`Inline::rows`].
    pub(super) async fn answer(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
    ) -> Result<(Vec<Vec<Cell>>, u64), StoreError> {
        self.patiently(sql, |connection| {
            let mut statement = numbered(connection, sql, values)?;
            let rows = read_rows(&mut statement)?;
            Ok((rows, connection.changes()))
        })
        .await
    }

    /// Again and again while another process writes.
    async fn patiently<T>(
        &mut self,
        sql: &str,
        mut run: impl FnMut(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let until = Instant::now() + open::PATIENCE;
        let ends = sql == COMMIT || (self.connection.is_autocommit() && sql != BEGIN);
        loop {
            let outcome = if self.synced && ends { aside(|| run(&self.connection)) } else { run(&self.connection) };
            match outcome {
                Err(error) if is_busy(&error) && Instant::now() < until => tokio::time::sleep(PAUSE).await,
                outcome => return Ok(outcome?),
            }
        }
    }
}

impl InlineTx<'_> {
    pub(super) fn hand(&mut self) -> &mut Inline {
        self.0
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        self.0.commit().await
    }
}

impl Drop for InlineTx<'_> {
    fn drop(&mut self) {
        self.0.roll_back();
    }
}

fn synchronous(synced: bool) -> &'static str {
    if synced { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" }
}

/// All rows of a statement; see [`LONG`].
fn read_all<T>(mut rows: Rows<'_>, read: impl Fn(&Row<'_>) -> rusqlite::Result<T>) -> rusqlite::Result<Vec<T>> {
    let mut all = Vec::new();
    while all.len() < LONG {
        let Some(row) = rows.next()? else { return Ok(all) };
        all.push(read(row)?);
    }
    aside(|| {
        while let Some(row) = rows.next()? {
            all.push(read(row)?);
        }
        Ok(all)
    })
}

/// Runs what takes long, while another thread goes on with the tasks of this one, if the runtime has others.
fn aside<T>(run: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(run),
        _ => run(),
    }
}

fn read_rows(statement: &mut CachedStatement<'_>) -> rusqlite::Result<Vec<Vec<Cell>>> {
    let columns = statement.column_count();
    read_all(statement.raw_query(), |row| (0..columns).map(|at| cell(row.get_ref(at)?)).collect())
}

/// A statement whose parameters are bound in their order.
fn bound<'c>(connection: &'c Connection, sql: &str, values: &[Value<'_>]) -> rusqlite::Result<CachedStatement<'c>> {
    let mut statement = connection.prepare_cached(sql)?;
    for (at, value) in (1..).zip(values) {
        bind(&mut statement, at, value)?;
    }
    Ok(statement)
}

/// A statement whose parameters are bound by the numbers that they have for names. To SQLite, `$2` is a name only.
fn numbered<'c>(connection: &'c Connection, sql: &str, values: &[Value<'_>]) -> rusqlite::Result<CachedStatement<'c>> {
    let mut statement = connection.prepare_cached(sql)?;
    for at in 1..=statement.parameter_count() {
        let number = statement.parameter_name(at).and_then(|name| name.get(1..)?.parse::<usize>().ok());
        let value = number.unwrap_or(at).checked_sub(1).and_then(|at| values.get(at));
        bind(&mut statement, at, value.ok_or(rusqlite::Error::InvalidParameterCount(at, values.len()))?)?;
    }
    Ok(statement)
}

fn bind(statement: &mut CachedStatement<'_>, at: usize, value: &Value<'_>) -> rusqlite::Result<()> {
    match value {
        Value::Null => statement.raw_bind_parameter(at, rusqlite::types::Null),
        Value::Number(number) => statement.raw_bind_parameter(at, number),
        Value::Real(number) => statement.raw_bind_parameter(at, number),
        Value::Text(text) => statement.raw_bind_parameter(at, text),
        Value::Blob(bytes) => statement.raw_bind_parameter(at, bytes),
    }
}

fn cell(value: ValueRef<'_>) -> rusqlite::Result<Cell> {
    Ok(match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Number(number),
        ValueRef::Real(number) => Cell::Real(number),
        text @ ValueRef::Text(_) => Cell::Text(text.as_str()?.to_owned()),
        ValueRef::Blob(bytes) => Cell::Blob(bytes.to_vec()),
    })
}

/// Whether another one writes, so that trying again may help.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// The rule of the schema that a statement broke, by SQLite's extended code. As sqlx has it: what a trigger refuses is
/// not one of them.
pub(super) fn rule(code: i32) -> ErrorKind {
    match code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY => ErrorKind::UniqueViolation,
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => ErrorKind::ForeignKeyViolation,
        ffi::SQLITE_CONSTRAINT_NOTNULL => ErrorKind::NotNullViolation,
        ffi::SQLITE_CONSTRAINT_CHECK => ErrorKind::CheckViolation,
        _ => ErrorKind::Other,
    }
}

/// The rule that a statement broke.
pub(super) fn broken_rule(error: &rusqlite::Error) -> ErrorKind {
    error.sqlite_error().map_or(ErrorKind::Other, |error| rule(error.extended_code))
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    const TABLE: &str = "CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT NOT NULL, more INTEGER); \
         CREATE TRIGGER things_are_kept BEFORE DELETE ON things BEGIN SELECT RAISE(ABORT, 'kept'); END";
    const INSERT: &str = "INSERT INTO things (id, name) VALUES (?, ?)";

    fn file() -> (tempfile::TempDir, Connection, Inline) {
        let dir = tempfile::tempdir().unwrap();
        let other = Connection::open(dir.path().join("a.db")).unwrap();
        other.execute_batch(TABLE).unwrap();
        let inline = Inline::open(&dir.path().join("a.db"), false).unwrap();
        (dir, other, inline)
    }

    #[tokio::test]
    async fn a_statement_waits_while_another_process_writes() {
        let (_dir, other, mut inline) = file();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let values = [Value::Number(1), Value::Text("one")];
        let mut insert = Box::pin(inline.execute(INSERT, &values));
        assert!(poll!(&mut insert).is_pending());
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(insert.await.unwrap(), 1);
        let rows = inline.fetch::<2>("SELECT id, more FROM things", &[]).await.unwrap();
        assert_eq!(rows, [[Some(1), None]]);
    }

    #[tokio::test]
    async fn a_transaction_counts_whole_or_not_at_all() {
        let (_dir, other, mut inline) = file();
        let count = || other.query_row("SELECT COUNT(*) FROM things", [], |row| row.get::<_, i64>(0)).unwrap();
        let values = |id| [Value::Number(id), Value::Text("one")];
        let mut left = inline.begin().await.unwrap();
        left.hand().execute(INSERT, &values(1)).await.unwrap();
        drop(left);
        assert_eq!((inline.is_idle(), count()), (true, 0));
        let mut kept = inline.begin().await.unwrap();
        for id in [1, 2] {
            kept.hand().execute(INSERT, &values(id)).await.unwrap();
        }
        assert_eq!(count(), 0, "not before its end");
        kept.commit().await.unwrap();
        assert_eq!((inline.is_idle(), count()), (true, 2));
    }

    #[tokio::test]
    async fn what_breaks_a_rule_is_told_from_what_a_trigger_refuses() {
        let (_dir, _other, mut inline) = file();
        let values = [Value::Number(1), Value::Text("one")];
        inline.execute(INSERT, &values).await.unwrap();
        let twice = inline.execute(INSERT, &values).await.unwrap_err();
        assert!(twice.is_duplicate() && twice.is_constraint(), "{twice}");
        let nameless = inline.execute("INSERT INTO things (id) VALUES (2)", &[]).await.unwrap_err();
        assert!(!nameless.is_duplicate() && nameless.is_constraint(), "{nameless}");
        let kept = inline.execute("DELETE FROM things", &[]).await.unwrap_err();
        assert!(!kept.is_duplicate() && !kept.is_constraint(), "{kept}");
    }
}
