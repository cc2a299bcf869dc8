//! Connections to upstreams: one at work belongs to its exchange and is driven by that exchange's task;
//! an idle one waits in its core's pool. No task of its own, no lock, no sharing between cores.

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use bytes::BytesMut;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{Dial, DialError, Lane, Wire, h2::Connection};
use crate::lookup::Lookup;

/// A connection of this pool is never kept.
pub(in crate::ingress) const NO_POOL: u32 = u32::MAX;
/// Idle connections of one pool.
const MOST_IDLE: usize = 256;
/// Connections of one pool that many requests share.
const MOST_SHARED: usize = 8;
/// Servers often close after a minute; being first is cheaper than a retry.
const LONGEST_IDLE: Duration = Duration::from_secs(30);
/// What is read at once from an upstream.
const READ: usize = 16 * 1024;

/// The idle connections of one core, and the buffer that all its connections read into.
pub(in crate::ingress) struct Pools {
    // Boxed: one is moved with every request.
    #[expect(clippy::vec_box, reason = "a pointer is moved in place of some hundred bytes")]
    idle: RefCell<HashMap<u32, Vec<Box<Wire>>>>,
    shared: RefCell<HashMap<u32, Shared>>,
    pub(in crate::ingress) scratch: RefCell<BytesMut>,
}

/// The connections of HTTP/2 to one upstream.
struct Shared {
    connections: Vec<Connection>,
    /// One request at a time opens another: those that come meanwhile share it.
    turn: Rc<Semaphore>,
}

impl Default for Pools {
    fn default() -> Self {
        Self {
            idle: RefCell::default(),
            shared: RefCell::default(),
            scratch: RefCell::new(BytesMut::with_capacity(READ)),
        }
    }
}

impl Pools {
    /// Takes the connection that was used last, if it still lives.
    pub(in crate::ingress) fn take(&self, pool: u32) -> Option<Box<Wire>> {
        let mut idle = self.idle.borrow_mut();
        let wires = idle.get_mut(&pool)?;
        while let Some(mut wire) = wires.pop() {
            if wire.is_quiet() {
                return Some(wire);
            }
        }
        None
    }

    /// Makes room for one request on a connection that many share, or opens one more.
    pub(in crate::ingress) async fn stream(
        &self,
        dial: &Dial,
        lookup: &Lookup,
        limit: Duration,
        fresh_only: bool,
    ) -> Result<Lane, DialError> {
        let shared = || self.roomy(dial).filter(|_| !fresh_only);
        if let Some(lane) = shared() {
            return Ok(lane);
        }
        let turn = {
            let mut all = self.shared.borrow_mut();
            let made = || Shared { connections: Vec::new(), turn: Rc::new(Semaphore::new(1)) };
            all.entry(dial.pool).or_insert_with(made).turn.clone()
        };
        let _turn = timeout(limit, turn.acquire()).await.map_err(|_| DialError::TimedOut)?;
        if let Some(lane) = shared() {
            return Ok(lane);
        }
        let begun = Instant::now();
        let connected = dial.connect(lookup, limit, None).await?;
        let connection = dial.begin(connected, limit.saturating_sub(begun.elapsed())).await?;
        let stream = connection.open(dial.scheme());
        if let Some(shared) = self.shared.borrow_mut().get_mut(&dial.pool) {
            shared.connections.retain(|connection| connection.is_wanted(|_| true));
            // One that is not kept ends with its request.
            if shared.connections.len() < MOST_SHARED {
                shared.connections.push(connection);
            }
        }
        Ok(Lane::Stream(stream))
    }

    fn roomy(&self, dial: &Dial) -> Option<Lane> {
        let shared = self.shared.borrow();
        let mut connections = shared.get(&dial.pool)?.connections.iter();
        connections.find(|connection| connection.has_room()).map(|found| Lane::Stream(found.open(dial.scheme())))
    }

    /// Keeps a connection for the next request.
    pub(super) fn give(&self, mut wire: Box<Wire>) {
        if wire.pool == NO_POOL || !wire.rest() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let wires = idle.entry(wire.pool).or_default();
        if wires.len() < MOST_IDLE {
            wires.push(wire);
        }
    }

    /// Closes what was idle for too long or is closed at the other end.
    pub(in crate::ingress) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, wires| {
            wires.retain_mut(|wire| now.duration_since(wire.idle_since) < LONGEST_IDLE && wire.is_quiet());
            !wires.is_empty()
        });
        self.shared.borrow_mut().retain(|_, shared| {
            let lately = |since| now.duration_since(since) < LONGEST_IDLE;
            shared.connections.retain(|connection| connection.is_wanted(lately));
            // Somebody may wait for a turn.
            !shared.connections.is_empty() || Rc::strong_count(&shared.turn) > 1
        });
    }
}
