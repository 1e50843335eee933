//! The price of one request, taken apart for the receipt.

use rust_decimal::Decimal;

use super::amount::Msat;
use super::usage::Usage;

/// What a request cost. The parts add up to `total` to the msat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    pub total: Msat,
    /// Fixed price, images, searches, and what lifts the total to the minimum.
    pub base: Msat,
    pub input: Msat,
    pub cache_read: Msat,
    pub cache_write: Msat,
    pub output: Msat,
    /// The cost at list price in USD, where the prices are in USD.
    pub usd: Option<Decimal>,
    pub usage: Usage,
}

/// The parts of a [`Cost`], in the order in which they are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Base,
    Input,
    CacheRead,
    CacheWrite,
    Output,
}

impl Cost {
    #[must_use]
    pub fn new(usage: Usage, usd: Option<Decimal>) -> Self {
        Self {
            total: Msat::ZERO,
            base: Msat::ZERO,
            input: Msat::ZERO,
            cache_read: Msat::ZERO,
            cache_write: Msat::ZERO,
            output: Msat::ZERO,
            usd,
            usage,
        }
    }

    /// A cost of exactly `total`, whatever was used.
    #[must_use]
    pub fn fixed(usage: Usage, total: Msat) -> Option<Self> {
        let mut cost = Self::new(usage, None);
        cost.grow_to(Part::Base, total)?;
        Some(cost)
    }

    /// Raises the total to `total` and books the difference on `part`. Rounding cumulative sums,
    /// not parts, is what makes the parts add up while only the total is ever rounded.
    pub(super) fn grow_to(&mut self, part: Part, total: Msat) -> Option<()> {
        let step = total.checked_sub(self.total)?;
        let slot = match part {
            Part::Base => &mut self.base,
            Part::Input => &mut self.input,
            Part::CacheRead => &mut self.cache_read,
            Part::CacheWrite => &mut self.cache_write,
            Part::Output => &mut self.output,
        };
        *slot = slot.checked_add(step)?;
        self.total = total;
        Some(())
    }

    /// This cost, bounded by what was held; the second value is what the operator writes off. The price in USD is
    /// cut alike.
    #[must_use]
    pub fn bounded_by(mut self, hold: Msat) -> (Self, Msat) {
        let shortfall = self.total.excess_over(hold);
        if !shortfall.is_zero() {
            let mut left = shortfall;
            for part in [&mut self.output, &mut self.input, &mut self.cache_write, &mut self.cache_read, &mut self.base]
            {
                let cut = left.min(*part);
                *part = part.excess_over(cut);
                left = left.excess_over(cut);
            }
            let (held, whole) = (Decimal::from(hold.get()), Decimal::from(self.total.get()));
            let share = held.checked_div(whole);
            self.usd = self.usd.and_then(|usd| Some(usd.checked_mul(share?)?.round_dp(12).normalize()));
            self.total = hold;
        }
        (self, shortfall)
    }
}

#[cfg(test)]
mod tests {
    use super::super::rate::{Conversion, Prices, RateCard, Tier};
    use super::super::usage::Usage;
    use super::*;

    fn card(prompt: &str, completion: &str, btc_usd: u64) -> RateCard {
        RateCard {
            prices: Prices {
                prompt: prompt.parse().unwrap(),
                completion: completion.parse().unwrap(),
                ..Prices::default()
            },
            conversion: Conversion::Usd {
                btc_usd: Decimal::from(btc_usd),
                exchange_fee: "1.005".parse().unwrap(),
                provider_fee: "1.05".parse().unwrap(),
            },
            minimum: Msat::new(1).unwrap(),
        }
    }

    fn usage(input: u64, output: u64) -> Usage {
        Usage { input, output, ..Usage::default() }
    }

    /// usd × 1.005 × 1.05 × 10¹¹ ÷ btc_usd, worked out by hand.
    #[test]
    fn worked_examples() {
        for (prompt, completion, input, output, btc, msat) in [
            // 1000×0.00000015 + 500×0.0000006 = 0.00045 USD; ×1.05525 = 0.0004748625;
            // ×10¹¹ = 47486250; ÷ 100000 = 474.8625
            ("0.00000015", "0.0000006", 1000, 500, 100_000, 475),
            // 0.01 × 1.05525 × 10¹¹ ÷ 50000 = 21105 exactly: no rounding
            ("0.00001", "0", 1000, 0, 50_000, 21_105),
            // one token of a cheap model: 0.0000001 × 1.05525 × 10¹¹ ÷ 100000 = 0.105525
            ("0.0000001", "0", 1, 0, 100_000, 1),
            // nothing used: the minimum
            ("0.0000001", "0", 0, 0, 100_000, 1),
        ] {
            let cost = card(prompt, completion, btc).price(&usage(input, output)).unwrap();
            assert_eq!(cost.total.get(), msat, "{prompt} {completion} {input} {output} {btc}");
        }
    }

