//! Which upstreams could serve a request.

use super::refusals::unsupported;
use super::{Call, Exchange};
use crate::catalog::route::Candidate;
use crate::dialect::body::{self, Lens};
use crate::dialect::{Dialect, Shape};
use crate::failure::{Code, Failure};
use crate::payment::Payment;
use crate::upstream::{Names, Plan, Requirements, Session, Unavailable};

const BUSY: &str = "What could serve this model is busy right now.";

impl Exchange {
    /// What could serve this request, by the way that the client names if it names one.
    pub(super) fn plan(
        &self,
        dialect: &dyn Dialect,
        shape: &Shape,
        candidate: &Candidate,
        by: Option<&str>,
        session: Option<Session>,
    ) -> Result<Plan, Failure> {
        let names = Names { asked: &shape.model, id: &candidate.id, forwarded: &candidate.forwarded };
        let tags = candidate.upstream_tags();
        let kind = by.map(|path| self.kind_named(path, names, tags)).transpose()?;
        let wanted = Requirements { format: dialect.wire_format(), names, tags, needs: shape.needs, kind };
        self.pool.plan(&wanted, session).map_err(|why| self.unavailable(why, dialect, shape))
    }

    /// The kind of upstream that a way to this model leads to.
    fn kind_named(&self, path: &str, names: Names<'_>, tags: &[String]) -> Result<&'static str, Failure> {
        let found = self.pool.ways(names, tags).into_iter().find(|way| way.path == path).map(|way| way.kind);
        found.ok_or_else(|| {
            let message = format!(
                "Model '{}' is not reached here by this x-routstr-model-path. GET /v1/models/paths lists the ways.",
                names.asked
            );
            Failure::client(Code::InvalidModelPath, message)
        })
    }

    /// The conversation that a request is a turn of, where there is a choice that depends on it.
    pub(super) fn session(&self, call: &Call) -> Option<Session> {
        if !self.pool.has_choice() {
            return None;
        }
        let named = || Lens::parse(&call.sent.body).ok()?.present("prompt_cache_key").and_then(body::string);
        let name = call.conversation.clone().or_else(named)?;
        // A token that rides along is another payer each time.
        let payer = match &call.payment {
            Payment::OneShot(_) => None,
            payment => payment.key_hex(),
        };
        Some(self.pool.session(payer.unwrap_or_default(), &name))
    }

    /// Nobody can be asked, and nothing was taken.
    pub(super) fn unavailable(&self, why: Unavailable, dialect: &dyn Dialect, shape: &Shape) -> Failure {
        let later = |message: &str, secs| Failure::unavailable(Code::UpstreamUnavailable, message, secs);
        let unknown = |what: &str| Failure::client(Code::InvalidModel, format!("Model '{}' {what}", shape.model));
        match why {
            Unavailable::None => later("This node has no upstream to forward to.", 60),
            // One of the price list is sold as soon as there is somebody to serve it again.
            Unavailable::Unserved if self.market.canonical(&shape.model).is_some() => {
                later("No upstream of this node serves this model right now.", 60)
            }
            Unavailable::Unserved => unknown("not found"),
            Unavailable::NotServed => unknown("is not served at this endpoint"),
            Unavailable::Lacking(feature) => unsupported(feature, dialect, shape),
            Unavailable::Out { secs } => later("What could serve this model is not available right now.", secs),
            Unavailable::Busy => Failure::unavailable(Code::UpstreamRateLimited, BUSY, 1),
            Unavailable::Exhausted => later(BUSY, 1),
        }
    }
}
