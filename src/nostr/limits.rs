//! What a relay says that it takes (NIP-11), read before anything is sent to it.

use serde_json::Value;

use super::SignedEvent;

/// Media type of a relay's description.
pub const MEDIA: &str = "application/nostr+json";
/// Largest description that is read.
pub const MAX_DOCUMENT: usize = 64 * 1024;

/// Limits that concern this node; `None`: the relay names none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub message: Option<u64>,
    pub content: Option<u64>,
    pub tags: Option<u64>,
    /// Events in one answer.
    pub results: Option<u64>,
    /// Bits of proof of work (NIP-13).
    pub work: Option<u64>,
}

impl Limits {
    /// What the description says. One that cannot be read says nothing, and so does each field of it.
    #[must_use]
    pub fn read(document: &[u8]) -> Self {
        let document: Value = serde_json::from_slice(document).unwrap_or_default();
        let number = |name: &str| {
            let limit = document.get("limitation").and_then(|limits| limits.get(name)).and_then(Value::as_u64);
            // Some write 0 where they have none.
            limit.filter(|limit| *limit > 0)
        };
        Self {
            message: number("max_message_length"),
            content: number("max_content_length"),
            tags: number("max_event_tags"),
            results: number("max_limit"),
            work: number("min_pow_difficulty"),
        }
    }

    /// Why the relay would refuse this event, as far as that is known without asking.
    #[must_use]
    pub fn objection(&self, event: &SignedEvent) -> Option<&'static str> {
        let parsed: Value = serde_json::from_str(event.as_json()).unwrap_or_default();
        let content = parsed.get("content").and_then(Value::as_str).map_or(0, |content| content.chars().count());
        let tags = parsed.get("tags").and_then(Value::as_array).map_or(0, Vec::len);
        let over = |limit: Option<u64>, size: usize| {
            limit.is_some_and(|limit| u64::try_from(size).unwrap_or(u64::MAX) > limit)
        };
        // `["EVENT",…]` around it.
        if over(self.message, event.as_json().len().saturating_add(10)) {
            Some("the listing is longer than what the relay takes")
        } else if over(self.content, content) {
            Some("the name and description are longer than what the relay takes")
        } else if over(self.tags, tags) {
            Some("the listing has more tags than the relay takes")
        } else if self.work.is_some() {
            Some("the relay wants proof of work, which this node does not do")
        } else {
            None
        }
    }

    /// How many results to ask for.
    #[must_use]
    pub fn results(&self, wanted: usize) -> usize {
        self.results.and_then(|most| usize::try_from(most).ok()).map_or(wanted, |most| wanted.min(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(limits: &str) -> Limits {
        Limits::read(format!(r#"{{"name":"r","limitation":{limits}}}"#).as_bytes())
    }

    #[test]
    fn a_relay_is_taken_at_its_word_and_nonsense_is_no_word() {
        let event = SignedEvent::test(r#"{"tags":[["d","x"],["u","y"]],"content":"äöü"}"#);
        for (limits, refused) in [
            ("{}", false),
            ("null", false),
            ("[]", false),
            (r#"{"max_message_length":40}"#, true),
            (r#"{"max_message_length":600}"#, false),
            (r#"{"max_message_length":0}"#, false),
            (r#"{"max_message_length":-1}"#, false),
            (r#"{"max_message_length":"60"}"#, false),
            (r#"{"max_message_length":1e99}"#, false),
            (r#"{"max_content_length":2}"#, true),
            (r#"{"max_content_length":3}"#, false),
            (r#"{"max_event_tags":1}"#, true),
            (r#"{"max_event_tags":2,"max_message_length":[]}"#, false),
            (r#"{"min_pow_difficulty":8}"#, true),
            (r#"{"min_pow_difficulty":0}"#, false),
        ] {
            assert_eq!(with(limits).objection(&event).is_some(), refused, "{limits}");
        }
        assert_eq!(with(r#"{"max_limit":50}"#).results(300), 50);
        assert_eq!(with(r#"{"max_limit":5000}"#).results(300), 300);
        for document in ["", "<html>", "[1]", r#"{"limitation":7}"#] {
            assert_eq!(Limits::read(document.as_bytes()), Limits::default(), "{document}");
        }
    }
}
