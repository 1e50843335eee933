//! Programs of the operator: one with a token of the admin API, and the command line.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::node::TestNode;

/// A program with a token.
pub struct Program<'a> {
    node: &'a TestNode,
    token: String,
}

impl<'a> Program<'a> {
    /// One whose token has these scopes.
    pub async fn with(node: &'a TestNode, scopes: &str) -> Self {
        let token = format!("a token for {scopes}, {}", uuid::Uuid::new_v4());
        let hash: String = Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let store = node.running().exchange().ledger.store();
        let mut tx = store.begin(coinslot::store::Durability::Full).await.expect("a transaction");
        let sql = "INSERT INTO admin_tokens (id, token_hash, name, scopes, created_at) VALUES ($1, $2, $3, $4, 1)";
        let id = uuid::Uuid::new_v4().to_string();
        let made = sqlx::query(sql).bind(id).bind(hash).bind(format!("for {scopes}")).bind(scopes);
        made.execute(tx.hand()).await.expect("a token");
        tx.commit().await.expect("a token");
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
    // The demo shares this file, and is built without it.
    let program = option_env!("CARGO_BIN_EXE_coinslot");
    let mut command = Command::new(program.expect("built with tests"));
    command.env_clear().envs(settings).current_dir(std::env::temp_dir()).args(words);
    command.output().expect("the program runs")
}

/// The same, which has to go well.
pub fn told(settings: &BTreeMap<String, String>, words: &[&str]) -> String {
    let output = coinslot(settings, words);
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{words:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}
