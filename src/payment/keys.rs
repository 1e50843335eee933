//! What the owner of a key does with it besides paying: makes child keys, sets their limits, looks
//! at what came and went.

use std::collections::HashSet;

use super::Payment;
use super::payer::{Till, insufficient, is_credited, key_blocked, key_expired, redeem_failure};
use crate::failpoint::failpoint;
use crate::failure::{Code, Failure, Funds};
use crate::ledger::terms::{ChildError, Children, Expiry, Limits, MAX_CHILDREN, Terms};
use crate::ledger::{Account, AccountId, AccountKind, Source};
use crate::money::Msat;
use crate::store::StoreError;
use crate::wallet::Movement;
use crate::wallet::token::Token;

/// Characters by which a parent is shown to its child key.
const PREVIEW: usize = 8;
/// Characters by which a child key is shown to its parent. Its secret is kept nowhere.
const CHILD_ID: usize = 16;

/// Everything that is to be said of a key.
#[derive(Debug)]
pub struct Statement {
    /// The account whose money the key spends.
    pub purse: Account,
    pub terms: Option<Terms>,
    /// For a child key: the first digits of its parent's hash.
    pub parent: Option<String>,
    pub children: Vec<Terms>,
}

/// What a key can spend now, and what it has spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    pub available: Msat,
    pub held: Msat,
    pub total: Msat,
    pub spent: Msat,
    pub requests: u64,
    pub limits: Limits,
    /// The operator lets it spend nothing.
    pub is_blocked: bool,
}

impl Statement {
    /// The figures of the key whose `account` it is. A child's balance is what it can spend now: of its
    /// parent's money, as far as its terms allow.
    #[must_use]
    pub fn figures(&self, account: &Account, now_ms: i64) -> Figures {
        let limits = self.terms.as_ref().map(Terms::in_force).unwrap_or_default();
        let is_blocked = self.terms.as_ref().is_some_and(Terms::is_blocked);
        let (Some(_), Some(terms)) = (&self.parent, &self.terms) else {
            let balance = account.balance;
            return Figures {
                available: balance.available(),
                held: balance.held,
                total: balance.posted,
                spent: account.spent,
                requests: account.requests,
                limits,
                is_blocked,
            };
        };
        let available = self.purse.balance.available();
        let spendable = terms.left().map_or(available, |left| left.min(available));
        let spendable = if limits.has_ended(now_ms) || is_blocked { Msat::ZERO } else { spendable };
        Figures {
            available: spendable,
            held: terms.held,
            total: spendable.checked_add(terms.held).unwrap_or(spendable),
            spent: terms.spent,
            requests: terms.requests,
            limits,
            is_blocked,
        }
    }
}

/// Child keys that were made.
#[derive(Debug)]
pub struct NewChildren {
    /// Without `sk-`. Kept nowhere: they derive from the name of their purchase.
    pub secrets: Vec<String>,
    pub cost: Msat,
    /// What the parent has left.
    pub left: Msat,
}

/// The id by which a parent knows a child key.
#[must_use]
pub fn child_id(child: &Terms) -> String {
    child.key_hash.chars().take(CHILD_ID).collect()
}

impl Till {
    /// A key out of a token, with limits that hold before there is any money on it.
    ///
    /// # Errors
    /// When the token is no good, or is a key already and has other limits.
    pub async fn create(&self, token: Token, limits: Limits, expiry: Option<Expiry>) -> Result<Account, Failure> {
        if !limits.is_none() {
            self.agree(&token, limits).await?;
        }
        let (account, _) = self.open(Payment::TokenKey(Box::new(token)), expiry).await?;
        Ok(account)
    }

    async fn agree(&self, token: &Token, limits: Limits) -> Result<(), Failure> {
        let ledger = self.wallet().ledger();
        match self.look_up(&token.id).await? {
            Some(account) if is_credited(&account) => {
                let terms = ledger.terms(account.id).await.map_err(broken)?;
                if terms.is_some_and(|terms| terms.limits == limits) {
                    return Ok(());
                }
                Err(Failure::client(Code::InvalidRequest, "This token is a key already, with other limits."))
            }
            _ => {
                self.appraise(token).await?;
                let key_hash = self.token_hash_of(&token.id);
                let limited = ledger.open_limited(&key_hash, &token.mint, token.unit.as_str(), limits);
                limited.await.map(drop).map_err(broken)
            }
        }
    }

