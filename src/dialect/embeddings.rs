//! OpenAI's embeddings: texts become vectors. Only input is billed.

use bytes::Bytes;

use super::body::{self, Lens, Patch};
use super::fields::{self, unreadable};
use super::reading::{error_of, failed, usage_of};
use super::{AnswerBody, Ask, BadAnswer, BadRequest, Dialect, Meter, Reading, Receipt, Request, Shape, receipt, whole};
use crate::money::Usage;

/// `POST /v1/embeddings`. The vectors pass through as they come, as numbers or in base64.
#[derive(Clone, Copy, Debug)]
pub struct Embeddings;

const READ: [&str; 3] = ["model", "input", "stream"];

/// What the model never sees.
const NOT_INPUT: [&str; 4] = ["model", "user", "encoding_format", "dimensions"];

impl Dialect for Embeddings {
    fn path(&self) -> &'static str {
        "embeddings"
    }

    fn title(&self) -> &'static str {
        "Vectors for texts"
    }

    fn read(&self, request: &Request<'_>) -> Result<Shape, BadRequest> {
        let lens = Lens::parse(request.body).map_err(unreadable)?;
        fields::once(&lens, &READ)?;
        fields::refuse_stream(&lens)?;
        let mut shape =
            Shape { model: fields::read_model(&lens)?, max_output: Some(0), choices: 1, ..Shape::default() };
        let input = fields::required(&lens, "input")?;
        fields::prompts(input, "input", &mut shape)?;
        fields::measure(&lens, &["input"], &NOT_INPUT, &mut shape)?;
        fields::bound_by_bytes(input, &mut shape);
        Ok(shape)
    }

    fn forward(&self, request: &Request<'_>, shape: &Shape, model: &str) -> Result<Ask, BadRequest> {
        let body = fields::with_model(request.body, &shape.model, model)?;
        Ok(Ask::json(self.protocol(), self.path(), body, false))
    }

    fn read_answer(&self, answer: AnswerBody<'_>, _: &Shape) -> Result<Reading, BadAnswer> {
        let Ok(lens) = Lens::parse(answer.bytes) else { return Err(failed(answer.bytes)) };
        if lens.get("data").is_none_or(|data| !body::is_filled_array(data)) {
            return Err(error_of(&lens).map_or(BadAnswer::Empty, BadAnswer::Error));
        }
        Ok(match usage_of(&lens) {
            // Nothing comes out but vectors, whatever the report says.
            Some((_, Some(usage))) => Reading::Reported(input_only(usage)),
            _ => Reading::Silent,
        })
    }

    fn stamp(&self, body: &Bytes, shape: &Shape, receipt: &Receipt) -> Bytes {
        let Ok(lens) = Lens::parse(body) else { return body.clone() };
        let mut patch = Patch::new(&lens);
        fields::rename(&mut patch, &lens, &shape.model);
        receipt::write(&mut patch, &lens, receipt);
        patch.apply_to(body)
    }

    fn meter(&self, _: &Shape) -> Box<dyn Meter> {
        Box::new(whole::Unstreamed)
    }
}

fn input_only(usage: Usage) -> Usage {
    Usage { output: 0, reasoning: 0, audio_out: 0, image_out: 0, ..usage }
}
