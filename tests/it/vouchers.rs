//! Vouchers: what they promise is earned, backed, and given out once.

use std::collections::{BTreeMap, HashSet};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use coinslot::clock::Clock;
use coinslot::ledger::books::Books;
use coinslot::ledger::vouchers::repo::Which;
use coinslot::ledger::vouchers::{Funds, IssueError as LedgerError, State};
use coinslot::money::Msat;
use coinslot::payment::vouchers::{BatchOrder, IssueError};
use coinslot::wallet::Change;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::alerts::tamper;
use crate::bearer::refund;
use crate::lightning::{answer, node_ahead, ok};
use crate::support::clock::Ahead;
use crate::support::db::on_postgres;
use crate::support::lnurl::Recipient;
use crate::support::mint::TestMint;
use crate::support::node::{TestNode, ask};
use crate::support::operator::trail;
use crate::support::program::{self, said};
use crate::support::purse::Purse;
use crate::support::upstream::Upstream;

/// A node that has earned something, and a clock to move.
struct World {
    mint: TestMint,
    purse: Purse,
    clock: Arc<Ahead>,
    node: TestNode,
    _upstream: Upstream,
}

impl World {
    async fn earning(sats: u64) -> Self {
        Self::with(sats, &[]).await
    }

    async fn with(sats: u64, more: &[(&str, &str)]) -> Self {
        let mint = TestMint::start().await;
        let purse = Purse::new(&mint).await;
        purse.mint_sats(sats + 2_000).await;
        let upstream = Upstream::start().await;
        let clock = Arc::new(Ahead::default());
        let node = node_ahead(&mint, &upstream, &clock, more).await;
        if sats > 0 {
            let gift = purse.send(sats).await;
            let given = node.post("/v1/wallet/donate").json(&json!({ "token": gift })).send().await.unwrap();
            assert_eq!(given.status(), 200);
        }
        Self { mint, purse, clock, node, _upstream: upstream }
    }

    /// Issues vouchers; gives their codes.
    async fn issue(&self, count: usize, sats: u64, hours: Option<i64>) -> Result<Vec<String>, IssueError> {
        let wanted = BatchOrder {
            funds: Funds::Earned,
            profile: None,
            batch: uuid::Uuid::new_v4().to_string(),
            count,
            amount: Msat::new(sats * 1000).unwrap(),
            note: "a test".to_owned(),
            expires_ms: hours.map(|hours| self.clock.now_ms() + hours * 3_600_000),
        };
        let issued = self.node.running().exchange().till.issue_vouchers(&wanted).await?;
        Ok(issued.iter().map(|issued| issued.code.expose().to_owned()).collect())
    }

    async fn issue_one(&self, sats: u64) -> String {
        self.issue(1, sats, None).await.unwrap().remove(0)
    }

    fn redeem(&self, code: &str) -> reqwest::RequestBuilder {
        self.node.post("/v1/wallet/voucher").json(&json!({ "code": code }))
    }

    async fn books(&self) -> Books {
        let books = self.node.running().exchange().ledger.books().await.unwrap();
        assert_eq!(books.faults, Vec::<String>::new());
        assert_eq!(books.ecash.values().sum::<i64>(), books.liabilities + books.earnings);
        books
    }

    /// A key with so many sats.
    async fn key(&self, sats: u64) -> String {
        let token = self.purse.send(sats).await;
        ok(self.node.get("/v1/wallet/info").bearer_auth(token)).await["api_key"].as_str().unwrap().to_owned()
    }

