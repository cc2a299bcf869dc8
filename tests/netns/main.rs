//! Real kernels and real clients: each test builds a small Internet out of network namespaces, with a
//! house, its router, authoritative servers, an upstream and a WireGuard client that others wrote.
//!
//! Needs root and the programs that a test names; without them it says `SKIPPED` and passes, unless
//! `HEARTHGATE_NETNS=required` is set, as `.ci/run` does. Nothing leaves the namespaces.

mod client;
mod edge;
mod servers;
mod tunnel;
mod world;

mod clock;
mod devices;
mod differential;
mod dns;
mod doctor;
mod endurance;
mod floods;
mod hidden;
mod house;
mod ingress;
mod moves;
mod nat;
mod observe;
mod outage;
mod relay;
mod scenarios;
mod siege;
mod tun;
mod vpn;
