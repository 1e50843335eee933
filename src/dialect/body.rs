//! The lens: a look at a few members of a JSON object, and edits that leave every other byte alone.
//!
//! [`Lens`] keeps the members as slices of the source, [`Patch`] splices other values into it, and
//! [`Tokens`] walks through a value without building it. Nothing here decodes what it does not
//! need: numbers keep their text, and a lone surrogate in a string is no error.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use memchr::{memchr, memchr2};
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Pieces, vision};

/// Containers within containers that are followed, as in `serde_json`.
const MAX_DEPTH: usize = 128;

/// Why there is nothing to look at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The parser's reason, which never quotes the source.
    #[error("{0}")]
    Syntax(String),
    #[error("it must be an object")]
    NotObject,
    #[error("it is nested too deeply")]
    TooDeep,
}

/// The members of an object, in their order.
#[derive(Debug)]
pub struct Lens<'a> {
    source: &'a [u8],
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Lens<'a> {
    /// Checks the syntax of all of `source` and takes its outermost members apart.
    ///
    /// # Errors
    /// When `source` is not exactly one JSON object.
    pub fn parse(source: &'a [u8]) -> Result<Self, Unreadable> {
        let Members(members) = serde_json::from_slice(source).map_err(|error| match error.is_data() {
            true => Unreadable::NotObject,
            false => Unreadable::Syntax(error.to_string()),
        })?;
        Ok(Self { source, members })
    }

    /// The same for a member's value; `None` when that is no object.
    #[must_use]
    pub fn of(value: &'a RawValue) -> Option<Self> {
        Self::parse(value.get().as_bytes()).ok()
    }

    /// The member's value. Of several the last counts, as it does for most parsers.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.members.iter().rev().find(|(name, _)| name == key).map(|(_, value)| *value)
    }

    /// The member's value unless it is `null`.
    #[must_use]
    pub fn present(&self, key: &str) -> Option<&'a RawValue> {
        self.get(key).filter(|value| value.get() != "null")
    }

    /// The member as an object.
    #[must_use]
    pub fn object(&self, key: &str) -> Option<Lens<'a>> {
        self.get(key).and_then(Lens::of)
    }

    #[must_use]
    pub fn is_repeated(&self, key: &str) -> bool {
        self.members.iter().filter(|(name, _)| name == key).count() > 1
    }

    /// All members in their order.
    pub fn members(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.members.iter().map(|(name, value)| (name.as_ref(), *value))
    }

    /// Where in the source a member's value is.
    fn range(&self, value: &RawValue) -> Range<usize> {
        let start = value.get().as_ptr().addr().saturating_sub(self.source.as_ptr().addr());
        start..start.saturating_add(value.get().len())
    }

    /// Where a further member goes.
    fn end(&self) -> usize {
        match self.members.last() {
            Some((_, value)) => self.range(value).end,
            None => memchr(b'{', self.source).map_or(0, |at| at.saturating_add(1)),
        }
    }
}

/// What the parser collects for [`Lens`].
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(12);
                while let Some((Key(key), value)) = map.next_entry()? {
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// A key that is borrowed where no escape forbids it.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrow)
    }
}

/// The text of a value of ours.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// The string that a value is; `None` when it is something else.
#[must_use]
pub fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// Whether a value is an array that has elements.
#[must_use]
pub fn is_filled_array(value: &RawValue) -> bool {
    let inside = value.get().strip_prefix('[').map(str::trim_ascii_start);
    inside.is_some_and(|inside| !inside.starts_with(']'))
}

/// Whether a value is an object.
#[must_use]
pub fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

/// Edits to one object, collected and then made in one pass.
#[derive(Debug)]
pub struct Patch<'l, 'a> {
    lens: &'l Lens<'a>,
    edits: Vec<(Range<usize>, String)>,
    appended: String,
}

impl<'l, 'a> Patch<'l, 'a> {
    #[must_use]
    pub fn new(lens: &'l Lens<'a>) -> Self {
        Self { lens, edits: Vec::new(), appended: String::new() }
    }

