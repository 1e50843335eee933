//! Nostr: the only importer of the crate `nostr`.
//!
//! * [`identity`]: the node's key pair, and what it signs.
//! * [`listing`]: what the node says of itself; [`announcer`]: that its relays have it.
//! * [`directory`]: the other nodes; [`provider`]: what is read of an event of somebody else.
//! * [`message`]: what is said to one person alone.
//! * [`signed_request`]: requests that somebody signed instead of a password.
//! * [`relay`]: one conversation with a relay; [`limits`]: what that relay takes.

pub mod announcer;
pub mod directory;
pub mod identity;
pub mod limits;
pub mod listing;
pub mod message;
pub mod provider;
pub mod relay;
mod repo;
pub mod signed_request;

pub use announcer::{AnnounceError, Announced, Announcer};
pub use directory::Directory;
pub use identity::{Draft, Identity, IdentityError, SignedEvent};
pub use listing::{Listing, public_url};
pub use relay::Caller;
pub use repo::{RelayStatus, Told, names};
pub use signed_request::SignedRequest;

/// The id of an event of this node's own.
fn id_of(event: &str) -> Option<String> {
    let event: serde_json::Value = serde_json::from_str(event).ok()?;
    event.get("id").and_then(serde_json::Value::as_str).map(str::to_owned)
}
