//! Connections that a task keeps for itself: to borrow one from a pool, and to give it back, is a round trip to the
//! database each.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::Arc;

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, Connection as _, Row as _};
use tokio::sync::{OwnedMappedMutexGuard, OwnedMutexGuard, OwnedRwLockReadGuard};

use super::inline::{Inline, InlineTx, Value};
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

/// A [`Desk`] for the statements of every paid request, [`Durability::ProcessSafe`]. On SQLite they run without a thread
/// between, unless each of them waits for the disk.
pub struct HotDesk {
    desk: Desk,
    /// Where SQLite's file is, if it is written without a thread between.
    file: Option<PathBuf>,
    /// While there is one, the store does not close.
    stays_open: Option<OwnedRwLockReadGuard<()>>,
}

/// A turn at a [`HotDesk`].
pub enum HotTurn<'a> {
    Pooled(Turn<'a>),
    Inline(InlineTurn),
}

/// A turn without a thread between.
pub struct InlineTurn {
    inner: OwnedMappedMutexGuard<Option<Inline>, Inline>,
    _gate: Option<OwnedMutexGuard<()>>,
}

/// Several statements of a [`HotTurn`] of which all count or none. Rolls back when dropped without a commit.
pub enum HotTx<'a> {
    Pooled(sqlx::Transaction<'a, Any>),
    Inline(InlineTx<'a>),
}

/// What runs the statements of a [`HotTurn`]; each is a transaction of its own, unless one was begun.
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
        Self { desk: Desk::new(store, Durability::ProcessSafe), file, stays_open: None }
    }

    /// # Errors
    /// When the database does not answer.
    pub async fn turn(&mut self) -> Result<HotTurn<'_>, StoreError> {
        let Some(file) = &self.file else { return Ok(HotTurn::Pooled(Box::pin(self.desk.turn()).await?)) };
        let store = &self.desk.store;
        if self.stays_open.is_none() {
            self.stays_open = Some(store.stay_open()?);
        }
        let gate = store.enter().await;
        let mut kept = Arc::clone(&store.inline).lock_owned().await;
        if kept.as_ref().is_some_and(|inline| !inline.is_idle()) {
            *kept = None;
        }
        let inner = match OwnedMutexGuard::try_map(kept, Option::as_mut) {
            Ok(inner) => inner,
            Err(empty) => {
                let opened = Inline::open(file, false)?;
                OwnedMutexGuard::map(empty, |kept| kept.insert(opened))
            }
        };
        Ok(HotTurn::Inline(InlineTurn { inner, _gate: gate }))
    }

    /// As [`Desk::leave`]. The connection without a thread is closed for everybody, as soon as nobody has a turn at it.
    pub async fn leave(&mut self) {
        self.desk.leave();
        if self.file.is_some() {
            self.desk.store.inline.lock().await.take();
        }
        self.stays_open = None;
    }

    /// As [`Desk::closing`].
    pub fn closing(&self) -> impl Future<Output = ()> + use<> {
        self.desk.closing()
    }
}

impl HotTurn<'_> {
    pub fn hand(&mut self) -> Hand<'_> {
        match self {
            Self::Pooled(turn) => Hand::Pooled(turn),
            Self::Inline(turn) => Hand::Inline(&mut turn.inner),
        }
    }

    /// # Errors
    /// When the database does not answer.
    pub async fn begin(&mut self) -> Result<HotTx<'_>, StoreError> {
        Ok(match self {
            Self::Pooled(turn) => HotTx::Pooled(Box::pin(turn.begin()).await?),
            Self::Inline(turn) => HotTx::Inline(turn.inner.begin().await?),
        })
    }
}

impl HotTx<'_> {
    pub fn hand(&mut self) -> Hand<'_> {
        match self {
            Self::Pooled(tx) => Hand::Pooled(tx),
            Self::Inline(tx) => Hand::Inline(tx.hand()),
        }
    }

    /// # Errors
    /// When the commit was not acknowledged; its outcome is then unknown.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Pooled(tx) => Ok(tx.commit().await?),
            Self::Inline(tx) => tx.commit().await,
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
        Value::Null => query.bind(None::<i64>),
        Value::Number(number) => query.bind(number),
        Value::Real(number) => query.bind(number),
        Value::Text(text) => query.bind(text),
        Value::Blob(bytes) => query.bind(bytes),
    })
}
