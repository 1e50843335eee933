//! What is wrong, for an operator who does not look.
//!
//! An alarm is a state and no event: [`Watchman`] reads, again and again, how everything is, and what is wrong for
//! long enough is told once, again only when it goes on for hours, and once more when it is over. What is not known
//! yet (a process that has just begun has asked no mint) changes nothing, so a restart neither ends an alarm nor
//! repeats it.
//!
//! Alarms and the notes about them are rows, written in one transaction (`judge` decides, purely, which). A note is
//! told by whichever process takes it, with pauses, in the order in which notes were made; one that was told when the
//! process died is told again under the same id, and to relays as the same event.
//!
//! Nothing in an alarm is a client's or an upstream's word: it says in this node's own what is wrong, with names that
//! the operator gave.

mod conditions;
mod judge;
mod note;
mod repo;
mod target;
mod webhook;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{SharedClock, doubled, has_come};
use crate::failpoint::failpoint;
use crate::store::{Store, StoreError};

pub use conditions::Watchman;
pub use note::{Note, What};
pub use repo::{Open, open};
pub use target::{Sender, Target, TargetError};

use judge::{Alarm, judge};

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Insolvent,
    Books,
    Halted,
    MintDown,
    RateStale,
    UpstreamBarred,
    UpstreamLocked,
    UpstreamDown,
    PayoutFailed,
    OperationStuck,
    ChangeLow,
    RelaysDown,
}

impl Kind {
    pub const ALL: [Self; 12] = [
        Self::Insolvent,
        Self::Books,
        Self::Halted,
        Self::MintDown,
        Self::RateStale,
        Self::UpstreamBarred,
        Self::UpstreamLocked,
        Self::UpstreamDown,
        Self::PayoutFailed,
        Self::OperationStuck,
        Self::ChangeLow,
        Self::RelaysDown,
    ];

    /// As it is stored, and shown to programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Insolvent => "insolvent",
            Self::Books => "books_not_proven",
            Self::Halted => "halted",
            Self::MintDown => "mint_down",
            Self::RateStale => "rate_stale",
            Self::UpstreamBarred => "upstream_barred",
            Self::UpstreamLocked => "upstream_locked",
            Self::UpstreamDown => "upstream_down",
            Self::PayoutFailed => "payout_failed",
            Self::OperationStuck => "operation_stuck",
            Self::ChangeLow => "change_low",
            Self::RelaysDown => "relays_down",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// As a person reads it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Insolvent => "the ecash does not cover what is owed",
            Self::Books => "the books are not proven",
            Self::Halted => "no money is moved",
            Self::MintDown => "a mint is down",
            Self::RateStale => "the price of bitcoin is not fresh",
            Self::UpstreamBarred => "an upstream refuses your account",
            Self::UpstreamLocked => "an upstream seems to refuse your account",
            Self::UpstreamDown => "an upstream is down",
            Self::PayoutFailed => "a payout failed",
            Self::OperationStuck => "an operation at a mint is stuck",
            Self::ChangeLow => "ready change is low",
            Self::RelaysDown => "no Nostr relay has the listing",
        }
    }

    /// How long it must be so before anybody is told: what heals itself is no alarm.
    const fn patience(self) -> Duration {
        let secs = match self {
            Self::Insolvent | Self::Books | Self::UpstreamBarred | Self::PayoutFailed | Self::OperationStuck => 0,
            Self::Halted | Self::MintDown | Self::RateStale | Self::UpstreamLocked | Self::UpstreamDown => 60,
            Self::RelaysDown => 600,
            Self::ChangeLow => 1_800,
        };
        Duration::from_secs(secs)
    }
}

/// How one thing is, as far as this process knows. What is not read at all is well: it is not there any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    pub kind: Kind,
    /// Whom it is about, as the operator calls it; empty: the node.
    pub subject: String,
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// What is wrong, in a sentence without its full stop.
    Wrong(String),
    Well,
    /// Not known yet: it is as it was.
    Unknown,
}

impl Reading {
    #[must_use]
    pub fn new(kind: Kind, subject: impl Into<String>, state: State) -> Self {
        Self { kind, subject: subject.into(), state }
    }
}

/// What an alarm is about.
type Id = (Kind, String);

