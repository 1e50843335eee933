//! What our connector promises beyond cdk's suites: the write gate, abandoned transactions, lost
//! connections, and values that arrive whole or not at all.

use std::sync::Arc;
use std::time::Duration;

use crate::support::store::{TempSchema, TempStore};
use cdk_common::database::Error;
use cdk_sql_common::database::{ConnectionWithTransaction, DatabaseExecutor};
use cdk_sql_common::pool::Pool;
use cdk_sql_common::stmt::query;
use cdk_sql_common::value::Value;
use coinslot::wallet::cdk_db::{Adapter, CdkSqliteConfig, Driver, Postgres, Sqlite, open_postgres, open_sqlite};

type Gate = Arc<tokio::sync::Mutex<()>>;

const MAKE: &str = "CREATE TABLE thing (id INTEGER PRIMARY KEY, big BIGINT, flag BOOL)";

async fn sqlite() -> (TempStore, Gate, Arc<Pool<Adapter<Sqlite>>>) {
    let store = TempStore::new();
    let config = store.config();
    let gate = config.gate.clone().expect("gate");
    let pool = Pool::new(config);
    let session = pool.get().await.expect("session");
    query(MAKE).expect("sql").execute(&*session).await.expect("table");
    drop(session);
    (store, gate, pool)
}

async fn insert<E: DatabaseExecutor>(on: &E, id: i64) -> Result<usize, Error> {
    query("INSERT INTO thing (id) VALUES (:id)")?.bind("id", id).execute(on).await
}

async fn count<D: Driver>(pool: &Arc<Pool<Adapter<D>>>) -> Value {
    let session = pool.get().await.expect("session");
    let count = query("SELECT COUNT(*) FROM thing").expect("sql").pluck(&*session).await;
    count.expect("count").expect("a row")
}

async fn until_free(gate: &Gate) {
    let guard = tokio::time::timeout(Duration::from_secs(30), gate.lock()).await;
    drop(guard.expect("the gate was given back"));
}

#[tokio::test]
async fn a_transaction_holds_the_gate_and_gives_it_back() {
    let (_store, gate, pool) = sqlite().await;
    assert!(gate.try_lock().is_ok());
    let tx = ConnectionWithTransaction::new(pool.get().await.expect("session")).await.expect("tx");
    insert(&tx, 1).await.expect("insert");
    assert!(gate.try_lock().is_err(), "a transaction holds the gate");
    assert_eq!(count(&pool).await, Value::Integer(0), "readers are not held up and see no draft");
    tx.commit().await.expect("commit");
    assert!(gate.try_lock().is_ok());
    assert_eq!(count(&pool).await, Value::Integer(1));

    let tx = ConnectionWithTransaction::new(pool.get().await.expect("session")).await.expect("tx");
    insert(&tx, 2).await.expect("insert");
    tx.rollback().await.expect("rollback");
    assert!(gate.try_lock().is_ok());
    assert_eq!(count(&pool).await, Value::Integer(1));
}

#[tokio::test]
async fn an_abandoned_transaction_is_undone_and_frees_the_gate() {
    let (_store, gate, pool) = sqlite().await;
    let tx = ConnectionWithTransaction::new(pool.get().await.expect("session")).await.expect("tx");
    insert(&tx, 1).await.expect("insert");
    let twice = insert(&tx, 1).await;
    assert!(matches!(twice, Err(Error::Duplicate)), "{twice:?}");
    drop(tx);
    until_free(&gate).await;
    assert_eq!(count(&pool).await, Value::Integer(0));
    let session = pool.get().await.expect("session");
    insert(&*session, 1).await.expect("the file is not locked");
}

