//! Prices of other service tiers, from their members in an entry: the name of a price, `_above_200k_tokens`
//! where it is for long inputs, and `_flex` or `_priority` at the end.

use std::collections::{BTreeMap, HashMap};

use rust_decimal::Decimal;
use serde_json::value::RawValue;

use super::model::read_price;
use crate::money::rate::Tier;
use crate::money::{Prices, Service};

/// What an entry says of one service, at one length of the input.
#[derive(Default)]
struct Told {
    prompt: Option<Decimal>,
    completion: Option<Decimal>,
    cache_read: Option<Decimal>,
    cache_write: Option<Decimal>,
    cache_write_1h: Option<Decimal>,
    audio: Option<Decimal>,
}

/// The services that have prices of their own. `base` are those of the standard one.
pub(super) fn read(pricing: &HashMap<String, &RawValue>, base: &Prices) -> Result<Vec<(Service, Prices)>, String> {
    let mut services = Vec::new();
    for service in Service::PRICED_APART {
        let suffix = service.suffix();
        // By rising length; 0 is any.
        let mut told: BTreeMap<u64, Told> = BTreeMap::new();
        for (name, raw) in pricing {
            let Some(bare) = name.strip_suffix(suffix) else { continue };
            let (kind, above) = match bare.strip_suffix("k_tokens").and_then(|bare| bare.rsplit_once("_above_")) {
                Some((kind, above)) => {
                    (kind, above.parse::<u64>().map_err(|_| format!("its {name} price has no length"))?)
                }
                None => (bare, 0),
            };
            let Some(price) = read_price(name, raw)? else { continue };
            told.entry(above.saturating_mul(1000))
                .or_default()
                .take(kind, price)
                .ok_or_else(|| format!("its {name} price is of no kind that is known"))?;
        }
        if !told.is_empty() {
            let prices = of_service(base, told).ok_or_else(|| format!("its {suffix} prices are not complete"))?;
            services.push((service, prices));
        }
    }
    Ok(services)
}

impl Told {
    fn take(&mut self, kind: &str, price: Decimal) -> Option<()> {
        let known = match kind {
            "prompt" | "input_cost_per_token" => &mut self.prompt,
            "completion" | "output_cost_per_token" => &mut self.completion,
            "input_cache_read" | "cache_read_input_token_cost" => &mut self.cache_read,
            "input_cache_write" | "cache_creation_input_token_cost" => &mut self.cache_write,
            "input_cache_write_1h" | "cache_creation_input_token_cost_above_1hr" => &mut self.cache_write_1h,
            "audio" | "input_cost_per_audio_token" => &mut self.audio,
            _ => return None,
        };
        *known = Some(price);
        Some(())
    }

    /// `base` with these prices. What is not told costs what it costs there, and no less than fresh input, or
    /// output, of this service.
    fn over(self, base: &Prices, prompt: Decimal, completion: Decimal) -> Prices {
        let least = |price: Option<Decimal>, least: Decimal| price.map(|price| price.max(least));
        Prices {
            prompt,
            completion,
            input_cache_read: self.cache_read,
            input_cache_write: self.cache_write.or(least(base.input_cache_write, prompt)),
            input_cache_write_1h: self.cache_write_1h.or(least(base.input_cache_write_1h, prompt)),
            internal_reasoning: least(base.internal_reasoning.filter(|price| !price.is_zero()), completion),
            audio: self.audio.or(base.audio),
            tiers: Vec::new(),
            ..base.clone()
        }
    }
}

/// `None` where the prices of input and output are not both told.
fn of_service(base: &Prices, mut told: BTreeMap<u64, Told>) -> Option<Prices> {
    let short = told.remove(&0)?;
    let (prompt, completion) = (short.prompt?, short.completion?);
    let mut prices = short.over(base, prompt, completion);
    for tier in &base.tiers {
        told.entry(tier.above).or_default();
    }
    for (above, long) in told {
        let usual = base.for_input(above.saturating_add(1));
        // Not as dear as it is in the usual service, where output is dearer.
        let usual = &Prices { internal_reasoning: base.internal_reasoning, ..usual.clone() };
        let prompt = long.prompt.unwrap_or(prompt.max(usual.prompt));
        let completion = long.completion.unwrap_or(completion.max(usual.completion));
        prices.tiers.push(Tier { above, prices: long.over(usual, prompt, completion) });
    }
    Some(prices)
}

