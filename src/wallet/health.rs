//! How a mint is, and how much may be asked of it: a budget of calls and a circuit breaker.
//!
//! Public mints allow about 20 calls a minute. The **budget** counts the calls of the last 60 s, so
//! no minute, wherever it begins, sees more of them. It is shared out by [`Priority`]: each class
//! has a part that the others leave to it, and may use what nobody is entitled to.
//!
//! The **circuit** keeps calls from a mint that cannot serve them:
//!
//! ```text
//!          429, or failures in a row                time is over: one call goes
//!  closed ──────────────────────────► open until … ─────────────────────────────► probing
//!     ▲                                 ▲     failed: open again, for longer           │ │
//!     │                                 └──────────────────────────────────────────────┘ │
//!     └───────────────────────────────────── answered ───────────────────────────────────┘
//! ```
//!
//! A call that either of them keeps back was not sent: that is a definite no. All of this is pure;
//! whoever calls brings the time.

use std::collections::VecDeque;

use crate::clock::doubled;
use crate::net::believed;

/// The span that the budget looks at, in ms.
const WINDOW_MS: i64 = 60_000;
/// Failures in a row after which a mint is left alone.
const FAILURES: u32 = 3;
/// The first pause after failures, and the longest, in ms.
const PAUSE_MS: i64 = 1_000;
const LONGEST_PAUSE_MS: i64 = 300_000;
/// The same after a 429 that does not say how long.
const LIMITED_MS: i64 = 60_000;
const LONGEST_LIMITED_MS: i64 = 3_600_000;
/// A mint that fails again this soon after it came back is paused for longer, in ms.
const RELAPSE_MS: i64 = 60_000;
/// How soon to look again whether a probe came back, in ms.
const PROBE_LOOK_MS: u64 = 50;

/// Who waits for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// A client: redemption, change, refund, invoice.
    Client,
    /// The journal: what became of an operation whose outcome is unknown (NUT-07, NUT-09).
    Evidence,
    /// Nobody: keysets, payouts, unpaid invoices, tidying up.
    Background,
}

impl Priority {
    const ALL: [Self; 3] = [Self::Client, Self::Evidence, Self::Background];
}

/// Why a call was kept back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The budget is spent.
    Budget,
    /// The mint said that it limits its callers (429).
    Limited,
    /// The mint failed several times in a row.
    Down,
    /// One call is finding out whether the mint is back.
    Probing,
    /// Too many calls are running.
    Busy,
}

/// A call was kept back. The mint never heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}; wait {} s", self.cause.as_str(), self.secs())]
pub struct Held {
    pub cause: Cause,
    /// How long until it may go, as far as can be told, in ms.
    pub wait_ms: u64,
}

impl Cause {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "this node's calls to the mint are used up for now",
            Self::Limited => "the mint limits its callers",
            Self::Down => "the mint failed repeatedly",
            Self::Probing => "the mint is being tried again",
            Self::Busy => "too many calls to the mint are running",
        }
    }
}

impl Held {
    /// The wait in whole seconds, at least one.
    #[must_use]
    pub fn secs(self) -> u64 {
        self.wait_ms.div_ceil(1_000).max(1)
    }

    /// Whether a limit is the reason, rather than a mint that cannot be reached.
    #[must_use]
    pub fn is_limit(self) -> bool {
        matches!(self.cause, Cause::Budget | Cause::Limited | Cause::Busy)
    }
}

/// What a call met with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The mint answered, be it with a refusal.
    Answered,
    /// 429, with the seconds that it asked for.
    Limited(Option<u64>),
    /// Nothing came, or not from a working mint; with the seconds that it asked for.
    Failed(Trouble, Option<u64>),
    /// The mint is there, but broke over this request (500): one request must not close it for all.
    Stumbled,
}

/// What went wrong with a mint, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Limited,
    Unreachable,
    Timeout,
    /// A cut connection, an error of its server, or an answer that is none.
    Broken,
}

