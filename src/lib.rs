//! coinslot
pub mod clock;
pub mod failure;
pub mod ledger;
pub mod money;
pub mod store;
