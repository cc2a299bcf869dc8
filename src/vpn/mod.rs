//! The VPN gate.

mod config;
pub mod keys;

pub use config::*;

// Stand-in.
use crate::{
    listen::BindError,
    metrics::Metrics,
    stream::Outlet,
    supervise::{Phase, Stop},
};
#[derive(Default)]
pub struct Outlets {
    pub dns: Option<Outlet>,
    pub ingress: Option<Outlet>,
    pub metrics: Option<Outlet>,
}
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
    pub fn bind(config: &Config, metrics: &Metrics, outlets: Outlets) -> Result<Self, BindError> {
        let _ = (config, metrics, outlets);
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
