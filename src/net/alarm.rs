//! When something takes too long that is waited for again and again.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

/// Goes off at a time that is put off again and again. A timer of the runtime is moved only when it goes off, or where
/// the time comes sooner: to put it off costs nothing.
#[derive(Debug)]
pub struct Alarm {
    due: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Alarm {
    #[must_use]
    pub fn new(due: Instant) -> Self {
        Self { due, sleep: Box::pin(tokio::time::sleep_until(due)) }
    }

    /// When it goes off from now on.
    pub fn set(&mut self, due: Instant) {
        self.due = due;
        if due < self.sleep.deadline() {
            self.sleep.as_mut().reset(due);
        }
    }

    /// Ready when it is due.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if Instant::now() >= self.due {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(self.due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_when_it_is_due_however_it_was_moved() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut alarm = Alarm::new(at(10));
        for (moves, due) in [(&[20, 30][..], 30), (&[90, 40], 40), (&[41], 41)] {
            moves.iter().for_each(|seconds| alarm.set(at(*seconds)));
            poll_fn(|cx| alarm.poll(cx)).await;
            assert_eq!(Instant::now(), at(due));
        }
    }
}
