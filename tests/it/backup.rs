//! Backups, and what a node does that finds itself restored from one: it asks the mints first, and
//! says what it cannot know.

use std::path::{Path, PathBuf};

use cdk::nuts::CurrencyUnit;
use coinslot::ledger::books::Books;
use coinslot::ledger::terms::{ExpiredPage, Expiry};
use coinslot::money::Msat;
use coinslot::store::{Durability, Lineage, Store};
use serde_json::{Value, json};
use sqlx::Row;

use crate::process::ChildNode;
use crate::support::answers::{PATIENCE, decided, found, ok, read, until};
use crate::support::chaos::{Chaos, Mode};
use crate::support::db::{TestDb, on_postgres};
use crate::support::lnurl::Recipient;
use crate::support::mint::{MintOptions, TestMint};
use crate::support::node::{TestNode, ask};
use crate::support::program::{coinslot, told};
use crate::support::purse::Purse;
use crate::support::upstream::Upstream;
use crate::support::wire::Wire;

const START: u64 = 2_000;
const PASSPHRASE: (&str, &str) = ("BACKUP_PASSPHRASE", "correct horse battery staple");
const SWAP: &str = "/v1/swap";
const RESTORE: &str = "/v1/restore";

/// A mint behind a proxy, and a purse that knows it by the proxy's name.
async fn world(options: MintOptions) -> (TestMint, Chaos, Purse, Upstream) {
    let mint = TestMint::with_options(options).await;
    let chaos = Chaos::before(&mint.url());
    let purse = Purse::with_unit(&chaos.url(), CurrencyUnit::Sat).await;
    purse.mint_sats(START).await;
    (mint, chaos, purse, Upstream::start().await)
}

async fn chat(node: &ChildNode, key: &str) {
    let answer = node.chat(&ask("hi")).bearer_auth(key).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
}

/// Pays one request with a token, and takes the change.
async fn pay_once(node: &ChildNode, purse: &Purse, sats: u64) {
    let once = purse.send(sats).await;
    let answer = node.chat(&ask("hi")).header("x-cashu", &once).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    purse.receive(answer.headers()["x-cashu"].to_str().unwrap()).await.unwrap();
}

async fn refund(node: &ChildNode, purse: &Purse, key: &str) -> u64 {
    let ask = || node.post("/v1/wallet/refund").bearer_auth(key);
    let (status, back) = read(decided("the refund", PATIENCE, ask).await).await;
    assert_eq!(status, 200, "{back}");
    purse.receive(back["token"].as_str().unwrap()).await.unwrap()
}

/// Why the node is not ready.
async fn reasons(node: &ChildNode) -> String {
    node.get("/readyz").send().await.unwrap().text().await.unwrap()
}

/// Waits until a node that was restored is sure of its ecash.
async fn recovered(node: &ChildNode) {
    until("the recovery is done", async || !reasons(node).await.contains("restored from a copy")).await;
}

fn file(dir: &Path) -> (PathBuf, String) {
    let path = dir.join("node.backup");
    (path.clone(), path.display().to_string())
}

/// Proves the books of a node, and that with the purse they hold all the money there is.
async fn conserved(node: &mut ChildNode, purse: &Purse) -> Books {
    assert_eq!(audited(node).await, "short", "balances are too high, and the operator is told");
    node.stop().await;
    let books = node.db.books().await;
    let held = u64::try_from(books.ecash.values().sum::<i64>()).unwrap();
    assert_eq!(purse.balance().await * 1000 + held, START * 1000, "nothing is lost and nothing made");
    books
}

/// What the audit comes to, in which nothing may be off.
async fn audited(node: &ChildNode) -> String {
    let audit = node.verb(&["audit", "--json"]).await;
    let report: Value = serde_json::from_str(&audit.said).unwrap_or_else(|_| panic!("{audit:?}"));
    assert_eq!(report["faults"], json!([]), "{report}");
    let verdict = report["verdict"].as_str().unwrap().to_owned();
    assert_eq!(audit.code, i32::from(verdict != "proven"), "{audit:?}");
    verdict
}

