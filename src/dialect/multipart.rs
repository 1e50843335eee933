//! A look into a form with files (RFC 7578), and one edit: the model's name. Files pass as they are.
//!
//! Two parsers must not see two forms. So only the plainest is taken: names in quotes, no part
//! twice that is read, no transfer encodings, nothing before the first part or behind the last,
//! no parameter but the names, and the boundary at no beginning of a line but where parts end.

use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;

use super::fields::{self, field};
use super::{Ask, BadRequest, EVENTS, JSON, Pieces, Request, Shape, WireFormat};

const MAX_PARTS: usize = 100;
const MAX_HEAD: usize = 2_000;
const MAX_MODEL_CHARS: usize = 256;
const LINE_END: &[u8] = b"\r\n";

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
        let dashed = format!("--{boundary}");
        let delimiter = dashed.len().saturating_add(LINE_END.len());
        if !body.strip_prefix(dashed.as_bytes()).is_some_and(|rest| rest.starts_with(LINE_END)) {
            return Err(malformed());
        }
        let finder = memmem::Finder::new(&dashed);
        let mut parts = Vec::new();
        let mut at = delimiter;
        loop {
            let rest = body.get(at..).unwrap_or_default();
            let part = first_part(rest, &finder).ok_or_else(malformed)?;
            parts.push(read_part(part, at).ok_or_else(malformed)?);
            let end = part.len();
            let behind = rest.get(end.saturating_add(delimiter)..).unwrap_or_default();
            if matches!(behind, b"--" | b"--\r\n") {
                return Ok(Self { body, parts });
            }
            if !behind.starts_with(LINE_END) || parts.len() >= MAX_PARTS {
                return Err(malformed());
            }
            at = at.saturating_add(end).saturating_add(delimiter).saturating_add(LINE_END.len());
        }
    }

    /// Refuses parts that stand there twice, or could be taken for one that is read.
    pub(super) fn once(&self, names: &[&str]) -> Result<(), BadRequest> {
        fields::once_of(names, || self.parts.iter().map(|part| part.name.as_str()))
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
    format: WireFormat,
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
    Ok(Ask { format, path: path.into(), query: None, media, accept, headers: Vec::new(), body })
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

/// What stands before the next delimiter. To some parsers a lone CR or LF ends a line too, and the boundary behind
/// one a part.
fn first_part<'b>(rest: &'b [u8], dashed: &memmem::Finder<'_>) -> Option<&'b [u8]> {
    for at in dashed.find_iter(rest) {
        let before = rest.get(..at)?;
        if let Some(part) = before.strip_suffix(LINE_END) {
            return Some(part);
        }
        if matches!(before.last(), None | Some(b'\r' | b'\n')) {
            return None;
        }
    }
    None
}

/// A part, which begins at `start` of the body.
fn read_part(part: &[u8], start: usize) -> Option<Part> {
    let end = memmem::find(part.get(..part.len().min(MAX_HEAD))?, b"\r\n\r\n")?;
    let head = std::str::from_utf8(part.get(..end)?).ok()?;
    let (mut disposition, mut length) = (None, None);
    for line in head.split("\r\n") {
        let (name, value) = line.split_once(':')?;
        if value.chars().any(char::is_control) {
            return None;
        }
        match name.to_ascii_lowercase().as_str() {
            "content-disposition" if disposition.is_none() => disposition = Some(value.trim()),
            // Some read the parts in a part as further files.
            "content-type" if !value.to_ascii_lowercase().contains("multipart") => {}
            "content-length" if length.is_none() => length = Some(value.trim().parse::<usize>().ok()?),
            _ => return None,
        }
    }
    let (name, is_file) = read_disposition(disposition?)?;
    let at = start.checked_add(end)?.checked_add(4)?;
    let content = at..start.checked_add(part.len())?;
    // Some clients say how long a part is. Another length would be another part to whoever goes by it.
    length.is_none_or(|length| length == content.len()).then_some(Part { name, is_file, content })
}

/// Name, and whether there is a file's name too. Nothing may follow that others could take for another name.
fn read_disposition(value: &str) -> Option<(String, bool)> {
    let rest = parameter(value.strip_prefix("form-data")?)?.strip_prefix("name=\"")?;
    let (name, rest) = rest.split_once('"')?;
    if name.is_empty() || name.contains(['\\', ';']) {
        return None;
    }
    let is_file = !rest.trim_start().is_empty();
    (!is_file || is_file_name(parameter(rest)?)).then(|| (name.to_owned(), is_file))
}

/// What stands behind the semicolon that begins a parameter.
fn parameter(text: &str) -> Option<&str> {
    Some(text.trim_start().strip_prefix(';')?.trim_start())
}

/// Whether this is a file's name and no more. One in another alphabet is told twice.
fn is_file_name(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("filename=\"") else { return is_encoded_name(text) };
    let mut is_escaped = false;
    let end = rest.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    });
    let Some((name, rest)) = end.and_then(|end| rest.split_at_checked(end)) else { return false };
    // To whoever knows no escapes it may end before the semicolon.
    if name.contains('\\') && name.contains(';') {
        return false;
    }
    let rest = rest.strip_prefix('"').unwrap_or(rest).trim_start();
    rest.is_empty() || parameter(rest).is_some_and(is_encoded_name)
}

