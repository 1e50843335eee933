//! `coinslot vouchers`: issues one-time codes, lists and revokes them. Works with the node stopped, and
//! beside a running one (see [`Store::open_beside`]).

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{beside, books, desk, done, has_run, may_move, vault, with_page};
use crate::clock::{Clock as _, HOUR_MS, SystemClock};
use crate::config::Config;
use crate::ledger::vouchers::{Funds, IssueError as LedgerError, Voucher};
use crate::money::Sat;
use crate::operator::vouchers::{self as acts, ActError};
use crate::pages::format;
use crate::payment::vouchers::{BatchOrder, IssueError, Issued, issue};
use crate::store::Store;
use crate::vault::SEED;

pub(super) const ARGUMENTS: &str = "create|list|revoke …";

pub(super) const HELP: &str = "one-time codes worth money; `coinslot vouchers help` says more";

pub(super) const PAGE: &str = "\
coinslot vouchers: one-time codes that become money on a key (POST /v1/wallet/voucher)

  coinslot vouchers create --sats N [--count N] [--expires 30d|12h] [--note TEXT] [--profile NAME]
                           [--found]
  coinslot vouchers list
  coinslot vouchers revoke ID
  coinslot vouchers revoke --note TEXT

The money comes out of what the node has earned and not paid out; none is given away while the books are not
proven, here or by the node's last proof. With --found it comes out of what a recovery found at one mint, for
clients that the restored database does not know. When a voucher is revoked or expires, it goes back to where it
came from. A code is printed once. A voucher with a profile makes a key that has its prices (`coinslot profiles`),
and is no money for other keys. With --json, everything is printed as JSON.
";

/// Vouchers that are listed.
const LISTED: i64 = 10_000;
/// Longest time until a voucher expires: ten years.
const MAX_HOURS: i64 = 10 * 365 * 24;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    /// `hours`: until they expire.
    Create {
        sats: Sat,
        count: usize,
        hours: Option<i64>,
        note: String,
        profile: Option<String>,
        funds: Funds,
    },
    List,
    RevokeId(i64),
    RevokeNote(String),
}

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    with_page(PAGE, words, read, async |config, act, json| run(config, act, json).await.map(done))
}

/// What the words ask for, and whether the answer is to be JSON.
fn read(words: &[&str]) -> Option<(Act, bool)> {
    let (verb, rest) = words.split_first()?;
    let (mut sats, mut count, mut hours, mut note, mut id, mut json) = (None, None, None, None, None, false);
    let (mut funds, mut profile) = (Funds::Earned, None);
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match *word {
            "--json" => json = true,
            "--found" => funds = Funds::Found,
            "--sats" => sats = Some(Sat::new(rest.next()?.parse().ok()?)?),
            "--count" => count = Some(rest.next()?.parse().ok()?),
            "--expires" => hours = Some(read_hours(rest.next()?)?),
            "--profile" => profile = Some((*rest.next()?).to_owned()),
            "--note" => note = Some((*rest.next()?).to_owned()),
            word if id.is_none() => id = Some(word.parse().ok()?),
            _ => return None,
        }
    }
    let unasked = sats.is_none() && count.is_none() && hours.is_none() && profile.is_none() && funds == Funds::Earned;
    let act = match (*verb, id, note) {
        ("create", None, note) => Act::Create {
            sats: sats?,
            count: count.unwrap_or(1),
            hours,
            note: note.unwrap_or_default(),
            profile,
            funds,
        },
        ("list", None, None) if unasked => Act::List,
        ("revoke", Some(id), None) if unasked => Act::RevokeId(id),
        // None would be that of all vouchers without one.
        ("revoke", None, Some(note)) if unasked && !note.trim().is_empty() => Act::RevokeNote(note),
        _ => return None,
    };
    Some((act, json))
}

