//! Text that must not be printed.

use std::fmt;

/// The shortest key that is not to be guessed, in bytes.
pub(super) const KEY_CHARS: usize = 16;

/// A string whose `Debug` shows nothing of it, and which has no `Display`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// Whether somebody who tries would find it, were it a key.
    #[must_use]
    pub const fn is_short(&self) -> bool {
        self.0.len() < KEY_CHARS
    }

    /// The text itself. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
