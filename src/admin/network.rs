//! The node on Nostr: how it appears there, which relays have it, what is said of it, and who else there
//! is. All of it is read from the database; nobody is asked for a visit.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::Html;

use super::frame::Frame;
use super::session::Session;
use super::{AdminError, AdminState, format, page};
use crate::catalog::rivals::{Compared, Comparison, Quote};
use crate::money::Msat;
use crate::nostr::directory::{Health, Heard, Listed};
use crate::nostr::provider::{Opinion, RECOMMENDATION};
use crate::nostr::{Announced, RelayStatus, names};
use crate::tor::{self, Onion};

/// Nodes that are shown.
const MOST: usize = 100;
/// Models that are compared.
const MOST_PRICES: usize = 300;

#[derive(Template)]
#[template(path = "admin/network.html")]
struct Page {
    frame: Frame,
    npub: String,
    address: String,
    /// What clients see, in a word, and whether that is well.
    state: &'static str,
    is_listed: bool,
    event: String,
    made: Option<String>,
    ends: Option<String>,
    /// Where it is in Tor, and how; whether that is well.
    onion: String,
    onion_state: String,
    onion_is_well: bool,
    relays: Vec<RelayRow>,
    opinions: Vec<OpinionRow>,
    /// Whether others are looked for.
    looks: bool,
    /// The others, and those of them that answered last.
    up: usize,
    answering: usize,
    /// The first of them.
    providers: Vec<ProviderRow>,
    /// When prices were compared.
    compared: Option<String>,
    prices: Vec<PriceRow>,
    /// Nodes whose prices are not known, and why.
    price_troubles: Vec<(String, String)>,
}

/// A model here and elsewhere, in sats for a million tokens sent and received.
struct PriceRow {
    model: String,
    own: String,
    others: usize,
    cheapest: String,
    /// Whose that is.
    node: String,
    place: String,
    difference: Option<String>,
    is_dearest: bool,
}

struct RelayRow {
    url: String,
    has_it: bool,
    ok: Option<String>,
    trouble: Option<String>,
    /// Of the last look for other nodes.
    heard: Option<String>,
    heard_trouble: Option<String>,
    is_live: bool,
}

struct OpinionRow {
    kind: &'static str,
    author: String,
    labels: String,
    made: String,
}

struct ProviderRow {
    name: String,
    url: String,
    pubkey: String,
    version: String,
    /// `None`: nobody has looked yet.
    answers: Option<&'static str>,
    made: String,
}

pub(super) async fn show(State(state): State<AdminState>, session: Session) -> Result<Html<String>, AdminError> {
    let announced = state.network.announcer.announced().await?;
    let mut heard = BTreeMap::new();
    let (mut opinions, mut others) = (Vec::new(), Vec::new());
    if let Some(directory) = &state.network.directory {
        heard = directory.heard();
        opinions = directory.opinions(&names(&announced.address, &state.network.http_url)).await?;
        let own = directory.pubkey();
        others = directory.providers(None, usize::MAX).await?;
        others.retain(|listed| listed.provider.pubkey != own);
    }
    let comparison = match &state.network.rivals {
        Some(rivals) => rivals.comparison().await?,
        None => Comparison::default(),
    };
    let named = |address: &String| {
        let listed = others.iter().find(|listed: &&Listed| listed.provider.address() == *address);
        listed.map_or_else(|| address.clone(), |listed| listed.provider.endpoint_url.clone())
    };
    let (word, is_listed) = judge(&announced);
    let time = |secs: i64| format::utc(secs.saturating_mul(1000));
    let relays =
        announced.relays.iter().map(|(standing, has_it)| relay_row(standing, *has_it, heard.get(&standing.url)));
    let (onion_state, onion_is_well) = in_tor(&state.onion);
    page(&Page {
        onion: state.onion.url(),
        onion_state,
        onion_is_well,
        frame: Frame::of(&state, &session, "/admin/network"),
        npub: state.network.npub.clone(),
        state: word,
        is_listed,
        relays: relays.collect(),
        made: announced.event.as_ref().map(|(_, made, _)| time(*made)),
        ends: announced.event.as_ref().map(|(_, _, ends)| time(*ends)),
        event: announced.event.map(|(event, _, _)| event).unwrap_or_default(),
        address: announced.address,
        opinions: opinions.iter().map(opinion_row).collect(),
        looks: state.network.directory.is_some(),
        up: others.len(),
        answering: others.iter().filter(|listed| answers(listed).unwrap_or_default()).count(),
        providers: others.iter().take(MOST).map(provider_row).collect(),
        compared: comparison.at_ms.map(format::utc),
        prices: comparison.models.iter().filter_map(|compared| price_row(compared, named)).take(MOST_PRICES).collect(),
        price_troubles: comparison.troubles.iter().map(|(node, why)| (named(node), why.clone())).collect(),
    })
}

