//! Vouchers: issues them, shows their codes once, lists and revokes them.

use std::time::Duration;

use askama::Template;
use axum::extract::{Form, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{ApiError, Body, Complaint, Search};
use super::frame::Frame;
use super::operator::{Actor, Operator, Scope};
use super::session::{self, Session};
use super::{AdminError, AdminState, Notice, format, page, repo, shown_again};
use crate::ledger::vouchers::{Funds, IssueError as LedgerError, MAX_BATCH, State as VoucherState, Voucher};
use crate::money::Sat;
use crate::operator::vouchers::{self as acts, ActError};
use crate::payment::vouchers::{BatchOrder, IssueError, Issued};

const PATH: &str = "/admin/vouchers";
/// Vouchers on a page.
const LISTED: i64 = 500;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Most days until a voucher expires: ten years.
const MAX_DAYS: u64 = 3_650;

pub(super) fn pages() -> Router<AdminState> {
    Router::new().route(PATH, get(show).post(issue_form)).route("/admin/vouchers/revoke", post(revoke_form))
}

pub(super) fn api() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(list_call, issue_call)).routes(routes!(revoke_call))
}

/// The vouchers, newest first, and the money for them.
#[derive(Serialize, ToSchema)]
struct View {
    /// Earned and not paid out: what may be given away, in msat.
    earnings_msat: i64,
    /// What open vouchers promise, in msat.
    promised_msat: i64,
    vouchers: Vec<One>,
    /// The `after` of the page that follows, if one does.
    next: Option<String>,
}

/// A voucher, without its code.
#[derive(Serialize, ToSchema)]
struct One {
    id: String,
    /// The first and the last letters of its code.
    hint: String,
    amount_msat: i64,
    note: String,
    /// `open`, `redeemed`, `revoked` or `expired`.
    state: &'static str,
    /// ms since the Unix epoch, as the others.
    created_ms: i64,
    expires_ms: Option<i64>,
    ended_ms: Option<i64>,
}

async fn view(state: &AdminState, after: Option<i64>) -> Result<View, AdminError> {
    let (earned, promised) = repo::earned_and_promised(state.ledger.store()).await?;
    let mut vouchers = state.ledger.vouchers_before(after.unwrap_or(i64::MAX), LISTED.saturating_add(1)).await?;
    let shown = usize::try_from(LISTED).unwrap_or(usize::MAX);
    let goes_on = vouchers.len() > shown;
    vouchers.truncate(shown);
    let now_ms = state.now_ms();
    Ok(View {
        earnings_msat: earned,
        promised_msat: promised,
        next: vouchers.last().filter(|_| goes_on).map(|voucher| voucher.id.to_string()),
        vouchers: vouchers.into_iter().map(|voucher| one(voucher, now_ms)).collect(),
    })
}

fn one(voucher: Voucher, now_ms: i64) -> One {
    // The job that ends it may not have come by yet.
    let is_over = voucher.expires_ms.is_some_and(|end| end <= now_ms);
    let state = if voucher.state == VoucherState::Open && is_over { VoucherState::Expired } else { voucher.state };
    One {
        id: voucher.id.to_string(),
        hint: voucher.hint,
        amount_msat: voucher.amount.to_db(),
        note: voucher.note,
        state: state.as_str(),
        created_ms: voucher.created_ms,
        expires_ms: voucher.expires_ms,
        ended_ms: voucher.ended_ms,
    }
}

/// Issues a batch. The codes are in the answer, and nowhere else.
async fn issue(state: &AdminState, actor: &Actor, wanted: &BatchOrder) -> Result<Vec<Issued>, AdminError> {
    state.may_move()?;
    let issuing = state.till.issue_vouchers(wanted);
    acts::issue(state.desk(actor), &state.ledger, Some(&state.audit), wanted, issuing).await.map_err(refused)
}

/// Takes one back that is open.
async fn revoke(state: &AdminState, actor: &Actor, id: &str) -> Result<(), AdminError> {
    state.may_move()?;
    let number = id.parse().map_err(|_| refused(ActError::Unknown))?;
    acts::revoke(state.desk(actor), &state.ledger, number).await.map_err(refused)
}

fn refused(error: ActError) -> AdminError {
    match error {
        ActError::Unknown => AdminError::not_found("There is no such voucher."),
        ActError::Ended => AdminError::conflict("That voucher has ended already."),
        ActError::Unproven(why) => why.into(),
        ActError::Issue(IssueError::Ledger(LedgerError::Store(error))) | ActError::Store(error) => error.into(),
        ActError::Issue(error @ IssueError::Ledger(LedgerError::Repeated)) => AdminError::conflict(said(&error)),
        ActError::Issue(error) => AdminError::invalid(said(&error)),
    }
}

