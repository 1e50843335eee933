//! `coinslot audit`: every kind of fault is planted, and named; nothing else is called a fault, also
//! while the node is at work.

use cdk::nuts::{CurrencyUnit, State, Token};
use coinslot::store::{Durability, Store};
use coinslot::wallet::cdk_db;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Row};

use crate::process::ChildNode;
use crate::support::answers::until;
use crate::support::chaos::{Chaos, Mode};
use crate::support::db::TestDb;
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, TestNode, ask, ask_streaming};
use crate::support::operator::Operator;
use crate::support::purse::Purse;
use crate::support::upstream::{Script, Upstream, delta};

/// Runs statements on the database of a node that is stopped.
async fn plant(db: &TestDb, statements: &[&str]) {
    let store = db.open().await;
    let mut tx = store.begin(Durability::Full).await.unwrap();
    for sql in statements {
        sqlx::raw_sql(AssertSqlSafe((*sql).to_owned()))
            .execute(tx.hand())
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    tx.commit().await.unwrap();
    store.close().await;
}

/// One text out of the database.
async fn look(db: &TestDb, sql: &str) -> String {
    let store = db.open().await;
    let row = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(store.read()).await.unwrap();
    let text = row.get(0);
    store.close().await;
    text
}

/// A node that was paid, gave change and a refund, and was stopped.
async fn stopped(mint_url: &str, purse: &Purse, upstream: &Upstream) -> ChildNode {
    let mut node = ChildNode::start(mint_url, upstream, &[]).await;
    let (kept, returned, once) = (purse.send(100).await, purse.send(60).await, purse.send(70).await);
    for key in [&kept, &returned] {
        node.chat(&ask("hi")).bearer_auth(key).send().await.unwrap().text().await.unwrap();
    }
    let change = node.chat(&ask("hi")).header("x-cashu", &once).send().await.unwrap();
    purse.receive(change.headers()["x-cashu"].to_str().unwrap()).await.unwrap();
    let back: Value = node.post("/v1/wallet/refund").bearer_auth(&returned).send().await.unwrap().json().await.unwrap();
    purse.receive(back["token"].as_str().unwrap()).await.unwrap();
    node.stop().await;
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_fault_is_named() {
    let mint = TestMint::start().await;
    let chaos = Chaos::before(&mint.url());
    let purse = Purse::with_unit(&chaos.url(), CurrencyUnit::Sat).await;
    purse.mint_sats(1_000).await;
    let upstream = Upstream::start().await;
    let node = stopped(&chaos.url(), &purse, &upstream).await;
    let audit = || node.verb(&["audit", "--json"]);

    let proven = audit().await;
    assert_eq!(proven.code, 0, "{proven:?}");
    let report: Value = serde_json::from_str(&proven.said).unwrap();
    assert_eq!(report["verdict"], "proven");
    assert_eq!(report["ecash_msat"], 104_000);
    assert_eq!((&report["liabilities_msat"], &report["earnings_msat"]), (&98_000.into(), &6_000.into()));
    assert_eq!(report["mints"][0]["asked"], report["mints"][0]["proofs"]);
    let text = node.verb(&["audit"]).await;
    assert!(text.code == 0 && text.said.contains("proven: the ecash covers what is owed"), "{text:?}");
    let words = node.verb(&["audit", "--everything"]).await;
    assert!(words.code == 2 && words.complained.contains("coinslot audit"), "{words:?}");

    // A mint that is gone is not a fault, and not a proof.
    chaos.set("", Mode::Cut);
    let unasked = audit().await;
    assert_eq!(unasked.code, 3, "{unasked:?}");
    assert!(unasked.said.contains("not_asked"), "{unasked:?}");
    chaos.calm();

    let proof = look(&node.db, "SELECT secret FROM proof WHERE state = 'UNSPENT' ORDER BY y LIMIT 1").await;
    let refund = look(&node.db, "SELECT id FROM operations WHERE kind = 'refund'").await;
    let of_proof = |change: &str| format!("UPDATE proof SET {change} WHERE secret = '{proof}'");
    let free = of_proof("state = 'UNSPENT', used_by_operation = NULL");
    let account = look(&node.db, "SELECT CAST(id AS TEXT) FROM accounts WHERE kind = 'key' AND posted > 0").await;
    let plan = open_plan(&node.db, &proof).await;
    let faults: Vec<(Vec<String>, Vec<String>, String)> = vec![
        (
            vec![format!("UPDATE accounts SET posted = posted + 1 WHERE id = {account}")],
            vec![format!("UPDATE accounts SET posted = posted - 1 WHERE id = {account}")],
            format!("account {account} (key): posted 98001, transfers say"),
        ),
        (
            vec![format!(
                "INSERT INTO holds (id, account, amount, request, owner, created_at) VALUES (77, {account}, 5, 'r-1', 'nobody', 1)"
            )],
            vec!["UPDATE holds SET state = 'released', ended_at = 2 WHERE id = 77".into()],
            "hold 77 of request r-1: its process nobody was seen never".into(),
        ),
        (
            // The owner was there, but long ago.
            vec![
                "INSERT INTO nodes (id, seen_at) VALUES ('gone', 1)".into(),
                format!(
                    "INSERT INTO holds (id, account, amount, request, owner, created_at) VALUES (78, {account}, 5, 'r-2', 'gone', 1)"
                ),
            ],
            vec!["UPDATE holds SET state = 'released', ended_at = 2 WHERE id = 78".into()],
            "hold 78 of request r-2: its process gone was seen".into(),
        ),
        (vec![of_proof("state = 'SPENT'")], vec![free.clone()], "less than the ledger's 104.000 sat".into()),
        (vec![of_proof("amount = amount * 2")], vec![of_proof("amount = amount / 2")], "more than the ledger's".into()),
        (vec![of_proof("state = 'PENDING'")], vec![free.clone()], "in a state that this node does not use".into()),
        (vec![of_proof("state = 'RESERVED'")], vec![free.clone()], "set aside for no operation".into()),
        (
            vec![of_proof("state = 'RESERVED', used_by_operation = 'x'")],
            vec![free.clone()],
            "set aside for an operation that there is not".into(),
        ),
        (
            vec![of_proof(&format!("used_by_operation = '{refund}'"))],
            vec![free.clone()],
            "it is unspent, and belongs to an operation".into(),
        ),
        (
            vec![of_proof(&format!("state = 'RESERVED', used_by_operation = '{refund}'"))],
            vec![free.clone()],
            format!("operation {refund}: proofs of"),
        ),
        (
            vec![plan],
            vec!["DELETE FROM operations WHERE id = 'c0ffee00-0000-4000-8000-000000000001'".into()],
            "operation c0ffee00-0000-4000-8000-000000000001: proof".into(),
        ),
    ];
    for (planted, undone, named) in faults {
        plant(&node.db, &planted.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let found = audit().await;
        assert_eq!(found.code, 1, "{named}: {found:?}");
        let report: Value = serde_json::from_str(&found.said).unwrap();
        let lines: Vec<&str> = report["faults"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
        assert!(lines.iter().any(|line| line.contains(&named)), "{named}: {lines:?}");
        assert!(!found.said.contains(&proof), "no secret is shown");
        plant(&node.db, &undone.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let again = audit().await;
        assert_eq!(again.code, 0, "after {named}: {again:?}");
    }
    let y = look(&node.db, &format!("SELECT {} FROM proof WHERE secret = '{proof}'", hex_of_y())).await.to_lowercase();
    spend_elsewhere(&node.db, &proof, &purse, &chaos.url()).await;
    let found = audit().await;
    assert_eq!(found.code, 1, "{found:?}");
    let named = format!("proof {y} is unspent here, and spent at {}", chaos.url());
    assert!(found.said.contains(&named), "{named}: {found:?}");
    if !crate::support::db::on_postgres() {
        damage(&node.db, "accounts").await;
        let found = audit().await;
        assert_eq!(found.code, 2, "{found:?}");
        let said = "the audit cannot be made: the database file is damaged: ";
        assert!(found.complained.contains(said), "{found:?}");
    }
    node.db.remove().await;
}

/// Writes nonsense over the first page of a table, in the file of a node that is stopped.
async fn damage(db: &TestDb, table: &str) {
    let page = look(db, &format!("SELECT CAST(rootpage AS TEXT) FROM sqlite_schema WHERE name = '{table}'")).await;
    let size = look(db, "SELECT CAST(page_size AS TEXT) FROM pragma_page_size()").await;
    let (page, size): (usize, usize) = (page.parse().unwrap(), size.parse().unwrap());
    let path = db.data_dir().join("coinslot.db");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[(page - 1) * size..page * size].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
}

fn hex_of_y() -> &'static str {
    if crate::support::db::on_postgres() { "encode(y, 'hex')" } else { "hex(y)" }
}

/// A refund under way, whose plan spends a proof that is free for others.
async fn open_plan(db: &TestDb, secret: &str) -> String {
    let proof = of_secret(db, secret).await;
    let plan =
        serde_json::json!({ "inputs": [proof], "keyset": proof.keyset_id, "counter": 0, "outputs": [1], "fee": 0 });
    format!(
        "INSERT INTO operations (id, kind, state, account, mint, unit, amount, plan, owner, due_at, created_at, updated_at) \
         SELECT 'c0ffee00-0000-4000-8000-000000000001', 'refund', 'acting', account, mint, unit, 1000, '{plan}', 'x', 1, 1, 1 \
         FROM operations WHERE kind = 'refund'"
    )
}

async fn of_secret(db: &TestDb, secret: &str) -> cdk::nuts::Proof {
    let store = db.open().await;
    let ecash = cdk_db::open(&store).await.unwrap();
    let proofs = ecash.get_proofs(None, None, Some(vec![State::Unspent]), None).await.unwrap();
    drop(ecash);
    store.close().await;
    let mut proof = proofs.into_iter().find(|info| info.proof.secret.to_string() == secret).unwrap().proof;
    proof.dleq = None;
    proof
}

async fn spend_elsewhere(db: &TestDb, secret: &str, purse: &Purse, mint_url: &str) {
    let proof = of_secret(db, secret).await;
    let token = Token::new(mint_url.parse().unwrap(), vec![proof], None, CurrencyUnit::Sat);
    purse.receive(&token.to_string()).await.unwrap();
}

/// How long a process may be silent, the operator says: also to what the command line proves beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_may_be_silent_for_longer_is_not_called_dead() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let purse = Purse::new(&mint).await;
    purse.mint_sats(200).await;
    let mut node = ChildNode::start(&mint.url(), &upstream, &[("NODE_TIMEOUT_SECONDS", "3600")]).await;
    let key = purse.send(100).await;
    node.chat(&ask("hi")).bearer_auth(&key).send().await.unwrap().text().await.unwrap();
    upstream.next(Script::Paused { before: vec![delta(MODEL, "first")], after: vec![] });
    let mut stream = node.chat(&ask_streaming("hi")).bearer_auth(&key).send().await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some());
    let (available, held, spent) = node.balance(&key).await;
    assert!((available + held, spent) == (98_000, 2_000) && held > 0, "{available} {held} {spent}");
    // It says that it is alive every ten minutes.
    let store = Store::open_beside(&node.db.data_dir(), node.db.url().as_deref()).await.unwrap();
    let mut tx = store.begin(Durability::Full).await.unwrap();
    let silent = sqlx::query("UPDATE nodes SET seen_at = seen_at - 120000").execute(tx.hand()).await.unwrap();
    assert_eq!(silent.rows_affected(), 1);
    tx.commit().await.unwrap();
    store.close().await;

    let audit = node.verb(&["audit", "--json"]).await;
    let report: Value = serde_json::from_str(&audit.said).unwrap_or_else(|_| panic!("{audit:?}"));
    assert_eq!((&report["faults"], audit.code), (&serde_json::json!([]), 0), "{report}");
    let listed = node.verb(&["keys", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed.said).unwrap_or_else(|_| panic!("{listed:?}"));
    let id = listed["keys"][0]["id"].as_str().unwrap();
    let issued = node.verb(&["vouchers", "create", "--sats", "1"]).await;
    assert_eq!(issued.code, 0, "{issued:?}");
    let adjusted = node.verb(&["keys", "adjust", id, "--sats", "1", "--reason", "a test"]).await;
    assert_eq!(adjusted.code, 0, "{adjusted:?}");
    assert_eq!(node.balance(&key).await, (available + 1_000, held, 2_000));
    node.kill();
    node.db.remove().await;
}

/// The node works as hard as it can, and is audited from outside and from inside all the while.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_at_work_raises_no_alarm() {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(20_000).await;
    let upstream = Upstream::start().await;
    let node = ChildNode::start(&mint.url(), &upstream, &[]).await;
    let mut tokens = Vec::new();
    for _ in 0..24 {
        tokens.push((purse.send(100).await, purse.send(131).await));
    }
    let at_work = &node;
    let working = futures_util::future::join_all(tokens.iter().map(|(key, once)| async move {
        for _ in 0..3 {
            at_work.chat(&ask("hi")).bearer_auth(key).send().await.unwrap().text().await.unwrap();
        }
        let change = at_work.chat(&ask("hi")).header("x-cashu", once).send().await.unwrap();
        assert_eq!(change.status(), 200);
        at_work.post("/v1/wallet/refund").bearer_auth(key).send().await.unwrap().text().await.unwrap();
    }));
    let auditing = async {
        for round in 0..6 {
            let outcome = node.verb(&["audit"]).await;
            assert_eq!(outcome.code, 0, "round {round}: {outcome:?}");
        }
    };
    tokio::join!(working, auditing);
    let mut node = node;
    node.stop().await;
    let outcome = node.verb(&["audit"]).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    node.db.books().await;
    node.db.remove().await;
}

/// The ledger, and what requests used, are append-only: the database itself says so.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_stays() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let purse = Purse::new(&mint).await;
    purse.mint_sats(200).await;
    let node = TestNode::start(&mint, &upstream).await;
    let token = purse.send(100).await;
    node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap().text().await.unwrap();
    node.settled().await;
    let store = node.running().exchange().ledger.store().clone();
    for sql in [
        "DELETE FROM holds",
        "UPDATE holds SET charged = 0",
        "UPDATE holds SET receipt = ''",
        "DELETE FROM transfers",
        "UPDATE transfers SET amount = amount + 1",
    ] {
        let mut tx = store.begin(Durability::Full).await.unwrap();
        sqlx::query(sql).execute(tx.hand()).await.expect_err(sql);
    }
    drop(store);
    node.finish().await;
}

/// The job finds it by itself; `/readyz` and the operator's page say so.
#[tokio::test(flavor = "multi_thread")]
async fn the_hourly_proof_raises_an_alarm() {
    let mint = TestMint::start().await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(200).await;
    let upstream = Upstream::start().await;
    let mut node = TestNode::start(&mint, &upstream).await;
    let token = purse.send(100).await;
    node.chat(&ask("hi")).bearer_auth(&token).send().await.unwrap().text().await.unwrap();
    let store = node.running().exchange().ledger.store().clone();
    let tamper = async |step: i64| {
        let mut tx = store.begin(Durability::Full).await.unwrap();
        let sql = format!("UPDATE accounts SET posted = posted + {step} WHERE kind = 'income'");
        sqlx::query(AssertSqlSafe(sql)).execute(tx.hand()).await.unwrap();
        tx.commit().await.unwrap();
    };
    tamper(1).await;
    drop(store);
    // It runs at every start.
    node.restart().await;
    let ready = async || node.get("/readyz").send().await.unwrap().json::<Value>().await.unwrap();
    let mut body = Value::Null;
    until("there is an alarm", async || {
        body = ready().await;
        body["alarms"] != serde_json::json!([])
    })
    .await;
    assert_eq!(body["alarms"], serde_json::json!(["the books are not proven"]), "{body}");
    assert!(body["reasons"].as_array().unwrap().iter().all(|reason| !reason.as_str().unwrap().contains("books")));
    let store = node.running().exchange().ledger.store().clone();
    let mut tx = store.begin(Durability::Full).await.unwrap();
    sqlx::query("UPDATE accounts SET posted = posted - 1 WHERE kind = 'income'").execute(tx.hand()).await.unwrap();
    tx.commit().await.unwrap();
    drop(store);
    node.finish().await;
}

/// Books that cannot be read are not proven, however good the last proof was: the job says so, and the button.
#[tokio::test(flavor = "multi_thread")]
async fn books_that_cannot_be_read_raise_an_alarm() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let mut node = TestNode::start(&mint, &upstream).await;
    let write = async |node: &TestNode, sql: &str| {
        let store = node.running().exchange().ledger.store().clone();
        let mut tx = store.begin(Durability::Full).await.unwrap();
        sqlx::query(AssertSqlSafe(sql.to_owned())).execute(tx.hand()).await.unwrap();
        tx.commit().await.unwrap();
    };
    let alarms = async |node: &TestNode| {
        node.get("/readyz").send().await.unwrap().json::<Value>().await.unwrap()["alarms"].clone()
    };
    let metric = async |operator: &Operator, name: &str| {
        let page = operator.page("/admin/metrics").await;
        page.lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
    };
    let off = serde_json::json!(["the books are not proven"]);
    let mut operator = Operator::log_in(&node.url()).await;
    until("the books are proven", async || metric(&operator, "coinslot_solvent ").await.as_deref() == Some("1")).await;
    // A row that no program can have written.
    let broken = "INSERT INTO operations (id, kind, state, account, mint, unit, amount, plan, owner, due_at, created_at, updated_at) \
         SELECT 'broken', 'payout', 'planned', id, 'https://gone.example', 'acorns', 0, '', 'x', 1, 1, 1 \
         FROM accounts WHERE kind = 'income' LIMIT 1";
    write(&node, broken).await;
    assert_eq!(alarms(&node).await, serde_json::json!([]));
    let prove = async |operator: &Operator| operator.call("POST", "/admin/api/prove", None).await.0;
    assert!(prove(&operator).await >= 500);
    assert_eq!(alarms(&node).await, off);
    assert_eq!(metric(&operator, "coinslot_solvent ").await.as_deref(), Some("0"));
    let page = operator.page("/admin").await;
    assert!(
        page.contains("the books could not be read, so they are not proven: inconsistent row in operations"),
        "{page}"
    );
    // By itself after a start, where no proof was ever made; and who watches raises the alarm.
    node.restart().await;
    until("the job says so", async || alarms(&node).await == off).await;
    operator = Operator::log_in(&node.url()).await;
    assert_eq!(metric(&operator, "coinslot_solvent ").await.as_deref(), Some("0"));
    let raised = "coinslot_alerts{kind=\"books_not_proven\"} ";
    until("it is raised", async || metric(&operator, raised).await.as_deref() == Some("1")).await;
    write(&node, "DELETE FROM operations WHERE id = 'broken'").await;
    assert_eq!((prove(&operator).await, alarms(&node).await), (200, serde_json::json!([])));
    assert_eq!(metric(&operator, "coinslot_solvent ").await.as_deref(), Some("1"));
    node.finish().await;
}
