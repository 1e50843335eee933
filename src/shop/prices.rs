//! The price table: the models of the API's own list, searched and sorted. Prices are those of that list,
//! a million tokens at a time.

use std::cmp::{Ordering, Reverse};

use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::{Map, Value};

use crate::pages::format;
use crate::price::decimal;

/// Rows of the table, unless more are asked for.
const FEW: usize = 40;
/// Longest search.
const MAX_SEARCH: usize = 100;
/// Digits of a price that matter to somebody.
const DIGITS: u32 = 5;
const MILLION: u64 = 1_000_000;

/// Prices that few models have: as the list names them, what for, and for how many.
const EXTRAS: [(&str, &str, u64); 16] = [
    ("request", "a request", 1),
    ("image", "an image", 1),
    ("output_image", "a made image", 1),
    ("web_search", "a web search", 1),
    ("web_query", "a query of a web search", 1),
    ("code_session", "a container for code", 1),
    ("query", "a query", 1),
    ("second", "a second of audio", 1),
    ("character", "1M characters", MILLION),
    ("internal_reasoning", "1M reasoning tokens", MILLION),
    ("input_cache_write_1h", "1M tokens cached for an hour", MILLION),
    ("audio", "1M audio tokens of input", MILLION),
    ("input_audio_cache", "1M cached audio tokens", MILLION),
    ("audio_output", "1M audio tokens of output", MILLION),
    ("image_token", "1M image tokens of input", MILLION),
    ("image_output", "1M image tokens of output", MILLION),
];

/// What the table is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// As the operator lists them.
    #[default]
    Listed,
    Name,
    Context,
    Input,
    Output,
}

impl Sort {
    const ALL: [Self; 5] = [Self::Listed, Self::Name, Self::Context, Self::Input, Self::Output];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Listed => "",
            Self::Name => "name",
            Self::Context => "context",
            Self::Input => "input",
            Self::Output => "output",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Listed => "As listed",
            Self::Name => "Name",
            Self::Context => "Longest context",
            Self::Input => "Cheapest input",
            Self::Output => "Cheapest output",
        }
    }
}

/// What a visitor wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub search: String,
    pub sort: Sort,
    /// The other way round.
    pub reversed: bool,
    /// Every row, however many there are.
    pub whole: bool,
}

impl Wish {
    /// Reads `q`, `sort` and `whole`. What is no order is none.
    pub fn read(query: &str) -> Self {
        let mut wish = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "q" => wish.search = value.trim().chars().take(MAX_SEARCH).collect(),
                "sort" => {
                    let (name, reversed) = value.strip_prefix('-').map_or((&*value, false), |name| (name, true));
                    let found = Sort::ALL.into_iter().find(|sort| sort.as_str() == name);
                    (wish.sort, wish.reversed) = (found.unwrap_or_default(), reversed && found.is_some());
                }
                "whole" => wish.whole = true,
                _ => {}
            }
        }
        wish
    }

    fn finds(&self, row: &Row) -> bool {
        let words = self.search.to_lowercase();
        words.split_whitespace().all(|word| row.text.contains(word))
    }

    /// The address of the same search in another order; in this one reversed, if it is this one.
    fn link(&self, sort: Sort) -> String {
        Self { reversed: self.sort == sort && !self.reversed, sort, ..self.clone() }.address()
    }

    fn address(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if !self.search.is_empty() {
            query.append_pair("q", &self.search);
        }
        query.append_pair("sort", &self.order());
        if self.whole {
            query.append_pair("whole", "");
        }
        format!("/?{}#prices", query.finish())
    }

    fn order(&self) -> String {
        format!("{}{}", if self.reversed { "-" } else { "" }, self.sort.as_str())
    }
}

/// The whole table.
#[derive(Debug)]
pub(super) struct Table {
    pub search: String,
    /// The address of every row.
    pub whole: String,
    pub choices: Vec<Choice>,
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
    /// How many models were found, and how many there are.
    pub found: usize,
    pub all: usize,
}

