//! Anthropic's Messages, and the counting of their tokens.

mod flow;
mod usage;

use bytes::Bytes;
use serde_json::value::RawValue;

use self::flow::MessagesFlow;
use self::usage::Report;
use super::body::{self, Lens, Patch};
use super::complaint::Complaint;
use super::fields::{self, field, unreadable};
use super::follow::Follow;
use super::reading::{Content, failed};
use super::{
    AnswerBody, Ask, BadAnswer, BadRequest, Dialect, Feature, Meter, Needs, Pieces, Reading, Receipt, Request, Shape,
    WireFormat, needs, receipt, whole,
};

/// `POST /v1/messages`.
#[derive(Clone, Copy, Debug)]
pub struct Messages;

/// `POST /v1/messages/count_tokens`: consumes nothing that is counted.
#[derive(Clone, Copy, Debug)]
pub struct CountTokens;

const READ: [&str; 11] = [
    "model",
    "messages",
    "system",
    "stream",
    "max_tokens",
    "tools",
    "service_tier",
    "speed",
    "container",
    "mcp_servers",
    "inference_geo",
];

/// What the model never sees.
const NOT_INPUT: [&str; 8] =
    ["model", "stream", "max_tokens", "metadata", "stop_sequences", "service_tier", "speed", "inference_geo"];

/// The version of the API that is spoken where the client names none.
const VERSION: &str = "2023-06-01";

/// Beginnings of the beta features that are not passed on: they cost what is not counted here, keep
/// something at the upstream, or speak for another account. New ones go through, since clients send them
/// unasked and depend on them; what a body asks for is looked at all the same.
const WITHHELD: [&str; 9] = [
    "oauth-",
    "files-api-",
    "code-execution-",
    "mcp-client-",
    "skills-",
    "fast-mode-",
    "message-batches-",
    "context-1m-",
    "managed-agents-",
];

/// Tools of Anthropic's that the client runs, by the beginning of their type.
const CLIENT_TOOLS: [&str; 7] = ["custom", "function", "bash_", "text_editor_", "computer_", "memory_", "tool_search_"];

/// Tools that the upstream runs, by the beginning of their types: one searches, the other reads pages.
const SEARCH: &str = "web_search_";
const FETCH: &str = "web_fetch_";

impl Dialect for Messages {
    fn path(&self) -> &'static str {
        "messages"
    }

    fn wire_format(&self) -> WireFormat {
        WireFormat::Messages
    }

    fn title(&self) -> &'static str {
        "A chat, as Anthropic's clients have it"
    }

    fn headers(&self, sent: &dyn Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
        protocol_headers(sent)
    }

    fn read(&self, request: &Request<'_>) -> Result<Shape, BadRequest> {
        let mut shape = read(request.body)?;
        if shape.max_output.is_none() {
            return Err(field("max_tokens is missing"));
        }
        shape.wants_usage = true;
        Ok(shape)
    }

    fn forward(&self, request: &Request<'_>, shape: &Shape, model: &str) -> Result<Ask, BadRequest> {
        let body = if shape.demand.tool_calls > 0 {
            with_bounded_tools(request.body, shape, model)?
        } else {
            fields::with_model(request.body, &shape.model, model)?
        };
        Ok(Ask::json(self.wire_format(), self.path(), body, shape.stream))
    }

    fn read_answer(&self, answer: AnswerBody<'_>, _: &Shape) -> Result<Reading, BadAnswer> {
        let Ok(lens) = Lens::parse(answer.bytes) else { return Err(failed(answer.bytes)) };
        let Some(content) = lens.get("content").filter(|content| content.get().starts_with('[')) else {
            return Err(Complaint::of(&lens).map_or(BadAnswer::Empty, BadAnswer::Error));
        };
        let mut report = Report::default();
        if let Some(usage) = lens.object("usage") {
            report.take(&usage);
        }
        match report.usage() {
            Some(usage) => Ok(Reading::Reported(usage)),
            None if !body::is_filled_array(content) => Err(BadAnswer::Empty),
            None => Ok(Reading::Unreported { output_chars: Content::of(content).output_chars() }),
        }
    }

    fn bill(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
        bill(patch, lens, receipt);
    }

    fn member(&self, feature: Feature) -> &'static str {
        match feature {
            Feature::StructuredOutput | Feature::JsonOutput => "output_config.format",
            Feature::Reasoning => "thinking",
            other => needs::member_of_chat(other),
        }
    }

    fn meter(&self, shape: &Shape) -> Box<dyn Meter> {
        Box::new(Follow::new(MessagesFlow::new(shape)))
    }
}

