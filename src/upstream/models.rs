//! Which models an upstream serves, and what it calls them. Exact rules come before `prefix*`, the
//! longest of these before the shorter, and `*` last. Nothing is matched by likeness.

use super::kind::Preset;
use crate::config::ModelRule;

/// The names of one model on this side.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// As the client asked for it.
    pub asked: &'a str,
    /// As the price list has it.
    pub id: &'a str,
    /// As the price list says that upstreams call it; otherwise `id`.
    pub forwarded: &'a str,
}

/// The models of one upstream.
#[derive(Clone, Debug)]
pub struct Models {
    rules: Option<Vec<ModelRule>>,
    vendor: Option<&'static str>,
}

impl Models {
    #[must_use]
    pub fn new(rules: Option<Vec<ModelRule>>, preset: &Preset) -> Self {
        Self { rules, vendor: preset.vendor }
    }

    /// What this upstream calls the model; `None`: it does not serve it.
    #[must_use]
    pub fn find(&self, names: Names<'_>) -> Option<String> {
        let Some(rules) = &self.rules else { return self.own_name(names.forwarded) };
        let all = [names.asked, names.id, names.forwarded];
        let exact = rules.iter().find(|rule| !rule.is_prefix && all.contains(&rule.name.as_str()));
        if let Some(rule) = exact {
            return Some(rule.target.clone().unwrap_or_else(|| self.bare(names.forwarded).to_owned()));
        }
        let prefixes = rules.iter().filter(|rule| rule.is_prefix);
        let matching = prefixes.filter_map(|rule| {
            let rest = all.iter().find_map(|name| name.strip_prefix(rule.name.as_str()))?;
            Some((rule, rest))
        });
        let (rule, rest) = matching.max_by_key(|(rule, _)| rule.name.len())?;
        Some(match &rule.target {
            Some(target) => target.replacen('*', rest, 1),
            None => self.bare(names.forwarded).to_owned(),
        })
    }

    /// The names under which price lists have the model that this upstream calls so: those that lead back
    /// to it. A vendor's models carry its name there.
    #[must_use]
    pub fn public_names(&self, called: &str) -> Vec<String> {
        let rules = self.rules.iter().flatten().filter(|rule| !rule.is_prefix);
        let named = rules.filter(|rule| rule.target.as_deref() == Some(called)).map(|rule| rule.name.clone());
        let plain = match self.vendor {
            Some(vendor) => format!("{vendor}/{called}"),
            None => called.to_owned(),
        };
        let mut names: Vec<String> = named.collect();
        if !names.contains(&plain) {
            names.push(plain);
        }
        names.retain(|name| self.find(Names { asked: name, id: name, forwarded: name }).as_deref() == Some(called));
        names
    }

    /// A vendor serves the models that price lists call its own, and those of no vendor.
    fn own_name(&self, forwarded: &str) -> Option<String> {
        let bare = self.bare(forwarded);
        let is_served = self.vendor.is_none() || !bare.contains('/');
        is_served.then(|| bare.to_owned())
    }

    /// The name without the vendor's own.
    fn bare<'a>(&self, name: &'a str) -> &'a str {
        let rest = self.vendor.and_then(|vendor| name.strip_prefix(vendor)).and_then(|rest| rest.strip_prefix('/'));
        rest.filter(|rest| !rest.is_empty()).unwrap_or(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Upstream, UpstreamKind};

    fn models(kind: UpstreamKind, rules: &str) -> Models {
        let entry = format!(r#"{{"name":"x","provider_type":"openrouter","models":{rules}}}"#);
        let second = std::time::Duration::from_secs(1);
        let timeouts = crate::config::Timeouts { connect: second, first_byte: second, idle: second, total: None };
        let upstream = Upstream::from_json(&serde_json::from_str(&entry).unwrap(), timeouts).unwrap();
        Models::new(upstream.models, Preset::of(kind))
    }

    #[test]
    fn exact_before_longest_prefix_before_star() {
        let some = models(
            UpstreamKind::Generic,
            r#"{"a/*":"short-*","a/b*":"long*","a/b-1":"exact","alias":"behind","c/*":null,"kept":""}"#,
        );
        let star = models(UpstreamKind::Generic, r#"{"a*":"x","*":"all/*"}"#);
        let vendor = models(UpstreamKind::Openai, "null");
        for (models, name, expected) in [
            (&some, "a/b-1", Some("exact")),
            (&some, "a/b-2", Some("long-2")),
            (&some, "a/z", Some("short-z")),
            (&some, "alias", Some("behind")),
            (&some, "c/d", Some("c/d")),
            (&some, "kept", Some("kept")),
            (&some, "other", None),
            (&some, "A/b-1", None),
            (&star, "abc", Some("x")),
            (&star, "b", Some("all/b")),
            (&vendor, "openai/gpt-4o", Some("gpt-4o")),
            (&vendor, "gpt-4o", Some("gpt-4o")),
            (&vendor, "anthropic/claude", None),
            (&vendor, "openai/", None),
        ] {
            let names = Names { asked: name, id: name, forwarded: name };
            assert_eq!(models.find(names).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn what_an_upstream_has_is_sold_under_names_that_lead_back_to_it() {
        let rules = models(UpstreamKind::Generic, r#"{"alias":"behind","c/*":null,"d/*":"x-*"}"#);
        let vendor = models(UpstreamKind::Openai, "null");
        let open = models(UpstreamKind::Generic, "null");
        for (models, called, names) in [
            (&rules, "behind", vec!["alias"]),
            (&rules, "c/1", vec!["c/1"]),
            (&rules, "d/1", vec![]),
            (&vendor, "gpt-4o", vec!["openai/gpt-4o"]),
            (&open, "a/b", vec!["a/b"]),
        ] {
            assert_eq!(models.public_names(called), names, "{called}");
        }
    }

    #[test]
    fn any_name_of_a_model_finds_its_rule() {
        let models = models(UpstreamKind::Generic, r#"{"gpt-4o":"by-what-was-asked","openai/gpt-4*":"by-id"}"#);
        let of = |asked, id, forwarded| models.find(Names { asked, id, forwarded });
        assert_eq!(of("gpt-4o", "openai/gpt-4o", "x").as_deref(), Some("by-what-was-asked"));
        assert_eq!(of("alias", "openai/gpt-4-mini", "x").as_deref(), Some("by-id"));
        assert_eq!(of("alias", "other", "gpt-4o").as_deref(), Some("by-what-was-asked"));
    }
}
