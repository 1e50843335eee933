//! A model as a source of prices lists it, and as it is stored: an entry in the shape of OpenRouter's list.
//!
//! What comes from outside is taken apart and put together anew: known prices, known fields, of bounded
//! length. Names that would take another model's place (aliases) are not taken from anybody.

use std::collections::HashMap;
use std::fmt;

use rust_decimal::Decimal;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::catalog::card::{self, Card, tier_name};
use crate::catalog::file;
use crate::catalog::model::{Model, believed, read_price};

/// Most entries of a list.
const MAX_ENTRIES: usize = 20_000;
/// Longest id.
const MAX_ID: usize = 128;
/// Longest text of an entry; what is longer is cut.
const MAX_TEXT: usize = 2_000;
/// Most things that are said about one list.
pub(super) const MAX_NOTES: usize = 20;
/// Longest of them.
const MAX_NOTE: usize = 200;
/// A token that is dearer, in USD, has the price of a thousand, or of a million.
const MAX_TOKEN_USD: Decimal = Decimal::from_parts(1, 0, 0, false, 2);
/// A token, or a character, that is cheaper, in USD, is given away.
const MIN_TOKEN_USD: Decimal = Decimal::from_parts(1, 0, 0, false, 10);
/// The same of all else.
const MIN_USD: Decimal = Decimal::from_parts(1, 0, 0, false, 7);

/// What an Anthropic cache costs, as a factor on the input price, where a list does not say it.
const CLAUDE_CACHE: [(&str, Decimal); 3] = [
    ("input_cache_read", Decimal::from_parts(1, 0, 0, false, 1)),
    ("input_cache_write", Decimal::from_parts(125, 0, 0, false, 2)),
    ("input_cache_write_1h", Decimal::TWO),
];

/// What an entry may say beside id and prices.
const TEXTS: &[&str] = &["name", "description", "canonical_slug", "hugging_face_id"];
const PARTS: &[(&str, &[&str])] = &[
    ("architecture", &["modality", "input_modalities", "output_modalities", "tokenizer", "instruct_type"]),
    ("top_provider", &["context_length", "max_completion_tokens", "is_moderated"]),
];

/// A model with its prices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed {
    pub id: String,
    pub card: Card,
    /// Prices that the list does not have.
    pub derived: Vec<String>,
    /// All else.
    pub fields: Map<String, Value>,
}

/// What a list says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct List {
    pub models: Vec<Listed>,
    /// Models that are named alone.
    pub unpriced: Vec<String>,
    /// Models whose price cannot be charged.
    pub refused: Vec<String>,
    /// What could not be taken, in lines for the operator. Not stored.
    pub notes: Vec<String>,
}

/// The members of an object as they are written, one after the other.
pub(super) struct Members<'a>(pub Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = access.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(All).map(Self)
    }
}

impl Members<'_> {
    /// A name that is there twice.
    pub fn repeated(&self) -> Option<&str> {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.windows(2).find_map(|pair| match pair {
            [one, other] if one == other => Some(*one),
            _ => None,
        })
    }
}

impl Listed {
    /// A model of this name, if it is one.
    #[must_use]
    pub fn new(id: &str) -> Option<Self> {
        let is_name = !id.is_empty() && id.len() <= MAX_ID && id.chars().all(|c| !c.is_whitespace() && !c.is_control());
        is_name.then(|| Self { id: id.to_owned(), ..Self::default() })
    }

