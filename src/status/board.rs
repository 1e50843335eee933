//! What the status page says of each model. Pure: slots in, states and shares out.
//!
//! A slot counts once, however many requests it saw: a share is one of time. So nobody can make a short
//! outage look like a long one by asking often.

use std::collections::{BTreeMap, HashMap};

use super::Tally;

/// Length of a slot. 90 of them are a day, and 90 times seven a week.
pub const SLOT_MS: i64 = 16 * 60 * 1000;
/// Points of a history.
pub const POINTS: u32 = 90;
/// Slots to a point of the week.
const WEEK_STEP: u32 = 7;
/// Slots that are kept.
pub(super) const WEEK: u32 = POINTS * WEEK_STEP;
/// How a model is now is told by the newest two slots with requests, of this many.
const RECENT: u32 = 4;
const NEWEST: usize = 2;

/// Shares are in millionths.
const WHOLE: u64 = 1_000_000;
/// From this share on a model works, or works in part.
const WORKS: u64 = 950_000;
const WORKS_IN_PART: u64 = 500_000;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    NoData,
    Operational,
    Degraded,
    Failed,
}

impl State {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoData => "no_data",
            Self::Operational => "operational",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }

    const fn of(share: Option<u64>) -> Self {
        match share {
            None => Self::NoData,
            Some(WORKS..) => Self::Operational,
            Some(WORKS_IN_PART..) => Self::Degraded,
            Some(_) => Self::Failed,
        }
    }
}

/// A share of time in hundredths of a percent, rounded down: whole is whole only without a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u16);

impl Share {
    fn of(millionths: u64) -> Self {
        Self(u16::try_from(millionths.min(WHOLE) / 100).unwrap_or(0))
    }

    /// Whole percents, rounded down.
    #[must_use]
    pub const fn percent(self) -> u16 {
        self.0 / 100
    }

    #[must_use]
    pub fn state(self) -> State {
        State::of(Some(u64::from(self.0).saturating_mul(100)))
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// A span of time: how much of it a model worked, and in 90 points, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub share: Option<Share>,
    pub points: Vec<Option<Share>>,
}

/// How one model is and was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub state: State,
    pub day: Span,
    pub week: Span,
}

impl Standing {
    /// A model of which nothing is known.
    #[must_use]
    pub fn unknown() -> Self {
        Self { state: State::NoData, day: Span::default(), week: Span::default() }
    }
}

/// All models that had requests in the last week.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Board {
    /// When it was drawn up, in ms since the Unix epoch; `None`: not yet.
    pub as_of_ms: Option<i64>,
    pub models: HashMap<String, Standing>,
}

/// Requests of the slots of one model.
pub(super) type History = BTreeMap<u32, Tally>;

pub(super) fn standing(history: &History, now: u32) -> Standing {
    let in_past = |from: u32| move |at: u32| at >= from && at <= now;
    let newest = history.iter().rev().filter(|(at, _)| in_past(now.saturating_sub(RECENT - 1))(**at));
    let state = State::of(mean(newest.filter_map(|(_, tally)| tally.share()).take(NEWEST)));
    Standing { state, day: span(history, now, 1), week: span(history, now, WEEK_STEP) }
}

/// The last 90 points of so many slots each, the present one the last.
fn span(history: &History, now: u32, step: u32) -> Span {
    let end = now.saturating_add(1);
    let shares = |from: u32, to: u32| history.range(from.min(to)..to).filter_map(|(_, tally)| tally.share());
    let points = (0..POINTS).rev().map(|back| {
        let to = end.saturating_sub(back.saturating_mul(step));
        mean(shares(to.saturating_sub(step), to)).map(Share::of)
    });
    let from = end.saturating_sub(POINTS.saturating_mul(step));
    Span { share: mean(shares(from, end)).map(Share::of), points: points.collect() }
}

fn mean(shares: impl Iterator<Item = u64>) -> Option<u64> {
    let (sum, count) = shares.fold((0_u64, 0_u64), |(sum, count), share| (sum.saturating_add(share), count + 1));
    sum.checked_div(count)
}

impl Tally {
    /// The share of its requests that were served.
    fn share(self) -> Option<u64> {
        self.served.saturating_mul(WHOLE).checked_div(self.served.saturating_add(self.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(slots: &[(u32, u64, u64)]) -> History {
        slots.iter().map(|(slot, served, failed)| (*slot, Tally { served: *served, failed: *failed })).collect()
    }

    #[test]
    fn a_slot_counts_once_however_often_it_was_asked() {
        let standing = standing(&history(&[(998, 1, 0), (999, 1, 0), (1000, 0, 100_000)]), 1000);
        assert_eq!(standing.day.share, Some(Share(6666)));
        assert_eq!(standing.day.share.unwrap().to_string(), "66.66");
        assert_eq!(standing.state, State::Degraded, "the newest two: half");
    }

    #[test]
    fn states_follow_shares_and_whole_means_without_failure() {
        for (served, failed, state, percent) in [
            (1_000_000, 1, State::Operational, 99),
            (95, 5, State::Operational, 95),
            (949, 51, State::Degraded, 94),
            (1, 1, State::Degraded, 50),
            (49, 51, State::Failed, 49),
            (0, 1, State::Failed, 0),
            (7, 0, State::Operational, 100),
        ] {
            let standing = standing(&history(&[(5000, served, failed)]), 5000);
            assert_eq!((standing.state, standing.day.share.map(Share::percent)), (state, Some(percent)));
            assert_eq!(standing.day.points[89].map(Share::state), Some(state));
        }
    }

    #[test]
    fn spans_end_where_they_should() {
        let now = 10_000;
        let last = |at: u32| standing(&history(&[(at, 1, 0)]), now);
        for (at, day, week, state) in [
            (now, Some(89), Some(89), State::Operational),
            (now - 3, Some(86), Some(89), State::Operational),
            (now - 4, Some(85), Some(89), State::NoData),
            (now - 7, Some(82), Some(88), State::NoData),
            (now - 89, Some(0), Some(77), State::NoData),
            (now - 90, None, Some(77), State::NoData),
            (now - 629, None, Some(0), State::NoData),
            (now - 630, None, None, State::NoData),
            (now + 1, None, None, State::NoData),
        ] {
            let standing = last(at);
            let place = |span: &Span| span.points.iter().position(Option::is_some);
            assert_eq!((place(&standing.day), place(&standing.week), standing.state), (day, week, state), "{at}");
            assert_eq!((standing.day.points.len(), standing.week.points.len()), (90, 90));
            assert_eq!(standing.day.share.is_some(), day.is_some());
            assert_eq!(standing.week.share.is_some(), week.is_some());
        }
    }

    #[test]
    fn the_beginning_of_time_is_no_trouble() {
        let early = standing(&history(&[(0, 1, 0), (2, 1, 0)]), 2);
        assert_eq!(early.day.points.iter().flatten().count(), 2);
        assert_eq!(early.week.points.iter().flatten().count(), 1);
    }
}
