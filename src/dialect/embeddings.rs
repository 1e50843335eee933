//! OpenAI's embeddings: texts become vectors. Only input is billed.

use super::body::{self, Lens};
use super::complaint::Complaint;
use super::fields::{self, unreadable};
use super::reading::{failed, part, usage_of};
use super::{AnswerBody, BadAnswer, BadRequest, Dialect, Meter, Reading, Request, Shape, WireFormat, whole};
use crate::money::Usage;

/// `POST /v1/embeddings`. The vectors pass through as they come, as numbers or in base64.
#[derive(Clone, Copy, Debug)]
pub struct Embeddings;

const READ: [&str; 3] = ["model", "input", "stream"];

/// What the model never sees.
const NOT_INPUT: [&str; 4] = ["model", "user", "encoding_format", "dimensions"];

/// What an element of the input says that it is, if not a text.
const SEEN: [&str; 7] = ["image", "image_url", "image_base64", "video", "audio", "pdf", "bytes"];

impl Dialect for Embeddings {
    fn path(&self) -> &'static str {
        "embeddings"
    }

    fn wire_format(&self) -> WireFormat {
        WireFormat::Embeddings
    }

    fn title(&self) -> &'static str {
        "Vectors for texts"
    }

    fn read(&self, request: &Request<'_>) -> Result<Shape, BadRequest> {
        let lens = Lens::parse(request.body).map_err(unreadable)?;
        fields::once(&lens, &READ)?;
        fields::refuse_stream(&lens)?;
        fields::refuse_unpriced(&lens)?;
        let mut shape =
            Shape { model: fields::read_model(&lens)?, max_output: Some(0), choices: 1, ..Shape::default() };
        let input = fields::required(&lens, "input")?;
        fields::prompts(input, "input", &mut shape)?;
        fields::measure(&lens, &["input"], &NOT_INPUT, &mut shape)?;
        fields::bound_by_bytes(input, &mut shape);
        // Some models make vectors of what they are sent the address of, and count what they find there.
        shape.demand.open_input |= body::has_key(input, &SEEN);
        Ok(shape)
    }

    fn read_answer(&self, answer: AnswerBody<'_>, _: &Shape) -> Result<Reading, BadAnswer> {
        let Ok(lens) = Lens::parse(answer.bytes) else { return Err(failed(answer.bytes)) };
        if lens.get("data").is_none_or(|data| !body::is_filled_array(data)) {
            return Err(Complaint::of(&lens).map_or(BadAnswer::Empty, BadAnswer::Error));
        }
        Ok(match usage_of(&lens) {
            // Nothing comes out but vectors, whatever the report says.
            Some((_, Some(usage))) => Reading::Reported(input_only(usage)),
            // Some tell the total alone, which is all input.
            _ => match part(lens.object("usage").as_ref(), "total_tokens").filter(|total| *total > 0) {
                Some(input) => Reading::Reported(Usage { input, ..Usage::default() }),
                None => Reading::Silent,
            },
        })
    }

    fn meter(&self, _: &Shape) -> Box<dyn Meter> {
        Box::new(whole::Unstreamed)
    }
}

fn input_only(usage: Usage) -> Usage {
    Usage { output: 0, reasoning: 0, audio_out: 0, image_out: 0, ..usage }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn read(input: &str) -> Result<Shape, BadRequest> {
        let body = Bytes::from(format!(r#"{{"model":"m","input":{input}}}"#));
        Embeddings.read(&Request::of(&body))
    }

    #[test]
    fn every_input_is_counted() {
        for (input, prompts, given, slack) in [
            (r#""hi""#, 0, 0, 4),
            (r#"["hi"]"#, 1, 0, 6),
            (r#"["hi","you"]"#, 2, 0, 12),
            // Tokens count as such, and are not counted as text beside.
            ("[1,22,333]", 1, 3, 0),
            ("[[1,22],[333],[4]]", 3, 4, 0),
            // A mixture is as many as it has elements, with all its text and all its numbers.
            (r#"["7",[1,22]]"#, 2, 2, 12),
            (r#"[1,"7"]"#, 2, 1, 7),
            (r#"[{"text":"hi"}]"#, 1, 0, 15),
        ] {
            let shape = read(input).unwrap();
            assert_eq!((shape.prompts, shape.given_tokens, shape.slack_tokens), (prompts, given, slack), "{input}");
            assert!(!shape.demand.open_input, "{input}");
        }
        for input in ["[]", "{}", "7", "null"] {
            assert!(matches!(read(input), Err(BadRequest::Field(_))), "{input}");
        }
        assert!(read(r#"[{"image":"https://x/y.png"}]"#).unwrap().demand.open_input);
        let long = read(&format!("[{}0]", "50000,".repeat(999_999))).unwrap();
        assert_eq!((long.prompts, long.given_tokens, long.prompt_chars), (1, 1_000_000, 0));
        let many = read(&format!("[{}\"\"]", "\"\",".repeat(999_999))).unwrap();
        assert_eq!(many.prompts, 1_000_000);
    }
}
