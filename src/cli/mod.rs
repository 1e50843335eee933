//! The command line: one verb a file, listed in `VERBS`. Without a verb, a node runs.
//!
//! Exit codes that all verbs share: 0 done; 1 not done, the last line says why; 2 not begun, the words make
//! no sense. A verb that has more of them says so in its own page.

mod admin;
mod alerts;
mod announcements;
mod audit;
mod backup;
mod check;
mod doctor;
mod health;
mod keys;
mod maintenance;
mod models;
mod passphrase;
mod profiles;
mod requests;
mod restore;
mod run;
mod settings;
mod tariffs;
mod trail;
mod upstreams;
mod vouchers;
mod wallet;
mod windows;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::clock::SystemClock;
use crate::config::{Config, Log, Secret};
use crate::exchange;
use crate::ledger::Ledger;
use crate::net::way::Ways;
use crate::node;
use crate::nostr::Identity;
use crate::operator::Desk;
use crate::pages::format;
use crate::store::{Lineage, Reader, Store, StoreError, UNUSED};
use crate::tor::Tor;
use crate::vault::{Vault, hex};
use crate::wallet::recovery;

/// What can be asked for.
struct Verb {
    name: &'static str,
    /// As the usage shows them.
    arguments: &'static str,
    help: &'static str,
    /// What it says of itself, where that takes more than a line.
    page: &'static str,
    /// Gets the words behind the verb. `None`: they make no sense.
    run: fn(&[&str]) -> Option<ExitCode>,
}

impl Verb {
    /// How it is called, and what it does.
    fn told(&self) -> String {
        match self.page {
            "" => format!("{}\n\n  {}\n", self.call(), self.help),
            page => page.to_owned(),
        }
    }

    fn call(&self) -> String {
        format!("coinslot {} {}", self.name, self.arguments).trim_end().to_owned()
    }
}

const VERBS: &[Verb] = &[
    Verb { name: "check", arguments: "", help: "validate the settings and exit", page: "", run: check::main },
    Verb {
        name: "doctor",
        arguments: "[--json]",
        help: "look at address, mints, relays, clock, database (0 well, 1 not)",
        page: "",
        run: doctor::main,
    },
    Verb {
        name: "health",
        arguments: "[--ready]",
        help: "whether the node answers, or could serve (0 it does, 1 it does not)",
        page: "",
        run: health::main,
    },
    Verb {
        name: "maintenance",
        arguments: "on|off",
        help: "stop and resume the sale; balances and refunds stay open",
        page: "",
        run: maintenance::main,
    },
    Verb {
        name: "settings",
        arguments: settings::ARGUMENTS,
        help: settings::HELP,
        page: settings::PAGE,
        run: settings::main,
    },
    Verb { name: "models", arguments: models::ARGUMENTS, help: models::HELP, page: models::PAGE, run: models::main },
    Verb { name: "alerts", arguments: "[--test] [--json]", help: alerts::HELP, page: "", run: alerts::main },
    Verb {
        name: "requests",
        arguments: requests::ARGUMENTS,
        help: requests::HELP,
        page: requests::PAGE,
        run: requests::main,
    },
    Verb { name: "keys", arguments: keys::ARGUMENTS, help: keys::HELP, page: keys::PAGE, run: keys::main },
    Verb { name: "wallet", arguments: wallet::ARGUMENTS, help: wallet::HELP, page: wallet::PAGE, run: wallet::main },
    Verb {
        name: "upstreams",
        arguments: upstreams::ARGUMENTS,
        help: upstreams::HELP,
        page: upstreams::PAGE,
        run: upstreams::main,
    },
    Verb {
        name: "profiles",
        arguments: profiles::ARGUMENTS,
        help: profiles::HELP,
        page: profiles::PAGE,
        run: profiles::main,
    },
    Verb {
        name: "windows",
        arguments: windows::ARGUMENTS,
        help: windows::HELP,
        page: windows::PAGE,
        run: windows::main,
    },
    Verb {
        name: "announcements",
        arguments: announcements::ARGUMENTS,
        help: announcements::HELP,
        page: announcements::PAGE,
        run: announcements::main,
    },
    Verb {
        name: "vouchers",
        arguments: vouchers::ARGUMENTS,
        help: vouchers::HELP,
        page: vouchers::PAGE,
        run: vouchers::main,
    },
    Verb { name: "admin", arguments: admin::ARGUMENTS, help: admin::HELP, page: admin::PAGE, run: admin::main },
    Verb {
        name: "trail",
        arguments: "[--actor A] [--action A] [--limit N]",
        help: "what operators changed, newest first; --json",
        page: "",
        run: trail::main,
    },
    Verb {
        name: "audit",
        arguments: "[--json]",
        help: "whether ecash covers what is owed (0 yes, 1 no, 2 not begun, 3 not all asked)",
        page: "",
        run: audit::main,
    },
    Verb {
        name: "backup",
        arguments: "FILE",
        help: "write an encrypted copy of database and secret key (BACKUP_PASSPHRASE)",
        page: "",
        run: backup::main,
    },
    Verb {
        name: "restore",
        arguments: "[--secret-key] FILE",
        help: "put a backup, or a snapshot sealed with the secret key, where no database is",
        page: "",
        run: restore::main,
    },
];

