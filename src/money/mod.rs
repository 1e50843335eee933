//! Pure arithmetic of money: amounts that carry their unit, prices, usage, cost.
//!
//! Nothing here is async, reads a clock, or knows a wire format. Three rules hold throughout:
//! amounts are unsigned integers with checked arithmetic, dollars are decimals, and a charge is
//! rounded exactly once, upwards, in [`rate::RateCard::price`].
#![deny(clippy::arithmetic_side_effects, clippy::as_conversions)]

pub mod amount;
pub mod cost;
pub mod rate;
pub mod service;
pub mod tariff;
pub mod usage;

pub use amount::{MintUnit, Msat, Sat};
pub use cost::Cost;
pub use rate::{Prices, RateCard};
pub use service::{AskedService, Service};
pub use usage::{CacheWrites, Demand, Usage, UsageSource};
