//! The meter of endpoints that have no streams: there, a stream is no answer.

use bytes::Bytes;

use super::{Meter, Reading, Receipt, Step};

/// Refuses whatever comes.
#[derive(Debug)]
pub(super) struct Unstreamed;

impl Meter for Unstreamed {
    fn observe(&mut self, _: &Bytes) -> Step {
        Step::Error("it sent a stream where there is none".into())
    }

    fn has_content(&self) -> bool {
        false
    }

    fn is_complete(&self) -> bool {
        false
    }

    fn is_terminated(&self) -> bool {
        false
    }

    fn reading(&self) -> Reading {
        Reading::Unreported { output_chars: 0 }
    }

    fn closing(&mut self, _: &Receipt) -> Bytes {
        Bytes::new()
    }

    fn error_event(&self, _: &str, _: &str, _: &str) -> Bytes {
        Bytes::new()
    }

    fn terminator(&self) -> Bytes {
        Bytes::new()
    }
}
