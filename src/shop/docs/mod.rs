//! `/docs`: pages for people who pay. Each is a Markdown file of `docs/pages`, embedded here, and a line in
//! [`SOURCES`]; what is this node's own is filled in where a name stands in `{{…}}`.

mod markdown;
mod page;
mod values;

pub(super) use markdown::note;

use std::sync::LazyLock;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;

use self::markdown::Section;
use self::page::Page;
use self::values::Values;
use super::{answer, render};
use crate::failure::{Code, Failure};
use crate::http::Node;

/// The pages of these names: the last part of the address, and the name of the file.
macro_rules! sources {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../../docs/pages/", $name, ".md")))),+]
    };
}

/// Their order is in the pages themselves.
const SOURCES: &[(&str, &str)] = sources![
    "start",
    "pay",
    "money-back",
    "curl",
    "openai",
    "anthropic",
    "claude-code",
    "codex",
    "opencode",
    "gemini",
    "prices",
    "receipts",
    "keys",
    "endpoints",
    "limits",
    "send-again",
    "errors",
];

/// All that can be read, in order. A test reads every one.
static PAGES: LazyLock<Vec<Page>> = LazyLock::new(|| {
    let mut pages: Vec<Page> = SOURCES.iter().filter_map(|(name, text)| Page::read(name, text)).collect();
    pages.sort_by_key(|page| page.order);
    pages
});

/// The pages of one group.
struct Group {
    title: &'static str,
    pages: Vec<&'static Page>,
}

#[derive(Template)]
#[template(path = "shop/docs.html")]
struct Shown {
    name: String,
    groups: Vec<Group>,
    page: &'static Page,
    html: String,
    sections: Vec<Section>,
    before: Option<&'static Page>,
    after: Option<&'static Page>,
}

#[derive(Template)]
#[template(path = "shop/contents.html")]
struct Contents {
    name: String,
    base: String,
    groups: Vec<Group>,
}

/// `GET /docs`: what there is to read.
pub(super) async fn contents(State(node): State<Node>, headers: HeaderMap, uri: Uri) -> Response {
    let base = values::base(&node, &headers, &uri);
    answer(&node, render(&Contents { name: node.info().name, base, groups: groups() }))
}

/// `GET /docs/{name}`
pub(super) async fn one(State(node): State<Node>, Path(name): Path<String>, headers: HeaderMap, uri: Uri) -> Response {
    answer(&node, show(&node, &name, &headers, &uri))
}

fn show(node: &Node, name: &str, headers: &HeaderMap, uri: &Uri) -> Result<Response, Failure> {
    let at = PAGES.iter().position(|page| page.name == name);
    let found = at.and_then(|at| Some((at, PAGES.get(at)?)));
    let (at, page) = found.ok_or_else(|| Failure::client(Code::NotFound, "There is no such page. See /docs."))?;
    let written = markdown::render(page.body, &Values::of(node, headers, uri));
    render(&Shown {
        name: node.info().name,
        groups: groups(),
        page,
        html: written.html,
        sections: written.sections,
        before: at.checked_sub(1).and_then(|before| PAGES.get(before)),
        after: PAGES.get(at.saturating_add(1)),
    })
}

/// The pages by group, in the order in which the groups begin.
fn groups() -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for page in PAGES.iter() {
        match groups.iter_mut().find(|group| group.title == page.group) {
            Some(group) => group.pages.push(page),
            None => groups.push(Group { title: page.group, pages: vec![page] }),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_is_a_page_and_every_page_has_a_place_of_its_own() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pages");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let files: BTreeSet<String> = files.map(|file| file.trim_end_matches(".md").to_owned()).collect();
        assert_eq!(files, SOURCES.iter().map(|(name, _)| (*name).to_owned()).collect());
        for (name, text) in SOURCES {
            assert!(Page::read(name, text).is_some(), "the head of {name}");
        }
        let orders: BTreeSet<u32> = PAGES.iter().map(|page| page.order).collect();
        assert_eq!(orders.len(), SOURCES.len(), "no two pages have the same order");
        let listed: Vec<&str> = groups().iter().flat_map(|group| &group.pages).map(|page| page.name).collect();
        let sorted: Vec<&str> = PAGES.iter().map(|page| page.name).collect();
        assert_eq!(listed, sorted, "a group is in one piece");
    }
}
