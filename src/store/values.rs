//! What sqlx's queries hold and give, for SQLite in place: its parameters, rows and errors.
//!
//! The types are those by which sqlx's own drivers serve `Any`; sqlx does not promise to keep them.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;

use sqlx::any::{AnyArguments, AnyQueryResult, AnyRow, AnyTypeInfo, AnyTypeInfoKind, AnyValue};
use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::{Either, Error as SqlxError};
use sqlx_core::any::{AnyColumn, AnyValueKind};

use super::StoreError;
use super::inline::{self, Cell, Inline, Value};

/// What a statement gives: its rows, and how many it changed.
pub(super) async fn answer(
    inline: &mut Inline,
    sql: &str,
    arguments: Option<AnyArguments>,
) -> Result<Vec<Either<AnyQueryResult, AnyRow>>, SqlxError> {
    let given = arguments.unwrap_or_default().values.0;
    let values = given.iter().map(value).collect::<Result<Vec<_>, _>>()?;
    let (rows, rows_affected) = inline.answer(sql, &values).await.map_err(fault)?;
    let rows = rows.into_iter().map(|cells| Either::Right(row(cells)));
    Ok(rows.chain([Either::Left(AnyQueryResult { rows_affected, last_insert_id: None })]).collect())
}

fn value(given: &AnyValueKind) -> Result<Value<'_>, SqlxError> {
    Ok(match given {
        AnyValueKind::Null(_) => Value::Null,
        AnyValueKind::Bool(is_so) => Value::Number((*is_so).into()),
        AnyValueKind::SmallInt(number) => Value::Number((*number).into()),
        AnyValueKind::Integer(number) => Value::Number((*number).into()),
        AnyValueKind::BigInt(number) => Value::Number(*number),
        AnyValueKind::Real(number) => Value::Real((*number).into()),
        AnyValueKind::Double(number) => Value::Real(*number),
        AnyValueKind::Text(text) => Value::Text(text),
        AnyValueKind::TextSlice(text) => Value::Text(text),
        AnyValueKind::Blob(bytes) => Value::Blob(bytes),
        other => return Err(SqlxError::Encode(format!("SQLite has no {other:?}").into())),
    })
}

/// Columns have places, and no names.
fn row(cells: Vec<Cell>) -> AnyRow {
    let (columns, values) = (0..).zip(cells).map(column).unzip();
    AnyRow { column_names: Arc::default(), columns, values }
}

fn column((ordinal, cell): (usize, Cell)) -> (AnyColumn, AnyValue) {
    let (of, kind) = match cell {
        Cell::Null => (AnyTypeInfoKind::Null, AnyValueKind::Null(AnyTypeInfoKind::Null)),
        Cell::Number(number) => (AnyTypeInfoKind::BigInt, AnyValueKind::BigInt(number)),
        Cell::Real(number) => (AnyTypeInfoKind::Double, AnyValueKind::Double(number)),
        Cell::Text(text) => (AnyTypeInfoKind::Text, AnyValueKind::Text(Arc::new(text))),
        Cell::Blob(bytes) => (AnyTypeInfoKind::Blob, AnyValueKind::Blob(Arc::new(bytes))),
    };
    (AnyColumn { ordinal, name: "".into(), type_info: AnyTypeInfo { kind: of } }, AnyValue { kind })
}

/// What SQLite refused, as sqlx's own driver says it.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
struct Refused {
    said: String,
    code: Option<i32>,
}

impl DatabaseError for Refused {
    fn message(&self) -> &str {
        &self.said
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        self.code.map(|code| code.to_string().into())
    }

    fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        self.code.map_or(ErrorKind::Other, inline::rule)
    }
}

/// This error for those who use sqlx.
pub(super) fn fault(error: StoreError) -> SqlxError {
    match error {
        StoreError::Sqlite(error) => {
            let code = error.sqlite_error().map(|error| error.extended_code);
            Refused { said: error.to_string(), code }.into()
        }
        StoreError::Sql(error) => error,
        other => SqlxError::AnyDriverError(Box::new(other)),
    }
}
