//! Write transactions: several statements of which all count or none.

use sqlx::Any;
use tokio::sync::OwnedMutexGuard;

use super::desk::InlineTurn;
use super::{Durability, Hand, Store, StoreError, values};

/// A write transaction. Rolls back when dropped without [`Tx::commit`]. Nobody asks the ecash store before it has ended:
/// whoever waits there to write has a connection of that store in hand, and all of them may be with those who wait.
pub struct Tx(Open);

enum Open {
    Pooled { inner: sqlx::Transaction<'static, Any>, _gate: Option<OwnedMutexGuard<()>> },
    InPlace(InPlace),
}

/// One without a thread between.
struct InPlace(InlineTurn);

impl Store {
    /// Starts a write transaction.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin(&self, durability: Durability) -> Result<Tx, StoreError> {
        let gate = self.enter().await;
        let inner = self.writers(durability).begin_with(self.begin).await?;
        Ok(Tx(Open::Pooled { inner, _gate: gate }))
    }

    /// Begins a transaction of a few statements about a few rows, which many requests wait for: on SQLite they run where
    /// they are asked, and nothing else does meanwhile.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin_short(&self, durability: Durability) -> Result<Tx, StoreError> {
        let Some(file) = self.file() else { return self.begin(durability).await };
        let user = self.stay_open()?;
        let mut turn = self.in_place(file, durability, Some(user)).await?;
        turn.inner().open_tx().await?;
        Ok(Tx(Open::InPlace(InPlace(turn))))
    }
}

impl Tx {
    /// What runs its statements.
    pub fn hand(&mut self) -> Hand<'_> {
        match &mut self.0 {
            Open::Pooled { inner, .. } => Hand::Pooled(inner),
            Open::InPlace(InPlace(turn)) => Hand::Inline(turn.inner()),
        }
    }

    /// Makes the transaction's changes permanent.
    ///
    /// # Errors
    /// [`StoreError::Unconfirmed`] when the commit was not acknowledged; its outcome is then unknown.
    pub async fn commit(self) -> Result<(), StoreError> {
        let committed = match self.0 {
            Open::Pooled { inner, .. } => inner.commit().await,
            Open::InPlace(mut place) => place.0.inner().commit().await.map_err(values::fault),
        };
        committed.map_err(StoreError::Unconfirmed)
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        self.0.inner().roll_back();
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Row as _;

    use super::*;

    const TABLE: &str =
        "CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, part REAL, bytes BLOB)";
    /// Its parameters are not in the order of their numbers, and one is there twice.
    const INSERT: &str = "INSERT INTO things (name, id, bytes, part) VALUES ($2, $1, $4, $3) RETURNING part, bytes, \
         name, id, NULL, $1";

    async fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), None, false).await.unwrap();
        let mut tx = store.begin(Durability::Full).await.unwrap();
        sqlx::query(TABLE).execute(tx.hand()).await.unwrap();
        tx.commit().await.unwrap();
        (dir, store)
    }

    async fn begin(store: &Store, short: bool) -> Tx {
        let durability = Durability::Full;
        if short { store.begin_short(durability).await.unwrap() } else { store.begin(durability).await.unwrap() }
    }

    #[tokio::test]
    async fn a_statement_gives_the_same_wherever_it_runs() {
        let (_dir, store) = store().await;
        for (id, short) in [(1_i64, false), (2, true)] {
            let mut tx = begin(&store, short).await;
            let name = format!("thing {id}");
            let insert = |id: i64| sqlx::query(INSERT).bind(id).bind(name.clone()).bind(0.5_f64).bind(vec![7_u8, 0]);
            let row = insert(id).fetch_one(tx.hand()).await.unwrap();
            let read: (f64, Vec<u8>, String, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
            assert_eq!(read, (0.5, vec![7, 0], name.clone(), id));
            assert_eq!((row.get::<Option<i64>, _>(4), row.get::<i64, _>(5)), (None, id));
            assert!(row.try_get::<i64, _>(2).is_err() && row.try_get::<String, _>(3).is_err(), "no type for another");
            let twice = StoreError::from(insert(9).execute(tx.hand()).await.unwrap_err());
            assert!(twice.is_duplicate() && twice.is_constraint(), "{twice:?}");
            let nameless = "INSERT INTO things (id, name) VALUES ($1, $2)";
            let nameless = sqlx::query(nameless).bind(8_i64).bind(None::<String>).execute(tx.hand()).await;
            let nameless = StoreError::from(nameless.unwrap_err());
            assert!(!nameless.is_duplicate() && nameless.is_constraint(), "{nameless:?}");
            let changed = sqlx::query("UPDATE things SET part = part + $1").bind(1.0_f64).execute(tx.hand()).await;
            assert_eq!(changed.unwrap().rows_affected(), u64::try_from(id).unwrap());
            let none = sqlx::query("SELECT id FROM things WHERE id = $1").bind(5_i64);
            assert!(none.fetch_optional(tx.hand()).await.unwrap().is_none());
            tx.commit().await.unwrap();
        }
        let names = sqlx::query("SELECT name FROM things ORDER BY id").fetch_all(store.read()).await.unwrap();
        let names: Vec<String> = names.iter().map(|row| row.get(0)).collect();
        assert_eq!(names, ["thing 1", "thing 2"]);
        store.close().await;
    }

    #[tokio::test]
    async fn what_is_dropped_is_undone_and_the_next_one_has_its_turn() {
        let (_dir, store) = store().await;
        for short in [true, false, true] {
            let mut tx = begin(&store, short).await;
            sqlx::query("INSERT INTO things (id, name) VALUES (1, 'one')").execute(tx.hand()).await.unwrap();
            drop(tx);
            let mut tx = begin(&store, true).await;
            let there = sqlx::query("SELECT COUNT(*) FROM things").fetch_one(tx.hand()).await.unwrap();
            assert_eq!(there.get::<i64, _>(0), 0, "{short}");
            let open = sqlx::query("INSERT INTO things (id, name) VALUES (1, $1)").bind(None::<String>);
            open.execute(tx.hand()).await.unwrap_err();
            tx.commit().await.unwrap();
        }
        store.close().await;
        assert!(store.begin_short(Durability::Full).await.is_err(), "it is closed");
    }

    /// 2 is FULL, 1 is NORMAL.
    #[tokio::test]
    async fn a_commit_waits_for_the_disk_where_it_must() {
        let (_dir, store) = store().await;
        let (full, safe) = (Durability::Full, Durability::ProcessSafe);
        for (durability, expected) in [(safe, 1), (full, 2), (full, 2), (safe, 1)] {
            let mut tx = store.begin_short(durability).await.unwrap();
            let level = sqlx::query("PRAGMA synchronous").fetch_one(tx.hand()).await.unwrap();
            assert_eq!(level.get::<i64, _>(0), expected, "{durability:?}");
        }
        store.close().await;
        let dir = tempfile::tempdir().unwrap();
        let strict = Store::open(dir.path(), None, true).await.unwrap();
        let mut tx = strict.begin_short(safe).await.unwrap();
        let level = sqlx::query("PRAGMA synchronous").fetch_one(tx.hand()).await.unwrap();
        assert_eq!(level.get::<i64, _>(0), 2, "every commit is synced");
        drop(tx);
        strict.close().await;
    }
}