/// The whole story: a backup of a running node, an original that goes on spending, a copy elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_node_that_went_on_knows_what_it_still_has() {
    let (_mint, chaos, purse, upstream) = world(MintOptions::default()).await;
    let mut original = ChildNode::start(&chaos.url(), &upstream, &[PASSPHRASE]).await;
    let early = purse.send(300).await;
    chat(&original, &early).await;
    leave_a_gap(&original, 2_500).await;
    let program = program_of(&original).await;
    assert_eq!(looks(&original, &program).await, 200);
    let (path, name) = file(&original.db.dir());
    let killed = original.verb_with("COINSLOT_FAILPOINT", "backup.packed", &["backup", &name]).await;
    assert!(killed.code == -9 && !path.exists(), "what is not whole has no name: {killed:?}");
    let made = original.verb(&["backup", &name]).await;
    assert_eq!(made.code, 0, "{made:?}");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777, 0o600);
    let again = original.verb(&["backup", &name]).await;
    assert!(again.code == 1 && again.complained.contains("no backup was made"), "{again:?}");

    revoke_all(&original).await;
    assert_eq!(looks(&original, &program).await, 403);
    // The original goes on: it takes, gives change, pays back what the copy believes to owe.
    leave_a_gap(&original, 1_000).await;
    let late = purse.send(200).await;
    chat(&original, &late).await;
    pay_once(&original, &purse, 150).await;
    assert_eq!(refund(&original, &purse, &early).await, 298);
    original.kill();

    let mut copy = ChildNode::prepare(&chaos.url(), &upstream, &[PASSPHRASE]).await;
    nothing_but_the_backup_opens(&copy, &path).await;
    let restored = copy.verb(&["restore", &name]).await;
    assert!(restored.code == 0 && restored.said.contains("Balances of clients may be too high"), "{restored:?}");
    assert!(restored.said.contains("coinslot admin reset-password"), "{restored:?}");
    let twice = copy.verb(&["restore", &name]).await;
    assert!(twice.code == 1 && twice.complained.contains("nothing is overwritten"), "{twice:?}");

    copy.restart().await;
    assert_eq!(looks(&copy, &program).await, 403, "the copy has the token again, and it is of no use");
    recovered(&copy).await;
    assert!(copy.said().contains("RECOVERED"), "{}", copy.said());
    let now = program_of(&copy).await;
    let overview = copy.get("/admin/api/overview").bearer_auth(&now).send().await.unwrap().text().await.unwrap();
    assert!(overview.contains("coinslot admin reset-password"), "{overview}");
    // 302 sat went out since, 200 + 2 + 2 came in: of 300, 204 are left.
    assert!(copy.said().contains("missing_sat=96") && !copy.said().contains('\u{1b}'), "{}", copy.said());
    assert_eq!(copy.balance(&early).await.0, 298_000, "what it spent since is not known");
    // What the original took since is known to the mint, and is not taken twice.
    let known = copy.chat(&ask("hi")).bearer_auth(&late).send().await.unwrap();
    assert_eq!(known.status(), 400, "{}", known.text().await.unwrap());
    // It goes on as a node: takes money, gives change, and no counter is used twice.
    pay_once(&copy, &purse, 150).await;
    chat(&copy, &purse.send(64).await).await;
    copy.stop().await;
    copy.restart().await;
    // That it is short of ecash is told still.
    assert!(!copy.said().contains("restored from a copy"), "it is not a copy any more: {}", copy.said());
    assert_eq!(looks(&copy, &now).await, 200, "what was made since stays");
    let books = conserved(&mut copy, &purse).await;
    assert_eq!(books.earnings, 2_000 - 96_000 + 4_000, "the house bears what is missing");
    original.db.remove().await;
    copy.db.remove().await;
}

/// The token of a program that may look.
async fn program_of(node: &ChildNode) -> String {
    let made = node.verb(&["admin", "tokens", "create", "cron", "--scope", "read", "--json"]).await;
    let made: Value = serde_json::from_str(&made.said).unwrap_or_else(|_| panic!("{made:?}"));
    made["token"].as_str().unwrap().to_owned()
}

async fn revoke_all(node: &ChildNode) {
    let listed: Value = serde_json::from_str(&node.verb(&["admin", "tokens", "list", "--json"]).await.said).unwrap();
    for token in listed["tokens"].as_array().unwrap() {
        assert_eq!(node.verb(&["admin", "tokens", "revoke", token["id"].as_str().unwrap()]).await.code, 0);
    }
}

async fn looks(node: &ChildNode, token: &str) -> u16 {
    node.get("/admin/api/overview").bearer_auth(token).send().await.unwrap().status().as_u16()
}

/// Counters that nothing came of, as redemptions leave them which the mint refuses.
async fn leave_a_gap(node: &ChildNode, width: i64) {
    let store = Store::open_beside(&node.db.data_dir(), node.db.url().as_deref()).await.unwrap();
    let mut tx = store.begin(Durability::Full).await.unwrap();
    let moved = sqlx::query("UPDATE keyset_counter SET counter = counter + $1").bind(width).execute(tx.hand()).await;
    assert!(moved.unwrap().rows_affected() > 0);
    tx.commit().await.unwrap();
    store.close().await;
}

