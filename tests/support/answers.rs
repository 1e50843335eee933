//! Answers of a node, as a client that does not give up reads them.

use std::time::{Duration, Instant};

use reqwest::{RequestBuilder, Response};
use serde_json::Value;

/// The longest that something is waited for. On a slow machine a mint that does not answer is left alone for half of it.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Status and JSON of an answer.
pub async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.expect("a whole answer");
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} {text}")))
}

/// The JSON of a success.
pub async fn ok(request: RequestBuilder) -> Value {
    let (status, body) = read(request.send().await.expect("an answer")).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// Asks until the answer is neither that it is pending nor that the mint cannot be reached.
pub async fn decided(what: &str, patience: Duration, mut ask: impl FnMut() -> RequestBuilder) -> Response {
    let end = Instant::now() + patience;
    loop {
        let answer = ask().send().await.unwrap_or_else(|error| panic!("{what}: {error}"));
        if !matches!(answer.status().as_u16(), 425 | 429 | 503) {
            return answer;
        }
        let now = Instant::now();
        assert!(now < end, "{what} is still pending after {patience:?}: {}", answer.text().await.unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Looks until it is so, no longer than [`PATIENCE`].
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    found(what, async || is_so().await.then_some(())).await;
}

/// Looks until there is something, no longer than [`PATIENCE`].
pub async fn found<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let patience = Patience::new();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        patience.pause(what).await;
    }
}

/// For who looks in a task of its own, where [`until`] cannot be: the compiler does not see that it may be there.
pub struct Patience(Instant);

impl Patience {
    pub fn new() -> Self {
        Self(Instant::now() + PATIENCE)
    }

    /// Waits a moment before the next look. The test has failed when [`PATIENCE`] is over.
    pub async fn pause(&self, what: &str) {
        assert!(Instant::now() < self.0, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
