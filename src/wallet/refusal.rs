//! The one place that reads what a mint's answer means for the money.
//!
//! The question that matters is not *what* failed but *whether the mint acted*. Three answers:
//! it surely did not ([`MintError::Refused`], [`MintError::NotSent`]), it surely did (a
//! well-formed reply), or nobody knows ([`MintError::Unknown`]). Nothing is ever guessed from
//! `Unknown`: the journal keeps the operation until evidence decides it.
//!
//! A call that this node itself kept back ([`MintError::Held`]) is as definite as one that found no
//! connection. That holds for the act only. A *question* about an earlier act that was kept back, or
//! refused, says nothing of the act: [`MintError::unanswered`].

use super::health::Held;

/// Why a mint did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The mint answered that it did not act, and why.
    #[error("the mint refused: {0}")]
    Refused(Refusal),
    /// The request never reached the mint.
    #[error("the mint cannot be reached")]
    NotSent,
    /// The request was not sent: the mint's budget is spent, or its circuit is open.
    #[error("not sent: {0}")]
    Held(Held),
    /// The request may have been acted on: a timeout, a cut connection, a 5xx, a garbled reply.
    #[error("the mint's answer was lost or unusable: {0}")]
    Unknown(String),
}

impl MintError {
    /// Whether the request surely never reached the mint.
    #[must_use]
    pub fn was_not_sent(&self) -> bool {
        matches!(self, Self::NotSent | Self::Held(_))
    }

    /// Whether the mint has answered, and not that it will do it later.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(refusal) if !matches!(refusal, Refusal::RateLimited(_)))
    }

    /// The error of a question about an earlier act, as the state of that act: unknown. Only an
    /// answer could tell, and there is none.
    #[must_use]
    pub fn unanswered(self) -> Self {
        match self {
            Self::Unknown(why) => Self::Unknown(why),
            other => Self::Unknown(other.to_string()),
        }
    }
}

/// What a mint says when it surely did not act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An input was spent before (NUT error 11001).
    Spent,
    /// An input is being spent in another request (11002).
    Pending,
    /// A keyset is unknown or no longer signs (12001, 12002, 12003), or the sum is off (11005), as
    /// it is when a fee changed: what is known of the mint's keysets is out of date.
    Stale,
    /// An output was signed before (10002, 11003 and what older mints say): our own earlier request
    /// may have succeeded, so this is evidence to look at, not a refusal to pass on.
    OutputsSigned,
    /// The signature on a quote is not what the mint expects (20008).
    Signature,
    /// The quote is not paid, or is paid or issued already, or its payment is under way or failed
    /// (20001 to 20007): a definite answer to this request. The quote's state says the rest.
    Quote(u16),
    /// The mint has no such quote.
    UnknownQuote,
    /// Too many requests; wait this many seconds.
    RateLimited(u64),
    /// A 4xx with this status that is not in a mint's words: of whatever stands in front of the mint, or
    /// of its framework. Whether the mint acted is to be seen from evidence.
    Foreign(u16),
    /// A mint's own words that do not say whether it acted: of an error inside it (cdk: 50000, and other codes
    /// from there on; Nutshell: 0), or of a code that is not of the NUTs. Found out from evidence, too.
    Unclear(String),
    /// Anything else that is checked before a mint acts: a forged proof, a wrong sum, a locked token.
    Other(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Spent => f.write_str("the inputs were spent before"),
            Self::Pending => f.write_str("the inputs are being spent"),
            Self::Stale => f.write_str("the keyset is not accepted"),
            Self::OutputsSigned => f.write_str("the outputs were signed before"),
            Self::Signature => f.write_str("a signature is missing or wrong"),
            Self::Quote(20_001) => f.write_str("the quote is not paid"),
            Self::Quote(20_002) => f.write_str("the quote was issued before"),
            Self::Quote(20_004) => f.write_str("the Lightning payment failed"),
            Self::Quote(20_006) => f.write_str("the invoice was paid before"),
            Self::Quote(20_007) => f.write_str("the quote has expired"),
            Self::Quote(code) => write!(f, "the quote cannot be used (code {code})"),
            Self::UnknownQuote => f.write_str("there is no such quote"),
            Self::RateLimited(secs) => write!(f, "too many calls; wait {secs} s"),
            Self::Foreign(status) => write!(f, "status {status}"),
            Self::Unclear(why) | Self::Other(why) => f.write_str(why),
        }
    }
}

