//! What the meters of most streams have in common: events that pass, the one that the receipt
//! joins, and the one that ends it all. What differs is a [`Flow`].

use bytes::Bytes;
use serde_json::value::RawValue;

use super::body::{self, Lens, Patch};
use super::complaint::Complaint;
use super::pattern::{Last, Piece};
use super::sse::Payload;
use super::{Meter, Reading, Receipt, Step, sse};

/// What an event is to its stream.
pub(super) enum Turn {
    /// Goes to the client as it is, but for the model's name.
    Pass,
    /// The receipt joins it, if no other such event comes.
    Closing,
    /// The receipt joins it, and nothing follows.
    Last,
    /// Comes after the receipt, and nothing follows.
    End,
    /// The upstream reports an error.
    Failed(Complaint),
}

/// One kind of stream.
pub(super) trait Flow: Send {
    /// What an event is about, where it is wrapped in something. The client gets it without that.
    fn inner<'a>(&self, _: &Lens<'a>) -> Option<&'a RawValue> {
        None
    }

    /// Takes the object of the next event.
    fn look(&mut self, lens: &Lens<'_>) -> Turn;

    /// The pieces of an event that passes which may be otherwise in the next without another meaning, if that is so of
    /// anything.
    fn pieces<'a>(&self, _: &Lens<'a>) -> Option<Vec<Piece<'a>>> {
        None
    }

    /// Takes such a piece of an event that is otherwise like the last one.
    fn more(&mut self, _key: &'static str, _value: &[u8]) {}

    /// Whether any content has been seen.
    fn has_content(&self) -> bool;

    /// Whether the answer came to its regular end.
    fn is_complete(&self) -> bool;

    /// What was consumed, as far as seen.
    fn reading(&self) -> Reading;

    /// See [`Meter::left`].
    fn left(&self) -> Reading {
        self.reading()
    }

    /// Puts the client's name for the model where this event has one.
    fn rename(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>);

    /// Puts the receipt into the event that closes the stream.
    fn bill(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt);

    /// The event for the receipt, where the upstream sent none.
    fn make_up(&self) -> Bytes;

    /// The event that tells of an error.
    fn error_event(&self, message: &str, kind: &str, code: &str) -> Bytes;

    /// What ends the stream, where the upstream has not sent it.
    fn terminator(&self) -> Bytes;
}

/// Follows a stream.
pub(super) struct Follow<F> {
    flow: F,
    held: Option<Bytes>,
    end: Option<Bytes>,
    alike: Last,
    is_done: bool,
}

impl<F: Flow> Follow<F> {
    pub(super) fn new(flow: F) -> Self {
        Self { flow, held: None, end: None, alike: Last::default(), is_done: false }
    }

    fn take(&mut self, event: &Bytes, lens: &Lens<'_>) -> Step {
        let turn = self.flow.look(lens);
        if let Turn::Failed(said) = turn {
            return Step::Error(said);
        }
        let mut patch = Patch::new(lens);
        self.flow.rename(&mut patch, lens);
        let came = event;
        let event = patch.apply().map_or_else(|| event.clone(), |data| sse::with_data(event, &data));
        match turn {
            Turn::Pass | Turn::Failed(_) => {
                self.alike.remember(came, &event, self.flow.pieces(lens));
                return Step::Forward(event);
            }
            Turn::End => {
                self.is_done = true;
                self.end = Some(event);
                return Step::HoldBack;
            }
            Turn::Last => self.is_done = true,
            Turn::Closing => {}
        }
        match self.held.replace(event) {
            Some(earlier) => Step::Forward(earlier),
            None => Step::HoldBack,
        }
    }
}

impl<F: Flow> Meter for Follow<F> {
    fn observe(&mut self, event: &Bytes) -> Step {
        if self.is_done {
            // Nothing that follows the end is anybody's.
            return Step::HoldBack;
        }
        if let Some(sent) = self.alike.repeat(event, |key, value| self.flow.more(key, value)) {
            return Step::Forward(sent);
        }
        let data = match Payload::of(event) {
            Payload::Object(data) => data,
            Payload::Done => {
                self.is_done = true;
                self.end = Some(sse::event_of(sse::DONE));
                return Step::HoldBack;
            }
            Payload::Comment => return Step::HoldBack,
            Payload::Bare => return Step::Forward(event.clone()),
        };
        let Ok(lens) = Lens::parse(data.trim_ascii()) else { return Step::Forward(event.clone()) };
        match self.flow.inner(&lens).and_then(|inner| Some((inner, Lens::of(inner)?))) {
            Some((inner, lens)) => self.take(&sse::with_data(event, inner.get().as_bytes()), &lens),
            None => self.take(event, &lens),
        }
    }

    fn has_content(&self) -> bool {
        self.flow.has_content()
    }

    fn is_complete(&self) -> bool {
        self.flow.is_complete()
    }

    fn is_terminated(&self) -> bool {
        self.is_done
    }

    fn reading(&self) -> Reading {
        self.flow.reading()
    }

    fn left(&self) -> Reading {
        self.flow.left()
    }

    fn closing(&mut self, receipt: &Receipt) -> Bytes {
        let event = self.held.take().unwrap_or_else(|| self.flow.make_up());
        edited(&event, |patch, lens| self.flow.bill(patch, lens, receipt)).unwrap_or(event)
    }

    fn error_event(&self, message: &str, kind: &str, code: &str) -> Bytes {
        self.flow.error_event(message, kind, code)
    }

    fn terminator(&self) -> Bytes {
        self.end.clone().unwrap_or_else(|| self.flow.terminator())
    }
}

/// An event whose object is edited; `None` when it has none, or nothing changed.
pub(super) fn edited(event: &[u8], edit: impl FnOnce(&mut Patch<'_, '_>, &Lens<'_>)) -> Option<Bytes> {
    let data = sse::data_of(event)?;
    let lens = Lens::parse(&data).ok()?;
    let mut patch = Patch::new(&lens);
    edit(&mut patch, &lens);
    Some(sse::with_data(event, &patch.apply()?))
}

/// An event with a name, of one object.
pub(super) fn named_event(name: &str, object: &str) -> Bytes {
    // A line end between tokens is no part of the data of one line.
    let object = object.replace(['\n', '\r'], " ");
    format!("event: {name}\ndata: {object}\n\n").into()
}

/// Puts the client's name for the model into `outer`, an object inside the event.
pub(super) fn rename_inside(patch: &mut Patch<'_, '_>, lens: &Lens<'_>, outer: &str, model: &str) {
    let Some(inner) = lens.get(outer) else { return };
    let renamed = body::edited(inner, |inner, patch| {
        if inner.get("model").is_some_and(|shown| body::string(shown).as_deref() != Some(model)) {
            patch.set("model", body::encode(model));
        }
    });
    if let Some(renamed) = renamed {
        patch.set(outer, renamed);
    }
}
