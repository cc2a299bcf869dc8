//! What the edge does, as its users see it.

mod config;
mod ingress;
mod vpn;
mod dns;
mod dns;
mod edge;
mod vpn;
