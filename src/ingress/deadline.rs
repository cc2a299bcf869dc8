//! One timer for all the waits of a connection.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that is moved often and reached seldom: moving it on costs nothing until the timer rings.
#[derive(Debug)]
pub(super) struct Deadline {
    at: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Deadline {
    pub(super) fn after(limit: Duration) -> Self {
        let at = Instant::now() + limit;
        Self { at, timer: Box::pin(sleep_until(at)) }
    }

    /// Moves the deadline.
    pub(super) fn set(&mut self, limit: Duration) {
        self.set_at(Instant::now() + limit);
    }

    /// Moves the deadline to a moment.
    pub(super) fn set_at(&mut self, at: Instant) {
        self.at = at;
        if self.at < self.timer.deadline() {
            self.timer.as_mut().reset(self.at);
        }
    }

    /// Is ready when the deadline has passed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= self.at {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.at);
        }
        Poll::Pending
    }
}
