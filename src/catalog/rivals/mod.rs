//! What other nodes of the network charge for the models that this one sells.
//!
//! For the operator's eyes alone: no price of this node follows from it. The lists are strangers' word, read
//! within limits; what is kept of them is numbers, and this node's own names.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use serde::Deserialize;
use serde_json::value::RawValue;

mod repo;

use crate::clock::SharedClock;
use crate::money::Msat;
use crate::price::decimal::parse_json;
use crate::store::{Store, StoreError};

/// How long a list is not asked for again.
pub const AGE: Duration = Duration::from_secs(3 * 3600);
/// Nodes that are compared with.
pub const MOST: usize = 16;
/// Largest list that is read.
pub const MAX_LIST: usize = 4 * 1024 * 1024;
/// Most entries of it.
const MAX_ENTRIES: usize = 5_000;
/// Most models of this node that are compared.
const MAX_OWN: usize = 1_000;
/// Most other names of a model.
const MAX_ALIASES: usize = 16;
/// What is dearer than this many msat is no price: a thousandth of a bitcoin for a token.
const MAX_PRICE: u64 = 100_000_000_000_000;
/// This node's own address among the others.
const OWN: &str = "";

/// What a model costs at one node: a million tokens each way, and a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    pub prompt: Msat,
    pub completion: Msat,
    pub request: Msat,
}

impl Quote {
    /// By which the network's clients choose a node.
    #[must_use]
    pub fn rank(self) -> (u64, u64) {
        (self.prompt.get().saturating_add(self.completion.get()), self.request.get())
    }
}

/// A model at this node and at others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    pub model: String,
    pub own: Quote,
    /// By address, the cheapest first.
    pub others: Vec<(String, Quote)>,
}

impl Compared {
    /// This node's place among all, the cheapest being the first.
    #[must_use]
    pub fn place(&self) -> usize {
        let cheaper = self.others.iter().filter(|(_, other)| other.rank() < self.own.rank()).count();
        cheaper.saturating_add(1)
    }

    /// By how many percent this node is dearer than the cheapest other; `None`: that gives it away.
    #[must_use]
    pub fn percent(&self) -> Option<i64> {
        let (cheapest, _) = self.others.first()?.1.rank();
        let (own, cheapest) = (i128::from(self.own.rank().0), i128::from(cheapest));
        let percent = own.checked_sub(cheapest)?.checked_mul(100)?.checked_div(cheapest)?;
        i64::try_from(percent).ok()
    }
}

/// What was compared last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Models that somebody else sells, too.
    pub models: Vec<Compared>,
    /// Nodes whose prices could not be had, and why.
    pub troubles: BTreeMap<String, String>,
    /// When this node's own prices were taken; `None`: nothing was compared yet.
    pub at_ms: Option<i64>,
}

/// The prices of others. Clones are the same.
#[derive(Clone, Debug)]
pub struct Rivals {
    store: Store,
    clock: SharedClock,
}

impl Rivals {
    #[must_use]
    pub fn new(store: Store, clock: SharedClock) -> Self {
        Self { store, clock }
    }

    /// Which of these nodes are to be asked. All others are forgotten.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn due(&self, addresses: &[String]) -> Result<BTreeSet<String>, StoreError> {
        let known = repo::nodes(&self.store).await?;
        for gone in known.keys().filter(|known| *known != OWN && !addresses.contains(known)) {
            repo::forget(&self.store, gone).await?;
        }
        let age_ms = i64::try_from(AGE.as_millis()).unwrap_or(i64::MAX);
        let before_ms = self.clock.now_ms().saturating_sub(age_ms);
        let is_due = |address: &&String| known.get(*address).is_none_or(|node| node.asked_ms <= before_ms);
        Ok(addresses.iter().filter(is_due).cloned().collect())
    }

    /// Keeps what this node charges.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn keep_own(&self, own: &Own) -> Result<(), StoreError> {
        repo::keep(&self.store, OWN, self.clock.now_ms(), "", &own.quotes).await
    }

    /// Keeps what another charges, or why that is not known.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn keep(&self, address: &str, said: Result<BTreeMap<String, Quote>, String>) -> Result<(), StoreError> {
        let (quotes, trouble) = match said {
            Ok(quotes) => (quotes, String::new()),
            Err(trouble) => (BTreeMap::new(), trouble),
        };
        repo::keep(&self.store, address, self.clock.now_ms(), &trouble, &quotes).await
    }

    /// All that is known, this node's models in their order.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn comparison(&self) -> Result<Comparison, StoreError> {
        let nodes = repo::nodes(&self.store).await?;
        let mut models: BTreeMap<String, Compared> = BTreeMap::new();
        // This node's own come first.
        for (address, model, quote) in repo::quotes(&self.store).await? {
            if address == OWN {
                models.insert(model.clone(), Compared { model, own: quote, others: Vec::new() });
            } else if let Some(compared) = models.get_mut(&model) {
                compared.others.push((address, quote));
            }
        }
        let mut models: Vec<Compared> = models.into_values().filter(|compared| !compared.others.is_empty()).collect();
        for compared in &mut models {
            compared.others.sort_by_key(|(_, quote)| quote.rank());
        }
        let at_ms = nodes.get(OWN).map(|own| own.asked_ms);
        let troubles = nodes.into_iter().filter(|(_, node)| !node.trouble.is_empty());
        Ok(Comparison { models, at_ms, troubles: troubles.map(|(address, node)| (address, node.trouble)).collect() })
    }
}

