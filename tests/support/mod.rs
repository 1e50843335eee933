//! What several test binaries share. Each binary uses a part of it only.
#![allow(dead_code)]

pub mod mint;
pub mod purse;
pub mod store;
