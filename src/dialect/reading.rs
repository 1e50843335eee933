//! What an answer says and what it consumed, whole or in pieces.

use std::fmt;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::BadAnswer;
use super::body::{self, Lens, Token, Tokens};
use super::complaint::Complaint;
use super::fields::served;
use super::pattern::Piece;
use crate::money::{Usage, UsageSource};

/// More of anything than one request can consume.
const MAX_COUNT: u64 = 1_000_000_000_000;

/// What `choices` contain: how much text, and whether it has come to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    chars: u64,
    /// Hosts that send reasoning under both names send it twice.
    reasoning: u64,
    reasoning_content: u64,
    /// Characters of base64: sound, where that was asked for.
    data: u64,
    /// There is something in it that a client waits for.
    pub(super) seen: bool,
    pub(super) finished: bool,
}

impl Content {
    pub(super) fn of(choices: &RawValue) -> Self {
        let mut content = Self::default();
        texts(choices).for_each(|(key, text)| content.take(key, text));
        content
    }

    pub(super) fn take(&mut self, key: &[u8], text: &[u8]) {
        if text.is_empty() {
            return;
        }
        let counter = match key {
            b"finish_reason" => {
                self.finished = true;
                return;
            }
            b"reasoning" => &mut self.reasoning,
            b"reasoning_content" => &mut self.reasoning_content,
            b"data" => &mut self.data,
            // Pictures.
            b"url" => {
                self.seen = true;
                return;
            }
            _ if COUNTED.iter().any(|counted| counted.as_bytes() == key) => &mut self.chars,
            _ => return,
        };
        *counter = counter.saturating_add(body::count_chars(text));
        self.seen = true;
    }

    /// The texts of `choices` that are content: with others in their places, an event means the same.
    pub(super) fn pieces(choices: &RawValue) -> impl Iterator<Item = Piece<'_>> {
        texts(choices).filter_map(|(key, value)| {
            let key = COUNTED.into_iter().find(|counted| counted.as_bytes() == key)?;
            Some(Piece { key, value })
        })
    }

    /// A piece of text that stands alone.
    pub(super) fn of_text(text: &RawValue) -> Self {
        let text = text.get().strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or_default();
        Self { chars: body::count_chars(text.as_bytes()), seen: !text.is_empty(), ..Self::default() }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.chars = self.chars.saturating_add(other.chars);
        self.reasoning = self.reasoning.saturating_add(other.reasoning);
        self.reasoning_content = self.reasoning_content.saturating_add(other.reasoning_content);
        self.data = self.data.saturating_add(other.data);
        self.seen |= other.seen;
        self.finished |= other.finished;
    }

    pub(super) fn output_chars(&self) -> u64 {
        self.chars.saturating_add(self.reasoning.max(self.reasoning_content))
    }

    /// Tokens of sound, if its data is such. A stream has 24,000 samples of two bytes a second, and a token is 50 ms of
    /// them; whatever is packed is shorter.
    pub(super) fn tokens_of_sound(&self) -> u64 {
        self.data.div_ceil(3_200)
    }
}

/// Members whose text is what the model says.
const COUNTED: [&str; 12] = [
    "content",
    "reasoning",
    "reasoning_content",
    "refusal",
    "arguments",
    "name",
    "input",
    "text",
    "thinking",
    "transcript",
    "partial_json",
    "data",
];

/// The texts of `choices`, each with the name of its member.
fn texts(choices: &RawValue) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut tokens = Tokens::of(choices);
    let (mut key, mut skipped) = (&b""[..], 0_usize);
    std::iter::from_fn(move || {
        loop {
            match tokens.next()? {
                Token::Open if skipped > 0 || repeats_text(key) => skipped = skipped.saturating_add(1),
                Token::Close => {
                    skipped = skipped.saturating_sub(1);
                    // It is over, and the value with it: what follows is not of that name.
                    key = b"";
                }
                Token::Key(name) if skipped == 0 => key = name,
                Token::Text(text) if skipped == 0 => return Some((key, text)),
                _ => {}
            }
        }
    })
}

/// Members whose text is also elsewhere, or is none of the model's.
fn repeats_text(key: &[u8]) -> bool {
    matches!(key, b"reasoning_details" | b"logprobs" | b"annotations" | b"content_filter_results" | b"usage")
}

