//! The two databases behind [`super`]: how each opens, runs a statement and spells a value.
//!
//! Invariants:
//! - A value is bound in exactly the type of its place and a column is read in exactly its own type;
//!   what does not fit is an error, nothing is truncated.
//! - On SQLite the setup of a connection is the same every time: WAL, foreign keys, commits synced or not.
//! - Statements are never logged, values neither.

use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use cdk_common::database::Error;
use cdk_sql_common::pool::DatabaseConfig;
use cdk_sql_common::stmt::Column;
use cdk_sql_common::value::Value;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Connection, Either, Executor, PgConnection};
use sqlx::{Row, SqlSafeStr, Statement, TypeInfo, ValueRef};
use tokio::sync::Mutex;

use super::{CdkPostgresConfig, CdkSqliteConfig};
use crate::store::{self, Cell, Inline, StoreError, private_file};

/// How long an idle PostgreSQL connection may take to show that it still works.
const PROBE_WAIT: Duration = Duration::from_secs(5);

/// What a statement is expected to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The number of rows it changed.
    Affected,
    /// Its rows.
    Rows,
    /// Nothing; the text may hold several statements and no placeholder.
    Batch,
}

/// One statement on its way to a driver.
pub struct Call {
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
    pub(super) want: Want,
}

/// What a driver gave back.
pub struct Answer {
    pub(super) affected: u64,
    pub(super) rows: Vec<Vec<Column>>,
}

/// Why a driver did not do what it was asked.
pub struct Fault {
    pub(super) error: Error,
    /// The connection is of no further use.
    pub(super) broken: bool,
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        let broken = match &error {
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
            // The server goes down, or a cached plan outlived a change of its table.
            sqlx::Error::Database(error) => error.code().is_some_and(|code| {
                code.len() == 5 && (["57P", "08"].iter().any(|c| code.starts_with(c)) || code == "0A000")
            }),
            _ => false,
        };
        let error = match &error {
            sqlx::Error::Database(inner) if inner.is_unique_violation() => Error::Duplicate,
            sqlx::Error::Database(inner) => match inner.code().as_deref() {
                // A serialization failure, a deadlock, a lock not available. Trying again may help.
                Some("40001" | "40P01" | "55P03") => Error::Locked,
                _ => Error::Database(Box::new(error)),
            },
            sqlx::Error::Configuration(inner) => Error::InvalidConnectionSettings(inner.to_string()),
            _ => Error::Database(Box::new(error)),
        };
        Self { error, broken }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        let error = match error {
            error if error.is_duplicate() => Error::Duplicate,
            error if error.is_busy() => Error::Locked,
            error => Error::Database(Box::new(error)),
        };
        Self { error, broken: false }
    }
}

/// What differs between the databases.
pub trait Driver: std::fmt::Debug + Send + Sync + Sized + 'static {
    /// The settings of one database.
    type Config: DatabaseConfig + 'static;
    /// A connection.
    type Raw: Send + 'static;
    /// The name by which cdk chooses migrations and dialect.
    const NAME: &'static str;
    /// The statement that opens a transaction.
    const BEGIN: &'static str;

    /// The gate to hold while writing, if there is one.
    fn gate(config: &Self::Config) -> Option<Arc<Mutex<()>>>;
    /// Opens a connection.
    fn open(config: &Self::Config) -> impl Future<Output = Result<Self::Raw, Fault>> + Send;
    /// Tells whether an idle connection still works.
    fn alive(raw: &mut Self::Raw) -> impl Future<Output = bool> + Send;
    /// Runs one statement.
    fn run(raw: &mut Self::Raw, call: Call) -> impl Future<Output = Result<Answer, Fault>> + Send;
    /// Closes a connection and waits until it is closed.
    fn close(raw: Self::Raw) -> impl Future<Output = ()> + Send;
}

/// The SQLite driver.
#[derive(Debug)]
pub struct Sqlite;

/// The PostgreSQL driver.
#[derive(Debug)]
pub struct Postgres;

impl Driver for Sqlite {
    type Config = CdkSqliteConfig;
    type Raw = Inline;
    const NAME: &'static str = "sqlite";
    const BEGIN: &'static str = "BEGIN IMMEDIATE";

    fn gate(config: &CdkSqliteConfig) -> Option<Arc<Mutex<()>>> {
        config.gate.clone()
    }

    async fn open(config: &CdkSqliteConfig) -> Result<Inline, Fault> {
        private_file(&config.path)?;
        Ok(Inline::open(&config.path, config.synced)?)
    }

    async fn alive(_raw: &mut Inline) -> bool {
        true
    }

