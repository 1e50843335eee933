//! The mint and the customer's wallet of the tests.
#![allow(dead_code)]

#[path = "../../tests/support/answers.rs"]
pub mod answers;
#[path = "../../tests/support/mint.rs"]
pub mod mint;
#[path = "../../tests/support/port.rs"]
pub mod port;
#[path = "../../tests/support/purse.rs"]
pub mod purse;
#[path = "../../tests/support/store.rs"]
pub mod store;
