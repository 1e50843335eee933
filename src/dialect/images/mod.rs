//! OpenAI's images: pictures are made, edited, varied. Billed by the tokens that are reported where
//! these have a price, and by the piece otherwise.

use bytes::Bytes;

use super::body::{self, Lens, Patch, Tally};
use super::complaint::Complaint;
use super::done::{DoneFlow, Kind};
use super::fields::{self, field, unreadable};
use super::follow::Follow;
use super::reading::{Rest, failed, usage_of};
use super::{
    AnswerBody, Ask, BadAnswer, BadRequest, Dialect, JSON, Meter, Reading, Receipt, Request, Shape, WireFormat,
    multipart, needs, receipt,
};
use crate::money::Usage;

/// `POST /v1/images/generations`.
#[derive(Clone, Copy, Debug)]
pub struct Generations;

/// `POST /v1/images/edits` and `POST /v1/images/variations`, which are forms; edits may be JSON.
#[derive(Clone, Copy, Debug)]
pub struct Forms {
    pub path: &'static str,
    pub may_be_json: bool,
}

const READ: [&str; 11] = [
    "model",
    "prompt",
    "n",
    "size",
    "quality",
    "stream",
    "partial_images",
    "input_fidelity",
    "output_format",
    "svg",
    "frame_count",
];

/// Pictures that are sent in JSON, under the names that they have at one host or another.
const SENT: [&str; 3] = ["images", "image", "mask"];
/// What the model never sees, and the same where pictures are sent, which are no text.
const NOT_INPUT: [&str; 4] = ["model", "user", "size", "quality"];
const NOT_TEXT: [&str; 7] = ["model", "user", "size", "quality", "images", "image", "mask"];

const MAX_PICTURES: u64 = 10;
/// Most pictures on the way to one.
const MAX_PARTIAL: u64 = 3;
/// Tokens of a picture on the way.
const PARTIAL_TOKENS: u64 = 100;
/// Pixels of the square whose tokens are known, and of what says nothing of its size.
const SQUARE: u64 = 1024 * 1024;
/// Of a size that says no pixels: `16:9`, `square_hd`.
const UNKNOWN: u64 = 4 * SQUARE;
/// Tokens that a picture which is sent may count, at most.
pub(super) const SENT_TOKENS: u64 = 7_000;

const KIND: Kind = Kind { ends: &["image_generation.completed", "image_edit.completed"], usage: read_usage, own: "{}" };

/// The members that all forms of a request have.
pub(super) struct Asked {
    count: Option<u64>,
    size: Option<String>,
    quality: Option<String>,
    partial: Option<u64>,
    frames: Option<u64>,
    format: Option<String>,
    /// It says how a drawing is to be made.
    has_drawing: bool,
}

impl Asked {
    /// What an object asks for.
    pub(super) fn of(lens: &Lens<'_>) -> Result<Self, BadRequest> {
        Ok(Self {
            count: fields::read_limit(lens, "n")?,
            size: fields::text(lens, "size")?,
            quality: fields::text(lens, "quality")?,
            partial: lens.present("partial_images").map(fields::integer).map(Option::unwrap_or_default),
            frames: fields::read_limit(lens, "frame_count")?,
            format: fields::text(lens, "output_format")?,
            has_drawing: lens.present("svg").is_some(),
        })
    }

    fn of_form(form: &multipart::Form<'_>) -> Result<Self, BadRequest> {
        Ok(Self {
            count: form.integer("n")?,
            size: form.text("size")?,
            quality: form.text("quality")?,
            partial: form.integer("partial_images")?,
            frames: form.integer("frame_count")?,
            format: form.text("output_format")?,
            has_drawing: form.has("svg"),
        })
    }

    fn into_shape(self, shape: &mut Shape) -> Result<(), BadRequest> {
        let count = self.count.unwrap_or(1);
        if !(1..=MAX_PICTURES).contains(&count) {
            return Err(field(format!("n must be an integer from 1 to {MAX_PICTURES}")));
        }
        if shape.stream && count > 1 {
            return Err(field("n must be 1 in a stream"));
        }
        needs::conversation(shape);
        shape.choices = 1;
        shape.max_output = Some(0);
        shape.demand.images_made = count;
        self.into_kind(shape)
    }

