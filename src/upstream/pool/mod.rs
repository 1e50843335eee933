//! All upstreams, and the leave to ask one of them.

mod reload;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::bar::Bar;
use super::barred::Marks;
use super::choice::{Entrant, order};
use super::health::{Availability, Health, Ticket};
use super::lease::Lease;
use super::model_path::ModelPath;
use super::models::Names;
use super::outlay::{Outlay, Outlays};
use super::provider::Upstream;
use super::sticky::{Session, Sticky};
use crate::clock::SharedClock;
use crate::config::{self, Choice, Live, Statuses, Upstreams};
use crate::dialect::{Feature, Needs, WireFormat};
use crate::net::NetError;
use crate::net::way::Way;
use crate::store::StoreError;
use crate::vault::{Vault, VaultError};

/// Most models of one upstream whose health is remembered. Clients can invent names.
const MOST_MODELS: usize = 1_000;
/// Where the health of an upstream as a whole is kept: no model has no name.
pub(super) const ACCOUNT: &str = "";

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error("upstream {name}: {error}")]
    Upstream { name: String, error: NetError },
    #[error("the stored upstream {0} cannot be read")]
    Unreadable(String),
}

/// Why no upstream can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// There are none at all.
    None,
    /// None of them has this model.
    Unserved,
    /// Some have it, but none in this wire format.
    NotServed,
    /// Some do, but lack this.
    Lacking(Feature),
    /// All that could are left alone, or used up, for so many seconds.
    Out { secs: u64 },
    /// All that could have as many requests as they take.
    Busy,
    /// All were tried.
    Exhausted,
}

/// One upstream, and what is known of it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) upstream: Arc<Upstream>,
    /// What it was made of.
    described: config::Upstream,
    /// By model.
    health: Mutex<HashMap<String, Health>>,
    /// When an attempt last ended, in ms.
    pub(super) heard_ms: AtomicI64,
    pub(super) marks: Marks,
    /// When it had failed too often for some model, after which nothing was answered, in ms; the least number there is:
    /// not so.
    pub(super) down_ms: AtomicI64,
    /// Since when it refuses the account, as far as its status says, and has answered nobody; as above.
    pub(super) locked_ms: AtomicI64,
}

/// How one upstream is, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub name: Arc<str>,
    pub kind: &'static str,
    /// Why it is not asked until the operator clears it, and since when, in ms since the Unix epoch.
    pub bar: Option<(Bar, i64)>,
    /// A spend cap is reached.
    pub is_capped: bool,
    /// Models that it is not asked for now, and for how many seconds.
    pub out: Vec<(String, u64)>,
    /// Since when it has failed too often for some model and answered for none, in ms. `None`: that is not so.
    pub down_since_ms: Option<i64>,
    /// Since when it has refused the operator's account, as far as its status says, and answered nobody, in ms.
    pub locked_since_ms: Option<i64>,
    /// Whether this process has heard of it at all.
    pub was_heard: bool,
    /// It goes last, for some model at least.
    pub rests: bool,
    /// What was spent there, in USD.
    pub today_usd: rust_decimal::Decimal,
    pub month_usd: rust_decimal::Decimal,
}

/// A model at an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calling {
    pub upstream: Arc<str>,
    /// What it calls it.
    pub model: String,
    /// What it takes on top of its list price, as a factor.
    pub fee: rust_decimal::Decimal,
}

/// All upstreams.
#[derive(Debug)]
pub struct Pool {
    /// Replaced as a whole: a request under way keeps those that it was planned with.
    members: Live<Vec<Arc<Member>>>,
    ground: Ground,
    choice: Choice,
    /// Whose turn it is, where they are asked one after the other.
    pub(super) turns: AtomicU64,
    max_attempts: usize,
    /// After which statuses another is asked.
    pub retried: Statuses,
    pub(super) breaker_failures: u32,
    /// How long a request waits for a place.
    patience: Duration,
    /// Told when a place becomes free.
    pub(super) freed: Notify,
    pub(super) sticky: Sticky,
    outlays: Outlays,
    pub(super) clock: SharedClock,
}

