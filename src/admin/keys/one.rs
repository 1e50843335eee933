//! One key: its terms, what came and went, what it paid for, its children; and what the operator can do with it.

use askama::Template;
use axum::Json;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{KeyView, PATH, profiles};
use crate::admin::api::{ApiError, Body, Complaint, Part};
use crate::admin::frame::Frame;
use crate::admin::operator::{Actor, Operator, Scope};
use crate::admin::session::Session;
use crate::admin::{AdminError, AdminState, Notice, format, page, shown_again};
use crate::ledger::AccountId;
use crate::ledger::keys::{self as books, AdjustError, Edit, EditError, Way};
use crate::ledger::terms::{Reset, Terms};
use crate::money::Msat;
use crate::operator::keys::{self as acts, ActError, Wish};
use crate::wallet::Movement;

/// Movements, and requests, that are listed.
const LISTED: i64 = 50;
/// The end of the year 9999: what is beyond it is not meant in ms.
const MAX_MS: i64 = 253_402_300_799_000;

/// All that is to be said of one key.
#[derive(Serialize, ToSchema)]
#[schema(as = OneKey)]
pub(super) struct OneView {
    key: KeyView,
    children: Vec<Child>,
    /// The last movements of its money, without charges of requests.
    movements: Vec<Moved>,
    /// The last requests that it was charged for; of a parent, those of its children too.
    requests: Vec<Paid>,
    /// What the operator moved to it and from it.
    adjustments: Vec<Adjusted>,
}

/// A child key.
#[derive(Serialize, ToSchema)]
#[schema(as = ChildKey)]
struct Child {
    id: String,
    hash: String,
    label: String,
    is_blocked: bool,
    spent_msat: i64,
    requests: u64,
    limit_msat: Option<i64>,
    limit_reset: Option<&'static str>,
    limit_used_msat: i64,
}

/// A movement of money.
#[derive(Serialize, ToSchema)]
#[schema(as = KeyMovement)]
struct Moved {
    id: String,
    /// redeem, refund, adjustment, …
    kind: String,
    /// Negative: away from the key.
    msat: i64,
    at_ms: i64,
    is_done: bool,
}

/// A request that was charged.
#[derive(Serialize, ToSchema)]
#[schema(as = KeyRequest)]
struct Paid {
    id: String,
    model: String,
    charged_msat: i64,
    at_ms: i64,
}

/// Money that the operator moved.
#[derive(Serialize, ToSchema)]
#[schema(as = KeyAdjustment)]
struct Adjusted {
    id: String,
    /// Negative: written off.
    msat: i64,
    reason: String,
    actor: String,
    at_ms: i64,
}

fn no_such_key() -> AdminError {
    AdminError::not_found("There is no such key.")
}

fn read_id(id: &str) -> Result<AccountId, AdminError> {
    id.parse().ok().map(AccountId).ok_or_else(no_such_key)
}

async fn view(state: &AdminState, id: &str) -> Result<OneView, AdminError> {
    let key = state.ledger.one_key(read_id(id)?).await?.ok_or_else(no_such_key)?;
    let (account, _) = state.ledger.named_account(key.id).await?;
    let children = state.ledger.children(key.id).await?;
    let movements = state.wallet.history(key.id, i64::MAX, LISTED).await?;
    let requests = state.ledger.last_requests(&account, LISTED).await?;
    let adjustments = state.ledger.adjustments(key.id).await?;
    let paid = requests.into_iter().map(|request| {
        let record: Value = serde_json::from_str(&request.record).unwrap_or_default();
        Paid {
            id: request.request,
            model: record.get("model").and_then(Value::as_str).unwrap_or_default().to_owned(),
            charged_msat: request.charged.to_db(),
            at_ms: request.ended_ms,
        }
    });
    let adjusted = adjustments.into_iter().map(|one| Adjusted {
        id: one.id,
        msat: one.msat,
        reason: one.reason,
        actor: one.actor,
        at_ms: one.created_ms,
    });
    Ok(OneView {
        key: KeyView::of(&key, state.now_ms()),
        children: children.iter().map(child).collect(),
        movements: movements.iter().map(moved).collect(),
        requests: paid.collect(),
        adjustments: adjusted.collect(),
    })
}

fn child(terms: &Terms) -> Child {
    Child {
        id: terms.account.get().to_string(),
        hash: books::short(&terms.key_hash),
        label: terms.label.clone(),
        is_blocked: terms.is_blocked(),
        spent_msat: terms.spent.to_db(),
        requests: terms.requests,
        limit_msat: terms.limits.cap.map(Msat::to_db),
        limit_reset: terms.limits.reset.map(Reset::as_str),
        limit_used_msat: terms.used.to_db(),
    }
}

