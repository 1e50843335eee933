//! A way to a model, as clients of this network name it (`GET /v1/models/paths`, `x-routstr-model-path`).
//!
//! There it says which upstream it leads to. Here it says no more than its kind: an address that is nobody's, as for
//! upstreams that are private, and a number.

/// A way to a model: by the upstreams of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPath {
    /// The number of the kind, among those that there are.
    pub number: u32,
    pub kind: &'static str,
    /// What it is called.
    pub path: String,
}

impl ModelPath {
    pub(super) fn new(number: u32, kind: &'static str, id: &str) -> Self {
        let mut path = url::form_urlencoded::Serializer::new(String::new());
        path.append_pair("url", "http://localhost");
        path.append_pair("provider-id", &number.to_string()).append_pair("model-id", id);
        Self { number, kind, path: path.finish() }
    }
}