/// What the upstreams are made of, beside what is stored.
#[derive(Debug)]
struct Ground {
    rules: Upstreams,
    vault: Vault,
    way: Way,
    /// Of the stored ones that this process has taken up.
    version: Mutex<Option<String>>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Requirements<'a> {
    pub format: WireFormat,
    pub names: Names<'a>,
    /// Tags that the upstream must have.
    pub tags: &'a [String],
    /// What it must be able to.
    pub needs: Needs,
    /// Its kind, where only one will do.
    pub kind: Option<&'a str>,
}

/// What could serve one request.
#[derive(Debug)]
pub struct Plan {
    /// Members that were not tried yet, and what they call the model.
    left: Vec<(Arc<Member>, String)>,
    attempts_left: usize,
    session: Option<Session>,
    tried: bool,
}

/// How long to wait for a spend cap: until midnight at most, and nobody has to know that it is one.
const CAPPED_SECS: u64 = 3_600;
/// The same for an operator to come.
const BARRED_SECS: u64 = 300;

impl Pool {
    fn members(&self) -> Arc<Vec<Arc<Member>>> {
        self.members.get()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members().is_empty()
    }

    /// Whether there is something to choose.
    #[must_use]
    pub fn has_choice(&self) -> bool {
        self.members().len() > 1
    }