/// Reads the body of a 4xx answer.
#[must_use]
pub fn read_refusal(status: u16, retry_after: Option<u64>, body: &[u8]) -> MintError {
    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(default)]
        code: serde_json::Value,
        #[serde(default)]
        detail: serde_json::Value,
        #[serde(default)]
        error: serde_json::Value,
    }
    match status {
        429 => return MintError::Refused(Refusal::RateLimited(retry_after.unwrap_or(60))),
        // A time-out or a premature request of some proxy on the way: it says nothing of the mint.
        408 | 425 => return MintError::Unknown(format!("status {status}")),
        _ => {}
    }
    let Ok(body) = serde_json::from_slice::<Body>(body) else {
        return MintError::Refused(Refusal::Foreign(status));
    };
    if body.code.is_null() && body.detail.is_null() && body.error.is_null() {
        return MintError::Refused(Refusal::Foreign(status));
    }
    let code = body.code.as_i64().or_else(|| body.code.as_str().and_then(|text| text.parse().ok()));
    let text = body.detail.as_str().or_else(|| body.error.as_str()).unwrap_or_default();
    let lower = text.to_ascii_lowercase();
    let words = || text.chars().filter(|c| !c.is_control()).take(200).collect();
    // What a framework checks before a mint sees the request.
    let is_malformed = status == 422 && body.detail.is_array();
    MintError::Refused(match code {
        Some(11001) => Refusal::Spent,
        Some(11002) => Refusal::Pending,
        Some(11005 | 12001..=12003) => Refusal::Stale,
        Some(10002 | 11003) => Refusal::OutputsSigned,
        Some(20008) => Refusal::Signature,
        Some(code @ 20001..=20009) => Refusal::Quote(u16::try_from(code).unwrap_or(0)),
        // Before the codes were agreed on, mints had only words.
        _ if lower.contains("already spent") => Refusal::Spent,
        _ if lower.contains("already signed") || lower.contains("already been signed") => Refusal::OutputsSigned,
        _ if lower.contains("unknown quote") || lower.contains("quote not found") => Refusal::UnknownQuote,
        _ if lower.contains("pending") => Refusal::Pending,
        Some(code) if is_checked_first(code) => Refusal::Other(words()),
        _ if is_malformed || UNVERIFIED.iter().any(|words| lower.contains(words)) => Refusal::Other(words()),
        _ => Refusal::Unclear(words()),
    })
}

/// How a mint without codes says that a proof is forged.
const UNVERIFIED: [&str; 3] = ["could not verify", "could not be verified", "not verified"];

/// Whether a code is of an error that a mint finds before it acts: those of the NUTs, and the general ones
/// of Nutshell for proofs, sums and keysets.
fn is_checked_first(code: i64) -> bool {
    matches!(code, 10_000..=10_003 | 11_000 | 11_004 | 11_006..=11_017 | 12_000 | 30_001..=30_002 | 31_001..=31_004)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let refused = |refusal| MintError::Refused(refusal);
        let other = |words: &str| refused(Refusal::Other(words.into()));
        let unclear = |words: &str| refused(Refusal::Unclear(words.into()));
        for (status, body, expected) in [
            (400, r#"{"code":11001,"detail":"Token is already spent."}"#, refused(Refusal::Spent)),
            (400, r#"{"detail":"Token already spent.","code":0}"#, refused(Refusal::Spent)),
            (400, r#"{"code":11002,"detail":"proofs are pending"}"#, refused(Refusal::Pending)),
            (400, r#"{"code":12001,"detail":"keyset"}"#, refused(Refusal::Stale)),
            (400, r#"{"code":11003,"detail":"x"}"#, refused(Refusal::OutputsSigned)),
            (400, r#"{"code":10002,"detail":"outputs have already been signed"}"#, refused(Refusal::OutputsSigned)),
            (400, r#"{"code":"11001","error":"x"}"#, refused(Refusal::Spent)),
            (400, r#"{"code":10001,"detail":"bad proof"}"#, refused(Refusal::Other("bad proof".into()))),
            (404, "<html>", refused(Refusal::Foreign(404))),
            (403, r#"{"message":"blocked"}"#, refused(Refusal::Foreign(403))),
            (422, r#"{"detail":[{"loc":["body"]}]}"#, refused(Refusal::Other(String::new()))),
            (400, r#"{"code":11000,"detail":"no HTLC preimage provided"}"#, other("no HTLC preimage provided")),
            (400, r#"{"code":11004,"detail":"witness too long"}"#, other("witness too long")),
            (400, r#"{"code":11004,"detail":"outputs are pending"}"#, refused(Refusal::Pending)),
            (400, r#"{"code":0,"detail":"could not verify proofs."}"#, other("could not verify proofs.")),
            // What says nothing of whether the mint acted.
            (400, r#"{"code":50000,"detail":"Internal Error"}"#, unclear("Internal Error")),
            (400, r#"{"code":50000,"detail":"Unknown quote"}"#, refused(Refusal::UnknownQuote)),
            (400, r#"{"code":65535,"detail":"Concurrent update detected"}"#, unclear("Concurrent update detected")),
            (400, r#"{"code":0,"detail":"database is locked"}"#, unclear("database is locked")),
            (400, r#"{"detail":"oops"}"#, unclear("oops")),
            (400, r#"{"code":13001,"detail":"new"}"#, unclear("new")),
            (429, "", refused(Refusal::RateLimited(60))),
            (408, "", MintError::Unknown("status 408".into())),
        ] {
            assert_eq!(read_refusal(status, None, body.as_bytes()), expected, "{status} {body}");
        }
    }
}
