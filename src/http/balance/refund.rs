//! `POST /refund`: the balance of a key, as a token or over Lightning, or the change of a token that
//! rode on a request. With the `id` of an entry of the history, an earlier one again: whoever lost the
//! answer and has paid in since still gets it.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use serde::Deserialize;
use serde_json::json;

use super::{Answer, history, paying, read_json, respond, spawn};
use crate::failure::{Code, Failure, Funds};
use crate::http::{Node, headers};
use crate::ledger::Account;
use crate::lnurl::Recipient;
use crate::money::{MintUnit, Msat};
use crate::payment::keys::child_key;
use crate::payment::{self, Payment};
use crate::wallet::{Change, Destination, RefundError};

/// Seconds to wait for a refund that is being made.
const REFUND_RETRY: u64 = 2;

#[derive(Debug, Default, Deserialize)]
struct Wanted {
    /// A Lightning address or an LNURL; else a token.
    lightning_address: Option<String>,
    /// A mint of this node's whose token is wanted; else one of the mint that was paid at.
    mint: Option<String>,
    /// Of an entry of the history that went out: that refund is wanted again, and no new one.
    id: Option<String>,
}

/// What a refund is asked for.
enum Ask {
    /// All that is there.
    Balance(Destination),
    /// What went out by this entry of the history.
    Again(i64),
}

/// Serves the call.
pub async fn serve(State(node): State<Node>, request: Request) -> Response<Body> {
    let headers = request.headers().clone();
    let one_shot = headers::text(&headers, headers::X_CASHU).map(str::trim).filter(|token| !token.is_empty());
    if let Some(token) = one_shot {
        let token = token.to_owned();
        let outcome = async {
            // Whatever else such a call brings along has never mattered.
            let wanted: Wanted = read_json(request).await.unwrap_or_default();
            let entry = wanted.id.as_deref().map(history::entry).transpose()?;
            spawn(&node, move |node| async move { claim_change(&node, &token, entry).await }).await
        };
        return match outcome.await {
            Ok((change, returned)) => {
                let mut response = respond(refund_body(&change, returned));
                if let Change::Token { token, .. } = &change {
                    headers::put(response.headers_mut(), headers::X_CASHU, token);
                }
                response
            }
            Err(failure) => respond(Err(failure)),
        };
    }
    let outcome = async {
        let (payment, _) = paying(&headers)?;
        let ask = read_ask(read_json(request).await?)?;
        let (change, returned) =
            spawn(&node, move |node| async move { refund_key(&node, payment, &ask).await }).await?;
        refund_body(&change, returned)
    };
    respond(outcome.await)
}

fn read_ask(wanted: Wanted) -> Result<Ask, Failure> {
    match wanted.id {
        Some(id) => history::entry(&id).map(Ask::Again),
        None => read_destination(wanted).map(Ask::Balance),
    }
}

fn read_destination(wanted: Wanted) -> Result<Destination, Failure> {
    let text = |text: Option<String>| text.map(|text| text.trim().to_owned()).unwrap_or_default();
    let bad = |message: &str| Failure::client(Code::InvalidRequest, message);
    let recipient = text(wanted.lightning_address);
    if !recipient.is_empty() && Recipient::parse(&recipient).is_err() {
        return Err(bad("lightning_address must be a Lightning address (user@host) or an LNURL (lnurl1…)."));
    }
    let mint = text(wanted.mint);
    let mint = if mint.is_empty() {
        mint
    } else {
        crate::config::mint_url(&mint).map_err(|_| bad("mint is not the address of a mint."))?
    };
    Ok(Destination { mint, recipient })
}

/// The change of a token: the newest, or what went out by an entry of its history.
async fn claim_change(node: &Node, token: &str, entry: Option<i64>) -> Result<(Change, Returned), Failure> {
    let till = &node.exchange.till;
    let id = payment::read_token(token)?.id;
    let change = match entry {
        None => till.wallet().claim(&till.token_hash(token)).await,
        Some(entry) => match till.look_up(&id).await? {
            Some(account) => till.wallet().return_again(account.id, entry).await,
            None => Err(RefundError::Unknown),
        },
    };
    let change = change.map_err(claim_failure)?;
    let account = till.look_up(&id).await?;
    Ok((change, Returned::of(node, account.as_ref()).await))
}

fn claim_failure(error: RefundError) -> Failure {
    match error {
        RefundError::Unknown => not_found(),
        RefundError::Pending | RefundError::Ongoing => {
            Failure::unavailable(Code::RefundPending, "Refund is pending; retry shortly.", REFUND_RETRY)
        }
        // The network's clients stop asking, and forget the token, on exactly this.
        RefundError::Nothing | RefundError::TooSmall => {
            Failure::payment(Code::TokenAlreadySpent, "This Cashu token was used up: no change is due.")
        }
        RefundError::Swept => swept(),
        RefundError::MintGone => mint_gone("").funds(Funds::Claimable),
        RefundError::NoSuchMint | RefundError::Undeliverable(_) => Failure::internal().funds(Funds::Claimable),
        RefundError::Wallet(error) => {
            tracing::error!(%error, "change could not be looked up");
            Failure::internal().funds(Funds::Claimable)
        }
    }
}

