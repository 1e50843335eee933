//! The table of all settings. The reader looks names up here, and `.env.example` is compared
//! with it, so a setting exists once it is listed and read.

use super::Statuses;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub name: &'static str,
    /// Older spellings, which count where the name itself is absent.
    pub aliases: &'static [&'static str],
    /// As it would be written; empty: none.
    pub default: &'static str,
    /// The comment over it in `.env.example`.
    pub help: &'static str,
}

impl Setting {
    /// The name, then the aliases.
    pub fn spellings(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    #[must_use]
    pub fn is_spelled(&self, name: &str) -> bool {
        self.spellings().any(|spelling| spelling == name)
    }
}

const fn setting(
    name: &'static str,
    aliases: &'static [&'static str],
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { name, aliases, default, help }
}

/// Where the list of models is looked for, unless the operator says where.
pub const MODELS_PATH: &str = "models.json";

/// Every setting that this version acts on, in the order of `.env.example`.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    setting("UPSTREAM_BASE_URL", &[], "",
        "The OpenAI-compatible API to sell, e.g. https://api.openai.com/v1."),
    setting("UPSTREAM_API_KEY", &[], "",
        "Your key for it. Without one, requests go upstream without an Authorization header."),
    setting("CHAT_COMPLETIONS_API_VERSION", &[], "",
        "If it is on Azure and its models have addresses of their own: the api-version, e.g. 2024-10-21."),
    setting("UPSTREAMS", &[], "",
        "Several APIs, as a JSON list; see \"Several upstreams\" in the README for what an entry can say."),
    setting("OPENAI_API_KEY", &[], "",
        "Your keys at vendors that need no other description. Each that is set is one more upstream."),
    setting("ANTHROPIC_API_KEY", &[], "",
        "The same, at Anthropic."),
    setting("OPENROUTER_API_KEY", &[], "",
        "The same, at OpenRouter."),
    setting("GROQ_API_KEY", &[], "",
        "The same, at Groq."),
    setting("GEMINI_API_KEY", &[], "",
        "The same, at Google."),
    setting("PERPLEXITY_API_KEY", &[], "",
        "The same, at Perplexity."),
    setting("FIREWORKS_API_KEY", &[], "",
        "The same, at Fireworks."),
    setting("XAI_API_KEY", &[], "",
        "The same, at xAI."),
    setting("OLLAMA_BASE_URL", &[], "",
        "An Ollama server of yours, e.g. http://127.0.0.1:11434."),
    setting("OLLAMA_API_KEY", &[], "",
        "Your key for it, if it wants one."),
    setting("UPSTREAM_CONNECT_TIMEOUT_SECONDS", &[], "10",
        "How long connecting to an upstream may take."),
    setting("UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS", &[], "120",
        "How long it may think before the answer begins."),
    setting("UPSTREAM_IDLE_TIMEOUT_SECONDS", &[], "120",
        "How long it may pause in the middle of an answer."),
    setting("UPSTREAM_TOTAL_TIMEOUT_SECONDS", &[], "0",
        "How long an answer may take from beginning to end. 0: as long as it does not pause."),
    setting("UPSTREAM_CHOICE", &[], "weighted",
        "Who goes first among upstreams of the same priority: weighted (at random, by weight), cheapest (the \
         lowest fee) or round_robin (one after the other)."),
    setting("UPSTREAM_MAX_ATTEMPTS", &[], "4",
        "How many upstreams one request tries at most, 1 to 20."),
    setting("UPSTREAM_RETRY_STATUSES", &[], Statuses::USUAL,
        "The statuses after which the next upstream is asked; all others go back to the client, who pays nothing. \
         Each as 404, 401-403 or 5xx."),
    setting("UPSTREAM_ERRORS_VERBOSE", &[], "false",
        "true: clients are told what an upstream says when it fails, without keys, addresses and what concerns your \
         account there. They are told of their own mistakes in any case."),
    setting("UPSTREAM_BREAKER_FAILURES", &[], "5",
        "After this many failures in a row, or 10 of the last 20 attempts if that is no fewer, an upstream is left \
         alone for a minute, with the model they were for. 0: never; one that fails, or asks for time, then only \
         goes last."),
    setting("UPSTREAM_QUEUE_SECONDS", &[], "5",
        "How long a request waits when every upstream that could serve it already has as many as it may \
         (max_concurrency)."),
    setting("UPSTREAM_PROBE_SECONDS", &[], "0",
        "Seconds of silence after which an upstream is asked for a token of its probe_model, at your cost. 0: \
         never."),

    setting("CASHU_MINTS", &["MINT"], "",
        "Mints whose ecash you take, separated by commas. You hold their ecash, so name mints you trust."),
    setting("PRIMARY_MINT_URL", &[], "",
        "The mint that clients are pointed to first. The first of CASHU_MINTS when absent."),
    setting("PRIMARY_MINT_UNIT", &["CURRENCY"], "sat",
        "Unit of the ecash taken: sat or msat."),
    setting("MINT_OPERATION_TIMEOUT_SECONDS", &[], "30",
        "How long one call to a mint may take."),
    setting("MINT_MAX_CONCURRENCY", &["MINT_OPERATION_CONCURRENCY"], "4",
        "How many calls to one mint may run at a time, half of them payments over Lightning. Public mints limit their \
         callers."),
    setting("MINT_CALLS_PER_MINUTE", &[], "20",
        "How many calls a mint is asked for in any minute; 0: no limit. 20,https://mint.example=60 has another \
         number for one mint. Mints on loopback have no limit unless they are named. Nodes that share an \
         address share the mint's patience too: divide it among them."),

    setting("FOREIGN_MINTS", &[], "refuse",
        "Ecash of other mints: refuse, or swap (to the first of your mints, over Lightning, at the payer's cost)."),
    setting("FOREIGN_MINT_MAX_FEE_PERCENT", &[], "5",
        "The most that such a swap may cost, in percent of the token (at least 2 sats)."),
    setting("CHANGE_LADDER_COINS", &[], "4",
        "How many coins of each amount are kept ready, so that change needs no call to the mint. They are \
         exchanged for in the background, where the mint's fee is a percent at most. 0 to 8; 0: none."),

    setting("MODELS_PATH", &[], MODELS_PATH,
        "List of models and prices in USD per token, in the shape of OpenRouter's /api/v1/models."),
    setting("MODEL_BASED_PRICING", &["FIXED_PRICING"], "",
        "true: prices from the list of models. false: the three fixed prices below, for any model that is not \
         switched off. When absent: true, unless the list has no entry, not even one that is switched off, and no \
         other list was ever followed. (FIXED_PRICING means the opposite.)"),
    setting("COST_PER_REQUEST", &["FIXED_COST_PER_REQUEST"], "1",
        "Fixed pricing: sats for each request."),
    setting("COST_PER_1K_INPUT_TOKENS", &["FIXED_PER_1K_INPUT_TOKENS"], "0",
        "Fixed pricing: sats for 1000 tokens sent."),
    setting("COST_PER_1K_OUTPUT_TOKENS", &["FIXED_PER_1K_OUTPUT_TOKENS"], "0",
        "Fixed pricing: sats for 1000 tokens received."),
    setting("EXCHANGE_FEE", &[], "1.005",
        "Factor on prices in USD for changing them into sats. 1.005 adds half a percent."),
    setting("UPSTREAM_PROVIDER_FEE", &[], "1.05",
        "Factor on prices in USD for your service. 1.05 adds five percent."),
    setting("TOLERANCE_PERCENTAGE", &[], "1",
        "By how many percent a payment may fall short of the dearest possible answer, 0 to 50."),
    setting("MIN_REQUEST_MSAT", &[], "1",
        "What a served request costs at least, in msat (1/1000 sat)."),
    setting("CHILD_KEY_COST", &[], "0",
        "What a client pays for each child key it makes, in msat."),
    setting("MISSING_USAGE", &[], "estimate",
        "When the upstream does not say what it used: estimate (count the text), max (charge all \
         that was held) or free."),

    setting("BTC_USD_FEEDS", &[], "kraken,coinbase,binance,bitstamp,mempool",
        "Sources of the BTC/USD rate, separated by commas. kraken=https://… asks another address \
         in the same format."),
    setting("BTC_USD_FIXED", &[], "",
        "A fixed rate in USD for one bitcoin; no source is asked then."),
    setting("BTC_USD_MAX_AGE", &[], "600",
        "Seconds after which a rate is too old to sell at."),
    setting("BTC_USD_MIN_FEEDS", &[], "2",
        "How many sources must agree before a rate is believed; all of them, where there are fewer."),
    setting("BTC_USD_MAX_SPREAD_PERCENT", &[], "10",
        "By how many percent a source may differ from the median and still count."),
    setting("BTC_USD_GRACE_SECONDS", &[], "0",
        "For how long the last good rate may still sell when it is too old. 0: not at all."),
    setting("BTC_USD_GRACE_MARGIN_PERCENT", &[], "5",
        "By how many percent everything is dearer in that time."),
    setting("PRICING_REFRESH_INTERVAL_SECONDS", &["PRICING_REFRESH_INTERVAL"], "120",
        "How often the rate is fetched, in seconds; twice in BTC_USD_MAX_AGE at least."),

    setting("PRICE_SOURCES", &[], "",
        "Lists that models and prices are taken from beside your own, which always wins: openrouter, litellm, \
         upstreams (their own /models), separated by commas, the first one's price counts. openrouter=https://… \
         asks another address in the same format. Empty: none is asked."),
    setting("MODELS_REFRESH_INTERVAL_SECONDS", &[], "",
        "How often these lists are fetched, in seconds. When absent: PRICING_REFRESH_INTERVAL_SECONDS if that is \
         given, or else 3600."),

    setting("RECEIVE_LN_ADDRESS", &[], "",
        "Where your earnings go: a Lightning address (you@example.com) or an LNURL. Empty: they stay in the node."),
    setting("MINIMUM_PAYOUT", &["MIN_PAYOUT_SAT"], "100",
        "Sats that must have been earned at a mint before they are sent."),
    setting("PAYOUT_INTERVAL", &["PAYOUT_INTERVAL_SECONDS"], "300",
        "How often the earnings are looked at, in seconds."),
    setting("REFUND_PROCESSING_INTERVAL", &[], "3600",
        "How often keys whose time is over (Key-Expiry-Time) are looked for, in seconds; their money goes to their \
         Refund-LNURL. 0: never."),
    setting("LIGHTNING_MAX_FEE_PERCENT", &[], "3",
        "The most that a Lightning payment of yours or of a client's may cost, in percent (at least 2 sats)."),

    setting("CHANGE_CLAIM_DAYS", &[], "180",
        "Days that change and refunds stay claimable. What nobody has claimed at the mint by then is taken \
         back into your earnings. 0: never."),
    setting("INVOICE_CREATES_PER_HOUR", &[], "10",
        "Lightning invoices for new keys that one address may ask for in an hour. Behind a tor daemon, and behind a \
         reverse proxy that TRUSTED_PROXIES does not name, all clients have one address: set this and the next \
         three to 0 there, which means no limit. With TOR=true, each circuit counts as an address, and all of \
         Tor as twenty."),
    setting("INVOICE_MAX_PENDING", &[], "5",
        "How many invoices may wait to be paid, for one address. 0: no limit."),
    setting("VOUCHER_TRIES_PER_HOUR", &[], "20",
        "Wrong voucher codes that one address may send in an hour. 0: no limit."),
    setting("QUOTES_PER_MINUTE", &[], "60",
        "Prices of requests (POST /v1/quote) that one address may ask for in any minute. 0: no limit."),

    setting("KEY_REQUESTS_PER_MINUTE", &[], "0",
        "Requests that one key may make in any minute, at OpenAI's, Anthropic's and Google's endpoints each. 0: no limit, \
         here and in the next two."),
    setting("KEY_TOKENS_PER_MINUTE", &[], "0",
        "Tokens that one key may use in any minute, both ways together."),
    setting("KEY_MAX_STREAMS", &[], "0",
        "Streams that one key may have running at a time."),

    setting("ADMIN_PASSWORD", &[], "",
        "Password for the operator's pages: 12 characters or more. Generated and printed once when none was ever set."),
    setting("ADMIN_NPUBS", &[], "",
        "Public Nostr keys, npub1…, separated by commas, whose owners may log in by signing, as NIP-98 says."),
    setting("ADMIN_LISTEN", &[], "",
        "Address and port, e.g. 127.0.0.1:8001, for the operator's pages, /admin/api and /metrics: they are served \
         there and nowhere else. When absent, they are served with everything else."),
    setting("METRICS_TOKEN", &[], "",
        "Opens /metrics to whoever sends it as a bearer token: 16 characters or more. When absent, nothing is served there."),
    setting("SECRET_KEY", &["ROUTSTR_SECRET_KEY"], "",
        "Encrypts secrets in the database. Generated into DATA_DIR when absent; keep a copy."),
    setting("SECRET_KEY_FILE", &["ROUTSTR_SECRET_KEY_FILE"], "",
        "The same, read from a file, e.g. /run/secrets/coinslot. Give one of the two."),

    setting("DATA_DIR", &[], "./data",
        "Where the node keeps its files. It holds money: back it up."),
    setting("DATABASE_URL", &[], "",
        "sqlite:path or postgres://user:password@host/name. SQLite in DATA_DIR when absent."),
    setting("DURABILITY", &[], "normal",
        "normal: what moves ecash is synced to disk at once, single charges shortly after. \
         strict: everything is synced at once."),
    setting("NODE_TIMEOUT_SECONDS", &[], "90",
        "Several nodes on one PostgreSQL: seconds of silence after which the others take over what a node \
         had begun, from 5. Their clocks must agree much better than that."),

    setting("BACKUP_PASSPHRASE", &[], "",
        "Encrypts what coinslot backup writes, and the daily snapshots; at least 12 characters. Keep it \
         where the backups are not. Without one, backup asks, and snapshots need the secret key above."),
    setting("BACKUP_PASSPHRASE_FILE", &[], "",
        "The same, read from a file. Give one of the two."),
    setting("SNAPSHOTS_KEEP", &[], "14",
        "How many daily encrypted copies of a SQLite database are kept in DATA_DIR/snapshots. 0: none."),

    setting("RETENTION_REQUESTS_DAYS", &[], "90",
        "How many days the node remembers which upstreams each request was sent to, and what it cost you there. 0: \
         for ever. What was held and charged, receipts and sums are never pruned."),
    setting("RETENTION_FAILED_DAYS", &[], "7",
        "The same, for requests that cost their client nothing. 0: as long as for the others."),

    setting("HOST", &[], "127.0.0.1",
        "Address to listen on. 0.0.0.0 for all interfaces."),
    setting("PORT", &[], "8000",
        "Port to listen on. 0 picks a free one."),
    setting("CORS_ORIGINS", &[], "*",
        "Web sites whose scripts may call the API, separated by commas, e.g. https://chat.example."),
    setting("TRUSTED_PROXIES", &[], "",
        "Your reverse proxies, as addresses or networks (127.0.0.1, 10.0.0.0/8), separated by commas: what they \
         say in X-Forwarded-For is who asks."),
    setting("MAX_BODY_BYTES", &[], "33554432",
        "Largest request taken, in bytes, counted after unpacking."),
    setting("MAX_BUFFERED_BYTES", &[], "268435456",
        "How much memory all requests larger than 64 KiB may take up at a time, in bytes; those beyond it get a 503 \
         with Retry-After. Those who have no key here share half of it. One request of MAX_BODY_BYTES always fits."),
    setting("MAX_KEPT_BYTES", &[], "1073741824",
        "How much of the database the answers kept for a day for an Idempotency-Key may take up together, in bytes. \
         Of those beyond it, only short ones are kept."),
    setting("SHUTDOWN_TIMEOUT_SECONDS", &[], "30",
        "How long running answers may go on after a stop signal. What is not complete then is ended, and charged \
         for what was delivered."),

    setting("SSE_KEEP_ALIVE_SECONDS", &[], "15",
        "A stream that is silent for this long gets a comment, so that nobody on the way takes it for dead. 0: \
         never."),
    setting("MAINTENANCE", &[], "",
        "true: nothing is sold and no token is taken; balances and refunds stay open. When absent, \
         coinslot maintenance on|off decides, also while the node runs."),
    setting("PROTOCOLS", &[], "openai,anthropic,gemini",
        "Whose endpoints are sold, separated by commas; those of the others are refused as if they were not there."),
    setting("ACCEPT_NEW_TOKENS", &[], "true",
        "false: no new money is taken, neither as ecash nor over Lightning. What is on keys can be spent and \
         refunded: for the last weeks of a node."),

    setting("NAME", &[], "coinslot",
        "Name of the node, for people."),
    setting("DESCRIPTION", &[], "",
        "What it offers, in a sentence."),
    setting("NPUB", &[], "",
        "Your public Nostr key, npub1… When absent: that of NSEC."),
    setting("NSEC", &[], "",
        "The node's secret Nostr key, nsec1… or 64 hexadecimal digits. It signs receipts and the listing. \
         Made, and kept encrypted in the database, when absent."),
    setting("HTTP_URL", &[], "",
        "Where the node can be reached on the web."),
    setting("ONION_URL", &[], "",
        "Where the node can be reached in Tor by a tor daemon of yours. With TOR=true the node has an address of \
         its own, and this is not needed; where it is given, it is the one that is announced."),

    setting("TOR", &[], "false",
        "true: the node is in Tor by itself. It makes an onion address, whose key it keeps in DATA_DIR/tor, and \
         reaches .onion addresses."),
    setting("TOR_CONFIG", &[], "",
        "A TOML file with more settings for TOR=true, in the words of arti's own configuration."),
    setting("TOR_PROXY_URL", &[], "",
        "The SOCKS port of a tor daemon, e.g. socks5h://127.0.0.1:9050: connections out through Tor use it, \
         whatever TOR says."),
    setting("TOR_FOR", &[], "",
        "What goes out through Tor wherever it leads: upstreams, mints, relays, prices (rate and price lists), \
         strangers (Lightning addresses, foreign mints, other nodes), reports (alarms by webhook, traces), \
         separated by commas. .onion addresses always do, and hosts on loopback never."),

    setting("RELAYS", &[], "",
        "Nostr relays, separated by commas: where the node is listed, and looks for others. Clients look at \
         wss://relay.damus.io,wss://nos.lol,wss://relay.routstr.com. Empty: none is asked or told anything."),
    setting("PROVIDER_ID", &[], "",
        "Name of the listing under your key (its d tag). Nodes with one key and other addresses need one each. \
         When absent: the first 12 digits of the public key."),
    setting("NOSTR_HANDLER", &[], "false",
        "true: Nostr apps are told to open your page (HTTP_URL) for the listing (NIP-89)."),
    setting("PROVIDERS_REFRESH_INTERVAL_SECONDS", &[], "900",
        "Other nodes, which /v1/providers lists, are heard of as they come. Seconds after which the relays are \
         asked for all of them again, and the nodes are asked whether they answer. 0: never, and there is no list."),

    setting("ALERT_WEBHOOK_URL", &[], "",
        "Where alarms are posted as JSON, e.g. https://hooks.example/coinslot. It may be in your own network. See \
         \"Alarms\" in the README."),
    setting("ALERT_WEBHOOK_SECRET", &[], "",
        "Signs what is posted there (webhook-signature, as Standard Webhooks has it): whsec_ and base64, or any \
         text of 16 characters or more."),
    setting("ALERT_NPUB", &[], "",
        "Who gets alarms as an encrypted Nostr message (NIP-17): npub1… Needs RELAYS."),
    setting("ALERT_REPEAT_SECONDS", &[], "21600",
        "Seconds after which an alarm that has not ended is told again. 0: never."),

    setting("OTEL_EXPORTER_OTLP_ENDPOINT", &[], "",
        "A collector of OpenTelemetry that gets a trace of each paid request (OTLP over HTTP, at /v1/traces), e.g. \
         http://127.0.0.1:4318. Empty: nothing is traced."),
    setting("OTEL_EXPORTER_OTLP_HEADERS", &[], "",
        "Headers for it, as name=value with commas between; values may be percent-encoded."),
    setting("OTEL_SERVICE_NAME", &[], "coinslot",
        "What the node is called there."),

    setting("LOG_LEVEL", &[], "info",
        "off, error, warn, info, debug or trace, or a filter such as info,coinslot=debug."),
    setting("LOG_FORMAT", &[], "pretty",
        "pretty for people, json for machines."),
];

