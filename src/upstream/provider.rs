//! One upstream: where it is, how it is asked, which models it serves.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use memchr::memmem::Finder;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use rust_decimal::Decimal;
use tokio::sync::Semaphore;
use url::Url;

use super::account;
use super::kind::{Auth, Preset};
use super::models::{Models, Names};
use super::pool::{Requirements, Unavailable};
use crate::config::{self, Secret, Timeouts};
use crate::dialect::{self, Ask, Dialect, Needs, Protocol, WireFormat};
use crate::net::way::Way;
use crate::net::{self, ClientOptions, NetError};

/// Headers that belong to the connection or to the body, and are not the operator's to set.
const NOT_OVERRIDDEN: &[&str] = &[
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "content-length",
];

/// Values shorter than this are placeholders; they would be found everywhere.
const SECRET_CHARS: usize = 8;

/// An upstream.
#[derive(Debug)]
pub struct Upstream {
    name: Arc<str>,
    preset: &'static Preset,
    pub(super) base: Url,
    api_version: Option<String>,
    formats: Vec<WireFormat>,
    tags: Vec<String>,
    capabilities: Option<Needs>,
    stream_options: bool,
    models: Models,
    key: Option<Secret>,
    /// What must be in no answer: the key, and headers that look like one.
    secrets: Vec<Secret>,
    needles: Needles,
    overrides: Vec<(HeaderName, Option<HeaderValue>)>,
    pub(super) client: reqwest::Client,
    pub(super) timeouts: Timeouts,
    pub(super) slots: Option<Arc<Semaphore>>,
    pub(super) priority: u32,
    pub(super) weight: u32,
    pub(super) fee: Decimal,
    pub(super) daily_usd: Option<Decimal>,
    pub(super) monthly_usd: Option<Decimal>,
    pub(super) probe_model: Option<String>,
    probe_seconds: Option<u64>,
    default_price: Option<(Decimal, Decimal)>,
    /// Made once: to put an address together costs more than to copy it.
    urls: HashMap<&'static str, Url>,
}

/// Secrets as they are looked for in every piece of every answer: made once, as that takes longer than to look.
struct Needles(Vec<Finder<'static>>);

impl Needles {
    fn of(secrets: &[Secret]) -> Self {
        let long = secrets.iter().map(Secret::expose).filter(|secret| secret.len() >= SECRET_CHARS);
        Self(long.map(|secret| Finder::new(secret).into_owned()).collect())
    }
}

impl fmt::Debug for Needles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Needles")
    }
}

impl Upstream {
    /// # Errors
    /// When the HTTP client cannot be built, a key or header cannot be sent, or there is no way to it.
    pub fn new(config: &config::Upstream, way: &Way) -> Result<Self, NetError> {
        let (preset, base) = whereabouts(config)?;
        let nameless = config.headers.iter().any(|(name, value)| name == "user-agent" && value.is_none());
        let through_tor = config.proxy_url.as_ref().is_some_and(|proxy| proxy.expose() == config::Upstream::BY_TOR);
        let way = if through_tor { way.everywhere()? } else { way.clone() };
        let connect_timeout = way.patience(config.timeouts.connect, &base);
        let options = ClientOptions { connect_timeout, nameless, way, ..ClientOptions::default() };
        let client = match &config.proxy_url {
            Some(proxy) if !through_tor => net::client_through(&options, proxy.expose())?,
            _ => {
                options.way.check(&base)?;
                net::client(&options)?
            }
        };
        let looks_secret = |(name, value): &(String, Option<Secret>)| {
            let marks = ["auth", "key", "token", "secret", "cookie"];
            value.clone().filter(|_| marks.iter().any(|mark| name.contains(mark)))
        };
        let secrets = config.api_key.iter().cloned().chain(config.headers.iter().filter_map(looks_secret));
        let secrets: Vec<Secret> = secrets.filter(|secret| !secret.expose().is_empty()).collect();
        let mut upstream = Self {
            name: config.name.as_str().into(),
            preset,
            base,
            api_version: config.api_version.clone(),
            formats: config.protocols.clone().unwrap_or_else(|| preset.speaks.to_vec()),
            tags: config.tags.clone(),
            capabilities: config.capabilities,
            stream_options: config.stream_options,
            models: Models::new(config.models.clone(), preset),
            key: config.api_key.clone(),
            needles: Needles::of(&secrets),
            secrets,
            overrides: overrides(&config.headers)?,
            client,
            timeouts: config.timeouts,
            slots: config.max_concurrency.map(|most| Arc::new(Semaphore::new(most))),
            priority: config.priority,
            weight: config.weight,
            fee: config.fee,
            daily_usd: config.daily_usd,
            monthly_usd: config.monthly_usd,
            probe_model: config.probe_model.clone(),
            probe_seconds: config.probe_seconds,
            default_price: config.default_price,
            urls: HashMap::new(),
        };
        upstream.urls = upstream.fixed_urls();
        upstream.credential(WireFormat::ChatCompletions)?;
        Ok(upstream)
    }

