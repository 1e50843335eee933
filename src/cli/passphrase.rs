//! The passphrase of a backup: configured, or asked for where somebody sits at a terminal.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::Command;

use crate::backup::{Key, SHORTEST};
use crate::config::{Config, Secret};

/// What it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// Asked for twice.
    Sealing,
    Opening,
}

/// `None`: there is none, and whoever called was told why.
pub(super) fn ask(config: &Config, purpose: For) -> Option<Key> {
    if let Some(phrase) = &config.backups.passphrase {
        return Some(Key::Passphrase(phrase.clone()));
    }
    if !std::io::stdin().is_terminal() {
        eprintln!("BACKUP_PASSPHRASE: is not set, and there is no terminal to ask at");
        return None;
    }
    let phrase = prompt("Passphrase of the backup: ")?;
    if purpose == For::Sealing {
        if phrase.chars().count() < SHORTEST {
            eprintln!("it is short; at least {SHORTEST} characters are wanted");
            return None;
        }
        if prompt("The same again: ")? != phrase {
            eprintln!("they are not the same");
            return None;
        }
    }
    Some(Key::Passphrase(Secret::new(phrase)))
}

/// Reads a line that the terminal does not show.
fn prompt(question: &str) -> Option<String> {
    let echo = |how: &str| Command::new("stty").arg(how).status().is_ok_and(|status| status.success());
    eprint!("{question}");
    std::io::stderr().flush().ok()?;
    let hidden = echo("-echo");
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    if hidden {
        echo("echo");
        eprintln!();
    }
    read.ok()?;
    Some(line.trim_end_matches(['\r', '\n']).to_owned())
}
