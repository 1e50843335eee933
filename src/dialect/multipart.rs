//! A look into a form with files (RFC 7578), and one edit: the model's name. Files pass as they are.
//!
//! Two parsers must not see two forms. So only the plainest is taken: names in quotes, no part
//! twice that is read, no transfer encodings, nothing before the first part or behind the last.

use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;

use super::fields::field;
use super::{Ask, BadRequest, EVENTS, JSON, Pieces, Protocol, Request, Shape};

const MAX_PARTS: usize = 100;
const MAX_HEAD: usize = 2_000;
const MAX_MODEL_CHARS: usize = 256;

/// A form that has been taken apart.
#[derive(Debug)]
pub(super) struct Form<'a> {
    body: &'a [u8],
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    name: String,
    is_file: bool,
    /// Where in the body its content is.
    content: Range<usize>,
}

fn malformed() -> BadRequest {
    field("The body must be multipart/form-data, with the boundary in Content-Type and plain part headers")
}

impl<'a> Form<'a> {
    /// # Errors
    /// When it is no form, or not a plain one.
    pub(super) fn parse(media: &str, body: &'a [u8]) -> Result<Self, BadRequest> {
        let boundary = boundary(media).ok_or_else(malformed)?;
        let first = format!("--{boundary}\r\n");
        let delimiter = format!("\r\n--{boundary}");
        if !body.starts_with(first.as_bytes()) {
            return Err(malformed());
        }
        let finder = memmem::Finder::new(&delimiter);
        let mut parts = Vec::new();
        let mut at = first.len();
        loop {
            let rest = body.get(at..).unwrap_or_default();
            let end = finder.find(rest).ok_or_else(malformed)?;
            let part = rest.get(..end).unwrap_or_default();
            parts.push(read_part(part, at).ok_or_else(malformed)?);
            let behind = rest.get(end.saturating_add(delimiter.len())..).unwrap_or_default();
            if matches!(behind, b"--" | b"--\r\n") {
                return Ok(Self { body, parts });
            }
            if !behind.starts_with(b"\r\n") || parts.len() >= MAX_PARTS {
                return Err(malformed());
            }
            at = at.saturating_add(end).saturating_add(delimiter.len()).saturating_add(2);
        }
    }

    /// Refuses parts that stand there twice.
    pub(super) fn once(&self, names: &[&str]) -> Result<(), BadRequest> {
        let count = |name: &str| self.parts.iter().filter(|part| part.name == name).count();
        match names.iter().find(|name| count(name) > 1) {
            Some(name) => Err(field(format!("{name} is given twice"))),
            None => Ok(()),
        }
    }

    fn get(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }

    /// Whether there is a part of this name, or one that is a member of it (`name[member]`).
    pub(super) fn has(&self, name: &str) -> bool {
        let mut rests = self.parts.iter().filter_map(|part| part.name.strip_prefix(name));
        rests.any(|rest| rest.is_empty() || rest.starts_with(['[', '.']))
    }