#[cfg(test)]
mod tests {
    use crate::catalog::Model;
    use crate::money::{AskedService, Prices, Service, Usage};

    fn prices(members: &str) -> Result<Prices, String> {
        let entry = format!(r#"{{"id":"m","pricing":{{"prompt":"2","completion":"10",{members}}}}}"#);
        Model::from_entry(&serde_json::from_str::<Box<_>>(&entry).unwrap()).map(|model| model.prices)
    }

    /// Prompt, completion, cache read and cache write of a service, for so many tokens of input.
    fn at(prices: &Prices, service: Service, input: u64) -> [u32; 4] {
        let all = prices.clone().for_service(AskedService::Any);
        let had = all.for_usage(&Usage { input, service: Some(service), ..Usage::default() });
        [had.prompt, had.completion, had.cache_read(), had.cache_write()].map(|price| price.try_into().unwrap())
    }

    #[test]
    fn services_have_prices_by_either_name_also_for_long_inputs() {
        let mine = prices(
            r#""input_cache_read":"1","input_cache_write":"3","prompt_above_200k_tokens":"4","completion_above_200k_tokens":"15",
            "prompt_flex":"1","completion_flex":"5",
            "input_cost_per_token_priority":5,"output_cost_per_token_priority":"20","cache_read_input_token_cost_priority":"2",
            "input_cost_per_token_above_200k_tokens_priority":8"#,
        )
        .unwrap();
        for (service, input, expected) in [
            (Service::Standard, 1, [2, 10, 1, 3]),
            (Service::Standard, 200_001, [4, 15, 1, 3]),
            // A cache has no price there: as fresh input. Nothing is told of long ones: as usual.
            (Service::Flex, 1, [1, 5, 1, 3]),
            (Service::Flex, 200_001, [4, 15, 4, 4]),
            (Service::Priority, 1, [5, 20, 2, 5]),
            (Service::Priority, 200_001, [8, 20, 8, 8]),
        ] {
            assert_eq!(at(&mine, service, input), expected, "{service:?} {input}");
        }
        // Reasoning costs no less than output does there, and no more for what output costs elsewhere.
        let mine = prices(
            r#""internal_reasoning":"12","prompt_above_200k_tokens":"4","completion_above_200k_tokens":"15","prompt_flex":"1",
            "completion_flex":"5","prompt_above_200k_tokens_flex":"2","completion_above_200k_tokens_flex":"7""#,
        )
        .unwrap()
        .for_service(AskedService::Any);
        for (service, input, expected) in [
            (Service::Standard, 1, 12_u32),
            (Service::Standard, 200_001, 15),
            (Service::Flex, 1, 12),
            (Service::Flex, 200_001, 12),
        ] {
            let used = Usage { input, service: Some(service), ..Usage::default() };
            assert_eq!(mine.for_usage(&used).reasoning(), expected.into(), "{service:?} {input}");
        }
        assert!(prices(r#""prompt_flex":null,"image_flex":"""#).unwrap().services.is_empty());
        for (members, reason) in [
            (r#""prompt_priority":"1""#, "not complete"),
            (r#""prompt_above_200k_tokens_priority":"1","completion_above_200k_tokens_priority":"1""#, "not complete"),
            (r#""image_priority":"1""#, "no kind"),
            (r#""prompt_above_xk_tokens_flex":"1""#, "no length"),
            (r#""prompt_flex":"-1""#, "negative"),
        ] {
            let problem = prices(members).unwrap_err();
            assert!(problem.contains(reason), "{members}: {problem}");
        }
    }
}
