//! Price sheets: the numbers that charges were reckoned by, kept once each, under the hash of their text.
//!
//! The writer stores them, before the ends of holds whose records name them, and remembers which it
//! has stored; so a request whose numbers were used before costs no further statement.

pub mod repo;

use sha2::{Digest, Sha256};

use super::Ledger;
use crate::store::{Store, StoreError};
use crate::vault::hex;

/// Digits of the hash that name a sheet.
const DIGITS: usize = 32;

/// A text that names itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    id: String,
    content: String,
}

impl std::hash::Hash for Sheet {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl Sheet {
    /// `content` is JSON.
    #[must_use]
    pub fn new(content: String) -> Self {
        let mut id = hex(&Sha256::digest(content.as_bytes()));
        id.truncate(DIGITS);
        Self { id, content }
    }

    /// The first 32 digits of the SHA-256 of its content, in hexadecimal.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    #[must_use]
    pub fn content(&self) -> &str {
        &self.content
    }
}

/// Whether a text can be the id of a sheet.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Ledger {
    /// The content of a sheet that some charge was reckoned by.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sheet(&self, id: &str) -> Result<Option<String>, StoreError> {
        find(self.store(), id).await
    }
}

/// The same, for who has no ledger.
///
/// # Errors
/// When the database does not answer.
pub async fn find(store: &Store, id: &str) -> Result<Option<String>, StoreError> {
    repo::find(store, id).await
}