impl Dialect for CountTokens {
    fn path(&self) -> &'static str {
        "messages/count_tokens"
    }

    fn wire_format(&self) -> WireFormat {
        WireFormat::Messages
    }

    fn title(&self) -> &'static str {
        "The tokens of a chat, as Anthropic's clients have it"
    }

    fn headers(&self, sent: &dyn Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
        protocol_headers(sent)
    }

    fn read(&self, request: &Request<'_>) -> Result<Shape, BadRequest> {
        let mut shape = read(request.body)?;
        shape.stream = false;
        shape.images = 0;
        shape.needs = Needs::default();
        shape.demand = super::uncounted();
        Ok(shape)
    }

    fn read_answer(&self, answer: AnswerBody<'_>, _: &Shape) -> Result<Reading, BadAnswer> {
        super::read_uncounted(answer.bytes, "input_tokens")
    }

    fn stamp(&self, body: &Bytes, shape: &Shape, _: &Receipt) -> Bytes {
        fields::renamed(body, &shape.model)
    }

    fn meter(&self, _: &Shape) -> Box<dyn Meter> {
        Box::new(whole::Unstreamed)
    }
}

fn read(body: &[u8]) -> Result<Shape, BadRequest> {
    let lens = Lens::parse(body).map_err(unreadable)?;
    fields::once(&lens, &READ)?;
    fields::refuse_unpriced(&lens)?;
    // A country of one's own costs more at Anthropic, and no price here knows it.
    if fields::text(&lens, "inference_geo")?.is_some_and(|place| place != "global") {
        return Err(field("inference_geo is not sold here"));
    }
    if fields::text(&lens, "speed")?.is_some_and(|speed| speed != "standard") {
        return Err(field("speed is not sold here"));
    }
    if let Some(name) = ["container", "mcp_servers"].iter().find(|name| lens.present(name).is_some()) {
        return Err(field(format!("{name} is not sold here")));
    }
    if !body::is_filled_array(fields::required(&lens, "messages")?) {
        return Err(field("messages must be an array with at least one message"));
    }
    let mut shape = Shape {
        model: fields::read_model(&lens)?,
        stream: fields::read_flag(&lens, "stream")?,
        max_output: fields::read_limit(&lens, "max_tokens")?,
        choices: 1,
        ..Shape::default()
    };
    shape.demand.service = fields::read_service(&lens)?;
    read_tools(&lens, &mut shape)?;
    fields::measure(&lens, &["messages", "system"], &NOT_INPUT, &mut shape)?;
    read_needs(&lens, &mut shape);
    Ok(shape)
}

fn read_needs(lens: &Lens<'_>, shape: &mut Shape) {
    needs::conversation(shape);
    let needs = &mut shape.needs;
    needs::tools(lens, needs);
    needs::results(lens.present("messages"), &["tool_use_id"], needs);
    needs::tool_choice(lens, needs);
    let config = lens.present("output_config").and_then(Lens::of);
    needs::format(config.as_ref().and_then(|config| config.present("format")), needs);
    needs::format(lens.present("output_format"), needs);
    let thinking = lens.present("thinking").and_then(Lens::of);
    // Whether an adaptive one thinks is left to the model.
    let kind = thinking.and_then(|thinking| thinking.present("type").and_then(body::string));
    needs.want(Feature::Reasoning, kind.as_deref() == Some("enabled"));
}

