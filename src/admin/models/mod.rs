//! Models: what is sold at which price, who says so, and which changes wait for a decision.

pub(crate) mod acts;
mod calls;
mod one;
mod page;

use axum::Router;

use super::operator::Actor;
use super::{AdminError, AdminState};
use crate::catalog::import::ImportError;
use acts::{ActError, Desk};

pub(super) use calls::api;

pub(super) fn pages() -> Router<AdminState> {
    page::pages().merge(one::pages())
}

/// Where the operator acts on models.
fn desk<'a>(state: &'a AdminState, actor: &'a Actor) -> Desk<'a> {
    let (store, clock) = (state.ledger.store(), state.ledger.clock());
    Desk { importer: &state.importer, store, clock, actor: actor.as_str() }
}

/// What the operator could not know is told; all else is a failure.
fn refused(error: ActError) -> AdminError {
    match error {
        ActError::NoSources => AdminError::conflict(format!("{error}.")),
        ActError::Store(error) | ActError::Import(ImportError::Store(error)) => error.into(),
        ActError::Import(ImportError::Own(_)) => AdminError::invalid(format!("Not done: {error}.")),
        ActError::Import(ImportError::Unknown) => AdminError::not_found(format!("Not done: {error}.")),
        ActError::Import(_) => AdminError::conflict(format!("Not done: {error}.")),
    }
}
