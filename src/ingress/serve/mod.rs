//! What the ingress answers by itself.

mod answer;
mod compress;
mod welcome;

pub(super) use answer::{Answer, Refusal};
pub use compress::Coding;
pub(super) use compress::{Compressor, Taste, Verdict, announce};
pub(crate) use welcome::escaped;
pub(super) use welcome::welcome;