    #[test]
    fn every_bucket_has_its_own_price() {
        let mut card = card("0.00001", "0.00002", 100_000);
        card.prices.input_cache_read = Some("0.000001".parse().unwrap());
        card.prices.input_cache_write = Some("0.0000125".parse().unwrap());
        card.prices.internal_reasoning = Some("0.00003".parse().unwrap());
        card.prices.request = "0.001".parse().unwrap();
        card.prices.image = "0.002".parse().unwrap();
        card.prices.web_search = "0.01".parse().unwrap();
        let all = Usage {
            input: 100,
            cache_read: 1000,
            cache_write: 400,
            output: 50,
            reasoning: 20,
            images: 3,
            web_searches: 2,
            ..Usage::default()
        };
        // 0.001 + 0.001 + 0.005 + 0.001 + 0.0006 + 0.001 + 0.006 + 0.02 = 0.0356 USD
        // × 1.05525 × 10⁶ = 37566.9
        assert_eq!(card.price(&all).unwrap().total.get(), 37_567);
        assert_eq!(card.price(&all).unwrap().usd, Some("0.03738".parse().unwrap()));
    }

    #[test]
    fn a_long_input_makes_all_of_the_request_dearer() {
        let mut card = card("0.00001", "0.00002", 100_000);
        card.conversion =
            Conversion::Usd { btc_usd: Decimal::from(100_000), exchange_fee: Decimal::ONE, provider_fee: Decimal::ONE };
        let dearer = |prompt, completion| Prices {
            prompt: Decimal::new(prompt, 5),
            completion: Decimal::new(completion, 5),
            ..Prices::default()
        };
        card.prices.tiers =
            vec![Tier { above: 1000, prices: dearer(2, 4) }, Tier { above: 2000, prices: dearer(3, 6) }];
        // Ten msat an input token and twenty an output token, or twice or three times that.
        for (input, cache_read, read_apart, msat) in [
            (1000, 0, 0, 10_000 + 200),
            (1001, 0, 0, 20_020 + 400),
            (500, 501, 0, 20_020 + 400),
            (2000, 0, 0, 40_400),
            (2001, 0, 0, 60_630),
            // What was read in two passes is as long as the longer one.
            (1500, 0, 500, 15_000 + 200),
            (1500, 0, 499, 30_000 + 400),
        ] {
            let used = Usage { input, cache_read, read_apart, output: 10, ..Usage::default() };
            assert_eq!(card.price(&used).unwrap().total.get(), msat, "{input} {cache_read} {read_apart}");
        }
    }

    /// One unit of each bucket, at its own price, and what is taken for a price that is missing.
    #[test]
    fn every_further_bucket_has_its_own_price() {
        let price = |msat: i64| Some(Decimal::new(msat, 6));
        let mut card = card("0.000001", "0.000002", 100_000);
        card.conversion =
            Conversion::Usd { btc_usd: Decimal::from(100_000), exchange_fee: Decimal::ONE, provider_fee: Decimal::ONE };
        let bare = card.clone();
        card.prices.input_cache_write = price(3);
        card.prices.input_cache_write_1h = price(5);
        card.prices.audio = price(7);
        card.prices.input_audio_cache = price(11);
        card.prices.audio_output = price(13);
        card.prices.image_token = price(17);
        card.prices.image_output = price(19);
        card.prices.query = price(23);
        card.prices.web_search = Decimal::new(41, 6);
        card.prices.code_session = price(47);
        card.prices.second = price(29_000);
        card.prices.character = price(31);
        card.prices.output_images = [(String::new(), Decimal::new(37, 6))].into_iter().collect();
        let none = Usage::default();
        for (used, priced, unpriced) in [
            (Usage { cache_write: 10, ..none }, 30, 10),
            (Usage { cache_write_1h: 10, ..none }, 50, 10),
            (Usage { audio_in: 10, ..none }, 70, 10),
            (Usage { audio_cached: 10, ..none }, 110, 10),
            (Usage { audio_out: 10, ..none }, 130, 20),
            (Usage { image_in: 10, ..none }, 170, 10),
            (Usage { image_out: 10, ..none }, 190, 20),
            (Usage { queries: 10, ..none }, 230, 1),
            (Usage { code_sessions: 10, ..none }, 470, 1),
            (Usage { web_searches: 10, web_queries: 30, ..none }, 410, 1),
            (Usage { audio_ms: 10, ..none }, 290, 1),
            (Usage { characters: 10, ..none }, 310, 1),
            (Usage { images_made: 10, ..none }, 370, 1),
            // By token or by piece, never both.
            (Usage { images_made: 10, image_out: 10, ..none }, 190, 1),
        ] {
            assert_eq!(card.price(&used).unwrap().total.get(), priced, "{used:?}");
            assert_eq!(bare.price(&used).unwrap().total.get(), unpriced, "{used:?}");
        }
        // By query, where these have a price and are told; never by both.
        card.prices.web_query = price(43);
        for (web_queries, msat) in [(30, 1290), (0, 410)] {
            let used = Usage { web_searches: 10, web_queries, ..none };
            assert_eq!(card.price(&used).unwrap().total.get(), msat, "{used:?}");
        }
        bare.prices.clone_into(&mut card.prices);
        card.prices.output_images = [("", 1), ("hd", 2), ("1024x1024", 3), ("hd/1024x1024", 4)]
            .map(|(name, msat)| (name.to_owned(), Decimal::new(msat, 6)))
            .into();
        for (quality, size, msat) in [("hd", "1024x1024", 4), ("x", "1024x1024", 3), ("hd", "x", 2), ("x", "y", 1)] {
            assert_eq!(card.prices.picture(quality, size), price(msat), "{quality} {size}");
        }
    }

