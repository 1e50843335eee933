//! From names and texts to a [`Config`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::fault::{Fault, Faults};
use super::settings::{NOT_USED_YET, SETTINGS, Setting};
use super::sources::is_blank;
use super::{
    Admin, Alerts, Backups, Clients, Config, Environment, Info, KeyLimits, Log, Mints, Nostr, Payouts, Pricing,
    RateRules, Retention, Secret, Server, Storage, Timeouts, Tor, Traces, Upstream, UpstreamKind, Upstreams, address,
    tor, upstreams, values,
};

/// Reads everything and fails with all faults at once.
pub(super) fn config(vars: &BTreeMap<String, String>) -> Result<Config, Faults> {
    let mut reader = Reader::new(vars);
    match reader.config() {
        Some(config) if reader.faults.is_empty() => {
            let mut together = tor::stranded(&config);
            together.extend(one_door(&config));
            if !together.is_empty() {
                return Err(Faults(together));
            }
            let environment = Environment::of(vars)
                .with_contents("SECRET_KEY", "SECRET_KEY_FILE", config.storage.secret_key.as_ref())
                .with_contents("BACKUP_PASSPHRASE", "BACKUP_PASSPHRASE_FILE", config.backups.passphrase.as_ref());
            Ok(Config { environment, ..config })
        }
        _ => Err(Faults(reader.faults)),
    }
}

/// Two doors cannot be one address: the second could not be opened.
fn one_door(config: &Config) -> Option<Fault> {
    let public = SocketAddr::new(config.server.host, config.server.port);
    let is_one = config.admin.listen == Some(public) && public.port() != 0;
    is_one.then(|| Fault::new("ADMIN_LISTEN", "is HOST and PORT; expected another port, or nothing for the same door"))
}

/// Looks settings up and collects faults. Every method that answers `None` (the outer one, where
/// there are two) has added a fault, and reading goes on to find the others.
pub(super) struct Reader<'a> {
    vars: &'a BTreeMap<String, String>,
    faults: Vec<Fault>,
    /// Names asked for, so that a test can compare them with the table.
    pub(super) asked: Vec<&'static str>,
}

