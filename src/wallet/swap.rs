//! A swap (NUT-03) that can be finished whatever happens.
//!
//! Everything needed is in the [`Plan`], which the journal stores before the mint hears of it: the
//! inputs, and the counters from which the outputs derive. Deriving them again gives the same
//! blinded messages, so the mint can be asked for its signatures, and sending the same swap twice
//! cannot pay twice.
//!
//! One request can carry out several plans. It is all or nothing at the mint, but each plan keeps its
//! own inputs and outputs, so what became of it is seen from them alone, and it can be sent again
//! alone: if the request that was shared arrives later, its inputs are spent and it does nothing; if
//! it was there before, the lone one does nothing, and the outputs are found signed.

use cdk::nuts::{BlindSignature, Proof, PublicKey, State, SwapRequest};
use serde::{Deserialize, Serialize};

use super::keysets::Keysets;
use super::mint::HttpMint;
use super::outputs::{self, Outputs, Signed};
use super::refusal::{MintError, Refusal};
use super::{Seed, WalletError};

/// Inputs and outputs of one swap.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub inputs: Vec<Proof>,
    /// Keyset of the outputs.
    pub keyset: String,
    /// NUT-13 counter of the first output.
    pub counter: u32,
    /// Units of each output, ascending (so that their order gives nothing away).
    pub outputs: Vec<u64>,
    /// How many of the outputs, by position, are to leave the wallet in a token.
    #[serde(default)]
    pub send: Vec<usize>,
    /// Input fee, in units.
    pub fee: u64,
    /// Counters after those of `outputs` that are kept for `bonus`.
    #[serde(default)]
    pub spare: usize,
    /// Units of further outputs, for a request that is shared only: what its fee, which is rounded up
    /// once, is less than the sum of fees that were rounded up each.
    #[serde(default)]
    pub bonus: Vec<u64>,
}

/// How a swap that was sent (once or more) stands.
#[derive(Clone, Debug)]
pub enum Standing {
    /// The mint signed; these are the proofs, in the order of the plan's outputs.
    Done(Vec<Proof>),
    /// The mint surely did not and will not: the inputs are still whole, or spent by somebody else.
    Refused(Refusal),
    /// The inputs are whole and nothing was signed, and so the mint was asked again, and refused. A request
    /// before that one may be under way still, so this takes more than one answer, too.
    RefusedAgain(Refusal),
    /// The inputs are spent, and the mint says that it signed nothing for them, although it was asked
    /// to. Somebody else was faster, or one of the two is not true: this takes more than one answer.
    Denied,
    /// The only request that there was never reached the mint, or was kept back.
    NotSent(MintError),
    /// Nobody knows. Try again later.
    Unknown(MintError),
}

impl Plan {
    /// NUT-07 identifiers of the inputs.
    ///
    /// # Errors
    /// When a secret does not hash to a point.
    pub fn input_ys(&self) -> Result<Vec<PublicKey>, WalletError> {
        ys(&self.inputs)
    }

    /// The outputs, derived anew.
    fn outputs(&self, seed: &Seed) -> Result<Outputs, WalletError> {
        Outputs::derive(seed, &self.keyset, self.counter, &self.outputs)
    }

    /// The further outputs of a shared request, derived anew.
    fn bonus_outputs(&self, seed: &Seed) -> Result<Outputs, WalletError> {
        let counter = u32::try_from(self.outputs.len()).ok().and_then(|count| self.counter.checked_add(count));
        let counter = counter.ok_or_else(|| WalletError::Ecash("a counter is too large".into()))?;
        Outputs::derive(seed, &self.keyset, counter, &self.bonus)
    }
}

/// The answer to a request that carried out one or several plans.
#[derive(Debug)]
pub enum Posted {
    /// The mint signed: how each plan stands, in their order.
    Signed(Vec<Standing>),
    /// The mint did nothing, for this reason; unless that is [`Refusal::Foreign`] or [`Refusal::Unclear`].
    Refused(Refusal),
    /// It surely never heard of it.
    NotSent(MintError),
    /// Nobody knows.
    Lost(MintError),
}

/// NUT-07 identifiers of proofs.
///
/// # Errors
/// When a secret does not hash to a point.
pub fn ys(proofs: &[Proof]) -> Result<Vec<PublicKey>, WalletError> {
    proofs.iter().map(|proof| proof.y().map_err(|error| WalletError::Ecash(error.to_string()))).collect()
}

