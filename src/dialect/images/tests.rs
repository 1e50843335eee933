use serde_json::{Value, json};

use super::*;
use crate::dialect::chat::testing::run;

fn read(members: &str) -> Result<Shape, BadRequest> {
    let body = Bytes::from(format!(r#"{{"model":"m","prompt":"a cat"{members}}}"#));
    Generations.read(&Request::of(&body))
}

#[test]
fn requests_are_read() {
    for (members, count, most, usual) in [
        ("", 1, 10_920, 6_240),
        (r#","n":3,"size":"1024x1024","quality":"low""#, 3, 476, 272),
        (r#","size":"1024x1024","quality":"high""#, 1, 7_280, 4_160),
        (r#","size":"1024x1536","quality":"medium","partial_images":2,"stream":true"#, 1, 2_972, 1_784),
        // Others by their pixels, and never less than the usual ones.
        (r#","size":"1792x1024","quality":"hd""#, 1, 12_740, 6_240),
        (r#","size":"3584x2048","quality":"high""#, 1, 50_960, 6_240),
        (r#","size":"256x256","quality":"low""#, 1, 714, 408),
        (r#","size":"2K","quality":"low""#, 1, 1_904, 408),
        (r#","size":"16:9","quality":"low""#, 1, 1_904, 408),
        (r#","size":"1024x1024","quality":"low","frame_count":3"#, 1, 1_428, 816),
    ] {
        let shape = read(members).unwrap();
        let demand = &shape.demand;
        assert_eq!(
            (demand.images_made, demand.tokens_per_image, demand.usual_tokens_per_image),
            (count, most, usual),
            "{members}"
        );
    }
    for members in [
        r#","n":0"#,
        r#","n":11"#,
        r#","n":2,"stream":true"#,
        r#","partial_images":4"#,
        r#","size":7"#,
        r#","prompt":"x""#,
        r#","n":1,"n":9"#,
        r#","frame_count":0"#,
    ] {
        assert!(read(members).is_err(), "{members}");
    }
    assert!(Generations.read(&Request::of(&Bytes::from_static(br#"{"model":"m"}"#))).is_err());
}

/// One row for each path of the report.
#[test]
fn every_report_is_read_whole_and_streamed() {
    let usage = |input, image_in, output, image_out| Usage {
        input,
        image_in,
        output,
        image_out,
        images_made: 1,
        ..Usage::default()
    };
    for (report, expected) in [
        (json!({ "input_tokens": 10, "output_tokens": 50, "total_tokens": 60 }), usage(10, 0, 0, 50)),
        (
            json!({ "input_tokens": 10, "input_tokens_details": { "text_tokens": 4, "image_tokens": 6 }, "output_tokens": 50 }),
            usage(4, 6, 0, 50),
        ),
        (
            json!({ "input_tokens": 10, "output_tokens": 50, "output_tokens_details": { "image_tokens": 40, "text_tokens": 10 } }),
            usage(10, 0, 10, 40),
        ),
        (Value::Null, Usage { images_made: 1, ..Usage::default() }),
    ] {
        let body = json!({ "created": 1, "data": [{ "b64_json": "AAAA" }], "usage": report }).to_string();
        let answer = AnswerBody { media: "", bytes: body.as_bytes() };
        assert_eq!(Generations.read_answer(answer, &Shape::default()), Ok(Reading::Reported(expected)), "{report}");
        for kind in ["image_generation", "image_edit"] {
            let partial = json!({ "type": format!("{kind}.partial_image"), "b64_json": "AAAA" });
            let last = json!({ "type": format!("{kind}.completed"), "b64_json": "AAAA", "usage": report });
            let outcome = run(&Generations, &[&format!("data: {partial}\n\ndata: {last}\n\n")]);
            assert_eq!(outcome.reading, Reading::Reported(expected), "{report}");
            assert!(outcome.is_complete && outcome.has_content && outcome.client.contains("total_msats"));
            let cut = run(&Generations, &[&format!("data: {partial}\n\n")]);
            assert_eq!((cut.is_complete, cut.reading), (false, Reading::Unreported { output_chars: 0 }));
        }
    }
    for (body, expected) in [
        ("<html>", BadAnswer::NotJson),
        (r#"{"data":[]}"#, BadAnswer::Empty),
        (r#"{"error":{"message":"x"}}"#, BadAnswer::Error("x".into())),
    ] {
        let answer = AnswerBody { media: "", bytes: body.as_bytes() };
        assert_eq!(Generations.read_answer(answer, &Shape::default()), Err(expected), "{body}");
    }
}
