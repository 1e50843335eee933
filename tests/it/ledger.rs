//! The ledger on a real database, against a model small enough to be obviously right.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use coinslot::clock::{Clock, SharedClock, SystemClock};
use coinslot::ledger::repo::{self, Transfer};
use coinslot::ledger::{AccountId, AccountKind, Hold, HoldError, Ledger, SettleError, account};
use coinslot::money::{Cost, Msat, Usage};
use coinslot::store::{Durability, Store, StoreError};
use futures_util::future::join_all;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use sqlx::Row;
use tokio::task::JoinHandle;

use crate::support::db::{TestDb, on_postgres};

const MINT: &str = "https://mint.example";
const OWNER: &str = "the node under test";

fn msat(amount: u64) -> Msat {
    Msat::new(amount).unwrap()
}

fn cost(amount: u64) -> Cost {
    Cost::fixed(Usage::default(), msat(amount)).unwrap()
}

/// A ledger with its writer, which can be killed.
struct Books {
    store: Store,
    ledger: Ledger,
    writer: JoinHandle<()>,
}

impl Books {
    async fn open(store: &Store, owner: &str) -> Self {
        Self::with_clock(store, owner, Arc::new(SystemClock)).await
    }

    async fn with_clock(store: &Store, owner: &str, clock: SharedClock) -> Self {
        let (ledger, writing) = Ledger::open(store.clone(), clock, owner.to_owned()).await.unwrap();
        Self { store: store.clone(), ledger, writer: tokio::spawn(writing) }
    }

    async fn key(&self, name: &str) -> AccountId {
        let mut tx = self.store.begin(Durability::Full).await.unwrap();
        let id = self.ledger.next_id();
        let account = repo::ensure_client(&mut tx, id, AccountKind::Key, name, MINT, "sat", 1).await.unwrap();
        tx.commit().await.unwrap();
        account.id
    }

    /// Money comes in from a mint.
    async fn top_up(&self, key: AccountId, amount: u64) {
        let mut tx = self.store.begin(Durability::Full).await.unwrap();
        let id = self.ledger.next_id();
        let mint = account::house_account(&mut tx, id, AccountKind::Mint, MINT, "sat", 1).await.unwrap();
        let id = self.ledger.next_id();
        let transfer = Transfer { id, debit: mint, credit: key, amount: msat(amount), kind: "redeem", reference: "t" };
        repo::transfer(&mut tx, transfer, 1).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Money goes out, as for a refund.
    async fn pay_out(&self, key: AccountId, amount: u64) -> Result<(), StoreError> {
        let mut tx = self.store.begin(Durability::Full).await.unwrap();
        let (id, change) = (self.ledger.next_id(), self.ledger.house().change);
        let transfer =
            Transfer { id, debit: key, credit: change, amount: msat(amount), kind: "refund", reference: "t" };
        repo::transfer(&mut tx, transfer, 1).await?;
        tx.commit().await
    }

    /// The process dies with everything that is open, and another one takes over.
    async fn crash(self) -> Self {
        self.writer.abort();
        let _killed = self.writer.await;
        let next = Self::open(&self.store, OWNER).await;
        next.ledger.release_orphans(OWNER).await.unwrap();
        next
    }

    async fn balance(&self, key: AccountId) -> (u64, u64) {
        let mut reader = self.store.read().acquire().await.unwrap();
        let balance = repo::balance_of(&mut reader, key).await.unwrap().unwrap();
        (balance.posted.get(), balance.held.get())
    }

    async fn prove(&self) -> coinslot::ledger::books::Books {
        let books = self.ledger.books().await.unwrap();
        assert_eq!(books.faults, Vec::<String>::new());
        books
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query(sql).fetch_one(self.store.read()).await.unwrap().get(0)
    }

    /// Ends the writer; every hold must be gone.
    async fn close(self) {
        drop(self.ledger);
        tokio::time::timeout(Duration::from_secs(10), self.writer).await.expect("the writer ends").unwrap();
    }
}

/// Closes everything that a test used.
async fn end(books: Books, db: TestDb) {
    let store = books.store.clone();
    books.close().await;
    store.close().await;
    db.remove().await;
}

#[derive(Clone, Debug)]
enum Step {
    TopUp {
        key: usize,
        amount: u64,
    },
    PayOut {
        key: usize,
        amount: u64,
    },
    Hold {
        key: usize,
        amount: u64,
    },
    /// Many holds at once.
    Burst {
        key: usize,
        amounts: Vec<u64>,
    },
    /// Charges this many percent of one hold.
    Capture {
        which: prop::sample::Index,
        percent: u64,
    },
    Release {
        which: prop::sample::Index,
    },
    Drop {
        which: prop::sample::Index,
    },
    Crash,
}

const KEYS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS;
    let amount = prop_oneof![1_u64..2_000, Just(1), Just(1_000)];
    let which = any::<prop::sample::Index>();
    prop_oneof![
        3 => (key.clone(), 1_u64..5_000).prop_map(|(key, amount)| Step::TopUp { key, amount }),
        2 => (key.clone(), amount.clone()).prop_map(|(key, amount)| Step::PayOut { key, amount }),
        6 => (key.clone(), amount.clone()).prop_map(|(key, amount)| Step::Hold { key, amount }),
        2 => (key, vec(amount, 2..12)).prop_map(|(key, amounts)| Step::Burst { key, amounts }),
        5 => (which.clone(), prop_oneof![0_u64..100, Just(100), 101_u64..400]).prop_map(|(which, percent)| Step::Capture { which, percent }),
        2 => which.clone().prop_map(|which| Step::Release { which }),
        2 => which.prop_map(|which| Step::Drop { which }),
        1 => Just(Step::Crash),
    ]
}

