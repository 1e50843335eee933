//! `coinslot keys`: finds the keys of clients, blocks them, changes their terms and adjusts their balance. Works with
//! the node stopped, and beside a running one (see [`crate::store::Store::open_beside`]): whether a key may spend, the
//! database says for every request.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{beside, books, desk, done, may_move, read_date, with_page};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::ledger::keys::{Edit, Filter, Key, Place, Way, shorten};
use crate::ledger::terms::Reset;
use crate::ledger::{AccountId, Ledger};
use crate::money::Msat;
use crate::operator::keys::{self as acts, ActError, Wish};
use crate::pages::format;
use crate::store::Store;

pub(super) const ARGUMENTS: &str = "list|show|block|unblock|adjust|set …";

pub(super) const HELP: &str = "the keys of clients; `coinslot keys help` says more";

pub(super) const PAGE: &str = "\
coinslot keys: the keys of clients, each by its id and the first digits of its hash

  coinslot keys list [--hash DIGITS] [--label TEXT] [--profile NAME] [--state STATE] [--after PLACE] [--limit N]
  coinslot keys show ID
  coinslot keys block ID
  coinslot keys unblock ID
  coinslot keys set ID [--label TEXT] [--profile NAME] [--limit SATS] [--reset daily|weekly|monthly]
                       [--valid-until TIME] [--refund-at TIME]
  coinslot keys adjust ID --sats N --reason TEXT [--write-off] [--act UUID]

States are usable, blocked, ended, child and funded. A blocked key pays for nothing, nor do its child keys; its
owner can still take back what is on it. For `set`, the word none removes what is set; times are like
2026-12-31 or 2026-12-31T12:00:00Z, in UTC, and --refund-at lies ahead. An adjustment comes out of what was
earned and not paid out, and is refused while the books are not proven, here or by the node's last proof; with
--write-off it goes back there. Under one --act it is made once. With --json, everything is printed as JSON.
";

/// Keys that are listed, unless another number is asked for.
const LISTED: i64 = 50;
/// The word that takes away.
const NONE: &str = "none";

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    List { filter: Filter, after: Option<Place>, limit: i64 },
    Show(i64),
    Block(i64, bool),
    Set(i64, Edit),
    Adjust { id: i64, way: Way, amount: Msat, reason: String, act: Option<String> },
}

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    with_page(PAGE, words, read, async |config, act, json| run(config, act, json).await.map(done))
}

/// What the words ask for, and whether the answer is to be JSON.
fn read(words: &[&str]) -> Option<(Act, bool)> {
    let json = words.contains(&"--json");
    let words: Vec<&str> = words.iter().copied().filter(|word| *word != "--json").collect();
    let act = match words.as_slice() {
        ["list", rest @ ..] => read_list(rest)?,
        ["show", id] => Act::Show(id.parse().ok()?),
        ["block", id] => Act::Block(id.parse().ok()?, true),
        ["unblock", id] => Act::Block(id.parse().ok()?, false),
        ["set", id, rest @ ..] => Act::Set(id.parse().ok()?, read_edit(rest)?),
        ["adjust", id, rest @ ..] => read_adjustment(id.parse().ok()?, rest)?,
        _ => return None,
    };
    Some((act, json))
}

fn read_list(words: &[&str]) -> Option<Act> {
    let (mut hash, mut label, mut profile, mut state, mut after, mut limit) = ("", "", "", "", None, LISTED);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = *words.next()?;
        match *word {
            "--hash" => hash = value,
            "--label" => label = value,
            "--profile" => profile = value,
            "--state" => state = value,
            "--after" => after = Some(Place::parse(value)?),
            "--limit" => limit = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(Act::List { filter: Filter::read(hash, label, profile, state).ok()?, after, limit })
}

fn read_edit(words: &[&str]) -> Option<Edit> {
    let mut edit = Edit::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = *words.next()?;
        let given = (value != NONE).then_some(value);
        match *word {
            "--label" => edit.label = Some(given.unwrap_or_default().to_owned()),
            "--profile" => edit.profile = Some(given.map(str::to_owned)),
            "--limit" => edit.cap = Some(given.map(sats).map_or(Some(None), |cap| cap.map(Some))?),
            "--reset" => edit.reset = Some(given.map(Reset::parse).map_or(Some(None), |reset| reset.map(Some))?),
            "--valid-until" => {
                edit.valid_until = Some(given.map(read_secs).map_or(Some(None), |at| at.map(Some))?);
            }
            "--refund-at" => edit.refund_at = Some(read_secs(value)?),
            _ => return None,
        }
    }
    (!edit.is_empty()).then_some(edit)
}

/// A time in Unix seconds, as the ledger has it.
fn read_secs(text: &str) -> Option<i64> {
    Some(read_date(text)?.div_euclid(1000))
}

