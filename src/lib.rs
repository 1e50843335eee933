//! coinslot
pub mod clock;
pub mod config;
pub mod failure;
pub mod ledger;
pub mod money;
pub mod net;
pub mod store;
pub mod vault;
pub mod wallet;
