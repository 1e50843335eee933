//! Row ids: 63 bits that sort by time. 42 bits of milliseconds, 8 of the process, 13 of a counter.

use std::sync::atomic::{AtomicI64, Ordering};

/// A source of ids for one process.
#[derive(Debug)]
pub struct Ids {
    process: i64,
    counter: AtomicI64,
}

const COUNTER_BITS: u32 = 13;
const PROCESS_BITS: u32 = 8;
const COUNTER_MASK: i64 = (1 << COUNTER_BITS) - 1;
const PROCESS_MASK: i64 = (1 << PROCESS_BITS) - 1;
const MILLIS_MASK: i64 = (1 << 42) - 1;

impl Ids {
    #[must_use]
    pub fn new(owner: &str) -> Self {
        let sum = owner.bytes().fold(17_i64, |sum, byte| sum.wrapping_mul(31).wrapping_add(i64::from(byte)));
        let start = i64::from(rand::random::<u16>());
        Self { process: sum & PROCESS_MASK, counter: AtomicI64::new(start) }
    }

    /// The next id. The counter runs on over milliseconds, so a clock that stands still or jumps
    /// back repeats an id only after 8,192 of them.
    pub fn next(&self, now_ms: i64) -> i64 {
        let count = self.counter.fetch_add(1, Ordering::Relaxed) & COUNTER_MASK;
        first_at(now_ms) | (self.process << COUNTER_BITS) | count
    }
}

/// The least id of this time: all that are made later are greater.
#[must_use]
pub const fn first_at(ms: i64) -> i64 {
    (ms & MILLIS_MASK) << (COUNTER_BITS + PROCESS_BITS)
}

/// When an id was made, in ms since the Unix epoch.
#[must_use]
pub const fn made_ms(id: i64) -> i64 {
    id >> (COUNTER_BITS + PROCESS_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_positive_distinct_and_sort_by_time() {
        let ids = Ids::new("a node");
        let many: std::collections::HashSet<i64> = (0..8000).map(|_| ids.next(1_790_000_000_000)).collect();
        assert_eq!(many.len(), 8000);
        assert!(many.iter().all(|id| *id > 0));
        assert!(ids.next(1_790_000_000_001) > *many.iter().max().unwrap());
        assert!(many.iter().all(|id| (first_at(1_790_000_000_000)..first_at(1_790_000_000_001)).contains(id)));
        assert!(many.iter().all(|id| made_ms(*id) == 1_790_000_000_000));
    }
}
