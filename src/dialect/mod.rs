//! Endpoints and their wire formats. One file each; a new one is a file and a line in [`REGISTRY`], and upstreams must
//! be said to speak its [`WireFormat`] (`upstream::kind::PRESETS`).
//!
//! A dialect never builds a request or an answer of its own. It looks through a lens
//! ([`body`]) at the few fields that routing and billing need and splices edits into the original
//! bytes, so unknown fields, key order and the text of numbers survive. Everything here is pure:
//! no I/O, no clock.

mod audio;
pub mod body;
pub mod chat;
mod complaint;
mod completions;
mod done;
mod embeddings;
mod fields;
mod follow;
mod gemini;
mod images;
mod measure;
mod messages;
mod moderations;
mod multipart;
mod needs;
mod pattern;
mod pieces;
mod reading;
mod receipt;
mod rerank;
mod responses;
pub mod sse;
mod vision;
mod whole;
mod wire_format;

pub use complaint::Complaint;
pub use needs::{Feature, Needs};
pub use wire_format::WireFormat;
pub(crate) use wire_format::named;

use std::borrow::Cow;

use bytes::Bytes;
pub use pieces::Pieces;
use rust_decimal::Decimal;
use serde_json::value::RawValue;

use self::body::{Lens, Patch};
use crate::money::{Cost, Demand, Msat, Usage};

/// All dialects, in the order in which paths are matched.
pub const REGISTRY: &[&dyn Dialect] = &[
    &chat::Chat,
    &completions::Completions,
    &embeddings::Embeddings,
    &responses::Responses,
    &messages::Messages,
    &messages::CountTokens,
    &moderations::Moderations,
    &rerank::Rerank,
    &images::Generations,
    &images::Forms { path: "images/edits", may_be_json: true },
    &images::Forms { path: "images/variations", may_be_json: false },
    &audio::Speech,
    &audio::Listening { path: "audio/transcriptions" },
    &audio::Listening { path: "audio/translations" },
    &gemini::Generate { is_stream: false },
    &gemini::Generate { is_stream: true },
    &gemini::CountTokens,
    &gemini::Embed { is_batch: false },
    &gemini::Embed { is_batch: true },
];

/// Wire formats that can be converted, each with what it becomes. An upstream that speaks a format itself is asked in
/// that.
pub const CONVERSIONS: &[(WireFormat, WireFormat)] = &[];

/// The dialect that serves `path` (without a leading `/` or `v1/`).
#[must_use]
pub fn for_path(path: &str) -> Option<&'static dyn Dialect> {
    REGISTRY.iter().copied().find(|dialect| !dialect.is_of_a_model() && dialect.path() == path)
}

/// The dialect that serves `method` of a model, like `generateContent`.
#[must_use]
pub fn for_method(method: &str) -> Option<&'static dyn Dialect> {
    REGISTRY.iter().copied().find(|dialect| dialect.is_of_a_model() && dialect.path() == method)
}

/// The demand of what consumes nothing that is counted.
fn uncounted() -> Demand {
    Demand { uncounted: true, ..Demand::default() }
}

/// An answer of such a kind, which has this member.
fn read_uncounted(body: &[u8], member: &str) -> Result<Reading, BadAnswer> {
    let Ok(lens) = Lens::parse(body) else { return Err(reading::failed(body)) };
    match lens.present(member) {
        Some(_) => Ok(Reading::Reported(Usage::default())),
        None => Err(Complaint::of(&lens).map_or(BadAnswer::Empty, BadAnswer::Error)),
    }
}

/// The vendor whose conventions an endpoint follows: where credentials are, how errors look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    OpenAi,
    Anthropic,
    Gemini,
}

impl Protocol {
    /// As people call it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "openai" => Some(Self::OpenAi),
            "anthropic" | "claude" => Some(Self::Anthropic),
            "gemini" | "google" => Some(Self::Gemini),
            _ => None,
        }
    }
}