fn moved(movement: &Movement) -> Moved {
    let msat = movement.amount.to_db();
    Moved {
        id: movement.id.to_string(),
        kind: movement.kind.as_str().to_owned(),
        msat: if movement.incoming { msat } else { msat.saturating_neg() },
        at_ms: movement.created_ms,
        is_done: movement.done,
    }
}

/// Lets a key spend nothing, or spend again.
async fn block(state: &AdminState, actor: &Actor, id: &str, block: bool) -> Result<(), AdminError> {
    acts::block(state.desk(actor), &state.ledger, read_id(id)?, block).await.map_err(refused)
}

/// Changes the terms of a key.
async fn edit(state: &AdminState, actor: &Actor, id: &str, wanted: &Edit) -> Result<(), AdminError> {
    let id = read_id(id)?;
    let changed = acts::edit(state.desk(actor), &state.ledger, id, wanted).await;
    state.till.forget_expiry(id);
    changed.map_err(refused)
}

/// Moves money between the income and a key.
async fn adjust(state: &AdminState, actor: &Actor, id: &str, wish: Wish<'_>) -> Result<(), AdminError> {
    state.may_move()?;
    acts::adjust(state.desk(actor), &state.ledger, Some(&state.audit), read_id(id)?, wish).await.map_err(refused)
}

fn refused(error: ActError) -> AdminError {
    let short = |available: Msat, what: &str| {
        let sat = format::sat(available.to_db());
        AdminError::conflict(format!("Nothing was moved: only {sat} sat {what}."))
    };
    match error {
        ActError::NoSuchKey | ActError::Edit(EditError::NoSuchKey) | ActError::Adjust(AdjustError::NoSuchKey) => {
            no_such_key()
        }
        ActError::Edit(EditError::Store(error))
        | ActError::Adjust(AdjustError::Store(error))
        | ActError::Store(error) => error.into(),
        ActError::Unproven(why) => why.into(),
        ActError::Adjust(AdjustError::NotEarned { available }) => short(available, "were earned and not paid out"),
        ActError::Adjust(AdjustError::NotThere { available }) => short(available, "are on the key and not set aside"),
        ActError::Adjust(AdjustError::ChildKey | AdjustError::OtherAct) => AdminError::conflict(sentence(&error)),
        ActError::BadId | ActError::Edit(_) | ActError::Adjust(AdjustError::NoAmount | AdjustError::BadReason) => {
            AdminError::invalid(sentence(&error))
        }
    }
}

