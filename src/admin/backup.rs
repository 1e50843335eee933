//! A backup to take home: everything that the node cannot be without, sealed with a passphrase that is typed for it
//! and kept nowhere. Whoever has both has the money.

use axum::Router;
use axum::body::Body as Stream;
use axum::extract::{Form, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{ApiError, Body, Complaint};
use super::operator::{Actor, Operator, Scope};
use super::session::Session;
use super::{AdminError, AdminState, format};
use crate::backup::{self, Key, SHORTEST};
use crate::config::Secret;

/// Each is a copy of the whole database.
static AT_A_TIME: Semaphore = Semaphore::const_new(1);
/// Bytes that are read at a time.
const CHUNK: u64 = 64 * 1024;
/// Longest passphrase, in bytes.
const LONGEST: usize = 1_000;

pub(super) fn pages() -> Router<AdminState> {
    Router::new().route("/admin/backup", post(download))
}

pub(super) fn api() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(backup_call))
}

/// Makes a backup and sends it. It is gone from the disk before the first byte goes out.
async fn make(state: &AdminState, actor: &Actor, passphrase: Secret) -> Result<Response, AdminError> {
    if passphrase.expose().chars().count() < SHORTEST || passphrase.expose().len() > LONGEST {
        return Err(AdminError::invalid(format!("A passphrase has {SHORTEST} letters or more.")));
    }
    let Ok(_alone) = AT_A_TIME.try_acquire() else {
        return Err(AdminError::conflict("A backup is being made already. Try again when it is done."));
    };
    state.desk(actor).note("backup.make", "", &json!({})).await?;
    let config = state.exchange.settings.now();
    let name = format!("download-{}.tmp", crate::vault::hex(&rand::random::<[u8; 8]>()));
    let path = config.storage.data_dir.join(name);
    let (key, now_ms) = (Key::Passphrase(passphrase), state.now_ms());
    backup::backup(&config, &state.ledger.store().reader(), &key, &path, now_ms).await?;
    let file = tokio::fs::File::open(&path).await;
    // What is open can be read to its end; its name is needed no more.
    let _gone = tokio::fs::remove_file(&path).await;
    let file =
        file.map_err(|error| AdminError::Backup(backup::BackupError::Io { path: path.display().to_string(), error }))?;
    let chunks = futures_util::stream::unfold(file, |mut file| async move {
        let mut chunk = Vec::new();
        match (&mut file).take(CHUNK).read_to_end(&mut chunk).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(chunk), file)),
            Err(error) => Some((Err(error), file)),
        }
    });
    let day = format::utc(now_ms).split('T').next().unwrap_or_default().to_owned();
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"coinslot-{day}.backup\"")),
    ];
    Ok((AppendHeaders(headers), Stream::from_stream(chunks)).into_response())
}

/// It has no `Debug`.
#[derive(Deserialize)]
struct Download {
    csrf: String,
    passphrase: String,
    again: String,
}

async fn download(
    State(state): State<AdminState>,
    session: Session,
    Form(form): Form<Download>,
) -> Result<Response, AdminError> {
    session.confirm(&form.csrf)?;
    if form.passphrase != form.again {
        return Err(AdminError::invalid("The two passphrases are not the same. Go back and type them again."));
    }
    make(&state, session.actor(), Secret::new(form.passphrase)).await
}

/// It has no `Debug`.
#[derive(Deserialize, ToSchema)]
struct BackupCall {
    /// 12 letters or more. It is kept nowhere.
    passphrase: String,
}

/// Makes a backup, sealed with the passphrase, and sends it. `coinslot restore` puts it back.
#[utoipa::path(post, path = "/admin/api/backup", tag = "admin",
    security(("operator" = ["money"])), request_body = BackupCall, responses(
    (status = 200, content_type = "application/octet-stream"), (status = 400, body = Complaint),
    (status = 403, body = Complaint), (status = 409, body = Complaint),
))]
async fn backup_call(
    State(state): State<AdminState>,
    operator: Operator,
    Body(call): Body<BackupCall>,
) -> Result<Response, ApiError> {
    let actor = operator.may(Scope::Money)?;
    Ok(make(&state, actor, Secret::new(call.passphrase)).await?)
}
