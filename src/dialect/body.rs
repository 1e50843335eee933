//! The lens: a look at a few members of a JSON object, and edits that leave every other byte alone.
//!
//! [`Lens`] keeps the members as slices of the source, [`Patch`] splices other values into it, and
//! [`Tokens`] walks through a value without building it, as [`Tally`] and `measure` do. Nothing here
//! decodes what it does not need: numbers keep their text, and a lone surrogate in a string is no error.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use memchr::{memchr, memchr2};
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Pieces;

/// Most members of an object, and most elements of an array of which a list is made. A list takes many
/// times the room of what it lists, and is made before anybody has paid.
pub const MAX_MEMBERS: usize = 50_000;
pub const MAX_ELEMENTS: usize = 50_000;

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
    #[error("an object in it has more than {MAX_MEMBERS} members")]
    TooMany,
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
        // As text, it is not checked once more for every member that it is one.
        let parsed = match str::from_utf8(source) {
            Ok(text) => serde_json::from_str(text),
            Err(_) => serde_json::from_slice(source),
        };
        let Members(members) = parsed.map_err(|error| match error.is_data() {
            true => Unreadable::NotObject,
            false => Unreadable::Syntax(error.to_string()),
        })?;
        Ok(Self { source, members: members.ok_or(Unreadable::TooMany)? })
    }

    /// Takes a member's value apart as an object; `None` when it is none, or has more than [`MAX_MEMBERS`] members.
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

/// What the parser collects for [`Lens`]; nothing of an object that has too much.
struct Members<'a>(Option<Vec<(Cow<'a, str>, &'a RawValue)>>);

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
                    if members.len() >= MAX_MEMBERS {
                        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                        return Ok(Members(None));
                    }
                    members.push((key, value));
                }
                Ok(Members(Some(members)))
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
        // Keys are names of the protocols: there is nothing in them to be escaped.
        for part in ["\"", key, "\":", &json] {
            self.appended.push_str(part);
        }
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

    /// The edited `body`, which must be what the lens has read. A long one is shared, and not copied.
    #[must_use]
    pub fn pieces(self, body: &Bytes) -> Pieces {
        self.edits().map_or_else(|| body.clone().into(), |edits| Pieces::spliced(body, &edits))
    }

    /// The edited source as one copy, or `body` itself, which must be that source, where there was nothing to edit.
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
    /// A number, `true`, `false` or `null`.
    Scalar(&'a [u8]),
}

/// Walks through a value, over everything that only separates.
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

    /// What is neither a string nor a container.
    fn scalar(&mut self) -> Option<Token<'a>> {
        let end = self.0.iter().position(|byte| is_separator(*byte) || matches!(byte, b'}' | b']'));
        let (scalar, rest) = self.0.split_at_checked(end.unwrap_or(self.0.len()))?;
        self.0 = rest;
        Some(Token::Scalar(scalar))
    }
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | b',' | b':')
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.0.iter().position(|byte| !is_separator(*byte))?;
        self.0 = self.0.get(at..)?;
        let (found, rest) = self.0.split_first()?;
        if !matches!(found, b'"' | b'{' | b'[' | b'}' | b']') {
            return self.scalar();
        }
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

/// A string as it stands between the quotes, without its escapes: what two parsers read alike must
/// be recognised alike. Long ones are none of the words that are looked for.
pub(super) fn plain(text: &[u8]) -> Cow<'_, [u8]> {
    if text.len() > MAX_WORD || memchr(b'\\', text).is_none() {
        return Cow::Borrowed(text);
    }
    let decoded: Result<String, _> = serde_json::from_slice(&[b"\"", text, b"\""].concat());
    decoded.map_or(Cow::Borrowed(text), |word| Cow::Owned(word.into_bytes()))
}

/// Longest word that is looked for, in whatever spelling.
const MAX_WORD: usize = 200;

/// Whether one of these keys is anywhere in a value, as any parser could read it.
#[must_use]
pub fn has_key(value: &RawValue, names: &[&str]) -> bool {
    Tokens::of(value).any(|token| match token {
        Token::Key(key) => str::from_utf8(&plain(key)).is_ok_and(|key| names.iter().any(|name| is_alike(key, name))),
        _ => false,
    })
}

