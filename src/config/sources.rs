//! Where settings come from: `.env` in the working directory, and the environment over it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};

use super::fault::Fault;
use super::settings::{NOT_USED_YET, SETTINGS};

type Vars = BTreeMap<String, String>;

/// Both sources in one, and what could not be read of them. Changes nothing in the process.
pub(super) fn gather() -> (Vars, Vec<Fault>) {
    let mut faults = Vec::new();
    let file = match std::fs::read_to_string(".env") {
        Ok(text) => from_file(&text, &mut faults),
        Err(error) if error.kind() == ErrorKind::NotFound => Vars::new(),
        Err(error) => {
            let problem = format!("cannot be read ({}); expected a text file", error.kind());
            faults.push(Fault::new(".env", problem));
            Vars::new()
        }
    };
    let environment = from_environment(&mut faults);
    (merge(file, environment), faults)
}

fn from_environment(faults: &mut Vec<Fault>) -> Vars {
    let mut vars = Vars::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => {
                vars.insert(name, value);
            }
            Err(_) if is_ours(&name) => {
                faults.push(Fault::new(name, "is not UTF-8; expected text"));
            }
            Err(_) => {}
        }
    }
    vars
}

fn is_ours(name: &str) -> bool {
    NOT_USED_YET.contains(&name) || SETTINGS.iter().any(|setting| setting.is_spelled(name))
}

/// The lines of a `.env` file; of two with the same name the later counts.
fn from_file(text: &str, faults: &mut Vec<Fault>) -> Vars {
    // dotenvy fails on a last line that ends in a space instead of a line break.
    let text = format!("{}\n", text.trim_start_matches('\u{feff}'));
    let line = Cell::new(0);
    let mut vars = Vars::new();
    for item in dotenvy::from_read_iter(LineByLine { rest: text.as_bytes(), line: &line }) {
        match item {
            Ok((name, value)) => {
                vars.insert(name, value);
            }
            // The error's own text repeats the line, which may hold a secret.
            Err(_) => faults.push(Fault::new(
                ".env",
                format!(
                    "line {} (or a quotation mark opened above it) cannot be read; expected \
                     NAME=value, in 'single quotes' where it holds a space, $, # or quote",
                    line.get()
                ),
            )),
        }
    }
    vars
}

/// Hands out one line per call, so that the number of the line being parsed is known.
struct LineByLine<'a> {
    rest: &'a [u8],
    line: &'a Cell<usize>,
}

impl Read for LineByLine<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(self.rest.len(), |at| at.saturating_add(1));
        let (mut head, tail) = self.rest.split_at(length);
        let copied = head.read(buffer)?;
        if head.is_empty() {
            self.line.set(self.line.get().saturating_add(usize::from(copied > 0)));
            self.rest = tail;
        } else {
            self.rest = self.rest.get(copied..).unwrap_or_default();
        }
        Ok(copied)
    }
}

/// `over` wins, also where the two spell a setting differently.
pub(super) fn merge(mut under: Vars, over: Vars) -> Vars {
    for setting in SETTINGS {
        if setting.spellings().any(|name| over.get(name).is_some_and(|text| !is_blank(text))) {
            for name in setting.spellings() {
                under.remove(name);
            }
        }
    }
    under.extend(over.into_iter().filter(|(_, text)| !is_blank(text)));
    under
}

/// An empty value counts as absent.
pub(super) fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> Vars {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_environment_wins_whatever_the_spelling() {
        let file = vars(&[("CASHU_MINTS", "file"), ("CURRENCY", "msat"), ("NAME", "file")]);
        let over = vars(&[("MINT", "over"), ("PRIMARY_MINT_UNIT", "sat"), ("NAME", " ")]);
        let expected = vars(&[("MINT", "over"), ("PRIMARY_MINT_UNIT", "sat"), ("NAME", "file")]);
        assert_eq!(merge(file, over), expected);
    }

    #[test]
    fn a_file_is_read_as_shells_read_it() {
        let text = "\u{feff}# comment\nNAME='My $node #1'\r\nexport PORT=1\nPORT=2\n\n\
                    UPSTREAM_API_KEY=sk-a#b # note\nEMPTY=\nDESCRIPTION=last ";
        let mut faults = Vec::new();
        let expected = vars(&[
            ("NAME", "My $node #1"),
            ("PORT", "2"),
            ("UPSTREAM_API_KEY", "sk-a#b"),
            ("EMPTY", ""),
            ("DESCRIPTION", "last"),
        ]);
        assert_eq!(from_file(text, &mut faults), expected);
        assert_eq!(faults, []);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named_by_its_number_only() {
        let long = "x".repeat(20_000);
        let text = format!("PORT=1\nLONG={long}\n\nADMIN_PASSWORD=hunter2 hunter3\nhunter4\nHOST=h\n");
        let mut faults = Vec::new();
        let found = from_file(&text, &mut faults);
        assert_eq!(found, vars(&[("PORT", "1"), ("LONG", &long), ("HOST", "h")]));
        let lines: Vec<_> = faults.iter().map(Fault::to_string).collect();
        assert!(lines.iter().all(|line| !line.contains("hunter")), "{lines:?}");
        let starts: Vec<_> = lines.iter().map(|line| line.get(..13).unwrap()).collect();
        assert_eq!(starts, [".env: line 4 ", ".env: line 5 "]);
    }
}
