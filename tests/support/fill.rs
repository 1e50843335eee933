//! A database with many keys and requests, as they would be after a long time: rows that fit each other, written by
//! few statements. There is no ecash behind them, so an audit would say that it is missing.

use coinslot::clock::{Clock as _, SystemClock};
use coinslot::store::{Durability, Location, Store};
use sha2::{Digest, Sha256};
use sqlx::AssertSqlSafe;

/// Addresses of the operator's side, one a line. `{id}`: a request; `{key}`: the first digits of a key's hash.
pub const ADDRESSES: &[&str] = &[
    "/admin",
    "/admin?of=week",
    "/admin?of=ever",
    "/admin/requests",
    "/admin/requests?id={id}",
    "/admin/requests?model=big/model-1",
    "/admin/requests?model=big/rare",
    "/admin/requests?upstream=rare-upstream",
    "/admin/requests?status=failed",
    "/admin/requests?status=upstream_timeout",
    "/admin/requests?status=running",
    "/admin/requests?from=2026-01-01&to=2099-01-01&status=charged",
    "/admin/requests?key={key}",
    "/admin/requests?key={key}&model=big/model-39",
    "/admin/keys",
    "/admin/keys?hash={key}",
    "/admin/keys?label=nothing",
    "/admin/keys?state=blocked",
    "/admin/keys?state=funded",
    "/admin/keys/1000007",
    "/admin/wallet",
    "/admin/wallet/payouts",
    "/admin/upstreams",
    "/admin/models",
    "/admin/models/one?id=toy/echo-1",
    "/admin/vouchers",
    "/admin/profiles",
    "/admin/network",
    "/admin/access",
    "/admin/announcements",
    "/admin/settings",
    "/admin/trail",
    "/status",
];

/// What there is to be.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub keys: i64,
    /// Of each key.
    pub requests: i64,
}

/// Amounts in msat.
const CREDIT: i64 = 1_000_000_000;
const CHARGE: i64 = 2_000;
const HELD: i64 = 21_000;
/// The requests are spread over so many days.
const DAYS: i64 = 60;
/// Above all ids that a node makes in this century's first decades: below them, in the same order.
const KEYS_FROM: i64 = 1_000_000;

/// One request in 50 has failed, and cost nothing; one model in ten is rare.
fn record() -> String {
    let rest = "\"path\":\"chat/completions\",\"provider\":\"big\",\"estimated\":false,\"usage\":{\"input\":100,\
        \"cache_read\":0,\"cache_write\":0,\"output\":50,\"reasoning\":0,\"images\":0,\"web_searches\":0},\
        \"price\":{\"currency\":\"usd\",\"input\":\"0.00001\",\"cache_read\":\"0.00001\",\"cache_write\":\"0.00001\",\
        \"output\":\"0.00002\",\"reasoning\":\"0.00002\",\"request\":\"0\",\"image\":\"0\",\"web_search\":\"0\",\
        \"exchange_fee\":\"1\",\"provider_fee\":\"1\",\"minimum_msat\":1},\"price_id\":\"p\",\"rate_id\":\"r\",\
        \"btc_usd\":\"100000\",\"btc_usd_as_of_ms\":1790000000000,\"cost\":{\"base_msat\":0,\"input_msat\":1000,\
        \"cache_read_msat\":0,\"cache_write_msat\":0,\"output_msat\":1000,\"usd\":\"0.002\"}}";
    format!(
        "CASE WHEN n % 50 = 7 THEN '{{\"failure\":\"upstream_error\",' ELSE '{{' END || '\"model\":\"big/' || \
         CASE WHEN n % 5000 = 3 THEN 'rare' ELSE 'model-' || CAST(n % 40 AS TEXT) END || '\",{rest}'"
    )
}