/// A wrong passphrase, a changed file and a cut one leave nothing behind.
async fn nothing_but_the_backup_opens(copy: &ChildNode, path: &Path) {
    let name = path.display().to_string();
    let wrong = copy.verb_with(PASSPHRASE.0, "another long passphrase", &["restore", &name]).await;
    assert!(wrong.code == 1 && wrong.complained.contains("passphrase is not the one"), "{wrong:?}");
    let whole = std::fs::read(path).unwrap();
    assert!(!String::from_utf8_lossy(&whole).contains("wallet_seed"), "it is sealed");
    let bad = copy.db.dir().join("bad.backup");
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    for bytes in [changed, whole[..whole.len() - 1].to_vec(), whole[..whole.len() / 2].to_vec(), b"not one".to_vec()] {
        std::fs::write(&bad, bytes).unwrap();
        let refused = copy.verb(&["restore", &bad.display().to_string()]).await;
        assert!(refused.code == 1 && refused.complained.contains("nothing was restored"), "{refused:?}");
    }
    std::fs::remove_file(bad).unwrap();
    let left: Vec<_> = std::fs::read_dir(copy.db.data_dir()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

/// Ecash that came after the backup belongs to clients that the copy does not know: it is kept for
/// them, and is not earned; also behind more counters that nothing came of than are looked through one by one.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_after_the_backup_is_found_and_owed() {
    let (_mint, chaos, purse, upstream) = world(MintOptions { fee_ppk: 100, ..Default::default() }).await;
    let mut original = ChildNode::start(&chaos.url(), &upstream, &[PASSPHRASE]).await;
    chat(&original, &purse.send(64).await).await;
    let (_, name) = file(&original.db.dir());
    assert_eq!(original.verb(&["backup", &name]).await.code, 0);
    leave_a_gap(&original, 4_000).await;
    // Some two hundred counters, a few for each token.
    for sats in std::iter::once(300).chain(std::iter::repeat_n(25, 24)) {
        chat(&original, &purse.send(sats).await).await;
    }
    original.kill();
    let mut copy = ChildNode::prepare(&chaos.url(), &upstream, &[PASSPHRASE]).await;
    assert_eq!(copy.verb(&["restore", &name]).await.code, 0);
    no_verb_moves_money(&copy, "it was restored from a backup").await;
    copy.restart().await;
    recovered(&copy).await;
    let audit = copy.verb(&["audit", "--json"]).await;
    assert_eq!(audit.code, 0, "{audit:?}");
    let report: Value = serde_json::from_str(&audit.said).unwrap();
    let (ecash, owed) = (report["ecash_msat"].as_i64().unwrap(), report["liabilities_msat"].as_i64().unwrap());
    assert!(ecash > 800_000 && owed > 800_000, "{report}");
    assert_eq!(report["earnings_msat"], 2_000, "{report}");
    assert_eq!(ecash, owed + 2_000);
    given_to_whom_it_belongs(&copy, owed).await;
    copy.stop().await;
    copy.db.books().await;
    original.db.remove().await;
    copy.db.remove().await;
}

/// What the database says was earned may have been paid out since, for all that the commands know.
async fn no_verb_moves_money(node: &ChildNode, why: &str) {
    let keys: Value = serde_json::from_str(&node.verb(&["keys", "list", "--json"]).await.said).unwrap();
    let id = keys["keys"][0]["id"].as_str().unwrap();
    let verbs: [&[&str]; 4] = [
        &["vouchers", "create", "--sats", "1"],
        &["vouchers", "revoke", "--note", "fair"],
        &["keys", "adjust", id, "--sats", "1", "--reason", "sorry"],
        &["keys", "adjust", id, "--sats", "1", "--reason", "sorry", "--write-off"],
    ];
    for words in verbs {
        let refused = node.verb(words).await;
        let said = format!("no money moves before the recovery that is due, because {why}");
        assert!(refused.code == 1 && refused.complained.contains(&said), "{words:?}: {refused:?}");
    }
}

/// The operator gives what was found to clients who can show that it was theirs: no more than was found,
/// and it goes back there.
async fn given_to_whom_it_belongs(copy: &ChildNode, owed: i64) {
    let create = async |sats: i64| {
        let sats = sats.to_string();
        copy.verb(&["vouchers", "create", "--found", "--sats", &sats, "--note", "found", "--json"]).await
    };
    let over = create(1_000_000).await;
    let left = over.complained.strip_prefix("no vouchers were issued: ").and_then(|said| said.split('.').next());
    let found: i64 = left.and_then(|sats| sats.parse().ok()).unwrap_or_else(|| panic!("{over:?}"));
    assert!(over.code == 1 && (700..owed / 1000).contains(&found), "{over:?}, {owed} msat are owed");
    assert_eq!(create(found + 1).await.code, 1);
    for _ in 0..2 {
        let given = create(found).await;
        assert_eq!(given.code, 0, "{given:?}");
        assert_eq!(create(1).await.code, 1, "it is all given away");
        assert_eq!(copy.verb(&["vouchers", "revoke", "--note", "found"]).await.code, 0);
    }
    let given: Value = serde_json::from_str(&create(250).await.said).unwrap();
    let code = given["vouchers"][0]["code"].as_str().unwrap();
    let answer = copy.post("/v1/wallet/voucher").json(&json!({ "code": code })).send().await.unwrap();
    let credited: Value = answer.json().await.unwrap();
    chat(copy, credited["api_key"].as_str().unwrap()).await;
    assert_eq!(copy.verb(&["audit"]).await.code, 0);
}

/// Somebody puts yesterday's file back, without any command of ours. (PostgreSQL: a backup of ours in
/// the place of the database, beside the data directory that has seen what came after.)
#[tokio::test(flavor = "multi_thread")]
async fn yesterday_s_database_is_recognised() {
    let (_mint, chaos, purse, upstream) = world(MintOptions::default()).await;
    let mut node = ChildNode::start(&chaos.url(), &upstream, &[PASSPHRASE]).await;
    let early = purse.send(300).await;
    chat(&node, &early).await;
    let (path, name) = file(&node.db.dir());
    node.stop().await;
    let database = node.db.data_dir().join("coinslot.db");
    if on_postgres() {
        assert_eq!(node.verb(&["backup", &name]).await.code, 0);
    } else {
        let log = database.with_extension("db-wal");
        assert!(log.metadata().map_or(0, |log| log.len()) == 0, "a node that stopped has written everything out");
        std::fs::copy(&database, &path).unwrap();
    }
    node.restart().await;
    assert!(!node.said().contains("ALARM"), "{}", node.said());
    assert_eq!(refund(&node, &purse, &early).await, 298);
    node.stop().await;

    if on_postgres() {
        let url = node.db.url().unwrap();
        drop_tables(&url).await;
        let restored = node.verb(&["restore", &name]).await;
        assert_eq!(restored.code, 0, "{restored:?}");
    } else {
        for end in ["db-wal", "db-shm"] {
            std::fs::remove_file(database.with_extension(end)).ok();
        }
        std::fs::copy(&path, &database).unwrap();
    }
    let why = if on_postgres() { "it was restored from a backup" } else { "the database is older than what" };
    no_verb_moves_money(&node, why).await;
    // While the mint cannot be asked, nothing is paid, and what is known can be read.
    chaos.set("", Mode::Cut);
    node.restart().await;
    assert!(node.said().contains("ALARM"), "{}", node.said());
    let answer = node.chat(&ask("hi")).bearer_auth(&early).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["code"], "recovering", "{body}");
    for path in ["/v1/wallet/refund", "/v1/wallet/topup", "/lightning/invoice"] {
        let answer = node.post(path).bearer_auth(&early).json(&json!({})).send().await.unwrap();
        assert_eq!(answer.status(), 503, "{path}");
    }
    let token = purse_token(&chaos, &purse, 10).await;
    let created = node.get(&format!("/v1/balance/create?initial_balance_token={token}")).send().await.unwrap();
    assert_eq!(created.status(), 503);
    // A look at a key's balance would redeem it.
    let looked = node.get("/v1/wallet/info").bearer_auth(&token).send().await.unwrap();
    assert_eq!(looked.status(), 503);
    let body: Value = looked.json().await.unwrap();
    assert_eq!(body["error"]["code"], "recovering", "{body}");
    assert_eq!(node.balance(&early).await.0, 298_000);
    let why = reasons(&node).await;
    assert!(why.contains("restored from a copy"), "{why}");
    no_verb_moves_money(&node, "").await;
    // Killed in the middle of it, it is still due.
    node.kill();
    node.restart().await;
    assert!(reasons(&node).await.contains("restored from a copy"));

    chaos.calm();
    recovered(&node).await;
    // What was spent is missing; the client that spent it is believed.
    let answer = node.post("/v1/wallet/refund").bearer_auth(&early).send().await.unwrap();
    assert_eq!(answer.status(), 503, "there is no ecash to pay it with");
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["error"]["code"], "mint_short", "{answer}");
    assert_eq!(node.balance(&early).await.0, 298_000, "it is not owed for ever");
    purse.receive(&token).await.expect("the token was not taken");
    node.stop().await;
    assert_eq!(audited(&node).await, "short");
    let books = node.db.books().await;
    assert_eq!(books.ecash.values().sum::<i64>(), 2_000, "{books:?}");
    node.db.remove().await;
}

