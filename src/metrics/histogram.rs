//! How long things take, in buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::exposition::Exposition;

/// Upper bounds, in microseconds and as Prometheus is told, in seconds.
const BOUNDS: [(u64, &str); 14] = [
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (5_000_000, "5"),
    (10_000_000, "10"),
    (30_000_000, "30"),
    (60_000_000, "60"),
    (300_000_000, "300"),
];

/// Durations. Noting one is two atomic additions.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    beyond: AtomicU64,
    sum_us: AtomicU64,
}

impl Histogram {
    pub fn note(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let fits = BOUNDS.iter().zip(&self.buckets).find(|((bound, _), _)| us <= *bound);
        fits.map_or(&self.beyond, |(_, bucket)| bucket).fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Whether nothing was noted yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.buckets.iter().chain([&self.beyond]).all(|bucket| bucket.load(Ordering::Relaxed) == 0)
    }

    pub(crate) fn write(&self, page: &mut Exposition, label: (&str, &str)) {
        let mut count: u64 = 0;
        for ((_, bound), bucket) in BOUNDS.iter().zip(&self.buckets) {
            count = count.saturating_add(bucket.load(Ordering::Relaxed));
            page.part("_bucket", &[label, ("le", bound)], count);
        }
        count = count.saturating_add(self.beyond.load(Ordering::Relaxed));
        page.part("_bucket", &[label, ("le", "+Inf")], count);
        let sum = self.sum_us.load(Ordering::Relaxed);
        page.part("_sum", &[label], format_args!("{}.{:06}", sum / 1_000_000, sum % 1_000_000));
        page.part("_count", &[label], count);
    }
}

#[cfg(test)]
mod tests {
    use super::super::exposition::Kind;
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_their_bounds_belong_to_them() {
        let histogram = Histogram::default();
        assert!(histogram.is_empty());
        for us in [0, 5_000, 5_001, 300_000_000, 300_000_001] {
            histogram.note(Duration::from_micros(us));
        }
        assert!(!histogram.is_empty());
        let mut page = Exposition::default();
        page.family("t", Kind::Histogram, "T.");
        histogram.write(&mut page, ("d", "x"));
        let text = page.into_text();
        let has = |line: &str| text.lines().any(|found| found == line);
        for (bound, count) in [("0.005", 2), ("0.01", 3), ("60", 3), ("300", 4), ("+Inf", 5)] {
            assert!(has(&format!("t_bucket{{d=\"x\",le=\"{bound}\"}} {count}")), "{text}");
        }
        assert!(has("t_count{d=\"x\"} 5") && has("t_sum{d=\"x\"} 600.010002"), "{text}");
    }
}
