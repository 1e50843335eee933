//! The whole database as one file, from one moment.
//!
//! SQLite: the file that `VACUUM INTO` makes. PostgreSQL: lines of text, `T name` before the rows of a
//! table and `R json` for each, read in one `REPEATABLE READ` transaction. They are loaded into empty
//! tables of the same version, with triggers off: what those did is in the rows already. They come in no order, so a
//! row that refers to another one of its table is held to that at the end.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use futures_util::TryStreamExt as _;
use sqlx::{AnyExecutor, AssertSqlSafe, Row};

use super::{Durability, Hand, Location, Reader, Store, StoreError, Tx, open};

/// Rows that are inserted by one statement.
const ROWS: usize = 200;
/// Tables that are not empty when they were just made: the versions of the schema, cdk's too, and where a count begins.
const NEVER_EMPTY: [&str; 3] = ["schema_version", "migrations", "price_revision"];

/// Writes the database to a new file that only its owner can read.
///
/// # Errors
/// When the database or the file does not work.
pub async fn dump(reader: &Reader, to: &Path) -> Result<(), StoreError> {
    // SQLite fills a file that is there and empty; it would create one with the process's umask.
    open::private_file(to)?;
    match reader.location() {
        Location::Sqlite(_) => {
            sqlx::query("VACUUM INTO $1").bind(to.display().to_string()).execute(reader.pool()).await?;
            Ok(())
        }
        Location::Postgres(_) => {
            let mut out = BufWriter::new(File::options().write(true).open(to).map_err(|error| io(to, &error))?);
            let mut snapshot = reader.snapshot().await?;
            for table in tables(snapshot.hand()).await? {
                writeln!(out, "T {table}").map_err(|error| io(to, &error))?;
                let sql = format!("SELECT row_to_json(t)::text FROM {} t", quoted(&table)?);
                let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut *snapshot);
                while let Some(row) = rows.try_next().await? {
                    let row: String = row.try_get(0)?;
                    writeln!(out, "R {row}").map_err(|error| io(to, &error))?;
                }
            }
            out.flush().map_err(|error| io(to, &error))
        }
    }
}

/// Fills the tables of a PostgreSQL database, just made and of the dump's version, with its rows.
///
/// # Errors
/// When the dump is not of these tables. Then nothing is filled.
pub async fn load(store: &Store, from: &Path) -> Result<(), StoreError> {
    let bad = |what: String| StoreError::Inconsistent { table: "the backup", what };
    let lines = || File::open(from).map(BufReader::new).map_err(|error| io(from, &error));
    let mut dumped = BTreeSet::new();
    for line in lines()?.lines() {
        if let Some(table) = line.map_err(|error| io(from, &error))?.strip_prefix("T ") {
            dumped.insert(table.to_owned());
        }
    }
    let mut tx = store.begin(Durability::Full).await?;
    let order = by_reference(&mut tx.hand()).await?;
    if order.iter().cloned().collect::<BTreeSet<_>>() != dumped {
        return Err(bad("its tables are not those of this program; restore with the version that made it".into()));
    }
    for table in &order {
        let table = quoted(table)?;
        run(&mut tx, format!("ALTER TABLE {table} DISABLE TRIGGER USER")).await?;
    }
    let within = within_tables(&mut tx.hand()).await?;
    change(&mut tx, &within, "DEFERRABLE INITIALLY DEFERRED").await?;
    let all = order.iter().map(|table| quoted(table)).collect::<Result<Vec<_>, _>>()?.join(", ");
    run(&mut tx, format!("TRUNCATE {all}")).await?;
    for table in &order {
        // Once through the file for each table: what others refer to comes first.
        let mut within = false;
        let mut rows = Vec::new();
        for line in lines()?.lines() {
            let line = line.map_err(|error| io(from, &error))?;
            match line.split_at_checked(2) {
                Some(("T ", name)) => within = name == table,
                Some(("R ", row)) if within => rows.push(row.to_owned()),
                Some(("R ", _)) => {}
                _ => return Err(bad("a line that is neither a table nor a row".into())),
            }
            if rows.len() == ROWS {
                insert(&mut tx, table, &mut rows).await?;
            }
        }
        insert(&mut tx, table, &mut rows).await?;
    }
    // No table can be changed while something is left to be looked at.
    run(&mut tx, "SET CONSTRAINTS ALL IMMEDIATE".to_owned()).await?;
    change(&mut tx, &within, "NOT DEFERRABLE").await?;
    for table in &order {
        let table = quoted(table)?;
        run(&mut tx, format!("ALTER TABLE {table} ENABLE TRIGGER USER")).await?;
    }
    tx.commit().await
}

