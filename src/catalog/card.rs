//! The prices of one model by their names: what is stored, compared and shown.
//!
//! Two cards are compared by what a request would pay, not by what is written down: a price that is
//! absent is the one that takes its place ([`Card::price`]).

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::{Decimal, RoundingStrategy};
use sha2::{Digest, Sha256};

use crate::money::{Prices, Service};
use crate::price::decimal;

/// Names that stand for one price each. Beside them there are `output_image/…` and tiers.
const NAMES: &[&str] = &[
    "prompt",
    "completion",
    "request",
    "image",
    "web_search",
    "internal_reasoning",
    "input_cache_read",
    "input_cache_write",
    "input_cache_write_1h",
    "audio",
    "input_audio_cache",
    "audio_output",
    "image_token",
    "image_output",
    "web_query",
    "code_session",
    "query",
    "second",
    "character",
];

/// Prices that a tier of long inputs can have.
pub(super) const TIERED: &[&str] =
    &["prompt", "completion", "input_cache_read", "input_cache_write", "input_cache_write_1h", "audio"];

/// Those of tokens.
const PER_TOKEN: &[&str] = &[
    "prompt",
    "completion",
    "internal_reasoning",
    "input_cache_read",
    "input_cache_write",
    "input_cache_write_1h",
    "audio",
    "input_audio_cache",
    "audio_output",
    "image_token",
    "image_output",
];

/// Decimal places that a price has at most.
const PLACES: u32 = 18;
/// Most prices of a model whose prices a list says, and most lengths above which it has others.
const MOST_PRICES: usize = 64;
const MOST_TIERS: usize = 8;

/// In USD per unit, at list price.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card(BTreeMap<String, Decimal>);

/// One price, before and after. `None`: it is not sold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub name: String,
    pub was: Option<Decimal>,
    pub is: Option<Decimal>,
}

impl Change {
    /// As pages and the trail have it.
    #[must_use]
    pub fn in_words(&self) -> String {
        let Self { name, was, is } = self;
        format!("{name}: {} → {}", shown(name, *was), shown(name, *is))
    }

    /// Whether somebody would pay less, or what was sold is sold no more.
    #[must_use]
    pub fn is_drop(&self) -> bool {
        match (self.was, self.is) {
            (Some(was), Some(is)) => is < was,
            (was, None) => was.is_some(),
            (None, Some(_)) => false,
        }
    }
}

/// The name of a price in a tier, taken apart.
fn tier_of(name: &str) -> Option<(&str, u64)> {
    let (kind, above) = name.strip_suffix("k_tokens")?.rsplit_once("_above_")?;
    let length: u64 = above.parse().ok()?;
    // Written in another way, it would be charged and not be found when cards are compared.
    (length.to_string() == above).then_some((kind, length))
}

pub(super) fn tier_name(kind: &str, above: u64) -> String {
    format!("{kind}_above_{above}k_tokens")
}

/// Whether this is the name of a price that is sold here.
#[must_use]
pub fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
        || name == "output_image"
        || name.starts_with("output_image/")
        || tier_of(name).is_some_and(|(kind, _)| TIERED.contains(&kind))
}

/// The price that takes the place of one of text that is not written down.
fn stand_in(kind: &str) -> Option<&'static str> {
    match kind {
        "input_cache_read" | "input_cache_write" => Some("prompt"),
        "input_cache_write_1h" => Some("input_cache_write"),
        _ => None,
    }
}

/// The name of the usual price, if this is that of long inputs or of another service tier.
pub(super) fn usual(name: &str) -> Option<&str> {
    let bare = Service::PRICED_APART.iter().find_map(|service| name.strip_suffix(service.suffix())).unwrap_or(name);
    let usual = tier_of(bare).map_or(bare, |(kind, _)| kind);
    (usual != name).then_some(usual)
}

/// Whether a price of this name is one for a token.
#[must_use]
pub fn is_per_token(name: &str) -> bool {
    let bare = Service::PRICED_APART.iter().find_map(|service| name.strip_suffix(service.suffix()));
    let name = bare.unwrap_or(name);
    PER_TOKEN.contains(&name) || tier_of(name).is_some()
}

/// A price as people read it, in USD: of a million where it is one of tokens.
#[must_use]
pub fn shown(name: &str, price: Option<Decimal>) -> String {
    let million = Decimal::from(1_000_000);
    match price {
        None => "not sold".to_owned(),
        Some(price) if is_per_token(name) => price.saturating_mul(million).normalize().to_string(),
        Some(price) => price.normalize().to_string(),
    }
}

