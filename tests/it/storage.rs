//! The database and the files around it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coinslot::clock::SystemClock;
use coinslot::config::Config;
use coinslot::ledger::{Ledger, repo};
use coinslot::money::{Cost, Msat, Usage};
use coinslot::node::{self, StartError};
use coinslot::store::{Durability, FileLock, Store, StoreError, latest_version};
use coinslot::vault::VaultError;
use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

use crate::bearer::world;
use crate::process::ChildNode;
use crate::support::answers::found;
use crate::support::db::{TestDb, on_postgres};
use crate::support::node::{ask, ask_streaming};
use crate::support::upstream::Upstream;

async fn version(store: &Store) -> i64 {
    sqlx::query("SELECT MAX(version) FROM schema_version").fetch_one(store.read()).await.unwrap().get(0)
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Everything below a directory.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found
}

/// The SQLite file of a node that knew nothing but the first migration, with a setting in it.
async fn old_database(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let mut old = SqliteConnection::connect(&url).await.unwrap();
    for sql in [
        include_str!("../../src/migrations/0001_ledger.sql"),
        include_str!("../../src/migrations/0001_ledger.sqlite.sql"),
        "CREATE TABLE schema_version (version BIGINT NOT NULL PRIMARY KEY)",
        "INSERT INTO schema_version (version) VALUES (1)",
        "INSERT INTO settings (name, value, updated_at) VALUES ('kept', 'as it was', 1)",
    ] {
        sqlx::raw_sql(sql).execute(&mut old).await.unwrap();
    }
    old.close().await.unwrap();
}

#[tokio::test]
async fn a_fresh_database_reaches_the_latest_version_and_stays_there() {
    let db = TestDb::new().await;
    for _ in 0..2 {
        let store = db.open().await;
        assert_eq!(version(&store).await, latest_version());
        store.close().await;
        // The file's lock goes with the last handle.
        drop(store);
    }
    let copies = tree(&db.data_dir()).into_iter().filter(|path| path.display().to_string().contains("backup"));
    assert_eq!(copies.count(), 0, "nothing was there to be copied");
    db.remove().await;
}

#[tokio::test]
async fn processes_that_start_together_migrate_once() {
    if !on_postgres() {
        return;
    }
    let db = TestDb::new().await;
    let url = db.url();
    let opening = (0..4).map(|_| async { Store::open(&db.data_dir(), url.as_deref(), false).await });
    for store in futures_util::future::join_all(opening).await {
        let store = store.unwrap();
        assert_eq!(version(&store).await, latest_version());
        store.close().await;
    }
    db.remove().await;
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused() {
    let db = TestDb::new().await;
    let store = db.open().await;
    let newer = latest_version() + 1;
    let mut tx = store.begin(Durability::Full).await.unwrap();
    let sql = format!("INSERT INTO schema_version (version) VALUES ({newer})");
    sqlx::query(AssertSqlSafe(sql)).execute(tx.hand()).await.unwrap();
    tx.commit().await.unwrap();
    store.close().await;
    drop(store);
    let refused = Store::open(&db.data_dir(), db.url().as_deref(), false).await.unwrap_err();
    assert!(matches!(refused, StoreError::TooNew { found, known } if found == newer && known == latest_version()));
    let line = refused.to_string();
    assert!(line.contains(&newer.to_string()) && line.contains("use a newer coinslot"), "{line}");
    db.remove().await;
}

/// Nodes of the program before may run on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_leaves_tables_of_an_older_program_as_they_are() {
    const BEFORE: i64 = 31;
    if !on_postgres() {
        return;
    }
    let upstream = Upstream::start().await;
    let node = ChildNode::prepare("http://127.0.0.1:9", &upstream, &[]).await;
    let url = node.db.url().unwrap();
    Store::open_at(&url, BEFORE).await.unwrap().close().await;
    let refused = node.verb(&["trail"]).await;
    assert_eq!((refused.code, &*refused.said), (1, ""), "{refused:?}");
    let line = format!("the database is at schema version {BEFORE}, which is older than this program's");
    assert!(refused.complained.contains(&line), "{refused:?}");
    let store = Store::open_at(&url, BEFORE).await.unwrap();
    assert_eq!(version(&store).await, BEFORE);
    store.close().await;
    // Who starts brings it up to date, and what is empty is in nobody's use.
    node.db.open().await.close().await;
    assert_eq!(node.verb(&["trail"]).await.code, 0);
    node.db.remove().await;
    let fresh = ChildNode::prepare("http://127.0.0.1:9", &upstream, &[]).await;
    assert_eq!(fresh.verb(&["trail"]).await.code, 0);
    fresh.db.remove().await;
}

