//! What the ingress answers by itself.

mod answer;
mod welcome;

pub(super) use answer::{Answer, Refusal};
pub(super) use welcome::welcome;
