//! The manners of the command line: what each verb says before there is anything to do, and of words and settings
//! that make no sense.

use std::collections::BTreeMap;

use crate::process::run;

const VERBS: [&str; 20] = [
    "check",
    "doctor",
    "health",
    "maintenance",
    "settings",
    "models",
    "alerts",
    "requests",
    "keys",
    "wallet",
    "upstreams",
    "profiles",
    "windows",
    "announcements",
    "vouchers",
    "admin",
    "trail",
    "audit",
    "backup",
    "restore",
];

fn settings<const N: usize>(given: [(&str, &str); N]) -> BTreeMap<String, String> {
    given.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

#[tokio::test]
async fn a_list_of_models_that_is_named_has_to_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let check = async |path: &str| run(dir.path(), &settings([("MODELS_PATH", path)]), &["check"]).await;
    let bundled = "no models.json: the bundled prices apply";
    let usual = check("").await;
    assert!(usual.code == 0 && usual.said.contains(bundled), "{usual:?}");
    let named = check("prices.json").await;
    assert!(named.code == 1 && named.complained.contains("there is no list of models at prices.json"), "{named:?}");
    std::fs::write(dir.path().join("prices.json"), r#"{"models":[]}"#).unwrap();
    let there = check("prices.json").await;
    assert!(there.code == 0 && !there.said.contains(bundled), "{there:?}");
}

#[tokio::test]
async fn every_verb_says_what_it_is_and_an_option_is_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings([("BACKUP_PASSPHRASE", "correct horse battery staple")]);
    for verb in VERBS {
        for help in ["--help", "-h", "help"] {
            let told = run(dir.path(), &settings, &[verb, help]).await;
            assert!(told.code == 0 && told.said.starts_with(&format!("coinslot {verb}")), "{verb} {help}: {told:?}");
        }
    }
    for words in [&["backup", "--verbose"][..], &["restore", "-f"], &["restore", "--secret-key", "--force"]] {
        let refused = run(dir.path(), &settings, words).await;
        assert!(refused.code == 2 && refused.complained.contains("coinslot restore"), "{words:?}: {refused:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was written");
}

/// What README and help have for a factor is none that a node with the usual fees refuses.
#[tokio::test]
async fn the_factors_of_the_examples_are_taken() {
    let (dir, usual) = (tempfile::tempdir().unwrap(), BTreeMap::new());
    let mut texts = vec![include_str!("../../README.md").to_owned()];
    for verb in ["profiles", "windows"] {
        texts.push(run(dir.path(), &usual, &[verb, "help"]).await.said);
    }
    let hours = ["--from", "22:00", "--to", "06:00"];
    for text in texts {
        let factors: Vec<&str> =
            text.split("--multiplier ").skip(1).filter_map(|rest| rest.split(' ').next()).collect();
        assert!(!factors.is_empty(), "{text}");
        for factor in factors {
            let profile = run(dir.path(), &usual, &["profiles", "set", "club", "--multiplier", factor]).await;
            let window = [&["windows", "set", "night", "--multiplier", factor], &hours[..]].concat();
            let window = run(dir.path(), &usual, &window).await;
            assert_eq!((profile.code, window.code), (0, 0), "{factor}: {profile:?} {window:?}");
        }
    }
    let low = run(dir.path(), &usual, &["profiles", "set", "club", "--multiplier", "0.94"]).await;
    assert!(low.code == 1 && low.complained.contains("--allow-below-cost"), "{low:?}");
}

#[tokio::test]
async fn a_database_server_that_is_not_there_is_named_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings([("DATABASE_URL", "postgres://coinslot:hunter2@127.0.0.1:1/coinslot")]);
    let checked = run(dir.path(), &settings, &["check"]).await;
    assert!(checked.code == 0 && checked.said.contains("database: the database does not answer: "), "{checked:?}");
    let verb = run(dir.path(), &settings, &["maintenance", "on"]).await;
    assert!(verb.code == 1 && verb.complained.starts_with("the database does not answer: "), "{verb:?}");
    assert!(!verb.complained.contains("hunter2") && !verb.complained.contains("pool"), "{verb:?}");
}

/// A key that is to be guessed makes no new database; one that was made with it goes on.
#[tokio::test]
async fn a_new_database_takes_no_key_that_is_to_be_guessed() {
    let dir = tempfile::tempdir().unwrap();
    let short = settings([("SECRET_KEY", "a"), ("PORT", "0")]);
    let start = run(dir.path(), &short, &[]).await;
    assert!(start.code == 1 && start.complained.contains("a new database takes 16 characters or more"), "{start:?}");
    let checked = run(dir.path(), &short, &["check"]).await;
    assert!(checked.code == 0 && checked.said.contains("SECRET_KEY is short"), "{checked:?}");
}

#[tokio::test]
async fn verbs_before_the_first_start_say_that_there_was_none() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings([("BACKUP_PASSPHRASE", "correct horse battery staple")]);
    let unused = "no node has run on this database yet";
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::write(dir.path().join("data/coinslot.db"), "").unwrap();
    let empty = run(dir.path(), &settings, &["audit"]).await;
    assert!(empty.code == 2 && empty.complained.contains(unused), "{empty:?}");
    // This makes the tables.
    assert_eq!(run(dir.path(), &settings, &["maintenance", "off"]).await.code, 0);
    for (words, code) in [(&["wallet"][..], 1), (&["wallet", "payouts"], 1), (&["audit"], 2), (&["backup", "x"], 1)] {
        let refused = run(dir.path(), &settings, words).await;
        assert!(refused.code == code && refused.complained.contains(unused), "{words:?}: {refused:?}");
    }
    assert!(!dir.path().join("x").exists());
}

#[tokio::test]
async fn a_status_that_no_request_has_is_refused() {
    let (dir, usual) = (tempfile::tempdir().unwrap(), BTreeMap::new());
    for verb in ["list", "export"] {
        let refused = run(dir.path(), &usual, &["requests", verb, "--status", "bogus"]).await;
        assert!(refused.code == 1 && refused.complained.contains("upstream_timeout"), "{verb}: {refused:?}");
        let known = run(dir.path(), &usual, &["requests", verb, "--status", "UPSTREAM_RATE_LIMIT"]).await;
        assert_eq!(known.code, 0, "{verb}: {known:?}");
    }
}