fn read_adjustment(id: i64, words: &[&str]) -> Option<Act> {
    let (mut amount, mut reason, mut act, mut way) = (None, None, None, Way::Credit);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--write-off" => way = Way::WriteOff,
            "--sats" => amount = Some(sats(words.next()?)?),
            "--reason" => reason = Some((*words.next()?).to_owned()),
            "--act" => act = Some(uuid::Uuid::try_parse(words.next()?).ok()?.to_string()),
            _ => return None,
        }
    }
    Some(Act::Adjust { id, way, amount: amount?, reason: reason?, act })
}

fn sats(text: &str) -> Option<Msat> {
    format::read_sat(text).and_then(Msat::new)
}

async fn run(config: &Config, act: Act, json: bool) -> Result<String, String> {
    let store = beside(config).await?;
    let worked = work(config, &store, act, json).await;
    store.close().await;
    worked
}

async fn work(config: &Config, store: &Store, act: Act, json: bool) -> Result<String, String> {
    let ledger = books(config, store, "keys").await?;
    match act {
        Act::List { filter, after, limit } => {
            let found = ledger.keys(&filter, after, limit).await.map_err(said)?;
            Ok(if json {
                let keys: Vec<Value> = found.keys.iter().map(as_json).collect();
                line(&json!({ "keys": keys, "next": found.next.map(|next| next.to_string()) }))
            } else {
                table(&found.keys, found.next)
            })
        }
        Act::Show(id) => show(&ledger, id, json).await,
        Act::Block(id, block) => {
            acts::block(desk(store), &ledger, AccountId(id), block).await.map_err(|error| refused(id, error))?;
            show(&ledger, id, json).await
        }
        Act::Set(id, edit) => {
            acts::edit(desk(store), &ledger, AccountId(id), &edit).await.map_err(|error| refused(id, error))?;
            show(&ledger, id, json).await
        }
        Act::Adjust { id, way, amount, reason, act } => {
            find(&ledger, id).await?;
            may_move(config, store).await?;
            let act = act.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
            let wish = Wish { id: &act, way, amount, reason: &reason };
            acts::adjust(desk(store), &ledger, None, AccountId(id), wish).await.map_err(|error| refused(id, error))?;
            show(&ledger, id, json).await
        }
    }
}

async fn find(ledger: &Ledger, id: i64) -> Result<Key, String> {
    let found = ledger.one_key(AccountId(id)).await.map_err(said)?;
    found.ok_or_else(|| no_such_key(id))
}

fn no_such_key(id: i64) -> String {
    format!("there is no key {id}; coinslot keys list shows them")
}