    /// What kind of pictures they are, as far as it counts.
    pub(super) fn into_kind(self, shape: &mut Shape) -> Result<(), BadRequest> {
        if self.has_drawing || self.format.is_some_and(|format| format.to_ascii_lowercase().contains("svg")) {
            return Err(field("svg is not sold here: another model draws it, whose price would not be known"));
        }
        let partial = self.partial.unwrap_or(0);
        if partial > MAX_PARTIAL {
            return Err(field(format!("partial_images must be at most {MAX_PARTIAL}")));
        }
        shape.size = self.size.unwrap_or_else(|| "auto".to_owned());
        shape.quality = self.quality.unwrap_or_else(|| "auto".to_owned());
        if [&shape.size, &shape.quality].iter().any(|text| text.len() > 32) {
            return Err(field("size or quality is too long"));
        }
        let (usual, most) = tokens(&shape.size, &shape.quality);
        let all =
            |each: u64| each.saturating_mul(self.frames.unwrap_or(1).max(1)).saturating_add(partial * PARTIAL_TOKENS);
        shape.demand.tokens_per_image = all(most);
        shape.demand.usual_tokens_per_image = all(usual);
        Ok(())
    }
}

/// Tokens of a picture of this size and quality, of the dearest where they are left open: as OpenAI's first models have
/// them, and at most. Newer ones have up to 1.7 times as many, and of other sizes more, but none more for each pixel.
fn tokens(size: &str, quality: &str) -> (u64, u64) {
    let (square, tall) = match quality {
        "low" => (272, 408),
        "medium" => (1_056, 1_584),
        _ => (4_160, 6_240),
    };
    let (usual, large) = match size {
        "1024x1024" => (square, square),
        "auto" | "" | "1024x1536" | "1536x1024" => (tall, tall),
        _ => (tall, pixels(size).saturating_mul(square).div_ceil(SQUARE).max(tall)),
    };
    (usual, large.saturating_mul(7).div_ceil(4))
}

/// Pixels of `1024x768` or of `4K`.
fn pixels(size: &str) -> u64 {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let sides = match size.strip_suffix(['k', 'K']) {
        Some(thousands) => number(thousands).and_then(|side| side.checked_mul(1024)).map(|side| (side, side)),
        None => size.split_once(['x', 'X']).and_then(|(width, height)| Some((number(width)?, number(height)?))),
    };
    sides.map_or(UNKNOWN, |(width, height)| width.saturating_mul(height))
}

impl Dialect for Generations {
    fn path(&self) -> &'static str {
        "images/generations"
    }

    fn wire_format(&self) -> WireFormat {
        WireFormat::Images
    }

    fn title(&self) -> &'static str {
        "Pictures from a text"
    }

    fn read(&self, request: &Request<'_>) -> Result<Shape, BadRequest> {
        let lens = Lens::parse(request.body).map_err(unreadable)?;
        read_object(&lens, &NOT_INPUT)
    }

    fn read_answer(&self, answer: AnswerBody<'_>, _: &Shape) -> Result<Reading, BadAnswer> {
        read_answer(answer.bytes)
    }

    fn rename(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, shape: &Shape) {
        fields::rename_if_named(patch, lens, &shape.model);
    }

    fn bill(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
        receipt::bill_what_is_reported(patch, lens, receipt);
    }

    fn meter(&self, shape: &Shape) -> Box<dyn Meter> {
        Box::new(Follow::new(DoneFlow::new(KIND, shape, Reading::Reported(made(1)))))
    }
}

/// A request in JSON, without the pictures that it sends. Other members than these are counted as text.
fn read_object(lens: &Lens<'_>, not_input: &[&str]) -> Result<Shape, BadRequest> {
    fields::once(lens, &READ)?;
    let mut shape =
        Shape { model: fields::read_model(lens)?, stream: fields::read_flag(lens, "stream")?, ..Shape::default() };
    fields::text(lens, "prompt")?;
    let prompt = fields::required(lens, "prompt")?;
    fields::measure(lens, &["prompt"], not_input, &mut shape)?;
    fields::bound_by_bytes(prompt, &mut shape);
    Asked::of(lens)?.into_shape(&mut shape)?;
    Ok(shape)
}

