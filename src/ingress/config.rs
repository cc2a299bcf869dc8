//! What the ingress is told to do: the meant form of `[ingress]` and `[[route]]`.

use std::{collections::BTreeMap, net::IpAddr, net::SocketAddr, path::PathBuf, time::Duration};

use bytes::Bytes;
use hyper::{StatusCode, header::HeaderValue};
use ipnet::IpNet;

pub use crate::ingress::{
    auth::{Auth, Basic, Forward, PasswordHash, Preset},
    change::Change,
    conditions::{Conditions, Field},
    country::Country,
    decisions::CrowdSec,
    ports::{Port, Transport},
    proxies::{Door, Proxies, Speaks, Word},
    rewrite::{Part, Redirect, Rewrite},
    serve::Coding,
};
use crate::{
    ingress::canonical::{CanonicalHost, CanonicalPath},
    limit::Rate,
    origin::{Access, Directory, NetworkId, PeerId},
    provider::Provider,
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
    /// Connections of one Internet client.
    pub wan_connections: Option<Rate>,
    /// Answers 401 and 403 to one Internet client, beyond which it is refused for a while.
    pub wan_refusals: Option<Rate>,
    /// How requests are logged, of the routes that are.
    pub access_log: AccessLog,
    /// Whose word is taken on `http` and `https` for the clients that they speak for.
    pub proxies: Proxies,
    /// Listeners besides.
    pub doors: Vec<Door>,
    /// Lists of addresses that strangers may not have.
    pub bans: Vec<PathBuf>,
    /// Who decides besides which addresses strangers may not have.
    pub crowdsec: Option<CrowdSec>,
    /// Says in which country an address is.
    pub countries: Option<PathBuf>,
    /// The deadlines.
    pub timeouts: Timeouts,
    /// Bytes of a request head.
    pub max_header: usize,
    /// Fields of a request head.
    pub max_fields: usize,
    /// Open connections from the Internet.
    pub max_connections: u32,
    /// Requests from the Internet that are at work at once.
    pub max_requests: u32,
    /// Certificates from files.
    pub certificates: Vec<CertificateFiles>,
    /// Hosts whose clients must show a certificate of these CAs.
    pub client_cas: BTreeMap<HostPattern, PathBuf>,
    /// Certificates from public CAs.
    pub acme: Vec<Acme>,
    /// Where the house's own CA, its certificates and those of public CAs are kept.
    pub state: PathBuf,
    /// `node.domain`: what the CA may sign besides private addresses.
    pub domain: CanonicalHost,
    /// The DNS server's own name, whose certificate also names devices below it and this box's private addresses.
    pub dns_host: Option<CanonicalHost>,
    /// In the order of the file.
    pub routes: Vec<Route>,
    /// Routes of plain TCP and UDP.
    pub ports: Vec<Port>,
    /// Every origin that may turn up; one table is made for each distinct set of permissions.
    pub networks: Vec<NetworkId>,
    /// Every peer, and which of the routes that admit it its `may_reach` lets it begin.
    pub peers: Vec<PeerReach>,
    /// Names of networks and peers, for logs.
    pub directory: Directory,
}

impl Config {
    /// Returns whose word is taken on a door, or on the listeners of `http` and `https`.
    pub(super) fn proxies(&self, door: Option<usize>) -> &Proxies {
        door.and_then(|door| self.doors.get(door)).map_or(&self.proxies, |door| &door.proxies)
    }
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

/// The form of a line of the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Fields of the log's own form, which is text or JSON (`node.log.format`).
    #[default]
    Fields,
    /// The combined log format of old.
    Clf,
    /// None, whatever routes say.
    Off,
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
    /// Without a byte in either direction, where both ends say what they like: WebSockets, and what is passed through.
    pub tunnel: Duration,
    /// Without a datagram in either direction.
    pub datagrams: Duration,
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
            tunnel: Duration::from_secs(60 * 60),
            // RFC 4787 REQ-5: not less than two minutes.
            datagrams: Duration::from_secs(120),
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

/// Certificates from a public CA (RFC 8555).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// The hosts that it is for; empty is every host that no other entry and no file is for. A wildcard may be
    /// ordered for hosts without public access if it is named here.
    pub hosts: Vec<HostPattern>,
    /// Where the CA writes to.
    pub email: Option<String>,
    /// Asked in this order until one answers; never empty.
    pub directories: Vec<AcmeDirectory>,
    /// How it is proved that the names are ours.
    pub challenge: Challenge,
    /// The kind of certificate, as the directory names it.
    pub profile: Option<String>,
    /// Who holds the zones, for [`Challenge::Dns01`].
    pub provider: Option<Provider>,
    /// Binds the account at the first directory to one that the owner has there.
    pub eab: Option<Eab>,
}