    async fn refused(&self, request: reqwest::RequestBuilder, status: u16, code: &str) -> Value {
        let (found, body) = answer(request).await;
        assert_eq!((found, body["error"]["code"].as_str()), (status, Some(code)), "{body}");
        body
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voucher_makes_a_key_and_names_it_again() {
    let world = World::earning(100).await;
    let before = world.books().await;
    assert_eq!((before.earnings, before.liabilities, before.vouchers), (100_000, 0, 0));
    let code = world.issue_one(60).await;
    let issued = world.books().await;
    assert_eq!((issued.earnings, issued.liabilities, issued.vouchers), (40_000, 60_000, 60_000), "a liability at once");

    let made = ok(world.redeem(&code)).await;
    assert_eq!((made["msats"].as_u64(), made["balance"].as_u64()), (Some(60_000), Some(60_000)), "{made}");
    let key = made["api_key"].as_str().unwrap().to_owned();
    assert_eq!(world.books().await.vouchers, 0);
    ok(world.node.chat(&ask("hi")).bearer_auth(&key)).await;
    // An answer that was lost is had again, however the code is typed.
    for typed in [code.clone(), code.to_lowercase().replace('-', " "), code[3..].replace('-', "")] {
        let again = ok(world.redeem(&typed)).await;
        assert_eq!((&again["api_key"], again["msats"].as_u64()), (&made["api_key"], Some(60_000)));
        assert_eq!(again["balance"], 58_000, "what was spent is not given twice");
    }
    let history = ok(world.node.get("/v1/balance/history").bearer_auth(&key)).await;
    let entry = &history["transactions"][0];
    assert_eq!((&entry["kind"], &entry["type"], &entry["amount"]), (&json!("voucher"), &json!("in"), &json!(60_000)));
    assert_eq!(history["transactions"].as_array().unwrap().len(), 1);
    // It is money like any other.
    assert_eq!(refund(&world.node, &world.purse, &key).await, 58);
    assert_eq!(world.books().await.earnings, 42_000);
    // Another key cannot have it too.
    let other = world.key(10).await;
    world.refused(world.redeem(&code).bearer_auth(&other), 409, "voucher_already_redeemed").await;
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voucher_fills_the_key_that_asks_and_a_child_its_parent() {
    let world = World::earning(100).await;
    let codes = world.issue(2, 30, None).await.unwrap();
    let parent = world.key(10).await;
    for _ in 0..3 {
        let filled =
            ok(world.node.post("/v1/balance/voucher").json(&json!({ "code": codes[0] })).bearer_auth(&parent)).await;
        assert_eq!((&filled["api_key"], filled["msats"].as_u64()), (&json!(parent), Some(30_000)));
        assert_eq!(filled["balance"], 40_000, "credited once");
    }
    let made = ok(world.node.post("/v1/wallet/child-key").json(&json!({ "count": 1 })).bearer_auth(&parent)).await;
    let child = made["api_keys"][0].as_str().unwrap();
    let filled = ok(world.redeem(&codes[1]).bearer_auth(child)).await;
    assert_eq!(
        (&filled["api_key"], filled["msats"].as_u64()),
        (&json!(child), Some(30_000)),
        "never the parent's secret"
    );
    assert_eq!(world.node.balance(&parent).await.0, 70_000);
    let again = ok(world.redeem(&codes[1]).bearer_auth(&parent)).await;
    assert_eq!(again["balance"], 70_000, "parent and child have one purse");
    // Who did not redeem it learns nothing of who did.
    let body = world.refused(world.redeem(&codes[0]), 409, "voucher_already_redeemed").await;
    assert!(!body.to_string().contains("sk-"), "{body}");
    let history = ok(world.node.get("/v1/wallet/history").bearer_auth(&parent)).await;
    let kinds: Vec<_> = history["transactions"].as_array().unwrap().iter().map(|entry| entry["kind"].clone()).collect();
    assert_eq!(kinds, ["voucher", "voucher", "redeem"]);
    assert_eq!(refund(&world.node, &world.purse, &parent).await, 70);
    world.node.finish().await;
}

/// Invariant 1, for codes: however many ask at once, one is credited.
#[tokio::test(flavor = "multi_thread")]
async fn racing_redemptions_credit_once() {
    let world = World::earning(1_000).await;
    let code = world.issue_one(200).await;
    let all = join_all((0..50).map(|_| ok(world.redeem(&code)))).await;
    let keys: HashSet<String> = all.iter().map(|made| made["api_key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(keys.len(), 1, "one code, one key");
    assert_eq!(world.node.balance(keys.iter().next().unwrap()).await, (200_000, 0, 0));

    // Many keys, and none, race for the next one.
    let mut keys = Vec::new();
    for _ in 0..5 {
        keys.push(world.key(1).await);
    }
    let code = world.issue_one(300).await;
    let racers = (0..50).map(|at| {
        let request = world.redeem(&code);
        if at % 6 == 5 { request } else { request.bearer_auth(&keys[at % 6]) }
    });
    let outcomes = join_all(racers.map(answer)).await;
    let winners: HashSet<String> =
        outcomes.iter().filter(|(status, _)| *status == 200).map(|(_, body)| body["api_key"].to_string()).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    assert!(outcomes.iter().all(|(status, _)| matches!(status, 200 | 409)));
    let mut held = 0;
    for key in &keys {
        held += world.node.balance(key).await.0;
    }
    let books = world.books().await;
    assert_eq!((books.vouchers, books.earnings, books.liabilities), (0, 500_000, 505_000));
    assert!(held == 5_000 || held == 305_000, "{held}");
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_or_expired_goes_back_to_the_income() {
    let world = World::earning(100).await;
    let ledger = world.node.running().exchange().ledger.clone();
    let codes = world.issue(2, 10, Some(2)).await.unwrap();
    let revoked = world.issue_one(20).await;
    assert_eq!(world.books().await.earnings, 60_000);
    let listed = ledger.vouchers(10).await.unwrap();
    assert_eq!(listed.iter().filter(|voucher| voucher.state == State::Open).count(), 3);
    assert!(revoked.starts_with(&listed[0].hint[..7]), "{:?}", listed[0]);
    assert_eq!(ledger.revoke_vouchers(Which::Id(listed[0].id)).await.unwrap(), 1);
    assert_eq!(ledger.revoke_vouchers(Which::Id(listed[0].id)).await.unwrap(), 0, "it ends once");
    world.refused(world.redeem(&revoked), 410, "voucher_revoked").await;
    assert_eq!(world.books().await.earnings, 80_000);

    ok(world.redeem(&codes[0])).await;
    world.clock.step(Duration::from_secs(2 * 3600 + 1));
    // The job has not come by yet: it is over all the same, and cannot be had by it being late.
    world.refused(world.redeem(&codes[1]), 410, "voucher_expired").await;
    ok(world.redeem(&codes[0])).await;
    assert_eq!(ledger.expire_vouchers().await.unwrap(), 1);
    assert_eq!(ledger.expire_vouchers().await.unwrap(), 0);
    world.refused(world.redeem(&codes[1]), 410, "voucher_expired").await;
    let books = world.books().await;
    assert_eq!((books.earnings, books.liabilities, books.vouchers), (90_000, 10_000, 0));
    assert_eq!(ledger.revoke_vouchers(Which::Note("a test")).await.unwrap(), 0, "nothing is open any more");

    for code in ["CS-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA", "x", "CS-1111-1111-1111-1111-1111-1111"] {
        world.refused(world.redeem(code), 404, "voucher_not_found").await;
    }
    world.refused(world.node.post("/v1/wallet/voucher").json(&json!({})), 400, "invalid_request").await;
    let nobody = format!("sk-{}", "0".repeat(64));
    world.refused(world.redeem(&codes[1]).bearer_auth(nobody), 401, "invalid_api_key").await;
    world.node.finish().await;
}

/// Nothing is given away that was not earned; and what vouchers promise is no earning any more.
#[tokio::test(flavor = "multi_thread")]
async fn only_earnings_are_given_away_and_no_payout_reaches_what_is_promised() {
    let world = World::earning(1_000).await;
    // Each alone could be afforded; together only five can.
    let outcomes = join_all((0..12).map(|_| world.issue(2, 100, None))).await;
    let codes: Vec<String> = outcomes.iter().filter_map(|issued| issued.as_ref().ok()).flatten().cloned().collect();
    assert_eq!(codes.len(), 10);
    let refused: Vec<_> = outcomes.iter().filter_map(|issued| issued.as_ref().err()).collect();
    assert!(
        refused.iter().all(
            |error| matches!(error, IssueError::Ledger(LedgerError::Insufficient { available }) if available.is_zero())
        ),
        "{refused:?}"
    );
    let listed = world.node.running().exchange().ledger.vouchers(1).await.unwrap();
    world.node.running().exchange().ledger.revoke_vouchers(Which::Id(listed[0].id)).await.unwrap();

    let recipient = Recipient::start().await;
    let wallet = world.node.running().exchange().till.wallet().clone();
    let paid = wallet.pay_out(&recipient.name(), Msat::new(1_000).unwrap()).await.unwrap();
    let sent: u64 = paid
        .iter()
        .map(|change| if let Change::Sent { amount, fee, .. } = change { amount.get() + fee.get() } else { 0 })
        .sum();
    assert!((90_000..=100_000).contains(&sent), "{paid:?}");
    // Every promise is kept, in ecash.
    let mut kept = 0;
    for code in codes {
        let (status, body) = answer(world.redeem(&code)).await;
        match status {
            200 => kept += refund(&world.node, &world.purse, body["api_key"].as_str().unwrap()).await,
            status => assert_eq!(status, 410, "{body}"),
        }
    }
    assert_eq!(kept, 900);
    for (count, sats) in [(0, 1), (101, 1), (1, 0)] {
        assert!(matches!(world.issue(count, sats, None).await, Err(IssueError::Asked(_))), "{count} of {sats}");
    }
    assert!(matches!(world.issue(1, 1, Some(-1)).await, Err(IssueError::Asked(_))), "expired already");
    world.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_bounded_and_redeeming_is_not() {
    let world = World::with(100, &[("VOUCHER_TRIES_PER_HOUR", "3")]).await;
    let code = world.issue_one(10).await;
    for _ in 0..10 {
        ok(world.redeem(&code)).await;
    }
    for _ in 0..3 {
        world.refused(world.redeem("CS-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA"), 404, "voucher_not_found").await;
    }
    let locked = world.redeem(&code).send().await.unwrap();
    assert_eq!(locked.status(), 429);
    let wait: u64 = locked.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((3_500..=3_600).contains(&wait), "{wait}");
    world.clock.step(Duration::from_secs(3_600));
    ok(world.redeem(&code)).await;
    world.node.finish().await;
}

/// A stolen database redeems nothing.
#[tokio::test(flavor = "multi_thread")]
async fn codes_are_kept_nowhere() {
    let world = World::earning(100).await;
    let code = world.issue_one(10).await;
    ok(world.redeem(&code)).await;
    let letters = code[3..].replace('-', "");
    let secrets = [code.clone(), letters.to_lowercase(), letters[4..20].to_owned(), letters[4..20].to_lowercase()];
    let dir = world.node.data_dir();
    let store = world.node.running().exchange().ledger.store().clone();
    let ledger = &world.node.running().exchange().ledger;
    let shown = format!("{:?} {store:?}", ledger.vouchers(10).await.unwrap());
    let mut bytes = shown.into_bytes();
    if !on_postgres() {
        store.checkpoint().await.unwrap();
        for entry in std::fs::read_dir(dir).unwrap() {
            bytes.extend(std::fs::read(entry.unwrap().path()).unwrap());
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(&letters[..4]), "the hint is there");
    for secret in secrets {
        assert!(!text.contains(&secret), "{secret}");
    }
    world.node.finish().await;
}

/// Whatever happens in whatever order, every sat is income, promised, or on one key.
#[tokio::test(flavor = "multi_thread")]
async fn the_books_prove_after_any_interleaving() {
    let (mut redeemed, mut revoked) = (0, 0);
    for seed in 0..6 {
        let world = World::earning(200).await;
        let keys = [world.key(1).await, world.key(1).await];
        let mut random = StdRng::seed_from_u64(seed);
        let mut codes: Vec<String> = Vec::new();
        for _ in 0..10 {
            let ledger = &world.node.running().exchange().ledger;
            let steps = (0..8).map(|_| {
                let (kind, pick, sats) =
                    (random.random_range(0..10), random.random::<u16>(), random.random_range(1..40));
                let code = codes.get(usize::from(pick) % codes.len().max(1)).cloned();
                let (world, key) = (&world, &keys[usize::from(pick) % 2]);
                async move {
                    match (kind, code) {
                        (0..3, _) | (_, None) => {
                            let hours = (kind == 0).then_some(1);
                            return world.issue(1 + usize::from(pick) % 3, sats, hours).await.unwrap_or_default();
                        }
                        (3..5, Some(code)) => drop(answer(world.redeem(&code)).await),
                        (5..7, Some(code)) => drop(answer(world.redeem(&code).bearer_auth(key)).await),
                        (7, Some(_)) => {
                            let listed = ledger.vouchers(100).await.unwrap();
                            let id = listed[usize::from(pick) % listed.len()].id;
                            ledger.revoke_vouchers(Which::Id(id)).await.unwrap();
                        }
                        (8, Some(_)) => {
                            world.clock.step(Duration::from_secs(900));
                            ledger.expire_vouchers().await.unwrap();
                        }
                        (_, Some(_)) => drop(world.node.chat(&ask("hi")).bearer_auth(key).send().await.unwrap()),
                    }
                    Vec::new()
                }
            });
            let steps: Vec<_> = steps.collect();
            codes.extend(join_all(steps).await.into_iter().flatten());
            world.node.settled().await;
            let books = world.books().await;
            assert_eq!(books.ecash.values().sum::<i64>(), 202_000, "seed {seed}");
            let open: u64 = ledger
                .vouchers(1_000)
                .await
                .unwrap()
                .iter()
                .filter(|voucher| voucher.state == State::Open)
                .map(|voucher| voucher.amount.get())
                .sum();
            assert_eq!(i64::try_from(open), Ok(books.vouchers), "seed {seed}");
        }
        for voucher in world.node.running().exchange().ledger.vouchers(1_000).await.unwrap() {
            redeemed += u64::from(voucher.state == State::Redeemed);
            revoked += u64::from(voucher.state == State::Revoked);
        }
        world.node.finish().await;
    }
    assert!(redeemed > 0 && revoked > 0, "that was no load: {redeemed} redeemed, {revoked} revoked");
}

fn coinslot(settings: &BTreeMap<String, String>, words: &[&str]) -> Output {
    program::coinslot(settings, &[&["vouchers"][..], words].concat())
}

/// The command works beside the node that has the database.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_issues_lists_and_revokes_beside_a_running_node() {
    let world = World::earning(50).await;
    let settings = world.node.settings();
    let made =
        coinslot(settings, &["create", "--sats", "5", "--count", "3", "--expires", "2d", "--note", "a fair", "--json"]);
    assert!(made.status.success(), "{}", said(&made));
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let codes: Vec<&str> =
        made["vouchers"].as_array().unwrap().iter().map(|one| one["code"].as_str().unwrap()).collect();
    assert_eq!(codes.len(), 3);
    assert_eq!(world.books().await.vouchers, 15_000);
    assert_eq!(ok(world.redeem(codes[0])).await["balance"], 5_000);

    let listed = coinslot(settings, &["list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let states: Vec<_> =
        listed["vouchers"].as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap()).collect();
    assert_eq!(states.iter().filter(|state| **state == "open").count(), 2, "{listed}");
    assert!(!listed.to_string().contains(codes[1]));
    let open = listed["vouchers"].as_array().unwrap().iter().find(|one| one["state"] == "open").unwrap();
    let revoked = coinslot(settings, &["revoke", open["id"].as_str().unwrap()]);
    assert!(
        revoked.status.success() && said(&revoked).contains("1 revoked; their money is again where it came from"),
        "{}",
        said(&revoked)
    );
    let table = said(&coinslot(settings, &["list"]));
    assert!(table.contains("a fair") && table.contains("revoked") && table.lines().count() == 4, "{table}");

    let too_many = coinslot(settings, &["create", "--sats", "1000"]);
    assert_eq!(too_many.status.code(), Some(1));
    assert!(said(&too_many).contains("40.000 sat were earned"), "{}", said(&too_many));
    assert_eq!(coinslot(settings, &["create"]).status.code(), Some(2));
    let acts = trail(&world.node).await.len();
    assert_eq!(coinslot(settings, &["revoke", "1"]).status.code(), Some(1));
    assert_eq!(trail(&world.node).await.len(), acts, "what there is not is not revoked");
    // A variable that is not set is no note, and takes none of those back that have none.
    assert!(coinslot(settings, &["create", "--sats", "1"]).status.success());
    assert_eq!(coinslot(settings, &["revoke", "--note", ""]).status.code(), Some(2));
    assert_eq!(world.books().await.vouchers, 6_000);
    // As by the page, nothing is given away while the books are not right.
    tamper(&world.node, 1).await;
    let unproven = coinslot(settings, &["create", "--sats", "1"]);
    assert_eq!(unproven.status.code(), Some(1));
    let why = said(&unproven);
    assert!(why.contains("no vouchers were issued: the books were not proven at"), "{why}");
    assert_eq!(trail(&world.node).await.len(), acts + 1, "one that was issued since, and not this one");
    tamper(&world.node, -1).await;
    let mut other = settings.clone();
    other.insert("SECRET_KEY".to_owned(), "another".to_owned());
    let unusable = coinslot(&other, &["create", "--sats", "1"]);
    assert_eq!(unusable.status.code(), Some(1), "codes of another key could not be redeemed: {}", said(&unusable));
    assert_eq!(world.books().await.vouchers, 6_000);
    assert!(world.mint.calls("/v1/swap") > 0);
    world.node.finish().await;
}
