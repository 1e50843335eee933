//! The node's ecash: which coins there are, what is under way at the mints and what each operation waits for, and a
//! way to carry one on before its time. What goes out is in [`withdraw`], what comes in by the operator's hand in
//! [`receive`].

mod receive;
mod withdraw;

use askama::Template;
use axum::extract::{DefaultBodyLimit, Form, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{ApiError, Complaint, Part};
use super::frame::Frame;
use super::operator::{Actor, Operator, Scope};
use super::session::Session;
use super::{AdminError, AdminState, MAX_LONG_FORM_BYTES, Notice, format, page, shown_again};
use crate::operator::wallet as acts;
use crate::wallet::stock::Stock;
use crate::wallet::underway::{self, Underway, YOUNG_MS};
use crate::wallet::{MintHealth, Retried};

const PATH: &str = "/admin/wallet";

pub(super) fn pages() -> Router<AdminState> {
    let receive = post(receive::receive_form).layer(DefaultBodyLimit::max(MAX_LONG_FORM_BYTES));
    Router::new()
        .route(PATH, get(show))
        .route("/admin/wallet/retry", post(retry_form))
        .route("/admin/wallet/withdraw", post(withdraw::withdraw_form))
        .route("/admin/wallet/payouts", get(withdraw::list))
        .route("/admin/wallet/payouts/{id}", get(withdraw::show).post(withdraw::look_form))
        .route("/admin/wallet/receive", receive)
}

pub(super) fn api() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(show_call))
        .routes(routes!(retry_call))
        .routes(routes!(withdraw::withdraw_call))
        .routes(routes!(withdraw::list_call))
        .routes(routes!(withdraw::show_call))
        .routes(routes!(withdraw::look_call))
        .routes(routes!(receive::receive_call))
        .layer(DefaultBodyLimit::max(MAX_LONG_FORM_BYTES))
}

/// The wallet.
#[derive(Serialize, ToSchema)]
#[schema(as = Wallet)]
struct View {
    /// Why no money moves, if it does not.
    halted: Option<String>,
    purses: Vec<Purse>,
    mints: Vec<MintView>,
    /// What has not ended, the oldest first.
    operations: Vec<Operation>,
    /// Invoices of the mints that wait to be paid.
    waiting_invoices: u64,
}

/// The ecash of one mint and unit.
#[derive(Serialize, ToSchema)]
#[schema(as = WalletPurse)]
struct Purse {
    mint: String,
    unit: &'static str,
    /// What can be spent, in so many coins.
    msat: i64,
    coins: u64,
    /// What operations under way have set aside.
    in_hand_msat: i64,
    /// What can be withdrawn: earned, and owed to nobody.
    free_msat: i64,
    /// A payout from this mint is under way; no other begins before it has ended.
    is_paying: bool,
    keysets: Vec<Keyset>,
    ladder: Vec<Rung>,
}

/// Coins of one keyset.
#[derive(Serialize, ToSchema)]
#[schema(as = WalletKeyset)]
struct Keyset {
    id: String,
    /// The mint still signs with it.
    is_active: bool,
    /// Until when the mint takes its coins (NUT-02, `final_expiry`).
    ends_ms: Option<i64>,
    coins: u64,
    msat: i64,
}

/// Coins of one amount.
#[derive(Serialize, ToSchema)]
#[schema(as = WalletRung)]
struct Rung {
    /// Of each, in the unit.
    amount: u64,
    coins: u64,
    /// How many are kept ready for change, where that is known.
    wanted: Option<u64>,
    /// Fewer than half of them are there.
    is_short: bool,
}

/// How a mint is.
#[derive(Serialize, ToSchema)]
#[schema(as = WalletMint)]
struct MintView {
    mint: String,
    /// In words.
    state: String,
    is_alone: bool,
    answered_ms: Option<i64>,
    /// What went wrong last, and when.
    trouble: Option<String>,
    trouble_ms: Option<i64>,
}

/// An operation at a mint that has not ended.
#[derive(Serialize, ToSchema)]
#[schema(as = WalletOperation)]
struct Operation {
    id: String,
    /// redeem, topup, change, refund, expiry, payout or sweep
    kind: &'static str,
    /// planned, acting or unknown
    state: &'static str,
    mint: String,
    msat: i64,
    began_ms: i64,
    /// When it is looked at again.
    due_ms: i64,
    attempts: u32,
    /// What would decide it.
    awaited: &'static str,
    /// What was said last.
    said: String,
    is_stuck: bool,
}

async fn view(state: &AdminState) -> Result<View, AdminError> {
    let now_ms = state.now_ms();
    let all = underway::read(&mut *state.ledger.store().read().acquire().await?).await?;
    Ok(View {
        halted: state.wallet.halted(),
        purses: state.wallet.stock().await?.into_iter().map(purse).collect(),
        mints: state.wallet.health().iter().map(mint).collect(),
        operations: all.operations.into_iter().map(|one| operation(one, now_ms)).collect(),
        waiting_invoices: all.invoices,
    })
}

fn purse(stock: Stock) -> Purse {
    let rung = |coins: &crate::wallet::stock::Coins| Rung {
        amount: coins.amount,
        coins: coins.count,
        wanted: coins.wanted,
        is_short: coins.wanted.is_some_and(|wanted| coins.count < wanted.div_ceil(2)),
    };
    Purse {
        unit: stock.unit.as_str(),
        msat: stock.worth.to_db(),
        coins: stock.count,
        in_hand_msat: stock.in_hand.to_db(),
        free_msat: stock.free.to_db(),
        is_paying: stock.is_paying,
        ladder: stock.coins.iter().map(rung).collect(),
        keysets: stock
            .keysets
            .into_iter()
            .map(|one| Keyset {
                id: one.id,
                is_active: one.is_active,
                ends_ms: one.ends_ms,
                coins: one.count,
                msat: one.worth.to_db(),
            })
            .collect(),
        mint: stock.mint,
    }
}

