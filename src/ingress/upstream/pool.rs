//! Connections to upstreams: one at work belongs to its exchange and is driven by that exchange's task;
//! an idle one waits in its core's pool. No task of its own, no lock, no sharing between cores.

use std::{cell::RefCell, collections::HashMap, time::Duration};

use bytes::BytesMut;
use tokio::time::Instant;

use super::Wire;

/// Idle connections of one pool.
const MOST_IDLE: usize = 256;
/// Servers often close after a minute; being first is cheaper than a retry.
const LONGEST_IDLE: Duration = Duration::from_secs(30);
/// What is read at once from an upstream.
const READ: usize = 16 * 1024;

/// The idle connections of one core, and the buffer that all its connections read into.
pub(in crate::ingress) struct Pools {
    // Boxed: one is moved with every request.
    #[expect(clippy::vec_box, reason = "a pointer is moved in place of some hundred bytes")]
    idle: RefCell<HashMap<u32, Vec<Box<Wire>>>>,
    pub(in crate::ingress) scratch: RefCell<BytesMut>,
}

impl Default for Pools {
    fn default() -> Self {
        Self { idle: RefCell::default(), scratch: RefCell::new(BytesMut::with_capacity(READ)) }
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

    /// Keeps a connection for the next request.
    pub(super) fn give(&self, mut wire: Box<Wire>) {
        if !wire.rest() {
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
    }
}