/// An order to choose.
#[derive(Debug)]
pub(super) struct Choice {
    pub value: String,
    pub title: &'static str,
    pub chosen: bool,
}

/// The head of a column that sorts.
#[derive(Debug)]
pub(super) struct Column {
    pub title: &'static str,
    pub link: String,
    /// `ascending`, `descending` or `none`, for those who hear the table.
    pub order: &'static str,
}

/// One price, as the list has it and in dollars.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Price {
    pub sats: Option<String>,
    pub usd: Option<String>,
}

/// A price that is not by the million tokens.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Extra {
    pub what: String,
    pub price: Price,
}

/// One model.
#[derive(Debug)]
pub(super) struct Row {
    pub id: String,
    /// Unless it is the id.
    pub name: Option<String>,
    pub aliases: Vec<String>,
    pub badges: Vec<&'static str>,
    pub context: Option<String>,
    pub input: Price,
    pub output: Price,
    /// `None`: as input.
    pub cache_read: Option<Price>,
    pub cache_write: Option<Price>,
    pub extras: Vec<Extra>,
    /// What a search looks into.
    text: String,
    tokens: Option<u64>,
    by_input: Option<Decimal>,
    by_output: Option<Decimal>,
}

/// The table of these entries of the list. Where the operator's prices in sats are `fixed`, those in dollars
/// do not count.
pub(super) fn table(models: &[Value], wish: &Wish, fixed: bool) -> Table {
    let mut rows: Vec<Row> = models.iter().filter_map(Value::as_object).map(|entry| row(entry, fixed)).collect();
    let all = rows.len();
    rows.retain(|row| wish.finds(row));
    match wish.sort {
        Sort::Listed => {}
        Sort::Name => rows.sort_by(|one, other| one.id.cmp(&other.id)),
        Sort::Context => rows.sort_by_key(|row| Reverse(row.tokens)),
        Sort::Input => rows.sort_by(|one, other| cheapest(one.by_input, other.by_input)),
        Sort::Output => rows.sort_by(|one, other| cheapest(one.by_output, other.by_output)),
    }
    if wish.reversed {
        rows.reverse();
    }
    let found = rows.len();
    if !wish.whole {
        rows.truncate(FEW);
    }
    let whole = Wish { whole: true, ..wish.clone() }.address();
    Table { search: wish.search.clone(), whole, choices: choices(wish), columns: columns(wish), rows, found, all }
}

/// What has no price comes last.
fn cheapest(one: Option<Decimal>, other: Option<Decimal>) -> Ordering {
    (one.is_none(), one).cmp(&(other.is_none(), other))
}

fn choices(wish: &Wish) -> Vec<Choice> {
    let mut choices: Vec<Choice> = Sort::ALL
        .into_iter()
        .map(|sort| Choice {
            value: sort.as_str().to_owned(),
            title: sort.title(),
            chosen: sort == wish.sort && !wish.reversed,
        })
        .collect();
    if wish.reversed {
        choices.push(Choice { value: wish.order(), title: "The other way round", chosen: true });
    }
    choices
}

fn columns(wish: &Wish) -> Vec<Column> {
    let column = |(title, sort): (&'static str, Sort)| {
        // The longest context comes first, the cheapest price too.
        let falls = (sort == Sort::Context) != wish.reversed;
        let order = match (sort == wish.sort, falls) {
            (false, _) => "none",
            (true, true) => "descending",
            (true, false) => "ascending",
        };
        Column { title, link: wish.link(sort), order }
    };
    [("Model", Sort::Name), ("Context", Sort::Context), ("Input", Sort::Input), ("Output", Sort::Output)]
        .map(column)
        .into()
}