    /// Reads an entry.
    fn read(entry: &RawValue) -> Result<Self, Problem> {
        let members: Members<'_> = serde_json::from_str(entry.get()).map_err(|_| Problem::nameless())?;
        let text = |name: &str| {
            let found = members.0.iter().find(|(member, _)| member == name);
            found.and_then(|(_, raw)| serde_json::from_str::<Value>(raw.get()).ok())
        };
        let id = text("id").and_then(|id| Self::new(id.as_str()?));
        let mut listed = id.ok_or_else(Problem::nameless)?;
        if let Some(name) = members.repeated() {
            return Err(listed.problem(format!("its {name} is there twice")));
        }
        if text("enabled") == Some(Value::Bool(false)) {
            return Err(listed.problem("it is not on offer there".to_owned()));
        }
        for name in TEXTS {
            listed.put(name, text(name).and_then(|value| value.as_str().map(|text| json!(cut(text, MAX_TEXT)))));
        }
        for (name, parts) in PARTS {
            listed.put(name, text(name).and_then(|value| some_of(&value, parts)));
        }
        for name in ["created", "context_length"] {
            listed.put(name, text(name).filter(|value| value.is_number() || value.is_string()).and_then(plain));
        }
        listed.put("supported_parameters", text("supported_parameters").and_then(plain));
        let derived = text("derived_prices").and_then(|names| serde_json::from_value::<Vec<String>>(names).ok());
        listed.derived = derived.unwrap_or_default().into_iter().filter(|name| card::is_known(name)).collect();
        let pricing = members.0.iter().find(|(name, _)| name == "pricing").map(|(_, raw)| *raw);
        listed.card = match pricing {
            Some(pricing) => read_card(pricing).map_err(|what| listed.problem(what))?,
            // Many lists have names alone; that is nothing to be told of.
            None => return Err(listed.problem(String::new())),
        };
        if !listed.card.is_complete() {
            return Err(listed.problem("it has no price".to_owned()));
        }
        listed.derive().map_err(|what| listed.problem(what))?;
        Ok(listed)
    }

    /// Sets what else is known of it.
    pub fn put(&mut self, name: &str, value: Option<Value>) {
        if let Some(value) = value.filter(|value| !value.is_null()) {
            self.fields.insert(name.to_owned(), value);
        }
    }

    fn problem(&self, what: String) -> Problem {
        Problem { id: Some(self.id.clone()), what }
    }

    /// Itself, unless it has more prices than any model: each costs memory for as long as it is sold.
    fn within_bounds(self) -> Result<Self, Problem> {
        match self.card.excess() {
            Some(what) => Err(self.problem(what)),
            None => Ok(self),
        }
    }

    /// Adds what is known of the prices of Claude's cache.
    ///
    /// # Errors
    /// When one of them cannot be a price, though that of the input can.
    pub(super) fn derive(&mut self) -> Result<(), String> {
        let bare = self.id.rsplit_once('/').map_or(self.id.as_str(), |(_, bare)| bare);
        if !bare.starts_with("claude") {
            return Ok(());
        }
        let tiers: Vec<u64> = self.card.tiers().into_iter().collect();
        for (kind, factor) in CLAUDE_CACHE {
            let of_tier = tiers.iter().map(|above| (tier_name("prompt", *above), tier_name(kind, *above)));
            for (prompt, name) in std::iter::once(("prompt".to_owned(), kind.to_owned())).chain(of_tier) {
                if self.card.get(&name).is_some() {
                    continue;
                }
                let price = self.card.get(&prompt).and_then(|price| price.checked_mul(factor));
                let price = price.map(|price| possible(&name, price)).transpose()?.flatten();
                if price.is_some() {
                    self.card.set(&name, price);
                    self.derived.push(name);
                }
            }
        }
        Ok(())
    }

    /// # Errors
    /// Why it could not be read again, once it is stored.
    pub(super) fn check(&self) -> Result<(), String> {
        Self::new(&self.id).ok_or("its name cannot be one here")?;
        self.card.iter().try_for_each(|(name, price)| possible(name, price).map(drop))
    }

    /// Whether it would give away text, or all that it does: an operator may mean that, a list may not.
    #[must_use]
    pub fn is_given_away(&self) -> bool {
        if self.card.is_free() {
            return true;
        }
        let outputs = self.fields.get("architecture").and_then(|known| known.get("output_modalities"));
        // Who does not say what comes out means text.
        let writes = outputs.and_then(Value::as_array).is_none_or(|all| all.iter().any(|one| one == "text"));
        let is_paid = |name: &str| self.card.get(name).is_some_and(|price| !price.is_zero());
        let otherwise = ["request", "second", "query", "character", "audio"].into_iter().any(is_paid);
        match (is_paid("prompt"), is_paid("completion")) {
            (true, true) => false,
            (_, false) => writes && !otherwise,
            (false, true) => !otherwise,
        }
    }

