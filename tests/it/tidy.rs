//! The walls of the house, checked in the source: who imports whom, which folder may use which
//! foreign crate, and how large a file may grow.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// Modules from the bottom up. One may import what is above it in this list, and of its own line what [`NEIGHBOURS`]
/// has.
const LAYERS: &[&[&str]] = &[
    &["money"],
    &["failure", "dialect"],
    &["clock", "config", "vault", "net", "store", "failpoint", "lnurl", "metrics"],
    &["ledger", "price", "upstream", "nostr", "status", "news", "telemetry", "tor"],
    &["wallet", "catalog"],
    &["payment", "audit", "backup", "doctor"],
    &["exchange", "pages", "openapi"],
    &["alerts"],
    &["operator"],
    &["http", "admin", "jobs"],
    &["shop"],
    &["node"],
    &["cli"],
    &["main", "lib"],
];

/// Imports within a line that are allowed; all others are not.
const NEIGHBOURS: &[(&str, &str)] = &[
    ("dialect", "failure"),
    ("openapi", "pages"),
    ("vault", "config"),
    ("store", "vault"),
    ("lnurl", "net"),
    ("config", "lnurl"),
];

/// Foreign crates and the only modules that may name them.
const FOREIGN: &[(&str, &[&str])] = &[
    ("cdk", &["wallet"]),
    ("cdk_common", &["wallet"]),
    ("cdk_sql_common", &["wallet"]),
    ("nostr", &["nostr"]),
    (
        "sqlx",
        &[
            "store", "ledger", "wallet", "exchange", "upstream", "operator", "admin", "nostr", "catalog", "status",
            "news", "alerts",
        ],
    ),
    ("rusqlite", &["store"]),
    ("axum", &["http", "pages", "openapi", "admin", "shop"]),
    ("askama", &["admin", "shop"]),
    ("pulldown_cmark", &["shop"]),
    ("qrcode", &["pages"]),
    ("tokio_tungstenite", &["net"]),
    ("reqwest", &["net", "upstream", "price", "wallet"]),
    ("hyper_util", &["http"]),
    ("sd_notify", &["cli"]),
    ("arti_client", &["tor"]),
    ("safelog", &["tor"]),
    ("toml", &["tor"]),
    ("tor_cell", &["tor"]),
    ("tor_hsservice", &["tor"]),
    ("tor_proto", &["tor"]),
    ("tor_rtcompat", &["tor"]),
    ("tor_socksproto", &["tor"]),
    ("opentelemetry_proto", &["telemetry"]),
    ("prost", &["telemetry"]),
];

/// Files that may hold SQL.
const SQL: &[&str] = &["repo.rs", "account.rs", "books.rs"];

/// How the comment of what is public may not begin, nor what it says of errors: in rustdoc nothing stands above it that
/// it could speak of.
const DANGLING: &[&str] = &["The same", "Of ", "See there", "When it is none", "When it would not"];

/// Longest file, without its tests.
const MAX_LINES: usize = 600;

struct Source {
    path: PathBuf,
    module: String,
    text: String,
}

fn sources() -> Vec<Source> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    let sources = paths.into_iter().map(|path| {
        let inside = path.strip_prefix(&root).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs").to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        Source { path: inside.to_owned(), module, text }
    });
    sources.collect()
}

impl Source {
    /// Tests may look wherever they like.
    fn is_test(&self) -> bool {
        self.path.file_name().is_some_and(|name| name.to_str().unwrap().ends_with("tests.rs"))
    }

    /// The text before its module of tests. A function that only tests have is no end of it.
    fn production(&self) -> &str {
        let begins_tests = |at: &usize| {
            let next = self.text[*at..].lines().skip(1).find(|line| !line.starts_with("#["));
            next.is_some_and(|line| line.split(' ').any(|word| word == "mod") && line.ends_with('{'))
        };
        let marks = self.text.match_indices("#[cfg(test)]\n").map(|(at, _)| at);
        marks.clone().find(begins_tests).map_or(&self.text, |at| &self.text[..at])
    }
}

/// First segments of all paths, and second segments of those that start with `crate`.
#[derive(Default)]
struct Paths {
    first: BTreeSet<String>,
    own: BTreeSet<String>,
}

impl Paths {
    fn of(source: &Source) -> Self {
        let mut paths = Self::default();
        paths.visit_file(&syn::parse_file(&source.text).unwrap());
        paths
    }

    fn note(&mut self, segments: &[String]) {
        if let [first, rest @ ..] = segments {
            self.first.insert(first.clone());
            if first == "crate" {
                self.own.extend(rest.first().cloned());
            }
        }
    }

