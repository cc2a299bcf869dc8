//! What the edge does, as its users see it.
#![allow(unreachable_pub, missing_docs, reason = "a test binary has no readers outside")]

mod acme;
mod config;
mod dns;
mod dns_encrypted;
mod dns_groups;
mod dns_lists;
mod dns_names;
mod edge;
mod ingress;
#[path = "../internet/mod.rs"]
mod internet;
mod provider;
mod recursion;
#[path = "../scenarios/mod.rs"]
mod scenarios;
mod threats;
mod upstreams;
mod vpn;
mod wan;

use std::path::PathBuf;

/// Where real lists, zones and scenarios lie, if they are there: tests that find them missing say so.
fn data() -> PathBuf {
    match std::env::var_os("HEARTHGATE_DATA") {
        Some(folder) => folder.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
    }
}