/// Sends the swap for the first time.
///
/// # Errors
/// When the plan itself is unusable; what the mint says is in the [`Standing`].
pub async fn send(mint: &HttpMint, keysets: &Keysets, seed: &Seed, plan: &Plan) -> Result<Standing, WalletError> {
    match post(mint, keysets, seed, &[plan]).await? {
        Posted::Signed(standings) => only(standings),
        Posted::Refused(refusal) => refused(mint, keysets, seed, plan, refusal).await,
        Posted::NotSent(error) => Ok(Standing::NotSent(error)),
        Posted::Lost(why) => only(resolve_lost(mint, keysets, seed, &[plan], &why).await?),
    }
}

/// What a refusal of the only request that there was, for this plan alone, means.
///
/// # Errors
/// When the plan itself is unusable.
pub async fn refused(
    mint: &HttpMint,
    keysets: &Keysets,
    seed: &Seed,
    plan: &Plan,
    refusal: Refusal,
) -> Result<Standing, WalletError> {
    match refusal {
        // Somebody else was faster, unless something on the way has sent this request twice.
        Refusal::Spent => {
            Ok(match restored(mint, keysets, seed, &[plan]).await?.pop().flatten() {
                // A mint that cannot restore at all leaves its word.
                None | Some(Standing::Unknown(MintError::Refused(Refusal::Other(_) | Refusal::Foreign(404 | 405)))) => {
                    Standing::Refused(Refusal::Spent)
                }
                Some(standing) => standing,
            })
        }
        Refusal::OutputsSigned | Refusal::Pending | Refusal::Foreign(_) | Refusal::Unclear(_) => {
            resolve(mint, keysets, seed, plan).await
        }
        refusal => Ok(Standing::Refused(refusal)),
    }
}

/// How plans stand whose shared request was refused, if something on the way had sent it twice, and
/// the mint has signed it all. `None`: it has not.
///
/// # Errors
/// When a plan itself is unusable.
pub async fn signed_before(
    mint: &HttpMint,
    keysets: &Keysets,
    seed: &Seed,
    plans: &[&Plan],
) -> Result<Option<Vec<Standing>>, WalletError> {
    let found: Option<Vec<Standing>> = restored(mint, keysets, seed, plans).await?.into_iter().collect();
    Ok(found.filter(|found| found.iter().all(|standing| matches!(standing, Standing::Done(_)))))
}

/// Finds out from evidence how a swap stands that may have been sent before, and finishes it.
///
/// # Errors
/// When the plan itself is unusable.
pub async fn resolve(mint: &HttpMint, keysets: &Keysets, seed: &Seed, plan: &Plan) -> Result<Standing, WalletError> {
    only(resolve_all(mint, keysets, seed, &[plan]).await?)
}

/// Finds out from evidence how swaps stand whose request was just answered by nothing usable, and finishes them. Where
/// it stays unknown, `why` is the reason. The standings are in the order of the plans.
///
/// # Errors
/// When a plan itself is unusable.
pub async fn resolve_lost(
    mint: &HttpMint,
    keysets: &Keysets,
    seed: &Seed,
    plans: &[&Plan],
    why: &MintError,
) -> Result<Vec<Standing>, WalletError> {
    tracing::warn!(%why, plans = plans.len(), mint = mint.url(), "the answer to a swap was lost; asking the mint what became of it");
    let standings = resolve_all(mint, keysets, seed, plans).await?;
    Ok(standings
        .into_iter()
        .map(|standing| match standing {
            Standing::Unknown(_) => Standing::Unknown(why.clone().unanswered()),
            known => known,
        })
        .collect())
}

/// Finds out from evidence how a swap stands, and sends nothing. `None`: its inputs are unspent and
/// its outputs are not signed.
///
/// # Errors
/// When the plan itself is unusable.
pub async fn look(
    mint: &HttpMint,
    keysets: &Keysets,
    seed: &Seed,
    plan: &Plan,
) -> Result<Option<Standing>, WalletError> {
    if let Some(standing) = restored(mint, keysets, seed, &[plan]).await?.pop().flatten() {
        return Ok(Some(standing));
    }
    let states = match mint.states(plan.input_ys()?).await {
        Ok(states) => states,
        Err(error) => return Ok(Some(Standing::Unknown(error.unanswered()))),
    };
    if states.contains(&State::Pending) {
        return Ok(Some(unknown("the inputs are pending at the mint")));
    }
    if states.contains(&State::Spent) {
        // Either our swap was signed after the first look, or somebody else spent the inputs.
        let again = restored(mint, keysets, seed, &[plan]).await?.pop().flatten();
        return Ok(Some(again.unwrap_or(Standing::Denied)));
    }
    Ok(None)
}

