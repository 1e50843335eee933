//! The profiles and windows that the operator has made, and the keys that have a profile.
//!
//! They change rarely and from outside: by a command beside the running node, in one synced transaction
//! that also changes [`VERSION`]. A node that sees another version than it knows reads them anew, and
//! forgets what it remembers of keys.

pub mod repo;

use super::terms::repo as terms;
use super::{Account, AccountId, Ledger, repo as books};
use crate::money::tariff::{Profile, Tariffs, Window};
use crate::store::{Durability, StoreError, Tx};

/// The setting that changes with any of them.
pub const VERSION: &str = "tariffs";

/// Why a profile was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// Keys, or vouchers that wait, have it.
    #[error("{0} keys have it")]
    InUse(i64),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Ledger {
    /// The version of what [`Ledger::tariffs`] reads.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tariffs_version(&self) -> Result<Option<String>, StoreError> {
        self.store().setting(VERSION).await
    }

    /// All profiles and windows.
    ///
    /// # Errors
    /// When the database does not answer, or holds what is none.
    pub async fn tariffs(&self) -> Result<Tariffs, StoreError> {
        repo::all(self.store()).await
    }

    /// Makes a profile, or changes the one of that name for all keys that have it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn put_profile(&self, profile: &Profile) -> Result<(), StoreError> {
        let mut tx = self.store().begin(Durability::Full).await?;
        repo::put_profile(&mut tx, profile, self.clock().now_ms()).await?;
        self.changed(tx).await
    }

    /// Removes a profile that no key has. Returns whether there was one.
    ///
    /// # Errors
    /// See [`RemoveError`].
    pub async fn remove_profile(&self, name: &str) -> Result<bool, RemoveError> {
        let mut tx = self.store().begin(Durability::Full).await?;
        let users = repo::users(tx.hand(), name).await?;
        if users > 0 {
            return Err(RemoveError::InUse(users));
        }
        let was_there = repo::remove_profile(&mut tx, name).await?;
        self.changed(tx).await?;
        Ok(was_there)
    }

    /// How many keys have a profile, vouchers that wait included, but none that ended without a key.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn profile_users(&self, name: &str) -> Result<i64, StoreError> {
        let mut reader = self.store().read().acquire().await?;
        repo::users(&mut *reader, name).await
    }

    /// Gives keys a profile, or takes it away: all of them or none. A child key without one has its parent's.
    ///
    /// # Errors
    /// A constraint error when there is no such profile.
    pub async fn set_profile(&self, keys: &[AccountId], profile: Option<&str>) -> Result<(), StoreError> {
        let mut tx = self.store().begin(Durability::Full).await?;
        for key in keys {
            terms::put_profile(&mut tx, *key, profile).await?;
        }
        self.changed(tx).await
    }

    /// The account that a key opens, by the key's hash.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn key(&self, key_hash: &str) -> Result<Option<Account>, StoreError> {
        let mut reader = self.store().read().acquire().await?;
        books::find_by_key(&mut *reader, key_hash).await
    }

    /// Makes a window, or changes the one of that name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn put_window(&self, window: &Window) -> Result<(), StoreError> {
        let mut tx = self.store().begin(Durability::Full).await?;
        repo::put_window(&mut tx, window, self.clock().now_ms()).await?;
        self.changed(tx).await
    }

    /// Removes a window. Returns whether there was one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn remove_window(&self, name: &str) -> Result<bool, StoreError> {
        let mut tx = self.store().begin(Durability::Full).await?;
        let was_there = repo::remove_window(&mut tx, name).await?;
        self.changed(tx).await?;
        Ok(was_there)
    }

    /// Tells every node of this database that something has changed.
    async fn changed(&self, mut tx: Tx) -> Result<(), StoreError> {
        tx.set_setting(VERSION, &uuid::Uuid::new_v4().to_string(), self.clock().now_ms()).await?;
        tx.commit().await
    }
}
