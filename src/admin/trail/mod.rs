//! The trail, to be read: every change that an operator made, by whom and when. It is only added to
//! (`crate::operator::Desk`).

mod page;
mod repo;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

pub(super) use page::{api, pages};
pub use repo::{Wanted, latest};

/// An act as the trail has it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Noted {
    /// Grows with time; ask for what is `after` it to see older ones.
    pub id: String,
    /// ms since the Unix epoch.
    pub at_ms: i64,
    /// `password`, an npub, `token NAME`, or `cli`.
    pub actor: String,
    pub action: String,
    pub subject: String,
    /// What was asked for, and what was there before.
    #[schema(value_type = Object)]
    pub detail: Value,
}
