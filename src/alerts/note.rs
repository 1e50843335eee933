//! One note to the operator, for programs and for people.

use serde_json::{Value, json};

use super::Kind;
use crate::pages::format;

/// What a note says of its alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Raised,
    /// It goes on.
    Repeated,
    Ended,
    /// Nothing is wrong: the operator wants to see that notes arrive.
    Test,
}

impl What {
    const ALL: [Self; 4] = [Self::Raised, Self::Repeated, Self::Ended, Self::Test];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Repeated => "repeated",
            Self::Ended => "ended",
            Self::Test => "test",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|what| what.name() == name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its id: the same however often it is told.
    pub id: String,
    pub what: What,
    /// `None` for a test.
    pub kind: Option<Kind>,
    pub subject: String,
    pub said: String,
    pub since_ms: i64,
    pub made_ms: i64,
}

/// Who tells it.
#[derive(Clone, Debug)]
pub struct Teller {
    pub name: String,
    pub npub: String,
    pub version: &'static str,
}

impl Note {
    /// One that only shows that notes arrive.
    #[must_use]
    pub fn test(now_ms: i64) -> Self {
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            what: What::Test,
            kind: None,
            subject: String::new(),
            said: "This is a test. Nothing is wrong".to_owned(),
            since_ms: now_ms,
            made_ms: now_ms,
        }
    }

    /// For a person.
    pub(super) fn text(&self, teller: &Teller) -> String {
        let (title, name) = (self.kind.map_or("", Kind::title), &teller.name);
        let about = if self.subject.is_empty() { String::new() } else { format!(" ({})", self.subject) };
        let (since, said) = (format::utc(self.since_ms), &self.said);
        match self.what {
            What::Raised => format!("{name}: ALARM, {title}{about}. {said}. Since {since}."),
            What::Repeated => format!("{name}: still so, {title}{about}. {said}. Since {since}."),
            What::Ended => {
                let lasted = format::age(self.made_ms.saturating_sub(self.since_ms));
                format!("{name}: over is that {title}{about}. It began at {since} and lasted {lasted}.")
            }
            What::Test => format!("{name}: {said}."),
        }
    }

    /// For a program. `text` is where chat servers look.
    pub(super) fn json(&self, teller: &Teller) -> Value {
        let is_alarm = self.kind.is_some();
        json!({
            "id": self.id,
            "type": if is_alarm { format!("alarm.{}", self.what.name()) } else { self.what.name().to_owned() },
            "timestamp": format::utc(self.made_ms),
            "text": self.text(teller),
            "data": {
                "kind": self.kind.map(Kind::name),
                "subject": self.subject,
                "message": self.said,
                "since": is_alarm.then(|| format::utc(self.since_ms)),
                "node": { "name": teller.name, "npub": teller.npub, "version": teller.version },
            },
        })
    }
}
