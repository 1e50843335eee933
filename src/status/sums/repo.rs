//! The statements of the sums. All of them run on SQLite and PostgreSQL alike.

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::{COLUMNS, Key, Span, Sum};
use crate::store::{Durability, Store, StoreError};

/// What sums are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Start,
    Model,
    Upstream,
}

impl By {
    const fn column(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Model => "model",
            Self::Upstream => "upstream",
        }
    }
}

/// Adds to what is there, of this process and others: all of it, or nothing.
pub(super) async fn add(store: &Store, rows: &[(Key, Sum)]) -> Result<(), StoreError> {
    let columns = COLUMNS.join(", ");
    let marks: Vec<String> = (5..).take(COLUMNS.len()).map(|at: usize| format!("${at}")).collect();
    let sums: Vec<String> =
        COLUMNS.iter().map(|column| format!("{column} = request_sums.{column} + excluded.{column}")).collect();
    let sql = format!(
        "INSERT INTO request_sums (span, start, model, upstream, {columns}) VALUES ($1, $2, $3, $4, {}) \
         ON CONFLICT (span, start, model, upstream) DO UPDATE SET {}",
        marks.join(", "),
        sums.join(", ")
    );
    let mut tx = store.begin(Durability::ProcessSafe).await?;
    for (Key { span, start, model, upstream }, sum) in rows {
        let mut query = sqlx::query(AssertSqlSafe(sql.clone()));
        query = query.bind(span.as_str()).bind(start).bind(model).bind(upstream);
        for number in sum.numbers() {
            query = query.bind(number);
        }
        query.execute(tx.hand()).await?;
    }
    tx.commit().await
}

/// All columns, summed.
fn totals() -> String {
    COLUMNS.map(|column| format!("CAST(COALESCE(SUM({column}), 0) AS BIGINT)")).join(", ")
}

fn read(row: &AnyRow, first: usize) -> Result<Sum, StoreError> {
    let mut sum = Sum::default();
    for (at, number) in (first..).zip(sum.parts()) {
        *number = row.try_get(at)?;
    }
    Ok(sum)
}

/// The sum of all spans that begin from then on and before that.
///
/// # Errors
/// When the database does not answer.
pub async fn total(store: &Store, span: Span, (from_ms, to_ms): (i64, i64)) -> Result<Sum, StoreError> {
    let sql = format!("SELECT {} FROM request_sums WHERE span = $1 AND start >= $2 AND start < $3", totals());
    let row = sqlx::query(AssertSqlSafe(sql)).bind(span.as_str()).bind(from_ms).bind(to_ms);
    read(&row.fetch_one(store.read()).await?, 0)
}

/// One sum of a group of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The model or the upstream; of [`By::Start`], the time as text.
    pub name: String,
    pub sum: Sum,
}

/// What [`total`] sums up, told apart; the times in their order, all else with the most charged first.
///
/// # Errors
/// When the database does not answer.
pub async fn grouped(
    store: &Store,
    by: By,
    span: Span,
    (from_ms, to_ms): (i64, i64),
    limit: i64,
) -> Result<Vec<Group>, StoreError> {
    let column = by.column();
    let order = if by == By::Start { "start" } else { "SUM(charged_msat) DESC, SUM(requests) DESC, 1" };
    let sql = format!(
        "SELECT CAST({column} AS TEXT), {} FROM request_sums WHERE span = $1 AND start >= $2 AND start < $3 \
         GROUP BY {column} ORDER BY {order} LIMIT $4",
        totals()
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(span.as_str()).bind(from_ms).bind(to_ms).bind(limit);
    let rows = rows.fetch_all(store.read()).await?;
    rows.iter().map(|row| Ok(Group { name: row.try_get(0)?, sum: read(row, 1)? })).collect()
}

/// A row as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub start: i64,
    pub model: String,
    pub upstream: String,
    pub sum: Sum,
}

/// The rows that come after this one, in their order: time, model, upstream.
///
/// # Errors
/// When the database does not answer.
pub async fn after(
    store: &Store,
    span: Span,
    (start, model, upstream): (i64, &str, &str),
    to_ms: i64,
    limit: i64,
) -> Result<Vec<Stored>, StoreError> {
    let sql = format!(
        "SELECT start, model, upstream, {} FROM request_sums \
         WHERE span = $1 AND start < $2 AND (start, model, upstream) > ($3, $4, $5) \
         ORDER BY start, model, upstream LIMIT $6",
        COLUMNS.join(", ")
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(span.as_str()).bind(to_ms).bind(start).bind(model).bind(upstream);
    let rows = rows.bind(limit).fetch_all(store.read()).await?;
    let stored = |row: &AnyRow| {
        Ok(Stored { start: row.try_get(0)?, model: row.try_get(1)?, upstream: row.try_get(2)?, sum: read(row, 3)? })
    };
    rows.iter().map(stored).collect()
}

/// The hours that began before this and in which such requests began, the latest first.
///
/// # Errors
/// When the database does not answer.
pub async fn hours(
    store: &Store,
    model: Option<&str>,
    upstream: Option<&str>,
    before_ms: i64,
    limit: i64,
) -> Result<Vec<i64>, StoreError> {
    let mut sql = "SELECT DISTINCT start FROM request_sums WHERE span = 'hour' AND start < $1".to_owned();
    let named: Vec<(&str, &str)> = [("model", model), ("upstream", upstream)]
        .iter()
        .filter_map(|(column, name)| Some((*column, (*name)?)))
        .collect();
    for (mark, (column, _)) in (3..).zip(&named) {
        sql.push_str(&format!(" AND {column} = ${mark}"));
    }
    sql.push_str(" ORDER BY start DESC LIMIT $2");
    let mut query = sqlx::query(AssertSqlSafe(sql)).bind(before_ms).bind(limit);
    for (_, name) in named {
        query = query.bind(name.to_owned());
    }
    query.fetch_all(store.read()).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
