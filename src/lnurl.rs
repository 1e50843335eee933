//! Lightning addresses and LNURL-pay: from a recipient's name to an invoice (LUD-01, LUD-06, LUD-16).
//!
//! The server is a stranger's: it is asked under the rules of [`crate::net::public`], and what it
//! says is bounded and checked. Whether the invoice is for the right amount is checked by whoever
//! pays it.

use bech32::Bech32;
use bech32::primitives::decode::CheckedHrpstring;
use serde::Deserialize;
use url::Url;

use crate::money::Msat;
use crate::net::NetError;
use crate::net::public::{self, Reach};
use crate::net::way::Way;

/// Longest name of a recipient.
const MAX_CHARS: usize = 1024;
/// Longest reason that is repeated.
const MAX_REASON: usize = 200;

/// Why there is no invoice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LnurlError {
    #[error("it is neither a Lightning address (name@host) nor an LNURL")]
    Malformed,
    #[error("its server cannot be asked: {0}")]
    Unreachable(#[from] NetError),
    #[error("its server refused: {0}")]
    Refused(String),
    #[error("its server takes {min} to {max} msat")]
    OutOfRange { min: u64, max: u64 },
    #[error("its server does not speak LNURL-pay")]
    NotPay,
}

/// Somebody who can be paid over Lightning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    url: Url,
}

impl Recipient {
    /// Reads a Lightning address or an LNURL. Asks nobody.
    ///
    /// # Errors
    /// [`LnurlError::Malformed`]
    pub fn parse(text: &str) -> Result<Self, LnurlError> {
        let text = text.trim();
        if text.is_empty() || text.len() > MAX_CHARS || !text.is_ascii() {
            return Err(LnurlError::Malformed);
        }
        let bare = text.strip_prefix("lightning:").unwrap_or(text);
        let url = match bare.split_once('@') {
            Some((name, host)) => address_url(name, host),
            None => lnurl_url(bare),
        };
        let url = url.filter(|url| crate::net::check_url(url).is_ok()).ok_or(LnurlError::Malformed)?;
        Ok(Self { url })
    }

    /// Where it is asked for what it takes.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }
}

/// LUD-16: `name@host` is asked at `https://host/.well-known/lnurlp/name`.
fn address_url(name: &str, host: &str) -> Option<Url> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.+".contains(&byte);
    let name = name.to_ascii_lowercase();
    let host_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    // A single word is nobody's domain.
    let has_domain = host.contains(['.', ':']) || host.eq_ignore_ascii_case("localhost");
    // A path of dots leads elsewhere.
    let leads_away = name.bytes().all(|byte| byte == b'.');
    if leads_away || name.len() > 64 || !name.bytes().all(plain) || !host.bytes().all(host_part) || !has_domain {
        return None;
    }
    let path = |scheme: &str| Url::parse(&format!("{scheme}://{host}/.well-known/lnurlp/{name}")).ok();
    // Plain HTTP is for loopback and onion hosts, where there is no certificate to be had.
    path("http").filter(|url| crate::net::check_url(url).is_ok()).or_else(|| path("https"))
}

/// LUD-01: a URL in bech32.
fn lnurl_url(text: &str) -> Option<Url> {
    let checked = CheckedHrpstring::new::<Bech32>(text).ok()?;
    if !checked.hrp().as_str().eq_ignore_ascii_case("lnurl") {
        return None;
    }
    let bytes: Vec<u8> = checked.byte_iter().collect();
    Url::parse(std::str::from_utf8(&bytes).ok()?).ok()
}

/// What a recipient takes, as its server says (LUD-06).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    callback: Url,
    min: u64,
    max: u64,
    reach: Reach,
    way: Way,
}

