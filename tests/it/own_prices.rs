//! Prices and names that the operator gives a model over those of its source.

use serde_json::{Value, json};

use crate::lightning::ok;
use crate::price_sync::{Browser, OPENROUTER, World, csrf, field};
use crate::support::node::MODEL;
use crate::support::program::{Program, said};
use crate::support::purse::Purse;

#[tokio::test(flavor = "multi_thread")]
async fn a_price_of_the_operators_counts_whatever_the_source_says() {
    let world = World::selling(&[("new/one", "0.00001", "0.00002")]).await;
    let purse = Purse::new(&world.mint).await;
    purse.mint_sats(500).await;
    let token = purse.send(500).await;
    let charge = async |name: &str| {
        let request = json!({ "model": name, "messages": [{ "role": "user", "content": "x" }] });
        let answer = ok(world.node.chat(&request).bearer_auth(&token)).await;
        assert_eq!(answer["model"], name);
        answer["usage"]["cost"]["total_msats"].clone()
    };
    // 100 × 10 + 50 × 20 msat
    assert_eq!(charge("new/one").await, 2_000);

    let told = world.told(&["price", "new/one", "completion=40"]);
    assert_eq!(told["own_prices"], json!({ "completion": "0.00004" }));
    assert_eq!(told["pricing"]["prompt"], "0.00001");
    world.costs("new/one", "0.00001", "0.00004").await;
    assert_eq!(world.find("new/one").await.unwrap()["price_source"], "operator");
    assert_eq!(charge("new/one").await, 3_000);

    // The source goes its way; what the operator said nothing of follows it.
    world.server.list(OPENROUTER, &[("new/one", "0.00003", "0.00005")]);
    assert_eq!(world.told(&["sync"])["raised"][0]["id"], "new/one");
    world.costs("new/one", "0.00003", "0.00004").await;
    assert_eq!(charge("new/one").await, 5_000);

    // Taken back, it is the source's again.
    world.told(&["price", "new/one", "completion="]);
    world.costs("new/one", "0.00003", "0.00005").await;
    assert_eq!(world.find("new/one").await.unwrap()["price_source"], "openrouter");

    for (words, why) in [
        (["price", "new/one", "promt=1"], "promt is no price that is charged here"),
        (["price", "new/one", "prompt=2000000000"], "absurd"),
        (["price", "no/such", "prompt=1"], "no model is called that"),
        (["names", "new/one", MODEL], "another model is called"),
        // Its name without the vendor.
        (["names", "new/one", "echo-1"], "another model is called echo-1"),
    ] {
        let output = world.coinslot(&words);
        assert!(output.status.code() == Some(1) && said(&output).contains(why), "{words:?}: {}", said(&output));
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_has_the_names_that_the_operator_gives_it() {
    let world = World::selling(&[("new/one", "0.00001", "0.00002"), ("new/two", "0.00003", "0.00004")]).await;
    let manager = Program::with(&world.node, "read manage").await;
    let own = async |call: Value| manager.post("/admin/api/models/own", &call).await;
    let (status, _) = own(json!({ "id": "new/one", "names": ["thrifty", "thrifty", "one"] })).await;
    assert_eq!(status, 204);
    let names = json!(["thrifty", "one"]);
    world.until("its names are listed", |models| models.iter().any(|model| model["alias_ids"] == names)).await;
    let (status, refusal) = own(json!({ "id": "new/two", "names": ["thrifty"] })).await;
    assert_eq!((status, &refusal["code"]), (400, &json!("invalid_request")), "{refusal}");
    assert!(refusal.to_string().contains("another model is called thrifty"), "{refusal}");
    for call in [
        json!({ "id": "new/one", "prices": { "prompt": "much" } }),
        json!({ "id": "new/one", "prices": { "prompt": "-1" } }),
        json!({ "id": "new/one", "prices": { "tokens": "0" } }),
        json!({ "id": "new/one", "names": ["two words"] }),
    ] {
        assert_eq!(own(call.clone()).await.0, 400, "{call}");
    }
    assert_eq!(own(json!({ "id": "no/such", "names": [] })).await.0, 404);
    let reader = Program::with(&world.node, "read").await;
    assert_eq!(reader.post("/admin/api/models/own", &json!({ "id": "new/one" })).await.0, 403);

    // It is paid for as the model that it is, and the answer calls it as it was asked for.
    let purse = Purse::new(&world.mint).await;
    purse.mint_sats(100).await;
    let request = json!({ "model": "thrifty", "messages": [{ "role": "user", "content": "x" }] });
    let answer = ok(world.node.chat(&request).bearer_auth(purse.send(100).await)).await;
    assert_eq!((&answer["model"], &answer["usage"]["cost"]["total_msats"]), (&json!("thrifty"), &json!(2_000)));

    // With no other word of it, the prices stay what they are.
    assert_eq!(own(json!({ "id": "new/one", "prices": { "prompt": "0.00002", "audio": "0.0001" } })).await.0, 204);
    let models = manager.get("/admin/api/models").await;
    let one = models["models"].as_array().unwrap().iter().find(|model| model["id"] == "new/one").unwrap();
    assert_eq!(one["own_prices"], json!({ "audio": "0.0001", "prompt": "0.00002" }));
    assert_eq!(one["own_names"], json!(["thrifty", "one"]));
    let trail = manager.get("/admin/api/trail?action=models.own").await;
    assert_eq!(trail["acts"].as_array().unwrap().len(), 2, "{trail}");
    assert!(trail["acts"][0].to_string().contains("0.0001"), "{trail}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_model_shows_whose_price_is_whose() {
    let world = World::selling(&[("new/<one>", "0.00001", "0.00002")]).await;
    let browser = Browser::log_in(&world.node).await;
    let list = browser.page_at("/admin/models").await;
    let path = "/admin/models/one?id=new%2F%3Cone%3E";
    assert!(list.contains(&path.replace('&', "&#38;")), "{list}");
    let page = browser.page_at(path).await;
    for text in ["new/&#60;one&#62;", "source of its prices: openrouter", "name=\"price:completion\" value=\"\""] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let (form, seen) = (csrf(&page), field(&page, "seen"));
    let fill = [
        ("csrf", form.as_str()),
        ("id", "new/<one>"),
        ("seen", seen.as_str()),
        ("price:prompt", ""),
        ("price:completion", " 25 "),
        ("added", "request"),
        ("added_price", "0.001"),
        ("names", "thrifty\r\n one-more "),
    ];
    let saved = browser.post("/admin/models/one", &fill).await;
    assert_eq!(saved.status(), 303);
    assert_eq!(saved.headers()["location"], path);
    world.costs("new/<one>", "0.00001", "0.000025").await;
    let page = browser.page_at(path).await;
    for text in
        ["name=\"price:completion\" value=\"25\"", "name=\"price:request\" value=\"0.001\"", "thrifty\none-more"]
    {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(browser.page_at("/admin/models").await.contains("your prices"));

    let seen = field(&page, "seen");
    let with = |field: &'static str, text: &'static str| {
        let mut fields = fill.to_vec();
        fields.retain(|(name, _)| *name != field && *name != "seen");
        fields.extend([("seen", seen.as_str()), (field, text)]);
        fields
    };
    for (fields, status, why) in [
        (with("price:completion", "much"), 400, "The completion price is no number."),
        (with("added_price", ""), 400, "A price that is added has a name and a number."),
        (with("added", "nothing"), 400, "nothing is no price that is charged here"),
        (with("names", MODEL), 400, "another model is called"),
        (with("id", "no/such"), 404, "There is no such model."),
        (with("csrf", "made up"), 403, "out of date"),
    ] {
        let answer = browser.post("/admin/models/one", &fields).await;
        assert_eq!(answer.status(), status, "{why}");
        assert!(answer.text().await.unwrap().contains(why), "{why}");
    }
    // A page that was opened before somebody else changed something takes nothing of it back.
    let manager = Program::with(&world.node, "read manage").await;
    let call = json!({ "id": "new/<one>", "prices": { "audio": "0.0001" } });
    assert_eq!(manager.post("/admin/api/models/own", &call).await.0, 204);
    let old = browser.post("/admin/models/one", &with("price:completion", "")).await;
    assert_eq!(old.status(), 409);
    let page = old.text().await.unwrap();
    assert!(page.contains("somebody has changed it meanwhile; look again"), "{page}");
    for text in ["name=\"price:completion\" value=\"25\"", "name=\"price:audio\" value=\"100\""] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let mut fields = with("price:completion", "");
    fields.retain(|(name, _)| *name != "seen");
    assert_eq!(browser.post("/admin/models/one", &fields).await.status(), 409, "a page of before these digests");
    let seen = field(&page, "seen");
    fields.push(("seen", seen.as_str()));
    assert_eq!(browser.post("/admin/models/one", &fields).await.status(), 303);
    world.costs("new/<one>", "0.00001", "0.00002").await;
    world.finish().await;
}
