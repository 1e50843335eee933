//! Events that are like the last one, but for their text.
//!
//! Nearly all events of a stream are one object around another piece of text each. To take such an object apart is
//! most of what an event costs; where everything around the text is as it was, its meaning is too, and the text alone is
//! looked at. Whatever is not exactly so is left to the full look.

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

use super::body::Lens;

/// Most pieces of an event that may be otherwise in the next.
const MAX_PIECES: usize = 4;
/// Events in a row that were not like the last one, after which no more patterns are made of a stream.
const MAX_MISSES: u32 = 16;
/// Longest number that is read: it fits, whatever it is.
const MAX_DIGITS: usize = 15;

/// A part of an event that may be otherwise in the next: what is between the quotes, or a whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// What it counts for; empty: nothing.
    pub key: &'static str,
    pub value: &'a [u8],
}

impl<'a> Piece<'a> {
    /// A member that is a string, whatever it says.
    pub(super) fn of_string(lens: &Lens<'a>, name: &str, key: &'static str) -> Option<Self> {
        let text = lens.get(name)?.get().strip_prefix('"')?.strip_suffix('"')?;
        Some(Self { key, value: text.as_bytes() })
    }

    /// What OpenAI pads events with, so that their length does not tell what they say.
    pub(super) fn padding(lens: &Lens<'a>) -> Option<Self> {
        Self::of_string(lens, "obfuscation", "")
    }
}

/// The last event, and how often it was of no use.
#[derive(Debug, Default)]
pub(super) struct Last {
    pattern: Option<Pattern>,
    misses: u32,
}

#[derive(Debug)]
struct Pattern {
    parts: Vec<Part>,
    /// What is after the last piece.
    tail: Literal,
}

/// A piece and what is before it.
#[derive(Debug)]
struct Part {
    before: Literal,
    key: &'static str,
    is_number: bool,
}

/// What stays: as it comes, and as it goes to the client if that is something else.
#[derive(Debug)]
struct Literal {
    comes: Bytes,
    goes: Option<Bytes>,
}

impl Last {
    /// What goes to the client for an event that is like the last one, whose pieces `take` is given by their keys. One
    /// that is not may change what all mean that follow, so the last one is forgotten.
    pub(super) fn repeat(&mut self, event: &Bytes, take: impl FnMut(&'static str, &[u8])) -> Option<Bytes> {
        let sent = self.pattern.as_ref()?.read(event, take);
        if sent.is_some() {
            self.misses = 0;
        } else {
            self.misses = self.misses.saturating_add(1);
            self.pattern = None;
        }
        sent
    }

    /// Remembers an event whose meaning is in these pieces of it, and that goes out as `sent`; `None`: its meaning is
    /// elsewhere.
    pub(super) fn remember(&mut self, event: &Bytes, sent: &Bytes, pieces: Option<Vec<Piece<'_>>>) {
        let pieces = pieces.filter(|_| self.misses < MAX_MISSES);
        self.pattern = pieces.and_then(|pieces| Pattern::of(event, sent, pieces));
    }
}

impl Pattern {
    fn of(event: &Bytes, sent: &Bytes, mut pieces: Vec<Piece<'_>>) -> Option<Self> {
        if pieces.is_empty() || pieces.len() > MAX_PIECES {
            return None;
        }
        // From where to where in the event; what was put together from several lines is not in it.
        let place = |part: &[u8]| {
            let start = part.as_ptr().addr().checked_sub(event.as_ptr().addr())?;
            let end = start.checked_add(part.len())?;
            (event.get(start..end)?.as_ptr() == part.as_ptr()).then_some((start, end))
        };
        pieces.sort_by_key(|piece| piece.value.as_ptr().addr());
        let edit = Edit::of(event, sent);
        let (mut parts, mut at) = (Vec::with_capacity(pieces.len()), 0);
        for piece in pieces {
            let (start, end) = place(piece.value)?;
            let is_number = event.get(start.checked_sub(1)?) != Some(&b'"');
            parts.push(Part { before: edit.literal(event, at, start)?, key: piece.key, is_number });
            at = end;
        }
        Some(Self { parts, tail: edit.literal(event, at, event.len())? }).filter(|pattern| edit.is_within(pattern))
    }

