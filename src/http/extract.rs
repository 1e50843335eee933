//! Parts of an address, as axum reads them; what cannot be read is refused in the envelope.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::Response;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::{refuse, vendor_of};
use crate::failure::{Code, Failure};

/// The query.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

/// What stands in the address in place of `{…}`.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

// What was sent may be a token: it is not repeated.
fn refusal(parts: &Parts, message: &str) -> Response<Body> {
    let protocol = vendor_of(parts.uri.path(), &parts.headers);
    refuse(&Failure::client(Code::InvalidRequest, message), protocol)
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Response<Body>;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(read)) => Ok(Self(read)),
            Err(_) => Err(refusal(parts, "The query cannot be read. Every name in it is there once.")),
        }
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Response<Body>;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(read)) => Ok(Self(read)),
            Err(_) => Err(refusal(parts, "The address is not UTF-8.")),
        }
    }
}