async fn run(tx: &mut Tx, sql: String) -> Result<(), StoreError> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(tx.hand()).await?;
    Ok(())
}

/// Says of references when they are looked at.
async fn change(tx: &mut Tx, references: &[(String, String)], when: &str) -> Result<(), StoreError> {
    for (table, name) in references {
        let (table, name) = (quoted(table)?, quoted(name)?);
        run(tx, format!("ALTER TABLE {table} ALTER CONSTRAINT {name} {when}")).await?;
    }
    Ok(())
}

async fn insert(tx: &mut Tx, table: &str, rows: &mut Vec<String>) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let table = quoted(table)?;
    let sql = format!("INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, CAST($1 AS json))");
    let json = format!("[{}]", rows.join(","));
    sqlx::query(AssertSqlSafe(sql)).bind(json).execute(tx.hand()).await?;
    rows.clear();
    Ok(())
}

/// Refuses a place where there is a database already. On PostgreSQL, tables that were made for a dump which was not
/// loaded then are none: nothing is in them.
///
/// # Errors
/// When there is one, or it cannot be told.
pub async fn check_vacant(location: &Location) -> Result<(), StoreError> {
    match location {
        Location::Sqlite(path) => {
            let log = PathBuf::from(format!("{}-wal", path.display()));
            match [path.clone(), log].into_iter().find(|path| path.exists()) {
                None => Ok(()),
                Some(path) => {
                    Err(StoreError::Io(format!("{} is there already; nothing is overwritten", path.display())))
                }
            }
        }
        Location::Postgres(url) => {
            sqlx::any::install_default_drivers();
            let pool = open::postgres_pool(url, 1, "on").await?;
            let vacant = is_vacant(&mut Hand::Pooled(&mut *pool.acquire().await?)).await;
            pool.close().await;
            if vacant? { Ok(()) } else { Err(occupied()) }
        }
    }
}

fn occupied() -> StoreError {
    StoreError::Io("DATABASE_URL leads to a database with tables in it; nothing is overwritten".to_owned())
}

/// Removes tables that a restore has made on PostgreSQL before it failed, so that those of an earlier version can be
/// made: see [`check_vacant`].
///
/// # Errors
/// When something is in them by now, or the database does not work. Then they stay.
pub(super) async fn clear(store: &Store) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    let there = tables(tx.hand()).await?;
    let all = there.iter().map(|table| quoted(table)).collect::<Result<Vec<_>, _>>()?.join(", ");
    // Nobody puts anything in between the look and the end.
    run(&mut tx, format!("LOCK TABLE {all} IN ACCESS EXCLUSIVE MODE")).await?;
    if !is_vacant(&mut tx.hand()).await? {
        return Err(occupied());
    }
    let functions = functions(tx.hand()).await?;
    run(&mut tx, format!("DROP TABLE {all}")).await?;
    for function in &functions {
        let function = quoted(function)?;
        run(&mut tx, format!("DROP FUNCTION {function}()")).await?;
    }
    tx.commit().await
}

