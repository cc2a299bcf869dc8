//! The DNS plane.

mod config;

pub use config::*;