impl Trouble {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Limited => "it limits its callers",
            Self::Unreachable => "it cannot be reached",
            Self::Timeout => "no answer in time",
            Self::Broken => "a broken answer",
        }
    }
}

/// How far the circuit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    Closed {
        failures: u32,
    },
    /// No call goes before `until_ms`.
    Open {
        until_ms: i64,
        cause: Cause,
    },
    /// One call is under way, and decides.
    Probing,
}

/// The leave to make one call; [`Health::finish`] or [`Health::abandon`] takes it back.
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    probe: bool,
}

/// Calls of the last [`WINDOW_MS`].
#[derive(Debug)]
struct Budget {
    /// `None`: without limit.
    per_minute: Option<u32>,
    /// The oldest first.
    spent: VecDeque<(i64, Priority)>,
}

/// Calls so far, by what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub answered: u64,
    pub limited: u64,
    pub failed: u64,
    /// Given up before there was an answer.
    pub abandoned: u64,
    /// Not sent.
    pub held: u64,
}

/// What is known of one mint.
#[derive(Debug)]
pub struct Health {
    tally: Tally,
    budget: Budget,
    circuit: Circuit,
    /// How often in a row it was opened.
    trips: u32,
    closed_ms: i64,
    seen_ms: i64,
    answered_ms: Option<i64>,
    trouble: Option<(Trouble, i64)>,
}

impl Health {
    /// A mint of which nothing bad is known, and that may be called so often in 60 s.
    #[must_use]
    pub fn new(per_minute: Option<u32>) -> Self {
        Self {
            tally: Tally::default(),
            budget: Budget { per_minute, spent: VecDeque::new() },
            circuit: Circuit::Closed { failures: 0 },
            trips: 0,
            closed_ms: i64::MIN,
            seen_ms: i64::MIN,
            answered_ms: None,
            trouble: None,
        }
    }

    /// Lets one call through, and counts it.
    ///
    /// # Errors
    /// When it must not be made now.
    pub fn admit(&mut self, now_ms: i64, priority: Priority) -> Result<Ticket, Held> {
        self.may_ask(now_ms, priority)?;
        let probe = !matches!(self.circuit, Circuit::Closed { .. });
        if probe {
            self.circuit = Circuit::Probing;
        }
        self.budget.spend(now_ms, priority);
        Ok(Ticket { probe })
    }

    /// Whether a call would be let through now.
    ///
    /// # Errors
    /// Why a call would be kept back now, and for how long, in ms.
    pub fn may_ask(&mut self, now_ms: i64, priority: Priority) -> Result<(), Held> {
        self.tick(now_ms);
        match self.circuit {
            Circuit::Open { until_ms, cause } if now_ms < until_ms => {
                return Err(Held { cause, wait_ms: until_ms.abs_diff(now_ms) });
            }
            Circuit::Probing => return Err(Held { cause: Cause::Probing, wait_ms: PROBE_LOOK_MS }),
            _ => {}
        }
        match self.budget.wait_ms(now_ms, priority) {
            0 => Ok(()),
            wait_ms => Err(Held { cause: Cause::Budget, wait_ms }),
        }
    }

    /// How many calls of this class may be made now. `None`: as many as one likes.
    pub fn left(&mut self, now_ms: i64, priority: Priority) -> Option<u32> {
        self.tick(now_ms);
        self.budget.left(priority)
    }

    /// The budget of 60 s.
    #[must_use]
    pub fn per_minute(&self) -> Option<u32> {
        self.budget.per_minute
    }

    #[must_use]
    pub fn circuit(&self) -> Circuit {
        self.circuit
    }

    /// Calls so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// A call was kept back, and given up.
    pub fn hold_back(&mut self) {
        self.tally.held = self.tally.held.saturating_add(1);
    }

    /// When the mint last answered, in ms.
    #[must_use]
    pub fn answered_ms(&self) -> Option<i64> {
        self.answered_ms
    }

    /// What last went wrong, and when, in ms.
    #[must_use]
    pub fn trouble(&self) -> Option<(Trouble, i64)> {
        self.trouble
    }

