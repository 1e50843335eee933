//! The one task of a process that places and ends holds.
//!
//! It takes whatever has queued up, at most [`BATCH`] entries, turns it into a handful of
//! set-based statements and one commit, then answers everyone who waits. There is no timer: while
//! one batch commits, the next one queues, so commits per request fall as concurrency rises.
//!
//! A batch that fails on the database's part is tried again. If the failure breaks a rule of the
//! schema, its entries are applied one by one, so a bad entry fails alone. An end is never given
//! up: it stays in line until it is written.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::account::{AccountId, Balance, House};
use super::ids::Ids;
use super::{HoldError, SettleError, repo};
use crate::clock::SharedClock;
use crate::money::Msat;
use crate::store::{Durability, Store, StoreError};

/// Most entries in one commit.
const BATCH: usize = 256;
/// Attempts at a batch before the holds in it are refused; ends stay in line beyond it.
const ATTEMPTS: u32 = 4;

/// A hold to be placed, or ended.
#[derive(Debug)]
pub(super) enum Entry {
    Place { id: i64, account: AccountId, amount: Msat, request: String, reply: oneshot::Sender<Result<(), HoldError>> },
    End { end: End, reply: Option<oneshot::Sender<Result<Balance, SettleError>>> },
}

/// The end of one hold: what is charged of it (nothing: released).
#[derive(Clone, Debug)]
pub(super) struct End {
    pub id: i64,
    pub account: AccountId,
    pub held: Msat,
    pub charge: Msat,
    /// Id of the transfer that the charge becomes.
    pub transfer: i64,
    pub reference: String,
}

/// How busy the writer has been, for metrics and the benchmark of group commit.
#[derive(Debug, Default)]
pub struct WriterStats {
    entries: AtomicU64,
    commits: AtomicU64,
}

impl WriterStats {
    /// Holds placed and ended so far.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Commits they took.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}

/// The outcome of a batch that was committed, by hold id.
#[derive(Default)]
struct Outcome {
    refused: HashMap<i64, HoldError>,
    ended: HashMap<i64, bool>,
    balances: HashMap<AccountId, Balance>,
}

struct Writer {
    store: Store,
    clock: SharedClock,
    owner: String,
    ids: Arc<Ids>,
    house: House,
    stats: Arc<WriterStats>,
}

pub(super) async fn run(
    store: Store,
    clock: SharedClock,
    owner: String,
    ids: Arc<Ids>,
    house: House,
    mut entries: mpsc::UnboundedReceiver<Entry>,
    stats: Arc<WriterStats>,
) {
    let writer = Writer { store, clock, owner, ids, house, stats };
    let mut line: VecDeque<Entry> = VecDeque::new();
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        if line.is_empty() {
            match entries.recv().await {
                Some(entry) => line.push_back(entry),
                None => return,
            }
        }
        while line.len() < BATCH {
            match entries.try_recv() {
                Ok(entry) => line.push_back(entry),
                Err(_) => break,
            }
        }
        batch.extend(line.drain(..line.len().min(BATCH)));
        let left = writer.apply(std::mem::take(&mut batch)).await;
        for entry in left.into_iter().rev() {
            line.push_front(entry);
        }
    }
}

