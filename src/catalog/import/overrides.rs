//! What the operator says of one model over what its source says: prices of their own, and further names.

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::ImportError;
use super::repo::Choice;
use crate::catalog::card::{self, Card};
use crate::catalog::{Model, model};

/// Names of one model that the operator may add.
const MAX_NAMES: usize = 32;
const MAX_NAME_LENGTH: usize = 200;

/// What is to change; what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Prices by name, in USD for one unit. `None`: what the source says counts again.
    pub prices: Vec<(String, Option<Decimal>)>,
    /// All the names that the operator gives it.
    pub names: Option<Vec<String>>,
    /// What all of it was for whoever thought of this, by [`Overrides::digest`]. Absent: whatever it is.
    pub seen: Option<String>,
}

impl Overrides {
    /// What recognises all that the operator has said of a model.
    #[must_use]
    pub fn digest(prices: &Card, names: &[String]) -> String {
        prices.digest(&names.join("\n"))
    }

    /// What changes, for the trail.
    #[must_use]
    pub fn told(&self) -> Value {
        let text = |price: &Option<Decimal>| price.map(|price| price.to_string());
        let prices: Value = self.prices.iter().map(|(name, price)| (name.clone(), text(price))).collect();
        match &self.names {
            Some(names) => json!({ "prices": prices, "names": names }),
            None => json!({ "prices": prices }),
        }
    }

    /// The choice with these changes.
    ///
    /// # Errors
    /// When it is another one than was seen, or a name cannot be one.
    pub(super) fn change(&self, choice: &Choice) -> Result<Choice, ImportError> {
        if self.seen.as_ref().is_some_and(|seen| *seen != Self::digest(&choice.prices, &choice.names)) {
            return Err(ImportError::Outdated);
        }
        let mut changed = choice.clone();
        for (name, price) in &self.prices {
            changed.prices.set(name, *price);
        }
        if let Some(names) = &self.names {
            if names.len() > MAX_NAMES {
                return Err(ImportError::Own(format!("a model has {MAX_NAMES} further names at most")));
            }
            if let Some(wrong) = names.iter().find(|name| !can_be_name(name)) {
                let shown: String = wrong.chars().filter(|c| !c.is_control()).take(MAX_NAME_LENGTH).collect();
                return Err(ImportError::Own(format!("\"{shown}\" cannot be the name of a model")));
            }
            changed.names.clear();
            for name in names {
                if !changed.names.contains(name) {
                    changed.names.push(name.clone());
                }
            }
        }
        Ok(changed)
    }
}

fn can_be_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_LENGTH && !name.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// Makes the model what the operator says.
///
/// # Errors
/// When these prices do not go together.
pub(super) fn apply(model: &mut Model, choice: &Choice) -> Result<(), String> {
    for name in &choice.names {
        if *name != model.id && !model.alias_ids.contains(name) {
            model.alias_ids.push(name.clone());
        }
    }
    if choice.prices.is_empty() {
        return Ok(());
    }
    let wanted = over(&Card::of(&model.prices), &choice.prices);
    let prices = model::read_card(&wanted)?;
    let charged = Card::of(&prices);
    // A price of zero need not be written down.
    let is_charged = |(name, price): &(&str, Decimal)| match charged.get(name) {
        Some(charged) => charged == *price,
        None => price.is_zero() && card::is_known(card::usual(name).unwrap_or(name)),
    };
    if let Some((name, _)) = choice.prices.iter().find(|price| !is_charged(price)) {
        return Err(format!("{name} is no price that is charged here"));
    }
    model.prices = prices;
    Ok(())
}

/// The prices of the source with the operator's over them. What long inputs and other service tiers cost follows
/// where it was the same.
fn over(source: &Card, own: &Card) -> Card {
    let mut prices = source.clone();
    for (name, price) in source.iter() {
        if let Some(usual) = card::usual(name)
            && source.get(usual) == Some(price)
            && let Some(own) = own.get(usual)
        {
            prices.set(name, Some(own));
        }
    }
    for (name, price) in own.iter() {
        prices.set(name, Some(price));
    }
    prices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        let entry = r#"{"id":"a/b","alias_ids":["b1"],"pricing":{"prompt":"0.000002","completion":"0.000008",
            "prompt_above_200k_tokens":"0.000004","request":"0.01","prompt_flex":"0.000001","completion_flex":"0.000008"}}"#;
        Model::from_entry(&serde_json::from_str::<Box<serde_json::value::RawValue>>(entry).unwrap()).unwrap()
    }

    fn choice(prices: &[(&str, &str)], names: &[&str]) -> Choice {
        let own = Overrides {
            prices: prices.iter().map(|(name, price)| ((*name).to_owned(), price.parse().ok())).collect(),
            names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
            seen: None,
        };
        own.change(&Choice::default()).unwrap()
    }

    #[test]
    fn the_operators_prices_go_over_the_sources_and_what_was_the_same_follows() {
        let mut sold = model();
        apply(
            &mut sold,
            &choice(&[("completion", "0.00001"), ("request", "0"), ("audio", "0.00003")], &["b2", "b1", "a/b"]),
        )
        .unwrap();
        assert_eq!(sold.alias_ids, ["b1", "b2"]);
        let card = Card::of(&sold.prices);
        for (name, price) in [
            ("prompt", Some("0.000002")),
            ("prompt_above_200k_tokens", Some("0.000004")),
            ("completion", Some("0.00001")),
            ("completion_above_200k_tokens", Some("0.00001")),
            ("completion_flex", Some("0.00001")),
            ("prompt_flex", Some("0.000001")),
            ("request", None),
            ("audio", Some("0.00003")),
        ] {
            assert_eq!(card.get(name), price.map(|price| price.parse().unwrap()), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_charged_is_no_price_and_what_cannot_be_said_no_name() {
        for (name, price, why) in [
            ("promt", "1", "promt is no price that is charged here"),
            ("prompt", "1001", "its prompt price is absurd (1001 USD)"),
            ("prompt", "-1", "its prompt price is negative (-1), so it depends on the request"),
            ("promt", "0", "promt is no price that is charged here"),
            ("request_flex", "1", "its request_flex price is of no kind that is known"),
        ] {
            let mut sold = model();
            assert_eq!(apply(&mut sold, &choice(&[(name, price)], &[])).unwrap_err(), why);
            assert_eq!(sold.prices, model().prices);
        }
        for wrong in ["", "a b", "a\n", &"x".repeat(201)] {
            let own = Overrides { names: Some(vec![wrong.to_owned()]), ..Overrides::default() };
            assert!(own.change(&Choice::default()).is_err(), "{wrong}");
        }
        let many = Overrides { names: Some((0..33).map(|n| n.to_string()).collect()), ..Overrides::default() };
        assert!(many.change(&Choice::default()).is_err());
    }

    #[test]
    fn what_is_taken_back_is_the_sources_again() {
        let own = choice(&[("prompt", "1"), ("completion", "2")], &["b2"]);
        let back =
            Overrides { prices: vec![("prompt".to_owned(), None)], ..Overrides::default() }.change(&own).unwrap();
        assert_eq!((back.prices.get("prompt"), back.prices.get("completion")), (None, Some(Decimal::TWO)));
        assert_eq!(back.names, ["b2"]);
    }
}