/// What another process saw counts for so long, in ms.
const SEEN_MS: i64 = 300_000;
/// How old what this process saw may become in the database, in ms.
const FRESH_MS: i64 = 60_000;
/// How long an alarm that is over is remembered, and a note that was told, in ms.
const KEPT_MS: i64 = 7 * 24 * 3_600_000;
/// Notes that one activation tells one target.
const AT_A_TIME: usize = 20;
/// How long whoever tells a note has for it, in ms.
const LEASE_MS: i64 = 90_000;
/// A note that could not be told for so long is given up, in ms, so that it does not stand in the way.
const GIVE_UP_MS: i64 = 3 * 24 * 3_600_000;
/// The pause after a first failure, and the longest, in ms.
const FIRST_PAUSE_MS: i64 = 30_000;
const LONGEST_PAUSE_MS: i64 = 3_600_000;

/// The alarms of a node. Clones share them.
#[derive(Clone, Debug)]
pub struct Alerts {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    clock: SharedClock,
    /// The process, as the database knows it.
    node: String,
    /// After how long an alarm that goes on is told again.
    repeat: Option<Duration>,
    sender: Sender,
    /// How many alarms of each kind there are, as this process saw it last.
    board: Mutex<BTreeMap<Kind, usize>>,
    written: Notify,
}

impl Alerts {
    #[must_use]
    pub fn new(store: Store, clock: SharedClock, node: String, repeat: Option<Duration>, sender: Sender) -> Self {
        let (board, written) = (Mutex::default(), Notify::new());
        Self { inner: Arc::new(Inner { store, clock, node, repeat, sender, board, written }) }
    }

    /// How many alarms there are of each kind, for the metrics.
    #[must_use]
    pub fn board(&self) -> Vec<(Kind, usize)> {
        let board = self.inner.board.lock().unwrap_or_else(PoisonError::into_inner);
        Kind::ALL.into_iter().map(|kind| (kind, board.get(&kind).copied().unwrap_or(0))).collect()
    }

    /// Waits until there is a note to be told.
    pub async fn written(&self) {
        self.inner.written.notified().await;
    }

    /// Takes note of how things are. What follows from it is written at once.
    ///
    /// # Errors
    /// When the database does not answer; nothing is written then.
    pub async fn take(&self, readings: &[Reading]) -> Result<(), StoreError> {
        let inner = &self.inner;
        let now_ms = inner.clock.now_ms();
        let known = repo::alarms(&inner.store).await?;
        let sightings = repo::sightings(&inner.store).await?;
        let mine: BTreeMap<&Id, i64> =
            sightings.iter().filter(|one| one.node == inner.node).map(|one| (&one.id, one.seen_ms)).collect();
        let said: BTreeMap<Id, &str> = readings
            .iter()
            .filter_map(|reading| match &reading.state {
                State::Wrong(said) => Some(((reading.kind, reading.subject.clone()), said.as_str())),
                _ => None,
            })
            .collect();
        let unknown = |id: &Id| {
            let is_it = |reading: &&Reading| reading.kind == id.0 && reading.subject == id.1;
            readings.iter().find(is_it).is_some_and(|reading| reading.state == State::Unknown)
        };
        let mut seen: BTreeSet<Id> = said.keys().cloned().collect();
        seen.extend(mine.keys().filter(|id| unknown(id)).map(|id| (*id).clone()));
        let look = repo::Look {
            now_ms,
            node: &inner.node,
            fresh: seen
                .iter()
                .filter(|id| mine.get(id).is_none_or(|at| has_come(at.saturating_add(FRESH_MS), now_ms, SEEN_MS)))
                .collect(),
            gone: mine.keys().filter(|id| !seen.contains(**id)).copied().collect(),
            stale_ms: now_ms.saturating_sub(SEEN_MS),
        };
        let is_fresh = |at_ms: i64| at_ms >= look.stale_ms && at_ms <= now_ms.saturating_add(SEEN_MS);
        let others = sightings.iter().filter(|one| one.node != inner.node && is_fresh(one.seen_ms));
        let all: BTreeSet<Id> = seen.iter().cloned().chain(others.map(|one| one.id.clone())).collect();
        let ids: BTreeSet<&Id> = all.iter().chain(known.keys()).collect();
        let mut board: BTreeMap<Kind, usize> = BTreeMap::new();
        let mut changes = Vec::new();
        for id in ids {
            let before = known.get(id);
            let words = said.get(id).copied().or(before.map(|alarm| alarm.said.as_str())).unwrap_or_default();
            let change = judge(before, all.contains(id), words, now_ms, id.0.patience(), inner.repeat);
            let after = change.as_ref().map(|(after, _)| after).or(before);
            if after.is_some_and(Alarm::is_loud) {
                let count = board.entry(id.0).or_default();
                *count = count.saturating_add(1);
            }
            changes.extend(change.map(|(after, what)| repo::Change { id, before, after, what }));
        }
        let tells = changes.iter().any(|change| change.what.is_some());
        repo::write(&inner.store, &look, &changes, inner.sender.names()).await?;
        *inner.board.lock().unwrap_or_else(PoisonError::into_inner) = board;
        if tells {
            failpoint!("alert.written");
            for change in changes.iter().filter(|change| change.what == Some(What::Raised)) {
                let (kind, subject) = change.id;
                tracing::error!(kind = kind.name(), subject, "ALARM: {}", kind.title());
            }
            inner.written.notify_one();
        }
        Ok(())
    }

