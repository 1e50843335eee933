//! A key: what is on it, what came and went, what was bought. A token that is new here is shown with its
//! worth, and put on a key only when its owner says so.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::card::{self, Card};
use super::prices::exact;
use super::{Sent, answer, moment, render};
use crate::failure::{Failure, Funds};
use crate::http::{self, Node};
use crate::ledger::terms::Reset;
use crate::ledger::{Account, AccountKind, TransferKind};
use crate::pages::format;
use crate::payment::keys::Figures;
use crate::payment::sight::Sight;
use crate::payment::{self, Payment};
use crate::wallet::Movement;

/// Movements and requests that are listed.
const LISTED: i64 = 20;

#[derive(Template)]
#[template(path = "shop/key.html")]
struct Page {
    name: String,
    /// What happened just now.
    news: &'static str,
    /// With `sk-`.
    key: String,
    /// Whether the key itself is to be seen at once.
    shown: bool,
    available: String,
    held: Option<String>,
    spent: String,
    requests: String,
    limits: Vec<String>,
    mint: String,
    /// The parent of a child key, by the first digits of its hash.
    parent: Option<String>,
    children: usize,
    /// A token that paid for a request of its own: what is left of it is change.
    one_shot: bool,
    movements: Vec<Moved>,
    cards: Vec<Card>,
}

#[derive(Template)]
#[template(path = "shop/token.html")]
struct TokenPage {
    name: String,
    token: String,
    face: String,
    net: String,
    mint: String,
}

/// A movement of money.
struct Moved {
    time: String,
    what: String,
    /// With its sign.
    sat: String,
    note: &'static str,
}

/// What a key or token is. Redeems nothing.
pub(super) async fn look(State(node): State<Node>, sent: Sent) -> Response {
    let page = async {
        let text = sent.0?.key;
        let payment = payment::read_key(text.trim())?;
        let worker = node.clone();
        match http::spawn(&node, async move |_| worker.exchange.till.look_at(payment).await).await? {
            Sight::Known(account, key) => show(&node, &account, &key, "", false).await,
            Sight::Fresh(token, net) => render(&TokenPage {
                name: node.info().name,
                token: text.trim().to_owned(),
                face: format::sat(token.face.to_db()),
                net: format::sat(net.to_db()),
                mint: token.mint.clone(),
            }),
        }
    };
    answer(&node, page.await)
}

/// Puts a token on a key.
pub(super) async fn redeem(State(node): State<Node>, sent: Sent) -> Response {
    let page = async {
        node.exchange.till.may_move()?;
        let payment = Payment::TokenKey(Box::new(payment::read_token(sent.0?.key.trim())?));
        let opened = http::spawn(&node, async move |node: Node| node.exchange.till.open(payment, None).await);
        let (account, key) = opened.await?;
        let news = "The token is a key now. Keep it: whoever has it has the money.";
        show(&node, &account, &key, news, true).await
    };
    answer(&node, page.await)
}

/// The page of the key that opens this account.
pub(super) async fn show(
    node: &Node,
    account: &Account,
    key: &str,
    news: &'static str,
    shown: bool,
) -> Result<Response, Failure> {
    let till = &node.exchange.till;
    let statement = till.statement(account).await?;
    let figures = statement.figures(account, node.exchange.ledger.clock().now_ms());
    let movements = match account.parent {
        Some(_) => Vec::new(),
        None => till.history(account, None, LISTED).await?,
    };
    let requests = node.exchange.ledger.last_requests(account, LISTED).await.map_err(|error| {
        tracing::error!(%error, "the requests of a key could not be looked up");
        Failure::internal().funds(Funds::OnAccount)
    })?;
    render(&Page {
        name: node.info().name,
        news,
        key: format!("sk-{key}"),
        shown,
        available: format::sat(figures.available.to_db()),
        held: (!figures.held.is_zero()).then(|| format::sat(figures.held.to_db())),
        spent: format::sat(figures.spent.to_db()),
        requests: i64::try_from(figures.requests).map_or_else(|_| figures.requests.to_string(), format::count),
        limits: limits(&figures).into_iter().chain(prices(node, account)).collect(),
        mint: account.mint.clone(),
        parent: statement.parent,
        children: statement.children.len(),
        one_shot: account.kind == AccountKind::Token,
        movements: movements.iter().map(moved).collect(),
        cards: requests.iter().map(card::of).collect(),
    })
}

fn limits(figures: &Figures) -> Vec<String> {
    let limits = figures.limits;
    let cap = limits.cap.map(|cap| {
        let window = match limits.reset {
            Some(Reset::Daily) => " a day",
            Some(Reset::Weekly) => " a week",
            Some(Reset::Monthly) => " a month",
            None => "",
        };
        format!("Spends at most {} sat{window}.", format::sat(cap.to_db()))
    });
    let end = limits.valid_until.map(|end| format!("Works until {}.", moment(end.saturating_mul(1000))));
    let blocked = "The operator has blocked this key: it pays for nothing. Its money can be had back.".to_owned();
    figures.is_blocked.then_some(blocked).into_iter().chain(cap).chain(end).collect()
}

/// Which prices the key has, where they are not those of everybody.
fn prices(node: &Node, account: &Account) -> Vec<String> {
    let tariffs = node.exchange.market.tariffs();
    let Some(profile) = account.profile.as_ref().and_then(|name| tariffs.profile(name)) else { return Vec::new() };
    let factor = exact(profile.multiplier);
    let mut said = vec![format!("Has the prices of the profile “{}”: {factor} times those of the list.", profile.name)];
    let models = profile.models.describe();
    if !models.is_empty() {
        said.push(format!("Can be used for these models: {models}."));
    }
    said
}

fn moved(movement: &Movement) -> Moved {
    let what = match (movement.kind, movement.incoming) {
        (TransferKind::Redeem | TransferKind::TopUp, true) => "Ecash came in".to_owned(),
        (TransferKind::Refund, false) => "Refund".to_owned(),
        (TransferKind::Change, false) => "Change".to_owned(),
        (TransferKind::ChildKey, _) => "Child keys".to_owned(),
        (other, _) => other.as_str().replace('_', " "),
    };
    let note = match (movement.reclaimed, movement.done) {
        (true, _) => "nobody claimed it",
        (false, false) => "under way",
        (false, true) => "",
    };
    let sign = if movement.incoming { "+" } else { "−" };
    Moved {
        time: moment(movement.created_ms),
        what,
        sat: format!("{sign}{}", format::sat(movement.amount.to_db())),
        note,
    }
}
