//! Price lists of others: what comes by itself, what waits, and what a hostile list can do (nothing).

use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use coinslot::catalog::import::Switch;
use coinslot::net::NetError;
use coinslot::net::fetch::{FetchError, Fetched, Fetcher, Limits};
use coinslot::net::way::Way;
use serde_json::{Value, json};

use crate::lightning::{node_ahead, ok};
use crate::support::answers::until;
use crate::support::clock::Ahead;
use crate::support::mint::TestMint;
use crate::support::node::{MODEL, TestNode, UPSTREAM_KEY, ask, models};
pub use crate::support::operator::field;
use crate::support::operator::trail;
use crate::support::prices::{Page, PriceServer};
use crate::support::program::{coinslot, said};
use crate::support::purse::Purse;
use crate::support::upstream::{Script, Upstream, completion, delta, sse, usage};

pub const OPENROUTER: &str = "/openrouter";
const LITELLM: &str = "/litellm";
/// Longer than any interval of these tests.
const HOURS: Duration = Duration::from_secs(4 * 3600);

pub struct World {
    pub mint: TestMint,
    upstream: Upstream,
    pub server: PriceServer,
    clock: Arc<Ahead>,
    pub node: TestNode,
}

impl World {
    /// A node with these sources, `SERVER` in them being the server's address.
    async fn with(server: PriceServer, sources: &str, more: &[(&str, &str)]) -> Self {
        let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
        let clock = Arc::new(Ahead::default());
        let sources = sources.replace("SERVER", &server.url(""));
        let more = [more, &[("PRICE_SOURCES", &*sources)]].concat();
        let node = node_ahead(&mint, &upstream, &clock, &more).await;
        Self { mint, upstream, server, clock, node }
    }

    /// One that has taken up what OpenRouter lists.
    pub async fn selling(models: &[(&str, &str, &str)]) -> Self {
        let server = PriceServer::start().await;
        server.list(OPENROUTER, models);
        let world = Self::with(server, "openrouter=SERVER/openrouter", &[]).await;
        for (id, _, _) in models {
            world.offered(id).await;
        }
        world
    }

    async fn models(&self) -> Vec<Value> {
        ok(self.node.get("/v1/models")).await["data"].as_array().unwrap().clone()
    }

    pub async fn find(&self, id: &str) -> Option<Value> {
        self.models().await.into_iter().find(|model| model["id"] == id)
    }

    /// Waits until the list of models is as it should be.
    pub async fn until(&self, what: &str, is_so: impl Fn(&[Value]) -> bool) {
        until(what, async || is_so(&self.models().await)).await;
    }

    async fn offered(&self, id: &str) {
        self.until(&format!("{id} is offered"), |models| models.iter().any(|model| model["id"] == id)).await;
    }

    pub async fn costs(&self, id: &str, prompt: &str, completion: &str) {
        let is_so = |models: &[Value]| {
            let model = models.iter().find(|model| model["id"] == id);
            model.is_some_and(|model| prices(model) == (prompt.to_owned(), completion.to_owned()))
        };
        self.until(&format!("{id} costs {prompt} and {completion}"), is_so).await;
    }

    pub fn coinslot(&self, words: &[&str]) -> Output {
        coinslot(self.node.settings(), &[&["models"][..], words, &["--json"]].concat())
    }

