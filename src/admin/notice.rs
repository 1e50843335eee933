//! Why something was not done, as a page says it; and what a form leads to.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};

use super::AdminError;

/// What a page says above all else, and the status that it is shown with.
#[derive(Default)]
pub(super) struct Notice {
    pub status: StatusCode,
    /// Empty: nothing.
    pub message: String,
}

impl Notice {
    /// Nothing was refused.
    pub(super) fn none() -> Self {
        Self::default()
    }
}

/// What a form leads to: the page at the path that came of it, and where it was refused the page of the form with the
/// reason.
pub(super) async fn shown_again(
    outcome: Result<impl AsRef<str>, AdminError>,
    render: impl AsyncFnOnce(Notice) -> Result<Response, AdminError>,
) -> Result<Response, AdminError> {
    match outcome {
        Ok(path) => Ok(Redirect::to(path.as_ref()).into_response()),
        Err(error) => render(error.told()?).await,
    }
}