    async fn run(raw: &mut Inline, call: Call) -> Result<Answer, Fault> {
        // SQLite locks the whole file and has no word for locking a row.
        let sql = call.sql.trim_end();
        let sql = sql.strip_suffix("FOR UPDATE").unwrap_or(sql);
        let values: Vec<store::Value<'_>> = call.values.iter().map(sqlite_value).collect();
        Ok(match call.want {
            Want::Batch => answer_affected(raw.batch(sql).await?),
            Want::Affected => answer_affected(raw.execute(sql, &values).await?),
            Want::Rows => {
                let rows = raw.rows(sql, &values).await?;
                answer_rows(rows.into_iter().map(|row| row.into_iter().map(sqlite_column).collect()).collect())
            }
        })
    }

    async fn close(raw: Inline) {
        drop(raw);
    }
}

impl Driver for Postgres {
    type Config = CdkPostgresConfig;
    type Raw = PgConnection;
    const NAME: &'static str = "postgres";
    const BEGIN: &'static str = "START TRANSACTION";

    fn gate(_config: &CdkPostgresConfig) -> Option<Arc<Mutex<()>>> {
        None
    }

    async fn open(config: &CdkPostgresConfig) -> Result<PgConnection, Fault> {
        let options = PgConnectOptions::from_str(&config.url)?;
        let mut connection = options.disable_statement_logging().connect().await?;
        if !config.synced {
            connection.execute("SET synchronous_commit = off").await?;
        }
        Ok(connection)
    }

    async fn alive(raw: &mut PgConnection) -> bool {
        let probe = tokio::time::timeout(PROBE_WAIT, raw.ping()).await;
        matches!(probe, Ok(Ok(())))
    }

    async fn run(raw: &mut PgConnection, call: Call) -> Result<Answer, Fault> {
        let sql = AssertSqlSafe(call.sql).into_sql_str();
        if call.want == Want::Batch {
            let done = raw.execute(sqlx::raw_sql(sql)).await?;
            return Ok(answer_affected(done.rows_affected()));
        }
        // The binary protocol wants every value in exactly the type of its place. Preparing tells
        // those types; it costs a round trip the first time only, the statement is cached.
        let prepared = raw.prepare(sql.clone()).await?;
        let kinds = match prepared.parameters() {
            Some(Either::Left(kinds)) => kinds,
            _ => &[],
        };
        if kinds.len() != call.values.len() {
            return Err(sqlx::Error::Encode("wrong number of values".into()).into());
        }
        let mut arguments = PgArguments::default();
        for (kind, value) in kinds.iter().zip(call.values) {
            pg_add(&mut arguments, kind.name(), value).map_err(sqlx::Error::Encode)?;
        }
        if call.want == Want::Affected {
            let done = raw.execute(sqlx::query_with(sql, arguments)).await?;
            return Ok(answer_affected(done.rows_affected()));
        }
        let rows = raw.fetch_all(sqlx::query_with(sql, arguments)).await?;
        Ok(answer_rows(rows.iter().map(pg_row).collect::<Result<_, _>>()?))
    }

    async fn close(raw: PgConnection) {
        if let Err(error) = raw.close().await {
            tracing::debug!(%error, "closing a wallet database connection");
        }
    }
}

impl Postgres {
    /// Holds the migration lock of the schema on this connection until it is closed.
    pub(super) async fn take_turn(raw: &mut PgConnection) -> Result<(), Error> {
        let schema = "SELECT current_schema()::text";
        let schema: Option<String> = sqlx::query_scalar(schema).fetch_one(&mut *raw).await.map_err(fault)?;
        let Some(schema) = schema else {
            let why = "the search_path names no schema that exists".to_owned();
            return Err(Error::InvalidConnectionSettings(why));
        };
        raw.execute("SET lock_timeout = '60s'").await.map_err(fault)?;
        sqlx::query("SELECT pg_advisory_lock(hashtextextended('cdk wallet ' || $1, 0))")
            .bind(schema)
            .execute(raw)
            .await
            .map_err(fault)?;
        Ok(())
    }

    /// cdk keeps amounts and times in 32-bit columns on PostgreSQL: 2,147,483 sat in a msat wallet,
    /// and no date after 2038. It reads them as 64-bit numbers, so they can simply be wider.
    pub(super) async fn widen(raw: &mut PgConnection) -> Result<(), Error> {
        let narrow: Vec<(String, String)> = sqlx::query_as(
            "SELECT table_name::text, column_name::text FROM information_schema.columns
             WHERE table_schema = current_schema() AND data_type = 'integer'
             AND table_name IN ('mint', 'keyset', 'proof', 'transactions', 'mint_quote', 'melt_quote')
             AND column_name IN ('amount', 'amount_paid', 'amount_issued', 'fee', 'fee_reserve',
                                 'expiry', 'final_expiry', 'timestamp', 'mint_time')",
        )
        .fetch_all(&mut *raw)
        .await
        .map_err(fault)?;
        for (table, column) in narrow {
            let sql = format!("ALTER TABLE {table} ALTER COLUMN {column} TYPE BIGINT");
            raw.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map_err(fault)?;
        }
        Ok(())
    }
}

fn fault(error: sqlx::Error) -> Error {
    Fault::from(error).error
}

