//! How a request is paid: read from its headers, and ended early. Behind [`payer::Payer`] nobody
//! knows any more whether a key or a token paid. What else a key's owner does is in [`keys`]; what
//! somebody may ask for who pays nothing, in [`visitors`]; how fast a key may spend, in [`throttle`].

pub mod expiry;
pub mod keys;
pub mod lightning;
pub mod payer;
pub mod refunds;
pub mod sight;
pub mod throttle;
pub mod visitors;
pub mod vouchers;

use crate::failure::{Blame, Code, Failure};
use crate::metrics::{Method, Paid};
use crate::wallet::TokenFault;
use crate::wallet::token::{self, Token};

/// What the headers say about payment. Raw values, as they came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials<'a> {
    /// `Authorization`, whole.
    pub authorization: Option<&'a str>,
    /// `x-api-key`
    pub api_key: Option<&'a str>,
    /// `x-anthropic-api-key`
    pub anthropic_key: Option<&'a str>,
    /// `api-key`
    pub azure_key: Option<&'a str>,
    /// `x-goog-api-key`
    pub google_key: Option<&'a str>,
    /// `key` in the query, at Google's routes.
    pub query_key: Option<&'a str>,
    /// `X-Cashu`; `Some("")` when present and empty.
    pub cashu: Option<&'a str>,
    /// `Accept-Payment` names cashu.
    pub accepts_cashu: bool,
    /// `Refund-LNURL`
    pub refund_lnurl: Option<&'a str>,
    /// `Key-Expiry-Time`
    pub key_expiry: Option<&'a str>,
}

impl Credentials<'_> {
    /// Whether nothing is there that could pay.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.authorization.is_none() && self.cashu.is_none() && self.bare_keys().iter().all(Option::is_none)
    }

    /// Every place for a key but `Authorization`.
    fn bare_keys(&self) -> [Option<&str>; 5] {
        [self.api_key, self.anthropic_key, self.azure_key, self.google_key, self.query_key]
    }
}

/// How a request is to be paid.
#[derive(Clone, Debug)]
pub enum Payment {
    /// `sk-…`: the hex behind it.
    Key(String),
    /// A token used as a key: redeemed at first sight, then the name of its balance.
    TokenKey(Box<Token>),
    /// A token that rides on this request alone.
    OneShot(Box<Token>),
    /// Not at all, but the client says that it can pay ecash.
    Asking,
}

impl Payment {
    /// How it is made; `None`: not at all.
    #[must_use]
    pub const fn method(&self) -> Option<Method> {
        match self {
            Self::Key(_) | Self::TokenKey(_) => Some(Method::Key),
            Self::OneShot(_) => Some(Method::OneShot),
            Self::Asking => None,
        }
    }

    /// The hex behind the key that it is, or that the token makes.
    #[must_use]
    pub fn key_hex(&self) -> Option<&str> {
        match self {
            Self::Key(hex) => Some(hex),
            Self::TokenKey(token) | Self::OneShot(token) => Some(&token.id),
            Self::Asking => None,
        }
    }
}

/// What came of a payment, for the metrics.
#[must_use]
pub fn outcome(failure: Option<&Failure>) -> Paid {
    match failure.map(|failure| failure.blame) {
        None => Paid::Accepted,
        Some(Blame::Client | Blame::Payment) => Paid::Refused,
        Some(_) => Paid::Failed,
    }
}

/// Reads the payment from the headers and checks what is free to check. A token that `is_known`, by
/// its id, need not be decoded again: it is the key of a balance.
///
/// # Errors
/// Missing, malformed or contradicting credentials.
pub fn read(credentials: Credentials<'_>, is_known: impl Fn(&str) -> bool) -> Result<Payment, Failure> {
    let bearer = credentials.authorization.map(bearer_of);
    let bare = credentials.bare_keys().map(|key| key.map(str::trim));
    let keys: Vec<&str> = [bearer].into_iter().chain(bare).flatten().filter(|key| !key.is_empty()).collect();
    if let Some(cashu) = credentials.cashu.map(str::trim).filter(|cashu| !cashu.is_empty()) {
        // SDKs insist on sending some key; only one that could pay contradicts the token.
        if keys.iter().any(|key| is_credential(key) && *key != cashu) {
            return Err(two_credentials());
        }
        return Ok(Payment::OneShot(Box::new(read_token(cashu)?)));
    }
    let mut keys = keys.into_iter();
    let Some(key) = keys.next() else {
        return unpaid(credentials, bearer.is_some());
    };
    if keys.any(|other| other != key) {
        return Err(two_credentials());
    }
    if token::looks_like_token(key) && key.len() <= token::MAX_CHARS {
        let id = token::token_id(key);
        if is_known(&id) {
            return Ok(Payment::Key(id));
        }
    }
    read_key(key)
}

/// Reads a key or a token used as one.
///
/// # Errors
/// When the text is neither.
pub fn read_key(key: &str) -> Result<Payment, Failure> {
    if token::looks_like_token(key) {
        return Ok(Payment::TokenKey(Box::new(read_token(key)?)));
    }
    match key.strip_prefix("sk-").filter(|hex| is_key_hex(hex)) {
        Some(hex) => Ok(Payment::Key(hex.to_ascii_lowercase())),
        None => Err(Failure::payment(
            Code::InvalidApiKey,
            "Invalid API key: send a Cashu token (cashuA…, cashuB…) or a key of this node (sk-…).",
        )),
    }
}

/// Reads a token.
///
/// # Errors
/// When it is no good as far as can be told without asking anybody.
pub fn read_token(text: &str) -> Result<Token, Failure> {
    token::read(text).map_err(|fault| token_failure(&fault))
}

/// The failure that a client sees for a token's fault.
#[must_use]
pub fn token_failure(fault: &TokenFault) -> Failure {
    let code = match fault {
        TokenFault::ZeroValue => Code::TokenZeroValue,
        _ => Code::InvalidToken,
    };
    Failure::payment(code, fault.to_string())
}

fn unpaid(credentials: Credentials<'_>, empty_bearer: bool) -> Result<Payment, Failure> {
    if credentials.cashu.is_some() || credentials.accepts_cashu {
        return Ok(Payment::Asking);
    }
    Err(if empty_bearer {
        Failure::payment(Code::MissingApiKey, "API key or Cashu token required")
    } else {
        unauthorized()
    })
}

/// Neither a key nor a token came. Each envelope says what to do, and the network's own has its usual word beside it.
#[must_use]
pub fn unauthorized() -> Failure {
    let message =
        "No key and no token came with this: send one as `Authorization: Bearer …`, or a Cashu token in `X-Cashu`.";
    Failure::payment(Code::Unauthorized, message)
}

fn two_credentials() -> Failure {
    Failure::client(Code::InvalidRequest, "Send one payment credential: this request carries two different ones.")
}

fn bearer_of(header: &str) -> &str {
    let header = header.trim();
    match header.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim(),
        None if header.eq_ignore_ascii_case("bearer") => "",
        _ => header,
    }
}

fn is_credential(key: &str) -> bool {
    token::looks_like_token(key) || key.strip_prefix("sk-").is_some_and(is_key_hex)
}

fn is_key_hex(hex: &str) -> bool {
    hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}
