//! How many requests one server has at once, and the line of those that wait for it.
//!
//! Strangers have three quarters of both, and of the line one client has a quarter of that: whatever comes from the
//! Internet, the house and the tunnel find room, and so do other strangers.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::{ingress::ServerLimit, limit::Client};

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingress) enum Whose {
    /// Of the house or the tunnel.
    House,
    /// Of a client from the Internet.
    Stranger(Client),
}

/// The door of a server, for all cores and tables. It survives a reload.
#[derive(Debug)]
pub(in crate::ingress) struct Turnstile {
    pub(in crate::ingress) limit: ServerLimit,
    free: Arc<Semaphore>,
    /// What strangers may have of `free`.
    share: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
}

/// No longer than the line.
#[derive(Debug, Default)]
struct Waiting {
    all: u32,
    strangers: u32,
    each: HashMap<Client, u32>,
}

/// The right to have one request at work there.
#[derive(Debug)]
pub(in crate::ingress) struct Slot {
    _share: Option<OwnedSemaphorePermit>,
    _held: OwnedSemaphorePermit,
}

/// A place in the line. Who came first is let in first; who goes away leaves the line.
pub(in crate::ingress) struct Place {
    door: Arc<Turnstile>,
    whose: Whose,
    turn: Pin<Box<dyn Future<Output = Result<Slot, AcquireError>>>>,
}

/// Three quarters, and never nothing of something.
fn most_of(number: u32) -> u32 {
    number - number / 4
}

impl Turnstile {
    pub(in crate::ingress) fn new(limit: ServerLimit) -> Self {
        let room = |number: u32| Arc::new(Semaphore::new(usize::try_from(number).unwrap_or(Semaphore::MAX_PERMITS)));
        let (free, share) = (room(limit.connections), room(most_of(limit.connections)));
        Self { limit, free, share, waiting: Mutex::default() }
    }

    /// Lets a request in at once, if it need not wait.
    pub(in crate::ingress) fn enter(&self, whose: Whose) -> Option<Slot> {
        let share = match whose {
            Whose::House => None,
            Whose::Stranger(_) => Some(self.share.clone().try_acquire_owned().ok()?),
        };
        let held = self.free.clone().try_acquire_owned().ok()?;
        Some(Slot { _share: share, _held: held })
    }

    /// Gives a place in the line, if there is one.
    pub(in crate::ingress) fn wait(self: &Arc<Self>, whose: Whose) -> Option<Place> {
        let mut waiting = self.waiting();
        if waiting.all >= self.limit.queue {
            return None;
        }
        if let Whose::Stranger(client) = whose {
            let strangers = most_of(self.limit.queue);
            let of_one = waiting.each.get(&client).copied().unwrap_or(0);
            if waiting.strangers >= strangers || of_one >= strangers.div_ceil(4) {
                return None;
            }
            waiting.strangers += 1;
            *waiting.each.entry(client).or_default() += 1;
        }
        waiting.all += 1;
        drop(waiting);
        let (free, share) = (self.free.clone(), self.share.clone());
        let turn = async move {
            let share = match whose {
                Whose::House => None,
                Whose::Stranger(_) => Some(share.acquire_owned().await?),
            };
            Ok(Slot { _share: share, _held: free.acquire_owned().await? })
        };
        Some(Place { door: self.clone(), whose, turn: Box::pin(turn) })
    }

    /// Returns how many are at work there, and how many wait.
    pub(in crate::ingress) fn count(&self) -> (u32, u32) {
        let free = u32::try_from(self.free.available_permits()).unwrap_or(u32::MAX);
        (self.limit.connections.saturating_sub(free), self.waiting().all)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Is ready when it is this one's turn.
    pub(in crate::ingress) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Slot>> {
        let slot = ready!(self.turn.as_mut().poll(cx));
        Poll::Ready(slot.ok())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.door.waiting();
        waiting.all -= 1;
        if let Whose::Stranger(client) = self.whose {
            waiting.strangers -= 1;
            if let Some(count) = waiting.each.get_mut(&client) {
                *count -= 1;
                if *count == 0 {
                    waiting.each.remove(&client);
                }
            }
        }
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

        let inside = door.enter(Whose::House).unwrap();
        assert!(door.enter(Whose::House).is_none());
        let (mut first, mut second) = (door.wait(Whose::House).unwrap(), door.wait(Whose::House).unwrap());
        assert!(door.wait(Whose::House).is_none());
        assert!(first.poll(&mut cx).is_pending() && second.poll(&mut cx).is_pending());
        assert_eq!(door.count(), (1, 2));
        drop(inside);

        assert!(door.enter(Whose::House).is_none(), "nobody overtakes the line");
        assert!(second.poll(&mut cx).is_pending());
        let Poll::Ready(Some(inside)) = first.poll(&mut cx) else { panic!("it is the first one's turn") };
        drop((first, inside));
        assert!(matches!(second.poll(&mut cx), Poll::Ready(Some(_))));
    }

    #[test]
    fn strangers_leave_room_for_the_house_and_one_of_them_for_others() {
        let limit = ServerLimit { connections: 4, queue: 16, wait: Duration::from_secs(1) };
        let door = Arc::new(Turnstile::new(limit));
        let stranger = |last: u8| Whose::Stranger(Client::of([198, 51, 100, last].into()));
        let mut cx = Context::from_waker(Waker::noop());

        let mut inside: Vec<Slot> = (0..4).filter_map(|_| door.enter(stranger(1))).collect();
        assert_eq!(inside.len(), 3);
        let mut line: Vec<Place> = (0..16).filter_map(|_| door.wait(stranger(1))).collect();
        assert_eq!(line.len(), 3, "a quarter of what strangers have");
        line.extend((0..=255).filter_map(|last| door.wait(stranger(last))));
        assert_eq!((line.len(), door.count()), (12, (3, 12)));

        // The house is let in past all of them, and has places in the line.
        let house = door.enter(Whose::House).unwrap();
        let mut waiting = door.wait(Whose::House).unwrap();
        assert!(waiting.poll(&mut cx).is_pending() && line[0].poll(&mut cx).is_pending());
        drop(house);
        assert!(matches!(waiting.poll(&mut cx), Poll::Ready(Some(_))));
        inside.clear();
        assert!(matches!(line[0].poll(&mut cx), Poll::Ready(Some(_))));
        line.clear();
        assert!(door.waiting().each.is_empty() && door.waiting().strangers == 0);
    }
}
