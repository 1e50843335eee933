//! Streams that are pieces and one event that is the end of them, with the usage in it: pictures,
//! speech, transcripts.

use bytes::Bytes;

use super::body::{self, Lens, Patch};
use super::complaint::Complaint;
use super::follow::{Flow, Turn, named_event};
use super::reading::Content;
use super::{Reading, Receipt, Shape, fields, receipt};
use crate::money::Usage;

/// What tells one kind from another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// `type` of the last event.
    pub ends: &'static [&'static str],
    /// The usage in that event.
    pub usage: fn(&Lens<'_>) -> Option<Usage>,
    /// What is told of the usage where the upstream is silent about it.
    pub own: &'static str,
}

#[derive(Debug)]
pub(super) struct DoneFlow {
    kind: Kind,
    /// The model as the client named it.
    model: String,
    content: Content,
    usage: Option<Usage>,
    /// What is known without a report.
    known: Reading,
    is_complete: bool,
}

impl DoneFlow {
    /// `known` is what a complete answer without a report has consumed.
    pub(super) fn new(kind: Kind, shape: &Shape, known: Reading) -> Self {
        let model = shape.model.clone();
        Self { kind, model, content: Content::default(), usage: None, known, is_complete: false }
    }
}

impl Flow for DoneFlow {
    fn look(&mut self, lens: &Lens<'_>) -> Turn {
        let name = lens.get("type").and_then(body::string).unwrap_or_default();
        if self.kind.ends.contains(&name.as_str()) {
            self.usage = (self.kind.usage)(lens);
            self.content.seen = true;
            self.is_complete = true;
            return Turn::Last;
        }
        if let Some(said) = Complaint::of(lens) {
            return Turn::Failed(said);
        }
        if name == "error" {
            return Turn::Failed(Complaint::of_event(lens));
        }
        if let Some(delta) = lens.get("delta") {
            self.content.add(Content::of_text(delta));
        }
        self.content.seen |= ["audio", "b64_json"].iter().any(|key| lens.present(key).is_some());
        Turn::Pass
    }

    fn has_content(&self) -> bool {
        self.content.seen
    }

    fn is_complete(&self) -> bool {
        self.is_complete
    }

    fn reading(&self) -> Reading {
        match self.usage {
            Some(usage) => Reading::Reported(usage),
            None if self.is_complete => self.known,
            None => Reading::Unreported { output_chars: self.content.output_chars() },
        }
    }

    /// A picture of which the first lines came is finished, and a text that is read out is read to its end. What is known
    /// of a transcript is no more than what was read of it tells.
    fn left(&self) -> Reading {
        match self.known {
            Reading::Reported(_) if self.usage.is_none() && self.content.seen => self.known,
            _ => self.reading(),
        }
    }

    fn rename(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>) {
        fields::rename_if_named(patch, lens, &self.model);
    }

    fn bill(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
        receipt::bill(patch, lens, "usage", self.kind.own, receipt);
    }

    /// A stream is complete by its last event alone, so that is always there.
    fn make_up(&self) -> Bytes {
        Bytes::new()
    }

    fn error_event(&self, message: &str, kind: &str, code: &str) -> Bytes {
        let (message, kind, code) = (body::encode(message), body::encode(kind), body::encode(code));
        let object = format!(r#"{{"type":"error","error":{{"message":{message},"type":{kind},"code":{code}}}}}"#);
        named_event("error", &object)
    }

    fn terminator(&self) -> Bytes {
        Bytes::new()
    }
}
