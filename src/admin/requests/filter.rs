//! Which requests are looked for, as the address of the page, the API and the words of the command say it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::AdminError;
use crate::failure::{Code, facts};
use crate::ledger::AccountId;
use crate::pages::format;
use crate::store::ids;

/// What is said; empty: anything.
#[derive(Clone, Debug, Default, Deserialize, Serialize, IntoParams, ToSchema)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Said {
    /// As the client called it.
    pub model: String,
    /// The name of an upstream.
    pub upstream: String,
    /// running, charged, free, failed, or the code of a failure.
    pub status: String,
    /// Begun from then on: `2026-11-26`, `2026-11-26T10:00` (UTC), or ms since the Unix epoch.
    pub from: String,
    /// Begun before that.
    pub to: String,
    /// The first digits of the hash of a key, four at least: the requests that it was charged for.
    pub key: String,
    /// The `next` of the page before.
    pub after: String,
}

/// How a request stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Running,
    Charged,
    /// It ended well enough, and cost nothing.
    Free,
    Failed,
    FailedWith(String),
}

/// Which requests are looked for, as understood from [`Said`]; `None`: any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub model: Option<String>,
    pub upstream: Option<String>,
    pub status: Option<Status>,
    /// Ms since the Unix epoch.
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
    pub key: Option<String>,
    /// Go on below this hold.
    pub below: Option<i64>,
    /// Where to go on along the charges of keys, for who asks for page after page: a key that is not in it begins
    /// at its latest charge.
    pub places: Places,
}

/// For accounts, the transfer from which on there are charges that were not told; `None`: there are no more.
pub(crate) type Places = BTreeMap<AccountId, Option<i64>>;

const MOST_CHARS: usize = 200;

impl Said {
    /// Understands it.
    ///
    /// # Errors
    /// When it makes no sense, with the reason.
    pub(crate) fn read(&self) -> Result<Filter, AdminError> {
        let text = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let all = [&self.model, &self.upstream, &self.status, &self.from, &self.to, &self.key, &self.after];
        if all.iter().any(|text| text.chars().count() > MOST_CHARS) {
            return Err(AdminError::invalid(format!("A filter has {MOST_CHARS} characters at most.")));
        }
        let time = |said: &str| match text(said) {
            None => Ok(None),
            Some(said) => format::read_utc(&said).map(Some).ok_or_else(|| {
                AdminError::invalid(format!(
                    "\"{said}\" is not a valid time: write 2026-11-26 or 2026-11-26T10:00, in UTC."
                ))
            }),
        };
        let key = text(&self.key).map(|key| key.to_ascii_lowercase());
        if key.as_ref().is_some_and(|key| key.len() < 4 || !key.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            return Err(AdminError::invalid("A key is told by the first digits of its hash, four at least."));
        }
        let below = text(&self.after).map(|after| after.parse::<i64>());
        let below = below.transpose().map_err(|_| AdminError::invalid("There is no such page."))?;
        Ok(Filter {
            model: text(&self.model),
            upstream: text(&self.upstream),
            status: text(&self.status).map(|status| Status::read(&status)).transpose()?,
            from_ms: time(&self.from)?,
            to_ms: time(&self.to)?,
            key,
            below,
            places: Places::default(),
        })
    }
}

impl Status {
    fn read(text: &str) -> Result<Self, AdminError> {
        match text {
            "running" => Ok(Self::Running),
            "charged" => Ok(Self::Charged),
            "free" => Ok(Self::Free),
            "failed" => Ok(Self::Failed),
            code if Code::ALL.iter().any(|known| facts(*known).code == code) => Ok(Self::FailedWith(code.to_owned())),
            _ => Err(AdminError::invalid(
                "A status is running, charged, free, failed, or the code of a failure, such as upstream_error, \
                 upstream_timeout, upstream_rejected, UPSTREAM_RATE_LIMIT or request_aborted. /docs/errors has all.",
            )),
        }
    }
}

impl Filter {
    /// The ids of the holds that can be meant: below the first, down to the second.
    pub(super) fn ids(&self) -> (i64, i64) {
        let top = self.to_ms.map_or(i64::MAX, ids::first_at);
        let bottom = self.from_ms.map_or(i64::MIN, |from_ms| ids::first_at(from_ms.max(0)));
        (self.below.map_or(top, |below| below.min(top)), bottom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_understood_or_refused() {
        let said = |change: fn(&mut Said)| {
            let mut said = Said::default();
            change(&mut said);
            said.read()
        };
        assert_eq!(said(|_| {}).unwrap(), Filter::default());
        assert_eq!(said(|said| said.from = "1970-01-02".into()).unwrap().ids(), (i64::MAX, 86_400_000 << 21));
        assert_eq!(said(|said| said.after = "77".into()).unwrap().ids(), (77, i64::MIN));
        assert_eq!(said(|said| said.key = " ABCD ".into()).unwrap().key.unwrap(), "abcd");
        let code = said(|said| said.status = "upstream_error".into()).unwrap().status;
        assert_eq!(code, Some(Status::FailedWith("upstream_error".into())));
        let wrong: [fn(&mut Said); 7] = [
            |said| said.from = "yesterday".into(),
            |said| said.to = "2026-13-01".into(),
            |said| said.key = "abc".into(),
            |said| said.key = "abcg".into(),
            |said| said.status = "a%".into(),
            |said| said.status = "bogus".into(),
            |said| said.after = "x".into(),
        ];
        for change in wrong {
            assert!(said(change).is_err());
        }
        assert!(said(|said| said.model = "m".repeat(201)).is_err());
    }
}
