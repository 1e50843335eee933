//! The operator at a node: by its pages, or by its calls.

use std::collections::HashMap;

use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::node::{TestNode, client};

/// Of the nodes that tests start.
pub const PASSWORD: &str = "an admin password";

/// Somebody who is logged in.
pub struct Operator {
    url: String,
    session: String,
    /// Of the API.
    token: String,
    client: reqwest::Client,
}

impl Operator {
    pub async fn log_in(url: &str) -> Self {
        let client = client();
        let page = client.get(format!("{url}/admin/login")).send().await.expect("the login page");
        let cookie = |response: &Response, name: &str| {
            let lines = response.headers().get_all("set-cookie").iter().map(|line| line.to_str().expect("text"));
            let line = lines.into_iter().find_map(|line| line.strip_prefix(&format!("{name}="))).expect("a cookie");
            line.split(';').next().expect("a value").to_owned()
        };
        let login = cookie(&page, "coinslot_login");
        let csrf = field(&page.text().await.expect("the page"), "csrf");
        let mut operator = Self { url: url.to_owned(), session: String::new(), token: String::new(), client };
        let form = operator.form("/admin/login", &[("csrf", &csrf), ("password", PASSWORD)]);
        let answer = form.header("cookie", format!("coinslot_login={login}")).send().await.expect("an answer");
        assert_eq!(answer.status(), 303, "logged in");
        operator.session = cookie(&answer, "coinslot_session");
        let login = operator.client.post(format!("{url}/admin/api/login")).json(&json!({ "password": PASSWORD }));
        let said: Value = login.send().await.expect("an answer").json().await.expect("JSON");
        operator.token = said["token"].as_str().expect("a token").to_owned();
        operator
    }

    fn form(&self, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(fields);
        let request = self.client.post(format!("{}{path}", self.url)).header("origin", &self.url);
        request.header("content-type", "application/x-www-form-urlencoded").body(body.finish())
    }

    fn cookie(&self) -> String {
        format!("coinslot_session={}", self.session)
    }

    /// A page, which must be there.
    pub async fn page(&self, path: &str) -> String {
        let answer =
            self.client.get(format!("{}{path}", self.url)).header("cookie", self.cookie()).send().await.expect(path);
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.expect("text")
    }

    /// Sends a form as it is; the token of a form of this session is not added.
    pub async fn send(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        self.form(path, fields).header("cookie", self.cookie()).send().await.expect(path)
    }

    /// Fills in a form of a page: `fields` beside those that are hidden in it.
    pub async fn fill(&self, page: &str, action: &str, fields: &[(&str, &str)]) -> Response {
        let page = self.page(page).await;
        let (_, form) = page.split_once(&format!("action=\"{action}\"")).unwrap_or_else(|| panic!("{action}: {page}"));
        let form = form.split("</form>").next().expect("its end");
        let mut all: HashMap<String, String> = hidden(form);
        all.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let all: Vec<(&str, &str)> = all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.send(action, &all).await
    }

    /// What a program has as its token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A call of the API.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        call(&self.client, &self.url, &self.token, method, path, body).await
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, value) = self.call("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {value}");
        value
    }
}

/// A call of the API by a program with this token.
pub async fn call(
    client: &reqwest::Client,
    url: &str,
    bearer: &str,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> (u16, Value) {
    let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
    let mut request = client.request(method, format!("{url}{path}")).bearer_auth(bearer);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.expect(path);
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("text");
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// A token of a program that may only this.
pub async fn program(node: &TestNode, scopes: &str) -> String {
    let token = format!("a token for {scopes}");
    store_token(node, &token, scopes, scopes).await;
    token
}

/// Stores a token of a program, as the page for tokens does.
pub async fn store_token(node: &TestNode, token: &str, name: &str, scopes: &str) {
    let hash: String = Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let store = node.running().exchange().ledger.store();
    let mut tx = store.begin(coinslot::store::Durability::Full).await.expect("a transaction");
    let sql = "INSERT INTO admin_tokens (id, token_hash, name, scopes, created_at) VALUES ($1, $2, $3, $4, 1)";
    let made = sqlx::query(sql).bind(uuid::Uuid::new_v4().to_string()).bind(hash).bind(name).bind(scopes);
    made.execute(tx.hand()).await.expect("a token");
    tx.commit().await.expect("committed");
}

/// What was done, by whom and to what, in order.
pub async fn trail(node: &TestNode) -> Vec<(String, String, Value)> {
    use sqlx::Row as _;
    let store = node.running().exchange().ledger.store();
    let rows =
        sqlx::query("SELECT actor, action, detail FROM admin_trail ORDER BY at, id").fetch_all(store.read()).await;
    let rows = rows.expect("the trail");
    let row = |row: &sqlx::any::AnyRow| {
        let detail: String = row.get(2);
        (row.get(0), row.get(1), serde_json::from_str(&detail).expect("JSON"))
    };
    rows.iter().map(row).collect()
}

/// The hidden fields of a form.
fn hidden(form: &str) -> HashMap<String, String> {
    let fields = form.split("<input type=\"hidden\" name=\"").skip(1);
    let pair = |field: &str| {
        let (name, rest) = field.split_once("\" value=\"")?;
        Some((name.to_owned(), rest.split_once('"')?.0.to_owned()))
    };
    fields.filter_map(pair).collect()
}

/// The value of the first field of this name.
pub fn field(page: &str, name: &str) -> String {
    let rest = page.split_once(&format!("name=\"{name}\" value=\"")).expect(name).1;
    rest.split_once('"').expect("its end").0.to_owned()
}