    /// Gives the member this value, which must be JSON; appends it where it does not exist.
    /// Call it once per key.
    pub fn set(&mut self, key: &str, json: String) {
        let before = self.edits.len();
        for (_, value) in self.lens.members.iter().filter(|(name, _)| name == key) {
            self.edits.push((self.lens.range(value), json.clone()));
        }
        if self.edits.len() > before {
            return;
        }
        if !(self.lens.members.is_empty() && self.appended.is_empty()) {
            self.appended.push(',');
        }
        self.appended.push_str(&encode(key));
        self.appended.push(':');
        self.appended.push_str(&json);
    }

    /// The edits in their order; `None` when there are none.
    fn edits(mut self) -> Option<Vec<(Range<usize>, String)>> {
        if !self.appended.is_empty() {
            let end = self.lens.end();
            self.edits.push((end..end, self.appended));
        }
        if self.edits.is_empty() {
            return None;
        }
        self.edits.sort_by_key(|(range, _)| range.start);
        Some(self.edits)
    }

    /// The edited source; `None` when there was nothing to edit.
    #[must_use]
    pub fn apply(self) -> Option<Vec<u8>> {
        let source = self.lens.source;
        let edits = self.edits()?;
        let added: usize = edits.iter().map(|(_, text)| text.len()).sum();
        let mut out = Vec::with_capacity(source.len().saturating_add(added));
        let mut at = 0;
        for (range, text) in &edits {
            out.extend_from_slice(source.get(at..range.start).unwrap_or_default());
            out.extend_from_slice(text.as_bytes());
            at = range.end;
        }
        out.extend_from_slice(source.get(at..).unwrap_or_default());
        Some(out)
    }

    /// The same for a body that may be long, and is not copied.
    #[must_use]
    pub fn pieces(self, body: &Bytes) -> Pieces {
        self.edits().map_or_else(|| body.clone().into(), |edits| Pieces::spliced(body, &edits))
    }

    /// The same for a body: its own bytes where there was nothing to edit.
    #[must_use]
    pub fn apply_to(self, body: &Bytes) -> Bytes {
        self.apply().map_or_else(|| body.clone(), Bytes::from)
    }
}

/// A piece of a value. Texts are as they stand between the quotes, escapes included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    Open,
    Close,
    Key(&'a [u8]),
    Text(&'a [u8]),
}

/// Walks through a value, over everything but strings and brackets.
#[derive(Debug)]
pub struct Tokens<'a>(&'a [u8]);

impl<'a> Tokens<'a> {
    #[must_use]
    pub fn of(value: &'a RawValue) -> Self {
        Self(value.get().as_bytes())
    }

    /// The rest of a string after its opening quote.
    fn string(&mut self) -> Option<Token<'a>> {
        let mut end = 0;
        loop {
            let found = memchr2(b'"', b'\\', self.0.get(end..)?)?.saturating_add(end);
            if self.0.get(found) == Some(&b'"') {
                end = found;
                break;
            }
            end = found.saturating_add(2);
        }
        let text = self.0.get(..end)?;
        self.0 = self.0.get(end.saturating_add(1)..)?;
        let is_key = self.0.trim_ascii_start().first() == Some(&b':');
        Some(if is_key { Token::Key(text) } else { Token::Text(text) })
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.0.iter().position(|b| matches!(b, b'"' | b'{' | b'}' | b'[' | b']'))?;
        let (found, rest) = self.0.get(at..)?.split_first()?;
        self.0 = rest;
        match found {
            b'"' => self.string(),
            b'{' | b'[' => Some(Token::Open),
            _ => Some(Token::Close),
        }
    }
}

/// How many characters a string has that is written like this.
#[must_use]
pub fn count_chars(text: &[u8]) -> u64 {
    let starts = text.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
    let mut surplus: usize = 0;
    let mut rest = text;
    while let Some(at) = memchr(b'\\', rest) {
        let escape = rest.get(at.saturating_add(1)..).unwrap_or_default();
        let width = match escape {
            // The second half of a pair; the first was counted.
            [b'u', b'd' | b'D', b'c'..=b'f' | b'C'..=b'F', ..] => 6,
            [b'u', ..] => 5,
            _ => 1,
        };
        surplus = surplus.saturating_add(width);
        rest = escape.get(width.min(5)..).unwrap_or_default();
    }
    u64::try_from(starts.saturating_sub(surplus)).unwrap_or(u64::MAX)
}