/// A request as a dialect looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The model, where the path names it.
    pub model: Option<&'a str>,
    /// `alt=sse` is in the query.
    pub wants_events: bool,
    /// `Content-Type`, as it came.
    pub media: &'a str,
    pub body: &'a Bytes,
}

impl<'a> Request<'a> {
    /// A request with nothing but a body.
    #[must_use]
    pub fn of(body: &'a Bytes) -> Self {
        Self { model: None, wants_events: false, media: JSON, body }
    }
}

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
/// As events are sent: some clients take them for Latin-1 otherwise.
const EVENTS_IN_UTF_8: &str = "text/event-stream; charset=utf-8";

/// Tokens that an answer without a limit is reckoned with until its end.
const USUAL_OUTPUT: u64 = 1_000;

/// What an upstream is asked, but for its address and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub format: WireFormat,
    /// Below the version, like `chat/completions`.
    pub path: Cow<'static, str>,
    pub query: Option<&'static str>,
    /// `Content-Type` of the body.
    pub media: Cow<'static, str>,
    pub accept: &'static str,
    /// Headers of the protocol: names in lower case, values that are plain text.
    pub headers: Vec<(&'static str, String)>,
    pub body: Pieces,
}

impl Ask {
    /// JSON to JSON, or to a stream of events.
    #[must_use]
    pub fn json(format: WireFormat, path: impl Into<Cow<'static, str>>, body: Pieces, stream: bool) -> Self {
        let accept = if stream { "text/event-stream, application/json" } else { JSON };
        let (path, media) = (path.into(), JSON.into());
        Self { format, path, query: None, media, accept, headers: Vec::new(), body }
    }

    /// The question without asking for a report of usage in a stream, for an upstream that does not know how.
    #[must_use]
    pub fn without_stream_options(self) -> Self {
        if self.media != JSON {
            return self;
        }
        let body = fields::without(&self.body.joined(), "stream_options");
        Self { body: body.map_or(self.body, Pieces::from), ..self }
    }
}

/// Why a request body cannot be served. Rendered as `invalid_json` or `invalid_request`, 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("The request body is not valid JSON: {0}")]
    Json(String),
    #[error("{0}")]
    Field(String),
}

/// What routing, pricing and metering need to know of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The model as the client named it.
    pub model: String,
    pub stream: bool,
    /// The client asked for a usage report in the stream.
    pub wants_usage: bool,
    /// Most output tokens per choice, where the client set a limit.
    pub max_output: Option<u64>,
    /// How many answers were asked for (`n`), at least 1.
    pub choices: u64,
    /// How many inputs were sent that a model reads one by one, each with its whole context. 0 counts as 1.
    pub prompts: u64,
    /// Characters of all strings in the conversation, keys included.
    pub prompt_chars: u64,
    /// Characters of everything else that is sent to the model as input (tools, schemas).
    pub extra_chars: u64,
    /// Image parts in the conversation.
    pub images: u64,
    /// Input tokens that those images are estimated at.
    pub image_tokens: u64,
    /// Input tokens that are given as numbers.
    pub given_tokens: u64,
    /// Input tokens to hold for beyond all these, where the characters bound them badly.
    pub slack_tokens: u64,
    /// What it may consume beside text.
    pub demand: Demand,
    /// Length of the audio that is sent, in milliseconds, as far as that can be told without listening.
    pub usual_audio_ms: u64,
    /// Tokens of audio, and of files, that the conversation brings, as far as their size tells.
    pub usual_audio_tokens: u64,
    pub usual_file_tokens: u64,
    /// What it needs of whoever serves it.
    pub needs: Needs,
    /// Quality and size of the pictures asked for, as far as they were given.
    pub quality: String,
    pub size: String,
    /// The events of the stream come as the elements of a JSON array.
    pub as_array: bool,
    /// The answer comes as subtitles, of which there are none where nobody speaks.
    pub as_subtitles: bool,
}