/// Fills a database whose node does not run.
pub async fn fill(store: &Store, size: Size) {
    let on_postgres = matches!(store.location(), Location::Postgres(_));
    let numbers = |count: i64| match on_postgres {
        true => format!("(SELECT g AS n FROM generate_series(CAST(0 AS BIGINT), {}) g) numbers", count - 1),
        false => format!(
            "(WITH RECURSIVE c (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n < {}) SELECT n FROM c) numbers",
            count - 1
        ),
    };
    let (keys, total) = (size.keys, size.keys * size.requests);
    let now_ms = SystemClock.now_ms();
    let from_ms = now_ms - DAYS * 86_400_000;
    // A request every so often; its id begins with that time, as a node would make it.
    let at = format!("({from_ms} + n * {} / {total})", DAYS * 86_400_000);
    let hold = format!("(({at} * 2097152) + n % 8192)");
    let key = format!("({KEYS_FROM} + n % {keys})");
    let hash =
        if on_postgres { "md5(CAST(n AS TEXT))" } else { "printf('%08x%08x', (n * 2654435761) % 4294967296, n)" };
    // A uuid of version 7 begins with the time.
    let request = match on_postgres {
        true => format!(
            "SUBSTR(LPAD(TO_HEX({at}), 12, '0'), 1, 8) || '-' || SUBSTR(LPAD(TO_HEX({at}), 12, '0'), 9, 4) || '-7000-8000-' || LPAD(TO_HEX(n), 12, '0')"
        ),
        false => format!(
            "SUBSTR(printf('%012x', {at}), 1, 8) || '-' || SUBSTR(printf('%012x', {at}), 9, 4) || '-7000-8000-' || printf('%012x', n)"
        ),
    };
    let charged = format!("CASE WHEN n % 50 = 7 THEN 0 ELSE {CHARGE} END");
    let upstream = "CASE WHEN n % 5000 = 3 THEN 'rare-upstream' ELSE 'upstream-' || CAST(n % 3 AS TEXT) END";
    let statements = [
        format!(
            "INSERT INTO accounts (id, kind, mint, unit, posted, created_at) VALUES (900001, 'mint', 'https://filled.example', 'sat', 0, {from_ms})"
        ),
        format!(
            "INSERT INTO accounts (id, kind, key_hash, mint, unit, posted, created_at) \
             SELECT {KEYS_FROM} + n, 'key', {hash}, 'https://filled.example', 'sat', {CREDIT}, {from_ms} + n FROM {}",
            numbers(keys)
        ),
        format!("UPDATE accounts SET posted = posted - {} WHERE id = 900001", keys * CREDIT),
        format!(
            "INSERT INTO transfers (id, debit, credit, amount, kind, reference, created_at) \
             SELECT {KEYS_FROM} + n, 900001, {KEYS_FROM} + n, {CREDIT}, 'redeem', 'filled', {from_ms} + n FROM {}",
            numbers(keys)
        ),
        format!(
            "INSERT INTO holds (id, account, amount, request, owner, state, charged, created_at, ended_at, receipt) \
             SELECT {hold}, {key}, {HELD}, {request}, 'filled', CASE WHEN n % 50 = 7 THEN 'released' ELSE 'captured' END, \
             {charged}, {at}, {at} + 700, {} FROM {}",
            record(),
            numbers(total)
        ),
        // The charges of a key are a chain: the one before is that of the number before.
        "INSERT INTO transfers (id, debit, credit, amount, kind, reference, created_at, previous) \
             SELECT -h.id, h.account, (SELECT id FROM accounts WHERE kind = 'income' AND key_hash IS NULL), h.charged, \
             'charge', h.request, h.ended_at, -LAG(h.id) OVER (PARTITION BY h.account ORDER BY h.id) \
             FROM holds h WHERE h.charged > 0 AND h.owner = 'filled'"
            .to_owned(),
        "CREATE TABLE filled AS SELECT account, MAX(id) AS last, COUNT(*) AS paid, SUM(charged) AS spent FROM holds \
         WHERE charged > 0 AND owner = 'filled' GROUP BY account"
            .to_owned(),
        "CREATE INDEX filled_by_account ON filled (account)".to_owned(),
        format!(
            "UPDATE accounts SET last_charge = -(SELECT last FROM filled f WHERE f.account = accounts.id), \
             requests = (SELECT paid FROM filled f WHERE f.account = accounts.id), \
             spent = (SELECT spent FROM filled f WHERE f.account = accounts.id), \
             posted = posted - (SELECT spent FROM filled f WHERE f.account = accounts.id) \
             WHERE id >= {KEYS_FROM} AND id < {} AND id IN (SELECT account FROM filled)",
            KEYS_FROM + keys
        ),
        "UPDATE accounts SET posted = posted + (SELECT COALESCE(SUM(spent), 0) FROM filled) \
         WHERE kind = 'income' AND key_hash IS NULL"
            .to_owned(),
        "DROP TABLE filled".to_owned(),
        format!(
            "INSERT INTO outlays (id, upstream, model, nano_usd, msat, charged, attempts, created_at) \
             SELECT {hold}, {upstream}, 'model', 2000000, CASE WHEN n % 50 = 7 THEN NULL ELSE 2000 END, {charged}, \
             '[{{\"upstream\":\"u\",\"outcome\":\"answered\",\"ms\":600}}]', {at} + 700 FROM {}",
            numbers(total)
        ),
        "DELETE FROM request_sums".to_owned(),
    ];
    let mut tx = store.begin(Durability::ProcessSafe).await.unwrap();
    for sql in statements {
        sqlx::query(AssertSqlSafe(sql.clone()))
            .execute(tx.hand())
            .await
            .unwrap_or_else(|error| panic!("{error}: {sql}"));
    }
    let sums = match on_postgres {
        true => include_str!("../../src/migrations/0031_request_sums.postgres.sql"),
        false => include_str!("../../src/migrations/0031_request_sums.sqlite.sql"),
    };
    sqlx::raw_sql(sums).execute(tx.hand()).await.unwrap();
    tx.commit().await.unwrap();
    if on_postgres {
        sqlx::query("ANALYZE").execute(store.read()).await.unwrap();
    }
}

/// A session, made where the node looks for it.
pub async fn session(store: &Store) -> String {
    let cookie = "a session for looking at pages";
    let hash: String = Sha256::digest(cookie.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut tx = store.begin(Durability::Full).await.unwrap();
    let insert = "INSERT INTO sessions (id_hash, csrf, expires_at, actor) VALUES ($1, 'x', $2, 'password')";
    sqlx::query(insert).bind(hash).bind(i64::MAX).execute(tx.hand()).await.unwrap();
    tx.commit().await.unwrap();
    format!("coinslot_session={cookie}")
}
