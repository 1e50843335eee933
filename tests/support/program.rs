//! Programs of the operator: one with a token of the admin API, and the command line.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::node::TestNode;
use super::operator::store_token;

/// A program with a token.
pub struct Program<'a> {
    node: &'a TestNode,
    token: String,
}

impl<'a> Program<'a> {
    /// One whose token has these scopes.
    pub async fn with(node: &'a TestNode, scopes: &str) -> Self {
        let token = format!("a token for {scopes}, {}", uuid::Uuid::new_v4());
        store_token(node, &token, &format!("for {scopes}"), scopes).await;
        Self { node, token }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let answer = request.bearer_auth(&self.token).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send(self.node.get(path)).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Status and body of any call.
    pub async fn call(&self, method: reqwest::Method, path: &str, body: &Value) -> (u16, Value) {
        let request = self.node.post(path).json(body).build().expect("a request");
        let (client, mut request) = (reqwest::Client::new(), request);
        *request.method_mut() = method;
        self.send(reqwest::RequestBuilder::from_parts(client, request)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send(self.node.post(path).json(body)).await
    }
}

/// What the program says to these words, beside the node.
pub fn coinslot(settings: &BTreeMap<String, String>, words: &[&str]) -> Output {
    fed(settings, words, "")
}

/// The same, with this on its standard input.
pub fn fed(settings: &BTreeMap<String, String>, words: &[&str], input: &str) -> Output {
    // The demo shares this file, and is built without it.
    let program = option_env!("CARGO_BIN_EXE_coinslot");
    let mut command = Command::new(program.expect("built with tests"));
    command.env_clear().envs(settings).current_dir(std::env::temp_dir()).args(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    // One that does not read is gone before.
    child.stdin.take().expect("its input").write_all(input.as_bytes()).ok();
    child.wait_with_output().expect("the program ends")
}

/// All that it said.
pub fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    text(&output.stdout) + &text(&output.stderr)
}

/// The same, which has to go well.
pub fn told(settings: &BTreeMap<String, String>, words: &[&str]) -> String {
    let output = coinslot(settings, words);
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{words:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}