    fn read(&self, event: &Bytes, mut take: impl FnMut(&'static str, &[u8])) -> Option<Bytes> {
        let mut values: [&[u8]; MAX_PIECES] = [&[]; MAX_PIECES];
        let mut rest: &[u8] = event;
        for (part, value) in self.parts.iter().zip(&mut values) {
            rest = rest.strip_prefix(&*part.before.comes)?;
            let length = if part.is_number { number(rest)? } else { text(rest)? };
            (*value, rest) = rest.split_at_checked(length)?;
        }
        if rest != self.tail.comes {
            return None;
        }
        self.parts.iter().zip(values).for_each(|(part, value)| take(part.key, value));
        let is_same = self.tail.goes.is_none() && self.parts.iter().all(|part| part.before.goes.is_none());
        Some(if is_same { event.clone() } else { self.written(&values, event.len()) })
    }

    /// The event as it goes out, with these pieces.
    fn written(&self, values: &[&[u8]], length: usize) -> Bytes {
        let mut out = BytesMut::with_capacity(length.saturating_add(64));
        for (part, value) in self.parts.iter().zip(values) {
            out.extend_from_slice(part.before.out());
            out.extend_from_slice(value);
        }
        out.extend_from_slice(self.tail.out());
        out.freeze()
    }
}

impl Literal {
    fn out(&self) -> &[u8] {
        self.goes.as_ref().unwrap_or(&self.comes)
    }
}

/// The one place in which an event differs from what goes out for it.
struct Edit<'a> {
    start: usize,
    end: usize,
    instead: &'a [u8],
}

impl<'a> Edit<'a> {
    fn of(event: &[u8], sent: &'a [u8]) -> Self {
        let start = event.iter().zip(sent).take_while(|(one, other)| one == other).count();
        let most = event.len().min(sent.len()).saturating_sub(start);
        let alike = event.iter().rev().zip(sent.iter().rev()).take_while(|(one, other)| one == other);
        let same = alike.count().min(most);
        let instead = sent.get(start..sent.len().saturating_sub(same)).unwrap_or_default();
        Self { start, end: event.len().saturating_sub(same), instead }
    }

    fn is_none(&self) -> bool {
        self.start == self.end && self.instead.is_empty()
    }

    /// A part of the event that stays, with the edit if that is in it.
    fn literal(&self, event: &Bytes, from: usize, to: usize) -> Option<Literal> {
        let comes = event.get(from..to).map(|part| event.slice_ref(part))?;
        let is_here = !self.is_none() && from <= self.start && self.end <= to;
        let goes = is_here.then(|| {
            let (before, after) = (event.get(from..self.start), event.get(self.end..to));
            [before.unwrap_or_default(), self.instead, after.unwrap_or_default()].concat().into()
        });
        Some(Literal { comes, goes })
    }

