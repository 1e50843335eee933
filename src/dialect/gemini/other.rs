//! Counting tokens, and embeddings.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::flow::{PROMPT_DETAILS, split_input};
use super::{either, model, path, refuse_files};
use crate::dialect::body::{self, Lens, Patch};
use crate::dialect::complaint::Complaint;
use crate::dialect::fields::{self, field, unreadable};
use crate::dialect::reading::{count, failed, part};
use crate::dialect::{
    AnswerBody, Ask, BadAnswer, BadRequest, Dialect, Meter, Pieces, Reading, Receipt, Request, Shape, WireFormat,
    receipt, whole,
};
use crate::money::Usage;

/// `POST /v1beta/models/{model}:countTokens`: consumes nothing that is counted.
#[derive(Clone, Copy, Debug)]
pub struct CountTokens;

/// `POST /v1beta/models/{model}:embedContent`, and the same for several at once (`batchEmbedContents`).
#[derive(Clone, Copy, Debug)]
pub struct Embed {
    pub is_batch: bool,
}

impl Dialect for CountTokens {
    fn path(&self) -> &'static str {
        "countTokens"
    }

    fn wire_format(&self) -> WireFormat {
        WireFormat::Gemini
    }

    fn title(&self) -> &'static str {
        "The tokens of a chat, as Google's clients have it"
    }

    fn is_of_a_model(&self) -> bool {
        true
    }

    fn read(&self, request: &Request<'_>) -> Result<Shape, BadRequest> {
        let lens = Lens::parse(request.body).map_err(unreadable)?;
        fields::once(&lens, &["contents", "generateContentRequest", "generate_content_request"])?;
        refuse_files(&lens)?;
        let inner = either(&lens, "generateContentRequest", "generate_content_request")?;
        if let Some(inner) = &inner {
            refuse_files(inner)?;
        }
        if lens.present("contents").is_none() && inner.is_none() {
            return Err(field("contents is missing"));
        }
        Ok(Shape { model: model(request)?, choices: 1, demand: crate::dialect::uncounted(), ..Shape::default() })
    }

    fn forward(&self, request: &Request<'_>, _: &Shape, model: &str) -> Result<Ask, BadRequest> {
        let lens = Lens::parse(request.body).map_err(unreadable)?;
        let mut patch = Patch::new(&lens);
        for name in ["generateContentRequest", "generate_content_request"] {
            let renamed = lens.get(name).and_then(|inner| with_model(inner, model));
            if let Some(renamed) = renamed {
                patch.set(name, renamed);
            }
        }
        let body = patch.pieces(request.body);
        Ok(Ask::json(self.wire_format(), path(model, self.path()), body, false))
    }

    fn read_answer(&self, answer: AnswerBody<'_>, _: &Shape) -> Result<Reading, BadAnswer> {
        crate::dialect::read_uncounted(answer.bytes, "totalTokens")
    }

    fn stamp(&self, body: &Bytes, _: &Shape, _: &Receipt) -> Bytes {
        body.clone()
    }

    fn meter(&self, _: &Shape) -> Box<dyn Meter> {
        Box::new(whole::Unstreamed)
    }
}