/// A token made while the proxy behaves.
async fn purse_token(chaos: &Chaos, purse: &Purse, sats: u64) -> String {
    chaos.calm();
    let token = purse.send(sats).await;
    chaos.set("", Mode::Cut);
    token
}

async fn drop_tables(url: &str) {
    use sqlx::{AssertSqlSafe, Connection, Executor};
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    let schema: String = sqlx::query("SELECT current_schema()::text").fetch_one(&mut connection).await.unwrap().get(0);
    connection.execute(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"))).await.unwrap();
    connection.execute(AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).await.unwrap();
}

/// PostgreSQL: tables that a restore has made before it failed are empty, and in no other try's way.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_fails_can_be_tried_again() {
    use sqlx::{Connection, Executor};
    if !on_postgres() {
        return;
    }
    let (_mint, chaos, _purse, upstream) = world(MintOptions::default()).await;
    let mut original = ChildNode::start(&chaos.url(), &upstream, &[PASSPHRASE]).await;
    let name = |name: &str| original.db.dir().join(name).display().to_string();
    let (good, bad) = (name("good.backup"), name("bad.backup"));
    assert_eq!(original.verb(&["backup", &good]).await.code, 0);
    let mut connection = sqlx::PgConnection::connect(&original.db.url().unwrap()).await.unwrap();
    connection.execute("CREATE TABLE of_somebody_else (id BIGINT PRIMARY KEY)").await.unwrap();
    connection.close().await.unwrap();
    assert_eq!(original.verb(&["backup", &bad]).await.code, 0);
    original.stop().await;

    let copy = ChildNode::prepare(&chaos.url(), &upstream, &[PASSPHRASE]).await;
    for _ in 0..2 {
        let failed = copy.verb(&["restore", &bad]).await;
        assert!(failed.code == 1 && failed.complained.contains("not those of this program"), "{failed:?}");
    }
    // So are those of a backup of a later version, unless something is in them by now.
    let mut connection = sqlx::PgConnection::connect(&copy.db.url().unwrap()).await.unwrap();
    let later = "INSERT INTO schema_version (version) SELECT MAX(version) + 1 FROM schema_version";
    assert_eq!(connection.execute(later).await.unwrap().rows_affected(), 1);
    let used = "INSERT INTO settings (name, value, updated_at) VALUES ('x', 'y', 1)";
    connection.execute(used).await.unwrap();
    let refused = copy.verb(&["restore", &good]).await;
    assert!(refused.code == 1 && refused.complained.contains("nothing is overwritten"), "{refused:?}");
    assert_eq!(connection.execute("DELETE FROM settings WHERE name = 'x'").await.unwrap().rows_affected(), 1);
    connection.close().await.unwrap();
    let restored = copy.verb(&["restore", &good]).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    copy.db.books().await;
    let twice = copy.verb(&["restore", &good]).await;
    assert!(twice.code == 1 && twice.complained.contains("nothing is overwritten"), "{twice:?}");
    original.db.remove().await;
    copy.db.remove().await;
}

