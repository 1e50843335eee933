//! Keeps the node listed on Nostr.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::catalog::route::Buyer;
use crate::exchange::Exchange;
use crate::nostr::{Announcer, Listing, public_url};
use crate::tor::Onion;

/// Looks whether the node is still what its listing says.
pub struct Announce {
    announcer: Announcer,
    exchange: Arc<Exchange>,
    /// Whether Nostr apps are told of the node's page (NIP-89).
    tells_apps: bool,
    onion: Onion,
    /// The onion that the listing names.
    told_onion: Mutex<String>,
    /// Whether the operator was told why an address is not announced.
    told: AtomicBool,
}

impl Announce {
    #[must_use]
    pub fn new(announcer: Announcer, exchange: Arc<Exchange>, tells_apps: bool, onion: Onion) -> Self {
        let (told_onion, told) = (Mutex::default(), AtomicBool::new(false));
        Self { announcer, exchange, tells_apps, onion, told_onion, told }
    }

    fn told_onion(&self) -> MutexGuard<'_, String> {
        self.told_onion.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is to say; `None`: nobody could come.
    fn listing(&self) -> Option<Listing> {
        let onion = self.onion.url();
        self.told_onion().clone_from(&onion);
        let settings = self.exchange.settings.now();
        let info = &settings.info;
        let given = [("HTTP_URL", &info.http_url), ("ONION_URL", &onion)];
        let is_told = self.told.swap(true, Ordering::Relaxed);
        let urls = given.into_iter().filter(|(_, url)| !url.is_empty()).filter_map(|(name, url)| {
            let refused = |why| {
                if !is_told {
                    tracing::warn!("{name} is not announced on Nostr: it {why}")
                }
            };
            public_url(url).map_err(refused).ok()
        });
        let urls: Vec<String> = urls.collect();
        if urls.is_empty() {
            return None;
        }
        let page = urls.iter().find(|url| url.starts_with("https://") && !url.ends_with(".onion"));
        let page = page.filter(|_| self.tells_apps).cloned();
        let models = self.exchange.market.listing(Buyer::anybody(&self.exchange.pool));
        Some(Listing {
            name: info.name.clone(),
            about: info.description.clone(),
            urls,
            page,
            mints: self.exchange.till.wallet().mints().to_vec(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            models: models.get("data").and_then(serde_json::Value::as_array).map_or(0, Vec::len),
        })
    }
}

#[async_trait]
impl Job for Announce {
    fn name(&self) -> &'static str {
        "announce"
    }

    fn period(&self) -> Duration {
        Duration::from_secs(60)
    }

    async fn nudged(&self) {
        let told = self.told_onion().clone();
        self.onion.differs_from(&told).await;
    }

    /// A relay that fails is asked again when its time has come, which is not the job's failure.
    async fn activate(&self) -> Result<(), String> {
        let troubles = self.announcer.keep(self.listing().as_ref()).await.map_err(|error| error.to_string())?;
        for trouble in troubles {
            tracing::warn!(%trouble, "a relay does not have this node's listing");
        }
        Ok(())
    }
}