#[derive(Deserialize)]
struct PayParameters {
    tag: Option<String>,
    callback: Option<String>,
    #[serde(rename = "minSendable")]
    min: Option<u64>,
    #[serde(rename = "maxSendable")]
    max: Option<u64>,
    status: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Invoice {
    pr: Option<String>,
    status: Option<String>,
    reason: Option<String>,
}

/// Asks what a recipient takes.
///
/// # Errors
/// When its server cannot be asked or does not speak LNURL-pay.
pub async fn ask(recipient: &Recipient, reach: Reach, way: &Way) -> Result<Offer, LnurlError> {
    Offer::read(&public::get(&recipient.url, reach, way).await?, reach, way)
}

impl Offer {
    /// Reads what a server says of itself. Its callback is asked within `reach`, by the same way.
    ///
    /// # Errors
    /// When it refuses, or does not speak LNURL-pay.
    pub fn read(body: &[u8], reach: Reach, way: &Way) -> Result<Self, LnurlError> {
        let said: PayParameters = serde_json::from_slice(body).map_err(|_| LnurlError::NotPay)?;
        refuse_error(said.status.as_deref(), said.reason.as_deref())?;
        let callback = said.callback.as_deref().and_then(|text| Url::parse(text).ok());
        match (said.tag.as_deref(), callback, said.min, said.max) {
            (Some("payRequest"), Some(callback), Some(min), Some(max)) if min <= max => {
                Ok(Self { callback, min, max, reach, way: way.clone() })
            }
            _ => Err(LnurlError::NotPay),
        }
    }

    /// Whether this amount is taken.
    ///
    /// # Errors
    /// [`LnurlError::OutOfRange`]
    pub fn check(&self, amount: Msat) -> Result<(), LnurlError> {
        if (self.min..=self.max).contains(&amount.get()) {
            Ok(())
        } else {
            Err(LnurlError::OutOfRange { min: self.min, max: self.max })
        }
    }

    /// Asks for an invoice (BOLT 11) for this amount.
    ///
    /// # Errors
    /// When the amount is not taken, or the server gives none.
    pub async fn invoice(&self, amount: Msat) -> Result<String, LnurlError> {
        self.check(amount)?;
        let mut url = self.callback.clone();
        url.query_pairs_mut().append_pair("amount", &amount.get().to_string());
        read_invoice(&public::get(&url, self.reach, &self.way).await?)
    }
}

/// The invoice in a callback's answer, unread.
///
/// # Errors
/// When it refuses, or gives none.
pub fn read_invoice(body: &[u8]) -> Result<String, LnurlError> {
    let said: Invoice = serde_json::from_slice(body).map_err(|_| LnurlError::NotPay)?;
    refuse_error(said.status.as_deref(), said.reason.as_deref())?;
    said.pr.filter(|bolt11| !bolt11.is_empty()).ok_or(LnurlError::NotPay)
}

fn refuse_error(status: Option<&str>, reason: Option<&str>) -> Result<(), LnurlError> {
    if !status.is_some_and(|status| status.eq_ignore_ascii_case("error")) {
        return Ok(());
    }
    let reason = reason.unwrap_or_default().chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
    Err(LnurlError::Refused(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_are_read_or_refused() {
        // The example of LUD-01.
        let lnurl = "LNURL1DP68GURN8GHJ7UM9WFMXJCM99E3K7MF0V9CXJ0M385EKVCENXC6R2C35XVUKXEFCV5MKVV34X5EKZD3EV56NYD3HXQURZEPEXEJXXEPNXSCRVWFNV9NXZCN9XQ6XYEFHVGCXXCMYXYMNSERXFQ5FNS";
        for (text, url) in [
            ("satoshi@example.com", "https://example.com/.well-known/lnurlp/satoshi"),
            ("Satoshi+tips@example.com", "https://example.com/.well-known/lnurlp/satoshi+tips"),
            ("lightning:me@pay.example.com", "https://pay.example.com/.well-known/lnurlp/me"),
            ("Satoshi_N+tips@Pay.Example.org", "https://pay.example.org/.well-known/lnurlp/satoshi_n+tips"),
            ("x@abc.onion", "http://abc.onion/.well-known/lnurlp/x"),
            ("me@127.0.0.1:3000", "http://127.0.0.1:3000/.well-known/lnurlp/me"),
            (lnurl, "https://service.com/api?q=3fc3645b439ce8e7f2553a69e5267081d96dcd340693afabe04be7b0ccd178df"),
        ] {
            assert_eq!(Recipient::parse(text).unwrap().url.as_str(), url, "{text}");
        }
        for text in [
            "",
            "me",
            "@example.com",
            "me@",
            "me@example.com/x",
            "me@a@b",
            "me me@example.com",
            "me@exa mple.com",
            "me@user:pw@host",
            "LNURL1DP68GURN8GHJ7",
            "lnbc1xyz",
            "https://example.com",
            "mé@example.com",
            "me@example.com?x=1",
            "me@example.com#x",
            "../x@example.com",
            "..@example.com",
            ".@example.com",
        ] {
            assert_eq!(Recipient::parse(text), Err(LnurlError::Malformed), "{text}");
        }
    }
}
