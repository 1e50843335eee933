//! Refusals that time does not heal: an upstream does not take the operator's key, has shut the account,
//! or wants to be paid. It is barred, and not asked again until the operator clears it.
//!
//! Only what the upstream says of itself in words that are known counts, since a wrong guess takes it out of
//! service, and error texts may repeat what a client wrote. All else that looks like it rests for a while.

use super::Refused;

/// Why an upstream is barred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// It does not know the key, or not any more.
    KeyRefused,
    /// The account is shut.
    AccountShut,
    /// The account has no credit left.
    NoCredit,
}

/// A way in which it is said: in a `code` or `type`, or at the beginning of the message.
struct Sign {
    bar: Bar,
    codes: &'static [&'static str],
    /// In lower case.
    beginnings: &'static [&'static str],
}

const SIGNS: [Sign; 3] = [
    Sign {
        bar: Bar::NoCredit,
        codes: &["insufficient_quota", "billing_not_active", "billing_hard_limit_reached", "billing_error"],
        beginnings: &[
            "your credit balance is too low to access",
            "insufficient credits. add more",
            "your account is not active, please check your billing",
            "billing hard limit has been reached",
        ],
    },
    Sign {
        bar: Bar::AccountShut,
        codes: &["account_deactivated", "account_suspended", "organization_restricted", "access_terminated"],
        beginnings: &["you have been banned", "your access was terminated"],
    },
    Sign {
        bar: Bar::KeyRefused,
        codes: &["invalid_api_key", "authentication_error", "account_key_disabled"],
        beginnings: &[
            "incorrect api key provided",
            "invalid api key",
            "invalid x-api-key",
            "api key not valid. please pass",
            "api key expired. please renew",
            "your api key was reported as leaked",
            "authentication fails, your api key",
            "no auth credentials found",
        ],
    },
];

/// Whose end is told, and how: `Your account has been suspended`.
const SUBJECTS: [&str; 5] =
    ["your account", "this account", "your organization", "this organization", "permission denied: consumer"];
const ENDS: [&str; 6] = ["disabled", "suspended", "deactivated", "banned", "terminated", "closed"];

/// Whether a message, in lower case, says that the account is shut.
fn tells_of_an_end(message: &str) -> bool {
    let told = SUBJECTS.iter().find_map(|subject| message.strip_prefix(subject)).unwrap_or_default();
    let (_, how) = told.split_once(" has been ").unwrap_or_default();
    ENDS.iter().any(|end| how.starts_with(end))
}

impl Bar {
    const ALL: [Self; 3] = [Self::KeyRefused, Self::AccountShut, Self::NoCredit];

    /// As it is stored, and shown to programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeyRefused => "key_refused",
            Self::AccountShut => "account_shut",
            Self::NoCredit => "no_credit",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bar| bar.name() == name)
    }

    /// As a person reads it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::KeyRefused => "it does not take your key",
            Self::AccountShut => "it has shut your account",
            Self::NoCredit => "your account there has no credit",
        }
    }

    /// What a refusal says about the account; `None`: nothing for sure.
    #[must_use]
    pub fn of(refused: &Refused) -> Option<Self> {
        // 400 and 429 are the client's doing, or a matter of minutes, unless the words leave no doubt. What
        // complains about a member of the request does not speak of the account.
        let may_be = matches!(refused.status, 400..=403 | 429) && refused.param.is_none();
        // Another node of this network has such a type for a request that is too dear, and says more in its code.
        let kind = refused.kind.as_deref().filter(|kind| *kind != "insufficient_quota");
        let name = refused.code.as_deref().filter(|code| !code.is_empty()).or(kind);
        let message = refused.message.as_deref().unwrap_or_default().trim_start().to_ascii_lowercase();
        let says = |sign: &&Sign| {
            let named = refused.status != 400 || sign.bar == Bar::NoCredit;
            let by_code = named && name.is_some_and(|name| sign.codes.contains(&name));
            let by_words = sign.beginnings.iter().any(|beginning| message.starts_with(beginning));
            by_code || by_words || (sign.bar == Bar::AccountShut && tells_of_an_end(&message))
        };
        SIGNS.iter().filter(|_| may_be).find(says).map(|sign| sign.bar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Bar::{AccountShut, KeyRefused, NoCredit};

    #[test]
    fn what_vendors_say_of_an_account() {
        for (status, kind, code, message, expected) in [
            (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-a", Some(KeyRefused)),
            (401, "authentication_error", "", "invalid x-api-key", Some(KeyRefused)),
            (400, "INVALID_ARGUMENT", "", "API key not valid. Please pass a valid API key.", Some(KeyRefused)),
            (401, "", "", "No auth credentials found", Some(KeyRefused)),
            (401, "", "", "Unauthorized", None),
            (401, "", "", "", None),
            (400, "invalid_request_error", "", "Your credit balance is too low to access the API.", Some(NoCredit)),
            (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota", Some(NoCredit)),
            (402, "", "", "Insufficient credits. Add more using https://x", Some(NoCredit)),
            (402, "", "", "This request requires more credits, or fewer max_tokens.", None),
            // Another node of this network: more may be asked for than is there, and less is served.
            (402, "insufficient_quota", "insufficient_balance", "Insufficient balance: 9 mSats required.", None),
            (402, "billing_error", "insufficient_balance", "Insufficient balance: 9 mSats required.", None),
            (402, "billing_error", "", "x", Some(NoCredit)),
            (403, "", "", "Your account has been suspended.", Some(AccountShut)),
            (429, "", "", "Your account has been rate limited.", None),
            (403, "", "", "Your account has been temporarily suspended.", None),
            // A limit by the minute.
            (429, "RESOURCE_EXHAUSTED", "", "You exceeded your current quota, please check your plan", None),
            (400, "invalid_request_error", "", "This organization has been disabled.", Some(AccountShut)),
            (401, "", "account_deactivated", "Your OpenAI account has been deactivated", Some(AccountShut)),
            (403, "PERMISSION_DENIED", "", "Permission denied: Consumer 'x' has been suspended.", Some(AccountShut)),
            (403, "", "", "Input was flagged", None),
            // What a client may have written.
            (400, "", "", "'Incorrect API key provided' is not a model", None),
            (400, "invalid_request_error", "invalid_api_key", "x", None),
            (500, "", "insufficient_quota", "", None),
            (404, "", "", "Incorrect API key provided", None),
        ] {
            let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let refused = Refused {
                status,
                retry_after: None,
                message: text(message),
                kind: text(kind),
                code: text(code),
                param: None,
            };
            assert_eq!(Bar::of(&refused), expected, "{status} {kind} {code} {message}");
            let of_a_member = Refused { param: text("tools"), ..refused };
            assert_eq!(Bar::of(&of_a_member), None);
        }
        for bar in Bar::ALL {
            assert_eq!(Bar::parse(bar.name()), Some(bar));
        }
    }
}
