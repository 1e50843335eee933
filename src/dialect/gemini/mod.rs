//! Google's generateContent and what belongs to it. The path names the model and the method.
//!
//! A stream is asked for as events, whatever the client wants: one that did not say `alt=sse` gets
//! the same objects as the elements of an array, as Google sends them.

mod array;
mod flow;
mod other;

use std::borrow::Cow;

use self::array::AsArray;
use self::flow::{GeminiFlow, read_usage};
pub use self::other::{CountTokens, Embed};
use super::body::{self, Lens, Patch};
use super::complaint::Complaint;
use super::fields::{self, field, unreadable};
use super::follow::Follow;
use super::reading::{Content, failed};
use super::{
    AnswerBody, Ask, BadAnswer, BadRequest, Dialect, EVENTS_IN_UTF_8, Feature, JSON, Meter, Reading, Receipt, Request,
    Shape, WireFormat, measure, needs, receipt, vision, whole,
};
use crate::money::AskedService;
use serde_json::value::RawValue;

/// `POST /v1beta/models/{model}:generateContent`, and the same as a stream.
#[derive(Clone, Copy, Debug)]
pub struct Generate {
    pub is_stream: bool,
}

const READ: [&str; 10] = [
    "contents",
    "systemInstruction",
    "system_instruction",
    "tools",
    "generationConfig",
    "generation_config",
    "cachedContent",
    "cached_content",
    "serviceTier",
    "service_tier",
];

/// What the model never sees.
const NOT_INPUT: [&str; 7] = [
    "generationConfig",
    "generation_config",
    "safetySettings",
    "safety_settings",
    "labels",
    "serviceTier",
    "service_tier",
];

/// The resolution at which a picture is twice as many tokens as it is at most otherwise.
const CLOSEST: &[u8] = b"MEDIA_RESOLUTION_ULTRA_HIGH";

const MAX_CANDIDATES: u64 = 8;
/// Queries of a search that are held for; nothing in a request limits them.
const QUERIES: u64 = 10;

const FUNCTIONS: [&str; 2] = ["functionDeclarations", "function_declarations"];
/// Members that hold a schema for the answer.
const SCHEMAS: [&str; 4] = ["responseSchema", "response_schema", "responseJsonSchema", "response_json_schema"];

impl Dialect for Generate {
    fn path(&self) -> &'static str {
        if self.is_stream { "streamGenerateContent" } else { "generateContent" }
    }

    fn wire_format(&self) -> WireFormat {
        WireFormat::Gemini
    }

    fn title(&self) -> &'static str {
        "A chat, as Google's clients have it"
    }

    fn is_of_a_model(&self) -> bool {
        true
    }

    fn read(&self, request: &Request<'_>) -> Result<Shape, BadRequest> {
        let lens = Lens::parse(request.body).map_err(unreadable)?;
        fields::once(&lens, &READ)?;
        let mut shape = Shape { model: model(request)?, stream: self.is_stream, choices: 1, ..Shape::default() };
        shape.wants_usage = true;
        shape.demand.image_by_default = true;
        shape.as_array = self.is_stream && !request.wants_events;
        read_contents(&lens, &mut shape)?;
        if let Some(config) = either(&lens, "generationConfig", "generation_config")? {
            read_config(&config, &mut shape)?;
        }
        read_tools(&lens, &mut shape)?;
        read_needs(&lens, &mut shape)?;
        shape.demand.service = read_service(&lens)?;
        Ok(shape)
    }

    fn forward(&self, request: &Request<'_>, _: &Shape, model: &str) -> Result<Ask, BadRequest> {
        let body = other::renamed(request.body, model)?;
        let ask = Ask::json(self.wire_format(), path(model, self.path()), body, self.is_stream);
        Ok(Ask { query: self.is_stream.then_some("alt=sse"), ..ask })
    }

    fn read_answer(&self, answer: AnswerBody<'_>, _: &Shape) -> Result<Reading, BadAnswer> {
        let Ok(lens) = Lens::parse(answer.bytes) else { return Err(failed(answer.bytes)) };
        let inner = self.inner(&lens).and_then(Lens::of);
        let lens = inner.unwrap_or(lens);
        let usage = read_usage(&lens);
        let candidates = lens.get("candidates").filter(|candidates| body::is_filled_array(candidates));
        match (candidates, usage) {
            (_, Some(usage)) if candidates.is_some() || lens.present("promptFeedback").is_some() => {
                Ok(Reading::Reported(usage))
            }
            (Some(candidates), _) => Ok(Reading::Unreported { output_chars: Content::of(candidates).output_chars() }),
            (None, _) => Err(Complaint::of(&lens).map_or(BadAnswer::Empty, BadAnswer::Error)),
        }
    }

    fn inner<'a>(&self, lens: &Lens<'a>) -> Option<&'a RawValue> {
        wrapped(lens)
    }

    fn rename(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, shape: &Shape) {
        rename(patch, lens, &shape.model);
    }

    fn bill(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
        bill(patch, lens, receipt);
    }

    fn member(&self, feature: Feature) -> &'static str {
        match feature {
            Feature::Streaming => "streamGenerateContent",
            Feature::Tools => "tools",
            Feature::ToolChoice => "toolConfig",
            Feature::Vision | Feature::AudioInput => "contents",
            Feature::StructuredOutput => "generationConfig.responseSchema",
            Feature::JsonOutput => "generationConfig.responseMimeType",
            Feature::Reasoning => "generationConfig.thinkingConfig",
            Feature::Logprobs => "generationConfig.responseLogprobs",
            Feature::AudioOutput | Feature::ImageOutput => "generationConfig.responseModalities",
        }
    }

    fn stream_media(&self, request: &Request<'_>) -> &'static str {
        if request.wants_events { EVENTS_IN_UTF_8 } else { JSON }
    }

    fn meter(&self, shape: &Shape) -> Box<dyn Meter> {
        if !self.is_stream {
            return Box::new(whole::Unstreamed);
        }
        let follow = Follow::new(GeminiFlow::new(shape));
        if shape.as_array { Box::new(AsArray::new(follow)) } else { Box::new(follow) }
    }
}

