//! Limits of a key as clients write them: numbers, or texts of digits in a query.

use serde_json::Value;

use crate::failure::{Code, Failure};
use crate::ledger::terms::{Limits, Reset};
use crate::money::Msat;
use crate::payment::expiry::MAX_UNIX_SECS;

/// Reads `balance_limit` (msat), `balance_limit_reset` and `validity_date` (Unix seconds).
///
/// # Errors
/// When one of them is not what it must be, or the validity has ended already.
pub fn read(
    limit: Option<&Value>,
    reset: Option<&Value>,
    validity: Option<&Value>,
    now_secs: i64,
) -> Result<Limits, Failure> {
    let out_of_range = || bad("balance_limit is more than there is.");
    let cap = whole("balance_limit", limit)?.map(|msat| Msat::new(msat).ok_or_else(out_of_range)).transpose()?;
    let reset = match reset {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) if name.is_empty() => None,
        Some(name) => Some(
            name.as_str()
                .and_then(Reset::parse)
                .ok_or_else(|| bad("balance_limit_reset must be daily, weekly or monthly."))?,
        ),
    };
    let valid_until = match whole("validity_date", validity)? {
        None => None,
        Some(secs) => {
            let secs = i64::try_from(secs).ok().filter(|secs| *secs <= MAX_UNIX_SECS);
            let secs = secs.ok_or_else(|| bad("validity_date must be in seconds since the Unix epoch."))?;
            if secs <= now_secs {
                return Err(bad("validity_date has passed."));
            }
            Some(secs)
        }
    };
    Ok(Limits { cap, reset, valid_until })
}

/// A whole number, not negative.
///
/// # Errors
/// When the value is something else.
pub fn whole(name: &str, value: Option<&Value>) -> Result<Option<u64>, Failure> {
    let number = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Some(value) => value.as_u64(),
    };
    number.map(Some).ok_or_else(|| bad(&format!("{name} must be a whole number, not negative.")))
}

fn bad(message: &str) -> Failure {
    Failure::client(Code::InvalidRequest, message)
}
