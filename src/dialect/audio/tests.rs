use super::*;
use crate::dialect::chat::testing::run;

fn form(fields: &[(&str, &str)]) -> Bytes {
    let mut body =
        "--abc\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\n\r\nsound\r\n".to_owned();
    for (name, value) in fields {
        body += &format!("--abc\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    }
    Bytes::from(body + "--abc--\r\n")
}

const LISTENING: Listening = Listening { path: "audio/transcriptions" };

fn read(fields: &[(&str, &str)]) -> Result<Shape, BadRequest> {
    let body = form(fields);
    LISTENING.read(&Request { media: "multipart/form-data; boundary=abc", ..Request::of(&body) })
}

#[test]
fn requests_are_read() {
    let shape = read(&[("model", "m"), ("prompt", "abc"), ("stream", "true")]).unwrap();
    assert_eq!((shape.model.as_str(), shape.stream, shape.prompt_chars, shape.demand.audio_ms), ("m", true, 3, 5));
    assert!(shape.needs.has(Feature::Streaming) && read(&[("model", "m")]).unwrap().needs.is_empty());
    for fields in
        [&[][..], &[("model", "")], &[("model", "m"), ("response_format", "text")], &[("model", "m"), ("model", "n")]]
    {
        assert!(read(fields).is_err(), "{fields:?}");
    }
    let speak =
        |members: &str| Speech.read(&Request::of(&Bytes::from(format!(r#"{{"model":"m","voice":"v"{members}}}"#))));
    let shape = speak(r#","input":"häl","stream_format":"sse""#).unwrap();
    assert_eq!((shape.demand.characters, shape.stream), (3, true));
    for members in
        ["", r#","input":"""#, r#","input":7"#, r#","input":"x","stream_format":"x""#, r#","input":"x","input":"y""#]
    {
        assert!(speak(members).is_err(), "{members}");
    }
}

/// One row for each path of the report.
#[test]
fn every_report_is_read_whole_and_streamed() {
    let ms = |audio_ms| Reading::Reported(listened(audio_ms));
    for (members, expected, streamed) in [
        (
            r#","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"audio_tokens":10,"text_tokens":4},"output_tokens":5,"total_tokens":19}"#,
            Reading::Reported(Usage { input: 4, audio_in: 10, output: 5, ..Usage::default() }),
            None,
        ),
        (
            r#","usage":{"input_tokens":14,"input_token_details":{"audio_tokens":99},"output_tokens":5}"#,
            Reading::Reported(Usage { audio_in: 14, output: 5, contradictory: true, ..Usage::default() }),
            None,
        ),
        (r#","usage":{"type":"duration","seconds":9}"#, ms(9_000), None),
        (r#","usage":{"type":"duration","seconds":8.47}"#, ms(8_470), None),
        (r#","duration":8.4700001"#, ms(8_471), Some(Reading::Silent)),
        (r#","duration":"9""#, ms(9_000), Some(Reading::Silent)),
        (r#","usage":{"seconds":-1}"#, Reading::Unreported { output_chars: 2 }, Some(Reading::Silent)),
        ("", Reading::Unreported { output_chars: 2 }, Some(Reading::Silent)),
    ] {
        let body = format!(r#"{{"text":"hi"{members}}}"#);
        let answer = AnswerBody { media: "application/json", bytes: body.as_bytes() };
        assert_eq!(LISTENING.read_answer(answer, &Shape::default()), Ok(expected), "{members}");
        let events = format!(
            "data: {{\"type\":\"transcript.text.delta\",\"delta\":\"hi\"}}\n\ndata: {{\"type\":\"transcript.text.done\",\"text\":\"hi\"{members}}}\n\n"
        );
        let outcome = run(&LISTENING, &[&events]);
        assert!(outcome.is_complete && outcome.has_content && outcome.client.contains("total_msats"), "{members}");
        assert_eq!(outcome.reading, streamed.unwrap_or(expected), "{members}");
    }
    let cut = run(&LISTENING, &["data: {\"type\":\"transcript.text.delta\",\"delta\":\"hi\"}\n\n"]);
    assert_eq!((cut.is_complete, cut.reading), (false, Reading::Unreported { output_chars: 2 }));
    let subtitles = AnswerBody { media: "text/plain", bytes: b"1\n00:00:00,000 --> 00:00:03,000\nhi\n" };
    assert_eq!(LISTENING.read_answer(subtitles, &Shape::default()), Ok(estimated(3_000)));
    let html = AnswerBody { media: "text/html", bytes: b"<html>" };
    assert_eq!(LISTENING.read_answer(html, &Shape::default()), Err(BadAnswer::NotJson));
    assert_eq!(LISTENING.answer_media("text/html"), "application/json");
}

#[test]
fn speech_is_billed_by_what_was_asked() {
    let mut shape = Shape::default();
    shape.demand.characters = 7;
    let answer = |media, bytes| Speech.read_answer(AnswerBody { media, bytes }, &shape);
    assert_eq!(answer("audio/mpeg", b"sound"), Ok(Reading::Reported(Usage { characters: 7, ..Usage::default() })));
    assert_eq!(answer("audio/mpeg", b""), Err(BadAnswer::Empty));
    assert_eq!(answer("application/json", br#"{"error":{"message":"x"}}"#), Err(BadAnswer::Error("x".into())));
    assert_eq!(answer("text/html", b"<html>"), Err(BadAnswer::NotJson));
    assert_eq!(Speech.answer_media("audio/mpeg; x=y"), "audio/mpeg");
    assert_eq!(Speech.answer_media("text/html"), "application/octet-stream");
    let events = "data: {\"type\":\"speech.audio.delta\",\"audio\":\"AAAA\"}\n\ndata: {\"type\":\"speech.audio.done\",\"usage\":{\"input_tokens\":99}}\n\n";
    let outcome = run(&Speech, &[events]);
    assert!(outcome.is_complete && outcome.has_content);
    assert_eq!(outcome.reading, Reading::Reported(Usage::default()), "characters are those of the request");
}
