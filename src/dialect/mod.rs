//! Wire formats. One file each; a new one is a file and a line in [`REGISTRY`].
//!
//! A dialect never builds a request or an answer of its own. It looks through a lens
//! ([`body`]) at the few fields that routing and billing need and splices edits into the original
//! bytes, so unknown fields, key order and the text of numbers survive. Everything here is pure:
//! no I/O, no clock.

pub mod body;
pub mod chat;
mod images;
pub mod sse;

use bytes::Bytes;
use rust_decimal::Decimal;

use crate::money::{Cost, Msat, Usage};

/// All dialects, in the order in which paths are matched.
pub const REGISTRY: &[&dyn Dialect] = &[&chat::Chat];

/// The dialect that serves `path` (without a leading `/` or `v1/`).
#[must_use]
pub fn for_path(path: &str) -> Option<&'static dyn Dialect> {
    REGISTRY.iter().copied().find(|dialect| dialect.path() == path)
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
    /// Characters of all strings in the conversation, keys included.
    pub prompt_chars: u64,
    /// Characters of everything else that is sent to the model as input (tools, schemas).
    pub extra_chars: u64,
    /// Image parts in the conversation.
    pub images: u64,
    /// Input tokens that those images are estimated at.
    pub image_tokens: u64,
}

/// Why an upstream's answer cannot be passed on as a success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    #[error("the upstream answered with something that is not JSON")]
    NotJson,
    #[error("the upstream answered without content")]
    Empty,
    /// An error object where an answer should be. The text is the upstream's own.
    #[error("the upstream reported an error: {0}")]
    Error(String),
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
}

/// What the client is told about its bill; goes into the answer's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub cost: Cost,
    /// What is left on the key; `None` for a token that rode on this request.
    pub remaining: Option<Msat>,
    /// Which kind of upstream served it.
    pub provider: String,
    /// Price of one bitcoin that was used, where prices are in USD.
    pub btc_usd: Option<Decimal>,
}

/// One wire format of one endpoint. Object safe; implementations are unit structs.
pub trait Dialect: Send + Sync + std::fmt::Debug {
    /// Path below `/v1/` on both sides, like `chat/completions`.
    fn path(&self) -> &'static str;

    /// Reads a request through the lens and refuses what is wrong in it.
    ///
    /// # Errors
    /// When the body is no JSON object, lacks a model, or a limit in it is negative or absurd.
    fn read(&self, body: &[u8]) -> Result<Shape, BadRequest>;

    /// The body for the upstream: `model` replaced where it differs, usage reports switched on
    /// for streams, all else as it came.
    ///
    /// # Errors
    /// When the body is no JSON object.
    fn forward(&self, body: &Bytes, shape: &Shape, model: &str) -> Result<Bytes, BadRequest>;

    /// Reads a whole answer: what it consumed, or why it is no answer.
    ///
    /// # Errors
    /// When the body must not be passed on as a success.
    fn read_answer(&self, body: &[u8]) -> Result<Reading, BadAnswer>;

    /// Writes the receipt into a whole answer, and the model's name as the client knows it.
    /// `usage` supplies the usage object where the upstream sent none.
    fn stamp(&self, body: &Bytes, model: &str, receipt: &Receipt) -> Bytes;

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
    /// The upstream reported an error in its stream. The text is its own.
    Error(String),
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

    /// The event(s) that close a complete stream, with the receipt, without the terminator.
    fn closing(&mut self, receipt: &Receipt) -> Bytes;

    /// The event that tells a client that a stream broke, in this dialect.
    fn error_event(&self, message: &str, code: &str) -> Bytes;

    /// The terminator, like `data: [DONE]`.
    fn terminator(&self) -> Bytes;
}
