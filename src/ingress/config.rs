//! What the ingress is told to do: the meant form of `[ingress]` and `[[route]]`.

use std::{net::IpAddr, net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::{
    ingress::canonical::{CanonicalHost, CanonicalPath},
    limit::Rate,
    origin::{Access, Directory, NetworkId, PeerId},
};

/// The meant form of `[ingress]` and `[[route]]`, with what they need of other sections.
#[derive(Clone, Debug)]
pub struct Config {
    /// Plain HTTP: redirects only.
    pub http: Vec<SocketAddr>,
    /// TLS.
    pub https: Vec<SocketAddr>,
    /// Requests of one Internet client.
    pub wan_limit: Option<Rate>,
    /// Proxies whose forwarding headers are believed; what comes through them is `Wan`.
    pub trusted_proxies: Vec<IpNet>,
    /// The deadlines.
    pub timeouts: Timeouts,
    /// Bytes of a request head.
    pub max_header: usize,
    /// Fields of a request head.
    pub max_fields: usize,
    /// Certificates from files.
    pub certificates: Vec<CertificateFiles>,
    /// Where the house's own CA and its certificates are kept.
    pub state: PathBuf,
    /// `node.domain`: what the CA may sign besides private addresses.
    pub domain: CanonicalHost,
    /// In the order of the file.
    pub routes: Vec<Route>,
    /// Every origin that may turn up; one table is made for each distinct set of permissions.
    pub networks: Vec<NetworkId>,
    /// Every peer, and which of the routes that admit it its `may_reach` lets it begin.
    pub peers: Vec<PeerReach>,
    /// Names of networks and peers, for logs.
    pub directory: Directory,
}

/// A peer and the routes that it may begin, of those whose access admits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerReach {
    /// The peer.
    pub peer: PeerId,
    /// What its `may_reach` leaves.
    pub routes: RoutesReach,
}

/// Which routes a peer's `may_reach` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoutesReach {
    /// `services`: all that admit it.
    All,
    /// `route:HOST`: these hosts.
    Hosts(Vec<CanonicalHost>),
}

/// How long each wait may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// A whole request head.
    pub header: Duration,
    /// An idle connection between requests.
    pub idle: Duration,
    /// Without progress of a body, in either direction.
    pub body: Duration,
    /// Connecting to an upstream, TLS included.
    pub connect: Duration,
    /// Until the head of an upstream's response.
    pub response: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            body: Duration::from_secs(30),
            connect: Duration::from_secs(5),
            response: Duration::from_secs(60),
        }
    }
}

/// A certificate from files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The hosts that it is used for.
    pub hosts: Vec<HostPattern>,
    /// PEM, leaf first.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// Exactly one host, or every host one label below a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// `photos.home.example`.
    Exact(CanonicalHost),
    /// `*.home.example`: what stands after `*.`.
    Wildcard(CanonicalHost),
}

/// What the owner wrote once.
#[derive(Clone, Debug)]
pub struct Route {
    /// What logs and metrics call it: host and path.
    pub name: String,
    /// The hosts.
    pub host: HostPattern,
    /// Whole segments at the beginning of the path; `/` is every path.
    pub path: CanonicalPath,
    /// Who may use it.
    pub access: Access,
    /// Where requests go.
    pub to: Target,
    /// Requests are logged.
    pub log: bool,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To these in turn; never empty.
    Upstreams(Vec<Upstream>),
    /// A page of ours.
    Builtin(Builtin),
}

/// A server behind the ingress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// Its name or address.
    pub host: UpstreamHost,
    /// Its port.
    pub port: u16,
    /// TLS towards it, if any.
    pub tls: Option<UpstreamTls>,
}

/// How an upstream is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamHost {
    /// Looked up through the house's own resolver.
    Name(String),
    /// As it is.
    Address(IpAddr),
}

/// How an upstream proves who it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamTls {
    /// By a certificate that a public CA signed.
    Public,
    /// By a certificate that this CA file signed.
    Ca(PathBuf),
    /// By exactly this certificate (SHA-256 of its DER form).
    Fingerprint([u8; 32]),
    /// Not at all; the owner said so.
    Insecure,
}

/// Pages that are built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Builtin {
    /// The quick start's page: says that it works, and where the visitor came from.
    Welcome,
}
