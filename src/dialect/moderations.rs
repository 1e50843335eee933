//! OpenAI's moderations: texts and images are judged. The upstream counts nothing, so only the
//! price per request applies.

use bytes::Bytes;

use super::body::{self, Lens, Patch};
use super::fields::{self, field, unreadable};
use super::{
    AnswerBody, Ask, BadAnswer, BadRequest, Dialect, Meter, Reading, Receipt, Request, Shape, WireFormat, whole,
};

/// `POST /v1/moderations`.
#[derive(Clone, Copy, Debug)]
pub struct Moderations;

/// What OpenAI takes where a request names no model.
const MODEL: &str = "omni-moderation-latest";

impl Dialect for Moderations {
    fn path(&self) -> &'static str {
        "moderations"
    }

    fn wire_format(&self) -> WireFormat {
        WireFormat::Moderations
    }

    fn title(&self) -> &'static str {
        "Whether texts or pictures are harmful"
    }

    fn read(&self, request: &Request<'_>) -> Result<Shape, BadRequest> {
        let lens = Lens::parse(request.body).map_err(unreadable)?;
        fields::once(&lens, &["model", "input"])?;
        fields::refuse_stream(&lens)?;
        let input = fields::required(&lens, "input")?;
        if !input.get().starts_with('"') && !body::is_filled_array(input) {
            return Err(field("input must be a string or an array, and not empty"));
        }
        let model = match lens.present("model") {
            Some(_) => fields::read_model(&lens)?,
            None => MODEL.to_owned(),
        };
        Ok(Shape { model, choices: 1, demand: super::uncounted(), ..Shape::default() })
    }

    fn forward(&self, request: &Request<'_>, _: &Shape, model: &str) -> Result<Ask, BadRequest> {
        // The request may name none; what is forwarded does.
        let lens = Lens::parse(request.body).map_err(unreadable)?;
        let mut patch = Patch::new(&lens);
        fields::rename(&mut patch, &lens, model);
        Ok(Ask::json(self.wire_format(), self.path(), patch.pieces(request.body), false))
    }

    fn read_answer(&self, answer: AnswerBody<'_>, _: &Shape) -> Result<Reading, BadAnswer> {
        super::read_uncounted(answer.bytes, "results")
    }

    fn stamp(&self, body: &Bytes, shape: &Shape, _: &Receipt) -> Bytes {
        fields::renamed(body, &shape.model)
    }

    fn meter(&self, _: &Shape) -> Box<dyn Meter> {
        Box::new(whole::Unstreamed)
    }
}
