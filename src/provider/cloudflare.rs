//! Cloudflare's API, version 4.

use std::net::IpAddr;

use hyper::Method;
use serde_json::{Value, json};

use super::{Fault, Reach, TTL, Token, ask, kind, origin_of};
use crate::{https::Client, public_dns::Zone};

/// A token that may edit the zone's DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloudflare {
    /// The token.
    pub token: Token,
    /// Where the API is.
    pub api: String,
}

impl Cloudflare {
    /// At the public API.
    pub fn new(token: Token) -> Self {
        Self { token, api: "https://api.cloudflare.com/client/v4".into() }
    }

    pub(super) async fn present(&self, reach: &Reach, zone: &Zone, text: &str) -> Result<(), Fault> {
        let client = reach.client()?;
        let records = self.records(&client, zone).await?;
        let record = json!({"type": "TXT", "name": name(zone), "content": format!("\"{text}\""), "ttl": TTL});
        self.ask(&client, Method::POST, &records, Some(record)).await.map(drop)
    }

    pub(super) async fn cleanup(&self, reach: &Reach, zone: &Zone, text: &str) -> Result<(), Fault> {
        let client = reach.client()?;
        let records = self.records(&client, zone).await?;
        for (id, content) in self.found(&client, &records, zone, "TXT").await? {
            if content.trim_matches('"') == text {
                self.ask(&client, Method::DELETE, &format!("{records}/{id}"), None).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn set(&self, reach: &Reach, zone: &Zone, address: &IpAddr) -> Result<(), Fault> {
        let client = reach.client()?;
        let records = self.records(&client, zone).await?;
        let record = json!({"type": kind(address), "name": name(zone), "content": address.to_string(), "ttl": TTL});
        let mut found = self.found(&client, &records, zone, kind(address)).await?.into_iter();
        match found.next() {
            // What else is set of it (that it is proxied, a comment) stays.
            Some((id, _)) => self.ask(&client, Method::PATCH, &format!("{records}/{id}"), Some(record)).await?,
            None => self.ask(&client, Method::POST, &records, Some(record)).await?,
        };
        for (id, _) in found {
            self.ask(&client, Method::DELETE, &format!("{records}/{id}"), None).await?;
        }
        Ok(())
    }

    async fn records(&self, client: &Client, zone: &Zone) -> Result<String, Fault> {
        let origin = origin_of(zone);
        let found = self.ask(client, Method::GET, &format!("{}/zones?name={origin}", self.api), None).await?;
        match found["result"][0]["id"].as_str() {
            Some(id) => Ok(format!("{}/zones/{id}/dns_records", self.api)),
            None => Err(Fault(format!("the token does not see the zone {origin}"))),
        }
    }

    async fn found(
        &self,
        client: &Client,
        records: &str,
        zone: &Zone,
        kind: &str,
    ) -> Result<Vec<(String, String)>, Fault> {
        let url = format!("{records}?type={kind}&name={}&per_page=100", name(zone));
        let found = self.ask(client, Method::GET, &url, None).await?;
        let of = |record: &Value| Some((record["id"].as_str()?.to_owned(), record["content"].as_str()?.to_owned()));
        Ok(found["result"].as_array().into_iter().flatten().filter_map(of).collect())
    }

    async fn ask(&self, client: &Client, method: Method, url: &str, body: Option<Value>) -> Result<Value, Fault> {
        let bearer = format!("Bearer {}", self.token.0);
        let (status, answer) = ask(client, method, url, ("authorization", &bearer), body).await?;
        if status.is_success() { Ok(answer) } else { Err(Fault(format!("the provider answers {status}"))) }
    }
}

fn name(zone: &Zone) -> String {
    zone.name.to_ascii().trim_end_matches('.').to_owned()
}