fn row(entry: &Map<String, Value>, fixed: bool) -> Row {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (id, name) = (text("id"), text("name"));
    let aliases = texts(entry.get("alias_ids"));
    let badges = badges(entry);
    let usd = object(entry.get("pricing")).filter(|_| !fixed);
    let listed = Listed { usd, sats: object(entry.get("sats_pricing")) };
    let tokens = entry.get("context_length").and_then(Value::as_u64);
    let searched = [id.as_str(), name.as_str()].into_iter().chain(aliases.iter().map(String::as_str));
    let searched: Vec<&str> = searched.chain(badges.iter().copied()).collect();
    Row {
        text: searched.join("\n").to_lowercase(),
        name: (name != id && !name.is_empty()).then_some(name),
        id,
        aliases,
        badges,
        context: tokens.and_then(|tokens| i64::try_from(tokens).ok()).map(format::count),
        input: listed.per_million("prompt"),
        output: listed.per_million("completion"),
        cache_read: listed.where_dearer_or_cheaper("input_cache_read"),
        cache_write: listed.where_dearer_or_cheaper("input_cache_write"),
        extras: listed.extras(),
        tokens,
        by_input: listed.order("prompt"),
        by_output: listed.order("completion"),
    }
}

/// The prices of one entry.
struct Listed<'a> {
    usd: Option<&'a Map<String, Value>>,
    sats: Option<&'a Map<String, Value>>,
}

impl Listed<'_> {
    fn price(&self, key: &str, count: u64) -> Price {
        let all = |prices: Option<&Map<String, Value>>| amount(prices?.get(key)?)?.checked_mul(Decimal::from(count));
        Price { sats: all(self.sats).map(figure), usd: all(self.usd).map(dollars) }
    }

    fn per_million(&self, key: &str) -> Price {
        self.price(key, MILLION)
    }

    fn where_dearer_or_cheaper(&self, key: &str) -> Option<Price> {
        let differs = |prices: &Option<&Map<String, Value>>| {
            prices.is_some_and(|prices| prices.get(key).is_some_and(|price| Some(price) != prices.get("prompt")))
        };
        let counts = if self.sats.is_some() { &self.sats } else { &self.usd };
        differs(counts).then(|| self.per_million(key))
    }

    fn extras(&self) -> Vec<Extra> {
        // The price of a request in sats includes the least that any request costs: that is no price of the model's.
        let is_priced = |key: &str| {
            let prices = if key == "request" { self.usd } else { self.sats.or(self.usd) };
            prices.and_then(|prices| amount(prices.get(key)?)).is_some_and(|price| !price.is_zero())
        };
        let known = EXTRAS.iter().filter(|(key, ..)| is_priced(key));
        let known = known.map(|(key, what, count)| Extra { what: (*what).to_owned(), price: self.price(key, *count) });
        let keys = self.sats.or(self.usd).into_iter().flat_map(Map::keys).filter(|key| is_priced(key));
        let named =
            keys.filter_map(|key| named(key).map(|(what, count)| Extra { what, price: self.price(key, count) }));
        known.chain(named).collect()
    }

    fn order(&self, key: &str) -> Option<Decimal> {
        amount(self.sats.or(self.usd)?.get(key)?)
    }
}

/// Prices with a name that says when they hold: for pictures of a kind, or for long requests.
fn named(key: &str) -> Option<(String, u64)> {
    if let Some(kind) = key.strip_prefix("output_image/") {
        return Some((format!("a made image ({kind})"), 1));
    }
    let (bare, service) = match key.strip_suffix("_priority") {
        Some(bare) => (bare, ", served first"),
        None => (
            key.strip_suffix("_flex").unwrap_or(key),
            if key.ends_with("_flex") { ", served when there is room" } else { "" },
        ),
    };
    let (what, above) = match bare.split_once("_above_") {
        Some((what, rest)) => (what, format!(" of requests above {} tokens", rest.strip_suffix("_tokens")?)),
        None if service.is_empty() => return None,
        None => (bare, String::new()),
    };
    let what = match what {
        "prompt" => "input",
        "completion" => "output",
        "input_cache_read" => "cache read",
        "input_cache_write" => "cache write",
        "input_cache_write_1h" => "cache write for an hour",
        "audio" => "audio",
        _ => return None,
    };
    Some((format!("1M tokens of {what}{above}{service}"), MILLION))
}