    /// Whether it is in one of the parts that stay, and no other.
    fn is_within(&self, pattern: &Pattern) -> bool {
        let literals = pattern.parts.iter().map(|part| &part.before).chain([&pattern.tail]);
        let edited = literals.filter(|literal| literal.goes.is_some()).count();
        edited == usize::from(!self.is_none())
    }
}

/// How long the text is that begins here, up to its closing quote. Only what any parser takes for a string.
fn text(rest: &[u8]) -> Option<usize> {
    let mut end: usize = 0;
    loop {
        end = memchr2(b'"', b'\\', rest.get(end..)?)?.checked_add(end)?;
        match rest.get(end..)? {
            [b'"', ..] => break,
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => end = end.checked_add(2)?,
            [b'\\', b'u', hex @ ..] if hex.get(..4)?.iter().all(u8::is_ascii_hexdigit) => end = end.checked_add(6)?,
            _ => return None,
        }
    }
    let text = rest.get(..end)?;
    let is_string = text.iter().all(|byte| *byte >= b' ') && str::from_utf8(text).is_ok();
    is_string.then_some(end)
}

/// How long the whole number is that begins here.
fn number(rest: &[u8]) -> Option<usize> {
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let is_usual = length == 1 || rest.first() != Some(&b'0');
    (is_usual && (1..=MAX_DIGITS).contains(&length)).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::chat::Chat;
    use crate::dialect::messages::Messages;
    use crate::dialect::responses::Responses;
    use crate::dialect::{Dialect, Meter, Reading, Shape};

    /// The pieces of `next` where the event before it was `last`, in which the values stand between bars.
    fn repeated(last: &str, sent: &str, next: &str) -> Option<(Vec<String>, String)> {
        let bare = Bytes::from(last.replace('|', ""));
        let mut places = Vec::new();
        for (index, (at, _)) in last.match_indices('|').enumerate() {
            places.push(at - index);
        }
        let pieces = places.chunks(2).map(|ends| Piece { key: "t", value: &bare[ends[0]..ends[1]] }).collect();
        let mut memory = Last::default();
        memory.remember(&bare, &Bytes::from(sent.to_owned()), Some(pieces));
        let mut values = Vec::new();
        let take = |_: &str, value: &[u8]| values.push(String::from_utf8(value.to_vec()).unwrap());
        let out = memory.repeat(&Bytes::from(next.to_owned()), take)?;
        Some((values, String::from_utf8(out.to_vec()).unwrap()))
    }

    #[test]
    fn what_is_alike_but_for_its_text_is_repeated() {
        let last = r#"data: {"m":"x","t":"|a|","n":|7|,"o":"|zz|"}"#;
        let same = last.replace('|', "");
        for (next, values) in [
            (r#"data: {"m":"x","t":"b c","n":12,"o":""}"#, ["b c", "12", ""]),
            (r#"data: {"m":"x","t":"\n\"\\u00e9 é","n":0,"o":"\\"}"#, ["\\n\\\"\\\\u00e9 é", "0", "\\\\"]),
        ] {
            let expected = Some((values.map(str::to_owned).to_vec(), next.to_owned()));
            assert_eq!(repeated(last, &same, next), expected, "{next}");
        }
    }

    #[test]
    fn what_is_not_is_left_to_the_full_look() {
        let last = r#"data: {"m":"x","t":"|a|","n":|7|}"#;
        let same = last.replace('|', "");
        for next in [
            r#"data: {"m":"y","t":"b","n":8}"#,
            r#"data: {"m":"x","t":null,"n":8}"#,
            r#"data: {"m":"x","t":"b","n":-8}"#,
            r#"data: {"m":"x","t":"b","n":08}"#,
            r#"data: {"m":"x","t":"b","n":8.0}"#,
            r#"data: {"m":"x","t":"b","n":}"#,
            r#"data: {"m":"x","t":"\x","n":8}"#,
            r#"data: {"m":"x","t":"\u12","n":8}"#,
            "data: {\"m\":\"x\",\"t\":\"a\tb\",\"n\":8}",
            r#"data: {"m":"x","t":"b","n":8} "#,
            r#"data: {"m":"x","t":"b"#,
            "",
        ] {
            assert_eq!(repeated(last, &same, next), None, "{next}");
        }
    }

    #[test]
    fn an_edit_is_made_again() {
        let last = r#"{"m":"x","t":"|a|","u":1}"#;
        let next = r#"{"m":"x","t":"bcd","u":1}"#;
        for (sent, expected) in [
            (r#"{"m":"vendor/x-1","t":"a","u":1}"#, r#"{"m":"vendor/x-1","t":"bcd","u":1}"#),
            (r#"{"m":"","t":"a","u":1}"#, r#"{"m":"","t":"bcd","u":1}"#),
            (r#"{"m":"x","t":"a","u":11}"#, r#"{"m":"x","t":"bcd","u":11}"#),
        ] {
            assert_eq!(repeated(last, sent, next), Some((vec!["bcd".to_owned()], expected.to_owned())), "{sent}");
        }
        assert_eq!(repeated(last, r#"{"m":"y","t":"a","u":2}"#, next), None, "edits around the text are not one");
    }

    #[test]
    fn a_stream_without_likeness_is_left_alone() {
        let mut memory = Last::default();
        for index in 0..MAX_MISSES {
            let event = Bytes::from(format!("{{\"a{index}\":\"b\"}}"));
            assert!(memory.repeat(&event, |_, _| {}).is_none());
            let value = &event[event.len() - 3..event.len() - 2];
            memory.remember(&event, &event, Some(vec![Piece { key: "t", value }]));
        }
        let event = Bytes::from_static(b"{\"a\":\"b\"}");
        let pieces = || Some(vec![Piece { key: "t", value: &event[6..7] }]);
        memory.repeat(&event, |_, _| {});
        memory.remember(&event, &event, pieces());
        assert!(memory.repeat(&event, |_, _| {}).is_none());
    }

    /// What a stream says, taken event by event by one meter, and each event by a meter of its own, which has seen no
    /// other and so takes the full look.
    fn assert_same(dialect: &dyn Dialect, events: &[String]) {
        let shape = Shape { model: "asked".into(), stream: true, ..Shape::default() };
        let mut followed = dialect.meter(&shape);
        let mut chars: u64 = 0;
        for event in events {
            let event = Bytes::from(event.clone());
            let mut alone = dialect.meter(&shape);
            let (step, expected) = (followed.observe(&event), alone.observe(&event));
            assert_eq!(format!("{step:?}"), format!("{expected:?}"), "{event:?}");
            chars += said(&*alone);
            assert_eq!(said(&*followed), chars, "{event:?}");
        }
    }

    fn said(meter: &dyn Meter) -> u64 {
        match meter.reading() {
            Reading::Unreported { output_chars } => output_chars,
            other => panic!("{other:?}"),
        }
    }

    const TEXTS: [&str; 12] =
        ["", "a", " word", "é😀", "\\n", "\\u00e9\\ud83d\\ude00", "\\\"", "\\\\", "x\\", "\\x", "\t", "{\\\"a\\\":1}"];

    /// Events whose parts are chosen by these numbers.
    fn chat(numbers: &[usize]) -> String {
        let [text, member, more, model] = [numbers[0], numbers[1], numbers[2], numbers[3]];
        let text = TEXTS[text % TEXTS.len()];
        let delta = match member % 6 {
            0..=2 => format!(r#"{{"content":"{text}"}}"#),
            3 => format!(r#"{{"reasoning":"{text}","content":"{text}"}}"#),
            4 => format!(r#"{{"tool_calls":[{{"index":0,"function":{{"arguments":"{text}"}}}}]}}"#),
            _ => r#"{"content":null}"#.to_owned(),
        };
        let more = match more % 8 {
            0 => format!(r#","obfuscation":"{text}""#),
            1 => format!(r#","choices":[{{"delta":{{"content":"{text}"}}}}]"#),
            2 => r#","service_tier":"default""#.to_owned(),
            3 => r#","obfuscation":7"#.to_owned(),
            _ => String::new(),
        };
        let model = ["asked", "asked-2026", ""][model % 3];
        format!(
            "data: {{\"id\":\"c\",\"model\":\"{model}\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":null}}]{more}}}\n\n"
        )
    }

    fn responses(numbers: &[usize]) -> String {
        let [text, kind, more, number] = [numbers[0], numbers[1], numbers[2], numbers[3]];
        let text = TEXTS[text % TEXTS.len()];
        let kind = ["output_text.delta", "reasoning_summary_text.delta", "output_text.done"][kind % 3];
        let more = match more % 4 {
            0 => format!(r#","obfuscation":"{text}""#),
            1 => r#","response":{"id":"r"}"#.to_owned(),
            _ => String::new(),
        };
        format!(
            "event: response.{kind}\ndata: {{\"type\":\"response.{kind}\",\"sequence_number\":{number},\"delta\":\"{text}\"{more}}}\n\n"
        )
    }

    fn messages(numbers: &[usize]) -> String {
        let [text, kind, index, more] = [numbers[0], numbers[1], numbers[2], numbers[3]];
        let text = TEXTS[text % TEXTS.len()];
        let (kind, member) =
            [("text_delta", "text"), ("thinking_delta", "thinking"), ("input_json_delta", "partial_json")][kind % 3];
        let more = if more % 5 == 0 { r#","text":["a","b"]"# } else { "" };
        format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":{},\"delta\":{{\"type\":\"{kind}\",\"{member}\":\"{text}\"{more}}}}}\n\n",
            index % 2
        )
    }

    proptest::proptest! {
        #[test]
        fn a_repeated_event_means_what_a_full_look_says(
            numbers in proptest::collection::vec(proptest::collection::vec(0_usize..1_000, 4), 1..40),
            few in 1_usize..5,
        ) {
            // The fewer values there are, the more events are alike.
            let numbers: Vec<Vec<usize>> = numbers.iter().map(|row| {
                row.iter().enumerate().map(|(at, number)| if at == 0 { *number } else { number % few }).collect()
            }).collect();
            assert_same(&Chat, &numbers.iter().map(|row| chat(row)).collect::<Vec<_>>());
            assert_same(&Responses, &numbers.iter().map(|row| responses(row)).collect::<Vec<_>>());
            assert_same(&Messages, &numbers.iter().map(|row| messages(row)).collect::<Vec<_>>());
        }
    }
}
