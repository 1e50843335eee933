//! Ways into Tor, without a Tor network: where what is in Tor is looked for, under which name, and that nothing
//! else happens. The proxy here leads every name to its port on loopback, so an address in Tor is one of a
//! server of this test.

use coinslot::clock::SystemClock;

use crate::support::answers::{read, until};
use crate::support::mint::TestMint;
use crate::support::node::{TestNode, ask, ask_streaming};
use crate::support::prices::PriceServer;
use crate::support::proxy::Proxy;
use crate::support::purse::Purse;
use crate::support::relay::RealRelay;
use crate::support::tokens;
use crate::support::upstream::Upstream;

/// The same server under a name in Tor.
pub fn in_tor(url: &str, name: &str) -> String {
    url.replacen("127.0.0.1", &format!("{name}.onion"), 1)
}

/// A token of this mint that names it as it is called in Tor.
pub async fn token_in_tor(purse: &Purse, mint: &TestMint, mint_url: &str, amount: u64) -> String {
    let token = purse.send_token(amount).await;
    tokens::token(mint_url, tokens::proofs(mint, &token), cdk::nuts::CurrencyUnit::Sat)
}

#[tokio::test(flavor = "multi_thread")]
async fn mint_upstream_relay_and_prices_in_tor_are_reached_through_the_daemon() {
    let (mint, upstream, relay) = (TestMint::start().await, Upstream::start().await, RealRelay::start().await);
    let (prices, socks) = (PriceServer::start().await, Proxy::socks5().await);
    prices.list("/list", &[("toy/listed", "0.00001", "0.00002")]);
    let mint_url = in_tor(&mint.url(), "mint");
    let settings = [
        ("CASHU_MINTS", mint_url.clone()),
        ("UPSTREAM_BASE_URL", in_tor(&upstream.url(), "upstream")),
        ("RELAYS", in_tor(&relay.url(), "relay")),
        ("PRICE_SOURCES", format!("openrouter={}", in_tor(&prices.url("/list"), "prices"))),
        ("ONION_URL", "http://self.onion".to_owned()),
        ("TOR_PROXY_URL", format!("socks5://{}", socks.address)),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value)).into();
    let node = TestNode::with_settings(settings, std::sync::Arc::new(SystemClock)).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(1_000).await;

    let token = token_in_tor(&purse, &mint, &mint_url, 500).await;
    let answer = node.chat(&ask_streaming("hello")).header("x-cashu", token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().contains("[DONE]"));
    until("the relay has the listing", async || {
        let listed = relay.find(serde_json::json!({ "kinds": [38421] })).await;
        listed.iter().any(|event| event["tags"].to_string().contains("http://self.onion"))
    })
    .await;
    until("the list was asked for", async || !prices.tags("/list").is_empty()).await;

    let heard = socks.heard();
    for wanted in [
        "mints name mint.onion",
        "upstreams name upstream.onion",
        "relays name relay.onion",
        "prices name prices.onion",
    ] {
        assert!(heard.iter().any(|one| one.starts_with(wanted)), "{wanted}: {heard:?}");
    }
    // All of it, by its name, for its purpose.
    let known = |one: &String| {
        one.split_once(" name ").is_some_and(|(user, host)| {
            let host = host.split('.').next().unwrap();
            matches!(
                (user, host),
                ("mints", "mint")
                    | ("upstreams", "upstream")
                    | ("relays", "relay")
                    | ("prices", "prices")
                    // Whoever is listed is looked at, this node too, if there was time for it.
                    | ("strangers", "self")
            )
        })
    };
    assert!(heard.iter().all(known), "{heard:?}");
    node.finish().await;
}

/// What is not in Tor goes there when the operator says so, and loopback does not; and one upstream may.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_names_goes_through_tor_wherever_it_leads() {
    let (mint, upstream, socks) = (TestMint::start().await, Upstream::start().await, Proxy::socks5().await);
    let upstreams = r#"[{"name":"far","base_url":"https://far.invalid/v1"},
        {"name":"by-tor","base_url":"https://tor.invalid/v1","proxy_url":"tor"}]"#;
    let proxy = format!("socks5h://{}", socks.address);
    for (purposes, far) in [("upstreams,mints", true), ("mints", false)] {
        let more = [
            ("UPSTREAMS", upstreams),
            ("TOR_PROXY_URL", &proxy),
            ("TOR_FOR", purposes),
            ("UPSTREAM_MAX_ATTEMPTS", "3"),
        ];
        let node = TestNode::with(&mint, &upstream, &more).await;
        let before = socks.heard().len();
        upstream.next(crate::support::upstream::Script::Answer {
            status: 500,
            media: "text/plain",
            body: String::new(),
        });
        let purse = Purse::new(&mint).await;
        purse.mint_sats(500).await;
        let token = purse.send(500).await;
        let (status, refusal) = read(node.chat(&ask("hello")).header("x-cashu", &token).send().await.unwrap()).await;
        assert!((500..600).contains(&status), "{status} {refusal}");
        let heard = socks.heard().split_off(before);
        assert!(heard.iter().any(|one| one == "upstreams name tor.invalid:443"), "{heard:?}");
        assert_eq!(heard.iter().any(|one| one == "upstreams name far.invalid:443"), far, "{heard:?}");
        assert!(heard.iter().all(|one| one.ends_with(".invalid:443")), "loopback stays outside: {heard:?}");
        node.finish().await;
    }
}

