//! What an attempt that gave no answer means: for the upstream, and for whether another is asked.
//!
//! A mistake of the client's is the same mistake everywhere, and goes back to it. Everything else is a
//! reason to ask the next.

use super::bar::Bar;
use super::fault::Fault;
use super::forward::ForwardError;
use super::health::Outcome;
use crate::config::Statuses;

/// Why an attempt was no success. Nothing of it has been shown to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    Forward(ForwardError),
    /// It answered with success, and with something that is none. The text is a sentence that may be
    /// shown, scrubbed.
    Worthless(String),
}

/// What follows from a miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextStep {
    pub outcome: Outcome,
    /// Whether another upstream is asked.
    pub ask_next: bool,
}

impl Miss {
    /// The one place that says who is asked after what. `retried`: the statuses after which the operator wants another
    /// to be asked, where the refusal does not say more than its status.
    #[must_use]
    pub fn next_step(&self, retried: &Statuses) -> NextStep {
        let outcome = self.outcome();
        let ask_next = match self {
            Self::Forward(ForwardError::Refused(refused)) => match outcome {
                Outcome::Barred(_) => true,
                _ => retried.contains(refused.status) && Fault::of(refused) != Some(Fault::Flagged),
            },
            _ => true,
        };
        NextStep { outcome, ask_next }
    }

    /// What it means for the upstream.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let Self::Forward(ForwardError::Refused(refused)) = self else { return Outcome::Failed(None) };
        if let Some(bar) = Bar::of(refused) {
            return Outcome::Barred(bar);
        }
        match (refused.status, Fault::of(refused)) {
            (_, Some(Fault::Flagged)) => Outcome::Refused,
            (_, Some(Fault::TooDear)) => Outcome::TooDear,
            (401..=403, _) => Outcome::Locked,
            (404, _) => Outcome::Missing,
            (429, _) => Outcome::Limited(refused.retry_after),
            (408 | 409 | 425, _) => Outcome::Failed(refused.retry_after),
            (400..=499, _) => Outcome::Refused,
            _ => Outcome::Failed(refused.retry_after),
        }
    }

    /// Whether the same upstream may be asked once more: it has seen nothing of the request.
    #[must_use]
    pub fn was_never_sent(&self) -> bool {
        matches!(self, Self::Forward(ForwardError::Unreachable))
    }

    /// The status that it came with, for the operator's records.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Forward(ForwardError::Refused(refused)) => Some(refused.status),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Refused;
    use Outcome::{Failed, Limited, Locked, Missing, TooDear};

    fn refused(status: u16, retry_after: Option<u64>, message: Option<&str>) -> Miss {
        let message = message.map(str::to_owned);
        Miss::Forward(ForwardError::Refused(Refused {
            status,
            retry_after,
            message,
            kind: None,
            code: None,
            param: None,
        }))
    }

    #[test]
    fn who_is_asked_after_what() {
        let usual = Statuses::retried();
        let own_fault = Outcome::Refused;
        for (status, outcome, ask_next) in [
            (307, Failed(Some(3)), true),
            (400, own_fault, false),
            (401, Locked, true),
            (402, Locked, true),
            (403, Locked, true),
            (404, Missing, true),
            (408, Failed(Some(3)), true),
            (409, Failed(Some(3)), true),
            (413, own_fault, false),
            (418, own_fault, false),
            (422, own_fault, false),
            (425, Failed(Some(3)), true),
            (429, Limited(Some(3)), true),
            (500, Failed(Some(3)), true),
            (502, Failed(Some(3)), true),
            (503, Failed(Some(3)), true),
            (504, Failed(Some(3)), true),
            (524, Failed(Some(3)), true),
            (529, Failed(Some(3)), true),
        ] {
            let miss = refused(status, Some(3), None);
            assert_eq!(miss.next_step(&usual), NextStep { outcome, ask_next }, "{status}");
            assert_eq!(miss.status(), Some(status));
        }
        for (status, message, outcome, ask_next) in [
            (403, "Your input was flagged for \"harassment\".", own_fault, false),
            (402, "This request requires more credits, or fewer max_tokens.", TooDear, true),
        ] {
            assert_eq!(refused(status, None, Some(message)).next_step(&usual), NextStep { outcome, ask_next });
        }
        let failed = NextStep { outcome: Failed(None), ask_next: true };
        for error in [ForwardError::Unreachable, ForwardError::TimedOut, ForwardError::Broken, ForwardError::TooLarge] {
            let is_unreachable = error == ForwardError::Unreachable;
            let miss = Miss::Forward(error);
            assert_eq!((miss.next_step(&usual), miss.was_never_sent()), (failed, is_unreachable));
        }
        assert_eq!(Miss::Worthless("x".to_owned()).next_step(&usual), failed);
    }

    #[test]
    fn the_operator_says_after_which_statuses_another_is_asked() {
        let own: Statuses = "400,5xx".parse().unwrap();
        for (status, outcome, ask_next) in [
            (400, Outcome::Refused, true),
            (404, Missing, false),
            (429, Limited(None), false),
            (500, Failed(None), true),
        ] {
            assert_eq!(refused(status, None, None).next_step(&own), NextStep { outcome, ask_next }, "{status}");
        }
        // What leaves no doubt is no matter of statuses.
        let flagged = "Your input was flagged for \"harassment\".";
        assert!(!refused(403, None, Some(flagged)).next_step(&"403".parse().unwrap()).ask_next);
        let barred = refused(401, None, Some("Incorrect API key provided: sk-a"));
        assert!(barred.next_step(&own).ask_next);
    }
}
