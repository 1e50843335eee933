//! Rerank: documents are put in the order in which they answer a query. Billed by search units, as
//! Cohere counts them, or by tokens, as Jina and Voyage do.

use super::body::{Lens, Patch, Tally};
use super::complaint::Complaint;
use super::fields::{self, field, unreadable};
use super::reading::{count, failed, part};
use super::{
    AnswerBody, BadAnswer, BadRequest, Dialect, Meter, Reading, Receipt, Request, Shape, WireFormat, receipt, whole,
};
use crate::money::Usage;

/// `POST /v1/rerank`.
#[derive(Clone, Copy, Debug)]
pub struct Rerank;

const READ: [&str; 4] = ["model", "query", "documents", "stream"];

/// A search unit is a query with so many documents; long ones count as several.
const DOCUMENTS_PER_UNIT: u64 = 100;
const BYTES_PER_DOCUMENT: u64 = 500;

impl Dialect for Rerank {
    fn path(&self) -> &'static str {
        "rerank"
    }

    fn wire_format(&self) -> WireFormat {
        WireFormat::Rerank
    }

    fn title(&self) -> &'static str {
        "Documents by how well they answer a question"
    }

    fn read(&self, request: &Request<'_>) -> Result<Shape, BadRequest> {
        let lens = Lens::parse(request.body).map_err(unreadable)?;
        fields::once(&lens, &READ)?;
        fields::refuse_stream(&lens)?;
        let mut shape =
            Shape { model: fields::read_model(&lens)?, max_output: Some(0), choices: 1, ..Shape::default() };
        fields::text(&lens, "query")?;
        let query = fields::required(&lens, "query")?;
        let documents = fields::required(&lens, "documents")?;
        let all = Tally::of(documents).filter(|all| all.elements > 0);
        let all = all.ok_or_else(|| field("documents must be an array, and not empty"))?;
        let bytes = fields::size(documents.get());
        let most = all.elements.saturating_add(bytes / BYTES_PER_DOCUMENT);
        shape.prompts = most;
        shape.demand.queries = most.div_ceil(DOCUMENTS_PER_UNIT);
        fields::measure(&lens, &["query", "documents"], &["model", "top_n", "return_documents"], &mut shape)?;
        // The query is read beside every document.
        let queries = fields::size(query.get()).saturating_mul(most);
        shape.slack_tokens = queries.saturating_add(bytes);
        Ok(shape)
    }

    fn read_answer(&self, answer: AnswerBody<'_>, _: &Shape) -> Result<Reading, BadAnswer> {
        let Ok(lens) = Lens::parse(answer.bytes) else { return Err(failed(answer.bytes)) };
        let results = lens.get("results").or_else(|| lens.get("data"));
        if results.is_none_or(|results| !results.get().starts_with('[')) {
            return Err(Complaint::of(&lens).map_or(BadAnswer::Empty, BadAnswer::Error));
        }
        let billed = lens.object("meta").and_then(|meta| meta.object("billed_units"));
        let usage = lens.object("usage");
        let tokens = usage.as_ref().and_then(|usage| count(usage, "total_tokens").ok().flatten());
        let tokens = tokens.or_else(|| part(billed.as_ref(), "input_tokens"));
        let mut reports = [billed.as_ref(), usage.as_ref()].into_iter();
        let units = reports.find_map(|report| part(report, "search_units").filter(|units| *units > 0));
        if units.is_none() && tokens.is_none() {
            return Ok(Reading::Silent);
        }
        // Where both are told, the price list says which of them counts.
        let (queries, input) = (units.unwrap_or(0), tokens.unwrap_or(0));
        Ok(Reading::Reported(Usage { queries, input, ..Usage::default() }))
    }

    fn rename(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, shape: &Shape) {
        fields::rename_if_named(patch, lens, &shape.model);
    }

    fn bill(&self, patch: &mut Patch<'_, '_>, lens: &Lens<'_>, receipt: &Receipt) {
        let own = format!(r#"{{"total_tokens":{}}}"#, receipt.cost.usage.total_input());
        receipt::bill(patch, lens, "usage", &own, receipt);
    }

    fn meter(&self, _: &Shape) -> Box<dyn Meter> {
        Box::new(whole::Unstreamed)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn the_query_is_counted_beside_every_document() {
        let long = "x".repeat(5_000);
        for (documents, pairs, queries) in [
            (r#"["a","b"]"#.to_owned(), 2, 1),
            (format!("[{}\"a\"]", "\"a\",".repeat(100)), 101, 2),
            // A long document is read in pieces.
            (format!("[\"{long}\"]"), 11, 1),
        ] {
            let body = Bytes::from(format!(r#"{{"model":"m","query":"why","documents":{documents}}}"#));
            let shape = Rerank.read(&Request::of(&body)).unwrap();
            assert_eq!((shape.prompts, shape.demand.queries), (pairs, queries), "{pairs}");
            assert_eq!(shape.slack_tokens, 5 * pairs + documents.len() as u64, "{pairs}");
        }
    }
}
