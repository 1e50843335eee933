//! Connections that a task keeps for itself: to borrow one from a pool, and to give it back, is a round trip to the
//! database each.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, Connection as _, Row as _};
use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard};

use super::inline::{Inline, Value};
use super::{Durability, Location, Store, StoreError};

/// A connection that its owner keeps between its writing statements.
pub struct Desk {
    store: Store,
    durability: Durability,
    connection: Option<PoolConnection<Any>>,
}

/// A turn at a [`Desk`], for writing statements that are a transaction of their own each.
pub struct Turn<'a> {
    inner: &'a mut AnyConnection,
    begin: &'static str,
    _gate: Option<OwnedMutexGuard<()>>,
}

impl Desk {
    pub(super) fn new(store: Store, durability: Durability) -> Self {
        Self { store, durability, connection: None }
    }

    /// A connection on which each statement commits by itself.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn turn(&mut self) -> Result<Turn<'_>, StoreError> {
        let gate = self.store.enter().await;
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.store.writers(self.durability).acquire().await?,
        };
        Ok(Turn { inner: self.connection.insert(connection), begin: self.store.begin, _gate: gate })
    }

    /// Gives the connection back: it may be broken, or the store closes. The next turn takes another.
    pub fn leave(&mut self) {
        self.connection = None;
    }

    /// Returns when the store is being closed, which waits for [`Desk::leave`].
    pub fn closing(&self) -> impl Future<Output = ()> + use<> {
        self.store.writers(self.durability).close_event()
    }
}

impl Turn<'_> {
    /// Starts a transaction of several statements. Rolls back when dropped without a commit.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin(&mut self) -> Result<sqlx::Transaction<'_, Any>, StoreError> {
        Ok(self.inner.begin_with(self.begin).await?)
    }
}

impl Deref for Turn<'_> {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        self.inner
    }
}

impl DerefMut for Turn<'_> {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        self.inner
    }
}

/// A [`Desk`] for what every paid request waits for, [`Durability::ProcessSafe`]. On SQLite its statements run without
/// a thread between, unless each of them waits for the disk.
pub struct HotDesk {
    desk: Desk,
    /// Where SQLite's file is, if it is written without a thread between.
    file: Option<PathBuf>,
    /// While there is one, the store does not close.
    inline: Option<(Inline, OwnedRwLockReadGuard<()>)>,
}

/// A turn at a [`HotDesk`].
pub enum HotTurn<'a> {
    Pooled(Turn<'a>),
    Inline(InlineTurn<'a>),
}

/// A turn without a thread between, for statements that are a transaction of their own each.
pub struct InlineTurn<'a> {
    inner: &'a mut Inline,
    _gate: Option<OwnedMutexGuard<()>>,
}

/// What runs the statements of a [`HotTurn`].
pub enum Hand<'a> {
    Pooled(&'a mut AnyConnection),
    Inline(&'a mut Inline),
}

impl HotDesk {
    pub(super) fn new(store: Store) -> Self {
        let file = match &store.location {
            Location::Sqlite(path) if !store.syncs(Durability::ProcessSafe) => Some(path.clone()),
            _ => None,
        };
        Self { desk: Desk::new(store, Durability::ProcessSafe), file, inline: None }
    }

    /// # Errors
    /// When the database does not answer.
    pub async fn turn(&mut self) -> Result<HotTurn<'_>, StoreError> {
        let Some(file) = &self.file else { return Ok(HotTurn::Pooled(Box::pin(self.desk.turn()).await?)) };
        let store = &self.desk.store;
        let gate = store.enter().await;
        let inline = match self.inline.take() {
            Some(inline) => inline,
            None => Box::pin(open(store, file)).await?,
        };
        Ok(HotTurn::Inline(InlineTurn { inner: &mut self.inline.insert(inline).0, _gate: gate }))
    }

    /// As [`Desk::leave`].
    pub fn leave(&mut self) {
        self.inline = None;
        self.desk.leave();
    }

    /// As [`Desk::closing`].
    pub fn closing(&self) -> impl Future<Output = ()> + use<> {
        self.desk.closing()
    }
}

async fn open(store: &Store, file: &Path) -> Result<(Inline, OwnedRwLockReadGuard<()>), StoreError> {
    let stays_open = Arc::clone(&store.inline).read_owned().await;
    if store.writers(Durability::ProcessSafe).is_closed() {
        return Err(sqlx::Error::PoolClosed.into());
    }
    Ok((Inline::open(file)?, stays_open))
}

impl HotTurn<'_> {
    pub fn hand(&mut self) -> Hand<'_> {
        match self {
            Self::Pooled(turn) => Hand::Pooled(turn),
            Self::Inline(turn) => Hand::Inline(turn.inner),
        }
    }
}

impl Hand<'_> {
    /// Returns how many rows the statement changed.
    ///
    /// # Errors
    /// When the database does not answer, or refuses it.
    pub async fn execute(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<u64, StoreError> {
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
    pub async fn fetch<const N: usize>(
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
                *number = row.try_get(at)?;
            }
            Ok(numbers)
        };
        rows.iter().map(numbers).collect()
    }
}

fn query<'q>(sql: &'static str, values: &[Value<'q>]) -> sqlx::query::Query<'q, Any, AnyArguments> {
    values.iter().fold(sqlx::query(sql), |query, value| match *value {
        Value::Number(number) => query.bind(number),
        Value::Text(text) => query.bind(text),
    })
}