/// What the books must say.
#[derive(Default)]
struct Model {
    posted: [u64; KEYS],
    /// Open holds, oldest first: key and amount.
    open: Vec<(usize, u64)>,
    income: u64,
    paid_out: u64,
    captured: i64,
    released: i64,
}

impl Model {
    fn held(&self, key: usize) -> u64 {
        self.open.iter().filter(|(owner, _)| *owner == key).map(|(_, amount)| amount).sum()
    }

    fn available(&self, key: usize) -> u64 {
        self.posted[key] - self.held(key)
    }
}

async fn play(books: Books, steps: &[Step], mark: &str) -> Result<Books, TestCaseError> {
    let mut books = books;
    let before = (books.number(CAPTURED).await, books.number(RELEASED).await);
    let start = books.prove().await;
    let mut keys = Vec::new();
    for key in 0..KEYS {
        keys.push(books.key(&format!("{mark}-{key}")).await);
    }
    let mut model = Model::default();
    let mut holds: Vec<Hold> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::TopUp { key, amount } => {
                books.top_up(keys[*key], *amount).await;
                model.posted[*key] += amount;
            }
            Step::PayOut { key, amount } => {
                let paid = books.pay_out(keys[*key], *amount).await;
                let covered = *amount <= model.available(*key);
                prop_assert_eq!(paid.is_ok(), covered, "step {}: {:?}", at, paid);
                if covered {
                    model.posted[*key] -= amount;
                    model.paid_out += amount;
                }
            }
            Step::Hold { key, amount } => match books.ledger.hold(keys[*key], msat(*amount), "r").await {
                Ok(hold) => {
                    prop_assert!(*amount <= model.available(*key), "step {at} oversold");
                    holds.push(hold);
                    model.open.push((*key, *amount));
                }
                Err(HoldError::Insufficient { available }) => {
                    prop_assert!(*amount > model.available(*key), "step {at} refused what is there");
                    prop_assert_eq!(available.get(), model.available(*key));
                }
                Err(other) => return Err(TestCaseError::fail(format!("step {at}: {other}"))),
            },
            Step::Burst { key, amounts } => {
                let placed =
                    join_all(amounts.iter().map(|amount| books.ledger.hold(keys[*key], msat(*amount), "r"))).await;
                let mut refused = Vec::new();
                for (amount, outcome) in amounts.iter().zip(placed) {
                    match outcome {
                        Ok(hold) => {
                            prop_assert!(*amount <= model.available(*key), "step {at} oversold");
                            holds.push(hold);
                            model.open.push((*key, *amount));
                        }
                        Err(HoldError::Insufficient { .. }) => refused.push(*amount),
                        Err(other) => return Err(TestCaseError::fail(format!("step {at}: {other}"))),
                    }
                }
                // Less was available for each of them than it asked for, and what is left is less still.
                prop_assert!(
                    refused.iter().all(|amount| *amount > model.available(*key)),
                    "step {at} refused what is there"
                );
            }
            Step::Capture { which, percent } => {
                if !holds.is_empty() {
                    let index = which.index(holds.len());
                    let (hold, (key, amount)) = (holds.remove(index), model.open.remove(index));
                    let wanted = amount * percent / 100;
                    let charged = wanted.min(amount);
                    let settled = hold.capture(cost(wanted), "r").await.unwrap();
                    model.posted[key] -= charged;
                    model.income += charged;
                    *(if charged > 0 { &mut model.captured } else { &mut model.released }) += 1;
                    prop_assert_eq!(settled.charged.total.get(), charged, "step {}", at);
                    prop_assert_eq!(settled.shortfall.get(), wanted - charged, "step {}", at);
                    prop_assert_eq!(settled.remaining.get(), model.available(key), "step {}", at);
                }
            }
            Step::Release { which } => {
                if !holds.is_empty() {
                    let index = which.index(holds.len());
                    let (hold, (key, _)) = (holds.remove(index), model.open.remove(index));
                    let available = hold.release().await.unwrap();
                    model.released += 1;
                    prop_assert_eq!(available.get(), model.available(key), "step {}", at);
                }
            }
            Step::Drop { which } => {
                if !holds.is_empty() {
                    let index = which.index(holds.len());
                    drop(holds.remove(index));
                    model.open.remove(index);
                    model.released += 1;
                    // Whatever is queued later is written later: this hold is refused, and then
                    // the dropped one is gone.
                    let behind = books.ledger.hold(keys[0], msat(1_000_000_000), "behind").await;
                    let refused = matches!(behind, Err(HoldError::Insufficient { .. }));
                    prop_assert!(refused, "step {}", at);
                }
            }
            Step::Crash => {
                model.released += i64::try_from(model.open.len()).unwrap();
                model.open.clear();
                books = books.crash().await;
                // What the dead process still had in hand does nothing any more.
                holds.clear();
            }
        }
        // Invariants 3, 4, 5: nothing is negative, what is held is the sum of the open holds.
        let proof = books.prove().await;
        prop_assert_eq!(proof.open_holds, i64::try_from(model.open.len()).unwrap(), "step {}", at);
        for (key, account) in keys.iter().enumerate() {
            prop_assert_eq!(
                books.balance(*account).await,
                (model.posted[key], model.held(key)),
                "step {} {:?}",
                at,
                step
            );
        }
        prop_assert_eq!(proof.earnings - start.earnings, i64::try_from(model.income).unwrap());
    }
    model.released += i64::try_from(holds.len()).unwrap();
    for hold in holds {
        hold.release().await.unwrap();
    }
    // Invariant 6: one end for each hold.
    let after = (books.number(CAPTURED).await, books.number(RELEASED).await);
    prop_assert_eq!((after.0 - before.0, after.1 - before.1), (model.captured, model.released));
    let proof = books.prove().await;
    prop_assert_eq!(proof.open_holds, 0);
    let left: u64 = model.posted.iter().sum();
    prop_assert_eq!(proof.liabilities - start.liabilities, i64::try_from(left + model.paid_out).unwrap());
    Ok(books)
}