    /// The operator's name for it. Never shown to clients.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What clients are told about who served them. Never the name or the address.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.preset.kind.name()
    }

    pub(super) fn kind(&self) -> config::UpstreamKind {
        self.preset.kind
    }

    /// What stands before the path of a request, unless the base URL ends in it.
    pub(super) fn root(&self) -> &'static str {
        self.preset.root
    }

    /// Sets and leaves out what the operator wants.
    pub(super) fn override_headers(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.overrides {
            match value {
                Some(value) => drop(headers.insert(name.clone(), value.clone())),
                None => drop(headers.remove(name)),
            }
        }
    }

    /// What a token of input and one of output cost of models that it lists without a price, in USD, if the
    /// operator sells such models.
    #[must_use]
    pub fn default_price(&self) -> Option<(Decimal, Decimal)> {
        self.default_price
    }

    /// The public model that probes ask for.
    #[must_use]
    pub fn probe_model(&self) -> Option<&str> {
        self.probe_model.as_deref()
    }

    /// After how much silence it is probed; `None`: never.
    pub(super) fn probed_after(&self, usual: Option<Duration>) -> Option<Duration> {
        match self.probe_seconds {
            None => usual,
            Some(seconds) => (seconds > 0).then(|| Duration::from_secs(seconds)),
        }
    }

    /// The names in its price list under which clients find the model that it calls so.
    #[must_use]
    pub fn public_names(&self, called: &str) -> Vec<String> {
        self.models.public_names(called)
    }

    /// Whether a request to it may have `stream_options`.
    #[must_use]
    pub fn knows_stream_options(&self) -> bool {
        self.stream_options
    }

    /// Whether `usage.cost` in its answers is what it takes for them, in USD.
    #[must_use]
    pub fn reports_cost(&self) -> bool {
        self.preset.reports_cost
    }

    /// What it takes on top of the list price, as a factor.
    #[must_use]
    pub fn fee(&self) -> Decimal {
        self.fee
    }

    /// What it calls the model that is wanted.
    ///
    /// # Errors
    /// Why it does not serve the request: the model, the wire format, or something that it lacks.
    pub fn offers(&self, wanted: &Requirements<'_>) -> Result<String, Unavailable> {
        if wanted.kind.is_some_and(|kind| kind != self.label()) {
            return Err(Unavailable::Unserved);
        }
        let model = self.called(wanted.names, wanted.tags).ok_or(Unavailable::Unserved)?;
        if !self.speaks(wanted.format) {
            return Err(Unavailable::NotServed);
        }
        match self.capabilities.and_then(|capabilities| wanted.needs.beyond(capabilities)) {
            Some(lacking) => Err(Unavailable::Lacking(lacking)),
            None => Ok(model),
        }
    }

    /// Whether it has this wire format.
    #[must_use]
    pub fn speaks(&self, format: WireFormat) -> bool {
        self.formats.contains(&format)
    }

    /// What it calls the model, if it has it and these tags.
    #[must_use]
    pub fn called(&self, names: Names<'_>, tags: &[String]) -> Option<String> {
        if tags.iter().all(|tag| self.tags.contains(tag)) { self.models.find(names) } else { None }
    }

    /// The header that carries the key where this wire format is served.
    pub(super) fn credential(&self, format: WireFormat) -> Result<Option<(HeaderName, HeaderValue)>, NetError> {
        let Some(key) = &self.key else { return Ok(None) };
        let alone = |name: &'static str| (HeaderName::from_static(name), key.expose().to_owned());
        let (name, text) = match (self.preset.door(format).1, format.protocol()) {
            (Auth::Header(name), _) => alone(name),
            (Auth::AsUsual, Protocol::Anthropic) => alone("x-api-key"),
            (Auth::AsUsual, Protocol::Gemini) => alone("x-goog-api-key"),
            (Auth::Bearer | Auth::AsUsual, _) => (AUTHORIZATION, format!("Bearer {}", key.expose())),
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| NetError::Other("an upstream's key cannot be sent in a header"))?;
        value.set_sensitive(true);
        Ok(Some((name, value)))
    }

    /// Where this is asked.
    pub(super) fn url(&self, ask: &Ask, model: &str) -> Url {
        match self.urls.get(&*ask.path).filter(|_| ask.query.is_none()) {
            Some(url) => url.clone(),
            None => self.make_url(ask.format, &ask.path, ask.query, model),
        }
    }

    /// The addresses that no model is in, of all paths that are forwarded.
    fn fixed_urls(&self) -> HashMap<&'static str, Url> {
        let fixed = dialect::REGISTRY.iter().filter(|dialect| self.api_version.is_none() && !dialect.is_of_a_model());
        let url = |dialect: &&dyn Dialect| self.make_url(dialect.wire_format(), dialect.path(), None, "");
        fixed.map(|dialect| (dialect.path(), url(dialect))).collect()
    }

    fn make_url(&self, format: WireFormat, path: &str, query: Option<&str>, model: &str) -> Url {
        let mut url = self.base.clone();
        let mut base = self.base.path();
        let mut root = self.preset.door(format).0;
        if format == WireFormat::Gemini && root.is_empty() {
            // Google's own routes have another version, beside that of all others.
            root = "v1beta";
            base = base.trim_end_matches('/');
            base = base.strip_suffix("/v1").unwrap_or(base);
        }
        let path = match &self.api_version {
            Some(_) => format!("openai/deployments/{model}/{path}"),
            None => format!("{root}/{path}"),
        };
        url.set_path(&join(base, &path));
        url.set_query(query);
        if let Some(version) = &self.api_version {
            url.query_pairs_mut().append_pair("api-version", version);
        }
        url
    }

    /// Foreign text as it may be shown: bounded, printable, without this upstream's keys, any part of its address,
    /// and names of accounts.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        let mut text: String = text.chars().filter(|c| !c.is_control()).collect();
        for secret in &self.secrets {
            text = text.replace(secret.expose(), "[removed]");
        }
        if let Some(host) = self.base.host_str() {
            text = text.replace(host, "[removed]");
        }
        // Last: a cut through the key would leave a part of it that is not found.
        account::without_names(&text).chars().take(500).collect()
    }

    /// Whether foreign bytes contain one of the keys that were sent.
    #[must_use]
    pub fn leaks(&self, bytes: &[u8]) -> bool {
        self.needles.0.iter().any(|needle| needle.find(bytes).is_some())
    }
}

