//! The VPN gate.

mod config;
pub mod keys;

pub use config::*;
