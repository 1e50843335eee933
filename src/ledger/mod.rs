//! Double-entry books over the database.
//!
//! * A *transfer* moves an amount from one account to another, for what its [`TransferKind`] says,
//!   and is never changed. The sum of all accounts is always zero; an account's `posted` is the sum
//!   of its transfers, cached and verified ([`books`]).
//! * A *hold* sets money aside for one request. It is a row with an owner and one end: captured
//!   (charged) or released. [`hold::Hold`] is consumed by either, and posts itself for release
//!   when it is dropped.
//! * `available = posted − held`. There is no other definition.
//! * A key may have [`terms`]: a parent whose money it spends, a cap, an end, a profile of prices
//!   ([`tariffs`]).
//! * The operator looks through [`keys`], blocks them, and moves money between them and the income.
//! * What a charge was reckoned by is kept too, once for all charges ([`sheets`]).
//! * [`vouchers`] promise money of the income to whoever has their code.
//! * The database is the authority, so several processes can share it. Each process has one
//!   writer that folds whatever queued up into one statement for all holds and one for all ends.
#![deny(clippy::arithmetic_side_effects, clippy::as_conversions)]

pub mod account;
pub mod books;
pub mod hold;
pub mod keys;
mod live;
pub mod repo;
pub mod requests;
pub mod sheets;
pub mod tariffs;
pub mod terms;
mod transfer;
pub mod vouchers;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::clock::SharedClock;
use crate::money::Msat;
use crate::store::{Store, StoreError};

use crate::store::ids::Ids;
pub use account::{Account, AccountId, AccountKind, Balance};
pub use hold::{Hold, Settlement};
use live::Live;
pub use terms::Source;
pub use transfer::TransferKind;
use writer::Entry;
pub use writer::WriterStats;

/// Why money could not be set aside.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Less is available than asked for.
    #[error("{available} available")]
    Insufficient { available: Msat },
    /// The key's cap leaves less than was asked for.
    #[error("{left} left of the key's limit")]
    LimitReached { left: Msat },
    /// The key's validity has ended.
    #[error("the key's validity has ended")]
    KeyExpired,
    /// The operator has blocked the key, or the one whose money it spends.
    #[error("the key is blocked")]
    KeyBlocked,
    #[error("no such account")]
    UnknownAccount,
    /// The database did not answer; nothing is known to be held, and what may be is released.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
    #[error("the node is shutting down")]
    Closed,
}

/// Why the end of a hold is not confirmed. The writer keeps trying; the hold is not lost.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    #[error("the ledger has not confirmed the settlement yet")]
    Unconfirmed,
    #[error("the hold had already ended")]
    AlreadyEnded,
}

/// How many ids are tried for one hold.
const ID_ATTEMPTS: u32 = 64;

/// Silence after which a process is taken for dead, unless [`Ledger::with_patience`] says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The books, open for writing.
#[derive(Clone, Debug)]
pub struct Ledger {
    inner: Arc<Inner>,
    /// See [`Ledger::with_patience`].
    patience: Duration,
}

#[derive(Debug)]
pub(crate) struct Inner {
    store: Store,
    clock: SharedClock,
    /// Names this process on its holds and operations.
    owner: String,
    ids: Ids,
    queue: mpsc::UnboundedSender<Entry>,
    stats: Arc<WriterStats>,
    live: Arc<Live>,
    house: account::House,
}

