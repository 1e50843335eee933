//! Upstreams, as the operator writes them down: one entry of `UPSTREAMS`, or one row of the database,
//! which has the same members.
//!
//! What each kind of upstream is by itself, its address for example, is not known here.

use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};
use url::Url;

use super::{Secret, Statuses, address, values};
use crate::dialect::{CONVERSIONS, Feature, Needs, WireFormat, named};

type Parsed<T> = Result<T, String>;

/// What is taken for dearer or larger than that is a slip of the pen.
const MAX_CAP_USD: u64 = 1_000_000_000;
/// A year.
const MAX_PROBE_SECONDS: u64 = 31_536_000;

/// The upstreams of the environment, and the rules for all of them.
#[derive(Clone, Debug)]
pub struct Upstreams {
    /// `UPSTREAMS`, the keys of single vendors (`OPENAI_API_KEY`, …), and `UPSTREAM_BASE_URL`.
    pub listed: Vec<Upstream>,
    /// `UPSTREAM_*_TIMEOUT_SECONDS`, for upstreams that say nothing else.
    pub timeouts: Timeouts,
    /// `UPSTREAM_CHOICE`, weighted
    pub choice: Choice,
    /// `UPSTREAM_MAX_ATTEMPTS`, 4: upstreams that one request tries.
    pub max_attempts: usize,
    /// `UPSTREAM_RETRY_STATUSES`: after which the next is asked.
    pub retried: Statuses,
    /// `UPSTREAM_ERRORS_VERBOSE`: clients are told what an upstream says of its own trouble too.
    pub verbose_errors: bool,
    /// `UPSTREAM_BREAKER_FAILURES`, 5; 0: no upstream is ever left out.
    pub breaker_failures: u32,
    /// `UPSTREAM_QUEUE_SECONDS`, 5: how long a request waits where all upstreams have as many as they take.
    pub queue_time: Duration,
    /// `UPSTREAM_PROBE_SECONDS`; `None` (0): none are probed.
    pub probe_interval: Option<Duration>,
}

/// How an upstream is chosen among those of the same priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// At random, in proportion to their weights.
    Weighted,
    /// The one with the lowest fee; among equals by weight.
    Cheapest,
    /// One after the other.
    RoundRobin,
}

/// One API behind the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Never shown to clients.
    pub name: String,
    pub kind: UpstreamKind,
    /// `None`: the kind's own.
    pub base_url: Option<Url>,
    pub api_key: Option<Secret>,
    /// Azure's, where models have addresses of their own.
    pub api_version: Option<String>,
    /// `None`: the kind's own.
    pub protocols: Option<Vec<WireFormat>>,
    /// Wire formats that may be converted into one that it speaks, where it does not speak them itself.
    pub convert_from: Vec<WireFormat>,
    /// `None`: those that the kind has.
    pub models: Option<Vec<ModelRule>>,
    /// The lowest goes first.
    pub priority: u32,
    pub weight: u32,
    pub max_concurrency: Option<usize>,
    /// Headers to set, or (`None`) to leave out.
    pub headers: Vec<(String, Option<Secret>)>,
    /// It may hold a password. [`Upstream::BY_TOR`]: the node's own way into Tor.
    pub proxy_url: Option<Secret>,
    pub timeouts: Timeouts,
    /// What it takes on top of the list price, as a factor.
    pub fee: Decimal,
    pub daily_usd: Option<Decimal>,
    pub monthly_usd: Option<Decimal>,
    /// What a token of input and one of output cost of models that it lists without a price, in USD. `None`: they
    /// are not offered.
    pub default_price: Option<(Decimal, Decimal)>,
    /// The public model that probes ask for. `None`: it is not probed.
    pub probe_model: Option<String>,
    /// Seconds after which it is probed, 0: never. `None`: `UPSTREAM_PROBE_SECONDS`.
    pub probe_seconds: Option<u64>,
    /// What models of the price list can ask for with `upstream_tags`.
    pub tags: Vec<String>,
    /// All that it can beside its wire formats. `None`: whatever is asked for.
    pub capabilities: Option<Needs>,
    /// Whether it knows the member of that name, by which a stream is asked to report its usage.
    pub stream_options: bool,
    pub enabled: bool,
}

