//! How many requests one server has at once, and the line of those that wait for it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::ingress::ServerLimit;

/// The door of a server, for all cores and tables. It survives a reload.
#[derive(Debug)]
pub(in crate::ingress) struct Turnstile {
    pub(in crate::ingress) limit: ServerLimit,
    free: Arc<Semaphore>,
    waiting: AtomicU32,
}

/// The right to have one request at work there.
#[derive(Debug)]
pub(in crate::ingress) struct Slot {
    _held: OwnedSemaphorePermit,
}

/// A place in the line. Who came first is let in first; who goes away leaves the line.
pub(in crate::ingress) struct Place {
    door: Arc<Turnstile>,
    turn: Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>>>>,
}

impl Turnstile {
    pub(in crate::ingress) fn new(limit: ServerLimit) -> Self {
        let free = Arc::new(Semaphore::new(usize::try_from(limit.connections).unwrap_or(Semaphore::MAX_PERMITS)));
        Self { limit, free, waiting: AtomicU32::new(0) }
    }

    /// Lets a request in at once, if it need not wait.
    pub(in crate::ingress) fn enter(&self) -> Option<Slot> {
        let held = self.free.clone().try_acquire_owned().ok()?;
        Some(Slot { _held: held })
    }

    /// Gives a place in the line, if there is one.
    pub(in crate::ingress) fn wait(self: &Arc<Self>) -> Option<Place> {
        let room = |waiting: u32| (waiting < self.limit.queue).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        Some(Place { door: self.clone(), turn: Box::pin(self.free.clone().acquire_owned()) })
    }

    /// Returns how many are at work there, and how many wait.
    pub(in crate::ingress) fn count(&self) -> (u32, u32) {
        let free = u32::try_from(self.free.available_permits()).unwrap_or(u32::MAX);
        (self.limit.connections.saturating_sub(free), self.waiting.load(Ordering::Relaxed))
    }
}

impl Place {
    /// Is ready when it is this one's turn.
    pub(in crate::ingress) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Slot>> {
        let held = ready!(self.turn.as_mut().poll(cx));
        Poll::Ready(held.ok().map(|held| Slot { _held: held }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{task::Waker, time::Duration};

    use super::*;

    #[test]
    fn who_came_first_is_let_in_first_and_the_line_has_an_end() {
        let limit = ServerLimit { connections: 1, queue: 2, wait: Duration::from_secs(1) };
        let door = Arc::new(Turnstile::new(limit));
        let mut cx = Context::from_waker(Waker::noop());

        let inside = door.enter().unwrap();
        assert!(door.enter().is_none());
        let (mut first, mut second) = (door.wait().unwrap(), door.wait().unwrap());
        assert!(door.wait().is_none());
        assert!(first.poll(&mut cx).is_pending() && second.poll(&mut cx).is_pending());
        assert_eq!(door.count(), (1, 2));
        drop(inside);

        assert!(door.enter().is_none(), "nobody overtakes the line");
        assert!(second.poll(&mut cx).is_pending());
        let Poll::Ready(Some(inside)) = first.poll(&mut cx) else { panic!("it is the first one's turn") };
        drop((first, inside));
        assert!(matches!(second.poll(&mut cx), Poll::Ready(Some(_))));
    }
}
