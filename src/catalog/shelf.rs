//! The price list as it is now. A new one takes its place at once, and whoever read the old one keeps that:
//! a request under way has its prices in its own hands ([`super::route::Candidate`]).

use std::sync::{Arc, PoisonError, RwLock};

use super::{Catalog, Model};

/// Where the price list lies. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct Shelf(Arc<RwLock<Arc<Catalog>>>);

impl Shelf {
    #[must_use]
    pub fn new(catalog: Catalog) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(catalog))))
    }

    /// The list that is valid now.
    #[must_use]
    pub fn now(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another in its place.
    pub fn put(&self, catalog: Catalog) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalog);
    }

    /// See [`Catalog::find`].
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Model>> {
        self.now().find(name)
    }

    /// See [`Catalog::is_off`].
    #[must_use]
    pub fn is_off(&self, name: &str) -> bool {
        self.now().is_off(name)
    }

    /// See [`Catalog::is_empty`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.now().is_empty()
    }
}
