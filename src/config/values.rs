//! Parsers of single values. Each gets the text and says what is wrong, never repeating it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ipnet::IpNet;
use rust_decimal::Decimal;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::{
    CallLimits, Choice, Feed, FeedKind, MintUnit, MissingUsage, PriceSource, PriceSourceKind, Purpose, Secret,
    Upstream, address,
};
use crate::dialect;
use crate::lnurl::Recipient;
use crate::money::amount::MAX_MSAT;
use crate::money::{Msat, Sat};

type Parsed<T> = Result<T, String>;

/// A year: enough for any wait, and far from where clocks overflow.
const MAX_SECONDS: u64 = 31_536_000;

pub(super) fn text(text: &str) -> Parsed<String> {
    Ok(text.to_owned())
}

pub(super) fn secret(text: &str) -> Parsed<Secret> {
    Ok(Secret::new(text.to_owned()))
}

/// The shortest token that is not to be guessed.
const BEARER_CHARS: usize = super::secret::KEY_CHARS;

/// Expected in an HTTP header.
pub(super) fn bearer_token(text: &str) -> Parsed<Secret> {
    if text.len() >= BEARER_CHARS && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return secret(text);
    }
    Err(format!("expected {BEARER_CHARS} visible ASCII characters or more"))
}

/// Such addresses carry a key more often than not.
pub(super) fn webhook_url(text: &str) -> Parsed<Secret> {
    address::parse(text).and_then(|url| secret(url.as_str()))
}

/// A key as Standard Webhooks writes it, or a text that is one.
pub(super) fn webhook_key(text: &str) -> Parsed<Secret> {
    let length = match text.strip_prefix("whsec_") {
        Some(encoded) => STANDARD_NO_PAD.decode(encoded.trim_end_matches('=')).map_or(0, |key| key.len()),
        None => text.len(),
    };
    if length >= BEARER_CHARS {
        return secret(text);
    }
    Err(format!("is not a key; expected whsec_ and base64, or {BEARER_CHARS} characters or more"))
}

/// A collector's address, and below it the place where traces go.
pub(super) fn collector(text: &str) -> Parsed<Url> {
    let mut url = address::base(text)?;
    let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

/// Headers as OpenTelemetry writes them in one line.
pub(super) fn headers(text: &str) -> Parsed<Vec<(String, Secret)>> {
    list(text, |entry| {
        let expected = || "is not a header; expected name=value".to_owned();
        let (name, value) = entry.split_once('=').ok_or_else(expected)?;
        let name = name.trim().to_ascii_lowercase();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let value: Option<String> =
            url::form_urlencoded::parse(format!("v={}", value.trim().replace('+', "%2B")).as_bytes())
                .next()
                .map(|(_, value)| value.into_owned());
        let value = value.filter(|value| value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(expected());
        }
        Ok((name, Secret::new(value.ok_or_else(expected)?)))
    })
}

/// Sent in an HTTP header.
pub(super) fn api_key(text: &str) -> Parsed<Secret> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return secret(text);
    }
    Err("holds a space, a line break or a non-ASCII letter; expected the key alone".to_owned())
}

/// A proxy for connections to an upstream. It may hold a user name and a password.
pub(super) fn proxy_url(text: &str) -> Parsed<Secret> {
    let known = |url: &Url| matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h") && url.has_host();
    match Url::parse(text) {
        Ok(url) if known(&url) => secret(text),
        _ if text == Upstream::BY_TOR => secret(text),
        _ => {
            Err("is not a proxy; expected tor, or http, https, socks5 or socks5h://[user:password@]host:port"
                .to_owned())
        }
    }
}

/// Whether to be in Tor, which not every build can.
pub(super) fn tor(text: &str) -> Parsed<bool> {
    match boolean(text)? {
        true if !cfg!(feature = "tor") => {
            Err("is not in this build; expected false, or a build with the feature tor".to_owned())
        }
        wanted => Ok(wanted),
    }
}

/// A SOCKS proxy that looks names up itself, however it is spelled: this machine must not ask others for
/// the address of what is reached through Tor.
pub(super) fn tor_proxy(text: &str) -> Parsed<Secret> {
    let text = text.replacen("socks5://", "socks5h://", 1);
    match Url::parse(&text) {
        Ok(url) if url.scheme() == "socks5h" && url.has_host() => secret(&text),
        _ => Err("is not the SOCKS port of a tor daemon; expected socks5h://[user:password@]host:port".to_owned()),
    }
}