    /// A part that is text.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, BadRequest> {
        let Some(part) = self.get(name) else { return Ok(None) };
        let bytes = self.body.get(part.content.clone()).unwrap_or_default();
        match std::str::from_utf8(bytes) {
            Ok(text) if !part.is_file => Ok(Some(text.to_owned())),
            _ => Err(field(format!("{name} must be a text"))),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, BadRequest> {
        match self.text(name)?.as_deref() {
            None | Some("false" | "False" | "") => Ok(false),
            Some("true" | "True") => Ok(true),
            Some(_) => Err(field(format!("{name} must be true or false"))),
        }
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<u64>, BadRequest> {
        let wrong = || field(format!("{name} must be a whole number"));
        let Some(text) = self.text(name)? else { return Ok(None) };
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        text.parse().map(Some).map_err(|_| wrong())
    }

    pub(super) fn model(&self) -> Result<String, BadRequest> {
        let model = self.text("model")?.ok_or_else(|| field("model is missing"))?;
        if model.is_empty() || model.chars().count() > MAX_MODEL_CHARS {
            return Err(field(format!("model must have 1 to {MAX_MODEL_CHARS} characters")));
        }
        Ok(model)
    }

    /// How many files there are.
    pub(super) fn files(&self) -> u64 {
        u64::try_from(self.parts.iter().filter(|part| part.is_file).count()).unwrap_or(u64::MAX)
    }

    /// The content of the file with this name.
    pub(super) fn file(&self, name: &str) -> Option<&'a [u8]> {
        let part = self.get(name).filter(|part| part.is_file)?;
        self.body.get(part.content.clone())
    }

    /// `body`, which this is a look at, under another name for the model. Files are not copied.
    fn with_model(&self, body: &Bytes, model: &str) -> Pieces {
        match self.get("model") {
            Some(part) => Pieces::spliced(body, &[(part.content.clone(), model.to_owned())]),
            None => body.clone().into(),
        }
    }
}

/// The form for the upstream.
pub(super) fn forward(
    protocol: Protocol,
    path: &'static str,
    request: &Request<'_>,
    shape: &Shape,
    model: &str,
) -> Result<Ask, BadRequest> {
    let body = match shape.model == model {
        true => request.body.clone().into(),
        false => Form::parse(request.media, request.body)?.with_model(request.body, model),
    };
    let boundary = boundary(request.media).ok_or_else(malformed)?;
    // Written anew: nothing else that the client put there goes on.
    let media = format!("multipart/form-data; boundary=\"{boundary}\"").into();
    let accept = if shape.stream { EVENTS } else { JSON };
    Ok(Ask { protocol, path: path.into(), query: None, media, accept, headers: Vec::new(), body })
}

/// The boundary of a form, of the characters that need no escape.
fn boundary(media: &str) -> Option<&str> {
    let (kind, parameters) = media.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let mut boundaries = parameters.split(';').filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then_some(value.trim())
    });
    let boundary = boundaries.next()?;
    let boundary = boundary.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(boundary);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte);
    let is_good = (1..=70).contains(&boundary.len()) && boundary.bytes().all(is_plain) && boundaries.next().is_none();
    is_good.then_some(boundary)
}

/// A part, which begins at `start` of the body.
fn read_part(part: &[u8], start: usize) -> Option<Part> {
    let end = memmem::find(part.get(..part.len().min(MAX_HEAD))?, b"\r\n\r\n")?;
    let head = std::str::from_utf8(part.get(..end)?).ok()?;
    let mut disposition = None;
    for line in head.split("\r\n") {
        let (name, value) = line.split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "content-disposition" if disposition.is_none() => disposition = Some(value.trim()),
            "content-type" => {}
            _ => return None,
        }
    }
    let (name, is_file) = read_disposition(disposition?)?;
    let at = start.checked_add(end)?.checked_add(4)?;
    Some(Part { name, is_file, content: at..start.checked_add(part.len())? })
}

