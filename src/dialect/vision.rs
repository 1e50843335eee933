//! What an image costs as input. Only what stands in the request is looked at; nothing is fetched.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// An image at low detail, or one about which nothing is known.
const BASE_TOKENS: u64 = 85;
const TILE_TOKENS: u64 = 170;
const TILE: u64 = 512;
const MAX_SIDE: u64 = 2048;
const MAX_SHORT_SIDE: u64 = 768;

/// How much of the base64 text is decoded to find the dimensions. A multiple of four.
const PREFIX: usize = 64 * 1024;

const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Input tokens that an image is estimated at, given its URL as it stands in JSON.
#[must_use]
pub fn estimate_tokens(url: &[u8], low_detail: bool) -> u64 {
    if low_detail {
        return BASE_TOKENS;
    }
    dimensions(url).map_or(BASE_TOKENS, |(width, height)| tokens_of(width, height))
}

/// Input tokens that an image is estimated at of which only the address is known, where the model
/// sees all of it.
pub const UNSEEN_TOKENS: u64 = 1_600;

/// Input tokens that an image in base64, which is no URL, is estimated at: of all the ways in which the APIs that take
/// such images reckon (a token for 750 pixels, or 258 for a tile of 768 × 768), the dearest.
#[must_use]
pub fn estimate_data_tokens(base64: &[u8]) -> u64 {
    let Some((width, height)) = size_of(base64) else { return UNSEEN_TOKENS };
    let by_pixels = width.saturating_mul(height).div_ceil(750).min(MAX_PIXEL_TOKENS);
    let tiles = width.div_ceil(768).saturating_mul(height.div_ceil(768)).min(MAX_TILES);
    by_pixels.max(tiles.saturating_mul(258)).max(tokens_of(width, height))
}

/// Tokens that Google's newest models make of any picture, however small; and of one that they are to look at as
/// closely as they can, twice as many.
pub const SENT_TOKENS: u64 = 1_120;

/// Input tokens that a picture in base64 is estimated at, as Google's API takes it.
#[must_use]
pub fn estimate_inline_tokens(base64: &[u8]) -> u64 {
    estimate_data_tokens(base64).max(SENT_TOKENS)
}

/// Images are scaled down beyond these.
const MAX_PIXEL_TOKENS: u64 = 4_800;
const MAX_TILES: u64 = 32;

fn tokens_of(width: u64, height: u64) -> u64 {
    let (width, height) = fit(width, height, width.max(height), MAX_SIDE);
    let (width, height) = fit(width, height, width.min(height), MAX_SHORT_SIDE);
    let tiles = width.div_ceil(TILE).saturating_mul(height.div_ceil(TILE));
    BASE_TOKENS.saturating_add(TILE_TOKENS.saturating_mul(tiles))
}

/// Shrinks both sides so that `side`, which is one of them, is no longer than `limit`.
fn fit(width: u64, height: u64, side: u64, limit: u64) -> (u64, u64) {
    if side <= limit {
        return (width, height);
    }
    let shrink = |length: u64| length.saturating_mul(limit).checked_div(side).unwrap_or(0).max(1);
    (shrink(width), shrink(height))
}

/// Width and height of an image in a data URI.
fn dimensions(url: &[u8]) -> Option<(u64, u64)> {
    let comma = memchr::memchr(b',', url.get(..url.len().min(256))?)?;
    let (head, data) = url.split_at_checked(comma)?;
    if !head.starts_with(b"data:") || !head.ends_with(b";base64") {
        return None;
    }
    size_of(data.get(1..)?)
}

/// Width and height of an image in base64, as it stands in JSON.
fn size_of(base64: &[u8]) -> Option<(u64, u64)> {
    // JSON may write `/` with a backslash in front.
    let text: Vec<u8> = base64.iter().filter(|byte| **byte != b'\\').take(PREFIX).copied().collect();
    let size = imagesize::blob_size(&ENGINE.decode(text).ok()?).ok()?;
    Some((u64::try_from(size.width).ok()?, u64::try_from(size.height).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(width: u32, height: u32) -> String {
        let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        file.extend(width.to_be_bytes());
        file.extend(height.to_be_bytes());
        file.extend([8, 6, 0, 0, 0, 0, 0, 0, 0]);
        file.resize(200, 0xFF);
        format!("data:image/png;base64,{}", ENGINE.encode(file))
    }

    #[test]
    fn tiles_are_counted() {
        for (width, height, tokens) in
            [(512, 512, 255), (1024, 1024, 765), (2048, 4096, 1105), (1, 1, 255), (0, 0, 85), (100, 4_000_000_000, 765)]
        {
            let url = png(width, height);
            assert_eq!(estimate_tokens(url.as_bytes(), false), tokens, "{width}×{height}");
            assert_eq!(estimate_tokens(url.replace('/', "\\/").as_bytes(), false), tokens);
            assert_eq!(estimate_tokens(url.as_bytes(), true), 85);
        }
        for url in ["", "https://x/y.png", "data:image/png;base64,", "data:,x", "data:x;base64,AAAA"] {
            assert_eq!(estimate_tokens(url.as_bytes(), false), 85, "{url}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_file_breaks_it(
            head in proptest::sample::select(vec![
                &b"\x89PNG\r\n\x1a\n"[..], b"\xFF\xD8\xFF\xE0", b"GIF89a", b"RIFF\x20\0\0\0WEBPVP8X",
                b"\0\0\0\x20ftypavif", b"BM", b"II*\0", b"\xFF\x0A", b"qoif", b"8BPS", b"",
            ]),
            rest in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
        ) {
            let url = format!("data:image/x;base64,{}", ENGINE.encode([head, &rest].concat()));
            proptest::prop_assert!(estimate_tokens(url.as_bytes(), false) >= 85);
        }
    }
}