#[derive(Template)]
#[template(path = "admin/vouchers.html")]
struct Page {
    frame: Frame,
    /// Names the batch that the form would issue: sent twice, it issues once.
    batch: String,
    most: usize,
    message: String,
    codes: Vec<String>,
    /// What may be given away, and what is promised.
    earnings: String,
    promised: String,
    rows: Vec<Row>,
    next: Option<String>,
}

struct Row {
    id: String,
    hint: String,
    amount: String,
    note: String,
    state: &'static str,
    created: String,
    expires: Option<String>,
    is_open: bool,
}

#[derive(Deserialize)]
struct IssueForm {
    csrf: String,
    batch: String,
    sats: String,
    count: String,
    #[serde(default)]
    days: String,
    #[serde(default)]
    note: String,
    #[serde(default)]
    profile: String,
}

#[derive(Deserialize)]
struct Revoke {
    csrf: String,
    id: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct After {
    /// The `next` of the page before.
    after: Option<String>,
}

impl After {
    fn id(&self) -> Result<Option<i64>, AdminError> {
        let none = |_| AdminError::invalid("after is the next of another page.");
        self.after.as_deref().map(str::parse).transpose().map_err(none)
    }
}

async fn show(
    State(state): State<AdminState>,
    session: Session,
    Query(after): Query<After>,
) -> Result<Response, AdminError> {
    render(&state, &session, after.id()?, Notice::none(), Vec::new()).await
}

async fn issue_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<IssueForm>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let issued = match read(&form, state.now_ms()) {
        Ok(wanted) => issue(&state, session.actor(), &wanted).await,
        Err(message) => Err(AdminError::invalid(message)),
    };
    match issued {
        Ok(issued) => {
            let codes = issued.iter().map(|Issued { code, .. }| code.expose().to_owned()).collect();
            render(&state, &session, None, Notice::none(), codes).await
        }
        Err(error) => render(&state, &session, None, error.told()?, Vec::new()).await,
    }
}

async fn revoke_form(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Revoke>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let revoked = revoke(&state, session.actor(), &form.id).await;
    let refused = async |notice| render(&state, &session, None, notice, Vec::new()).await;
    shown_again(revoked.map(|()| PATH), refused).await
}

fn read(form: &IssueForm, now_ms: i64) -> Result<BatchOrder, String> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let sats = number(&form.sats).ok_or("The amount is a whole number of sats.")?;
    let count = number(&form.count).ok_or("How many?")?;
    let days = match form.days.trim() {
        "" => None,
        days => Some(number(days).ok_or_else(bad_days)?),
    };
    if form.batch.is_empty() {
        return Err("This form was out of date. Please try again.".to_owned());
    }
    wanted(
        IssueCall {
            batch: Some(form.batch.clone()),
            sats,
            count: Some(count),
            days,
            note: form.note.clone(),
            profile: Some(form.profile.trim().to_owned()).filter(|profile| !profile.is_empty()),
        },
        now_ms,
    )
}

fn bad_days() -> String {
    format!("Vouchers expire after 1 to {MAX_DAYS} days, or never.")
}

/// What is to be issued, in the words of the ledger.
fn wanted(call: IssueCall, now_ms: i64) -> Result<BatchOrder, String> {
    let sats = Sat::new(call.sats).ok_or("The amount is a whole number of sats.")?;
    let expires_ms = match call.days {
        None => None,
        Some(days) if !(1..=MAX_DAYS).contains(&days) => return Err(bad_days()),
        Some(days) => {
            let span = DAY.as_millis().saturating_mul(u128::from(days));
            Some(now_ms.saturating_add(i64::try_from(span).unwrap_or(i64::MAX)))
        }
    };
    let batch = call.batch.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    if batch.is_empty() || batch.len() > 64 {
        return Err("The name of a batch has 1 to 64 letters.".to_owned());
    }
    Ok(BatchOrder {
        batch,
        count: usize::try_from(call.count.unwrap_or(1)).map_err(|_| "How many?")?,
        amount: sats.to_msat(),
        note: call.note,
        expires_ms,
        profile: call.profile,
        funds: Funds::Earned,
    })
}

