//! How an upstream is with one model: a circuit breaker, and rests.
//!
//! ```text
//!          so many failures in a row,
//!          or half of the last                     time is over: one request goes
//!  closed ───────────────────────────► open until … ──────────────────────────────► probing
//!     ▲                                  ▲     failed: open again, for longer            │ │
//!     │                                  └───────────────────────────────────────────────┘ │
//!     └───────────────────────────────────── answered ─────────────────────────────────────┘
//! ```
//!
//! A **rest** is shorter and softer: an upstream that has just failed, or limits its callers, goes last
//! for a while, and is asked if there is nobody else. Where it said itself for how long (`Retry-After`)
//! it is not asked before that.
//!
//! With a limit of no failures nothing is ever left out: the circuit never opens, and all rests are soft. Who fails so
//! often as is usual is reported all the same.
//! All of this is pure; whoever asks brings the time.

use super::bar::Bar;
use crate::clock::doubled;
use crate::net::believed;

/// So many failures in a row are reported where none open the circuit: as many as open it by default.
const USUAL_LIMIT: u32 = 5;
/// How long a circuit stays open first, and at most, in ms.
const OPEN_MS: i64 = 60_000;
const LONGEST_OPEN_MS: i64 = 600_000;
/// The rest after a failure that does not say for how long, in ms.
const REST_MS: i64 = 15_000;
/// The rest of an upstream that does not take the operator's account, or has no such model, in ms.
const LONG_REST_MS: i64 = 600_000;
/// Of so many attempts in which it answered or failed, half are too many failures, if they are no fewer than its limit
/// in a row: one that answers in between is no good either.
const SAMPLE: u32 = 20;
/// How soon to look again whether a probe came back, in ms.
const PROBE_LOOK_MS: i64 = 1_000;

/// What an attempt met with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer.
    Answered,
    /// A refusal that is the client's own fault: it says nothing of whether others would be served.
    Refused,
    /// Too many requests, with the seconds that it asked for.
    Limited(Option<u64>),
    /// Nothing came, or nothing of use; with the seconds that it asked for.
    Failed(Option<u64>),
    /// It does not accept the operator's account, as far as its status says.
    Locked,
    /// It says so itself, and why.
    Barred(Bar),
    /// It does not have this model.
    Missing,
    /// Its account has credit, and not enough for a request as large as this one.
    TooDear,
}

/// Whether an upstream may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    Ready,
    /// Only if nobody else is there.
    Resting,
    /// Not before that, in ms.
    Out {
        until_ms: i64,
    },
}

/// The leave for one attempt; [`Health::finish`] or [`Health::abandon`] takes it back.
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    probe: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Circuit {
    Closed { failures: u32 },
    Open { until_ms: i64 },
    Probing,
}

/// How the last attempts went: a bit for each, the latest in the lowest, which is set where it failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lately {
    failed: u32,
    count: u32,
}

impl Lately {
    /// A bit for each of the sample.
    const WHOLE: u32 = (1 << SAMPLE) - 1;

    fn note(&mut self, has_failed: bool) {
        self.failed = ((self.failed << 1) | u32::from(has_failed)) & Self::WHOLE;
        self.count = self.count.saturating_add(1).min(SAMPLE);
    }

    fn are_too_many(self, limit: u32) -> bool {
        self.count == SAMPLE && self.failed.count_ones() >= limit.max(SAMPLE / 2)
    }
}

/// What is known of one upstream and one model.
#[derive(Debug)]
pub struct Health {
    /// Failures in a row that open the circuit. 0: none do.
    limit: u32,
    circuit: Circuit,
    lately: Lately,
    /// How often in a row it was opened.
    trips: u32,
    rest_until_ms: i64,
    /// Until when it wants to be left alone.
    asked_until_ms: i64,
    seen_ms: i64,
}

