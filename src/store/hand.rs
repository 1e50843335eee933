//! What statements are given to, wherever they run: a connection of sqlx's, or SQLite in place ([`super::inline`]).
//!
//! Both take queries of sqlx's, as an [`Executor`]; the few of every paid request are put without what sqlx needs for
//! each, by [`Hand::run`] and [`Hand::read`].

use futures_util::future::{self, BoxFuture};
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use sqlx::any::{AnyArguments, AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo};
use sqlx::{Any, AnyConnection, Either, Execute, Executor, SqlStr};

use super::StoreError;
use super::inline::{Inline, Value};
use super::values;

/// What runs statements; each is a transaction of its own, unless one was begun.
#[derive(Debug)]
pub enum Hand<'a> {
    Pooled(&'a mut AnyConnection),
    Inline(&'a mut Inline),
}

impl Hand<'_> {
    /// This hand, for one statement of several.
    pub fn again(&mut self) -> Hand<'_> {
        match self {
            Self::Pooled(connection) => Hand::Pooled(connection),
            Self::Inline(inline) => Hand::Inline(inline),
        }
    }

    /// Returns how many rows the statement changed.
    ///
    /// # Errors
    /// When the database does not answer, or refuses it.
    pub async fn run(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        match self {
            // On the heap, for the sake of the other: what a request waits for is moved from hand to hand.
            Self::Pooled(connection) => {
                Ok(Box::pin(query(sql, values).execute(&mut **connection)).await?.rows_affected())
            }
            Self::Inline(inline) => inline.execute(sql, values).await,
        }
    }

    /// Returns rows of numbers.
    ///
    /// # Errors
    /// When the database does not answer, or refuses it.
    pub async fn read<const N: usize>(
        &mut self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<[Option<i64>; N]>, StoreError> {
        let connection = match self {
            Self::Inline(inline) => return inline.fetch(sql, values).await,
            Self::Pooled(connection) => connection,
        };
        let rows = Box::pin(query(sql, values).fetch_all(&mut **connection)).await?;
        let numbers = |row: &AnyRow| {
            let mut numbers = [None; N];
            for (at, number) in numbers.iter_mut().enumerate() {
                *number = sqlx::Row::try_get(row, at)?;
            }
            Ok(numbers)
        };
        rows.iter().map(numbers).collect()
    }
}

fn query<'q>(sql: &'static str, values: &[Value<'q>]) -> sqlx::query::Query<'q, Any, AnyArguments> {
    values.iter().fold(sqlx::query(sql), |query, value| match *value {
        Value::Null => query.bind(None::<i64>),
        Value::Number(number) => query.bind(number),
        Value::Real(number) => query.bind(number),
        Value::Text(text) => query.bind(text),
        Value::Blob(bytes) => query.bind(bytes),
    })
}

impl<'c> Executor<'c> for Hand<'c> {
    type Database = Any;

    fn fetch_many<'e, 'q: 'e, E>(self, mut query: E) -> BoxStream<'e, sqlx::Result<Either<AnyQueryResult, AnyRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let inline = match self {
            Self::Pooled(connection) => return connection.fetch_many(query),
            Self::Inline(inline) => inline,
        };
        let arguments = query.take_arguments().map_err(sqlx::Error::Encode);
        let sql = query.sql();
        let answer = async move { values::answer(inline, sql.as_str(), arguments?).await };
        stream::once(answer).map_ok(|answer| stream::iter(answer.into_iter().map(Ok))).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<AnyRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        match self {
            Self::Pooled(connection) => connection.fetch_optional(query),
            inline @ Self::Inline(_) => {
                let mut rows = inline.fetch(query);
                Box::pin(async move { rows.try_next().await })
            }
        }
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [AnyTypeInfo]) -> BoxFuture<'e, sqlx::Result<AnyStatement>>
    where
        'c: 'e,
    {
        match self {
            Self::Pooled(connection) => connection.prepare_with(sql, parameters),
            Self::Inline(_) => {
                let why = "statements are prepared where they are run".to_owned();
                Box::pin(future::ready(Err(sqlx::Error::Protocol(why))))
            }
        }
    }
}