/// What is told of a refund besides its amount.
struct Returned {
    unit: MintUnit,
    /// Ecash of foreign mints that was left over when tokens were swapped.
    remainders: Vec<String>,
}

impl Returned {
    async fn of(node: &Node, account: Option<&Account>) -> Self {
        let Some(account) = account else { return Self { unit: MintUnit::default(), remainders: Vec::new() } };
        let remainders = node.exchange.till.wallet().remainders(account.id).await.unwrap_or_else(|error| {
            tracing::error!(%error, "what was left of foreign ecash could not be looked up");
            Vec::new()
        });
        Self { unit: MintUnit::parse(&account.unit).unwrap_or_default(), remainders }
    }
}

async fn refund_key(node: &Node, payment: Payment, ask: &Ask) -> Result<(Change, Returned), Failure> {
    let till = &node.exchange.till;
    let key = payment.key_hex().ok_or_else(|| Failure::payment(Code::Unauthorized, "Unauthorized"))?;
    // Never redeems: a token that was not used here is best kept as it is.
    let account = till.look_up(key).await?.ok_or_else(|| Failure::payment(Code::KeyNotFound, "Key not found"))?;
    if account.parent.is_some() {
        return Err(child_key("A child key has no balance of its own; refund its parent."));
    }
    let given = match ask {
        Ask::Balance(to) => till.wallet().refund(account.id, to).await,
        Ask::Again(entry) => till.wallet().return_again(account.id, *entry).await,
    };
    let change = given.map_err(refund_failure)?;
    Ok((change, Returned::of(node, Some(&account)).await))
}

fn refund_failure(error: RefundError) -> Failure {
    match error {
        RefundError::Ongoing => {
            Failure::client(Code::RefundOngoing, "Cannot refund key. There are ongoing requests for this api key.")
        }
        RefundError::Nothing => Failure::client(Code::RefundNothing, "No balance to refund"),
        RefundError::Unknown => not_found(),
        RefundError::TooSmall => Failure::client(Code::RefundTooSmall, "Balance too small to refund (less than 1 sat)"),
        RefundError::Pending => {
            Failure::unavailable(Code::RefundPending, "Refund is pending; retry shortly.", REFUND_RETRY)
        }
        RefundError::Swept => swept(),
        RefundError::MintGone => {
            mint_gone(" Or name another mint of this node's (`mint`) or a `lightning_address`.").funds(Funds::OnAccount)
        }
        RefundError::NoSuchMint => Failure::client(
            Code::InvalidRequest,
            "This node holds no ecash of that mint. GET /v1/info lists its mints.",
        ),
        RefundError::Undeliverable(why) => {
            let message = format!("The Lightning payment was not made: {why}. The balance is unchanged.");
            Failure::upstream(Code::LightningFailed, message).funds(Funds::OnAccount)
        }
        RefundError::Wallet(error) => {
            tracing::error!(%error, "a refund failed");
            Failure::internal()
        }
    }
}

fn not_found() -> Failure {
    Failure::client(Code::RefundNotFound, "Refund not found")
}

fn refund_body(change: &Change, returned: Returned) -> Answer {
    let Returned { unit, remainders } = returned;
    let mut body = change_body(change, unit)?;
    if let Some(body) = body.as_object_mut().filter(|_| !remainders.is_empty()) {
        body.insert("foreign_remainders".into(), json!(remainders));
    }
    Ok(body)
}

fn change_body(change: &Change, unit: MintUnit) -> Answer {
    match change {
        Change::Token { token, amount, mint } => {
            let (name, units) = counted(*amount, unit);
            Ok(json!({ "token": token, name: units, "recipient": null, "mint": mint }))
        }
        Change::Sent { recipient, amount, fee } => {
            let (name, units) = counted(*amount, unit);
            Ok(json!({ "recipient": recipient, name: units, "fee_msats": fee.get() }))
        }
        Change::Nothing => Err(Failure::client(Code::RefundNothing, "No balance to refund")),
        Change::Swept => Err(swept()),
        Change::Failed(_) | Change::Owed => {
            Err(Failure::unavailable(Code::RefundPending, "Refund is pending; retry shortly.", REFUND_RETRY))
        }
    }
}

fn swept() -> Failure {
    Failure::client(Code::RefundSwept, "Refund has been swept")
}

/// Seconds after which to ask again for the money of a mint that the operator took off the list.
const MINT_GONE_RETRY: u64 = 3600;

fn mint_gone(or_else: &str) -> Failure {
    let message = format!(
        "The mint that was paid at is not one of this node's any more, so its ecash cannot be given out now. \
         Nothing is lost: the operator must list the mint again.{or_else}"
    );
    Failure::unavailable(Code::MintGone, message, MINT_GONE_RETRY)
}

/// An amount in the unit of its ecash, as a text, under its unit's name.
fn counted(amount: Msat, unit: MintUnit) -> (&'static str, String) {
    match unit {
        MintUnit::Sat => ("sats", amount.floor_sat().get().to_string()),
        MintUnit::Msat => ("msats", amount.get().to_string()),
    }
}
