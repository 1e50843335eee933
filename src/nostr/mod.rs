//! Nostr: the only importer of the crate `nostr`.
//!
//! * [`identity`]: the node's key pair, and what it signs.

pub mod identity;

pub use identity::{Draft, Identity, IdentityError, SignedEvent};