    /// Takes note of how a call went. Where that opens the circuit, says for how long, in ms.
    pub fn finish(&mut self, now_ms: i64, ticket: &Ticket, outcome: Outcome) -> Option<u64> {
        self.tick(now_ms);
        let count = match outcome {
            Outcome::Answered => &mut self.tally.answered,
            Outcome::Limited(_) => &mut self.tally.limited,
            Outcome::Failed(..) | Outcome::Stumbled => &mut self.tally.failed,
        };
        *count = count.saturating_add(1);
        let probe = ticket.probe && self.circuit == Circuit::Probing;
        match outcome {
            Outcome::Answered => {
                self.answered_ms = Some(now_ms);
                self.close(now_ms, probe);
                None
            }
            Outcome::Stumbled => {
                self.trouble = Some((Trouble::Broken, now_ms));
                self.close(now_ms, probe);
                None
            }
            Outcome::Limited(retry_after) => {
                self.trouble = Some((Trouble::Limited, now_ms));
                Some(self.open(now_ms, probe, Cause::Limited, retry_after))
            }
            Outcome::Failed(trouble, retry_after) => {
                self.trouble = Some((trouble, now_ms));
                match &mut self.circuit {
                    Circuit::Closed { failures } => {
                        *failures = failures.saturating_add(1);
                        let open = *failures >= FAILURES || retry_after.is_some();
                        open.then(|| self.open(now_ms, false, Cause::Down, retry_after))
                    }
                    _ if probe => Some(self.open(now_ms, true, Cause::Down, retry_after)),
                    _ => None,
                }
            }
        }
    }

    /// The call was given up, and says nothing.
    pub fn abandon(&mut self, now_ms: i64, ticket: &Ticket) {
        self.tick(now_ms);
        self.tally.abandoned = self.tally.abandoned.saturating_add(1);
        if ticket.probe && self.circuit == Circuit::Probing {
            self.circuit = Circuit::Open { until_ms: now_ms, cause: Cause::Down };
        }
    }

    /// An answer closes the circuit only if it came to the probe: what was under way before says
    /// nothing of now.
    fn close(&mut self, now_ms: i64, probe: bool) {
        match &mut self.circuit {
            Circuit::Closed { failures } => *failures = 0,
            _ if probe => {
                self.circuit = Circuit::Closed { failures: 0 };
                self.closed_ms = now_ms;
            }
            _ => {}
        }
    }

    fn open(&mut self, now_ms: i64, probe: bool, cause: Cause, retry_after: Option<u64>) -> u64 {
        let was_closed = matches!(self.circuit, Circuit::Closed { .. });
        if was_closed || probe {
            let relapse = probe || now_ms.saturating_sub(self.closed_ms) < RELAPSE_MS;
            self.trips = if relapse { self.trips.saturating_add(1) } else { 0 };
        }
        let (first, longest) = match cause {
            Cause::Limited => (LIMITED_MS, LONGEST_LIMITED_MS),
            _ => (PAUSE_MS, LONGEST_PAUSE_MS),
        };
        let pause_ms = match retry_after {
            Some(secs) => i64::try_from(believed(secs)).unwrap_or(0).saturating_mul(1_000),
            None => doubled(first, self.trips, longest),
        };
        let mut until_ms = now_ms.saturating_add(pause_ms);
        if let Circuit::Open { until_ms: before, .. } = self.circuit {
            until_ms = until_ms.max(before);
        }
        self.circuit = Circuit::Open { until_ms, cause };
        until_ms.abs_diff(now_ms)
    }

    /// Follows the clock. When it is set back, what was noted moves along: neither the budget nor a
    /// pause must last for as long as the clock was wrong.
    fn tick(&mut self, now_ms: i64) {
        let back = self.seen_ms.saturating_sub(now_ms);
        if back > 0 {
            for (at_ms, _) in &mut self.budget.spent {
                *at_ms = at_ms.saturating_sub(back);
            }
            if let Circuit::Open { until_ms, .. } = &mut self.circuit {
                *until_ms = until_ms.saturating_sub(back);
            }
            self.closed_ms = self.closed_ms.saturating_sub(back);
        }
        self.seen_ms = now_ms;
        self.budget.expire(now_ms);
    }
}