/// Not begun.
const USAGE: u8 = 2;

/// Does what the words of the command line ask for.
#[must_use]
pub fn main(words: Vec<String>) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let known = match words.as_slice() {
        [] => Some(run::main()),
        ["--version" | "-V"] => {
            let commit = option_env!("COINSLOT_COMMIT").map(|commit| format!(" ({commit})"));
            println!("coinslot {}{}", env!("CARGO_PKG_VERSION"), commit.unwrap_or_default());
            Some(ExitCode::SUCCESS)
        }
        ["--help" | "-h" | "help"] => {
            print!("{}", usage());
            Some(ExitCode::SUCCESS)
        }
        [name, rest @ ..] => VERBS.iter().find(|verb| verb.name == *name).and_then(|verb| match rest {
            ["help" | "--help" | "-h"] => {
                print!("{}", verb.told());
                Some(ExitCode::SUCCESS)
            }
            _ => (verb.run)(rest),
        }),
    };
    known.unwrap_or_else(|| {
        eprint!("{}", usage());
        ExitCode::from(USAGE)
    })
}

fn usage() -> String {
    let mut rows =
        vec![("coinslot".to_owned(), "run a node; settings come from the environment and .env (see .env.example)")];
    rows.extend(VERBS.iter().map(|verb| (verb.call(), verb.help)));
    rows.push(("coinslot --version".to_owned(), ""));
    let lines: Vec<String> = rows.iter().map(|(call, help)| format!("  {call:<40} {help}")).collect();
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    format!("coinslot: sells any OpenAI-compatible API for Cashu ecash\n\n{}\n", lines.join("\n"))
}

/// Runs what a verb does to its end.
fn block_on<T>(doing: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    crate::net::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| format!("the runtime does not start: {error}"))?.block_on(doing)
}

/// The text of what is done, with the exit code that says so.
fn done(text: String) -> (String, ExitCode) {
    (text, ExitCode::SUCCESS)
}

/// Says how it went.
fn tell(outcome: Result<(String, ExitCode), String>) -> ExitCode {
    match outcome {
        Ok((said, code)) => {
            print!("{said}");
            code
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// A verb with a page of its own: reads the words, does what they ask for, and says how it went.
fn with_page<A>(
    page: &str,
    words: &[&str],
    read: impl FnOnce(&[&str]) -> Option<(A, bool)>,
    work: impl AsyncFnOnce(&Config, A, bool) -> Result<(String, ExitCode), String>,
) -> Option<ExitCode> {
    let Some((act, json)) = read(words) else {
        eprint!("{page}");
        return Some(ExitCode::from(USAGE));
    };
    let Some(config) = configured() else { return Some(ExitCode::FAILURE) };
    Some(tell(block_on(work(&config, act, json))))
}

/// The words without `--json`, wherever it stands, and whether it does.
fn split_json<'a>(words: &[&'a str]) -> (Vec<&'a str>, bool) {
    let others: Vec<&str> = words.iter().copied().filter(|word| *word != "--json").collect();
    let json = others.len() < words.len();
    (others, json)
}

/// The one word that is a file: what begins like an option is none.
fn read_file<'a>(words: &[&'a str]) -> Option<&'a str> {
    match words {
        [file] if !file.starts_with('-') => Some(file),
        _ => None,
    }
}

/// A time as people write it, in ms. What is none is named: the page alone would not say which word it was.
fn read_date(text: &str) -> Option<i64> {
    let read = format::read_date(text);
    if read.is_none() {
        eprintln!("{text} is not a valid time. {}", format::DATES);
    }
    read
}

/// The database, also beside a node that runs on it: see [`Store::open_beside`].
async fn beside(config: &Config) -> Result<Store, String> {
    let url = config.storage.database_url.as_ref().map(Secret::expose);
    Store::open_beside(&config.storage.data_dir, url).await.map_err(|error| error.to_string())
}

/// Does something with that database, and closes it.
async fn with_store<T>(config: &Config, work: impl AsyncFnOnce(&Store) -> Result<T, String>) -> Result<T, String> {
    let store = beside(config).await?;
    let worked = work(&store).await;
    store.close().await;
    worked
}

