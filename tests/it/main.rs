//! What the edge does, as its users see it.

mod config;
mod dns;
mod dns_lists;
mod edge;
mod ingress;
mod vpn;
