//! Every crate in the graph may be used in an MIT program.

use std::process::Command;

use serde_json::Value;

const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "BlueOak-1.0.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MITNFA",
    // Copyleft of its own files only, which are passed on as they are.
    "MPL-2.0",
    "NCSA",
    "OpenSSL",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

/// Whether an SPDX expression can be satisfied by allowed licences: one choice of every `OR`, all
/// parts of every `AND`. Exceptions (`WITH`) only ever permit more.
fn allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    if let Some((left, right)) = split_top(&expression, " AND ") {
        return allowed(&left) && allowed(&right);
    }
    if let Some((left, right)) = split_top(&expression, " OR ") {
        return allowed(&left) || allowed(&right);
    }
    let expression = expression.trim();
    if let Some(inside) = expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        return allowed(inside);
    }
    let name = expression.split(" WITH ").next().unwrap().trim();
    ALLOWED.contains(&name)
}

fn split_top(expression: &str, operator: &str) -> Option<(String, String)> {
    let mut depth = 0;
    for (at, c) in expression.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && expression[at..].starts_with(operator) => {
                return Some((expression[..at].to_owned(), expression[at + operator.len()..].to_owned()));
            }
            _ => {}
        }
    }
    None
}

#[test]
fn every_dependency_may_be_used() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 200, "the whole graph is looked at");
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| !allowed(package["license"].as_str().unwrap_or("none")))
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    assert_eq!(refused, Vec::<String>::new());
}

#[test]
fn one_sqlite_is_linked() {
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
    assert_eq!(lock.matches("name = \"libsqlite3-sys\"").count(), 1);
}