/// Finds out how plans stand that may have been sent in one request. Nothing is concluded from a
/// question that was not answered.
async fn resolve_all(
    mint: &HttpMint,
    keysets: &Keysets,
    seed: &Seed,
    plans: &[&Plan],
) -> Result<Vec<Standing>, WalletError> {
    let mut found = restored(mint, keysets, seed, plans).await?;
    let open = undecided(&found, plans);
    if open.is_empty() {
        return all(found);
    }
    let mut ys = Vec::new();
    for (_, plan) in &open {
        ys.extend(plan.input_ys()?);
    }
    let states = match mint.states(ys).await {
        Ok(states) => states,
        Err(error) => return all(fill(found, &Standing::Unknown(error.unanswered()))),
    };
    let mut states = states.into_iter();
    let mut whole = true;
    for (at, plan) in &open {
        let states: Vec<State> = states.by_ref().take(plan.inputs.len()).collect();
        if states.contains(&State::Pending) {
            put(&mut found, *at, unknown("the inputs are pending at the mint"));
        } else if states.contains(&State::Spent) {
            // Either our swap was signed after the first look, or somebody else spent the inputs.
            let again = restored(mint, keysets, seed, &[*plan]).await?.pop().flatten();
            put(&mut found, *at, again.unwrap_or(Standing::Denied));
        } else {
            continue;
        }
        whole = false;
    }
    let open = undecided(&found, plans);
    if open.is_empty() {
        return all(found);
    }
    if !whole || open.len() != plans.len() {
        // What is left of a shared request does not add up; each is sent alone, another time.
        return all(fill(found, &unknown("nothing has happened to it yet")));
    }
    send_again(mint, keysets, seed, plans).await
}

/// All inputs are unspent: nothing has happened yet. The same swap again is safe: it can succeed once.
async fn send_again(
    mint: &HttpMint,
    keysets: &Keysets,
    seed: &Seed,
    plans: &[&Plan],
) -> Result<Vec<Standing>, WalletError> {
    // What is said to it says nothing of a request before it, which may be under way still.
    let error = match post(mint, keysets, seed, plans).await? {
        Posted::Signed(standings) => return Ok(standings),
        Posted::Refused(limited @ Refusal::RateLimited(_)) => MintError::Refused(limited),
        Posted::Refused(refusal) => {
            let found = restored(mint, keysets, seed, plans).await?;
            let rest = match refusal {
                Refusal::OutputsSigned | Refusal::Pending => unknown("the mint contradicts itself"),
                // Of a request that is shared, it may be about another part.
                refusal if plans.len() > 1 => Standing::Unknown(MintError::Refused(refusal).unanswered()),
                Refusal::Spent => Standing::Denied,
                // A request before it would meet the same keysets and fees.
                Refusal::Stale => Standing::Refused(Refusal::Stale),
                refusal => Standing::RefusedAgain(refusal),
            };
            return all(fill(found, &rest));
        }
        Posted::NotSent(error) | Posted::Lost(error) => error,
    };
    let error = error.unanswered();
    Ok(plans.iter().map(|_| Standing::Unknown(error.clone())).collect())
}

/// Sends one request that carries out these plans: one as it is, several with their bonus.
///
/// # Errors
/// When a plan itself is unusable.
pub async fn post(mint: &HttpMint, keysets: &Keysets, seed: &Seed, plans: &[&Plan]) -> Result<Posted, WalletError> {
    let mut parts = Vec::new();
    for (at, plan) in plans.iter().enumerate() {
        parts.push((at, plan.outputs(seed)?));
        if plans.len() > 1 && !plan.bonus.is_empty() {
            parts.push((at, plan.bonus_outputs(seed)?));
        }
    }
    let inputs = plans.iter().flat_map(|plan| plan.inputs.iter().cloned()).collect();
    // Ascending, so that their order does not tell what belongs together.
    let mut outputs: Vec<_> = (0_usize..)
        .zip(&parts)
        .flat_map(|(part, (_, outputs))| {
            (0_usize..).zip(outputs.messages()).map(move |(at, output)| (part, at, output))
        })
        .collect();
    outputs.sort_by_key(|(_, _, output)| output.amount);
    let request = SwapRequest::new(inputs, outputs.iter().map(|(_, _, output)| output.clone()).collect());
    let signatures = match mint.swap(&request).await {
        Ok(answer) => answer.signatures,
        Err(MintError::Refused(refusal)) => return Ok(Posted::Refused(refusal)),
        Err(error) if error.was_not_sent() => return Ok(Posted::NotSent(error)),
        Err(error) => return Ok(Posted::Lost(error)),
    };
    if signatures.len() != outputs.len() {
        return Ok(Posted::Lost(MintError::Unknown("the number of signatures is wrong".into())));
    }
    let mut signed: Vec<_> =
        outputs.into_iter().zip(signatures).map(|((part, at, _), sig)| ((part, at), sig)).collect();
    signed.sort_by_key(|(place, _)| *place);
    let mut standings: Vec<Standing> = Vec::new();
    for (part, (plan, outputs)) in parts.iter().enumerate() {
        let of_part = signed.iter().filter(|((place, _), _)| *place == part);
        let signatures: Vec<BlindSignature> = of_part.map(|(_, signature)| signature.clone()).collect();
        let standing = standing(outputs.unblind(keysets, signatures).await?);
        match standings.get_mut(*plan) {
            None => standings.push(standing),
            Some(before) => *before = joined(std::mem::replace(before, unknown("")), standing),
        }
    }
    Ok(Posted::Signed(standings))
}