pub(super) fn purposes(text: &str) -> Parsed<Vec<Purpose>> {
    let known = Purpose::ALL.map(Purpose::name).join(", ");
    list(text, |entry| Purpose::parse(entry).ok_or_else(|| format!("is nothing that connects; expected {known}")))
}

/// It goes into an address.
pub(super) fn api_version(text: &str) -> Parsed<String> {
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Ok(text.to_owned());
    }
    Err("is not a version; expected e.g. 2024-10-21".to_owned())
}

pub(super) fn choice(text: &str) -> Parsed<Choice> {
    match text {
        "weighted" => Ok(Choice::Weighted),
        "cheapest" => Ok(Choice::Cheapest),
        "round_robin" => Ok(Choice::RoundRobin),
        _ => Err("is none of the three; expected weighted, cheapest or round_robin".to_owned()),
    }
}

pub(super) fn attempts(text: &str) -> Parsed<usize> {
    whole(text, 1..=20)
}

/// 0: not at all.
pub(super) fn queue_time(text: &str) -> Parsed<Duration> {
    whole(text, 0..=300).map(Duration::from_secs)
}

/// 0: never.
pub(super) fn failures(text: &str) -> Parsed<u32> {
    whole(text, 0..=1000)
}

pub(super) fn password(text: &str) -> Parsed<Secret> {
    super::check_password(text)?;
    secret(text)
}

/// The contents of the file, without the spaces and line breaks around them.
pub(super) fn secret_file(path: &str) -> Parsed<Secret> {
    let contents = std::fs::read_to_string(path)
        .map_err(|error| format!("the file cannot be read ({}); expected the path of a text file", error.kind()))?;
    match contents.trim() {
        "" => Err("the file is empty; expected the key in it".to_owned()),
        key => secret(key),
    }
}

/// Long enough that nobody tries all of them.
pub(super) fn passphrase(text: &str) -> Parsed<Secret> {
    if text.chars().count() >= 12 { secret(text) } else { Err("is short; expected at least 12 characters".to_owned()) }
}

/// The contents of the file, without the spaces and line breaks around them.
pub(super) fn passphrase_file(path: &str) -> Parsed<Secret> {
    passphrase(secret_file(path)?.expose())
}

pub(super) fn copies(text: &str) -> Parsed<u64> {
    let keep = text.parse().ok().filter(|keep| *keep <= 10_000);
    keep.ok_or_else(|| "is not a whole number in range; expected 0 to 10000".to_owned())
}

pub(super) fn database_url(text: &str) -> Parsed<Secret> {
    let expected = "expected sqlite:path or postgres://user:password@host/name";
    if text.starts_with("sqlite+") {
        return Err(format!(
            "is an address for the Python node, whose database coinslot cannot use; {expected}, \
             or nothing for SQLite in DATA_DIR"
        ));
    }
    if let Some(path) = text.strip_prefix("sqlite:") {
        if path.contains(":memory:") || path.contains("mode=memory") {
            return Err(format!("would forget all money at a restart; {expected}"));
        }
        let named = !path.trim_start_matches('/').is_empty();
        return if named { secret(text) } else { Err(format!("names no file; {expected}")) };
    }
    let postgres = text.starts_with("postgres://") || text.starts_with("postgresql://");
    if postgres && Url::parse(text).is_ok() {
        return secret(text);
    }
    Err(format!("is not a database address; {expected}"))
}

pub(super) fn host(text: &str) -> Parsed<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address = if bare == "localhost" { "127.0.0.1" } else { bare };
    address
        .parse()
        .map_err(|_| "is not an IP address; expected e.g. 127.0.0.1, or 0.0.0.0 for all interfaces".to_owned())
}

pub(super) fn listener(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| "is no address with a port; expected e.g. 127.0.0.1:8001".to_owned())
}

/// Where people reach the node: as it was written, since what is published and pasted begins with it.
pub(super) fn own_url(text: &str) -> Parsed<String> {
    let is_web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    // Without one it is not given.
    if text.is_empty() || text.contains("://") && Url::parse(text).is_ok_and(|url| is_web(&url)) {
        return Ok(text.to_owned());
    }
    Err("is not a web address; expected https://host[:port][/path]".to_owned())
}

pub(super) fn boolean(text: &str) -> Parsed<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("is neither yes nor no; expected true or false".to_owned()),
    }
}