impl Shape {
    /// Input tokens, counted from the text: four characters each.
    #[must_use]
    pub fn estimated_input(&self) -> u64 {
        let chars = self.prompt_chars.saturating_add(self.extra_chars);
        chars.div_ceil(4).saturating_add(self.image_tokens).saturating_add(self.given_tokens)
    }

    /// About what it will use, both ways, as far as it says.
    #[must_use]
    pub fn usual_tokens(&self) -> u64 {
        let output = self.max_output.unwrap_or(USUAL_OUTPUT).saturating_mul(self.choices.max(1));
        self.estimated_input().saturating_add(output)
    }
}

/// Why an upstream's answer cannot be passed on as a success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    #[error("the upstream answered with something that is not JSON")]
    NotJson,
    #[error("the upstream answered without content")]
    Empty,
    /// An error object where an answer should be.
    #[error("the upstream reported an error: {0}")]
    Error(Complaint),
    #[error("the upstream's stream ended before the answer was complete")]
    Truncated,
}

/// What was found out about consumption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Reported(Usage),
    /// No usage report. So many characters of output were seen.
    Unreported {
        output_chars: u64,
    },
    /// No usage report, of an answer that has more than text: what tools did, sound.
    Seen {
        output_chars: u64,
        beside: Usage,
    },
    /// No usage report, of an answer that is no text: what went in can be estimated.
    Silent,
}

impl Reading {
    /// No usage report. So much text was seen, and this beside it.
    fn seen(output_chars: u64, beside: Usage) -> Self {
        match beside == Usage::default() {
            true => Self::Unreported { output_chars },
            false => Self::Seen { output_chars, beside },
        }
    }
}

/// A whole answer.
#[derive(Clone, Copy, Debug)]
pub struct AnswerBody<'a> {
    /// Its `Content-Type`, in lower case.
    pub media: &'a str,
    pub bytes: &'a [u8],
}

/// What the client is told about its bill; goes into the answer's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub cost: Cost,
    /// What is left on the key; `None` for a token that rode on this request.
    pub remaining: Option<Msat>,
    /// Which kind of upstream served it.
    pub provider: String,
    /// The model, as the price list has it.
    pub model: String,
    /// Price of one bitcoin that was used, where prices are in USD.
    pub btc_usd: Option<Decimal>,
}

/// One wire format of one endpoint. Object safe; implementations are unit structs, or a few values. What one
/// leaves out is as OpenAI has it.
pub trait Dialect: Send + Sync + std::fmt::Debug {
    /// Its path below the version (`chat/completions`), or what follows the colon after a model
    /// that the path names (`generateContent`). Unique among all.
    fn path(&self) -> &'static str;

    /// What it gives, in a few words, for the description of the API.
    fn title(&self) -> &'static str;

