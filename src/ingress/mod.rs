//! The ingress.

pub mod canonical;
mod config;
pub mod h1;

pub use config::*;