/// A request in JSON that sends pictures.
fn read_edit(body: &Bytes) -> Result<Shape, BadRequest> {
    let lens = Lens::parse(body).map_err(unreadable)?;
    fields::once(&lens, &SENT)?;
    let mut shape = read_object(&lens, &NOT_TEXT)?;
    if ["images", "image"].iter().all(|name| lens.present(name).is_none()) {
        return Err(field("images is missing"));
    }
    let mut sent = 0_u64;
    for value in SENT.iter().filter_map(|name| lens.present(name)) {
        if body::has_key(value, &["file_id"]) {
            return Err(field("Files are not sold here: send the content itself instead of a file_id"));
        }
        sent = sent.saturating_add(Tally::of(value).map_or(1, |all| all.elements));
    }
    shape.slack_tokens = shape.slack_tokens.saturating_add(sent.saturating_mul(SENT_TOKENS));
    Ok(shape)
}

impl Forms {
    fn is_json(self, request: &Request<'_>) -> bool {
        let media = request.media.split(';').next().unwrap_or_default().trim();
        self.may_be_json && media.eq_ignore_ascii_case(JSON)
    }
}

impl Dialect for Forms {
    fn path(&self) -> &'static str {
        self.path
    }

    fn wire_format(&self) -> WireFormat {
        WireFormat::Images
    }

    fn title(&self) -> &'static str {
        "Pictures from pictures"
    }

    fn takes(&self) -> &'static [&'static str] {
        if self.may_be_json { &["multipart/form-data", JSON] } else { &["multipart/form-data"] }
    }

    fn read(&self, request: &Request<'_>) -> Result<Shape, BadRequest> {
        if self.is_json(request) {
            return read_edit(request.body);
        }
        let form = multipart::Form::parse(request.media, request.body)?;
        form.once(&READ)?;
        let mut shape = Shape { model: form.model()?, stream: form.flag("stream")?, ..Shape::default() };
        let prompt = form.text("prompt")?.unwrap_or_default();
        shape.prompt_chars = u64::try_from(prompt.chars().count()).unwrap_or(u64::MAX);
        shape.slack_tokens = u64::try_from(prompt.len()).unwrap_or(u64::MAX);
        let sent = form.files();
        if sent == 0 {
            return Err(field("image is missing"));
        }
        shape.slack_tokens = shape.slack_tokens.saturating_add(sent.saturating_mul(SENT_TOKENS));
        Asked::of_form(&form)?.into_shape(&mut shape)?;
        Ok(shape)
    }

    fn forward(&self, request: &Request<'_>, shape: &Shape, model: &str) -> Result<Ask, BadRequest> {
        if self.is_json(request) {
            let body = fields::with_model(request.body, &shape.model, model)?;
            return Ok(Ask::json(self.wire_format(), self.path, body, shape.stream));
        }
        multipart::forward(self.wire_format(), self.path, request, shape, model)
    }

    fn read_answer(&self, answer: AnswerBody<'_>, _: &Shape) -> Result<Reading, BadAnswer> {
        read_answer(answer.bytes)
    }

    fn rename(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, shape: &Shape) {
        fields::rename_if_named(patch, lens, &shape.model);
    }

    fn bill(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
        receipt::bill_what_is_reported(patch, lens, receipt);
    }

    fn meter(&self, shape: &Shape) -> Box<dyn Meter> {
        Box::new(Follow::new(DoneFlow::new(KIND, shape, Reading::Reported(made(1)))))
    }
}

fn made(images_made: u64) -> Usage {
    Usage { images_made, ..Usage::default() }
}

fn read_answer(bytes: &[u8]) -> Result<Reading, BadAnswer> {
    let Ok(lens) = Lens::parse(bytes) else { return Err(failed(bytes)) };
    let pictures = lens.get("data").and_then(body::elements).unwrap_or_default();
    if pictures.is_empty() {
        return Err(Complaint::of(&lens).map_or(BadAnswer::Empty, BadAnswer::Error));
    }
    let count = u64::try_from(pictures.len()).unwrap_or(u64::MAX);
    let usage = read_usage(&lens).unwrap_or_default();
    Ok(Reading::Reported(Usage { images_made: count, ..usage }))
}

/// The tokens of a report. All output is pictures, unless it says that some of it is text.
fn read_usage(lens: &Lens<'_>) -> Option<Usage> {
    let (value, usage) = usage_of(lens)?;
    let usage = usage?;
    let details = Lens::of(value).and_then(|usage| usage.object("output_tokens_details"));
    let text = super::reading::part(details.as_ref(), "text_tokens").unwrap_or(0);
    let mut rest = Rest::of(usage.total_output());
    let output = rest.take(text);
    let contradictory = usage.contradictory | rest.is_exceeded;
    Some(Usage { output, reasoning: 0, image_out: rest.left, images_made: 1, contradictory, ..usage })
}

#[cfg(test)]
mod tests;
