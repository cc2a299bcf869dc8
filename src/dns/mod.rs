//! The DNS plane.

mod config;
pub mod filter;

pub use config::*;
