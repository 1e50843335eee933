//! The one task of a process that places and ends holds.
//!
//! It takes whatever has queued up, at most [`BATCH`] entries, and writes it in two statements: one places
//! all holds, one ends all. They are two commits, or one where a commit waits for the disk and nobody else writes.
//! Beside other processes it writes in parts (see [`parts`]), a commit each.
//! Then it answers everyone who waits. There is no timer: before a batch, whoever else can run does, and while it commits, the next one
//! queues, so commits per request fall as concurrency rises.
//!
//! A statement that fails on the database's part is tried again. If the failure breaks a rule of the
//! schema, its entries are written one by one, so a bad entry fails alone. An end is never given
//! up: it stays in line until it is written.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::account::AccountId;
use super::live::Live;
use super::sheets::{self, Sheet};
use super::terms::{self, Source, Terms};
use super::{HoldError, SettleError, repo};
use crate::clock::SharedClock;
use crate::money::Msat;
use crate::store::{Durability, Hand, HotDesk, HotTurn, Store, StoreError};

/// Most entries in one commit.
const BATCH: usize = repo::MAX_ROWS;
/// Attempts at a batch before the holds in it are refused; ends stay in line beyond it.
const ATTEMPTS: u32 = 4;

/// A hold to be placed, or ended.
#[derive(Debug)]
pub(super) enum Entry {
    Place { id: i64, source: Source, amount: Msat, request: String, reply: oneshot::Sender<Result<(), HoldError>> },
    End { end: End, reply: Option<oneshot::Sender<Result<Msat, SettleError>>> },
}

/// The end of one hold: what is charged of it (nothing: released).
#[derive(Clone, Debug)]
pub(super) struct End {
    pub id: i64,
    pub account: AccountId,
    pub held: Msat,
    pub charge: Msat,
    /// What is kept of the request.
    pub record: String,
    /// What that names.
    pub sheets: Vec<Arc<Sheet>>,
}

/// How busy the writer has been, for metrics and the benchmark of group commit.
#[derive(Debug, Default)]
pub struct WriterStats {
    entries: AtomicU64,
    commits: AtomicU64,
    sheets: AtomicU64,
}

impl WriterStats {
    /// Holds placed and ended so far.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Batches they took: a commit each, or two where none waits for the disk.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}

impl WriterStats {
    /// Price sheets stored so far, each a statement of its own.
    #[must_use]
    pub fn sheets(&self) -> u64 {
        self.sheets.load(Ordering::Relaxed)
    }
}

/// The outcome of entries that were written, by hold id.
#[derive(Default)]
struct Outcome {
    refused: HashMap<i64, HoldError>,
    /// What is available after the end of a hold that was open until then.
    ended: HashMap<i64, Msat>,
}

/// Sheets that are remembered to be stored.
const KNOWN_SHEETS: usize = 4_096;

/// What writes.
pub(super) struct Writer {
    store: Store,
    desk: HotDesk,
    hot: &'static repo::Hot,
    /// No other process writes at the same time.
    writes_alone: bool,
    clock: SharedClock,
    owner: String,
    stats: Arc<WriterStats>,
    live: Arc<Live>,
    /// Sheets that this process has stored, as far as it knows: see [`Writer::start_over`].
    known: HashSet<Arc<Sheet>>,
    /// Why the last batch was not written, if it was not.
    failure: Option<Arc<StoreError>>,
}

impl Writer {
    pub(super) fn new(
        store: Store,
        clock: SharedClock,
        owner: String,
        stats: &Arc<WriterStats>,
        live: &Arc<Live>,
    ) -> Self {
        let desk = store.hot_desk();
        let writes_alone = !store.is_shared();
        Self {
            hot: repo::Hot::of(store.location()),
            store,
            desk,
            writes_alone,
            clock,
            owner,
            stats: Arc::clone(stats),
            live: Arc::clone(live),
            known: HashSet::new(),
            failure: None,
        }
    }