#[cfg(unix)]
#[tokio::test]
async fn an_old_file_is_copied_before_it_is_migrated() {
    if on_postgres() {
        return;
    }
    let db = TestDb::new().await;
    let path = db.data_dir().join("coinslot.db");
    // In a directory of anybody's, where only the file's own mode protects it.
    for name in [path.clone(), db.dir().join("elsewhere").join("money.db")] {
        old_database(&name).await;
        let url = (name != path).then(|| format!("sqlite:{}", name.display()));
        let store = Store::open(&db.data_dir(), url.as_deref(), false).await.unwrap();
        assert_eq!(version(&store).await, latest_version());
        assert_eq!(store.setting("kept").await.unwrap().as_deref(), Some("as it was"));
        store.close().await;
        drop(store);
        let copy = name.with_extension("db.backup-v1");
        assert_eq!(mode(&copy), 0o600);
        assert_eq!(mode(&name), 0o600);
        let mut old = SqliteConnection::connect(&format!("sqlite://{}", copy.display())).await.unwrap();
        let row = sqlx::query("SELECT (SELECT MAX(version) FROM schema_version), (SELECT value FROM settings)");
        let row = row.fetch_one(&mut old).await.unwrap();
        assert_eq!((row.get::<i64, _>(0), row.get::<String, _>(1)), (1, "as it was".to_owned()));
        old.close().await.unwrap();
        // A second attempt from the same version keeps the first copy.
        std::fs::remove_file(&name).unwrap();
        old_database(&name).await;
        let store = Store::open(&db.data_dir(), url.as_deref(), false).await.unwrap();
        store.close().await;
        assert_eq!(mode(&name.with_extension("db.backup-v1-1")), 0o600);
    }
}

/// What two keys had been charged before charges were chained can still be listed, newest first, and what they
/// are charged afterwards stands before it.
#[tokio::test]
async fn charges_of_before_are_found_after_a_migration() {
    let db = TestDb::new().await;
    let old = [
        "INSERT INTO accounts (id, kind, created_at) VALUES (1, 'income', 1)",
        "INSERT INTO accounts (id, kind, mint, unit, created_at) VALUES (2, 'mint', 'm', 'sat', 1)",
        "INSERT INTO accounts (id, kind, key_hash, mint, unit, posted, created_at) VALUES \
         (11, 'key', 'a', 'm', 'sat', 1000, 1), (12, 'key', 'b', 'm', 'sat', 1000, 1)",
        "UPDATE accounts SET posted = -2000 WHERE id = 2",
        "INSERT INTO transfers (id, debit, credit, amount, kind, reference, created_at) VALUES \
         (501, 2, 11, 1000, 'redeemed', 'r', 1), (502, 2, 12, 1000, 'redeemed', 'r', 1)",
        "INSERT INTO holds (id, account, amount, request, owner, created_at) VALUES (101, 11, 9, 'a-1', 'o', 1), \
         (102, 12, 9, 'b-1', 'o', 1), (103, 11, 9, 'a-2', 'o', 1), (104, 11, 9, 'a-3', 'o', 1), (105, 11, 9, 'a-4', 'o', 1)",
        "UPDATE holds SET state = 'captured', charged = 3, ended_at = id WHERE id <> 104",
        "UPDATE holds SET state = 'released', charged = 0, ended_at = id WHERE id = 104",
    ];
    match db.url() {
        Some(url) => {
            let store = Store::open_at(&url, 16).await.unwrap();
            for sql in old {
                sqlx::query(sql).execute(&mut *store.desk(Durability::Full).turn().await.unwrap()).await.unwrap();
            }
            store.close().await;
        }
        None => {
            let path = db.data_dir().join("coinslot.db");
            old_database(&path).await;
            let mut file = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
            for sql in old {
                sqlx::raw_sql(sql).execute(&mut file).await.unwrap();
            }
            file.close().await.unwrap();
        }
    }
    let store = db.open().await;
    let (ledger, writing) =
        Ledger::open(store.clone(), Arc::new(SystemClock), "the node under test".to_owned()).await.unwrap();
    let writing = tokio::spawn(writing);
    let listed = async |key: &str, limit| {
        let account = repo::find_by_key(store.read(), key).await.unwrap().unwrap();
        let charged = ledger.last_requests(&account, limit).await.unwrap();
        (account.id, charged.into_iter().map(|one| one.request).collect::<Vec<_>>())
    };
    let (key, requests) = listed("a", 9).await;
    assert_eq!(requests, ["a-4", "a-2", "a-1"]);
    assert_eq!(listed("b", 9).await.1, ["b-1"]);
    let amount = Msat::new(5).unwrap();
    let hold = ledger.hold(key, amount, "a-5").await.unwrap();
    assert_eq!(listed("a", 9).await.1, requests, "nothing is charged yet");
    hold.capture(Cost::fixed(Usage::default(), amount).unwrap()).await.unwrap();
    assert_eq!(listed("a", 2).await.1, ["a-5", "a-4"]);
    assert_eq!(listed("a", 9).await.1, ["a-5", "a-4", "a-2", "a-1"]);
    assert_eq!(ledger.books().await.unwrap().faults, Vec::<String>::new());
    drop(ledger);
    writing.await.unwrap();
    store.close().await;
    db.remove().await;
}

