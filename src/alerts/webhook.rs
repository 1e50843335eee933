//! Notes as JSON to a server of the operator's, signed as [Standard Webhooks](https://www.standardwebhooks.com)
//! has it, so that its libraries can check them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use url::Url;

use crate::config::Secret;
use crate::net::NetError;
use crate::net::post::{PostError, Poster};
use crate::net::way::Way;

const MEDIA: &str = "application/json";

#[derive(Clone, Debug)]
pub struct Webhook {
    poster: Poster,
    url: Secret,
    key: Option<Secret>,
}

impl Webhook {
    /// # Errors
    /// When the TLS backend does not start.
    pub(super) fn new(way: &Way, url: Secret, key: Option<Secret>) -> Result<Self, NetError> {
        Ok(Self { poster: Poster::new(way)?, url, key })
    }

    pub(super) async fn deliver(&self, id: &str, now_secs: i64, body: String) -> Result<(), PostError> {
        let url = Url::parse(self.url.expose()).map_err(|_| NetError::Address("the address cannot be read"))?;
        let time = now_secs.to_string();
        let mut headers = vec![("webhook-id", id.to_owned()), ("webhook-timestamp", time.clone())];
        headers
            .extend(self.key.as_ref().and_then(|key| sign(key, id, &time, &body)).map(|it| ("webhook-signature", it)));
        self.poster.post(&url, MEDIA, &headers, Bytes::from(body)).await
    }
}

/// HMAC-SHA256 over id, time and body. `None`: the key is none, which the configuration does not let in.
fn sign(key: &Secret, id: &str, time: &str, body: &str) -> Option<String> {
    let key = match key.expose().strip_prefix("whsec_") {
        Some(encoded) => STANDARD_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?,
        None => key.expose().as_bytes().to_vec(),
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    for part in [id, ".", time, ".", body] {
        mac.update(part.as_bytes());
    }
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        // The example of the specification's libraries.
        let key = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let (id, time, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", r#"{"test": 2432232314}"#);
        assert_eq!(sign(&key, id, time, body).unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let plain = Secret::new("0123456789abcdef".to_owned());
        let encoded = Secret::new(format!("whsec_{}", STANDARD.encode("0123456789abcdef")));
        assert_eq!(sign(&plain, id, time, body), sign(&encoded, id, time, body));
    }
}