fn read_tools(lens: &Lens<'_>, shape: &mut Shape) -> Result<(), BadRequest> {
    let kinds = fields::tools(lens)?;
    let tools = lens.present("tools").and_then(body::elements).unwrap_or_default();
    for (kind, tool) in kinds.iter().zip(tools.into_iter().filter_map(Lens::of)) {
        if is_run_upstream(kind) {
            fields::once(&tool, &["max_uses"])?;
            let most = fields::read_tool_calls(&tool, "max_uses")?.unwrap_or(fields::TOOL_CALLS);
            let searches = if kind.starts_with(SEARCH) { most } else { 0 };
            shape.demand.web_searches = shape.demand.web_searches.saturating_add(searches);
            shape.demand.tool_calls = shape.demand.tool_calls.saturating_add(most);
            shape.demand.open_input = true;
        } else if !CLIENT_TOOLS.iter().any(|known| kind.starts_with(known)) {
            return Err(field("This kind of tool is not sold here"));
        }
    }
    Ok(())
}

fn is_run_upstream(kind: &str) -> bool {
    kind.starts_with(SEARCH) || kind.starts_with(FETCH)
}

/// A body whose tools are called no more often than is held for.
fn with_bounded_tools(body: &Bytes, shape: &Shape, model: &str) -> Result<Pieces, BadRequest> {
    let lens = Lens::parse(body).map_err(unreadable)?;
    let bounded = |tool: &RawValue| {
        let edited = body::edited(tool, |tool, patch| {
            let kind = tool.present("type").and_then(body::string);
            if kind.is_some_and(|kind| is_run_upstream(&kind)) && tool.present("max_uses").is_none() {
                patch.set("max_uses", fields::TOOL_CALLS.to_string());
            }
        });
        edited.unwrap_or_else(|| tool.get().to_owned())
    };
    let tools: Vec<String> =
        lens.present("tools").and_then(body::elements).unwrap_or_default().into_iter().map(bounded).collect();
    let mut patch = Patch::new(&lens);
    patch.set("tools", format!("[{}]", tools.join(",")));
    if shape.model != model {
        patch.set("model", body::encode(model));
    }
    Ok(patch.pieces(body))
}

fn protocol_headers(sent: &dyn Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    let is_date = |version: &String| {
        version.len() == VERSION.len() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
    };
    let version = sent("anthropic-version").filter(is_date).unwrap_or_else(|| VERSION.to_owned());
    let mut headers = vec![("anthropic-version", version)];
    let betas = sent("anthropic-beta").unwrap_or_default();
    let is_withheld = |name: &str| WITHHELD.iter().any(|known| name.starts_with(known));
    let passed: Vec<&str> =
        betas.split(',').map(str::trim).filter(|name| is_feature(name) && !is_withheld(name)).collect();
    if !passed.is_empty() {
        headers.push(("anthropic-beta", passed.join(",")));
    }
    headers
}

/// Whether this is a name as beta features have it: plain, and with a date at its end (`-20250219`,
/// `-2025-05-14`). Nothing else is anybody's business upstream.
fn is_feature(name: &str) -> bool {
    let is_plain = name.len() <= 100 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let digits = name.bytes().rev().take_while(|byte| byte.is_ascii_digit() || *byte == b'-');
    is_plain && digits.filter(u8::is_ascii_digit).count() == 8
}

/// Puts the bill into a message, or into the event that ends one.
fn bill(patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
    let usage = &receipt.cost.usage;
    let own = format!(
        r#"{{"input_tokens":{},"cache_creation_input_tokens":{},"cache_read_input_tokens":{},"output_tokens":{}}}"#,
        usage.input,
        usage.cache_write.saturating_add(usage.cache_write_1h),
        usage.cache_read,
        usage.total_output(),
    );
    receipt::bill(patch, lens, "usage", &own, receipt);
}

/// Whether a member stands there and is not null.
fn is_there(lens: &Lens<'_>, name: &str) -> bool {
    lens.present(name).map(RawValue::get).is_some()
}

#[cfg(test)]
mod tests;