/// What a value amounts to as input of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Characters of all strings, keys included, without images and audio.
    pub chars: u64,
    pub images: u64,
    pub image_tokens: u64,
    /// Tokens of audio, at most.
    pub audio_tokens: u64,
    /// Files that lie in an account of the upstream's, by their id.
    pub account_files: u64,
    /// Marks at which a prompt cache is written, and whether one is to be kept for an hour.
    pub cache_marks: u64,
    pub is_cached_for_an_hour: bool,
}

impl Volume {
    pub fn add(&mut self, other: Self) {
        self.chars = self.chars.saturating_add(other.chars);
        self.images = self.images.saturating_add(other.images);
        self.image_tokens = self.image_tokens.saturating_add(other.image_tokens);
        self.audio_tokens = self.audio_tokens.saturating_add(other.audio_tokens);
        self.account_files = self.account_files.saturating_add(other.account_files);
        self.cache_marks = self.cache_marks.saturating_add(other.cache_marks);
        self.is_cached_for_an_hour |= other.is_cached_for_an_hour;
    }

    /// Counts a container that has been read to its end.
    fn close(&mut self, frame: &Frame<'_>) {
        let image = |volume: &mut Self, tokens: u64| {
            volume.images = volume.images.saturating_add(1);
            volume.image_tokens = volume.image_tokens.saturating_add(tokens);
        };
        if let Some(url) = frame.url {
            image(self, vision::estimate_tokens(url, frame.low_detail));
        }
        if let Some(data) = frame.data {
            match frame.medium() {
                Medium::Image => image(self, vision::estimate_data_tokens(data)),
                Medium::Audio => self.audio_tokens = self.audio_tokens.saturating_add(audio_tokens(data)),
                Medium::Other => self.chars = self.chars.saturating_add(count_chars(data)),
            }
        }
        if frame.is_linked_image() {
            image(self, vision::UNSEEN_TOKENS);
        }
        self.account_files = self.account_files.saturating_add(u64::from(frame.has_file_id && frame.names_a_file()));
    }
}

/// Tokens of audio in base64: 32 a second, at 8 kbit/s, which speech is hardly ever below.
fn audio_tokens(base64: &[u8]) -> u64 {
    let bytes = u64::try_from(base64.len()).unwrap_or(u64::MAX) / 4 * 3;
    (bytes / 1000).saturating_add(1).saturating_mul(32)
}

/// A string as it stands between the quotes, without its escapes: what two parsers read alike must
/// be recognised alike. Long ones are none of the words that are looked for.
fn plain(text: &[u8]) -> Cow<'_, [u8]> {
    if text.len() > MAX_WORD || memchr(b'\\', text).is_none() {
        return Cow::Borrowed(text);
    }
    let decoded: Result<String, _> = serde_json::from_slice(&[b"\"", text, b"\""].concat());
    decoded.map_or(Cow::Borrowed(text), |word| Cow::Owned(word.into_bytes()))
}

/// Longest word that is looked for, in whatever spelling.
const MAX_WORD: usize = 200;

/// Whether one of these keys is anywhere in a value.
#[must_use]
pub fn has_key(value: &RawValue, names: &[&str]) -> bool {
    Tokens::of(value).any(|token| match token {
        Token::Key(key) => names.iter().any(|name| *plain(key) == *name.as_bytes()),
        _ => false,
    })
}

enum Medium {
    Image,
    Audio,
    Other,
}

/// An open container.
#[derive(Default)]
struct Frame<'a> {
    /// The key that it is the value of.
    name: Cow<'a, [u8]>,
    /// An image's address, or the image in a data URI.
    url: Option<&'a [u8]>,
    low_detail: bool,
    /// Base64 that stands alone, what it says it is, and its `type`.
    data: Option<&'a [u8]>,
    media: Cow<'a, [u8]>,
    kind: Cow<'a, [u8]>,
    has_link: bool,
    has_file_id: bool,
}