    #[test]
    fn static_prices_are_in_sats_and_carry_no_fee() {
        let card = RateCard {
            prices: Prices {
                request: Decimal::from(2),
                prompt: Decimal::new(1, 3),
                completion: Decimal::new(3, 3),
                ..Prices::default()
            },
            conversion: Conversion::Sat,
            minimum: Msat::new(1).unwrap(),
        };
        // 2 sat + 1500 × 1/1000 sat + 10 × 3/1000 sat = 3.53 sat
        let cost = card.price(&usage(1500, 10)).unwrap();
        assert_eq!((cost.total.get(), cost.usd), (3530, None));
    }

    #[test]
    fn a_bounded_cost_still_adds_up() {
        let cost = card("0.00001", "0.00002", 100_000).price(&usage(100, 100)).unwrap();
        let hold = Msat::new(1500).unwrap();
        let (bounded, shortfall) = cost.clone().bounded_by(hold);
        assert_eq!(bounded.total, hold);
        assert_eq!(shortfall, cost.total.checked_sub(hold).unwrap());
        let parts = [bounded.base, bounded.input, bounded.cache_read, bounded.cache_write, bounded.output];
        assert_eq!(parts.iter().map(|p| p.get()).sum::<u64>(), 1500);
        // Half of what it came to is half of its price in USD. 0.003 USD × 1.05 × 1.005 × 10⁶ = 3165.75.
        assert_eq!((cost.total.get(), cost.usd), (3166, Some("0.00315".parse().unwrap())));
        let (halved, _) = cost.clone().bounded_by(Msat::new(1583).unwrap());
        assert_eq!(halved.usd, Some("0.001575".parse().unwrap()));
        assert_eq!(cost.clone().bounded_by(Msat::ZERO).0.usd, Some(Decimal::ZERO));
        let (whole, shortfall) = cost.clone().bounded_by(cost.total);
        assert_eq!((whole, shortfall), (cost, Msat::ZERO));
    }

    proptest::proptest! {
        #[test]
        fn parts_add_up_and_cost_never_falls_with_usage(
            input in 0u64..2_000_000, cached in 0u64..2_000_000, output in 0u64..200_000,
            prompt in 0u32..100_000, completion in 0u32..100_000, btc in 1_000u64..1_000_000,
        ) {
            let mut card = card("0", "0", btc);
            card.prices.prompt = Decimal::new(i64::from(prompt), 10);
            card.prices.completion = Decimal::new(i64::from(completion), 10);
            let used = Usage { input, cache_read: cached, output, ..Usage::default() };
            let cost = card.price(&used).unwrap();
            let parts = [cost.base, cost.input, cost.cache_read, cost.cache_write, cost.output];
            proptest::prop_assert_eq!(parts.iter().map(|p| p.get()).sum::<u64>(), cost.total.get());
            let more = card.price(&Usage { output: output.saturating_add(1), ..used }).unwrap();
            proptest::prop_assert!(more.total >= cost.total);
        }
    }
}
