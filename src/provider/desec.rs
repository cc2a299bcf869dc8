//! deSEC's API.

use std::net::IpAddr;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Change, Fault, Reach, Token, ask, kind, label_of, origin_of};
use crate::{https::Client, public_dns::Zone};

/// What it lets records live at least, if it does not say otherwise.
const LEAST_TTL: u64 = 3600;

/// A token of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desec {
    /// The token.
    pub token: Token,
    /// Where the API is.
    pub api: String,
}

impl Desec {
    /// At the public API.
    pub fn new(token: Token) -> Self {
        Self { token, api: "https://desec.io/api/v1".into() }
    }

    pub(super) async fn change_text(
        &self,
        reach: &Reach,
        zone: &Zone,
        text: &str,
        change: Change,
    ) -> Result<(), Fault> {
        let client = reach.client()?;
        let quoted = format!("\"{text}\"");
        let label = match label_of(zone) {
            label if label.is_empty() => "@".to_owned(),
            label => label,
        };
        let url = format!("{}/domains/{}/rrsets/{label}/TXT/", self.api, origin_of(zone));
        let (status, found) = self.ask(&client, Method::GET, &url, None).await?;
        let there = found["records"].as_array().filter(|_| status != StatusCode::NOT_FOUND);
        let mut records: Vec<String> =
            there.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        records.retain(|record| *record != quoted);
        if change == Change::Add {
            records.push(quoted);
        }
        self.put(&client, zone, "TXT", records).await
    }

    pub(super) async fn set(&self, reach: &Reach, zone: &Zone, address: &IpAddr) -> Result<(), Fault> {
        self.put(&reach.client()?, zone, kind(address), vec![address.to_string()]).await
    }

    /// Replaces a set of records; an empty one is taken away.
    async fn put(&self, client: &Client, zone: &Zone, kind: &str, records: Vec<String>) -> Result<(), Fault> {
        let domain = format!("{}/domains/{}/", self.api, origin_of(zone));
        let (status, about) = self.ask(client, Method::GET, &domain, None).await?;
        if status == StatusCode::NOT_FOUND {
            return Err(Fault(format!("the token does not see the zone {}", origin_of(zone))));
        }
        let ttl = about["minimum_ttl"].as_u64().unwrap_or(LEAST_TTL);
        let set = json!([{"subname": label_of(zone), "type": kind, "ttl": ttl, "records": records}]);
        self.ask(client, Method::PUT, &format!("{domain}rrsets/"), Some(set)).await.map(drop)
    }

    async fn ask(
        &self,
        client: &Client,
        method: Method,
        url: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Value), Fault> {
        let credential = format!("Token {}", self.token.0);
        ask(client, method, url, ("authorization", &credential), body).await
    }
}
