//! OpenAI's legacy completions: a text goes on.

use super::body::Lens;
use super::chat::meter::{ChatMeter, Kind};
use super::chat::{read_choices, with_usage_and_model};
use super::fields::{self, field, unreadable};
use super::{
    AnswerBody, Ask, BadAnswer, BadRequest, Dialect, Feature, Meter, Reading, Request, Shape, WireFormat, needs,
};

/// `POST /v1/completions`.
#[derive(Clone, Copy, Debug)]
pub struct Completions;

const READ: [&str; 8] = ["model", "prompt", "stream", "stream_options", "n", "best_of", "max_tokens", "service_tier"];

/// What the model never sees.
const NOT_INPUT: [&str; 8] =
    ["model", "stream", "stream_options", "user", "metadata", "stop", "logit_bias", "service_tier"];

/// Most answers to one request, over all its prompts.
const MAX_ANSWERS: u64 = 2048;

const KIND: Kind = Kind {
    object: "text_completion",
    id: r#""cmpl-coinslot""#,
    idle_choice: r#"[{"index":0,"text":"","logprobs":null,"finish_reason":null}]"#,
};

impl Dialect for Completions {
    fn path(&self) -> &'static str {
        "completions"
    }

    fn wire_format(&self) -> WireFormat {
        WireFormat::Completions
    }

    fn title(&self) -> &'static str {
        "A text that goes on"
    }

    fn read(&self, request: &Request<'_>) -> Result<Shape, BadRequest> {
        let lens = Lens::parse(request.body).map_err(unreadable)?;
        fields::once(&lens, &READ)?;
        fields::refuse_unpriced(&lens)?;
        let mut shape = Shape {
            model: fields::read_model(&lens)?,
            stream: fields::read_flag(&lens, "stream")?,
            wants_usage: fields::read_wants_usage(&lens)?,
            max_output: fields::read_limit(&lens, "max_tokens")?,
            ..Shape::default()
        };
        // `best_of` answers are made and billed, `n` of them are shown.
        let each = fields::read_choices(&lens)?.max(fields::read_limit(&lens, "best_of")?.unwrap_or(1));
        fields::prompts(fields::required(&lens, "prompt")?, "prompt", &mut shape)?;
        shape.choices = shape.prompts.max(1).saturating_mul(each);
        if shape.choices > MAX_ANSWERS {
            return Err(field(format!("prompts times answers must be at most {MAX_ANSWERS}")));
        }
        fields::measure(&lens, &["prompt"], &NOT_INPUT, &mut shape)?;
        shape.demand.service = fields::read_service(&lens)?;
        needs::conversation(&mut shape);
        // A number here: so many for each token, and none is one, too.
        shape.needs.want(Feature::Logprobs, lens.present("logprobs").is_some_and(|most| most.get() != "false"));
        Ok(shape)
    }

    fn forward(&self, request: &Request<'_>, shape: &Shape, model: &str) -> Result<Ask, BadRequest> {
        let body = with_usage_and_model(request.body, shape, model)?;
        Ok(Ask::json(self.wire_format(), self.path(), body, shape.stream))
    }

    fn read_answer(&self, answer: AnswerBody<'_>, shape: &Shape) -> Result<Reading, BadAnswer> {
        read_choices(answer.bytes, shape)
    }

    fn meter(&self, shape: &Shape) -> Box<dyn Meter> {
        Box::new(ChatMeter::new(shape, KIND))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn every_answer_to_every_prompt_is_counted() {
        for (members, prompts, choices) in [
            (r#""prompt":"hi""#, 0, 1),
            (r#""prompt":"hi","n":2,"best_of":5"#, 0, 5),
            (r#""prompt":["hi","you","they"],"n":2"#, 3, 6),
            (r#""prompt":[[1,2],[3]],"best_of":4"#, 2, 8),
            (r#""prompt":[1,2,3],"n":2"#, 1, 2),
        ] {
            let body = Bytes::from(format!(r#"{{"model":"m","max_tokens":9,{members}}}"#));
            let shape = Completions.read(&Request::of(&body)).unwrap();
            assert_eq!((shape.prompts, shape.choices), (prompts, choices), "{members}");
        }
        let many = format!(r#"{{"model":"m","prompt":[{}"x"],"n":2}}"#, r#""x","#.repeat(1024));
        assert!(Completions.read(&Request::of(&Bytes::from(many))).is_err());
    }
}