#[tokio::test]
async fn a_caller_that_goes_away_while_waiting_leaves_nothing_behind() {
    let (_store, gate, pool) = sqlite().await;
    let held = gate.lock().await;
    for _ in 0..8 {
        let session = pool.get().await.expect("session");
        let begin = ConnectionWithTransaction::new(session);
        let waiting = tokio::time::timeout(Duration::from_millis(5), begin).await;
        assert!(waiting.is_err(), "a transaction waits for the gate");
        let session = pool.get().await.expect("session");
        let write = insert(&*session, 7);
        assert!(tokio::time::timeout(Duration::from_millis(5), write).await.is_err());
    }
    drop(held);
    until_free(&gate).await;
    assert_eq!(count(&pool).await, Value::Integer(0));
    let tx = ConnectionWithTransaction::new(pool.get().await.expect("session")).await.expect("tx");
    insert(&tx, 1).await.expect("insert");
    tx.commit().await.expect("commit");
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_cancelled_anywhere_never_wedge_the_store() {
    let (_store, gate, pool) = sqlite().await;
    for round in 0..200_u64 {
        let pool = pool.clone();
        let work = async move {
            let session = pool.get().await.expect("session");
            let tx = ConnectionWithTransaction::new(session).await?;
            insert(&tx, 1_000 + i64::try_from(round).expect("small")).await?;
            tx.commit().await
        };
        let _maybe = tokio::time::timeout(Duration::from_micros(round * 4), work).await;
    }
    until_free(&gate).await;
    let tx = ConnectionWithTransaction::new(pool.get().await.expect("session")).await.expect("tx");
    insert(&tx, 1).await.expect("insert");
    tx.commit().await.expect("commit");
}

#[tokio::test]
async fn the_file_is_private_and_synced() {
    use std::os::unix::fs::PermissionsExt;
    let (store, _gate, pool) = sqlite().await;
    let path = store.path();
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("{}{suffix}", path.display());
        let mode = std::fs::metadata(&file).expect("file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let session = pool.get().await.expect("session");
    for (pragma, expected) in [
        ("PRAGMA journal_mode", Value::from("wal")),
        ("PRAGMA synchronous", Value::Integer(2)),
        ("PRAGMA foreign_keys", Value::Integer(1)),
        // It waits by itself, without keeping a thread.
        ("PRAGMA busy_timeout", Value::Integer(0)),
    ] {
        let value = query(pragma).expect("sql").pluck(&*session).await.expect("pragma");
        assert_eq!(value, Some(expected), "{pragma}");
    }
    // Where the journal's commits sync what is written here, its own wait for nobody.
    let pool = Pool::<Adapter<Sqlite>>::new(CdkSqliteConfig { synced: false, ..store.config() });
    let session = pool.get().await.expect("session");
    let value = query("PRAGMA synchronous").expect("sql").pluck(&*session).await.expect("pragma");
    assert_eq!(value, Some(Value::Integer(1)));
}

#[tokio::test]
async fn opening_twice_is_harmless() {
    let store = TempStore::new();
    let first = open_sqlite(store.config()).await.expect("first");
    first.increment_derivation_counter("a", 3).await.expect("counter");
    drop(first);
    let second = open_sqlite(store.config()).await.expect("second");
    assert_eq!(second.increment_derivation_counter("a", 1).await.expect("counter"), 4);
}

async fn postgres(schema: &TempSchema) -> Arc<Pool<Adapter<Postgres>>> {
    let pool = Pool::new(schema.config());
    let session = pool.get().await.expect("session");
    query(MAKE).expect("sql").execute(&*session).await.expect("table");
    pool
}

#[tokio::test]
async fn postgres_values_fit_or_fail() {
    let Some(schema) = TempSchema::create().await else {
        return;
    };
    let pool = postgres(&schema).await;
    let session = pool.get().await.expect("session");
    let put = "INSERT INTO thing (id, big, flag) VALUES (:id, :big, :flag)";
    let put = |id: i64, big: Option<i64>, flag: Option<bool>| {
        let put = query(put).expect("sql");
        put.bind("id", id).bind("big", big).bind("flag", flag).execute(&*session)
    };
    assert_eq!(put(1, Some(i64::MAX), Some(true)).await.expect("insert"), 1);
    assert_eq!(put(2, None, None).await.expect("insert"), 1);
    assert!(matches!(put(1, None, None).await, Err(Error::Duplicate)));
    assert!(put(1 << 40, None, None).await.is_err(), "truncated into a 32-bit column");
    let rows = query("SELECT id, big, flag FROM thing ORDER BY id").expect("sql");
    let rows = rows.fetch_all(&*session).await.expect("rows");
    let one = vec![Value::Integer(1), Value::Integer(i64::MAX), Value::Integer(1)];
    assert_eq!(rows, [one, vec![Value::Integer(2), Value::Null, Value::Null]]);

    for (sql, expected) in [
        ("SELECT SUM(x::bigint) FROM (VALUES (9000000000), (-1)) v(x)", Some(8_999_999_999)),
        ("SELECT 0::numeric", Some(0)),
        ("SELECT -120000000::numeric", Some(-120_000_000)),
        ("SELECT 9223372036854775807::numeric", Some(i64::MAX)),
        ("SELECT (-9223372036854775808)::numeric", Some(i64::MIN)),
        ("SELECT 7.000::numeric", Some(7)),
        ("SELECT 9223372036854775808::numeric", None),
        ("SELECT 0.5::numeric", None),
        ("SELECT 'NaN'::numeric", None),
    ] {
        let got = query(sql).expect("sql").pluck(&*session).await;
        assert_eq!(got.ok().flatten(), expected.map(Value::Integer), "{sql}");
    }
    drop(session);
    schema.remove().await;
}

#[tokio::test]
async fn postgres_survives_lost_connections() {
    let Some(schema) = TempSchema::create().await else {
        return;
    };
    let pool = postgres(&schema).await;
    let kill = |pid: Value| {
        let killer = pool.get();
        async move {
            let killer = killer.await.expect("session");
            let Value::Integer(pid) = pid else { panic!("pid") };
            let sql = "SELECT pg_terminate_backend(:pid, 1000)";
            query(sql).expect("sql").bind("pid", pid).execute(&*killer).await.expect("kill");
        }
    };
    let me = "SELECT pg_backend_pid()";

    // In a transaction: an error, nothing committed, and the connection is not used again.
    let tx = ConnectionWithTransaction::new(pool.get().await.expect("session")).await.expect("tx");
    insert(&tx, 1).await.expect("insert");
    kill(query(me).expect("sql").pluck(&tx).await.expect("pid").expect("pid")).await;
    assert!(insert(&tx, 2).await.is_err());
    assert!(insert(&tx, 3).await.is_err(), "never continued on another connection");
    assert!(tx.commit().await.is_err());
    assert_eq!(count(&pool).await, Value::Integer(0));

    // Idle in the pool: noticed by the probe, the caller never knows.
    let idle = pool.get().await.expect("session");
    let pid = query(me).expect("sql").pluck(&*idle).await.expect("pid").expect("pid");
    kill(pid).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    insert(&*idle, 5).await.expect("reconnected");
    drop(idle);
    assert_eq!(count(&pool).await, Value::Integer(1));
    schema.remove().await;
}

#[tokio::test]
async fn postgres_abandoned_transaction_is_undone() {
    let Some(schema) = TempSchema::create().await else {
        return;
    };
    let pool = postgres(&schema).await;
    let tx = ConnectionWithTransaction::new(pool.get().await.expect("session")).await.expect("tx");
    insert(&tx, 1).await.expect("insert");
    drop(tx);
    let session = pool.get().await.expect("session");
    insert(&*session, 1).await.expect("not held up by the abandoned row");
    drop(session);
    schema.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_processes_migrate_in_turn() {
    let Some(schema) = TempSchema::create().await else {
        return;
    };
    let opening = (0..6).map(|_| tokio::spawn(open_postgres(schema.config())));
    for store in opening.collect::<Vec<_>>() {
        store.await.expect("task").expect("every process gets its store");
    }
    let pool = Pool::<Adapter<Postgres>>::new(schema.config());
    let session = pool.get().await.expect("session");
    let narrow = "SELECT COUNT(*) FROM information_schema.columns
                  WHERE table_schema = current_schema() AND data_type = 'integer'
                  AND column_name IN ('amount', 'fee', 'fee_reserve', 'expiry', 'timestamp')";
    let narrow = query(narrow).expect("sql").pluck(&*session).await.expect("count");
    assert_eq!(narrow, Some(Value::Integer(0)), "money in 32 bits");
    drop(session);
    schema.remove().await;
}

#[tokio::test]
async fn postgres_without_its_schema_says_so() {
    let Some(schema) = TempSchema::create().await else {
        return;
    };
    let config = schema.config();
    schema.remove().await;
    let refused = open_postgres(config).await.err();
    assert!(matches!(refused, Some(Error::InvalidConnectionSettings(_))), "{refused:?}");
}
