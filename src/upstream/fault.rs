//! Refusals with 402 or 403 that are due to the request, and not to the operator's account: what they mean for the
//! account would take an upstream away from everybody because of one client's prompts.
//!
//! As in `bar`, only words that are known count, and no text that speaks of the account. All else is the account's.

use super::{Refused, account};

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Moderation did not let its content through.
    Flagged,
    /// It may become dearer than what is left on the account. Smaller ones are served.
    TooDear,
}

/// In lower case, anywhere in the message, code or type.
const FLAGGED: [&str; 13] = [
    "requires moderation",
    "by moderation",
    "content moderation",
    "moderation_blocked",
    "input was flagged",
    "prompt was flagged",
    "content was flagged",
    "request was flagged",
    "content policy",
    "content_policy",
    "content violates",
    "content_filter",
    "safety_check_type",
];

/// How it begins, in lower case.
const TOO_DEAR: [&str; 2] = ["this request requires more credits, or fewer max_tokens", "prompt tokens limit exceeded"];
/// Not one token more: the account is empty, whatever else is said.
const EMPTY: &str = "can only afford 0.";

impl Fault {
    /// What a refusal says about the request; `None`: nothing for sure.
    #[must_use]
    pub fn of(refused: &Refused) -> Option<Self> {
        let message = refused.message.as_deref().unwrap_or_default().trim_start().to_ascii_lowercase();
        match refused.status {
            402 => {
                let says = TOO_DEAR.iter().any(|beginning| message.starts_with(beginning));
                (says && !message.contains(EMPTY)).then_some(Self::TooDear)
            }
            403 => {
                let name = |name: &Option<String>| name.as_deref().unwrap_or_default().to_ascii_lowercase();
                let texts = [name(&refused.code), name(&refused.kind), message];
                let says = |text: &String| FLAGGED.iter().any(|sign| text.contains(sign));
                let of_account = texts.iter().any(|text| account::speaks_of_account(text));
                (texts.iter().any(says) && !of_account).then_some(Self::Flagged)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Fault::{Flagged, TooDear};

    #[test]
    fn what_vendors_refuse_because_of_the_request() {
        for (status, code, message, expected) in [
            // OpenRouter.
            (
                403,
                "",
                "openai/o3-mini requires moderation on OpenAI. Your input was flagged for \"harassment\". No credits \
                 were charged.",
                Some(Flagged),
            ),
            (403, "", "Your chosen model requires moderation and your input was flagged", Some(Flagged)),
            (403, "", "Input was flagged", Some(Flagged)),
            (
                402,
                "",
                "This request requires more credits, or fewer max_tokens. You requested up to 65536 tokens, but can \
                 only afford 30104. To increase, visit https://openrouter.ai/settings/credits and upgrade to a paid \
                 account",
                Some(TooDear),
            ),
            (
                402,
                "",
                "Prompt tokens limit exceeded: 230799 > 91442. To increase, visit \
                 https://openrouter.ai/settings/keys and create a key with a higher monthly limit",
                Some(TooDear),
            ),
            // Nothing is left, for nobody.
            (
                402,
                "",
                "This request requires more credits, or fewer max_tokens. You requested up to 32000 tokens, but can \
                 only afford 0. To increase, visit https://openrouter.ai/settings/keys and create a key with a higher \
                 monthly limit",
                None,
            ),
            (402, "", "Insufficient credits. Add more using https://openrouter.ai/settings/credits", None),
            (402, "insufficient_balance", "Insufficient balance: 9 mSats required.", None),
            (403, "", "Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys", None),
            // xAI.
            (
                403,
                "",
                "Content violates usage guidelines. Team: 1, API key ID: 2, Model: grok-4-0709, Failed check: \
                 SAFETY_CHECK_TYPE_BIO",
                Some(Flagged),
            ),
            (403, "content_policy_violation", "x", Some(Flagged)),
            // The account, whatever it has done.
            (403, "", "Your account was flagged for violations of our content policy.", None),
            (403, "", "This organization has been restricted by moderation.", None),
            (403, "", "The project does not have access to model `omni-moderation-latest`", None),
            (403, "", "Forbidden", None),
            (403, "", "", None),
            // Of other statuses nothing follows that would not follow anyway.
            (400, "content_filter", "Input was flagged", None),
            (401, "", "Input was flagged", None),
        ] {
            let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let (message, code) = (text(message), text(code));
            let refused = Refused { status, retry_after: None, message, kind: None, code, param: None };
            assert_eq!(Fault::of(&refused), expected, "{refused:?}");
        }
    }
}
