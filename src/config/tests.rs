//! The reader as a whole: one row per setting, one row per fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use super::read::Reader;
use super::{Config, Purpose, SETTINGS};

fn vars(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn read(pairs: &[(&str, &str)]) -> Config {
    Config::from_vars(&vars(pairs)).unwrap()
}

fn lines(pairs: &[(&str, &str)]) -> Vec<String> {
    let faults = Config::from_vars(&vars(pairs)).unwrap_err();
    faults.to_string().lines().map(str::to_owned).collect()
}

fn show(value: &dyn Debug) -> String {
    format!("{value:?}")
}

/// Spelling, value given, field it ends up in, what the field then shows.
type Row = (&'static str, &'static str, fn(&Config) -> String, &'static str);

fn secret(secret: Option<&super::Secret>) -> String {
    secret.unwrap().expose().to_owned()
}

/// Name, kind and key of each upstream.
fn upstreams(config: &Config) -> String {
    let show = |upstream: &super::Upstream| {
        let key = upstream.api_key.as_ref().map_or("-", |key| key.expose());
        format!("{} {} {key}", upstream.name, upstream.kind.name())
    };
    config.upstreams.listed.iter().map(show).collect::<Vec<_>>().join("; ")
}

macro_rules! field {
    ($($path:ident).+) => {
        |config| show(&config.$($path).+)
    };
}

const NPUB: &str = "npub1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("HOST", "::1", field!(server.host), "::1"),
    ("HOST", "localhost", field!(server.host), "127.0.0.1"),
    ("PORT", " 0 ", field!(server.port), "0"),
    ("CORS_ORIGINS", "https://A.example/, app://x", field!(server.cors_origins), r#"["https://a.example", "app://x"]"#),
    ("CORS_ORIGINS", "https://a.example,*", field!(server.cors_origins), "[]"),
    ("TRUSTED_PROXIES", "127.0.0.1, fd00::/8,10.1.2.3/8", field!(server.trusted_proxies), "[127.0.0.1/32, fd00::/8, 10.0.0.0/8]"),
    ("MAX_BODY_BYTES", "1024", field!(server.max_body_bytes), "1024"),
    ("MAX_BUFFERED_BYTES", "1024", field!(server.max_buffered_bytes), "1024"),
    ("MAX_KEPT_BYTES", "1024", field!(server.max_kept_bytes), "1024"),
    ("SHUTDOWN_TIMEOUT_SECONDS", "1", field!(server.shutdown_timeout), "1s"),
    ("NAME", "My node", field!(info.name), "\"My node\""),
    ("DESCRIPTION", "sells", field!(info.description), "\"sells\""),
    ("NPUB", NPUB, |config| config.info.npub.clone(), NPUB),
    ("HTTP_URL", "https://n.example", field!(info.http_url), "\"https://n.example\""),
    ("ONION_URL", "http://n.onion", field!(info.onion_url), "\"http://n.onion\""),
    ("RELAYS", "wss://A.example/, wss://a.example,ws://127.0.0.1:7", field!(nostr.relays), r#"["wss://a.example", "ws://127.0.0.1:7"]"#),
    ("PROVIDER_ID", "west-1", field!(nostr.provider_id), "Some(\"west-1\")"),
    ("NOSTR_HANDLER", "true", field!(nostr.handler), "true"),
    ("PROVIDERS_REFRESH_INTERVAL_SECONDS", "60", field!(nostr.refresh_interval), "Some(60s)"),
    ("PROVIDERS_REFRESH_INTERVAL_SECONDS", "0", field!(nostr.refresh_interval), "None"),
    ("DATA_DIR", "/d", field!(storage.data_dir), "\"/d\""),
    ("DATABASE_URL", "sqlite://x.db", |config| secret(config.storage.database_url.as_ref()), "sqlite://x.db"),
    ("DATABASE_URL", "postgresql://u:p@h/n", |config| secret(config.storage.database_url.as_ref()), "postgresql://u:p@h/n"),
    ("DURABILITY", "strict", field!(storage.strict), "true"),
    ("SECRET_KEY", "k", |config| secret(config.storage.secret_key.as_ref()), "k"),
    ("ROUTSTR_SECRET_KEY", "k", |config| secret(config.storage.secret_key.as_ref()), "k"),
    ("BACKUP_PASSPHRASE", "a long phrase", |config| secret(config.backups.passphrase.as_ref()), "a long phrase"),
    ("SNAPSHOTS_KEEP", "0", field!(backups.keep), "0"),
    ("RETENTION_REQUESTS_DAYS", "1", field!(storage.retention.requests), "Some(86400s)"),
    ("RETENTION_FAILED_DAYS", "0", field!(storage.retention.failed), "None"),
    ("UPSTREAM_CONNECT_TIMEOUT_SECONDS", "3", field!(upstreams.timeouts.connect), "3s"),
    ("UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS", "4", field!(upstreams.timeouts.first_byte), "4s"),
    ("UPSTREAM_IDLE_TIMEOUT_SECONDS", "5", field!(upstreams.timeouts.idle), "5s"),
    ("UPSTREAM_TOTAL_TIMEOUT_SECONDS", "6", field!(upstreams.timeouts.total), "Some(6s)"),
    ("UPSTREAM_CHOICE", "cheapest", field!(upstreams.choice), "Cheapest"),
    ("UPSTREAM_MAX_ATTEMPTS", "2", field!(upstreams.max_attempts), "2"),
    (
        "UPSTREAM_RETRY_STATUSES",
        "400, 5xx",
        field!(upstreams.retried),
        "Statuses([400..=400, 500..=599])",
    ),
    ("UPSTREAM_ERRORS_VERBOSE", "true", field!(upstreams.verbose_errors), "true"),
    ("UPSTREAM_BREAKER_FAILURES", "0", field!(upstreams.breaker_failures), "0"),
    ("UPSTREAM_QUEUE_SECONDS", "0", field!(upstreams.queue_time), "0ns"),
    ("UPSTREAM_PROBE_SECONDS", "60", field!(upstreams.probe_interval), "Some(60s)"),
    ("UPSTREAMS", r#"[{"name":"b","base_url":"https://b.example"}]"#, upstreams, "default generic -; b generic -"),
    ("CHAT_COMPLETIONS_API_VERSION", "2024-10-21", upstreams, "default azure -"),
    ("OPENAI_API_KEY", "k", upstreams, "default generic -; openai openai k"),
    ("ANTHROPIC_API_KEY", "k", upstreams, "default generic -; anthropic anthropic k"),
    ("OPENROUTER_API_KEY", "k", upstreams, "default generic -; openrouter openrouter k"),
    ("GROQ_API_KEY", "k", upstreams, "default generic -; groq groq k"),
    ("GEMINI_API_KEY", "k", upstreams, "default generic -; gemini gemini k"),
    ("PERPLEXITY_API_KEY", "k", upstreams, "default generic -; perplexity perplexity k"),
    ("FIREWORKS_API_KEY", "k", upstreams, "default generic -; fireworks fireworks k"),
    ("XAI_API_KEY", "k", upstreams, "default generic -; xai xai k"),
    ("OLLAMA_BASE_URL", "http://127.0.0.1:11434", upstreams, "default generic -; ollama ollama -"),
    ("OLLAMA_API_KEY", "k", upstreams, "default generic -; ollama ollama k"),
    ("UPSTREAM_BASE_URL", "https://API.example/v1/", |config| config.upstreams.listed[0].base_url.as_ref().unwrap().to_string(), "https://api.example/v1"),
    ("UPSTREAM_API_KEY", "sk-1", |config| secret(config.upstreams.listed[0].api_key.as_ref()), "sk-1"),
    ("CASHU_MINTS", "https://a.example/,https://A.example,, https://b.example/B", field!(mints.urls), r#"["https://a.example", "https://b.example/B"]"#),
    ("MINT", "https://a.example", field!(mints.urls), r#"["https://a.example"]"#),
    ("PRIMARY_MINT_URL", "https://p.example", field!(mints.urls), r#"["https://p.example"]"#),
    ("PRIMARY_MINT_UNIT", "msat", field!(mints.unit), "Msat"),
    ("CURRENCY", "MSAT", field!(mints.unit), "Msat"),
    ("MINT_OPERATION_TIMEOUT_SECONDS", "7", field!(mints.timeout), "7s"),
    ("MINT_MAX_CONCURRENCY", "8", field!(mints.max_concurrency), "8"),
    ("MINT_OPERATION_CONCURRENCY", "9", field!(mints.max_concurrency), "9"),
    ("MINT_CALLS_PER_MINUTE", "60", field!(mints.calls_per_minute), "CallLimits { public: 60, named: {} }"),
    ("MINT_CALLS_PER_MINUTE", "https://A.example/ = 5, http://127.0.0.1:3338=7", field!(mints.calls_per_minute), r#"CallLimits { public: 20, named: {"http://127.0.0.1:3338": 7, "https://a.example": 5} }"#),
    ("FOREIGN_MINTS", "swap", field!(mints.foreign_fee_percent), "Some(5)"),
    ("FOREIGN_MINT_MAX_FEE_PERCENT", "3", field!(mints.foreign_fee_percent), "None"),
    ("CHANGE_LADDER_COINS", "0", field!(mints.ladder_coins), "0"),
    ("MODELS_PATH", "m.json", field!(pricing.models_path), "\"m.json\""),
    ("MODEL_BASED_PRICING", "Yes", field!(pricing.model_based), "Some(true)"),
    ("MODEL_BASED_PRICING", "off", field!(pricing.model_based), "Some(false)"),
    ("FIXED_PRICING", "true", field!(pricing.model_based), "Some(false)"),
    ("FIXED_PRICING", "0", field!(pricing.model_based), "Some(true)"),
    ("COST_PER_REQUEST", "0.5", field!(pricing.cost_per_request), "0.5"),
    ("FIXED_COST_PER_REQUEST", "2", field!(pricing.cost_per_request), "2"),
    ("COST_PER_1K_INPUT_TOKENS", "3", field!(pricing.cost_per_1k_input), "3"),
    ("FIXED_PER_1K_INPUT_TOKENS", "4", field!(pricing.cost_per_1k_input), "4"),
    ("COST_PER_1K_OUTPUT_TOKENS", "5", field!(pricing.cost_per_1k_output), "5"),
    ("FIXED_PER_1K_OUTPUT_TOKENS", "6", field!(pricing.cost_per_1k_output), "6"),
    ("EXCHANGE_FEE", "0.99", field!(pricing.exchange_fee), "0.99"),
    ("UPSTREAM_PROVIDER_FEE", "100", field!(pricing.provider_fee), "100"),
    ("TOLERANCE_PERCENTAGE", "0", field!(pricing.tolerance_percent), "0"),
    ("MIN_REQUEST_MSAT", "0", field!(pricing.min_request), "Msat(0)"),
    ("CHILD_KEY_COST", "7", field!(pricing.child_key_cost), "Msat(7)"),
    ("MISSING_USAGE", "max", field!(pricing.missing_usage), "Max"),
    ("MISSING_USAGE", "free", field!(pricing.missing_usage), "Free"),
    ("BTC_USD_FIXED", "64000.5", field!(pricing.btc_usd_fixed), "Some(64000.5)"),
    ("BTC_USD_FEEDS", "mempool, Kraken = http://127.0.0.1:9/t?pair=XBTUSD", |config| {
        let show = |feed: &super::Feed| format!("{} {}", feed.kind.name(), feed.url.as_ref().map_or("-", |url| url.as_str()));
        config.pricing.feeds.iter().map(show).collect::<Vec<_>>().join("; ")
    }, "mempool -; kraken http://127.0.0.1:9/t?pair=XBTUSD"),
    ("BTC_USD_MAX_AGE", "10", field!(pricing.rate.max_age), "10s"),
    ("BTC_USD_MIN_FEEDS", "3", field!(pricing.rate.min_feeds), "3"),
    ("BTC_USD_MAX_SPREAD_PERCENT", "4", field!(pricing.rate.max_spread_percent), "4"),
    ("BTC_USD_GRACE_SECONDS", "900", field!(pricing.rate.grace), "Some(900s)"),
    ("BTC_USD_GRACE_MARGIN_PERCENT", "7", field!(pricing.rate.grace_margin_percent), "7"),
    ("PRICING_REFRESH_INTERVAL_SECONDS", "11", field!(pricing.refresh_interval), "11s"),
    ("PRICING_REFRESH_INTERVAL", "12", field!(pricing.refresh_interval), "12s"),
    ("PRICE_SOURCES", "upstreams, LiteLLM=https://l.example/t.json", |config| config.pricing.sources.iter().map(|one| format!("{} {}", one.kind.name(), one.url.as_ref().map_or("-", url::Url::as_str))).collect::<Vec<_>>().join("; "), "upstreams -; litellm https://l.example/t.json"),
    ("MODELS_REFRESH_INTERVAL_SECONDS", "9", field!(pricing.models_interval), "9s"),
    ("PRICING_REFRESH_INTERVAL_SECONDS", "11", field!(pricing.models_interval), "11s"),
    ("BTC_USD_MAX_AGE", "11", field!(pricing.models_interval), "3600s"),
    ("NODE_TIMEOUT_SECONDS", "5", field!(storage.node_timeout), "5s"),
    ("RECEIVE_LN_ADDRESS", "me@example.com", field!(payouts.recipient), "Some(\"me@example.com\")"),
    ("MINIMUM_PAYOUT", "210", field!(payouts.minimum), "Msat(210000)"),
    ("MIN_PAYOUT_SAT", "1", field!(payouts.minimum), "Msat(1000)"),
    ("PAYOUT_INTERVAL", "13", field!(payouts.interval), "13s"),
    ("PAYOUT_INTERVAL_SECONDS", "14", field!(payouts.interval), "14s"),
    ("REFUND_PROCESSING_INTERVAL", "15", field!(payouts.expiry_interval), "Some(15s)"),
    ("REFUND_PROCESSING_INTERVAL", "0", field!(payouts.expiry_interval), "None"),
    ("LIGHTNING_MAX_FEE_PERCENT", "4", field!(payouts.max_fee_percent), "4"),
    ("CHANGE_CLAIM_DAYS", "1", field!(payouts.claim_time), "Some(86400s)"),
    ("CHANGE_CLAIM_DAYS", "0", field!(payouts.claim_time), "None"),
    ("INVOICE_CREATES_PER_HOUR", "3", field!(clients.creates_per_hour), "Some(3)"),
    ("INVOICE_MAX_PENDING", "0", field!(clients.max_pending), "None"),
    ("VOUCHER_TRIES_PER_HOUR", "4", field!(clients.wrong_vouchers_per_hour), "Some(4)"),
    ("QUOTES_PER_MINUTE", "9", field!(clients.quotes_per_minute), "Some(9)"),
    ("KEY_REQUESTS_PER_MINUTE", "60", field!(key_limits.requests_per_minute), "Some(60)"),
    ("KEY_TOKENS_PER_MINUTE", "0", field!(key_limits.tokens_per_minute), "None"),
    ("KEY_MAX_STREAMS", "4", field!(key_limits.max_streams), "Some(4)"),
    ("SSE_KEEP_ALIVE_SECONDS", "7", field!(server.keep_alive), "Some(7s)"),
    ("SSE_KEEP_ALIVE_SECONDS", "0", field!(server.keep_alive), "None"),
    ("MAINTENANCE", "on", field!(server.maintenance), "Some(true)"),
    ("NSEC", "0000000000000000000000000000000000000000000000000000000000000001", |config| secret(config.nostr.nsec.as_ref()), "0000000000000000000000000000000000000000000000000000000000000001"),
    ("PROTOCOLS", "gemini, Claude", field!(server.protocols), "[Gemini, Anthropic]"),
    ("ACCEPT_NEW_TOKENS", "false", field!(server.takes_money), "false"),
    ("ADMIN_PASSWORD", " a pass word ", |config| secret(config.admin.password.as_ref()), " a pass word "),
    ("ADMIN_NPUBS", "npub10xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqpkge6d", field!(admin.npubs), "[\"npub10xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqpkge6d\"]"),
    ("ADMIN_LISTEN", "[::1]:8001", field!(admin.listen), "Some([::1]:8001)"),
    ("METRICS_TOKEN", " a-metrics-token-of-16 ", |config| secret(config.admin.metrics_token.as_ref()), "a-metrics-token-of-16"),
    ("ALERT_WEBHOOK_URL", "https://10.0.0.7/hook?k=1", |config| secret(config.alerts.webhook_url.as_ref()), "https://10.0.0.7/hook?k=1"),
    ("ALERT_WEBHOOK_SECRET", "whsec_MDEyMzQ1Njc4OWFiY2RlZg==", |config| secret(config.alerts.webhook_key.as_ref()), "whsec_MDEyMzQ1Njc4OWFiY2RlZg=="),
    ("ALERT_NPUB", NPUB, |config| config.alerts.npub.clone().unwrap(), NPUB),
    ("ALERT_REPEAT_SECONDS", "0", field!(alerts.repeat), "None"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318/", |config| config.traces.url.clone().unwrap().into(), "http://127.0.0.1:4318/v1/traces"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=a%20b+c, x=y", |config| config.traces.headers.iter().map(|(name, value)| format!("{name}: {}; ", value.expose())).collect(), "api-key: a b+c; x: y; "),
    ("OTEL_SERVICE_NAME", "slot 1", |config| config.traces.service.clone(), "slot 1"),
    ("TOR_CONFIG", "tor.toml", field!(tor.config), "Some(\"tor.toml\")"),
    ("TOR_PROXY_URL", "socks5://t:9050", |config| secret(config.tor.proxy.as_ref()), "socks5h://t:9050"),
    ("LOG_LEVEL", "WARNING", field!(log.level), "\"warn\""),
    ("LOG_LEVEL", "info,coinslot=debug", field!(log.level), "\"info,coinslot=debug\""),
    ("LOG_FORMAT", "json", field!(log.json), "true"),
];

#[test]
fn every_setting_reaches_its_field() {
    for (name, value, field, expected) in ROWS {
        let mut given = vars(&[("UPSTREAM_BASE_URL", "https://u.example"), (name, value)]);
        given.insert((*name).to_owned(), (*value).to_owned());
        let config = Config::from_vars(&given).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(field(&config), *expected, "{name}={value}");
    }
    let covered: BTreeSet<_> = ROWS.iter().map(|row| row.0).chain(tested_apart()).collect();
    let listed = SETTINGS.iter().flat_map(super::Setting::spellings).collect();
    assert_eq!(covered, listed);
}

/// They need a file ([`a_key_may_come_from_a_file`]), or each other ([`what_goes_through_tor_is_named`]).
fn tested_apart() -> impl Iterator<Item = &'static str> {
    FROM_FILES.into_iter().chain(["TOR", "TOR_FOR"])
}

const FROM_FILES: [&str; 3] = ["SECRET_KEY_FILE", "ROUTSTR_SECRET_KEY_FILE", "BACKUP_PASSPHRASE_FILE"];

#[test]
fn the_reader_asks_for_exactly_the_settings_of_the_table() {
    let nothing = BTreeMap::new();
    let mut reader = Reader::new(&nothing);
    assert!(reader.config().is_some());
    let asked: BTreeSet<_> = reader.asked.iter().copied().collect();
    let listed: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.name).collect();
    assert_eq!(asked, listed);
}

#[test]
fn without_settings_the_documented_defaults_hold() {
    let config = read(&[]);
    assert_eq!(
        show(&config.server),
        "Server { host: 127.0.0.1, port: 8000, cors_origins: [], trusted_proxies: [], max_body_bytes: 33554432, \
         max_buffered_bytes: 268435456, max_kept_bytes: 1073741824, shutdown_timeout: 30s, keep_alive: Some(15s), \
         maintenance: None, protocols: [OpenAi, Anthropic, Gemini], takes_money: true }"
    );
    assert_eq!(
        show(&config.storage),
        r#"Storage { data_dir: "./data", database_url: None, strict: false, node_timeout: 90s, secret_key: None, retention: Retention { requests: Some(7776000s), failed: Some(604800s) } }"#
    );
    assert_eq!(
        show(&config.mints),
        "Mints { urls: [], unit: Sat, timeout: 30s, max_concurrency: 4, \
         calls_per_minute: CallLimits { public: 20, named: {} }, foreign_fee_percent: None, ladder_coins: 4 }"
    );
    assert_eq!(show(&config.admin), "Admin { password: None, npubs: [], listen: None, metrics_token: None }");
    assert_eq!(show(&config.log), r#"Log { level: "info", json: false }"#);
    assert!(config.upstreams.listed.is_empty());
    let pricing = &config.pricing;
    assert_eq!(show(&(pricing.exchange_fee, pricing.provider_fee, pricing.tolerance_percent)), "(1.005, 1.05, 1)");
    assert_eq!(show(&(pricing.cost_per_request, pricing.cost_per_1k_input, pricing.cost_per_1k_output)), "(1, 0, 0)");
    assert_eq!(show(&(pricing.refresh_interval, pricing.min_request)), "(120s, Msat(1))");
    assert_eq!(
        show(&pricing.rate),
        "RateRules { max_age: 600s, min_feeds: 2, max_spread_percent: 10, grace: None, grace_margin_percent: 5 }"
    );
    let names: Vec<_> = pricing.feeds.iter().map(|feed| feed.kind.name()).collect();
    assert_eq!(names, ["kraken", "coinbase", "binance", "bitstamp", "mempool"]);
    assert!(pricing.feeds.iter().all(|feed| feed.url.is_none()));
}

#[test]
fn the_name_wins_over_an_older_spelling_and_empty_is_absent() {
    let two = [("CASHU_MINTS", "https://a.example"), ("MINT", "https://b.example")];
    assert_eq!(read(&two).mints.urls, ["https://a.example"]);
    let empty = [("CASHU_MINTS", ""), ("MINT", "https://b.example"), ("PORT", " ")];
    assert_eq!(read(&empty).mints.urls, ["https://b.example"]);
    let primary = [("CASHU_MINTS", "https://a.example,https://b.example"), ("PRIMARY_MINT_URL", "https://b.example/")];
    assert_eq!(read(&primary).mints.urls, ["https://b.example", "https://a.example"]);
}

#[test]
fn a_key_may_come_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let path = path.to_str().unwrap();
    for name in FROM_FILES {
        std::fs::write(path, " hunter2 hunter2\n").unwrap();
        let config = read(&[(name, path)]);
        let read = config.storage.secret_key.or(config.backups.passphrase);
        assert_eq!(read.unwrap().expose(), "hunter2 hunter2");
        std::fs::write(path, "\n").unwrap();
        assert_eq!(lines(&[(name, path)]), [format!("{name}: the file is empty; expected the key in it")]);
        std::fs::remove_file(path).unwrap();
        assert_eq!(
            lines(&[(name, path)]),
            [format!("{name}: the file cannot be read (entity not found); expected the path of a text file")]
        );
    }
}

/// Name, value, and how the line goes on after the name.
#[rustfmt::skip]
const FAULTS: &[(&str, &str, &str)] = &[
    ("HOST", "example.com", "is not an IP address"),
    ("ADMIN_PASSWORD", "short", "is short"),
    ("ADMIN_PASSWORD", "changemechangeme", "is easy to guess"),
    ("ADMIN_NPUBS", "nsec1x", "entry 1 is not a public Nostr key"),
    ("ADMIN_LISTEN", "localhost", "is no address with a port"),
    ("PORT", "65536", "is not a whole number in range; expected 0 to 65535"),
    ("PORT", "-1", "is not a whole number in range"),
    ("CORS_ORIGINS", "https://a.example,https://b.example/path", "entry 2 is not an origin"),
    ("CORS_ORIGINS", "https://*.example", "entry 1 is not an origin"),
    ("CORS_ORIGINS", "b.example", "entry 1 is not an origin"),
    ("MAX_BODY_BYTES", "1023", "is not a whole number in range"),
    ("SHUTDOWN_TIMEOUT_SECONDS", "0", "is not a whole number in range; expected 1 to "),
    ("NPUB", "nsec1qqqq", "is not a public Nostr key"),
    ("DATABASE_URL", "sqlite+aiosqlite:///keys.db", "is an address for the Python node"),
    ("DATABASE_URL", "sqlite://", "names no file"),
    ("DATABASE_URL", "sqlite::memory:", "would forget all money"),
    ("DATABASE_URL", "mysql://u:hunter2@h/n", "is not a database address"),
    ("DATABASE_URL", "postgres://u:hunter2@h:port/n", "is not a database address"),
    ("DURABILITY", "lax", "is neither of the two; expected normal or strict"),
    ("UPSTREAM_BASE_URL", "http://api.example/v1", "is plain http to a public host"),
    ("UPSTREAM_BASE_URL", "https://u:hunter2@api.example", "carries a user name or password"),
    ("UPSTREAM_API_KEY", "Bearer hunter2", "holds a space"),
    ("UPSTREAM_CONNECT_TIMEOUT_SECONDS", "1.5", "is not a whole number in range"),
    ("UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS", "2m", "is not a whole number in range"),
    ("UPSTREAM_IDLE_TIMEOUT_SECONDS", "99999999999", "is not a whole number in range"),
    ("UPSTREAM_TOTAL_TIMEOUT_SECONDS", "-1", "is not a whole number in range"),
    ("UPSTREAM_CHOICE", "best", "is none of the three; expected weighted, cheapest or round_robin"),
    ("UPSTREAM_MAX_ATTEMPTS", "0", "is not a whole number in range; expected 1 to 20"),
    ("UPSTREAM_RETRY_STATUSES", "200", "is not a list of statuses; expected some like 404, 401-403 or 5xx, from 300"),
    ("PROTOCOLS", "openai,soap", "entry 2 is not known; expected openai, anthropic or gemini"),
    ("PROTOCOLS", ",", "has nothing in it; expected some of openai, anthropic and gemini"),
    ("UPSTREAM_ERRORS_VERBOSE", "x", "is neither yes nor no"),
    ("UPSTREAM_BREAKER_FAILURES", "x", "is not a whole number in range"),
    ("UPSTREAM_QUEUE_SECONDS", "301", "is not a whole number in range; expected 0 to 300"),
    ("UPSTREAM_PROBE_SECONDS", "x", "is not a whole number in range"),
    ("HTTP_URL", "node.example.com", "is not a web address; expected https://"),
    ("HTTP_URL", "ftp://node.example.com", "is not a web address; expected https://"),
    ("UPSTREAMS", "[{}]", "entry 1: it has no name"),
    ("CHAT_COMPLETIONS_API_VERSION", "a b", "is not a version"),
    ("OPENAI_API_KEY", "a b", "holds a space"),
    ("ANTHROPIC_API_KEY", "a b", "holds a space"),
    ("OPENROUTER_API_KEY", "a b", "holds a space"),
    ("GROQ_API_KEY", "a b", "holds a space"),
    ("GEMINI_API_KEY", "a b", "holds a space"),
    ("PERPLEXITY_API_KEY", "a b", "holds a space"),
    ("FIREWORKS_API_KEY", "a b", "holds a space"),
    ("XAI_API_KEY", "a b", "holds a space"),
    ("OLLAMA_BASE_URL", "http://a.example", "is plain http"),
    ("OLLAMA_API_KEY", "a b", "holds a space"),
    ("CASHU_MINTS", "https://a.example,http://b.example", "entry 2 is plain http"),
    ("MINT", "a.example", "entry 1 is not a web address"),
    ("PRIMARY_MINT_URL", "https://a.example?x", "carries a ?query"),
    ("CURRENCY", "usd", "is not a unit; expected sat or msat"),
    ("MINT_OPERATION_TIMEOUT_SECONDS", "+1", "is not a whole number in range"),
    ("MINT_MAX_CONCURRENCY", "0", "is not a whole number in range; expected 1 to 1024"),
    ("MINT_CALLS_PER_MINUTE", "many", "entry 1 is not a whole number in range; expected 0 to 100000"),
    ("MINT_CALLS_PER_MINUTE", "20,https://a.example=-1", "entry 2 is not a whole number in range"),
    ("MINT_CALLS_PER_MINUTE", "a.example=5", "entry 1 is not a web address"),
    ("BACKUP_PASSPHRASE", "hunter2", "is short; expected at least 12"),
    ("SNAPSHOTS_KEEP", "-1", "is not a whole number in range; expected 0 to 10000"),
    ("RETENTION_REQUESTS_DAYS", "-1", "is not a whole number in range"),
    ("RETENTION_FAILED_DAYS", "week", "is not a whole number in range"),
    ("FIXED_PRICING", "maybe", "is neither yes nor no; expected true or false"),
    ("COST_PER_REQUEST", "-1", "is not a number in range"),
    ("COST_PER_1K_INPUT_TOKENS", "1e3", "is not a number in range"),
    ("COST_PER_1K_OUTPUT_TOKENS", ".", "is not a number in range"),
    ("EXCHANGE_FEE", "0", "is not a number in range; expected more than 0, up to 100"),
    ("UPSTREAM_PROVIDER_FEE", "100.1", "is not a number in range"),
    ("TRUSTED_PROXIES", "proxy.example", "entry 1 is no address"),
    ("TOLERANCE_PERCENTAGE", "51", "is not a number in range; expected 0 to 50"),
    ("MIN_REQUEST_MSAT", "2100000000000000001", "is not a whole number in range"),
    ("MISSING_USAGE", "guess", "is not one of the three"),
    ("BTC_USD_FIXED", "0", "is not a number in range"),
    ("BTC_USD_FEEDS", "kraken,mtgox", "entry 2 is not a known source"),
    ("BTC_USD_FEEDS", "kraken=http://api.example", "entry 1 is plain http"),
    ("BTC_USD_FEEDS", ",", "names no source"),
    ("BTC_USD_MAX_AGE", "x", "is not a whole number in range"),
    ("PRICE_SOURCES", "openrouter,toto", "entry 2 is not a known source"),
    ("PRICE_SOURCES", "litellm=http://l.example", "entry 1 is plain http"),
    ("PRICE_SOURCES", "litellm,litellm=https://l.example", "names a source twice"),
    ("PRICE_SOURCES", "upstreams=https://l.example", "entry 1 has an address"),
    ("MODELS_REFRESH_INTERVAL_SECONDS", "0", "is not a whole number in range"),
    ("PRICING_REFRESH_INTERVAL", "0", "is not a whole number in range"),
    ("KEY_REQUESTS_PER_MINUTE", "-1", "is not a whole number in range"),
    ("KEY_TOKENS_PER_MINUTE", "many", "is not a whole number in range"),
    ("KEY_MAX_STREAMS", "1.5", "is not a whole number in range"),
    ("MAINTENANCE", "soon", "is neither yes nor no; expected true or false"),
    ("RELAYS", "wss://a.example,ws://b.example", "entry 2 is not an address that a relay may have"),
    ("PROVIDER_ID", "a:b", "is not a name"),
    ("PROVIDERS_REFRESH_INTERVAL_SECONDS", "-1", "is not a whole number in range"),
    ("TOR", "maybe", "is neither yes nor no; expected true or false"),
    ("TOR_PROXY_URL", "http://u:hunter2@127.0.0.1:9050", "is not the SOCKS port of a tor daemon"),
    ("TOR_FOR", "mints,everything", "entry 2 is nothing that connects"),
    ("ALERT_WEBHOOK_URL", "http://hooks.example/x", "is plain http"),
    ("ALERT_WEBHOOK_SECRET", "whsec_hunter2", "is not a key"),
    ("ALERT_NPUB", "nsec1qqqq", "is not a public Nostr key"),
    ("ALERT_REPEAT_SECONDS", "-1", "is not a whole number in range"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "is not a web address"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2", "entry 1 is not a header"),
    ("LOG_LEVEL", "verbose", "is not a log level"),
    ("LOG_LEVEL", "coinslot=loud", "is not a log level"),
    ("LOG_FORMAT", "xml", "is neither of the two; expected pretty or json"),
];

#[test]
fn every_fault_is_one_line_that_names_the_setting_and_what_is_expected() {
    for (name, value, problem) in FAULTS {
        let found = lines(&[(name, value)]);
        let [line] = found.as_slice() else { panic!("{name}={value}: {found:?}") };
        assert!(line.starts_with(&format!("{name}: {problem}")), "{name}={value}: {line}");
        assert!(line.contains("; expected "), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
}

#[test]
fn every_bad_entry_is_named_and_two_doors_are_two_addresses() {
    let found = lines(&[("CASHU_MINTS", "a.example,https://b.example,c.example")]);
    let [line] = found.as_slice() else { panic!("{found:?}") };
    assert!(line.starts_with("CASHU_MINTS: entry 1 is not") && line.contains("; entry 3 is not"), "{line}");
    let same = "ADMIN_LISTEN: is HOST and PORT; expected another port, or nothing for the same door";
    assert_eq!(lines(&[("ADMIN_LISTEN", "127.0.0.1:8000")]), [same]);
    assert_eq!(lines(&[("ADMIN_LISTEN", "[::1]:81"), ("HOST", "::1"), ("PORT", "81")]), [same]);
    for apart in ["127.0.0.1:8001", "[::1]:8000"] {
        read(&[("ADMIN_LISTEN", apart)]);
    }
    // Each gets a free one.
    read(&[("ADMIN_LISTEN", "127.0.0.1:0"), ("PORT", "0")]);
}

#[test]
fn upstreams_have_names_of_their_own() {
    let list = |name: &str| format!(r#"[{{"name":"{name}","base_url":"https://b.example"}}]"#);
    let pairs = |list| vec![("UPSTREAM_BASE_URL", "https://u.example"), ("OPENAI_API_KEY", "k"), ("UPSTREAMS", list)];
    let same = list("default");
    let found = lines(&pairs(&same));
    assert_eq!(found, ["UPSTREAMS: has an entry named default, as UPSTREAM_BASE_URL; expected another name"]);
    // Who has described a vendor has said more than that there is a key.
    let vendor = list("openai");
    assert_eq!(upstreams(&read(&pairs(&vendor))), "default generic -; openai generic -");
}

#[test]
fn what_goes_through_tor_is_named() {
    let config = read(&[("TOR_PROXY_URL", "socks5h://127.0.0.1:9050"), ("TOR_FOR", "mints, Prices,mints")]);
    assert_eq!(config.tor.purposes, [Purpose::Mints, Purpose::Prices]);
    assert!(!config.tor.enabled && config.tor.is_there());
    let inside = Config::from_vars(&vars(&[("TOR", "true"), ("TOR_FOR", "strangers")]));
    assert_eq!(inside.is_ok_and(|config| config.tor.enabled), cfg!(feature = "tor"));
}

/// Where a setting leads into Tor, there is a way, or the node does not start.
#[test]
fn an_onion_without_tor_is_a_fault() {
    let rows = [
        ("UPSTREAM_BASE_URL", "http://abc.onion/v1"),
        ("UPSTREAMS", r#"[{"name":"a","base_url":"https://b.example"},{"name":"o","base_url":"http://abc.onion"}]"#),
        ("CASHU_MINTS", "https://m.example,http://abc.onion"),
        ("BTC_USD_FEEDS", "kraken=http://abc.onion/x"),
        ("PRICE_SOURCES", "litellm=https://abc.onion/x"),
        ("RELAYS", "wss://r.example,ws://abc.ONION"),
        ("RECEIVE_LN_ADDRESS", "x@abc.onion"),
        ("TOR_FOR", "mints"),
    ];
    for (name, value) in rows {
        let found = lines(&[(name, value)]);
        let [line] = found.as_slice() else { panic!("{name}={value}: {found:?}") };
        assert!(line.starts_with(&format!("{name}: ")), "{line}");
        assert!(line.contains("Tor, and there is n") && line.ends_with("; expected TOR=true or TOR_PROXY_URL with it"));
        // The usual spelling of the proxy would look names up here.
        let there = read(&[(name, value), ("TOR_PROXY_URL", "socks5://127.0.0.1:9050")]);
        assert_eq!(there.tor.proxy.unwrap().expose(), "socks5h://127.0.0.1:9050");
        let inside = Config::from_vars(&vars(&[(name, value), ("TOR", "true")]));
        assert_eq!(inside.is_ok(), cfg!(feature = "tor"), "{inside:?}");
    }
    let own_way = r#"[{"name":"o","base_url":"http://abc.onion","proxy_url":"socks5h://127.0.0.1:9050"}]"#;
    assert!(!read(&[("UPSTREAMS", own_way)]).tor.is_there());
}

#[test]
fn all_faults_are_found_at_once() {
    let mut worst: BTreeMap<&str, &str> = BTreeMap::new();
    worst.extend(FAULTS.iter().map(|(name, value, _)| (*name, *value)));
    worst.extend([("SECRET_KEY", "hunter2"), ("SECRET_KEY_FILE", "hunter2")]);
    let pairs: Vec<_> = worst.iter().map(|(name, value)| (*name, *value)).collect();
    let found = lines(&pairs);
    // CASHU_MINTS hides its older spelling, and two keys are one fault.
    assert_eq!(found.len(), pairs.len() - 2, "{found:#?}");
    assert!(
        found.iter().any(|line| line == "SECRET_KEY_FILE: is given along with SECRET_KEY; expected one of the two")
    );
}

#[test]
fn secrets_are_never_shown() {
    let nsec = format!("nsec1{:a<58}", "hunter2");
    let config = read(&[
        ("UPSTREAM_BASE_URL", "https://u.example"),
        ("UPSTREAM_API_KEY", "hunter2"),
        ("ADMIN_PASSWORD", "hunter2-hunter2"),
        ("METRICS_TOKEN", "hunter2-hunter2-hunter2"),
        ("SECRET_KEY", "hunter2"),
        ("DATABASE_URL", "postgres://u:hunter2@h/n"),
        ("NSEC", nsec.as_str()),
        ("OPENAI_API_KEY", "hunter2"),
        ("ALERT_WEBHOOK_URL", "https://h.example/hunter2"),
        ("ALERT_WEBHOOK_SECRET", "hunter2-hunter2-hunter2"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hunter2"),
    ]);
    let shown = format!("{config:?} {config:#?} {:?}", config.notices());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(shown.matches("Secret(…)").count(), 20);
    // Nor when one is pasted into the wrong line.
    for setting in SETTINGS {
        if let Err(faults) = Config::from_vars(&vars(&[(setting.name, "hunter2 \u{7}")])) {
            assert!(!format!("{faults} {faults:?}").contains("hunter2"), "{faults}");
        }
    }
}

#[test]
fn notices_name_what_is_missing_and_what_has_no_effect_yet() {
    assert_eq!(
        read(&[]).notices(),
        [
            "no upstream: set UPSTREAM_BASE_URL",
            "no mint: set CASHU_MINTS",
            "not listed on Nostr, where clients look for nodes: set RELAYS",
        ]
    );
    let unlisted = read(&[("RELAYS", "wss://r.example")]).notices();
    assert_eq!(unlisted.last().unwrap(), "not listed on Nostr, where clients look for nodes: set HTTP_URL");
    let untold = read(&[("ALERT_NPUB", NPUB)]).notices();
    assert_eq!(untold.last().unwrap(), "ALERT_NPUB cannot be told anything: set RELAYS");
    let weak = read(&[("ONION_URL", "https://n.example"), ("SECRET_KEY", "a")]).notices();
    assert!(weak.iter().any(|notice| notice.starts_with("ONION_URL is no address in Tor")), "{weak:?}");
    assert!(weak.iter().any(|notice| notice.starts_with("SECRET_KEY is short")), "{weak:?}");
    let config = read(&[
        ("UPSTREAM_BASE_URL", "https://u.example"),
        ("MINT", "https://m.example"),
        ("ENABLE_ANALYTICS_SHARING", "true"),
        ("TINFOIL_API_KEY", "x"),
        ("ADMIN_LISTEN", ""),
        ("RELAYS", "wss://r.example"),
        ("HTTP_URL", "https://n.example"),
        ("DEVS_DONATION_RATE", "0"),
    ]);
    let expected = ["TINFOIL_API_KEY", "ENABLE_ANALYTICS_SHARING"]
        .map(|name| format!("{name} is set, but this version does not use it yet"));
    assert_eq!(config.notices(), expected);
}
