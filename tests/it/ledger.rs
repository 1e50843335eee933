//! The ledger on a real database, against a model small enough to be obviously right.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use coinslot::clock::{Clock, SharedClock, SystemClock};
use coinslot::ledger::repo::{self, Transfer};
use coinslot::ledger::terms::{Children, Limits};
use coinslot::ledger::{AccountId, AccountKind, Hold, HoldError, Ledger, SettleError, Source, TransferKind, account};
use coinslot::money::{Cost, Msat, Usage};
use coinslot::store::{Durability, Store, StoreError};
use futures_util::future::join_all;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use sqlx::{Connection, PgConnection, Row};
use tokio::task::JoinHandle;

use crate::support::answers::{PATIENCE, until};
use crate::support::db::{TestDb, on_postgres};
use crate::support::store::TempDatabase;

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

    /// A key that spends the money of `parent`, up to a cap.
    async fn child(&self, parent: AccountId, name: &str, cap: Option<u64>) -> Source {
        let limits = Limits { cap: cap.map(msat), ..Limits::default() };
        let key_hashes = &[name.to_owned()];
        let wanted = Children { parent, key_hashes, limits, cost: Msat::ZERO, reference: "t" };
        self.ledger.add_children(wanted).await.unwrap();
        let mut reader = self.store.read().acquire().await.unwrap();
        let child = repo::find_by_key(&mut *reader, name).await.unwrap().unwrap();
        Source { account: parent, spender: child.id }
    }

    /// Money comes in from a mint.
    async fn top_up(&self, key: AccountId, amount: u64) {
        let mut tx = self.store.begin(Durability::Full).await.unwrap();
        let id = self.ledger.next_id();
        let mint = account::house_account(&mut tx, id, AccountKind::Mint, MINT, "sat", 1).await.unwrap();
        let id = self.ledger.next_id();
        let transfer =
            Transfer { id, debit: mint, credit: key, amount: msat(amount), kind: TransferKind::Redeem, reference: "t" };
        repo::transfer(&mut tx, transfer, 1).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Money goes out, as for a refund.
    async fn pay_out(&self, key: AccountId, amount: u64) -> Result<(), StoreError> {
        let mut tx = self.store.begin(Durability::Full).await.unwrap();
        let (id, change) = (self.ledger.next_id(), self.ledger.house().change);
        let transfer = Transfer {
            id,
            debit: key,
            credit: change,
            amount: msat(amount),
            kind: TransferKind::Refund,
            reference: "t",
        };
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
        let balance = repo::balance_of(&mut *reader, key).await.unwrap().unwrap();
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
        tokio::time::timeout(PATIENCE, self.writer).await.expect("the writer ends").unwrap();
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
        spender: usize,
        amount: u64,
    },
    /// Many holds at once, by the key itself and its children.
    Burst {
        key: usize,
        holds: Vec<(usize, u64)>,
    },
    /// The capped child may spend anew.
    Forgive {
        key: usize,
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
/// Who spends a key's money: the key itself, a child with a cap, a child without.
const SPENDERS: usize = 3;
const CAPPED: usize = 1;
const CAP: u64 = 2_500;

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS;
    let amount = prop_oneof![1_u64..2_000, Just(1), Just(1_000)];
    let which = any::<prop::sample::Index>();
    prop_oneof![
        3 => (key.clone(), 1_u64..5_000).prop_map(|(key, amount)| Step::TopUp { key, amount }),
        2 => (key.clone(), amount.clone()).prop_map(|(key, amount)| Step::PayOut { key, amount }),
        6 => (key.clone(), 0..SPENDERS, amount.clone()).prop_map(|(key, spender, amount)| Step::Hold { key, spender, amount }),
        2 => (key.clone(), vec((0..SPENDERS, amount), 2..12)).prop_map(|(key, holds)| Step::Burst { key, holds }),
        1 => key.prop_map(|key| Step::Forgive { key }),
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
    /// Open holds, oldest first: key, spender and amount.
    open: Vec<(usize, usize, u64)>,
    /// What each spender was charged, and what of it counts against its cap.
    spent: [[u64; SPENDERS]; KEYS],
    used: [[u64; SPENDERS]; KEYS],
    income: u64,
    paid_out: u64,
    captured: i64,
    released: i64,
}

impl Model {
    fn held(&self, key: usize) -> u64 {
        (0..SPENDERS).map(|spender| self.held_by(key, spender)).sum()
    }

    fn held_by(&self, key: usize, spender: usize) -> u64 {
        self.open.iter().filter(|open| (open.0, open.1) == (key, spender)).map(|open| open.2).sum()
    }

    /// What the cap of a spender leaves.
    fn left(&self, key: usize, spender: usize) -> u64 {
        if spender == CAPPED { CAP - self.used[key][spender] - self.held_by(key, spender) } else { u64::MAX }
    }

    /// What a spender could hold.
    fn spendable(&self, key: usize, spender: usize) -> u64 {
        self.available(key).min(self.left(key, spender))
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
    let mut sources: Vec<[Source; SPENDERS]> = Vec::new();
    for key in 0..KEYS {
        let account = books.key(&format!("{mark}-{key}")).await;
        let capped = books.child(account, &format!("{mark}-{key}-capped"), Some(CAP)).await;
        let free = books.child(account, &format!("{mark}-{key}-free"), None).await;
        keys.push(account);
        sources.push([account.into(), capped, free]);
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
            Step::Hold { key, spender, amount } => {
                match books.ledger.hold(sources[*key][*spender], msat(*amount), "r").await {
                    Ok(hold) => {
                        prop_assert!(*amount <= model.spendable(*key, *spender), "step {at} oversold");
                        holds.push(hold);
                        model.open.push((*key, *spender, *amount));
                    }
                    Err(HoldError::LimitReached { left }) => {
                        prop_assert!(*amount > model.left(*key, *spender), "step {at} refused what is allowed");
                        prop_assert_eq!(left.get(), model.left(*key, *spender));
                    }
                    Err(HoldError::Insufficient { available }) => {
                        prop_assert!(*amount > model.available(*key), "step {at} refused what is there");
                        prop_assert!(*amount <= model.left(*key, *spender), "step {at} should name the limit");
                        prop_assert_eq!(available.get(), model.available(*key));
                    }
                    Err(other) => return Err(TestCaseError::fail(format!("step {at}: {other}"))),
                }
            }
            Step::Burst { key, holds: wanted } => {
                let ledger = &books.ledger;
                let placing = wanted.iter().map(|(who, amount)| ledger.hold(sources[*key][*who], msat(*amount), "r"));
                let mut refused = Vec::new();
                for ((spender, amount), outcome) in wanted.iter().zip(join_all(placing).await) {
                    match outcome {
                        Ok(hold) => {
                            prop_assert!(*amount <= model.spendable(*key, *spender), "step {at} oversold");
                            holds.push(hold);
                            model.open.push((*key, *spender, *amount));
                        }
                        Err(HoldError::Insufficient { .. } | HoldError::LimitReached { .. }) => {
                            refused.push((*spender, *amount));
                        }
                        Err(other) => return Err(TestCaseError::fail(format!("step {at}: {other}"))),
                    }
                }
                // Less was there for each of them than it asked for, and what is left is less still.
                prop_assert!(
                    refused.iter().all(|(spender, amount)| *amount > model.spendable(*key, *spender)),
                    "step {at} refused what is there"
                );
            }
            Step::Forgive { key } => {
                books.ledger.zero_window(sources[*key][CAPPED].spender).await.unwrap();
                model.used[*key][CAPPED] = 0;
            }
            Step::Capture { which, percent } => {
                if !holds.is_empty() {
                    let index = which.index(holds.len());
                    let (hold, (key, spender, amount)) = (holds.remove(index), model.open.remove(index));
                    let wanted = amount * percent / 100;
                    let charged = wanted.min(amount);
                    let settled = hold.capture(cost(wanted)).await.unwrap();
                    model.posted[key] -= charged;
                    model.spent[key][spender] += charged;
                    model.used[key][spender] += charged;
                    model.income += charged;
                    *(if charged > 0 { &mut model.captured } else { &mut model.released }) += 1;
                    prop_assert_eq!(settled.charged.total.get(), charged, "step {}", at);
                    prop_assert_eq!(settled.shortfall.get(), wanted - charged, "step {}", at);
                    prop_assert_eq!(settled.remaining.get(), model.spendable(key, spender), "step {}", at);
                }
            }
            Step::Release { which } => {
                if !holds.is_empty() {
                    let index = which.index(holds.len());
                    let (hold, (key, spender, _)) = (holds.remove(index), model.open.remove(index));
                    let available = hold.release().await.unwrap();
                    model.released += 1;
                    prop_assert_eq!(available.get(), model.spendable(key, spender), "step {}", at);
                }
            }
            Step::Drop { which } => {
                if !holds.is_empty() {
                    let index = which.index(holds.len());
                    drop(holds.remove(index));
                    model.open.remove(index);
                    model.released += 1;
                    // One batch is written after the other: when the second of these holds is refused,
                    // the batch of the first, and with it the dropped hold, is done.
                    for _ in 0..2 {
                        let behind = books.ledger.hold(keys[0], msat(1_000_000_000), "behind").await;
                        let refused = matches!(behind, Err(HoldError::Insufficient { .. }));
                        prop_assert!(refused, "step {}", at);
                    }
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
        for (key, sources) in sources.iter().enumerate() {
            for (spender, source) in sources.iter().enumerate().skip(CAPPED) {
                let terms = books.ledger.terms(source.spender).await.unwrap().unwrap();
                let figures = (terms.held.get(), terms.spent.get(), terms.used.get());
                let expected = (model.held_by(key, spender), model.spent[key][spender], model.used[key][spender]);
                prop_assert_eq!(figures, expected, "step {} {:?}", at, step);
            }
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
        let ended = join_all(holds.into_iter().map(|hold| hold.capture(cost(10_000)))).await;
        assert!(ended.iter().all(|end| end.as_ref().unwrap().charged.total.get() <= dearest));
        assert_eq!(books.balance(key).await, (balance - admitted, 0));
    }
    books.prove().await;
    end(books, db).await;
}

/// Invariant 29: neither do two processes pass the cap of a key together, nor what its parent has.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_never_pass_a_cap_together() {
    let db = TestDb::new().await;
    let store = db.open().await;
    let nodes = [Books::open(&store, OWNER).await, Books::open(&store, "another node").await];
    let [one, _] = &nodes;
    let key = one.key("a parent").await;
    one.top_up(key, 20_000).await;
    // The cap, the cap again, and the parent's money are what ends it.
    for (name, cap, amounts) in [("a", 1_050, [100, 70]), ("b", 2_000, [100, 100]), ("c", 1_000_000, [900, 700])] {
        let child = one.child(key, name, Some(cap)).await;
        let before = one.balance(key).await;
        let tasks = (0..120_usize).map(|at| {
            let (ledger, amount) = (nodes[at % 2].ledger.clone(), amounts[at / 2 % 2]);
            tokio::spawn(async move {
                let hold = ledger.hold(child, msat(amount), "r").await?;
                // Some of them end while others are placed.
                if at % 3 == 0 {
                    hold.capture(cost(amount)).await.unwrap();
                    return Ok::<_, HoldError>((amount, None));
                }
                Ok((0, Some(hold)))
            })
        });
        let (mut charged, mut holds) = (0, Vec::new());
        for task in tasks.collect::<Vec<_>>() {
            match task.await.unwrap() {
                Ok((amount, hold)) => {
                    charged += amount;
                    holds.extend(hold);
                }
                Err(HoldError::LimitReached { .. } | HoldError::Insufficient { .. }) => {}
                Err(other) => panic!("{name}: {other}"),
            }
        }
        let held: u64 = holds.iter().map(|hold| hold.amount().get()).sum();
        let most = cap.min(before.0 - before.1);
        assert!(held + charged <= most, "{name}: {held} + {charged} of {most}");
        assert!(most - held - charged < amounts[0], "{name}: {held} + {charged} of {most}");
        let terms = one.ledger.terms(child.spender).await.unwrap().unwrap();
        assert_eq!((terms.held.get(), terms.used.get(), terms.spent.get()), (held, charged, charged));
        one.prove().await;
        for hold in holds {
            hold.release().await.unwrap();
        }
        one.prove().await;
    }
    // Over and over: both at the same moment, where there is room for one.
    for round in 0..80 {
        let child = one.child(key, &format!("race {round}"), Some(150)).await;
        let racing = nodes.iter().map(|node| {
            let ledger = node.ledger.clone();
            tokio::spawn(async move { ledger.hold(child, msat(100), "r").await })
        });
        let outcomes: Vec<_> = join_all(racing.collect::<Vec<_>>()).await;
        let placed: Vec<Hold> = outcomes.into_iter().filter_map(|outcome| outcome.unwrap().ok()).collect();
        assert_eq!(placed.len(), 1, "round {round}");
        for hold in placed {
            hold.release().await.unwrap();
        }
    }
    one.prove().await;
    // A key can spend its parent's money only.
    let stranger = one.key("a stranger").await;
    one.top_up(stranger, 1_000).await;
    let child = one.child(key, "d", None).await;
    let stolen = one.ledger.hold(Source { account: stranger, spender: child.spender }, msat(1), "r").await;
    assert!(matches!(stolen, Err(HoldError::Insufficient { .. })), "{stolen:?}");
    let [one, two] = nodes;
    two.close().await;
    end(one, db).await;
}

/// A figure of a key that its holds do not bear out is named.
#[tokio::test(flavor = "multi_thread")]
async fn the_books_prove_what_keys_spent() {
    let db = TestDb::new().await;
    let store = db.open().await;
    let books = Books::open(&store, OWNER).await;
    let key = books.key("a parent").await;
    books.top_up(key, 1_000).await;
    let child = books.child(key, "a child", Some(500)).await;
    books.ledger.hold(child, msat(100), "r").await.unwrap().capture(cost(60)).await.unwrap();
    let running = books.ledger.hold(child, msat(200), "r").await.unwrap();
    books.prove().await;
    for (sql, says) in [
        ("UPDATE key_terms SET held = held - 1", "held 199, open holds say 200"),
        ("UPDATE key_terms SET spent = spent + 1", "spent 61, its holds say 60"),
        ("UPDATE key_terms SET requests = 7", "requests 7, its holds say 1"),
        ("UPDATE key_terms SET parent = NULL", "holds on another's account 2, allowed are 0"),
    ] {
        let before = books.ledger.terms(child.spender).await.unwrap().unwrap();
        sqlx::query(sql).execute(&mut *store.desk(Durability::Full).turn().await.unwrap()).await.unwrap();
        let faults = books.ledger.books().await.unwrap().faults;
        assert_eq!(faults, [format!("key {}: {says}", child.spender.get())]);
        sqlx::query("UPDATE key_terms SET held = $1, spent = $2, requests = $3, parent = $4")
            .bind(before.held.to_db())
            .bind(before.spent.to_db())
            .bind(i64::try_from(before.requests).unwrap())
            .bind(key.get())
            .execute(&mut *store.desk(Durability::Full).turn().await.unwrap())
            .await
            .unwrap();
    }
    running.release().await.unwrap();
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
    captured.capture(cost(60)).await.unwrap();
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
        let refused = sqlx::query(sql).execute(tx.hand()).await.unwrap_err().to_string();
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
        let refused = StoreError::from(sqlx::query(sql).execute(tx.hand()).await.unwrap_err());
        assert!(refused.is_constraint(), "{sql}: {refused}");
    }
    // A hold that was released under its owner cannot be charged.
    let hold = books.ledger.hold(key, msat(100), "orphan").await.unwrap();
    assert_eq!(books.ledger.release_orphans(OWNER).await.unwrap(), 1);
    let late = hold.capture(cost(50)).await;
    assert!(matches!(late, Err(SettleError::AlreadyEnded)), "{late:?}");
    assert_eq!(books.balance(key).await, (940, 0));
    books.prove().await;
    end(books, db).await;
}

/// While nothing can be written, whoever wants a hold is told so, however many ends wait. Afterwards all are written.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_behind_ends_that_cannot_be_written() {
    if on_postgres() {
        return;
    }
    let db = TestDb::new().await;
    let store = db.open().await;
    let books = Books::open(&store, OWNER).await;
    let key = books.key("key").await;
    books.top_up(key, 1_000).await;
    let holds = join_all((0..70).map(|_| books.ledger.hold(key, msat(10), "r"))).await;
    let holds: Vec<Hold> = holds.into_iter().map(Result::unwrap).collect();
    let full = "CREATE TRIGGER full BEFORE UPDATE ON holds BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    change(&store, full).await;
    drop(holds);
    for _ in 0..2 {
        let asked = tokio::time::timeout(Duration::from_secs(60), books.ledger.hold(key, msat(10), "late")).await;
        let answer = asked.expect("it waits behind the ends");
        assert!(matches!(answer, Err(HoldError::Store(_))), "{answer:?}");
    }
    change(&store, "DROP TRIGGER full").await;
    let hold = loop {
        if let Ok(hold) = books.ledger.hold(key, msat(10), "later").await {
            break hold;
        }
    };
    hold.release().await.unwrap();
    // What was written before it is written.
    assert_eq!(books.balance(key).await, (1_000, 0));
    books.prove().await;
    end(books, db).await;
}

async fn change(store: &Store, sql: &'static str) {
    let mut tx = store.begin(Durability::Full).await.unwrap();
    sqlx::query(sql).execute(tx.hand()).await.unwrap();
    tx.commit().await.unwrap();
}

/// The database has written an end, and its answer was lost: whoever writes it again is told how it went.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_written_already_is_no_failure() {
    let db = TestDb::new().await;
    let store = db.open().await;
    let books = Books::open(&store, OWNER).await;
    let key = books.key("key").await;
    books.top_up(key, 1_000).await;
    for (charged, again) in [(30, true), (20, false)] {
        let hold = books.ledger.hold(key, msat(100), "lost").await.unwrap();
        let mut tx = store.begin(Durability::Full).await.unwrap();
        let sql = "UPDATE holds SET charged = 30, ended_at = 1, state = 'captured' WHERE state = 'open'";
        assert_eq!(sqlx::query(sql).execute(tx.hand()).await.unwrap().rows_affected(), 1);
        tx.commit().await.unwrap();
        match hold.capture(cost(charged)).await {
            Ok(settled) => assert_eq!((again, settled.charged.total, settled.remaining), (true, msat(30), msat(970))),
            Err(error) => assert!(!again && matches!(error, SettleError::AlreadyEnded), "{error:?}"),
        }
    }
    assert_eq!(books.balance(key).await, (940, 0));
    // One that another process released, and nothing more was wanted.
    let hold = books.ledger.hold(key, msat(100), "orphan").await.unwrap();
    assert_eq!(books.ledger.release_orphans(OWNER).await.unwrap(), 1);
    assert_eq!(hold.release().await.unwrap(), msat(940));
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
            hold.capture(cost(30)).await.unwrap();
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
/// On one thread, so that both are in line before the writer looks: then they are one batch, and one commit.
#[tokio::test]
async fn a_hold_fits_into_what_ends_beside_it() {
    if on_postgres() {
        // There, holds are placed in a commit of their own, before any end.
        return;
    }
    let db = TestDb::new().await;
    let books = Books::open(&db.open().await, OWNER).await;
    let key = books.key("k").await;
    books.top_up(key, 100).await;
    let first = books.ledger.hold(key, msat(100), "first").await.unwrap();
    let commits = books.ledger.stats().commits();
    let (second, settled) = tokio::join!(books.ledger.hold(key, msat(70), "second"), first.capture(cost(30)));
    assert_eq!(settled.unwrap().remaining, msat(70));
    let second = second.unwrap();
    assert_eq!(books.balance(key).await, (70, 70));
    // What does not fit even then is refused, and says what there is.
    let (third, freed) = tokio::join!(books.ledger.hold(key, msat(71), "third"), second.release());
    assert_eq!(freed.unwrap(), msat(70));
    assert!(matches!(third, Err(HoldError::Insufficient { available }) if available == msat(70)));
    assert_eq!(books.ledger.stats().commits(), commits + 2);
    assert_eq!(books.balance(key).await, (70, 0));
    books.prove().await;
    end(books, db).await;
}

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
    ended.capture(cost(50)).await.unwrap();
    assert_eq!(ours.balance(key).await, (950, 550));
    let ours = ours.crash().await;
    // Invariant 7: the other process's live request keeps its money.
    assert_eq!(ours.balance(key).await, (950, 300));
    assert_eq!(ours.ledger.release_orphans(OWNER).await.unwrap(), 0);
    running.capture(cost(200)).await.unwrap();
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
                hold.capture(cost(10)).await
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

/// PostgreSQL: one process releases and charges at once, while another charges an account of which the first has released
/// something. One waits for the other, and never both.
///
/// On one thread, so that all that the first one ends is in line before its writer looks.
#[tokio::test]
async fn ends_of_two_processes_do_not_wait_for_each_other() {
    if !on_postgres() {
        return;
    }
    let (database, dir) = (TempDatabase::create().await, tempfile::tempdir().unwrap());
    let store = Store::open(dir.path(), Some(&database.url()), false).await.unwrap();
    let (ours, theirs) = (Books::open(&store, OWNER).await, Books::open(&store, "another node").await);
    let mut keys = [ours.key("a").await, ours.key("b").await, ours.key("c").await];
    keys.sort();
    for key in keys {
        ours.top_up(key, 1_000).await;
    }
    let [a, b, c] = keys;
    let first = ours.ledger.hold(a, msat(100), "r").await.unwrap();
    let second = ours.ledger.hold(b, msat(100), "r").await.unwrap();
    let third = ours.ledger.hold(c, msat(100), "r").await.unwrap();
    let other = theirs.ledger.hold(a, msat(100), "r").await.unwrap();
    // Nobody gets further than to b before both are under way.
    let mut between = store.begin(Durability::Full).await.unwrap();
    let row = sqlx::query("SELECT id FROM accounts WHERE id = $1 FOR UPDATE").bind(b.get());
    row.fetch_one(between.hand()).await.unwrap();
    let waiting = async |wanted: i64| {
        let sql =
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        until("they wait", async || ours.number(sql).await == wanted).await;
    };
    let ended = async { tokio::join!(first.release(), second.release(), third.capture(cost(30))) };
    let charged = async {
        waiting(1).await;
        let both_wait = async {
            waiting(2).await;
            between.commit().await.unwrap();
        };
        tokio::join!(other.capture(cost(40)), both_wait).0
    };
    let ((first, second, third), other) = tokio::join!(ended, charged);
    assert_eq!((first.is_ok(), second.unwrap(), other.is_ok()), (true, msat(1_000), true));
    assert_eq!(third.unwrap().remaining, msat(970));
    let balances = [ours.balance(a).await, ours.balance(b).await, ours.balance(c).await];
    assert_eq!(balances, [(960, 0), (1_000, 0), (970, 0)]);
    assert_eq!(ours.prove().await.earnings, 70);
    theirs.close().await;
    ours.close().await;
    store.close().await;
    // What its connections have counted is there when they are gone.
    let mut connection = PgConnection::connect(&database.url()).await.unwrap();
    let others = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    until("they are gone", async || {
        sqlx::query(others).fetch_one(&mut connection).await.unwrap().get::<i64, _>(0) == 0
    })
    .await;
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let deadlocks: i64 = sqlx::query(deadlocks).fetch_one(&mut connection).await.unwrap().get(0);
    assert_eq!(deadlocks, 0);
    connection.close().await.unwrap();
    database.remove().await;
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
                hold.capture(cost(10)).await.expect("a hold that was placed is charged");
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
