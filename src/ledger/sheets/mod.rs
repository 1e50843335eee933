//! Price sheets: the numbers that charges were reckoned by, kept once each, under the hash of their text.
//!
//! The writer stores them, before the ends of holds whose records name them, and remembers which it
//! has stored; so a request whose numbers were used before costs no further statement.

pub mod repo;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::Ledger;
use crate::store::{Store, StoreError};
use crate::vault::hex;

/// Digits of the hash that name a sheet.
const DIGITS: usize = 32;

/// The member of a record that tells the prices, and the one that names a sheet which does.
const PRICE: &str = "price";
const PRICE_AS: &str = "price_as";

/// A text that names itself.
#[derive(Clone, Debug)]
pub struct Sheet {
    id: String,
    content: String,
    /// See [`Sheet::companion`].
    companion: OnceLock<Arc<Sheet>>,
}

/// The id is the hash of the rest.
impl PartialEq for Sheet {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Sheet {}

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
        Self { id, content, companion: OnceLock::new() }
    }

    /// What follows from this sheet, as a sheet: made once, if it can be.
    pub fn companion(&self, make: impl FnOnce() -> Option<String>) -> Option<&Arc<Self>> {
        if self.companion.get().is_none() {
            let made = Arc::new(Self::new(make()?));
            return Some(self.companion.get_or_init(|| made));
        }
        self.companion.get()
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

    /// A record (see [`super::Hold::noting`]) with all that it says: what it names a sheet for is put in its place.
    ///
    /// # Errors
    /// When the database does not answer, or the record or a sheet cannot be read.
    pub async fn spell_out(&self, record: &str) -> Result<Map<String, Value>, StoreError> {
        spell_out(self.store(), record, &mut HashMap::new()).await
    }
}

/// A record (see [`super::Hold::noting`]) with the sheet that it names put in its place, for who has no ledger, or many
/// records: sheets that are `known`, by id, are not looked up again, and those that were looked up are added.
///
/// # Errors
/// When the database does not answer, or the record or a sheet cannot be read.
pub async fn spell_out(
    store: &Store,
    record: &str,
    known: &mut HashMap<String, Value>,
) -> Result<Map<String, Value>, StoreError> {
    let bad = |what: String| StoreError::Inconsistent { table: "holds", what };
    if record.is_empty() {
        return Ok(Map::new());
    }
    let record: Map<String, Value> = serde_json::from_str(record).map_err(|error| bad(error.to_string()))?;
    let mut whole = Map::new();
    for (name, said) in record {
        match said.as_str().filter(|_| name == PRICE_AS) {
            None => drop(whole.insert(name, said)),
            Some(id) => {
                let price = match known.get(id) {
                    Some(price) => price.clone(),
                    None => {
                        let sheet = find(store, id).await?.ok_or_else(|| bad(format!("no sheet {id}")))?;
                        let price: Value = serde_json::from_str(&sheet).map_err(|error| bad(error.to_string()))?;
                        known.insert(id.to_owned(), price.clone());
                        price
                    }
                };
                whole.insert(PRICE.to_owned(), price);
            }
        }
    }
    Ok(whole)
}

/// The content of a sheet, for who has no ledger.
///
/// # Errors
/// When the database does not answer.
pub async fn find(store: &Store, id: &str) -> Result<Option<String>, StoreError> {
    repo::find(store, id).await
}
