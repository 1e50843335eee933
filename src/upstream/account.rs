//! What upstreams say of the operator's account is nobody else's business: it is replaced, by a table.
//!
//! This is about texts that are passed on otherwise, mistakes of a client's. What refuses the account for good is
//! in `upstream::bar`, and never passed on.

/// How an account is spoken of, and what a client is told instead.
struct Talk {
    /// In lower case, anywhere in the text.
    signs: &'static [&'static str],
    instead: &'static str,
}

/// The first that fits counts.
const TALK: [Talk; 4] = [
    // Names the operator's team and key beside what is wrong with the content.
    Talk { signs: &["api key id"], instead: "The upstream does not serve this content." },
    Talk {
        signs: &[
            "must be verified",
            "verify organization",
            "does not have access to model",
            "do not have access to it",
            "not allowed to sample from this model",
            "is not enabled for your",
        ],
        instead: "The upstream does not let this node use this model so.",
    },
    Talk {
        signs: &[
            "your plan",
            "your current plan",
            "billing",
            "your credit",
            "your quota",
            "current quota",
            "your spend",
            "usage tier",
            "payment method",
            "requires more credits",
            "rate limit reached for",
        ],
        instead: "The upstream's terms for this node do not cover this request.",
    },
    Talk {
        signs: &[
            "your account",
            "your organization",
            "your organisation",
            "your project",
            "your workspace",
            "your team",
            "your api key",
            "your subscription",
            "your deployment",
        ],
        instead: "The upstream refused this for a reason that concerns this node and not the request.",
    },
];

/// Beginnings of names that vendors give to accounts and what belongs to them.
const NAMES: [&str; 10] = ["org-", "org_", "proj_", "proj-", "acct_", "team-", "team_", "user-", "usr_", "wrkspc_"];
/// Shortest part behind such a beginning.
const NAME_CHARS: usize = 6;

/// Whose trouble it is beyond doubt.
const ACCOUNTS: [&str; 8] = [
    "your account",
    "this account",
    "your organization",
    "this organization",
    "your project",
    "your team",
    "your api key",
    "your subscription",
];

/// Whether a text, in lower case, says something of the operator's account and not of the request.
#[must_use]
pub fn speaks_of_account(text: &str) -> bool {
    ACCOUNTS.iter().any(|account| text.contains(account))
}

/// What a client is told instead of a text that speaks of the operator's account; `None`: it does not.
#[must_use]
pub fn instead_of(text: &str) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    let speaks = |talk: &&Talk| talk.signs.iter().any(|sign| text.contains(sign));
    TALK.iter().find(speaks).map(|talk| talk.instead)
}

/// A text without names of accounts, and without addresses of people.
#[must_use]
pub fn without_names(text: &str) -> String {
    let is_part = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_' | '@' | '.' | '+');
    let mut clean = String::with_capacity(text.len());
    for word in text.split_inclusive(|letter: char| !is_part(letter)) {
        let name = word.trim_end_matches(|letter: char| !is_part(letter) || letter == '.');
        if tells(name) {
            clean.push_str("[removed]");
            clean.push_str(word.strip_prefix(name).unwrap_or_default());
        } else {
            clean.push_str(word);
        }
    }
    clean
}

fn tells(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let rest = NAMES.iter().find_map(|beginning| lower.strip_prefix(beginning));
    let is_account =
        rest.is_some_and(|rest| rest.len() >= NAME_CHARS && rest.bytes().any(|byte| byte.is_ascii_digit()));
    let is_person = name.split_once('@').is_some_and(|(who, host)| !who.is_empty() && host.contains('.'));
    is_account || is_person
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_vendors_say_of_an_account_is_replaced() {
        let [content, model, terms, account] = TALK.each_ref().map(|talk| Some(talk.instead));
        for (text, expected) in [
            ("Your organization must be verified to stream this model. Please go to: https://x", model),
            ("Project `proj_abc123def` does not have access to model `gpt-x`", model),
            ("The model `x` does not exist or you do not have access to it.", model),
            ("Rate limit reached for gpt-4 in organization org-abc123def on tokens per min", terms),
            ("max_tokens is above what your plan allows", terms),
            ("This request requires more credits, or fewer max_tokens.", terms),
            ("Zero data retention is on for your organization, so store must be false", account),
            ("Your deployment eastus-2-prod does not support this", account),
            ("Content violates usage guidelines. Team: 1, API key ID: 2, Failed check: x", content),
            // A client's own mistakes.
            ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", None),
            ("messages: roles must alternate between user and assistant", None),
            ("This model's maximum context length is 8192 tokens; your messages resulted in 9000 tokens.", None),
            ("Invalid 'input': your prompt is empty", None),
        ] {
            assert_eq!(instead_of(text), expected, "{text}");
        }
    }

    #[test]
    fn names_are_removed_and_other_words_are_not() {
        for (text, expected) in [
            ("in organization org-AbC123dEf456 on tokens", "in organization [removed] on tokens"),
            ("(proj_abc123def).", "([removed])."),
            ("ask ops+ai@example.com, or `acct_1Abc23`", "ask [removed], or `[removed]`"),
            ("org-wide user-agent team-player org-1", "org-wide user-agent team-player org-1"),
            ("mail me @ home. 3.5 @ 1", "mail me @ home. 3.5 @ 1"),
            ("größer als 8192\u{a0}Token", "größer als 8192\u{a0}Token"),
        ] {
            assert_eq!(without_names(text), expected);
        }
    }
}
