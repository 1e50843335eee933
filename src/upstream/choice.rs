//! Who goes first among the upstreams that could serve a request. Pure: chance is brought along.

use rust_decimal::Decimal;

use crate::config::Choice;

/// What counts of one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entrant {
    pub priority: u32,
    pub weight: u32,
    pub fee: Decimal,
    /// It failed a short while ago.
    pub rests: bool,
    /// The conversation was with it before.
    pub is_known: bool,
}

/// The order in which they are asked, as indices: those that rest come last; then the lowest priority
/// number decides, then whose conversation it was, then (if the operator wants it so) the fee, and chance
/// by weight among the rest. `roll` gives a number below its argument.
pub fn order(entrants: &[Entrant], choice: Choice, mut roll: impl FnMut(u64) -> u64) -> Vec<usize> {
    let fee = |entrant: &Entrant| match choice {
        Choice::Cheapest => entrant.fee,
        Choice::Weighted | Choice::RoundRobin => Decimal::ZERO,
    };
    // One after the other: all weigh the same, but for those that are for when nobody else is left.
    let weight = |entrant: &Entrant| match choice {
        Choice::RoundRobin => entrant.weight.min(1),
        Choice::Weighted | Choice::Cheapest => entrant.weight,
    };
    let class = |entrant: &Entrant| (entrant.rests, entrant.priority, !entrant.is_known, fee(entrant));
    let mut left: Vec<(usize, &Entrant)> = entrants.iter().enumerate().collect();
    let mut order = Vec::with_capacity(left.len());
    while let Some(best) = left.iter().map(|(_, entrant)| class(entrant)).min() {
        let equals: Vec<(usize, u32)> = left
            .iter()
            .enumerate()
            .filter(|(_, (_, entrant))| class(entrant) == best)
            .map(|(place, (_, entrant))| (place, weight(entrant)))
            .collect();
        let place = draw(&equals, &mut roll);
        order.push(left.remove(place).0);
    }
    order
}

/// One of them, in proportion to the weights. Those without weight are for when nobody else is left.
fn draw(equals: &[(usize, u32)], roll: &mut impl FnMut(u64) -> u64) -> usize {
    let total: u64 = equals.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let first = equals.first().map_or(0, |(place, _)| *place);
    if equals.len() < 2 || total == 0 {
        return first;
    }
    let mut rest = roll(total);
    for (place, weight) in equals {
        match rest.checked_sub(u64::from(*weight)) {
            Some(less) => rest = less,
            None => return *place,
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Entrant = Entrant { priority: 0, weight: 1, fee: Decimal::ONE, rests: false, is_known: false };

    #[test]
    fn priority_goes_before_all_but_rest() {
        let entrants = [
            Entrant { rests: true, ..PLAIN },
            Entrant { priority: 2, ..PLAIN },
            Entrant { priority: 1, is_known: true, ..PLAIN },
            Entrant { priority: 1, ..PLAIN },
            PLAIN,
        ];
        assert_eq!(order(&entrants, Choice::Weighted, |_| 0), [4, 2, 3, 1, 0]);
    }

    #[test]
    fn weights_share_a_tier() {
        let entrants = [1, 0, 3].map(|weight| Entrant { weight, ..PLAIN });
        let mut firsts = [0; 3];
        for rolled in 0..4 {
            let mut rolls = [rolled, 0].into_iter();
            let order = order(&entrants, Choice::Weighted, |below| {
                let roll = rolls.next().unwrap();
                assert!(roll < below);
                roll
            });
            firsts[order[0]] += 1;
            assert_eq!(order[2], 1, "without weight it comes last");
        }
        assert_eq!(firsts, [1, 0, 3]);
    }

    #[test]
    fn the_fee_decides_where_the_operator_wants_it() {
        let entrants = ["1.05", "1", "0.9"].map(|fee| Entrant { fee: fee.parse().unwrap(), ..PLAIN });
        assert_eq!(order(&entrants, Choice::Cheapest, |_| 0), [2, 1, 0]);
        assert_eq!(order(&entrants, Choice::Weighted, |_| 0), [0, 1, 2]);
    }

    #[test]
    fn one_after_the_other_whatever_they_weigh() {
        let entrants = [9, 0, 1].map(|weight| Entrant { weight, ..PLAIN });
        let firsts = [0, 1, 2, 3].map(|turn| order(&entrants, Choice::RoundRobin, |below| turn % below)[0]);
        assert_eq!(firsts, [0, 2, 0, 2], "without weight it comes last");
        let tiers = [1, 0, 0].map(|priority| Entrant { priority, ..PLAIN });
        let orders = [0, 1].map(|turn| order(&tiers, Choice::RoundRobin, |below| turn % below));
        assert_eq!(orders, [[1, 2, 0], [2, 1, 0]]);
    }

    #[test]
    fn nobody_is_lost() {
        assert!(order(&[], Choice::Weighted, |_| 0).is_empty());
        let entrants = [0, 0, 0].map(|weight| Entrant { weight, ..PLAIN });
        assert_eq!(order(&entrants, Choice::Weighted, |_| panic!("no chance")), [0, 1, 2]);
    }
}
