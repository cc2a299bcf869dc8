//! What would happen to a question: asked of the plane that knows.

use crate::{
    app::{Edge, control::Refusal},
    dns::explain::{Curious, Explained, Unexplained},
    ingress,
};

impl Edge {
    /// Says what would happen to a request, and why.
    pub fn explain_url(&self, curious: &ingress::explain::Curious) -> Result<ingress::explain::Explained, Refusal> {
        let Some(ingress) = &self.planes.ingress else { return Err(Refusal::missing("there is no [ingress]")) };
        ingress.explain(curious).map_err(Refusal::asked)
    }

    /// Says what would happen to a question, and why.
    pub async fn explain(&self, curious: Curious) -> Result<Explained, Refusal> {
        let Some(dns) = &self.planes.dns else { return Err(Refusal::missing("there is no [dns]")) };
        dns.explain(curious).await.map_err(|error| match error {
            Unexplained::Name(_) | Unexplained::Type(_) => Refusal::asked(error),
            Unexplained::Down | Unexplained::Busy | Unexplained::Lists(_) => Refusal::ours(error),
        })
    }
}