    fn note_tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.note_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.note(&with(&name.ident)),
            syn::UseTree::Rename(rename) => self.note(&with(&rename.ident)),
            syn::UseTree::Glob(_) => self.note(before),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.note_tree(before, item)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !module.attrs.iter().any(|attribute| quoted(attribute).contains("test")) {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.note_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.note(&segments);
        }
        syn::visit::visit_path(self, path);
    }
}

fn quoted(attribute: &syn::Attribute) -> String {
    match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string(),
        _ => String::new(),
    }
}

/// The comments of what is public, each as its lines.
fn public_comments(text: &str) -> Vec<Vec<&str>> {
    let (mut comments, mut comment, mut is_attribute) = (Vec::new(), Vec::new(), false);
    for line in text.lines().map(str::trim) {
        if is_attribute || line.starts_with("#[") {
            is_attribute = !line.ends_with(']');
        } else if let Some(said) = line.strip_prefix("///") {
            comment.push(said.trim());
        } else {
            let comment = std::mem::take(&mut comment);
            comments.extend(line.starts_with("pub").then_some(comment));
        }
    }
    comments
}

fn layer(module: &str) -> usize {
    LAYERS.iter().position(|layer| layer.contains(&module)).unwrap_or_else(|| panic!("{module} has no layer"))
}

#[test]
fn imports_point_down() {
    let mut upward = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for target in Paths::of(source).own {
            let known = LAYERS.iter().any(|layer| layer.contains(&target.as_str()));
            let same = target == source.module;
            let neighbour = NEIGHBOURS.contains(&(source.module.as_str(), target.as_str()));
            if known && !same && !neighbour && layer(&target) >= layer(&source.module) {
                upward.push(format!("{} imports crate::{target}", source.path.display()));
            }
        }
    }
    assert_eq!(upward, Vec::<String>::new());
}

#[test]
fn a_foreign_crate_has_one_place() {
    let mut astray = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let paths = Paths::of(source);
        for (name, homes) in FOREIGN {
            if paths.first.contains(*name) && !homes.contains(&source.module.as_str()) {
                astray.push(format!("{} uses {name}", source.path.display()));
            }
        }
    }
    assert_eq!(astray, Vec::<String>::new());
}

#[test]
fn sql_stays_in_its_files() {
    for source in sources().iter().filter(|source| !source.is_test()) {
        let name = source.path.file_name().unwrap().to_str().unwrap();
        let folders = ["wallet/cdk_db", "wallet/journal"];
        let home = SQL.contains(&name)
            || source.module == "store"
            || folders.iter().any(|folder| source.path.starts_with(folder));
        assert!(home || !source.text.contains("sqlx::query"), "{} holds SQL", source.path.display());
    }
}

#[test]
fn files_can_be_held_in_mind() {
    for source in sources() {
        let lines = source.production().lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines", source.path.display());
        assert!(
            source.is_test() || source.text.starts_with("//!"),
            "{} does not say what it is for",
            source.path.display()
        );
    }
}

#[test]
fn a_module_with_parts_is_one_folder() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for source in sources() {
        let path = source.path.display();
        let folder = root.join(source.path.with_extension(""));
        assert!(!folder.is_dir(), "{path} has a folder beside it, and belongs there as mod.rs");
        assert!(!source.text.contains("#[path"), "{path} has a part that is not where it is looked for");
    }
}

#[test]
fn comments_of_what_is_public_stand_by_themselves() {
    let is_dangling = |said: &&str| DANGLING.iter().any(|beginning| said.starts_with(beginning));
    let mut dangling = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for comment in public_comments(&source.text) {
            let of_errors = comment.iter().skip_while(|line| **line != "# Errors").nth(1);
            let said = comment.first().into_iter().chain(of_errors).copied().filter(is_dangling);
            dangling.extend(said.map(|said| format!("{}: {said}", source.path.display())));
        }
    }
    assert_eq!(dangling, Vec::<String>::new());
}

#[test]
fn every_page_has_its_template() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["admin", "shop"] {
        let pages = sources().into_iter().filter(|source| source.module == folder);
        let pages: String = pages.map(|page| page.text).collect();
        for entry in std::fs::read_dir(root.join("templates").join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            // What other templates are made of is named by one of them.
            let path = format!("{folder}/{name}");
            let part = root.join("templates").join(folder);
            let within = || {
                std::fs::read_dir(&part).unwrap().any(|entry| {
                    std::fs::read_to_string(entry.unwrap().path()).unwrap().contains(&format!("\"{path}\""))
                })
            };
            assert!(pages.contains(&path) || within(), "templates/{path} has no page");
        }
    }
}