/// Prices of long inputs and of other service tiers, each with what the names of its prices end with.
pub(super) fn variants(prices: &Prices) -> Vec<(String, &Prices)> {
    let mut all = long_inputs(prices, "");
    for (service, prices) in &prices.services {
        all.push((service.suffix().to_owned(), prices));
        all.extend(long_inputs(prices, service.suffix()));
    }
    all
}

fn long_inputs<'a>(prices: &'a Prices, suffix: &str) -> Vec<(String, &'a Prices)> {
    let long = prices.tiers.iter();
    long.map(|tier| (format!("{}{suffix}", tier_name("", tier.above / 1000)), &tier.prices)).collect()
}

/// The prices that differ between these, as far as they are written down.
pub(super) fn of_text(prices: &Prices) -> [(&'static str, Option<Decimal>); 6] {
    [
        ("prompt", Some(prices.prompt)),
        ("completion", Some(prices.completion)),
        ("input_cache_read", prices.input_cache_read),
        ("input_cache_write", prices.input_cache_write),
        ("input_cache_write_1h", prices.input_cache_write_1h),
        ("audio", prices.audio),
    ]
}

/// What [`shown`] shows, read back: the price of one. `None`: it is no number.
#[must_use]
pub fn read(name: &str, text: &str) -> Option<Decimal> {
    let price = decimal::parse(text.trim())?;
    match is_per_token(name) {
        true => price.checked_mul(Decimal::new(1, 6)).map(|price| price.normalize()),
        false => Some(price.normalize()),
    }
}

impl Card {
    /// The prices that a model is sold at.
    #[must_use]
    pub fn of(prices: &Prices) -> Self {
        let mut card = Self::default();
        let mut put = |name: &str, price: Option<Decimal>| card.set(name, price);
        for (name, price) in prices.named() {
            // These always have a number, and none is a price of nothing.
            let is_none = matches!(name, "request" | "image" | "web_search") && price.is_some_and(|p| p.is_zero());
            put(name, price.filter(|_| !is_none));
        }
        for (variant, price) in &prices.output_images {
            let name = if variant.is_empty() { "output_image".to_owned() } else { format!("output_image/{variant}") };
            put(&name, Some(*price));
        }
        for (suffix, prices) in variants(prices) {
            card.put_text(&suffix, prices);
        }
        card
    }

    fn put_text(&mut self, suffix: &str, prices: &Prices) {
        for (kind, price) in of_text(prices) {
            self.set(&format!("{kind}{suffix}"), price);
        }
    }

    /// Sets or removes a price.
    pub fn set(&mut self, name: &str, price: Option<Decimal>) {
        match price {
            Some(price) => drop(self.0.insert(name.to_owned(), price.normalize())),
            None => drop(self.0.remove(name)),
        }
    }

    /// A price that is written down.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Decimal> {
        self.0.get(name).copied()
    }

    /// All that are written down, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Decimal)> {
        self.0.iter().map(|(name, price)| (name.as_str(), *price))
    }

    /// Lengths, in thousands of input tokens, above which other prices hold.
    #[must_use]
    pub fn tiers(&self) -> BTreeSet<u64> {
        self.0.keys().filter_map(|name| tier_of(name)).map(|(_, above)| above).collect()
    }

    /// All prices that are written down, as text: so they are stored and told to programs.
    #[must_use]
    pub fn texts(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(name, price)| (name.clone(), price.to_string())).collect()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What there is more of than any model has; `None`: nothing.
    #[must_use]
    pub fn excess(&self) -> Option<String> {
        let (prices, tiers) = (self.0.len(), self.tiers().len());
        if prices > MOST_PRICES {
            return Some(format!("it has {prices} prices, more than {MOST_PRICES}"));
        }
        (tiers > MOST_TIERS).then(|| format!("it has prices for {tiers} lengths of input, more than {MOST_TIERS}"))
    }

    /// Those of its prices that the other has as well.
    #[must_use]
    pub fn of_names_in(&self, other: &Self) -> Self {
        let both = self.0.iter().filter(|(name, _)| other.0.contains_key(*name));
        Self(both.map(|(name, price)| (name.clone(), *price)).collect())
    }

    /// Whether tokens both ways have a price, be it zero.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.0.contains_key("prompt") && self.0.contains_key("completion")
    }

    /// Whether nothing has a price above zero.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.0.values().all(Decimal::is_zero)
    }

    /// What is paid for one unit; `None`: it is not sold.
    #[must_use]
    pub fn price(&self, name: &str) -> Option<Decimal> {
        if let Some((kind, above)) = tier_of(name) {
            let tier = self.tiers().into_iter().rfind(|tier| *tier <= above);
            let listed = tier.and_then(|tier| self.get(&tier_name(kind, tier)));
            // A cache without any price of its own costs what such long inputs cost.
            return listed.or_else(|| match stand_in(kind).filter(|_| self.get(kind).is_none()) {
                Some(other) => self.price(&tier_name(other, above)),
                None => self.price(kind),
            });
        }
        let listed = self.get(name);
        let above_zero = listed.filter(|price| !price.is_zero());
        match name {
            "request" | "image" => Some(listed.unwrap_or_default()),
            "prompt" | "completion" => listed,
            "internal_reasoning" => above_zero.or_else(|| self.price("completion")),
            "input_cache_read" | "input_cache_write" | "image_token" => listed.or_else(|| self.price("prompt")),
            "input_cache_write_1h" => listed.or_else(|| self.price("input_cache_write")),
            "input_audio_cache" => listed.or_else(|| self.price("audio")),
            _ => above_zero,
        }
    }

    /// From this card to the other: the dearer of both in everything, and what differs.
    #[must_use]
    pub fn meet(&self, other: &Self) -> (Self, Vec<Change>) {
        let (mut dearer, mut changes) = (Self::default(), Vec::new());
        let names: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        for name in names {
            let (was, is) = (self.price(name), other.price(name));
            let listed = self.get(name).or_else(|| other.get(name));
            dearer.set(name, was.max(is).or(listed));
            if was != is {
                changes.push(Change { name: name.clone(), was, is });
            }
        }
        let mut wanted = Vec::new();
        for (kind, above) in self.lengths_with(other) {
            let name = tier_name(kind, above);
            let (was, is) = (self.price(&name), other.price(&name));
            let is_written = self.get(&name).or_else(|| other.get(&name)).is_some();
            // A cache that costs what the input does changes with it; that need not be said twice.
            let follows = stand_in(kind)
                .map(|other| tier_name(other, above))
                .is_some_and(|stand_in| (self.price(&stand_in), other.price(&stand_in)) == (was, is));
            if was != is && !is_written && !follows {
                changes.push(Change { name: name.clone(), was, is });
            }
            wanted.push((name, was.max(is)));
        }
        dearer.settle(&wanted);
        (dearer, changes)
    }

    /// Every price that some length of either card can change, shorter lengths first.
    fn lengths_with(&self, other: &Self) -> Vec<(&'static str, u64)> {
        let lengths: BTreeSet<u64> = self.tiers().union(&other.tiers()).copied().collect();
        lengths.into_iter().flat_map(|above| TIERED.iter().map(move |kind| (*kind, above))).collect()
    }

    /// Writes down what would cost something else than is wanted. A price that is written for one length ends for
    /// all kinds what holds above a shorter one, so this goes on until nothing more is to be written.
    fn settle(&mut self, wanted: &[(String, Option<Decimal>)]) {
        let mut before = None;
        while before != Some(self.0.len()) {
            before = Some(self.0.len());
            for (name, price) in wanted {
                if price.is_some() && self.price(name) != *price {
                    self.set(name, *price);
                }
            }
        }
    }

    /// These prices, and what is sold below `cost` raised to it. Nothing is sold for that reason alone.
    #[must_use]
    pub fn at_least(&self, cost: &Self) -> Self {
        let mut raised = self.clone();
        let names: BTreeSet<&String> = self.0.keys().chain(cost.0.keys()).collect();
        for name in names {
            if let (Some(price), Some(cost)) = (self.price(name), cost.price(name))
                && price < cost
            {
                raised.set(name, Some(cost));
            }
        }
        let wanted = self.lengths_with(cost).into_iter().map(|(kind, above)| {
            let name = tier_name(kind, above);
            let price = self.price(&name).map(|price| cost.price(&name).map_or(price, |cost| price.max(cost)));
            (name, price)
        });
        raised.settle(&wanted.collect::<Vec<_>>());
        raised
    }

    /// All prices times a factor, rounded up; `None` when out of range.
    #[must_use]
    pub fn times(&self, factor: Decimal) -> Option<Self> {
        let scaled = self.0.iter().map(|(name, price)| {
            let price = price.checked_mul(factor)?;
            let price = price.round_dp_with_strategy(PLACES, RoundingStrategy::ToPositiveInfinity);
            Some((name.clone(), price.normalize()))
        });
        scaled.collect::<Option<_>>().map(Self)
    }

    /// What recognises these prices, in hexadecimal digits.
    #[must_use]
    pub fn digest(&self, salt: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(salt);
        for (name, price) in &self.0 {
            hash.update(format!("\n{name} {price}"));
        }
        crate::vault::hex(hash.finalize().get(..8).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(prices: &[(&str, &str)]) -> Card {
        let mut card = Card::default();
        for (name, price) in prices {
            card.set(name, Some(price.parse().unwrap()));
        }
        card
    }

    fn said(changes: &[Change]) -> Vec<String> {
        let price = |price: Option<Decimal>| price.map_or("-".to_owned(), |price| price.to_string());
        let mark = |change: &Change| if change.is_drop() { "!" } else { "" };
        changes.iter().map(|one| format!("{}{} {} {}", mark(one), one.name, price(one.was), price(one.is))).collect()
    }

    #[test]
    fn what_takes_the_place_of_a_price_that_is_absent() {
        let plain = card(&[("prompt", "2"), ("completion", "8"), ("prompt_above_200k_tokens", "4")]);
        for (name, price) in [
            ("input_cache_read", Some(2)),
            ("input_cache_write_1h", Some(2)),
            ("internal_reasoning", Some(8)),
            ("image_token", Some(2)),
            ("request", Some(0)),
            ("audio", None),
            ("input_audio_cache", None),
            ("web_search", None),
            ("output_image/hd", None),
            ("prompt_above_272k_tokens", Some(4)),
            ("prompt_above_128k_tokens", Some(2)),
            ("completion_above_200k_tokens", Some(8)),
        ] {
            assert_eq!(plain.price(name), price.map(Decimal::from), "{name}");
        }
        assert_eq!(
            card(&[("completion", "8"), ("internal_reasoning", "0")]).price("internal_reasoning"),
            Some(8.into())
        );
    }

    /// Old, new, what differs, and what is charged until somebody agrees to the drops.
    #[test]
    fn rises_count_at_once_and_drops_do_not() {
        let base = [("prompt", "2"), ("completion", "8")];
        let with = |more: &[(&'static str, &'static str)]| [&base[..], more].concat();
        for (old, new, changes, now) in [
            (with(&[]), with(&[]), vec![], with(&[])),
            (
                with(&[]),
                vec![("prompt", "3"), ("completion", "7")],
                vec!["!completion 8 7", "prompt 2 3"],
                vec![("prompt", "3"), ("completion", "8")],
            ),
            // A cache discount that appears, and one that vanishes.
            (
                with(&[]),
                with(&[("input_cache_read", "1")]),
                vec!["!input_cache_read 2 1"],
                with(&[("input_cache_read", "2")]),
            ),
            (
                with(&[("input_cache_read", "1")]),
                with(&[]),
                vec!["input_cache_read 1 2"],
                with(&[("input_cache_read", "2")]),
            ),
            // What is not sold any more, and what is sold anew.
            (with(&[("audio", "5")]), with(&[]), vec!["!audio 5 -"], with(&[("audio", "5")])),
            (with(&[]), with(&[("audio", "5")]), vec!["audio - 5"], with(&[("audio", "5")])),
            (
                with(&[("web_search", "5")]),
                with(&[("web_search", "0")]),
                vec!["!web_search 5 -"],
                with(&[("web_search", "5")]),
            ),
            (with(&[("web_search", "0")]), with(&[]), vec![], with(&[("web_search", "0")])),
            // A tier that vanishes is a drop of long requests.
            (
                with(&[("prompt_above_200k_tokens", "4")]),
                with(&[]),
                vec!["!prompt_above_200k_tokens 4 2"],
                with(&[("prompt_above_200k_tokens", "4")]),
            ),
            (
                with(&[("internal_reasoning", "9")]),
                with(&[("internal_reasoning", "0")]),
                vec!["!internal_reasoning 9 8"],
                with(&[("internal_reasoning", "9")]),
            ),
        ] {
            let (dearer, found) = card(&old).meet(&card(&new));
            assert_eq!(said(&found), changes, "{old:?} {new:?}");
            assert_eq!(dearer, card(&now), "{old:?} {new:?}");
        }
    }

    #[test]
    fn nothing_is_sold_below_cost() {
        let sold = card(&[("prompt", "2"), ("completion", "8"), ("input_cache_read", "0.2")]);
        let cost = card(&[("prompt", "3"), ("completion", "6"), ("audio", "9")]);
        let raised = card(&[("prompt", "3"), ("completion", "8"), ("input_cache_read", "3")]);
        assert_eq!(sold.at_least(&cost), raised);
        assert_eq!(raised.at_least(&cost), raised);
        let third = Decimal::ONE / Decimal::from(3);
        assert_eq!(card(&[("prompt", "1")]).times(third).unwrap(), card(&[("prompt", "0.333333333333333334")]));
    }

    /// Each of these is charged for every length of input, whichever of them the two cards write down.
    #[test]
    fn lengths_that_one_card_alone_has_are_compared_in_all_kinds() {
        let base = [("prompt", "2"), ("completion", "8"), ("input_cache_read", "1")];
        let with = |more: &[(&'static str, &'static str)]| card(&[&base[..], more].concat());
        let dear = with(&[("prompt_above_128k_tokens", "6")]);
        let long = with(&[("completion_above_200k_tokens", "9")]);
        let both = with(&[
            ("prompt_above_128k_tokens", "6"),
            ("prompt_above_200k_tokens", "6"),
            ("completion_above_200k_tokens", "9"),
        ]);
        for (sold, cost) in [(&long, &dear), (&dear, &long)] {
            assert_eq!(sold.at_least(cost), both);
            assert_eq!(both.at_least(cost), both);
            assert_eq!(sold.meet(cost).0, both);
        }
        let changes = said(&dear.meet(&long).1);
        assert!(changes.contains(&"!prompt_above_200k_tokens 6 2".to_owned()), "{changes:?}");
        assert_eq!(changes.len(), 3, "{changes:?}");
        // What the other takes above a length that comes later does not change what is asked between.
        let later = with(&[("prompt_above_128k_tokens", "6"), ("prompt_above_300k_tokens", "1")]);
        let raised =
            dear.at_least(&with(&[("completion_above_200k_tokens", "9"), ("completion_above_300k_tokens", "1")]));
        for (name, price) in
            [("completion_above_200k_tokens", 9), ("completion_above_300k_tokens", 8), ("prompt_above_300k_tokens", 6)]
        {
            assert_eq!(raised.price(name), Some(Decimal::from(price)), "{name}");
        }
        assert_eq!(long.at_least(&later).price("prompt_above_200k_tokens"), Some(6.into()));
        assert_eq!(long.at_least(&later).price("prompt_above_300k_tokens"), Some(2.into()));
    }

    #[test]
    fn a_cache_without_a_price_costs_what_long_inputs_cost() {
        let cost = card(&[("prompt", "2"), ("completion", "8"), ("prompt_above_200k_tokens", "4")]);
        let sold =
            card(&[("prompt", "2"), ("completion", "8"), ("input_cache_read", "1"), ("prompt_above_200k_tokens", "4")]);
        assert_eq!(cost.price("input_cache_write_1h_above_200k_tokens"), Some(4.into()));
        assert_eq!(sold.price("input_cache_read_above_200k_tokens"), Some(1.into()));
        let raised = sold.at_least(&cost);
        assert_eq!(raised.price("input_cache_read"), Some(2.into()));
        assert_eq!(raised.price("input_cache_read_above_200k_tokens"), Some(4.into()));
        // Such a name would be charged under the one and compared under the other.
        assert!(!is_known("prompt_above_0200k_tokens") && !is_known("prompt_above_+200k_tokens"));
    }

    #[test]
    fn the_card_of_a_model_has_all_its_prices() {
        let mut prices = Prices { prompt: 2.into(), completion: 8.into(), image: 1.into(), ..Prices::default() };
        prices.output_images.insert("hd".to_owned(), 4.into());
        let long = Prices { prompt: 5.into(), ..prices.clone() };
        prices.tiers.push(crate::money::rate::Tier { above: 200_000, prices: long });
        let expected = [
            ("prompt", "2"),
            ("completion", "8"),
            ("image", "1"),
            ("output_image/hd", "4"),
            ("prompt_above_200k_tokens", "5"),
            ("completion_above_200k_tokens", "8"),
        ];
        assert_eq!(Card::of(&prices), card(&expected));
        assert!(expected.iter().all(|(name, _)| is_known(name)));
        // Other service tiers are the operator's own business: no list of others sets them.
        let first = Prices { prompt: 3.into(), completion: 9.into(), tiers: prices.tiers.clone(), ..Prices::default() };
        prices.services.push((Service::Priority, first));
        let more = [
            ("prompt_priority", "3"),
            ("completion_priority", "9"),
            ("prompt_above_200k_tokens_priority", "5"),
            ("completion_above_200k_tokens_priority", "8"),
        ];
        assert_eq!(Card::of(&prices), card(&[&expected[..], &more].concat()));
        assert!(more.iter().all(|(name, _)| !is_known(name) && is_per_token(name)));
        assert!(!is_known("discount") && !is_known("image_above_200k_tokens"));
        assert_ne!(card(&expected).digest(""), card(&expected).digest("x"));
    }
}