impl Budget {
    fn expire(&mut self, now_ms: i64) {
        while self.spent.front().is_some_and(|(at_ms, _)| now_ms.saturating_sub(*at_ms) >= WINDOW_MS) {
            self.spent.pop_front();
        }
    }

    fn spend(&mut self, now_ms: i64, priority: Priority) {
        if self.per_minute.is_some() {
            self.spent.push_back((now_ms, priority));
        }
    }

    fn left(&self, priority: Priority) -> Option<u32> {
        self.per_minute.map(|total| room(total, priority, self.spent.iter().map(|(_, spent)| *spent)))
    }

    /// How long until a call of this class fits. 0: it fits now.
    fn wait_ms(&self, now_ms: i64, priority: Priority) -> u64 {
        let Some(total) = self.per_minute else { return 0 };
        let fits = |from: usize| room(total, priority, self.spent.iter().skip(from).map(|(_, spent)| *spent)) > 0;
        if fits(0) {
            return 0;
        }
        let last_to_go = self.spent.iter().enumerate().find(|(at, _)| fits(at.saturating_add(1)));
        let free_ms = last_to_go.map_or(now_ms, |(_, (at_ms, _))| at_ms.saturating_add(WINDOW_MS));
        free_ms.abs_diff(now_ms).max(1)
    }
}

/// What others leave to each class: half for clients, so that no background work keeps them
/// waiting; a tenth for evidence and a twentieth for the background, so that no rush of clients
/// starves them.
fn share(total: u32, priority: Priority) -> u32 {
    match priority {
        Priority::Client => total / 2,
        Priority::Evidence if total >= 3 => (total / 10).max(1),
        Priority::Evidence => 0,
        Priority::Background => total / 20,
    }
}

/// What is left to a class: the total, less what was spent, less what others are still entitled to.
fn room(total: u32, priority: Priority, spent: impl Iterator<Item = Priority>) -> u32 {
    let mut used = [0_u32; 3];
    for class in spent {
        for (count, of) in used.iter_mut().zip(Priority::ALL) {
            *count = count.saturating_add(u32::from(of == class));
        }
    }
    let mut room = total;
    for (used, class) in used.into_iter().zip(Priority::ALL) {
        let entitled = if class == priority { 0 } else { share(total, class) };
        room = room.saturating_sub(used.max(entitled));
    }
    room
}

#[cfg(test)]
mod tests {
    use super::*;
    use Priority::{Background, Client, Evidence};

    fn admitted(health: &mut Health, now_ms: i64, priority: Priority) -> bool {
        match health.admit(now_ms, priority) {
            Ok(ticket) => {
                health.finish(now_ms, &ticket, Outcome::Answered);
                true
            }
            Err(_) => false,
        }
    }

