//! What would happen to a question: asked of the plane that knows.

use crate::{
    app::{Edge, control::Refusal},
    dns::explain::{Curious, Explained, Unexplained},
};

impl Edge {
    /// Says what would happen to a question, and why.
    pub async fn explain(&self, curious: Curious) -> Result<Explained, Refusal> {
        let Some(dns) = &self.planes.dns else { return Err(Refusal::missing("there is no [dns]")) };
        dns.explain(curious).await.map_err(|error| match error {
            Unexplained::Name(_) | Unexplained::Type(_) => Refusal::asked(error),
            Unexplained::Down | Unexplained::Busy => Refusal::ours(error),
        })
    }
}
