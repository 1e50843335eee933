//! `coinslot profiles`: prices of some keys. Works with the node stopped, and beside a running one, which
//! notices within seconds (see [`crate::store::Store::open_beside`]).

use std::io::Read as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::tariffs::{Factors, floor, opened, refused, removed};
use super::{desk, done, vault, with_page};
use crate::config::Config;
use crate::ledger::keys::short;
use crate::ledger::{AccountId, Ledger};
use crate::money::tariff::Profile;
use crate::operator::tariffs as acts;
use crate::payment::{self, Payment};

pub(super) const ARGUMENTS: &str = "set|list|remove|attach|detach …";

pub(super) const HELP: &str = "prices of some keys; `coinslot profiles help` says more";

pub(super) const PAGE: &str = "\
coinslot profiles: a factor on all prices, for the keys and vouchers that have it

  coinslot profiles set NAME --multiplier 0.95 [--models PATTERN]… [--not PATTERN]… [--allow-below-cost]
  coinslot profiles list [--json]
  coinslot profiles remove NAME
  coinslot profiles attach NAME < keys
  coinslot profiles detach < keys

Patterns are of model ids, with * for anything: a key with a profile is sold the models that it names (all,
without --models) except those given with --not. `set` changes an existing profile, for all keys that have it.
Keys (sk-…) are read from the standard input, one a line, so that no list of commands shows them; child keys
have their parent's profile, unless one of their own. Vouchers: `coinslot vouchers create --profile NAME`.
Owners of keys see the name. A profile does not lower a price below what the dearest upstream of the model
takes, unless it is made with --allow-below-cost: a factor below that is refused without. With --json, what was
done is printed as JSON.
";

/// Longest list of keys that is read, in bytes.
const MAX_KEYS: u64 = 1024 * 1024;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    Set(Profile),
    List,
    Remove(String),
    /// `None`: to none.
    Attach(Option<String>),
}

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    with_page(PAGE, words, read, async |config, act, json| work(config, act, json).await.map(done))
}

/// What the words ask for, and whether the answer is to be JSON.
fn read(words: &[&str]) -> Option<(Act, bool)> {
    let (verb, rest) = words.split_first()?;
    let mut factors = Factors::default();
    let name = factors.read(rest, |_, _| None)?;
    let json = factors.json;
    let act = match (*verb, name) {
        ("set", Some(name)) => Act::Set(Profile {
            name,
            multiplier: factors.multiplier?,
            models: factors.models,
            below_cost: factors.below_cost,
        }),
        (_, _) if factors.are_given() => return None,
        ("list", None) => Act::List,
        ("remove", Some(name)) => Act::Remove(name),
        ("attach", Some(name)) => Act::Attach(Some(name)),
        ("detach", None) => Act::Attach(None),
        _ => return None,
    };
    Some((act, json))
}

async fn work(config: &Config, act: Act, json: bool) -> Result<String, String> {
    let (store, ledger, config) = opened(config).await?;
    let config = &config;
    let done = match act {
        Act::Set(profile) => set(config, &ledger, &profile, json).await,
        Act::List => list(&ledger, json).await,
        Act::Remove(name) => match acts::remove_profile(desk(&store), &ledger, &name).await {
            Ok(()) => Ok(removed(&name, json)),
            Err(error) => Err(refused(&name, error)),
        },
        Act::Attach(name) => attach(config, &ledger, name.as_deref(), json).await,
    };
    store.close().await;
    done
}

async fn set(config: &Config, ledger: &Ledger, profile: &Profile, json: bool) -> Result<String, String> {
    let done = acts::set_profile(desk(ledger.store()), ledger, profile, floor(config)).await;
    done.map_err(|error| refused(&profile.name, error))?;
    Ok(match json {
        true => format!("{}\n", as_json(profile)),
        false => format!("{}: {} times the price list\n", profile.name, profile.multiplier.normalize()),
    })
}

fn as_json(profile: &Profile) -> Value {
    json!({
        "name": profile.name, "multiplier": profile.multiplier, "models": profile.models.only,
        "not": profile.models.not, "below_cost": profile.below_cost,
    })
}

