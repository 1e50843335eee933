//! The node on Nostr: its relays, whether they have its listing, and what is said of it.

use std::sync::Arc;

use futures_util::future::join_all;
use url::Url;

use super::{Doctor, Finding, PATIENCE, Verdict};
use crate::net::NetError;
use crate::nostr::limits::{MAX_DOCUMENT, MEDIA};
use crate::nostr::{Caller, Identity, Told};

/// Where clients of the network look, and so should a node.
const USUAL: &str = "wss://relay.damus.io,wss://nos.lol,wss://relay.routstr.com";
/// Labels of a review that clients shun.
const BAD: [&str; 4] = ["avoid", "suspicious", "blacklisted", "removed"];

impl Doctor<'_> {
    pub(super) async fn relays(&self) -> Result<Vec<Finding>, NetError> {
        let relays = &self.config.nostr.relays;
        if relays.is_empty() {
            let finding =
                Finding::new("relay", "", Verdict::Warning, "RELAYS is not set: clients do not find the node on Nostr");
            return Ok(vec![finding.so(format!("Set RELAYS={USUAL}."))]);
        }
        let told = self.told().await;
        // Of nobody: what a relay shows to strangers is what counts.
        let Ok(identity) = Identity::throwaway() else { return Ok(Vec::new()) };
        let patience = self.ways.relays.longest(PATIENCE, relays);
        let dialer = super::dialer(&self.ways.relays, patience)?;
        let caller = Caller { dialer, identity, clock: Arc::clone(&self.clock), patience };
        let looks = relays.iter().map(|relay| self.look_at_relay(&caller, relay, told.as_ref()));
        Ok(join_all(looks).await)
    }

    async fn look_at_relay(&self, caller: &Caller, relay: &str, told: Option<&Told>) -> Finding {
        if let Ok(url) = Url::parse(relay)
            && let Ok(document) = caller.dialer.document(&url, MEDIA, MAX_DOCUMENT).await
        {
            self.note_time(document.date.as_deref());
        }
        let id = told.map(|told| told.event_id.as_str());
        match (caller.within(caller.has(relay, id)).await, told) {
            (Err(error), _) => Finding::new("relay", relay, Verdict::Warning, format!("does not answer: {error}"))
                .so("Try again later, or take it out of RELAYS."),
            (Ok(_), None) => Finding::new("relay", relay, Verdict::Note, "answers; nothing was announced yet")
                .so("Start the node with HTTP_URL and RELAYS set."),
            (Ok(_), Some(told)) if told.is_down => {
                Finding::new("relay", relay, Verdict::Note, "answers; the node has said that it is down")
                    .so("Start it.")
            }
            (Ok(true), _) => Finding::new("relay", relay, Verdict::Good, "answers, and has the listing"),
            (Ok(false), _) => Finding::new("relay", relay, Verdict::Warning, "answers, and does not show the listing")
                .so("The page /admin/network says what it replied; another relay may be kinder."),
        }
    }

    /// What this node announced last.
    async fn told(&self) -> Option<Told> {
        let reader = self.reader.as_ref().ok()?;
        Told::read(reader).await.ok().flatten()
    }

    /// The key under which this node is known, as far as that can be told without its secrets.
    pub(super) async fn own_key(&self) -> Option<String> {
        match Identity::configured(self.config) {
            Ok(Some(identity)) => Some(identity.pubkey()),
            _ => self.told().await.map(|told| told.pubkey),
        }
    }

    pub(super) async fn reviews(&self) -> Option<Finding> {
        let (reader, told) = (self.reader.as_ref().ok()?, self.told().await?);
        let opinions = told.opinions(reader, &self.config.info.http_url).await.ok()?;
        let bad = opinions.iter().flat_map(|opinion| &opinion.labels).find(|label| BAD.contains(&label.as_str()));
        Some(match (bad, opinions.len()) {
            (Some(label), _) => {
                Finding::new("reviews", "", Verdict::Warning, format!("a review says {label}; clients shun the node"))
                    .so("See /admin/network for who says so.")
            }
            (None, 0) => Finding::new("reviews", "", Verdict::Note, "nobody has reviewed or recommended the node yet"),
            (None, some) => {
                Finding::new("reviews", "", Verdict::Good, format!("{some} speak of the node, none against it"))
            }
        })
    }
}