fn said(error: &IssueError) -> String {
    match error {
        IssueError::Asked(message) => message.clone(),
        IssueError::Ledger(LedgerError::Insufficient { available }) => format!(
            "You can give away what was earned and not paid out: {} sat. To give more, pay it in as a gift \
             (POST /v1/wallet/donate).",
            format::sat(available.to_db())
        ),
        IssueError::Ledger(LedgerError::Repeated) => {
            "These vouchers were issued already; their codes were shown then. Revoke them if the codes are lost."
                .to_owned()
        }
        IssueError::Ledger(error) => format!("No vouchers were issued: {error}."),
    }
}

async fn render(
    state: &AdminState,
    session: &Session,
    after: Option<i64>,
    notice: Notice,
    codes: Vec<String>,
) -> Result<Response, AdminError> {
    let view = view(state, after).await?;
    let frame = Frame::of(state, session, PATH);
    let html = page(&Page {
        earnings: frame.amount(&view.earnings_msat),
        promised: frame.amount(&view.promised_msat),
        rows: view.vouchers.into_iter().map(|voucher| row(voucher, &frame)).collect(),
        next: view.next,
        frame,
        batch: session::random_token(),
        most: MAX_BATCH,
        message: notice.message,
        codes,
    })?;
    Ok((notice.status, html).into_response())
}

fn row(voucher: One, frame: &Frame) -> Row {
    Row {
        amount: frame.amount(&voucher.amount_msat),
        created: format::utc(voucher.created_ms),
        expires: voucher.expires_ms.map(format::utc),
        is_open: voucher.state == VoucherState::Open.as_str(),
        id: voucher.id,
        hint: voucher.hint,
        note: voucher.note,
        state: voucher.state,
    }
}

/// The vouchers, newest first.
#[utoipa::path(get, path = "/admin/api/vouchers", tag = "admin",
    security(("operator" = ["read"])), params(After), responses(
    (status = 200, body = View), (status = 403, body = Complaint),
))]
async fn list_call(
    State(state): State<AdminState>,
    operator: Operator,
    Search(after): Search<After>,
) -> Result<Json<View>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(view(&state, after.id()?).await?))
}

/// A batch of vouchers to be issued.
#[derive(Deserialize, ToSchema)]
struct IssueCall {
    /// A name of the batch: sent twice, it is issued once.
    #[serde(default)]
    batch: Option<String>,
    /// Worth of each.
    sats: u64,
    /// One, if absent.
    #[serde(default)]
    count: Option<u64>,
    /// Until they expire; never, if absent.
    #[serde(default)]
    days: Option<u64>,
    #[serde(default)]
    note: String,
    /// The prices of the keys that they make.
    #[serde(default)]
    profile: Option<String>,
}

/// Vouchers that were issued. Their codes are shown this once.
#[derive(Serialize, ToSchema)]
struct Given {
    vouchers: Vec<GivenOne>,
}

#[derive(Serialize, ToSchema)]
struct GivenOne {
    code: String,
    hint: String,
}

/// Issues vouchers out of what was earned: a code is money.
#[utoipa::path(post, path = "/admin/api/vouchers", tag = "admin",
    security(("operator" = ["money"])), request_body = IssueCall, responses(
    (status = 200, body = Given), (status = 400, body = Complaint), (status = 403, body = Complaint),
    (status = 409, body = Complaint),
))]
async fn issue_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<IssueCall>,
) -> Result<Json<Given>, ApiError> {
    let actor = operator.may(Scope::Money)?;
    let wanted = wanted(call, state.now_ms()).map_err(AdminError::invalid)?;
    let issued = issue(&state, actor, &wanted).await?;
    let vouchers = issued.into_iter().map(|one| GivenOne { code: one.code.expose().to_owned(), hint: one.hint });
    Ok(Json(Given { vouchers: vouchers.collect() }))
}

#[derive(Deserialize, ToSchema)]
struct RevokeCall {
    id: String,
}

/// Takes an open voucher back; its money goes back to where it came from.
#[utoipa::path(post, path = "/admin/api/vouchers/revoke", tag = "admin",
    security(("operator" = ["manage"])), request_body = RevokeCall, responses(
    (status = 204), (status = 403, body = Complaint), (status = 404, body = Complaint),
    (status = 409, body = Complaint),
))]
async fn revoke_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<RevokeCall>,
) -> Result<StatusCode, ApiError> {
    revoke(&state, operator.may(Scope::Manage)?, &call.id).await?;
    Ok(StatusCode::NO_CONTENT)
}