impl<'a> Frame<'a> {
    /// Takes what is no text of the conversation. Returns whether it did.
    fn take(&mut self, key: &[u8], text: &'a [u8]) -> bool {
        match key {
            b"image_url" => self.url = Some(text),
            b"url" if *self.name == *b"image_url" => self.url = Some(text),
            b"data" => self.data = Some(text),
            _ => {
                match key {
                    b"detail" => self.low_detail |= *plain(text) == *b"low",
                    b"media_type" | b"mime_type" | b"mimeType" | b"format" => self.media = plain(text),
                    b"type" => self.kind = plain(text),
                    b"url" => self.has_link = true,
                    b"file_id" => self.has_file_id = true,
                    _ => {}
                }
                return false;
            }
        }
        true
    }

    fn medium(&self) -> Medium {
        // JSON may write the slash with a backslash in front.
        let starts = |prefix: &[u8]| self.media.starts_with(prefix);
        if starts(b"image") {
            Medium::Image
        } else if starts(b"audio") || *self.name == *b"input_audio" {
            Medium::Audio
        } else {
            Medium::Other
        }
    }

    /// Anthropic's way to send an image by its address.
    fn is_linked_image(&self) -> bool {
        *self.name == *b"source" && *self.kind == *b"url" && self.has_link
    }

    fn names_a_file(&self) -> bool {
        matches!(&*self.name, b"file" | b"source") || matches!(&*self.kind, b"input_file" | b"input_image")
    }
}

/// Measures a value without building it.
///
/// # Errors
/// When it is nested more than 128 levels deep.
pub fn measure(value: &RawValue) -> Result<Volume, Unreadable> {
    let mut volume = Volume::default();
    let mut frames: Vec<Frame<'_>> = Vec::new();
    let mut key = Cow::Borrowed(&b""[..]);
    for token in Tokens::of(value) {
        match token {
            Token::Open if frames.len() >= MAX_DEPTH => return Err(Unreadable::TooDeep),
            Token::Open => {
                volume.cache_marks = volume.cache_marks.saturating_add(u64::from(*key == *b"cache_control"));
                frames.push(Frame { name: std::mem::take(&mut key), ..Frame::default() });
            }
            Token::Close => {
                if let Some(frame) = frames.pop() {
                    volume.close(&frame);
                }
                key = Cow::default();
            }
            Token::Key(text) => {
                volume.chars = volume.chars.saturating_add(count_chars(text));
                key = plain(text);
            }
            Token::Text(text) => {
                let frame = frames.last_mut();
                let is_in_mark = frame.as_ref().is_some_and(|frame| *frame.name == *b"cache_control");
                volume.is_cached_for_an_hour |= is_in_mark && *key == *b"ttl" && *plain(text) == *b"1h";
                if !frame.is_some_and(|frame| frame.take(&key, text)) {
                    volume.chars = volume.chars.saturating_add(count_chars(text));
                }
            }
        }
    }
    Ok(volume)
}