/// A daemon that is not there is not gone around, and nothing is lost by it.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_daemon_nothing_in_tor_is_reached_and_the_money_comes_back() {
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let socks = Proxy::socks5().await;
    let closed = format!("socks5h://{}", socks.address);
    socks.hang_up(usize::MAX);
    let up = in_tor(&upstream.url(), "upstream");
    let node = TestNode::with(&mint, &upstream, &[("UPSTREAM_BASE_URL", &up), ("TOR_PROXY_URL", &closed)]).await;
    let purse = Purse::new(&mint).await;
    purse.mint_sats(500).await;
    let token = purse.send(500).await;
    let answer = node.chat(&ask("hello")).header("x-cashu", token).send().await.unwrap();
    let change = answer.headers().get("x-cashu").map(|change| change.to_str().unwrap().to_owned());
    assert_eq!(answer.status(), 502);
    assert_eq!(purse.receive(&change.expect("the money comes back")).await.unwrap(), 500);
    assert!(upstream.seen().is_empty());
    node.finish().await;
}

/// The embedded Tor, where there is no network to be in: the node starts at once and serves all others, has an
/// address with a key that nobody else can read, says how it stands, and ends in time.
#[cfg(feature = "tor")]
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_tor_leads_nowhere_serves_all_others() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use crate::support::answers::ok;

    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("nowhere.toml");
    std::fs::write(&config, NOWHERE).unwrap();
    let config = config.display().to_string();
    let more = [
        ("TOR", "true"),
        ("TOR_CONFIG", config.as_str()),
        (
            "UPSTREAMS",
            r#"[{"name":"inside","base_url":"http://gx3shxa4wf4hta6rl4dlyyikdu6tavpxp5w5gdjjdyoa5omijiugabyd.onion/v1","models":["toy/rich"]}]"#,
        ),
        ("UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS", "1"),
    ];
    let begun = std::time::Instant::now();
    let node = TestNode::with(&mint, &upstream, &more).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "Tor is not waited for");
    let url = ok(node.get("/v1/info")).await["onion_url"].as_str().unwrap().to_owned();
    assert!(url.starts_with("http://") && url.ends_with(".onion") && url.len() == 7 + 56 + 6, "{url}");

    let folder = node.data_dir().join("tor");
    assert_eq!(std::fs::read_to_string(folder.join("hostname")).unwrap().trim(), &url[7..]);
    let key = folder.join("state/keystore/hss/coinslot/ks_hs_id.ed25519_expanded_private");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    for path in key.ancestors().skip(1).take_while(|path| *path != node.data_dir()) {
        let mode = std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", path.display());
    }

    let purse = Purse::new(&mint).await;
    purse.mint_sats(1_000).await;
    let paid = node.chat(&ask("hello")).header("x-cashu", purse.send(500).await).send().await.unwrap();
    assert_eq!(paid.status(), 200);
    let mut inside = ask("hello");
    inside["model"] = serde_json::Value::from("toy/rich");
    upstream.next(crate::support::upstream::Script::Answer { status: 500, media: "text/plain", body: String::new() });
    let answer = node.chat(&inside).header("x-cashu", purse.send(500).await).send().await.unwrap();
    assert!(answer.status().is_server_error(), "{}", answer.status());
    assert!(answer.headers().contains_key("x-cashu"), "the money comes back");

    let page = crate::price_sync::Browser::log_in(&node).await.page_at("/admin/network").await;
    assert!(page.contains(&url) && page.contains("starting: "), "{page}");
    let begun = std::time::Instant::now();
    node.finish().await;
    assert!(begun.elapsed() < Duration::from_secs(20), "nor when the node stops");
}

/// A network whose only cache is a closed port.
#[cfg(feature = "tor")]
const NOWHERE: &str = r#"
[tor_network.authorities]
v3idents = ["44197D416711BE551183B0022B102EA9262FADB7"]
[[tor_network.fallback_caches]]
rsa_identity = "65EBB8A8427652FEC00262024A7B9AEF1502BCD4"
ed_identity = "wgBZ8yAoCS78RShjXu1HmmEc5ZGzaCYeP3dh68UnbUI"
orports = ["127.0.0.1:9"]
"#;
