//! `Refund-LNURL` and `Key-Expiry-Time`: where what is left on a key goes, and when. Checked in full
//! before any token is redeemed; nobody is asked.

use super::{Credentials, Payment};
use crate::failure::{Code, Failure};
use crate::ledger::terms::Expiry;
use crate::lnurl::Recipient;

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
    Recipient::parse(address)
        .map_err(|_| bad("Refund-LNURL must be a Lightning address (user@host) or an LNURL (lnurl1…)."))?;
    Ok(Some(Expiry { address: address.trim().to_ascii_lowercase(), at }))
}

fn bad(message: &str) -> Failure {
    Failure::client(Code::InvalidRequest, message)
}
