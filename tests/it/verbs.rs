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
