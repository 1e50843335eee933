//! Fuzzing of every decoder of bytes that others write, on a stable toolchain and in a bounded time.
//!
//! Each target is a function of bytes that asserts what must hold whatever they are. Inputs are made
//! from those in `corpus/<target>`, by cutting, joining and repeating, by words of the format and numbers
//! that hurt, and, where the bytes are packed (base64, bech32, JSON), by unpacking, changing and packing
//! them again. A target says of each input what kind of thing it was; an input of a new kind is kept and
//! built upon, which takes the place of coverage.
//!
//! `FUZZ_SECONDS=60 cargo test --test fuzz` looks longer than the second that each target gets otherwise;
//! `FUZZ_SEED`, which a failure names, repeats a run. An input that failed belongs into the corpus.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::disallowed_methods
)]

mod bodies;
mod dialects;
mod engine;
mod mints;
mod money;
mod relays;

use engine::fuzz;

#[test]
fn token() {
    fuzz("token", money::token);
}

#[test]
fn payment() {
    fuzz("payment", money::payment);
}

#[test]
fn request() {
    fuzz("request", money::request);
}

#[test]
fn lnurl() {
    fuzz("lnurl", money::lnurl);
}

#[test]
fn lnurl_answer() {
    fuzz("lnurl_answer", money::lnurl_answer);
}

#[test]
fn bolt11() {
    fuzz("bolt11", money::bolt11);
}

#[test]
fn feed() {
    fuzz("feed", money::feed);
}

#[test]
fn models() {
    fuzz("models", money::models);
}

#[test]
fn sse() {
    fuzz("sse", bodies::sse);
}

#[test]
fn body() {
    fuzz("body", bodies::body);
}

#[test]
fn answer() {
    fuzz("answer", bodies::answer);
}

#[test]
fn stream() {
    fuzz("stream", bodies::stream);
}

#[test]
fn mint() {
    fuzz("mint", mints::mint());
}

#[test]
fn dialect_request() {
    fuzz("dialect_request", dialects::request_body);
}

#[test]
fn dialect_answer() {
    fuzz("dialect_answer", dialects::answer);
}

#[test]
fn dialect_stream() {
    fuzz("dialect_stream", dialects::stream);
}

#[test]
fn relay() {
    fuzz("relay", relays::relay());
}
