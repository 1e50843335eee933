//! What was earned goes to the operator: as ecash, or over Lightning. Only what is owed to nobody, and only while the
//! books are proven. A withdrawal has a page of its own, where its ecash can be had until it is spent.

use askama::Template;
use axum::Json;
use axum::extract::{Form, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::to_its_end;
use crate::admin::api::{ApiError, Body, Complaint, Part, Search};
use crate::admin::frame::Frame;
use crate::admin::operator::{Actor, Operator, Scope};
use crate::admin::session::Session;
use crate::admin::{AdminError, AdminState, format, page, shown_again};
use crate::money::{MintUnit, Msat};
use crate::operator::proof;
use crate::pages::qr::{self, Qr};
use crate::wallet::withdraw::{self as wallet, Payout, To, WithdrawError, Withdrawal};

/// Payouts of a part, unless another number is asked for.
const LISTED: i64 = 50;

/// What went to the operator, or is on its way.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = Payout)]
pub(super) struct PayoutView {
    pub id: String,
    pub mint: String,
    /// What left the earnings. What a payment did not need of it is income again.
    pub msat: i64,
    /// A Lightning address, an LNURL or an invoice; empty: ecash.
    pub to: String,
    /// planned, acting, unknown, done or failed
    pub state: &'static str,
    /// The mint says that the ecash was spent.
    pub is_claimed: bool,
    pub began_ms: i64,
    pub attempts: u32,
    /// What arrived, and what that cost, once it is done.
    pub arrived_msat: Option<i64>,
    pub fee_msat: Option<i64>,
    /// The proof of a payment.
    pub preimage: Option<String>,
    /// Why it failed, or what was said last.
    pub why: String,
}

impl From<Payout> for PayoutView {
    fn from(payout: Payout) -> Self {
        Self {
            id: payout.id,
            mint: payout.mint,
            msat: payout.amount.to_db(),
            to: payout.recipient,
            state: payout.state,
            is_claimed: payout.is_claimed,
            began_ms: payout.created_ms,
            attempts: payout.attempts,
            arrived_msat: payout.paid.map(|(amount, _)| amount.to_db()),
            fee_msat: payout.paid.map(|(_, fee)| fee.to_db()),
            preimage: payout.preimage,
            why: payout.why,
        }
    }
}

impl PayoutView {
    /// Who is paid, short enough for a table.
    pub(super) fn to_short(&self) -> String {
        match self.to.char_indices().nth(40) {
            _ if self.to.is_empty() => "ecash".to_owned(),
            Some((end, _)) => format!("{}…", self.to.get(..end).unwrap_or_default()),
            None => self.to.clone(),
        }
    }

    pub(super) fn began(&self) -> String {
        format::utc(self.began_ms)
    }
}

/// A part of the payouts, the newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = PayoutPage)]
pub(super) struct View {
    pub payouts: Vec<PayoutView>,
    /// `before` of the next part, if there is one.
    pub next: Option<String>,
}

pub(super) async fn view(state: &AdminState, before: Option<&str>, limit: i64) -> Result<View, AdminError> {
    let bad = || AdminError::invalid("There is no such part of the list.");
    let before = before.map(|text| {
        let (at_ms, id) = text.split_once('.').ok_or_else(bad)?;
        Ok::<_, AdminError>((at_ms.parse::<i64>().map_err(|_| bad())?, id))
    });
    let before = before.transpose()?;
    let limit = limit.clamp(1, wallet::MOST.saturating_sub(1));
    let mut reader = state.ledger.store().read().acquire().await?;
    let mut found = wallet::payouts(&mut reader, before, limit.saturating_add(1)).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let is_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| is_more).map(|last| format!("{}.{}", last.created_ms, last.id));
    Ok(View { payouts: found.into_iter().map(PayoutView::from).collect(), next })
}

/// One payout, with the ecash that it made, as long as that is not known to be spent.
#[derive(Serialize, ToSchema)]
#[schema(as = OnePayout)]
pub(super) struct OneView {
    #[serde(flatten)]
    payout: PayoutView,
    /// Whoever has it has the money.
    token: Option<String>,
}

async fn one(state: &AdminState, id: &str) -> Result<OneView, AdminError> {
    let found = state.wallet.payout(id).await?.ok_or_else(|| AdminError::not_found("There is no such payout."))?;
    Ok(OneView { payout: found.0.into(), token: found.1 })
}

/// What is wanted, as it was written.
struct Wish {
    id: String,
    mint: String,
    unit: String,
    /// `None` for an invoice, which names it.
    amount: Option<Msat>,
    to: String,
}

