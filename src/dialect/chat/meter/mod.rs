//! Follows a stream of `chat.completion.chunk` objects.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{failure_of, searches, unreported};
use crate::dialect::body::{self, Lens, Patch};
use crate::dialect::pattern::{Last, Piece};
use crate::dialect::reading::{Content, so_far, usage_of};
use crate::dialect::sse::Payload;
use crate::dialect::{Meter, Reading, Receipt, Shape, Step, fields, follow, receipt, sse};
use crate::money::{Demand, Service, Usage};

/// What the objects of a stream are called, and how one looks that says nothing.
#[derive(Clone, Copy, Debug)]
pub(in crate::dialect) struct Kind {
    pub object: &'static str,
    pub id: &'static str,
    /// What clients that did not ask for usage find instead of no choices at all, because many of
    /// them look at the first one without asking whether it exists.
    pub idle_choice: &'static str,
}

pub(in crate::dialect) const CHAT: Kind = Kind {
    object: "chat.completion.chunk",
    id: r#""chatcmpl-coinslot""#,
    idle_choice: r#"[{"index":0,"delta":{},"finish_reason":null}]"#,
};

#[derive(Debug)]
pub(in crate::dialect) struct ChatMeter {
    kind: Kind,
    /// The model as the client named it, as JSON.
    model: String,
    wants_usage: bool,
    demand: Demand,
    content: Content,
    usage: Option<Usage>,
    /// How it is served, as far as any chunk said so.
    service: Option<Service>,
    /// The event that the receipt joins, as it goes to the client but for that.
    held: Option<Bytes>,
    /// The latest object, for the id and the time of one that has to be made up.
    last: Option<Bytes>,
    alike: Last,
    is_done: bool,
}

impl ChatMeter {
    pub(in crate::dialect) fn new(shape: &Shape, kind: Kind) -> Self {
        Self {
            kind,
            model: body::encode(&shape.model),
            wants_usage: shape.wants_usage,
            demand: shape.demand,
            content: Content::default(),
            usage: None,
            service: None,
            held: None,
            last: None,
            alike: Last::default(),
            is_done: false,
        }
    }

    fn observe_object(&mut self, event: &Bytes, lens: &Lens<'_>) -> Step {
        let choices = lens.get("choices").filter(|value| body::is_filled_array(value));
        let content = choices.map(Content::of).unwrap_or_default();
        if !content.seen
            && let Some(said) = failure_of(lens, choices)
        {
            return Step::Error(said);
        }
        self.content.add(content);
        self.last = Some(event.clone());
        self.service = fields::served(lens).or(self.service);
        let report = usage_of(lens);
        if let Some((told, Some(usage))) = report {
            self.usage = Some(Usage { web_searches: searches(told, self.demand.web_searches), ..usage });
        }
        if report.is_none() || (choices.is_some() && !content.finished) {
            let sent = self.rewrite(event, lens, false);
            if report.is_none() && content.seen && !content.finished {
                self.alike.remember(event, &sent, pieces(lens, choices));
            }
            return Step::Forward(sent);
        }
        let held = self.rewrite(event, lens, choices.is_none() && !self.wants_usage);
        match self.held.replace(held) {
            Some(earlier) => Step::Forward(earlier),
            None => Step::HoldBack,
        }
    }

    /// The event under the client's name for the model, with an idle choice where that is wanted.
    fn rewrite(&self, event: &Bytes, lens: &Lens<'_>, needs_choice: bool) -> Bytes {
        let mut patch = Patch::new(lens);
        if lens.get("model").is_some_and(|model| model.get() != self.model) {
            patch.set("model", self.model.clone());
        }
        if needs_choice {
            patch.set("choices", self.kind.idle_choice.to_owned());
        }
        patch.apply().map_or_else(|| event.clone(), |data| sse::with_data(event, &data))
    }

    /// An event for the receipt where the upstream sent none.
    fn make_up(&self) -> Bytes {
        let data = self.last.as_ref().and_then(|event| sse::data_of(event));
        let lens = data.as_deref().and_then(|data| Lens::parse(data).ok());
        let copy = |key: &str, otherwise: &'static str| {
            let value = lens.as_ref().and_then(|lens| lens.present(key)).map(RawValue::get);
            value.unwrap_or(otherwise).to_owned()
        };
        let choices = if self.wants_usage { "[]" } else { self.kind.idle_choice };
        let members = [
            ("id", copy("id", self.kind.id)),
            ("object", body::encode(self.kind.object)),
            ("created", copy("created", "0")),
            ("model", self.model.clone()),
            ("choices", choices.to_owned()),
        ];
        let members = members.map(|(key, json)| format!("{}:{json}", body::encode(key)));
        // A line end between tokens is no part of the data of one line.
        let object = format!("{{{}}}", members.join(",")).replace(['\n', '\r'], " ");
        sse::event_of(object.as_bytes())
    }
}

/// What may be otherwise in the next chunk without another meaning.
fn pieces<'a>(lens: &Lens<'a>, choices: Option<&'a RawValue>) -> Option<Vec<Piece<'a>>> {
    // What is content beside an error would be an error without.
    let is_well = failure_of(lens, choices).is_none();
    is_well.then(|| choices.into_iter().flat_map(Content::pieces).chain(Piece::padding(lens)).collect())
}

impl Meter for ChatMeter {
    fn observe(&mut self, event: &Bytes) -> Step {
        if let Some(sent) = self.alike.repeat(event, |key, text| self.content.take(key.as_bytes(), text)) {
            return Step::Forward(sent);
        }
        let data = match Payload::of(event) {
            Payload::Object(data) => data,
            Payload::Done => {
                self.is_done = true;
                return Step::HoldBack;
            }
            Payload::Comment => return Step::HoldBack,
            Payload::Bare => return Step::Forward(event.clone()),
        };
        match Lens::parse(data.trim_ascii()) {
            Ok(lens) => self.observe_object(event, &lens),
            Err(_) => Step::Forward(event.clone()),
        }
    }

    fn has_content(&self) -> bool {
        self.content.seen
    }

    /// A terminator alone ends no answer: there must have been one.
    fn is_complete(&self) -> bool {
        self.content.finished || (self.is_done && (self.content.seen || self.usage.is_some()))
    }

    fn is_terminated(&self) -> bool {
        self.is_done
    }

    /// What was reported before the end is no final word.
    fn reading(&self) -> Reading {
        let usage = match self.is_complete() {
            true => self.usage,
            false => self.usage.and_then(|usage| so_far(usage, self.content.output_chars())),
        };
        match usage {
            Some(usage) => Reading::Reported(Usage { service: self.service, ..usage }),
            None => unreported(&self.content, &self.demand),
        }
    }

    fn closing(&mut self, receipt: &Receipt) -> Bytes {
        let event = self.held.take().unwrap_or_else(|| self.make_up());
        follow::edited(&event, |patch, lens| receipt::write(patch, lens, receipt)).unwrap_or(event)
    }

    fn error_event(&self, message: &str, kind: &str, code: &str) -> Bytes {
        let object = format!(
            r#"{{"error":{{"message":{},"type":{},"code":{}}}}}"#,
            body::encode(message),
            body::encode(kind),
            body::encode(code),
        );
        sse::event_of(object.as_bytes())
    }

    fn terminator(&self) -> Bytes {
        Bytes::from_static(b"data: [DONE]\n\n")
    }
}

#[cfg(test)]
mod tests;
