//! OpenAI Chat Completions.

mod meter;
mod reading;
mod receipt;

use bytes::Bytes;
use serde_json::value::RawValue;

use self::meter::ChatMeter;
use self::reading::{Content, error_of, first_of_array, usage_of};
use super::body::{self, Lens, Patch, Unreadable};
use super::{BadAnswer, BadRequest, Dialect, Meter, Reading, Receipt, Shape};

/// `POST /v1/chat/completions`.
#[derive(Clone, Copy, Debug)]
pub struct Chat;

const MAX_MODEL_CHARS: usize = 256;
const MAX_CHOICES: u64 = 128;
const MAX_OUTPUT_TOKENS: u64 = 10_000_000;

/// What is read or edited. Given twice, two parsers could see two requests, one of them unpaid.
const READ: [&str; 7] = ["model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"];

/// What the model never sees. Anything else that holds text counts as input.
const NOT_INPUT: [&str; 16] = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "user",
    "metadata",
    "stop",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "logit_bias",
    "modalities",
    "reasoning_effort",
    "verbosity",
    "audio",
    "provider",
];

impl Dialect for Chat {
    fn path(&self) -> &'static str {
        "chat/completions"
    }

    fn read(&self, body: &[u8]) -> Result<Shape, BadRequest> {
        let lens = Lens::parse(body).map_err(unreadable)?;
        if let Some(name) = READ.iter().find(|name| lens.is_repeated(name)) {
            return Err(field(format!("{name} is given twice")));
        }
        let model = read_model(&lens)?;
        let limits = [read_limit(&lens, "max_tokens")?, read_limit(&lens, "max_completion_tokens")?];
        let mut shape = Shape {
            model,
            stream: read_flag(&lens, "stream")?,
            wants_usage: read_wants_usage(&lens)?,
            max_output: limits.into_iter().flatten().max(),
            choices: read_choices(&lens)?,
            ..Shape::default()
        };
        measure(&lens, &mut shape)?;
        Ok(shape)
    }

    /// `body` is the one that `shape` was read from, so it is only looked at again where
    /// something has to change.
    fn forward(&self, body: &Bytes, shape: &Shape, model: &str) -> Result<Bytes, BadRequest> {
        let asks_for_usage = !shape.stream || shape.wants_usage;
        if asks_for_usage && shape.model == model {
            return Ok(body.clone());
        }
        let lens = Lens::parse(body).map_err(unreadable)?;
        let mut patch = Patch::new(&lens);
        if shape.model != model {
            patch.set("model", body::encode(model));
        }
        if !asks_for_usage {
            patch.set("stream_options", with_usage_asked_for(&lens));
        }
        Ok(patch.apply_to(body))
    }

    fn read_answer(&self, body: &[u8]) -> Result<Reading, BadAnswer> {
        let Ok(lens) = Lens::parse(body) else {
            // Google's shim wraps its errors in an array.
            let wrapped = first_of_array(body).and_then(Lens::of);
            let error = wrapped.and_then(|lens| error_of(&lens));
            return Err(error.map_or(BadAnswer::NotJson, BadAnswer::Error));
        };
        let Some(choices) = lens.get("choices").filter(|value| body::is_filled_array(value)) else {
            return Err(error_of(&lens).map_or(BadAnswer::Empty, BadAnswer::Error));
        };
        Ok(match usage_of(&lens) {
            Some((_, Some(usage))) => Reading::Reported(usage),
            _ => Reading::Unreported { output_chars: Content::of(choices).output_chars() },
        })
    }

    fn stamp(&self, body: &Bytes, model: &str, receipt: &Receipt) -> Bytes {
        let Ok(lens) = Lens::parse(body) else {
            return body.clone();
        };
        let mut patch = Patch::new(&lens);
        if lens.get("model").and_then(body::string).as_deref() != Some(model) {
            patch.set("model", body::encode(model));
        }
        receipt::write(&mut patch, &lens, receipt);
        patch.apply_to(body)
    }

    fn meter(&self, shape: &Shape) -> Box<dyn Meter> {
        Box::new(ChatMeter::new(shape))
    }
}