    /// How each upstream is.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        let now_ms = self.clock.now_ms();
        self.members().iter().map(|member| self.condition(member, now_ms)).collect()
    }

    fn condition(&self, member: &Member, now_ms: i64) -> Condition {
        let name = member.upstream.name();
        let (mut out, mut rests) = (Vec::new(), false);
        for (model, health) in member.health().iter_mut() {
            match health.availability(now_ms) {
                Availability::Out { until_ms } => out.push((model.clone(), secs_until(until_ms, now_ms))),
                availability => rests |= availability == Availability::Resting,
            }
        }
        out.sort();
        let (today_usd, month_usd) = self.outlays.spent_usd(name, now_ms);
        let is_capped = self.is_capped(member, now_ms);
        let (kind, bar) = (member.upstream.label(), member.marks.bar());
        let since = |at: &AtomicI64| Some(at.load(Ordering::Relaxed)).filter(|at_ms| *at_ms != i64::MIN);
        Condition {
            name: Arc::clone(name),
            kind,
            bar,
            is_capped,
            out,
            down_since_ms: since(&member.down_ms),
            locked_since_ms: since(&member.locked_ms),
            was_heard: since(&member.heard_ms).is_some(),
            rests,
            today_usd,
            month_usd,
        }
    }

    /// What clients are told about who serves them: the kind, where there is only one.
    #[must_use]
    pub fn label(&self) -> &'static str {
        let members = self.members();
        let mut labels = members.iter().map(|member| member.upstream.label());
        match labels.next() {
            Some(first) if labels.all(|label| label == first) => first,
            _ => config::UpstreamKind::Generic.name(),
        }
    }

    /// The longest that an upstream may be silent.
    #[must_use]
    pub fn longest_silence(&self) -> Option<Duration> {
        self.members().iter().map(|member| member.upstream.timeouts.idle).max()
    }

    /// The upstreams of which nothing was heard for so long as each of them says, or as is `usual`, and the model to
    /// ask them for.
    #[must_use]
    pub fn silent(&self, usual: Option<Duration>) -> Vec<(Arc<str>, String)> {
        let now_ms = self.clock.now_ms();
        let silent = |member: &Arc<Member>| {
            let (upstream, heard_ms) = (&member.upstream, member.heard_ms.load(Ordering::Relaxed));
            let silence_ms = i64::try_from(upstream.probed_after(usual)?.as_millis()).unwrap_or(i64::MAX);
            let model = upstream.probe_model.clone()?;
            (heard_ms <= now_ms.saturating_sub(silence_ms)).then(|| (Arc::clone(upstream.name()), model))
        };
        self.members().iter().filter_map(silent).collect()
    }

    /// The name of a conversation as it is remembered.
    #[must_use]
    pub fn session(&self, payer: &str, name: &str) -> Session {
        self.sticky.session(payer, name)
    }

    /// Whether some upstream with these tags has this model, in whatever wire format.
    #[must_use]
    pub fn serves(&self, names: Names<'_>, tags: &[String]) -> bool {
        self.members().iter().any(|member| member.upstream.called(names, tags).is_some())
    }

    /// Whether some upstream has this wire format.
    #[must_use]
    pub fn speaks(&self, format: WireFormat) -> bool {
        self.members().iter().any(|member| member.upstream.speaks(format))
    }

    /// Whether some upstream could serve this, whether it does just now or not.
    #[must_use]
    pub fn could_serve(&self, wanted: &Requirements<'_>) -> bool {
        self.members().iter().any(|member| member.upstream.offers(wanted).is_ok())
    }

    /// All upstreams.
    #[must_use]
    pub fn upstreams(&self) -> Vec<Arc<Upstream>> {
        self.members().iter().map(|member| Arc::clone(&member.upstream)).collect()
    }

    /// What each upstream that has this model calls it.
    #[must_use]
    pub fn callings(&self, names: Names<'_>) -> Vec<Calling> {
        let calling = |upstream: &Arc<Upstream>| {
            let model = upstream.called(names, &[])?;
            Some(Calling { upstream: Arc::clone(upstream.name()), model, fee: upstream.fee() })
        };
        self.upstreams().iter().filter_map(calling).collect()
    }

    /// By which ways this model is reached: one for each kind of upstream that serves it so.
    #[must_use]
    pub fn ways(&self, names: Names<'_>, tags: &[String]) -> Vec<ModelPath> {
        let members = self.members();
        let kinds = distinct(members.iter());
        let serving = distinct(members.iter().filter(|member| member.upstream.called(names, tags).is_some()));
        let numbered = kinds.into_iter().zip(1..).filter(|(kind, _)| serving.contains(kind));
        numbered.map(|(kind, number)| ModelPath::new(number, kind, names.id)).collect()
    }

    /// The highest fee of those that have this model, in whatever wire format: what it costs at most, on top
    /// of the list price. `None`: nobody has it.
    #[must_use]
    pub fn dearest_fee(&self, names: Names<'_>) -> Option<rust_decimal::Decimal> {
        let members = self.members();
        let having = members.iter().filter(|member| member.upstream.called(names, &[]).is_some());
        having.map(|member| member.upstream.fee()).max()
    }

    /// What could serve this.
    ///
    /// # Errors
    /// When no upstream could serve it.
    pub fn plan(&self, wanted: &Requirements<'_>, session: Option<Session>) -> Result<Plan, Unavailable> {
        let members = self.members();
        if members.is_empty() {
            return Err(Unavailable::None);
        }
        let (mut left, mut why) = (Vec::with_capacity(members.len()), Unavailable::Unserved);
        for member in members.iter() {
            match member.upstream.offers(wanted) {
                Ok(model) => left.push((Arc::clone(member), model)),
                Err(reason) => why = nearer(why, reason),
            }
        }
        if left.is_empty() {
            return Err(why);
        }
        Ok(Plan { left, attempts_left: self.max_attempts, session, tried: false })
    }

    /// The best of all that could; where they have as many requests as they take, after a short wait.
    ///
    /// # Errors
    /// When none of them can be asked in that time.
    pub async fn first(self: &Arc<Self>, plan: &mut Plan) -> Result<Lease, Unavailable> {
        let until = Instant::now() + self.patience;
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // Before the look, so that nothing that becomes free after it is missed.
            freed.as_mut().enable();
            match self.lease(plan) {
                Err(Unavailable::Busy) => {}
                decided => return decided,
            }
            if timeout_at(until, freed).await.is_err() {
                return Err(Unavailable::Busy);
            }
        }
    }

    /// The best of those that were not tried yet.
    ///
    /// # Errors
    /// When none of them can be asked now.
    pub fn lease(self: &Arc<Self>, plan: &mut Plan) -> Result<Lease, Unavailable> {
        if plan.attempts_left == 0 || plan.left.is_empty() {
            return Err(Unavailable::Exhausted);
        }
        let _choosing = plan.session.map(|_| self.sticky.choosing());
        let now_ms = self.clock.now_ms();
        let mut why = None;
        for place in self.order(plan, now_ms) {
            let Some((member, model)) = plan.left.get(place).cloned() else { continue };
            match self.enter(&member, &model, now_ms) {
                Ok((slot, ticket)) => {
                    plan.left.remove(place);
                    plan.attempts_left = plan.attempts_left.saturating_sub(1);
                    let has_turn = !std::mem::replace(&mut plan.tried, true);
                    if has_turn {
                        self.turns.fetch_add(1, Ordering::Relaxed);
                    }
                    let (pool, session) = (Arc::clone(self), plan.session);
                    if let Some(session) = session {
                        self.sticky.begin(session, member.upstream.name(), now_ms);
                    }
                    return Ok(Lease { pool, member, model, session, ticket, is_settled: false, has_turn, slot });
                }
                Err(reason) => why = Some(sooner(why, reason)),
            }
        }
        // Who was asked before matters more than why nobody else is.
        Err(why.filter(|_| !plan.tried).unwrap_or(Unavailable::Exhausted))
    }

    /// The order in which those that are left are asked.
    fn order(&self, plan: &Plan, now_ms: i64) -> Vec<usize> {
        if plan.left.len() < 2 {
            return vec![0];
        }
        let known = plan.session.and_then(|session| self.sticky.find(&session, now_ms));
        let entrants = plan.left.iter().map(|(member, model)| member.entrant(model, known.as_ref(), now_ms));
        let entrants: Vec<Entrant> = entrants.collect();
        let roll =
            || if self.choice == Choice::RoundRobin { self.turns.load(Ordering::Relaxed) } else { rand::random() };
        order(&entrants, self.choice, |below| roll() % below.max(1))
    }

    /// A place at this upstream and the leave to ask it.
    fn enter(
        &self,
        member: &Member,
        model: &str,
        now_ms: i64,
    ) -> Result<(Option<OwnedSemaphorePermit>, Ticket), Unavailable> {
        // The operator may want none to be left out, ever: then it goes last.
        if member.marks.is_barred() && self.breaker_failures > 0 {
            return Err(Unavailable::Out { secs: BARRED_SECS });
        }
        if self.is_capped(member, now_ms) {
            return Err(Unavailable::Out { secs: CAPPED_SECS });
        }
        let place = match &member.upstream.slots {
            Some(slots) => Some(Arc::clone(slots).try_acquire_owned().map_err(|_| Unavailable::Busy)?),
            None => None,
        };
        let mut health = member.health();
        let ticket = match health.get_mut(model) {
            None => Health::new(self.breaker_failures).admit(now_ms),
            Some(known) => known.admit(now_ms),
        };
        match ticket {
            Some(ticket) => Ok((place, ticket)),
            None => Err(match health.get_mut(model).map(|known| known.availability(now_ms)) {
                Some(Availability::Out { until_ms }) => Unavailable::Out { secs: secs_until(until_ms, now_ms) },
                _ => Unavailable::Busy,
            }),
        }
    }

    fn is_capped(&self, member: &Member, now_ms: i64) -> bool {
        let upstream = &member.upstream;
        self.outlays.is_capped(upstream.name(), upstream.daily_usd, upstream.monthly_usd, now_ms)
    }

    /// Whether all of them refuse the operator's account.
    #[must_use]
    pub fn is_barred(&self) -> bool {
        let members = self.members();
        !members.is_empty() && members.iter().all(|member| member.marks.is_barred())
    }

    /// Whether none of them answers, and none is to be tried right now.
    #[must_use]
    pub fn is_down(&self) -> bool {
        // Where none is ever left alone, one that has just failed is as good as that.
        let is_idle = |one: &Condition| !one.out.is_empty() || (self.breaker_failures == 0 && one.rests);
        let is_out = |one: &Condition| one.bar.is_some() || (one.down_since_ms.is_some() && is_idle(one));
        let conditions = self.conditions();
        !conditions.is_empty() && !self.is_barred() && conditions.iter().all(is_out)
    }

    /// Notes what a request cost.
    pub fn note(&self, outlay: Outlay) {
        self.outlays.note(outlay);
    }
}

