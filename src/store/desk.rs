//! Connections that a task keeps for itself: to borrow one from a pool, and to give it back, is a round trip to the
//! database each.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, Connection as _};
use tokio::sync::{OwnedMappedMutexGuard, OwnedMutexGuard, OwnedRwLockReadGuard};

use super::inline::{Inline, InlineTx};
use super::{Durability, Hand, Location, Store, StoreError};

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
    /// Keeps the store open, where nothing else does.
    _user: Option<OwnedRwLockReadGuard<()>>,
}

impl InlineTurn {
    pub(super) fn inner(&mut self) -> &mut Inline {
        &mut self.inner
    }
}

impl Store {
    /// The file that may be written without a thread between.
    pub(super) fn file(&self) -> Option<&Path> {
        match &self.location {
            Location::Sqlite(path) => Some(path),
            Location::Postgres(_) => None,
        }
    }

    /// A turn at the connection of no pool.
    pub(super) async fn in_place(
        &self,
        file: &Path,
        durability: Durability,
        user: Option<OwnedRwLockReadGuard<()>>,
    ) -> Result<InlineTurn, StoreError> {
        let gate = self.enter().await;
        let mut kept = Arc::clone(&self.inline).lock_owned().await;
        if kept.as_ref().is_some_and(|inline| !inline.is_idle()) {
            *kept = None;
        }
        let synced = self.syncs(durability);
        let mut inner = match OwnedMutexGuard::try_map(kept, Option::as_mut) {
            Ok(inner) => inner,
            Err(empty) => {
                let opened = Inline::open(file, synced)?;
                OwnedMutexGuard::map(empty, |kept| kept.insert(opened))
            }
        };
        inner.set_synced(synced)?;
        Ok(InlineTurn { inner, _gate: gate, _user: user })
    }
}

/// Several statements of a [`HotTurn`] of which all count or none. Rolls back when dropped without a commit.
pub enum HotTx<'a> {
    Pooled(sqlx::Transaction<'a, Any>),
    Inline(InlineTx<'a>),
}

impl HotDesk {
    pub(super) fn new(store: Store) -> Self {
        let file = store.file().filter(|_| !store.syncs(Durability::ProcessSafe)).map(Path::to_owned);
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
        Ok(HotTurn::Inline(store.in_place(file, Durability::ProcessSafe, None).await?))
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