/// Where the copy has no room, nothing is wrong with the backup.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_does_not_fit_is_not_called_damaged() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let mut original = ChildNode::start(&mint.url(), &upstream, &[PASSPHRASE]).await;
    original.stop().await;
    let (_, name) = file(&original.db.dir());
    assert_eq!(original.verb(&["backup", &name]).await.code, 0);
    let copy = ChildNode::prepare(&mint.url(), &upstream, &[PASSPHRASE]).await;
    let full = copy.verb_without_room(&["restore", &name]).await;
    assert!(full.code == 1 && full.complained.contains("File too large"), "{full:?}");
    assert_eq!(std::fs::read_dir(copy.db.data_dir()).unwrap().count(), 0, "nothing is left of it");
    let restored = copy.verb(&["restore", &name]).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    original.db.remove().await;
    copy.db.remove().await;
}

/// PostgreSQL: a row may be in the backup long before the one that it refers to.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_refer_to_later_ones_are_restored() {
    use sqlx::{Connection, Executor};
    if !on_postgres() {
        return;
    }
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let mut original = ChildNode::start(&mint.url(), &upstream, &[PASSPHRASE]).await;
    original.stop().await;
    let mut connection = sqlx::PgConnection::connect(&original.db.url().unwrap()).await.unwrap();
    // The first row takes back what the last one has made.
    let rows = "INSERT INTO operations (id, kind, state, account, mint, unit, amount, owner, due_at, created_at, \
         updated_at, takes_back) SELECT 'row-' || n, 'sweep', 'failed', (SELECT MIN(id) FROM accounts), \
         'https://gone.example', 'sat', 0, 'x', 1, 1, 1, CASE n WHEN 1 THEN 'row-300' END \
         FROM generate_series(1, 300) n ORDER BY n";
    assert_eq!(connection.execute(rows).await.unwrap().rows_affected(), 300);
    connection.close().await.unwrap();
    let (_, name) = file(&original.db.dir());
    assert_eq!(original.verb(&["backup", &name]).await.code, 0);

    let copy = ChildNode::prepare(&mint.url(), &upstream, &[PASSPHRASE]).await;
    let restored = copy.verb(&["restore", &name]).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    let mut connection = sqlx::PgConnection::connect(&copy.db.url().unwrap()).await.unwrap();
    let taken = "SELECT takes_back FROM operations WHERE id = 'row-1'";
    let taken: String = sqlx::query(taken).fetch_one(&mut connection).await.unwrap().get(0);
    assert_eq!(taken, "row-300");
    let deferred = "SELECT COUNT(*) FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace \
         WHERE n.nspname = current_schema() AND c.condeferrable";
    let deferred: i64 = sqlx::query(deferred).fetch_one(&mut connection).await.unwrap().get(0);
    assert_eq!(deferred, 0, "what refers to nothing is refused at once again");
    connection.close().await.unwrap();
    copy.db.books().await;
    original.db.remove().await;
    copy.db.remove().await;
}

/// A refund was under way when the backup was made, and the mint had done its part: the copy gives out
/// the same token, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_was_open_ends_by_evidence() {
    let (_mint, chaos, purse, upstream) = world(MintOptions::default()).await;
    let mut original = ChildNode::start(&chaos.url(), &upstream, &[PASSPHRASE]).await;
    let (one, two) = (purse.send(100).await, purse.send(200).await);
    for key in [&one, &two] {
        chat(&original, key).await;
    }
    // The first one's swap is answered, and nobody hears it; the second one's never arrives.
    chaos.set(SWAP, Mode::StallReply);
    let swaps = chaos.hits(SWAP);
    let first = tokio::spawn(original.post("/v1/wallet/refund").bearer_auth(&one).send());
    chaos.hit(SWAP, swaps).await;
    let (_, name) = file(&original.db.dir());
    let made = original.verb(&["backup", &name]).await;
    assert_eq!(made.code, 0, "{made:?}");
    chaos.calm();
    first.await.unwrap().unwrap();
    // The original pays both back, after the backup.
    let paid = refund(&original, &purse, &one).await;
    assert_eq!((paid, refund(&original, &purse, &two).await), (98, 198));
    original.kill();

    let mut copy = ChildNode::prepare(&chaos.url(), &upstream, &[PASSPHRASE]).await;
    assert_eq!(copy.verb(&["restore", &name]).await.code, 0);
    copy.restart().await;
    recovered(&copy).await;
    // The same token as before, which its owner has spent.
    let answer = copy.post("/v1/wallet/refund").bearer_auth(&one).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let back: Value = answer.json().await.unwrap();
    purse.receive(back["token"].as_str().unwrap()).await.expect_err("it is the token that was given before");
    let books = conserved(&mut copy, &purse).await;
    assert_eq!(books.liabilities, 198_000, "the copy cannot know that the second was paid back");
    original.db.remove().await;
    copy.db.remove().await;
}

