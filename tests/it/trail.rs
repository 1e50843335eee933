//! The trail of what operators change, and the verbs that leave one.

use serde_json::{Value, json};

use crate::bearer::world;
use crate::price_sync::{Browser, csrf};
use crate::support::node::{MODEL, ask};
use crate::support::program::{Program, told};

fn acts(page: &Value) -> Vec<(String, String, String)> {
    let text = |act: &Value, name: &str| act[name].as_str().unwrap().to_owned();
    let acts = page["acts"].as_array().unwrap();
    acts.iter().map(|act| (text(act, "actor"), text(act, "action"), text(act, "subject"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_changes_something_leaves_a_trail() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    let token = purse.send(100).await;
    node.chat(&ask("earn")).bearer_auth(&token).send().await.unwrap().bytes().await.unwrap();
    node.settled().await;

    assert_eq!(node.get("/admin/trail").send().await.unwrap().status(), 303, "only for the operator");
    let browser = Browser::log_in(&node).await;
    let form = csrf(&browser.page_at("/admin/models").await);
    let off = [("csrf", &*form), ("id", MODEL), ("on", "no")];
    assert_eq!(browser.post("/admin/models/switch", &off).await.status(), 303);
    assert_eq!(browser.post("/admin/models/switch", &[("csrf", "x"), off[1], off[2]]).await.status(), 403);

    let manager = Program::with(&node, "read manage").await;
    let (status, _) = manager.post("/admin/api/models/switch", &json!({ "id": MODEL, "sold": true })).await;
    assert_eq!(status, 204);
    assert!(manager.get("/admin/api/models").await["models"].to_string().contains(MODEL));
    // A code is money.
    let batch = json!({ "batch": "<b>one", "sats": 1, "note": "<i>fair", "days": 2 });
    let (status, refusal) = manager.post("/admin/api/vouchers", &batch).await;
    assert_eq!((status, &refusal["code"]), (403, &json!("forbidden")), "{refusal}");
    let rich = Program::with(&node, "money").await;
    let (status, given) = rich.post("/admin/api/vouchers", &batch).await;
    assert_eq!(status, 200, "{given}");
    let code = given["vouchers"][0]["code"].as_str().unwrap().to_owned();
    assert_eq!(rich.post("/admin/api/vouchers", &batch).await.0, 409, "a batch is issued once");
    assert_eq!(rich.post("/admin/api/vouchers", &json!({ "sats": 10_000 })).await.0, 400);
    assert_eq!(rich.call(reqwest::Method::GET, "/admin/api/vouchers", &json!({})).await.0, 403);
    let listed = manager.get("/admin/api/vouchers").await;
    assert_eq!((&listed["promised_msat"], &listed["vouchers"][0]["state"]), (&json!(1000), &json!("open")));
    assert!(!listed.to_string().contains(&code));
    let id = listed["vouchers"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(manager.post("/admin/api/vouchers/revoke", &json!({ "id": id })).await.0, 204);
    assert_eq!(manager.post("/admin/api/vouchers/revoke", &json!({ "id": id })).await.0, 409);
    assert_eq!(manager.post("/admin/api/vouchers/revoke", &json!({ "id": "x" })).await.0, 404);

    let settings = node.settings();
    told(settings, &["maintenance", "on"]);
    told(settings, &["maintenance", "off"]);
    told(settings, &["profiles", "set", "club", "--multiplier", "1.5"]);
    let night =
        ["windows", "set", "night", "--multiplier", "1.1", "--from", "22:00", "--to", "06:00", "--models", "a/*"];
    told(settings, &night);
    told(settings, &["windows", "remove", "night"]);

    let all = manager.get("/admin/api/trail").await;
    let (cli, browser_is, program) = ("cli", "password", "token for read manage");
    let expected = [
        (cli, "windows.remove", "night"),
        (cli, "windows.set", "night"),
        (cli, "profiles.set", "club"),
        (cli, "maintenance.turn", ""),
        (cli, "maintenance.turn", ""),
        (program, "vouchers.revoke", &id),
        (program, "vouchers.revoke", &id),
        ("token for money", "vouchers.issue", &listed_batch(&all)),
        ("token for money", "vouchers.issue", "<b>one"),
        ("token for money", "vouchers.issue", "<b>one"),
        (program, "models.switch", MODEL),
        (browser_is, "models.switch", MODEL),
    ];
    let expected: Vec<_> = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())).to_vec();
    assert_eq!(acts(&all), expected);
    assert!(!all.to_string().contains(&code), "no code is in the trail");
    // By a command as by a page: all that the call takes.
    assert_eq!(
        all["acts"][1]["detail"],
        json!({
            "name": "night", "multiplier": "1.1", "from": "22:00", "to": "06:00", "offset": "+00:00",
            "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "models": ["a/*"], "not": [],
            "below_cost": false,
        })
    );
    assert_eq!(
        all["acts"][2]["detail"],
        json!({ "name": "club", "multiplier": "1.5", "models": [], "not": [], "below_cost": false })
    );

    // Page by page, and only what is looked for.
    let first = manager.get("/admin/api/trail?limit=2&actor=cli").await;
    let next = first["next"].as_str().unwrap();
    let second = manager.get(&format!("/admin/api/trail?limit=9&actor=cli&after={next}")).await;
    assert_eq!([acts(&first), acts(&second)].concat(), expected[..5]);
    assert_eq!(second["next"], Value::Null);
    assert_eq!(acts(&manager.get("/admin/api/trail?action=models.switch&actor=password").await).len(), 1);
    let page = browser.page_at("/admin/trail?action=vouchers.issue").await;
    assert!(page.contains("&#60;b&#62;one") && page.contains("fair") && !page.contains("<b>one"), "{page}");
    assert!(!page.contains("models.switch</td>"), "{page}");
    assert!(told(settings, &["trail", "--action", "profiles.set"]).contains("club"));
    assert_eq!(told(settings, &["trail", "--actor", "nope"]), "There is none like that.\n");

    let reader = Program::with(&node, "manage").await;
    assert_eq!(reader.call(reqwest::Method::GET, "/admin/api/trail", &json!({})).await.0, 403);
    node.finish().await;
}

/// The batch that was named by chance.
fn listed_batch(all: &Value) -> String {
    all["acts"][7]["subject"].as_str().unwrap().to_owned()
}