    /// Writes what comes until nothing can come any more.
    pub(super) async fn run(self, mut entries: mpsc::UnboundedReceiver<Entry>) {
        let mut writer = self;
        let mut line: VecDeque<Entry> = VecDeque::new();
        loop {
            if line.is_empty() {
                match writer.next(&mut entries).await {
                    Some(entry) => line.push_back(entry),
                    None => return,
                }
                // As long as others have something to write, too, they go first: it comes with this batch.
                let mut waiting = 0;
                while waiting < BATCH {
                    tokio::task::yield_now().await;
                    if entries.len() == waiting {
                        break;
                    }
                    waiting = entries.len();
                }
            }
            if let Some(failure) = writer.failure.take()
                && !line.is_empty()
            {
                // What ends cannot be written, so no place can: nobody waits for that behind them.
                while let Ok(entry) = entries.try_recv() {
                    line.push_back(entry);
                }
                line = refuse_places(line.into(), &failure).into();
            }
            while line.len() < BATCH {
                match entries.try_recv() {
                    Ok(entry) => line.push_back(entry),
                    Err(_) => break,
                }
            }
            let batch: Vec<Entry> = line.drain(..line.len().min(BATCH)).collect();
            let mut left = Vec::new();
            for part in parts(batch, writer.writes_alone) {
                left.extend(writer.apply(part).await);
            }
            for entry in left.into_iter().rev() {
                line.push_front(entry);
            }
        }
    }

    /// Waits for an entry. When the store closes meanwhile, it need not wait for the writer.
    async fn next(&mut self, entries: &mut mpsc::UnboundedReceiver<Entry>) -> Option<Entry> {
        if let Ok(entry) = entries.try_recv() {
            return Some(entry);
        }
        let closing = self.desk.closing();
        tokio::select! {
            biased;
            entry = entries.recv() => entry,
            () = closing => {
                self.desk.leave().await;
                entries.recv().await
            }
        }
    }

    /// Writes entries and answers them. Returns those that have to be tried again.
    async fn apply(&mut self, batch: Vec<Entry>) -> Vec<Entry> {
        if batch.is_empty() {
            return batch;
        }
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            match self.commit(&batch).await {
                Ok(outcome) => {
                    self.failure = None;
                    self.count(batch.len());
                    self.answer(batch, outcome);
                    return Vec::new();
                }
                Err(error) if error.is_constraint() => {
                    return Box::pin(self.apply_singly(batch, error)).await;
                }
                Err(error) => {
                    tracing::warn!(%error, attempt, entries = batch.len(), "ledger batch failed");
                    self.start_over().await;
                    failure = Some(Arc::new(error));
                    tokio::time::sleep(Duration::from_millis(20_u64 << attempt.min(6))).await;
                }
            }
        }
        let failure = failure.unwrap_or_else(|| Arc::new(StoreError::Io("no attempt made".into())));
        self.failure = Some(Arc::clone(&failure));
        refuse_places(batch, &failure)
    }

    /// After a failure. The connection may be broken, and the database may have gone down: it comes back without what
    /// was not synced, and sheets were not.
    async fn start_over(&mut self) {
        self.known.clear();
        self.desk.leave().await;
    }

    /// One entry a commit, so that only the one that breaks a rule fails.
    async fn apply_singly(&mut self, batch: Vec<Entry>, error: StoreError) -> Vec<Entry> {
        if batch.len() == 1 {
            tracing::error!(%error, "the ledger refused an entry");
            let error = Arc::new(error);
            for entry in refuse_places(batch, &error) {
                let Entry::End { end, reply } = entry else { continue };
                self.live.remove(end.id);
                if let Some(reply) = reply {
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
                    self.answer(single, outcome);
                }
                Err(error) if error.is_constraint() => {
                    left.extend(Box::pin(self.apply_singly(single, error)).await);
                }
                Err(_) => left.extend(single),
            }
        }
        left
    }

