//! `Refund-LNURL` and `Key-Expiry-Time`: where what is left on a key goes, and when. Checked in full
//! before any token is redeemed; nobody is asked.

use super::{Credentials, Payment};
use crate::failure::{Code, Failure};
use crate::ledger::terms::Expiry;
use crate::lnurl::Recipient;

/// The end of the year 9999: what is beyond it is not meant in seconds.
pub const MAX_UNIX_SECS: i64 = 253_402_300_799;

/// Reads the two headers. Without a time, an address changes nothing. What an `X-Cashu` token leaves comes back at
/// once, so there they are not looked at: this network's clients send them with whatever they pay by.
///
/// # Errors
/// When they make no sense, or there is a time and no address.
pub fn read(credentials: Credentials<'_>, payment: &Payment) -> Result<Option<Expiry>, Failure> {
    if matches!(payment, Payment::OneShot(_)) {
        return Ok(None);
    }
    let address = credentials.refund_lnurl.map(read_address).transpose()?;
    let at = credentials.key_expiry.map(read_time).transpose()?;
    match (address, at) {
        (Some(address), Some(at)) => Ok(Some(Expiry { address, at })),
        (None, Some(_)) => Err(bad("Key-Expiry-Time needs Refund-LNURL beside it: where to pay to.")),
        (_, None) => Ok(None),
    }
}

fn read_address(address: &str) -> Result<String, Failure> {
    Recipient::parse(address)
        .map_err(|_| bad("Refund-LNURL must be a Lightning address (user@host) or an LNURL (lnurl1…)."))?;
    Ok(address.trim().to_ascii_lowercase())
}

fn read_time(at: &str) -> Result<i64, Failure> {
    let at = at.trim().parse::<i64>().ok().filter(|at| (0..=MAX_UNIX_SECS).contains(at));
    at.ok_or_else(|| bad("Key-Expiry-Time must be a whole number: seconds since the Unix epoch."))
}

fn bad(message: &str) -> Failure {
    Failure::client(Code::InvalidRequest, message)
}
