//! Asks other nodes of the network what they charge for the same models.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;

use super::Job;
use crate::catalog::rivals::{AGE, MAX_LIST, MOST, Own, Quote, Rivals};
use crate::catalog::route::Buyer;
use crate::exchange::Exchange;
use crate::nostr::Directory;
use crate::nostr::directory::{Health, Listed};
use crate::nostr::provider::Provider;

/// Nodes that are asked at a time.
const AT_ONCE: usize = 2;

/// Compares this node's prices with others', for the operator's page. Nobody is asked often.
pub struct ComparePrices {
    pub directory: Directory,
    pub rivals: Rivals,
    pub exchange: Arc<Exchange>,
}

impl ComparePrices {
    /// Those that answer and are not this node itself.
    async fn others(&self) -> Result<Vec<Listed>, String> {
        let own = self.directory.pubkey();
        let mut listed = self.directory.providers(None, usize::MAX).await.map_err(|error| error.to_string())?;
        listed.retain(|listed| listed.provider.pubkey != own && listed.health.as_ref().is_some_and(Health::is_good));
        listed.truncate(MOST);
        Ok(listed)
    }

    /// What one of them charges, by its address.
    async fn ask(&self, node: Provider, own: &Own) -> (String, Result<BTreeMap<String, Quote>, String>) {
        let said = match self.directory.ask(&node, "/v1/models", MAX_LIST).await {
            Ok(answer) if answer.status == 200 => own.price(&answer.body),
            Ok(answer) => Err(format!("it answered with status {}", answer.status)),
            Err(error) => Err(error.to_string()),
        };
        (node.address(), said)
    }
}

#[async_trait]
impl Job for ComparePrices {
    fn name(&self) -> &'static str {
        "compare_prices"
    }

    fn period(&self) -> Duration {
        AGE
    }

    async fn nudged(&self) {
        self.directory.looked().await;
    }

    async fn activate(&self) -> Result<(), String> {
        let others = self.others().await?;
        let addresses: Vec<String> = others.iter().map(|listed| listed.provider.address()).collect();
        let due = self.rivals.due(&addresses).await.map_err(|error| error.to_string())?;
        if due.is_empty() {
            return Ok(());
        }
        let list = self.exchange.market.listing(Buyer::anybody(&self.exchange.pool));
        let own = Own::read(list.to_string().as_bytes());
        if own.is_empty() {
            return Ok(());
        }
        self.rivals.keep_own(&own).await.map_err(|error| error.to_string())?;
        let due = others.into_iter().map(|listed| listed.provider).filter(|node| due.contains(&node.address()));
        let asked: Vec<_> = due.map(|node| self.ask(node, &own)).collect();
        let asked: Vec<_> = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
        for (address, said) in asked {
            self.rivals.keep(&address, said).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