/// Refuses what needs the ecash store and the key, which the first start of a node makes: other verbs make a database
/// without them. It goes by the wallet's seed.
fn has_run(seed: Result<Option<String>, StoreError>) -> Result<(), String> {
    seed.map_err(|error| error.to_string())?.map(drop).ok_or_else(|| UNUSED.to_owned())
}

/// Refuses what moves money while a recovery is due: one that a node has begun, or that the next start would find due,
/// because the database was put back. What it says is there may have been paid out since.
async fn may_move(config: &Config, store: &Store) -> Result<(), String> {
    let mut reader = store.read().acquire().await.map_err(|error| error.to_string())?;
    let begun = recovery::due(&mut reader).await.map_err(|error| error.to_string())?;
    drop(reader);
    if let Some(why) = begun {
        return Err(not_before_recovery(&why));
    }
    let data_dir = &config.storage.data_dir;
    let id = node::known_id(data_dir).map_err(|error| error.to_string())?.unwrap_or_default();
    let ahead = Lineage::objection(store, data_dir, &id).await.map_err(|error| error.to_string())?;
    ahead.map_or(Ok(()), |why| Err(not_before_recovery(why)))
}

fn not_before_recovery(why: &str) -> String {
    format!("no money moves before the recovery that is due, because {why}; the node does it when it starts")
}

/// Ways out through Tor for a verb, as long as the guard is kept. Nothing is asked for before it is needed.
async fn ways(config: &Config) -> Result<(Ways, DropGuard), String> {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let tor = Tor::open(config, &tasks, &stop).await.map_err(|error| error.to_string())?;
    Ok((tor.ways().clone(), stop.drop_guard()))
}

/// The secret key of the database, proven: what another one hashes and seals, the node could never read.
async fn vault(config: &Config, store: &Store) -> Result<Vault, String> {
    node::open_vault(config, store).await.map_err(|error| error.to_string())
}

/// The settings that are in force beside a node: those of the environment, over what the node was told.
async fn in_force(config: &Config, store: &Store) -> Result<Config, String> {
    let told = store.told().await.map_err(|error| error.to_string())?;
    Ok(exchange::in_force(config, told).0)
}

/// The same for a verb that changes nothing, and names of what was told and cannot be read. Where there is no database,
/// or it cannot be looked at, nothing was told.
async fn looked_up(config: &Config) -> (Config, Vec<String>) {
    let url = config.storage.database_url.as_ref().map(Secret::expose);
    let Ok(reader) = Reader::open(&config.storage.data_dir, url).await else { return (config.clone(), Vec::new()) };
    let told = reader.told().await.unwrap_or_default();
    reader.close().await;
    let (config, counted) = exchange::in_force(config, told.clone());
    (config, told.into_keys().filter(|name| !counted.contains_key(name)).collect())
}

/// The books, for a verb of this name. No hold is placed by a command, so their writer never runs.
async fn books(config: &Config, store: &Store, verb: &str) -> Result<Ledger, String> {
    let owner = format!("{verb}-{}", hex(&rand::random::<[u8; 4]>()));
    let opened = Ledger::open(store.clone(), Arc::new(SystemClock), owner).await;
    let (ledger, _writer) = opened.map_err(|error| error.to_string())?;
    Ok(ledger.with_patience(config.storage.node_timeout))
}

/// Where the operator acts by a command.
fn desk(store: &Store) -> Desk<'_> {
    Desk { store, clock: &SystemClock, actor: "cli" }
}

/// Reads the configuration, or says every fault of it in a line.
fn configured() -> Option<Config> {
    let configured = Config::from_process().and_then(|config| {
        Identity::configured(&config)?;
        Ok(config)
    });
    configured.map_err(|faults| eprintln!("{faults}")).ok()
}

fn log_to_stderr(log: &Log) -> Result<(), String> {
    // arti tells at this level what it tries, every few seconds where there is no network.
    let level = if log.level == "info" { "info,arti_client=warn,tor_=warn" } else { &log.level };
    let filter = tracing_subscriber::EnvFilter::try_new(level).map_err(|error| error.to_string())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Colours are for who looks on: in a file and for a program they are letters.
    let builder = builder.with_ansi(std::io::stderr().is_terminal());
    let installed = if log.json { builder.json().with_span_list(false).try_init() } else { builder.try_init() };
    installed.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_names_every_verb() {
        let usage = usage();
        assert!(VERBS.iter().all(|verb| usage.contains(verb.name) && usage.contains(verb.help)), "{usage}");
        let audit = usage.lines().find(|line| line.contains("coinslot audit")).unwrap();
        assert!((0..=3).all(|code| audit.contains(&format!("{code} "))), "its exit codes: {audit}");
        for text in VERBS.iter().map(|verb| verb.page).chain([usage.as_str()]) {
            for line in text.lines() {
                assert!(line.chars().count() <= 120 && line.trim_end() == line, "{line}");
            }
        }
    }
}