fn answer_affected(affected: u64) -> Answer {
    Answer { affected, rows: Vec::new() }
}

fn answer_rows(rows: Vec<Vec<Column>>) -> Answer {
    Answer { affected: 0, rows }
}

fn sqlite_value(value: &Value) -> store::Value<'_> {
    match value {
        Value::Null => store::Value::Null,
        Value::Integer(value) => store::Value::Number(*value),
        Value::Real(value) => store::Value::Real(*value),
        Value::Text(value) => store::Value::Text(value),
        Value::Blob(value) => store::Value::Blob(value),
    }
}

fn sqlite_column(cell: Cell) -> Column {
    match cell {
        Cell::Null => Value::Null,
        Cell::Number(value) => Value::Integer(value),
        Cell::Real(value) => Value::Real(value),
        Cell::Text(value) => Value::Text(value),
        Cell::Blob(value) => Value::Blob(value),
    }
}

fn pg_row(row: &PgRow) -> sqlx::Result<Vec<Column>> {
    let column = |at: usize| -> sqlx::Result<Column> {
        let raw = row.try_get_raw(at)?;
        if raw.is_null() {
            return Ok(Value::Null);
        }
        let kind = raw.type_info();
        match kind.name() {
            "BOOL" => row.try_get_unchecked(at).map(|value: bool| Value::Integer(value.into())),
            "INT2" | "INT4" | "INT8" => row.try_get_unchecked(at).map(Value::Integer),
            "FLOAT4" => row.try_get_unchecked(at).map(|value: f32| Value::Real(value.into())),
            "FLOAT8" => row.try_get_unchecked(at).map(Value::Real),
            "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "UNKNOWN" => row.try_get_unchecked(at).map(Value::Text),
            "BYTEA" => row.try_get_unchecked(at).map(Value::Blob),
            "NUMERIC" => raw
                .as_bytes()
                .ok()
                .and_then(whole_numeric)
                .map(Value::Integer)
                .ok_or_else(|| sqlx::Error::Decode("not a whole 64-bit number".into())),
            "VOID" => Ok(Value::Null),
            other => Err(sqlx::Error::Decode(format!("column of type {other}").into())),
        }
    };
    (0..row.len()).map(column).collect()
}

/// A `NUMERIC` in PostgreSQL's binary format (what `SUM` makes of `BIGINT`), if it is a whole
/// number of 64 bits: four 16-bit fields (digit count, weight, sign, scale), then base-10000 digits.
fn whole_numeric(bytes: &[u8]) -> Option<i64> {
    let (words, []) = bytes.as_chunks::<2>() else {
        return None;
    };
    let mut words = words.iter().map(|word| u16::from_be_bytes(*word));
    let (_count, weight, sign, _scale) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let whole_digits = i32::from(weight.cast_signed()).saturating_add(1);
    let mut total: i64 = 0;
    for _ in 0..whole_digits {
        let digit = i64::from(words.next().unwrap_or(0));
        let digit = if sign == 0x4000 { digit.saturating_neg() } else { digit };
        total = total.checked_mul(10_000)?.checked_add(digit)?;
    }
    (matches!(sign, 0 | 0x4000) && words.all(|digit| digit == 0)).then_some(total)
}

/// Adds a value in the type that its place in the statement has.
fn pg_add(arguments: &mut PgArguments, kind: &str, value: Value) -> Result<(), BoxDynError> {
    match (kind, value) {
        ("BOOL", Value::Null) => arguments.add(None::<bool>),
        ("BOOL", Value::Integer(value @ (0 | 1))) => arguments.add(value == 1),
        ("INT2", Value::Null) => arguments.add(None::<i16>),
        ("INT2", Value::Integer(value)) => arguments.add(i16::try_from(value)?),
        ("INT4", Value::Null) => arguments.add(None::<i32>),
        ("INT4", Value::Integer(value)) => arguments.add(i32::try_from(value)?),
        ("INT8", Value::Null) => arguments.add(None::<i64>),
        ("INT8", Value::Integer(value)) => arguments.add(value),
        ("FLOAT4" | "FLOAT8", Value::Null) => arguments.add(None::<f64>),
        ("FLOAT8", Value::Real(value)) => arguments.add(value),
        ("BYTEA", Value::Null) => arguments.add(None::<Vec<u8>>),
        ("BYTEA", Value::Blob(value)) => arguments.add(value),
        ("BYTEA", Value::Text(value)) => arguments.add(value.into_bytes()),
        ("TEXT" | "VARCHAR" | "CHAR" | "NAME", value) => match value {
            Value::Null => arguments.add(None::<String>),
            Value::Text(value) => arguments.add(value),
            Value::Blob(value) => arguments.add(String::from_utf8(value)?),
            Value::Integer(value) => arguments.add(value.to_string()),
            Value::Real(value) => arguments.add(value.to_string()),
        },
        (kind, _) => Err(format!("a value that does not fit a parameter of type {kind}").into()),
    }
}
