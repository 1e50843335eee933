//! Follows the chunks of a generated content. Each is a whole answer so far as its numbers go: the
//! last ones count.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{bill, rename, wrapped};
use crate::dialect::body::{self, Lens, Patch};
use crate::dialect::complaint::Complaint;
use crate::dialect::follow::{Flow, Turn};
use crate::dialect::reading::{Content, Rest, count, part};
use crate::dialect::{Reading, Receipt, Shape, sse};
use crate::money::{Service, Usage};

#[derive(Debug)]
pub(super) struct GeminiFlow {
    model: String,
    content: Content,
    usage: Option<Usage>,
    queries: Option<u64>,
    is_finished: bool,
}

impl GeminiFlow {
    pub(super) fn new(shape: &Shape) -> Self {
        Self { model: shape.model.clone(), content: Content::default(), usage: None, queries: None, is_finished: false }
    }
}

impl Flow for GeminiFlow {
    fn inner<'a>(&self, lens: &Lens<'a>) -> Option<&'a RawValue> {
        wrapped(lens)
    }

    fn look(&mut self, lens: &Lens<'_>) -> Turn {
        if let Some(said) = Complaint::of(lens) {
            return Turn::Failed(said);
        }
        self.usage = read_usage(lens).or(self.usage);
        if let Some(candidates) = lens.get("candidates") {
            // A search that was shown once stays made.
            self.queries = queries(candidates).max(self.queries);
            self.content.add(Content::of(candidates));
            self.content.seen |= has_call(candidates);
            self.is_finished |= finish_reason(candidates);
        }
        let is_blocked = lens.object("promptFeedback").is_some_and(|told| told.present("blockReason").is_some());
        self.is_finished |= is_blocked;
        if self.is_finished { Turn::Closing } else { Turn::Pass }
    }

    fn has_content(&self) -> bool {
        self.content.seen
    }

    fn is_complete(&self) -> bool {
        self.is_finished
    }

    fn reading(&self) -> Reading {
        match self.usage {
            Some(usage) => Reading::Reported(searched(usage, self.queries)),
            None => Reading::Unreported { output_chars: self.content.output_chars() },
        }
    }

    fn rename(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>) {
        rename(patch, lens, &self.model);
    }

    fn bill(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
        bill(patch, lens, receipt);
    }

    fn make_up(&self) -> Bytes {
        sse::event_of(br#"{"candidates":[]}"#)
    }

    fn error_event(&self, message: &str, _: &str, code: &str) -> Bytes {
        let object = format!(
            r#"{{"error":{{"code":502,"message":{},"status":"UNAVAILABLE","details":[{{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"coinslot","reason":{}}}]}}}}"#,
            body::encode(message),
            body::encode(code),
        );
        sse::event_of(object.as_bytes())
    }

    /// There is none: the stream ends.
    fn terminator(&self) -> Bytes {
        Bytes::new()
    }
}

fn each(candidates: &RawValue) -> impl Iterator<Item = Lens<'_>> {
    body::elements(candidates).unwrap_or_default().into_iter().filter_map(Lens::of)
}

fn finish_reason(candidates: &RawValue) -> bool {
    each(candidates).any(|candidate| candidate.present("finishReason").is_some())
}

/// Whether a function is called, which has no text.
fn has_call(candidates: &RawValue) -> bool {
    body::Tokens::of(candidates).any(|token| matches!(token, body::Token::Key(b"functionCall" | b"executableCode")))
}