impl Ledger {
    /// Opens the books and returns the writer's loop, which the caller runs as a task. It ends
    /// when the last handle and the last hold are gone.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn open(
        store: Store,
        clock: SharedClock,
        owner: String,
    ) -> Result<(Self, impl Future<Output = ()> + Send + 'static), StoreError> {
        let ids = Ids::new(&owner);
        let house = account::House::ensure(&store, &ids, clock.now_ms()).await?;
        let (queue, entries) = mpsc::unbounded_channel();
        let stats = Arc::new(WriterStats::default());
        let live = Arc::new(Live::default());
        let writer = writer::Writer::new(store.clone(), Arc::clone(&clock), owner.clone(), &stats, &live);
        let inner = Inner { store, clock, owner, ids, queue, stats, live, house };
        Ok((Self { inner: Arc::new(inner), patience: PATIENCE }, writer.run(entries)))
    }

    /// These books, for a process that takes another one for dead after this much silence, instead of [`PATIENCE`].
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// See [`Ledger::with_patience`].
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Processes that were not seen since then are dead.
    #[must_use]
    pub fn dead_before_ms(&self) -> i64 {
        let patience = i64::try_from(self.patience.as_millis()).unwrap_or(i64::MAX);
        self.inner.clock.now_ms().saturating_sub(patience)
    }

    /// Notes that this process is alive. Names those that are dead.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn heartbeat(&self) -> Result<Vec<String>, StoreError> {
        let inner = &self.inner;
        repo::heartbeat(&inner.store, &inner.owner, inner.clock.now_ms(), self.dead_before_ms()).await
    }

    /// Whether another process is alive on this database.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn has_company(&self) -> Result<bool, StoreError> {
        repo::has_company(&self.inner.store, &self.inner.owner, self.dead_before_ms()).await
    }

    /// Sets `amount` aside for `request`, in one atomic statement.
    ///
    /// # Errors
    /// [`HoldError::Insufficient`] when less is available, [`HoldError::LimitReached`],
    /// [`HoldError::KeyExpired`] or [`HoldError::KeyBlocked`] when the terms of the key forbid it.
    pub async fn hold(&self, source: impl Into<Source>, amount: Msat, request: &str) -> Result<Hold, HoldError> {
        let source = source.into();
        let mut attempts_left = ID_ATTEMPTS;
        loop {
            match self.try_hold(source, amount, request).await {
                // Another process has a hold with this id.
                Err(HoldError::Store(error)) if error.is_duplicate() && attempts_left > 0 => {
                    attempts_left = attempts_left.saturating_sub(1);
                }
                outcome => return outcome,
            }
        }
    }

    async fn try_hold(&self, source: Source, amount: Msat, request: &str) -> Result<Hold, HoldError> {
        let id = self.inner.ids.next(self.inner.clock.now_ms());
        let hold = Hold::new(id, source.account, amount, Arc::clone(&self.inner));
        self.inner.live.insert(id);
        let (reply, answer) = oneshot::channel();
        let entry = Entry::Place { id, source, amount, request: request.to_owned(), reply };
        // From here on a dropped future drops `hold`, which posts its release behind this entry.
        let outcome = match self.inner.queue.send(entry) {
            Ok(()) => answer.await.unwrap_or(Err(HoldError::Closed)),
            Err(_) => Err(HoldError::Closed),
        };
        match outcome {
            Ok(()) => Ok(hold),
            // It may have been placed: dropping `hold` releases it, if it is this process's.
            Err(HoldError::Store(error)) => Err(HoldError::Store(error)),
            Err(refused) => {
                self.inner.live.remove(id);
                hold.forget();
                Err(refused)
            }
        }
    }

    /// Releases the open holds that `owner` left behind. Returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn release_orphans(&self, owner: &str) -> Result<u64, StoreError> {
        repo::release_orphans(&self.inner.store, owner, self.inner.clock.now_ms()).await
    }

    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    #[must_use]
    pub fn clock(&self) -> &SharedClock {
        &self.inner.clock
    }

    #[must_use]
    pub fn owner(&self) -> &str {
        &self.inner.owner
    }

    #[must_use]
    pub fn house(&self) -> account::House {
        self.inner.house
    }

    /// A new id for a row.
    #[must_use]
    pub fn next_id(&self) -> i64 {
        self.inner.ids.next(self.inner.clock.now_ms())
    }

    /// Whether this process has a hold to end: its request runs, or its end is not written yet. The
    /// row of one that is not live, and was open before this was asked, has ended or is orphaned.
    #[must_use]
    pub fn is_live(&self, hold: i64) -> bool {
        self.inner.live.contains(hold)
    }

    /// How many holds this process has to end.
    #[must_use]
    pub fn live_holds(&self) -> usize {
        self.inner.live.count()
    }

    /// How many entries and commits the writer has made.
    #[must_use]
    pub fn stats(&self) -> &WriterStats {
        &self.inner.stats
    }
}

impl Inner {
    async fn end(&self, end: writer::End) -> Result<Msat, SettleError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Entry::End { end, reply: Some(reply) }).map_err(|_| SettleError::Unconfirmed)?;
        match tokio::time::timeout(hold::PATIENCE, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(SettleError::Unconfirmed),
        }
    }

    fn abandon(&self, end: writer::End) {
        // A closed queue means the process is ending; the next start releases the hold.
        let _closed = self.queue.send(Entry::End { end, reply: None });
    }
}
