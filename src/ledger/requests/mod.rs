//! The requests that a key was charged for, newest first.

pub mod repo;

use std::collections::HashMap;

use serde_json::Value;

use super::sheets::spell_out;
use super::{Account, Ledger};
use crate::money::Msat;
use crate::store::StoreError;

/// A request that was charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charged {
    /// The request's id.
    pub request: String,
    pub charged: Msat,
    /// When it was settled, in ms since the Unix epoch.
    pub ended_ms: i64,
    /// See [`Ledger::spell_out`].
    pub record: String,
}

impl Ledger {
    /// The last requests of a key; of a parent, those of its child keys too.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn last_requests(&self, key: &Account, limit: i64) -> Result<Vec<Charged>, StoreError> {
        let mut reader = self.store().read().acquire().await?;
        let mut all = match key.parent {
            Some(_) => repo::of_spender(&mut reader, key.id, limit).await?,
            None => repo::of_account(&mut reader, key.id, limit).await?,
        };
        drop(reader);
        let mut sheets = HashMap::new();
        for charged in &mut all {
            let record = spell_out(self.store(), &charged.record, &mut sheets).await?;
            charged.record = Value::Object(record).to_string();
        }
        Ok(all)
    }
}
