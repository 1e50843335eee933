//! The ladder of ready coins: so many of each amount that change and refunds can be paid exactly,
//! without asking the mint. This file only reckons; [`super::consolidate`] acts.
//!
//! The ladder goes up, amount by amount, as far as the ecash at hand reaches, so a wallet whose
//! ladder is whole can pay any amount that it has. What the ladder does not need lies about in few
//! large coins; small ones that pile up are exchanged for larger ones, because each is a row to
//! keep, and a fee to the mint when it is spent.

use std::collections::BTreeMap;

use super::keysets::{split_few, sum};
use super::select::enough;

/// Unspent coins: how many of each amount.
pub(super) type Counts = BTreeMap<u64, usize>;

/// Most proofs that go into one exchange. Mints limit their number.
pub(super) const MAX_INPUTS: usize = 128;
/// Coins of an amount pile up when there are so many times more than the ladder wants.
const PILE: usize = 4;
/// One part in so many of all ecash is not in the ladder.
const SLACK: u64 = 8;
/// The most that an exchange may cost, in percent of what is exchanged.
const MAX_FEE_PERCENT: u64 = 1;

/// How many coins of each amount are kept ready. Zero: there is no ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ladder {
    pub coins: usize,
}

impl Ladder {
    /// How many coins of each amount the ladder wants, for a wallet worth `total`. A part of that is
    /// left out, so that there is something to pay fees from, and to fill the ladder with.
    pub(super) fn wants(self, total: u64, amounts: &[u64]) -> Counts {
        let mut left = total.saturating_sub(total / SLACK);
        let mut wants = Counts::new();
        for amount in amounts.iter().filter(|amount| **amount > 0) {
            let affordable = usize::try_from(left.checked_div(*amount).unwrap_or(0)).unwrap_or(usize::MAX);
            let wanted = self.coins.min(affordable);
            if wanted == 0 {
                break;
            }
            left = left.saturating_sub(worth(&Counts::from([(*amount, wanted)])));
            wants.insert(*amount, wanted);
        }
        wants
    }

    /// Whether less than half of the coins of some amount is there.
    pub(super) fn is_short(self, held: &Counts, amounts: &[u64]) -> bool {
        let count = |amount: &u64| held.get(amount).copied().unwrap_or(0);
        self.wants(worth(held), amounts).iter().any(|(amount, wanted)| count(amount) < wanted.div_ceil(2))
    }

    /// The coins to exchange now, by amount. `None`: the ladder is good as it is.
    ///
    /// An amount is short when less than half of its coins are there: an exchange after every payment
    /// would be no better than one for every payment.
    pub(super) fn exchange(self, held: &Counts, amounts: &[u64]) -> Option<Counts> {
        if self.coins == 0 {
            return None;
        }
        let wants = self.wants(worth(held), amounts);
        let count = |amount: &u64| held.get(amount).copied().unwrap_or(0);
        let spare: Counts = held
            .iter()
            .map(|(amount, count)| (*amount, count.saturating_sub(wants.get(amount).copied().unwrap_or(0))))
            .filter(|(_, count)| *count > 0)
            .collect();
        let taken = if self.is_short(held, amounts) {
            let missing: Counts =
                wants.iter().map(|(amount, wanted)| (*amount, wanted.saturating_sub(count(amount)))).collect();
            // With what the exchange itself may cost, and more: it must not leave the ladder short again.
            let missing = worth(&missing);
            let margin = if missing < 100 { 0 } else { missing.saturating_mul(MAX_FEE_PERCENT) / 50 };
            enough(&spare, missing.saturating_add(margin))?.into_iter().collect()
        } else {
            let most = self.coins.saturating_mul(PILE);
            let top = amounts.last().copied().unwrap_or(0);
            spare.into_iter().filter(|(amount, _)| count(amount) > most && *amount < top).collect()
        };
        let taken = at_most(taken, MAX_INPUTS);
        (!taken.is_empty()).then_some(taken)
    }

    /// `total` in amounts that are missing beside `held`, from the smallest up, and the rest in as few
    /// as possible. Ascending.
    pub(super) fn split(self, total: u64, held: &Counts, amounts: &[u64]) -> Vec<u64> {
        let wants = self.wants(worth(held).saturating_add(total), amounts);
        let mut left = total;
        let mut parts = Vec::new();
        for (amount, wanted) in wants {
            let missing = wanted.saturating_sub(held.get(&amount).copied().unwrap_or(0));
            for _ in 0..missing {
                let Some(rest) = left.checked_sub(amount) else { break };
                left = rest;
                parts.push(amount);
            }
        }
        parts.extend(split_few(left, amounts));
        parts.sort_unstable();
        parts
    }
}

/// Whether an exchange of so much may cost so much.
pub(super) fn is_worth_it(total: u64, fee: u64) -> bool {
    fee.saturating_mul(100) <= total.saturating_mul(MAX_FEE_PERCENT)
}

/// Whether these coins pay so many amounts up to `most`, whatever they are: each takes at most one of every power of two.
pub(super) fn pays_any(held: &Counts, most: u64, times: usize) -> bool {
    let mut powers = (0..u64::BITS).map(|bit| 1_u64 << bit).take_while(|power| *power <= most);
    powers.all(|power| held.get(&power).is_some_and(|count| *count >= times))
}

