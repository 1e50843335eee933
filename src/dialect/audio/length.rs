//! How long audio is: what is said of it, what its own header says, or what it can be at most.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde_json::value::RawValue;

use super::text_of;

/// More than one request can hold: a month.
const MAX_MS: u64 = 2_678_400_000;

/// Seconds, with or without a fraction, in milliseconds, rounded up. `None` when it is no such number.
pub(super) fn milliseconds(seconds: &RawValue) -> Option<u64> {
    let seconds: Decimal = text_of(seconds).parse().ok()?;
    let ms = seconds.checked_mul(Decimal::ONE_THOUSAND)?.ceil().to_u64()?;
    (ms <= MAX_MS).then_some(ms)
}

/// The longest that this file can be. A WAV file says exactly how long it plays; everything else
/// is reckoned at 8 kbit/s, below which speech is hardly ever kept.
pub(super) fn longest_ms(file: &[u8]) -> u64 {
    length_ms(file, 1)
}

/// How long this file probably is, for an answer that does not say what was listened to: compressed, it is reckoned at
/// 64 kbit/s, as recordings of speech often are.
pub(super) fn usual_ms(file: &[u8]) -> u64 {
    length_ms(file, 8)
}

/// What the file says of its length, or else what so many bytes a millisecond make of its size.
fn length_ms(file: &[u8], bytes_per_ms: u64) -> u64 {
    let bytes = u64::try_from(file.len()).unwrap_or(u64::MAX);
    wav_ms(file).unwrap_or(bytes.div_ceil(bytes_per_ms)).clamp(1, MAX_MS)
}

fn wav_ms(file: &[u8]) -> Option<u64> {
    let rest = file.strip_prefix(b"RIFF")?.get(4..)?.strip_prefix(b"WAVE")?;
    let mut rest = rest;
    loop {
        let (id, size) = (rest.get(..4)?, number(rest.get(4..8)?)?);
        if id == b"fmt " {
            return bytes_per_second(rest.get(8..)?).and_then(|rate| {
                let bytes = u64::try_from(file.len()).ok()?;
                bytes.checked_mul(1000).map(|bytes| bytes.div_ceil(rate))
            });
        }
        // Chunks begin at even places.
        let size = usize::try_from(size).ok()?.checked_next_multiple_of(2)?;
        rest = rest.get(size.checked_add(8)?..)?;
    }
}

/// Of plain samples: channels × rate × width, whatever else the header claims.
fn bytes_per_second(format: &[u8]) -> Option<u64> {
    let (kind, channels) = (number(format.get(..2)?)?, number(format.get(2..4)?)?);
    let (rate, bits) = (number(format.get(4..8)?)?, number(format.get(14..16)?)?);
    let is_plain = matches!(kind, 1 | 3) && (1..=8).contains(&channels) && (8..=64).contains(&bits);
    (is_plain && (4_000..=192_000).contains(&rate)).then(|| channels * rate * bits / 8)
}

/// A little-endian number.
fn number(bytes: &[u8]) -> Option<u64> {
    (bytes.len() <= 4).then(|| bytes.iter().rev().fold(0, |sum, byte| sum * 256 + u64::from(*byte)))
}

/// The last time in subtitles (SRT or WebVTT), where a cue ends.
pub(super) fn subtitles_ms(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let ends = text.lines().filter_map(|line| line.split_once("-->")).filter_map(|(_, end)| {
        let end = end.trim().split(' ').next().unwrap_or_default();
        time(end)
    });
    ends.max()
}

/// `01:02:03,400`, `01:02:03.400` or `02:03.400`.
fn time(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once([',', '.'])?;
    let is_number = |text: &str| (1..=6).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut seconds: u64 = 0;
    for part in whole.split(':') {
        if !is_number(part) {
            return None;
        }
        seconds = seconds.checked_mul(60)?.checked_add(part.parse().ok()?)?;
    }
    let ms = (fraction.len() == 3 && is_number(fraction)).then(|| fraction.parse::<u64>().ok())??;
    seconds.checked_mul(1000)?.checked_add(ms).filter(|ms| *ms <= MAX_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in super::super) fn wav(rate: u32, bytes: u32) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
        file.extend(rate.to_le_bytes());
        file.extend((rate * 2).to_le_bytes());
        file.extend([2, 0, 16, 0]);
        file.extend(b"data");
        file.extend(bytes.to_le_bytes());
        file.resize(usize::try_from(bytes).unwrap(), 0);
        file
    }

    #[test]
    fn lengths_by_hand() {
        // 16,000 samples of two bytes a second.
        assert_eq!(longest_ms(&wav(16_000, 320_000)), 10_000);
        assert_eq!(longest_ms(&vec![0; 5_000]), 5_000);
        assert_eq!(longest_ms(b""), 1);
        assert_eq!((usual_ms(&wav(16_000, 320_000)), usual_ms(&vec![0; 80_000])), (10_000, 10_000));
        // A rate that nobody plays is not believed.
        assert_eq!(longest_ms(&wav(4_000_000, 8_000)), 8_000);
        for (text, ms) in [
            ("9", Some(9_000)),
            ("8.4701", Some(8_471)),
            ("\"2\"", Some(2_000)),
            ("-1", None),
            ("1e9", None),
            ("99999999", None),
            ("null", None),
        ] {
            let raw: Box<RawValue> = serde_json::from_str(text).unwrap();
            assert_eq!(milliseconds(&raw), ms, "{text}");
        }
        for (text, ms) in [
            ("1\n00:00:00,000 --> 00:00:03,000\nhi\n\n2\n00:00:03,000 --> 01:00:05,250\nyou\n", Some(3_605_250)),
            ("WEBVTT\n\n00:00.000 --> 00:07.500 align:start\nhi\n", Some(7_500)),
            ("WEBVTT\n", None),
            ("<html>", None),
            ("x --> 1:2", None),
        ] {
            assert_eq!(subtitles_ms(text.as_bytes()), ms, "{text}");
        }
    }
}