    /// Tells everyone who waits how the committed batch went.
    fn answer(&self, batch: Vec<Entry>, mut outcome: Outcome) {
        for entry in batch {
            match entry {
                Entry::Place { id, reply, .. } => {
                    let verdict = outcome.refused.remove(&id).map_or(Ok(()), Err);
                    // A receiver that is gone dropped its hold, which is in line for release.
                    let _gone = reply.send(verdict);
                }
                Entry::End { end, reply } => {
                    self.live.remove(end.id);
                    let ended = outcome.ended.remove(&end.id).ok_or(SettleError::AlreadyEnded);
                    if let Some(reply) = reply {
                        let _gone = reply.send(ended);
                    }
                }
            }
        }
    }

    fn count(&self, entries: usize) {
        let entries = u64::try_from(entries).unwrap_or(u64::MAX);
        self.stats.entries.fetch_add(entries, Ordering::Relaxed);
        self.stats.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes a batch: one commit, and a further one for each hold that was not placed with the others.
    async fn commit(&mut self, batch: &[Entry]) -> Result<Outcome, StoreError> {
        let ends = ends_of(batch);
        let places = places_of(batch)?;
        let (missing, mut ended) = self.write(&places, &ends).await?;
        if ended.len() < ends.len() {
            Box::pin(self.recall(&ends, &mut ended)).await;
        }
        let mut outcome = Outcome { ended, ..Outcome::default() };
        for place in places.into_iter().filter(|place| missing.contains(&place.id)) {
            // With others before it it was too much; alone, or now that others have ended, it may still fit.
            let may_fit = place.due.max(place.spender_due) > place.amount || !ends.is_empty();
            let id = place.id;
            match Box::pin(self.place_alone(place, may_fit)).await {
                Ok(None) => {}
                Ok(Some(refused)) => drop(outcome.refused.insert(id, refused)),
                // The rest of the batch is written, whatever became of this one.
                Err(error) => {
                    self.start_over().await;
                    outcome.refused.insert(id, HoldError::Store(Arc::new(error)));
                }
            }
        }
        Ok(outcome)
    }

    /// Ends that match nothing may have been written by an attempt whose answer was lost: then they are what is asked for.
    async fn recall(&mut self, ends: &[&End], ended: &mut HashMap<i64, Msat>) {
        for end in ends {
            if ended.contains_key(&end.id) {
                continue;
            }
            let found = async {
                let mut reader = self.store.read().acquire().await?;
                repo::recall_end(&mut reader, end, &self.owner).await
            };
            match found.await {
                Ok(Some(available)) => {
                    ended.insert(end.id, available);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, hold = end.id, "an end could not be looked up"),
            }
        }
    }

    /// Places a hold that was not placed with the others, if it `may_fit`; or says what it fails on.
    async fn place_alone(&mut self, place: repo::Place<'_>, may_fit: bool) -> Result<Option<HoldError>, StoreError> {
        let (source, amount) = (place.source, place.amount);
        let alone = [repo::Place { due: amount, spender_due: amount, ..place }];
        if may_fit && self.write(&alone, &[]).await?.0.is_empty() {
            return Ok(None);
        }
        self.refusal(source, amount).await.map(Some)
    }

    /// Places holds, and ends some, and before that stores what the records of these name. Returns the ids of the
    /// holds that were not placed, and what is available after each end.
    async fn write(
        &mut self,
        places: &[repo::Place<'_>],
        ends: &[&End],
    ) -> Result<(HashSet<i64>, HashMap<i64, Msat>), StoreError> {
        let sheets = self.new_sheets(ends);
        if !sheets.is_empty() {
            Box::pin(self.keep_sheets(sheets)).await?;
        }
        let (hot, owner, now_ms) = (self.hot, &self.owner, self.clock.now_ms());
        let mut turn = self.desk.turn().await?;
        // Where nothing is waited for, two statements cost less by themselves than in a transaction: this can go
        // back to before its second statement, so SQLite keeps what every page was.
        if let (HotTurn::Pooled(turn), false, false) = (&mut turn, places.is_empty(), ends.is_empty()) {
            let both = async {
                let mut all = turn.begin().await?;
                let missing = repo::place_holds(&mut Hand::Pooled(&mut all), hot, places, owner, now_ms).await?;
                let ended = repo::end_holds(&mut Hand::Pooled(&mut all), hot, ends, owner, now_ms).await?;
                all.commit().await?;
                Ok((missing, ended))
            };
            return Box::pin(both).await;
        }
        // Should the second fail, the first is tried again with it: what is placed already breaks a rule, is refused
        // alone, and given free.
        let missing = match places.is_empty() {
            true => HashSet::new(),
            false => repo::place_holds(&mut turn.hand(), hot, places, owner, now_ms).await?,
        };
        let ended = match ends.is_empty() {
            true => HashMap::new(),
            false => repo::end_holds(&mut turn.hand(), hot, ends, owner, now_ms).await?,
        };
        Ok((missing, ended))
    }

    /// Stores sheets before the records that name them. A sheet that is kept and not named does no harm; the other
    /// way round would.
    async fn keep_sheets(&mut self, sheets: Vec<Arc<Sheet>>) -> Result<(), StoreError> {
        let now_ms = self.clock.now_ms();
        let mut tx = self.store.begin(Durability::ProcessSafe).await?;
        for sheet in &sheets {
            sheets::repo::insert(tx.hand(), sheet, now_ms).await?;
        }
        tx.commit().await?;
        self.stats.sheets.fetch_add(u64::try_from(sheets.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if self.known.len() >= KNOWN_SHEETS {
            self.known.clear();
        }
        self.known.extend(sheets);
        Ok(())
    }

    /// The sheets that the records of these ends name and that this process has not stored, in an order that is
    /// the same in every process: two that store the same ones must not wait for each other.
    fn new_sheets(&self, ends: &[&End]) -> Vec<Arc<Sheet>> {
        let named = ends.iter().flat_map(|end| &end.sheets).filter(|sheet| !self.known.contains(*sheet));
        let mut new: Vec<Arc<Sheet>> = named.cloned().collect();
        new.sort_by(|one, other| one.id().cmp(other.id()));
        new.dedup();
        new
    }

    /// What a hold that was not placed failed on. More money would not help a key whose terms forbid
    /// it, so they come first.
    async fn refusal(&mut self, source: Source, amount: Msat) -> Result<HoldError, StoreError> {
        let now_ms = self.clock.now_ms();
        let mut reader = self.store.read().acquire().await?;
        let Some(balance) = repo::balance_of(&mut *reader, source.account).await? else {
            return Ok(HoldError::UnknownAccount);
        };
        let available = balance.available();
        let terms = terms::repo::find(&mut *reader, source.spender, now_ms).await?;
        if terms.as_ref().is_some_and(Terms::is_blocked) {
            return Ok(HoldError::KeyBlocked);
        }
        if terms.as_ref().is_some_and(|terms| terms.in_force().has_ended(now_ms)) {
            return Ok(HoldError::KeyExpired);
        }
        Ok(match terms.and_then(|terms| terms.left()) {
            // The second: another process gave something free meanwhile.
            Some(left) if left < amount || available >= amount => HoldError::LimitReached { left },
            _ => HoldError::Insufficient { available },
        })
    }
}

impl Entry {
    fn as_end(&self) -> Option<&End> {
        match self {
            Self::End { end, .. } => Some(end),
            Self::Place { .. } => None,
        }
    }
}

/// What is written together. Places go first, so that a hold abandoned in the same batch is there to be released.
///
/// Each statement locks rows of several accounts. What is charged has the row of the income first, and then those of
/// the keys, in their order; places and what is released have only the latter. Beside other processes these are
/// parts of their own: in one transaction with a release, a charge would wait for the income with a key's row in hand,
/// and a process that has the income would wait for that.
fn parts(batch: Vec<Entry>, writes_alone: bool) -> [Vec<Entry>; 3] {
    let is_charge = |entry: &Entry| entry.as_end().is_some_and(|end| !end.charge.is_zero());
    let (mut places, ends): (Vec<_>, Vec<_>) = batch.into_iter().partition(|entry| entry.as_end().is_none());
    if writes_alone {
        places.extend(ends);
        return [places, Vec::new(), Vec::new()];
    }
    let (charges, releases) = ends.into_iter().partition(is_charge);
    [places, releases, charges]
}

/// The ends of a batch. The rows of accounts are locked in this order, which is that of the holds: two processes that
/// write ends of one kind at once (see [`parts`]) do not wait for each other.
fn ends_of(batch: &[Entry]) -> Vec<&End> {
    let mut ends: Vec<&End> = batch.iter().filter_map(Entry::as_end).collect();
    ends.sort_by_key(|end| end.account);
    ends
}

/// The holds of a batch, each with what it and those before it need: on the same account, and for
/// the same spender.
fn places_of(batch: &[Entry]) -> Result<Vec<repo::Place<'_>>, StoreError> {
    let (mut due, mut spender_due) = (HashMap::new(), HashMap::new());
    let mut places = Vec::with_capacity(batch.len());
    for entry in batch {
        let Entry::Place { id, source, amount, request, .. } = entry else { continue };
        places.push(repo::Place {
            id: *id,
            source: *source,
            amount: *amount,
            due: add(&mut due, source.account, *amount)?,
            spender_due: add(&mut spender_due, source.spender, *amount)?,
            request,
        });
    }
    // Rows of keys are locked in this order, in every process the same.
    places.sort_by_key(|place| place.source.spender);
    Ok(places)
}

/// Adds to a sum and returns it.
fn add(sums: &mut HashMap<AccountId, Msat>, of: AccountId, amount: Msat) -> Result<Msat, StoreError> {
    let sum = sums.entry(of).or_default();
    *sum = sum
        .checked_add(amount)
        .ok_or_else(|| StoreError::Inconsistent { table: "holds", what: "amounts out of range".into() })?;
    Ok(*sum)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn end(id: i64, account: i64, charge: u64) -> Entry {
        let charge = Msat::new(charge).unwrap();
        let (account, sheets) = (AccountId(account), Vec::new());
        Entry::End { end: End { id, account, held: charge, charge, record: String::new(), sheets }, reply: None }
    }

    fn place(id: i64) -> Entry {
        let account = AccountId(4);
        let source = Source { account, spender: account };
        Entry::Place { id, source, amount: Msat::ZERO, request: String::new(), reply: oneshot::channel().0 }
    }

    #[test]
    fn ends_lock_accounts_in_one_order_whatever_came_first() {
        let batch = [end(1, 9, 0), end(2, 4, 0), end(3, 9, 0), end(4, 7, 0)];
        let order: Vec<(i64, i64)> = ends_of(&batch).iter().map(|end| (end.account.get(), end.id)).collect();
        assert_eq!(order, [(4, 2), (7, 4), (9, 1), (9, 3)]);
    }

    #[test]
    fn beside_other_processes_a_charge_waits_for_nobody_with_a_released_row_in_hand() {
        let batch = || vec![end(1, 4, 0), end(2, 7, 5), place(3), end(4, 9, 0), end(5, 4, 1), place(6)];
        let ids = |parts: [Vec<Entry>; 3]| {
            parts.map(|part| {
                let id = |entry: &Entry| match entry {
                    Entry::Place { id, .. } => *id,
                    Entry::End { end, .. } => end.id,
                };
                part.iter().map(id).collect::<Vec<_>>()
            })
        };
        assert_eq!(ids(parts(batch(), false)), [vec![3, 6], vec![1, 4], vec![2, 5]]);
        assert_eq!(ids(parts(batch(), true)), [vec![3, 6, 1, 2, 4, 5], vec![], vec![]]);
    }
}