fn mint(health: &MintHealth) -> MintView {
    let complaint = health.complaint();
    MintView {
        mint: health.mint.clone(),
        is_alone: complaint.is_some(),
        state: complaint.unwrap_or_else(|| "is asked".to_owned()),
        answered_ms: health.answered_ms,
        trouble: health.trouble.map(|(trouble, _)| trouble.as_str().to_owned()),
        trouble_ms: health.trouble.map(|(_, at_ms)| at_ms),
    }
}

fn operation(one: Underway, now_ms: i64) -> Operation {
    Operation {
        is_stuck: now_ms.saturating_sub(one.created_ms) > YOUNG_MS,
        id: one.id,
        kind: one.kind,
        state: one.state,
        mint: one.mint,
        msat: one.amount.to_db(),
        began_ms: one.created_ms,
        due_ms: one.due_ms,
        attempts: one.attempts,
        awaited: one.awaited,
        said: one.said,
    }
}

/// Runs what touches money in a task of its own: a browser that goes away does not interrupt it.
async fn to_its_end<T: Send + 'static>(
    state: &AdminState,
    work: impl Future<Output = Result<T, AdminError>> + Send + 'static,
) -> Result<T, AdminError> {
    state.exchange.tracker.spawn(work).await.unwrap_or_else(|error| Err(AdminError::Task(error.to_string())))
}

/// Carries an operation on now. It is what the journal does by itself later: evidence first, nothing twice.
async fn retry(state: &AdminState, actor: &Actor, id: &str) -> Result<Outcome, AdminError> {
    let (wallet, one) = (state.wallet.clone(), id.to_owned());
    let retrying = to_its_end(state, async move { Ok(wallet.retry(&one).await?) });
    match acts::retry(state.desk(actor), id, retrying).await? {
        Retried::Ended => Ok(Outcome { ended: true }),
        Retried::Open => Ok(Outcome { ended: false }),
        Retried::Unknown => Err(AdminError::not_found("There is no such operation.")),
        Retried::MintGone => Err(AdminError::conflict("Its mint is not configured: list it again in CASHU_MINTS.")),
        Retried::MintRests => {
            Err(AdminError::conflict("Its mint is left alone for a while, because it failed or limits its callers."))
        }
        Retried::Halted(why) => Err(AdminError::conflict(format!("No money moves now: {why}."))),
    }
}

#[derive(Template)]
#[template(path = "admin/wallet.html")]
struct Page {
    frame: Frame,
    message: String,
    news: String,
    view: View,
    now_ms: i64,
    payouts: Vec<withdraw::PayoutView>,
    /// Names the withdrawal that the form would make: sent twice, it is made once.
    act: String,
}

impl Page {
    fn time(&self, at_ms: &i64) -> String {
        format::utc(*at_ms)
    }

    fn age(&self, began_ms: &i64) -> String {
        format::age(self.now_ms.saturating_sub(*began_ms))
    }
}

/// Payouts that the page itself shows.
const FEW: i64 = 10;

async fn render(state: &AdminState, session: &Session, notice: Notice, news: String) -> Result<Response, AdminError> {
    let html = page(&Page {
        frame: Frame::of(state, session, PATH),
        message: notice.message,
        news,
        view: view(state).await?,
        now_ms: state.now_ms(),
        payouts: withdraw::view(state, None, FEW).await?.payouts,
        act: uuid::Uuid::new_v4().to_string(),
    })?;
    Ok((notice.status, html).into_response())
}

async fn show(State(state): State<AdminState>, session: Session) -> Result<Response, AdminError> {
    render(&state, &session, Notice::none(), String::new()).await
}

#[derive(Deserialize)]
struct Retry {
    csrf: String,
    id: String,
}

async fn retry_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Retry>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let retried = retry(&state, session.actor(), &form.id).await;
    let refused = async |notice| render(&state, &session, notice, String::new()).await;
    shown_again(retried.map(|_| PATH), refused).await
}

/// The node's ecash, and what is under way at its mints.
#[utoipa::path(get, path = "/admin/api/wallet", tag = "admin", security(("operator" = ["read"])), responses(
    (status = 200, body = View), (status = 403, body = Complaint),
))]
async fn show_call(State(state): State<AdminState>, operator: Operator) -> Result<Json<View>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(view(&state).await?))
}

/// What came of carrying an operation on.
#[derive(Serialize, ToSchema)]
#[schema(as = RetryOutcome)]
struct Outcome {
    /// It is over. If not, still nobody knows.
    ended: bool,
}

/// Carries an operation on now, from evidence. Nothing is done twice.
#[utoipa::path(post, path = "/admin/api/wallet/operations/{id}/retry", tag = "admin",
    security(("operator" = ["money"])), params(("id" = String, Path)), responses(
    (status = 200, body = Outcome), (status = 403, body = Complaint), (status = 404, body = Complaint),
    (status = 409, body = Complaint),
))]
async fn retry_call(
    State(state): State<AdminState>,
    operator: Operator,
    Part(id): Part<String>,
) -> Result<Json<Outcome>, ApiError> {
    Ok(Json(retry(&state, operator.may(Scope::Money)?, &id).await?))
}