/// Name, and whether there is a file's name too.
fn read_disposition(value: &str) -> Option<(String, bool)> {
    let rest = value.strip_prefix("form-data")?.trim_start().strip_prefix(';')?.trim_start();
    let rest = rest.strip_prefix("name=\"")?;
    let (name, rest) = rest.split_once('"')?;
    if name.is_empty() || name.contains('\\') {
        return None;
    }
    let rest = rest.trim_start();
    if rest.is_empty() {
        return Some((name.to_owned(), false));
    }
    let file = rest.strip_prefix(';')?.trim_start();
    // A name in another alphabet is told twice.
    (file.starts_with("filename=\"") || file.starts_with("filename*=")).then(|| (name.to_owned(), true))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEDIA: &str = "multipart/form-data; boundary=abc";

    fn part(name: &str, content: &str) -> String {
        format!("--abc\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n")
    }

    fn file(content: &str) -> String {
        format!(
            "--abc\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a \\\"b\\\".wav\"\r\nContent-Type: audio/wav\r\n\r\n{content}\r\n"
        )
    }

    #[test]
    fn a_form_is_read_and_only_the_model_changes() {
        let body = format!("{}{}{}--abc--\r\n", file("\r\n--ab\r\n\r\n"), part("model", "m"), part("n", "3"));
        for media in [MEDIA, "Multipart/Form-Data; charset=x; Boundary=\"abc\""] {
            let form = Form::parse(media, body.as_bytes()).unwrap();
            assert_eq!(form.model().unwrap(), "m");
            assert_eq!((form.integer("n").unwrap(), form.integer("x").unwrap()), (Some(3), None));
            assert_eq!((form.files(), form.file("file")), (1, Some(&b"\r\n--ab\r\n\r\n"[..])));
            assert!(form.text("file").is_err() && form.flag("n").is_err() && !form.flag("stream").unwrap());
            let renamed = form.with_model(&Bytes::copy_from_slice(body.as_bytes()), "vendor/m");
            assert_eq!(renamed.joined(), body.replace("\r\n\r\nm\r\n", "\r\n\r\nvendor/m\r\n"));
        }
        let body = Bytes::from(body);
        let request = Request { media: MEDIA, ..Request::of(&body) };
        let shape = Shape { model: "m".into(), ..Shape::default() };
        let ask = forward(Protocol::OpenAi, "x", &request, &shape, "m").unwrap();
        assert_eq!(
            (ask.body.joined().as_ptr(), ask.media.as_ref()),
            (body.as_ptr(), "multipart/form-data; boundary=\"abc\"")
        );
    }

    #[test]
    fn what_is_not_plain_is_refused() {
        let good = format!("{}--abc--", part("model", "m"));
        assert!(Form::parse(MEDIA, good.as_bytes()).is_ok());
        for (media, body) in [
            ("application/json", good.as_str()),
            ("multipart/form-data", &good),
            ("multipart/form-data; boundary=", &good),
            ("multipart/form-data; boundary=abc; boundary=abd", &good),
            ("multipart/form-data; boundary=\"a\\\"bc\"", &good),
            (MEDIA, ""),
            (MEDIA, "--abc--"),
            (MEDIA, &format!("preamble\r\n{good}")),
            (MEDIA, &format!("{good}epilogue")),
            (MEDIA, &part("model", "m")),
            (MEDIA, "--abc\r\n\r\nm\r\n--abc--"),
            (MEDIA, "--abc\r\nContent-Disposition: form-data; name=model\r\n\r\nm\r\n--abc--"),
            (MEDIA, "--abc\r\nContent-Disposition: form-data; name=\"a\\\"b\"\r\n\r\nm\r\n--abc--"),
            (MEDIA, "--abc\r\nContent-Disposition: form-data; name=\"model\"; name=\"n\"\r\n\r\nm\r\n--abc--"),
            (
                MEDIA,
                "--abc\r\nContent-Disposition: form-data; name=\"model\"\r\nContent-Transfer-Encoding: base64\r\n\r\nm\r\n--abc--",
            ),
            (MEDIA, "--abc\r\nContent-Disposition: attachment; name=\"model\"\r\n\r\nm\r\n--abc--"),
        ] {
            assert!(Form::parse(media, body.as_bytes()).is_err(), "{media} {body}");
        }
        let twice = format!("{}{}--abc--", part("model", "m"), part("model", "n"));
        assert!(Form::parse(MEDIA, twice.as_bytes()).unwrap().once(&["model"]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_it(body in proptest::collection::vec(proptest::sample::select(&b"-abc\r\n:;=\"model form-data"[..]), 0..200)) {
            let whole = [b"--abc\r\n", &body[..], b"\r\n--abc--"].concat();
            for body in [&body, &whole] {
                if let Ok(form) = Form::parse(MEDIA, body) {
                    let again = form.with_model(&Bytes::copy_from_slice(body), "m").joined();
                    proptest::prop_assert!(Form::parse(MEDIA, &again).is_ok());
                }
            }
        }
    }
}