fn distinct<'a>(members: impl Iterator<Item = &'a Arc<Member>>) -> Vec<&'static str> {
    let mut kinds: Vec<&'static str> = members.map(|member| member.upstream.label()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

fn secs_until(until_ms: i64, now_ms: i64) -> u64 {
    until_ms.abs_diff(now_ms).div_ceil(1_000).max(1)
}

impl Plan {
    /// The plan with one upstream alone.
    #[must_use]
    pub fn only(mut self, name: &str) -> Self {
        self.left.retain(|(member, _)| **member.upstream.name() == *name);
        self
    }
}

/// Which of two reasons a client is told: what came nearest to serving it.
fn nearer(before: Unavailable, other: Unavailable) -> Unavailable {
    match (before, other) {
        (Unavailable::Lacking(_), _) | (_, Unavailable::Unserved) => before,
        (_, other) => other,
    }
}

/// Which of two reasons a client is told: the one that is over first.
fn sooner(before: Option<Unavailable>, other: Unavailable) -> Unavailable {
    match (before, other) {
        (Some(Unavailable::Out { secs }), Unavailable::Out { secs: others }) => {
            Unavailable::Out { secs: secs.min(others) }
        }
        (Some(Unavailable::Busy), _) => Unavailable::Busy,
        (_, other) => other,
    }
}

