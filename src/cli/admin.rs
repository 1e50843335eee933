//! `coinslot admin`: a new password for an operator who lost it, and tokens for programs. Works with the node
//! stopped, and beside a running one (see [`crate::store::Store::open_beside`]).

use std::process::ExitCode;

use serde_json::json;

use super::{desk, done, split_json, with_page, with_store};
use crate::admin::{Token, WantedToken, by_command};
use crate::config::Config;
use crate::pages::format;
use crate::store::Store;

pub(super) const ARGUMENTS: &str = "reset-password|tokens …";

pub(super) const HELP: &str = "who gets into /admin; `coinslot admin help` says more";

pub(super) const PAGE: &str = "\
coinslot admin: who gets into the operator's pages

  coinslot admin reset-password [--json]
  coinslot admin tokens list [--json]
  coinslot admin tokens create NAME [--scope read|manage|money]… [--days N] [--json]
  coinslot admin tokens revoke ID

reset-password makes a new password, prints it once, and ends all sessions. While ADMIN_PASSWORD is set, that is
the password, and nothing is reset. A token is printed once, and opens the calls below /admin/api to a program:
read looks at everything that is no secret (the default), manage changes how the node works, money moves money. It
is valid for ever, or for N days.
";

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    ResetPassword,
    Tokens,
    CreateToken(WantedToken),
    RevokeToken(String),
}

pub(super) fn main(words: &[&str]) -> Option<ExitCode> {
    with_page(PAGE, words, read, async |config, act, json| run(config, act, json).await.map(done))
}

/// What the words ask for, and whether the answer is to be JSON.
fn read(words: &[&str]) -> Option<(Act, bool)> {
    let (words, json) = split_json(words);
    let act = match words.as_slice() {
        ["reset-password"] => Act::ResetPassword,
        ["tokens", "list"] => Act::Tokens,
        ["tokens", "create", name, rest @ ..] if !name.starts_with("--") => Act::CreateToken(wanted(name, rest)?),
        ["tokens", "revoke", id] => Act::RevokeToken((*id).to_owned()),
        _ => return None,
    };
    Some((act, json))
}

fn wanted(name: &str, options: &[&str]) -> Option<WantedToken> {
    let mut wanted = WantedToken { name: name.to_owned(), scopes: Vec::new(), days: None };
    let mut rest = options;
    while let [option, value, more @ ..] = rest {
        match *option {
            "--scope" => wanted.scopes.push((*value).to_owned()),
            "--days" if wanted.days.is_none() => wanted.days = Some(value.parse().ok()?),
            _ => return None,
        }
        rest = more;
    }
    if wanted.scopes.is_empty() {
        wanted.scopes.push("read".to_owned());
    }
    rest.is_empty().then_some(wanted)
}

async fn run(config: &Config, act: Act, json: bool) -> Result<String, String> {
    if act == Act::ResetPassword && config.admin.password.is_some() {
        return Err(
            "ADMIN_PASSWORD is set, and the environment wins; change it there and start the node anew".to_owned()
        );
    }
    with_store(config, async |store| work(store, act, json).await).await
}

async fn work(store: &Store, act: Act, json: bool) -> Result<String, String> {
    let desk = desk(store);
    let told = |error: crate::admin::AdminError| error.to_string();
    match act {
        Act::ResetPassword => {
            let secret = by_command::reset_password(desk).await.map_err(told)?;
            let password = secret.expose();
            Ok(match json {
                true => format!("{}\n", json!({ "password": password })),
                false => {
                    format!("The operator's password is {password}\nIt is shown only now. All sessions have ended.\n")
                }
            })
        }
        Act::Tokens => by_command::tokens(store).await.map(|tokens| list(&tokens, json)).map_err(told),
        Act::CreateToken(wanted) => {
            let (token, secret) = by_command::create_token(desk, &wanted).await.map_err(told)?;
            let text = secret.expose();
            Ok(match json {
                true => format!("{}\n", json!({ "token": text, "id": token.id, "scopes": token.scopes })),
                false => format!("The token of {} is {text}\nIt is shown only now.\n", token.name),
            })
        }
        Act::RevokeToken(id) => {
            by_command::revoke_token(desk, &id).await.map_err(told)?;
            Ok(if json { format!("{}\n", json!({ "revoked": id })) } else { format!("{id} is revoked\n") })
        }
    }
}

fn list(tokens: &[Token], json: bool) -> String {
    if json {
        return format!("{}\n", json!({ "tokens": tokens }));
    }
    if tokens.is_empty() {
        return "no token was made yet\n".to_owned();
    }
    let line = |id: &str, scopes: &str, until: &str, used: &str, name: &str| {
        format!("{id:<36} {scopes:<18} {until:<20} {used:<20} {name}\n")
    };
    let time = |at: Option<i64>| at.map_or_else(|| "never".to_owned(), format::utc);
    let rows = tokens.iter().map(|token| {
        let (until, used) = (time(token.expires_at), time(token.last_used_at));
        line(&token.id, &token.scopes.join(" "), &until, &used, &token.name)
    });
    std::iter::once(line("id", "scopes", "expires", "last used", "name")).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_make_sense_or_nothing_is_done() {
        let wanted = |scopes: &[&str], days| {
            let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            Act::CreateToken(WantedToken { name: "a".to_owned(), scopes, days })
        };
        for (line, act) in [
            ("reset-password", Some((Act::ResetPassword, false))),
            ("tokens list --json", Some((Act::Tokens, true))),
            ("tokens create a", Some((wanted(&["read"], None), false))),
            (
                "tokens create a --scope manage --days 3 --scope money",
                Some((wanted(&["manage", "money"], Some(3)), false)),
            ),
            ("tokens revoke x", Some((Act::RevokeToken("x".to_owned()), false))),
            ("", None),
            ("reset-password now", None),
            ("tokens", None),
            ("tokens create", None),
            ("tokens create --scope read", None),
            ("tokens create a --scope", None),
            ("tokens create a --days much", None),
            ("tokens create a --days 1 --days 2", None),
            ("tokens revoke", None),
        ] {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(read(&words), act, "{line}");
        }
    }
}
