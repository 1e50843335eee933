//! The leave to ask one upstream, and what is learnt by it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;

use super::health::{Outcome, Ticket};
use super::pool::{ACCOUNT, Member, Pool};
use super::provider::Upstream;
use super::sticky::Session;

/// The leave for one attempt, and a place at its upstream as long as it lives.
#[derive(Debug)]
pub struct Lease {
    pub(super) pool: Arc<Pool>,
    pub(super) member: Arc<Member>,
    pub(super) model: String,
    pub(super) session: Option<Session>,
    pub(super) ticket: Ticket,
    /// Whether the outcome is known.
    pub(super) is_settled: bool,
    /// It is the first for its request, whose turn it was.
    pub(super) has_turn: bool,
    pub(super) slot: Option<OwnedSemaphorePermit>,
}

impl Lease {
    #[must_use]
    pub fn upstream(&self) -> &Upstream {
        &self.member.upstream
    }

    /// What the upstream calls the model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Takes note of how it went. A stream may begin well and end badly: then the second counts too.
    pub fn finish(&mut self, outcome: Outcome) {
        self.is_settled = true;
        let (member, now_ms) = (&self.member, self.pool.clock.now_ms());
        member.heard_ms.store(now_ms, Ordering::Relaxed);
        let name = member.upstream.name();
        let limit = self.pool.breaker_failures;
        let is_bad = !matches!(outcome, Outcome::Answered | Outcome::Refused);
        if let Some(session) = self.session.filter(|_| is_bad) {
            self.pool.sticky.give_up(&session, name);
        }
        let mut is_down = false;
        member.with_health(&self.model, limit, now_ms, is_bad, |health| {
            is_down = health.finish(now_ms, &self.ticket, outcome)
        });
        if is_down && member.down_ms.load(Ordering::Relaxed) == i64::MIN {
            member.down_ms.store(now_ms, Ordering::Relaxed);
        }
        // Whoever lacks a model or credit, or limits its callers, is there.
        if matches!(outcome, Outcome::Answered | Outcome::Missing | Outcome::Limited(_) | Outcome::TooDear) {
            member.down_ms.store(i64::MIN, Ordering::Relaxed);
        }
        if is_down {
            let what = if limit > 0 { "is left alone for a while" } else { "goes last for a while" };
            tracing::warn!(upstream = %name, model = %self.model, "an upstream failed repeatedly and {what}");
        }
        let account = |outcome| {
            member.with_health(ACCOUNT, 0, now_ms, is_bad, |health| {
                if let Some(ticket) = health.admit(now_ms) {
                    health.finish(now_ms, &ticket, outcome);
                }
            });
        };
        match outcome {
            Outcome::Barred(bar) => {
                if member.marks.set(bar, now_ms) {
                    tracing::error!(
                        upstream = %name, why = bar.text(),
                        "ALARM: an upstream is not asked any more until you clear it (coinslot upstreams clear)"
                    );
                }
                account(outcome);
            }
            Outcome::Locked => {
                tracing::error!(upstream = %name, "ALARM: an upstream does not accept the operator's account");
                // It stays as it began if another request has said so before.
                let _began = member.locked_ms.compare_exchange(i64::MIN, now_ms, Ordering::Relaxed, Ordering::Relaxed);
                account(Outcome::Locked);
            }
            Outcome::TooDear => {
                tracing::warn!(upstream = %name, "an upstream has too little credit for a request this large");
            }
            Outcome::Answered => {
                member.locked_ms.store(i64::MIN, Ordering::Relaxed);
                account(Outcome::Answered);
            }
            _ => {}
        }
        // Also whoever asked for something impossible goes on with this one.
        if let Some(session) = self.session.filter(|_| !is_bad) {
            self.pool.sticky.bind(session, name, now_ms);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.slot.take().is_some() {
            self.pool.freed.notify_waiters();
        }
        if self.is_settled {
            return;
        }
        // Where one after the other is asked, who was not is the next.
        if self.has_turn {
            self.pool.turns.fetch_sub(1, Ordering::Relaxed);
        }
        // A first turn that did not take place, one that nobody paid for above all, binds nobody and takes no room.
        if let Some(session) = self.session {
            self.pool.sticky.give_up(&session, self.member.upstream.name());
        }
        let now_ms = self.pool.clock.now_ms();
        self.member.with_health(&self.model, self.pool.breaker_failures, now_ms, false, |health| {
            health.abandon(now_ms, &self.ticket);
        });
    }
}
