//! The upstreams as they are stored: taken up at the start and when the operator changes them, and what is written of
//! them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Ground, Member, Pool, PoolError};
use crate::clock::SharedClock;
use crate::config::{self, Live, Upstreams};
use crate::net::way::Way;
use crate::store::{Store, StoreError};
use crate::upstream::outlay::Outlays;
use crate::upstream::sealed::{self, seal};
use crate::upstream::sticky::Sticky;
use crate::upstream::{barred, repo, stored};
use crate::vault::Vault;

impl Pool {
    /// The upstreams of the environment, which are stored, and those that are stored beside them. Where
    /// the environment names none, the ones that it named last still are.
    ///
    /// # Errors
    /// When the database does not answer, or an upstream cannot be used as it is described.
    pub async fn open(
        config: &Upstreams,
        store: &Store,
        vault: &Vault,
        way: &Way,
        clock: &SharedClock,
    ) -> Result<Arc<Self>, PoolError> {
        if !config.listed.is_empty() {
            let rows = config.listed.iter().map(|one| seal(one, vault)).collect::<Result<Vec<_>, _>>()?;
            repo::replace_environment(store, &rows, clock.now_ms()).await?;
        }
        let version = repo::version(store).await?;
        let described = sealed::described(config, store, vault).await?;
        let pool = Self::of(&described, config, (vault, way), clock)?;
        *pool.version() = version;
        // A key that lies around in the environment is an upstream; nobody should be surprised by that.
        for member in pool.members().iter() {
            let upstream = &member.upstream;
            tracing::info!(name = %upstream.name(), kind = upstream.label(), priority = upstream.priority, "an upstream");
        }
        pool.outlays.flush(store, clock.now_ms()).await?;
        barred::enrol(store, vault, described.iter()).await?;
        pool.watch(store).await?;
        Ok(Arc::new(pool))
    }

    /// The upstreams of [`Pool::open`], for who works beside a node, and stores nothing.
    ///
    /// # Errors
    /// See [`Pool::open`].
    pub async fn beside(
        config: &Upstreams,
        store: &Store,
        vault: &Vault,
        way: &Way,
        clock: &SharedClock,
    ) -> Result<Arc<Self>, PoolError> {
        Ok(Arc::new(Self::of(&sealed::described(config, store, vault).await?, config, (vault, way), clock)?))
    }

    fn of(
        described: &[config::Upstream],
        config: &Upstreams,
        (vault, way): (&Vault, &Way),
        clock: &SharedClock,
    ) -> Result<Self, PoolError> {
        let enabled = described.iter().filter(|one| one.enabled);
        Ok(Self {
            members: Live::new(enabled.map(|one| Member::of(one, way)).collect::<Result<Vec<_>, PoolError>>()?),
            ground: Ground { rules: config.clone(), vault: vault.clone(), way: way.clone(), version: Mutex::default() },
            choice: config.choice,
            turns: AtomicU64::new(0),
            max_attempts: config.max_attempts,
            retried: config.retried.clone(),
            breaker_failures: config.breaker_failures,
            patience: config.queue_time,
            freed: Notify::new(),
            sticky: Sticky::default(),
            outlays: Outlays::default(),
            clock: Arc::clone(clock),
        })
    }

    fn version(&self) -> MutexGuard<'_, Option<String>> {
        self.ground.version.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what the operator has stored since. Those that are described as before stay as they are, with all
    /// that is known of them; one that cannot be used is told, and the old one of its name stays.
    async fn reload(&self, store: &Store) -> Result<(), StoreError> {
        let version = repo::version(store).await?;
        if *self.version() == version {
            return Ok(());
        }
        let Ground { rules, vault, way, .. } = &self.ground;
        match sealed::described(rules, store, vault).await {
            Ok(described) => {
                barred::enrol(store, vault, described.iter()).await?;
                let known = self.members();
                let member = |one: &config::Upstream| {
                    let same = known.iter().find(|member| member.described == *one);
                    same.cloned().map_or_else(|| Member::of(one, way), Ok).or_else(|error| {
                        tracing::error!(%error, "a stored upstream cannot be used");
                        known.iter().find(|member| member.described.name == one.name).cloned().ok_or(())
                    })
                };
                let enabled = described.iter().filter(|one| one.enabled);
                self.members.put(enabled.filter_map(|one| member(one).ok()).collect());
                self.freed.notify_waiters();
            }
            Err(PoolError::Store(error)) => return Err(error),
            Err(error) => tracing::error!(%error, "the stored upstreams cannot be read; the old ones stay"),
        }
        *self.version() = version;
        Ok(())
    }

    /// All upstreams that are stored, as the operator may see them.
    ///
    /// # Errors
    /// See [`stored::described`].
    pub async fn described(&self, store: &Store) -> Result<Vec<stored::Described>, stored::StoredError> {
        stored::described(store, &self.ground.vault).await
    }

    /// What one of the operator's is stored with.
    #[must_use]
    pub fn tools(&self) -> stored::Tools<'_> {
        let Ground { rules, vault, way, .. } = &self.ground;
        stored::Tools { vault, way, rules }
    }

    /// Takes up the upstreams that the operator has stored since, and brings what is stored about barred ones
    /// together with what this process has found. One that the operator has cleared begins anew.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn watch(&self, store: &Store) -> Result<(), StoreError> {
        self.reload(store).await?;
        let members = self.members();
        let known = members.iter().map(|member| (member.upstream.name().as_ref(), &member.marks));
        for name in barred::watch(store, known).await? {
            let cleared = members.iter().filter(|member| **member.upstream.name() == *name);
            for member in cleared {
                member.health().clear();
                member.down_ms.store(i64::MIN, Ordering::Relaxed);
                member.locked_ms.store(i64::MIN, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Writes down what requests cost, and learns what other processes have spent.
    ///
    /// # Errors
    /// When the database does not answer; what waited still waits.
    pub async fn flush(&self, store: &Store) -> Result<(), StoreError> {
        self.outlays.flush(store, self.clock.now_ms()).await
    }
}
