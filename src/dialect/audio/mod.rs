//! OpenAI's audio: text is spoken, speech is written down.
//!
//! Speech is sold by the character: the sound itself says nothing about its price. Listening is
//! billed by what is reported, seconds (as OpenAI and Mistral call them) or tokens, so the formats
//! that report nothing are refused, but for subtitles, whose last time tells how long the audio was.

mod length;

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;

use self::length::{longest_ms, milliseconds, subtitles_ms, usual_ms};
use super::body::{self, Lens, Patch};
use super::complaint::Complaint;
use super::done::{DoneFlow, Kind};
use super::fields::{self, field, unreadable};
use super::follow::{Follow, named_event};
use super::reading::{Content, Rest, count, failed, part};
use super::{
    AnswerBody, Ask, BadAnswer, BadRequest, Dialect, Feature, Meter, Reading, Receipt, Request, Shape, WireFormat,
    multipart, needs, receipt,
};
use crate::money::{Usage, UsageSource};

/// `POST /v1/audio/speech`.
#[derive(Clone, Copy, Debug)]
pub struct Speech;

/// `POST /v1/audio/transcriptions` and `POST /v1/audio/translations`, which are forms.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    pub path: &'static str,
}

const SPEECH_READ: [&str; 5] = ["model", "input", "instructions", "stream_format", "response_format"];
const LISTENING_READ: [&str; 6] = ["model", "file", "url", "prompt", "response_format", "stream"];

const SPOKEN: Kind = Kind { ends: &["speech.audio.done"], usage: |_| None, own: "{}" };
const WRITTEN: Kind = Kind { ends: &["transcript.text.done"], usage: read_usage, own: "{}" };

impl Dialect for Speech {
    fn path(&self) -> &'static str {
        "audio/speech"
    }

    fn wire_format(&self) -> WireFormat {
        WireFormat::Audio
    }

    fn title(&self) -> &'static str {
        "A voice that reads a text"
    }

    fn gives(&self) -> &'static [&'static str] {
        &["audio/*", "application/octet-stream", "text/event-stream"]
    }

    fn read(&self, request: &Request<'_>) -> Result<Shape, BadRequest> {
        let lens = Lens::parse(request.body).map_err(unreadable)?;
        fields::once(&lens, &SPEECH_READ)?;
        let input = fields::text(&lens, "input")?.ok_or_else(|| field("input is missing"))?;
        let mut shape =
            Shape { model: fields::read_model(&lens)?, choices: 1, max_output: Some(0), ..Shape::default() };
        shape.stream = match fields::text(&lens, "stream_format")?.as_deref() {
            None | Some("audio") => false,
            Some("sse") => true,
            Some(_) => return Err(field("stream_format must be audio or sse")),
        };
        needs::conversation(&mut shape);
        if input.is_empty() {
            return Err(field("input must not be empty"));
        }
        let how = fields::text(&lens, "instructions")?.unwrap_or_default();
        let characters = input.chars().count().saturating_add(how.chars().count());
        shape.demand.characters = u64::try_from(characters).unwrap_or(u64::MAX);
        Ok(shape)
    }

    fn member(&self, feature: Feature) -> &'static str {
        if feature == Feature::Streaming { "stream_format" } else { needs::member_of_chat(feature) }
    }

    fn forward(&self, request: &Request<'_>, shape: &Shape, model: &str) -> Result<Ask, BadRequest> {
        let body = fields::with_model(request.body, &shape.model, model)?;
        let ask = Ask::json(self.wire_format(), self.path(), body, shape.stream);
        Ok(if shape.stream { ask } else { Ask { accept: "*/*", ..ask } })
    }

    fn read_answer(&self, answer: AnswerBody<'_>, shape: &Shape) -> Result<Reading, BadAnswer> {
        let is_sound = answer.media.starts_with("audio/") || answer.media.starts_with("application/octet-stream");
        if !is_sound {
            let Ok(lens) = Lens::parse(answer.bytes) else { return Err(failed(answer.bytes)) };
            return Err(Complaint::of(&lens).map_or(BadAnswer::Empty, BadAnswer::Error));
        }
        if answer.bytes.is_empty() { Err(BadAnswer::Empty) } else { Ok(spoken(shape)) }
    }

    fn stamp(&self, body: &Bytes, _: &Shape, _: &Receipt) -> Bytes {
        body.clone()
    }

    fn answer_media(&self, upstream: &str) -> Cow<'static, str> {
        let kind = upstream.split(';').next().unwrap_or_default().trim();
        let is_plain = kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/+.-".contains(&byte));
        if is_plain && kind.starts_with("audio/") { kind.to_owned().into() } else { "application/octet-stream".into() }
    }

    fn may_be_whole(&self) -> bool {
        true
    }

    fn as_events(&self, answer: &Bytes) -> Vec<Bytes> {
        let delta = format!(r#"{{"type":"speech.audio.delta","audio":"{}"}}"#, STANDARD.encode(answer));
        let done = r#"{"type":"speech.audio.done"}"#;
        vec![named_event("speech.audio.delta", &delta), named_event("speech.audio.done", done)]
    }

    fn meter(&self, shape: &Shape) -> Box<dyn Meter> {
        Box::new(Follow::new(DoneFlow::new(SPOKEN, shape, spoken(shape))))
    }
}