/// How long an upstream may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// `UPSTREAM_CONNECT_TIMEOUT_SECONDS`, 10
    pub connect: Duration,
    /// `UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS`, 120
    pub first_byte: Duration,
    /// `UPSTREAM_IDLE_TIMEOUT_SECONDS`, 120
    pub idle: Duration,
    /// `UPSTREAM_TOTAL_TIMEOUT_SECONDS`, none
    pub total: Option<Duration>,
}

/// Models that an upstream serves: `gpt-4o`, `claude-*` or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRule {
    /// The public name, or how it begins if `is_prefix`.
    pub name: String,
    pub is_prefix: bool,
    /// What the upstream calls it. A `*` in it stands for what the rule's `*` matched.
    pub target: Option<String>,
}

named! {
    /// What an upstream is; `upstream::kind` says what follows from that.
    UpstreamKind {
        Openai = "openai",
        Anthropic = "anthropic",
        Openrouter = "openrouter",
        Groq = "groq",
        Azure = "azure",
        Gemini = "gemini",
        Xai = "xai" | "x-ai",
        Fireworks = "fireworks",
        Perplexity = "perplexity",
        Ollama = "ollama",
        Vllm = "vllm",
        Routstr = "routstr",
        Generic = "generic" | "custom",
    }
}

impl UpstreamKind {
    /// Whether an upstream of this kind is nowhere in particular.
    #[must_use]
    pub const fn needs_address(self) -> bool {
        matches!(self, Self::Generic | Self::Azure | Self::Vllm | Self::Routstr)
    }
}

impl Timeouts {
    /// No time at all.
    pub(super) const NONE: Self =
        Self { connect: Duration::ZERO, first_byte: Duration::ZERO, idle: Duration::ZERO, total: None };
}

impl Upstream {
    /// The name of the one that `UPSTREAM_BASE_URL` describes.
    pub const ONE: &str = "default";

    /// Its proxy, where it is reached by the node's own way into Tor.
    pub const BY_TOR: &str = "tor";

