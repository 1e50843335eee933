//! QR codes, as the path of an SVG.

use std::fmt::Write as _;

use qrcode::{Color, EcLevel, QrCode};

/// Longest text that a phone still reads off a screen.
const MAX_CHARS: usize = 1_800;
/// Empty modules around a code, which readers need.
const MARGIN: usize = 4;

/// A code to draw: black on white, one unit a module.
#[derive(Debug)]
pub(crate) struct Qr {
    /// Modules of a side, with the margin.
    pub side: usize,
    /// What is black.
    pub path: String,
}

/// The code of a text; `None` when it is too long to be read from a screen.
pub(crate) fn of(text: &str) -> Option<Qr> {
    if text.len() > MAX_CHARS {
        return None;
    }
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let width = code.width();
    let colors = code.to_colors();
    let mut path = String::new();
    for (y, row) in colors.chunks(width.max(1)).enumerate() {
        let mut x = 0;
        for run in row.chunk_by(|one, next| one == next) {
            if run.first() == Some(&Color::Dark) {
                let (left, top) = (x + MARGIN, y + MARGIN);
                // Writing to a String cannot fail.
                let _ok = write!(path, "M{left} {top}h{length}v1h-{length}z", length = run.len());
            }
            x += run.len();
        }
    }
    Some(Qr { side: width + 2 * MARGIN, path })
}

/// The code of an invoice. Capitals make it smaller.
pub(crate) fn of_invoice(bolt11: &str) -> Option<Qr> {
    of(&format!("LIGHTNING:{}", bolt11.to_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_its_margin_and_its_corner() {
        let qr = of("hello").unwrap();
        assert_eq!(qr.side, 21 + 8, "version 1");
        assert!(qr.path.starts_with("M4 4h7v1h-7z"), "{}", qr.path);
        assert!(of(&"x".repeat(MAX_CHARS)).is_some() && of(&"x".repeat(MAX_CHARS + 1)).is_none());
        assert!(of_invoice("lnbc1abc").unwrap().side <= of("lightning:lnbc1abc").unwrap().side);
    }
}
