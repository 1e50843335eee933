//! Answers of routes that nobody pays for, by family and class of status.

use std::sync::atomic::{AtomicU64, Ordering};

use super::exposition::{Exposition, Kind};

/// Families of routes. The last one is all that has no other.
const FAMILIES: [&str; 13] = [
    "front",
    "models",
    "info",
    "balance",
    "lightning",
    "quote",
    "receipts",
    "prices",
    "providers",
    "shop",
    "admin",
    "health",
    "other",
];
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// Counts of all of them.
#[derive(Debug, Default)]
pub struct Routes([[AtomicU64; CLASSES.len()]; FAMILIES.len()]);

impl Routes {
    /// Counts an answer at this path.
    pub fn answered(&self, path: &str, status: u16) {
        let family = family(path);
        let (row, class) = (super::index(&FAMILIES, family), usize::from(status / 100).saturating_sub(2));
        if let Some(count) = self.0.get(row).and_then(|counts| counts.get(class)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn write(&self, page: &mut Exposition) {
        page.family("coinslot_http_responses_total", Kind::Counter, "Answers of routes that nobody pays for.");
        for (route, counts) in FAMILIES.iter().zip(&self.0) {
            for (class, count) in CLASSES.iter().zip(counts) {
                super::write_counter(page, &[("route", route), ("status", class)], count);
            }
        }
    }
}

/// What a path belongs to, by its first part.
fn family(path: &str) -> &'static str {
    let path = path.strip_prefix("/v1beta/").or_else(|| path.strip_prefix("/v1/")).unwrap_or(path);
    let mut parts = path.trim_start_matches('/').split('/');
    match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
        ("", _) => "front",
        ("balance" | "wallet", "lightning" | "invoice") | ("lightning", _) => "lightning",
        ("balance" | "wallet", _) | ("usage", _) => "balance",
        ("models", _) => "models",
        ("info" | "rate" | "status.json" | "status", _) => "info",
        ("quote", _) => "quote",
        ("receipts", _) => "receipts",
        ("prices", _) => "prices",
        ("providers", _) => "providers",
        ("shop" | "docs", _) => "shop",
        ("admin" | "metrics", _) => "admin",
        ("healthz" | "readyz", _) => "health",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_a_family_and_a_stranger_makes_none() {
        for (path, expected) in [
            ("/", "front"),
            ("/v1/models", "models"),
            ("/models/x/y", "models"),
            ("/v1beta/models/g", "models"),
            ("/v1/wallet/info", "balance"),
            ("/v1/balance/lightning/invoice", "lightning"),
            ("/lightning/invoice/canary/status", "lightning"),
            ("/readyz", "health"),
            ("/admin/login", "admin"),
            ("/docs/errors", "shop"),
            ("/canary", "other"),
            ("/v1/canary", "other"),
        ] {
            assert_eq!(family(path), expected, "{path}");
            assert!(FAMILIES.contains(&family(path)));
        }
    }
}