    /// One with nothing but a name.
    #[must_use]
    pub fn new(name: &str, kind: UpstreamKind, timeouts: Timeouts) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            base_url: None,
            api_key: None,
            api_version: None,
            protocols: None,
            convert_from: Vec::new(),
            models: None,
            priority: 0,
            weight: 1,
            max_concurrency: None,
            headers: Vec::new(),
            proxy_url: None,
            timeouts,
            fee: Decimal::ONE,
            daily_usd: None,
            monthly_usd: None,
            default_price: None,
            probe_model: None,
            probe_seconds: None,
            tags: Vec::new(),
            capabilities: None,
            stream_options: true,
            enabled: true,
        }
    }

    /// Reads one entry.
    ///
    /// # Errors
    /// What is wrong with it, without what was given.
    pub fn from_json(entry: &Value, timeouts: Timeouts) -> Parsed<Self> {
        let entry = Entry(entry.as_object().ok_or("it is not a JSON object")?);
        entry.check_members()?;
        let name = entry.text("name")?.ok_or("it has no name")?;
        if name.len() > 64 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err("it has a name that is none; expected up to 64 letters, digits, - _ or .".to_owned());
        }
        let kind = match entry.text("provider_type")? {
            None => UpstreamKind::Generic,
            Some(text) => UpstreamKind::parse(&text).ok_or_else(|| expected_one("provider_type", kinds()))?,
        };
        let base_url = entry.parsed("base_url", address::base)?;
        if base_url.is_none() && kind.needs_address() {
            return Err("it has no base_url".to_owned());
        }
        let (protocols, convert_from) = (entry.protocols("protocols")?, entry.protocols("convert_from")?);
        let convert_from = convert_from.unwrap_or_default();
        check_conversions(&convert_from, protocols.as_deref(), CONVERSIONS)?;
        Ok(Self {
            base_url,
            api_key: entry.parsed("api_key", values::api_key)?,
            api_version: entry.parsed("api_version", values::api_version)?,
            protocols,
            convert_from,
            models: entry.models()?,
            priority: entry.number("priority", 0..=1_000_000)?.unwrap_or(0),
            weight: entry.number("weight", 0..=1_000_000)?.unwrap_or(1),
            max_concurrency: entry.number("max_concurrency", 1..=100_000)?,
            headers: entry.headers()?,
            proxy_url: entry.parsed("proxy_url", values::proxy_url)?,
            timeouts: entry.timeouts(timeouts)?,
            fee: entry.decimal("fee", 1000)?.unwrap_or(Decimal::ONE),
            daily_usd: entry.decimal("daily_usd", MAX_CAP_USD)?,
            monthly_usd: entry.decimal("monthly_usd", MAX_CAP_USD)?,
            default_price: entry.default_price()?,
            probe_model: entry.text("probe_model")?,
            probe_seconds: entry.number("probe_seconds", 0..=MAX_PROBE_SECONDS)?,
            tags: entry.texts("tags")?.unwrap_or_default(),
            capabilities: entry.capabilities()?,
            stream_options: entry.flag("stream_options")?.unwrap_or(true),
            enabled: entry.flag("enabled")?.unwrap_or(true),
            ..Self::new(&name, kind, timeouts)
        })
    }

    /// The entry that [`Upstream::from_json`] reads, in two parts: what anybody may see, and what not.
    #[must_use]
    pub fn to_json(&self) -> (Value, Value) {
        let seconds = |time: Duration| json!(time.as_secs());
        let mut open = json!({
            "name": self.name, "provider_type": self.kind.name(), "priority": self.priority, "weight": self.weight,
            "connect_timeout": seconds(self.timeouts.connect), "first_byte_timeout": seconds(self.timeouts.first_byte),
            "idle_timeout": seconds(self.timeouts.idle), "total_timeout": self.timeouts.total.map_or(json!(0), seconds),
            "fee": self.fee.to_string(), "tags": self.tags, "enabled": self.enabled,
        });
        let mut put = |name: &str, value: Option<Value>| {
            if let (Some(value), Some(open)) = (value, open.as_object_mut()) {
                open.insert(name.to_owned(), value);
            }
        };
        put("base_url", self.base_url.as_ref().map(|url| json!(url.as_str())));
        put("api_version", self.api_version.as_ref().map(|text| json!(text)));
        let names = |all: &[WireFormat]| -> Value { all.iter().map(|one| json!(one.name())).collect() };
        put("protocols", self.protocols.as_deref().map(names));
        put("convert_from", Some(&*self.convert_from).filter(|all| !all.is_empty()).map(names));
        put(
            "models",
            self.models.as_ref().map(|rules| rules.iter().map(ModelRule::to_json).collect::<Map<_, _>>().into()),
        );
        let price = |(prompt, completion): (Decimal, Decimal)| json!({ "prompt": prompt.to_string(), "completion": completion.to_string() });
        put("default_price", self.default_price.map(price));
        put("capabilities", self.capabilities.map(|all| all.iter().map(|one| json!(one.name())).collect()));
        put("stream_options", (!self.stream_options).then(|| json!(false)));
        put("probe_model", self.probe_model.as_ref().map(|text| json!(text)));
        put("probe_seconds", self.probe_seconds.map(|seconds| json!(seconds)));
        put("max_concurrency", self.max_concurrency.map(|most| json!(most)));
        put("daily_usd", self.daily_usd.map(|cap| json!(cap.to_string())));
        put("monthly_usd", self.monthly_usd.map(|cap| json!(cap.to_string())));
        let text = |secret: &Secret| json!(secret.expose());
        let headers: Map<_, _> =
            self.headers.iter().map(|(name, value)| (name.clone(), value.as_ref().map_or(Value::Null, text))).collect();
        let mut closed = json!({ "headers": headers });
        for (name, secret) in [("api_key", &self.api_key), ("proxy_url", &self.proxy_url)] {
            if let (Some(secret), Some(closed)) = (secret, closed.as_object_mut()) {
                closed.insert(name.to_owned(), text(secret));
            }
        }
        (open, closed)
    }
}

impl ModelRule {
    fn parse(pattern: &str, target: Option<&str>) -> Parsed<Self> {
        let (name, is_prefix) = match pattern.strip_suffix('*') {
            Some(name) => (name, true),
            None => (pattern, false),
        };
        let target = target.filter(|target| !target.is_empty());
        let stars = target.map_or(0, |target| target.matches('*').count());
        if name.contains('*') || pattern.is_empty() || stars > usize::from(is_prefix) {
            return Err("it has a rule for models that is none; expected a name, prefix* or *".to_owned());
        }
        Ok(Self { name: name.to_owned(), is_prefix, target: target.map(str::to_owned) })
    }

