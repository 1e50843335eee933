//! The node of this machine, asked by its own program at the address where it listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::public::Answer;
use super::{ClientOptions, NetError, client, read_limited};

/// For everything: a program that looks after another must not hang with it.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Largest answer that is read.
const MAX_ANSWER: usize = 64 * 1024;

/// Gets `path` of the node that listens on `address`.
///
/// # Errors
/// When it does not answer in time.
pub async fn get(address: SocketAddr, path: &str) -> Result<Answer, NetError> {
    let client = client(&ClientOptions { connect_timeout: TIMEOUT, idle_per_host: 1, ..ClientOptions::default() })?;
    let asked = async {
        let response = client.get(format!("http://{}{path}", reached(address))).send().await?;
        let status = response.status().as_u16();
        Ok(Answer { status, body: read_limited(response, MAX_ANSWER).await? })
    };
    tokio::time::timeout(TIMEOUT, asked).await.unwrap_or(Err(NetError::Timeout))
}

/// Who listens on all interfaces is asked on loopback.
fn reached(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_interfaces_are_reached_on_loopback() {
        for (listening, asked) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("127.0.0.1:8000", "127.0.0.1:8000"),
            ("10.0.0.7:8000", "10.0.0.7:8000"),
        ] {
            assert_eq!(reached(listening.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
