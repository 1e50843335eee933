//! `Refund-LNURL` and `Key-Expiry-Time`: where what is left on a key goes, and when. Checked in full
//! before any token is redeemed; nobody is asked.

use bech32::Bech32;
use bech32::primitives::decode::CheckedHrpstring;
use url::Url;

use super::{Credentials, Payment};
use crate::config;
use crate::failure::{Code, Failure};
use crate::ledger::terms::Expiry;

/// Longest address taken. An LNURL is a whole URL in bech32.
const MAX_ADDRESS: usize = 1_023;
/// The end of the year 9999: what is beyond it is not meant in seconds.
pub const MAX_UNIX_SECS: i64 = 253_402_300_799;

/// Reads the two headers, which come together or not at all.
///
/// # Errors
/// When they make no sense, or come with a payment that is no key.
pub fn read(credentials: Credentials<'_>, payment: &Payment) -> Result<Option<Expiry>, Failure> {
    let (address, at) = match (credentials.refund_lnurl, credentials.key_expiry) {
        (None, None) => return Ok(None),
        (Some(address), Some(at)) => (address, at),
        (Some(_), None) => return Err(bad("Refund-LNURL needs Key-Expiry-Time beside it: when to pay out.")),
        (None, Some(_)) => return Err(bad("Key-Expiry-Time needs Refund-LNURL beside it: where to pay to.")),
    };
    if matches!(payment, Payment::OneShot(_)) {
        return Err(bad(
            "Refund-LNURL and Key-Expiry-Time are for keys: what an X-Cashu token leaves comes back at once.",
        ));
    }
    let at = at.trim().parse::<i64>().ok().filter(|at| (0..=MAX_UNIX_SECS).contains(at));
    let at = at.ok_or_else(|| bad("Key-Expiry-Time must be a whole number: seconds since the Unix epoch."))?;
    let address = read_address(address)
        .ok_or_else(|| bad("Refund-LNURL must be a Lightning address (user@host) or an LNURL (lnurl1…)."))?;
    Ok(Some(Expiry { address, at }))
}

/// A Lightning address (LUD-16) or a bech32 LNURL (LUD-01), in lower case. Whether anybody answers
/// there is not known.
#[must_use]
pub fn read_address(text: &str) -> Option<String> {
    let text = text.trim();
    if text.len() > MAX_ADDRESS || !text.is_ascii() {
        return None;
    }
    match text.split_once('@') {
        Some((user, host)) => is_lightning_address(user, host).then(|| text.to_ascii_lowercase()),
        None => is_lnurl(text).then(|| text.to_ascii_lowercase()),
    }
}

fn is_lightning_address(user: &str, host: &str) -> bool {
    let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'[' | b']');
    if user.is_empty() || user.len() > 64 || !user.bytes().all(named) || !host.bytes().all(plain) {
        return false;
    }
    let Ok(url) = Url::parse(&format!("https://{host}/")) else { return false };
    // A single word is nobody's domain.
    url.has_host() && (host.contains('.') || host.contains(':') || url.host_str() == Some("localhost"))
}

fn is_lnurl(text: &str) -> bool {
    let Ok(decoded) = CheckedHrpstring::new::<Bech32>(text) else { return false };
    if !decoded.hrp().as_str().eq_ignore_ascii_case("lnurl") {
        return false;
    }
    let url = String::from_utf8(decoded.byte_iter().collect()).ok();
    url.is_some_and(|url| config::web_address(&url).is_ok())
}

fn bad(message: &str) -> Failure {
    Failure::client(Code::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// LUD-01's own example.
    const LNURL: &str = "LNURL1DP68GURN8GHJ7UM9WFMXJCM99E3K7MF0V9CXJ0M385EKVCENXC6R2C35XVUKXEFCV5MKVV34X5EKZD3EV56NYD3HXQURZEPEXEJXXEPNXSCRVWFNV9NXZCN9XQ6XYEFHVGCXXCMYXYMNSERXFQ5FNS";

    #[test]
    fn an_address_is_an_address_or_an_lnurl() {
        for good in ["a@b.example", "Satoshi_N+tips@Pay.Example.org", "x@127.0.0.1:3338", "x@abc.onion", LNURL] {
            assert_eq!(read_address(good), Some(good.to_ascii_lowercase()), "{good}");
        }
        let mut broken = LNURL.to_owned();
        broken.replace_range(20..21, "q");
        let long = format!("{}@b.example", "a".repeat(65));
        for bad in [
            "",
            "a",
            "@",
            "a@",
            "@b.example",
            "a@b",
            "a b@c.example",
            "a@b.example/path",
            "a@b@c.example",
            "a@user:pass@b.example",
            "a@b.example?x=1",
            "ä@b.example",
            "https://b.example",
            "lnurl1",
            "lnbc1",
            &broken,
            &long,
        ] {
            assert_eq!(read_address(bad), None, "{bad}");
        }
    }
}