    fn to_json(&self) -> (String, Value) {
        let star = if self.is_prefix { "*" } else { "" };
        (format!("{}{star}", self.name), self.target.as_ref().map_or(Value::Null, |target| json!(target)))
    }
}

fn kinds() -> impl Iterator<Item = &'static str> {
    UpstreamKind::ALL.iter().map(|kind| kind.name())
}

/// Refuses what this version cannot convert. `table`: what it can, each with what it becomes.
fn check_conversions(
    from: &[WireFormat],
    spoken: Option<&[WireFormat]>,
    table: &[(WireFormat, WireFormat)],
) -> Parsed<()> {
    let speaks = |format: &WireFormat| spoken.is_none_or(|spoken| spoken.contains(format));
    let can_be = |from: &WireFormat| table.iter().any(|(before, after)| before == from && speaks(after));
    let Some(from) = from.iter().find(|from| !can_be(from)) else { return Ok(()) };
    let into = match spoken {
        Some(spoken) => spoken.iter().map(|one| one.name()).collect::<Vec<_>>().join(", "),
        None => "what it speaks".to_owned(),
    };
    Err(format!("its convert_from has {}, and there is no conversion of that into {into}", from.name()))
}

fn expected_one(member: &str, names: impl Iterator<Item = &'static str>) -> String {
    format!("it has a {member} that is not known; expected {}", names.collect::<Vec<_>>().join(", "))
}

/// The members of an entry.
struct Entry<'a>(&'a Map<String, Value>);

const MEMBERS: &[&str] = &[
    "name",
    "provider_type",
    "base_url",
    "api_key",
    "api_version",
    "protocols",
    "convert_from",
    "models",
    "priority",
    "weight",
    "max_concurrency",
    "headers",
    "proxy_url",
    "connect_timeout",
    "first_byte_timeout",
    "idle_timeout",
    "total_timeout",
    "fee",
    "daily_usd",
    "monthly_usd",
    "default_price",
    "probe_model",
    "probe_seconds",
    "tags",
    "capabilities",
    "stream_options",
    "enabled",
];