/// Takes earnings out. Noted before it is done, once for each act. Returns its id.
async fn withdraw(state: &AdminState, actor: &Actor, wish: Wish) -> Result<String, AdminError> {
    state.may_move()?;
    let id = uuid::Uuid::try_parse(&wish.id).map_err(|_| AdminError::invalid("The id of a withdrawal is a UUID."))?;
    let id = id.to_string();
    let to = To::read(&wish.to).map_err(AdminError::invalid)?;
    let unit = MintUnit::parse(&wish.unit).ok_or_else(|| AdminError::invalid("The unit is sat or msat."))?;
    let amount = match (&to, wish.amount) {
        (To::Invoice(_, asked), None) => state.wallet.cost_of(unit, *asked),
        (To::Invoice(..), Some(_)) => return Err(AdminError::invalid("An invoice names its amount itself.")),
        (_, amount) => amount,
    };
    let amount = amount.ok_or_else(|| AdminError::invalid("An amount is missing: in sat, whole coins of the mint."))?;
    if state.wallet.payout(&id).await?.is_none() {
        proof::prove(&state.ledger, Some(&state.audit)).await?;
        let detail = json!({ "mint": wish.mint, "unit": unit.as_str(), "msat": amount.get(), "to": wish.to.trim() });
        state.desk(actor).note("wallet.withdraw", &id, &detail).await?;
    }
    let (desk, mint) = (state.wallet.clone(), wish.mint);
    to_its_end(state, async move {
        let wanted = Withdrawal { id: &id, mint: &mint, unit, amount, to: &to };
        desk.withdraw(&wanted).await.map(|payout| payout.id).map_err(refused)
    })
    .await
}

fn refused(error: WithdrawError) -> AdminError {
    let nothing = |why: &dyn std::fmt::Display| format!("Nothing was taken out: {why}.");
    match error {
        WithdrawError::BadId | WithdrawError::BadAmount | WithdrawError::NoSuchMint => {
            AdminError::invalid(nothing(&error))
        }
        WithdrawError::NotEarned { available } => {
            let sat = format::sat(available.to_db());
            AdminError::conflict(format!(
                "Nothing was taken out: {sat} sat of this mint's ecash were earned and are owed to nobody."
            ))
        }
        WithdrawError::Halted(_) | WithdrawError::Ongoing | WithdrawError::OtherAct => {
            AdminError::conflict(nothing(&error))
        }
        WithdrawError::Wallet(error) => error.into(),
    }
}

#[derive(Deserialize)]
pub(super) struct WithdrawForm {
    csrf: String,
    act: String,
    /// Unit and mint, with a space between.
    purse: String,
    #[serde(default)]
    sats: String,
    #[serde(default)]
    to: String,
}

impl WithdrawForm {
    fn read(self) -> Result<Wish, AdminError> {
        let (unit, mint) = self.purse.split_once(' ').ok_or_else(|| AdminError::invalid("A mint is missing."))?;
        let amount = match self.sats.trim() {
            "" => None,
            text => {
                let msat = format::read_sat(text).and_then(Msat::new);
                Some(msat.ok_or_else(|| AdminError::invalid("An amount is in sat, with up to three decimals."))?)
            }
        };
        Ok(Wish { id: self.act, mint: mint.to_owned(), unit: unit.to_owned(), amount, to: self.to })
    }
}

pub(super) async fn withdraw_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<WithdrawForm>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let done = match form.read() {
        Ok(wish) => withdraw(&state, session.actor(), wish).await,
        Err(error) => Err(error),
    };
    let refused = async |notice| super::render(&state, &session, notice, String::new()).await;
    shown_again(done.map(|id| format!("/admin/wallet/payouts/{id}")), refused).await
}

#[derive(Template)]
#[template(path = "admin/payout.html")]
struct Page {
    frame: Frame,
    news: String,
    payout: PayoutView,
    token: Option<String>,
    qr: Option<Qr>,
}

async fn render(state: &AdminState, session: &Session, id: &str, news: String) -> Result<Response, AdminError> {
    let OneView { payout, token } = one(state, id).await?;
    let qr = token.as_deref().and_then(qr::of);
    let html = page(&Page { frame: Frame::of(state, session, super::PATH), news, payout, token, qr })?;
    Ok((StatusCode::OK, html).into_response())
}

pub(super) async fn show(
    State(state): State<AdminState>,
    session: Session,
    Path(id): Path<String>,
) -> Result<Response, AdminError> {
    render(&state, &session, &id, String::new()).await
}

#[derive(Deserialize)]
pub(super) struct Confirmed {
    csrf: String,
}

/// Asks the mint whether the ecash was spent.
pub(super) async fn look_form(
    State(state): State<AdminState>,
    session: Session,
    Path(id): Path<String>,
    Form(form): Form<Confirmed>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let news = match ask_mint(&state, &id).await? {
        Some(true) => "The mint says that it was spent.",
        Some(false) => "The mint says that it is still there.",
        None => "The mint does not say.",
    };
    render(&state, &session, &id, news.to_owned()).await
}

