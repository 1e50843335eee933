//! The manners of the command line: what each verb says before there is anything to do, and of words and settings
//! that make no sense.

use std::collections::BTreeMap;

use crate::process::run;

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