impl Entry<'_> {
    fn check_members(&self) -> Parsed<()> {
        let known = self.0.keys().all(|name| MEMBERS.contains(&name.as_str()));
        if known { Ok(()) } else { Err(expected_one("member", MEMBERS.iter().copied())) }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    fn text(&self, name: &str) -> Parsed<Option<String>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| format!("its {name} is not a string"))?;
        Ok(Some(text.trim().to_owned()))
    }

    fn parsed<T>(&self, name: &str, parse: impl Fn(&str) -> Parsed<T>) -> Parsed<Option<T>> {
        let text = self.text(name)?;
        text.map(|text| parse(&text).map_err(|problem| format!("its {name} {problem}"))).transpose()
    }

    /// A number's own text, also where it was written as a string.
    fn digits(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    fn number<T: TryFrom<u64>>(&self, name: &str, range: std::ops::RangeInclusive<u64>) -> Parsed<Option<T>> {
        let digits = self.digits(name);
        digits.map(|text| values::whole(&text, range).map_err(|problem| format!("its {name} {problem}"))).transpose()
    }

    fn decimal(&self, name: &str, high: u64) -> Parsed<Option<Decimal>> {
        let digits = self.digits(name);
        digits.map(|text| values::from_zero(&text, high).map_err(|problem| format!("its {name} {problem}"))).transpose()
    }

    /// Both ways, above zero: nobody gives away by default what has no price.
    fn default_price(&self) -> Parsed<Option<(Decimal, Decimal)>> {
        let Some(value) = self.get("default_price") else { return Ok(None) };
        let prices = Entry(value.as_object().ok_or("it has a default_price that is not a JSON object")?);
        if prices.0.keys().any(|name| name != "prompt" && name != "completion") {
            return Err("it has a default_price of something else; expected prompt and completion".to_owned());
        }
        let price = |name: &str| {
            let price = prices.digits(name).ok_or_else(|| format!("its default_price has no {name}"))?;
            values::token_price(&price).map_err(|problem| format!("its default_price {problem}"))
        };
        Ok(Some((price("prompt")?, price("completion")?)))
    }

    fn flag(&self, name: &str) -> Parsed<Option<bool>> {
        let digits = self.digits(name);
        digits.map(|text| values::boolean(&text).map_err(|problem| format!("its {name} {problem}"))).transpose()
    }

    /// A list of strings, or one.
    fn texts(&self, name: &str) -> Parsed<Option<Vec<String>>> {
        let not_texts = || format!("its {name} are not strings");
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(one)) => Ok(Some(vec![one.clone()])),
            Some(Value::Array(all)) => {
                let texts = all.iter().map(|one| one.as_str().map(str::to_owned));
                texts.collect::<Option<Vec<_>>>().map(Some).ok_or_else(not_texts)
            }
            Some(_) => Err(not_texts()),
        }
    }

    fn protocols(&self, member: &str) -> Parsed<Option<Vec<WireFormat>>> {
        let Some(names) = self.texts(member)? else { return Ok(None) };
        let known = names.iter().map(|name| WireFormat::parse(name)).collect::<Option<Vec<_>>>();
        let expected = || expected_one("protocol", WireFormat::ALL.iter().map(|format| format.name()));
        known.map(Some).ok_or_else(expected)
    }

    fn capabilities(&self) -> Parsed<Option<Needs>> {
        // An empty list is one: it can nothing of this.
        let Some(names) = self.texts("capabilities")? else { return Ok(None) };
        let known = names.iter().map(|name| Feature::parse(name)).collect::<Option<Needs>>();
        let expected = || expected_one("capability", Feature::ALL.iter().map(|feature| feature.name()));
        known.map(Some).ok_or_else(expected)
    }

    /// A list of rules, or an object from rules to the upstream's names.
    fn models(&self) -> Parsed<Option<Vec<ModelRule>>> {
        let rules = match self.get("models") {
            Some(Value::Object(map)) => {
                let rule = |(pattern, target): (&String, &Value)| match target {
                    Value::Null => ModelRule::parse(pattern, None),
                    Value::String(target) => ModelRule::parse(pattern, Some(target)),
                    _ => Err("it has a rule for models that leads to no name".to_owned()),
                };
                map.iter().map(rule).collect::<Parsed<Vec<_>>>()?
            }
            _ => match self.texts("models")? {
                None => return Ok(None),
                Some(names) => names.iter().map(|name| ModelRule::parse(name, None)).collect::<Parsed<Vec<_>>>()?,
            },
        };
        let twice = |(at, rule): (usize, &ModelRule)| {
            rules
                .iter()
                .skip(at.saturating_add(1))
                .any(|other| (&other.name, other.is_prefix) == (&rule.name, rule.is_prefix))
        };
        if rules.iter().enumerate().any(twice) {
            return Err("it has two rules for the same models".to_owned());
        }
        Ok(Some(rules))
    }

    fn headers(&self) -> Parsed<Vec<(String, Option<Secret>)>> {
        let Some(value) = self.get("headers") else { return Ok(Vec::new()) };
        let map = value.as_object().ok_or("it has headers that are not a JSON object")?;
        let header = |(name, value): (&String, &Value)| {
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if name.is_empty() || !name.bytes().all(token) {
                return Err("it has a header whose name is none".to_owned());
            }
            match value {
                Value::Null => Ok((name.to_ascii_lowercase(), None)),
                Value::String(text) if text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) => {
                    Ok((name.to_ascii_lowercase(), Some(Secret::new(text.clone()))))
                }
                _ => Err("it has a header whose value is neither plain text nor null".to_owned()),
            }
        };
        map.iter().map(header).collect()
    }

    fn timeouts(&self, otherwise: Timeouts) -> Parsed<Timeouts> {
        let fault = |name: &str, problem: &str| format!("its {name} {problem}");
        let seconds = |name: &str| {
            self.digits(name).map(|text| values::seconds(&text).map_err(|problem| fault(name, &problem))).transpose()
        };
        let total = self.digits("total_timeout").map(|text| values::seconds_or_never(&text)).transpose();
        let total = total.map_err(|problem| fault("total_timeout", &problem))?;
        Ok(Timeouts {
            connect: seconds("connect_timeout")?.unwrap_or(otherwise.connect),
            first_byte: seconds("first_byte_timeout")?.unwrap_or(otherwise.first_byte),
            idle: seconds("idle_timeout")?.unwrap_or(otherwise.idle),
            total: total.unwrap_or(otherwise.total),
        })
    }
}