/// Where requests to such an upstream go: scheme, host and port.
pub(super) fn origin(config: &config::Upstream) -> Result<url::Origin, NetError> {
    Ok(whereabouts(config)?.1.origin())
}

/// The kind and the address. A host that belongs to a vendor tells the kind where nobody did.
fn whereabouts(config: &config::Upstream) -> Result<(&'static Preset, Url), NetError> {
    let preset = Preset::of(config.kind);
    let base = match (&config.base_url, preset.base_url) {
        (Some(url), _) => url.clone(),
        (None, Some(url)) => url.parse().map_err(|_| NetError::Address("a kind of upstream has a bad address"))?,
        (None, None) => return Err(NetError::Address("an upstream has no address")),
    };
    let recognized = base.host_str().and_then(Preset::at).filter(|_| config.kind == config::UpstreamKind::Generic);
    Ok((recognized.unwrap_or(preset), base))
}

fn overrides(headers: &[(String, Option<Secret>)]) -> Result<Vec<(HeaderName, Option<HeaderValue>)>, NetError> {
    let bad = |_| NetError::Other("a header for an upstream cannot be sent");
    let ours = headers.iter().filter(|(name, _)| !NOT_OVERRIDDEN.contains(&name.as_str()));
    let header = |(name, value): &(String, Option<Secret>)| {
        let name = HeaderName::try_from(name.as_str()).map_err(|_| bad(()))?;
        let value = value.as_ref().map(|text| HeaderValue::from_str(text.expose()).map_err(|_| bad(())));
        let mut value = value.transpose()?;
        if let Some(value) = &mut value {
            value.set_sensitive(true);
        }
        Ok((name, value))
    };
    ours.map(header).collect()
}

