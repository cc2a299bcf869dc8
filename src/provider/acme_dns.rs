//! The API of acme-dns: a server that holds challenges, to which `_acme-challenge` is an alias.

use hyper::Method;
use serde_json::json;

use super::{Fault, Reach, Token};

/// An account there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeDns {
    /// Where it is, as `https://auth.acme-dns.io`.
    pub url: String,
    /// As its registration answered.
    pub username: String,
    /// As its registration answered.
    pub password: Token,
    /// As its registration answered.
    pub subdomain: String,
}

impl AcmeDns {
    pub(super) async fn present(&self, reach: &Reach, text: &str) -> Result<(), Fault> {
        let body = json!({"subdomain": self.subdomain, "txt": text}).to_string();
        let request = hyper::Request::builder()
            .method(Method::POST)
            .uri(format!("{}/update", self.url.trim_end_matches('/')))
            .header("x-api-user", &self.username)
            .header("x-api-key", &self.password.0)
            .header("content-type", "application/json")
            .body(bytes::Bytes::from(body))
            .map_err(|_| Fault("the account has letters that no header may have".into()))?;
        let answer = reach.client()?.ask(request).await.map_err(|error| Fault(error.to_string()))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(Fault(format!("the server answers {status}"))),
        }
    }
}
