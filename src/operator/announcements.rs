//! What is said to everybody: announced, changed, and taken down again.

use serde_json::json;

use super::Desk;
use crate::news::{self, PutError, Text};
use crate::store::StoreError;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    #[error("{0}")]
    Invalid(String),
    #[error("there is no such announcement")]
    Unknown,
    #[error(transparent)]
    Put(PutError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<PutError> for ActError {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Unknown => Self::Unknown,
            PutError::Store(error) => Self::Store(error),
            PutError::TooMany => Self::Put(error),
        }
    }
}

/// Announces something, or changes what is announced under this id. Returns its id.
///
/// # Errors
/// See [`ActError`].
pub async fn set(desk: Desk<'_>, id: Option<&str>, text: &Text) -> Result<String, ActError> {
    text.check().map_err(ActError::Invalid)?;
    let id = news::put(desk.store, id, text, desk.now_ms()).await?;
    let detail = json!({
        "title": text.title, "level": text.level, "from_ms": text.starts_ms, "until_ms": text.ends_ms,
    });
    desk.note("announcements.set", &id, &detail).await?;
    Ok(id)
}

/// Takes one down.
///
/// # Errors
/// When there is none, or the database does not answer.
pub async fn remove(desk: Desk<'_>, id: &str) -> Result<(), ActError> {
    if !news::remove(desk.store, id).await? {
        return Err(ActError::Unknown);
    }
    Ok(desk.note("announcements.remove", id, &json!({})).await?)
}