/// Where a CA is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AcmeDirectory {
    /// Its directory.
    pub url: String,
    /// What its own server is believed by, instead of the public CAs.
    pub ca: Option<PathBuf>,
}

/// How it is proved to a CA that a name is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// By an answer on port 80.
    Http01,
    /// By a certificate on port 443 (RFC 8737).
    TlsAlpn01,
    /// By a record in the DNS.
    Dns01,
}

impl Challenge {
    /// Returns its name, as in RFC 8555.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01 => "dns-01",
        }
    }
}

/// An account at a CA that the ACME account is bound to.
#[derive(Clone, PartialEq, Eq)]
pub struct Eab {
    /// The CA's name for the key.
    pub kid: String,
    /// The key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Eab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Eab").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Exactly one host, every host one label below a name, or whatever no other route of an origin has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// `photos.home.example`.
    Exact(CanonicalHost),
    /// `*.home.example`: what stands after `*.`.
    Wildcard(CanonicalHost),
    /// `*`: of routes alone, never of a certificate.
    Any,
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
    /// What else is done with them.
    pub rules: Rules,
}

/// What a route does with a request beside sending it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What a request must be besides.
    pub conditions: Conditions,
    /// Plain HTTP is answered too, and not only sent on to https.
    pub plain: bool,
    /// Fields of requests.
    pub request: Change,
    /// Fields of responses.
    pub response: Change,
    /// Fields that make browsers careful are said where the server behind does not.
    pub security: bool,
    /// The path that the server behind sees.
    pub rewrite: Rewrite,
    /// What is let through.
    pub limits: RouteLimits,
    /// While it is there, this is the answer.
    pub maintenance: Option<Page>,
    /// Who may come in.
    pub auth: Auth,
    /// Servers that stand in while none of the others is well.
    pub backup: Vec<Upstream>,
    /// A client stays with the server that it had first.
    pub sticky: bool,
    /// How servers are asked whether they are well.
    pub health: Option<HealthCheck>,
    /// What responses are compressed with, the best first; nothing is not at all.
    pub compress: Vec<Coding>,
    /// How a server is told the client before anything else.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// What each server is given at once.
    pub server_limit: Option<ServerLimit>,
}

/// The version of the PROXY protocol's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What one server is given at once, and who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerLimit {
    /// Requests at work there.
    pub connections: u32,
    /// Requests that wait.
    pub queue: u32,
    /// How long each waits.
    pub wait: Duration,
}

/// How a server is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HealthCheck {
    /// What is asked for.
    pub path: CanonicalPath,
    /// How often.
    pub every: Duration,
    /// How long the answer may take.
    pub timeout: Duration,
    /// The status of a good answer; `None` is any below 400.
    pub status: Option<StatusCode>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            conditions: Conditions::default(),
            plain: false,
            request: Change::default(),
            response: Change::default(),
            security: true,
            rewrite: Rewrite::default(),
            limits: RouteLimits::default(),
            maintenance: None,
            auth: Auth::None,
            backup: Vec::new(),
            sticky: false,
            health: None,
            compress: Vec::new(),
            proxy_protocol: None,
            server_limit: None,
        }
    }
}

/// What a route lets through, whatever the origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteLimits {
    /// Requests of one client.
    pub rate: Option<Rate>,
    /// Requests at work at once.
    pub concurrency: u32,
    /// Of one client, where what is passed on is not understood.
    pub per_client: u32,
    /// Bytes of a request's body.
    pub body: u64,
    /// Bytes of a request's fields.
    pub header: usize,
    /// Clients that may come in; empty is all.
    pub allow: Vec<IpNet>,
    /// Clients that may not.
    pub deny: Vec<IpNet>,
    /// Where clients from the Internet may be; empty is everywhere.
    pub allow_country: Vec<Country>,
    /// Where they may not be.
    pub deny_country: Vec<Country>,
}

impl Default for RouteLimits {
    fn default() -> Self {
        Self {
            rate: None,
            concurrency: u32::MAX,
            per_client: 256,
            body: u64::MAX,
            header: usize::MAX,
            allow: Vec::new(),
            deny: Vec::new(),
            allow_country: Vec::new(),
            deny_country: Vec::new(),
        }
    }
}