/// An error of the ledger as a sentence.
fn sentence(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

#[derive(Template)]
#[template(path = "admin/key.html")]
struct Page {
    frame: Frame,
    message: String,
    view: OneView,
    profiles: Vec<String>,
    resets: [&'static str; 3],
    /// Names the adjustment that the form would make: sent twice, it is made once.
    act: String,
    most: usize,
}

impl Page {
    fn time(&self, at_ms: &i64) -> String {
        format::utc(*at_ms)
    }

    fn sat(&self, msat: &i64) -> String {
        // As it is written into a field: without separators.
        let text = format::sat(*msat).replace(',', "");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

async fn render(state: &AdminState, session: &Session, id: &str, notice: Notice) -> Result<Response, AdminError> {
    let html = page(&Page {
        view: view(state, id).await?,
        frame: Frame::of(state, session, PATH),
        message: notice.message,
        profiles: profiles(state).await?,
        resets: [Reset::Daily, Reset::Weekly, Reset::Monthly].map(Reset::as_str),
        act: uuid::Uuid::new_v4().to_string(),
        most: books::MAX_TEXT,
    })?;
    Ok((notice.status, html).into_response())
}

/// Shows the key again: as it is now, or with the reason why not.
async fn again(
    state: &AdminState,
    session: &Session,
    id: &str,
    done: Result<(), AdminError>,
) -> Result<Response, AdminError> {
    let refused = async |notice: Notice| {
        if notice.status == StatusCode::NOT_FOUND {
            return Err(no_such_key());
        }
        render(state, session, id, notice).await
    };
    shown_again(done.map(|()| format!("{PATH}/{id}")), refused).await
}

pub(super) async fn show(
    State(state): State<AdminState>,
    session: Session,
    Path(id): Path<String>,
) -> Result<Response, AdminError> {
    render(&state, &session, &id, Notice::none()).await
}

#[derive(Deserialize)]
pub(super) struct Confirmed {
    csrf: String,
}

pub(super) async fn block_form(
    State(state): State<AdminState>,
    session: Session,
    Path(id): Path<String>,
    Form(form): Form<Confirmed>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let done = block(&state, session.actor(), &id, true).await;
    again(&state, &session, &id, done).await
}

pub(super) async fn unblock_form(
    State(state): State<AdminState>,
    session: Session,
    Path(id): Path<String>,
    Form(form): Form<Confirmed>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let done = block(&state, session.actor(), &id, false).await;
    again(&state, &session, &id, done).await
}

/// All terms, as the form has them: what is empty is taken away.
#[derive(Deserialize)]
pub(super) struct EditForm {
    csrf: String,
    label: String,
    profile: String,
    limit: String,
    reset: String,
    valid_until: String,
    #[serde(default)]
    refund_at: String,
}

impl EditForm {
    fn read(&self) -> Result<Edit, AdminError> {
        let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let time = |text: &str| {
            let bad = || AdminError::invalid(format::DATES);
            given(text).map(|text| format::read_date_secs(&text).ok_or_else(bad)).transpose()
        };
        let limit = given(&self.limit).map(|text| {
            let msat = format::read_sat(&text).and_then(Msat::new);
            msat.ok_or_else(|| AdminError::invalid("A limit is in sat, with up to three decimals."))
        });
        Ok(Edit {
            label: Some(self.label.trim().to_owned()),
            profile: Some(given(&self.profile)),
            cap: Some(limit.transpose()?),
            reset: Some(read_reset(&self.reset)?),
            valid_until: Some(time(&self.valid_until)?),
            refund_at: time(&self.refund_at)?,
        })
    }
}

fn read_reset(name: &str) -> Result<Option<Reset>, AdminError> {
    let bad = || AdminError::invalid("A limit begins anew daily, weekly or monthly.");
    if name.is_empty() { Ok(None) } else { Reset::parse(name).map(Some).ok_or_else(bad) }
}

pub(super) async fn edit_form(
    State(state): State<AdminState>,
    session: Session,
    Path(id): Path<String>,
    Form(form): Form<EditForm>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let done = match form.read() {
        Ok(wanted) => edit(&state, session.actor(), &id, &wanted).await,
        Err(error) => Err(error),
    };
    again(&state, &session, &id, done).await
}

#[derive(Deserialize)]
pub(super) struct AdjustForm {
    csrf: String,
    act: String,
    way: String,
    sats: String,
    reason: String,
}

impl AdjustForm {
    fn read(&self) -> Result<Wish<'_>, AdminError> {
        let way = match self.way.as_str() {
            "credit" => Way::Credit,
            "write_off" => Way::WriteOff,
            _ => return Err(AdminError::invalid("Money goes to the key or from it.")),
        };
        let amount = format::read_sat(&self.sats).and_then(Msat::new);
        let amount = amount.ok_or_else(|| AdminError::invalid("An amount is in sat, with up to three decimals."))?;
        Ok(Wish { id: &self.act, way, amount, reason: &self.reason })
    }
}

pub(super) async fn adjust_form(
    State(state): State<AdminState>,
    session: Session,
    Path(id): Path<String>,
    Form(form): Form<AdjustForm>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    let done = match form.read() {
        Ok(wish) => adjust(&state, session.actor(), &id, wish).await,
        Err(error) => Err(error),
    };
    again(&state, &session, &id, done).await
}

/// A key, with what came and went, what it paid for, and its children.
#[utoipa::path(get, path = "/admin/api/keys/{id}", tag = "admin",
    security(("operator" = ["read"])), params(("id" = String, Path)), responses(
    (status = 200, body = OneView), (status = 403, body = Complaint), (status = 404, body = Complaint),
))]
pub(super) async fn show_call(
    State(state): State<AdminState>,
    operator: Operator,
    Part(id): Part<String>,
) -> Result<Json<OneView>, ApiError> {
    operator.may(Scope::Read)?;
    Ok(Json(view(&state, &id).await?))
}

/// Lets a key spend nothing. Its owner can still have back what is on it.
#[utoipa::path(post, path = "/admin/api/keys/{id}/block", tag = "admin",
    security(("operator" = ["manage"])), params(("id" = String, Path)), responses(
    (status = 204), (status = 403, body = Complaint), (status = 404, body = Complaint),
))]
pub(super) async fn block_call(
    State(state): State<AdminState>,
    operator: Operator,
    Part(id): Part<String>,
) -> Result<StatusCode, ApiError> {
    block(&state, operator.may(Scope::Manage)?, &id, true).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets a key spend again.
#[utoipa::path(post, path = "/admin/api/keys/{id}/unblock", tag = "admin",
    security(("operator" = ["manage"])), params(("id" = String, Path)), responses(
    (status = 204), (status = 403, body = Complaint), (status = 404, body = Complaint),
))]
pub(super) async fn unblock_call(
    State(state): State<AdminState>,
    operator: Operator,
    Part(id): Part<String>,
) -> Result<StatusCode, ApiError> {
    block(&state, operator.may(Scope::Manage)?, &id, false).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What to change. What is absent stays as it is; `null` takes it away.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KeyEdit)]