fn object(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A number of the list, from its text.
fn amount(value: &Value) -> Option<Decimal> {
    match value {
        Value::Number(number) => decimal::parse(&number.to_string()),
        Value::String(text) => decimal::parse(text),
        _ => None,
    }
}

/// What a model can do, as far as its entry says.
fn badges(entry: &Map<String, Value>) -> Vec<&'static str> {
    let architecture = object(entry.get("architecture"));
    let modalities = |key: &str| texts(architecture.and_then(|architecture| architecture.get(key)));
    let (takes, makes) = (modalities("input_modalities"), modalities("output_modalities"));
    let parameters = texts(entry.get("supported_parameters"));
    let has = |list: &[String], names: &[&str]| list.iter().any(|item| names.contains(&item.as_str()));
    let silent = takes.is_empty() && makes.is_empty();
    [
        (silent || has(&takes, &["text"]), "text"),
        (has(&takes, &["image"]), "image"),
        (has(&takes, &["audio"]), "audio"),
        (has(&takes, &["file"]), "file"),
        (has(&takes, &["video"]), "video"),
        (has(&makes, &["image"]), "makes images"),
        (has(&makes, &["audio"]), "speaks"),
        (has(&makes, &["embeddings"]), "embeddings"),
        (has(&parameters, &["tools"]), "tools"),
        (has(&parameters, &["reasoning", "include_reasoning"]), "reasoning"),
    ]
    .into_iter()
    .filter_map(|(holds, badge)| holds.then_some(badge))
    .collect()
}

/// A decimal with as many digits as matter, and thousands separated.
pub(super) fn figure(amount: Decimal) -> String {
    let rounded = amount.round_sf_with_strategy(DIGITS, RoundingStrategy::MidpointAwayFromZero).unwrap_or(amount);
    // What has more digits before the point than matter keeps them.
    let rounded = if amount.abs() >= Decimal::from(10_000) { amount.round() } else { rounded };
    exact(rounded)
}

/// The same, with cents where there are any.
fn dollars(amount: Decimal) -> String {
    let text = figure(amount);
    let is_short = text.split_once('.').is_some_and(|(_, cents)| cents.len() == 1);
    if is_short { format!("{text}0") } else { text }
}

