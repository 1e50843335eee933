//! A client's token becomes the node's ecash and the client's credit. One token, one credit.
//!
//! 1. In one synced transaction: the token's secrets are claimed (a secret that was claimed before
//!    ends it here), its account is created, and the operation is written with the swap it plans.
//! 2. The swap is sent, alone or in one request with others ([`super::batch`]). No transaction is open.
//! 3. The new proofs are stored, marked with the operation.
//! 4. In one transaction: the operation is done, and what was received is credited.
//!
//! A process that dies after 1 leaves an operation that [`Wallet::resume`] finishes from evidence. A
//! token of a mint that is not trusted takes another way, if any: see [`super::import`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cdk::nuts::{Proof, State as ProofState};

use super::incoming::{Act, Ended};
use super::journal::{self, Fate, Kind, Operation, State, Step};
use super::keysets::{sum, sum_proofs};
use super::refusal::{MintError, Refusal};
use super::steps::{Attempt, write_json};
use super::swap::{Plan, Standing};
use super::token::{Token, TokenFault};
use super::{Trusted, Wallet, WalletError, batch};
use crate::failpoint::failpoint;
use crate::ledger::repo as books;
use crate::ledger::{Account, AccountId, AccountKind};
use crate::money::Msat;
use crate::store::{Durability, StoreError};

/// When to come again to a mint of which nothing is known, in seconds.
pub(super) const RETRY_SECS: u64 = 5;

/// Why a token was not credited.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// Found out without asking the mint. The token is untouched.
    #[error(transparent)]
    Token(#[from] TokenFault),
    #[error("the mint is not on this node's list")]
    Untrusted,
    /// It, or one of its proofs, was accepted here before.
    #[error("the token was accepted before")]
    Known(Box<Account>),
    /// It was credited to an account that it does not open.
    #[error("the token was accepted before, as a top-up")]
    ToppedUp(Box<Account>),
    #[error("some of its proofs were accepted before, in another token")]
    Overlap,
    /// Spent at the mint, by somebody else.
    #[error("the token was spent before")]
    Spent,
    /// The mint's input fee eats all of it.
    #[error("the mint's fee exceeds the token")]
    FeesExceed,
    /// The mint refused it. The token is untouched, for what it is worth.
    #[error("the mint refused the token: {0}")]
    Refused(String),
    /// The mint refused because its keysets or fees are not what this node believes.
    #[error("the mint's keysets have changed")]
    Stale,
    #[error("the mint limits its callers; wait {0} s")]
    RateLimited(u64),
    /// The mint cannot be reached, or is left alone. The token is untouched; try again in so many
    /// seconds.
    #[error("the mint cannot be reached")]
    Unreachable(u64),
    /// No money moves while the node is not sure of its ecash. The token is untouched.
    #[error("nothing was taken: {0}")]
    Halted(String),
    /// The mint may have taken it. The operation with this id finds out.
    #[error("the mint's answer is not known yet")]
    Pending(String),
    /// The foreign mint that the token is of cannot be reached. The token is untouched.
    #[error("the mint of the token cannot be reached")]
    SourceUnreachable,
    /// The token could not be swapped to a trusted mint. It is untouched.
    #[error("the token could not be swapped: {0}")]
    SourceRefused(String),
    /// The foreign mint took the token, and its payment never arrived.
    #[error("the token was taken by its mint, and nothing came of it: {0}")]
    SourceFailed(String),
    #[error(transparent)]
    Wallet(#[from] WalletError),
}

impl RedeemError {
    /// For the metrics.
    const fn name(&self) -> &'static str {
        match self {
            Self::Pending(_) => "pending",
            Self::RateLimited(_) | Self::Unreachable(_) | Self::SourceUnreachable => "unreachable",
            Self::Wallet(_) => "failed",
            _ => "refused",
        }
    }
}

impl From<StoreError> for RedeemError {
    fn from(error: StoreError) -> Self {
        Self::Wallet(WalletError::Store(error))
    }
}

