//! Profiles and windows on the page and by the API.

use serde_json::{Value, json};

use crate::bearer::world;
use crate::price_sync::{Browser, csrf};
use crate::support::node::ask;
use crate::support::program::Program;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_gets_a_profile_and_hours_get_a_price() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    let token = purse.send(300).await;
    let cost = async || {
        let answer = node.chat(&ask("price")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let cost = answer.headers()["x-routstr-cost-msats"].to_str().unwrap().to_owned();
        answer.bytes().await.unwrap();
        cost
    };
    assert_eq!(cost().await, "2000");
    let key_hash = {
        let store = node.running().exchange().ledger.store();
        let row =
            sqlx::query("SELECT key_hash FROM accounts WHERE kind = 'key'").fetch_one(store.read()).await.unwrap();
        sqlx::Row::get::<String, _>(&row, 0)
    };

    assert_eq!(node.get("/admin/profiles").send().await.unwrap().status(), 303);
    let browser = Browser::log_in(&node).await;
    let form = csrf(&browser.page_at("/admin/profiles").await);
    let club = [("csrf", &*form), ("name", "club"), ("multiplier", "1.5"), ("models", "toy/*, <b>")];
    assert_eq!(browser.post("/admin/profiles/set", &[("csrf", "x"), club[1], club[2]]).await.status(), 403);
    assert_eq!(browser.post("/admin/profiles/set", &club).await.status(), 303);
    let page = browser.page_at("/admin/profiles").await;
    assert!(page.contains("toy/*, &#60;b&#62;") && !page.contains("<b>,"), "{page}");
    // Below cost only if it is said.
    let cheap = [("csrf", &*form), ("name", "cheap"), ("multiplier", "0.5")];
    let refused = browser.post("/admin/profiles/set", &cheap).await;
    assert!(refused.status() == 409 && refused.text().await.unwrap().contains("below cost"));
    assert_eq!(
        browser.post("/admin/profiles/set", &[&cheap[..], &[("below_cost", "yes")]].concat()).await.status(),
        303
    );
    let give = [("csrf", &*form), ("profile", "club"), ("key", &key_hash[..8])];
    assert_eq!(browser.post("/admin/profiles/attach", &give).await.status(), 303);
    assert_eq!(cost().await, "3000");

    let manager = Program::with(&node, "read manage").await;
    let listed = manager.get("/admin/api/profiles").await;
    assert_eq!(
        (&listed["profiles"][1]["name"], &listed["profiles"][1]["keys"]),
        (&json!("club"), &json!(1)),
        "{listed}"
    );
    let in_use = manager.post("/admin/api/profiles/remove", &json!({ "name": "club" })).await;
    assert_eq!(in_use.0, 409, "{}", in_use.1);
    for (key, status) in [("abc", 400), ("00000000000", 404), ("zzzzzzzz", 400)] {
        let call = json!({ "profile": "club", "key": key });
        assert_eq!(manager.post("/admin/api/profiles/attach", &call).await.0, status, "{key}");
    }
    assert_eq!(manager.post("/admin/api/profiles/attach", &json!({ "profile": "no", "key": key_hash })).await.0, 404);
    assert_eq!(manager.post("/admin/api/profiles/attach", &json!({ "profile": "club" })).await.0, 400);
    assert_eq!(manager.post("/admin/api/profiles/attach", &json!({ "key": key_hash })).await.0, 204);
    assert_eq!(cost().await, "2000");
    assert_eq!(manager.post("/admin/api/profiles/remove", &json!({ "name": "club" })).await.0, 204);
    assert_eq!(manager.post("/admin/api/profiles/remove", &json!({ "name": "club" })).await.0, 404);

    // A voucher's key has the profile of the voucher.
    let rich = Program::with(&node, "money").await;
    let (_, given) = rich.post("/admin/api/vouchers", &json!({ "sats": 2 })).await;
    let id = manager.get("/admin/api/vouchers").await["vouchers"][0]["id"].as_str().unwrap().to_owned();
    let call = json!({ "profile": "cheap", "voucher": id });
    assert_eq!(manager.post("/admin/api/profiles/attach", &call).await.0, 204);
    let code = given["vouchers"][0]["code"].as_str().unwrap();
    let redeemed = node.post("/v1/wallet/voucher").json(&json!({ "code": code })).send().await.unwrap();
    let redeemed: Value = redeemed.json().await.unwrap();
    let key = redeemed["api_key"].as_str().unwrap();
    let models: Value = node.get("/v1/models").bearer_auth(key).send().await.unwrap().json().await.unwrap();
    assert_eq!(models["price_profile"]["name"], "cheap", "{}", models["price_profile"]);

    let window = json!({ "name": "always", "multiplier": "2", "from": "00:00", "to": "00:00" });
    assert_eq!(manager.post("/admin/api/windows/set", &window).await.0, 204);
    assert_eq!(cost().await, "4000");
    assert_eq!(manager.get("/admin/api/profiles").await["windows"][0]["is_open"], true);
    assert_eq!(
        manager
            .post("/admin/api/windows/set", &json!({ "name": "x", "multiplier": "1", "from": "1", "to": "2" }))
            .await
            .0,
        400
    );
    let drop = [("csrf", &*form), ("name", "always")];
    assert_eq!(browser.post("/admin/windows/remove", &drop).await.status(), 303);
    assert_eq!(browser.post("/admin/windows/remove", &drop).await.status(), 404);
    assert_eq!(cost().await, "2000");
    let reader = Program::with(&node, "read").await;
    assert_eq!(reader.post("/admin/api/windows/set", &window).await.0, 403);
    let acts = manager.get("/admin/api/trail?limit=500").await.to_string();
    for act in
        ["profiles.set", "profiles.attach", "profiles.detach", "profiles.remove", "windows.set", "windows.remove"]
    {
        assert!(acts.contains(act), "{act}");
    }
    assert!(!acts.contains(&token) && !acts.contains(key));
    node.finish().await;
}