/// What this node sells, by all the names that others may have for it.
#[derive(Clone, Debug, Default)]
pub struct Own {
    quotes: BTreeMap<String, Quote>,
    /// `None`: the name could mean two.
    names: HashMap<String, Option<String>>,
}

impl Own {
    /// Reads this node's own list.
    #[must_use]
    pub fn read(list: &[u8]) -> Self {
        let mut own = Self::default();
        for entry in entries(list).into_iter().take(MAX_OWN) {
            let Some(quote) = entry.quote else { continue };
            for name in entry.names() {
                let known = own.names.entry(name.to_owned()).or_insert_with(|| Some(entry.id.clone()));
                if known.as_ref().is_some_and(|known| *known != entry.id) {
                    *known = None;
                }
            }
            own.quotes.insert(entry.id, quote);
        }
        own
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.quotes.is_empty()
    }

    /// What another's list says of these models. Of two entries for one, the cheaper counts: clients find both.
    ///
    /// # Errors
    /// When it is no list of models.
    pub fn price(&self, list: &[u8]) -> Result<BTreeMap<String, Quote>, String> {
        if serde_json::from_slice::<List<'_>>(list).is_err() {
            return Err("its list of models cannot be read".to_owned());
        }
        let mut found: BTreeMap<String, Quote> = BTreeMap::new();
        for entry in entries(list) {
            let Some((model, quote)) = self.find(&entry).zip(entry.quote) else { continue };
            let known = found.entry(model.to_owned()).or_insert(quote);
            if quote.rank() < known.rank() {
                *known = quote;
            }
        }
        Ok(found)
    }

    /// The model of this node that is meant. Where one side names no vendor, the name behind it must do.
    fn find(&self, entry: &Entry) -> Option<&str> {
        let known = |name: &str| self.names.get(name).and_then(Option::as_deref);
        entry.names().find_map(known).or_else(|| {
            let bare = entry.id.rsplit_once('/')?.1;
            known(bare).filter(|own| !own.contains('/'))
        })
    }
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Raw<'a> {
    id: String,
    #[serde(default)]
    alias_ids: Option<Vec<String>>,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(borrow, default)]
    sats_pricing: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawPrices<'a> {
    #[serde(borrow)]
    prompt: &'a RawValue,
    #[serde(borrow)]
    completion: &'a RawValue,
    #[serde(borrow, default)]
    request: Option<&'a RawValue>,
}

/// An entry of a list, as far as it is looked at.
struct Entry {
    id: String,
    aliases: Vec<String>,
    quote: Option<Quote>,
}

impl Entry {
    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.id.as_str()).chain(self.aliases.iter().map(String::as_str))
    }
}

/// The entries that can be read.
fn entries(list: &[u8]) -> Vec<Entry> {
    let Ok(list) = serde_json::from_slice::<List<'_>>(list) else { return Vec::new() };
    let read = |raw: &RawValue| {
        let raw: Raw<'_> = serde_json::from_str(raw.get()).ok()?;
        let mut aliases = raw.alias_ids.unwrap_or_default();
        aliases.truncate(MAX_ALIASES);
        let quote = raw.sats_pricing.filter(|_| raw.enabled).and_then(read_quote);
        Some(Entry { id: raw.id, aliases, quote })
    };
    list.data.into_iter().take(MAX_ENTRIES).filter_map(read).collect()
}

fn yes() -> bool {
    true
}

/// Prices in sats for one token and one request.
fn read_quote(prices: &RawValue) -> Option<Quote> {
    let prices: RawPrices<'_> = serde_json::from_str(prices.get()).ok()?;
    let per_million = |price| msat(parse_json(price)?.checked_mul(Decimal::from(1_000_000))?);
    Some(Quote {
        prompt: per_million(prices.prompt)?,
        completion: per_million(prices.completion)?,
        request: msat(prices.request.map_or(Some(Decimal::ZERO), parse_json)?)?,
    })
}