/// Payments over Lightning that were open when the backup was made: what the original was paid, and has
/// paid, since then is neither credited nor paid once more, and an invoice that waited goes on waiting.
#[tokio::test(flavor = "multi_thread")]
async fn payments_that_were_open_end_by_what_the_mint_shows() {
    let (mint, chaos, purse, upstream) = world(MintOptions::default()).await;
    let recipient = Recipient::start().await;
    let settings = [PASSPHRASE, ("REFUND_PROCESSING_INTERVAL", "1")];
    let mut original = ChildNode::prepare(&chaos.url(), &upstream, &settings).await;
    // It dies when a refund is about to be paid: planned, and not sent.
    assert!(original.restart_armed("pay.planned").await);
    let key = purse.send(500).await;
    chat(&original, &key).await;
    // Invoices are paid at once at this mint. The ecash for it is asked for, and not had.
    chaos.set("/v1/mint/bolt11", Mode::Cut);
    let wanted = json!({ "amount_sats": 30, "purpose": "create" });
    let invoice = ok(original.post("/lightning/invoice").json(&wanted)).await;
    let to = json!({ "lightning_address": recipient.name() });
    original.post("/v1/wallet/refund").json(&to).bearer_auth(&key).send().await.expect_err("it dies over it");
    original.died().await;
    let (_, name) = file(&original.db.dir());
    assert_eq!(original.verb(&["backup", &name]).await.code, 0);
    // The original goes on after the backup: it pays, and is paid.
    chaos.calm();
    original.restart().await;
    let pay = |node: &ChildNode| node.post("/v1/wallet/refund").json(&to).bearer_auth(&key);
    let paid: Value = decided("the refund", PATIENCE, || pay(&original)).await.json().await.unwrap();
    let status =
        |node: &ChildNode| node.get(&format!("/lightning/invoice/{}/status", invoice["invoice_id"].as_str().unwrap()));
    let filled = until_paid(|| status(&original)).await;
    assert_eq!(original.balance(&filled).await.0, 30_000);
    original.kill();

    let mut copy = ChildNode::prepare(&chaos.url(), &upstream, &settings).await;
    assert_eq!(copy.verb(&["restore", &name]).await.code, 0);
    copy.restart().await;
    recovered(&copy).await;
    let again: Value = decided("the refund", PATIENCE, || pay(&copy)).await.json().await.unwrap();
    assert_eq!(again, paid, "it was paid, and that is known again");
    assert_eq!(mint.paid().await.len(), 1, "it is not paid twice");
    assert_eq!(until_paid(|| status(&copy)).await, filled, "the same key");
    assert_eq!(copy.balance(&filled).await.0, 30_000, "credited once");
    assert_eq!(refund(&copy, &purse, &filled).await, 30);
    assert_eq!(audited(&copy).await, "proven");
    copy.stop().await;
    let books = copy.db.books().await;
    let left =
        498_000 - paid["sats"].as_str().unwrap().parse::<i64>().unwrap() * 1000 - paid["fee_msats"].as_i64().unwrap();
    assert_eq!((books.liabilities, books.earnings), (left, 2_000), "{paid}");
    original.db.remove().await;
    copy.db.remove().await;
}

/// A token of a foreign mint was being swapped when the backup was made, and the original brought that to its end: the
/// copy credits it in the recovery, and what it finds is not found money.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_was_open_is_booked_once() {
    let home = TestMint::with_options(MintOptions { unpaid: true, ..MintOptions::default() }).await;
    let (away, upstream) = (TestMint::start().await, Upstream::start().await);
    let _wire = Wire::between(&away, &home);
    let (purse, payee) = (Purse::new(&away).await, Purse::new(&home).await);
    purse.mint_sats(100).await;
    let settings = [PASSPHRASE, ("FOREIGN_MINTS", "swap")];
    let mut original = ChildNode::prepare(&home.url(), &upstream, &settings).await;
    let key = purse.send(100).await;
    let name = backed_up_over(&mut original, "import.written", (&key, 99)).await;

    let mut copy = ChildNode::prepare(&home.url(), &upstream, &settings).await;
    assert_eq!(copy.verb(&["restore", &name]).await.code, 0);
    copy.restart().await;
    recovered(&copy).await;
    booked_once(&mut copy, &payee, &key, 99).await;
    original.db.remove().await;
    copy.db.remove().await;
}

/// The mint swapped a token after the backup, and its answer to the copy's only question about that is lost: the copy
/// asks again before it looks for ecash that it does not know.
#[tokio::test(flavor = "multi_thread")]
async fn a_redemption_whose_question_was_lost_is_booked_once() {
    let (_mint, chaos, purse, upstream) = world(MintOptions::default()).await;
    let mut original = ChildNode::prepare(&chaos.url(), &upstream, &[PASSPHRASE]).await;
    let key = purse.send(300).await;
    let name = backed_up_over(&mut original, "redeem.written", (&key, 300)).await;

    let mut copy = ChildNode::prepare(&chaos.url(), &upstream, &[PASSPHRASE]).await;
    assert_eq!(copy.verb(&["restore", &name]).await.code, 0);
    chaos.set(RESTORE, Mode::StallReply);
    let asked = chaos.hits(RESTORE);
    copy.restart().await;
    chaos.hit(RESTORE, asked).await;
    chaos.calm();
    recovered(&copy).await;
    booked_once(&mut copy, &purse, &key, 300).await;
    assert_eq!(purse.balance().await, START);
    original.db.remove().await;
    copy.db.remove().await;
}

