//! What the operator has to say to everybody: announcements, each with a time. The shop window shows those of now,
//! and `/v1/announcements` gives them to programs.

mod repo;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::{Store, StoreError};

/// Most letters of a title, and of what follows.
const MAX_TITLE: usize = 120;
const MAX_BODY: usize = 4_000;
/// Most that are shown at a time.
pub const SHOWN: i64 = 10;
/// Most that are kept.
pub const MOST: i64 = 500;

/// How much it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    #[default]
    Info,
    Warning,
    Critical,
}

impl Level {
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }
}

/// Why an announcement was not stored.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    #[error("there is no such announcement")]
    Unknown,
    #[error("there are {MOST} announcements, which is the most; remove one first")]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub title: String,
    /// Markdown.
    pub body: String,
    pub level: Level,
    /// From when it is shown, in ms since the Unix epoch.
    pub starts_ms: i64,
    /// `None`: until it is removed.
    pub ends_ms: Option<i64>,
}

impl Text {
    /// The fault of one that is none.
    ///
    /// # Errors
    /// In words for the operator.
    pub fn check(&self) -> Result<(), String> {
        let title = self.title.trim();
        if title.is_empty() || title.chars().count() > MAX_TITLE || title.chars().any(char::is_control) {
            return Err(format!("a title is one line of 1 to {MAX_TITLE} letters"));
        }
        let is_bad = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t');
        if self.body.chars().count() > MAX_BODY || self.body.chars().any(is_bad) {
            return Err(format!("the text has at most {MAX_BODY} letters"));
        }
        match self.ends_ms {
            Some(end) if end <= self.starts_ms => Err("it ends before it begins".to_owned()),
            _ => Ok(()),
        }
    }
}

/// An announcement that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub id: String,
    pub text: Text,
    pub updated_ms: i64,
}

impl Announcement {
    #[must_use]
    pub fn is_shown(&self, now_ms: i64) -> bool {
        self.text.starts_ms <= now_ms && self.text.ends_ms.is_none_or(|end| end > now_ms)
    }
}

/// Those of now, what matters most first, then the latest.
///
/// # Errors
/// When the database does not answer.
pub async fn shown(store: &Store, now_ms: i64) -> Result<Vec<Announcement>, StoreError> {
    repo::shown(store, now_ms, SHOWN).await
}

/// All of them, the latest first.
///
/// # Errors
/// When the database does not answer.
pub async fn all(store: &Store) -> Result<Vec<Announcement>, StoreError> {
    repo::all(store, MOST).await
}

/// Stores one: a new one, or that of this id with another text. Returns the id.
///
/// # Errors
/// When there is no such one, or no room for another, or the database does not answer.
pub async fn put(store: &Store, id: Option<&str>, text: &Text, now_ms: i64) -> Result<String, PutError> {
    match id {
        None => {
            let id = Uuid::now_v7().to_string();
            let is_stored = repo::insert(store, &id, text, now_ms, MOST).await?;
            is_stored.then_some(id).ok_or(PutError::TooMany)
        }
        Some(id) => {
            let is_stored = repo::update(store, id, text, now_ms).await?;
            is_stored.then(|| id.to_owned()).ok_or(PutError::Unknown)
        }
    }
}

/// Removes one. Returns whether there was one.
///
/// # Errors
/// When the database does not answer.
pub async fn remove(store: &Store, id: &str) -> Result<bool, StoreError> {
    repo::remove(store, id).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_limits() {
        let text = |title: &str, body: &str, ends_ms| Text {
            title: title.to_owned(),
            body: body.to_owned(),
            level: Level::Info,
            starts_ms: 10,
            ends_ms,
        };
        assert!(text("a", "", None).check().is_ok());
        assert!(text("a", "b\nc", Some(11)).check().is_ok());
        for bad in [
            text(" ", "", None),
            text("a\nb", "", None),
            text(&"a".repeat(MAX_TITLE + 1), "", None),
            text("a", &"b".repeat(MAX_BODY + 1), None),
            text("a", "\u{0}", None),
            text("a", "", Some(10)),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