    /// Tells what there is to tell. Answers with what stood in the way, each once.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tell(&self) -> Result<Vec<String>, StoreError> {
        let mut troubles = Vec::new();
        for target in self.inner.sender.targets() {
            for _ in 0..AT_A_TIME {
                if !self.tell_next(target, &mut troubles).await? {
                    break;
                }
            }
        }
        Ok(troubles)
    }

    /// Tells a target the oldest note that it has not heard. Returns whether to go on.
    async fn tell_next(&self, target: &Target, troubles: &mut Vec<String>) -> Result<bool, StoreError> {
        let Inner { store, clock, sender, .. } = &*self.inner;
        let (name, now_ms) = (target.name(), clock.now_ms());
        let Some(mut waiting) = repo::next(store, name).await? else { return Ok(false) };
        let is_due = has_come(waiting.retry_ms, now_ms, LONGEST_PAUSE_MS);
        if !is_due || !repo::lease(store, &waiting, name, now_ms.saturating_add(LEASE_MS)).await? {
            return Ok(false);
        }
        let attempts = waiting.attempts.saturating_add(1);
        if waiting.event.is_empty()
            && let Some(event) = sender.event(target, &waiting.note, now_ms)
        {
            // Before anybody hears it: after a crash it is the same one.
            repo::keep_event(store, &waiting.note.id, name, &event).await?;
            waiting.event = event;
        }
        failpoint!("alert.leased");
        let outcome = sender.deliver(target, &waiting.note, &waiting.event).await;
        failpoint!("alert.delivered");
        let now_ms = clock.now_ms();
        match outcome {
            Ok(()) => {
                repo::done(store, &waiting.note.id, name, "delivered", now_ms).await?;
                Ok(true)
            }
            Err(error) => {
                let text = error.to_string();
                if now_ms.saturating_sub(waiting.note.made_ms) > GIVE_UP_MS {
                    tracing::error!(
                        target = name,
                        error = text,
                        "an alarm could not be told for days, and is given up"
                    );
                    repo::done(store, &waiting.note.id, name, &text, now_ms).await?;
                    return Ok(true);
                }
                if text != waiting.outcome {
                    troubles.push(format!("{name}: {text}"));
                }
                repo::failed(store, &waiting.note.id, name, &text, now_ms.saturating_add(pause_ms(attempts))).await?;
                Ok(false)
            }
        }
    }
}

/// How long a target that has failed so often in a row is left alone.
fn pause_ms(attempts: i64) -> i64 {
    doubled(FIRST_PAUSE_MS, u32::try_from(attempts.saturating_sub(1)).unwrap_or(0), LONGEST_PAUSE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_names_of_their_own() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.name()), Some(kind));
        }
        assert_eq!([1, 2, 3, 7, 8, 99].map(pause_ms), [30_000, 60_000, 120_000, 1_920_000, 3_600_000, 3_600_000]);
    }
}
