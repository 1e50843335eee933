//! The middle of several prices, without those that stray from it. Pure.

use rust_decimal::Decimal;

/// The middle price; the mean of the two in the middle when their number is even. `None` for none.
#[must_use]
pub fn median(mut prices: Vec<Decimal>) -> Option<Decimal> {
    prices.sort_unstable();
    let middle = prices.len() / 2;
    let upper = *prices.get(middle)?;
    if prices.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *prices.get(middle.checked_sub(1)?)?;
    lower.checked_add(upper)?.checked_div(Decimal::TWO)
}

/// The median, and the prices it is made of. Those that differ from the median by more than
/// `spread_percent` are left out and the rest is reckoned anew.
///
/// `None` for no price, and when no price is near the median: then they contradict each other and
/// none is to be believed.
#[must_use]
pub fn robust_median(prices: Vec<Decimal>, spread_percent: u8) -> Option<(Decimal, Vec<Decimal>)> {
    let centre = median(prices.clone())?;
    let tolerated = centre.checked_mul(Decimal::from(spread_percent))?.checked_div(Decimal::ONE_HUNDRED)?;
    let is_near = |price: &Decimal| price.checked_sub(centre).is_some_and(|distance| distance.abs() <= tolerated);
    let kept: Vec<Decimal> = prices.into_iter().filter(is_near).collect();
    Some((median(kept.clone())?, kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimals(numbers: &[i64]) -> Vec<Decimal> {
        numbers.iter().copied().map(Decimal::from).collect()
    }

    #[test]
    fn odd_and_even_numbers_of_prices() {
        for (prices, expected) in [
            (&[][..], None),
            (&[7], Some("7")),
            (&[10, 11], Some("10.5")),
            (&[30, 10, 20], Some("20")),
            (&[4, 1, 3, 2], Some("2.5")),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(median(decimals(prices)), expected, "{prices:?}");
        }
    }

    #[test]
    fn outliers_are_left_out() {
        for (prices, expected, kept) in [
            (&[100][..], "100", 1),
            (&[100, 110], "105", 2),
            // 50 is far from the median 100.
            (&[100, 102, 50], "101", 2),
            // Exactly 10 % is near enough, above and below.
            (&[90, 100, 110], "100", 3),
            (&[89, 100, 111], "100", 1),
            (&[1, 99, 100, 101, 100_000], "100", 3),
            (&[100, 100, 100, 200], "100", 3),
        ] {
            let (rate, used) = robust_median(decimals(prices), 10).unwrap();
            assert_eq!((rate, used.len()), (expected.parse().unwrap(), kept), "{prices:?}");
        }
    }

    #[test]
    fn camps_that_contradict_each_other_give_no_price() {
        assert_eq!(robust_median(decimals(&[50, 51, 100, 101]), 10), None);
        // Two cannot outvote each other, and what is between them is nobody's price.
        assert_eq!(robust_median(decimals(&[100, 50]), 10), None);
        assert_eq!(robust_median(decimals(&[100, 50]), 34).unwrap().0, Decimal::from(75));
        assert_eq!(robust_median(Vec::new(), 10), None);
    }
}
