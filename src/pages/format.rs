//! Figures as the pages write them.

use rust_decimal::Decimal;

pub(crate) use crate::clock::utc;
use crate::clock::{DAY_MS, civil};

/// The end of the year 9999.
const MAX_MS: i64 = 253_402_300_799_999;

/// Msat as sat with thousands separated and all three decimals: `1,234.567`.
pub(crate) fn sat(msat: i64) -> String {
    let magnitude = msat.unsigned_abs();
    let sign = if msat < 0 { "−" } else { "" };
    format!("{sign}{}.{:03}", grouped(magnitude / 1000), magnitude % 1000)
}

/// Msat in dollars at this many a bitcoin, to a hundredth of a cent.
pub(crate) fn usd(msat: i64, btc_usd: Decimal) -> String {
    // 10^11 msat are a bitcoin.
    let usd = Decimal::new(msat, 11).checked_mul(btc_usd).map(|usd| usd.round_dp(4));
    usd.map_or_else(|| "–".to_owned(), |usd| format!("{usd:.4}"))
}

/// A number with thousands separated.
pub(crate) fn count(number: i64) -> String {
    let sign = if number < 0 { "−" } else { "" };
    format!("{sign}{}", grouped(number.unsigned_abs()))
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len().saturating_mul(2));
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && digits.len().saturating_sub(place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Sat as people write it, with up to three decimals, in msat.
pub(crate) fn read_sat(text: &str) -> Option<u64> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let msat = text.parse::<Decimal>().ok()?.checked_mul(Decimal::ONE_THOUSAND)?.normalize();
    if msat.scale() == 0 { u64::try_from(msat).ok() } else { None }
}

/// How [`read_date`] wants it.
pub(crate) const DATES: &str = "Times are written like 2026-12-31 or 2026-12-31T12:00:00Z, in UTC.";

/// A time as [`read_date`] has it, or the ms themselves, which programs give where they look something up.
pub(crate) fn read_utc(text: &str) -> Option<i64> {
    let ms = || text.trim().parse().ok().filter(|ms| (0..=MAX_MS).contains(ms));
    read_date(text).or_else(ms)
}

/// A time in UTC as [`utc`] writes it, or with a space for the `T`, and without the seconds or the `Z` if need be; or
/// a day alone. In ms since the Unix epoch. A number is none: nobody knows what it counts, and seconds that are taken
/// for ms are long over.
pub(crate) fn read_date(text: &str) -> Option<i64> {
    let text = text.trim().trim_end_matches('Z');
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let number = |text: &str, digits: usize| {
        let is_one = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|_| is_one)
    };
    let mut parts = date.split('-');
    let (year, month, day) = (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let mut clock = time.split(':');
    let (hour, minute) = (number(clock.next()?, 2)?, number(clock.next()?, 2)?);
    let second = clock.next().map_or(Some(0), |second| number(second, 2))?;
    if parts.next().is_some() || clock.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // The day from [`civil`] backwards: only a day that there is comes out as it went in.
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let years = if month > 2 { year } else { year - 1 };
    let (era, year_of_era) = (years.div_euclid(400), years.rem_euclid(400));
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    let seconds = (hour * 60 + minute) * 60 + second;
    (civil(days) == (year, month, day)).then(|| days.saturating_mul(DAY_MS).saturating_add(seconds * 1000))
}

/// The time that [`read_date`] reads, in seconds.
pub(crate) fn read_date_secs(text: &str) -> Option<i64> {
    Some(read_date(text)?.div_euclid(1000))
}

/// A span of time in its two largest units.
pub(crate) fn age(span_ms: i64) -> String {
    let seconds = span_ms.max(0) / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} d {} h", grouped(days.unsigned_abs()), hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_sat_with_msat_precision() {
        let rows = [
            (0, "0.000"),
            (1, "0.001"),
            (-1, "−0.001"),
            (999_999, "999.999"),
            (1_000_000, "1,000.000"),
            (1_234_567, "1,234.567"),
            (-1_234_567_890, "−1,234,567.890"),
            (i64::MIN, "−9,223,372,036,854,775.808"),
        ];
        for (msat, text) in rows {
            assert_eq!(sat(msat), text);
        }
        assert_eq!(usd(123_456, Decimal::from(100_000)), "0.1235");
        assert_eq!(usd(-100_000_000_000, Decimal::from(87_654)), "-87654.0000");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(-12), "−12");
    }

    #[test]
    fn times_are_iso_in_utc() {
        let rows = [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
            (1_790_000_000_123, "2026-09-21T14:13:20Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59Z"),
        ];
        for (time_ms, text) in rows {
            assert_eq!(utc(time_ms), text);
        }
        for (time_ms, text) in rows {
            assert_eq!(read_utc(text), Some(time_ms.div_euclid(1000) * 1000), "{text}");
        }
        assert_eq!(read_utc("2026-09-21 14:13"), Some(1_789_999_980_000));
        assert_eq!(read_utc("2000-02-29"), Some(951_782_400_000));
        for bad in [
            "",
            "2026-02-30",
            "2026-13-01",
            "2026-1-1",
            "2026-01-01T24:00",
            "2026-01-01T1:00",
            "tomorrow",
            "2026-01-01-01",
        ] {
            assert_eq!(read_utc(bad), None, "{bad}");
        }
        assert!(!utc(i64::MAX).is_empty() && !utc(i64::MIN).is_empty());
    }

    #[test]
    fn times_that_people_write_are_understood() {
        let rows = [
            ("1970-01-01", Some(0)),
            ("2000-02-29T00:00:00Z", Some(951_782_400_000)),
            ("2026-09-21T14:13", Some(1_789_999_980_000)),
            ("2026-09-21 14:13:20", Some(1_790_000_000_000)),
            ("1790000000123", Some(1_790_000_000_123)),
            ("2100-02-29", None),
            ("2026-02-30", None),
            ("2026-00-01", None),
            ("2026-01-01T24:00", None),
            ("2026-01-01T10", None),
            ("2026-01-01T+1:00", None),
            ("-5", None),
            ("", None),
            ("99999999999999999", None),
        ];
        for (text, ms) in rows {
            assert_eq!(read_utc(text), ms, "{text}");
            assert_eq!(read_date(text), ms.filter(|_| text.contains('-')), "{text}");
        }
        assert_eq!(read_date_secs("2026-09-21 14:13:20"), Some(1_790_000_000));
        for day in 0..60_000 {
            assert_eq!(read_utc(&utc(day * DAY_MS)), Some(day * DAY_MS));
        }
    }

    #[test]
    fn ages_have_two_units() {
        let rows =
            [(-5, "0 s"), (59_999, "59 s"), (61_000, "1 min 1 s"), (3_660_000, "1 h 1 min"), (90_000_000, "1 d 1 h")];
        for (span_ms, text) in rows {
            assert_eq!(age(span_ms), text);
        }
    }
}