    /// The entry that [`List::stored`] reads again.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut entry = Map::new();
        entry.insert("id".to_owned(), json!(self.id));
        entry.extend(self.fields.clone());
        entry.insert("pricing".to_owned(), json!(self.card.texts()));
        if !self.derived.is_empty() {
            entry.insert("derived_prices".to_owned(), json!(self.derived));
        }
        Value::Object(entry)
    }

    /// Reads what [`Listed::to_json`] wrote.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let entry: &RawValue = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Self::read(entry).map_err(|problem| problem.to_string())
    }

    /// The model as it is sold.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn model(&self) -> Result<Model, String> {
        let entry = serde_json::value::to_raw_value(&self.to_json()).map_err(|error| error.to_string())?;
        Model::from_entry(&entry)
    }
}

/// Why an entry is not taken.
pub(super) struct Problem {
    pub id: Option<String>,
    pub what: String,
}

impl Problem {
    fn nameless() -> Self {
        Self { id: None, what: "an entry is no model with an id".to_owned() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "{id}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// The prices of an entry in the names that are known here. Others are no price that is charged here.
fn read_card(pricing: &RawValue) -> Result<Card, String> {
    let members: Members<'_> = match serde_json::from_str(pricing.get()) {
        Ok(members) => members,
        Err(_) if pricing.get() == "null" => return Ok(Card::default()),
        Err(_) => return Err("its pricing cannot be read".to_owned()),
    };
    if let Some(name) = members.repeated() {
        return Err(format!("its {name} price is there twice"));
    }
    let mut card = Card::default();
    for (name, raw) in members.0.iter().filter(|(name, _)| card::is_known(name) && name.len() <= MAX_ID) {
        card.set(name, checked(name, raw)?);
    }
    Ok(card)
}

/// A price that is there and can be one.
pub(super) fn checked(name: &str, raw: &RawValue) -> Result<Option<Decimal>, String> {
    Ok(read_price(name, raw)?.map(|price| possible(name, price)).transpose()?.flatten())
}

/// A price as it may be listed; `None`: it is none. Zero is one for text alone, of what an operator may mean to give
/// away. Elsewhere lists write it for what has no price of its own: such a cache is no free one. A price so
/// low that nobody would notice it is zero: it would make a gift look sold.
fn possible(name: &str, price: Decimal) -> Result<Option<Decimal>, String> {
    let price = believed(name, price)?;
    let is_text = matches!(name, "prompt" | "completion");
    let least = if card::is_per_token(name) || name == "character" { MIN_TOKEN_USD } else { MIN_USD };
    if card::is_per_token(name) && price > MAX_TOKEN_USD {
        return Err(format!("its {name} price is absurd for a token ({price} USD)"));
    }
    let price = if price < least { Decimal::ZERO } else { price };
    Ok(Some(price).filter(|price| is_text || !price.is_zero()))
}

impl List {
    /// Reads a list in OpenRouter's shape, which other nodes of this network have as well.
    ///
    /// # Errors
    /// When it is no list, or names no model.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let entries = file::entries(text).map_err(|_| "it is not a list of models".to_owned())?;
        let again = shown_again(&entries);
        let mut list = Self::default();
        let each = entries.into_iter().zip(again).filter(|(_, again)| !again);
        list.fill(each.map(|(entry, _)| Listed::read(entry)))?;
        Ok(list)
    }

    /// Takes what could be read; of two entries for one model none, if they differ.
    pub(super) fn fill(&mut self, read: impl Iterator<Item = Result<Listed, Problem>>) -> Result<(), String> {
        let mut seen: HashMap<String, Option<usize>> = HashMap::new();
        for (at, one) in read.enumerate() {
            if at >= MAX_ENTRIES {
                return Err(format!("it has more than {MAX_ENTRIES} entries"));
            }
            match one.and_then(Listed::within_bounds) {
                Ok(listed) => match seen.get(&listed.id).copied() {
                    None => {
                        seen.insert(listed.id.clone(), Some(self.models.len()));
                        self.models.push(listed);
                    }
                    Some(first) => {
                        let same =
                            first.and_then(|first| self.models.get(first)).is_some_and(|one| one.card == listed.card);
                        if !same {
                            self.note(&format!("{}: it is there twice, with other prices", listed.id));
                            self.refused.push(listed.id.clone());
                            seen.insert(listed.id, None);
                        }
                    }
                },
                Err(problem) => {
                    if problem.what.is_empty() {
                        self.unpriced.extend(problem.id);
                    } else {
                        self.note(&problem.to_string());
                        self.refused.extend(problem.id);
                    }
                }
            }
        }
        self.models.retain(|one| seen.get(&one.id).is_some_and(Option::is_some));
        if self.models.is_empty() && self.unpriced.is_empty() && self.refused.is_empty() {
            return Err("it names no model".to_owned());
        }
        Ok(())
    }

    fn note(&mut self, what: &str) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(cut(what, MAX_NOTE));
        }
    }

    /// The model that is called so there.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&Listed> {
        self.models.iter().find(|one| one.id == id)
    }

    /// Whether a model of this name is there, priced or not.
    #[must_use]
    pub fn names(&self, id: &str) -> bool {
        self.find(id).is_some() || self.unpriced.iter().chain(&self.refused).any(|one| one == id)
    }

    /// As it is stored.
    #[must_use]
    pub fn to_json(&self) -> String {
        let models: Vec<Value> = self.models.iter().map(Listed::to_json).collect();
        json!({ "models": models, "unpriced": self.unpriced, "refused": self.refused }).to_string()
    }

    /// Reads what [`List::to_json`] wrote. A model that cannot be read, because an older program wrote it, is one
    /// whose price cannot be charged.
    ///
    /// # Errors
    /// When the text is no list.
    pub fn stored(text: &str) -> Result<Self, String> {
        #[derive(serde::Deserialize)]
        struct Stored {
            unpriced: Vec<String>,
            refused: Vec<String>,
        }
        let stored: Stored = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut list = Self { unpriced: stored.unpriced, refused: stored.refused, ..Self::default() };
        let entries = file::entries(text.as_bytes()).map_err(|error| error.to_string())?;
        for entry in entries {
            match Listed::read(entry) {
                Ok(listed) => list.models.push(listed),
                Err(problem) => {
                    list.note(&problem.to_string());
                    list.refused.extend(problem.id);
                }
            }
        }
        Ok(list)
    }
}