/// A setting's text and the name it was given under.
#[derive(Clone, Copy)]
struct Given<'a> {
    spelling: &'static str,
    text: &'a str,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(vars: &'a BTreeMap<String, String>) -> Self {
        Self { vars, faults: Vec::new(), asked: Vec::new() }
    }

    pub(super) fn config(&mut self) -> Option<Config> {
        let server = self.server();
        let info = self.info();
        let storage = self.storage();
        let backups = self.backups();
        let upstreams = self.upstreams();
        let mints = self.mints();
        let payouts = self.payouts();
        let clients = self.clients();
        let key_limits = self.key_limits();
        let pricing = self.pricing();
        let admin = self.admin();
        let nostr = self.nostr();
        let tor = self.tor();
        let alerts = self.alerts();
        let traces = self.traces();
        let log = self.log();
        Some(Config {
            server: server?,
            info: info?,
            storage: storage?,
            backups: backups?,
            upstreams: upstreams?,
            mints: mints?,
            payouts: payouts?,
            clients: clients?,
            key_limits: key_limits?,
            pricing: pricing?,
            admin: admin?,
            nostr: nostr?,
            tor: tor?,
            alerts: alerts?,
            traces: traces?,
            log: log?,
            not_used: self.not_used(),
            environment: Environment::default(),
        })
    }

    fn server(&mut self) -> Option<Server> {
        let host = self.get("HOST", values::host);
        let port = self.get("PORT", values::port);
        let cors_origins = self.get("CORS_ORIGINS", values::origins);
        let trusted_proxies = self.get("TRUSTED_PROXIES", values::networks);
        let max_body_bytes = self.get("MAX_BODY_BYTES", values::body_limit);
        let max_buffered_bytes = self.get("MAX_BUFFERED_BYTES", values::body_limit);
        let max_kept_bytes = self.get("MAX_KEPT_BYTES", values::body_limit);
        let shutdown_timeout = self.get("SHUTDOWN_TIMEOUT_SECONDS", values::seconds);
        let keep_alive = self.get("SSE_KEEP_ALIVE_SECONDS", values::seconds_or_never);
        let maintenance = self.optional("MAINTENANCE", values::boolean);
        let protocols = self.get("PROTOCOLS", values::protocols);
        let takes_money = self.get("ACCEPT_NEW_TOKENS", values::boolean);
        Some(Server {
            host: host?,
            port: port?,
            cors_origins: cors_origins?,
            trusted_proxies: trusted_proxies?,
            max_body_bytes: max_body_bytes?,
            max_buffered_bytes: max_buffered_bytes?,
            max_kept_bytes: max_kept_bytes?,
            shutdown_timeout: shutdown_timeout?,
            keep_alive: keep_alive?,
            maintenance: maintenance?,
            protocols: protocols?,
            takes_money: takes_money?,
        })
    }

    fn info(&mut self) -> Option<Info> {
        let name = self.get("NAME", values::text);
        let description = self.get("DESCRIPTION", values::text);
        let npub = self.optional("NPUB", values::npub);
        let http_url = self.get("HTTP_URL", values::own_url);
        let onion_url = self.get("ONION_URL", values::text);
        Some(Info {
            name: name?,
            description: description?,
            npub: npub?.unwrap_or_default(),
            http_url: http_url?,
            onion_url: onion_url?,
        })
    }

    fn storage(&mut self) -> Option<Storage> {
        let data_dir = self.get("DATA_DIR", values::text);
        let database_url = self.optional("DATABASE_URL", values::database_url);
        let strict = self.get("DURABILITY", values::durability);
        let node_timeout = self.get("NODE_TIMEOUT_SECONDS", values::node_timeout);
        let secret_key = self.secret_key();
        let requests = self.get("RETENTION_REQUESTS_DAYS", values::days_or_never);
        let failed = self.get("RETENTION_FAILED_DAYS", values::days_or_never);
        Some(Storage {
            data_dir: data_dir?.into(),
            database_url: database_url?,
            strict: strict?,
            node_timeout: node_timeout?,
            secret_key: secret_key?,
            retention: Retention { requests: requests?, failed: failed? },
        })
    }

    fn backups(&mut self) -> Option<Backups> {
        let names = ["BACKUP_PASSPHRASE", "BACKUP_PASSPHRASE_FILE"];
        let passphrase = self.text_or_file(names, values::passphrase, values::passphrase_file);
        let keep = self.get("SNAPSHOTS_KEEP", values::copies);
        Some(Backups { passphrase: passphrase?, keep: keep? })
    }

    fn secret_key(&mut self) -> Option<Option<Secret>> {
        self.text_or_file(["SECRET_KEY", "SECRET_KEY_FILE"], values::secret, values::secret_file)
    }

    /// A secret that is given as it is, or as a file. Two of them are a fault: with the wrong one,
    /// nothing that was stored could be read.
    fn text_or_file(
        &mut self,
        [direct_name, file_name]: [&'static str; 2],
        text: fn(&str) -> Result<Secret, String>,
        contents: fn(&str) -> Result<Secret, String>,
    ) -> Option<Option<Secret>> {
        let direct = self.given(direct_name);
        let file = self.given(file_name);
        if let (Some(_), Some(file)) = (direct, file) {
            let problem = format!("is given along with {direct_name}; expected one of the two");
            return self.fault(file.spelling, problem);
        }
        let direct = self.parse(direct, text)?;
        let file = self.parse(file, contents)?;
        Some(direct.or(file))
    }

    fn upstreams(&mut self) -> Option<Upstreams> {
        let timeouts = self.timeouts();
        let choice = self.get("UPSTREAM_CHOICE", values::choice);
        let max_attempts = self.get("UPSTREAM_MAX_ATTEMPTS", values::attempts);
        let retried = self.get("UPSTREAM_RETRY_STATUSES", str::parse);
        let verbose_errors = self.get("UPSTREAM_ERRORS_VERBOSE", values::boolean);
        let breaker_failures = self.get("UPSTREAM_BREAKER_FAILURES", values::failures);
        let queue_time = self.get("UPSTREAM_QUEUE_SECONDS", values::queue_time);
        let probe_interval = self.get("UPSTREAM_PROBE_SECONDS", values::seconds_or_never);
        let listed = self.listed_upstreams(timeouts);
        Some(Upstreams {
            listed: listed?,
            timeouts: timeouts?,
            choice: choice?,
            max_attempts: max_attempts?,
            retried: retried?,
            verbose_errors: verbose_errors?,
            breaker_failures: breaker_failures?,
            queue_time: queue_time?,
            probe_interval: probe_interval?,
        })
    }

    fn timeouts(&mut self) -> Option<Timeouts> {
        let connect = self.get("UPSTREAM_CONNECT_TIMEOUT_SECONDS", values::seconds);
        let first_byte = self.get("UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS", values::seconds);
        let idle = self.get("UPSTREAM_IDLE_TIMEOUT_SECONDS", values::seconds);
        let total = self.get("UPSTREAM_TOTAL_TIMEOUT_SECONDS", values::seconds_or_never);
        Some(Timeouts { connect: connect?, first_byte: first_byte?, idle: idle?, total: total? })
    }

    /// The one of `UPSTREAM_BASE_URL` first, then the list, then the vendors of which there is a key. All
    /// are read, whatever is wrong with the others.
    fn listed_upstreams(&mut self, timeouts: Option<Timeouts>) -> Option<Vec<Upstream>> {
        // With a fault among the timeouts there will be no configuration, and others are still to be found.
        let timeouts = timeouts.unwrap_or(Timeouts::NONE);
        let list = self.optional("UPSTREAMS", |text| upstreams::list(text, timeouts));
        let one = self.one_upstream(timeouts);
        let vendors = self.vendors(timeouts);
        let (one, list) = (one?, list?.unwrap_or_default());
        if one.is_some() && list.iter().any(|other| other.name == Upstream::ONE) {
            let problem = format!("has an entry named {}, as UPSTREAM_BASE_URL; expected another name", Upstream::ONE);
            return self.fault("UPSTREAMS", problem);
        }
        let mut listed: Vec<Upstream> = one.into_iter().chain(list).collect();
        for vendor in vendors? {
            // Who has described it in the list has said more than that there is a key.
            if listed.iter().all(|other| other.name != vendor.name) {
                listed.push(vendor);
            }
        }
        Some(listed)
    }

    fn one_upstream(&mut self, timeouts: Timeouts) -> Option<Option<Upstream>> {
        let base_url = self.optional("UPSTREAM_BASE_URL", address::base);
        let api_key = self.optional("UPSTREAM_API_KEY", values::api_key);
        let api_version = self.optional("CHAT_COMPLETIONS_API_VERSION", values::api_version);
        let (api_key, api_version) = (api_key?, api_version?);
        let Some(base_url) = base_url? else { return Some(None) };
        let kind = if api_version.is_some() { UpstreamKind::Azure } else { UpstreamKind::Generic };
        let one = Upstream::new(Upstream::ONE, kind, timeouts);
        Some(Some(Upstream { base_url: Some(base_url), api_key, api_version, ..one }))
    }

    fn vendors(&mut self, timeouts: Timeouts) -> Option<Vec<Upstream>> {
        const KEYS: [(&str, UpstreamKind); 8] = [
            ("OPENAI_API_KEY", UpstreamKind::Openai),
            ("ANTHROPIC_API_KEY", UpstreamKind::Anthropic),
            ("OPENROUTER_API_KEY", UpstreamKind::Openrouter),
            ("GROQ_API_KEY", UpstreamKind::Groq),
            ("GEMINI_API_KEY", UpstreamKind::Gemini),
            ("PERPLEXITY_API_KEY", UpstreamKind::Perplexity),
            ("FIREWORKS_API_KEY", UpstreamKind::Fireworks),
            ("XAI_API_KEY", UpstreamKind::Xai),
        ];
        let keys = KEYS.map(|(name, kind)| (kind, self.optional(name, values::api_key)));
        let ollama = self.optional("OLLAMA_BASE_URL", address::base);
        let ollama_key = self.optional("OLLAMA_API_KEY", values::api_key);
        let mut found = Vec::new();
        for (kind, key) in keys {
            if let Some(key) = key? {
                found.push(Upstream { api_key: Some(key), ..Upstream::new(kind.name(), kind, timeouts) });
            }
        }
        let (base_url, api_key) = (ollama?, ollama_key?);
        if base_url.is_some() || api_key.is_some() {
            let kind = UpstreamKind::Ollama;
            found.push(Upstream { base_url, api_key, ..Upstream::new(kind.name(), kind, timeouts) });
        }
        Some(found)
    }

    fn mints(&mut self) -> Option<Mints> {
        let listed = self.get("CASHU_MINTS", values::mint_urls);
        let primary = self.optional("PRIMARY_MINT_URL", address::mint_url);
        let unit = self.get("PRIMARY_MINT_UNIT", values::unit);
        let timeout = self.get("MINT_OPERATION_TIMEOUT_SECONDS", values::seconds);
        let max_concurrency = self.get("MINT_MAX_CONCURRENCY", values::concurrency);
        let calls_per_minute = self.get("MINT_CALLS_PER_MINUTE", values::call_limits);
        let swaps_foreign = self.get("FOREIGN_MINTS", values::foreign_mints);
        let foreign_fee_percent = self.get("FOREIGN_MINT_MAX_FEE_PERCENT", values::percent);
        let ladder_coins = self.get("CHANGE_LADDER_COINS", values::ladder_coins);
        let swaps = swaps_foreign?;
        let mut urls = listed?;
        if let Some(primary) = primary? {
            urls.retain(|url| *url != primary);
            urls.insert(0, primary);
        }
        Some(Mints {
            urls,
            unit: unit?,
            timeout: timeout?,
            max_concurrency: max_concurrency?,
            calls_per_minute: calls_per_minute?,
            foreign_fee_percent: Some(foreign_fee_percent?).filter(|_| swaps),
            ladder_coins: ladder_coins?,
        })
    }

    fn payouts(&mut self) -> Option<Payouts> {
        let recipient = self.optional("RECEIVE_LN_ADDRESS", values::recipient);
        let minimum = self.get("MINIMUM_PAYOUT", values::sats);
        let interval = self.get("PAYOUT_INTERVAL", values::seconds);
        let expiry_interval = self.get("REFUND_PROCESSING_INTERVAL", values::seconds_or_never);
        let max_fee_percent = self.get("LIGHTNING_MAX_FEE_PERCENT", values::percent);
        let claim_time = self.get("CHANGE_CLAIM_DAYS", values::days_or_never);
        Some(Payouts {
            recipient: recipient?,
            minimum: minimum?,
            interval: interval?,
            expiry_interval: expiry_interval?,
            max_fee_percent: max_fee_percent?,
            claim_time: claim_time?,
        })
    }

    fn clients(&mut self) -> Option<Clients> {
        let creates_per_hour = self.get("INVOICE_CREATES_PER_HOUR", values::count_or_any);
        let max_pending = self.get("INVOICE_MAX_PENDING", values::count_or_any);
        let wrong_vouchers_per_hour = self.get("VOUCHER_TRIES_PER_HOUR", values::count_or_any);
        let quotes_per_minute = self.get("QUOTES_PER_MINUTE", values::count_or_any);
        Some(Clients {
            quotes_per_minute: quotes_per_minute?,
            creates_per_hour: creates_per_hour?,
            max_pending: max_pending?,
            wrong_vouchers_per_hour: wrong_vouchers_per_hour?,
        })
    }

    fn key_limits(&mut self) -> Option<KeyLimits> {
        let requests_per_minute = self.get("KEY_REQUESTS_PER_MINUTE", values::amount_or_any);
        let tokens_per_minute = self.get("KEY_TOKENS_PER_MINUTE", values::amount_or_any);
        let max_streams = self.get("KEY_MAX_STREAMS", values::count_or_any);
        Some(KeyLimits {
            requests_per_minute: requests_per_minute?,
            tokens_per_minute: tokens_per_minute?,
            max_streams: max_streams?,
        })
    }

    fn pricing(&mut self) -> Option<Pricing> {
        let models_path = self.get("MODELS_PATH", values::text);
        let model_based = self.model_based();
        let cost_per_request = self.get("COST_PER_REQUEST", values::price);
        let cost_per_1k_input = self.get("COST_PER_1K_INPUT_TOKENS", values::price);
        let cost_per_1k_output = self.get("COST_PER_1K_OUTPUT_TOKENS", values::price);
        let exchange_fee = self.get("EXCHANGE_FEE", values::fee);
        let provider_fee = self.get("UPSTREAM_PROVIDER_FEE", values::fee);
        let tolerance_percent = self.get("TOLERANCE_PERCENTAGE", values::tolerance);
        let min_request = self.get("MIN_REQUEST_MSAT", values::msat);
        let child_key_cost = self.get("CHILD_KEY_COST", values::msat);
        let missing_usage = self.get("MISSING_USAGE", values::missing_usage);
        let btc_usd_fixed = self.optional("BTC_USD_FIXED", values::btc_usd);
        let feeds = self.get("BTC_USD_FEEDS", values::feeds);
        let rate = self.rate();
        let refresh_interval = self.get("PRICING_REFRESH_INTERVAL_SECONDS", values::seconds);
        let sources = self.get("PRICE_SOURCES", values::price_sources);
        let models_interval = self.models_interval();
        Some(Pricing {
            models_path: models_path?.into(),
            model_based: model_based?,
            cost_per_request: cost_per_request?,
            cost_per_1k_input: cost_per_1k_input?,
            cost_per_1k_output: cost_per_1k_output?,
            exchange_fee: exchange_fee?,
            provider_fee: provider_fee?,
            tolerance_percent: tolerance_percent?,
            min_request: min_request?,
            child_key_cost: child_key_cost?,
            missing_usage: missing_usage?,
            btc_usd_fixed: btc_usd_fixed?,
            feeds: feeds?,
            rate: rate?,
            refresh_interval: refresh_interval?,
            sources: sources?,
            models_interval: models_interval?,
        })
    }

    /// Who says how often prices are looked at means both kinds of them.
    fn models_interval(&mut self) -> Option<Duration> {
        const HOUR: Duration = Duration::from_secs(3600);
        let own = self.optional("MODELS_REFRESH_INTERVAL_SECONDS", values::seconds)?;
        let shared = self.given("PRICING_REFRESH_INTERVAL_SECONDS");
        // What is wrong with that was said before.
        let shared = shared.and_then(|given| values::seconds(given.text).ok());
        Some(own.or(shared).unwrap_or(HOUR))
    }

    fn rate(&mut self) -> Option<RateRules> {
        let max_age = self.get("BTC_USD_MAX_AGE", values::seconds);
        let min_feeds = self.get("BTC_USD_MIN_FEEDS", values::feed_count);
        let max_spread_percent = self.get("BTC_USD_MAX_SPREAD_PERCENT", values::percent);
        let grace = self.get("BTC_USD_GRACE_SECONDS", values::seconds_or_never);
        let grace_margin_percent = self.get("BTC_USD_GRACE_MARGIN_PERCENT", values::percent);
        Some(RateRules {
            max_age: max_age?,
            min_feeds: min_feeds?,
            max_spread_percent: max_spread_percent?,
            grace: grace?,
            grace_margin_percent: grace_margin_percent?,
        })
    }

    /// The older spelling asks the opposite question.
    fn model_based(&mut self) -> Option<Option<bool>> {
        let given = self.given("MODEL_BASED_PRICING");
        let inverse = given.is_some_and(|given| given.spelling == "FIXED_PRICING");
        let answer = self.parse(given, values::boolean)?;
        Some(answer.map(|yes| yes != inverse))
    }

    fn admin(&mut self) -> Option<Admin> {
        let password = self.optional("ADMIN_PASSWORD", values::password);
        let npubs = self.get("ADMIN_NPUBS", values::npubs);
        let listen = self.optional("ADMIN_LISTEN", values::listener);
        let metrics_token = self.optional("METRICS_TOKEN", values::bearer_token);
        Some(Admin { password: password?, npubs: npubs?, listen: listen?, metrics_token: metrics_token? })
    }

    fn nostr(&mut self) -> Option<Nostr> {
        let nsec = self.optional("NSEC", values::nsec);
        let relays = self.get("RELAYS", values::relays);
        let provider_id = self.optional("PROVIDER_ID", values::provider_id);
        let refresh_interval = self.get("PROVIDERS_REFRESH_INTERVAL_SECONDS", values::seconds_or_never);
        let handler = self.get("NOSTR_HANDLER", values::boolean);
        Some(Nostr {
            nsec: nsec?,
            relays: relays?,
            provider_id: provider_id?,
            handler: handler?,
            refresh_interval: refresh_interval?,
        })
    }

    fn tor(&mut self) -> Option<Tor> {
        let enabled = self.get("TOR", values::tor);
        let config = self.optional("TOR_CONFIG", values::text);
        let proxy = self.optional("TOR_PROXY_URL", values::tor_proxy);
        let purposes = self.get("TOR_FOR", values::purposes);
        Some(Tor { enabled: enabled?, config: config?.map(Into::into), proxy: proxy?, purposes: purposes? })
    }

    fn alerts(&mut self) -> Option<Alerts> {
        let webhook_url = self.optional("ALERT_WEBHOOK_URL", values::webhook_url);
        let webhook_key = self.optional("ALERT_WEBHOOK_SECRET", values::webhook_key);
        let npub = self.optional("ALERT_NPUB", values::npub);
        let repeat = self.get("ALERT_REPEAT_SECONDS", values::seconds_or_never);
        Some(Alerts { webhook_url: webhook_url?, webhook_key: webhook_key?, npub: npub?, repeat: repeat? })
    }

    fn traces(&mut self) -> Option<Traces> {
        let url = self.optional("OTEL_EXPORTER_OTLP_ENDPOINT", values::collector);
        let headers = self.get("OTEL_EXPORTER_OTLP_HEADERS", values::headers);
        let service = self.get("OTEL_SERVICE_NAME", values::text);
        Some(Traces { url: url?, headers: headers?, service: service? })
    }

    fn log(&mut self) -> Option<Log> {
        let level = self.get("LOG_LEVEL", values::log_level);
        let json = self.get("LOG_FORMAT", values::log_format);
        Some(Log { level: level?, json: json? })
    }

    /// Those that ask for something.
    fn not_used(&self) -> Vec<&'static str> {
        let asks = |name: &&str| {
            let text = self.vars.get(*name).map(|text| text.trim().to_ascii_lowercase());
            text.is_some_and(|text| !matches!(text.as_str(), "" | "0" | "false" | "no" | "off"))
        };
        NOT_USED_YET.iter().copied().filter(asks).collect()
    }

    /// The setting, or else its default.
    fn get<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let default = self.setting(name)?.default;
        let given = self.given(name).unwrap_or(Given { spelling: name, text: default });
        self.parse(Some(given), parse)?
    }

    /// The setting, if it was given.
    fn optional<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<Option<T>> {
        let given = self.given(name);
        self.parse(given, parse)
    }

    fn parse<T>(
        &mut self,
        given: Option<Given<'_>>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        match given.map(|given| (given.spelling, parse(given.text))) {
            None => Some(None),
            Some((_, Ok(value))) => Some(Some(value)),
            Some((spelling, Err(problem))) => self.fault(spelling, problem),
        }
    }

    fn fault<T>(&mut self, name: &str, problem: impl Into<String>) -> Option<T> {
        self.faults.push(Fault::new(name, problem));
        None
    }

    /// The first spelling that was given. A password is taken as it is, all else is trimmed.
    fn given(&mut self, name: &'static str) -> Option<Given<'a>> {
        let setting = self.setting(name)?;
        self.asked.push(name);
        let (spelling, text) = setting.spellings().find_map(|spelling| {
            let text = self.vars.get(spelling).filter(|text| !is_blank(text))?;
            Some((spelling, text.as_str()))
        })?;
        let text = if name == "ADMIN_PASSWORD" { text } else { text.trim() };
        Some(Given { spelling, text })
    }

    fn setting(&mut self, name: &'static str) -> Option<&'static Setting> {
        let found = SETTINGS.iter().find(|setting| setting.name == name);
        found.or_else(|| self.fault(name, "is missing in the table of settings; expected there"))
    }
}
