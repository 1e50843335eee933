//! Routes of the known APIs that are not sold, and why. What is sold is in the dialects' registry;
//! everything else is refused, and this only says so in more words.

use crate::dialect;

/// What lies in the account behind the node, and so could be another client's.
const ACCOUNT: &str = "this part of the API keeps things in the operator's account, where clients could reach each other's: it is not sold";
/// What cannot be billed by the request.
const UNBILLABLE: &str = "this part of the API cannot be billed by the request: it is not sold";

/// Beginnings of paths, without the version.
const FAMILIES: [(&str, &str); 30] = [
    ("files", ACCOUNT),
    ("uploads", ACCOUNT),
    ("batches", ACCOUNT),
    ("messages/batches", ACCOUNT),
    ("assistants", ACCOUNT),
    ("threads", ACCOUNT),
    ("conversations", ACCOUNT),
    // Those that were stored; making one is sold.
    ("responses", ACCOUNT),
    ("chat/completions", ACCOUNT),
    ("fine_tuning", ACCOUNT),
    ("fine-tunes", ACCOUNT),
    ("vector_stores", ACCOUNT),
    ("containers", ACCOUNT),
    ("evals", ACCOUNT),
    ("chatkit", ACCOUNT),
    ("skills", ACCOUNT),
    ("organization", ACCOUNT),
    ("organizations", ACCOUNT),
    ("projects", ACCOUNT),
    ("videos", ACCOUNT),
    ("cachedContents", ACCOUNT),
    ("tunedModels", ACCOUNT),
    ("corpora", ACCOUNT),
    ("fileSearchStores", ACCOUNT),
    ("operations", ACCOUNT),
    ("interactions", ACCOUNT),
    ("realtime", UNBILLABLE),
    ("live", UNBILLABLE),
    ("complete", UNBILLABLE),
    ("audio/voices", ACCOUNT),
];

/// Why a path is not served, where it is one of a known API.
pub fn reason(path: &str) -> Option<&'static str> {
    let path = ["/v1beta/", "/v1/", "/"].iter().find_map(|prefix| path.strip_prefix(prefix))?;
    // What is sold is not found by that name with a slash behind it, and nothing is stored there.
    let bare = path.strip_suffix('/');
    if dialect::REGISTRY.iter().any(|dialect| bare == Some(dialect.path())) {
        return None;
    }
    let is_in = |family: &str| path.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    FAMILIES.iter().find_map(|(family, why)| is_in(family).then_some(*why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_end_at_a_slash() {
        for (path, is_known) in [
            ("/v1/files", true),
            ("/v1/files/file-1/content", true),
            ("/files", true),
            ("/v1beta/cachedContents/x", true),
            ("/v1/responses/resp_1/cancel", true),
            ("/v1/messages/batches", true),
            ("/v1/realtime/client_secrets", true),
            ("/v1/files/", true),
            ("/v1/filesystem", false),
            ("/v1/chat/completions/", false),
            ("/v1/chat/completions/chatcmpl-1/", true),
            ("/v1/responses/", false),
            ("/v1/", false),
            ("/nothing", false),
            ("", false),
        ] {
            assert_eq!(reason(path).is_some(), is_known, "{path}");
        }
    }
}
