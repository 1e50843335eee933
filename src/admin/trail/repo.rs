//! The statements that read the trail. They run on SQLite and PostgreSQL alike.

use sqlx::{AssertSqlSafe, Row as _};

use super::Noted;
use crate::store::{Store, StoreError};

/// Which acts are looked for; what is empty does not matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    pub actor: &'a str,
    pub action: &'a str,
    /// The id of the last one that was seen: older ones are wanted.
    pub after: &'a str,
}

/// So many of them, newest first. Ids grow with time.
///
/// # Errors
/// When the database does not answer.
pub async fn latest(store: &Store, wanted: Wanted<'_>, limit: i64) -> Result<Vec<Noted>, StoreError> {
    let given = [("actor = ", wanted.actor), ("action = ", wanted.action), ("id < ", wanted.after)];
    let given: Vec<(&str, &str)> = given.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let conditions: Vec<String> = (1_usize..).zip(&given).map(|(at, (what, _))| format!("{what}${at}")).collect();
    let (condition, last) = (conditions.join(" AND "), given.len().saturating_add(1));
    let filter = if condition.is_empty() { String::new() } else { format!("WHERE {condition}") };
    let sql = format!(
        "SELECT id, at, actor, action, subject, detail FROM admin_trail {filter} ORDER BY id DESC LIMIT ${last}"
    );
    let query = given.iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, (_, value)| query.bind(*value));
    let rows = query.bind(limit).fetch_all(store.read()).await?;
    let noted = |row: &sqlx::any::AnyRow| {
        let detail: String = row.try_get(5)?;
        Ok(Noted {
            id: row.try_get(0)?,
            at_ms: row.try_get(1)?,
            actor: row.try_get(2)?,
            action: row.try_get(3)?,
            subject: row.try_get(4)?,
            detail: serde_json::from_str(&detail).unwrap_or_else(|_| detail.into()),
        })
    };
    rows.iter().map(noted).collect()
}
