//! Black-box tests: a started node over HTTP, in front of a real mint.
//!
//! On SQLite by default; on PostgreSQL with `TEST_DATABASE=postgres` and `TEST_POSTGRES_URL`. Every
//! test of the node ends by proving the books.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::too_many_lines,
    clippy::disallowed_methods
)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod admin;
mod alerts;
mod announce;
mod announcements;
mod audit;
mod backup;
mod bearer;
mod buffered;
mod cdk_conformance;
mod cdk_db;
mod crash;
mod crash_matrix;
mod discover;
mod docs;
mod doctor;
mod endpoints;
mod features;
mod foreign;
mod headers;
mod hostile;
mod idempotency;
mod invariants;
mod keys;
mod keys_page;
mod ladder;
mod large;
mod ledger;
mod licences;
mod lightning;
mod metrics;
mod mints;
mod nutshell;
mod onion;
mod openapi;
mod overview;
mod own_prices;
mod pool;
mod pool_doors;
mod pool_health;
mod pool_limits;
mod price_sync;
mod prices;
mod process;
mod profiles_page;
mod purse;
mod receipts;
mod reckoning;
mod refusals;
mod relays;
mod requests_page;
mod rivals;
mod secrets;
mod settings;
mod shop;
mod simulation;
mod status;
mod storage;
mod streams;
mod supervised;
mod taken_over;
mod tariffs;
mod telemetry;
mod tidy;
#[cfg(feature = "tor")]
mod tor_network;
mod trail;
mod two_nodes;
mod unclaimed;
mod upstreams_page;
mod usage;
mod verbs;
mod vouchers;
mod wallet_page;
mod xcashu;
