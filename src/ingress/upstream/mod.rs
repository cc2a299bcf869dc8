//! The side of the servers behind: connections to them, kept per core and per table.

mod body;
mod connect;
mod group;
mod h2;
mod introduction;
mod lane;
mod line;
mod outgoing;
mod pool;
mod stream;
mod wire;

pub(super) use body::{Feed, RequestBody};
pub use connect::TlsError;
pub(super) use connect::{Dial, DialError};
pub(super) use group::{Group, Health, STICKY};
pub(super) use introduction::Ends;
pub(super) use lane::Lane;
pub(super) use line::{Slot, Turnstile, Whose};
pub(super) use outgoing::{Outgoing, SILENCE};
pub(super) use pool::{NO_POOL, Pools};
pub(super) use stream::UpstreamStream;
pub(super) use wire::{Arrival, Fault, UpstreamBody, Wire};
