//! A stream whose first content is long in coming. Its head goes out before it, comments keep the connection
//! open meanwhile, and whatever becomes of it is told in the stream. Another upstream can still be asked:
//! nothing of an answer has been sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::mpsc;
use tracing::Instrument as _;

use super::attempts::Opened;
use super::{Job, Once, Out, Reply, Served, pump};
use crate::dialect::{Ask, Dialect, Shape};
use crate::failure::{Failure, Funds};
use crate::upstream::Plan;

/// What is needed to tell of a failure when the job is no more.
struct Excuse {
    dialect: &'static dyn Dialect,
    shape: Arc<Shape>,
    once: Option<Arc<Once>>,
    served: Served,
    request_id: String,
}

impl Job {
    /// Gets an answer and delivers it: at once where it comes soon, or is not sent before it is whole.
    pub(super) async fn answer(self: Box<Self>, plan: Plan, ask: Ask) -> Result<Reply, Failure> {
        let Some(patience) = self.patience() else {
            let (job, opened) = self.answered(plan, ask).await?;
            return job.deliver(opened).await;
        };
        let (exchange, form) = (Arc::clone(&self.exchange), self.form());
        let is_begun = Arc::clone(&self.is_begun);
        let excuse = Excuse {
            dialect: self.dialect,
            shape: Arc::clone(&self.shape),
            once: self.once.clone(),
            served: self.served(),
            request_id: self.request_id.clone(),
        };
        let mut answering = Box::pin(self.answered(plan, ask));
        match tokio::time::timeout(patience, &mut answering).await {
            Ok(answered) => {
                let (job, opened) = answered?;
                job.deliver(opened).await
            }
            Err(_) => {
                is_begun.store(true, Ordering::Relaxed);
                Ok(Reply::Stream(Box::new(exchange.start(form, |out| go_on(answering, excuse, out).in_current_span()))))
            }
        }
    }

    /// How long a client waits for the head of a stream; `None`: until there is an answer.
    fn patience(&self) -> Option<Duration> {
        if self.whole { None } else { self.keep_alive() }
    }
}

async fn go_on(
    answering: impl Future<Output = Result<(Box<Job>, Opened), Failure>>,
    excuse: Excuse,
    out: mpsc::Sender<Out>,
) -> Result<(), Failure> {
    let told = out.clone();
    let outcome = match answering.await {
        Ok((job, Opened::Stream(opening))) => pump::run(job, *opening, out).await,
        Ok((job, Opened::Whole(answered))) => Box::pin(pump::tell(job, *answered, out)).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = outcome {
        excuse.tell(&failure, &told).await;
    }
    Ok(())
}

impl Excuse {
    /// Tells the client, with what is left of its token, and those who repeat the request.
    async fn tell(self, failure: &Failure, out: &mpsc::Sender<Out>) {
        tracing::warn!(request = %self.request_id, %failure, "a stream failed before it began");
        let mut last = BytesMut::new();
        if let Funds::Returned(token) = &failure.funds {
            last.extend_from_slice(pump::change_comment(token).as_bytes());
        }
        let meter = self.dialect.meter(&self.shape);
        let (kind, code) = failure.names();
        last.extend_from_slice(&meter.error_event(&failure.message, kind, code));
        if let Some(once) = &self.once {
            let mut tape = once.tape(self.served);
            tape.record(&last);
            if failure.took_a_token() { tape.keep().await } else { tape.forget().await }
        }
        // Nobody to take it is no trouble: the money is where it belongs.
        let _gone = out.send(Out::Data(last.freeze())).await;
    }
}