    /// The media types of a request.
    fn takes(&self) -> &'static [&'static str] {
        &[JSON]
    }

    /// The media types of its answers, whole and streamed.
    fn gives(&self) -> &'static [&'static str] {
        &[JSON, EVENTS]
    }

    /// Whether the path names the model: `models/{model}:{path}`.
    fn is_of_a_model(&self) -> bool {
        false
    }

    /// Its wire format: only upstreams that speak it are asked.
    fn wire_format(&self) -> WireFormat;

    /// Whose conventions it follows.
    fn protocol(&self) -> Protocol {
        self.wire_format().protocol()
    }

    /// The member of a request that asks for a feature.
    fn member(&self, feature: Feature) -> &'static str {
        needs::member_of_chat(feature)
    }

    /// Headers of the protocol for the upstream; `_sent` looks up what the client sent.
    fn headers(&self, _sent: &dyn Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Reads a request through the lens and refuses what is wrong in it.
    ///
    /// # Errors
    /// When the body is not what the endpoint takes, lacks a model, wants what is not sold by the
    /// request, or a limit in it is negative or absurd.
    fn read(&self, request: &Request<'_>) -> Result<Shape, BadRequest>;

    /// What goes to the upstream: `model` replaced where it differs, all else as it came, but for what the dialect
    /// must set, like reports of usage in a stream.
    ///
    /// # Errors
    /// When the body is not what it was when it was read.
    fn forward(&self, request: &Request<'_>, shape: &Shape, model: &str) -> Result<Ask, BadRequest> {
        let body = fields::with_model(request.body, &shape.model, model)?;
        Ok(Ask::json(self.wire_format(), self.path(), body, shape.stream))
    }

    /// Reads a whole answer: what it consumed, or why it is no answer.
    ///
    /// # Errors
    /// When the body must not be passed on as a success.
    fn read_answer(&self, answer: AnswerBody<'_>, shape: &Shape) -> Result<Reading, BadAnswer>;

    /// The answer, where it is wrapped in something. The client gets it without that.
    fn inner<'a>(&self, _: &Lens<'a>) -> Option<&'a RawValue> {
        None
    }

    /// Puts the client's name for the model into an answer.
    fn rename(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, shape: &Shape) {
        fields::rename(patch, lens, &shape.model);
    }

    /// Puts the receipt into an answer.
    fn bill(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
        receipt::write(patch, lens, receipt);
    }

    /// A whole answer as the client gets it: with the receipt, and with its own name for the model.
    fn stamp(&self, body: &Bytes, shape: &Shape, receipt: &Receipt) -> Bytes {
        let Ok(lens) = Lens::parse(body) else { return body.clone() };
        if let Some(inner) = self.inner(&lens) {
            return self.stamp(&Bytes::copy_from_slice(inner.get().as_bytes()), shape, receipt);
        }
        let mut patch = Patch::new(&lens);
        self.rename(&mut patch, &lens, shape);
        self.bill(&mut patch, &lens, receipt);
        patch.apply_to(body)
    }

    /// `Content-Type` of a whole answer, given the upstream's.
    fn answer_media(&self, _upstream: &str) -> Cow<'static, str> {
        JSON.into()
    }

    /// `Content-Type` of a streamed answer to this request.
    fn stream_media(&self, _request: &Request<'_>) -> &'static str {
        EVENTS_IN_UTF_8
    }

    /// Whether some of its models answer whole where a stream is asked for: then that is what the client gets.
    fn may_be_whole(&self) -> bool {
        false
    }

    /// A whole answer as the events of a stream, for a client that has the head of one. None: it cannot be said so.
    fn as_events(&self, _answer: &Bytes) -> Vec<Bytes> {
        Vec::new()
    }

    /// A meter for one streamed answer.
    fn meter(&self, shape: &Shape) -> Box<dyn Meter>;
}

/// What becomes of one event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send these bytes now.
    Forward(Bytes),
    /// Send nothing now (the event closes the stream, or carries the usage that the receipt
    /// joins, or is a comment of the upstream's).
    HoldBack,
    /// The upstream reported an error in its stream.
    Error(Complaint),
}

/// Follows one streamed answer: what to forward, what to keep for the receipt, what was used.
pub trait Meter: Send {
    /// Takes the next event: raw bytes as they came, up to and including the blank line.
    fn observe(&mut self, event: &Bytes) -> Step;

    /// Whether any content has been seen (as opposed to roles and keep-alives).
    fn has_content(&self) -> bool;

    /// Whether the answer came to its regular end.
    fn is_complete(&self) -> bool;

    /// Whether the stream's own terminator was seen: nothing can follow.
    fn is_terminated(&self) -> bool;

    /// What was consumed, as far as seen.
    fn reading(&self) -> Reading;

    /// What was consumed where the client has left and the rest is not read: what it asked for is made without it.
    fn left(&self) -> Reading {
        self.reading()
    }

    /// The event(s) that close a complete stream, with the receipt, without the terminator.
    fn closing(&mut self, receipt: &Receipt) -> Bytes;

    /// The event that tells a client that a stream broke, in this dialect. `kind` is the failure's type, for those
    /// that have no types of their own.
    fn error_event(&self, message: &str, kind: &str, code: &str) -> Bytes;

    /// The terminator, like `data: [DONE]`.
    fn terminator(&self) -> Bytes;
}