/// Hours out of `30d` or `12h`.
fn read_hours(text: &str) -> Option<i64> {
    let (number, hours_each) = match (text.strip_suffix('d'), text.strip_suffix('h')) {
        (Some(days), _) => (days, 24),
        (_, Some(hours)) => (hours, 1),
        _ => return None,
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let hours = number.parse::<i64>().ok().filter(|_| digits)?.checked_mul(hours_each)?;
    (1..=MAX_HOURS).contains(&hours).then_some(hours)
}

async fn run(config: &Config, act: Act, json: bool) -> Result<String, String> {
    let store = beside(config).await?;
    let worked = work(config, &store, act, json).await;
    store.close().await;
    worked
}

async fn work(config: &Config, store: &Store, act: Act, json: bool) -> Result<String, String> {
    let ledger = books(config, store, "vouchers").await?;
    match act {
        Act::Create { sats, count, hours, note, profile, funds } => {
            has_run(store.setting(SEED).await)?;
            let vault = vault(config, store).await?;
            may_move(config, store).await?;
            let span_ms = hours.map(|hours| hours.saturating_mul(HOUR_MS));
            let wanted = BatchOrder {
                batch: uuid::Uuid::new_v4().to_string(),
                count,
                amount: sats.to_msat(),
                note,
                profile,
                expires_ms: span_ms.map(|span_ms| SystemClock.now_ms().saturating_add(span_ms)),
                funds,
            };
            let mints = &config.mints;
            let issuing = issue(&ledger, &vault, &mints.urls, mints.unit, &wanted);
            let issued = acts::issue(desk(store), &ledger, None, &wanted, issuing).await.map_err(refused)?;
            Ok(show_issued(&issued, sats, json))
        }
        Act::List => {
            let vouchers = ledger.vouchers(LISTED).await.map_err(said)?;
            Ok(if json {
                lines(&json!({ "vouchers": vouchers.iter().map(as_json).collect::<Vec<_>>() }))
            } else {
                table(&vouchers)
            })
        }
        Act::RevokeId(id) => {
            may_move(config, store).await?;
            acts::revoke(desk(store), &ledger, id).await.map_err(refused)?;
            Ok(revoked(1, json))
        }
        Act::RevokeNote(note) => {
            may_move(config, store).await?;
            Ok(revoked(acts::revoke_noted(desk(store), &ledger, &note).await.map_err(refused)?, json))
        }
    }
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn refused(error: ActError) -> String {
    match error {
        ActError::Issue(IssueError::Ledger(LedgerError::Insufficient { available })) => format!(
            "no vouchers were issued: {} sat were earned and not paid out; to give more away, pay it in first \
             (POST /v1/wallet/donate)",
            format::sat(available.to_db())
        ),
        ActError::Issue(IssueError::Ledger(LedgerError::NotFound { available })) => format!(
            "no vouchers were issued: {} sat are left of what a recovery found at one mint",
            format::sat(available.to_db())
        ),
        ActError::Issue(error) => format!("no vouchers were issued: {error}"),
        ActError::Unproven(why) => format!("no vouchers were issued: {why}; coinslot audit says what is off"),
        ActError::Unknown | ActError::Ended => "no open voucher is called that".to_owned(),
        ActError::Store(error) => said(error),
    }
}

fn revoked(count: usize, json: bool) -> String {
    match json {
        true => lines(&json!({ "revoked": count })),
        false => format!("{count} revoked; their money is again where it came from\n"),
    }
}

fn show_issued(issued: &[Issued], sats: Sat, json: bool) -> String {
    if json {
        let codes: Vec<Value> = issued
            .iter()
            .map(|voucher| json!({ "code": voucher.code.expose(), "hint": voucher.hint, "sats": sats.get() }))
            .collect();
        return lines(&json!({ "vouchers": codes }));
    }
    let codes: String = issued.iter().map(|voucher| format!("{}\n", voucher.code.expose())).collect();
    format!("{codes}{} of {} sat; the codes are shown this once\n", issued.len(), sats.get())
}

fn as_json(voucher: &Voucher) -> Value {
    json!({
        "id": voucher.id.to_string(),
        "hint": voucher.hint,
        "msats": voucher.amount.get(),
        "note": voucher.note,
        "state": voucher.state.as_str(),
        "created_at": voucher.created_ms / 1000,
        "expires_at": voucher.expires_ms.map(|ms| ms / 1000),
        "ended_at": voucher.ended_ms.map(|ms| ms / 1000),
    })
}

fn lines(value: &Value) -> String {
    format!("{value}\n")
}

fn table(vouchers: &[Voucher]) -> String {
    if vouchers.is_empty() {
        return "no voucher was issued yet\n".to_owned();
    }
    let row = |cells: [&str; 6]| {
        let [id, hint, sat, state, expires, note] = cells;
        format!("{id:<20} {hint:<13} {sat:>14} {state:<9} {expires:<21} {note}").trim_end().to_owned() + "\n"
    };
    let head = row(["id", "code", "sat", "state", "expires", "note"]);
    let rows = vouchers.iter().map(|voucher| {
        let expires = voucher.expires_ms.map_or_else(|| "never".to_owned(), format::utc);
        let (id, sat) = (voucher.id.to_string(), format::sat(voucher.amount.to_db()));
        row([&id, &voucher.hint, &sat, voucher.state.as_str(), &expires, &voucher.note])
    });
    std::iter::once(head).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_make_sense_or_nothing_is_done() {
        let sats = Sat::new(5).unwrap();
        let create = |count, hours, note: &str| {
            let note = note.to_owned();
            Act::Create { sats, count, hours, note, profile: None, funds: Funds::Earned }
        };
        let rows: &[(&str, Option<(Act, bool)>)] = &[
            ("create --sats 5", Some((create(1, None, ""), false))),
            ("create --json --count 3 --sats 5 --expires 2d --note fair", Some((create(3, Some(48), "fair"), true))),
            ("create --sats 5 --expires 12h", Some((create(1, Some(12), ""), false))),
            (
                "create --found --sats 5",
                Some((
                    Act::Create {
                        sats,
                        count: 1,
                        hours: None,
                        note: String::new(),
                        profile: None,
                        funds: Funds::Found,
                    },
                    false,
                )),
            ),
            (
                "create --sats 5 --profile club",
                Some((
                    Act::Create {
                        sats,
                        count: 1,
                        hours: None,
                        note: String::new(),
                        profile: Some("club".to_owned()),
                        funds: Funds::Earned,
                    },
                    false,
                )),
            ),
            ("list --profile club", None),
            ("list --found", None),
            ("list", Some((Act::List, false))),
            ("list --json", Some((Act::List, true))),
            ("revoke 17", Some((Act::RevokeId(17), false))),
            ("revoke --note fair --json", Some((Act::RevokeNote("fair".to_owned()), true))),
            ("", None),
            ("create", None),
            ("create --sats", None),
            ("create --sats -1", None),
            ("create --sats 5 17", None),
            ("create --sats 5 --expires 2", None),
            ("create --sats 5 --expires 0d", None),
            ("create --sats 5 --expires +2d", None),
            ("create --sats 5 --expires 9999999d", None),
            ("list 17", None),
            ("list --sats 5", None),
            ("revoke", None),
            ("revoke x", None),
            ("revoke 17 18", None),
            ("revoke 17 --note fair", None),
            ("give", None),
        ];
        for (line, wanted) in rows {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(read(&words), *wanted, "{line}");
        }
        for note in ["", " "] {
            assert_eq!(read(&["revoke", "--note", note]), None, "{note:?}");
        }
    }
}