impl From<cdk_common::database::Error> for RedeemError {
    fn from(error: cdk_common::database::Error) -> Self {
        Self::Wallet(error.into())
    }
}

/// Whose the credit is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// The account that the token itself opens.
    Own(AccountKind),
    /// One that exists: a top-up.
    Existing(AccountId),
    /// The node's income: the token is the one that this operation made, and nobody claimed.
    Unclaimed(&'a str),
}

/// What a token would be worth after its mint's input fee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appraisal {
    pub net: Msat,
    pub fee: Msat,
}

/// Locks per token, so that requests which race with one fresh token make one redemption.
#[derive(Debug, Default)]
pub(super) struct Lanes(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Lanes {
    pub(super) fn lane(&self, token_hash: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(token_hash).and_then(Weak::upgrade) {
            return lane;
        }
        lanes.retain(|_, lane| lane.strong_count() > 0);
        let lane = Arc::new(tokio::sync::Mutex::default());
        lanes.insert(token_hash.to_owned(), Arc::downgrade(&lane));
        lane
    }
}

/// How many have entered and not left. Whoever drops what it got has left.
#[derive(Debug, Default)]
pub(super) struct Riding(Arc<()>);

impl Riding {
    fn enter(&self) -> Arc<()> {
        Arc::clone(&self.0)
    }

    pub(super) fn count(&self) -> usize {
        Arc::strong_count(&self.0).saturating_sub(1)
    }
}

impl Wallet {
    /// What a token is worth here, from cached keysets; an unknown keyset is looked up once. Of a token
    /// that must be swapped first: what it is worth at least, and no mint is asked.
    ///
    /// # Errors
    /// When the token cannot be taken. It is untouched.
    pub async fn appraise(&self, token: &Token) -> Result<Appraisal, RedeemError> {
        let fee = match (self.trusted(&token.mint), &self.inner.foreigners) {
            (Some(trusted), _) => {
                let (_, fee) = self.open_token(trusted, token).await?;
                token.unit.to_msat(fee).ok_or(RedeemError::FeesExceed)?
            }
            // What the swap will cost, the two mints say when they are asked; this much at most.
            (None, Some(foreigners)) => foreigners.most_fee(token.face),
            (None, None) => return Err(RedeemError::Untrusted),
        };
        match token.face.checked_sub(fee) {
            Some(net) if !net.is_zero() => Ok(Appraisal { net, fee }),
            _ => Err(RedeemError::FeesExceed),
        }
    }

    /// The token's proofs and the fee of spending them, in units.
    pub(super) async fn open_token(&self, trusted: &Trusted, token: &Token) -> Result<(Vec<Proof>, u64), RedeemError> {
        let mut proofs = token.proofs(&trusted.keysets.infos().await);
        if matches!(proofs, Err(TokenFault::UnknownKeyset)) {
            match trusted.keysets.refresh_if_due().await {
                Ok(()) => proofs = token.proofs(&trusted.keysets.infos().await),
                Err(error) => return Err(unreachable(error)),
            }
            if proofs.is_err() && !trusted.keysets.is_warm().await {
                return Err(RedeemError::Unreachable(RETRY_SECS));
            }
        }
        let proofs = proofs?;
        let fee = trusted.keysets.input_fee(proofs.iter().map(|proof| proof.keyset_id)).await;
        Ok((proofs, fee))
    }

    /// Redeems a token and credits its account, whose key hash is `key_hash`.
    ///
    /// A token that was credited before is [`RedeemError::Known`], with the account as it is now.
    /// The caller must not drop this future: run it in a task of its own.
    ///
    /// # Errors
    /// See [`RedeemError`].
    pub async fn redeem(&self, token: &Token, kind: AccountKind, key_hash: &str) -> Result<Account, RedeemError> {
        self.redeem_to(token, Target::Own(kind), key_hash).await
    }

    /// Redeems a token and credits it to an account that exists. Returns what was credited, also
    /// when the same token was credited to the same account before.
    ///
    /// # Errors
    /// See [`RedeemError`].
    pub async fn top_up(&self, token: &Token, key_hash: &str, account: AccountId) -> Result<Msat, RedeemError> {
        let outcome = self.redeem_to(token, Target::Existing(account), key_hash).await;
        match outcome {
            Ok(_) => {}
            Err(RedeemError::Known(known) | RedeemError::ToppedUp(known)) if known.id == account => {}
            Err(error) => return Err(error),
        }
        let mut reader = self.store().read().acquire().await.map_err(StoreError::from)?;
        let operation = journal::find_by_token(&mut reader, key_hash).await?;
        operation.map(|operation| operation.amount).ok_or(RedeemError::Overlap)
    }

    /// Takes back a token of the node's own, which the operation `source` made and nobody claimed, as
    /// income.
    ///
    /// # Errors
    /// See [`RedeemError`].
    pub(super) async fn take_back(&self, token: &Token, source: &str) -> Result<(), RedeemError> {
        // Its name among the tokens that were accepted: one operation takes it back.
        self.redeem_to(token, Target::Unclaimed(source), &format!("unclaimed {source}")).await.map(drop)
    }

    async fn redeem_to(&self, token: &Token, target: Target<'_>, key_hash: &str) -> Result<Account, RedeemError> {
        // Until the mints were asked, the counters may be behind: a swap would be given the signatures of another.
        if let Some(why) = self.halted() {
            return Err(RedeemError::Halted(why));
        }
        let lane = self.inner.redeeming.lane(key_hash);
        let _turn = lane.lock().await;
        self.refuse_known(token, key_hash).await?;
        let outcome = self.redeem_new(token, target, key_hash).await;
        self.counts().redemptions.note(match &outcome {
            Ok(_) => "credited",
            Err(error) => error.name(),
        });
        outcome
    }

    /// A token that was not accepted before.
    async fn redeem_new(&self, token: &Token, target: Target<'_>, key_hash: &str) -> Result<Account, RedeemError> {
        let Some(trusted) = self.trusted(&token.mint) else { return self.import(token, target, key_hash).await };
        let version = trusted.keysets.version();
        match self.redeem_once(trusted, token, target, key_hash).await {
            // The mint rotated its keysets or changed a fee. The token is untouched: look, and try once
            // more, unless nothing has changed.
            Err(RedeemError::Stale)
                if trusted.keysets.refresh_unless_changed(version).await.map_err(unreachable)? =>
            {
                self.redeem_once(trusted, token, target, key_hash).await
            }
            outcome => outcome,
        }
    }

    /// Refuses a token that was accepted before, with what became of it; and one whose proofs, or some of them, were, in
    /// another token. Here, since what is planned for a token takes counters that nobody uses again.
    async fn refuse_known(&self, token: &Token, key_hash: &str) -> Result<(), RedeemError> {
        let mut reader = self.store().read().acquire().await.map_err(StoreError::from)?;
        let known = journal::find_by_token(&mut reader, key_hash).await?;
        let is_claimed = known.is_none() && journal::is_claimed(&mut reader, &token.secret_hashes).await?;
        drop(reader);
        if is_claimed {
            return Err(self.known_secrets(token).await?);
        }
        let Some(known) = known else { return Ok(()) };
        if known.state.is_open() {
            // Its outcome was not known when it was last asked about: ask again. A refusal gives the
            // token free, and then it is redeemed like any other.
            self.resume_redemption(&known).await;
        }
        match self.accepted(key_hash).await? {
            Some(known) => Err(self.known(&known).await?),
            None => Ok(()),
        }
    }

    async fn redeem_once(
        &self,
        trusted: &Trusted,
        token: &Token,
        target: Target<'_>,
        key_hash: &str,
    ) -> Result<Account, RedeemError> {
        let _rides = matches!(target, Target::Own(AccountKind::Token)).then(|| self.inner.riding.enter());
        let plan = self.plan_redemption(trusted, token, target).await?;
        let credit = token.unit.to_msat(sum(&plan.outputs)).ok_or(RedeemError::FeesExceed)?;
        let operation = Operation {
            state: State::Acting,
            plan: write_json(&plan)?,
            ..Operation::planned(Kind::Redeem, AccountId(0), &token.mint, token.unit, credit)
        };
        let operation = match self.write_redemption(token, target, key_hash, operation).await {
            Ok(operation) => operation,
            Err(RedeemError::Wallet(WalletError::Store(error))) if error.is_duplicate() => {
                return Err(self.known_secrets(token).await?);
            }
            Err(error) => return Err(error),
        };
        failpoint!("redeem.written");
        // Whoever resumes this operation waits for the first attempt at it.
        let lane = self.inner.redeeming.lane(&operation.id);
        let _sending = lane.lock().await;
        let sent = async {
            let standing = self.send_redemption(trusted, &operation, &plan).await?;
            failpoint!("redeem.swapped");
            self.finish_redemption(trusted, &operation, &plan, standing, Attempt::First).await
        };
        sent.await.map_err(|error| match error {
            // The mint may have acted: what broke afterwards is finished by the journal.
            RedeemError::Wallet(error) => {
                tracing::error!(operation = %operation.id, %error, "a redemption is left to the journal");
                RedeemError::Pending(operation.id.clone())
            }
            decided => decided,
        })
    }

    async fn plan_redemption(&self, trusted: &Trusted, token: &Token, target: Target<'_>) -> Result<Plan, RedeemError> {
        let (mut inputs, fee) = self.open_token(trusted, token).await?;
        for proof in &mut inputs {
            // Sent along it would tell the mint which issuance this was.
            proof.dleq = None;
            let keys = self.inner_keys(trusted, proof).await?;
            if keys.amount_key(proof.amount).is_none() {
                return Err(TokenFault::Malformed("its keyset has no such amount").into());
            }
        }
        let net =
            token.unit.floor(token.face).checked_sub(fee).filter(|net| *net > 0).ok_or(RedeemError::FeesExceed)?;
        let active = trusted.keysets.active(token.unit).await.map_err(unreachable)?;
        let outputs = match target {
            Target::Own(AccountKind::Token) => self.split_for_change(trusted, token.unit, net, &active.amounts).await?,
            _ => self.split_kept(trusted, token.unit, net, &active.amounts).await?,
        };
        if sum(&outputs) != net {
            return Err(TokenFault::Malformed("its value cannot be received").into());
        }
        // Counters that nothing comes of make a gap, in which a recovery may stop looking.
        if let Some(held) = trusted.http.rests() {
            return Err(unreachable(WalletError::Mint(MintError::Held(held))));
        }
        // Where fees are rounded up, a swap that is shared may give more than its parts.
        let spare = if fee > 0 { batch::SPARE } else { 0 };
        let counter = self.reserve_counters(active.id, outputs.len().saturating_add(spare)).await?;
        let keyset = active.id.to_string();
        Ok(Plan { inputs, keyset, counter, outputs, send: Vec::new(), fee, spare, bonus: Vec::new() })
    }

    async fn inner_keys(&self, trusted: &Trusted, proof: &Proof) -> Result<Arc<cdk::nuts::Keys>, RedeemError> {
        trusted.keysets.keys(proof.keyset_id).await.map_err(unreachable)
    }

    /// Takes `count` NUT-13 counters that nobody else will use. Returns the first.
    pub(super) async fn reserve_counters(&self, keyset: cdk::nuts::Id, count: usize) -> Result<u32, WalletError> {
        let count = u32::try_from(count).map_err(|_| WalletError::Ecash("too many outputs".into()))?;
        let end = self.inner.ecash.increment_keyset_counter(&keyset, count).await?;
        end.checked_sub(count).ok_or_else(|| WalletError::Ecash("the counter went backwards".into()))
    }

    /// Step 1. The account is found here, or created at the operation's mint.
    ///
    /// # Errors
    /// [`RedeemError::Pending`] when it may be written, and nobody knows.
    pub(super) async fn write_redemption(
        &self,
        token: &Token,
        target: Target<'_>,
        key_hash: &str,
        mut operation: Operation,
    ) -> Result<Operation, RedeemError> {
        let now_ms = self.clock().now_ms();
        let ledger = &self.inner.ledger;
        let mut tx = self.store().begin_short(Durability::Full).await?;
        let (mint, unit) = (operation.mint.as_str(), operation.unit.as_str());
        operation.account = match target {
            Target::Existing(account) => account,
            Target::Unclaimed(_) => ledger.house().income,
            Target::Own(kind) => {
                books::ensure_client(&mut tx, ledger.next_id(), kind, key_hash, mint, unit, now_ms).await?.id
            }
        };
        if let Target::Unclaimed(source) = target {
            operation.kind = Kind::Reclaim;
            operation.takes_back = Some(source.to_owned());
            // From here on nobody is given the token any more.
            if !journal::note_fate(&mut tx, source, Fate::Open, Fate::Reclaiming).await? {
                return Err(RedeemError::Overlap);
            }
        }
        journal::insert(&mut tx, &mut operation, Some(key_hash), ledger.owner(), now_ms).await?;
        journal::claim_secrets(&mut tx, &operation.id, &token.secret_hashes).await?;
        match tx.commit().await {
            // Should it be written after all, the journal redeems the token: it must not be called untouched.
            Err(error @ StoreError::Unconfirmed(_)) => {
                tracing::error!(operation = %operation.id, %error, "nobody knows whether a redemption was begun");
                Err(RedeemError::Pending(operation.id))
            }
            committed => Ok(committed.map(|()| operation)?),
        }
    }

    /// Books the outcome of a redemption's swap.
    pub(super) async fn finish_redemption(
        &self,
        trusted: &Trusted,
        operation: &Operation,
        plan: &Plan,
        standing: Standing,
        attempt: Attempt,
    ) -> Result<Account, RedeemError> {
        match self.finish_act(trusted, operation, Act::received(plan), standing, attempt).await? {
            Ended::Kept { proofs, new } => {
                failpoint!("redeem.kept");
                let bonus =
                    operation.unit.to_msat(sum_proofs(&proofs).saturating_sub(sum(&plan.outputs))).unwrap_or_default();
                // The inputs of a swap are worth nothing any more. A power loss that undoes this leaves the plan, by which
                // the mint gives the same coins again, and what the client spent of them meanwhile is undone too.
                let account = self.credit(operation, bonus, ("", ""), Durability::ProcessSafe).await?;
                failpoint!("redeem.credited");
                self.restock(trusted, operation, &new, attempt).await;
                if operation.kind == Kind::Reclaim {
                    // Kept as given away until now. Nothing counts them, so nothing hangs on this.
                    self.inner.ecash.update_proofs_state(plan.input_ys()?, ProofState::Spent).await?;
                }
                Ok(account)
            }
            Ended::NotDone(MintError::Refused(refusal)) => {
                let fate = if refusal == Refusal::Spent { Fate::Collected } else { Fate::Open };
                self.refuse(operation, &format!("{refusal:?}"), fate).await?;
                Err(refused(refusal))
            }
            Ended::NotDone(error) => {
                self.refuse(operation, &error.to_string(), Fate::Open).await?;
                Err(unreachable(WalletError::Mint(error)))
            }
            Ended::Open(_) => Err(RedeemError::Pending(operation.id.clone())),
        }
    }

    /// Ends a redemption that did not happen, and gives its token free. `fate` is that of a token
    /// which was to be taken back.
    pub(super) async fn refuse(&self, operation: &Operation, why: &str, fate: Fate) -> Result<(), RedeemError> {
        let now_ms = self.clock().now_ms();
        let mut tx = self.store().begin(Durability::Full).await?;
        let failed = Step { state: State::Failed, plan: "", result: why };
        if journal::advance(&mut tx, &operation.id, self.inner.ledger.owner(), failed, now_ms).await? {
            journal::release_claim(&mut tx, &operation.id).await?;
            if let Some(source) = &operation.takes_back {
                journal::note_fate(&mut tx, source, Fate::Reclaiming, fate).await?;
            }
        }
        tx.commit().await?;
        failpoint!("redeem.refused");
        Ok(())
    }

    /// Whether a token was accepted before, whatever became of it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn has_accepted(&self, token_hash: &str) -> Result<bool, RedeemError> {
        Ok(self.accepted(token_hash).await?.is_some())
    }

    /// The operation that accepted this token, if one did and it was not refused.
    async fn accepted(&self, token_hash: &str) -> Result<Option<Operation>, RedeemError> {
        let mut reader = self.store().read().acquire().await.map_err(StoreError::from)?;
        Ok(journal::find_by_token(&mut reader, token_hash).await?)
    }

    /// What a repeated token gets: its account, or word that it is still undecided.
    async fn known(&self, operation: &Operation) -> Result<RedeemError, RedeemError> {
        if operation.state.is_open() {
            return Ok(RedeemError::Pending(operation.id.clone()));
        }
        if operation.state == State::Failed {
            return Ok(RedeemError::SourceFailed(operation.result.clone()));
        }
        let mut reader = self.store().read().acquire().await.map_err(StoreError::from)?;
        let account = books::find(&mut *reader, operation.account).await?;
        let account = account.map(Box::new).ok_or_else(|| WalletError::Ecash("the account is gone".into()))?;
        // Whoever knows a token that filled somebody's key must not come into that key.
        let opens = journal::opens_account(&mut reader, &operation.id).await?;
        Ok(if opens { RedeemError::Known(account) } else { RedeemError::ToppedUp(account) })
    }

    /// Proofs of this token were claimed before. All of them by one operation and nothing else:
    /// the same money in another encoding. Otherwise it is refused whole.
    pub(super) async fn known_secrets(&self, token: &Token) -> Result<RedeemError, RedeemError> {
        let mut reader = self.store().read().acquire().await.map_err(StoreError::from)?;
        let mut same: Option<Operation> = None;
        for hash in &token.secret_hashes {
            match journal::find_by_secret(&mut reader, hash).await? {
                Some((operation, count))
                    if count == token.secret_hashes.len()
                        && same.as_ref().is_none_or(|same| same.id == operation.id) =>
                {
                    same = Some(operation);
                }
                _ => return Ok(RedeemError::Overlap),
            }
        }
        drop(reader);
        match same {
            Some(operation) => self.known(&operation).await,
            None => Ok(RedeemError::Overlap),
        }
    }
}