pub(super) fn whole<T: TryFrom<u64>>(text: &str, range: RangeInclusive<u64>) -> Parsed<T> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number.filter(|number| range.contains(number)).and_then(|n| T::try_from(n).ok()).ok_or_else(|| {
        let (low, high) = (range.start(), range.end());
        format!("is not a whole number in range; expected {low} to {high}")
    })
}

pub(super) fn port(text: &str) -> Parsed<u16> {
    whole(text, 0..=65_535)
}

pub(super) fn body_limit(text: &str) -> Parsed<usize> {
    whole(text, 1024..=1 << 40)
}

/// Whether ecash of foreign mints is swapped.
pub(super) fn foreign_mints(text: &str) -> Parsed<bool> {
    match text.to_ascii_lowercase().as_str() {
        "swap" => Ok(true),
        "refuse" => Ok(false),
        _ => Err("is neither of the two; expected refuse or swap".to_owned()),
    }
}

pub(super) fn ladder_coins(text: &str) -> Parsed<usize> {
    whole(text, 0..=8)
}

pub(super) fn feed_count(text: &str) -> Parsed<usize> {
    whole(text, 1..=100)
}

pub(super) fn concurrency(text: &str) -> Parsed<usize> {
    whole(text, 1..=1024)
}

pub(super) fn seconds(text: &str) -> Parsed<Duration> {
    whole(text, 1..=MAX_SECONDS).map(Duration::from_secs)
}

/// A process says every sixth of it that it is alive, which a busy database may hold up a little.
pub(super) fn node_timeout(text: &str) -> Parsed<Duration> {
    whole(text, 5..=3600).map(Duration::from_secs)
}

/// 0: never.
pub(super) fn seconds_or_never(text: &str) -> Parsed<Option<Duration>> {
    let seconds: u64 = whole(text, 0..=MAX_SECONDS)?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

/// 0: never.
pub(super) fn days_or_never(text: &str) -> Parsed<Option<Duration>> {
    const DAY: u64 = 24 * 60 * 60;
    let days: u64 = whole(text, 0..=MAX_SECONDS / DAY * 10)?;
    Ok((days > 0).then(|| Duration::from_secs(days.saturating_mul(DAY))))
}

/// 0: any number.
pub(super) fn count_or_any(text: &str) -> Parsed<Option<usize>> {
    let count: usize = whole(text, 0..=1_000_000)?;
    Ok((count > 0).then_some(count))
}

/// 0: any amount.
pub(super) fn amount_or_any(text: &str) -> Parsed<Option<u64>> {
    let amount: u64 = whole(text, 0..=1_000_000_000_000)?;
    Ok((amount > 0).then_some(amount))
}

pub(super) fn percent(text: &str) -> Parsed<u8> {
    whole(text, 0..=100)
}

pub(super) fn sats(text: &str) -> Parsed<Msat> {
    whole(text, 1..=MAX_MSAT / 1000).map(|sats| Sat::new(sats).unwrap_or_default().to_msat())
}

pub(super) fn recipient(text: &str) -> Parsed<String> {
    match Recipient::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("is neither a Lightning address nor an LNURL; expected e.g. you@example.com".to_owned()),
    }
}

pub(super) fn msat(text: &str) -> Parsed<Msat> {
    whole(text, 0..=MAX_MSAT).map(|number| Msat::new(number).unwrap_or_default())
}

fn decimal(text: &str) -> Option<Decimal> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if plain { Decimal::from_str_exact(text).ok() } else { None }
}

pub(super) fn from_zero(text: &str, high: u64) -> Parsed<Decimal> {
    decimal(text)
        .filter(|number| *number <= Decimal::from(high))
        .ok_or_else(|| format!("is not a number in range; expected 0 to {high}"))
}

fn above_zero(text: &str, high: u64) -> Parsed<Decimal> {
    decimal(text)
        .filter(|number| *number > Decimal::ZERO && *number <= Decimal::from(high))
        .ok_or_else(|| format!("is not a number in range; expected more than 0, up to {high}"))
}

/// Sats, with a fraction if need be.
pub(super) fn price(text: &str) -> Parsed<Decimal> {
    from_zero(text, 100_000_000)
}

/// USD for one token, also as `2e-6`.
pub(super) fn token_price(text: &str) -> Parsed<Decimal> {
    let number = Decimal::from_scientific(text).or_else(|_| text.parse());
    let number = number.ok().filter(|price| *price > Decimal::ZERO && *price <= Decimal::new(1, 2));
    number.ok_or_else(|| "is not the price of a token; expected USD for one, e.g. 0.000002".to_owned())
}

