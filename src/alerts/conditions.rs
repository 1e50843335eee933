//! How everything is, as this process knows it. Nobody is asked: what asks are the jobs that do the work.

use std::sync::Arc;

use super::{Kind, Reading, State};
use crate::audit::{Lack, Latest, Report};
use crate::exchange::Exchange;
use crate::nostr::Announcer;
use crate::pages::format;
use crate::price;
use crate::store::StoreError;
use crate::upstream;
use crate::wallet::{Condition, MintHealth, WalletError};

/// An operation that takes longer than this is stuck, in ms. The wallet waits ten minutes for a mint's word by itself.
const STUCK_MS: i64 = 30 * 60 * 1000;

/// Looks at everything that may go wrong.
#[derive(Clone, Debug)]
pub struct Watchman {
    pub exchange: Arc<Exchange>,
    pub audit: Latest,
    pub announcer: Announcer,
}

/// Why not all could be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Wallet(#[from] WalletError),
}

impl Watchman {
    /// How all of it is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn look(&self) -> Result<Vec<Reading>, LookError> {
        let exchange = &self.exchange;
        let (wallet, now_ms) = (exchange.till.wallet(), exchange.ledger.clock().now_ms());
        let mut found = solvency(self.audit.get().as_deref(), self.audit.lack().as_ref()).to_vec();
        // The reason may repeat what stands in the database; it is on the operator's page.
        let halted = wallet.halted().map(|_| "The database is not as it was left; /readyz says why".to_owned());
        found.push(Reading::new(Kind::Halted, "", wrong_if(halted)));
        for mint in wallet.health() {
            let state = mint_state(&mint, wallet.knows(&mint.mint).await);
            found.push(Reading::new(Kind::MintDown, mint.mint, state));
        }
        found.push(Reading::new(Kind::RateStale, "", self.rate()));
        for one in exchange.pool.conditions() {
            found.extend(upstream_states(&one));
        }
        // Whether earnings are sent at all may be changed while the node runs.
        let payouts = exchange.settings.now().payouts.clone();
        if let Some(recipient) = &payouts.recipient {
            for failed in wallet.failed_payouts(recipient, payouts.minimum).await? {
                let amount = format::sat(i64::try_from(failed.amount.get()).unwrap_or(i64::MAX));
                let said = format!("{amount} sat could not be sent, and are still yours; it is tried again");
                found.push(Reading::new(Kind::PayoutFailed, failed.mint, State::Wrong(said)));
            }
        }
        for stuck in wallet.unfinished(now_ms.saturating_sub(STUCK_MS)).await? {
            let said = format!("{} unfinished since {}", format::count(stuck.count), format::utc(stuck.oldest_ms));
            found.push(Reading::new(Kind::OperationStuck, stuck.mint, State::Wrong(said)));
        }
        for (mint, unit) in wallet.short_of_change().await? {
            let said = format!("Coins in {} are not exchanged, so change needs calls to the mint", unit.as_str());
            found.push(Reading::new(Kind::ChangeLow, mint, State::Wrong(said)));
        }
        found.push(Reading::new(Kind::RelaysDown, "", self.relays().await?));
        Ok(found)
    }

    fn rate(&self) -> State {
        let view = self.exchange.market.rate();
        match view.rate {
            Ok(rate) if rate.basis == price::RateBasis::Grace => State::Wrong(format!(
                "Too few feeds answer since {}; the last rate is used, made dearer",
                format::utc(rate.as_of_ms)
            )),
            Ok(_) => State::Well,
            // Fixed prices in sats need none.
            Err(_) if self.exchange.market.is_priced() => State::Well,
            Err(stale) => State::Wrong(match stale.last_seen_ms {
                Some(at_ms) => format!(
                    "Too few feeds agree, the last answered at {}; nothing that has a price in USD is sold",
                    format::utc(at_ms)
                ),
                None => "No feed has answered; nothing that has a price in USD is sold".to_owned(),
            }),
        }
    }

    /// Whether the listing is at some relay, or may come to be.
    async fn relays(&self) -> Result<State, StoreError> {
        let announced = self.announcer.announced().await?;
        if announced.event.is_none() || announced.is_down || announced.relays.is_empty() {
            return Ok(State::Well);
        }
        let fails = |(standing, has): &(crate::nostr::RelayStatus, bool)| !has && standing.failures > 0;
        let count = announced.relays.len();
        let all = announced.relays.iter().all(fails);
        Ok(wrong_if(all.then(|| format!("{count} of {count} fail, so clients do not find the node"))))
    }
}

fn wrong_if(said: Option<String>) -> State {
    said.map_or(State::Well, State::Wrong)
}

/// By the last audit of this process, and by whether one can be made.
fn solvency(report: Option<&Report>, lack: Option<&Lack>) -> [Reading; 2] {
    let (short, faulty) = match (report, lack) {
        (None, None) => (State::Unknown, State::Unknown),
        // What is missing is not known. The reason may repeat what stands in the database.
        (_, Some(lack)) => {
            let at = format::utc(lack.at_ms);
            let said = format!("They could not be read at {at}; coinslot audit and your page say why");
            (State::Unknown, State::Wrong(said))
        }
        (Some(report), None) => {
            let (missing, faults) = (report.shortfall_msat(), report.faults.len());
            let short = (missing > 0).then(|| format!("{} sat are missing", format::sat(missing)));
            let faulty = (faults > 0).then(|| format!("{faults} faults; coinslot audit names them"));
            (wrong_if(short), wrong_if(faulty))
        }
    };
    [Reading::new(Kind::Insolvent, "", short), Reading::new(Kind::Books, "", faulty)]
}

