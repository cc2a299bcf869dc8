//! The side of the servers behind: connections to them, kept per core and per table.

mod body;
mod connect;
mod pool;

pub(super) use body::{Feed, RequestBody};
pub use connect::TlsError;
pub(super) use connect::{Dial, DialError};
pub(super) use pool::{Arrival, Pools, UpstreamBody, UpstreamStream, Wire};