/// A factor.
pub(super) fn fee(text: &str) -> Parsed<Decimal> {
    above_zero(text, 100)
}

pub(super) fn tolerance(text: &str) -> Parsed<Decimal> {
    from_zero(text, 50)
}

pub(super) fn btc_usd(text: &str) -> Parsed<Decimal> {
    above_zero(text, 1_000_000_000_000)
}

pub(super) fn unit(text: &str) -> Parsed<MintUnit> {
    MintUnit::parse(text).ok_or_else(|| "is not a unit; expected sat or msat".to_owned())
}

pub(super) fn missing_usage(text: &str) -> Parsed<MissingUsage> {
    match text {
        "estimate" => Ok(MissingUsage::Estimate),
        "max" => Ok(MissingUsage::Max),
        "free" => Ok(MissingUsage::Free),
        _ => Err("is not one of the three; expected estimate, max or free".to_owned()),
    }
}

/// Whether everything is synced.
pub(super) fn durability(text: &str) -> Parsed<bool> {
    match text {
        "strict" => Ok(true),
        "normal" => Ok(false),
        _ => Err("is neither of the two; expected normal or strict".to_owned()),
    }
}

/// A secret key pasted here would be published.
pub(super) fn npub(text: &str) -> Parsed<String> {
    let key = text.strip_prefix("npub1").unwrap_or_default();
    if key.len() == 58 && key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(text.to_owned());
    }
    Err("is not a public Nostr key; expected npub1 and 58 letters and digits".to_owned())
}

/// Whose they are is found out where keys are understood.
pub(super) fn npubs(text: &str) -> Parsed<Vec<String>> {
    list(text, npub)
}

/// Its letters only; whether it is a key is found out where keys are understood.
pub(super) fn nsec(text: &str) -> Parsed<Secret> {
    let hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let key = text.strip_prefix("nsec1").unwrap_or_default();
    if hex || key.len() == 58 && key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return secret(text);
    }
    Err("is not a secret Nostr key; expected nsec1 and 58 letters and digits, or 64 hexadecimal digits".to_owned())
}

/// Python's names of the levels are understood too.
pub(super) fn log_level(text: &str) -> Parsed<String> {
    let lower = text.to_ascii_lowercase();
    let valid = match lower.as_str() {
        "off" | "error" | "warn" | "info" | "debug" | "trace" => return Ok(lower),
        "warning" => return Ok("warn".to_owned()),
        "critical" => return Ok("error".to_owned()),
        // A single other word would be taken for the name of a module, and silence the rest.
        filter if filter.contains(['=', ',']) => EnvFilter::builder().with_regex(false).parse(text).is_ok(),
        _ => false,
    };
    if valid {
        return Ok(text.to_owned());
    }
    Err("is not a log level; expected off, error, warn, info, debug, trace, or a filter such as \
         info,coinslot=debug"
        .to_owned())
}

/// Whether JSON.
pub(super) fn log_format(text: &str) -> Parsed<bool> {
    match text {
        "json" => Ok(true),
        "pretty" => Ok(false),
        _ => Err("is neither of the two; expected pretty or json".to_owned()),
    }
}

/// The protocols of at least one vendor.
pub(super) fn protocols(text: &str) -> Parsed<Vec<dialect::Protocol>> {
    let known = |name: &str| {
        dialect::Protocol::parse(name).ok_or_else(|| "is not known; expected openai, anthropic or gemini".to_owned())
    };
    match list(text, known)? {
        none if none.is_empty() => Err("has nothing in it; expected some of openai, anthropic and gemini".to_owned()),
        some => Ok(some),
    }
}

/// The entries of a comma list; a fault says which entry it is in.
fn list<T: PartialEq>(text: &str, parse: impl Fn(&str) -> Parsed<T>) -> Parsed<Vec<T>> {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    for (number, entry) in (1..).zip(entries) {
        match parse(entry) {
            Ok(item) if !found.contains(&item) => found.push(item),
            Ok(_) => {}
            Err(problem) => problems.push(format!("entry {number} {problem}")),
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems.join("; ")) }
}

