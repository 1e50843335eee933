//! What happens to money, by outcome: payments, redemptions, change, exchanges of coins.

use std::sync::atomic::{AtomicU64, Ordering};

use super::exposition::{Exposition, Kind};

/// How somebody paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// With a key that has a balance, or a token that is one.
    Key,
    /// With a token that rode on the request.
    OneShot,
    Lightning,
    Voucher,
}

impl Method {
    const ALL: [Self; 4] = [Self::Key, Self::OneShot, Self::Lightning, Self::Voucher];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::OneShot => "x_cashu",
            Self::Lightning => "lightning",
            Self::Voucher => "voucher",
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paid {
    Accepted,
    /// It was not good, or not enough.
    Refused,
    /// It could not be found out whether it is good.
    Failed,
}

impl Paid {
    const ALL: [Self; 3] = [Self::Accepted, Self::Refused, Self::Failed];

    const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Counts under names that are known beforehand.
#[derive(Debug)]
pub struct Named<const N: usize> {
    names: [&'static str; N],
    counts: [AtomicU64; N],
}

impl<const N: usize> Named<N> {
    const fn new(names: [&'static str; N]) -> Self {
        Self { names, counts: [const { AtomicU64::new(0) }; N] }
    }

    /// Counts one more of it. What has no name here is not counted.
    pub fn note(&self, name: &str) {
        let found = self.names.iter().zip(&self.counts).find(|(known, _)| **known == name);
        debug_assert!(found.is_some(), "{name} has no count");
        if let Some((_, count)) = found {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write(&self, page: &mut Exposition, label: &str) {
        for (name, count) in self.names.iter().zip(&self.counts) {
            super::write_counter(page, &[(label, name)], count);
        }
    }
}

/// All of it.
#[derive(Debug)]
pub struct Money {
    payments: [[AtomicU64; Paid::ALL.len()]; Method::ALL.len()],
    /// Tokens that were to become the node's.
    pub redemptions: Named<6>,
    /// Money that was given back.
    pub change: Named<3>,
    /// Exchanges of coins for handier ones.
    pub exchanges: Named<3>,
}

impl Default for Money {
    fn default() -> Self {
        Self {
            payments: Default::default(),
            redemptions: Named::new(["credited", "resumed", "refused", "unreachable", "pending", "failed"]),
            change: Named::new(["ready", "swapped", "lightning"]),
            exchanges: Named::new(["done", "failed", "open"]),
        }
    }
}

impl Money {
    pub fn paid(&self, method: Method, paid: Paid) {
        let counts = self.payments.get(super::index(&Method::ALL, method));
        if let Some(count) = counts.and_then(|counts| counts.get(super::index(&Paid::ALL, paid))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes all of it. What is zero is left out.
    pub fn write(&self, page: &mut Exposition) {
        page.family("coinslot_payments_total", Kind::Counter, "Payments, by how they were made and what came of them.");
        for (method, counts) in Method::ALL.iter().zip(&self.payments) {
            for (paid, count) in Paid::ALL.iter().zip(counts) {
                super::write_counter(page, &[("method", method.name()), ("outcome", paid.name())], count);
            }
        }
        page.family("coinslot_redemptions_total", Kind::Counter, "Tokens to be redeemed, by what came of them.");
        self.redemptions.write(page, "outcome");
        page.family("coinslot_change_total", Kind::Counter, "Change and refunds given, by how they were made.");
        self.change.write(page, "mode");
        page.family(
            "coinslot_sweeps_total",
            Kind::Counter,
            "Exchanges of coins for handier ones, by what came of them.",
        );
        self.exchanges.write(page, "outcome");
    }
}