async fn list(ledger: &Ledger, json: bool) -> Result<String, String> {
    let tariffs = ledger.tariffs().await.map_err(|error| error.to_string())?;
    let mut rows = Vec::new();
    for profile in &tariffs.profiles {
        let keys = ledger.profile_users(&profile.name).await.map_err(|error| error.to_string())?;
        rows.push((profile, keys));
    }
    if json {
        let profiles: Vec<Value> = rows
            .iter()
            .map(|(profile, keys)| {
                let mut listed = as_json(profile);
                if let Some(members) = listed.as_object_mut() {
                    members.insert("keys".to_owned(), json!(keys));
                }
                listed
            })
            .collect();
        return Ok(format!("{}\n", json!({ "profiles": profiles })));
    }
    if rows.is_empty() {
        return Ok("no profile was made yet\n".to_owned());
    }
    let line = |name: &str, factor: &str, keys: &str, cost: &str, models: &str| {
        format!("{name:<20} {factor:>10} {keys:>8} {cost:<10} {models}").trim_end().to_owned() + "\n"
    };
    let head = line("name", "times", "keys", "below cost", "models");
    let rows = rows.iter().map(|(profile, keys)| {
        let models = match profile.models.describe() {
            models if models.is_empty() => "all".to_owned(),
            models => models,
        };
        let cost = if profile.below_cost { "allowed" } else { "no" };
        line(&profile.name, &profile.multiplier.normalize().to_string(), &keys.to_string(), cost, &models)
    });
    Ok(std::iter::once(head).chain(rows).collect())
}

/// All of the keys, or none when one of them is unknown.
async fn attach(config: &Config, ledger: &Ledger, name: Option<&str>, json: bool) -> Result<String, String> {
    let vault = vault(config, ledger.store()).await?;
    let mut text = String::new();
    std::io::stdin().take(MAX_KEYS).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let (mut accounts, mut digits): (Vec<AccountId>, Vec<String>) = (Vec::new(), Vec::new());
    for (number, line) in (1_usize..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        // Which line it is, and never what is in it.
        let unknown = || format!("line {number} is no key of this node; nothing was changed");
        let payment = payment::read_key(line.trim()).map_err(|_| unknown())?;
        let hex = payment.key_hex().filter(|_| !matches!(payment, Payment::Asking)).ok_or_else(unknown)?;
        let hash = vault.key_hash(hex);
        let found = ledger.key(&hash).await.map_err(|error| error.to_string())?;
        accounts.push(found.ok_or_else(unknown)?.id);
        digits.push(short(&hash));
    }
    if accounts.is_empty() {
        return Err("no key came on the standard input".to_owned());
    }
    // Of many keys the trail has the number.
    let subject = if let [one] = digits.as_slice() { one } else { "" };
    let attached = acts::attach(desk(ledger.store()), ledger, subject, &accounts, name).await;
    attached.map_err(|error| refused(name.unwrap_or_default(), error))?;
    if json {
        return Ok(format!("{}\n", json!({ "profile": name, "keys": accounts.len() })));
    }
    let what = name.map_or_else(|| "the prices of the list".to_owned(), |name| format!("the prices of {name}"));
    Ok(format!("{} keys have {what} now\n", accounts.len()))
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;
    use crate::money::tariff::Filter;

    #[test]
    fn words_make_sense_or_nothing_is_done() {
        let club = |below_cost| Profile {
            name: "club".to_owned(),
            multiplier: Decimal::new(8, 1),
            models: Filter { only: vec!["a/*".to_owned(), "b".to_owned()], not: vec!["a/c".to_owned()] },
            below_cost,
        };
        let set = "set club --multiplier 0.8 --models a/* --models b --not a/c";
        for (line, wanted) in [
            (set.to_owned(), Some((Act::Set(club(false)), false))),
            (format!("{set} --allow-below-cost"), Some((Act::Set(club(true)), false))),
            ("list --json".to_owned(), Some((Act::List, true))),
            ("remove club".to_owned(), Some((Act::Remove("club".to_owned()), false))),
            ("attach club".to_owned(), Some((Act::Attach(Some("club".to_owned())), false))),
            ("detach".to_owned(), Some((Act::Attach(None), false))),
            (String::new(), None),
            ("set club".to_owned(), None),
            ("set --multiplier 0.8".to_owned(), None),
            ("set club --multiplier much".to_owned(), None),
            ("set club other --multiplier 1".to_owned(), None),
            ("attach club sk-1".to_owned(), None),
            ("attach".to_owned(), None),
            ("detach club".to_owned(), None),
            ("list club".to_owned(), None),
            ("list --multiplier 1".to_owned(), None),
            ("remove club --models x".to_owned(), None),
            ("set club --multiplier 1 --from 10:00".to_owned(), None),
        ] {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(read(&words), wanted, "{line}");
        }
    }
}
