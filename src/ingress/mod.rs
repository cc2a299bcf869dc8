//! The ingress.

pub mod canonical;
mod config;

pub use config::*;
