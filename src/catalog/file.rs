//! The operator's list of models, `models.json`.
//!
//! One bad entry never hides the others: it is left out and reported. A file that is there but
//! is no list at all is an error, because serving another list in its stead would charge prices
//! that the operator did not set.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Catalog, Model};
use crate::config::{MODELS_PATH, Pricing};

/// The list that is served when the operator has none.
const BUNDLED: &str = include_str!("../../models.example.json");

/// What an operator is told whose node sells by that list.
pub const NO_FILE: &str = "no models.json: the bundled prices apply";

/// Longest list that is read, in bytes.
pub const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the list of models cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("the list of models is longer than {MAX_BYTES} bytes")]
    TooLarge,
    /// Prices that the operator did not set would be charged in its stead.
    #[error("there is no list of models at {0}")]
    Missing(String),
    /// Where the JSON breaks off, or what was expected.
    #[error("the list of models is not {{\"models\": […]}}: {0}")]
    NotAList(String),
}

/// Where a catalog came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The operator's file.
    File,
    /// The list in the program, because there was no file.
    Bundled,
}

/// A catalog, and what was wrong with parts of its list.
#[derive(Debug)]
pub struct Loaded {
    pub catalog: Catalog,
    pub source: Source,
    /// Whether anything stands in the list, be it unusable or switched off.
    pub has_entries: bool,
    /// A line for each entry that is not offered, or name that finds nothing.
    pub problems: Vec<String>,
}

/// Loads the list of these settings: the bundled one only where the operator names none and has none.
///
/// # Errors
/// As [`load`]; and when a file that the operator names is not there.
pub fn configured(pricing: &Pricing) -> Result<Loaded, LoadError> {
    let path = &pricing.models_path;
    match load(path)? {
        loaded if loaded.source == Source::Bundled && path != Path::new(MODELS_PATH) => {
            Err(LoadError::Missing(path.display().to_string()))
        }
        loaded => Ok(loaded),
    }
}

/// Loads the list at `path`, or the bundled one when there is no such file. Blocks on the disk.
///
/// # Errors
/// When the file is there but cannot be read, is too long or is no list of models.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let mut text = Vec::new();
    let source = match File::open(path) {
        Ok(file) => {
            file.take(MAX_BYTES.saturating_add(1)).read_to_end(&mut text)?;
            if u64::try_from(text.len()).is_ok_and(|length| length > MAX_BYTES) {
                return Err(LoadError::TooLarge);
            }
            Source::File
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            text.extend_from_slice(BUNDLED.as_bytes());
            Source::Bundled
        }
        Err(error) => return Err(error.into()),
    };
    let (models, mut problems) = parse(&text)?;
    let has_entries = !models.is_empty() || !problems.is_empty();
    let (catalog, more) = Catalog::new(models);
    problems.extend(more);
    Ok(Loaded { catalog, source, has_entries, problems })
}

/// The models of a list (`{"models": […]}`, `{"data": […]}` or a bare array), and a line for each
/// entry that is not offered.
///
/// # Errors
/// When the text is none of the three.
pub fn parse(text: &[u8]) -> Result<(Vec<Model>, Vec<String>), LoadError> {
    let mut models = Vec::new();
    let mut problems = Vec::new();
    for (index, entry) in entries(text)?.into_iter().enumerate() {
        match Model::from_entry(entry) {
            Ok(model) => models.push(model),
            Err(problem) => {
                problems.push(format!("entry {}: {problem}; not offered", index.saturating_add(1)));
            }
        }
    }
    Ok((models, problems))
}

/// The entries of such a list, as they are written.
pub(super) fn entries(text: &[u8]) -> Result<Vec<&RawValue>, LoadError> {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(borrow, alias = "data")]
        models: Vec<&'a RawValue>,
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let parsed = if text.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice(text)
    } else {
        serde_json::from_slice(text).map(|list: List<'_>| list.models)
    };
    parsed.map_err(|error| LoadError::NotAList(error.to_string()))
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;

    #[test]
    fn the_bundled_list_is_flawless() {
        let (models, problems) = parse(BUNDLED.as_bytes()).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let (catalog, problems) = Catalog::new(models);
        assert!(problems.is_empty(), "{problems:?}");
        assert!(catalog.all().len() >= 20);
        for name in ["openai/gpt-4o-mini", "gpt-4o-mini", "google/gemini-2.5-pro-preview"] {
            assert!(catalog.find(name).is_some(), "{name}");
        }
        for model in catalog.offered() {
            assert!(model.prices.prompt > Decimal::ZERO, "{}", model.id);
            assert!(model.prices.completion > Decimal::ZERO, "{}", model.id);
            assert!(model.limits().context.is_some(), "{}", model.id);
            assert!(!model.description.is_empty() && model.created > 1_700_000_000, "{}", model.id);
            assert!(model.extra.is_empty(), "{}: {:?}", model.id, model.extra);
            // What it says that it hears has a price, and a cache never costs what it does not.
            let hears = model.architecture.input_modalities.iter().any(|input| input == "audio");
            assert_eq!(hears, model.prices.audio.is_some(), "{}", model.id);
            if model.id.starts_with("anthropic/") {
                let prices = std::iter::once(&model.prices).chain(model.prices.tiers.iter().map(|tier| &tier.prices));
                for prices in prices {
                    assert!(prices.cache_read() < prices.prompt, "{}", model.id);
                    assert!(prices.prompt < prices.cache_write(), "{}", model.id);
                    assert!(prices.cache_write() < prices.cache_write_1h(), "{}", model.id);
                }
            }
        }
    }

    #[test]
    fn three_forms_of_a_list() {
        let entry = r#"{"id":"m","pricing":{"prompt":"1e-6","completion":"2e-6"}}"#;
        for text in [
            format!("{{\"models\":[{entry}]}}"),
            format!(" {{\"object\":\"list\",\"data\":[{entry}],\"more\":1}}"),
            format!("\n[{entry}]"),
            format!("\u{feff}[{entry}]"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().0.len(), 1, "{text}");
        }
        for text in ["", "{}", "null", "3", "[", "{\"models\":{}}", "<html>"] {
            assert!(matches!(parse(text.as_bytes()), Err(LoadError::NotAList(_))), "{text}");
        }
    }

    #[test]
    fn a_bad_entry_does_not_hide_the_others() {
        let text = r#"[
            {"id":"openrouter/auto","pricing":{"prompt":"-1","completion":"-1"}},
            7,
            {"id":"good","pricing":{"prompt":"0.1","completion":"0.2"}}]"#;
        let (models, problems) = parse(text.as_bytes()).unwrap();
        assert_eq!(models.len(), 1);
        assert_eq!(problems.len(), 2);
        assert!(problems[0].starts_with("entry 1: openrouter/auto: its prompt price is negative"));
    }

    #[test]
    fn from_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("models.json");
        assert_eq!(load(&path).unwrap().source, Source::Bundled);
        std::fs::write(&path, "{\"models\":[]}").unwrap();
        let loaded = load(&path).unwrap();
        assert!(loaded.source == Source::File && loaded.catalog.is_empty());
        std::fs::write(&path, "oops").unwrap();
        assert!(matches!(load(&path), Err(LoadError::NotAList(_))));
        // A folder in its place is an error too, not a missing file.
        assert!(matches!(load(folder.path()), Err(LoadError::Io(_))));
        File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(matches!(load(&path), Err(LoadError::TooLarge)));
    }
}
