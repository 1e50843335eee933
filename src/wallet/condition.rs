//! How the mints are, for people and for whoever decides where to send a request.

use super::Wallet;
use super::health::{Circuit, Held, Priority, Tally, Trouble};
use crate::metrics::Histogram;

/// Whether a mint is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It is.
    Closed,
    /// Not for so many seconds: it limits its callers, or failed repeatedly.
    Open { secs: u64, limited: bool },
    /// One call finds out whether it is back.
    HalfOpen,
}

/// One mint as this process sees it. Holds nothing that is secret.
#[derive(Clone, Debug)]
pub struct MintHealth {
    pub mint: String,
    pub condition: Condition,
    /// Calls that may be made in any 60 s, and how many of them clients have left. `None`: no limit.
    pub calls: Option<(u32, u32)>,
    /// Redemptions that wait for others, or for a call.
    pub waiting: usize,
    /// What went wrong last, and when, in ms.
    pub trouble: Option<(Trouble, i64)>,
    /// When it last answered, in ms.
    pub answered_ms: Option<i64>,
    /// Calls so far.
    pub tally: Tally,
}

impl MintHealth {
    /// In words, where it is not asked.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        match self.condition {
            Condition::Closed => None,
            Condition::HalfOpen => Some("is being tried again".to_owned()),
            Condition::Open { secs, limited } => {
                let why = if limited { "it limits its callers" } else { "it failed repeatedly" };
                Some(format!("is left alone for {secs} s: {why}"))
            }
        }
    }
}

impl Wallet {
    /// How each mint is, in the order of the configuration.
    #[must_use]
    pub fn health(&self) -> Vec<MintHealth> {
        let mints = self.inner.order.iter().filter_map(|url| self.trusted(url).map(|trusted| (url, trusted)));
        let health = mints.map(|(url, trusted)| {
            trusted.http.look(|health, now_ms| {
                let left = health.left(now_ms, Priority::Client);
                let condition = match health.circuit() {
                    Circuit::Closed { .. } => Condition::Closed,
                    Circuit::Open { until_ms, .. } if until_ms <= now_ms => Condition::HalfOpen,
                    Circuit::Open { until_ms, cause } => {
                        let held = Held { cause, wait_ms: until_ms.abs_diff(now_ms) };
                        Condition::Open { secs: held.secs(), limited: held.is_limit() }
                    }
                    Circuit::Probing => Condition::HalfOpen,
                };
                MintHealth {
                    mint: url.clone(),
                    condition,
                    calls: health.per_minute().zip(left),
                    waiting: trusted.desks.waiting(),
                    trouble: health.trouble(),
                    answered_ms: health.answered_ms(),
                    tally: health.tally(),
                }
            })
        });
        health.collect()
    }

    /// How long calls to each mint took, in the order of the configuration.
    pub fn call_times(&self) -> impl Iterator<Item = (&str, &Histogram)> {
        let mints = self.inner.order.iter().filter_map(|url| self.trusted(url).map(|trusted| (url.as_str(), trusted)));
        mints.map(|(url, trusted)| (url, trusted.http.took()))
    }

    /// Whether the journal may ask this mint now. Where it may not, an operation is better left as it
    /// is than tried in vain, and then later.
    pub(super) fn may_be_asked(&self, mint: &str) -> bool {
        let evidence = Priority::Evidence;
        self.trusted(mint)
            .is_none_or(|trusted| trusted.http.look(|health, now_ms| health.may_ask(now_ms, evidence).is_ok()))
    }
}