/// A decimal with all its digits, and thousands separated.
pub(super) fn exact(amount: Decimal) -> String {
    let text = amount.normalize().to_string();
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let whole = whole.parse().map_or_else(|_| whole.to_owned(), format::count);
    rest.map_or_else(|| whole.clone(), |rest| format!("{whole}.{rest}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Prices in dollars for a million tokens.
    fn model(id: &str, prompt: u32, completion: u32, context: u64) -> Value {
        let usd = |price: u32| Decimal::new(price.into(), 6).to_string();
        let sats = |price: u32| Decimal::new(price.into(), 3).to_string();
        json!({
            "id": id, "name": id, "context_length": context, "alias_ids": ["alias-of-it"],
            "architecture": { "input_modalities": ["text", "image"], "output_modalities": ["text"] },
            "supported_parameters": ["tools"],
            "pricing": { "prompt": usd(prompt), "completion": usd(completion), "request": 0, "input_cache_read": usd(prompt) },
            "sats_pricing": { "prompt": sats(prompt), "completion": sats(completion), "request": 0.001,
                "input_cache_read": sats(prompt), "image": 2.5, "internal_reasoning": 0, "output_image/hd": 9,
                "prompt_above_200k_tokens": 0.5, "completion_flex": 0.1, "prompt_above_200k_tokens_priority": 1, "image_flex": 1, "completion_above_200k_tokens": 0, "other_above_1k_tokens": 1 },
        })
    }

    fn ids(models: &[Value], query: &str) -> Vec<String> {
        table(models, &Wish::read(query), false).rows.into_iter().map(|row| row.id).collect()
    }

    #[test]
    fn the_table_is_searched_and_sorted() {
        let models = [
            model("b/two", 2, 1, 10),
            model("a/One", 1, 2, 30),
            json!({ "id": "c/unpriced", "pricing": null, "sats_pricing": null }),
        ];
        for (query, expected) in [
            ("", &["b/two", "a/One", "c/unpriced"][..]),
            ("sort=name", &["a/One", "b/two", "c/unpriced"]),
            ("sort=-name", &["c/unpriced", "b/two", "a/One"]),
            ("sort=context", &["a/One", "b/two", "c/unpriced"]),
            ("sort=input", &["a/One", "b/two", "c/unpriced"]),
            ("sort=output", &["b/two", "a/One", "c/unpriced"]),
            ("sort=nonsense&x=y", &["b/two", "a/One", "c/unpriced"]),
            ("q=ONE", &["a/One"]),
            ("q=image+one", &["a/One"]),
            ("q=alias-of&sort=name", &["a/One", "b/two"]),
            ("q=%00%3Cscript%3E", &[]),
        ] {
            assert_eq!(ids(&models, query), expected, "{query}");
        }
        let found = table(&models, &Wish::read("q=one&sort=input"), false);
        assert_eq!((found.found, found.all), (1, 3));
        assert_eq!(found.columns[2].link, "/?q=one&sort=-input#prices");
        assert_eq!(
            found.columns.iter().map(|column| column.order).collect::<Vec<_>>(),
            ["none", "none", "ascending", "none"]
        );
        assert_eq!(table(&models, &Wish::read("sort=context"), false).columns[1].order, "descending");
        let many: Vec<Value> = (0..100).map(|number| model(&format!("m{number}"), 1, 1, 1)).collect();
        let few = table(&many, &Wish::read("q=m&sort=-name"), false);
        assert_eq!((few.rows.len(), few.found), (FEW, 100));
        assert_eq!(few.whole, "/?q=m&sort=-name&whole=#prices");
        assert_eq!(table(&many, &Wish::read("whole="), false).rows.len(), 100);
        assert_eq!(Wish::read(&format!("q={}", "x".repeat(500))).search.len(), MAX_SEARCH);
    }

    #[test]
    fn prices_are_a_million_tokens_and_extras_are_named() {
        let table = table(&[model("m", 1, 2, 128_000)], &Wish::default(), false);
        let row = &table.rows[0];
        assert_eq!((row.input.usd.as_deref(), row.input.sats.as_deref()), (Some("1"), Some("1,000")));
        assert_eq!((&row.cache_read, &row.cache_write), (&None, &None), "as input");
        assert_eq!(
            row.extras.iter().map(|extra| extra.what.as_str()).collect::<Vec<_>>(),
            [
                "an image",
                "a made image (hd)",
                "1M tokens of input of requests above 200k tokens",
                "1M tokens of output, served when there is room",
                "1M tokens of input of requests above 200k tokens, served first",
            ]
        );
        assert_eq!(row.extras[0].price.sats.as_deref(), Some("2.5"));
        assert_eq!(row.badges, ["text", "image", "tools"]);
        assert_eq!(row.context.as_deref(), Some("128,000"));
        let fixed = super::table(&[model("m", 1, 2, 1)], &Wish::default(), true);
        assert_eq!(fixed.rows[0].input, Price { sats: Some("1,000".to_owned()), usd: None });
        for (amount, shown) in [
            ("0", "0"),
            ("0.1575", "0.1575"),
            ("158.2875", "158.29"),
            ("1234567.8", "1,234,568"),
            ("0.00000123456", "0.0000012346"),
        ] {
            assert_eq!(figure(amount.parse().unwrap()), shown);
        }
        assert_eq!(["10.5", "3", "0.125"].map(|usd| dollars(usd.parse().unwrap())), ["10.50", "3", "0.125"]);
        assert_eq!(exact("1234.567800".parse().unwrap()), "1,234.5678");
    }
}