    /// What the command prints.
    pub fn told(&self, words: &[&str]) -> Value {
        let output = self.coinslot(words);
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// That a command left this in the trail, in the words of a page.
    async fn noted(&self, action: &str, is_it: impl Fn(&Value) -> bool) {
        let acts = trail(&self.node).await;
        let mut cli = acts.iter().filter(|(actor, done, _)| actor == "cli" && done == action);
        assert!(cli.any(|(_, _, detail)| is_it(detail)), "{acts:?}");
    }

    /// Id, kind, and what would change, of everything that waits.
    fn waiting(&self) -> Vec<(String, String)> {
        let told = self.told(&["diff"]);
        let text = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
        told["waiting"].as_array().unwrap().iter().map(|one| (text(one, "id"), text(one, "kind"))).collect()
    }

    pub async fn finish(self) {
        self.node.finish().await;
    }
}

fn prices(model: &Value) -> (String, String) {
    let price = |name: &str| model["pricing"][name].as_f64().unwrap().to_string();
    (price("prompt"), price("completion"))
}

fn pair(id: &str, kind: &str) -> (String, String) {
    (id.to_owned(), kind.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn new_models_and_rises_come_by_themselves_and_drops_wait_for_the_operator() {
    let world = World::selling(&[("new/one", "0.00001", "0.00002"), ("new/two", "0.00001", "0.00002")]).await;
    // The operator's own row wins, and says nothing of where it is from.
    let own = world.find(MODEL).await.unwrap();
    let model = world.find("new/one").await.unwrap();
    assert_eq!((&model["price_source"], &own["price_source"]), (&json!("openrouter"), &Value::Null));
    assert_eq!(model["name"], "The new/one");
    let before = world.node.get("/v1/models").send().await.unwrap().headers()["etag"].clone();

    let purse = Purse::new(&world.mint).await;
    purse.mint_sats(500).await;
    let token = purse.send(500).await;
    let charge = async |id: &str| {
        let request = json!({ "model": id, "messages": [{ "role": "user", "content": "x" }] });
        ok(world.node.chat(&request).bearer_auth(&token)).await["usage"]["cost"]["total_msats"].clone()
    };
    // 100 × 10 + 50 × 20 msat
    assert_eq!(charge("new/one").await, 2_000);
    assert_eq!(charge("one").await, 2_000);

    // Dearer: at the next look, by itself.
    world.server.list(
        OPENROUTER,
        &[("new/one", "0.00002", "0.00002"), ("new/two", "0.00001", "0.00002"), (MODEL, "0.000001", "0.000001")],
    );
    world.clock.step(HOURS);
    world.costs("new/one", "0.00002", "0.00002").await;
    assert_eq!(charge("new/one").await, 3_000);
    assert_eq!(prices(&world.find(MODEL).await.unwrap()), prices(&own));
    let after = world.node.get("/v1/models").send().await.unwrap().headers()["etag"].clone();
    assert_ne!(before, after);
    let tags = world.server.tags(OPENROUTER);
    assert_eq!((&tags[0], &tags[1]), (&None, &Some("\"v0\"".to_owned())));

    // Cheaper in one thing and dearer in another: only the latter counts. Another is gone.
    world.server.list(OPENROUTER, &[("new/one", "0.00001", "0.00003"), ("new/three", "0.00001", "0.00001")]);
    let told = world.told(&["sync"]);
    assert_eq!(told["new"], json!(["new/three"]));
    assert_eq!(told["raised"][0]["changes"], json!([{ "name": "completion", "was": "0.00002", "is": "0.00003" }]));
    assert_eq!(world.waiting(), [pair("new/one", "lower"), pair("new/two", "gone")]);
    world.costs("new/one", "0.00002", "0.00003").await;
    world.offered("new/two").await;
    // The same document once more changes nothing.
    assert_eq!(world.told(&["sync"])["new"], json!([]));
    assert_eq!(world.server.tags(OPENROUTER).last().unwrap(), &Some("\"v2\"".to_owned()));

    // Decided beside the running node, which notices.
    assert_eq!(world.told(&["apply", "new/one"])["applied"][0]["id"], "new/one");
    world.costs("new/one", "0.00001", "0.00003").await;
    assert_eq!(world.told(&["refuse", "--all"])["refused"][0]["id"], "new/two");
    world.noted("models.decide", |detail| detail["verdict"] == "refuse" && detail["kind"].is_string()).await;
    assert_eq!(world.waiting(), []);
    world.told(&["sync"]);
    assert_eq!(world.waiting(), [], "what was refused is not asked again");
    world.offered("new/two").await;
    // Refused is not for ever.
    world.told(&["apply", "new/two"]);
    world.until("new/two is gone", |models| models.iter().all(|model| model["id"] != "new/two")).await;
    let gone = world.coinslot(&["apply", "new/two"]);
    assert!(gone.status.code() == Some(1) && said(&gone).contains("nothing waits"), "{}", said(&gone));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_keeps_its_price() {
    let world = World::selling(&[("new/one", "0.00001", "0.00002")]).await;
    let purse = Purse::new(&world.mint).await;
    purse.mint_sats(400).await;
    let token = purse.send(400).await;
    let mut pieces = sse("new/one", &["a"], Some(usage(100, 50)));
    let after = pieces.split_off(2);
    world.upstream.next(Script::Paused { before: [pieces, vec![delta("new/one", "b")]].concat(), after });
    let mut request = ask("x");
    request["model"] = json!("new/one");
    request["stream"] = json!(true);
    let mut running = world.node.chat(&request).bearer_auth(&token).send().await.unwrap();
    assert!(running.chunk().await.unwrap().is_some());
    world.server.list(OPENROUTER, &[("new/one", "0.0001", "0.0002")]);
    world.told(&["sync"]);
    world.costs("new/one", "0.0001", "0.0002").await;
    world.upstream.resume();
    while running.chunk().await.unwrap().is_some() {}
    world.node.settled().await;
    assert_eq!(world.node.balance(&token).await.2, 2_000);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_model_is_in_no_list_and_sold_to_whoever_names_it() {
    let mut world = World::selling(&[("new/one", "0.00001", "0.00002")]).await;
    let purse = Purse::new(&world.mint).await;
    purse.mint_sats(400).await;
    let token = purse.send(400).await;
    assert_eq!(world.told(&["hide", "new/one"]), json!({ "hidden": ["new/one"] }));
    world.until("new/one is hidden", |models| models.iter().all(|model| model["id"] != "new/one")).await;
    let told = world.told(&["list"]);
    let listed = told["models"].as_array().unwrap().iter().find(|model| model["id"] == "new/one").unwrap();
    assert_eq!((&listed["enabled"], &listed["listed"]), (&json!(true), &json!(false)));
    let paths = world.node.get("/v1/models/paths").send().await.unwrap().text().await.unwrap();
    let window = world.node.get("/").header("accept", "text/html").send().await.unwrap().text().await.unwrap();
    assert!(!paths.contains("new/one") && !window.contains("new/one"));
    world.node.restart().await;
    let body = completion("new/one", "hello", Some(usage(100, 50)));
    world.upstream.next(Script::Answer { status: 200, media: "application/json", body });
    let mut request = ask("x");
    request["model"] = json!("new/one");
    let answer = world.node.chat(&request).bearer_auth(&token).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["x-routstr-cost-msats"].to_str().unwrap()), (200, "2000"));
    world.told(&["show", "new/one"]);
    world.offered("new/one").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_network_sells_at_the_same_prices() {
    let mut world = World::selling(&[("new/one", "0.00001", "0.00002"), ("new/two", "0.00001", "0.00002")]).await;
    world.told(&["disable", "new/two"]);
    world.noted("models.switch", |detail| *detail == json!({ "sold": false })).await;
    let before = std::mem::replace(&mut world.server, PriceServer::start().await);
    let _gone = before.stop().await;
    world.node.restart().await;
    // At once, and not only after the sources were asked.
    assert_eq!(prices(&world.find("new/one").await.unwrap()), ("0.00001".to_owned(), "0.00002".to_owned()));
    assert_eq!(world.find("new/two").await, None);
    let failed = world.coinslot(&["sync"]);
    assert_eq!(failed.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!(told["errors"], json!([{ "source": "openrouter", "error": "no connection could be made" }]));
    assert_eq!((told["new"].clone(), world.waiting()), (json!([]), vec![]));
    // What the operator lists from now on is the operator's to price, and nothing waits about it.
    let mut list = models();
    let mut own = list["models"][0].clone();
    own["id"] = json!("new/one");
    list["models"].as_array_mut().unwrap().push(own);
    std::fs::write(&world.node.settings()["MODELS_PATH"], list.to_string()).unwrap();
    world.node.restart_with("PRICE_SOURCES", &format!("openrouter={}", world.server.url(OPENROUTER))).await;
    world.server.list(OPENROUTER, &[("new/one", "0.0001", "0.0001"), ("new/two", "0.00001", "0.00002")]);
    world.told(&["sync"]);
    assert_eq!(prices(&world.find("new/one").await.unwrap()), ("0.00001".to_owned(), "0.00002".to_owned()));
    assert_eq!((world.find("new/one").await.unwrap()["price_source"].clone(), world.waiting()), (Value::Null, vec![]));
    // Without sources only the operator's own list is sold; the others' is kept.
    world.told(&["enable", "new/two"]);
    world.offered("new/two").await;
    world.node.restart_with("PRICE_SOURCES", "").await;
    assert_eq!(world.find("new/two").await, None);
    let refused = world.coinslot(&["sync"]);
    assert!(refused.status.code() == Some(1) && said(&refused).contains("PRICE_SOURCES"));
    // Where that is empty nothing is sold, at fixed prices neither.
    std::fs::write(&world.node.settings()["MODELS_PATH"], r#"{"data":[]}"#).unwrap();
    world.node.restart().await;
    let ready = world.node.get("/readyz").send().await.unwrap().text().await.unwrap();
    assert!(ready.contains("no model is priced"), "{ready}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_list_changes_nothing() {
    let world = World::selling(&[("new/one", "0.00001", "0.00002")]).await;
    let listed = world.models().await;
    let text = |entries: &str| Page::Text(format!(r#"{{"data":[{entries}]}}"#));
    let of =
        |id: &str, prompt: &str| format!(r#"{{"id":"{id}","pricing":{{"prompt":{prompt},"completion":"0.00002"}}}}"#);
    let pages = [
        (Page::Status(500, "x-a", "b".into()), "status 500"),
        (Page::Status(302, "location", world.server.url("/elsewhere")), "status 302"),
        (Page::Status(206, "x-a", "b".into()), "status 206"),
        (Page::Text(" ".repeat(17 << 20)), "longer than 16777216 bytes"),
        (Page::Endless, "longer than 16777216 bytes"),
        (Page::Cut, "the "),
        (Page::Text("<html>".into()), "not a list"),
        (Page::Text("[".repeat(200_000)), "not a list"),
        (Page::Text(format!("{{\"data\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000))), "no model"),
        (text(""), "no model"),
        (text(&vec!["{}"; 20_001].join(",")), "more than 20000"),
        // A list that can be read, and entries that are not taken.
        (text(&of("new/one", "\"NaN\"")), ""),
        (text(&of("new/one", "-0.1")), ""),
        (text(&of("new/one", "\"-1\"")), ""),
        (text(&of("new/one", "1e999")), ""),
        (text(&of("new/one", "10")), ""),
        (text(&of("new/one", "[[[[1]]]]")), ""),
        (text(&format!("{},{}", of("new/one", "0.00001"), of("new/one", "0"))), ""),
        (text(&of("new/one", "0.00001,\"prompt\":0")), ""),
        (text(&format!("{},{}", of("new/one", "0.00001"), of("free/one", "0"))), ""),
        (text(&format!("{},{}", of("new/one", "0.00001"), of(MODEL, "0.01"))), ""),
        (
            text(&format!(
                r#"{},{{"id":"evil/{MODEL}","alias_ids":["new/one","echo-1"],"enabled":false,"pricing":{{"prompt":1,"completion":1}}}}"#,
                of("new/one", "0.00001")
            )),
            "",
        ),
    ];
    for (page, error) in pages {
        let shown = format!("{page:?}");
        let shown = shown.get(..90).unwrap_or(&shown);
        world.server.put(OPENROUTER, page);
        let told: Value = serde_json::from_slice(&world.coinslot(&["sync"]).stdout).unwrap();
        let said = told["errors"][0]["error"].as_str().unwrap_or_default();
        assert!(said.contains(error) && said.is_empty() == error.is_empty(), "{shown}: {told}");
        assert_eq!((&told["new"], &told["raised"]), (&json!([]), &json!([])), "{shown}");
        world.node.running().exchange().importer.look().await.unwrap();
        let now = world.models().await;
        let ids =
            |models: &[Value]| models.iter().map(|model| (model["id"].clone(), prices(model))).collect::<Vec<_>>();
        assert_eq!(ids(&now), ids(&listed), "{shown}");
    }
    assert!(world.server.tags("/elsewhere").is_empty(), "no redirect is followed");
    assert_eq!(world.waiting(), []);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_fetched_once_within_limits_and_from_nowhere_else() {
    let (server, fetcher) = (PriceServer::start().await, Fetcher::new(&Way::default()).unwrap());
    server.put("/text", Page::Text("text".into()));
    server.put("/long", Page::Text("x".repeat(1001)));
    server.put("/endless", Page::Endless);
    server.put("/silent", Page::Silent);
    server.put("/away", Page::Status(303, "location", server.url("/text")));
    server.put("/unasked", Page::Status(304, "x-a", "b".into()));
    let within = |timeout| Limits { max_bytes: 1000, timeout };
    let limits = within(Duration::from_secs(30));
    let ask = async |path: &str, tag: Option<&str>| {
        let limits = if path == "/silent" { within(Duration::from_millis(500)) } else { limits };
        fetcher.get(&server.url(path).parse().unwrap(), tag, limits).await
    };
    let new = Fetched::New { body: "text".into(), etag: Some("\"v0\"".to_owned()) };
    assert_eq!(ask("/text", None).await.unwrap(), new);
    assert_eq!(ask("/text", Some("\"v1\"")).await.unwrap(), new);
    assert_eq!(ask("/text", Some("\"v0\"")).await.unwrap(), Fetched::Unchanged);
    for (path, error) in [
        ("/long", FetchError::Net(NetError::TooLarge(1000))),
        ("/endless", FetchError::Net(NetError::TooLarge(1000))),
        ("/silent", FetchError::Net(NetError::Timeout)),
        ("/away", FetchError::Status(303)),
        ("/nowhere", FetchError::Status(404)),
        // Nobody said what we have.
        ("/unasked", FetchError::Status(304)),
    ] {
        assert_eq!(ask(path, None).await, Err(error), "{path}");
    }
    let plain = "http://prices.example/".parse().unwrap();
    assert!(matches!(fetcher.get(&plain, None, limits).await, Err(FetchError::Net(NetError::Address(_)))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_away_waits_and_what_has_no_price_is_not_offered() {
    let server = PriceServer::start().await;
    let table = json!({
        "sample_spec": { "litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": 0.0 },
        "gpt-x": { "litellm_provider": "openai", "mode": "chat", "max_input_tokens": 9_000, "max_output_tokens": 1_000,
            "input_cost_per_token": 1e-05, "output_cost_per_token": 2e-05, "supports_audio_input": true },
        "azure/gpt-x": { "litellm_provider": "azure", "mode": "chat", "input_cost_per_token": 1e-07, "output_cost_per_token": 1e-07 },
        "gpt-free": { "litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 0, "output_cost_per_token": 0 },
        "gpt-null": { "litellm_provider": "openai", "mode": "chat", "input_cost_per_token": null, "output_cost_per_token": 1e-06 },
    });
    server.put(LITELLM, Page::Text(table.to_string()));
    let world = World::with(server, "litellm=SERVER/litellm", &[]).await;
    world.offered("openai/gpt-x").await;
    assert_eq!(world.find("openai/gpt-x").await.unwrap()["context_length"], 10_000);
    assert_eq!(world.waiting(), [pair("openai/gpt-free", "free")]);
    let purse = Purse::new(&world.mint).await;
    purse.mint_sats(400).await;
    let token = purse.send(400).await;
    let chat = async |model: &str, content: Value| {
        let request = json!({ "model": model, "max_tokens": 10, "messages": [{ "role": "user", "content": content }] });
        let answer = world.node.chat(&request).bearer_auth(&token).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    for model in ["openai/gpt-free", "openai/gpt-null", "gpt-null", "azure/gpt-x", "openai/sample_spec"] {
        assert_eq!(world.find(model).await, None, "{model}");
        let (status, body) = chat(model, json!("x")).await;
        assert_eq!((status, &body["error"]["code"]), (400, &json!("invalid_model")), "{model}: {body}");
    }
    // Audio that has no price is not sold at the price of text.
    let audio = json!([{ "type": "input_audio", "input_audio": { "data": "UklGRg==", "format": "wav" } }]);
    let (status, body) = chat("gpt-x", audio).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("modality_not_priced")), "{body}");
    assert_eq!(chat("gpt-x", json!("x")).await.0, 200);
    // What the operator means to give away costs the minimum.
    world.told(&["apply", "openai/gpt-free"]);
    world.offered("openai/gpt-free").await;
    let (status, body) = chat("gpt-free", json!("x")).await;
    assert_eq!((status, &body["usage"]["cost"]["total_msats"]), (200, &json!(1)), "{body}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sold_below_what_an_upstream_takes_unless_the_operator_says_so() {
    let server = PriceServer::start().await;
    server.list(
        OPENROUTER,
        &[("new/one", "0.00001", "0.00002"), ("new/two", "0.00003", "0.00003"), ("new/nowhere", "0.00001", "0.00001")],
    );
    // The upstream has a list of its own, dearer in part, and takes a tenth on top.
    server.list(
        "/v1/models",
        &[("new/one", "0.00002", "0.00001"), ("own/one", "0.00001", "0.00002"), (MODEL, "0.00002", "0.00002")],
    );
    let base = server.url("/v1");
    let upstreams = format!(
        r#"[{{"name":"secret-name","provider_type":"routstr","base_url":"{base}","api_key":"{UPSTREAM_KEY}","fee":1.1}}]"#
    );
    let settings = [("UPSTREAMS", upstreams.as_str()), ("UPSTREAM_BASE_URL", "")];
    let world = World::with(server, "openrouter=SERVER/openrouter,upstreams", &settings).await;
    // 0.00002 × 1.1, and 0.00002 of OpenRouter, which is more than 0.00001 × 1.1.
    world.costs("new/one", "0.000022", "0.00002").await;
    world.costs("own/one", "0.000011", "0.000022").await;
    let headers = world.server.headers("/v1/models");
    assert_eq!(headers["authorization"], format!("Bearer {UPSTREAM_KEY}").as_str());
    let shown = world.find("own/one").await.unwrap();
    assert_eq!(shown["price_source"], "upstream");
    assert!(!shown.to_string().contains("secret-name"));
    // What the upstream does not have is not taken up.
    assert_eq!((world.find("new/two").await, world.find("new/nowhere").await), (None, None));
    // The operator's own row wins, and is seen to be below cost.
    let told = world.told(&["list"]);
    let row = |id: &str| told["models"].as_array().unwrap().iter().find(|row| row["id"] == id).unwrap().clone();
    assert_eq!((&row(MODEL)["source"], &row(MODEL)["below_cost"]), (&json!("file"), &json!(true)));
    assert_eq!(
        (&row("own/one")["source"], &row("own/one")["below_cost"]),
        (&json!("upstream secret-name"), &json!(false))
    );
    assert_eq!((&row("new/one")["pricing"]["prompt"], world.waiting()), (&json!("0.000022"), vec![]));

    assert_eq!(world.coinslot(&["apply", "new/one"]).status.code(), Some(1), "nothing waits");
    world.told(&["apply", "--below-cost", "new/one"]);
    world.costs("new/one", "0.00001", "0.00002").await;
    world.told(&["sync"]);
    world.costs("new/one", "0.00001", "0.00002").await;
    world.told(&["apply", "--at-cost", "new/one"]);
    world.costs("new/one", "0.000022", "0.00002").await;
    assert_eq!(world.coinslot(&["apply", "--at-cost", "new/one"]).status.code(), Some(1), "it is already");

    // Where the upstream becomes cheaper, nobody sells cheaper without having been asked; where it becomes
    // dearer, at once.
    let dear = (MODEL, "0.00002", "0.00002");
    let own = ("own/one", "0.00001", "0.00002");
    world.server.list("/v1/models", &[("new/one", "0.000001", "0.00003"), own, dear]);
    world.told(&["sync"]);
    world.costs("new/one", "0.000022", "0.000033").await;
    assert_eq!(world.waiting(), [pair("new/one", "lower")]);

    // The operator's browser names the change that it shows, which is one at cost.
    let browser = Browser::log_in(&world.node).await;
    let decide = async |id: &str, verdict: &str| {
        let page = browser.page().await;
        let digest = if page.contains("name=\"digest\"") { field(&page, "digest") } else { String::new() };
        let form = [("csrf", csrf(&page)), ("id", id.to_owned()), ("digest", digest), ("verdict", verdict.to_owned())];
        let form = form.each_ref().map(|(name, text)| (*name, text.as_str()));
        browser.post("/admin/models/decide", &form).await.status().as_u16()
    };
    // What is below cost by the operator's own list needs no permission, so there is none to take back.
    let button = |id: &str| format!("aria-label=\"Sell {id} at cost\"");
    let page = browser.page().await;
    assert!(page.contains("below cost") && !page.contains(&button(MODEL)) && !page.contains(&button("new/one")));
    assert_eq!(decide("new/one", "apply_below_cost").await, 303);
    world.costs("new/one", "0.00001", "0.00002").await;
    // It goes on being allowed, whether it is below cost at the moment or not.
    world.server.list("/v1/models", &[("new/one", "0.000001", "0.000001"), own, dear]);
    world.told(&["sync"]);
    let page = browser.page().await;
    assert!(page.contains("below cost allowed") && page.contains(&button("new/one")), "{page}");
    assert_eq!(decide("new/one", "at_cost").await, 303);
    let page = browser.page().await;
    assert!(!page.contains("below cost allowed") && !page.contains(&button("new/one")), "{page}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_in_the_program_gives_way_to_dearer_prices_and_asks_before_cheaper_ones() {
    let server = PriceServer::start().await;
    server.list(
        OPENROUTER,
        &[
            ("openai/gpt-4o-mini", "0.001", "0.001"),
            ("openai/gpt-4o", "0.0000001", "0.001"),
            ("new/one", "0.001", "0.001"),
        ],
    );
    let world = World::with(server, "openrouter=SERVER/openrouter", &[("MODELS_PATH", "")]).await;
    let before = world.find("anthropic/claude-haiku-4.5").await.unwrap();
    world.costs("openai/gpt-4o-mini", "0.001", "0.001").await;
    world.costs("openai/gpt-4o", "0.0000025", "0.001").await;
    assert_eq!(world.find("anthropic/claude-haiku-4.5").await.unwrap(), before);
    assert!(world.waiting().contains(&pair("openai/gpt-4o", "lower")));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_lists_without_a_price_is_offered_only_at_a_price_of_the_operators() {
    let server = PriceServer::start().await;
    let odd = json!({ "id": "odd", "pricing": { "prompt": "-1", "completion": "-1" } });
    let list = json!({ "object": "list", "data": [{ "id": "named", "object": "model" }, { "id": "priced" }, odd] });
    server.put("/v1/models", Page::Text(list.to_string()));
    server.list(OPENROUTER, &[("priced", "0.00003", "0.00003")]);
    let upstreams =
        |more: &str| format!(r#"[{{"name":"u","provider_type":"vllm","base_url":"{}"{more}}}]"#, server.url("/v1"));
    let (without, with) =
        (upstreams(""), upstreams(r#","default_price":{"prompt":"0.000001","completion":"0.000002"}"#));
    let settings = [("UPSTREAMS", without.as_str()), ("UPSTREAM_BASE_URL", "")];
    let mut world = World::with(server, "openrouter=SERVER/openrouter,upstreams", &settings).await;
    world.costs("priced", "0.00003", "0.00003").await;
    assert_eq!((world.find("named").await, world.find("odd").await), (None, None));
    world.node.restart_with("UPSTREAMS", &with).await;
    world.told(&["sync"]);
    world.costs("named", "0.000001", "0.000002").await;
    world.costs("priced", "0.00003", "0.00003").await;
    // A price that is none is not replaced.
    assert_eq!(world.find("odd").await, None);
    let told = world.told(&["list"]);
    let named = told["models"].as_array().unwrap().iter().find(|row| row["id"] == "named").unwrap();
    assert_eq!(named["source"], "upstream u by default");
    // Taking the default back takes the price away, which waits as always.
    world.node.restart_with("UPSTREAMS", &without).await;
    world.told(&["sync"]);
    assert_eq!(world.waiting(), [pair("named", "gone")]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_at_the_same_time_are_all_kept() {
    let ids: Vec<String> = (0..8).map(|at| format!("new/{at}")).collect();
    let listed: Vec<_> = ids.iter().map(|id| (id.as_str(), "0.00001", "0.00002")).collect();
    let world = World::selling(&listed).await;
    let importer = &world.node.running().exchange().importer;
    let switched = futures_util::future::join_all(ids.iter().map(|id| importer.switch(id, Switch::Sold(false)))).await;
    assert!(switched.iter().all(Result::is_ok), "{switched:?}");
    world.until("all are off", |models| models.iter().all(|model| !ids.iter().any(|id| model["id"] == *id))).await;
    world.finish().await;
}

/// What the operator's browser sees, and what it sends.
pub struct Browser<'a> {
    node: &'a TestNode,
    cookie: String,
}

impl<'a> Browser<'a> {
    pub async fn log_in(node: &'a TestNode) -> Self {
        Self::with_password(node, "an admin password").await
    }

    pub async fn with_password(node: &'a TestNode, password: &str) -> Self {
        let page = node.get("/admin/login").send().await.unwrap();
        let cookie = |response: &reqwest::Response| {
            let line = response.headers()["set-cookie"].to_str().unwrap().to_owned();
            line.split(';').next().unwrap().to_owned()
        };
        let login = cookie(&page);
        let csrf = csrf(&page.text().await.unwrap());
        let mut browser = Self { node, cookie: login };
        let answer = browser.post("/admin/login", &[("csrf", &csrf), ("password", password)]).await;
        let lines: Vec<_> = answer.headers().get_all("set-cookie").iter().map(|line| line.to_str().unwrap()).collect();
        let session = lines.iter().find(|line| line.starts_with("coinslot_session=")).unwrap();
        browser.cookie = session.split(';').next().unwrap().to_owned();
        browser
    }

    async fn page(&self) -> String {
        self.page_at("/admin/models").await
    }

    pub async fn page_at(&self, path: &str) -> String {
        let answer = self.node.get(path).header("cookie", &self.cookie).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.text().await.unwrap()
    }

    /// As the browser sends it.
    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    /// The answer, whatever it is.
    pub async fn open(&self, path: &str) -> reqwest::Response {
        self.node.get(path).header("cookie", &self.cookie).send().await.unwrap()
    }

    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> reqwest::Response {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let request = self.node.post(path).header("cookie", &self.cookie).header("origin", self.node.url());
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(body.finish());
        request.send().await.unwrap()
    }
}

pub fn csrf(page: &str) -> String {
    field(page, "csrf")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_where_prices_come_from_and_decides() {
    let world =
        World::selling(&[("new/<one>", "0.00001", "0.00002"), ("anthropic/claude-x", "0.00001", "0.00002")]).await;
    assert_eq!(world.node.get("/admin/models").send().await.unwrap().status(), 303, "only for the operator");
    let browser = Browser::log_in(&world.node).await;
    let page = browser.page().await;
    for text in ["new/&#60;one&#62;", "openrouter", "cache price derived", MODEL, "file", "Nothing."] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let claude = world.find("anthropic/claude-x").await.unwrap();
    assert_eq!(claude["pricing"]["input_cache_read"], json!(0.000_001));
    assert_eq!(claude["derived_prices"].as_array().unwrap().len(), 3);

    world
        .server
        .list(OPENROUTER, &[("new/<one>", "0.000005", "0.00002"), ("anthropic/claude-x", "0.00001", "0.00002")]);
    let csrf = csrf(&page);
    assert_eq!(browser.post("/admin/models/sync", &[("csrf", "made up")]).await.status(), 403);
    assert_eq!(browser.post("/admin/models/sync", &[("csrf", &csrf)]).await.status(), 303);
    let page = browser.page().await;
    assert!(page.contains("prompt: 10 → 5"), "{page}");
    let digest = field(&page, "digest");
    let decide = async |digest: &str, verdict: &str, csrf: &str| {
        let form = [("csrf", csrf), ("id", "new/<one>"), ("digest", digest), ("verdict", verdict)];
        browser.post("/admin/models/decide", &form).await.status().as_u16()
    };
    assert_eq!(decide(&digest, "apply", "made up").await, 403);
    // Somebody decides about what is not what was seen.
    world
        .server
        .list(OPENROUTER, &[("new/<one>", "0.000001", "0.00002"), ("anthropic/claude-x", "0.00001", "0.00002")]);
    world.told(&["sync"]);
    assert_eq!(decide(&digest, "apply", &csrf).await, 409);
    world.costs("new/<one>", "0.00001", "0.00002").await;
    let digest = field(&browser.page().await, "digest");
    assert_eq!(decide(&digest, "refuse", &csrf).await, 303);
    assert!(browser.page().await.contains("1 were refused"));
    assert_eq!(decide(&digest, "apply", &csrf).await, 303);
    world.costs("new/<one>", "0.000001", "0.00002").await;
    assert_eq!(decide(&digest, "apply", &csrf).await, 409, "nothing waits any more");

    // Off and on again, also a model of the operator's own list.
    for id in [MODEL, "new/<one>"] {
        for (on, status) in [("no", 404), ("yes", 200)] {
            let switched = browser.post("/admin/models/switch", &[("csrf", &csrf), ("id", id), ("on", on)]).await;
            assert_eq!(switched.status(), 303);
            world.until("the switch", |models| models.iter().any(|model| model["id"] == id) == (on == "yes")).await;
            let found = world.node.get(&format!("/v1/models/{}", id.replace('<', "%3C").replace('>', "%3E")));
            assert_eq!(found.send().await.unwrap().status(), status, "{id} {on}");
        }
    }
    let nothing = browser.post("/admin/models/switch", &[("csrf", &csrf), ("id", "no/such"), ("on", "no")]).await;
    assert_eq!(nothing.status(), 404);
    let foreign =
        world.node.post("/admin/models/sync").header("cookie", &browser.cookie).header("origin", "http://evil");
    assert_eq!(foreign.body("csrf=x").send().await.unwrap().status(), 403);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_is_for_people_too() {
    let world = World::selling(&[("new/one", "0.00001", "0.00002")]).await;
    world.server.list(OPENROUTER, &[("new/one", "0.0000025", "0.00002")]);
    let run = |words: &[&str]| coinslot(world.node.settings(), &[&["models"][..], words].concat());
    let sync = said(&run(&["sync"]));
    assert!(sync.contains("0 new, 0 raised, 1 waiting"), "{sync}");
    let diff = said(&run(&["diff"]));
    assert_eq!(diff, "new/one (lower, openrouter)\n  prompt 10 -> 2.5\n");
    let list = said(&run(&["list"]));
    assert!(list.lines().any(|line| line.starts_with("new/one") && line.contains("openrouter")), "{list}");
    assert_eq!(run(&["apply"]).status.code(), Some(2));
    let unknown = run(&["disable", "no/such"]);
    assert!(unknown.status.code() == Some(1) && said(&unknown).contains("no model is called that"));
    assert!(said(&run(&["apply", "--all"])).starts_with("applied: 1\nnew/one"));
    assert_eq!(said(&run(&["diff"])), "nothing waits\n");
    world.finish().await;
}