/// Why something that is no object is no answer.
pub(super) fn failed(body: &[u8]) -> BadAnswer {
    // Google's shim wraps its errors in an array.
    let wrapped = first_of_array(body).and_then(Lens::of);
    let error = wrapped.and_then(|lens| Complaint::of(&lens));
    error.map_or(BadAnswer::NotJson, BadAnswer::Error)
}

/// The first element of an array. No list is made of the others: an answer may have millions.
pub(super) fn first_of_array(source: &[u8]) -> Option<&RawValue> {
    let First(first) = serde_json::from_slice(source).ok()?;
    first
}

/// What the parser keeps of an array.
struct First<'a>(Option<&'a RawValue>);

impl<'de> Deserialize<'de> for First<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take;
        impl<'de> Visitor<'de> for Take {
            type Value = First<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let first = array.next_element()?;
                while array.next_element::<IgnoredAny>()?.is_some() {}
                Ok(First(first))
            }
        }
        deserializer.deserialize_seq(Take)
    }
}

/// Made once: a search is over before one like it could be.
static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));

/// The usage object and what it says, wherever this host puts it: the first one that can be
/// used, or else one that cannot.
pub(super) fn usage_of<'a>(lens: &Lens<'a>) -> Option<(&'a RawValue, Option<Usage>)> {
    let top = lens.get("usage");
    let groq = lens.object("x_groq").and_then(|groq| groq.get("usage"));
    let moonshot = lens
        .get("choices")
        .filter(|choices| USAGE.find(choices.get().as_bytes()).is_some())
        .and_then(|choices| first_of_array(choices.get().as_bytes()))
        .and_then(Lens::of)
        .and_then(|choice| choice.get("usage"));
    let mut unusable = None;
    let places = [top, groq, moonshot].into_iter().flatten();
    for value in places.filter(|value| body::is_object(value)) {
        match Lens::of(value).and_then(|lens| read_usage(&lens)) {
            Some(usage) => return Some((value, Some(Usage { service: served(lens), ..usage }))),
            None => unusable = unusable.or(Some((value, None))),
        }
    }
    unusable
}

/// A count that makes the whole report worthless.
pub(super) struct Absurd;

/// A count; an integer may be written with a zero fraction.
pub(super) fn count(lens: &Lens<'_>, key: &str) -> Result<Option<u64>, Absurd> {
    let Some(value) = lens.present(key) else {
        return Ok(None);
    };
    let text = value.get();
    let whole = match text.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|byte| byte == b'0') => whole,
        Some(_) => return Err(Absurd),
        None => text,
    };
    match whole.parse::<u64>() {
        Ok(count) if count <= MAX_COUNT => Ok(Some(count)),
        _ => Err(Absurd),
    }
}

/// A count under the older of two names, or the newer one.
fn either(lens: &Lens<'_>, old: &str, new: &str) -> Result<Option<u64>, Absurd> {
    match count(lens, old)? {
        Some(found) => Ok(Some(found)),
        None => count(lens, new),
    }
}

/// A count of a part, which is nothing where it makes no sense.
pub(super) fn part(lens: Option<&Lens<'_>>, key: &str) -> Option<u64> {
    lens.and_then(|lens| count(lens, key).ok().flatten())
}

/// The buckets of a usage object. Where its numbers contradict each other, the cheaper reading
/// counts; `None` when it does not say how much went in and came out.
fn read_usage(lens: &Lens<'_>) -> Option<Usage> {
    let prompt = either(lens, "prompt_tokens", "input_tokens").ok()?;
    let completion = either(lens, "completion_tokens", "output_tokens").ok()?;
    let total = part(Some(lens), "total_tokens").filter(|total| *total > 0);
    let (prompt, completion) = match (prompt, completion, total) {
        (Some(prompt), Some(completion), _) => (prompt, completion),
        (Some(prompt), None, Some(total)) => (prompt, total.saturating_sub(prompt)),
        (None, Some(completion), Some(total)) => (total.saturating_sub(completion), completion),
        _ => return None,
    };
    let mut whole = Rest::of(total.unwrap_or(u64::MAX));
    let (input, output) = (whole.take(prompt), whole.take(completion));
    let mut usage = Usage { contradictory: whole.is_exceeded, ..Usage::default() };
    split_input(lens, input, &mut usage);
    split_output(lens, output, total.and_then(|total| total.checked_sub(prompt)), &mut usage);
    // What Perplexity's research read of its sources is beside all that.
    usage.input = usage.input.saturating_add(part(Some(lens), CITED).unwrap_or(0));
    Some(usage)
}