/// What the mint has signed of each plan's outputs. `None`: nothing.
async fn restored(
    mint: &HttpMint,
    keysets: &Keysets,
    seed: &Seed,
    plans: &[&Plan],
) -> Result<Vec<Option<Standing>>, WalletError> {
    let mut parts = Vec::new();
    let mut messages = Vec::new();
    for plan in plans {
        let (outputs, bonus) = (plan.outputs(seed)?, plan.bonus_outputs(seed)?);
        messages.extend(outputs.messages());
        messages.extend(bonus.messages());
        parts.push((outputs, bonus));
    }
    if messages.is_empty() {
        return Ok(plans.iter().map(|_| None).collect());
    }
    let answer = match outputs::ask(mint, messages).await {
        Ok(answer) => answer,
        Err(error) => {
            let error = error.unanswered();
            return Ok(plans.iter().map(|_| Some(Standing::Unknown(error.clone()))).collect());
        }
    };
    let mut found = Vec::new();
    for (outputs, bonus) in parts {
        found.push(match outputs.pick(keysets, &answer).await? {
            Signed::None => None,
            signed => Some(match bonus.pick(keysets, &answer).await? {
                // It was sent alone.
                Signed::None => standing(signed),
                bonus => joined(standing(signed), standing(bonus)),
            }),
        });
    }
    Ok(found)
}

fn standing(signed: Signed) -> Standing {
    match signed {
        Signed::Proofs(proofs) => Standing::Done(proofs),
        Signed::None => unknown("the mint signed nothing"),
        Signed::Unknown(error) => Standing::Unknown(error.unanswered()),
    }
}

fn unknown(why: &str) -> Standing {
    Standing::Unknown(MintError::Unknown(why.to_owned()))
}

/// A plan's outputs and its bonus, which the mint signs together.
fn joined(outputs: Standing, bonus: Standing) -> Standing {
    match (outputs, bonus) {
        (Standing::Done(mut proofs), Standing::Done(more)) => {
            proofs.extend(more);
            Standing::Done(proofs)
        }
        (Standing::Done(_), undecided) | (undecided, _) => undecided,
    }
}

/// The plans that nothing is known of yet, with their place.
fn undecided<'a>(found: &[Option<Standing>], plans: &[&'a Plan]) -> Vec<(usize, &'a Plan)> {
    let places = found.iter().zip(plans).enumerate();
    places.filter(|(_, (found, _))| found.is_none()).map(|(at, (_, plan))| (at, *plan)).collect()
}

fn put(found: &mut [Option<Standing>], at: usize, standing: Standing) {
    if let Some(place) = found.get_mut(at) {
        *place = Some(standing);
    }
}

/// Says the same of all that is undecided.
fn fill(found: Vec<Option<Standing>>, rest: &Standing) -> Vec<Option<Standing>> {
    found.into_iter().map(|found| Some(found.unwrap_or_else(|| rest.clone()))).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of its callers")]
fn all(found: Vec<Option<Standing>>) -> Result<Vec<Standing>, WalletError> {
    Ok(found.into_iter().map(|found| found.unwrap_or_else(|| unknown("undecided"))).collect())
}

fn only(mut standings: Vec<Standing>) -> Result<Standing, WalletError> {
    standings.pop().ok_or_else(|| WalletError::Ecash("a swap has no outcome".into()))
}
