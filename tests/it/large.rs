//! Pages when there are very many requests and keys: no statement behind one reads a large table from end to end. The
//! plans are asked for, so a small database does; `benches/pages.rs` takes the times.

use std::collections::BTreeSet;

use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Row};

use crate::process::{ChildNode, Program};
use crate::support::answers::until;
use crate::support::db::TestDb;
use crate::support::fill::{ADDRESSES, Size, fill, session};
use crate::support::mint::TestMint;
use crate::support::node::client;
use crate::support::upstream::Upstream;

/// Tables that grow with the requests and the keys.
const LARGE: [&str; 6] = ["accounts", "holds", "transfers", "outlays", "key_terms", "price_sheets"];
/// Indexes over few rows of them: the accounts of the house, what is open, what became income. To read one of these
/// from end to end is cheap.
const SHORT: [&str; 3] = ["accounts_house", "holds_open_by_owner", "transfers_unclaimed"];

/// The statements in a log that requests caused; jobs have theirs beside them, now and then.
fn statements(log: &str) -> BTreeSet<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let asked = lines.filter(|line| line["target"] == "sqlx::query" && line["span"]["name"] == "request");
    let text = |line: Value| {
        let whole = line["fields"]["db.statement"].as_str().unwrap_or_default().trim().to_owned();
        if whole.is_empty() { line["fields"]["summary"].as_str().unwrap_or_default().to_owned() } else { whole }
    };
    let all = asked.map(text).map(|sql| sql.split_whitespace().collect::<Vec<_>>().join(" "));
    all.filter(|sql| sql.starts_with("SELECT") || sql.starts_with("WITH")).collect()
}