/// What Perplexity's research tells of its sources. Where it is there, `reasoning_tokens` stands beside it, and is no
/// part of the output.
const CITED: &str = "citation_tokens";

/// Cached parts and audio are inside the input. A written part that does not fit is ordinary input.
fn split_input(lens: &Lens<'_>, input: u64, usage: &mut Usage) {
    let details = lens.object("prompt_tokens_details").or_else(|| lens.object("input_tokens_details"));
    let details = details.as_ref();
    let read = part(details, "cached_tokens")
        .or_else(|| part(Some(lens), "prompt_cache_hit_tokens"))
        .or_else(|| part(Some(lens), "cached_tokens"))
        .unwrap_or(0);
    // Relays say beside it for how long it is kept.
    let [minutes, hour] = ["claude_cache_creation_5_m_tokens", "claude_cache_creation_1_h_tokens"]
        .map(|name| part(Some(lens), name).unwrap_or(0));
    let names = ["cache_write_tokens", "cache_creation_tokens", "cached_creation_tokens"];
    let written = names.iter().find_map(|name| part(details, name)).unwrap_or(minutes.saturating_add(hour));
    let mut rest = Rest::of(input);
    usage.cache_read = rest.take(read);
    let mut kept = Rest::of(rest.take_whole(written));
    usage.cache_write_1h = kept.take(hour);
    usage.cache_write = kept.left;
    usage.audio_in = rest.take(part(details, "audio_tokens").unwrap_or(0));
    usage.image_in = rest.take(part(details, "image_tokens").unwrap_or(0));
    usage.input = rest.left;
    usage.contradictory |= rest.is_exceeded | kept.is_exceeded;
}

/// Reasoning is inside the output, unless `not_prompt` (the total without the prompt) proves that
/// it is beside it. Google's shim tells of its thoughts by that total alone. Reasoning that does not fit is ordinary
/// output.
fn split_output(lens: &Lens<'_>, output: u64, not_prompt: Option<u64>, usage: &mut Usage) {
    let details = lens.object("completion_tokens_details").or_else(|| lens.object("output_tokens_details"));
    let details = details.as_ref();
    let told = part(details, "reasoning_tokens").filter(|told| *told > 0);
    let is_research = told.is_none() && part(Some(lens), CITED).is_some();
    let told = if is_research { part(Some(lens), "reasoning_tokens") } else { told };
    let thoughts = not_prompt.filter(|_| !is_research).and_then(|all| all.checked_sub(output));
    // What a cache served may stand beside the prompt.
    let thoughts = thoughts.filter(|rest| {
        *rest != usage.cache_read.saturating_add(usage.cache_write).saturating_add(usage.cache_write_1h)
    });
    let reasoning = told.or(thoughts).unwrap_or(0);
    let is_beside = is_research || (not_prompt.is_some() && output.checked_add(reasoning) == not_prompt);
    let mut rest = Rest::of(output);
    usage.reasoning = if is_beside { reasoning } else { rest.take_whole(reasoning) };
    usage.audio_out = rest.take(part(details, "audio_tokens").unwrap_or(0));
    usage.image_out = rest.take(part(details, "image_tokens").unwrap_or(0));
    usage.output = rest.left;
    usage.contradictory |= rest.is_exceeded;
}

/// What a report that came before the end is worth: some hosts send the first numbers with the first word, or only
/// zeros. So much output was seen since, and it is no less than that.
pub(super) fn so_far(usage: Usage, output_chars: u64) -> Option<Usage> {
    if usage.total_input() == 0 && usage.total_output() == 0 {
        return None;
    }
    let written = usage.output.saturating_add(usage.reasoning);
    match output_chars.div_ceil(4).saturating_sub(written) {
        0 => Some(usage),
        more => {
            let output = usage.output.saturating_add(more);
            Some(Usage { output, source: UsageSource::Estimated, ..usage })
        }
    }
}

/// A total that is taken apart.
pub(super) struct Rest {
    pub(super) left: u64,
    /// A part was larger than what was left for it.
    pub(super) is_exceeded: bool,
}

impl Rest {
    pub(super) fn of(total: u64) -> Self {
        Self { left: total, is_exceeded: false }
    }

    /// The part, as far as it fits.
    pub(super) fn take(&mut self, part: u64) -> u64 {
        self.is_exceeded |= part > self.left;
        let taken = part.min(self.left);
        self.left = self.left.saturating_sub(taken);
        taken
    }