fn is_encoded_name(text: &str) -> bool {
    let is_plain = |char: char| !char.is_whitespace() && !matches!(char, ';' | '"' | '\\');
    text.strip_prefix("filename*=").is_some_and(|name| name.chars().all(is_plain))
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
        let ask = forward(WireFormat::Images, "x", &request, &shape, "m").unwrap();
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
            (MEDIA, &format!("{}--abc--", part("prompt", "m\n--abc\r\nContent-Disposition: form-data"))),
            (MEDIA, &format!("{}--abc--", part("prompt", "m\r--abc"))),
        ] {
            assert!(Form::parse(media, body.as_bytes()).is_err(), "{media} {body}");
        }
        for head in [
            "name=\"x\"; filename=\"x\"; filename*=utf-8''a; name=\"model\"",
            "name=\"x\"; filename=\"x\"; name=\"model\"",
            "name=\"x\"; filename=\"x\"; filename=\"y\"",
            "name=\"x\"; filename=\"x\" name=\"model\"",
            "name=\"x\"; filename*=utf-8''a; name=\"model\"",
            "name=\"x\"; filename*=utf-8''a; filename*=utf-8''b",
            "name=\"x\"; filename=\"x",
            "name=\"x\"; filename=\"x\\\"; name=\\\"model\"",
            "name=\"x; name=model\"",
            "name=\"x\"; filename=\"a\"\r\nContent-Type: text/plain\nContent-Disposition: form-data; name=\"model\"",
            "name=\"x\"; filename=\"a\u{0}\"",
            "name=\"x\"\r\nContent-Type: multipart/mixed; boundary=b",
            "name=\"x\"\r\nContent-Length: 2",
            "name=\"x\"\r\nContent-Length: 1\r\nContent-Length: 1",
        ] {
            let form = format!("{}--abc--", part("model", "m").replace("name=\"model\"", head));
            assert!(Form::parse(MEDIA, form.as_bytes()).is_err(), "{head}");
        }
        let told = format!("{}--abc--", part("x", "m").replace("\r\n\r\nm", "\r\nContent-Length: 1\r\n\r\nm"));
        assert!(Form::parse(MEDIA, told.as_bytes()).is_ok(), "{told}");
        for head in
            ["filename=\"a;b.png\"", "filename=\"a.png\"; filename*=utf-8''%C3%A4.png", "filename*=utf-8''a.png"]
        {
            let form = format!("{}--abc--", part("x", "m").replace("=\"x\"", &format!("=\"x\"; {head}")));
            let form = Form::parse(MEDIA, form.as_bytes()).unwrap();
            assert_eq!((form.files(), form.file("x")), (1, Some(&b"m"[..])), "{head}");
        }
        let twice = format!("{}{}--abc--", part("model", "m"), part("model", "n"));
        assert!(Form::parse(MEDIA, twice.as_bytes()).unwrap().once(&["model"]).is_err());
        let alike = format!("{}{}--abc--", part("model", "m"), part("Model", "n"));
        assert!(Form::parse(MEDIA, alike.as_bytes()).unwrap().once(&["model"]).is_err());
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
