//! coinslot
pub mod admin;
pub mod catalog;
pub mod clock;
pub mod config;
pub mod dialect;
pub mod failure;
pub mod ledger;
pub mod money;
pub mod net;
pub mod payment;
pub mod price;
pub mod store;
pub mod upstream;
pub mod vault;
pub mod wallet;