/// How many numbers a value holds that has no strings in it, as prompts of tokens do.
#[must_use]
pub fn count_numbers(value: &RawValue) -> u64 {
    let mut count: u64 = 0;
    let mut inside = false;
    for byte in value.get().bytes() {
        let is_part = byte.is_ascii_digit() || (inside && matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
        count = count.saturating_add(u64::from(is_part && !inside));
        inside = is_part;
    }
    count
}

/// The elements of an array; `None` when it is none.
#[must_use]
pub fn elements(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// An object with edits; `None` when it is none, or nothing changed.
#[must_use]
pub fn edited(object: &RawValue, edit: impl FnOnce(&Lens<'_>, &mut Patch<'_, '_>)) -> Option<String> {
    let lens = Lens::of(object)?;
    let mut patch = Patch::new(&lens);
    edit(&lens, &mut patch);
    String::from_utf8(patch.apply()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(source: &str, edits: &[(&str, &str)]) -> String {
        let lens = Lens::parse(source.as_bytes()).unwrap();
        let mut patch = Patch::new(&lens);
        for (key, json) in edits {
            patch.set(key, (*json).to_owned());
        }
        let out = patch.apply_to(&Bytes::copy_from_slice(source.as_bytes()));
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn only_what_is_edited_changes() {
        for (source, edits, expected) in [
            (r#" { "a" : 1.0e400 ,"b":"x" } "#, &[("b", "2")][..], r#" { "a" : 1.0e400 ,"b":2 } "#),
            (r#"{"a":1}"#, &[("b", "2"), ("c", "3")], r#"{"a":1,"b":2,"c":3}"#),
            ("{ }", &[("b", "2"), ("c", "3")], r#"{"b":2,"c":3 }"#),
            ("{\"a\":1\n}", &[("b", "2")], "{\"a\":1,\"b\":2\n}"),
            (r#"{"a":1,"a":2}"#, &[("a", "0")], r#"{"a":0,"a":0}"#),
            (r#"{"\u0061":1}"#, &[("a", "0")], r#"{"\u0061":0}"#),
            (r#"{"b":[1],"a":{"b":1}}"#, &[("a", "{}"), ("b", "0")], r#"{"b":0,"a":{}}"#),
            (r#"{"a":0.10000000000000000001}"#, &[], r#"{"a":0.10000000000000000001}"#),
        ] {
            assert_eq!(patched(source, edits), expected, "{source}");
        }
    }

    #[test]
    fn reasons_do_not_quote_the_source() {
        for (source, reason) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("\"secret\"", "it must be an object"),
            ("[]", "it must be an object"),
            ("{\"secret\"", "EOF while parsing an object at line 1 column 9"),
            ("{} secret", "trailing characters at line 1 column 4"),
        ] {
            let error = Lens::parse(source.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), reason, "{source}");
        }
        assert!(Lens::parse(b"{\"a\":\"\xff\"}").is_err());
    }

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn characters_are_counted() {
        for (text, chars) in [
            (r#""abc""#, 3),
            (r#""äöü€😀""#, 5),
            (r#""a\nb\"\\""#, 5),
            (r#""\u00e4\ud83d\ude00\uD83D\uDE00""#, 3),
            (r#""\ud83d""#, 1),
            (r#"{"role":"user","content":["x",{"y":1.5,"z":null}]}"#, 18),
            ("[1,2,true]", 0),
            (r#"{ "a" : "b:" }"#, 3),
        ] {
            assert_eq!(measure(raw(text)).unwrap().chars, chars, "{text}");
        }
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(measure(raw(&deep(128))).is_ok());
        assert_eq!(measure(raw(&deep(129))), Err(Unreadable::TooDeep));
        assert!(measure(raw(&deep(100_000))).is_err());
    }

    #[test]
    fn images_are_counted_as_images() {
        for (text, chars, images, tokens) in [
            (r#"[{"type":"image_url","image_url":{"url":"https://x/y.png"}},"text"]"#, 29, 1, 85),
            (r#"[{"type":"input_image","image_url":"https://x/y.png"},"text"]"#, 28, 1, 85),
            (r#"{"image_url":{"url":"data:image/png;base64,?","detail":"low"}}"#, 21, 1, 85),
            (r#"{"url":"https://x"}"#, 12, 0, 0),
            // However its key is spelled.
            (r#"{"image\u005furl":{"u\u0072l":"https://x/y.png"}}"#, 12, 1, 85),
        ] {
            let volume = measure(raw(text)).unwrap();
            assert_eq!((volume.chars, volume.images, volume.image_tokens), (chars, images, tokens), "{text}");
        }
    }

    #[test]
    fn arrays_are_told_apart() {
        for (text, filled) in [("[]", false), ("[ \n]", false), ("[0]", true), ("null", false), ("{}", false)] {
            assert_eq!(is_filled_array(raw(text)), filled, "{text}");
        }
    }
}