/// Makes a backup of a node that died at this point over a token, and lets it go on to the credit of so many sats. Returns
/// the backup's name; the node is stopped for good.
async fn backed_up_over(original: &mut ChildNode, point: &str, (key, sats): (&str, u64)) -> String {
    assert!(original.restart_armed(point).await);
    let look = |node: &ChildNode| node.get("/v1/wallet/info").bearer_auth(key);
    look(original).send().await.expect_err("it dies over it");
    original.died().await;
    let (_, name) = file(&original.db.dir());
    assert_eq!(original.verb(&["backup", &name]).await.code, 0);
    original.restart().await;
    assert_eq!(decided("the key", PATIENCE, || look(original)).await.status(), 200);
    assert_eq!(original.balance(key).await, (sats * 1000, 0, 0));
    original.kill();
    name
}

/// Checks that a recovered copy has credited so many sats to this key, owes nothing else, and has nothing under way that
/// could be booked later. It is stopped then.
async fn booked_once(copy: &mut ChildNode, payee: &Purse, key: &str, sats: u64) {
    assert_eq!(copy.balance(key).await, (sats * 1000, 0, 0));
    assert_eq!(copy.db.open_operations().await, 0);
    assert_eq!(audited(copy).await, "proven");
    assert_eq!(refund(copy, payee, key).await, sats);
    copy.stop().await;
    let books = copy.db.books().await;
    assert_eq!((books.liabilities, books.earnings), (0, 0), "{books:?}");
}

/// Waits until an invoice is paid. Returns its key.
async fn until_paid(ask: impl Fn() -> reqwest::RequestBuilder) -> String {
    found("the key of an invoice", async || ok(ask()).await["api_key"].as_str().map(str::to_owned)).await
}

/// The mint exchanged the copy's ecash, and the copy died before it knew: the next attempt finds it.
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_a_recovery() {
    let (_mint, chaos, purse, upstream) = world(MintOptions::default()).await;
    let mut original = ChildNode::start(&chaos.url(), &upstream, &[PASSPHRASE]).await;
    let key = purse.send(300).await;
    chat(&original, &key).await;
    let (_, name) = file(&original.db.dir());
    assert_eq!(original.verb(&["backup", &name]).await.code, 0);
    original.kill();
    let mut copy = ChildNode::prepare(&chaos.url(), &upstream, &[PASSPHRASE]).await;
    assert_eq!(copy.verb(&["restore", &name]).await.code, 0);
    for _ in 0..2 {
        chaos.set(SWAP, Mode::StallReply);
        let swaps = chaos.hits(SWAP);
        copy.restart().await;
        chaos.hit(SWAP, swaps).await;
        copy.kill();
        chaos.calm();
    }
    copy.restart().await;
    recovered(&copy).await;
    assert_eq!(audited(&copy).await, "proven");
    assert_eq!(refund(&copy, &purse, &key).await, 298);
    copy.stop().await;
    let books = copy.db.books().await;
    assert_eq!((books.liabilities, books.earnings), (0, 2_000));
    assert_eq!(purse.balance().await, START - 2);
    original.db.remove().await;
    copy.db.remove().await;
}

/// The database goes first and the file follows. A crash in between is not taken for a restore, however
/// often it happens; anything else is.
#[tokio::test]
async fn database_and_data_directory_count_on_together() {
    let db = TestDb::new().await;
    let store = db.open().await;
    let (dir, file) = (db.data_dir(), db.data_dir().join("epoch"));
    let open = async || Lineage::open(&store, &dir, "a node", 1, 0).await.unwrap();
    let (mut lineage, mut objection) = open().await;
    assert_eq!(objection, None, "new");
    for _ in 0..3 {
        let before = std::fs::read(&file).unwrap();
        assert!(lineage.step().await.unwrap());
        std::fs::write(&file, before).unwrap();
        (lineage, objection) = open().await;
        assert_eq!(objection, None, "a crash came between");
    }
    let before = std::fs::read(&file).unwrap();
    assert!(lineage.step().await.unwrap() && lineage.step().await.unwrap());
    let after = std::fs::read(&file).unwrap();
    std::fs::write(&file, before).unwrap();
    let (_, objection) = open().await;
    assert_eq!(objection, Some("the database was used elsewhere meanwhile"));
    std::fs::write(&file, after).unwrap();
    assert!(open().await.1.is_some());
    let pending = sqlx::query("SELECT COUNT(*) FROM recoveries WHERE ended_at IS NULL").fetch_one(store.read()).await;
    assert_eq!(pending.unwrap().get::<i64, _>(0), 1, "one recovery, whatever it was found by");
    // Somebody puts another database in place while the node runs.
    let (lineage, _) = open().await;
    let mut tx = store.begin(Durability::Full).await.unwrap();
    sqlx::query("UPDATE lineage SET epoch = epoch - 1").execute(tx.hand()).await.unwrap();
    tx.commit().await.unwrap();
    assert!(!lineage.step().await.unwrap());
    drop(lineage);
    store.close().await;
    db.remove().await;
}

