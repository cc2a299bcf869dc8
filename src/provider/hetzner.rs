//! Hetzner's API for zones, part of its Cloud API.

use std::net::IpAddr;

use hyper::{Method, StatusCode};
use serde_json::json;

use super::{Change, Fault, Reach, TTL, Token, ask, kind, label_of, origin_of};
use crate::public_dns::Zone;

/// A token of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hetzner {
    /// The token.
    pub token: Token,
    /// Where the API is.
    pub api: String,
}

impl Hetzner {
    /// At the public API.
    pub fn new(token: Token) -> Self {
        Self { token, api: "https://api.hetzner.cloud/v1".into() }
    }

    pub(super) async fn change_text(
        &self,
        reach: &Reach,
        zone: &Zone,
        text: &str,
        change: Change,
    ) -> Result<(), Fault> {
        let records = json!([{"value": format!("\"{text}\"")}]);
        match change {
            Change::Add => {
                let body = json!({"records": records, "ttl": TTL});
                self.act(reach, zone, "TXT", "add_records", body).await?.then_some(()).ok_or_else(|| unseen(zone))
            }
            // What is not there is gone.
            Change::Remove => {
                self.act(reach, zone, "TXT", "remove_records", json!({"records": records})).await.map(drop)
            }
        }
    }

    pub(super) async fn set(&self, reach: &Reach, zone: &Zone, address: &IpAddr) -> Result<(), Fault> {
        let records = json!([{"value": address.to_string()}]);
        if self.act(reach, zone, kind(address), "set_records", json!({"records": records})).await? {
            return Ok(());
        }
        // There was no such set yet.
        let body = json!({"records": records, "ttl": TTL});
        self.act(reach, zone, kind(address), "add_records", body).await?.then_some(()).ok_or_else(|| unseen(zone))
    }

    /// Does something with a set of records; false if the set or the zone is not there.
    async fn act(
        &self,
        reach: &Reach,
        zone: &Zone,
        kind: &str,
        action: &str,
        body: serde_json::Value,
    ) -> Result<bool, Fault> {
        let label = match label_of(zone) {
            label if label.is_empty() => "@".to_owned(),
            label => label,
        };
        let url = format!("{}/zones/{}/rrsets/{label}/{kind}/actions/{action}", self.api, origin_of(zone));
        let bearer = format!("Bearer {}", self.token.0);
        let asked = ask(&reach.client()?, Method::POST, &url, ("authorization", &bearer), Some(body)).await?;
        Ok(asked.0 != StatusCode::NOT_FOUND)
    }
}

fn unseen(zone: &Zone) -> Fault {
    Fault(format!("the token does not see the zone {}", origin_of(zone)))
}
