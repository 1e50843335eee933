//! What the operator can read of any past request.

use serde_json::Value;

use crate::bearer::world;
use crate::price_sync::Browser;
use crate::support::node::{MODEL, ask};

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_by_which_numbers_any_request_was_charged() {
    let (_mint, purse, _upstream, node) = world(1000).await;
    let token = purse.send(200).await;
    let mut request = ask("a secret question");
    request["user"] = "<b>".into();
    let answer = node.chat(&request).bearer_auth(&token).send().await.unwrap();
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    answer.bytes().await.unwrap();
    let receipt = node.get(&format!("/v1/receipts/{id}")).bearer_auth(&token).send().await.unwrap();
    let receipt: Value = receipt.json().await.unwrap();
    let receipt = &receipt["receipt"];
    let sheet = node.get(&format!("/v1/prices/{}", receipt["price_id"].as_str().unwrap())).send().await.unwrap();
    let sheet: Value = sheet.json().await.unwrap();
    // What upstreams took is written a moment later.
    node.running().exchange().pool.flush(node.running().exchange().ledger.store()).await.unwrap();

    assert_eq!(
        node.get(&format!("/admin/requests?id={id}")).send().await.unwrap().status(),
        303,
        "only for the operator"
    );
    let browser = Browser::log_in(&node).await;
    let list = browser.page_at("/admin/requests").await;
    assert!(list.contains(&format!("href=\"/admin/requests?id={id}\"")) && list.contains(MODEL), "{list}");
    let page = browser.page_at(&format!("/admin/requests?id={id}")).await;
    let fact = |name: &str, said: &str| {
        let line = format!("<dt>{name}</dt><dd class=\"wide\">{said}</dd>");
        assert!(page.contains(&line), "{line}: {page}");
    };
    fact("Hold", "captured");
    fact("Charged", &format!("{} msat", receipt["charged_msat"]));
    fact("Held", &format!("{} msat", receipt["held_msat"]));
    fact("usage.input", &receipt["usage"]["input"].to_string());
    fact("price_id", receipt["price_id"].as_str().unwrap());
    fact("pricing.prompt", sheet["pricing"]["prompt"].as_str().unwrap());
    fact("multiplier", "1");
    fact("btc_usd", receipt["btc_usd"].as_str().unwrap());
    fact("attempts.0.outcome", "answered");
    assert!(!page.contains("secret question") && !page.contains(&token));

    for unknown in ["no-id", "%3Cb%3E", "01900000-0000-7000-8000-000000000000"] {
        let page = browser.page_at(&format!("/admin/requests?id={unknown}")).await;
        assert!(page.contains("No money was ever set aside") && !page.contains("<b>"), "{unknown}: {page}");
    }
    node.finish().await;
}