/// The original may have paid keys whose time was over: a recovered copy does not do so by itself.
#[tokio::test(flavor = "multi_thread")]
async fn expired_keys_are_not_paid_out_again() {
    let (mint, _chaos, _purse, upstream) = world(MintOptions::default()).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(100).await;
    let node = TestNode::start(&mint, &upstream).await;
    let key = purse.send(64).await;
    assert_eq!(node.chat(&ask("hi")).bearer_auth(&key).send().await.unwrap().status(), 200);
    let ledger = node.running().exchange().ledger.clone();
    node.settled().await;
    // Who could not be paid is not due before tomorrow.
    node.has_run("refund_expired").await;
    let row = sqlx::query("SELECT key_hash FROM accounts WHERE kind = 'key'");
    let hash: String = row.fetch_one(ledger.store().read()).await.unwrap().get(0);
    let account = node.running().exchange().till.wallet().account(&hash).await.unwrap().unwrap().id;
    let expiry = Expiry { address: "me@127.0.0.1".to_owned(), at: 1_000 };
    ledger.put_expiry(account, &expiry).await.unwrap();
    let page = ExpiredPage { least: Msat::ZERO, after: None, limit: 10 };
    assert_eq!(ledger.expired_keys(page).await.unwrap().len(), 1);
    for (ended_ms, due) in [(999_000_i64, 1), (1_000_000, 0)] {
        let mut tx = ledger.store().begin(Durability::Full).await.unwrap();
        sqlx::query("INSERT INTO recoveries (id, reason, began_at, ended_at, report) VALUES ($1, '', 1, $2, '{}')")
            .bind(ended_ms.to_string())
            .bind(ended_ms)
            .execute(tx.hand())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        assert_eq!(ledger.expired_keys(page).await.unwrap().len(), due, "recovered at {ended_ms}");
    }
    drop(ledger);
    node.finish().await;
}

/// An operator whose shell has not the node's key (which may be the service's alone) makes no other one, and no backup
/// that would be worth nothing.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_nodes_own_key_no_other_is_made_and_no_backup() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let own = ("SECRET_KEY", "the node's own secret key, long enough");
    let node = TestNode::with(&mint, &upstream, &[own, PASSPHRASE]).await;
    let dir = tempfile::tempdir().unwrap();
    let (path, name) = file(dir.path());
    let mut settings = node.settings().clone();
    settings.remove("SECRET_KEY");
    let refused = |words: &[&str]| {
        let output = coinslot(&settings, words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let secret = node.data_dir().join("secret.key");
    let verbs: [&[&str]; 6] = [
        &["backup", &name],
        &["models", "list"],
        &["vouchers", "create", "--sats", "1"],
        &["upstreams", "test", "default"],
        &["profiles", "detach"],
        &["alerts", "--test"],
    ];
    for words in verbs {
        let said = refused(words);
        assert!(said.contains("SECRET_KEY_FILE as the node has it"), "{words:?}: {said}");
        assert!(!secret.exists() && !path.exists(), "{words:?}");
    }
    std::fs::write(&secret, "0f".repeat(32)).unwrap();
    let said = refused(&["backup", &name]);
    assert!(said.contains("not the one that this database was made with") && !path.exists(), "{said}");
    told(node.settings(), &["backup", &name]);
    node.finish().await;
}

/// Daily copies: sealed, for the owner alone, so many and no more, and good for something.
#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_kept_and_can_be_restored() {
    if on_postgres() {
        return;
    }
    let (mint, _chaos, purse, upstream) = world(MintOptions::default()).await;
    let node = TestNode::with(&mint, &upstream, &[("SNAPSHOTS_KEEP", "2")]).await;
    let direct = Purse::new(&mint).await;
    direct.mint_sats(100).await;
    let key = direct.send(64).await;
    let answer = node.chat(&ask("hi")).bearer_auth(&key).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let config = coinslot::config::Config::from_vars(node.settings()).unwrap();
    let vault = coinslot::vault::Vault::open(&node.data_dir(), None).unwrap();
    let reader = node.running().exchange().ledger.store().reader();
    let snapshots = coinslot::backup::Snapshots::new(&config, reader, &vault).unwrap();
    let day = 24 * 60 * 60 * 1000;
    let mut last = PathBuf::new();
    let dir = node.data_dir().join(coinslot::backup::SNAPSHOTS);
    // What a process left that died over it is no copy of the day.
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("copy-0.tmp"), "torn").unwrap();
    for at in 1..=4 {
        last = snapshots.take_if_due(at * day).await.unwrap().expect("a day has passed");
        assert_eq!(snapshots.take_if_due(at * day + 1).await.unwrap(), None, "one a day");
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&last.metadata().unwrap().permissions()) & 0o777, 0o600);
    }
    let left = |dir: &std::path::Path| std::fs::read_dir(dir).unwrap().count();
    assert_eq!(left(&dir), 3);
    snapshots.remove_leftovers(coinslot::clock::Clock::now_ms(&coinslot::clock::SystemClock) + 2 * 60 * 60 * 1000);
    assert_eq!(left(&dir), 2);
    let copy = ChildNode::prepare(&mint.url(), &upstream, &[]).await;
    let name = last.display().to_string();
    let secret = copy.db.data_dir().join("secret.key");
    let without = copy.verb(&["restore", "--secret-key", &name]).await;
    assert_eq!(without.code, 2, "{without:?}");
    std::fs::create_dir_all(copy.db.data_dir()).unwrap();
    std::fs::copy(node.data_dir().join("secret.key"), &secret).unwrap();
    let asked = copy.verb(&["restore", &name]).await;
    assert!(asked.code == 2 && asked.complained.contains("BACKUP_PASSPHRASE"), "{asked:?}");
    let restored = copy.verb(&["restore", "--secret-key", &name]).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    assert_eq!(copy.db.books().await.liabilities, 62_000);
    let _unused = purse;
    node.finish().await;
}
