//! Where clients find the node: the announced address, what answers there, and whether browsers may.

use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::{Doctor, Finding, PATIENCE, Verdict};
use crate::net::NetError;
use crate::net::dialer::Dialer;
use crate::nostr::public_url;
use crate::tor;

/// What a browser must be allowed to read of an answer, and to send.
const CHANGE: &str = "x-cashu";
/// An origin that no list of origins names by accident.
const ANY_ORIGIN: &str = "https://coinslot-doctor.example.com";
const MAX_INFO: usize = 64 * 1024;
/// For a look that begins with finding the way into Tor.
const IN_TOR: Duration = Duration::from_secs(90);

impl Doctor<'_> {
    pub(super) async fn address(&self) -> Result<Vec<Finding>, NetError> {
        let given = self.config.info.http_url.as_str();
        if given.is_empty() {
            let is_in_tor = self.config.tor.enabled || !self.config.info.onion_url.is_empty();
            let verdict = if is_in_tor { Verdict::Note } else { Verdict::Fault };
            let finding =
                Finding::new("url", "", verdict, "HTTP_URL is not set: clients on the web do not find the node");
            return Ok(vec![finding.so("Set it to the https address at which the node is reached from outside.")]);
        }
        let mut findings = vec![match public_url(given) {
            Ok(url) => Finding::new("url", url, Verdict::Good, "can be announced"),
            Err(why) => Finding::new("url", given, Verdict::Fault, format!("is not announced: it {why}"))
                .so("Set HTTP_URL to the https address at which the node is reached from outside."),
        }];
        let base = given.trim_end_matches('/').trim_end_matches("/v1");
        let Ok(info) = Url::parse(&format!("{base}/v1/info")) else { return Ok(findings) };
        // As the node itself would go to an address that anybody may have named.
        let way = &self.ways.strangers;
        let dialer = super::dialer(way, if way.takes(&info) { IN_TOR } else { PATIENCE })?;
        match dialer.document(&info, "application/json", MAX_INFO).await {
            Ok(document) => {
                self.note_time(document.date.as_deref());
                findings.push(self.judge_info(given, &document.body).await);
                findings.push(self.cors(base, &dialer).await);
            }
            Err(error) => findings.push(unreached(given, &error)),
        }
        Ok(findings)
    }

    /// Whether it is this node that answers there.
    async fn judge_info(&self, url: &str, body: &[u8]) -> Finding {
        let info: Value = serde_json::from_slice(body).unwrap_or_default();
        let fault = |found: &str| Finding::new("url", url, Verdict::Fault, found);
        let Some(mints) = info.get("mints").and_then(Value::as_array) else {
            return fault("/v1/info is not answered by a node")
                .so("Point the reverse proxy at this node's HOST and PORT, for all paths.");
        };
        let key = info.get("receipt_pubkey").and_then(Value::as_str).unwrap_or_default();
        let own = self.own_key().await;
        if own.as_deref().is_some_and(|own| own != key) {
            return fault("another node answers there, with another key")
                .so("Point HTTP_URL and the reverse proxy at this node, or restore its NSEC.");
        }
        let same = mints.len() == self.config.mints.urls.len()
            && self.config.mints.urls.iter().all(|mint| mints.iter().any(|listed| listed == mint));
        if !same {
            return Finding::new(
                "url",
                url,
                Verdict::Warning,
                "the node that runs there takes other mints than these settings",
            )
            .so("Start it again with them.");
        }
        Finding::new("url", url, Verdict::Good, "answers /v1/info")
    }

    /// Whether a script of another site may call the node: reverse proxies drop or double the headers.
    async fn cors(&self, base: &str, dialer: &Dialer) -> Finding {
        let origin = self.config.server.cors_origins.first().map_or(ANY_ORIGIN, String::as_str);
        let Ok(url) = Url::parse(&format!("{base}/v1/chat/completions")) else {
            return Finding::new("cors", "", Verdict::Fault, "HTTP_URL is no address");
        };
        let asked = dialer.preflight(&url, origin).await;
        let headers = match asked {
            Ok(headers) => headers,
            Err(error) => {
                return Finding::new("cors", "", Verdict::Fault, format!("OPTIONS is not answered: {error}"))
                    .so("Let the reverse proxy pass OPTIONS requests to the node.");
            }
        };
        let has = |name: &str, wanted: &[&str]| {
            let list = headers.get(name).map(|value| value.to_ascii_lowercase()).unwrap_or_default();
            list.split(',').map(str::trim).any(|one| wanted.contains(&one))
        };
        let origins = headers.get("access-control-allow-origin").map(String::as_str).unwrap_or_default();
        let problem = if origins != "*" && origins != origin {
            Some("browsers are not allowed to call the node")
        } else if !has("access-control-allow-headers", &["*", CHANGE]) {
            Some("browsers may not send X-Cashu")
        } else {
            None
        };
        match problem {
            Some(problem) => Finding::new("cors", "", Verdict::Fault, problem)
                .so("Let the reverse proxy pass the node's Access-Control headers as they are, and add none."),
            None if self.config.server.cors_origins.is_empty() => {
                Finding::new("cors", "", Verdict::Good, "any site's scripts may call the node")
            }
            None => Finding::new("cors", "", Verdict::Note, "only the sites in CORS_ORIGINS may call the node"),
        }
    }

    /// The node in Tor, asked from the other side of it.
    pub(super) async fn onion(&self) -> Result<Option<Finding>, NetError> {
        let given = &self.config.info.onion_url;
        let own = self.config.tor.enabled.then(|| tor::known_url(&self.config.storage.data_dir)).flatten();
        let url = match own {
            _ if !given.is_empty() => given.clone(),
            Some(own) => own,
            None if self.config.tor.enabled => {
                let finding = Finding::new("onion", "", Verdict::Note, "the node has made no address in Tor yet");
                return Ok(Some(finding.so("Start it once.")));
            }
            None => return Ok(None),
        };
        if let Err(why) = public_url(&url) {
            let finding = Finding::new("onion", &url, Verdict::Fault, format!("is not announced: it {why}"));
            return Ok(Some(finding.so("Set ONION_URL to http://….onion.")));
        }
        let Ok(info) = Url::parse(&format!("{}/v1/info", url.trim_end_matches('/').trim_end_matches("/v1"))) else {
            return Ok(None);
        };
        if !self.ways.strangers.takes(&info) {
            let finding = Finding::new("onion", url, Verdict::Note, "is in Tor, where this node has no way to look");
            return Ok(Some(finding.so("Try it with a Tor client, or set TOR_PROXY_URL.")));
        }
        let dialer = super::dialer(&self.ways.strangers, IN_TOR)?;
        Ok(Some(match dialer.document(&info, "application/json", MAX_INFO).await {
            Ok(document) => {
                self.note_time(document.date.as_deref());
                Finding { check: "onion", ..self.judge_info(&url, &document.body).await }
            }
            Err(error) => Finding::new("onion", url, Verdict::Fault, format!("/v1/info is not answered: {error}")).so(
                "Start the node, and look at its state on /admin/network. A new address takes a minute to be known.",
            ),
        }))
    }

    /// Notes by how much the clock of a server differs.
    pub(super) fn note_time(&self, date: Option<&str>) {
        let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else { return };
        let Ok(theirs) = date.duration_since(std::time::UNIX_EPOCH) else { return };
        let theirs = i64::try_from(theirs.as_secs()).unwrap_or(i64::MAX);
        let mut offsets = self.offsets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        offsets.push(theirs.saturating_sub(self.clock.now_secs()));
    }
}

fn unreached(url: &str, error: &NetError) -> Finding {
    Finding::new("url", url, Verdict::Fault, format!("/v1/info is not answered: {error}"))
        .so("Start the node; check name, certificate, reverse proxy and firewall. From inside some networks the own \
         address is not reachable: then try it from outside.")
}