async fn ask_mint(state: &AdminState, id: &str) -> Result<Option<bool>, AdminError> {
    let (desk, id) = (state.wallet.clone(), id.to_owned());
    to_its_end(state, async move { Ok(desk.look_for_payout(&id).await?) }).await
}

#[derive(Template)]
#[template(path = "admin/payouts.html")]
struct ListPage {
    frame: Frame,
    view: View,
}

/// Which payouts are wanted.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// `next` of the part before.
    before: Option<String>,
    /// Most that are listed, up to 199.
    limit: Option<i64>,
}

pub(super) async fn list(
    State(state): State<AdminState>,
    session: Session,
    Query(wanted): Query<Wanted>,
) -> Result<Response, AdminError> {
    let view = view(&state, wanted.before.as_deref(), wanted.limit.unwrap_or(LISTED)).await?;
    Ok(page(&ListPage { frame: Frame::of(&state, &session, super::PATH), view })?.into_response())
}

/// What is to be taken out.
#[derive(Deserialize, ToSchema)]
#[schema(as = Withdraw)]
pub(super) struct WithdrawCall {
    /// A UUID that names the act: sent again, it takes money out once.
    id: String,
    /// Whose ecash it is; the first mint's, if absent.
    mint: Option<String>,
    /// sat or msat; what the node asks to be paid in, if absent.
    unit: Option<String>,
    /// In whole coins of the mint. Not for an invoice, which names its amount.
    msat: Option<u64>,
    /// A Lightning address, an LNURL or an invoice; ecash, if absent.
    to: Option<String>,
}

/// Takes out what was earned: as ecash, or over Lightning. It may not be decided yet when this answers.
#[utoipa::path(post, path = "/admin/api/wallet/withdraw", tag = "admin",
    security(("operator" = ["money"])), request_body = WithdrawCall, responses(
    (status = 200, body = OneView), (status = 400, body = Complaint), (status = 403, body = Complaint),
    (status = 409, body = Complaint),
))]
pub(super) async fn withdraw_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<WithdrawCall>,
) -> Result<Json<OneView>, ApiError> {
    let actor = operator.may(Scope::Money)?;
    let too_much = || AdminError::invalid("That is more than there is.");
    let wish = Wish {
        id: call.id,
        mint: call.mint.or_else(|| state.wallet.mints().first().cloned()).unwrap_or_default(),
        unit: call.unit.unwrap_or_else(|| state.wallet.unit().as_str().to_owned()),
        amount: call.msat.map(|msat| Msat::new(msat).ok_or_else(too_much)).transpose()?,
        to: call.to.unwrap_or_default(),
    };
    let id = withdraw(&state, actor, wish).await?;
    Ok(Json(one(&state, &id).await?))
}

/// What went to the operator, the newest first.
#[utoipa::path(get, path = "/admin/api/wallet/payouts", tag = "admin",
    security(("operator" = ["read"])), params(Wanted), responses(
    (status = 200, body = View), (status = 400, body = Complaint), (status = 403, body = Complaint),
))]
pub(super) async fn list_call(
    State(state): State<AdminState>,
    operator: Operator,
    Search(wanted): Search<Wanted>,
) -> Result<Json<View>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(view(&state, wanted.before.as_deref(), wanted.limit.unwrap_or(LISTED)).await?))
}

/// A payout, with its ecash as long as that is not known to be spent.
#[utoipa::path(get, path = "/admin/api/wallet/payouts/{id}", tag = "admin",
    security(("operator" = ["money"])), params(("id" = String, Path)), responses(
    (status = 200, body = OneView), (status = 403, body = Complaint), (status = 404, body = Complaint),
))]
pub(super) async fn show_call(
    State(state): State<AdminState>,
    operator: Operator,
    Part(id): Part<String>,
) -> Result<Json<OneView>, ApiError> {
    operator.may(Scope::Money)?;
    Ok(Json(one(&state, &id).await?))
}

/// Asks the mint whether the ecash of a payout was spent, and notes it.
#[utoipa::path(post, path = "/admin/api/wallet/payouts/{id}/look", tag = "admin",
    security(("operator" = ["money"])), params(("id" = String, Path)), responses(
    (status = 200, body = OneView), (status = 403, body = Complaint), (status = 404, body = Complaint),
))]
pub(super) async fn look_call(
    State(state): State<AdminState>,
    operator: Operator,
    Part(id): Part<String>,
) -> Result<Json<OneView>, ApiError> {
    operator.may(Scope::Money)?;
    ask_mint(&state, &id).await?;
    Ok(Json(one(&state, &id).await?))
}