fn refused(id: i64, error: ActError) -> String {
    match error {
        ActError::NoSuchKey => no_such_key(id),
        ActError::Adjust(error) => format!("nothing was moved: {error}"),
        ActError::Unproven(why) => format!("nothing was moved: {why}; coinslot audit says what is off"),
        error => said(error),
    }
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

fn as_json(key: &Key) -> Value {
    json!({
        "id": key.id.get().to_string(),
        "hash": key.short(),
        "label": key.label,
        "state": key.state(SystemClock.now_ms()),
        "balance_msat": key.balance.posted.get(),
        "held_msat": key.held.get(),
        "spent_msat": key.spent.get(),
        "requests": key.requests,
        "mint": key.mint,
        "unit": key.unit,
        "profile": key.profile,
        "limit_msat": key.limits.cap.map(Msat::get),
        "limit_reset": key.limits.reset.map(Reset::as_str),
        "limit_used_msat": key.used.get(),
        "valid_until": key.limits.valid_until,
        "refund_to": key.expiry.as_ref().map(|expiry| shorten(&expiry.address)),
        "refund_at": key.expiry.as_ref().map(|expiry| expiry.at),
        "parent": key.parent.map(|parent| parent.get().to_string()),
        "children": key.children,
        "created_ms": key.created_ms,
        "blocked_ms": key.blocked_ms,
        "last_used_ms": key.last_used_ms,
    })
}

async fn show(ledger: &Ledger, id: i64, json: bool) -> Result<String, String> {
    let key = find(ledger, id).await?;
    if json {
        return Ok(line(&as_json(&key)));
    }
    let sat = |amount: Msat| format!("{} sat", format::sat(amount.to_db()));
    let time = |secs: i64| format::utc(secs.saturating_mul(1000));
    let limit = key.limits.cap.map(|cap| {
        let reset = key.limits.reset.map(Reset::as_str).unwrap_or("ever");
        format!("{} of {} ({reset})", sat(key.used), sat(cap))
    });
    let facts = [
        ("id", Some(id.to_string())),
        ("hash", Some(key.short())),
        ("label", Some(key.label.clone()).filter(|label| !label.is_empty())),
        ("state", Some(key.state(SystemClock.now_ms()).to_owned())),
        ("balance", key.parent.is_none().then(|| sat(key.balance.posted))),
        ("held", Some(sat(key.held))),
        ("spent", Some(format!("{} in {} requests", sat(key.spent), key.requests))),
        ("limit", limit),
        ("profile", key.profile.clone()),
        ("works until", key.limits.valid_until.map(time)),
        ("paid back", key.expiry.as_ref().map(|to| format!("{} to {}", time(to.at), shorten(&to.address)))),
        ("parent", key.parent.map(|parent| parent.get().to_string())),
        ("child keys", (key.children > 0).then(|| key.children.to_string())),
        ("mint", Some(format!("{} ({})", key.mint, key.unit))),
        ("created", Some(format::utc(key.created_ms))),
        ("last used", key.last_used_ms.map(format::utc)),
    ];
    let mut text = String::new();
    for (name, fact) in facts {
        if let Some(fact) = fact {
            // Writing to a string does not fail.
            let _written = writeln!(text, "{name:<12} {fact}");
        }
    }
    Ok(text)
}

fn table(keys: &[Key], next: Option<Place>) -> String {
    if keys.is_empty() {
        return "there is none\n".to_owned();
    }
    let row = |cells: [&str; 7]| {
        let [id, hash, state, balance, spent, requests, label] = cells;
        format!("{id:<20} {hash:<9} {state:<15} {balance:>16} {spent:>16} {requests:>9} {label}").trim_end().to_owned()
            + "\n"
    };
    let head = row(["id", "hash", "state", "balance, sat", "spent, sat", "requests", "label"]);
    let rows = keys.iter().map(|key| {
        let balance = key.parent.map_or_else(|| format::sat(key.balance.posted.to_db()), |_| "(parent's)".to_owned());
        let (id, spent, requests) =
            (key.id.get().to_string(), format::sat(key.spent.to_db()), format::count(key.requests));
        row([&id, &key.short(), key.state(SystemClock.now_ms()), &balance, &spent, &requests, &key.label])
    });
    let more = next.map(|next| format!("older ones: --after {next}\n"));
    std::iter::once(head).chain(rows).chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_make_sense_or_nothing_is_done() {
        let list = |filter| Act::List { filter, after: None, limit: LISTED };
        let adjust = |way, msat, act: Option<&str>| Act::Adjust {
            id: 7,
            way,
            amount: Msat::new(msat).unwrap(),
            reason: "sorry".to_owned(),
            act: act.map(str::to_owned),
        };
        let blocked = Filter { state: Some(crate::ledger::keys::State::Blocked), ..Filter::default() };
        let act = "0190a000-0000-7000-8000-000000000000";
        let rows = [
            ("list".to_owned(), Some((list(Filter::default()), false))),
            ("list --state blocked --json".to_owned(), Some((list(blocked), true))),
            ("show 7".to_owned(), Some((Act::Show(7), false))),
            ("block 7".to_owned(), Some((Act::Block(7, true), false))),
            ("unblock 7 --json".to_owned(), Some((Act::Block(7, false), true))),
            ("adjust 7 --sats 1.5 --reason sorry".to_owned(), Some((adjust(Way::Credit, 1_500, None), false))),
            (
                format!("adjust 7 --sats 2 --reason sorry --write-off --act {act}"),
                Some((adjust(Way::WriteOff, 2_000, Some(act)), false)),
            ),
            (
                "set 7 --limit none --reset daily --label bob --valid-until 2000-02-29".to_owned(),
                Some((
                    Act::Set(
                        7,
                        Edit {
                            label: Some("bob".to_owned()),
                            cap: Some(None),
                            reset: Some(Some(Reset::Daily)),
                            valid_until: Some(Some(951_782_400)),
                            ..Edit::default()
                        },
                    ),
                    false,
                )),
            ),
        ];
        for (words, wanted) in rows {
            let words: Vec<&str> = words.split_whitespace().collect();
            assert_eq!(read(&words), wanted, "{words:?}");
        }
        for words in [
            "",
            "list --hash abc",
            "list --state gone",
            "show",
            "show x",
            "block",
            "set 7",
            "set 7 --limit much",
            "set 7 --reset hourly",
            "set 7 --refund-at none",
            "set 7 --refund-at 1900000000",
            "set 7 --refund-at 1900000000000",
            "set 7 --valid-until 1900000000",
            "adjust 7 --sats 1",
            "adjust 7 --sats 1e3 --reason x",
            "adjust 7 --sats 1 --reason x --act y",
            "give 7",
        ] {
            let words: Vec<&str> = words.split_whitespace().collect();
            assert_eq!(read(&words), None, "{words:?}");
        }
    }
}