/// Sats as whole msat, for people to compare.
fn msat(sats: Decimal) -> Option<Msat> {
    let msat = sats.checked_mul(Decimal::ONE_THOUSAND)?.round().to_u64()?;
    Msat::new(msat).filter(|_| msat <= MAX_PRICE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(&str, &[&str], &str)]) -> Vec<u8> {
        let entry = |(id, aliases, prices): &(&str, &[&str], &str)| {
            let aliases = serde_json::to_string(aliases).unwrap();
            format!(r#"{{"id":"{id}","alias_ids":{aliases},"sats_pricing":{prices}}}"#)
        };
        let entries: Vec<String> = entries.iter().map(entry).collect();
        format!(r#"{{"data":[{}]}}"#, entries.join(",")).into_bytes()
    }

    fn prices(prompt: &str, completion: &str) -> String {
        format!(r#"{{"prompt":{prompt},"completion":{completion},"request":0.001}}"#)
    }

    fn quote(prompt: u64, completion: u64) -> Quote {
        let msat = |msat| Msat::new(msat).unwrap();
        Quote { prompt: msat(prompt), completion: msat(completion), request: msat(1) }
    }

    #[test]
    fn a_model_is_found_by_any_of_its_names_and_by_no_likeness() {
        let cheap = prices("1.5e-05", "0.00006");
        let own = Own::read(&list(&[
            ("openai/gpt-4o", &["gpt-4o"], &cheap),
            ("plain", &[], &cheap),
            ("a/same", &["same"], &cheap),
            ("b/same", &["same"], &cheap),
        ]));
        assert_eq!(own.quotes["openai/gpt-4o"], quote(15_000, 60_000));
        for (id, aliases, found) in [
            ("openai/gpt-4o", &[] as &[&str], Some("openai/gpt-4o")),
            ("gpt-4o", &[], Some("openai/gpt-4o")),
            ("any", &["openai/gpt-4o"], Some("openai/gpt-4o")),
            ("vendor/plain", &[], Some("plain")),
            ("azure/gpt-4o", &[], None),
            ("gpt-4", &[], None),
            ("same", &[], None),
            ("b/same", &[], Some("b/same")),
        ] {
            let theirs = own.price(&list(&[(id, aliases, &cheap)])).unwrap();
            assert_eq!(theirs.keys().next().map(String::as_str), found, "{id}");
        }
        let twice = own.price(&list(&[("gpt-4o", &[], &prices("2", "2")), ("openai/gpt-4o", &[], &cheap)])).unwrap();
        assert_eq!(twice["openai/gpt-4o"], quote(15_000, 60_000));
    }

    #[test]
    fn what_is_no_price_is_left_out_and_what_is_no_list_is_said() {
        let own = Own::read(&list(&[("m", &[], &prices("0.001", "0.001"))]));
        for (given, kept) in [
            (prices("0.0000000001", "0"), Some(quote(0, 0))),
            (prices("\"0.001\"", "0.002"), Some(quote(1_000_000, 2_000_000))),
            (prices("-0.001", "0.002"), None),
            (prices("1e30", "0.002"), None),
            (prices("100001", "0.002"), None),
            (prices("null", "0.002"), None),
            (prices("\"NaN\"", "0.002"), None),
            (r#"{"prompt":1}"#.to_owned(), None),
            ("null".to_owned(), None),
            ("[]".to_owned(), None),
        ] {
            assert_eq!(own.price(&list(&[("m", &[], &given)])).unwrap().get("m").copied(), kept, "{given}");
        }
        for nonsense in ["", "<html>", "[]", r#"{"data":7}"#] {
            assert!(own.price(nonsense.as_bytes()).is_err(), "{nonsense}");
        }
        let half =
            format!(r#"{{"data":[7,{{"id":5}},{{"id":"m","enabled":false,"sats_pricing":{}}}]}}"#, prices("1", "1"));
        assert_eq!(own.price(half.as_bytes()), Ok(BTreeMap::new()));
    }

    #[test]
    fn the_place_of_a_node_is_after_those_that_are_cheaper() {
        let others = |quotes: &[Quote]| quotes.iter().map(|quote| ("a".to_owned(), *quote)).collect();
        let compared = |quotes: &[Quote]| Compared { model: "m".into(), own: quote(100, 100), others: others(quotes) };
        let middle = compared(&[quote(50, 100), quote(100, 100), quote(300, 0)]);
        assert_eq!((middle.place(), middle.percent()), (2, Some(33)));
        let first = compared(&[quote(200, 200)]);
        assert_eq!((first.place(), first.percent()), (1, Some(-50)));
        assert_eq!(compared(&[quote(0, 0)]).percent(), None);
    }
}
