//! Which upstream a conversation was with, so that its next turn finds the prompt cached there.
//!
//! A conversation is known by a salted hash of what the client calls it and of who pays; the salt is this
//! process's and is stored nowhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

/// How long a conversation stays with its upstream after its last turn, in ms.
const KEPT_MS: i64 = 300_000;
/// Most conversations that are remembered.
const MOST: usize = 20_000;

/// What is left of a conversation's name.
pub type Session = [u8; 32];

/// Whom a conversation is with.
#[derive(Debug)]
struct Bound {
    upstream: Arc<str>,
    at_ms: i64,
    /// It has answered; otherwise it is only being asked for the first time.
    has_answered: bool,
}

/// The conversations of the last minutes.
#[derive(Debug)]
pub struct Sticky {
    salt: [u8; 32],
    with: Mutex<HashMap<Session, Bound>>,
    choosing: Mutex<()>,
}

impl Default for Sticky {
    fn default() -> Self {
        Self { salt: rand::random(), with: Mutex::default(), choosing: Mutex::default() }
    }
}

impl Sticky {
    /// The hash of a conversation's name. A payer's conversations are its own.
    #[must_use]
    pub fn session(&self, payer: &str, name: &str) -> Session {
        let mut hash = Sha256::new();
        hash.update(self.salt);
        // With its length before it, no two pairs read the same.
        hash.update(payer.len().to_be_bytes());
        hash.update(payer);
        hash.update(name);
        hash.finalize().into()
    }

    /// Held while an upstream is chosen for a turn: two first turns at once must not choose two.
    pub fn choosing(&self) -> MutexGuard<'_, ()> {
        self.choosing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The upstream of this conversation's last turn, or of its first, which is under way.
    #[must_use]
    pub fn find(&self, session: &Session, now_ms: i64) -> Option<Arc<str>> {
        let bound = self.lock();
        bound.get(session).filter(|bound| is_fresh(bound.at_ms, now_ms)).map(|bound| Arc::clone(&bound.upstream))
    }

    /// This conversation had its turn with that upstream.
    pub fn bind(&self, session: Session, upstream: &Arc<str>, now_ms: i64) {
        self.put(session, Bound { upstream: Arc::clone(upstream), at_ms: now_ms, has_answered: true });
    }

    /// This conversation has its first turn with that upstream; others that come meanwhile follow it there.
    pub fn begin(&self, session: Session, upstream: &Arc<str>, now_ms: i64) {
        if self.find(&session, now_ms).is_none() {
            self.put(session, Bound { upstream: Arc::clone(upstream), at_ms: now_ms, has_answered: false });
        }
    }

    /// The first turn came to nothing there, or did not take place.
    pub fn give_up(&self, session: &Session, upstream: &Arc<str>) {
        let mut with = self.lock();
        if with.get(session).is_some_and(|bound| !bound.has_answered && bound.upstream == *upstream) {
            with.remove(session);
        }
    }

    fn put(&self, session: Session, bound: Bound) {
        let mut with = self.lock();
        if with.len() >= MOST && !with.contains_key(&session) {
            with.retain(|_, other| is_fresh(other.at_ms, bound.at_ms));
            if with.len() >= MOST {
                return;
            }
        }
        with.insert(session, bound);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Session, Bound>> {
        self.with.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_fresh(at_ms: i64, now_ms: i64) -> bool {
    (0..KEPT_MS).contains(&now_ms.saturating_sub(at_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_stays_for_a_while() {
        let sticky = Sticky::default();
        let session = sticky.session("payer", "talk");
        assert_eq!(sticky.find(&session, 0), None);
        sticky.bind(session, &"a".into(), 0);
        sticky.bind(sticky.session("payer", "other"), &"b".into(), 0);
        assert_eq!(sticky.find(&session, KEPT_MS - 1).as_deref(), Some("a"));
        assert_eq!(sticky.find(&session, KEPT_MS), None);
        assert_ne!(sticky.session("pay", "ertalk"), session);
        assert_ne!(Sticky::default().session("payer", "talk"), session, "another salt");
    }

    #[test]
    fn a_first_turn_binds_until_it_fails() {
        let sticky = Sticky::default();
        let session = sticky.session("payer", "talk");
        sticky.begin(session, &"a".into(), 0);
        sticky.begin(session, &"b".into(), 0);
        assert_eq!(sticky.find(&session, 0).as_deref(), Some("a"));
        sticky.give_up(&session, &"b".into());
        assert_eq!(sticky.find(&session, 0).as_deref(), Some("a"), "the failure of another");
        sticky.give_up(&session, &"a".into());
        assert_eq!(sticky.find(&session, 0), None);
        sticky.bind(session, &"a".into(), 0);
        sticky.give_up(&session, &"a".into());
        assert_eq!(sticky.find(&session, 0).as_deref(), Some("a"), "it has answered before");
    }

    #[test]
    fn memory_is_bounded() {
        let sticky = Sticky::default();
        for turn in 0..MOST + 10 {
            sticky.bind(sticky.session("", &turn.to_string()), &"a".into(), 0);
        }
        assert_eq!(sticky.lock().len(), MOST);
        sticky.bind(sticky.session("", "later"), &"a".into(), KEPT_MS);
        assert_eq!(sticky.lock().len(), 1);
    }
}
