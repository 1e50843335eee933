//! `coinslot wallet`: which coins there are, what is under way at the mints, what went to the operator. Reads beside a
//! running node, and with it stopped. Money it moves none: only a node knows which coins are free, so what goes out and
//! comes in is its affair. A retry writes a time, and the node does the rest.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{desk, done, has_run, split_json, with_page, with_store};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::money::Msat;
use crate::operator::wallet::retry_beside;
use crate::pages::format;
use crate::store::Store;
use crate::vault::SEED;
use crate::wallet::stock::{self, Stock};
use crate::wallet::underway::{self, All, Underway};
use crate::wallet::withdraw::{self, Payout};

pub(super) const ARGUMENTS: &str = "[payouts|retry ID] [--json]";

pub(super) const HELP: &str = "the node's ecash, what is under way, what was paid out";

pub(super) const PAGE: &str = "\
coinslot wallet: the node's ecash

  coinslot wallet           coins by mint, keyset and amount; what is under way at the mints
  coinslot wallet payouts   what went to you
  coinslot wallet retry ID  let the running node carry an operation on within seconds, from evidence

Money is taken out and brought in by the running node, which knows which coins are free: on the page
/admin/wallet, or by POST /admin/api/wallet/withdraw and /admin/api/wallet/receive. With --json, everything is
printed as JSON.
";

/// Payouts that are listed.
const LISTED: i64 = withdraw::MOST;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    Look,
    Payouts,
    Retry(String),
}

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    with_page(PAGE, words, read, async |config, act, json| run(config, act, json).await.map(done))
}

/// What the words ask for, and whether the answer is to be JSON.
fn read(words: &[&str]) -> Option<(Act, bool)> {
    let (words, json) = split_json(words);
    match words.as_slice() {
        [] => Some((Act::Look, json)),
        ["payouts"] => Some((Act::Payouts, json)),
        ["retry", id] => Some((Act::Retry(uuid::Uuid::try_parse(id).ok()?.to_string()), json)),
        _ => None,
    }
}

async fn run(config: &Config, act: Act, json: bool) -> Result<String, String> {
    with_store(config, async |store| {
        has_run(store.setting(SEED).await)?;
        work(store, act, json).await
    })
    .await
}

async fn work(store: &Store, act: Act, json: bool) -> Result<String, String> {
    let mut reader = store.read().acquire().await.map_err(said)?;
    let now_ms = SystemClock.now_ms();
    match act {
        Act::Look => {
            let stocks = stock::read(&mut reader).await.map_err(said)?;
            let all = underway::read(&mut reader).await.map_err(said)?;
            Ok(if json { look_json(&stocks, &all) } else { look_text(&stocks, &all, now_ms) })
        }
        Act::Payouts => {
            let payouts = withdraw::payouts(&mut reader, None, LISTED).await.map_err(said)?;
            Ok(if json { payouts_json(&payouts) } else { payouts_text(&payouts) })
        }
        Act::Retry(id) => {
            drop(reader);
            if !retry_beside(desk(store), &id).await.map_err(said)? {
                return Err(format!("nothing is under way by the id {id}; coinslot wallet shows what is"));
            }
            Ok(if json {
                line(&json!({ "due": id }))
            } else {
                format!("{id} is due; a running node looks at it now\n")
            })
        }
    }
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

fn look_json(stocks: &[Stock], all: &All) -> String {
    let stock = |stock: &Stock| {
        let keysets = stock.keysets.iter().map(|keyset| {
            json!({
                "id": keyset.id, "is_active": keyset.is_active, "ends_ms": keyset.ends_ms, "coins": keyset.count,
                "msat": keyset.worth.get(),
            })
        });
        let coins = stock.coins.iter().map(|coins| json!({ "amount": coins.amount, "coins": coins.count }));
        json!({
            "mint": stock.mint, "unit": stock.unit.as_str(), "msat": stock.worth.get(), "coins": stock.count,
            "in_hand_msat": stock.in_hand.get(), "keysets": keysets.collect::<Vec<_>>(),
            "ladder": coins.collect::<Vec<_>>(),
        })
    };
    let operation = |one: &Underway| {
        json!({
            "id": one.id, "kind": one.kind, "state": one.state, "mint": one.mint, "msat": one.amount.get(),
            "began_ms": one.created_ms, "due_ms": one.due_ms, "attempts": one.attempts, "awaited": one.awaited,
            "said": one.said,
        })
    };
    line(&json!({
        "purses": stocks.iter().map(stock).collect::<Vec<_>>(),
        "operations": all.operations.iter().map(operation).collect::<Vec<_>>(),
        "waiting_invoices": all.invoices,
    }))
}

fn look_text(stocks: &[Stock], all: &All, now_ms: i64) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    if stocks.is_empty() {
        text.push_str("there is no ecash\n");
    }
    for stock in stocks {
        let (worth, in_hand) = (sat(stock.worth), sat(stock.in_hand));
        let unit = stock.unit.as_str();
        let _written =
            writeln!(text, "{} ({unit}): {worth} sat in {} coins, {in_hand} sat in hand", stock.mint, stock.count);
        for keyset in &stock.keysets {
            let state = if keyset.is_active { "signs" } else { "retired" };
            let ends = keyset.ends_ms.map(|end_ms| format!(", ends {}", format::utc(end_ms))).unwrap_or_default();
            let (worth, count) = (sat(keyset.worth), keyset.count);
            let _written = writeln!(text, "  keyset {} {state}{ends}: {worth} sat in {count} coins", keyset.id);
        }
        for coins in &stock.coins {
            let _written = writeln!(text, "  {:>12} {unit} × {}", coins.amount, coins.count);
        }
    }
    let _written = writeln!(text, "{} under way, {} invoices wait", all.operations.len(), all.invoices);
    for one in &all.operations {
        let age = format::age(now_ms.saturating_sub(one.created_ms));
        let said = if one.said.is_empty() { String::new() } else { format!("; said last: {}", one.said) };
        let _written = writeln!(
            text,
            "  {} {} of {} sat at {}, {}, {age} old, {} attempts; waits for {}{said}",
            one.id,
            one.kind,
            sat(one.amount),
            one.mint,
            one.state,
            one.attempts,
            one.awaited
        );
    }
    text
}

