//! What an attempt that gave no answer means: for the upstream, and for whether another is asked.
//!
//! A mistake of the client's is the same mistake everywhere, and goes back to it. Everything else is a
//! reason to ask the next.

use super::bar::Bar;
use super::fault::Fault;
use super::forward::ForwardError;
use super::health::Outcome;

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
pub struct Verdict {
    pub outcome: Outcome,
    /// Whether another upstream is asked.
    pub ask_next: bool,
}

impl Miss {
    /// The one place that says who is asked after what.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let Self::Forward(ForwardError::Refused(refused)) = self else {
            return Verdict { outcome: Outcome::Failed(None), ask_next: true };
        };
        if let Some(bar) = Bar::of(refused) {
            return Verdict { outcome: Outcome::Barred(bar), ask_next: true };
        }
        let outcome = match (refused.status, Fault::of(refused)) {
            (_, Some(Fault::Flagged)) => Outcome::Answered,
            (_, Some(Fault::TooDear)) => Outcome::TooDear,
            (401..=403, _) => Outcome::Locked,
            (404, _) => Outcome::Missing,
            (429, _) => Outcome::Limited(refused.retry_after),
            (408 | 409 | 425, _) => Outcome::Failed(refused.retry_after),
            (400..=499, _) => Outcome::Answered,
            _ => Outcome::Failed(refused.retry_after),
        };
        Verdict { outcome, ask_next: outcome != Outcome::Answered }
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
    use Outcome::{Answered, Failed, Limited, Locked, Missing, TooDear};

    #[test]
    fn who_is_asked_after_what() {
        for (status, outcome, ask_next) in [
            (307, Failed(Some(3)), true),
            (400, Answered, false),
            (401, Locked, true),
            (402, Locked, true),
            (403, Locked, true),
            (404, Missing, true),
            (408, Failed(Some(3)), true),
            (409, Failed(Some(3)), true),
            (413, Answered, false),
            (418, Answered, false),
            (422, Answered, false),
            (425, Failed(Some(3)), true),
            (429, Limited(Some(3)), true),
            (500, Failed(Some(3)), true),
            (502, Failed(Some(3)), true),
            (503, Failed(Some(3)), true),
            (504, Failed(Some(3)), true),
            (524, Failed(Some(3)), true),
            (529, Failed(Some(3)), true),
        ] {
            let refused = Refused { status, retry_after: Some(3), message: None, kind: None, code: None, param: None };
            let miss = Miss::Forward(ForwardError::Refused(refused));
            assert_eq!(miss.verdict(), Verdict { outcome, ask_next }, "{status}");
            assert_eq!(miss.status(), Some(status));
        }
        for (status, message, outcome, ask_next) in [
            (403, "Your input was flagged for \"harassment\".", Answered, false),
            (402, "This request requires more credits, or fewer max_tokens.", TooDear, true),
        ] {
            let message = Some(message.to_owned());
            let refused = Refused { status, retry_after: None, message, kind: None, code: None, param: None };
            assert_eq!(Miss::Forward(ForwardError::Refused(refused)).verdict(), Verdict { outcome, ask_next });
        }
        let failed = Verdict { outcome: Failed(None), ask_next: true };
        for error in [ForwardError::Unreachable, ForwardError::TimedOut, ForwardError::Broken, ForwardError::TooLarge] {
            let is_unreachable = error == ForwardError::Unreachable;
            let miss = Miss::Forward(error);
            assert_eq!((miss.verdict(), miss.was_never_sent()), (failed, is_unreachable));
        }
        assert_eq!(Miss::Worthless("x".to_owned()).verdict(), failed);
    }
}