/// Addresses, and networks as an address and the length of its prefix.
pub(super) fn networks(text: &str) -> Parsed<Vec<IpNet>> {
    let network = |entry: &str| {
        let address = entry.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
        address.ok().or_else(|| entry.parse::<IpNet>().ok()).map(|network| network.trunc())
    };
    list(text, |entry| {
        network(entry)
            .ok_or_else(|| "is no address; expected one like 10.1.2.3, or a network like 10.0.0.0/8".to_owned())
    })
}

pub(super) fn mint_urls(text: &str) -> Parsed<Vec<String>> {
    list(text, address::mint_url)
}

/// Relays are asked one by one, often.
const MAX_RELAYS: usize = 16;

pub(super) fn relays(text: &str) -> Parsed<Vec<String>> {
    let relays = list(text, address::relay_url)?;
    if relays.len() > MAX_RELAYS {
        return Err(format!("names {} relays; expected {MAX_RELAYS} at most", relays.len()));
    }
    Ok(relays)
}

/// Part of an address that others write between colons.
pub(super) fn provider_id(text: &str) -> Parsed<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.len() <= 64 && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err("is not a name; expected at most 64 letters, digits, - _ or .".to_owned())
}

/// A number for all, and one for each mint that is named.
pub(super) fn call_limits(text: &str) -> Parsed<CallLimits> {
    const MOST: u64 = 100_000;
    const DEFAULT: u32 = 20;
    let entries = list(text, |entry| match entry.rsplit_once('=') {
        Some((url, calls)) => Ok((Some(address::mint_url(url.trim_end())?), whole(calls.trim_start(), 0..=MOST)?)),
        None => Ok((None, whole(entry, 0..=MOST)?)),
    })?;
    let mut limits = CallLimits { public: DEFAULT, named: BTreeMap::new() };
    for (url, calls) in entries {
        match url {
            Some(url) => drop(limits.named.insert(url, calls)),
            None => limits.public = calls,
        }
    }
    Ok(limits)
}

pub(super) fn feeds(text: &str) -> Parsed<Vec<Feed>> {
    let feeds = list(text, |entry| {
        let (name, url) = match entry.split_once('=') {
            Some((name, url)) => (name.trim_end(), Some(url.trim_start())),
            None => (entry, None),
        };
        let kind = FeedKind::parse(name).ok_or_else(|| {
            let known = FeedKind::ALL.map(FeedKind::name).join(", ");
            format!("is not a known source; expected {known}, each alone or with =https://…")
        })?;
        Ok(Feed { kind, url: url.map(address::parse).transpose()? })
    })?;
    if feeds.is_empty() {
        return Err("names no source; expected at least one, e.g. kraken".to_owned());
    }
    Ok(feeds)
}

/// Each kind once: what a source says is kept under the name of its kind.
pub(super) fn price_sources(text: &str) -> Parsed<Vec<PriceSource>> {
    let sources = list(text, |entry| {
        let (name, url) = match entry.split_once('=') {
            Some((name, url)) => (name.trim_end(), Some(url.trim_start())),
            None => (entry, None),
        };
        let kind = PriceSourceKind::parse(name)
            .ok_or("is not a known source; expected openrouter, litellm (each alone or with =https://…), upstreams")?;
        if kind == PriceSourceKind::Upstreams && url.is_some() {
            return Err("has an address; expected upstreams alone, whose lists are at their own".to_owned());
        }
        Ok(PriceSource { kind, url: url.map(address::parse).transpose()? })
    })?;
    let twice = |(at, one): (usize, &PriceSource)| {
        sources.iter().skip(at.saturating_add(1)).any(|other| other.kind == one.kind)
    };
    match sources.iter().enumerate().any(twice) {
        true => Err("names a source twice; expected each once".to_owned()),
        false => Ok(sources),
    }
}

/// Empty when any origin may call.
pub(super) fn origins(text: &str) -> Parsed<Vec<String>> {
    let origins = list(text, |entry| if entry == "*" { Ok("*".to_owned()) } else { origin(entry) })?;
    Ok(if origins.iter().any(|origin| origin == "*") { Vec::new() } else { origins })
}

/// As browsers send it: scheme, host and port. Apps have schemes of their own.
fn origin(text: &str) -> Parsed<String> {
    let url = Url::parse(text).ok().filter(|url| {
        let bare = matches!(url.path(), "" | "/") && url.query().is_none();
        let nobody = url.username().is_empty() && url.password().is_none();
        bare && nobody && url.fragment().is_none() && url.has_host() && text.contains("://") && !text.contains('*')
    });
    let url = url.ok_or("is not an origin; expected scheme://host[:port] without a path, or * alone")?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}