pub(super) struct EditCall {
    label: Option<String>,
    /// Profile of prices.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    profile: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u64>)]
    limit_msat: Option<Option<u64>>,
    /// daily, weekly or monthly
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    limit_reset: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i64>)]
    valid_until_ms: Option<Option<i64>>,
    /// When its balance is paid to the address that its owner gave. A new time lies ahead.
    refund_at_ms: Option<i64>,
}

/// What is there, `null` included.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(value: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(value).map(Some)
}

impl EditCall {
    fn read(self) -> Result<Edit, AdminError> {
        let secs = |ms: i64| {
            let secs = (0..=MAX_MS).contains(&ms).then(|| ms.div_euclid(1000));
            secs.ok_or_else(|| AdminError::invalid("Times are in ms since the Unix epoch."))
        };
        let limit = |msat: u64| Msat::new(msat).ok_or_else(|| AdminError::invalid("The limit is more than there is."));
        let reset = |name: Option<String>| read_reset(name.as_deref().unwrap_or_default());
        Ok(Edit {
            label: self.label.map(|label| label.trim().to_owned()),
            profile: self.profile,
            cap: self.limit_msat.map(|msat| msat.map(limit).transpose()).transpose()?,
            reset: self.limit_reset.map(reset).transpose()?,
            valid_until: self.valid_until_ms.map(|ms| ms.map(secs).transpose()).transpose()?,
            refund_at: self.refund_at_ms.map(secs).transpose()?,
        })
    }
}

/// Changes the label, the profile, the limits or the times of a key.
#[utoipa::path(patch, path = "/admin/api/keys/{id}", tag = "admin",
    security(("operator" = ["manage"])), params(("id" = String, Path)), request_body = EditCall, responses(
    (status = 200, body = OneView), (status = 400, body = Complaint), (status = 403, body = Complaint),
    (status = 404, body = Complaint),
))]
pub(super) async fn edit_call(
    State(state): State<AdminState>,
    operator: Operator,
    Part(id): Part<String>,
    Body(call): Body<EditCall>,
) -> Result<Json<OneView>, ApiError> {
    edit(&state, operator.may(Scope::Manage)?, &id, &call.read()?).await?;
    Ok(Json(view(&state, &id).await?))
}

/// Money to be moved.
#[derive(Deserialize, ToSchema)]
#[schema(as = KeyAdjust)]
pub(super) struct AdjustCall {
    /// A UUID that names the act: sent again, it moves money once.
    id: String,
    /// Above zero: from the income to the key. Below: written off, from the key to the income.
    msat: i64,
    reason: String,
}

/// Credits a key out of what was earned, or writes off what is on it.
#[utoipa::path(post, path = "/admin/api/keys/{id}/adjust", tag = "admin",
    security(("operator" = ["money"])), params(("id" = String, Path)), request_body = AdjustCall, responses(
    (status = 200, body = OneView), (status = 400, body = Complaint), (status = 403, body = Complaint),
    (status = 404, body = Complaint), (status = 409, body = Complaint),
))]
pub(super) async fn adjust_call(
    State(state): State<AdminState>,
    operator: Operator,
    Part(id): Part<String>,
    Body(call): Body<AdjustCall>,
) -> Result<Json<OneView>, ApiError> {
    let actor = operator.may(Scope::Money)?;
    let amount =
        Msat::new(call.msat.unsigned_abs()).ok_or_else(|| AdminError::invalid("That is more than there is."))?;
    let way = if call.msat < 0 { Way::WriteOff } else { Way::Credit };
    adjust(&state, actor, &id, Wish { id: &call.id, way, amount, reason: &call.reason }).await?;
    Ok(Json(view(&state, &id).await?))
}
