//! The update URL of a dynamic DNS service, as routers ask it.

use std::net::IpAddr;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use hyper::{Request, header};

use super::{Fault, Reach, Token};
use crate::public_dns::Zone;

/// An account there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dyndns2 {
    /// With `{name}` and `{ip}` where they belong.
    pub url: String,
    /// The user.
    pub username: String,
    /// The password.
    pub password: Token,
}

impl Dyndns2 {
    pub(super) async fn set(&self, reach: &Reach, zone: &Zone, address: &IpAddr) -> Result<(), Fault> {
        let name = zone.name.to_ascii();
        let url = self.url.replace("{name}", name.trim_end_matches('.')).replace("{ip}", &address.to_string());
        let account = BASE64_STANDARD.encode(format!("{}:{}", self.username, self.password.0));
        let request = Request::get(url).header(header::AUTHORIZATION, format!("Basic {account}")).body(Bytes::new());
        let request = request.map_err(|error| Fault(error.to_string()))?;
        let answer = reach.client()?.ask(request).await.map_err(|error| Fault(error.to_string()))?;
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        let said: String = text.chars().filter(|letter| !letter.is_control()).take(100).collect();
        let word = text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        match word.as_str() {
            "good" | "nochg" | "ok" if answer.status().is_success() => Ok(()),
            _ => Err(Fault(format!("the service answers {}: {said}", answer.status()))),
        }
    }
}
