//! Vouchers: issues them, shows their codes once, lists and revokes them.

use std::time::Duration;

use askama::Template;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::frame::Frame;
use super::session::{self, Session};
use super::{AdminError, AdminState, format, page, repo};
use crate::ledger::vouchers::repo::Which;
use crate::ledger::vouchers::{Funds, IssueError as LedgerError, MAX_BATCH, State as VoucherState, Voucher};
use crate::money::Sat;
use crate::payment::vouchers::{IssueError, Issued, Wanted};

const PATH: &str = "/admin/vouchers";
/// Vouchers that are listed.
const LISTED: i64 = 500;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Most days until a voucher expires: ten years.
const MAX_DAYS: u64 = 3_650;

#[derive(Template)]
#[template(path = "admin/vouchers.html")]
struct Page {
    frame: Frame,
    /// Names the batch that the form would issue: sent twice, it issues once.
    batch: String,
    most: usize,
    message: String,
    codes: Vec<String>,
    /// What may be given away, and what is promised, in sat.
    earnings: String,
    promised: String,
    rows: Vec<Row>,
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
pub(super) struct Issue {
    csrf: String,
    batch: String,
    sats: String,
    count: String,
    #[serde(default)]
    days: String,
    #[serde(default)]
    note: String,
}

#[derive(Deserialize)]
pub(super) struct Revoke {
    csrf: String,
    id: String,
}

pub(super) async fn show(State(state): State<AdminState>, session: Session) -> Result<Response, AdminError> {
    render(state, &session, StatusCode::OK, String::new(), Vec::new()).await
}

pub(super) async fn issue(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Issue>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let issued = match read(&form, state.now_ms()) {
        Ok(wanted) => state.till.issue_vouchers(&wanted).await,
        Err(message) => Err(IssueError::Asked(message)),
    };
    match issued {
        Ok(issued) => {
            tracing::info!(count = issued.len(), "the operator issued vouchers");
            let codes = issued.iter().map(|Issued { code, .. }| code.expose().to_owned()).collect();
            render(state, &session, StatusCode::OK, String::new(), codes).await
        }
        Err(IssueError::Ledger(LedgerError::Store(error))) => Err(error.into()),
        Err(error) => render(state, &session, StatusCode::BAD_REQUEST, said(&error), Vec::new()).await,
    }
}

pub(super) async fn revoke(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Revoke>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let revoked = match form.id.parse() {
        Ok(id) => state.ledger.revoke_vouchers(Which::Id(id)).await?,
        Err(_) => 0,
    };
    if revoked == 0 {
        let message = "That voucher has ended already.".to_owned();
        return render(state, &session, StatusCode::CONFLICT, message, Vec::new()).await;
    }
    Ok(Redirect::to(PATH).into_response())
}

fn read(form: &Issue, now_ms: i64) -> Result<Wanted, String> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let sats = number(&form.sats).and_then(Sat::new).ok_or("The amount is a whole number of sats.")?;
    let count = number(&form.count).and_then(|count| usize::try_from(count).ok()).ok_or("How many?")?;
    let expires_ms = match form.days.trim() {
        "" => None,
        days => {
            let days = number(days).filter(|days| (1..=MAX_DAYS).contains(days));
            let days = days.ok_or_else(|| format!("Vouchers expire after 1 to {MAX_DAYS} days, or never."))?;
            let span = DAY.as_millis().saturating_mul(u128::from(days));
            Some(now_ms.saturating_add(i64::try_from(span).unwrap_or(i64::MAX)))
        }
    };
    if form.batch.is_empty() || form.batch.len() > 64 {
        return Err("This form was out of date. Please try again.".to_owned());
    }
    Ok(Wanted {
        batch: form.batch.clone(),
        count,
        amount: sats.to_msat(),
        note: form.note.clone(),
        expires_ms,
        profile: None,
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
    state: AdminState,
    session: &Session,
    status: StatusCode,
    message: String,
    codes: Vec<String>,
) -> Result<Response, AdminError> {
    let (earned, promised) = repo::earned_and_promised(state.ledger.store()).await?;
    let vouchers = state.ledger.vouchers(LISTED).await?;
    let now_ms = state.now_ms();
    let frame = Frame::of(&state, session, PATH);
    let html = page(&Page {
        earnings: frame.amount(&earned),
        promised: frame.amount(&promised),
        rows: vouchers.iter().map(|voucher| row(voucher, &frame, now_ms)).collect(),
        frame,
        batch: session::random_token(),
        most: MAX_BATCH,
        message,
        codes,
    })?;
    Ok((status, html).into_response())
}

fn row(voucher: &Voucher, frame: &Frame, now_ms: i64) -> Row {
    // The job that ends it may not have come by yet.
    let is_over = voucher.expires_ms.is_some_and(|end| end <= now_ms);
    let is_open = voucher.state == VoucherState::Open && !is_over;
    let state = if voucher.state == VoucherState::Open && is_over { VoucherState::Expired } else { voucher.state };
    Row {
        id: voucher.id.to_string(),
        hint: voucher.hint.clone(),
        amount: frame.amount(&voucher.amount.to_db()),
        note: voucher.note.clone(),
        state: state.as_str(),
        created: format::utc(voucher.created_ms),
        expires: voucher.expires_ms.map(format::utc),
        is_open,
    }
}