fn spoken(shape: &Shape) -> Reading {
    Reading::Reported(Usage { characters: shape.demand.characters, ..Usage::default() })
}

impl Dialect for Listening {
    fn path(&self) -> &'static str {
        self.path
    }

    fn wire_format(&self) -> WireFormat {
        WireFormat::Audio
    }

    fn title(&self) -> &'static str {
        "The text of a recording"
    }

    fn takes(&self) -> &'static [&'static str] {
        &["multipart/form-data"]
    }

    fn gives(&self) -> &'static [&'static str] {
        &["application/json", "text/plain", "text/vtt", "application/x-subrip", "text/event-stream"]
    }

    fn read(&self, request: &Request<'_>) -> Result<Shape, BadRequest> {
        let form = multipart::Form::parse(request.media, request.body)?;
        form.once(&LISTENING_READ)?;
        let format = form.text("response_format")?.unwrap_or_else(|| "json".to_owned());
        if !["json", "verbose_json", "diarized_json", "srt", "vtt"].contains(&format.as_str()) {
            return Err(field("This response_format reports no usage: ask for json, verbose_json, srt or vtt"));
        }
        let file = form.file("file").ok_or_else(|| field("file is missing"))?;
        if form.text("url")?.is_some_and(|url| !url.is_empty()) {
            return Err(field("url is not sold here: nobody knows how long what is there is; send the file"));
        }
        let prompt = form.text("prompt")?.unwrap_or_default();
        let mut shape = Shape { model: form.model()?, stream: form.flag("stream")?, choices: 1, ..Shape::default() };
        shape.prompt_chars = u64::try_from(prompt.chars().count()).unwrap_or(u64::MAX);
        shape.slack_tokens = fields::size(&prompt);
        shape.as_subtitles = matches!(format.as_str(), "srt" | "vtt");
        shape.demand.audio_ms = longest_ms(file);
        shape.usual_audio_ms = usual_ms(file);
        needs::conversation(&mut shape);
        Ok(shape)
    }

    fn forward(&self, request: &Request<'_>, shape: &Shape, model: &str) -> Result<Ask, BadRequest> {
        let ask = multipart::forward(self.wire_format(), self.path, request, shape, model)?;
        Ok(if shape.stream { ask } else { Ask { accept: "*/*", ..ask } })
    }

    fn read_answer(&self, answer: AnswerBody<'_>, shape: &Shape) -> Result<Reading, BadAnswer> {
        let Ok(lens) = Lens::parse(answer.bytes) else {
            return match subtitles_ms(answer.bytes) {
                Some(audio_ms) => Ok(estimated(audio_ms)),
                None if shape.as_subtitles && is_silence(answer) => Ok(Reading::Silent),
                None => Err(failed(answer.bytes)),
            };
        };
        let Some(text) = lens.get("text").filter(|text| text.get().starts_with('"')) else {
            return Err(Complaint::of(&lens).map_or(BadAnswer::Empty, BadAnswer::Error));
        };
        let length = || Some(listened(milliseconds(lens.present("duration")?)?));
        Ok(match read_usage(&lens).or_else(length) {
            Some(usage) => Reading::Reported(usage),
            None => Reading::Unreported { output_chars: Content::of_text(text).output_chars() },
        })
    }

    fn rename(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, shape: &Shape) {
        fields::rename_if_named(patch, lens, &shape.model);
    }

    fn bill(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
        receipt::bill_what_is_reported(patch, lens, receipt);
    }

    fn answer_media(&self, upstream: &str) -> Cow<'static, str> {
        // Nothing that a browser would run.
        match upstream.split(';').next().unwrap_or_default().trim() {
            "text/plain" => "text/plain; charset=utf-8".into(),
            "text/vtt" => "text/vtt; charset=utf-8".into(),
            "application/x-subrip" | "text/srt" => "application/x-subrip".into(),
            _ => "application/json".into(),
        }
    }

    /// OpenAI's oldest model takes no notice of `stream`.
    fn may_be_whole(&self) -> bool {
        true
    }

    fn as_events(&self, answer: &Bytes) -> Vec<Bytes> {
        let name = "transcript.text.done";
        let said = |lens: Lens<'_>| {
            let mut patch = Patch::new(&lens);
            patch.set("type", body::encode(name));
            String::from_utf8(patch.apply()?).ok()
        };
        // Subtitles are a text like any other.
        let object = Lens::parse(answer).ok().and_then(said).unwrap_or_else(|| {
            let text = body::encode(&String::from_utf8_lossy(answer));
            format!(r#"{{"type":"{name}","text":{text}}}"#)
        });
        vec![named_event(name, &object)]
    }

    fn meter(&self, shape: &Shape) -> Box<dyn Meter> {
        Box::new(Follow::new(DoneFlow::new(WRITTEN, shape, Reading::Silent)))
    }
}

