//! The requests of this process whose money is held, as the operator sees them: a list, a way to end one, and the
//! news of what begins and ends.
//!
//! A request is in the list from its hold to its end, and costs an entry in a map for it. News are made only when
//! somebody listens; who does not keep up misses some, and is told so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::broadcast::{self, Receiver};
use tokio_util::sync::CancellationToken;

use super::{Exchange, Job};
use crate::dialect::Shape;
use crate::ledger::AccountId;
use crate::store::ids;

/// News that are kept for a listener who is busy.
const KEPT: usize = 256;
/// How long a client may have read nothing before its delivery is taken out of its hands to be ended.
const UNREAD_MS: i64 = 2_000;
/// How long clients may take to read how their requests were ended, and the rest to end without them.
const LAST_WORDS: Duration = Duration::from_millis(2_500);
/// Most listeners at a time.
const MOST_LISTENERS: usize = 16;

/// What happened to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Its money is held.
    Start,
    /// An upstream was asked, and this came of it.
    Attempt,
    End,
}

/// One piece of news. Amounts are msat.
#[derive(Clone, Debug, Serialize)]
pub struct News {
    pub event: Event,
    /// The id of the request.
    pub id: String,
    pub at_ms: i64,
    pub model: String,
    pub upstream: String,
    /// Whose key it is, for who may look that up.
    #[serde(skip)]
    pub spender: AccountId,
    pub held_msat: u64,
    /// What came of an attempt; how a request ended, or the code of its failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charged_msat: Option<u64>,
    /// Ms until the first content of its stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_ms: Option<i64>,
    /// Ms until its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<i64>,
}

/// A request that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    /// The id of its hold.
    pub hold: i64,
    pub request: String,
    pub model: String,
    /// Who was asked last.
    pub upstream: Arc<str>,
    pub spender: AccountId,
    pub held_msat: u64,
    pub began_ms: i64,
}

#[derive(Debug)]
struct Entry {
    request: String,
    shape: Arc<Shape>,
    upstream: Arc<str>,
    spender: AccountId,
    held_msat: u64,
    stop: CancellationToken,
}

/// The list, and who is told of it.
#[derive(Debug)]
pub struct Ongoing {
    entries: Mutex<HashMap<i64, Entry>>,
    news: broadcast::Sender<News>,
    closed: CancellationToken,
    /// All of them are to end.
    over: CancellationToken,
}

impl Default for Ongoing {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            news: broadcast::Sender::new(KEPT),
            closed: CancellationToken::new(),
            over: CancellationToken::new(),
        }
    }
}

/// A request's place in the list; without it, it is in it no more.
#[derive(Debug)]
pub(super) struct Place {
    ongoing: Arc<Ongoing>,
    hold: i64,
    /// The operator wants it to end, or the node stops.
    stop: CancellationToken,
}

impl Ongoing {
    /// What runs now, the oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Runs> {
        let entries = self.entries();
        let mut all: Vec<Runs> = entries
            .iter()
            .map(|(hold, entry)| Runs {
                hold: *hold,
                request: entry.request.clone(),
                model: entry.shape.model.clone(),
                upstream: Arc::clone(&entry.upstream),
                spender: entry.spender,
                held_msat: entry.held_msat,
                began_ms: ids::made_ms(*hold),
            })
            .collect();
        all.sort_by_key(|one| one.hold);
        all
    }

    /// Ends a request: what it has delivered is charged, as if its client had left, and the rest is free again.
    /// Returns its hold, if it runs here.
    pub fn stop(&self, request: &str) -> Option<i64> {
        let entries = self.entries();
        let (hold, entry) = entries.iter().find(|(_, entry)| entry.request == request)?;
        entry.stop.cancel();
        Some(*hold)
    }

    /// Ends all requests like this, and those that are about to begin.
    fn stop_all(&self) {
        self.over.cancel();
    }

    /// Somebody listens to the news from now on; `None`: there are enough of them.
    #[must_use]
    pub fn listen(&self) -> Option<Receiver<News>> {
        (self.news.receiver_count() < MOST_LISTENERS && !self.closed.is_cancelled()).then(|| self.news.subscribe())
    }

    /// There will be no more news: the node stops.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Returns when there will be no more news.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    fn tell(&self, news: impl FnOnce() -> News) {
        if self.news.receiver_count() > 0 {
            // Who listened may have left just now.
            self.news.send(news()).ok();
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<i64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a request into the list.
    pub(super) fn enter(self: &Arc<Self>, hold: i64, new: New<'_>) -> Place {
        let stop = self.over.child_token();
        let New { request, shape, upstream, spender, held_msat } = new;
        let entry = Entry {
            request: request.to_owned(),
            shape: Arc::clone(shape),
            upstream: Arc::clone(upstream),
            spender,
            held_msat,
            stop: stop.clone(),
        };
        self.tell(|| entry.news(Event::Start, ids::made_ms(hold)));
        self.entries().insert(hold, entry);
        Place { ongoing: Arc::clone(self), hold, stop }
    }
}

