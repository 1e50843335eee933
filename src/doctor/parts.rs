//! What the node is made of: mints, the rate of bitcoin, the clock, the database.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::Value;
use url::Url;

use super::{Doctor, Finding, PATIENCE, Verdict};
use crate::net::dialer::Dialer;
use crate::net::{self, ClientOptions, NetError};
use crate::price::PriceBook;
use crate::wallet::examine::examine;
use crate::wallet::mint::{HttpMint, Limits};

/// What a node asks of a mint beyond swaps (NUT-03): states (NUT-07), lost answers again (NUT-09).
const NEEDED: [(&str, &str); 2] = [("7", "token states (NUT-07)"), ("9", "restoring (NUT-09)")];
const MAX_INFO: usize = 256 * 1024;
/// A fee above this part of a thousand a coin eats small change.
const HIGH_FEE_PPK: u64 = 1_000;
/// Seconds by which the clock may differ before somebody notices, and before signatures and expiries fail.
const NOTICED: i64 = 20;
const BROKEN: i64 = 300;
/// File systems that forget, and those whose locks and syncs are promises of somebody else.
const FORGETFUL: [&str; 2] = ["tmpfs", "ramfs"];
const DISTANT: [&str; 8] = ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.glusterfs", "ceph"];

impl Doctor<'_> {
    pub(super) async fn mints(&self) -> Result<Vec<Finding>, NetError> {
        if self.config.mints.urls.is_empty() {
            let finding = Finding::new("mint", "", Verdict::Fault, "CASHU_MINTS is not set: nobody can pay");
            return Ok(vec![finding.so("Name at least one mint that you trust.")]);
        }
        let way = &self.ways.mints;
        let patience = way.longest(PATIENCE, &self.config.mints.urls);
        let options = ClientOptions { connect_timeout: patience, way: way.clone(), ..ClientOptions::default() };
        let client = net::client(&options)?;
        let dialer = super::dialer(way, patience)?;
        let limits = Limits { timeout: patience, concurrency: 1, per_minute: None };
        let looks = self.config.mints.urls.iter().map(|url| {
            let mint = HttpMint::new(url.clone(), client.clone(), limits, Arc::clone(&self.clock));
            let dialer = &dialer;
            async move { self.look_at_mint(&mint, dialer).await }
        });
        Ok(join_all(looks).await)
    }

    async fn look_at_mint(&self, mint: &HttpMint, dialer: &Dialer) -> Finding {
        let unit = self.config.mints.unit;
        let of = |verdict, found: String| Finding::new("mint", mint.url(), verdict, found);
        let keysets = match examine(mint, unit).await {
            Ok(keysets) => keysets,
            Err(error) => {
                return of(Verdict::Fault, format!("cannot be used: {error}"))
                    .so("Try again later, or take it out of CASHU_MINTS once its ecash is paid out.");
            }
        };
        if keysets.active == 0 {
            return of(Verdict::Fault, format!("has no active keyset in {}", unit.as_str()))
                .so("Set PRIMARY_MINT_UNIT to its unit, or take another mint.");
        }
        let lacking = self.lacking(mint.url(), dialer).await;
        if !lacking.is_empty() {
            return of(Verdict::Fault, format!("does not offer {}", lacking.join(" and ")))
                .so("Take another mint: after a crash this one could not say what became of money.");
        }
        if !keysets.has_small_coins {
            return of(Verdict::Warning, "signs no coins of 1".to_owned())
                .so("Change cannot be exact; take another mint.");
        }
        let found = format!("answers and conforms; a coin costs {}/1000 {}", keysets.fee_ppk, unit.as_str());
        if keysets.fee_ppk > HIGH_FEE_PPK {
            return of(Verdict::Warning, found).so("Small payments lose much of their worth there.");
        }
        of(Verdict::Good, found)
    }

    /// What a mint says that it does not do (NUT-06).
    async fn lacking(&self, mint: &str, dialer: &Dialer) -> Vec<&'static str> {
        let Ok(url) = Url::parse(&format!("{mint}/v1/info")) else { return Vec::new() };
        let Ok(document) = dialer.document(&url, "application/json", MAX_INFO).await else {
            return vec!["its description (NUT-06)"];
        };
        self.note_time(document.date.as_deref());
        let info: Value = serde_json::from_slice(&document.body).unwrap_or_default();
        let offers = |nut: &str| {
            let flag = info.get("nuts").and_then(|nuts| nuts.get(nut)).and_then(|nut| nut.get("supported"));
            flag.and_then(Value::as_bool) == Some(true)
        };
        NEEDED.iter().filter(|(nut, _)| !offers(nut)).map(|(_, what)| *what).collect()
    }

    pub(super) async fn rate(&self) -> Result<Vec<Finding>, NetError> {
        let pricing = &self.config.pricing;
        if let Some(rate) = pricing.btc_usd_fixed {
            let finding =
                Finding::new("rate", "", Verdict::Note, format!("BTC_USD_FIXED={rate} does not follow the market"));
            return Ok(vec![finding.so("Keep an eye on it, or let it go.")]);
        }
        let book = PriceBook::from_config(pricing, &self.ways.prices, Arc::clone(&self.clock))?;
        let failures = book.refresh().await;
        let mut findings: Vec<Finding> = failures
            .iter()
            .map(|failure| {
                Finding::new("rate", "", Verdict::Warning, failure.as_str())
                    .so("The others are used; take it out of BTC_USD_FEEDS if it stays so.")
            })
            .collect();
        findings.push(match book.current(self.clock.now_ms()) {
            Ok(rate) => {
                Finding::new("rate", "", Verdict::Good, format!("{} USD, by {} feeds", rate.btc_usd, rate.sources))
            }
            Err(_) if pricing.model_based == Some(false) => {
                Finding::new("rate", "", Verdict::Note, "no feed gives one, and fixed prices in sats need none")
            }
            Err(_) => {
                Finding::new("rate", "", Verdict::Fault, "no feed gives a rate that the others do not contradict")
                    .so("Let the node reach them, or name others in BTC_USD_FEEDS: nothing is sold without a rate.")
            }
        });
        Ok(findings)
    }

    /// By the median of what other servers say.
    pub(super) fn time(&self) -> Finding {
        let mut offsets = self.offsets.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        offsets.sort_unstable();
        let Some(ahead) = offsets.get(offsets.len() / 2).copied() else {
            return Finding::new("clock", "", Verdict::Note, "no server told the time");
        };
        let (off, found) = (ahead.saturating_abs(), format!("differs by {} s from that of other servers", -ahead));
        if off <= NOTICED {
            return Finding::new("clock", "", Verdict::Good, "agrees with that of other servers");
        }
        let verdict = if off <= BROKEN { Verdict::Warning } else { Verdict::Fault };
        Finding::new("clock", "", verdict, found).so("Let the system set its clock (NTP).")
    }

    pub(super) async fn database(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        match &self.reader {
            Ok(reader) => match reader.doubts().await {
                Ok(doubts) if doubts.is_empty() => {
                    findings.push(Finding::new(
                        "database",
                        "",
                        Verdict::Good,
                        "is whole, and syncs what it acknowledges",
                    ));
                }
                Ok(doubts) => findings.extend(
                    doubts
                        .into_iter()
                        .map(|(found, remedy)| Finding::new("database", "", Verdict::Fault, found).so(remedy)),
                ),
                Err(error) => findings.push(Finding::new("database", "", Verdict::Fault, error.to_string())),
            },
            Err(error) => findings.push(
                Finding::new("database", "", Verdict::Warning, error.to_string())
                    .so("Start the node once, or look at DATABASE_URL."),
            ),
        }
        findings.extend(on_disk(&self.data_dir()));
        findings
    }
}