fn faulty(number: u32, problem: &str) -> String {
    let expected = if problem.contains("; expected ") { "" } else { "; expected what the README says of it" };
    format!("entry {number}: {problem}{expected}")
}

/// The entries of `UPSTREAMS`.
pub(super) fn list(text: &str, timeouts: Timeouts) -> Parsed<Vec<Upstream>> {
    // The parser's own words may repeat what it was given.
    let entries: Vec<Value> = serde_json::from_str(text)
        .map_err(|_| r#"is not a JSON list; expected [{"name": "…", "base_url": "https://…", …}, …]"#.to_owned())?;
    let mut found: Vec<Upstream> = Vec::new();
    for (number, entry) in (1..).zip(&entries) {
        let upstream = Upstream::from_json(entry, timeouts).map_err(|problem| faulty(number, &problem))?;
        if found.iter().any(|other| other.name == upstream.name) {
            return Err(faulty(number, "it has the name of another"));
        }
        found.push(upstream);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeouts() -> Timeouts {
        let second = Duration::from_secs(1);
        Timeouts { connect: second, first_byte: second, idle: second, total: None }
    }

    #[test]
    fn an_entry_survives_being_stored() {
        let text = r#"[{"name":"a","provider_type":"OpenAI","base_url":"https://a.example/v1/","api_key":"k",
            "protocols":["responses","messages"],"models":{"m":"other","p-*":"vendor/*","*":null},"priority":2,
            "weight":"3","max_concurrency":4,"headers":{"X-Title":"t","User-Agent":null},
            "proxy_url":"socks5h://u:p@127.0.0.1:9050","idle_timeout":9,"total_timeout":60,"fee":1.055,
            "daily_usd":"2.50","monthly_usd":40,"probe_model":"m","probe_seconds":0,"tags":["eu"],"capabilities":["streaming","tools"],"stream_options":false,"default_price":{"prompt":"0.000001","completion":"2e-6"},"enabled":false,"api_version":"2024-10-21"}]"#;
        let upstream = list(text, timeouts()).unwrap().remove(0);
        assert_eq!((upstream.kind, upstream.priority, upstream.weight), (UpstreamKind::Openai, 2, 3));
        assert!(!upstream.stream_options);
        assert_eq!(upstream.fee, "1.055".parse().unwrap());
        assert_eq!(upstream.headers.first().unwrap().0, "x-title");
        let (mut open, closed) = upstream.to_json();
        for secret in ["\"k\"", "socks5h", "\"t\""] {
            assert!(!open.to_string().contains(secret), "{open}");
        }
        open.as_object_mut().unwrap().extend(closed.as_object().unwrap().clone());
        assert_eq!(Upstream::from_json(&open, timeouts()), Ok(upstream));
        let plain = Upstream::new("b", UpstreamKind::Groq, timeouts());
        let (mut open, closed) = plain.to_json();
        open.as_object_mut().unwrap().extend(closed.as_object().unwrap().clone());
        assert_eq!(Upstream::from_json(&open, timeouts()), Ok(plain));
    }

    #[test]
    fn nothing_is_converted_unless_the_operator_says_so_and_it_can_be() {
        use WireFormat::{ChatCompletions, Messages, Responses};
        let plain = Upstream::new("a", UpstreamKind::Groq, timeouts());
        assert!(plain.convert_from.is_empty() && plain.to_json().0.get("convert_from").is_none());
        let none = json!({ "name": "a", "provider_type": "groq", "convert_from": [] });
        assert_eq!(Upstream::from_json(&none, timeouts()), Ok(plain.clone()));
        let some = Upstream { convert_from: vec![Messages], ..plain };
        assert_eq!(some.to_json().0["convert_from"], json!(["messages"]));
        let table = [(Messages, ChatCompletions)];
        for (from, spoken, problem) in [
            (&[][..], None, None),
            (&[Messages], None, None),
            (&[Messages], Some(&[Responses, ChatCompletions][..]), None),
            (
                &[Messages],
                Some(&[Responses][..]),
                Some("has messages, and there is no conversion of that into responses"),
            ),
            (
                &[Messages, Responses],
                None,
                Some("has responses, and there is no conversion of that into what it speaks"),
            ),
        ] {
            let said = check_conversions(from, spoken, &table).err();
            assert_eq!(said, problem.map(|problem| format!("its convert_from {problem}")), "{from:?} {spoken:?}");
        }
    }

    #[test]
    fn entries_that_cannot_be_are_refused_with_the_reason() {
        for (entry, reason) in [
            ("7", "it is not a JSON object"),
            (r#"{}"#, "it has no name"),
            (r#"{"name":"a b"}"#, "it has a name that is none"),
            (r#"{"name":"a"}"#, "it has no base_url"),
            (r#"{"name":"a","provider_type":"aol"}"#, "it has a provider_type that is not known; expected openai, "),
            (r#"{"name":"a","base_url":"http://a.example"}"#, "its base_url is plain http"),
            (r#"{"name":"a","base_url":"https://a.example","hunter2":1}"#, "it has a member that is not known"),
            (r#"{"name":"a","provider_type":"groq","api_key":"hunter2 x"}"#, "its api_key holds a space"),
            (r#"{"name":"a","provider_type":"groq","weight":1.5}"#, "its weight is not a whole number"),
            (r#"{"name":"a","provider_type":"groq","fee":-1}"#, "its fee is not a number"),
            (
                r#"{"name":"a","provider_type":"groq","default_price":1}"#,
                "it has a default_price that is not a JSON object",
            ),
            (
                r#"{"name":"a","provider_type":"groq","default_price":{"prompt":"1e-6"}}"#,
                "its default_price has no completion",
            ),
            (
                r#"{"name":"a","provider_type":"groq","default_price":{"prompt":"1e-6","completion":0}}"#,
                "its default_price is not the price of a token",
            ),
            (
                r#"{"name":"a","provider_type":"groq","default_price":{"prompt":"1","completion":"1e-6"}}"#,
                "its default_price is not the price of a token",
            ),
            (
                r#"{"name":"a","provider_type":"groq","default_price":{"image":"1"}}"#,
                "it has a default_price of something else",
            ),
            (r#"{"name":"a","provider_type":"groq","protocols":["soap"]}"#, "it has a protocol that is not known"),
            (r#"{"name":"a","provider_type":"groq","convert_from":["soap"]}"#, "it has a protocol that is not known"),
            (
                r#"{"name":"a","provider_type":"groq","protocols":["responses"],"convert_from":["messages"]}"#,
                "its convert_from has messages, and there is no conversion of that into responses",
            ),
            (r#"{"name":"a","provider_type":"groq","capabilities":["x"]}"#, "it has a capability that is not known"),
            (r#"{"name":"a","provider_type":"groq","models":["a*b"]}"#, "it has a rule for models that is none"),
            (r#"{"name":"a","provider_type":"groq","models":["a","a"]}"#, "it has two rules for the same models"),
            (r#"{"name":"a","provider_type":"groq","models":{"a":"b*"}}"#, "it has a rule for models that is none"),
            (r#"{"name":"a","provider_type":"groq","headers":{"a b":"c"}}"#, "it has a header whose name is none"),
            (r#"{"name":"a","provider_type":"groq","headers":{"a":"c\n"}}"#, "it has a header whose value"),
            (r#"{"name":"a","provider_type":"groq","proxy_url":"ftp://x"}"#, "its proxy_url is not a proxy"),
        ] {
            let problem = list(&format!("[{entry}]"), timeouts()).unwrap_err();
            assert!(problem.starts_with(&format!("entry 1: {reason}")), "{entry}: {problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
        assert!(list("{", timeouts()).unwrap_err().starts_with("is not a JSON list"));
        let two = r#"[{"name":"a","provider_type":"groq"},{"name":"a","provider_type":"xai"}]"#;
        assert!(list(two, timeouts()).unwrap_err().starts_with("entry 2: it has the name of another"));
    }
}
