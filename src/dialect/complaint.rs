//! An error that an upstream reports inside an answer that began with success.
//!
//! Some refuse a request so: OpenRouter in the first event of a stream, with the status as a number; OpenAI at the end
//! of a response, with a code. What was meant by it is read here, so that it is treated as if it had come at once.

use std::fmt;

use super::body::{self, Lens};
use super::reading::part;

/// How much of an upstream's error text is kept.
const MAX_CHARS: usize = 500;

/// Codes that come without a status, and the one that they have where they come at once.
const NAMED: [(u16, &[&str]); 2] = [
    (
        400,
        &[
            "invalid_prompt",
            "content_filter",
            "context_length_exceeded",
            "invalid_image",
            "invalid_image_format",
            "invalid_base64_image",
            "invalid_image_url",
            "invalid_image_mode",
            "image_too_large",
            "image_too_small",
            "image_parse_error",
            "image_content_policy_violation",
            "image_file_too_large",
            "unsupported_image_media_type",
            "empty_image_file",
        ],
    ),
    (429, &["rate_limit_exceeded", "insufficient_quota"]),
];

/// What an upstream says of its error. All texts are its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The status that goes with it, as far as it tells.
    pub status: Option<u16>,
    pub message: String,
    pub kind: Option<String>,
    pub code: Option<String>,
    pub param: Option<String>,
}

impl Default for Complaint {
    fn default() -> Self {
        Self::from("no reason given")
    }
}

impl From<&str> for Complaint {
    fn from(message: &str) -> Self {
        let message = message.chars().take(MAX_CHARS).collect();
        Self { status: None, message, kind: None, code: None, param: None }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Complaint {
    /// What `error` of an answer or an event says, an object or a text; `None`: it has no such member.
    pub(super) fn of(lens: &Lens<'_>) -> Option<Self> {
        let error = lens.get("error")?;
        match Lens::of(error) {
            Some(error) => Some(Self::read(&error)),
            None => body::string(error).map(|text| Self::from(text.as_str())),
        }
    }

    /// What an event says that is nothing but an error: inside it, or itself.
    pub(super) fn of_event(lens: &Lens<'_>) -> Self {
        Self::of(lens).unwrap_or_else(|| Self::read(lens))
    }

    fn read(error: &Lens<'_>) -> Self {
        let text = |key: &str| error.get(key).and_then(body::string);
        // That of an event says no more than that it is one.
        let kind = text("type").filter(|kind| kind != "error").or_else(|| text("status"));
        let code = text("code");
        let message = text("message").or_else(|| code.clone()).or_else(|| kind.clone());
        let told = message.map_or_else(Self::default, |message| Self::from(message.as_str()));
        Self { status: status(error, code.as_deref()), kind, code, param: text("param"), ..told }
    }
}

/// The status as a number, wherever it stands, or the one of its code.
fn status(error: &Lens<'_>, code: Option<&str>) -> Option<u16> {
    let is_one = |number: &u16| (400..=599).contains(number);
    let number = |key| part(Some(error), key).and_then(|number| u16::try_from(number).ok()).filter(is_one);
    let written = || code?.parse::<u16>().ok().filter(is_one);
    let named = || {
        let code = code?;
        NAMED.iter().find(|(_, codes)| codes.contains(&code)).map(|(status, _)| *status)
    };
    number("code").or_else(|| number("status")).or_else(written).or_else(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_an_error_is_found_wherever_it_stands() {
        for (error, status) in [
            (r#"{"code":400,"message":"x"}"#, Some(400)),
            (r#"{"code":"429","message":"x"}"#, Some(429)),
            (r#"{"code":null,"status":403,"message":"x"}"#, Some(403)),
            (r#"{"code":529,"status":"UNAVAILABLE","message":"x"}"#, Some(529)),
            (r#"{"code":"invalid_prompt","message":"x"}"#, Some(400)),
            (r#"{"code":"content_filter","message":"x"}"#, Some(400)),
            (r#"{"code":"rate_limit_exceeded","message":"x"}"#, Some(429)),
            (r#"{"code":"server_error","message":"x"}"#, None),
            (r#"{"code":200,"message":"x"}"#, None),
            (r#"{"code":600,"message":"x"}"#, None),
            (r#"{"code":70000,"message":"x"}"#, None),
            (r#"{"code":-400,"message":"x"}"#, None),
            (r#"{"type":"invalid_prompt","message":"x"}"#, None),
            (r#""x""#, None),
        ] {
            let body = format!("{{\"error\":{error}}}");
            let told = Complaint::of(&Lens::parse(body.as_bytes()).unwrap()).unwrap();
            assert_eq!((told.status, told.message.as_str()), (status, "x"), "{error}");
        }
    }

    #[test]
    fn an_error_says_what_it_can() {
        for (event, message, kind, code) in [
            (r#"{"error":{"message":"m","type":"t","code":"c"}}"#, "m", Some("t"), Some("c")),
            (r#"{"error":{"type":"t","code":"c"}}"#, "c", Some("t"), Some("c")),
            (
                r#"{"error":{"code":400,"status":"INVALID_ARGUMENT"}}"#,
                "INVALID_ARGUMENT",
                Some("INVALID_ARGUMENT"),
                None,
            ),
            (r#"{"type":"error","message":"m","code":"c"}"#, "m", None, Some("c")),
            (r#"{"type":"error"}"#, "no reason given", None, None),
            (r#"{"error":null,"type":"error"}"#, "no reason given", None, None),
        ] {
            let told = Complaint::of_event(&Lens::parse(event.as_bytes()).unwrap());
            let shown = (told.message.as_str(), told.kind.as_deref(), told.code.as_deref());
            assert_eq!(shown, (message, kind, code), "{event}");
        }
        let long = format!(r#"{{"error":"{}"}}"#, "ä".repeat(600));
        assert_eq!(Complaint::of(&Lens::parse(long.as_bytes()).unwrap()).unwrap().message, "ä".repeat(MAX_CHARS));
    }
}