/// What is wrong with the plan of a statement.
async fn faults(connection: &mut AnyConnection, on_postgres: bool, sql: &str) -> Vec<String> {
    let lines =
        |rows: Vec<AnyRow>, column: usize| rows.iter().map(|row| row.get::<String, _>(column)).collect::<Vec<_>>();
    let plan: Vec<String> = if on_postgres {
        let count = (1..100).take_while(|at| sql.contains(&format!("${at}"))).count();
        let nulls = vec!["NULL"; count].join(", ");
        let arguments = if count == 0 { String::new() } else { format!("({nulls})") };
        // Where there is another way, it is taken, however small the table is.
        for set in ["SET enable_seqscan = off", "SET plan_cache_mode = force_generic_plan"] {
            sqlx::raw_sql(set).execute(&mut *connection).await.unwrap();
        }
        sqlx::raw_sql(AssertSqlSafe(format!("PREPARE looked_at AS {sql}"))).execute(&mut *connection).await.unwrap();
        let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE looked_at{arguments}"));
        let rows = sqlx::raw_sql(explain).fetch_all(&mut *connection).await.unwrap();
        sqlx::raw_sql("DEALLOCATE looked_at").execute(&mut *connection).await.unwrap();
        lines(rows, 0)
    } else {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        lines(sqlx::raw_sql(explain).fetch_all(&mut *connection).await.unwrap(), 3)
    };
    let is_short = |line: &str| SHORT.iter().any(|index| line.contains(index));
    let named = |line: &str, table: &str| {
        let word = line.trim().trim_start_matches("SCAN ").split_whitespace().next().unwrap_or_default();
        word == table || sql.contains(&format!("{table} {word} ")) || sql.contains(&format!("{table} AS {word} "))
    };
    let is_bad = |line: &&String| {
        let line = line.as_str();
        if on_postgres {
            // An index that is read without a condition is read from end to end, unless a limit ends it.
            return LARGE.iter().any(|table| line.contains(&format!("Seq Scan on {table}")));
        }
        line.starts_with("SCAN ") && !is_short(line) && LARGE.iter().any(|table| named(line, table))
    };
    plan.iter().filter(is_bad).map(|line| format!("{line}: {sql}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_reads_a_large_table_from_end_to_end() {
    let (mint, upstream, db) = (TestMint::start().await, Upstream::start().await, TestDb::new().await);
    let settings = |more: &[(&'static str, &'static str)]| -> Vec<(String, String)> {
        let url = db.url().map(|url| ("DATABASE_URL".to_owned(), url));
        more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).chain(url).collect()
    };
    let start = async |more: &[(&'static str, &'static str)]| {
        let settings = settings(more);
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Program::start(&db.dir(), &mint, &upstream, &settings).await
    };
    start(&[]).await.stop().await;
    let store = db.open().await;
    fill(&store, Size { keys: 60, requests: 20 }).await;
    let cookie = session(&store).await;
    let row = sqlx::query(
        "SELECT h.request, SUBSTR(a.key_hash, 1, 8) FROM holds h JOIN accounts a ON a.id = h.account ORDER BY h.id DESC LIMIT 1",
    );
    let row = row.fetch_one(store.read()).await.unwrap();
    let (id, key): (String, String) = (row.get(0), row.get(1));
    store.close().await;
    drop(store);

    let program = start(&[("LOG_LEVEL", "info,sqlx::query=debug"), ("LOG_FORMAT", "json")]).await;
    let browser = client();
    let get = async |path: &str| {
        let path = path.replace("{id}", &id).replace("{key}", &key);
        let answer = browser.get(format!("{}{path}", program.url())).header("cookie", &cookie).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.unwrap()
    };
    // The hourly proof of the books reads everything, and is over first.
    until("the books are proven", async || !get("/admin").await.contains("were not proven since")).await;
    // It is noted in the log when that is so.
    let clear = browser.post(format!("{}/admin/upstreams/clear", program.url())).header("cookie", &cookie);
    let clear = clear.header("origin", program.url()).header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(clear.body("csrf=x&name=default").send().await.unwrap().status(), 303);
    for path in ADDRESSES {
        let page = get(path).await;
        let has_rows = !path.starts_with("/admin/requests?") || path.ends_with("timeout") || path.ends_with("running");
        assert!(has_rows || page.contains("-7000-8000-"), "{path} finds nothing: {page}");
    }
    // Hours without such requests are left out, and no request with them.
    let all = async |query: &str| {
        let (mut found, mut after) = (BTreeSet::new(), String::new());
        loop {
            let page = get(&format!("/admin/requests?{query}{after}")).await;
            for id in page.split("/admin/requests?id=").skip(1).map(|rest| &rest[..36]) {
                assert!(found.insert(id.to_owned()), "{id} twice");
            }
            match page.split_once("after=") {
                Some((_, rest)) => {
                    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                    after = format!("&after={digits}");
                }
                None => return found.len(),
            }
        }
    };
    let found = [
        ("upstream=upstream-1", 400),
        ("upstream=rare-upstream", 1),
        ("model=big/model-1", 30),
        ("model=big/model-1&upstream=upstream-1", 10),
        ("model=big/model-1&upstream=upstream-1&status=failed", 0),
        ("model=big/model-7&status=failed", 6),
        ("upstream=none", 0),
    ];
    for (query, count) in found {
        assert_eq!(all(query).await, count, "{query}");
    }
    let said = program.stop().await;
    let asked = statements(said.split_once("\"upstreams.clear\"").unwrap().1);
    assert!(asked.len() > 25, "{asked:?}");
    let on_postgres = db.url().is_some();
    sqlx::any::install_default_drivers();
    let file = format!("sqlite:{}", db.data_dir().join("coinslot.db").display());
    let mut connection = AnyConnection::connect(&db.url().unwrap_or(file)).await.unwrap();
    let bad = "SELECT COUNT(*) FROM holds WHERE charged > 0";
    assert_eq!(faults(&mut connection, on_postgres, bad).await.len(), 1, "a bad one is noticed");
    let mut found = Vec::new();
    for sql in asked {
        found.extend(faults(&mut connection, on_postgres, &sql).await);
    }
    assert_eq!(found, Vec::<String>::new());
    connection.close().await.unwrap();
    db.remove().await;
}

/// A key is charged for as many requests as it likes: all of them are written out and found, however far back they are.
#[tokio::test(flavor = "multi_thread")]
async fn all_that_a_key_was_charged_for_is_found() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let mut node = ChildNode::start(&mint.url(), &upstream, &[]).await;
    node.stop().await;
    let store = node.db.open().await;
    fill(&store, Size { keys: 1, requests: 21_000 }).await;
    let sql = "SELECT SUBSTR(a.key_hash, 1, 8), COUNT(*) FROM holds h JOIN accounts a ON a.id = h.account \
         WHERE h.charged > 0 GROUP BY a.key_hash";
    let row = sqlx::query(sql).fetch_one(store.read()).await.unwrap();
    let (key, charged): (String, i64) = (row.get(0), row.get(1));
    store.close().await;
    drop(store);
    let found = node.verb(&["requests", "export", "--key", &key, "--json"]).await;
    assert_eq!(found.code, 0, "{}", found.complained);
    let ones: Vec<Value> = found.said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let began: Vec<i64> = ones.iter().map(|one| one["began_ms"].as_i64().unwrap()).collect();
    assert!(began.is_sorted_by(|one, other| one > other), "the newest first, each once");
    assert_eq!(i64::try_from(ones.len()).unwrap(), charged);
    let (oldest, to) = (ones.last().unwrap(), (began.last().unwrap() + 1).to_string());
    let found = node.verb(&["requests", "list", "--key", &key, "--to", &to, "--json"]).await;
    let found: Value = serde_json::from_str(&found.said).unwrap();
    assert_eq!(found["requests"], serde_json::json!([oldest]));
    node.db.remove().await;
}