/// What coins are worth together.
pub(super) fn worth(coins: &Counts) -> u64 {
    let parts: Vec<u64> =
        coins.iter().map(|(amount, count)| amount.saturating_mul(u64::try_from(*count).unwrap_or(u64::MAX))).collect();
    sum(&parts)
}

/// The largest of these coins, at most so many.
pub(super) fn at_most(coins: Counts, most: usize) -> Counts {
    let mut room = most;
    let mut kept = Counts::new();
    for (amount, count) in coins.into_iter().rev() {
        let fitting = count.min(room);
        room = room.saturating_sub(fitting);
        if fitting > 0 {
            kept.insert(amount, fitting);
        }
    }
    kept
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test may overflow")]
mod tests {
    use super::super::select::exact;
    use super::*;

    fn amounts() -> Vec<u64> {
        (0..32).map(|bit| 1_u64 << bit).collect()
    }

    fn counts(parts: &[u64]) -> Counts {
        let mut counts = Counts::new();
        for part in parts {
            *counts.entry(*part).or_default() += 1;
        }
        counts
    }

    /// Exchanges until there is nothing to exchange; gives what is held then, and how often it was.
    fn consolidate(ladder: Ladder, mut held: Counts) -> (Counts, usize) {
        for times in 0..20 {
            let Some(taken) = ladder.exchange(&held, &amounts()) else { return (held, times) };
            for (amount, count) in &taken {
                *held.get_mut(amount).unwrap() -= count;
            }
            held.retain(|_, count| *count > 0);
            let parts = ladder.split(worth(&taken), &held, &amounts());
            assert_eq!(sum(&parts), worth(&taken));
            for part in parts {
                *held.entry(part).or_default() += 1;
            }
        }
        panic!("it never ends: {held:?}");
    }

    #[test]
    fn a_whole_ladder_pays_any_amount_that_there_is() {
        for coins in [1, 2, 4, 8] {
            let ladder = Ladder { coins };
            for total in [1, 2, 3, 7, 8, 9, 59, 60, 61, 100, 1000, 1023] {
                let few = split_few(total, &amounts());
                let (held, times) = consolidate(ladder, counts(&few));
                assert!(times <= 2, "{coins} {total}: {times}");
                assert_eq!(worth(&held), total);
                for wanted in 1..=total {
                    assert!(exact(&held, wanted).is_some(), "{coins} {total} {wanted} {held:?}");
                }
                // What came in whole needs no exchange at all.
                let parts = ladder.split(total, &Counts::new(), &amounts());
                assert_eq!(ladder.exchange(&counts(&parts), &amounts()), None, "{coins} {total}");
            }
        }
    }

    #[test]
    fn only_what_is_too_much_is_exchanged() {
        let ladder = Ladder { coins: 2 };
        // 2 × (1 + 2 + 4 + 8) of 64 + 32 + 2: the smallest coin that is enough.
        let held = counts(&[2, 32, 64]);
        assert_eq!(ladder.exchange(&held, &amounts()), Some(counts(&[64])));
        // One of each is there: not short.
        assert_eq!(ladder.exchange(&counts(&[1, 2, 4, 8, 16, 16, 16, 16]), &amounts()), None);
        assert_eq!(Ladder { coins: 0 }.exchange(&held, &amounts()), None);
    }

    #[test]
    fn small_coins_that_pile_up_become_large_ones() {
        let ladder = Ladder { coins: 2 };
        let mut held = counts(&ladder.split(1000, &Counts::new(), &amounts()));
        held.insert(1, 50);
        let (held, times) = consolidate(ladder, held);
        assert_eq!(times, 1);
        assert!(held[&1] <= 3 && held.values().sum::<usize>() < 40, "{held:?}");
        // Nothing but dust, more than one exchange takes.
        let (held, _) = consolidate(ladder, counts(&[1; 1000]));
        assert!(held.values().sum::<usize>() < 40, "{held:?}");
    }

    #[test]
    fn coins_that_pay_anything_pay_it_so_often() {
        for (parts, most, times) in [
            (&[1, 2, 4][..], 7, Some(1)),
            (&[1, 2, 4, 8, 16], 16, Some(1)),
            (&[1, 1, 2, 2, 4, 4, 64], 7, Some(2)),
            (&[1, 2, 4, 64], 8, None),
            (&[2, 4, 8, 16], 5, None),
            (&[], 1, None),
        ] {
            let held = counts(parts);
            let often = (1..4).take_while(|times| pays_any(&held, most, *times)).last();
            assert_eq!(often, times, "{parts:?} {most}");
            for wanted in 1..=most.min(often.map_or(0, |_| most)) {
                let mut left = held.clone();
                for _ in 0..often.unwrap_or(0) {
                    for (amount, count) in exact(&left, wanted).unwrap() {
                        *left.get_mut(&amount).unwrap() -= count;
                    }
                }
            }
        }
    }

    #[test]
    fn an_exchange_costs_a_percent_at_most() {
        for (total, fee, ok) in [(100, 0, true), (99, 1, false), (100, 1, true), (1, 0, true), (64, 7, false)] {
            assert_eq!(is_worth_it(total, fee), ok, "{total} {fee}");
        }
    }
}
