//! The public documents: that they are whole, that what they say can be pasted, and that what they name exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use coinslot::failure::{Code, facts};
use serde_json::{Value, json};

use crate::bearer::world;
use crate::shop::{Page, get};
use crate::support::node::{MODEL, TestNode, models};

/// Texts between `before` and `after`.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Vec<&'a str> {
    text.split(before).skip(1).filter_map(|rest| Some(rest.split_once(after)?.0)).collect()
}

fn links(page: &Page) -> Vec<String> {
    between(&page.html, " href=\"", "\"").into_iter().map(|link| link.replace("&amp;", "&")).collect()
}

/// Every document, by its address.
async fn pages(node: &TestNode) -> BTreeMap<String, Page> {
    let contents = get(node, "/docs").await;
    assert_eq!(contents.status, 200);
    // The viewer of the API is no document: it has a script.
    let is_document = |link: &String| link.starts_with("/docs/") && link != "/docs/api";
    let addresses: BTreeSet<String> = links(&contents).into_iter().filter(is_document).collect();
    let mut pages = BTreeMap::new();
    for address in addresses {
        let page = get(node, &address).await;
        assert_eq!(page.status, 200, "{address}");
        pages.insert(address, page);
    }
    pages.insert("/docs".to_owned(), contents);
    pages
}

/// What a page shows as code, as it was written.
fn codes(page: &Page) -> Vec<String> {
    let plain = |text: &str| {
        let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
        entities.iter().fold(text.to_owned(), |text, (entity, character)| text.replace(entity, character))
    };
    between(&page.html, "<code>", "</code>").into_iter().map(plain).collect()
}

/// Whether the node serves something at this address, by whatever method.
async fn is_served(node: &TestNode, path: &str) -> bool {
    for request in [node.get(path), node.post(path).json(&json!({}))] {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap_or_default();
        let code = body["error"]["code"].as_str().or(body["error"]["details"][0]["reason"].as_str());
        // Of an id that nothing has, an address that is served says so in words of its own.
        let said = body["error"]["message"].as_str().unwrap_or_default();
        let nowhere = ["Path '", "Not found check", "Model not found"].iter().any(|how| said.starts_with(how));
        let unknown = code == Some("unsupported_path") || code == Some("not_found") && nowhere;
        // 405: by another method.
        if status != 405 && !unknown {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_whole_and_every_link_and_line_leads_somewhere() {
    let (_mint, _purse, _upstream, node) = world(1).await;
    let pages = pages(&node).await;
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pages")).unwrap().count();
    assert_eq!(pages.len(), files + 1, "every file, and the contents");
    let home = get(&node, "/").await;
    assert!(links(&home).contains(&"/docs".to_owned()));
    for (address, page) in &pages {
        assert!(!page.has("{{") && !page.has("}}"), "{address}: something was not filled in");
        assert!(!page.has("noindex"), "{address}");
        assert!(page.has("<title>") && page.has("<h1"), "{address}");
        for link in links(page) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let id = format!(" id=\"{anchor}\"");
            let found = match path {
                "https://cashu.space" => true,
                "" => page.has(&id),
                "/" => anchor.is_empty() || home.has(&id),
                _ if path.starts_with("/docs") && path != "/docs/api" => {
                    pages.get(path).is_some_and(|page| anchor.is_empty() || page.has(&id))
                }
                _ => node.get(path).send().await.unwrap().status() == 200,
            };
            assert!(found, "{address} links to {link}");
        }
        let ids = between(&page.html, " id=\"", "\"");
        assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "{address}: ids are unique");
    }
    get(&node, "/docs/nothing").await.expect(404, "There is no such page");
    assert!(node.post("/docs/pay").send().await.unwrap().status().is_client_error(), "there is nothing to send");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_be_pasted_is_of_this_node() {
    let (_mint, _purse, _upstream, node) = world(1).await;
    let base = node.url();
    let mut seen = BTreeSet::new();
    for (address, page) in pages(&node).await {
        for code in codes(&page) {
            for url in code.split(['"', ' ', '\n', '`']).filter(|word| word.contains("://")) {
                let (_, url) = url.split_once('=').unwrap_or(("", url));
                let known = ["https://opencode.ai/config.json"].contains(&url) || url.starts_with(&base);
                // Of the mint.
                assert!(known || address == "/docs/start" || address == "/docs/pay", "{address}: {url}");
            }
            let paths = code.split(['"', ' ', '\n', ',', '`']).map(|word| word.rsplit(&base).next().unwrap());
            for path in paths.filter(|path| path.starts_with("/v1") || path.starts_with("/lightning")) {
                let path = if path == "/v1" { "/v1/models" } else { path };
                let path = path.replace('…', "chat/completions").replace("${id}", "x").replace('$', "");
                seen.insert(path.trim_end_matches('`').to_owned());
            }
        }
    }
    assert!(seen.len() > 25, "{seen:?}");
    for path in seen {
        assert!(is_served(&node, &path).await, "nothing is at {path}");
    }
    for made_up in ["/v1/nothing", "/v1/wallet/nothing", "/v1beta/models/x:nothing"] {
        assert!(!is_served(&node, made_up).await, "{made_up}");
    }
    let page = get(&node, "/docs/openai").await;
    assert!(page.has(&format!("base_url=&quot;{base}/v1&quot;")) && page.has(MODEL), "{}", page.html);
    node.finish().await;
}

/// Status and code of every failure, by its name in the source.
fn failures() -> BTreeMap<String, (String, String)> {
    let row = |code: &Code| {
        let facts = facts(*code);
        (format!("{code:?}"), (facts.status.to_string(), facts.code.to_owned()))
    };
    Code::ALL.iter().map(row).collect()
}

/// The same names, as the source has them.
fn variants() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/failure.rs");
    let source = syn::parse_file(&std::fs::read_to_string(path).unwrap()).unwrap();
    let variants = source.items.into_iter().find_map(|item| match item {
        syn::Item::Enum(code) if code.ident == "Code" => Some(code.variants),
        _ => None,
    });
    variants.unwrap().iter().map(|variant| variant.ident.to_string()).collect()
}

#[test]
fn every_code_is_explained_and_none_is_made_up() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pages/errors.md")).unwrap();
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = text.lines().filter(|line| line.starts_with("| `")).map(cells).collect();
    let explained: BTreeMap<String, String> =
        rows.iter().map(|row| (row[1].trim_matches('`').to_owned(), row[2].clone())).collect();
    assert_eq!(explained.len(), rows.len(), "each once");
    assert!(rows.iter().all(|row| row.len() == 5 && row[3].len() > 10));
    let failures = failures();
    assert_eq!(Code::ALL.len(), failures.len());
    assert_eq!(failures.keys().cloned().collect::<BTreeSet<_>>(), variants());
    let known: BTreeSet<&String> = failures.values().map(|(_, code)| code).collect();
    assert_eq!(explained.keys().collect::<BTreeSet<_>>(), known);
    for (name, (status, code)) in &failures {
        // The text of the other one of its code tells it apart.
        if name != "ForeignSwapLost" {
            assert_eq!(&explained[code], status, "{code}");
        }
    }
}

