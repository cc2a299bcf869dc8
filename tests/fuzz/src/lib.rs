//! What strangers' bytes meet first, as plain functions that may do anything but panic. `tests/corpus.rs` replays
//! each over its seeds; `run TARGET SECONDS` searches for new ones.

mod dns;
mod http;
mod tls;
mod wireguard;

pub use dns::{dns_message, https_question, server_answers};
pub use http::{http_body, http_head, http_reply};
pub use tls::{client_hello, preamble};
pub use wireguard::{inner_packet, wireguard_datagram};