/// What a mint's refusal of a token means.
pub(super) fn refused(refusal: Refusal) -> RedeemError {
    match refusal {
        Refusal::Spent => RedeemError::Spent,
        Refusal::RateLimited(secs) => RedeemError::RateLimited(secs),
        Refusal::Pending => RedeemError::Refused("its proofs are pending at the mint".into()),
        Refusal::Stale => RedeemError::Stale,
        Refusal::OutputsSigned => RedeemError::Refused("the outputs were signed before".into()),
        Refusal::Signature => RedeemError::Refused("it wants a signature that this node cannot give".into()),
        Refusal::Quote(_) | Refusal::UnknownQuote => RedeemError::Refused("it speaks of a quote".into()),
        foreign @ Refusal::Foreign(_) => RedeemError::Refused(foreign.to_string()),
        Refusal::Unclear(why) | Refusal::Other(why) => RedeemError::Refused(why),
    }
}

/// Why a mint that was asked about a token did not answer. The token is untouched.
pub(super) fn unreachable(error: WalletError) -> RedeemError {
    match error {
        WalletError::Mint(MintError::Refused(Refusal::RateLimited(secs))) => RedeemError::RateLimited(secs),
        WalletError::Mint(MintError::Held(held)) if held.is_limit() => RedeemError::RateLimited(held.secs()),
        WalletError::Mint(MintError::Held(held)) => RedeemError::Unreachable(held.secs()),
        WalletError::Mint(_) => RedeemError::Unreachable(RETRY_SECS),
        other => RedeemError::Wallet(other),
    }
}