/// Which entries show a model of the list again, under its id without the vendor and at the same prices, as nodes of
/// this network do.
fn shown_again(entries: &[&RawValue]) -> Vec<bool> {
    #[derive(serde::Deserialize)]
    struct Named<'a> {
        id: String,
        #[serde(default)]
        alias_ids: Option<Vec<String>>,
        #[serde(borrow, default)]
        pricing: Option<&'a RawValue>,
    }
    let named: Vec<Option<Named<'_>>> = entries.iter().map(|entry| serde_json::from_str(entry.get()).ok()).collect();
    let prices: HashMap<&str, &str> =
        named.iter().flatten().filter_map(|one| Some((one.id.as_str(), one.pricing?.get()))).collect();
    let is_again = |one: &Named<'_>| {
        let full = |alias: &String| alias.split_once('/').is_some_and(|(_, bare)| bare == one.id);
        let same = |alias: &String| prices.get(alias.as_str()).copied() == one.pricing.map(RawValue::get);
        one.pricing.is_some() && one.alias_ids.iter().flatten().any(|alias| full(alias) && same(alias))
    };
    named.iter().map(|one| one.as_ref().is_some_and(is_again)).collect()
}

fn cut(text: &str, chars: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(chars).collect()
}

/// The members of an object that are known, if they are plain.
fn some_of(value: &Value, names: &[&str]) -> Option<Value> {
    let object = value.as_object()?;
    let known = names.iter().filter_map(|name| Some(((*name).to_owned(), plain(object.get(*name)?.clone())?)));
    Some(Value::Object(known.collect()))
}