/// A request that enters the list.
pub(super) struct New<'a> {
    pub request: &'a str,
    pub shape: &'a Arc<Shape>,
    pub upstream: &'a Arc<str>,
    pub spender: AccountId,
    pub held_msat: u64,
}

/// How a request ended, for the news.
pub(super) struct Ended {
    pub status: &'static str,
    pub charged_msat: u64,
    pub first_ms: Option<i64>,
    pub took_ms: i64,
    pub at_ms: i64,
}

impl Entry {
    fn news(&self, event: Event, at_ms: i64) -> News {
        News {
            event,
            id: self.request.clone(),
            at_ms,
            model: self.shape.model.clone(),
            upstream: self.upstream.to_string(),
            spender: self.spender,
            held_msat: self.held_msat,
            status: None,
            charged_msat: None,
            first_ms: None,
            took_ms: None,
        }
    }
}

impl Place {
    /// Returns when the operator wants the request to end, or the node stops.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// When the request began, in ms since the Unix epoch.
    pub(super) fn began_ms(&self) -> i64 {
        ids::made_ms(self.hold)
    }

    /// Tells how the request ended. It leaves the list a moment later.
    pub(super) fn ended(&self, ended: Ended) {
        let entries = self.ongoing.entries();
        let Some(entry) = entries.get(&self.hold) else { return };
        let Ended { status, charged_msat, first_ms, took_ms, at_ms } = ended;
        self.ongoing.tell(|| News {
            status: Some(status),
            charged_msat: Some(charged_msat),
            first_ms,
            took_ms: Some(took_ms),
            ..entry.news(Event::End, at_ms)
        });
    }

    fn attempted(&self, upstream: &Arc<str>, outcome: &'static str, at_ms: i64) {
        let mut entries = self.ongoing.entries();
        let Some(entry) = entries.get_mut(&self.hold) else { return };
        if entry.upstream != *upstream {
            entry.upstream = Arc::clone(upstream);
        }
        self.ongoing.tell(|| News { status: Some(outcome), ..entry.news(Event::Attempt, at_ms) });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.ongoing.entries().remove(&self.hold);
    }
}

impl Exchange {
    /// Ends a request of this process, wherever it is: see [`Ongoing::stop`]. Returns whether there is such a one.
    pub fn abort(&self, request: &str) -> bool {
        let Some(hold) = self.ongoing.stop(request) else { return false };
        // One whose client does not read would not notice.
        let still_ms = self.ledger.clock().now_ms().saturating_sub(UNREAD_MS);
        self.deliveries.take_unread(&self.tracker, hold, still_ms);
        true
    }

    /// Ends all requests of this process, which stops, in the same way. Those who read hear of it; whatever runs on
    /// then is settled without its client. Nobody may come in any more.
    pub async fn abort_all(&self) {
        self.ongoing.stop_all();
        if self.have_ended().await {
            return;
        }
        self.deliveries.take_stalled(&self.tracker, i64::MAX);
        if !self.have_ended().await && !self.ongoing.list().is_empty() {
            tracing::warn!("some requests could not be ended; their holds are released at the next start");
        }
    }

    async fn have_ended(&self) -> bool {
        tokio::time::timeout(LAST_WORDS, self.tracker.wait()).await.is_ok()
    }
}

impl Job {
    /// Tells of an attempt that has ended so.
    pub(super) fn tell_attempt(&self, outcome: &'static str) {
        let at_ms = self.exchange.ledger.clock().now_ms();
        self.place.attempted(self.lease.upstream().name(), outcome, at_ms);
    }
}