fn listened(audio_ms: u64) -> Usage {
    Usage { audio_ms, ..Usage::default() }
}

fn estimated(audio_ms: u64) -> Reading {
    Reading::Reported(Usage { source: UsageSource::Estimated, ..listened(audio_ms) })
}

/// Whether this is what subtitles are of a recording in which nobody speaks.
fn is_silence(answer: AnswerBody<'_>) -> bool {
    let text = answer.bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(answer.bytes).trim_ascii();
    let is_text = answer.media.starts_with("text/") || answer.media.starts_with("application/x-subrip");
    is_text && !answer.media.starts_with("text/html") && (text.is_empty() || text.starts_with(b"WEBVTT"))
}

/// A report in seconds or in tokens. Mistral counts tokens beside the seconds, and sells these.
fn read_usage(lens: &Lens<'_>) -> Option<Usage> {
    let report = lens.object("usage")?;
    if let Some(seconds) = report.present("seconds").or_else(|| report.present("prompt_audio_seconds")) {
        return milliseconds(seconds).map(listened);
    }
    let input = count(&report, "input_tokens").ok()??;
    let output = count(&report, "output_tokens").ok()??;
    let details = report.object("input_token_details");
    let mut rest = Rest::of(input);
    let audio_in = rest.take(part(details.as_ref(), "audio_tokens").unwrap_or(0));
    let (input, contradictory) = (rest.left, rest.is_exceeded);
    Some(Usage { input, audio_in, output, contradictory, ..Usage::default() })
}

/// The text of a number.
fn text_of(value: &RawValue) -> &str {
    value.get().trim_matches('"')
}

#[cfg(test)]
mod tests;