fn sat(amount: Msat) -> String {
    format::sat(amount.to_db())
}

fn payouts_json(payouts: &[Payout]) -> String {
    let payout = |one: &Payout| {
        json!({
            "id": one.id, "mint": one.mint, "msat": one.amount.get(), "to": one.recipient, "state": one.state,
            "is_claimed": one.is_claimed, "began_ms": one.created_ms, "attempts": one.attempts,
            "arrived_msat": one.paid.map(|(amount, _)| amount.get()), "fee_msat": one.paid.map(|(_, fee)| fee.get()),
            "preimage": one.preimage, "why": one.why,
        })
    };
    line(&json!({ "payouts": payouts.iter().map(payout).collect::<Vec<_>>() }))
}

fn payouts_text(payouts: &[Payout]) -> String {
    if payouts.is_empty() {
        return "nothing was paid out yet\n".to_owned();
    }
    let mut text = String::new();
    for one in payouts {
        let to = if one.recipient.is_empty() { "ecash" } else { &one.recipient };
        let paid = one.paid.map(|(amount, fee)| format!(", {} sat arrived, fee {} sat", sat(amount), sat(fee)));
        let why = if one.why.is_empty() { String::new() } else { format!(": {}", one.why) };
        let proof = one.preimage.as_ref().map(|preimage| format!(", preimage {preimage}")).unwrap_or_default();
        // Writing to a string does not fail.
        let _written = writeln!(
            text,
            "{} {} {} sat from {} to {to}: {}{}{proof}{why}",
            format::utc(one.created_ms),
            one.id,
            sat(one.amount),
            one.mint,
            one.state,
            paid.unwrap_or_default()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_make_sense_or_nothing_is_done() {
        let id = "0190a000-0000-4000-8000-000000000000";
        for (words, wanted) in [
            (vec![], Some((Act::Look, false))),
            (vec!["--json"], Some((Act::Look, true))),
            (vec!["payouts", "--json"], Some((Act::Payouts, true))),
            (vec!["retry", id], Some((Act::Retry(id.to_owned()), false))),
            (vec!["retry"], None),
            (vec!["retry", "x"], None),
            (vec!["withdraw", "5"], None),
        ] {
            assert_eq!(read(&words), wanted, "{words:?}");
        }
    }
}