/// Settings of the network's other nodes, and of later versions, that nothing acts on yet. The
/// operator is told when one is given.
#[rustfmt::skip]
pub const NOT_USED_YET: &[&str] = &[
    "TINFOIL_API_KEY",
    "DEVS_DONATION_RATE", "MINT_RETRY_MAX_ATTEMPTS",
    "ENABLE_ANALYTICS_SHARING",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_means_two_things() {
        let mut names: Vec<_> = SETTINGS.iter().flat_map(Setting::spellings).collect();
        names.extend(NOT_USED_YET);
        let unique: BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
    }

    /// Comment and line of each setting in `.env.example`, in order.
    fn example() -> Vec<(String, String)> {
        let text = include_str!("../../.env.example");
        let mut found = Vec::new();
        for block in text.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
            let lines: Vec<_> = block.lines().collect();
            let (last, above) = lines.split_last().unwrap();
            let line = last.trim_start_matches("# ");
            let name = line.split('=').next().unwrap();
            if name.is_empty() || name.contains(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_') {
                continue;
            }
            let comment = above.iter().map(|line| line.strip_prefix("# ").unwrap());
            found.push((comment.collect::<Vec<_>>().join(" "), line.to_owned()));
        }
        found
    }

    #[test]
    fn the_example_file_documents_the_table_and_nothing_else() {
        let listed: Vec<_> = SETTINGS
            .iter()
            .map(|setting| (setting.help.to_owned(), format!("{}={}", setting.name, setting.default)))
            .collect();
        assert_eq!(example(), listed);
        // As it stands it changes nothing: only lines without a value are not comments.
        let active = include_str!("../../.env.example").lines();
        let mut active = active.filter(|line| !line.is_empty() && !line.starts_with('#'));
        assert!(active.all(|line| line.ends_with('=')));
    }
}
