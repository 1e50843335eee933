//! Whom TLS connections trust: the certificate authorities of the system.
//!
//! They are read once for all clients. Each has some 150 of them, and a node with ten upstreams has twenty clients.
//! Nothing else is shared: a session that another client resumes would tell the two apart from strangers.

use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls_platform_verifier::Verifier;

use super::NetError;

/// Those of this process.
static AUTHORITIES: OnceLock<Arc<Verifier>> = OnceLock::new();

/// The TLS of one client, which offers HTTP/1.1 alone, or HTTP/2 before it.
///
/// # Errors
/// When the system has no certificate that can be used.
pub(super) fn tls(http1_only: bool) -> Result<ClientConfig, NetError> {
    let unusable = |_| NetError::Other("the system's certificates cannot be used");
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let verifier: Arc<dyn ServerCertVerifier> = authorities(provider).map_err(unusable)?;
    let mut tls = builder
        .map_err(unusable)?
        .dangerous()
        // No other than the one that reqwest would make.
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    tls.alpn_protocols = if http1_only { vec!["http/1.1".into()] } else { vec!["h2".into(), "http/1.1".into()] };
    Ok(tls)
}

fn authorities(provider: Arc<CryptoProvider>) -> Result<Arc<Verifier>, rustls::Error> {
    if let Some(read) = AUTHORITIES.get() {
        return Ok(Arc::clone(read));
    }
    let read = Arc::new(Verifier::new(provider)?);
    Ok(Arc::clone(AUTHORITIES.get_or_init(|| read)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_read_once_and_the_protocols_are_each_client_s_own() {
        let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        assert!(Arc::ptr_eq(&authorities(provider()).unwrap(), &authorities(provider()).unwrap()));
        assert_eq!(tls(true).unwrap().alpn_protocols, [b"http/1.1".to_vec()]);
        assert_eq!(tls(false).unwrap().alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }
}
