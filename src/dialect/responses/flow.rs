//! Follows the events of a response.

use bytes::Bytes;

use super::tools::Done;
use super::{bill, read_usage};
use crate::dialect::body::{self, Lens, Patch};
use crate::dialect::complaint::Complaint;
use crate::dialect::follow::{Flow, Turn, named_event, rename_inside};
use crate::dialect::pattern::Piece;
use crate::dialect::reading::{Content, part, so_far};
use crate::dialect::{Reading, Receipt, Shape, receipt};
use crate::money::Usage;

#[derive(Debug)]
pub(super) struct ResponsesFlow {
    /// The model as the client named it.
    model: String,
    content: Content,
    /// What tools did, by the items that are finished.
    done: Done,
    usage: Option<Usage>,
    is_complete: bool,
    /// As JSON, for an event that has to be made up.
    id: String,
    created_at: u64,
    sequence: u64,
}

impl ResponsesFlow {
    pub(super) fn new(shape: &Shape) -> Self {
        Self {
            model: shape.model.clone(),
            content: Content::default(),
            done: Done::default(),
            usage: None,
            is_complete: false,
            id: r#""resp_coinslot""#.to_owned(),
            created_at: 0,
            sequence: 0,
        }
    }

    fn note(&mut self, lens: &Lens<'_>) {
        self.sequence = part(Some(lens), "sequence_number").unwrap_or(self.sequence);
        let Some(response) = lens.object("response") else { return };
        if let Some(id) = response.get("id").and_then(body::string) {
            self.id = body::encode(&id);
        }
        self.created_at = part(Some(&response), "created_at").unwrap_or(self.created_at);
        self.usage = read_usage(&response).or(self.usage);
        // Some tell of their items at the end only, others not again.
        let done = Done::of(&response);
        if done != Done::default() {
            self.done = done;
        }
    }
}

impl Flow for ResponsesFlow {
    fn look(&mut self, lens: &Lens<'_>) -> Turn {
        self.note(lens);
        let kind = lens.get("type").and_then(body::string).unwrap_or_default();
        match kind.as_str() {
            "response.completed" | "response.incomplete" => {
                self.is_complete = true;
                Turn::Last
            }
            "response.failed" | "response.cancelled" => {
                let response = lens.object("response");
                Turn::Failed(response.as_ref().and_then(Complaint::of).unwrap_or_default())
            }
            "error" => Turn::Failed(Complaint::of_event(lens)),
            "response.output_item.added" => {
                let item = lens.object("item").and_then(|item| item.get("type").and_then(body::string));
                // Messages and reasoning come in deltas, calls of tools may come whole.
                self.content.seen |= !matches!(item.as_deref(), None | Some("message" | "reasoning"));
                Turn::Pass
            }
            "response.output_item.done" => {
                if let Some(item) = lens.object("item") {
                    self.done.take(&item);
                }
                Turn::Pass
            }
            kind if kind.ends_with(".delta") => {
                if let Some(delta) = lens.get("delta") {
                    self.content.add(Content::of_text(delta));
                }
                Turn::Pass
            }
            "" => match Complaint::of(lens) {
                Some(said) => Turn::Failed(said),
                None => Turn::Pass,
            },
            _ => Turn::Pass,
        }
    }

    fn pieces<'a>(&self, lens: &Lens<'a>) -> Option<Vec<Piece<'a>>> {
        let is_delta = lens.get("type").and_then(body::string).is_some_and(|kind| kind.ends_with(".delta"));
        if !is_delta || lens.get("response").is_some() {
            return None;
        }
        let delta = Piece::of_string(lens, "delta", "delta")?;
        let number = lens.get("sequence_number").filter(|_| part(Some(lens), "sequence_number").is_some());
        let number = number.map(|number| Piece { key: "sequence_number", value: number.get().as_bytes() });
        Some([delta].into_iter().chain(number).chain(Piece::padding(lens)).collect())
    }

    fn more(&mut self, key: &'static str, value: &[u8]) {
        match key {
            "delta" => self.content.take(b"text", value),
            "sequence_number" => {
                let number = str::from_utf8(value).ok().and_then(|number| number.parse().ok());
                self.sequence = number.unwrap_or(self.sequence);
            }
            _ => {}
        }
    }

    fn has_content(&self) -> bool {
        self.content.seen
    }

    fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// What was reported before the end is no final word.
    fn reading(&self) -> Reading {
        let (chars, done) = (self.content.output_chars(), self.done.usage());
        let usage = match self.is_complete {
            true => self.usage,
            false => self.usage.and_then(|usage| so_far(usage, chars)).map(|usage| Usage {
                web_searches: usage.web_searches.max(done.web_searches),
                images_made: usage.images_made.max(done.images_made),
                code_sessions: usage.code_sessions.max(done.code_sessions),
                ..usage
            }),
        };
        usage.map_or(Reading::seen(chars, done), Reading::Reported)
    }

    fn rename(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>) {
        rename_inside(patch, lens, "response", &self.model);
    }

    fn bill(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
        let billed = lens
            .get("response")
            .and_then(|response| body::edited(response, |response, patch| bill(patch, response, receipt)));
        if let Some(billed) = billed {
            patch.set("response", billed);
        }
        // This network's clients look at the event, OpenAI's at the response in it.
        receipt::bill_beside(patch, lens, receipt);
    }

    /// A stream is complete by this event alone, so it is always there.
    fn make_up(&self) -> Bytes {
        Bytes::new()
    }

    fn error_event(&self, message: &str, _: &str, code: &str) -> Bytes {
        let object = format!(
            r#"{{"type":"response.failed","sequence_number":{},"response":{{"id":{},"object":"response","created_at":{},"status":"failed","model":{},"output":[],"error":{{"code":{},"message":{}}},"usage":null}}}}"#,
            self.sequence.saturating_add(1),
            self.id,
            self.created_at,
            body::encode(&self.model),
            body::encode(code),
            body::encode(message),
        );
        named_event("response.failed", &object)
    }

    /// There is none: nothing follows the last event.
    fn terminator(&self) -> Bytes {
        Bytes::new()
    }
}
