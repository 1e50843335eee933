//! When the operator is told: pure.
//!
//! ```text
//!            seen          for long enough: raised            goes on: repeated
//!   (none) ───────► waits ────────────────────────► told ─────────┐
//!     ▲               │ not seen                     │  ▲─────────┘
//!     │               ▼                              │ not seen: ended
//!     └── days ──── over ◄───────────────────────────┘
//!                     └── seen again: waits, at least until the last note is ten minutes old
//! ```

use std::time::Duration;

use super::What;

/// Least time between the end of an alarm and its return: what comes and goes is told now and then.
const RETURN_MS: i64 = 600_000;

/// What is known of an alarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alarm {
    pub said: String,
    pub since_ms: i64,
    pub told_ms: Option<i64>,
    pub is_told: bool,
    pub ended_ms: Option<i64>,
    /// As it was read; the row's own is one higher after each change.
    pub turn: i64,
}

impl Alarm {
    /// Whether it goes on, and the operator was told.
    pub(super) fn is_loud(&self) -> bool {
        self.is_told && self.ended_ms.is_none()
    }
}

/// What follows from whether it is seen now; `None`: nothing.
pub(super) fn judge(
    before: Option<&Alarm>,
    is_seen: bool,
    said: &str,
    now_ms: i64,
    patience: Duration,
    repeat: Option<Duration>,
) -> Option<(Alarm, Option<What>)> {
    let fresh = || Alarm {
        said: said.to_owned(),
        since_ms: now_ms,
        told_ms: before.and_then(|before| before.told_ms),
        is_told: false,
        ended_ms: None,
        turn: before.map_or(0, |before| before.turn),
    };
    let open = before.filter(|before| before.ended_ms.is_none());
    if !is_seen {
        let open = open?;
        // Its end is told to whom its beginning was.
        let what = open.is_told.then_some(What::Ended);
        let told_ms = if open.is_told { Some(now_ms) } else { open.told_ms };
        return Some((Alarm { is_told: false, ended_ms: Some(now_ms), told_ms, ..open.clone() }, what));
    }
    // What a clock wrote that was ahead, and was set back since, would keep everybody waiting.
    let can_be = |at_ms: i64| at_ms.saturating_sub(now_ms) <= RETURN_MS;
    let mut now = match open {
        Some(open) => Alarm { said: said.to_owned(), ..open.clone() },
        None => fresh(),
    };
    if now.told_ms.is_some_and(|told_ms| !can_be(told_ms)) {
        now.told_ms = now.is_told.then_some(now_ms);
    }
    if !can_be(now.since_ms) {
        now.since_ms = now_ms;
    }
    let told_for = now.told_ms.map(|told_ms| now_ms.saturating_sub(told_ms));
    let what = if now.is_told {
        let again = repeat.is_some_and(|repeat| told_for.is_none_or(|span| span >= millis(repeat)));
        again.then_some(What::Repeated)
    } else {
        let lasts = now_ms.saturating_sub(now.since_ms) >= millis(patience);
        (lasts && told_for.is_none_or(|span| span >= RETURN_MS)).then_some(What::Raised)
    };
    let now = match what {
        Some(_) => Alarm { is_told: true, told_ms: Some(now_ms), ..now },
        None => now,
    };
    (before != Some(&now)).then_some((now, what))
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPEAT: Option<Duration> = Some(Duration::from_secs(3_600));

    /// What is told over time: for each look, when it is, and whether it is seen.
    fn told(patience: u64, repeat: Option<Duration>, looks: &[(i64, bool)]) -> Vec<(i64, What)> {
        let (mut alarm, mut notes) = (None, Vec::new());
        for (at_s, is_seen) in looks {
            let change = judge(alarm.as_ref(), *is_seen, "x", at_s * 1_000, Duration::from_secs(patience), repeat);
            if let Some((after, what)) = change {
                notes.extend(what.map(|what| (*at_s, what)));
                alarm = Some(after);
            }
        }
        notes
    }

    #[test]
    fn once_then_again_after_hours_then_its_end() {
        use What::{Ended, Raised, Repeated};
        let looks: Vec<(i64, bool)> = (0..800).map(|look| (look * 10, look < 780)).collect();
        assert_eq!(told(0, REPEAT, &looks), [(0, Raised), (3_600, Repeated), (7_200, Repeated), (7_800, Ended)]);
        assert_eq!(told(60, None, &looks), [(60, Raised), (7_800, Ended)]);
    }

    #[test]
    fn what_heals_itself_is_not_told() {
        assert_eq!(told(60, REPEAT, &[(0, true), (50, true), (59, false), (100, true), (159, true), (160, false)]), []);
    }

    #[test]
    fn what_comes_and_goes_is_told_now_and_then() {
        use What::{Ended, Raised};
        // Up and down every half minute, for an hour.
        let looks: Vec<(i64, bool)> = (0..720).map(|look| (look * 5, look / 6 % 2 == 0)).collect();
        let notes = told(0, REPEAT, &looks);
        assert!(notes.len() <= 12, "{notes:?}");
        assert_eq!(&notes[..3], [(0, Raised), (30, Ended), (660, Raised)]);
        // What did not begin did not end.
        let pairs = notes.chunks(2).all(|pair| pair[0].1 == Raised && pair.get(1).is_none_or(|next| next.1 == Ended));
        assert!(pairs, "{notes:?}");
    }

    #[test]
    fn nothing_new_changes_nothing() {
        let (alarm, _) = judge(None, true, "x", 0, Duration::ZERO, None).unwrap();
        assert_eq!(judge(Some(&alarm), true, "x", 10, Duration::ZERO, None), None);
        let (other, what) = judge(Some(&alarm), true, "y", 10, Duration::ZERO, None).unwrap();
        assert_eq!((other.said.as_str(), what), ("y", None));
        let (over, _) = judge(Some(&alarm), false, "x", 20, Duration::ZERO, None).unwrap();
        assert_eq!(judge(Some(&over), false, "x", 30, Duration::ZERO, None), None);
        assert_eq!(judge(None, false, "x", 30, Duration::ZERO, None), None);
        // A clock that is set back tells nothing again.
        let back = judge(Some(&alarm), true, "x", -9_999_999, Duration::ZERO, REPEAT);
        assert!(matches!(back, Some((Alarm { since_ms: -9_999_999, .. }, None))), "{back:?}");
    }

    /// An alarm that a clock raised which was ahead, and was set back since.
    #[test]
    fn a_clock_that_is_set_back_keeps_nobody_waiting() {
        use What::{Ended, Raised, Repeated};
        let ahead = 1_000_000;
        let looks =
            [(ahead, true), (0, true), (3_599, true), (3_600, true), (3_601, false), (4_000, true), (4_201, true)];
        let expected = [(ahead, Raised), (3_600, Repeated), (3_601, Ended), (4_201, Raised)];
        assert_eq!(told(0, REPEAT, &looks), expected);
        // It waits for its time, and was over, while the clock was ahead.
        assert_eq!(told(60, None, &[(ahead, true), (0, true), (59, true), (60, true)]), [(60, Raised)]);
        let over = [(ahead, true), (ahead + 1, false), (0, true)];
        assert_eq!(told(0, None, &over), [(ahead, Raised), (ahead + 1, Ended), (0, Raised)]);
    }
}