    #[test]
    fn no_minute_sees_more_calls_than_the_budget() {
        for total in [1, 2, 3, 4, 7, 20, 60] {
            let mut health = Health::new(Some(total));
            let mut calls: Vec<i64> = Vec::new();
            let mut random = 7_u64;
            for step in 0..4_000 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let now_ms = step * 150;
                let class = Priority::ALL[usize::try_from(random >> 33).unwrap() % 3];
                if admitted(&mut health, now_ms, class) {
                    calls.push(now_ms);
                    let minute = calls.iter().filter(|at| now_ms - **at < WINDOW_MS).count();
                    assert!(minute <= usize::try_from(total).unwrap(), "{total}: {minute} calls in a minute");
                }
            }
            // And it is used: as many calls as fit into the ten minutes.
            assert!(calls.len() >= usize::try_from(total).unwrap() * 9, "{total}: only {} calls", calls.len());
        }
    }

    #[test]
    fn each_class_leaves_the_others_their_share() {
        // Total; how many calls each class gets that asks alone, and then what the others still get.
        let rows: [(u32, Priority, u32, [u32; 2]); 8] = [
            (20, Client, 17, [2, 1]),
            (20, Evidence, 9, [10, 1]),
            (20, Background, 8, [10, 2]),
            (100, Client, 85, [10, 5]),
            (4, Client, 3, [1, 0]),
            (4, Background, 1, [2, 1]),
            (2, Client, 2, [0, 0]),
            (1, Background, 1, [0, 0]),
        ];
        for (total, greedy, gets, others) in rows {
            let mut health = Health::new(Some(total));
            let drain = |health: &mut Health, class| (0..200).filter(|_| admitted(health, 5, class)).count();
            assert_eq!(drain(&mut health, greedy), usize::try_from(gets).unwrap(), "{total} {greedy:?}");
            for (class, left) in Priority::ALL.into_iter().filter(|class| *class != greedy).zip(others) {
                assert_eq!(health.left(5, class), Some(left), "{total} {greedy:?}, then {class:?}");
                assert_eq!(drain(&mut health, class), usize::try_from(left).unwrap(), "{total} {class:?}");
            }
        }
    }

    #[test]
    fn a_spent_budget_says_how_long_to_wait() {
        let mut health = Health::new(Some(4));
        for at in [0, 1_000, 2_000] {
            assert!(admitted(&mut health, at, Client));
        }
        let held = health.may_ask(10_000, Client).unwrap_err();
        assert_eq!((held, held.secs()), (Held { cause: Cause::Budget, wait_ms: 50_000 }, 50));
        // What the journal is entitled to was kept for it.
        assert!(admitted(&mut health, 10_000, Evidence));
        assert!(health.may_ask(10_000, Background).is_err());
        assert!(health.may_ask(59_999, Client).is_err());
        assert!(health.may_ask(60_000, Client).is_ok());
    }

    #[test]
    fn without_a_budget_everything_goes() {
        let mut health = Health::new(None);
        assert!((0..1_000).all(|_| admitted(&mut health, 0, Background)));
        assert_eq!(health.left(0, Client), None);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_stop_the_calls() {
        let mut health = Health::new(Some(3));
        assert!(admitted(&mut health, 10_000_000, Client) && admitted(&mut health, 10_000_500, Client));
        assert!(health.may_ask(10_000_500, Client).is_err());
        // An hour back: the wait is what it was.
        let held = health.may_ask(6_400_500, Client).unwrap_err();
        assert_eq!(held.wait_ms, 59_500);
        assert!(health.may_ask(6_460_000, Client).is_ok());
    }

    /// One step of a circuit's life: the time, what is tried, and the pause that it leads to.
    #[derive(Clone, Copy)]
    enum Try {
        /// A call goes, and ends like this; the circuit is opened for so long.
        Goes(Outcome, Option<u64>),
        /// A call is kept back, for this reason, for so long.
        Kept(Cause, u64),
    }

    type Life = (&'static str, &'static [(i64, Try)]);

    const DOWN: Outcome = Outcome::Failed(Trouble::Unreachable, None);

    const LIVES: &[Life] = {
        use Outcome::{Answered, Failed, Limited, Stumbled};
        use Try::{Goes, Kept};
        &[
            (
                "three failures in a row open it; the pause grows",
                &[
                    (0, Goes(DOWN, None)),
                    (1, Goes(Failed(Trouble::Timeout, None), None)),
                    (2, Goes(Failed(Trouble::Broken, None), Some(1_000))),
                    (3, Kept(Cause::Down, 999)),
                    (1_002, Goes(DOWN, Some(2_000))),
                    (3_001, Kept(Cause::Down, 1)),
                    (3_002, Goes(DOWN, Some(4_000))),
                    (7_002, Goes(Answered, None)),
                    (7_003, Goes(DOWN, None)),
                    (7_003, Goes(Answered, None)),
                    (7_003, Goes(DOWN, None)),
                    (7_003, Goes(DOWN, None)),
                    // So soon after it came back: longer than the last time.
                    (7_003, Goes(DOWN, Some(8_000))),
                ],
            ),
            (
                "an answer in between keeps it closed, and so does a request that the mint stumbles over",
                &[
                    (0, Goes(DOWN, None)),
                    (0, Goes(DOWN, None)),
                    (0, Goes(Answered, None)),
                    (0, Goes(DOWN, None)),
                    (0, Goes(DOWN, None)),
                    (0, Goes(Stumbled, None)),
                    (0, Goes(DOWN, None)),
                ],
            ),
            (
                "after a long time well, the pause begins anew",
                &[
                    (0, Goes(Limited(None), Some(60_000))),
                    (60_000, Goes(Limited(None), Some(120_000))),
                    (180_000, Goes(Answered, None)),
                    (300_000, Goes(Limited(None), Some(60_000))),
                ],
            ),
            (
                "a 429 opens it at once, for as long as the mint says",
                &[
                    (0, Goes(Limited(Some(7)), Some(7_000))),
                    (6_999, Kept(Cause::Limited, 1)),
                    (7_000, Goes(Answered, None)),
                ],
            ),
            ("what a mint asks for is bounded", &[(0, Goes(Limited(Some(u64::MAX)), Some(3_600_000)))]),
            ("and is at least a second", &[(0, Goes(Limited(Some(0)), Some(1_000)))]),
            (
                "a server that says when it is back is left alone until then",
                &[(0, Goes(Failed(Trouble::Broken, Some(30)), Some(30_000))), (29_000, Kept(Cause::Down, 1_000))],
            ),
        ]
    };

    #[test]
    fn the_circuit_opens_probes_once_and_closes() {
        for (what, steps) in LIVES {
            let mut health = Health::new(None);
            for (at, (now_ms, step)) in steps.iter().enumerate() {
                match (*step, health.admit(*now_ms, Client)) {
                    (Try::Goes(outcome, pause), Ok(ticket)) => {
                        assert_eq!(health.finish(*now_ms, &ticket, outcome), pause, "{what}: step {at}");
                    }
                    (Try::Kept(cause, wait_ms), Err(held)) => {
                        assert_eq!(held, Held { cause, wait_ms }, "{what}: step {at}");
                    }
                    (_, admitted) => panic!("{what}: step {at}: {admitted:?}"),
                }
            }
        }
    }

    #[test]
    fn the_pause_grows_to_a_bound() {
        let mut health = Health::new(None);
        for _ in 0..20 {
            let now_ms = match health.circuit() {
                Circuit::Open { until_ms, .. } => until_ms,
                _ => 0,
            };
            let ticket = health.admit(now_ms, Client).unwrap();
            health.finish(now_ms, &ticket, DOWN);
        }
        let Circuit::Open { until_ms, .. } = health.circuit() else { panic!("it is open") };
        assert_eq!(until_ms - health.seen_ms, LONGEST_PAUSE_MS);
    }

    #[test]
    fn one_probe_at_a_time_and_only_its_answer_counts() {
        let mut health = Health::new(None);
        let early = health.admit(0, Client).unwrap();
        let other = health.admit(0, Client).unwrap();
        health.finish(0, &other, Outcome::Limited(Some(5)));
        // What was under way before says nothing of now.
        health.finish(10, &early, Outcome::Answered);
        assert_eq!(health.may_ask(10, Evidence).unwrap_err().cause, Cause::Limited);
        let probe = health.admit(5_000, Background).unwrap();
        assert_eq!(health.admit(5_001, Client).unwrap_err().cause, Cause::Probing);
        // Its caller went away: the next one finds out.
        health.abandon(5_002, &probe);
        let probe = health.admit(5_002, Client).unwrap();
        assert_eq!(health.may_ask(5_003, Client).unwrap_err().cause, Cause::Probing);
        health.finish(5_004, &probe, Outcome::Answered);
        assert!(health.may_ask(5_005, Client).is_ok());
        assert_eq!((health.answered_ms(), health.trouble()), (Some(5_004), Some((Trouble::Limited, 0))));
    }
}
