//! What models do whether they are asked to or not. Some search before they answer: by their names, unless their entry
//! says. OpenAI's write what they are sent to a cache; others are told where.

use super::model::Model;

/// Searches that are held for where a model makes as many as it takes: an answer of Perplexity's has about twenty.
const OF_RESEARCH: u64 = 30;

/// How many searches an answer of this model may rest on that nobody asked for.
#[must_use]
pub fn unasked(model: &Model) -> u64 {
    let names = || [model.id.as_str(), model.upstream_id()].map(bare);
    match model.searches_unasked.unwrap_or_else(|| names().into_iter().any(searches)) {
        false => 0,
        true if names().into_iter().any(|name| name.contains("deep-research")) => OF_RESEARCH,
        true => 1,
    }
}

/// Whether this model writes prompts to a cache that nobody marked, and takes more for that than for reading them.
#[must_use]
pub fn caches_unasked(model: &Model) -> bool {
    let is_known = [model.id.as_str(), model.upstream_id()].map(bare).iter().any(|name| name.starts_with("gpt-"));
    is_known && model.prices.cache_write() > model.prices.prompt
}

/// A name without its vendor and its variant.
fn bare(id: &str) -> &str {
    let name = id.rsplit('/').next().unwrap_or(id);
    name.split(':').next().unwrap_or(name)
}

fn searches(name: &str) -> bool {
    name == "sonar"
        || name.starts_with("sonar-")
        || name.ends_with("-search-preview")
        || name.contains("-search-preview-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_unless_the_entry_does() {
        for (id, more, searches) in [
            ("perplexity/sonar", "", 1),
            ("sonar-reasoning-pro", "", 1),
            ("perplexity/sonar-deep-research", "", 30),
            ("openai/gpt-4o-mini-search-preview", "", 1),
            ("gpt-4o-search-preview-2025-03-11", "", 1),
            ("openai/gpt-4o-search-preview:free", "", 1),
            ("mine/finder", r#","forwarded_model_id":"perplexity/sonar-pro""#, 1),
            ("mine/finder", r#","searches_unasked":true"#, 1),
            ("perplexity/sonar", r#","searches_unasked":false"#, 0),
            ("openai/gpt-4o", "", 0),
            ("sonar/gpt", "", 0),
            ("mine/sonarlike", "", 0),
            ("perplexity/r1-1776", "", 0),
        ] {
            let entry = format!(r#"{{"id":"{id}","pricing":{{"prompt":"0","completion":"0"}}{more}}}"#);
            let model = Model::from_entry(&serde_json::from_str::<Box<_>>(&entry).unwrap()).unwrap();
            assert_eq!(unasked(&model), searches, "{id} {more}");
        }
    }
}
