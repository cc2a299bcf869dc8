//! The ingress.

pub mod canonical;
mod config;

pub use config::*;

// Stand-in.
use std::sync::Arc; use arc_swap::ArcSwap; use crate::{listen::BindError, lookup::Lookup, metrics::Metrics, origin::Networks, stream::Inlet, supervise::{Stop, Phase}};
#[derive(Debug)] pub struct Plane;
#[derive(Debug)] pub struct Prepared;
#[derive(Debug, thiserror::Error)] #[error("none")] pub struct Error;
#[derive(serde::Serialize, serde::Deserialize, Debug, Clone)] pub struct Status {}
impl Plane {
 pub fn bind(config: &Config, networks: Arc<ArcSwap<Networks>>, metrics: &Metrics, inlet: Option<Inlet>, lookup: Lookup) -> Result<Self, BindError> { let _ = (config, networks, metrics, inlet, lookup); Ok(Self) }
 pub fn prepare(&self, _: Config) -> Result<Prepared, Error> { Ok(Prepared) }
 pub fn commit(&self, _: Prepared) {}
 pub fn run(&self, stop: Stop) -> Result<(), String> { while stop.phase() < Phase::Drain { std::thread::sleep(std::time::Duration::from_millis(50)); } Ok(()) }
 pub fn status(&self) -> Status { Status {} }
 
}