impl Dialect for Embed {
    fn path(&self) -> &'static str {
        if self.is_batch { "batchEmbedContents" } else { "embedContent" }
    }

    fn wire_format(&self) -> WireFormat {
        WireFormat::Gemini
    }

    fn title(&self) -> &'static str {
        "Vectors for texts, as Google's clients have it"
    }

    fn is_of_a_model(&self) -> bool {
        true
    }

    fn read(&self, request: &Request<'_>) -> Result<Shape, BadRequest> {
        let lens = Lens::parse(request.body).map_err(unreadable)?;
        let name = if self.is_batch { "requests" } else { "content" };
        fields::once(&lens, &[name, "model"])?;
        refuse_files(&lens)?;
        let content = fields::required(&lens, name)?;
        let prompts = if self.is_batch { batch(content)? } else { 1 };
        let mut shape = Shape { model: model(request)?, max_output: Some(0), choices: 1, prompts, ..Shape::default() };
        fields::measure(&lens, &[name], &["model", "taskType", "outputDimensionality"], &mut shape)?;
        fields::bound_by_bytes(content, &mut shape);
        Ok(shape)
    }

    fn forward(&self, request: &Request<'_>, _: &Shape, model: &str) -> Result<Ask, BadRequest> {
        let body = if self.is_batch { all_renamed(request.body, model)? } else { renamed(request.body, model)? };
        Ok(Ask::json(self.wire_format(), path(model, self.path()), body, false))
    }

    fn read_answer(&self, answer: AnswerBody<'_>, shape: &Shape) -> Result<Reading, BadAnswer> {
        read_vectors(answer.bytes, if self.is_batch { "embeddings" } else { "embedding" }, shape)
    }

    /// Vectors do not say whose they are.
    fn rename(&self, _: &mut Patch<'_, '_>, _: &Lens<'_>, _: &Shape) {}

    fn bill(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
        let own = format!(r#"{{"promptTokenCount":{}}}"#, receipt.cost.usage.total_input());
        receipt::bill(patch, lens, "usageMetadata", &own, receipt);
    }

    fn meter(&self, _: &Shape) -> Box<dyn Meter> {
        Box::new(whole::Unstreamed)
    }
}

/// How many requests there are.
fn batch(requests: &RawValue) -> Result<u64, BadRequest> {
    let count = body::elements(requests).and_then(|all| u64::try_from(all.len()).ok()).filter(|count| *count > 0);
    count.ok_or_else(|| field("requests must be an array, not empty, and not huge"))
}

fn rename(lens: &Lens<'_>, patch: &mut Patch<'_, '_>, model: &str) {
    let model = body::encode(&format!("models/{model}"));
    if lens.get("model").is_some_and(|named| named.get() != model) {
        patch.set("model", model);
    }
}

/// A body that names the model beside the path names this one.
pub(super) fn renamed(body: &Bytes, model: &str) -> Result<Pieces, BadRequest> {
    let lens = Lens::parse(body).map_err(unreadable)?;
    let mut patch = Patch::new(&lens);
    rename(&lens, &mut patch, model);
    Ok(patch.pieces(body))
}

fn with_model(request: &RawValue, model: &str) -> Option<String> {
    body::edited(request, |lens, patch| rename(lens, patch, model))
}

/// Each request of a batch names the model again, and must name this one.
fn all_renamed(body: &Bytes, model: &str) -> Result<Pieces, BadRequest> {
    let lens = Lens::parse(body).map_err(unreadable)?;
    let requests = lens.get("requests").and_then(body::elements).unwrap_or_default();
    let requests: Vec<String> =
        requests.into_iter().map(|inner| with_model(inner, model).unwrap_or_else(|| inner.get().to_owned())).collect();
    let mut patch = Patch::new(&lens);
    patch.set("requests", format!("[{}]", requests.join(",")));
    Ok(patch.pieces(body))
}

fn read_vectors(bytes: &[u8], name: &str, shape: &Shape) -> Result<Reading, BadAnswer> {
    let Ok(lens) = Lens::parse(bytes) else { return Err(failed(bytes)) };
    if lens.present(name).is_none() {
        return Err(Complaint::of(&lens).map_or(BadAnswer::Empty, BadAnswer::Error));
    }
    let report = lens.object("usageMetadata");
    let told = report.as_ref().and_then(|report| count(report, "promptTokenCount").ok().flatten());
    let Some(told) = told.or_else(|| counted(lens.get(name)?)) else { return Ok(Reading::Silent) };
    let mut usage = Usage { input: told, ..Usage::default() };
    match report.filter(|report| PROMPT_DETAILS.iter().any(|list| report.present(list).is_some())) {
        Some(report) => split_input(&report, told, &mut usage),
        // What of it is sound nobody says: as much as such a recording usually is.
        None => {
            usage.audio_in = shape.usual_audio_tokens.min(told);
            usage.input = told.saturating_sub(usage.audio_in);
        }
    }
    Ok(Reading::Reported(usage))
}

/// The tokens of one vector's text, or of all in a batch, where each tells them.
fn counted(vectors: &RawValue) -> Option<u64> {
    let all = if body::is_object(vectors) { vec![vectors] } else { body::elements(vectors)? };
    let tokens = |vector| part(Lens::of(vector)?.object("statistics").as_ref(), "tokenCount");
    let sum = all.into_iter().try_fold(0_u64, |sum, vector| Some(sum.saturating_add(tokens(vector)?)));
    sum.filter(|sum| *sum > 0)
}