impl Writer {
    /// Commits a batch and answers it. Returns the entries that have to be tried again.
    async fn apply(&self, batch: Vec<Entry>) -> Vec<Entry> {
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            match self.commit(&batch).await {
                Ok(outcome) => {
                    self.count(batch.len());
                    answer(batch, outcome);
                    return Vec::new();
                }
                Err(error) if error.is_constraint() => {
                    return self.apply_singly(batch, error).await;
                }
                Err(error) => {
                    tracing::warn!(%error, attempt, entries = batch.len(), "ledger batch failed");
                    failure = Some(Arc::new(error));
                    tokio::time::sleep(Duration::from_millis(20_u64 << attempt.min(6))).await;
                }
            }
        }
        let failure = failure.unwrap_or_else(|| Arc::new(StoreError::Io("no attempt made".into())));
        refuse_places(batch, &failure)
    }

    /// One entry a commit, so that only the one that breaks a rule fails.
    async fn apply_singly(&self, batch: Vec<Entry>, error: StoreError) -> Vec<Entry> {
        if batch.len() == 1 {
            let mut batch = batch;
            if let (Some(Entry::End { end, .. }), true) = (batch.first_mut(), error.is_duplicate()) {
                // Another process has made a transfer with this id: the charge gets another one.
                end.transfer = self.ids.next(self.clock.now_ms());
                return batch;
            }
            tracing::error!(%error, "the ledger refused an entry");
            let error = Arc::new(error);
            for entry in refuse_places(batch, &error) {
                if let Entry::End { reply: Some(reply), .. } = entry {
                    let _gone = reply.send(Err(SettleError::AlreadyEnded));
                }
            }
            return Vec::new();
        }
        let mut left = Vec::new();
        for entry in batch {
            let single = vec![entry];
            match self.commit(&single).await {
                Ok(outcome) => {
                    self.count(1);
                    answer(single, outcome);
                }
                Err(error) if error.is_constraint() => {
                    left.extend(Box::pin(self.apply_singly(single, error)).await);
                }
                Err(_) => left.extend(single),
            }
        }
        left
    }

    fn count(&self, entries: usize) {
        let entries = u64::try_from(entries).unwrap_or(u64::MAX);
        self.stats.entries.fetch_add(entries, Ordering::Relaxed);
        self.stats.commits.fetch_add(1, Ordering::Relaxed);
    }

    async fn commit(&self, batch: &[Entry]) -> Result<Outcome, StoreError> {
        let now_ms = self.clock.now_ms();
        let mut ends = Vec::new();
        let mut places = Vec::new();
        for entry in batch {
            match entry {
                Entry::Place { id, account, amount, request, .. } => {
                    places.push(repo::Place { id: *id, account: *account, amount: *amount, request });
                }
                Entry::End { end, .. } => ends.push(end),
            }
        }
        let mut outcome = Outcome::default();
        let mut tx = self.store.begin(Durability::ProcessSafe).await?;
        // Places go first, so that a hold abandoned in the same batch is there to be released.
        let refused = repo::place_holds(&mut tx, &places, &self.owner, now_ms).await?;
        for (id, balance) in refused {
            outcome.refused.insert(
                id,
                match balance {
                    Some(balance) => HoldError::Insufficient { available: balance.available() },
                    None => HoldError::UnknownAccount,
                },
            );
        }
        let settled = repo::end_holds(&mut tx, &ends, &self.owner, self.house, now_ms).await?;
        outcome.ended = settled.ended;
        outcome.balances = settled.balances;
        tx.commit().await?;
        Ok(outcome)
    }
}

/// Tells everyone who waits how the committed batch went.
fn answer(batch: Vec<Entry>, mut outcome: Outcome) {
    for entry in batch {
        match entry {
            Entry::Place { id, reply, .. } => {
                let verdict = outcome.refused.remove(&id).map_or(Ok(()), Err);
                // A receiver that is gone dropped its hold, which is in line for release.
                let _gone = reply.send(verdict);
            }
            Entry::End { end, reply: Some(reply) } => {
                let done = outcome.ended.get(&end.id).copied().unwrap_or(false);
                let balance = outcome.balances.get(&end.account).copied().unwrap_or_default();
                let _gone = reply.send(if done { Ok(balance) } else { Err(SettleError::AlreadyEnded) });
            }
            Entry::End { reply: None, .. } => {}
        }
    }
}

/// Refuses the holds of a batch that could not be written, and keeps the ends.
fn refuse_places(batch: Vec<Entry>, error: &Arc<StoreError>) -> Vec<Entry> {
    let mut kept = Vec::new();
    for entry in batch {
        match entry {
            Entry::Place { reply, .. } => {
                let _gone = reply.send(Err(HoldError::Store(Arc::clone(error))));
            }
            end @ Entry::End { .. } => kept.push(end),
        }
    }
    kept
}
