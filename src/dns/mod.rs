//! The DNS plane.

mod config;
pub mod resolver;

pub use config::*;
