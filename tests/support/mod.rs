//! What several test binaries, the demo and the benchmark share. Each uses a part of it only.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::too_many_lines,
    clippy::disallowed_methods
)]

/// Says that a test is not run without what this script brings, which itself wants it run (`TEST_REQUIRED`).
pub fn skip(script: &str, what: &str) {
    assert!(std::env::var_os("TEST_REQUIRED").is_none(), "{script} brings no {what}");
    eprintln!("SKIPPED: run {script} to run this test against {what}");
}

pub mod answers;
pub mod chaos;
pub mod clock;
pub mod db;
pub mod endpoints;
pub mod fill;
pub mod hook;
pub mod lnurl;
pub mod lossy;
pub mod mint;
pub mod node;
pub mod operator;
pub mod port;
pub mod prices;
pub mod program;
pub mod proxy;
pub mod purse;
pub mod reckon;
pub mod relay;
pub mod store;
pub mod tokens;
pub mod upstream;
pub mod wire;