/// What is wrong with the place of the node's files.
fn on_disk(data_dir: &Path) -> Option<Finding> {
    let Ok(path) = data_dir.canonicalize() else { return None };
    let shown = path.display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let kind = file_system(&mounts, &path).unwrap_or_default();
    if FORGETFUL.contains(&kind.as_str()) {
        return Some(
            Finding::new(
                "database",
                shown,
                Verdict::Fault,
                format!("is on {kind}, which forgets all money at a restart"),
            )
            .so("Put DATA_DIR on a disk."),
        );
    }
    if DISTANT.contains(&kind.as_str()) {
        return Some(
            Finding::new(
                "database",
                shown,
                Verdict::Warning,
                format!("is on {kind}, where locks and syncs may not hold"),
            )
            .so("Put DATA_DIR on a local disk, or use PostgreSQL."),
        );
    }
    is_open(&path).then(|| {
        Finding::new("database", shown, Verdict::Warning, "can be read by other users of this machine")
            .so("chmod 700 it: it holds money and keys.")
    })
}

#[cfg(unix)]
fn is_open(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open(_: &Path) -> bool {
    false
}

/// The kind of file system that a path is on: that of the longest mount point above it.
fn file_system(mounts: &str, path: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?.replace("\\040", " "), fields.next()?))
    });
    let above = mounts.filter(|(point, _)| path.starts_with(point));
    // Of two on the same point, the later hides the other.
    above.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_nearest_mount_point() {
        let mounts = "overlay / overlay rw 0 0\ntmpfs /run tmpfs rw 0 0\n/dev/sda /data ext4 rw 0 0\n\
                      nas:/x /data/far\\040away nfs4 rw 0 0\n/dev/sdb /run ext4 rw 0 0\nbroken\n";
        for (path, kind) in [
            ("/", "overlay"),
            ("/home/x", "overlay"),
            ("/run/y", "ext4"),
            ("/data", "ext4"),
            ("/database", "overlay"),
            ("/data/far away/z", "nfs4"),
        ] {
            assert_eq!(file_system(mounts, Path::new(path)).as_deref(), Some(kind), "{path}");
        }
        assert_eq!(file_system("", Path::new("/")), None);
    }
}