/// What requests cost before it was kept by their holds is found by these; of a request that left no hold, it is not
/// kept. A probe has none.
#[tokio::test]
async fn what_requests_cost_is_found_by_their_holds_after_a_migration() {
    const BEFORE: i64 = 22;
    let db = TestDb::new().await;
    let old = [
        "INSERT INTO accounts (id, kind, mint, unit, created_at) VALUES (2, 'mint', 'm', 'sat', 1)",
        "INSERT INTO accounts (id, kind, key_hash, mint, unit, created_at) VALUES (11, 'key', 'a', 'm', 'sat', 1)",
        "UPDATE accounts SET posted = 1000 WHERE id = 11",
        "UPDATE accounts SET posted = -1000 WHERE id = 2",
        "INSERT INTO holds (id, account, amount, request, owner, created_at) VALUES (101, 11, 9, 'a-1', 'o', 1)",
        "INSERT INTO outlays (request, upstream, model, nano_usd, msat, charged, attempts, created_at) VALUES \
         ('a-1', 'up', 'm', 5, 6, 7, '[]', 8), ('lost', 'up', 'm', 5, 6, 7, '[]', 9), \
         ('probe-1', 'up', 'm', 2, 3, 0, '[]', 2000), ('probe-2', 'up', 'm', NULL, NULL, 0, '[]', 2000)",
    ];
    match db.url() {
        Some(url) => {
            let store = Store::open_at(&url, BEFORE).await.unwrap();
            for sql in old {
                sqlx::query(sql).execute(&mut *store.desk(Durability::Full).turn().await.unwrap()).await.unwrap();
            }
            store.close().await;
        }
        None => {
            let path = db.data_dir().join("coinslot.db");
            std::fs::create_dir_all(db.data_dir()).unwrap();
            let mut file = SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", path.display())).await.unwrap();
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/migrations");
            let mut texts = BTreeMap::new();
            for path in tree(&folder).into_iter().filter(|path| !path.to_str().unwrap().ends_with(".postgres.sql")) {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                let number: i64 = name[..4].parse().unwrap();
                // `x.sql` comes before `x.sqlite.sql`.
                texts.insert((number, name.len()), std::fs::read_to_string(&path).unwrap());
            }
            for text in texts.into_iter().filter(|((number, _), _)| *number <= BEFORE).map(|(_, text)| text) {
                sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut file).await.unwrap();
            }
            for sql in [
                "CREATE TABLE schema_version (version BIGINT NOT NULL PRIMARY KEY)",
                "INSERT INTO schema_version VALUES (22)",
            ] {
                sqlx::raw_sql(sql).execute(&mut file).await.unwrap();
            }
            for sql in old {
                sqlx::raw_sql(sql).execute(&mut file).await.unwrap();
            }
            file.close().await.unwrap();
        }
    }
    let store = db.open().await;
    let rows = sqlx::query("SELECT id, nano_usd, msat, charged FROM outlays ORDER BY id")
        .fetch_all(store.read())
        .await
        .unwrap();
    let known = |row: &sqlx::any::AnyRow| [1, 2].map(|column| row.get::<Option<i64>, _>(column));
    let rows: Vec<_> = rows.iter().map(|row| (row.get::<i64, _>(0), known(row), row.get::<i64, _>(3))).collect();
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert_eq!(rows[0], (101, [Some(5), Some(6)], 7));
    let probes: Vec<_> = rows[1..].iter().map(|row| (row.0 >> 21, row.1[0], row.2)).collect();
    assert!(probes.contains(&(2000, Some(2), 0)) && probes.contains(&(2000, None, 0)), "{rows:?}");
    store.close().await;
    db.remove().await;
}

