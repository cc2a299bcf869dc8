//! What the edge does, as its users see it.

mod dns;
mod vpn;