/// The usage of an answer or a chunk.
pub(super) fn read_usage(lens: &Lens<'_>) -> Option<Usage> {
    let report = lens.object("usageMetadata")?;
    let prompt = count(&report, "promptTokenCount").ok()??;
    let of_tools = count(&report, "toolUsePromptTokenCount").ok()?.unwrap_or(0);
    let shown = count(&report, "candidatesTokenCount").ok()?;
    let thoughts = count(&report, "thoughtsTokenCount").ok()?.unwrap_or(0);
    let total = part(Some(&report), "totalTokenCount").filter(|total| *total > 0);
    let input = prompt.saturating_add(of_tools);
    // Blocked prompts have no candidates; some hosts show the total alone.
    let shown = shown.unwrap_or_else(|| total.map_or(0, |total| total.saturating_sub(input).saturating_sub(thoughts)));
    let mut whole = Rest::of(total.unwrap_or(u64::MAX));
    let input = whole.take(input);
    let (shown, thoughts) = (whole.take(shown), whole.take(thoughts));
    let mut usage = Usage { contradictory: whole.is_exceeded, reasoning: thoughts, ..Usage::default() };
    split_input(&report, input, &mut usage);
    let mut rest = Rest::of(shown);
    usage.audio_out = rest.take(of_modality(&report, "candidatesTokensDetails", "AUDIO"));
    usage.image_out = rest.take(of_modality(&report, "candidatesTokensDetails", "IMAGE"));
    usage.output = rest.left;
    usage.contradictory |= rest.is_exceeded;
    usage.service = served(&report);
    Some(searched(usage, lens.get("candidates").and_then(queries)))
}

/// How Google's own cloud says that it served.
fn served(report: &Lens<'_>) -> Option<Service> {
    match report.present("trafficType").and_then(body::string)?.as_str() {
        "ON_DEMAND" | "PROVISIONED_THROUGHPUT" => Some(Service::Standard),
        "ON_DEMAND_FLEX" | "FLEX" => Some(Service::Flex),
        "ON_DEMAND_PRIORITY" => Some(Service::Priority),
        _ => None,
    }
}

/// Where the tokens of the prompt are told by their kind.
pub(super) const PROMPT_DETAILS: [&str; 2] = ["promptTokensDetails", "promptTokenDetails"];

/// What a cache served is inside the prompt, and so is every kind of media, cached or not.
pub(super) fn split_input(report: &Lens<'_>, input: u64, usage: &mut Usage) {
    let mut rest = Rest::of(input);
    let cached = rest.take(part(Some(report), "cachedContentTokenCount").unwrap_or(0));
    let mut of_cache = Rest::of(cached);
    usage.audio_cached = of_cache.take(of_modality(report, "cacheTokensDetails", "AUDIO"));
    usage.cache_read = of_cache.left;
    // Embeddings spell it in a way of their own.
    let list = PROMPT_DETAILS.into_iter().find(|list| report.present(list).is_some()).unwrap_or_default();
    let audio = of_modality(report, list, "AUDIO").saturating_sub(usage.audio_cached);
    let images = of_modality(report, list, "IMAGE");
    let images = images.saturating_sub(of_modality(report, "cacheTokensDetails", "IMAGE"));
    usage.audio_in = rest.take(audio);
    usage.image_in = rest.take(images);
    usage.input = rest.left;
    usage.contradictory |= rest.is_exceeded | of_cache.is_exceeded;
}

/// Tokens of one kind among the details.
fn of_modality(report: &Lens<'_>, list: &str, modality: &str) -> u64 {
    let details = report.get(list).and_then(body::elements).unwrap_or_default();
    let counts = details.into_iter().filter_map(Lens::of).filter_map(|detail| {
        let is_it = detail.get("modality").and_then(body::string).as_deref() == Some(modality);
        if is_it { part(Some(&detail), "tokenCount") } else { None }
    });
    counts.fold(0, u64::saturating_add)
}

/// The usage of an answer that rests on a search of so many queries: models are billed for one or the other.
fn searched(usage: Usage, queries: Option<u64>) -> Usage {
    let web_queries = queries.unwrap_or(0);
    Usage { web_searches: u64::from(web_queries > 0), web_queries, ..usage }
}

/// How many queries the search had that the answer rests on, if there was one. Empty ones are none.
fn queries(candidates: &RawValue) -> Option<u64> {
    let made = each(candidates).filter_map(|candidate| {
        let made = candidate.object("groundingMetadata")?.get("webSearchQueries").and_then(body::elements)?;
        u64::try_from(made.iter().filter(|query| query.get() != "\"\"").count()).ok()
    });
    Some(made.fold(0_u64, u64::saturating_add)).filter(|made| *made > 0)
}
