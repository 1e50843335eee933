//! Amounts. [`Msat`] is the unit of the ledger, [`Sat`] that of most mints.
//!
//! Neither implements `Add` or `Sub`, and there is no `From` between them: every conversion
//! names its rounding.

use std::fmt;

/// Millisatoshi: 1/1000 satoshi, 10⁻¹¹ bitcoin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Msat(u64);

/// Satoshi: 10⁻⁸ bitcoin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sat(u64);

/// More than all bitcoin that can exist (21 million, in msat), so a sum of a few never overflows.
pub const MAX_MSAT: u64 = 2_100_000_000_000_000_000;

impl Msat {
    pub const ZERO: Self = Self(0);

    /// `None` above [`MAX_MSAT`].
    #[must_use]
    pub const fn new(msat: u64) -> Option<Self> {
        if msat > MAX_MSAT { None } else { Some(Self(msat)) }
    }

    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// `None` also where the sum is above [`MAX_MSAT`].
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).and_then(Self::new)
    }

    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// What is left of `self` above `other`, or nothing.
    #[must_use]
    pub fn excess_over(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Whole satoshis in it; the part below one satoshi is dropped.
    #[must_use]
    pub const fn floor_sat(self) -> Sat {
        Sat(self.0 / 1000)
    }

    /// Fewest whole satoshis that cover it.
    #[must_use]
    pub const fn ceil_sat(self) -> Sat {
        Sat(self.0.div_ceil(1000))
    }

    /// As the signed integer that databases store. Cannot fail: [`MAX_MSAT`] fits.
    #[must_use]
    pub fn to_db(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// From a database column; `None` when negative or absurd.
    #[must_use]
    pub fn from_db(value: i64) -> Option<Self> {
        u64::try_from(value).ok().and_then(Self::new)
    }
}

impl Sat {
    pub const ZERO: Self = Self(0);

    #[must_use]
    pub const fn new(sat: u64) -> Option<Self> {
        if sat > MAX_MSAT / 1000 { None } else { Some(Self(sat)) }
    }

    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Exact. Cannot overflow: [`Sat::new`] bounds it.
    #[must_use]
    pub const fn to_msat(self) -> Msat {
        Msat(self.0.saturating_mul(1000))
    }
}

/// Unit of a mint's ecash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MintUnit {
    #[default]
    Sat,
    Msat,
}

impl MintUnit {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sat => "sat",
            Self::Msat => "msat",
        }
    }

    /// The unit of that name, as tokens and mints write it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Sat, Self::Msat].into_iter().find(|unit| unit.as_str().eq_ignore_ascii_case(name))
    }

    /// `count` units in msat. Exact; `None` when out of range.
    #[must_use]
    pub fn to_msat(self, count: u64) -> Option<Msat> {
        match self {
            Self::Sat => Sat::new(count).map(Sat::to_msat),
            Self::Msat => Msat::new(count),
        }
    }

    /// Whole units in `amount`; what is below one unit is dropped.
    #[must_use]
    pub const fn floor(self, amount: Msat) -> u64 {
        match self {
            Self::Sat => amount.floor_sat().get(),
            Self::Msat => amount.get(),
        }
    }

    /// Fewest whole units that cover `amount`.
    #[must_use]
    pub const fn ceil(self, amount: Msat) -> u64 {
        match self {
            Self::Sat => amount.ceil_sat().get(),
            Self::Msat => amount.get(),
        }
    }
}

impl fmt::Display for Msat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} msat", self.0)
    }
}

impl fmt::Display for Sat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sat", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_name_their_rounding() {
        for (msat, floor, ceil) in [(0, 0, 0), (1, 0, 1), (999, 0, 1), (1000, 1, 1), (1001, 1, 2)] {
            let amount = Msat::new(msat).unwrap();
            assert_eq!(amount.floor_sat().get(), floor);
            assert_eq!(amount.ceil_sat().get(), ceil);
        }
    }

    #[test]
    fn nothing_overflows_or_goes_below_zero() {
        let max = Msat::new(MAX_MSAT).unwrap();
        assert_eq!(max.checked_add(Msat::new(1).unwrap()), None);
        assert_eq!(Msat::ZERO.checked_sub(Msat::new(1).unwrap()), None);
        assert_eq!(Msat::new(MAX_MSAT + 1), None);
        assert_eq!(Sat::new(u64::MAX), None);
        assert_eq!(Msat::from_db(-1), None);
        assert_eq!(Msat::from_db(max.to_db()), Some(max));
    }
}