fn unreadable(reason: Unreadable) -> BadRequest {
    BadRequest::Json(reason.to_string())
}

fn field(message: impl Into<String>) -> BadRequest {
    BadRequest::Field(message.into())
}

fn read_model(lens: &Lens<'_>) -> Result<String, BadRequest> {
    let value = lens.present("model").ok_or_else(|| field("model is missing"))?;
    let model = body::string(value).ok_or_else(|| field("model must be a string"))?;
    if model.is_empty() {
        return Err(field("model must not be empty"));
    }
    if model.chars().count() > MAX_MODEL_CHARS {
        return Err(field(format!("model must have at most {MAX_MODEL_CHARS} characters")));
    }
    Ok(model)
}

fn read_flag(lens: &Lens<'_>, name: &str) -> Result<bool, BadRequest> {
    match lens.present(name).map(RawValue::get) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(field(format!("{name} must be true or false"))),
    }
}

/// An integer without sign, point or exponent. Too many digits are more than any limit.
fn integer(value: &RawValue) -> Option<u64> {
    let text = value.get();
    let is_integer = text.bytes().all(|byte| byte.is_ascii_digit());
    is_integer.then(|| text.parse().unwrap_or(u64::MAX))
}

fn read_limit(lens: &Lens<'_>, name: &str) -> Result<Option<u64>, BadRequest> {
    let Some(value) = lens.present(name) else {
        return Ok(None);
    };
    match integer(value) {
        None | Some(0) => Err(field(format!("{name} must be a positive integer"))),
        Some(MAX_TOO_MANY..) => Err(field(format!("{name} must be at most {MAX_OUTPUT_TOKENS}"))),
        Some(limit) => Ok(Some(limit)),
    }
}

const MAX_TOO_MANY: u64 = MAX_OUTPUT_TOKENS + 1;

fn read_choices(lens: &Lens<'_>) -> Result<u64, BadRequest> {
    match lens.present("n").map(integer) {
        None => Ok(1),
        Some(Some(choices @ 1..=MAX_CHOICES)) => Ok(choices),
        Some(_) => Err(field(format!("n must be an integer from 1 to {MAX_CHOICES}"))),
    }
}

fn read_wants_usage(lens: &Lens<'_>) -> Result<bool, BadRequest> {
    let Some(value) = lens.present("stream_options") else {
        return Ok(false);
    };
    let options = Lens::of(value).ok_or_else(|| field("stream_options must be an object"))?;
    if options.is_repeated("include_usage") {
        return Err(field("stream_options.include_usage is given twice"));
    }
    match options.present("include_usage").map(RawValue::get) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(field("stream_options.include_usage must be true or false")),
    }
}

fn measure(lens: &Lens<'_>, shape: &mut Shape) -> Result<(), BadRequest> {
    let messages = lens.present("messages").ok_or_else(|| field("messages is missing"))?;
    if !body::is_filled_array(messages) {
        return Err(field("messages must be an array with at least one message"));
    }
    let volume = body::measure(messages).map_err(unreadable)?;
    shape.prompt_chars = volume.chars;
    shape.images = volume.images;
    shape.image_tokens = volume.image_tokens;
    for (_, value) in lens.members().filter(|(name, _)| !NOT_INPUT.contains(name)) {
        let chars = body::measure(value).map_err(unreadable)?.chars;
        shape.extra_chars = shape.extra_chars.saturating_add(chars);
    }
    Ok(())
}

/// The `stream_options` of the client, with usage reports switched on.
fn with_usage_asked_for(lens: &Lens<'_>) -> String {
    let patched = lens.object("stream_options").and_then(|options| {
        let mut patch = Patch::new(&options);
        patch.set("include_usage", "true".to_owned());
        String::from_utf8(patch.apply()?).ok()
    });
    patched.unwrap_or_else(|| r#"{"include_usage":true}"#.to_owned())
}

#[cfg(test)]
mod tests;
