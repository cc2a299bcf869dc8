//! Whoever holds the owner's public zones: a record can be put there and taken away again.
//!
//! Each provider is one file with the same verbs. They are asked through the house's own resolver and never more
//! than the one record that is meant is touched.

mod acme_dns;
mod cloudflare;
mod desec;
mod dyndns2;
mod hetzner;
mod rfc2136;

use std::{fmt, net::IpAddr, path::PathBuf};

use bytes::Bytes;
use hyper::{Method, Request, StatusCode, header};
use serde_json::Value;

pub use self::{
    acme_dns::AcmeDns,
    cloudflare::Cloudflare,
    desec::Desec,
    dyndns2::Dyndns2,
    hetzner::Hetzner,
    rfc2136::{Algorithm, Rfc2136},
};
use crate::{
    helper::Helper,
    https::Client,
    lookup::Lookup,
    public_dns::{PublicDns, Zone},
};

/// What the records live, in seconds: short, they come and go.
const TTL: u32 = 60;

/// How a provider is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// A name server that takes signed updates.
    Rfc2136(Rfc2136),
    /// A server that holds challenges only.
    AcmeDns(AcmeDns),
    /// Cloudflare.
    Cloudflare(Cloudflare),
    /// deSEC.
    Desec(Desec),
    /// Hetzner.
    Hetzner(Hetzner),
    /// The update URL of a dynamic DNS service: addresses only.
    Dyndns2(Dyndns2),
    /// A program of the owner's: `present NAME VALUE` and `cleanup NAME VALUE`.
    Program(PathBuf),
}

/// What is needed to reach providers and to see what they do.
#[derive(Clone, Debug)]
pub struct Reach {
    /// Names to addresses.
    pub lookup: Lookup,
    /// What others see.
    pub public: PublicDns,
    /// Runs programs of the owner's.
    pub helper: Option<Helper>,
}

impl Reach {
    /// Reaches what this finds and what the system's resolver says; runs no programs.
    pub fn new(lookup: Lookup) -> Self {
        Self { lookup, public: PublicDns::system(), helper: None }
    }

    fn client(&self) -> Result<Client, Fault> {
        Client::new(None, self.lookup.clone()).map_err(|error| Fault(error.to_string()))
    }
}

/// Why a provider did not do what it should.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// A secret of the owner's; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Provider {
    /// Puts a text at a name, beside those that are there.
    pub async fn present(&self, reach: &Reach, zone: &Zone, text: &str) -> Result<(), Fault> {
        match self {
            Self::Rfc2136(one) => one.change_text(zone, text, Change::Add).await,
            Self::AcmeDns(one) => one.present(reach, text).await,
            Self::Cloudflare(one) => one.present(reach, zone, text).await,
            Self::Desec(one) => one.change_text(reach, zone, text, Change::Add).await,
            Self::Hetzner(one) => one.change_text(reach, zone, text, Change::Add).await,
            Self::Dyndns2(_) => Err(Fault("it keeps no texts".into())),
            Self::Program(program) => run(reach, program, "present", zone, text).await,
        }
    }

    /// Takes it away again.
    pub async fn cleanup(&self, reach: &Reach, zone: &Zone, text: &str) -> Result<(), Fault> {
        match self {
            Self::Rfc2136(one) => one.change_text(zone, text, Change::Remove).await,
            // It forgets by itself.
            Self::AcmeDns(_) | Self::Dyndns2(_) => Ok(()),
            Self::Cloudflare(one) => one.cleanup(reach, zone, text).await,
            Self::Desec(one) => one.change_text(reach, zone, text, Change::Remove).await,
            Self::Hetzner(one) => one.change_text(reach, zone, text, Change::Remove).await,
            Self::Program(program) => run(reach, program, "cleanup", zone, text).await,
        }
    }

    /// Makes this the one address of its family at a name.
    pub async fn set(&self, reach: &Reach, zone: &Zone, address: &IpAddr) -> Result<(), Fault> {
        match self {
            Self::Rfc2136(one) => one.set(zone, address).await,
            Self::Cloudflare(one) => one.set(reach, zone, address).await,
            Self::Desec(one) => one.set(reach, zone, address).await,
            Self::Hetzner(one) => one.set(reach, zone, address).await,
            Self::Dyndns2(one) => one.set(reach, zone, address).await,
            Self::AcmeDns(_) | Self::Program(_) => Err(Fault("it keeps no addresses".into())),
        }
    }

    /// Returns the program that it is, if it is one.
    pub fn program(&self) -> Option<&PathBuf> {
        match self {
            Self::Program(program) => Some(program),
            _ => None,
        }
    }
}

/// What is done to a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
}

async fn run(reach: &Reach, program: &std::path::Path, verb: &str, zone: &Zone, text: &str) -> Result<(), Fault> {
    let helper = reach.helper.as_ref().ok_or_else(|| Fault("no helper was started to run programs".into()))?;
    let name = zone.name.to_ascii();
    helper.run(program, verb, name.trim_end_matches('.'), text).await.map_err(Fault)
}

/// Asks an API that speaks JSON; an answer that is no success is a fault with the API's own words.
async fn ask(
    client: &Client,
    method: Method,
    url: &str,
    credential: (&str, &str),
    body: Option<Value>,
) -> Result<(StatusCode, Value), Fault> {
    let (name, value) = credential;
    let mut request = Request::builder().method(method).uri(url).header(name, value);
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let request = request.header(header::CONTENT_LENGTH, body.len()).body(body);
    let request = request.map_err(|_| Fault("the token has letters that no header may have".into()))?;
    let answer = client.ask(request).await.map_err(|error| Fault(error.to_string()))?;
    let status = answer.status();
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    if !status.is_success() && status != StatusCode::NOT_FOUND {
        let words: String = text.chars().filter(|letter| !letter.is_control()).take(300).collect();
        return Err(Fault(format!("the provider answers {status}: {words}")));
    }
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
}

/// The part of a name that is before its zone; empty for the zone itself.
fn label_of(zone: &Zone) -> String {
    let (name, origin) = (zone.name.to_ascii(), zone.origin.to_ascii());
    let (name, origin) = (name.trim_end_matches('.'), origin.trim_end_matches('.'));
    name.strip_suffix(origin).unwrap_or(name).trim_end_matches('.').to_owned()
}

fn origin_of(zone: &Zone) -> String {
    zone.origin.to_ascii().trim_end_matches('.').to_owned()
}

/// Returns the type of record that an address needs.
fn kind(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "A" } else { "AAAA" }
}
