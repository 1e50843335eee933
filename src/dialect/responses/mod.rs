//! OpenAI's Responses, without state: every request brings its whole input, and nothing is kept.
//!
//! What an answer refers to would lie in the operator's account, where another client could find
//! it. So `store` is always false upstream, and what needs it is refused.

mod flow;
mod tools;

use serde_json::value::RawValue;

use self::flow::ResponsesFlow;
use super::body::{self, Lens, Patch};
use super::complaint::Complaint;
use super::fields::{self, field, unreadable};
use super::follow::Follow;
use super::reading::{Content, count, failed, usage_of};
use super::{
    AnswerBody, Ask, BadAnswer, BadRequest, Dialect, Feature, Meter, Reading, Receipt, Request, Shape, WireFormat,
    needs, receipt,
};
use crate::money::Usage;

/// `POST /v1/responses`.
#[derive(Clone, Copy, Debug)]
pub struct Responses;

const READ: [&str; 13] = [
    "model",
    "input",
    "instructions",
    "stream",
    "max_output_tokens",
    "max_tool_calls",
    "tools",
    "store",
    "previous_response_id",
    "conversation",
    "background",
    "prompt",
    "service_tier",
];

/// What refers to something that the upstream keeps.
const STATE: [&str; 3] = ["previous_response_id", "conversation", "prompt"];

/// What the model never sees.
const NOT_INPUT: [&str; 14] = [
    "model",
    "stream",
    "stream_options",
    "store",
    "user",
    "metadata",
    "include",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning",
    "truncation",
    "max_output_tokens",
];

impl Dialect for Responses {
    fn path(&self) -> &'static str {
        "responses"
    }

    fn wire_format(&self) -> WireFormat {
        WireFormat::Responses
    }

    fn title(&self) -> &'static str {
        "An answer, with tools that the API itself runs"
    }

    fn read(&self, request: &Request<'_>) -> Result<Shape, BadRequest> {
        let lens = Lens::parse(request.body).map_err(unreadable)?;
        fields::once(&lens, &READ)?;
        fields::refuse_unpriced(&lens)?;
        refuse_state(&lens)?;
        let mut shape = Shape {
            model: fields::read_model(&lens)?,
            stream: fields::read_flag(&lens, "stream")?,
            wants_usage: true,
            max_output: fields::read_limit(&lens, "max_output_tokens")?,
            choices: 1,
            ..Shape::default()
        };
        // An address is read by the upstream: how much is there, nobody knows before.
        shape.demand.open_input = lens.get("input").is_some_and(|input| body::has_key(input, &["file_url"]));
        shape.demand.service = fields::read_service(&lens)?;
        fields::measure(&lens, &["input", "instructions"], &NOT_INPUT, &mut shape)?;
        tools::read(&lens, &mut shape)?;
        read_needs(&lens, &mut shape);
        Ok(shape)
    }

    fn member(&self, feature: Feature) -> &'static str {
        match feature {
            Feature::Vision | Feature::AudioInput => "input",
            Feature::StructuredOutput | Feature::JsonOutput => "text.format",
            Feature::Reasoning => "reasoning",
            other => needs::member_of_chat(other),
        }
    }

    fn forward(&self, request: &Request<'_>, shape: &Shape, model: &str) -> Result<Ask, BadRequest> {
        let lens = Lens::parse(request.body).map_err(unreadable)?;
        let mut patch = Patch::new(&lens);
        if shape.model != model {
            patch.set("model", body::encode(model));
        }
        if lens.get("store").map(RawValue::get) != Some("false") {
            patch.set("store", "false".to_owned());
        }
        // No tool is called more often than is held for.
        let most = shape.demand.tool_calls;
        if most > 0 && lens.present("max_tool_calls").is_none() {
            patch.set("max_tool_calls", most.to_string());
        }
        Ok(Ask::json(self.wire_format(), self.path(), patch.pieces(request.body), shape.stream))
    }

    fn read_answer(&self, answer: AnswerBody<'_>, _: &Shape) -> Result<Reading, BadAnswer> {
        let Ok(lens) = Lens::parse(answer.bytes) else { return Err(failed(answer.bytes)) };
        if let Some(error) = Complaint::of(&lens) {
            return Err(BadAnswer::Error(error));
        }
        let output = lens.get("output").filter(|output| output.get().starts_with('[')).ok_or(BadAnswer::Empty)?;
        match lens.get("status").and_then(body::string).as_deref() {
            None | Some("completed" | "incomplete") => {}
            Some("failed" | "cancelled") => return Err(BadAnswer::Error(Complaint::default())),
            Some(_) => return Err(BadAnswer::Truncated),
        }
        Ok(match read_usage(&lens) {
            Some(usage) => Reading::Reported(usage),
            None => Reading::seen(Content::of(output).output_chars(), tools::Done::of(&lens).usage()),
        })
    }

    fn bill(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
        bill(patch, lens, receipt);
    }

    fn meter(&self, shape: &Shape) -> Box<dyn Meter> {
        Box::new(Follow::new(ResponsesFlow::new(shape)))
    }
}

