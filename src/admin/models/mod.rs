//! Models: what is sold at which price, who says so, and which changes wait for a decision.

mod calls;
mod one;
mod page;

use axum::Router;

use super::{AdminError, AdminState};
use crate::catalog::import::ImportError;
use crate::operator::models::ActError;

pub(super) use calls::api;

pub(super) fn pages() -> Router<AdminState> {
    page::pages().merge(one::pages())
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
