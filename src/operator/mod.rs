//! What the operator can do: one file a noun, one function a verb. Pages, calls and commands do it by these, and the
//! trail has it in the same words.
//!
//! A verb takes the [`Desk`] that it is done at, and what it works on. It checks, does and notes; how it is asked for,
//! and in which words it is refused, is the affair of who calls it. A running node then learns at once of what was done
//! (`AdminState`), and each other process of the database within seconds. What only a page does has no verb here, and
//! is noted by [`Desk::note`] all the same.

pub mod announcements;
pub mod entry;
pub mod keys;
pub mod maintenance;
pub mod models;
pub mod parcel;
pub mod proof;
mod repo;
pub mod settings;
pub mod tariffs;
pub mod upstreams;
pub mod vouchers;
pub mod wallet;

use serde_json::Value;

use crate::clock::Clock;
use crate::store::{Store, StoreError};

/// Who acts, and where that is written down.
#[derive(Clone, Copy, Debug)]
pub struct Desk<'a> {
    pub store: &'a Store,
    pub clock: &'a dyn Clock,
    /// As the trail has it: `password`, an npub, `token NAME`, or `cli`.
    pub actor: &'a str,
}

impl Desk<'_> {
    pub fn now_ms(self) -> i64 {
        self.clock.now_ms()
    }

    /// Adds to the trail. `action` is page and verb, like `keys.block`; `subject` what it was done to, by a name that
    /// is no secret: a hash, an id, an upstream's name. `detail` says what was asked for and what was there before,
    /// and no secret. What moves money is noted before it is done.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn note(self, action: &'static str, subject: &str, detail: &Value) -> Result<(), StoreError> {
        let noted = repo::Noted { actor: self.actor, action, subject, detail: &detail.to_string() };
        repo::note(self.store, noted, self.now_ms()).await?;
        tracing::info!(actor = self.actor, action, subject, "an operator acted");
        Ok(())
    }
}