impl RouteLimits {
    /// Lets through besides what another lets through.
    pub fn widen(&mut self, other: &Self) {
        self.rate = match (self.rate, other.rate) {
            (Some(one), Some(two)) => {
                Some(Rate { per_second: one.per_second.max(two.per_second), burst: one.burst.max(two.burst) })
            }
            _ => None,
        };
        self.concurrency = self.concurrency.max(other.concurrency);
        self.body = self.body.max(other.body);
        match self.allow.is_empty() || other.allow.is_empty() {
            true => self.allow.clear(),
            false => self.allow.extend(&other.allow),
        }
        self.deny.retain(|net| other.deny.contains(net));
        match self.allow_country.is_empty() || other.allow_country.is_empty() {
            true => self.allow_country.clear(),
            false => self.allow_country.extend(&other.allow_country),
        }
        self.deny_country.retain(|country| other.deny_country.contains(country));
    }

    /// Whether not everybody may come in.
    pub(super) fn are_choosy(&self) -> bool {
        let nets = [&self.allow, &self.deny];
        nets.iter().any(|nets| !nets.is_empty()) || !self.allow_country.is_empty() || !self.deny_country.is_empty()
    }

    /// Whether the same may come in.
    pub(super) fn admit_as(&self, other: &Self) -> bool {
        (&self.allow, &self.deny, &self.allow_country, &self.deny_country)
            == (&other.allow, &other.deny, &other.allow_country, &other.deny_country)
    }

    /// Says whether a client from the Internet may come in from where it is. Who is nowhere is not where one must be.
    pub(super) fn admit_from(&self, country: impl FnOnce() -> Option<Country>) -> bool {
        if self.allow_country.is_empty() && self.deny_country.is_empty() {
            return true;
        }
        let country = country();
        let within = |countries: &[Country]| country.is_some_and(|country| countries.contains(&country));
        !within(&self.deny_country) && (self.allow_country.is_empty() || within(&self.allow_country))
    }

    /// Says whether a client's address may come in.
    pub fn admit(&self, client: IpAddr) -> bool {
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&client));
        !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
    }
}

/// A fixed answer of the owner's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its status.
    pub status: StatusCode,
    /// Its Content-Type.
    pub kind: HeaderValue,
    /// What it says.
    pub body: Bytes,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To these in turn; never empty.
    Upstreams(Vec<Upstream>),
    /// To these in turn, TLS and all: they have the certificate. Never empty.
    Passthrough(Vec<Upstream>),
    /// A page of ours.
    Builtin(Builtin),
    /// Elsewhere.
    Redirect(Redirect),
    /// A page of the owner's.
    Page(Page),
    /// The DNS server of the house, over HTTPS.
    Dns,
    /// The same, for one device that is known by the route it comes by.
    DnsOf {
        /// What it is called.
        device: String,
        /// The route's path: nothing is below it.
        path: CanonicalPath,
    },
}

impl Target {
    /// Returns the servers that this leads to.
    pub(super) fn upstreams(&self) -> &[Upstream] {
        match self {
            Self::Upstreams(upstreams) | Self::Passthrough(upstreams) => upstreams,
            _ => &[],
        }
    }
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
    /// What is spoken there.
    pub http: Http,
}

/// What a server behind speaks. All servers of a route speak the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Http {
    /// HTTP/1.1, which has WebSockets.
    #[default]
    One,
    /// HTTP/2, which has gRPC: by ALPN in TLS, without further ado in plain text.
    Two,
    /// Whatever it likes: bytes are passed on as they come.
    Opaque,
    /// The same by datagrams.
    Datagrams,
}

impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match (self.http, self.tls.is_some()) {
            (Http::One, false) => "http",
            (Http::One, true) => "https",
            (Http::Two, false) => "h2c",
            (Http::Two, true) => "h2",
            (Http::Opaque, _) => "tcp",
            (Http::Datagrams, _) => "udp",
        };
        match &self.host {
            UpstreamHost::Unix(path) => write!(f, "unix:{}", path.display()),
            UpstreamHost::Name(name) => write!(f, "{scheme}://{name}:{}", self.port),
            UpstreamHost::Address(address) => write!(f, "{scheme}://{}", SocketAddr::new(*address, self.port)),
        }
    }
}

/// How an upstream is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamHost {
    /// Looked up through the house's own resolver.
    Name(String),
    /// As it is.
    Address(IpAddr),
    /// A Unix socket, which has no port.
    Unix(PathBuf),
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
    /// Pages that another room writes.
    Page(crate::pages::Page),
}