#[test]
fn what_pages_name_is_in_the_source() {
    fn read(folder: &Path, ending: &str, text: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                read(&path, ending, text);
            } else if path.to_str().unwrap().ends_with(ending) {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut source, mut pages) = (String::new(), String::new());
    read(&root.join("src"), ".rs", &mut source);
    read(&root.join("docs/pages"), ".md", &mut pages);
    // Blocks of code hold names of others' too.
    let prose: String = pages.split("\n```").step_by(2).collect();
    let words = prose.split('`').skip(1).step_by(2);
    let words = words.flat_map(|code| code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-'));
    let names: BTreeSet<&str> = words.filter(|word| word.contains('_') || word.starts_with("x-")).collect();
    assert!(names.len() > 60, "{names:?}");
    let missing: Vec<&&str> = names.iter().filter(|name| !source.contains(**name)).collect();
    assert_eq!(missing, Vec::<&&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_this_nodes_settings_and_no_value_breaks_out() {
    let (mint, _purse, upstream, node) = world(1).await;
    let page = get(&node, "/docs/limits").await;
    assert!(page.has("Requests in any minute</th><td role=\"cell\" data-label=\"At most\">no limit</td>"));
    get(&node, "/docs/pay").await.expect(200, "is refused, untouched");
    get(&node, "/docs/prices").await.expect(200, "a price list in US dollars");
    let plain = node.get("/docs/pay").header("host", "evil.example/\"><script>").header("accept", "text/html");
    if let Ok(answer) = plain.send().await {
        assert!(!answer.text().await.unwrap().contains("evil"));
    }
    node.finish().await;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("models.json");
    let mut list = models();
    list["models"][0]["id"] = json!("toy/\"><img src=x>");
    std::fs::write(&path, list.to_string()).unwrap();
    let path = path.display().to_string();
    let settings = [
        ("MODELS_PATH", path.as_str()),
        ("NAME", "<b>{{base_url}}</b>"),
        ("HTTP_URL", "https://shop.example/ai"),
        ("KEY_REQUESTS_PER_MINUTE", "1234"),
        ("FOREIGN_MINTS", "swap"),
        ("FOREIGN_MINT_MAX_FEE_PERCENT", "7"),
        ("MISSING_USAGE", "free"),
    ];
    let node = TestNode::with(&mint, &upstream, &settings).await;
    for (address, page) in pages(&node).await {
        assert!(!page.has("<img src=x") && !page.has("<b>{{"), "{address}");
        assert!(!page.has(&node.url()), "{address} has an address of its own");
    }
    get(&node, "/docs/limits").await.expect(200, ">1,234</td>");
    get(&node, "/docs/openai").await.expect(200, "https://shop.example/ai/v1");
    get(&node, "/docs/pay").await.expect(200, "7 % at most");
    get(&node, "/docs/prices").await.expect(200, "nothing is charged. The bill");
    node.finish().await;

    let settings = [("MODEL_BASED_PRICING", "false"), ("COST_PER_REQUEST", "3"), ("COST_PER_1K_INPUT_TOKENS", "2")];
    let node = TestNode::with(&mint, &upstream, &settings).await;
    let page = get(&node, "/docs/prices").await;
    assert!(page.has("one price in sats: 3 for a request, 2,000 for a million input tokens"), "{}", page.html);
    assert!(page.has("5000 msat = 5.000 sat") || page.has("5,000 msat"), "{}", page.html);
    node.finish().await;
}