    /// What is to be said of the key that opens this account.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn statement(&self, key: &Account) -> Result<Statement, Failure> {
        let ledger = self.wallet().ledger();
        let read = async {
            let terms = ledger.terms(key.id).await?;
            let Some(parent) = key.parent else {
                let children = ledger.children(key.id).await?;
                return Ok(Statement { purse: key.clone(), terms, parent: None, children });
            };
            let (purse, hash) = ledger.named_account(parent).await?;
            let preview = hash.chars().take(PREVIEW).collect();
            Ok(Statement { purse, terms, parent: Some(preview), children: Vec::new() })
        };
        read.await.map_err(broken)
    }

    /// Makes child keys of a key, and charges it for them. Their secrets derive from `name`, which the
    /// books keep: the same name makes them, and charges for them, once, however often it is asked.
    ///
    /// # Errors
    /// When it cannot pay, or may not have any (more).
    pub async fn make_children(
        &self,
        parent: AccountId,
        count: usize,
        limits: Limits,
        name: &str,
    ) -> Result<NewChildren, Failure> {
        let secrets: Vec<String> = (0..count).map(|place| self.child_secret(name, place)).collect();
        let key_hashes: Vec<String> = secrets.iter().map(|secret| self.token_hash_of(secret)).collect();
        let price = self.child_key_cost();
        let cost = secrets.iter().try_fold(Msat::ZERO, |sum, _| sum.checked_add(price));
        let cost = cost.ok_or_else(|| Failure::client(Code::InvalidRequest, "That many child keys cost too much."))?;
        let wanted = Children { parent, key_hashes: &key_hashes, limits, cost, reference: name };
        match self.wallet().ledger().add_children(wanted).await {
            Ok(left) => {
                failpoint!("keys.sold");
                Ok(NewChildren { secrets, cost, left })
            }
            Err(ChildError::Insufficient { available }) => Err(insufficient(cost, available, "")),
            Err(ChildError::Expired) => Err(key_expired()),
            Err(ChildError::Blocked) => Err(key_blocked()),
            Err(ChildError::NoParent) => Err(child_key("A child key cannot have child keys of its own.")),
            Err(ChildError::TooMany) => {
                let message = format!("A key has at most {MAX_CHILDREN} child keys.");
                Err(Failure::client(Code::InvalidRequest, message))
            }
            Err(ChildError::Store(error)) => Err(broken(error)),
        }
    }

    /// The child keys that a key paid for by this transfer: an answer that was lost is had again.
    ///
    /// # Errors
    /// When the key bought no child keys by that transfer.
    pub async fn bought_children(&self, parent: &Account, transfer: i64) -> Result<NewChildren, Failure> {
        let unknown =
            || Failure::client(Code::ChildNotFound, "No child keys were bought by that entry of the history.");
        let (ledger, children) = (self.wallet().ledger(), self.wallet().ledger().children(parent.id).await);
        let known: HashSet<String> = children.map_err(broken)?.into_iter().map(|child| child.key_hash).collect();
        let name = ledger.reference_of(parent.id, transfer).await.map_err(broken)?.ok_or_else(unknown)?;
        let secrets = (0..).map(|place| self.child_secret(&name, place));
        let secrets: Vec<String> = secrets.take_while(|secret| known.contains(&self.token_hash_of(secret))).collect();
        if secrets.is_empty() {
            return Err(unknown());
        }
        Ok(NewChildren { secrets, cost: Msat::ZERO, left: parent.balance.available() })
    }

    fn child_secret(&self, name: &str, place: usize) -> String {
        self.vault().derived_key(&format!("child key {place} of {name}"))
    }

    /// Lets a child key spend its whole limit anew. `child`: its secret, or its id.
    ///
    /// # Errors
    /// When there is no such child key, or it is another's.
    pub async fn reset_child(&self, parent: &Account, child: &str) -> Result<(), Failure> {
        let unknown = || Failure::client(Code::ChildNotFound, "Child key not found");
        let ledger = self.wallet().ledger();
        let child = match super::read_key(child) {
            Ok(Payment::Key(secret)) => {
                let found = self.look_up(&secret).await?.ok_or_else(unknown)?;
                if found.parent != Some(parent.id) {
                    return Err(Failure::client(Code::NotYourChild, "This is not a child key of the key that asks."));
                }
                found.id
            }
            _ => {
                let children = ledger.children(parent.id).await.map_err(broken)?;
                let named = |terms: &&Terms| child.len() == CHILD_ID && terms.key_hash.starts_with(child);
                children.iter().find(named).ok_or_else(unknown)?.account
            }
        };
        ledger.zero_window(child).await.map_err(broken)
    }

    /// What came and went on a key, newest first, charges of requests left out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn history(&self, key: &Account, before: Option<i64>, limit: i64) -> Result<Vec<Movement>, Failure> {
        if key.parent.is_some() {
            return Err(child_key("A child key has no history of its own; ask with its parent."));
        }
        self.wallet().history(key.id, before.unwrap_or(i64::MAX), limit).await.map_err(broken)
    }

    /// Takes a token as a gift.
    ///
    /// # Errors
    /// See [`Till::admit`].
    pub async fn donate(&self, token: &Token) -> Result<Msat, Failure> {
        self.appraise(token).await?;
        let income = self.wallet().ledger().house().income;
        self.wallet().top_up(token, &self.token_hash_of(&token.id), income).await.map_err(redeem_failure)
    }

    /// Forgets where what is left on a key goes, since that was changed elsewhere.
    pub fn forget_expiry(&self, key: AccountId) {
        self.expiries().invalidate(&key);
    }

    /// Notes where what is left on a key goes, and when. What is noted already costs no write.
    pub(super) async fn note_expiry(&self, source: Source, expiry: Expiry) -> Result<(), Failure> {
        if source.spender != source.account {
            return Err(child_key("A child key has no balance to pay out; set this on its parent."));
        }
        if self.expiries().get(&source.account).as_ref() == Some(&expiry) {
            return Ok(());
        }
        let noted = self.wallet().ledger().put_expiry(source.account, &expiry).await;
        noted.map_err(|error| broken(error).funds(Funds::OnAccount))?;
        self.expiries().insert(source.account, expiry);
        Ok(())
    }
}

/// Kinds of accounts as the network names the source of a movement.
#[must_use]
pub fn source_of(kind: AccountKind) -> &'static str {
    if kind == AccountKind::Token { "x-cashu" } else { "apikey" }
}

/// 400: only a top key may do this.
#[must_use]
pub fn child_key(message: &str) -> Failure {
    Failure::client(Code::ChildKey, message)
}

pub(super) fn broken(error: StoreError) -> Failure {
    tracing::error!(%error, "the terms of a key could not be read or written");
    Failure::internal()
}