/// Whether some parser takes one name for the other. Go's and .NET's look at letters without their case, and Go's
/// at two letters beyond ASCII as well.
#[must_use]
pub fn is_alike(one: &str, other: &str) -> bool {
    let folded = |letter: char| match letter {
        'ſ' => 's',
        '\u{212A}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    one.chars().map(folded).eq(other.chars().map(folded))
}

/// What an array holds, counted without a list of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub elements: u64,
    /// Those that are neither strings nor containers.
    pub scalars: u64,
    /// Numbers at any depth.
    pub numbers: u64,
}

impl Tally {
    /// `None` when the value is no array.
    #[must_use]
    pub fn of(value: &RawValue) -> Option<Self> {
        let mut tally = value.get().starts_with('[').then(Self::default)?;
        let mut depth: usize = 0;
        for token in Tokens::of(value) {
            let is_value = !matches!(token, Token::Close | Token::Key(_));
            tally.elements = tally.elements.saturating_add(u64::from(is_value && depth == 1));
            match token {
                Token::Open => depth = depth.saturating_add(1),
                Token::Close => depth = depth.saturating_sub(1),
                Token::Scalar(scalar) => {
                    tally.scalars = tally.scalars.saturating_add(u64::from(depth == 1));
                    let is_number = scalar.first().is_some_and(|first| !first.is_ascii_alphabetic());
                    tally.numbers = tally.numbers.saturating_add(u64::from(is_number));
                }
                Token::Key(_) | Token::Text(_) => {}
            }
        }
        Some(tally)
    }
}

/// The elements of an array; `None` when it is none, or a huge one.
#[must_use]
pub fn elements(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok().map(|Elements(elements)| elements)
}

/// What the parser collects for [`elements`].
struct Elements<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Elements<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = array.next_element()? {
                    if elements.len() >= MAX_ELEMENTS {
                        return Err(serde::de::Error::custom("too many elements"));
                    }
                    elements.push(element);
                }
                Ok(Elements(elements))
            }
        }
        deserializer.deserialize_seq(Collect)
    }
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
    fn every_kind_of_value_is_walked_over() {
        let tokens: Vec<Token<'_>> = Tokens::of(raw(r#"{ "a" : [-1.5e3,null , "b:"], "c":true}"#)).collect();
        assert_eq!(
            tokens,
            [
                Token::Open,
                Token::Key(b"a"),
                Token::Open,
                Token::Scalar(b"-1.5e3"),
                Token::Scalar(b"null"),
                Token::Text(b"b:"),
                Token::Close,
                Token::Key(b"c"),
                Token::Scalar(b"true"),
                Token::Close,
            ]
        );
        assert_eq!(Tokens::of(raw("7")).collect::<Vec<_>>(), [Token::Scalar(b"7")]);
    }

    #[test]
    fn arrays_are_tallied() {
        for (text, expected) in [
            ("[]", Some((0, 0, 0))),
            ("[1, 2,null]", Some((3, 3, 2))),
            (r#"["1","2"]"#, Some((2, 0, 0))),
            (r#"[[1,-2.5e+3],[3],"4",{"a":[5,6]}]"#, Some((4, 0, 5))),
            ("{}", None),
            (r#""[1]""#, None),
        ] {
            let tally = Tally::of(raw(text)).map(|tally| (tally.elements, tally.scalars, tally.numbers));
            assert_eq!(tally, expected, "{text}");
        }
    }

    #[test]
    fn lists_have_an_end() {
        let array = |elements: usize| format!("[{}0]", "0,".repeat(elements - 1));
        let object = |members: usize| format!("{{{}\"a\":0}}", "\"a\":0,".repeat(members - 1));
        assert_eq!(elements(raw(&array(MAX_ELEMENTS))).unwrap().len(), MAX_ELEMENTS);
        assert!(elements(raw(&array(MAX_ELEMENTS + 1))).is_none());
        assert!(Lens::parse(object(MAX_MEMBERS).as_bytes()).is_ok());
        assert_eq!(Lens::parse(object(MAX_MEMBERS + 1).as_bytes()).unwrap_err(), Unreadable::TooMany);
        let broken = object(MAX_MEMBERS + 1).replace('}', "");
        assert!(matches!(Lens::parse(broken.as_bytes()), Err(Unreadable::Syntax(_))));
    }

    #[test]
    fn arrays_are_told_apart() {
        for (text, filled) in [("[]", false), ("[ \n]", false), ("[0]", true), ("null", false), ("{}", false)] {
            assert_eq!(is_filled_array(raw(text)), filled, "{text}");
        }
    }
}