impl Member {
    fn of(one: &config::Upstream, way: &Way) -> Result<Arc<Self>, PoolError> {
        let upstream = Upstream::new(one, way);
        let upstream = upstream.map_err(|error| PoolError::Upstream { name: one.name.clone(), error })?;
        Ok(Arc::new(Self {
            upstream: Arc::new(upstream),
            described: one.clone(),
            health: Mutex::default(),
            heard_ms: AtomicI64::new(i64::MIN),
            marks: Marks::default(),
            down_ms: AtomicI64::new(i64::MIN),
            locked_ms: AtomicI64::new(i64::MIN),
        }))
    }

    fn health(&self) -> MutexGuard<'_, HashMap<String, Health>> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entrant(&self, model: &str, known: Option<&Arc<str>>, now_ms: i64) -> Entrant {
        let mut health = self.health();
        let mut rests =
            |name: &str| health.get_mut(name).is_some_and(|health| health.availability(now_ms) != Availability::Ready);
        Entrant {
            priority: self.upstream.priority,
            weight: self.upstream.weight,
            fee: self.upstream.fee,
            rests: self.marks.is_barred() || rests(model) || rests(ACCOUNT),
            is_known: known == Some(self.upstream.name()),
        }
    }

    /// Looks at what is known of a model; where nothing is, only if it `could_be_bad`. What is not worth
    /// remembering afterwards is forgotten.
    pub(super) fn with_health(
        &self,
        model: &str,
        limit: u32,
        now_ms: i64,
        could_be_bad: bool,
        look: impl FnOnce(&mut Health),
    ) {
        let mut all = self.health();
        if !all.contains_key(model) {
            if !could_be_bad {
                return;
            }
            if all.len() >= MOST_MODELS {
                all.retain(|_, health| !health.is_spotless(now_ms));
            }
            if all.len() >= MOST_MODELS {
                return;
            }
        }
        let health = all.entry(model.to_owned()).or_insert_with(|| Health::new(limit));
        look(health);
        if health.is_spotless(now_ms) {
            all.remove(model);
        }
    }
}