fn mint_state(mint: &MintHealth, is_known: bool) -> State {
    let trouble = mint.trouble.map(|(trouble, at_ms)| (trouble.as_str(), at_ms));
    let said = |(what, at_ms): (&str, i64)| State::Wrong(format!("{what}, last at {}", format::utc(at_ms)));
    let answered_ms = mint.answered_ms.unwrap_or(i64::MIN);
    match (mint.condition, trouble) {
        (Condition::Open { .. } | Condition::HalfOpen, Some(trouble)) => said(trouble),
        (Condition::Open { .. } | Condition::HalfOpen, None) => State::Unknown,
        // It has failed since it answered, and not often enough to be left alone.
        (Condition::Closed, Some((_, at_ms))) if at_ms >= answered_ms => {
            if is_known {
                State::Unknown
            } else {
                trouble.map_or(State::Unknown, said)
            }
        }
        (Condition::Closed, _) if answered_ms == i64::MIN => State::Unknown,
        (Condition::Closed, _) => State::Well,
    }
}

fn upstream_states(one: &upstream::Condition) -> [Reading; 3] {
    let barred = one.bar.map(|(bar, _)| format!("{}; it is not asked until you clear it", sentence(bar.text())));
    let locked = match one.locked_since_ms {
        _ if !one.was_heard => State::Unknown,
        // Told already, and with its cause.
        Some(since_ms) if one.bar.is_none() => State::Wrong(format!(
            "It answers 401, 402 or 403, in words that this node does not know, since {}; it is asked last",
            format::utc(since_ms)
        )),
        _ => State::Well,
    };
    let down = match one.down_since_ms {
        _ if !one.was_heard => State::Unknown,
        // Told already, and by its cause.
        Some(_) if one.bar.is_some() => State::Well,
        Some(_) => State::Wrong(match &*one.out {
            [] => "It failed repeatedly, and has answered nothing since".to_owned(),
            out => {
                format!("It failed repeatedly, has answered nothing since, and is left alone for {} models", out.len())
            }
        }),
        None => State::Well,
    };
    [
        Reading::new(Kind::UpstreamBarred, &*one.name, wrong_if(barred)),
        Reading::new(Kind::UpstreamLocked, &*one.name, locked),
        Reading::new(Kind::UpstreamDown, &*one.name, down),
    ]
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string());
    format!("{}{}", first.unwrap_or_default(), letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wallet::health::{Tally, Trouble};

    fn mint(condition: Condition, trouble: Option<i64>, answered_ms: Option<i64>) -> MintHealth {
        let trouble = trouble.map(|at_ms| (Trouble::Timeout, at_ms));
        let (mint, calls, waiting, tally) = ("https://m".to_owned(), None, 0, Tally::default());
        MintHealth { mint, condition, calls, waiting, trouble, answered_ms, tally }
    }

    #[test]
    fn what_is_not_known_of_a_mint_is_not_said() {
        let open = Condition::Open { secs: 1, limited: false };
        let kind = |state: State| match state {
            State::Wrong(_) => "wrong",
            State::Well => "well",
            State::Unknown => "unknown",
        };
        for (condition, trouble, answered, is_known, expected) in [
            (Condition::Closed, None, None, true, "unknown"),
            (Condition::Closed, None, Some(5), true, "well"),
            (Condition::Closed, Some(3), Some(5), true, "well"),
            (Condition::Closed, Some(7), Some(5), true, "unknown"),
            (Condition::Closed, Some(7), None, false, "wrong"),
            (open, Some(7), Some(5), true, "wrong"),
            (Condition::HalfOpen, Some(7), Some(5), true, "wrong"),
        ] {
            let state = mint_state(&mint(condition, trouble, answered), is_known);
            assert_eq!(kind(state), expected, "{condition:?} {trouble:?} {answered:?} {is_known}");
        }
    }

    #[test]
    fn an_audit_that_was_not_made_says_nothing_and_one_that_cannot_be_made_is_an_alarm() {
        assert!(solvency(None, None).iter().all(|reading| reading.state == State::Unknown));
        let report = Report { faults: vec!["a row".to_owned()], liabilities_msat: 5_000, ..Report::default() };
        let [short, books] = solvency(Some(&report), None);
        assert_eq!(short.state, State::Wrong("5.000 sat are missing".to_owned()));
        assert_eq!(books.state, State::Wrong("1 faults; coinslot audit names them".to_owned()));
        assert!(solvency(Some(&Report::default()), None).iter().all(|reading| reading.state == State::Well));
        // However good the last one was.
        let lack = Lack { at_ms: 0, why: "a row".to_owned() };
        for before in [None, Some(&Report::default())] {
            let [short, books] = solvency(before, Some(&lack));
            assert_eq!(short.state, State::Unknown);
            assert!(
                matches!(books.state, State::Wrong(said) if said.contains("1970-01-01") && !said.contains("a row"))
            );
        }
    }
}
