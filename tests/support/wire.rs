//! The Lightning network between two mints: what one pays of the other's invoices arrives there.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cdk_common::MeltQuoteState;
use cdk_common::mint::MeltPaymentRequest;
use tokio::task::JoinHandle;

use super::mint::TestMint;

/// Carries payments until it is dropped.
pub struct Wire {
    up: Arc<AtomicBool>,
    carrying: JoinHandle<()>,
}

impl Wire {
    /// From the mint that pays to the one that is paid, whose invoices must not pay themselves.
    pub fn between(payer: &TestMint, payee: &TestMint) -> Self {
        let up = Arc::new(AtomicBool::new(true));
        let (from, to, open) = (payer.mint().clone(), payee.payments(), up.clone());
        let carrying = tokio::spawn(async move {
            let mut carried = HashSet::new();
            loop {
                for quote in from.melt_quotes().await.expect("melt quotes") {
                    let MeltPaymentRequest::Bolt11 { bolt11 } = &quote.request else { continue };
                    let arrives = quote.state == MeltQuoteState::Paid && open.load(Ordering::SeqCst);
                    if arrives && carried.insert(quote.id.to_string()) {
                        let sats = bolt11.amount_milli_satoshis().expect("an amount") / 1000;
                        to.arrive(&bolt11.to_string(), sats).await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { up, carrying }
    }

    /// Whether payments arrive. Those that were held up arrive when it is up again.
    pub fn set(&self, up: bool) {
        self.up.store(up, Ordering::SeqCst);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}