/// The model that the path names. It goes into a path again, so it must not mean another one.
fn model(request: &Request<'_>) -> Result<String, BadRequest> {
    let name = request.model.unwrap_or_default();
    let is_plain = |segment: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
        !segment.trim_matches('.').is_empty() && segment.bytes().all(known)
    };
    if name.len() > 256 || !name.split('/').all(is_plain) {
        return Err(field("The path names no model"));
    }
    Ok(name.to_owned())
}

fn path(model: &str, method: &str) -> Cow<'static, str> {
    format!("models/{model}:{method}").into()
}

/// An object that has two spellings, as all of Google's have.
fn either<'a>(lens: &Lens<'a>, camel: &str, snake: &str) -> Result<Option<Lens<'a>>, BadRequest> {
    let value = match (lens.present(camel), lens.present(snake)) {
        (Some(_), Some(_)) => return Err(field(format!("{camel} is given twice"))),
        (one, other) => one.or(other),
    };
    value.map(|value| Lens::of(value).ok_or_else(|| field(format!("{camel} must be an object")))).transpose()
}

/// The same for a number.
fn limit(lens: &Lens<'_>, camel: &str, snake: &str) -> Result<Option<u64>, BadRequest> {
    fields::once(lens, &[camel, snake])?;
    match (fields::read_limit(lens, camel)?, fields::read_limit(lens, snake)?) {
        (Some(_), Some(_)) => Err(field(format!("{camel} is given twice"))),
        (one, other) => Ok(one.or(other)),
    }
}

fn read_contents(lens: &Lens<'_>, shape: &mut Shape) -> Result<(), BadRequest> {
    if !body::is_filled_array(fields::required(lens, "contents")?) {
        return Err(field("contents must be an array with at least one content"));
    }
    if ["cachedContent", "cached_content"].iter().any(|name| lens.present(name).is_some()) {
        return Err(field("cachedContent refers to something that the upstream keeps, which is not sold here"));
    }
    refuse_files(lens)?;
    fields::measure(lens, &["contents", "systemInstruction", "system_instruction"], &NOT_INPUT, shape)?;
    if shape.images > 0 && lens.members().any(|(_, value)| measure::says(value, CLOSEST)) {
        let more = shape.images.saturating_mul(vision::SENT_TOKENS);
        shape.image_tokens = shape.image_tokens.saturating_add(more);
    }
    Ok(())
}

/// Files lie in the operator's account, or anywhere: nobody knows how long they are.
fn refuse_files(lens: &Lens<'_>) -> Result<(), BadRequest> {
    for name in ["contents", "systemInstruction", "system_instruction", "content", "requests"] {
        let Some(value) = lens.present(name) else { continue };
        if body::has_key(value, &["fileData", "file_data"]) {
            return Err(field("fileData is not sold here: send the content itself as inlineData"));
        }
    }
    Ok(())
}

fn read_config(config: &Lens<'_>, shape: &mut Shape) -> Result<(), BadRequest> {
    shape.max_output = limit(config, "maxOutputTokens", "max_output_tokens")?;
    shape.choices = limit(config, "candidateCount", "candidate_count")?.unwrap_or(1);
    if shape.choices > MAX_CANDIDATES {
        return Err(field(format!("candidateCount must be at most {MAX_CANDIDATES}")));
    }
    // The model reads it.
    for (name, schema) in SCHEMAS.iter().filter_map(|name| Some((*name, config.present(name)?))) {
        let chars = measure::definitions(name, schema).map_err(unreadable)?.chars;
        shape.extra_chars = shape.extra_chars.saturating_add(chars);
    }
    for name in ["responseModalities", "response_modalities"] {
        fields::once(config, &[name])?;
        shape.demand.image_by_default &= config.present(name).is_none();
        shape.demand.image_out |= fields::lists(config, name, "IMAGE")?;
        shape.demand.audio_out |= fields::lists(config, name, "AUDIO")?;
    }
    Ok(())
}

