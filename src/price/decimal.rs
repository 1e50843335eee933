//! Decimals from the text of foreign JSON: exact, bounded, never through a float.

use rust_decimal::Decimal;
use serde_json::value::RawValue;

/// Longest text of a number that is read.
const MAX_DIGITS: usize = 64;

/// A plain or scientific decimal number, like `0.15` or `1.5e-07`.
///
/// `None` for anything else: words, infinities, separators, more than a `Decimal` holds.
#[must_use]
pub fn parse(text: &str) -> Option<Decimal> {
    let is_numeric = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E');
    if text.is_empty() || text.len() > MAX_DIGITS || !text.chars().all(is_numeric) {
        return None;
    }
    match text.split_once(['e', 'E']) {
        None => text.parse().ok(),
        Some((mantissa, exponent)) => scaled(mantissa.parse().ok()?, exponent.parse().ok()?),
    }
}

/// `mantissa` × 10^`exponent`, exactly.
fn scaled(mantissa: Decimal, exponent: i32) -> Option<Decimal> {
    if mantissa.is_zero() {
        return Some(Decimal::ZERO);
    }
    let shift = exponent.unsigned_abs();
    if shift > Decimal::MAX_SCALE {
        return None;
    }
    let power = Decimal::from_i128_with_scale(10_i128.checked_pow(shift)?, 0);
    if exponent.is_negative() { mantissa.checked_div(power) } else { mantissa.checked_mul(power) }
}

/// The number in a JSON value that is a number, or a string with one in it.
#[must_use]
pub fn parse_json(value: &RawValue) -> Option<Decimal> {
    let text = value.get();
    if text.starts_with('"') { parse(serde_json::from_str::<String>(text).ok()?.trim()) } else { parse(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_exactly_or_not_at_all() {
        for (text, expected) in [
            ("0.00000015", Some("0.00000015")),
            ("1.5e-07", Some("0.00000015")),
            ("1.5E-7", Some("0.00000015")),
            ("3e3", Some("3000")),
            ("1e+2", Some("100")),
            ("0e999", Some("0")),
            ("-1", Some("-1")),
            ("0", Some("0")),
            ("100000.10", Some("100000.10")),
            ("1e28", Some("10000000000000000000000000000")),
            ("1e29", None),
            ("1e999", None),
            ("1e99999999999", None),
            ("1e-999", None),
            ("99999999999999999999999999999999", None),
            ("NaN", None),
            ("Infinity", None),
            ("1_000", None),
            ("1,000", None),
            ("0x10", None),
            ("", None),
            ("-", None),
            ("e5", None),
            ("1e", None),
            ("1.2.3", None),
        ] {
            let expected = expected.map(|text| text.parse::<Decimal>().unwrap());
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(parse(&"1".repeat(65)), None);
    }

    #[test]
    fn strings_and_numbers_read_alike() {
        for text in ["0.15", "\"0.15\"", "\" 0.15 \""] {
            let raw: Box<RawValue> = serde_json::from_str(text).unwrap();
            assert_eq!(parse_json(&raw), Some("0.15".parse().unwrap()), "{text}");
        }
        for text in ["null", "true", "[1]", "{}", "\"\"", "\"free\""] {
            let raw: Box<RawValue> = serde_json::from_str(text).unwrap();
            assert_eq!(parse_json(&raw), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9eE+.\\-]{0,70}") {
            parse(&text).map(|number| number.scale());
        }
    }
}
