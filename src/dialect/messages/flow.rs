//! Follows the events of a message.

use bytes::Bytes;

use super::usage::Report;
use super::{bill, is_there};
use crate::dialect::body::{self, Lens, Patch};
use crate::dialect::complaint::Complaint;
use crate::dialect::follow::{Flow, Turn, named_event, rename_inside};
use crate::dialect::pattern::Piece;
use crate::dialect::reading::Content;
use crate::dialect::{Reading, Receipt, Shape};

#[derive(Debug)]
pub(super) struct MessagesFlow {
    /// The model as the client named it.
    model: String,
    content: Content,
    report: Report,
    /// The counts at the start are of the input; only those that come later are of the output too.
    has_final_counts: bool,
    is_stopped: bool,
}

impl MessagesFlow {
    pub(super) fn new(shape: &Shape) -> Self {
        Self {
            model: shape.model.clone(),
            content: Content::default(),
            report: Report::default(),
            has_final_counts: false,
            is_stopped: false,
        }
    }

    fn take_usage(&mut self, holder: Option<&Lens<'_>>) -> bool {
        let Some(usage) = holder.and_then(|holder| holder.object("usage")) else { return false };
        self.report.take(&usage);
        is_there(&usage, "output_tokens")
    }

    fn delta(&mut self, lens: &Lens<'_>) {
        let delta = lens.object("delta");
        let is_final = self.take_usage(delta.as_ref()) | self.take_usage(Some(lens));
        self.has_final_counts |= is_final;
        self.is_stopped |= delta.is_some_and(|delta| is_there(&delta, "stop_reason"));
    }

    fn block(&mut self, lens: &Lens<'_>, name: &str) {
        let Some(block) = lens.get(name) else { return };
        self.content.add(Content::of(block));
        let kind = Lens::of(block).and_then(|block| block.get("type").and_then(body::string)).unwrap_or_default();
        self.content.seen |= kind.ends_with("tool_use") || kind.ends_with("tool_result") || kind == "redacted_thinking";
    }
}

impl Flow for MessagesFlow {
    fn look(&mut self, lens: &Lens<'_>) -> Turn {
        match lens.get("type").and_then(body::string).unwrap_or_default().as_str() {
            "message_start" => {
                self.take_usage(lens.object("message").as_ref());
                Turn::Pass
            }
            "content_block_start" => {
                self.block(lens, "content_block");
                Turn::Pass
            }
            "content_block_delta" => {
                self.block(lens, "delta");
                Turn::Pass
            }
            "message_delta" => {
                self.delta(lens);
                Turn::Closing
            }
            "message_stop" => {
                // An end of nothing is no answer.
                self.is_stopped |= self.content.seen;
                Turn::End
            }
            "error" => Turn::Failed(Complaint::of_event(lens)),
            "" => Complaint::of(lens).map_or(Turn::Pass, Turn::Failed),
            _ => Turn::Pass,
        }
    }

    fn pieces<'a>(&self, lens: &Lens<'a>) -> Option<Vec<Piece<'a>>> {
        let is_delta = lens.get("type").and_then(body::string).as_deref() == Some("content_block_delta");
        let delta = lens.get("delta").filter(|_| is_delta)?;
        Some(Content::pieces(delta).collect())
    }

    fn more(&mut self, key: &'static str, value: &[u8]) {
        self.content.take(key.as_bytes(), value);
    }

    fn has_content(&self) -> bool {
        self.content.seen
    }

    fn is_complete(&self) -> bool {
        self.is_stopped
    }

    fn reading(&self) -> Reading {
        let chars = self.content.output_chars();
        let usage = match self.has_final_counts {
            true => self.report.usage(),
            false => self.report.partial(chars),
        };
        usage.map_or(Reading::Unreported { output_chars: chars }, Reading::Reported)
    }

    fn rename(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>) {
        rename_inside(patch, lens, "message", &self.model);
    }

    fn bill(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
        bill(patch, lens, receipt);
    }

    fn make_up(&self) -> Bytes {
        named_event(
            "message_delta",
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null}}"#,
        )
    }

    fn error_event(&self, message: &str, _: &str, code: &str) -> Bytes {
        let (message, code) = (body::encode(message), body::encode(code));
        let object = format!(r#"{{"type":"error","error":{{"type":"api_error","message":{message},"code":{code}}}}}"#);
        named_event("error", &object)
    }

    fn terminator(&self) -> Bytes {
        named_event("message_stop", r#"{"type":"message_stop"}"#)
    }
}
