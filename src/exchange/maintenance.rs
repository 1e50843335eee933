//! The switch that stops the sale: nothing is served and no token is redeemed while it is on. What reads
//! balances and gives money back goes on.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::{Code, Failure};
use crate::store::{Store, StoreError};

/// Where it is stored for the processes of a database.
pub const SETTING: &str = "maintenance";
/// Seconds after which to try again.
const RETRY: u64 = 60;

/// The switch.
#[derive(Debug)]
pub struct Maintenance {
    /// What the environment says; it wins.
    fixed: Option<bool>,
    on: AtomicBool,
}

impl Maintenance {
    /// Off, unless the environment says otherwise.
    #[must_use]
    pub fn new(fixed: Option<bool>) -> Self {
        Self { fixed, on: AtomicBool::new(fixed.unwrap_or(false)) }
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Whether the environment says how it stands.
    #[must_use]
    pub const fn is_fixed(&self) -> bool {
        self.fixed.is_some()
    }

    /// Looks how the stored switch stands.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn look(&self, store: &Store) -> Result<(), StoreError> {
        if self.fixed.is_none() {
            let stored = store.setting(SETTING).await?;
            self.on.store(stored.as_deref() == Some("on"), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Refuses what would be sold.
    ///
    /// # Errors
    /// While the switch is on.
    pub fn check(&self) -> Result<(), Failure> {
        if !self.is_on() {
            return Ok(());
        }
        let said = "This node is being maintained and sells nothing right now. Balances and refunds are open.";
        Err(Failure::unavailable(Code::Maintenance, said, RETRY))
    }
}

/// Turns the stored switch.
///
/// # Errors
/// When the database does not answer.
pub async fn turn(store: &Store, on: bool, now_ms: i64) -> Result<(), StoreError> {
    store.set_setting(SETTING, if on { "on" } else { "off" }, now_ms).await
}