    /// The part if it fits, or nothing: what is dearer than the rest is not guessed.
    pub(super) fn take_whole(&mut self, part: u64) -> u64 {
        self.is_exceeded |= part > self.left;
        if part > self.left { 0 } else { self.take(part) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: u64, cache_read: u64, cache_write: u64, output: u64, reasoning: u64) -> Option<Usage> {
        Some(Usage { input, cache_read, cache_write, output, reasoning, ..Usage::default() })
    }

    /// Whether numbers contradicted each other is not compared here.
    fn agreed(usage: Usage) -> Usage {
        Usage { contradictory: false, ..usage }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn every_place_and_shape_of_usage() {
        for (answer, expected) in [
            (r#""usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}"#, usage(10, 0, 0, 5, 0)),
            (r#""usage":{"prompt_tokens":10.0,"completion_tokens":5}"#, usage(10, 0, 0, 5, 0)),
            (r#""usage":{"prompt_tokens":10,"total_tokens":15}"#, usage(10, 0, 0, 5, 0)),
            (r#""usage":{"completion_tokens":5,"total_tokens":15}"#, usage(10, 0, 0, 5, 0)),
            (
                r#""usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4}}"#,
                usage(6, 4, 0, 5, 0),
            ),
            (
                r#""usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":3}}"#,
                usage(3, 4, 3, 5, 0),
            ),
            (
                r#""usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cache_creation_tokens":3}}"#,
                usage(7, 0, 3, 5, 0),
            ),
            (
                r#""usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_creation_tokens":3}}"#,
                usage(7, 0, 3, 5, 0),
            ),
            (
                r#""usage":{"prompt_tokens":10,"completion_tokens":5,"claude_cache_creation_5_m_tokens":3,"claude_cache_creation_1_h_tokens":2}"#,
                usage(5, 0, 3, 5, 0).map(|usage| Usage { cache_write_1h: 2, ..usage }),
            ),
            (
                r#""usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_creation_tokens":3},"claude_cache_creation_1_h_tokens":2}"#,
                usage(7, 0, 1, 5, 0).map(|usage| Usage { cache_write_1h: 2, ..usage }),
            ),
            (
                r#""usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":6}"#,
                usage(6, 4, 0, 5, 0),
            ),
            (r#""usage":{"prompt_tokens":10,"completion_tokens":5,"cached_tokens":4}"#, usage(6, 4, 0, 5, 0)),
            (
                r#""usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":null}"#,
                usage(10, 0, 0, 5, 0),
            ),
            (
                r#""usage":{"prompt_tokens":10,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":2}}"#,
                usage(10, 0, 0, 3, 2),
            ),
            (
                r#""usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"completion_tokens_details":{"reasoning_tokens":2}}"#,
                usage(10, 0, 0, 3, 2),
            ),
            (
                r#""usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":17,"completion_tokens_details":{"reasoning_tokens":2}}"#,
                usage(10, 0, 0, 5, 2),
            ),
            // Research that read 30, and thought 40.
            (
                r#""usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"citation_tokens":30,"reasoning_tokens":40}"#,
                usage(40, 0, 0, 5, 40),
            ),
            (
                r#""usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":85,"citation_tokens":30,"reasoning_tokens":40}"#,
                usage(40, 0, 0, 5, 40),
            ),
            // Of others, it is inside.
            (
                r#""usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"reasoning_tokens":4}"#,
                usage(10, 0, 0, 5, 0),
            ),
            (r#""usage":{"prompt_tokens":20,"completion_tokens":151,"total_tokens":553}"#, usage(20, 0, 0, 151, 382)),
            (
                r#""usage":{"prompt_tokens":20,"completion_tokens":5,"total_tokens":35,"prompt_tokens_details":{"cached_tokens":10}}"#,
                usage(10, 10, 0, 5, 0),
            ),
            (r#""usage":null,"x_groq":{"usage":{"prompt_tokens":10,"completion_tokens":5}}"#, usage(10, 0, 0, 5, 0)),
            (
                r#""choices":[{"usage":{"prompt_tokens":10,"completion_tokens":5,"cached_tokens":1}}]"#,
                usage(9, 1, 0, 5, 0),
            ),
            // Contradictions: the cheaper reading.
            (
                r#""usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":40}}"#,
                usage(0, 10, 0, 5, 0),
            ),
            (
                r#""usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":30}}"#,
                usage(6, 4, 0, 5, 0),
            ),
            (
                r#""usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":-4}}"#,
                usage(10, 0, 0, 5, 0),
            ),
            (
                r#""usage":{"prompt_tokens":10,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":9}}"#,
                usage(10, 0, 0, 5, 0),
            ),
            (r#""usage":{"prompt_tokens":10,"completion_tokens":500,"total_tokens":15}"#, usage(10, 0, 0, 5, 0)),
            (r#""usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":"x"}"#, usage(10, 0, 0, 5, 0)),
            (r#""usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":0}"#, usage(10, 0, 0, 5, 0)),
            // Worthless.
            (r#""usage":{"prompt_tokens":-1,"completion_tokens":5}"#, None),
            (r#""usage":{"prompt_tokens":1.5,"completion_tokens":5}"#, None),
            (r#""usage":{"prompt_tokens":"10","completion_tokens":5}"#, None),
            (r#""usage":{"prompt_tokens":1e3,"completion_tokens":5}"#, None),
            (r#""usage":{"prompt_tokens":10,"completion_tokens":1000000000001}"#, None),
            (r#""usage":{"prompt_tokens":99999999999999999999999,"completion_tokens":1}"#, None),
            (r#""usage":{"prompt_tokens":10}"#, None),
            (r#""usage":{}"#, None),
            (r#""usage":[1]"#, None),
            (r#""a":1"#, None),
        ] {
            let body = format!("{{{answer}}}");
            let lens = Lens::parse(body.as_bytes()).unwrap();
            assert_eq!(usage_of(&lens).and_then(|(_, usage)| usage).map(agreed), expected, "{answer}");
        }
    }

    #[test]
    fn the_first_of_an_array_is_found_if_it_is_one() {
        for (source, first) in [
            (r#"[{"a":[1]}, 2, "x"]"#, Some(r#"{"a":[1]}"#)),
            ("[ 1 ]", Some("1")),
            ("[]", None),
            ("[1,]", None),
            ("[1] 2", None),
            ("{}", None),
            ("", None),
        ] {
            assert_eq!(first_of_array(source.as_bytes()).map(RawValue::get), first, "{source}");
        }
    }

    #[test]
    fn content_is_counted_once() {
        for (choices, chars, seen, finished) in [
            (r#"[{"delta":{"role":"assistant","content":""},"finish_reason":null}]"#, 0, false, false),
            (r#"[{"delta":{"content":"abc"},"finish_reason":""}]"#, 3, true, false),
            (r#"[{"delta":{"content":null,"reasoning_content":"ab"}}]"#, 2, true, false),
            (
                r#"[{"delta":{"reasoning":"ab","reasoning_content":"ab","reasoning_details":[{"text":"ab"}]}}]"#,
                2,
                true,
                false,
            ),
            (
                r#"[{"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":""}}]}}]"#,
                1,
                true,
                false,
            ),
            (r#"[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":\ud83d"}}]}}]"#, 6, true, false),
            (r#"[{"delta":{"refusal":"no"}},{"delta":{"content":"yes"}}]"#, 5, true, false),
            (r#"[{"message":{"content":[{"type":"text","text":"abc"}]},"finish_reason":"stop"}]"#, 3, true, true),
            (
                r#"[{"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","text":"a"}]},"finish_reason":null}]"#,
                1,
                true,
                false,
            ),
            // What comes last in a choice says nothing of the next one.
            (r#"[{"delta":{"content":"a"},"logprobs":null},{"delta":{"content":"bc"}}]"#, 3, true, false),
            (r#"[{"message":{"content":"a","annotations":[]}},{"message":{"content":"bc"}}]"#, 3, true, false),
            (
                r#"[{"delta":{"content":"a"},"content_filter_results":{"x":{}}},{"delta":{"content":"bc"}}]"#,
                3,
                true,
                false,
            ),
            (r#"[{"delta":{"audio":{"data":"AAAA"}}}]"#, 0, true, false),
            (r#"[{"delta":{},"content_filter_results":{"text":"safe"},"finish_reason":"stop"}]"#, 0, false, true),
        ] {
            let content = Content::of(serde_json::from_str(choices).unwrap());
            assert_eq!((content.output_chars(), content.seen, content.finished), (chars, seen, finished), "{choices}");
        }
    }
}
