//! How long the operator's pages take with very many requests and keys: `cargo bench --bench pages`. On SQLite, and on
//! PostgreSQL too where `TEST_POSTGRES_URL` says where one is (`.ci/with-postgres`). `--quick`: a tenth of the rows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coinslot::clock::SystemClock;
use coinslot::config::Config;
use coinslot::node::{self, Running};
use coinslot::store::Store;
use sqlx::Row as _;

use support::fill::{ADDRESSES, Size, fill, session};
use support::node::{client, models};
use support::store::TempSchema;

/// How often each page is asked for; the slowest time counts.
const ROUNDS: usize = 5;
/// What a page may take.
const TARGET: Duration = Duration::from_millis(200);

#[tokio::main]
async fn main() {
    let quick = std::env::args().any(|word| word == "--quick");
    let size = Size { keys: if quick { 10_000 } else { 100_000 }, requests: 10 };
    println!("{} keys, {} requests", size.keys, size.keys * size.requests);
    measure("SQLite", None, size).await;
    if std::env::var("TEST_POSTGRES_URL").is_ok() {
        let schema = TempSchema::create().await.expect("PostgreSQL answers");
        measure("PostgreSQL", Some(schema.url()), size).await;
        schema.remove().await;
    }
}

async fn start(dir: &Path, url: Option<&str>) -> Running {
    let mut settings: BTreeMap<String, String> = [
        ("PORT", "0".to_owned()),
        ("DATA_DIR", dir.join("data").display().to_string()),
        ("MODELS_PATH", dir.join("models.json").display().to_string()),
        ("BTC_USD_FIXED", "100000".to_owned()),
        ("CASHU_MINTS", "http://127.0.0.1:9".to_owned()),
        ("UPSTREAM_BASE_URL", "http://127.0.0.1:9".to_owned()),
        ("ADMIN_PASSWORD", "an admin password".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    settings.extend(url.map(|url| ("DATABASE_URL".to_owned(), url.to_owned())));
    node::start(Config::from_vars(&settings).expect("settings"), Arc::new(SystemClock)).await.expect("the node starts")
}

async fn measure(name: &str, url: Option<String>, size: Size) {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("models.json"), models().to_string()).expect("models.json");
    start(dir.path(), url.as_deref()).await.shutdown(std::future::pending()).await;
    let store = Store::open(&dir.path().join("data"), url.as_deref(), false).await.expect("the database");
    let began = Instant::now();
    fill(&store, size).await;
    let cookie = session(&store).await;
    let row = sqlx::query(
        "SELECT h.request, SUBSTR(a.key_hash, 1, 8) FROM holds h JOIN accounts a ON a.id = h.account ORDER BY h.id DESC LIMIT 1",
    );
    let row = row.fetch_one(store.read()).await.expect("a request");
    let (id, key): (String, String) = (row.get(0), row.get(1));
    store.close().await;
    // And with it the lock of its file.
    drop(store);
    println!("\n{name}: filled in {:.0?}\n", began.elapsed());
    let running = start(dir.path(), url.as_deref()).await;
    let (base, client) = (format!("http://{}", running.address()), client());
    println!("| {name} | median, ms | slowest, ms | |\n|---|---|---|---|");
    // What the node does first, a proof of the books among it, is over by then.
    while client
        .get(format!("{base}/admin"))
        .header("cookie", &cookie)
        .send()
        .await
        .expect("a page")
        .text()
        .await
        .expect("a page")
        .contains("were not proven since")
    {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for address in ADDRESSES {
        let path = address.replace("{id}", &id).replace("{key}", &key);
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let answer = client.get(format!("{base}{path}")).header("cookie", &cookie).send().await.expect("a page");
            assert_eq!(answer.status(), 200, "{path}");
            answer.text().await.expect("a page");
            times.push(began.elapsed());
        }
        times.sort_unstable();
        let (median, slowest) = (times[ROUNDS / 2], times[ROUNDS - 1]);
        let ms = |time: Duration| time.as_micros() / 1_000;
        println!(
            "| `{address}` | {} | {} | {} |",
            ms(median),
            ms(slowest),
            if slowest <= TARGET { "PASS" } else { "MISS" }
        );
    }
    running.shutdown(std::future::pending()).await;
}
