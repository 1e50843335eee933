//! A stream of events as the elements of a JSON array.

use bytes::Bytes;

use crate::dialect::{Meter, Reading, Receipt, Step, sse};

/// Follows a stream, and writes what it forwards into an array.
pub(super) struct AsArray<M> {
    inner: M,
    has_begun: bool,
}

impl<M: Meter> AsArray<M> {
    pub(super) fn new(inner: M) -> Self {
        Self { inner, has_begun: false }
    }

    fn element(&self, event: &Bytes) -> Option<Bytes> {
        let data = sse::data_of(event)?;
        let before: &[u8] = if self.has_begun { b",\r\n" } else { b"[" };
        Some([before, &data].concat().into())
    }
}

impl<M: Meter> Meter for AsArray<M> {
    fn observe(&mut self, event: &Bytes) -> Step {
        let step = self.inner.observe(event);
        let Step::Forward(event) = step else { return step };
        // Only objects are elements; what is no data, or cannot be read, has no place in an array.
        let is_object = sse::data_of(&event).is_some_and(|data| super::body::Lens::parse(&data).is_ok());
        match self.element(&event).filter(|_| is_object) {
            Some(element) => {
                self.has_begun = true;
                Step::Forward(element)
            }
            None => Step::HoldBack,
        }
    }

    fn has_content(&self) -> bool {
        self.inner.has_content()
    }

    fn is_complete(&self) -> bool {
        self.inner.is_complete()
    }

    fn is_terminated(&self) -> bool {
        self.inner.is_terminated()
    }

    fn reading(&self) -> Reading {
        self.inner.reading()
    }

    fn closing(&mut self, receipt: &Receipt) -> Bytes {
        let event = self.inner.closing(receipt);
        self.element(&event).unwrap_or_default()
    }

    fn error_event(&self, message: &str, kind: &str, code: &str) -> Bytes {
        let event = self.inner.error_event(message, kind, code);
        [&self.element(&event).unwrap_or_default()[..], b"]"].concat().into()
    }

    fn terminator(&self) -> Bytes {
        Bytes::from_static(b"]")
    }
}
