//! Group commit, seen at the ledger itself: how many commits a billed request (a hold and its
//! end) takes, by how many run at once. At most two; the more, the fewer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coinslot::clock::{SharedClock, SystemClock};
use coinslot::ledger::repo::{self, Transfer};
use coinslot::ledger::{AccountId, AccountKind, Ledger, TransferKind, account};
use coinslot::money::{Cost, Msat, Usage};
use coinslot::store::{Durability, Store};

/// Accounts that the requests are spread over.
const ACCOUNTS: usize = 1_000;

/// One line of the result.
pub struct Grouping {
    pub concurrency: usize,
    pub per_second: f64,
    pub commits_per_request: f64,
}

/// Measures each concurrency for `each`. SQLite, in the durability that holds and settlements have.
pub fn measure(concurrencies: &[usize], each: Duration) -> Vec<Grouping> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(folder.path(), None, false).await.expect("store");
        let clock: SharedClock = Arc::new(SystemClock);
        let (ledger, writer) = Ledger::open(store, clock, "bench".to_owned()).await.expect("ledger");
        tokio::spawn(writer);
        let accounts = fund(&ledger).await;
        let mut lines = Vec::new();
        for concurrency in concurrencies {
            lines.push(grouping(&ledger, &accounts, *concurrency, each).await);
        }
        lines
    })
}

async fn grouping(ledger: &Ledger, accounts: &Arc<Vec<AccountId>>, concurrency: usize, each: Duration) -> Grouping {
    let served = Arc::new(AtomicU64::new(0));
    let (begin, commits) = (Instant::now(), ledger.stats().commits());
    let clients = (0..concurrency).map(|index| {
        let (ledger, accounts, served) = (ledger.clone(), Arc::clone(accounts), Arc::clone(&served));
        tokio::spawn(async move {
            let mut turn = index;
            while begin.elapsed() < each {
                bill(&ledger, accounts[turn % ACCOUNTS]).await;
                served.fetch_add(1, Ordering::Relaxed);
                turn += 7;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("client");
    }
    let served = served.load(Ordering::Relaxed) as f64;
    Grouping {
        concurrency,
        per_second: served / begin.elapsed().as_secs_f64(),
        commits_per_request: (ledger.stats().commits() - commits) as f64 / served,
    }
}

async fn bill(ledger: &Ledger, account: AccountId) {
    let hold = ledger.hold(account, msat(300), "bench").await.expect("hold");
    let mut cost = Cost::new(Usage::default(), None);
    cost.total = msat(35);
    cost.base = msat(35);
    hold.capture(cost).await.expect("capture");
}

/// Accounts with enough on them for the whole run, booked as ecash of a mint.
async fn fund(ledger: &Ledger) -> Arc<Vec<AccountId>> {
    let mut tx = ledger.store().begin(Durability::Full).await.expect("transaction");
    let mint =
        account::house_account(&mut tx, ledger.next_id(), AccountKind::Mint, "bench", "sat", 0).await.expect("mint");
    let mut accounts = Vec::with_capacity(ACCOUNTS);
    for index in 0..ACCOUNTS {
        let key = format!("key {index}");
        let client = repo::ensure_client(&mut tx, ledger.next_id(), AccountKind::Key, &key, "bench", "sat", 0);
        let credit = client.await.expect("account").id;
        let (id, amount) = (ledger.next_id(), msat(1_000_000_000));
        let credited = Transfer { id, debit: mint, credit, amount, kind: TransferKind::Redeem, reference: &key };
        repo::transfer(&mut tx, credited, 0).await.expect("transfer");
        accounts.push(credit);
    }
    tx.commit().await.expect("commit");
    Arc::new(accounts)
}

fn msat(amount: u64) -> Msat {
    Msat::new(amount).expect("amount")
}