fn read_needs(lens: &Lens<'_>, shape: &mut Shape) {
    needs::conversation(shape);
    let needs = &mut shape.needs;
    needs::tools(lens, needs);
    needs::results(lens.present("input"), &["call_id"], needs);
    needs::tool_choice(lens, needs);
    if let Some(text) = lens.present("text").and_then(Lens::of) {
        needs::format(text.present("format"), needs);
    }
    if let Some(reasoning) = lens.present("reasoning").and_then(Lens::of) {
        needs::effort(reasoning.present("effort"), needs);
    }
}

fn refuse_state(lens: &Lens<'_>) -> Result<(), BadRequest> {
    const ADVICE: &str = "refers to something that the upstream keeps, which is not sold here: send the whole input";
    if let Some(name) = STATE.iter().find(|name| lens.present(name).is_some()) {
        return Err(field(format!("{name} {ADVICE}")));
    }
    if fields::read_flag(lens, "background")? {
        return Err(field("background is not offered here: what it makes would be kept at the upstream"));
    }
    fields::read_flag(lens, "store")?;
    let input = fields::required(lens, "input")?;
    let Some(items) = body::elements(input) else {
        return if input.get().starts_with('"') {
            Ok(())
        } else {
            Err(field("input must be a string, or an array that is not huge"))
        };
    };
    if items.is_empty() {
        return Err(field("input must not be empty"));
    }
    for item in items.into_iter().filter_map(Lens::of) {
        // The type of a reference may be left out.
        let is_reference = match item.present("type") {
            Some(kind) => body::string(kind).as_deref() == Some("item_reference"),
            None => item.present("id").is_some() && item.present("role").is_none(),
        };
        if is_reference {
            return Err(field(format!("An item_reference {ADVICE}")));
        }
        tools::refuse_item(&item)?;
    }
    Ok(())
}

/// The usage of a response object, its searches included.
fn read_usage(response: &Lens<'_>) -> Option<Usage> {
    let (_, usage) = usage_of(response)?;
    let mut usage = usage?;
    tools::add_usage(response, &mut usage);
    // Some hosts show the writing to a cache by how long it lasts; all of it costs the same.
    let details = response.object("usage").and_then(|usage| usage.object("input_tokens_details"));
    if let Some(split) = details.and_then(|details| details.object("cache_write_tokens_details"))
        && usage.cache_write == 0
    {
        let parts = ["ttl_30m_tokens", "ttl_12h_tokens"].map(|name| count(&split, name).ok().flatten().unwrap_or(0));
        let written = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(*part)).min(usage.input);
        usage.cache_write = written;
        usage.input = usage.input.saturating_sub(written);
    }
    Some(usage)
}

/// Puts the bill into a response object.
fn bill(patch: &mut Patch<'_, '_>, response: &Lens<'_>, receipt: &Receipt) {
    let usage = &receipt.cost.usage;
    let (input, output) = (usage.total_input(), usage.total_output());
    let own = format!(
        r#"{{"input_tokens":{input},"input_tokens_details":{{"cached_tokens":{}}},"output_tokens":{output},"output_tokens_details":{{"reasoning_tokens":{}}},"total_tokens":{}}}"#,
        usage.cache_read,
        usage.reasoning,
        input.saturating_add(output),
    );
    receipt::bill(patch, response, "usage", &own, receipt);
}

#[cfg(test)]
mod tests;
