//! The ingress.

pub mod canonical;
mod config;
pub mod h1;

pub use config::*;

// Stand-in.
use crate::{
    listen::BindError,
    lookup::Lookup,
    metrics::Metrics,
    origin::Networks,
    stream::Inlet,
    supervise::{Phase, Stop},
};
use arc_swap::ArcSwap;
use std::sync::Arc;
#[derive(Debug)]
pub struct Plane;
#[derive(Debug)]
pub struct Prepared;
#[derive(Debug, thiserror::Error)]
#[error("none")]
pub struct Error;
#[derive(serde::Serialize, serde::Deserialize, Debug, Clone)]
pub struct Status {
    pub listen: Vec<std::net::SocketAddr>,
    pub https: Vec<std::net::SocketAddr>,
    pub connections: u64,
}
impl Plane {
    pub fn bind(
        config: &Config,
        networks: Arc<ArcSwap<Networks>>,
        metrics: &Metrics,
        inlet: Option<Inlet>,
        lookup: Lookup,
    ) -> Result<Self, BindError> {
        let _ = (config, networks, metrics, inlet, lookup);
        Ok(Self)
    }
    pub fn prepare(&self, _: Config) -> Result<Prepared, Error> {
        Ok(Prepared)
    }
    pub fn commit(&self, _: Prepared) {}
    pub fn run(&self, stop: Stop) -> Result<(), String> {
        while stop.phase() < Phase::Drain {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Ok(())
    }
    pub fn status(&self) -> Status {
        Status { listen: vec![], https: vec![], connections: 0 }
    }
}
