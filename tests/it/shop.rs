//! The shop window, visited as a browser would: what it shows, and every form of it with real ecash.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::bearer::world;
use crate::lightning::{node_ahead, ok, resume};
use crate::support::answers::{found, until};
use crate::support::clock::Ahead;
use crate::support::mint::{MintOptions, TestMint};
use crate::support::node::{MODEL, TestNode, ask, models};
use crate::support::purse::Purse;
use crate::support::tokens::account_key;
use crate::support::upstream::{Script, Upstream, completion, usage};

const HTML: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
const VOID: [&str; 9] = ["meta", "link", "input", "img", "rect", "path", "circle", "br", "hr"];

/// A page as it came.
pub struct Page {
    pub status: u16,
    pub headers: HeaderMap,
    pub html: String,
}

impl Page {
    pub async fn of(request: reqwest::RequestBuilder) -> Self {
        let answer = request.header("accept", HTML).send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let page = Self { status, headers, html: answer.text().await.unwrap() };
        page.inspect();
        page
    }

    /// Every page: its headers, that its tags match, that nothing runs, and that no address has a secret.
    fn inspect(&self) {
        let policy = self.headers["content-security-policy"].to_str().unwrap();
        for rule in ["default-src 'none'", "style-src 'self'", "base-uri 'none'", "frame-ancestors"] {
            assert!(policy.contains(rule), "{policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("script") && !policy.contains('*'), "{policy}");
        assert_eq!(self.headers["cache-control"], "no-store");
        assert_eq!(self.headers["x-content-type-options"], "nosniff");
        assert!(self.headers.contains_key("referrer-policy") && self.headers.contains_key("x-frame-options"));
        assert!(!self.headers.contains_key("set-cookie"));
        if !self.headers["content-type"].to_str().unwrap().starts_with("text/html") {
            return;
        }
        let mut open: Vec<&str> = Vec::new();
        for tag in self.tags() {
            let name = tag.trim_start_matches('/').split([' ', '\n', '>', '/']).next().unwrap();
            assert!(!["script", "object", "embed", "base"].contains(&name), "<{tag}>");
            for attribute in tag.split_whitespace().skip(1) {
                let name = attribute.split_once('=').map_or("", |(name, _)| name);
                assert!(!name.starts_with("on") && name != "style", "<{tag}>");
                let address = ["href=", "src=", "action="].iter().any(|name| attribute.starts_with(name));
                assert!(!address || !attribute.contains("cashu") || attribute.contains("cashu.space"), "<{tag}>");
                assert!(!address || !attribute.contains("sk-"), "<{tag}>");
            }
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "of {open:?}");
            } else if !tag.starts_with('!') && !VOID.contains(&name) && !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert_eq!(open, Vec::<&str>::new(), "left open");
    }

    /// What stands between `<` and `>`, quoted texts included.
    fn tags(&self) -> Vec<&str> {
        let mut tags = Vec::new();
        let mut rest = self.html.as_str();
        while let Some((_, after)) = rest.split_once('<') {
            let mut quoted = false;
            let end = after.char_indices().find(|(_, c)| {
                quoted ^= *c == '"';
                *c == '>' && !quoted
            });
            let end = end.expect("every tag ends").0;
            tags.push(&after[..end]);
            rest = &after[end + 1..];
        }
        tags
    }

    pub fn has(&self, text: &str) -> bool {
        self.html.contains(text)
    }

    #[track_caller]
    pub fn expect(self, status: u16, text: &str) -> Self {
        assert_eq!(self.status, status, "{}", self.html);
        assert!(self.has(text), "no {text:?} in {}", self.html);
        self
    }

    /// What follows `before`, up to the next `<` or `"`.
    fn after(&self, before: &str) -> String {
        let rest = self.html.split_once(before).unwrap_or_else(|| panic!("no {before} in {}", self.html)).1;
        rest.split(['<', '"']).next().unwrap().to_owned()
    }

    fn hidden(&self, name: &str) -> String {
        self.after(&format!("type=\"hidden\" name=\"{name}\" value=\""))
    }

    /// The ids of the models, in the order of the table.
    fn ids(&self) -> Vec<String> {
        self.html.split("<code class=\"id\">").skip(1).map(|rest| rest.split('<').next().unwrap().to_owned()).collect()
    }
}

pub async fn get(node: &TestNode, path: &str) -> Page {
    Page::of(node.get(path)).await
}

/// A form as a browser sends it, but for where it comes from.
pub fn filled(node: &TestNode, path: &str, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    node.post(path).header("content-type", "application/x-www-form-urlencoded").body(body)
}

async fn send(node: &TestNode, path: &str, fields: &[(&str, &str)]) -> Page {
    Page::of(filled(node, path, fields).header("origin", node.url())).await
}

async fn node_selling(mint: &TestMint, upstream: &Upstream, list: &Value, more: &[(&str, &str)]) -> TestNode {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("models.json");
    std::fs::write(&path, list.to_string()).unwrap();
    let path = path.display().to_string();
    TestNode::with(mint, upstream, &[&[("MODELS_PATH", path.as_str())], more].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_gets_a_page_and_programs_get_json() {
    let (mint, _purse, _upstream, node) = world(1).await;
    let page = found("the page of an open shop", async || {
        let page = get(&node, "/").await;
        if page.has("Open: requests are served and paid now.") {
            return Some(page);
        }
        // The mint's keysets are fetched in the background.
        assert!(page.has("keysets"), "{}", page.html);
        None
    });
    let page = page.await.expect(200, "Open: requests are served and paid now.");
    assert_eq!(page.headers["vary"], "accept");
    for text in [MODEL, "echo-1", "$100,000", "set by the operator", &mint.url(), env!("CARGO_PKG_VERSION"), "npub1"] {
        assert!(page.has(text), "{text}");
    }
    // Its own address, as it was asked for.
    assert!(page.has(&format!("curl {}/v1/chat/completions", node.url())));
    let spoofed = Page::of(node.get("/").header("host", "evil\"><script>alert(1)</script>")).await;
    assert!(!spoofed.has("evil"), "a host that is none is not shown");
    for accept in ["*/*", "application/json", "application/json, text/html;q=0.5", ""] {
        let answer = node.get("/").header("accept", accept).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/json", "{accept}");
        assert_eq!(answer.headers()["vary"], "accept");
        let body: Value = answer.json().await.unwrap();
        assert_eq!((&body["status"], &body["mint"]), (&json!("running"), &json!(mint.url())));
    }
    for (path, media) in
        [("/shop/style.css", "text/css"), ("/shop/base.css", "text/css"), ("/shop/icon.svg", "image/svg+xml")]
    {
        let answer = node.get(path).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with(media));
    }
    for path in ["/shop", "/shop/key", "/shop/redeem", "/shop/refund", "/shop/invoice", "/shop/invoice/key"] {
        let answer = node.get(path).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.headers()["location"]), (303, &"/".parse().unwrap()), "{path}");
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_snippets_are_those_of_the_formats_that_are_spoken() {
    let (_mint, _purse, _upstream, node) = world(1).await;
    let page = get(&node, "/").await;
    for title in ["curl, with a token as the key", "curl, one payment and the change", "OpenAI SDK", "OpenCode"] {
        assert!(page.has(title), "{title}");
    }
    for (path, lines) in [
        ("/v1/responses", &["wire_api = &#34;responses&#34;", "env_key"][..]),
        ("/v1/messages", &["ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "from anthropic import"]),
    ] {
        let is_spoken = node.post(path).json(&json!({})).send().await.unwrap().status() != 404;
        for line in lines {
            assert_eq!(page.has(line), is_spoken, "{path} {line}");
        }
    }
    assert!(!page.has(&format!("ANTHROPIC_BASE_URL={}/v1", node.url())));
    node.finish().await;
}

/// Lines name a model that can be asked for in their format, one of the vendor's whose format it is before others.
#[tokio::test(flavor = "multi_thread")]
async fn the_snippets_name_models_that_are_served_so() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let named = |ids: &[&str]| {
        let one = |id: &&str| {
            let mut model = models()["models"][0].clone();
            model["id"] = json!(id);
            model
        };
        json!({ "models": ids.iter().map(one).collect::<Vec<_>>() })
    };
    let list = named(&["toy/first", "google/gemini-9", "anthropic/claude-9", "openai/gpt-9"]);
    let node = node_selling(&mint, &upstream, &list, &[]).await;
    let home = get(&node, "/").await;
    let lines = [
        ("/docs/claude-code", "ANTHROPIC_MODEL=anthropic/claude-9"),
        ("/docs/codex", "model = \"openai/gpt-9\""),
        ("/docs/gemini", "generate_content(model=\"google/gemini-9\""),
        ("/docs/openai", "model=\"toy/first\""),
    ];
    for (page, line) in lines {
        // The two are escaped by different hands.
        let page = get(&node, page).await;
        assert!(page.has(&line.replace('"', "&quot;")) && home.has(&line.replace('"', "&#34;")), "{line}");
    }
    node.finish().await;

    let list = named(&["toy/first", "toy/second", "anthropic/claude-9"]);
    let entry = |name: &str, protocol: &str, models: [&str; 2]| json!({ "name": name, "base_url": upstream.url(), "protocols": [protocol], "models": models });
    let entries = json!([
        entry("chats", "chat_completions", ["toy/first", "anthropic/claude-9"]),
        entry("messages", "messages", ["toy/second", "toy/third"]),
    ]);
    let settings = [("UPSTREAM_BASE_URL", ""), ("UPSTREAM_API_KEY", ""), ("UPSTREAMS", &entries.to_string())];
    let node = node_selling(&mint, &upstream, &list, &settings).await;
    let home = get(&node, "/").await;
    assert!(home.has("ANTHROPIC_MODEL=toy/second") && home.has("model=&#34;toy/first&#34;"), "{}", home.html);
    assert!(!home.has("wire_api") && !home.has("from google import genai"), "nobody has these formats");
    get(&node, "/docs/claude-code").await.expect(200, "ANTHROPIC_MODEL=toy/second");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_or_a_list_writes_is_text() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let hostile = "</code><script>alert('x')</script>\"'; rm -rf ~ #{{7*7}}";
    let mut list = models();
    list["models"].as_array_mut().unwrap().truncate(3);
    let mut bad = list["models"][0].clone();
    bad["id"] = json!(hostile);
    bad["name"] = json!(format!("<b>{hostile}"));
    bad["alias_ids"] = json!(["<i>alias"]);
    list["models"].as_array_mut().unwrap().insert(0, bad);
    let more = [
        ("NAME", "<h1>node & co"),
        ("DESCRIPTION", "<script>1</script>\n\"two\" lines"),
        ("HTTP_URL", "https://node.example/"),
    ];
    let node = node_selling(&mint, &upstream, &list, &more).await;
    for path in ["/", "/?q=%22%3E%3Cscript%3E&sort=%3Cb%3E", "/?q=rm"] {
        let page = get(&node, path).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.has("&#60;h1&#62;node &#38; co") && page.has("&#34;two&#34; lines"), "{}", page.html);
        // Tags and attributes were looked at by `inspect`; no line to paste has it either.
        let pasted = page.html.split("id=\"pay\"").nth(1).unwrap().split("id=\"key\"").next().unwrap();
        assert!(!pasted.contains("rm -rf") && pasted.contains(MODEL), "{pasted}");
        assert!(pasted.contains("https://node.example/v1/chat/completions"));
    }
    let found = get(&node, "/?q=rm").await;
    assert!(found.has("1 of 4 models") && found.has("rm -rf ~"), "{}", found.html);
    for path in ["/shop/key", "/shop/redeem", "/shop/refund"] {
        for text in [hostile, "cashuB<script>", "cashuA\"><img src=x onerror=alert(1)>"] {
            let page = send(&node, path, &[("key", text)]).await;
            assert!((400..500).contains(&page.status), "{path} {text}: {}", page.status);
            assert!(page.has("Nothing was taken."));
        }
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_is_searched_and_sorted() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let mut list = models();
    list["models"].as_array_mut().unwrap().truncate(3);
    list["models"][1]["architecture"]["input_modalities"] = json!(["text", "image", "audio"]);
    list["models"][1]["supported_parameters"] = json!(["tools", "reasoning"]);
    list["models"][1]["pricing"]["image"] = json!("0.003");
    list["models"][2]["context_length"] = json!(400_000);
    list["models"][2]["top_provider"]["context_length"] = json!(400_000);
    let node = node_selling(&mint, &upstream, &list, &[]).await;
    let (echo, cached, cheap) = (MODEL, "toy/cached", "toy/cheap");
    for (path, ids) in [
        ("/", &[echo, cached, cheap][..]),
        ("/?sort=name", &[cached, cheap, echo]),
        ("/?sort=-name", &[echo, cheap, cached]),
        ("/?sort=input", &[cheap, echo, cached]),
        ("/?sort=-output", &[cached, echo, cheap]),
        ("/?sort=context", &[cheap, echo, cached]),
        ("/?q=IMAGE", &[cached]),
        ("/?q=toy+tools", &[cached]),
        ("/?q=echo-1&sort=name", &[echo]),
        ("/?q=nothing+such", &[]),
        ("/?sort=;drop&q", &[echo, cached, cheap]),
    ] {
        assert_eq!(get(&node, path).await.ids(), ids, "{path}");
    }
    let page = get(&node, "/?q=cached&sort=input").await;
    // 0.00001 USD a token is 10 USD a million; at 100,000 USD a bitcoin 10,000 sat.
    for text in [
        "<b>10,000</b>",
        "$10<",
        "<b>20,000</b>",
        "$20<",
        "<b>1,000</b>",
        "<b>12,500</b>",
        "for an image",
        "$0.003",
        "1M reasoning tokens",
    ] {
        assert!(page.has(text), "{text} in {}", page.html);
    }
    for badge in ["text", "image", "audio", "tools", "reasoning"] {
        assert!(page.has(&format!("<span class=\"badge\">{badge}</span>")), "{badge}");
    }
    assert!(page.has("aria-sort=\"ascending\"") && page.has("?q=cached&#38;sort=-input#prices"), "{}", page.html);
    assert!(get(&node, "/").await.has("<small>as input</small>"));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worked_example_is_what_is_charged() {
    let fixed = [
        ("MODEL_BASED_PRICING", "false"),
        ("COST_PER_REQUEST", "2"),
        ("COST_PER_1K_INPUT_TOKENS", "1.5"),
        ("COST_PER_1K_OUTPUT_TOKENS", "3"),
    ];
    let fees = [("EXCHANGE_FEE", "1.005"), ("UPSTREAM_PROVIDER_FEE", "1.05")];
    // 1000 × 0.00001 + 500 × 0.00002 = 0.02 USD; × 1.05525 × 10¹¹ ÷ 100000 = 21105. And 2 + 1.5 + 1.5 sat.
    for (settings, msat, text) in
        [(&fees[..], 21_105, "0.021105 USD"), (&fixed, 5_000, "1,500 sat</b> a million input")]
    {
        let mint = TestMint::start().await;
        let purse = Purse::new(&mint).await;
        purse.mint_sats(100).await;
        let upstream = Upstream::start().await;
        let node = TestNode::with(&mint, &upstream, settings).await;
        let page = get(&node, "/").await.expect(200, text);
        assert_eq!(page.after("<data id=\"example\" value=\""), msat.to_string());
        let body = completion(MODEL, "x", Some(usage(1_000, 500)));
        upstream.next(Script::Answer { status: 200, media: "application/json", body });
        let token = purse.send(100).await;
        // Long enough for as many tokens to be set aside for.
        let answer = node.chat(&ask(&"word ".repeat(1_000))).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.headers()["x-routstr-cost-msats"], msat.to_string());
        node.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_sell_says_so() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let silent = [("BTC_USD_FIXED", ""), ("BTC_USD_FEEDS", "kraken=http://127.0.0.1:1/")];
    let node = TestNode::with(&mint, &upstream, &silent).await;
    let page = get(&node, "/").await.expect(200, "Nothing is sold right now.");
    assert!(page.has("the price of bitcoin is not known") && !page.has("id=\"example\""), "{}", page.html);
    // Prices in dollars stay.
    assert!(page.has("<b>$10</b>"), "{}", page.html);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_weighed_put_on_a_key_spent_and_taken_back() {
    let (mint, purse, _upstream, node) = world(500).await;
    let token = purse.send(200).await;
    let page =
        send(&node, "/shop/key", &[("key", &format!("  {token}\n"))]).await.expect(200, "This token is new here");
    assert_eq!(page.after("<data id=\"net\">"), "200.000");
    assert_eq!(page.hidden("key"), token);
    assert_eq!((mint.calls("/v1/swap"), mint.calls("/v1/checkstate")), (0, 0), "looking asks nobody to take it");

    let page =
        send(&node, "/shop/redeem", &[("key", &page.hidden("key"))]).await.expect(200, "The token is a key now.");
    let key = account_key(&token);
    assert_eq!((page.after("<data id=\"available\">"), page.hidden("key")), ("200.000".to_owned(), key.clone()));
    assert!(page.has("None was charged yet.") && page.has("Ecash came in") && page.has("+200.000"), "{}", page.html);

    node.chat(&ask("a private question")).bearer_auth(&token).send().await.unwrap().text().await.unwrap();
    for shown in [&token, &key] {
        let page = send(&node, "/shop/key", &[("key", shown)]).await.expect(200, "Your key");
        assert_eq!(page.after("<data id=\"available\">"), "198.000");
        for text in
            [MODEL, "100 × 0.00001 USD", "50 × 0.00002 USD", "2.000 sat", "100,000 USD for a bitcoin", "/v1/receipts/"]
        {
            assert!(page.has(text), "{text} in {}", page.html);
        }
        assert!(!page.has("private"));
    }
    let page = send(&node, "/shop/refund", &[("key", &key)]).await.expect(200, "Your ecash: 198.000");
    assert!(page.has("<svg class=\"qr\""), "{}", page.html);
    let back = page.after("<code id=\"token\">");
    let again = send(&node, "/shop/refund", &[("key", &key)]).await;
    assert_eq!(again.after("<code id=\"token\">"), back, "asked for twice, it is paid once");
    assert_eq!(purse.receive(&back).await.unwrap(), 198);
    let page = send(&node, "/shop/key", &[("key", &key)]).await.expect(200, "−198.000");
    assert_eq!(page.after("<data id=\"available\">"), "0.000");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_change_of_a_token_that_rode_along_is_fetched() {
    let (_mint, purse, _upstream, node) = world(200).await;
    let token = purse.send(100).await;
    let answer = node.chat(&ask("x")).header("X-Cashu", &token).send().await.unwrap();
    let change = answer.headers()["x-cashu"].to_str().unwrap().to_owned();
    let page = send(&node, "/shop/key", &[("key", &token)]).await.expect(200, "This token paid for one request.");
    assert!(page.has("Fetch the change") && page.has("2.000 sat"), "{}", page.html);
    let page = send(&node, "/shop/refund", &[("key", &page.hidden("key"))]).await.expect(200, "98.000");
    assert_eq!(page.after("<code id=\"token\">"), change);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn child_keys_show_their_limits_and_have_no_refund() {
    let (_mint, purse, _upstream, node) = world(200).await;
    let token = purse.send(100).await;
    let wanted =
        json!({ "count": 1, "balance_limit": 50_000, "balance_limit_reset": "daily", "validity_date": 1_900_000_000 });
    let made = ok(node.post("/v1/wallet/child-key").bearer_auth(&token).json(&wanted)).await;
    let child = made["api_keys"][0].as_str().unwrap();
    node.chat(&ask("x")).bearer_auth(child).send().await.unwrap().text().await.unwrap();
    let page = send(&node, "/shop/key", &[("key", child)]).await.expect(200, "A child key");
    assert_eq!(page.after("<data id=\"available\">"), "48.000");
    for text in ["50.000 sat a day", "Works until 2030-03-17 17:46:40Z", MODEL] {
        assert!(page.has(text), "{text} in {}", page.html);
    }
    assert!(!page.has("/shop/refund"));
    send(&node, "/shop/refund", &[("key", child)]).await.expect(400, "refund its parent");
    let page = send(&node, "/shop/key", &[("key", &token)]).await.expect(200, "It has 1 child key.");
    assert!(page.has(MODEL), "a parent sees what its children bought");
    node.finish().await;
}

/// Looks at the frame until it says this.
async fn watch(node: &TestNode, page: &Page, text: &str) {
    let path = page.after("<iframe class=\"watch\" src=\"");
    until(&format!("the frame says {text}"), async || {
        let frame = get(node, &path).await;
        assert_eq!((frame.status, &frame.headers["x-frame-options"]), (200, &"SAMEORIGIN".parse().unwrap()));
        let waits = frame.has("Waiting") || frame.has("fetched");
        assert_eq!(frame.has("http-equiv=\"refresh\""), waits, "{}", frame.html);
        let says = frame.has(text);
        if !says {
            resume(node).await;
        }
        says
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_bought_and_topped_up_over_lightning() {
    let mint = TestMint::with_options(MintOptions { unpaid: true, ..MintOptions::default() }).await;
    let upstream = Upstream::start().await;
    let clock = Arc::new(Ahead::default());
    let node = node_ahead(&mint, &upstream, &clock, &[]).await;
    let page = send(&node, "/shop/invoice", &[("sats", "500")]).await.expect(200, "Pay 500");
    assert!(page.has("<svg class=\"qr\"") && page.has("href=\"lightning:lnbc"), "{}", page.html);
    let (id, bolt11) = (page.hidden("id"), page.after("<code id=\"bolt11\">"));
    let frame = page.after("<iframe class=\"watch\" src=\"");
    assert!(!frame.contains(&id), "the frame's address does not open the key");
    watch(&node, &page, "Waiting for the payment").await;
    send(&node, "/shop/invoice/key", &[("id", &id)]).await.expect(200, "It is not paid yet.");
    mint.pay(&bolt11, 500).await;
    clock.step(Duration::from_secs(11));
    watch(&node, &page, "Paid.").await;
    assert!(!get(&node, &frame).await.has("sk-"));
    let page = send(&node, "/shop/invoice/key", &[("id", &id)]).await.expect(200, "This is your key");
    assert_eq!(page.after("<data id=\"available\">"), "500.000");
    let key = page.hidden("key");
    assert_eq!(node.balance(&key).await.0, 500_000);

    let page = send(&node, "/shop/invoice", &[("key", &key), ("sats", " 30 ")]).await.expect(200, "Pay 30");
    assert_eq!(page.hidden("key"), key);
    mint.pay(&page.after("<code id=\"bolt11\">"), 30).await;
    clock.step(Duration::from_secs(11));
    watch(&node, &page, "Paid.").await;
    let page = send(&node, "/shop/key", &[("key", &key)]).await;
    assert_eq!(page.after("<data id=\"available\">"), "530.000");

    let page = send(&node, "/shop/invoice", &[("sats", "1")]).await;
    clock.step(Duration::from_secs(3600 * 2));
    watch(&node, &page, "Not paid in time.").await;
    for seconds in [3600 * 30, 660] {
        clock.step(Duration::from_secs(seconds));
        resume(&node).await;
    }
    watch(&node, &page, "Do not pay it any more.").await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_goes_to_a_lightning_address() {
    let (_mint, purse, _upstream, node) = world(500).await;
    let recipient = crate::support::lnurl::Recipient::start().await;
    let token = purse.send(300).await;
    send(&node, "/shop/redeem", &[("key", &token)]).await.expect(200, "is a key now");
    send(&node, "/shop/refund", &[("key", &token), ("address", "not an address")])
        .await
        .expect(400, "Lightning address");
    let page = send(&node, "/shop/refund", &[("key", &token), ("address", &recipient.name())]).await;
    assert!(page.status == 200 && page.has("Sent: ") && page.has(&recipient.name()), "{} {}", page.status, page.html);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_and_costs_nothing() {
    let (_mint, purse, _upstream, node) = world(100).await;
    let nobody = format!("sk-{}", "0".repeat(64));
    let token = purse.send(50).await;
    let long = "x".repeat(70_000);
    for (path, fields, status, text) in [
        ("/shop/key", &[("key", "")][..], 401, "Invalid API key"),
        ("/shop/key", &[], 401, "Invalid API key"),
        ("/shop/key", &[("key", "hello")], 401, "Invalid API key"),
        ("/shop/key", &[("key", &nobody)], 401, "no such key"),
        ("/shop/key", &[("key", "cashuBnonsense")], 400, "Nothing was taken."),
        ("/shop/key", &[("key", &long)], 413, "too long"),
        ("/shop/redeem", &[("key", &nobody)], 400, "Nothing was taken."),
        ("/shop/refund", &[("key", &nobody)], 401, "Key not found"),
        ("/shop/refund", &[("key", &token)], 401, "Key not found"),
        ("/shop/invoice", &[("sats", "0")], 400, "1 to 1000000"),
        ("/shop/invoice", &[("sats", "1.5")], 400, "1 to 1000000"),
        ("/shop/invoice", &[("sats", "1000001")], 400, "1 to 1000000"),
        ("/shop/invoice", &[("sats", "5"), ("key", &nobody)], 404, "no such key"),
        ("/shop/invoice", &[("sats", "5"), ("key", "hello")], 400, "a key of this node"),
        ("/shop/invoice/key", &[("id", "nothing")], 404, "Invoice not found"),
    ] {
        let page = send(&node, path, fields).await.expect(status, text);
        assert!(page.has("That did not work"), "{path}");
    }
    get(&node, "/shop/invoice/nothing").await.expect(404, "Invoice not found");
    // A token of another mint, and one that was spent elsewhere.
    let other = TestMint::start().await;
    let stranger = Purse::new(&other).await;
    stranger.mint_sats(10).await;
    let foreign = stranger.send(10).await;
    for path in ["/shop/key", "/shop/redeem"] {
        send(&node, path, &[("key", &foreign)]).await.expect(400, "does not take ecash of that mint");
    }
    assert_eq!(stranger.receive(&foreign).await.unwrap(), 10, "untouched");
    assert_eq!(purse.receive(&token).await.unwrap(), 50, "untouched");
    send(&node, "/shop/redeem", &[("key", &token)]).await.expect(400, "already been spent");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_other_sites_are_refused() {
    let (mint, purse, _upstream, node) = world(100).await;
    let token = purse.send(50).await;
    for path in ["/shop/key", "/shop/redeem", "/shop/refund", "/shop/invoice", "/shop/invoice/key"] {
        let form = || filled(&node, path, &[("key", &token), ("sats", "5")]);
        for request in [
            form(),
            form().header("origin", "https://evil.example"),
            form().header("origin", "null"),
            form().header("origin", node.url()).header("sec-fetch-site", "cross-site"),
            form().header("sec-fetch-site", "same-site"),
        ] {
            Page::of(request).await.expect(403, "does not come from a page of this node");
        }
        let kind = node.post(path).header("origin", node.url()).json(&json!({ "key": token }));
        assert!(Page::of(kind).await.status >= 400, "a form is a form");
    }
    assert_eq!(mint.calls("/v1/swap"), 0);
    let page = Page::of(filled(&node, "/shop/key", &[("key", &token)]).header("sec-fetch-site", "same-origin")).await;
    page.expect(200, "This token is new here");
    node.finish().await;
}
