//! How well models work, told by the requests to them: the numbers behind the public status page.
//!
//! A failure is one of the node's or of an upstream's, never the client's; which code is which says
//! [`counts_against`]. Counted in memory, in slots of 16 minutes, and written every few seconds, added to what
//! other processes have written: that is statistics, and a crash may lose the last seconds of it. What the page
//! shows is drawn up then too, so a visitor costs the database nothing.

mod board;
mod repo;
pub mod sums;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

pub use sums::{Sum, Sums};

pub use board::{Board, POINTS, SLOT_MS, Share, Span, Standing, State};

use crate::failure::Code;
use crate::metrics::Table;
use crate::store::{Store, StoreError};
use board::{History, WEEK};
use repo::Row;

/// Most models that a process counts.
const MOST_MODELS: usize = 1_000;

/// How requests went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    served: u64,
    failed: u64,
}

/// Whether a failure says that a model could not be had. A mint that cannot be reached says nothing of a model,
/// and neither does maintenance. A foreign mint may even be the client's own.
#[must_use]
pub const fn counts_against(code: Code) -> bool {
    matches!(
        code,
        Code::PriceUnavailable
            | Code::UpstreamUnavailable
            | Code::UpstreamFailed
            | Code::UpstreamTimedOut
            | Code::UpstreamRateLimited
            | Code::Internal
    )
}

/// What was counted and not written yet, and what the page shows.
#[derive(Debug)]
pub struct Traffic {
    /// Of each model the slot that it was last asked in, and how: see [`Packed`].
    counts: Table<AtomicU64>,
    waiting: Mutex<BTreeMap<(String, u32), Tally>>,
    seen: Mutex<Seen>,
    board: RwLock<Arc<Board>>,
    sums: Sums,
}

/// What was read of the table.
#[derive(Debug, Default)]
struct Seen {
    /// `None`: nothing yet.
    until: Option<u32>,
    models: HashMap<String, History>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            counts: Table::new(MOST_MODELS),
            waiting: Mutex::default(),
            seen: Mutex::default(),
            board: RwLock::default(),
            sums: Sums::default(),
        }
    }
}

impl Traffic {
    /// Notes how a request to a model went, if `listed` says that the price list has it.
    pub fn note(&self, model: &str, listed: impl Fn() -> bool, is_served: bool, now_ms: i64) {
        let Some(slot) = slot_of(now_ms) else { return };
        let Some(count) = self.counts.get(model, listed) else { return };
        let mut before = count.load(Ordering::Relaxed);
        loop {
            let (after, full) = Packed(before).with(slot, is_served);
            match count.compare_exchange_weak(before, after.0, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return full.into_iter().for_each(|full| self.put_aside(model, full)),
                Err(now) => before = now,
            }
        }
    }

    /// The sums that the operator sees.
    #[must_use]
    pub fn sums(&self) -> &Sums {
        &self.sums
    }

    /// What the page shows.
    #[must_use]
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes what waits, forgets what is old, and draws up the board from what all processes have written.
    ///
    /// # Errors
    /// When the database fails. What waits goes on waiting.
    pub async fn keep(&self, store: &Store, now_ms: i64) -> Result<(), StoreError> {
        self.sums.keep(store).await?;
        let now = slot_of(now_ms).unwrap_or_default();
        for (model, count) in self.counts.sorted() {
            self.put_aside(model, Packed(count.swap(0, Ordering::Relaxed)));
        }
        let waiting = std::mem::take(&mut *self.waiting());
        let rows: Vec<Row> = waiting.into_iter().map(|((model, slot), tally)| Row { model, slot, tally }).collect();
        if !rows.is_empty()
            && let Err(error) = repo::add(store, &rows).await
        {
            rows.into_iter().for_each(|row| self.wait(row.model, row.slot, row.tally));
            return Err(error);
        }
        let first = now.saturating_sub(WEEK.saturating_sub(1));
        let until = self.seen.lock().unwrap_or_else(PoisonError::into_inner).until;
        if until.is_none_or(|until| until < now) {
            repo::prune(store, first).await?;
        }
        // Others may still write to a slot that is just over.
        let from = until.map_or(first, |until| until.min(now).saturating_sub(1).max(first));
        let rows = repo::since(store, from).await?;
        let board = self.draw(rows, (first, from, now), now_ms);
        *self.board.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(board);
        Ok(())
    }

    fn draw(&self, rows: Vec<Row>, (first, from, now): (u32, u32, u32), now_ms: i64) -> Board {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.until = Some(now);
        for history in seen.models.values_mut() {
            history.retain(|slot, _| *slot >= first && *slot < from);
        }
        for Row { model, slot, tally } in rows {
            seen.models.entry(model).or_default().insert(slot, tally);
        }
        seen.models.retain(|_, history| !history.is_empty());
        let models = seen.models.iter().map(|(model, history)| (model.clone(), board::standing(history, now)));
        Board { as_of_ms: Some(now_ms), models: models.collect() }
    }

    fn put_aside(&self, model: &str, packed: Packed) {
        let (slot, tally) = packed.parts();
        if tally != Tally::default() {
            self.wait(model.to_owned(), slot, tally);
        }
    }

    fn wait(&self, model: String, slot: u32, more: Tally) {
        let mut waiting = self.waiting();
        let tally = waiting.entry((model, slot)).or_default();
        tally.served = tally.served.saturating_add(more.served);
        tally.failed = tally.failed.saturating_add(more.failed);
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, u32), Tally>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slot of a time; `None` before the Unix epoch.
fn slot_of(now_ms: i64) -> Option<u32> {
    u32::try_from(now_ms.div_euclid(SLOT_MS)).ok()
}

/// A slot (32 bits), what was served in it and what failed (16 each), in one number, so that counting takes no
/// lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed(u64);

impl Packed {
    const FULL: u64 = 0xffff;

    fn of(slot: u32, served: u64, failed: u64) -> Self {
        Self((u64::from(slot) << 32) | (served << 16) | failed)
    }

    fn parts(self) -> (u32, Tally) {
        let slot = u32::try_from(self.0 >> 32).unwrap_or(0);
        (slot, Tally { served: (self.0 >> 16) & Self::FULL, failed: self.0 & Self::FULL })
    }

    /// With one request more; and what has to be put aside for that.
    fn with(self, slot: u32, is_served: bool) -> (Self, Option<Self>) {
        let (held, Tally { served, failed }) = self.parts();
        let (one, other) = (u64::from(is_served), u64::from(!is_served));
        let has_room = served < Self::FULL && failed < Self::FULL;
        if held == slot && has_room {
            return (Self::of(slot, served.saturating_add(one), failed.saturating_add(other)), None);
        }
        (Self::of(slot, one, other), Some(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_slots_or_when_a_number_is_full() {
        let traffic = Traffic::default();
        for _ in 0..70_000 {
            traffic.note("m", || true, true, 0);
        }
        traffic.note("m", || true, false, 0);
        traffic.note("m", || true, false, SLOT_MS);
        traffic.note("m", || true, true, SLOT_MS);
        traffic.note("stranger", || false, true, 0);
        traffic.note("m", || true, true, -1);
        let (slot, tally) = Packed(traffic.counts.get("m", || false).unwrap().load(Ordering::Relaxed)).parts();
        assert_eq!((slot, tally), (1, Tally { served: 1, failed: 1 }));
        let waiting = traffic.waiting().clone();
        assert_eq!(waiting, [(("m".to_owned(), 0), Tally { served: 70_000, failed: 1 })].into());
    }
}