async fn write(store: &Store, name: &str, value: &str) {
    let sql = "INSERT INTO settings (name, value, updated_at) VALUES ($1, $2, 1) \
               ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    let query = sqlx::query(sql).bind(name.to_owned()).bind(value.to_owned());
    query.execute(&mut *store.desk(Durability::ProcessSafe).turn().await.unwrap()).await.unwrap();
}

/// The log of SQLite is begun anew although somebody writes all the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_is_begun_anew_under_load() {
    if on_postgres() {
        return;
    }
    let db = TestDb::new().await;
    let store = db.open().await;
    let log =
        async || -> i64 { sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(store.read()).await.unwrap().get(1) };
    let stop = Arc::new(AtomicBool::new(false));
    let busy = tokio::spawn({
        let (store, stop) = (store.clone(), Arc::clone(&stop));
        async move {
            while !stop.load(Ordering::SeqCst) {
                write(&store, "busy", "a little").await;
            }
        }
    });
    let long = "x".repeat(1 << 20);
    for at in 0..20 {
        write(&store, &format!("long {at}"), &long).await;
    }
    store.checkpoint().await.unwrap();
    stop.store(true, Ordering::SeqCst);
    busy.await.unwrap();
    write(&store, "last", "one").await;
    let length = log().await;
    assert!(length < 4_096, "{length} pages");
    store.close().await;
    db.remove().await;
}

#[tokio::test]
async fn a_second_process_on_the_same_file_is_refused() {
    if on_postgres() {
        return;
    }
    let db = TestDb::new().await;
    let store = db.open().await;
    let refused = Store::open(&db.data_dir(), None, false).await.unwrap_err();
    assert!(matches!(refused, StoreError::InUse(_)));
    let line = refused.to_string();
    assert!(
        line.contains("another process is using") && line.contains("coinslot.db") && !line.contains('\n'),
        "{line}"
    );
    // The same file by another way.
    let url = format!("sqlite:{}", db.data_dir().join("coinslot.db").display());
    let refused = Store::open(&db.data_dir(), Some(&url), false).await.unwrap_err();
    assert!(matches!(refused, StoreError::InUse(_)), "{refused}");
    store.close().await;
    drop(store);
    db.open().await.close().await;
}

