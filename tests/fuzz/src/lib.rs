//! What strangers' bytes meet first, as plain functions that may do anything but panic. `tests/corpus.rs` replays
//! each over its seeds; `run TARGET SECONDS` searches for new ones.

mod dns;
mod http;
mod wireguard;

pub use dns::dns_message;
pub use http::{http_body, http_head};
pub use wireguard::{inner_packet, wireguard_datagram};