/// How the node is in Tor, and whether that is as it should be.
fn in_tor(onion: &Onion) -> (String, bool) {
    match onion.state() {
        tor::State::Off if onion.url().is_empty() => ("off: TOR is not set".to_owned(), true),
        tor::State::Off => ("by a tor daemon beside the node, which knows how it is".to_owned(), true),
        tor::State::Starting(how) => (format!("starting: {how}"), true),
        tor::State::Reachable(how) => (how.to_owned(), true),
        tor::State::Failed(why) => (format!("not there, and tried again: {why}"), false),
    }
}

/// What clients see, in a word.
fn judge(announced: &Announced) -> (&'static str, bool) {
    if announced.relays.is_empty() {
        return ("not on Nostr: RELAYS is not set", false);
    }
    let told = announced.relays.iter().filter(|(_, has_it)| *has_it).count();
    match (&announced.event, announced.is_down, told) {
        (None, _, _) => ("not listed: neither HTTP_URL nor the onion is an address that can be announced", false),
        (Some(_), true, _) => ("said to be down", false),
        (Some(_), false, 0) => ("no relay has the listing yet", false),
        (Some(_), false, _) => ("listed", true),
    }
}

fn relay_row(standing: &RelayStatus, has_it: bool, heard: Option<&Heard>) -> RelayRow {
    let flood = |heard: &Heard| if heard.is_flood { ", and more than was asked for" } else { "" };
    let took = |heard: &Heard| format!("{} taken, {} refused{}", heard.taken, heard.refused, flood(heard));
    RelayRow {
        url: standing.url.clone(),
        has_it,
        ok: standing.ok_ms.map(format::utc),
        trouble: Some(standing.said.clone()).filter(|said| !said.is_empty()),
        heard: heard.filter(|heard| heard.at_ms > 0).map(took),
        heard_trouble: heard.and_then(|heard| heard.trouble.clone()),
        is_live: heard.is_some_and(|heard| heard.is_live),
    }
}

fn price_row(compared: &Compared, named: impl Fn(&String) -> String) -> Option<PriceRow> {
    let (address, cheapest) = compared.others.first()?;
    let text = |quote: Quote| format!("{} / {}", msat(quote.prompt), msat(quote.completion));
    let all = compared.others.len().saturating_add(1);
    let place = compared.place();
    let percent = |percent: i64| format!("{}{percent} %", if percent > 0 { "+" } else { "" }).replace('-', "−");
    Some(PriceRow {
        model: compared.model.clone(),
        own: text(compared.own),
        others: compared.others.len(),
        cheapest: text(*cheapest),
        node: named(address),
        place: format!("{place} of {all}"),
        difference: compared.percent().map(percent),
        is_dearest: place == all,
    })
}

fn msat(amount: Msat) -> String {
    format::sat(i64::try_from(amount.get()).unwrap_or(i64::MAX))
}

fn opinion_row(opinion: &Opinion) -> OpinionRow {
    OpinionRow {
        kind: if opinion.kind == RECOMMENDATION { "recommendation" } else { "review" },
        author: opinion.author.clone(),
        labels: opinion.labels.join(", "),
        made: format::utc(opinion.created_at.saturating_mul(1000)),
    }
}

/// Whether a node answered as one does; `None`: nobody has looked yet.
fn answers(listed: &Listed) -> Option<bool> {
    listed.health.as_ref().map(Health::is_good)
}

fn provider_row(listed: &Listed) -> ProviderRow {
    let provider = &listed.provider;
    ProviderRow {
        name: provider.name.clone(),
        url: provider.endpoint_url.clone(),
        pubkey: provider.pubkey.get(..12).unwrap_or_default().to_owned(),
        version: provider.version.clone(),
        answers: answers(listed).map(|answers| if answers { "yes" } else { "no" }),
        made: format::utc(provider.created_at.saturating_mul(1000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_is_told_in_a_word_whether_clients_find_the_node() {
        let with = |event: bool, is_down, relays: &[bool]| {
            let relays = relays.iter().map(|has_it| (RelayStatus::default(), *has_it)).collect();
            let event = event.then(|| ("{}".to_owned(), 1, 2));
            judge(&Announced { address: String::new(), event, is_down, relays })
        };
        assert!(!with(true, false, &[]).1);
        assert!(!with(false, false, &[false]).1);
        assert_eq!(with(true, true, &[true]), ("said to be down", false));
        assert_eq!(with(true, false, &[false]), ("no relay has the listing yet", false));
        assert_eq!(with(true, false, &[false, true]), ("listed", true));
    }
}