#[tokio::test]
async fn two_nodes_do_not_share_a_data_directory() {
    let db = TestDb::new().await;
    std::fs::create_dir_all(db.data_dir()).unwrap();
    let path = db.data_dir().join("node.lock");
    let held = FileLock::take(&path, "the data directory").unwrap();
    assert!(matches!(FileLock::take(&path, "the data directory"), Err(StoreError::InUse(_))));
    drop(held);
    FileLock::take(&path, "the data directory").unwrap();
    db.remove().await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_can_read_what_the_node_keeps() {
    let (_mint, purse, _upstream, node) = world(200).await;
    let token = purse.send(100).await;
    node.chat(&ask("hello")).bearer_auth(&token).send().await.unwrap().text().await.unwrap();
    node.chat(&ask_streaming("hello")).bearer_auth(&token).send().await.unwrap().text().await.unwrap();
    assert_eq!(mode(&node.data_dir()), 0o700);
    let files = tree(&node.data_dir());
    assert!(files.iter().any(|path| path.ends_with("secret.key")), "{files:?}");
    for path in files {
        assert_eq!(mode(&path), if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
    node.finish().await;
}

#[tokio::test]
async fn the_transaction_says_how_sure_a_commit_is() {
    for strict in [false, true] {
        let db = TestDb::new().await;
        let store = db.open_with(strict).await;
        for (durability, name) in [(Durability::Full, "full"), (Durability::ProcessSafe, "process-safe")] {
            let synced = strict || durability == Durability::Full;
            let mut tx = store.begin(durability).await.unwrap();
            if on_postgres() {
                let row = sqlx::query("SHOW synchronous_commit").fetch_one(tx.hand()).await.unwrap();
                assert_eq!(row.get::<String, _>(0), if synced { "on" } else { "off" }, "{name}, strict {strict}");
            } else {
                let row = sqlx::query("PRAGMA synchronous").fetch_one(tx.hand()).await.unwrap();
                assert_eq!(row.get::<i64, _>(0), if synced { 2 } else { 1 }, "{name}, strict {strict}");
                let row = sqlx::query("PRAGMA journal_mode").fetch_one(tx.hand()).await.unwrap();
                assert_eq!(row.get::<String, _>(0), "wal");
                let row = sqlx::query("PRAGMA foreign_keys").fetch_one(tx.hand()).await.unwrap();
                assert_eq!(row.get::<i64, _>(0), 1);
            }
            tx.commit().await.unwrap();
        }
        store.close().await;
        db.remove().await;
    }
}

/// A transaction that is dropped, or whose task is killed in the middle, leaves nothing and blocks
/// nobody.
#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_transaction_is_rolled_back() {
    let db = TestDb::new().await;
    let store = db.open().await;
    let insert = "INSERT INTO settings (name, value, updated_at) VALUES ('x', 'y', 1)";
    for _ in 0..20 {
        let mut tx = store.begin(Durability::Full).await.unwrap();
        sqlx::query(insert).execute(tx.hand()).await.unwrap();
        drop(tx);
        let other = store.clone();
        let task = tokio::spawn(async move {
            let mut tx = other.begin(Durability::ProcessSafe).await.unwrap();
            sqlx::query(insert).execute(tx.hand()).await.unwrap();
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
        task.abort();
        let _killed = task.await;
    }
    assert_eq!(store.setting("x").await.unwrap(), None);
    tokio::time::timeout(Duration::from_secs(10), store.set_setting("x", "z", 2)).await.expect("not blocked").unwrap();
    assert_eq!(store.setting_or_insert("x", "other", 3).await.unwrap(), "z");
    store.close().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_secret_key_does_not_start_a_node() {
    let db = TestDb::new().await;
    let mut settings: BTreeMap<String, String> = [
        ("PORT", "0".to_owned()),
        ("DATA_DIR", db.data_dir().display().to_string()),
        ("MODELS_PATH", db.dir().join("models.json").display().to_string()),
        ("BTC_USD_FIXED", "100000".to_owned()),
        ("ADMIN_PASSWORD", "an admin password".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if let Some(url) = db.url() {
        settings.insert("DATABASE_URL".to_owned(), url);
    }
    std::fs::write(db.dir().join("models.json"), crate::support::node::models().to_string()).unwrap();
    let start = async |settings: &BTreeMap<String, String>| {
        let config = Config::from_vars(settings).unwrap();
        // The predecessor's lock goes with its last task.
        found("the lock", async || match node::start(config.clone(), Arc::new(SystemClock)).await {
            Err(StartError::Store(StoreError::InUse(_))) => None,
            outcome => Some(outcome),
        })
        .await
    };
    settings.insert("SECRET_KEY".to_owned(), "the first secret key, long enough".to_owned());
    start(&settings).await.unwrap().shutdown(std::future::pending()).await;
    let mut wrong = settings.clone();
    wrong.insert("SECRET_KEY".to_owned(), "another secret key, long enough".to_owned());
    let refused = start(&wrong).await.unwrap_err();
    assert!(matches!(refused, StartError::Vault(VaultError::WrongKey)), "{refused}");
    assert!(refused.to_string().contains("secret key"), "{refused}");
    wrong.remove("SECRET_KEY");
    let refused = start(&wrong).await.unwrap_err();
    assert!(matches!(refused, StartError::Vault(VaultError::Missing(_))), "{refused}");
    assert!(!db.data_dir().join("secret.key").exists(), "no fresh key is made for it");
    start(&settings).await.unwrap().shutdown(std::future::pending()).await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ecash_store_is_in_the_same_database() {
    let (_mint, purse, _upstream, node) = world(200).await;
    let token = purse.send(100).await;
    node.chat(&ask("hello")).bearer_auth(&token).send().await.unwrap().text().await.unwrap();
    let store = node.running().exchange().ledger.store();
    // One query over both.
    let row = sqlx::query(
        "SELECT CAST((SELECT SUM(amount) FROM proof WHERE state = 'UNSPENT') AS BIGINT), \
         CAST((SELECT -SUM(posted) FROM accounts WHERE kind = 'mint') AS BIGINT)",
    )
    .fetch_one(store.read())
    .await
    .unwrap();
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (100, 100_000));
    let databases = tree(&node.data_dir()).into_iter().filter(|path| path.extension().is_some_and(|end| end == "db"));
    assert_eq!(databases.count(), usize::from(!on_postgres()));
    // Invariant of the vault: neither a token nor a key is anywhere in the database in clear.
    let hashes =
        sqlx::query("SELECT key_hash FROM accounts WHERE key_hash IS NOT NULL").fetch_all(store.read()).await.unwrap();
    let id = coinslot::wallet::token::token_id(&token);
    assert!(hashes.iter().all(|row| row.get::<String, _>(0) != id));
    node.finish().await;
}
