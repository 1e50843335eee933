//! OpenAI Chat Completions.

pub(super) mod meter;

use bytes::Bytes;
use serde_json::value::RawValue;

use self::meter::ChatMeter;
use super::body::{self, Lens, Patch};
use super::complaint::Complaint;
use super::fields::{self, field, unreadable};
use super::reading::{Content, failed, part, usage_of};
use super::{
    AnswerBody, Ask, BadAnswer, BadRequest, Dialect, Feature, Meter, Pieces, Reading, Request, Shape, WireFormat, needs,
};
use crate::money::{Demand, Usage};

/// `POST /v1/chat/completions`.
#[derive(Clone, Copy, Debug)]
pub struct Chat;

/// What is read or edited. Given twice, two parsers could see two requests, one of them unpaid.
const READ: [&str; 11] = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "modalities",
    "web_search_options",
    "service_tier",
    "tools",
];

/// What the model never sees. Anything else that holds text counts as input.
const NOT_INPUT: [&str; 17] = [
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
    "web_search_options",
];

/// Tools that the client runs.
const TOOLS: [&str; 2] = ["function", "custom"];

impl Dialect for Chat {
    fn path(&self) -> &'static str {
        "chat/completions"
    }

    fn wire_format(&self) -> WireFormat {
        WireFormat::ChatCompletions
    }

    fn title(&self) -> &'static str {
        "A chat"
    }

    fn read(&self, request: &Request<'_>) -> Result<Shape, BadRequest> {
        let lens = Lens::parse(request.body).map_err(unreadable)?;
        fields::once(&lens, &READ)?;
        fields::refuse_unpriced(&lens)?;
        let limits = ["max_tokens", "max_completion_tokens"].map(|name| fields::read_limit(&lens, name));
        let mut shape = Shape { model: fields::read_model(&lens)?, ..Shape::default() };
        for limit in limits {
            shape.max_output = shape.max_output.max(limit?);
        }
        shape.stream = fields::read_flag(&lens, "stream")?;
        shape.wants_usage = fields::read_wants_usage(&lens)?;
        shape.choices = fields::read_choices(&lens)?;
        if !body::is_filled_array(fields::required(&lens, "messages")?) {
            return Err(field("messages must be an array with at least one message"));
        }
        fields::measure(&lens, &["messages"], &NOT_INPUT, &mut shape)?;
        refuse_tools(&lens)?;
        shape.demand.service = fields::read_service(&lens)?;
        shape.demand.audio_out = fields::lists(&lens, "modalities", "audio")?;
        shape.demand.image_out = fields::lists(&lens, "modalities", "image")?;
        read_needs(&lens, &mut shape);
        if lens.present("web_search_options").is_some() {
            shape.demand.web_searches = 1;
            shape.demand.open_input = true;
        }
        Ok(shape)
    }

    /// The body is the one that `shape` was read from, so it is only looked at again where
    /// something has to change.
    fn forward(&self, request: &Request<'_>, shape: &Shape, model: &str) -> Result<Ask, BadRequest> {
        let body = with_usage_and_model(request.body, shape, model)?;
        Ok(Ask::json(self.wire_format(), self.path(), body, shape.stream))
    }

    fn read_answer(&self, answer: AnswerBody<'_>, shape: &Shape) -> Result<Reading, BadAnswer> {
        read_choices(answer.bytes, shape)
    }

    fn meter(&self, shape: &Shape) -> Box<dyn Meter> {
        Box::new(ChatMeter::new(shape, meter::CHAT))
    }
}

/// Tools that the upstream would run have no price in a chat.
fn refuse_tools(lens: &Lens<'_>) -> Result<(), BadRequest> {
    match fields::tools(lens)?.iter().all(|kind| TOOLS.contains(&kind.as_str())) {
        true => Ok(()),
        false => Err(field("This kind of tool is not sold here: a function or a custom tool is")),
    }
}

fn read_needs(lens: &Lens<'_>, shape: &mut Shape) {
    needs::conversation(shape);
    let needs = &mut shape.needs;
    needs.want(Feature::Logprobs, needs::is_true(lens, "logprobs"));
    needs::tools(lens, needs);
    needs::tool_messages(lens, needs);
    needs::tool_choice(lens, needs);
    needs::format(lens.present("response_format"), needs);
    needs::effort(lens.present("reasoning_effort"), needs);
    if let Some(reasoning) = lens.present("reasoning").and_then(Lens::of) {
        needs::effort(reasoning.present("effort"), needs);
    }
}

/// A body for the upstream: it reports its usage also in a stream, and knows the model by its name.
pub(super) fn with_usage_and_model(body: &Bytes, shape: &Shape, model: &str) -> Result<Pieces, BadRequest> {
    let asks_for_usage = !shape.stream || shape.wants_usage;
    if asks_for_usage && shape.model == model {
        return Ok(body.clone().into());
    }
    let lens = Lens::parse(body).map_err(unreadable)?;
    let mut patch = Patch::new(&lens);
    if shape.model != model {
        patch.set("model", body::encode(model));
    }
    if !asks_for_usage {
        patch.set("stream_options", fields::with_usage_asked_for(&lens));
    }
    Ok(patch.pieces(body))
}

/// An answer with `choices`.
pub(super) fn read_choices(body: &[u8], shape: &Shape) -> Result<Reading, BadAnswer> {
    let Ok(lens) = Lens::parse(body) else { return Err(failed(body)) };
    let Some(choices) = lens.get("choices").filter(|value| body::is_filled_array(value)) else {
        return Err(Complaint::of(&lens).map_or(BadAnswer::Empty, BadAnswer::Error));
    };
    if let Some(said) = failure_of(&lens, Some(choices))
        && !Content::of(choices).seen
    {
        return Err(BadAnswer::Error(said));
    }
    Ok(match usage_of(&lens) {
        Some((report, Some(usage))) => {
            Reading::Reported(Usage { web_searches: searches(report, shape.demand.web_searches), ..usage })
        }
        _ => unreported(&Content::of(choices), &shape.demand),
    })
}

/// What went wrong with an answer, or with a piece of one, that has nothing else to say: it is told beside the choices,
/// or in one of them.
fn failure_of(lens: &Lens<'_>, choices: Option<&RawValue>) -> Option<Complaint> {
    let of_choice = |choice: Lens<'_>| {
        let is_end = choice.get("finish_reason").is_some_and(|reason| reason.get() == "\"error\"");
        Complaint::of(&choice).or_else(|| is_end.then(Complaint::default))
    };
    Complaint::of(lens).or_else(|| {
        let choices = choices.filter(|all| memchr::memmem::find(all.get().as_bytes(), b"\"error\"").is_some())?;
        body::elements(choices)?.into_iter().filter_map(Lens::of).find_map(of_choice)
    })
}

/// The searches of an answer that may have had so many: as many as its report tells, which most do not, or one.
fn searches(report: &RawValue, most: u64) -> u64 {
    let told = Lens::of(report).and_then(|report| part(Some(&report), "num_search_queries"));
    told.unwrap_or(1).clamp(most.min(1), most)
}

/// What was seen of an answer without a report. If it may rest on a search, that was made before its first word.
fn unreported(content: &Content, demand: &Demand) -> Reading {
    let web_searches = if content.seen { demand.web_searches.min(1) } else { 0 };
    let audio_out = if demand.audio_out { content.tokens_of_sound() } else { 0 };
    Reading::seen(content.output_chars(), Usage { web_searches, audio_out, ..Usage::default() })
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use tests::testing;
