//! Answers of a node, as a client that does not give up reads them.

use std::time::Duration;

use reqwest::{RequestBuilder, Response};
use serde_json::Value;

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
    let end = std::time::Instant::now() + patience;
    loop {
        let answer = ask().send().await.unwrap_or_else(|error| panic!("{what}: {error}"));
        if !matches!(answer.status().as_u16(), 425 | 429 | 503) {
            return answer;
        }
        let now = std::time::Instant::now();
        assert!(now < end, "{what} is still pending after {patience:?}: {}", answer.text().await.unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Looks until it is so, for a minute and a half at most: on a slow machine a mint that does not answer is left alone for
/// half of that.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(90);
    while !is_so().await {
        assert!(std::time::Instant::now() < end, "not within 90 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