impl Health {
    /// One of which nothing bad is known.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self {
            limit,
            circuit: Circuit::Closed { failures: 0 },
            lately: Lately::default(),
            trips: 0,
            rest_until_ms: i64::MIN,
            asked_until_ms: i64::MIN,
            seen_ms: i64::MIN,
        }
    }

    /// Whether nothing bad is known, so that it need not be remembered.
    #[must_use]
    pub fn is_spotless(&self, now_ms: i64) -> bool {
        let rested = now_ms >= self.rest_until_ms && now_ms >= self.asked_until_ms;
        self.circuit == Circuit::Closed { failures: 0 } && self.lately.failed == 0 && rested
    }

    /// Whether it may be asked now.
    pub fn availability(&mut self, now_ms: i64) -> Availability {
        self.tick(now_ms);
        let closed_until = match self.circuit {
            Circuit::Open { until_ms } => until_ms,
            Circuit::Probing => now_ms.saturating_add(PROBE_LOOK_MS),
            Circuit::Closed { .. } => i64::MIN,
        };
        let until_ms = closed_until.max(self.asked_until_ms);
        if now_ms < until_ms {
            Availability::Out { until_ms }
        } else if now_ms < self.rest_until_ms {
            Availability::Resting
        } else {
            Availability::Ready
        }
    }

    /// Lets one attempt through, which after a pause decides whether others follow. `None`: not now.
    pub fn admit(&mut self, now_ms: i64) -> Option<Ticket> {
        if matches!(self.availability(now_ms), Availability::Out { .. }) {
            return None;
        }
        let probe = !matches!(self.circuit, Circuit::Closed { .. });
        if probe {
            self.circuit = Circuit::Probing;
        }
        Some(Ticket { probe })
    }

    /// Takes note of how an attempt went. Returns whether it has failed too often: that opened the circuit, if there is
    /// one.
    pub fn finish(&mut self, now_ms: i64, ticket: &Ticket, outcome: Outcome) -> bool {
        self.tick(now_ms);
        match outcome {
            Outcome::Answered => {
                self.answered(ticket);
                false
            }
            Outcome::Missing => {
                // It is there, and did answer.
                self.answered(ticket);
                self.rest(now_ms, LONG_REST_MS);
                false
            }
            // It works for others, so it does not rest; it served nothing, so it closes no circuit.
            Outcome::TooDear | Outcome::Refused => self.spare(ticket, now_ms),
            Outcome::Locked | Outcome::Barred(_) => {
                self.rest(now_ms, LONG_REST_MS);
                self.failed(now_ms, ticket)
            }
            Outcome::Limited(asked) | Outcome::Failed(asked) => {
                let limited = matches!(outcome, Outcome::Limited(_));
                if let Some(secs) = asked {
                    let wait_ms = i64::try_from(believed(secs)).unwrap_or(0).saturating_mul(1_000);
                    self.asked(now_ms, wait_ms);
                } else {
                    self.rest(now_ms, REST_MS);
                }
                // One that limits its callers works.
                if limited { self.spare(ticket, now_ms) } else { self.failed(now_ms, ticket) }
            }
        }
    }

    /// The attempt was given up, and says nothing.
    pub fn abandon(&mut self, now_ms: i64, ticket: &Ticket) {
        self.tick(now_ms);
        self.spare(ticket, now_ms);
    }

    /// An answer closes the circuit only if it came to the probe: what was under way before says nothing
    /// of now.
    fn answered(&mut self, ticket: &Ticket) {
        match &mut self.circuit {
            Circuit::Closed { failures } => {
                *failures = 0;
                self.lately.note(false);
            }
            Circuit::Probing if ticket.probe => self.circuit = Circuit::Closed { failures: 0 },
            _ => return,
        }
        self.trips = 0;
        self.rest_until_ms = i64::MIN;
    }

    fn failed(&mut self, now_ms: i64, ticket: &Ticket) -> bool {
        if self.limit == 0 {
            return self.failed_too_often();
        }
        match &mut self.circuit {
            Circuit::Closed { failures } => {
                *failures = failures.saturating_add(1);
                self.lately.note(true);
                if *failures >= self.limit || self.lately.are_too_many(self.limit) {
                    self.open(now_ms);
                    return true;
                }
                false
            }
            Circuit::Probing if ticket.probe => {
                self.trips = self.trips.saturating_add(1);
                self.open(now_ms);
                true
            }
            _ => false,
        }
    }

    /// Where no circuit opens: whether this is the last of so many failures in a row as would open one.
    fn failed_too_often(&mut self) -> bool {
        let Circuit::Closed { failures } = &mut self.circuit else { return false };
        *failures = failures.saturating_add(1) % USUAL_LIMIT;
        *failures == 0
    }

    fn open(&mut self, now_ms: i64) {
        let pause_ms = doubled(OPEN_MS, self.trips, LONGEST_OPEN_MS);
        self.circuit = Circuit::Open { until_ms: now_ms.saturating_add(pause_ms) };
        self.lately = Lately::default();
    }

    /// A probe that decided nothing makes room for the next.
    fn spare(&mut self, ticket: &Ticket, now_ms: i64) -> bool {
        if ticket.probe && self.circuit == Circuit::Probing {
            self.circuit = Circuit::Open { until_ms: now_ms };
        }
        false
    }

    fn rest(&mut self, now_ms: i64, for_ms: i64) {
        self.rest_until_ms = self.rest_until_ms.max(now_ms.saturating_add(for_ms));
    }

    fn asked(&mut self, now_ms: i64, for_ms: i64) {
        self.rest(now_ms, for_ms);
        if self.limit > 0 {
            self.asked_until_ms = self.asked_until_ms.max(now_ms.saturating_add(for_ms));
        }
    }

    /// Follows the clock. When it is set back, what was noted moves along: no pause must last for as long
    /// as the clock was wrong.
    fn tick(&mut self, now_ms: i64) {
        let back = self.seen_ms.saturating_sub(now_ms);
        if back > 0 {
            if let Circuit::Open { until_ms } = &mut self.circuit {
                *until_ms = until_ms.saturating_sub(back);
            }
            self.rest_until_ms = self.rest_until_ms.saturating_sub(back);
            self.asked_until_ms = self.asked_until_ms.saturating_sub(back);
        }
        self.seen_ms = now_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::{Answered, Failed, Limited, Locked, Missing, Refused, TooDear};

    fn meet(health: &mut Health, now_ms: i64, outcome: Outcome) {
        let ticket = health.admit(now_ms).expect("it may be asked");
        health.finish(now_ms, &ticket, outcome);
    }

    #[test]
    fn failures_in_a_row_open_the_circuit_and_a_probe_decides() {
        let mut health = Health::new(3);
        for outcome in [Failed(None), Failed(None), Answered, Failed(None), Failed(None)] {
            meet(&mut health, 0, outcome);
        }
        assert_eq!(health.availability(0), Availability::Resting, "a success in between starts the count anew");
        meet(&mut health, 0, Failed(None));
        assert_eq!(health.availability(0), Availability::Out { until_ms: 60_000 });
        assert!(health.admit(59_999).is_none());
        let probe = health.admit(60_000).expect("time is over");
        assert!(health.admit(60_000).is_none(), "one at a time");
        assert!(health.finish(60_000, &probe, Failed(None)));
        assert_eq!(health.availability(60_000), Availability::Out { until_ms: 180_000 }, "twice as long");
        let probe = health.admit(180_000).unwrap();
        health.abandon(180_000, &probe);
        let probe = health.admit(180_000).expect("one that was given up makes room");
        health.finish(180_000, &probe, Answered);
        assert_eq!(health.availability(180_000), Availability::Ready);
        assert!(health.is_spotless(180_000));
    }

    #[test]
    fn an_open_circuit_ignores_what_was_under_way_before() {
        let mut health = Health::new(1);
        let (slow, late) = (health.admit(0).unwrap(), health.admit(0).unwrap());
        meet(&mut health, 0, Failed(None));
        health.finish(10, &slow, Answered);
        assert_eq!(health.availability(10), Availability::Out { until_ms: 60_000 });
        assert!(!health.finish(20, &late, Failed(None)));
        assert_eq!(health.availability(20), Availability::Out { until_ms: 60_000 });
    }

    #[test]
    fn rests_are_soft_unless_they_were_asked_for() {
        for (outcome, until_ms, out) in [
            (Failed(None), 15_000, false),
            (Limited(None), 15_000, false),
            (Limited(Some(7)), 7_000, true),
            (Failed(Some(0)), 1_000, true),
            (Failed(Some(99_999)), 3_600_000, true),
            (Locked, 600_000, false),
            (Missing, 600_000, false),
        ] {
            let mut health = Health::new(5);
            meet(&mut health, 0, outcome);
            let expected = if out { Availability::Out { until_ms } } else { Availability::Resting };
            assert_eq!(health.availability(until_ms - 1), expected, "{outcome:?}");
            assert_eq!(health.availability(until_ms), Availability::Ready, "{outcome:?}");
            let mut lenient = Health::new(0);
            (0..50).for_each(|_| meet(&mut lenient, 0, outcome));
            assert_eq!(lenient.availability(until_ms - 1), Availability::Resting, "{outcome:?}");
        }
        let mut health = Health::new(5);
        meet(&mut health, 0, Failed(None));
        meet(&mut health, 1, Answered);
        assert_eq!(health.availability(1), Availability::Ready, "an answer ends it");
    }

    #[test]
    fn without_a_limit_the_usual_number_of_failures_in_a_row_is_reported() {
        let mut health = Health::new(0);
        let mut reports = |outcomes: &[Outcome]| -> Vec<bool> {
            let meet = |outcome: &Outcome| {
                let ticket = health.admit(0).expect("it may always be asked");
                health.finish(0, &ticket, *outcome)
            };
            outcomes.iter().map(meet).collect()
        };
        assert_eq!(reports(&[Failed(None); 4]), [false; 4]);
        assert_eq!(reports(&[Refused, Limited(None), TooDear, Failed(None)]), [false, false, false, true]);
        assert_eq!(reports(&[Failed(None); 5]), [false, false, false, false, true], "it goes on");
        assert_eq!(reports(&[Failed(None); 4]), [false; 4]);
        assert_eq!(reports(&[Answered, Failed(None), Locked]), [false; 3], "an answer starts the count anew");
        assert_eq!(health.availability(0), Availability::Resting);
    }

    #[test]
    fn what_is_due_to_the_request_changes_nothing() {
        for outcome in [TooDear, Refused] {
            let mut health = Health::new(2);
            meet(&mut health, 0, Failed(None));
            meet(&mut health, 1, outcome);
            assert_eq!(health.availability(1), Availability::Resting, "{outcome:?} ends no rest");
            (0..5).for_each(|_| meet(&mut health, 15_000, outcome));
            assert_eq!(health.availability(15_000), Availability::Ready, "{outcome:?} is no failure");
            meet(&mut health, 15_000, Failed(None));
            let out = Availability::Out { until_ms: 75_000 };
            assert_eq!(health.availability(15_000), out, "{outcome:?} does not end a row of failures");
            meet(&mut health, 75_000, outcome);
            assert!(
                health.admit(75_000).is_some(),
                "{outcome:?}: a probe that decided nothing makes room for the next"
            );
        }
    }

    #[test]
    fn half_of_the_last_attempts_are_too_many_failures() {
        // Every second one fails, so never two in a row; what the client did wrong counts on neither side.
        let mut health = Health::new(5);
        (0..10).flat_map(|_| [Failed(None), Answered, Refused]).for_each(|outcome| meet(&mut health, 0, outcome));
        assert_eq!(health.availability(0), Availability::Ready, "not yet");
        assert!(!health.is_spotless(0), "its failures are remembered");
        meet(&mut health, 0, Failed(None));
        assert_eq!(health.availability(0), Availability::Out { until_ms: 60_000 });
        meet(&mut health, 60_000, Answered);
        assert!(health.is_spotless(60_000), "after a probe it begins anew");
        // One in three is borne with, and so is half where the operator bears more than that in a row.
        for (limit, round) in [(5, [Failed(None), Answered, Answered]), (20, [Failed(None), Answered, Refused])] {
            let mut health = Health::new(limit);
            (0..50).flat_map(|_| round).for_each(|outcome| meet(&mut health, 0, outcome));
            assert_eq!(health.availability(0), Availability::Ready, "{limit}");
        }
        let mut health = Health::new(5);
        meet(&mut health, 0, Failed(None));
        (0..20).for_each(|_| meet(&mut health, 0, Answered));
        assert!(health.is_spotless(0), "one failure is forgotten after as many answers");
    }

    #[test]
    fn a_clock_that_is_set_back_prolongs_nothing() {
        let mut health = Health::new(1);
        meet(&mut health, 1_000_000, Failed(None));
        assert_eq!(health.availability(0), Availability::Out { until_ms: 60_000 });
    }
}