/// A path below a base: what the base ends in and the path begins with is there once.
pub(super) fn join(base: &str, path: &str) -> String {
    let parts = |text: &str| text.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let (base, path) = (parts(base), parts(path));
    let most = base.len().min(path.len());
    let overlap = (1..=most).rev().find(|length| base.ends_with(path.get(..*length).unwrap_or_default())).unwrap_or(0);
    base.iter().chain(path.iter().skip(overlap)).map(|part| format!("/{part}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamKind;
    use crate::dialect::Feature;

    fn upstream(json: &str) -> Upstream {
        let second = std::time::Duration::from_secs(1);
        let timeouts = Timeouts { connect: second, first_byte: second, idle: second, total: None };
        let described = config::Upstream::from_json(&serde_json::from_str(json).unwrap(), timeouts).unwrap();
        Upstream::new(&described, &Way::default()).unwrap()
    }

    #[test]
    fn what_base_and_path_share_is_there_once() {
        for (base, path, joined) in [
            ("/v1", "v1/chat/completions", "/v1/chat/completions"),
            ("/", "v1/chat/completions", "/v1/chat/completions"),
            ("", "chat/completions", "/chat/completions"),
            ("/v1/", "chat/completions", "/v1/chat/completions"),
            ("/api/v1", "api/v1/messages", "/api/v1/messages"),
            ("/v1/chat/completions", "v1/chat/completions", "/v1/chat/completions"),
            ("/v1beta/openai", "v1beta/openai/embeddings", "/v1beta/openai/embeddings"),
            ("/v2", "v1/chat/completions", "/v2/v1/chat/completions"),
            ("/proxy/v1", "v1/models/x:generateContent", "/proxy/v1/models/x:generateContent"),
        ] {
            assert_eq!(join(base, path), joined, "{base} {path}");
        }
    }

    #[test]
    fn each_kind_is_asked_in_its_own_way() {
        let chat = "chat/completions";
        for (entry, path, url, header) in [
            (r#""provider_type":"openai""#, chat, "https://api.openai.com/v1/chat/completions", "authorization"),
            (
                r#""base_url":"https://api.openai.com""#,
                chat,
                "https://api.openai.com/v1/chat/completions",
                "authorization",
            ),
            (r#""provider_type":"anthropic""#, "messages", "https://api.anthropic.com/v1/messages", "x-api-key"),
            (r#""provider_type":"anthropic""#, chat, "https://api.anthropic.com/v1/chat/completions", "authorization"),
            (
                r#""provider_type":"gemini""#,
                "models/g:generateContent",
                "https://generativelanguage.googleapis.com/v1beta/models/g:generateContent",
                "x-goog-api-key",
            ),
            (
                r#""provider_type":"gemini""#,
                chat,
                "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions",
                "authorization",
            ),
            (
                r#""provider_type":"azure","base_url":"https://r.openai.azure.com""#,
                chat,
                "https://r.openai.azure.com/openai/v1/chat/completions",
                "api-key",
            ),
            (
                r#""provider_type":"azure","base_url":"https://r.openai.azure.com/openai","api_version":"2024-10-21""#,
                chat,
                "https://r.openai.azure.com/openai/deployments/m/chat/completions?api-version=2024-10-21",
                "api-key",
            ),
            (r#""base_url":"https://a.example/v1""#, chat, "https://a.example/v1/chat/completions", "authorization"),
            (r#""base_url":"https://a.example""#, chat, "https://a.example/chat/completions", "authorization"),
            (r#""provider_type":"perplexity""#, chat, "https://api.perplexity.ai/chat/completions", "authorization"),
            (r#""base_url":"https://a.example/v1""#, "messages", "https://a.example/v1/messages", "x-api-key"),
            (
                r#""base_url":"https://a.example/v1""#,
                "models/g:generateContent",
                "https://a.example/v1beta/models/g:generateContent",
                "x-goog-api-key",
            ),
            (r#""provider_type":"openrouter""#, "messages", "https://openrouter.ai/api/v1/messages", "authorization"),
        ] {
            let upstream = upstream(&format!(r#"{{"name":"x","api_key":"0123456789",{entry}}}"#));
            let format = match path.split('/').next() {
                Some("messages") => WireFormat::Messages,
                Some("models") => WireFormat::Gemini,
                _ => WireFormat::ChatCompletions,
            };
            let ask = Ask::json(format, path, bytes::Bytes::new().into(), false);
            assert_eq!(upstream.url(&ask, "m").as_str(), url, "{entry}");
            let (name, value) = upstream.credential(format).unwrap().unwrap();
            assert_eq!(name.as_str(), header, "{entry}");
            assert!(value.is_sensitive() && upstream.leaks(value.as_bytes()));
        }
    }

    #[test]
    fn only_what_is_the_operators_to_set_is_overridden() {
        let upstream = upstream(
            r#"{"name":"x","base_url":"https://a.example","headers":{"Host":"b","content-length":"1","TE":"x",
            "Connection":null,"X-Title":"t","User-Agent":null,"X-Api-Token":"abcdefgh"}}"#,
        );
        let names: Vec<_> = upstream.overrides.iter().map(|(name, value)| (name.as_str(), value.is_some())).collect();
        assert_eq!(names.len(), 3);
        for expected in [("x-title", true), ("user-agent", false), ("x-api-token", true)] {
            assert!(names.contains(&expected), "{names:?}");
        }
        assert!(upstream.leaks(b"... abcdefgh ...") && !upstream.leaks(b"t"));
        assert_eq!(upstream.scrub("abcdefgh at https://a.example/v1"), "[removed] at https://[removed]/v1");
    }

    #[test]
    fn wire_formats_and_models_decide_what_is_served() {
        fn wanted(format: WireFormat, name: &str) -> Requirements<'_> {
            let names = Names { asked: name, id: name, forwarded: name };
            Requirements { format, names, tags: &[], needs: Needs::default(), kind: None }
        }
        let served = |name: &str| Ok(name.to_owned());
        let anthropic = upstream(r#"{"name":"x","provider_type":"anthropic"}"#);
        assert_eq!(anthropic.offers(&wanted(WireFormat::Messages, "anthropic/c")), served("c"));
        assert_eq!(anthropic.offers(&wanted(WireFormat::Embeddings, "anthropic/c")), Err(Unavailable::NotServed));
        assert_eq!(anthropic.offers(&wanted(WireFormat::Messages, "openai/c")), Err(Unavailable::Unserved));
        let generic = upstream(
            r#"{"name":"x","base_url":"https://a.example","protocols":["messages"],"tags":["eu","fast"],
            "capabilities":["streaming"]}"#,
        );
        assert_eq!(generic.label(), UpstreamKind::Generic.name());
        assert_eq!(generic.offers(&wanted(WireFormat::ChatCompletions, "c")), Err(Unavailable::NotServed));
        let plain = wanted(WireFormat::Messages, "a/c");
        assert_eq!(generic.offers(&plain), served("a/c"));
        for (tags, expected) in [(&["eu"][..], true), (&["fast", "eu"], true), (&["eu", "us"], false)] {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            assert_eq!(generic.offers(&Requirements { tags: &tags, ..plain }).is_ok(), expected, "{tags:?}");
        }
        for (feature, expected) in [(Feature::Streaming, true), (Feature::Tools, false)] {
            let needs = [feature].into_iter().collect();
            assert_eq!(generic.offers(&Requirements { needs, ..plain }).is_ok(), expected);
            assert!(
                anthropic.offers(&Requirements { needs, ..wanted(WireFormat::Messages, "anthropic/c") }).is_ok(),
                "not said: all"
            );
        }
    }
}
