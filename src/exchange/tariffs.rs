//! Which prices a request is sold at: those of the list, or those of the profile that its key has.

use std::sync::{Arc, PoisonError};

use super::Exchange;
use crate::failure::{Code, Failure};
use crate::money::tariff::Profile;
use crate::payment::Payment;
use crate::store::StoreError;

impl Exchange {
    /// Reads profiles and windows anew, if they are others than this process knows, and forgets what it
    /// remembers of keys.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn learn_tariffs(&self) -> Result<(), StoreError> {
        let version = self.ledger.tariffs_version().await?;
        let is_known = *self.tariffs_version.lock().unwrap_or_else(PoisonError::into_inner) == version;
        if is_known {
            return Ok(());
        }
        self.market.set_tariffs(self.ledger.tariffs().await?);
        self.till.forget();
        *self.tariffs_version.lock().unwrap_or_else(PoisonError::into_inner) = version;
        Ok(())
    }

    /// The profile of the key that pays, if it is one that is known and has any. Redeems nothing.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn profile(&self, payment: &Payment) -> Result<Option<Arc<Profile>>, Failure> {
        if self.market.tariffs().profiles.is_empty() {
            return Ok(None);
        }
        let Some(name) = self.till.profile(payment).await? else { return Ok(None) };
        if let Some(profile) = self.market.tariffs().profile(&name) {
            return Ok(Some(Arc::clone(profile)));
        }
        // It was made a moment ago.
        let learned = Box::pin(self.learn_tariffs()).await;
        let profile = self.market.tariffs().profile(&name).cloned();
        if profile.is_none() {
            tracing::error!(profile = %name, ?learned, "the prices of a key are not known");
            let said = "The prices of this key are not known right now.";
            return Err(Failure::unavailable(Code::PriceUnavailable, said, 5));
        }
        Ok(profile)
    }
}
