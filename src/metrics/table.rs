//! A bounded table by name that is read without a lock: what is counted by model or upstream.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::OnceLock;

/// A name and its value, once they are there.
type Slot<T> = OnceLock<(Box<str>, T)>;

/// At most so many names, each with a value that is made at its first use and stays.
pub struct Table<T> {
    slots: Box<[Slot<T>]>,
    hasher: RandomState,
}

impl<T: Default> Table<T> {
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { slots: (0..most.max(1)).map(|_| OnceLock::new()).collect(), hasher: RandomState::new() }
    }

    /// The value of this name. A new name is taken in if there is room, and if `admit` says that it may
    /// be: names that strangers make up must not fill the table.
    pub fn get(&self, name: &str, admit: impl Fn() -> bool) -> Option<&T> {
        let most = self.slots.len();
        let first = usize::try_from(self.hasher.hash_one(name) % u64::try_from(most).unwrap_or(1)).unwrap_or(0);
        for at in (first..most).chain(0..first) {
            let slot = self.slots.get(at)?;
            if slot.get().is_none() && !admit() {
                return None;
            }
            // Another may have come first, and with another name.
            let (held, value) = slot.get_or_init(|| (name.into(), T::default()));
            if **held == *name {
                return Some(value);
            }
        }
        None
    }

    /// All that are there, by name.
    #[must_use]
    pub fn sorted(&self) -> Vec<(&str, &T)> {
        let filled = self.slots.iter().filter_map(OnceLock::get);
        let mut all: Vec<(&str, &T)> = filled.map(|(name, value)| (&**name, value)).collect();
        all.sort_by_key(|(name, _)| *name);
        all
    }
}

impl<T> std::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn it_takes_so_many_and_keeps_each() {
        let table: Table<AtomicU64> = Table::new(3);
        for name in ["a", "b", "a", "c", "d", "a"] {
            if let Some(count) = table.get(name, || true) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        let counts: Vec<_> = table.sorted().iter().map(|(name, n)| (*name, n.load(Ordering::Relaxed))).collect();
        assert_eq!(counts, [("a", 3), ("b", 1), ("c", 1)]);
    }

    #[test]
    fn who_is_not_admitted_takes_no_room() {
        let table: Table<AtomicU64> = Table::new(2);
        assert!(table.get("stranger", || false).is_none());
        assert!(table.get("a", || true).is_some() && table.get("b", || true).is_some());
        assert!(table.get("a", || false).is_some(), "who is in stays in");
        assert_eq!(table.sorted().len(), 2);
    }
}