const CAPTURED: &str = "SELECT COUNT(*) FROM holds WHERE state = 'captured'";
const RELEASED: &str = "SELECT COUNT(*) FROM holds WHERE state = 'released'";

/// Replay a failure with `TEST_SEED`, which it prints.
#[test]
fn any_interleaving_keeps_the_books() {
    let seed: u64 = std::env::var("TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let cases = if on_postgres() { 16 } else { 32 };
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let db = runtime.block_on(TestDb::new());
    let store = runtime.block_on(db.open());
    let case = AtomicI64::new(0);
    let outcome = runner.run(&vec(step(), 1..40), |steps| {
        let mark = format!("case {}", case.fetch_add(1, Ordering::Relaxed));
        runtime.block_on(async {
            let books = play(Books::open(&store, OWNER).await, &steps, &mark).await?;
            books.close().await;
            Ok(())
        })
    });
    assert!(outcome.is_ok(), "TEST_SEED={seed}: {}", outcome.unwrap_err());
    runtime.block_on(store.close());
    runtime.block_on(db.remove());
}

/// Invariant 2: available = balance − Σ open holds, checked and changed in one atomic statement.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_holds_never_oversell() {
    let db = TestDb::new().await;
    let store = db.open().await;
    let books = Books::open(&store, OWNER).await;
    for (name, count, amounts) in [("fifty", 50_u64, [100, 100]), ("five hundred", 500, [70, 110])] {
        let key = books.key(name).await;
        let balance = 2_050;
        books.top_up(key, balance).await;
        let tasks: Vec<_> = (0..count)
            .map(|at| {
                let (ledger, amount) = (books.ledger.clone(), amounts[usize::from(at % 2 == 1)]);
                tokio::spawn(async move { ledger.hold(key, msat(amount), "r").await })
            })
            .collect();
        let mut holds = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                Ok(hold) => holds.push(hold),
                Err(HoldError::Insufficient { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        let admitted: u64 = holds.iter().map(|hold| hold.amount().get()).sum();
        let dearest = amounts[0].max(amounts[1]);
        assert!(admitted <= balance, "{name}: {admitted}");
        assert!(u64::try_from(holds.len()).unwrap() >= balance / dearest, "{name}: {}", holds.len());
        assert_eq!(books.balance(key).await, (balance, admitted));
        books.prove().await;
        let ended = join_all(holds.into_iter().map(|hold| hold.capture(cost(10_000), "r"))).await;
        assert!(ended.iter().all(|end| end.as_ref().unwrap().charged.total.get() <= dearest));
        assert_eq!(books.balance(key).await, (balance - admitted, 0));
    }
    books.prove().await;
    end(books, db).await;
}

/// Invariant 6: the second end of a hold is refused, by whatever way it comes.
#[tokio::test(flavor = "multi_thread")]
async fn an_ended_hold_and_a_transfer_cannot_be_changed() {
    let db = TestDb::new().await;
    let store = db.open().await;
    let books = Books::open(&store, OWNER).await;
    let key = books.key("a key").await;
    books.top_up(key, 1_000).await;
    let captured = books.ledger.hold(key, msat(100), "captured").await.unwrap();
    captured.capture(cost(60), "captured").await.unwrap();
    books.ledger.hold(key, msat(100), "released").await.unwrap().release().await.unwrap();
    for sql in [
        "UPDATE holds SET state = 'open' WHERE request = 'captured'",
        "UPDATE holds SET state = 'released', charged = 0 WHERE request = 'captured'",
        "UPDATE holds SET state = 'captured', charged = 100 WHERE request = 'released'",
        "UPDATE holds SET charged = 61 WHERE request = 'captured'",
        "UPDATE transfers SET amount = amount + 1",
        "UPDATE transfers SET credit = debit, debit = credit",
        "DELETE FROM transfers",
    ] {
        let mut tx = store.begin(Durability::Full).await.unwrap();
        let refused = sqlx::query(sql).execute(&mut *tx).await.unwrap_err().to_string();
        assert!(refused.contains("append-only") || refused.contains("has ended"), "{sql}: {refused}");
    }
    // Nor can the figures go where they must not.
    for sql in [
        "UPDATE accounts SET held = posted + 1 WHERE kind = 'key'",
        "UPDATE accounts SET held = -1 WHERE kind = 'key'",
        "UPDATE accounts SET posted = -1 WHERE kind = 'key'",
        "UPDATE accounts SET posted = -1 WHERE kind = 'income'",
        "UPDATE accounts SET posted = 1 WHERE kind = 'mint'",
        "INSERT INTO holds (id, account, amount, request, owner, created_at) SELECT 1, id, 0, 'r', 'o', 1 FROM accounts WHERE kind = 'key'",
        "INSERT INTO transfers (id, debit, credit, amount, kind, reference, created_at) SELECT 1, id, id, 5, 'k', 'r', 1 FROM accounts WHERE kind = 'key'",
    ] {
        let mut tx = store.begin(Durability::Full).await.unwrap();
        let refused = StoreError::from(sqlx::query(sql).execute(&mut *tx).await.unwrap_err());
        assert!(refused.is_constraint(), "{sql}: {refused}");
    }
    // A hold that was released under its owner cannot be charged.
    let hold = books.ledger.hold(key, msat(100), "orphan").await.unwrap();
    assert_eq!(books.ledger.release_orphans(OWNER).await.unwrap(), 1);
    let late = hold.capture(cost(50), "orphan").await;
    assert!(matches!(late, Err(SettleError::AlreadyEnded)), "{late:?}");
    assert_eq!(books.balance(key).await, (940, 0));
    books.prove().await;
    end(books, db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_holds_share_few_commits() {
    let db = TestDb::new().await;
    let store = db.open().await;
    let books = Books::open(&store, OWNER).await;
    let mut keys = Vec::new();
    for name in 0..4 {
        let key = books.key(&format!("key {name}")).await;
        books.top_up(key, 1_000_000).await;
        keys.push(key);
    }
    const PAIRS: usize = 600;
    let pairs = (0..PAIRS).map(|at| {
        let (ledger, key) = (books.ledger.clone(), keys[at % keys.len()]);
        tokio::spawn(async move {
            let hold = ledger.hold(key, msat(100), "r").await.unwrap();
            hold.capture(cost(30), "r").await.unwrap();
        })
    });
    for pair in pairs.collect::<Vec<_>>() {
        pair.await.unwrap();
    }
    let (entries, commits) = (books.ledger.stats().entries(), books.ledger.stats().commits());
    assert_eq!(entries, 2 * u64::try_from(PAIRS).unwrap());
    assert!(commits * 8 <= entries, "{entries} entries took {commits} commits");
    // Alone, each has its own.
    let hold = books.ledger.hold(keys[0], msat(100), "r").await.unwrap();
    hold.release().await.unwrap();
    assert_eq!(books.ledger.stats().commits(), commits + 2);
    assert_eq!(books.prove().await.earnings, 30 * i64::try_from(PAIRS).unwrap());
    end(books, db).await;
}

/// Invariant 5: holds of a dead process are released by its name, and nobody else's.
#[tokio::test(flavor = "multi_thread")]
async fn holds_of_the_dead_are_released_and_no_others() {
    let db = TestDb::new().await;
    let store = db.open().await;
    let (ours, theirs) = (Books::open(&store, OWNER).await, Books::open(&store, "another node").await);
    let key = ours.key("shared").await;
    ours.top_up(key, 1_000).await;
    let _lost =
        [ours.ledger.hold(key, msat(100), "r").await.unwrap(), ours.ledger.hold(key, msat(150), "r").await.unwrap()];
    let running = theirs.ledger.hold(key, msat(300), "r").await.unwrap();
    let ended = ours.ledger.hold(key, msat(50), "r").await.unwrap();
    ended.capture(cost(50), "r").await.unwrap();
    assert_eq!(ours.balance(key).await, (950, 550));
    let ours = ours.crash().await;
    // Invariant 7: the other process's live request keeps its money.
    assert_eq!(ours.balance(key).await, (950, 300));
    assert_eq!(ours.ledger.release_orphans(OWNER).await.unwrap(), 0);
    running.capture(cost(200), "r").await.unwrap();
    assert_eq!(ours.balance(key).await, (750, 0));
    ours.prove().await;
    // The heartbeat names the dead by their silence.
    let dead = repo::heartbeat(&store, "another node", 1_000, 0).await.unwrap();
    assert_eq!(dead, Vec::<String>::new());
    let dead = repo::heartbeat(&store, OWNER, 200_000, 110_000).await.unwrap();
    assert_eq!(dead, vec!["another node".to_owned()]);
    let dead = repo::heartbeat(&store, OWNER, 200_000, 500).await.unwrap();
    assert_eq!(dead, Vec::<String>::new());
    theirs.close().await;
    end(ours, db).await;
}

/// A process that was taken for dead comes back while its holds are being released.
#[tokio::test(flavor = "multi_thread")]
async fn releasing_orphans_races_with_their_owner() {
    let db = TestDb::new().await;
    let store = db.open().await;
    let books = Books::open(&store, OWNER).await;
    let other = Books::open(&store, "another node").await;
    let keys = [books.key("a").await, books.key("b").await];
    for key in keys {
        books.top_up(key, 10_000_000).await;
    }
    let reaper = {
        let ledger = other.ledger.clone();
        tokio::spawn(async move {
            let mut released = 0;
            for _ in 0..60 {
                released += ledger.release_orphans(OWNER).await.unwrap();
                tokio::task::yield_now().await;
            }
            released
        })
    };
    let mut charged = 0;
    let mut late = 0;
    for round in 0..40_usize {
        let pairs = (0..16).map(|at| {
            let (ledger, key) = (books.ledger.clone(), keys[(round + at) % 2]);
            tokio::spawn(async move {
                let hold = ledger.hold(key, msat(100), "r").await.unwrap();
                hold.capture(cost(10), "r").await
            })
        });
        for pair in pairs.collect::<Vec<_>>() {
            match pair.await.unwrap() {
                Ok(_) => charged += 1,
                Err(SettleError::AlreadyEnded) => late += 1,
                Err(other) => panic!("{other}"),
            }
        }
    }
    let released = reaper.await.unwrap();
    assert_eq!(u64::try_from(late).unwrap(), released, "every hold ended once");
    let proof = books.prove().await;
    assert_eq!((proof.open_holds, proof.earnings), (0, 10 * charged));
    other.close().await;
    end(books, db).await;
}

#[derive(Debug)]
struct Frozen;

impl Clock for Frozen {
    fn now_ms(&self) -> i64 {
        1_790_000_000_000
    }
}

/// Row ids have eight bits for the process. Two processes may share them, and must not touch each
/// other's rows when their ids meet. The clock stands still so that they surely do.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_with_the_same_ids_do_not_hurt_each_other() {
    let db = TestDb::new().await;
    let store = db.open().await;
    // "Aa" and "BB" have the same sum.
    let nodes = [
        Books::with_clock(&store, "Aa", Arc::new(Frozen)).await,
        Books::with_clock(&store, "BB", Arc::new(Frozen)).await,
    ];
    let mut keys = Vec::new();
    for (node, name) in nodes.iter().zip(["a", "b"]) {
        let key = node.key(name).await;
        node.top_up(key, 100_000_000).await;
        keys.push(key);
    }
    const PAIRS: usize = 2_000;
    let mut tasks = Vec::new();
    for at in 0..PAIRS {
        for (node, key) in nodes.iter().zip(&keys) {
            let (ledger, key) = (node.ledger.clone(), *key);
            tasks.push(tokio::spawn(async move {
                let hold = match ledger.hold(key, msat(100), "r").await {
                    Ok(hold) => hold,
                    // Refusing is allowed, as long as nothing is left behind.
                    Err(HoldError::Store(_)) => return (0, 1),
                    Err(other) => panic!("{other}"),
                };
                if at % 5 == 0 {
                    drop(hold);
                    return (0, 0);
                }
                hold.capture(cost(10), "r").await.expect("a hold that was placed is charged");
                (10, 0)
            }));
        }
    }
    let (mut charged, mut refused) = (0, 0);
    for task in tasks {
        let (income, no) = task.await.unwrap();
        charged += income;
        refused += no;
    }
    let (one, two) = (&nodes[0], &nodes[1]);
    for node in [one, two] {
        // Everything dropped is queued before this.
        let behind = node.ledger.hold(keys[0], msat(1_000_000_000), "behind").await;
        assert!(behind.is_err());
    }
    let proof = one.prove().await;
    assert_eq!((proof.open_holds, proof.earnings), (0, charged));
    // On a clock that stands still long runs of ids are taken; many holds still find one.
    assert!(refused < PAIRS, "{refused} of {}", 2 * PAIRS);
    let [one, two] = nodes;
    two.close().await;
    end(one, db).await;
}