/// A number, a flag, a short text, or a short list of such texts.
fn plain(value: Value) -> Option<Value> {
    match value {
        Value::String(text) => Some(json!(cut(&text, MAX_NOTE))),
        Value::Array(items) => {
            let texts = items.iter().take(100).filter_map(Value::as_str).map(|text| cut(text, 64));
            Some(json!(texts.collect::<Vec<_>>()))
        }
        Value::Number(_) | Value::Bool(_) => Some(value),
        Value::Null | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entries: &str) -> List {
        List::read(format!(r#"{{"data":[{entries}]}}"#).as_bytes()).unwrap()
    }

    fn of(prices: &str) -> String {
        format!(r#"{{"id":"v/m","architecture":{{"output_modalities":["text"]}},"pricing":{{{prices}}}}}"#)
    }

    #[test]
    fn a_list_survives_being_stored() {
        let list = read(
            r#"{"id":"anthropic/claude-x","name":"X","description":"d","created":1,"context_length":200000,"alias_ids":["gpt-4o"],
            "forwarded_model_id":"y","architecture":{"modality":"text->text","output_modalities":["text"],"evil":{}},
            "top_provider":{"max_completion_tokens":64000,"is_moderated":true},"supported_parameters":["tools",7],
            "pricing":{"prompt":"1.25e-06","completion":0.00001,"discount":0,"input_cache_read":"0","request":"0","prompt_above_200k_tokens":"2.5e-06","audio":null}},
            {"id":"no/price"},{"id":"free/one","pricing":{"prompt":"0","completion":"0"}}"#,
        );
        assert_eq!((list.models.len(), list.unpriced.clone()), (2, vec!["no/price".to_owned()]));
        let claude = list.find("anthropic/claude-x").unwrap();
        for (name, price) in [
            ("prompt", Some("0.00000125")),
            ("input_cache_read", Some("0.000000125")),
            ("input_cache_write", Some("0.0000015625")),
            ("input_cache_write_1h", Some("0.0000025")),
            ("input_cache_write_1h_above_200k_tokens", Some("0.000005")),
            ("audio", None),
            ("request", None),
            ("discount", None),
        ] {
            assert_eq!(claude.card.get(name), price.map(|price| price.parse().unwrap()), "{name}");
        }
        assert_eq!(claude.derived.len(), 6);
        assert!(!claude.fields.contains_key("alias_ids") && !claude.to_json().to_string().contains("evil"));
        let stored = List::stored(&list.to_json()).unwrap();
        assert_eq!(stored, List { notes: Vec::new(), ..list.clone() });
        let model = claude.model().unwrap();
        assert_eq!(model.prices.for_input(200_001).input_cache_write_1h, Some("0.000005".parse().unwrap()));
        assert_eq!(model.extra.get("derived_prices").and_then(Value::as_array).map(Vec::len), Some(6));
        assert!(list.find("free/one").unwrap().is_given_away() && !claude.is_given_away());
    }

    /// Of a cache, and of long requests, zero is no price.
    #[test]
    fn zero_is_a_price_of_text_alone() {
        let list =
            read(&of(r#""prompt":"0","completion":"2e-6","input_cache_write":0,"prompt_above_200k_tokens":"0.0""#));
        assert_eq!(list.models[0].card.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["completion", "prompt"]);
        assert!(list.models[0].is_given_away());
    }

    /// What is reckoned from a price has the bounds of one that is listed, so what is stored can be read again.
    #[test]
    fn a_cache_that_would_be_absurd_is_no_price() {
        let of = |prompt: &str| format!(r#"{{"id":"claude-x","pricing":{{"prompt":"{prompt}","completion":"0.01"}}}}"#);
        let other = r#"{"id":"other","pricing":{"prompt":"1e-6","completion":"1e-6"}}"#;
        for (prompt, cached) in
            [("0.005", Some(3)), ("0.0051", None), ("0.01", None), ("5e-10", Some(2)), ("0", Some(0))]
        {
            let list = read(&format!("{},{other}", of(prompt)));
            assert_eq!(list.find("claude-x").map(|one| one.derived.len()), cached, "{prompt}");
            assert_eq!(list.notes.iter().any(|note| note.contains("absurd for a token")), cached.is_none(), "{prompt}");
            assert!(list.names("claude-x"), "{prompt}");
            assert!(list.models.iter().all(|one| one.check().is_ok()), "{prompt}");
            // Word for word, however often: what differed would come into force anew each time.
            let stored = List::stored(&list.to_json()).unwrap();
            assert_eq!(stored, List { notes: Vec::new(), ..list }, "{prompt}");
        }
    }

    #[test]
    fn a_stored_model_that_cannot_be_read_does_not_hide_the_others() {
        let entries = r#"{"id":"dear","pricing":{"prompt":"0.02","completion":"0.01"}},
            {"id":"good","pricing":{"prompt":"1e-6","completion":"1e-6"}},7"#;
        let list =
            List::stored(&format!(r#"{{"models":[{entries}],"unpriced":["named"],"refused":["odd"]}}"#)).unwrap();
        assert_eq!(list.models.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["good"]);
        assert_eq!(
            (list.unpriced, list.refused),
            (vec!["named".to_owned()], vec!["odd".to_owned(), "dear".to_owned()])
        );
        assert_eq!(list.notes.len(), 2);
        assert!(List::stored("<html>").is_err());
    }

    /// Prices of text, and so many more of such names.
    fn many(before: &str, after: &str, count: usize) -> String {
        let more: Vec<String> = (1..=count).map(|at| format!(r#","{before}{at}{after}":"0.004""#)).collect();
        format!(r#""prompt":"1e-6","completion":"1e-6"{}"#, more.concat())
    }

    #[test]
    fn as_many_prices_as_a_model_may_have_are_taken() {
        for prices in [many("output_image/", "", 62), many("prompt_above_", "k_tokens", 8)] {
            assert_eq!(read(&of(&prices)).models.len(), 1, "{prices}");
        }
    }

    /// What is next to nothing in a tier, or for a cache, costs what it costs without one.
    #[test]
    fn next_to_nothing_is_no_price() {
        let list = read(&of(r#""prompt":"1e-6","completion":"2e-6","prompt_above_0k_tokens":"1e-18",
            "input_cache_read":"9.9e-11","input_cache_write":"1e-10","request":"9e-8""#));
        let names: Vec<&str> = list.models[0].card.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["completion", "input_cache_write", "prompt"]);
    }

    /// Every way in which an entry may not be what it seems.
    #[test]
    fn entries_that_are_not_taken() {
        for (prices, reason) in [
            (r#""prompt":"-1","completion":"-1""#, "negative"),
            (r#""prompt":"NaN","completion":"1e-6""#, "not a number"),
            (r#""prompt":"Infinity","completion":"1e-6""#, "not a number"),
            (r#""prompt":{"a":1},"completion":"1e-6""#, "not a number"),
            (r#""prompt":["1e-6"],"completion":"1e-6""#, "not a number"),
            (r#""prompt":true,"completion":"1e-6""#, "not a number"),
            (r#""prompt":"1e-6","prompt":"0","completion":"1e-6""#, "twice"),
            (r#""prompt":"1e-6""#, "no price"),
            (r#""prompt":null,"completion":"1e-6""#, "no price"),
            // The price of a million tokens.
            (r#""prompt":"2.5","completion":"10""#, "absurd for a token"),
            (r#""prompt":"1e-6","completion":"1e-6","request":"1001""#, "absurd"),
            (r#""prompt":"1e-6","completion":"1e-6","prompt_above_200k_tokens":"-1""#, "negative"),
            (&many("output_image/", "", 63), "65 prices"),
            (&many("prompt_above_", "k_tokens", 9), "9 lengths"),
        ] {
            let list = read(&of(prices));
            assert!(list.models.is_empty() && list.names("v/m"), "{prices}");
            assert!(list.notes.iter().any(|note| note.contains(reason)), "{prices}: {:?}", list.notes);
        }
        for (entries, models) in [
            (format!("{},{}", of(r#""prompt":"1e-6","completion":"1e-6""#), of(r#""prompt":"1e-6","completion":"1.0e-6""#)), 1),
            (format!("{},{}", of(r#""prompt":"1e-6","completion":"1e-6""#), of(r#""prompt":"1e-6","completion":"9e-7""#)), 0),
            (r#"{"id":"off","enabled":false,"pricing":{"prompt":"1e-6","completion":"1e-6"}},{"id":"a b"},7,{"id":""}"#.to_owned(), 0),
        ] {
            let text = format!(r#"[{entries},{{"id":"other"}}]"#);
            assert_eq!(List::read(text.as_bytes()).unwrap().models.len(), models, "{entries}");
        }
        for text in ["", "{}", "[]", "null", r#"{"data":{}}"#, "<html>", &"[".repeat(100_000), r#"{"data":[7]}"#] {
            assert!(List::read(text.as_bytes()).is_err(), "{}", text.get(..20).unwrap_or(text));
        }
    }

    /// Nodes of this network list a model with its vendor and without, which is one model.
    #[test]
    fn a_model_that_is_shown_again_without_its_vendor_is_one() {
        let entry = |id: &str, alias: &str, prompt: &str| {
            format!(r#"{{"id":"{id}","alias_ids":["{alias}"],"pricing":{{"prompt":"{prompt}","completion":"1e-6"}}}}"#)
        };
        let ids = |entries: &[String]| -> Vec<String> {
            read(&entries.join(",")).models.into_iter().map(|model| model.id).collect()
        };
        let full = entry("v/m", "m", "1e-6");
        assert_eq!(ids(&[full.clone(), entry("m", "v/m", "1e-6")]), ["v/m"]);
        // Where the other is not listed, costs something else, or is called otherwise, there are two.
        assert_eq!(ids(&[entry("m", "v/m", "1e-6")]), ["m"]);
        assert_eq!(ids(&[full.clone(), entry("m", "v/m", "2e-6")]), ["v/m", "m"]);
        assert_eq!(ids(&[full, entry("n", "v/m", "1e-6")]), ["v/m", "n"]);
    }

    #[test]
    fn what_is_given_away_is_not_taken_for_a_price() {
        for (prices, given_away) in [
            (r#""prompt":"0","completion":"0""#, true),
            (r#""prompt":"0","completion":"1e-6""#, true),
            (r#""prompt":"1e-6","completion":"0""#, true),
            (r#""prompt":"1e-6","completion":"1e-6""#, false),
            (r#""prompt":"0","completion":"0","second":"0.0001""#, false),
            (r#""prompt":"1e-18","completion":"1e-18""#, true),
            (r#""prompt":"1e-18","completion":"1e-6""#, true),
            (r#""prompt":"1e-6","completion":"9.9e-11""#, true),
            (r#""prompt":"1e-10","completion":"1e-10""#, false),
            (r#""prompt":"0","completion":"0","request":"1e-9""#, true),
            (r#""prompt":"1e-18","completion":"1e-18","prompt_above_0k_tokens":"1e-6""#, true),
        ] {
            assert_eq!(read(&of(prices)).models[0].is_given_away(), given_away, "{prices}");
        }
        for (entry, given_away) in [
            (r#"{"id":"e","pricing":{"prompt":"1e-6","completion":"0"}}"#, true),
            (r#"{"id":"e","pricing":{"prompt":"0","completion":"1e-6"}}"#, true),
            (
                r#"{"id":"e","architecture":{"output_modalities":["embeddings"]},"pricing":{"prompt":"1e-6","completion":"0"}}"#,
                false,
            ),
            (
                r#"{"id":"e","architecture":{"output_modalities":["image"]},"pricing":{"prompt":"0","completion":"0","output_image":"0.04"}}"#,
                false,
            ),
            (
                r#"{"id":"e","architecture":{"output_modalities":["image"]},"pricing":{"prompt":"0","completion":"1e-6","output_image":"0.04"}}"#,
                true,
            ),
        ] {
            assert_eq!(read(entry).models[0].is_given_away(), given_away, "{entry}");
        }
    }
}