/// Whether there are no tables, or only ours, as they were made.
async fn is_vacant(hand: &mut Hand<'_>) -> Result<bool, StoreError> {
    let there = tables(hand.again()).await?;
    if there.is_empty() || !there.iter().any(|table| table == "schema_version") {
        return Ok(there.is_empty());
    }
    for table in there.iter().filter(|table| !NEVER_EMPTY.contains(&table.as_str())) {
        let Ok(table) = quoted(table) else { return Ok(false) };
        let sql = format!("SELECT 1 FROM {table} LIMIT 1");
        if sqlx::query(AssertSqlSafe(sql)).fetch_optional(hand.again()).await?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Puts a SQLite file where none is, in one step.
///
/// # Errors
/// When it cannot be moved there.
pub fn move_into_place(from: &Path, to: &Path) -> Result<(), StoreError> {
    if let Some(parent) = to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|error| io(parent, &error))?;
    }
    // Fails where a file came to be meanwhile.
    std::fs::hard_link(from, to).map_err(|error| io(to, &error))?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(|error| io(parent, &error))
}

async fn tables(executor: impl AnyExecutor<'_>) -> Result<Vec<String>, StoreError> {
    let rows = sqlx::query(
        "SELECT table_name::text FROM information_schema.tables \
         WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' ORDER BY table_name",
    )
    .fetch_all(executor)
    .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// The functions that triggers of the tables call.
async fn functions(executor: impl AnyExecutor<'_>) -> Result<Vec<String>, StoreError> {
    let rows = sqlx::query(
        "SELECT DISTINCT p.proname::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid \
         JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = c.relnamespace AND n.oid = p.pronamespace \
         WHERE n.nspname = current_schema() AND NOT t.tgisinternal",
    )
    .fetch_all(executor)
    .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// The tables, each after those that it refers to.
async fn by_reference(hand: &mut Hand<'_>) -> Result<Vec<String>, StoreError> {
    let rows = sqlx::query(
        "SELECT a.relname::text, b.relname::text FROM pg_constraint c \
         JOIN pg_class a ON a.oid = c.conrelid JOIN pg_class b ON b.oid = c.confrelid \
         JOIN pg_namespace n ON n.oid = a.relnamespace \
         WHERE c.contype = 'f' AND n.nspname = current_schema() AND a.oid <> b.oid",
    )
    .fetch_all(hand.again())
    .await?;
    let mut references = Vec::new();
    for row in &rows {
        references.push((row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?));
    }
    let mut left = tables(hand.again()).await?;
    let mut order: Vec<String> = Vec::new();
    while !left.is_empty() {
        let waits = |table: &String| references.iter().any(|(from, to)| from == table && !order.contains(to));
        let (later, next): (Vec<_>, Vec<_>) = left.into_iter().partition(waits);
        if next.is_empty() {
            return Err(StoreError::Inconsistent { table: "the schema", what: "tables refer to each other".into() });
        }
        order.extend(next);
        left = later;
    }
    Ok(order)
}

/// The references of tables to themselves: the table, and the name of the constraint.
async fn within_tables(hand: &mut Hand<'_>) -> Result<Vec<(String, String)>, StoreError> {
    let rows = sqlx::query(
        "SELECT a.relname::text, c.conname::text FROM pg_constraint c JOIN pg_class a ON a.oid = c.conrelid \
         JOIN pg_namespace n ON n.oid = a.relnamespace \
         WHERE c.contype = 'f' AND n.nspname = current_schema() AND c.confrelid = c.conrelid",
    )
    .fetch_all(hand.again())
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// The name of a table, a constraint or a function as part of a statement. Ours and cdk's are plain.
fn quoted(table: &str) -> Result<String, StoreError> {
    if !table.is_empty() && table.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    {
        return Ok(format!("\"{table}\""));
    }
    Err(StoreError::Inconsistent { table: "the schema", what: "a name that is not plain".into() })
}

fn io(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Io(format!("{}: {error}", path.display()))
}