/// The names of the tiers come in capitals too, and with what they are in front.
fn read_service(lens: &Lens<'_>) -> Result<AskedService, BadRequest> {
    let told = match (fields::text(lens, "serviceTier")?, fields::text(lens, "service_tier")?) {
        (Some(_), Some(_)) => return Err(field("serviceTier is given twice")),
        (one, other) => one.or(other).map(|told| told.to_ascii_lowercase()),
    };
    let told = told.as_deref().map(|told| told.strip_prefix("service_tier_").unwrap_or(told));
    fields::service(told.filter(|told| *told != "unspecified"))
}

fn read_tools(lens: &Lens<'_>, shape: &mut Shape) -> Result<(), BadRequest> {
    let Some(tools) = lens.present("tools") else { return Ok(()) };
    let tools = body::elements(tools).ok_or_else(|| field("tools must be an array, and not a huge one"))?;
    for tool in tools {
        let tool = Lens::of(tool).ok_or_else(|| field("A tool must be an object"))?;
        for (name, _) in tool.members() {
            match name {
                "functionDeclarations" | "function_declarations" => {}
                // What it brings is read by the model.
                "codeExecution" | "code_execution" | "urlContext" | "url_context" => shape.demand.open_input = true,
                "googleSearch" | "google_search" | "googleSearchRetrieval" | "google_search_retrieval" => {
                    shape.demand.open_input = true;
                    shape.demand.web_searches = 1;
                    shape.demand.web_queries = QUERIES;
                }
                _ => return Err(field("This kind of tool is not sold here")),
            }
        }
    }
    Ok(())
}

fn read_needs(lens: &Lens<'_>, shape: &mut Shape) -> Result<(), BadRequest> {
    needs::conversation(shape);
    let needs = &mut shape.needs;
    needs.want(Feature::Tools, lens.present("tools").is_some_and(|tools| body::has_key(tools, &FUNCTIONS)));
    needs::results(lens.present("contents"), &["functionResponse", "function_response"], needs);
    if let Some(tools) = either(lens, "toolConfig", "tool_config")?
        && let Some(calling) = either(&tools, "functionCallingConfig", "function_calling_config")?
    {
        let mode = calling.present("mode").and_then(body::string);
        needs.want(Feature::ToolChoice, mode.is_some_and(|mode| mode.eq_ignore_ascii_case("ANY")));
    }
    let Some(config) = either(lens, "generationConfig", "generation_config")? else { return Ok(()) };
    let is_there = |names: &[&str]| names.iter().any(|name| config.present(name).is_some());
    needs.want(Feature::StructuredOutput, is_there(&SCHEMAS));
    let media = ["responseMimeType", "response_mime_type"].iter().find_map(|name| config.present(name));
    needs.want(Feature::JsonOutput, media.and_then(body::string).as_deref() == Some(JSON));
    needs.want(Feature::Logprobs, needs::is_true(&config, "responseLogprobs"));
    if let Some(thinking) = either(&config, "thinkingConfig", "thinking_config")? {
        let budget = ["thinkingBudget", "thinking_budget"].iter().find_map(|name| thinking.present(name));
        let level = ["thinkingLevel", "thinking_level"].iter().any(|name| thinking.present(name).is_some());
        // Of no budget, or of one that is left to the model, nothing follows.
        let thinks = budget.and_then(fields::integer).is_some_and(|budget| budget > 0);
        needs.want(Feature::Reasoning, thinks || level);
    }
    Ok(())
}

/// The answer inside the `response` that some hosts wrap it in. It has no other such in it.
fn wrapped<'a>(lens: &Lens<'a>) -> Option<&'a RawValue> {
    const OWN: [&str; 4] = ["candidates", "promptFeedback", "usageMetadata", "error"];
    let is_answer = |lens: &Lens<'_>| OWN.iter().any(|name| lens.get(name).is_some());
    let inner = lens.get("response").filter(|_| !is_answer(lens))?;
    Lens::of(inner).is_some_and(|inner| is_answer(&inner)).then_some(inner)
}

/// The model's name stands in the answer as its version.
fn rename(patch: &mut Patch<'_, '_>, lens: &Lens<'_>, model: &str) {
    if lens.get("modelVersion").is_some_and(|shown| body::string(shown).as_deref() != Some(model)) {
        patch.set("modelVersion", body::encode(model));
    }
}

fn bill(patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
    let usage = &receipt.cost.usage;
    let (input, output) = (usage.total_input(), usage.total_output());
    let own = format!(
        r#"{{"promptTokenCount":{input},"candidatesTokenCount":{output},"totalTokenCount":{}}}"#,
        input.saturating_add(output)
    );
    receipt::bill(patch, lens, "usageMetadata", &own, receipt);
}

#[cfg(test)]
mod tests;
