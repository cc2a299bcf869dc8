//! What the DNS plane is told to do: the meant form of `[dns]`.

use std::{net::IpAddr, net::SocketAddr, path::PathBuf, time::Duration};

use hickory_proto::rr::{Name, Record};
use ipnet::{IpNet, Ipv6Net};
use jiff::tz::TimeZone;

pub use super::resolver::{Fallback, driver::figures::Figures};
use super::{client::ClientName, filter::Spans};
use crate::{
    listen::Place,
    neighbours::Mac,
    origin::{Access, Directory, NetworkId, Origin, PeerId},
};

/// The meant form of `[dns]`, with what it needs of other sections.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where UDP and TCP port 53 (or another) are served.
    pub listen: Vec<Place>,
    /// DNS over TLS, QUIC and HTTPS.
    pub encrypted: Option<Encrypted>,
    /// `node.domain`: relative names stand under it.
    pub domain: Name,
    /// Where list tables and caches are kept.
    pub state: PathBuf,
    /// Bytes of the answer cache.
    pub cache_size: usize,
    /// Bytes of the RRset cache.
    pub rrset_cache: usize,
    /// Shortest and longest time an answer is cached.
    pub ttl: std::ops::RangeInclusive<u32>,
    /// How long an expired answer may still be given when no authority can be reached.
    pub stale: Duration,
    /// Refresh popular answers before they expire.
    pub prefetch: bool,
    /// QNAME minimisation (RFC 9156).
    pub minimise: bool,
    /// 0x20.
    pub case_randomisation: bool,
    /// Accept SHA-1 signatures and digests.
    pub sha1: bool,
    /// Names under which nothing is validated, and the second since 1970 at which that ends (RFC 7646).
    pub negative_anchors: Vec<(Name, u64)>,
    /// How many questions' courses are remembered for `explain`; 0 records nothing.
    pub traces: usize,
    /// Names of time servers besides the usual ones: they are found unchecked while the clock is not right.
    pub time_servers: Vec<Name>,
    /// The clock that signatures are checked by.
    pub clock: crate::clock::Clock,
    /// What the resolver does is counted here.
    pub figures: Figures,
    /// Where answers come from.
    pub resolve: Resolve,
    /// A hints file instead of the built-in root servers.
    pub root_hints: Option<PathBuf>,
    /// A file of DS or DNSKEY records instead of the built-in root anchors.
    pub trust_anchors: Option<PathBuf>,
    /// What happens where none of the servers of [`Resolve::Forward`] answers.
    pub fallback: Fallback,
    /// Who is asked for the addresses of servers that are known by name.
    pub bootstrap: Vec<SocketAddr>,
    /// A file of certificates that encrypted servers are believed by, besides the public ones.
    pub upstream_ca: Option<PathBuf>,
    /// Names with IPv4 addresses alone get IPv6 addresses behind this prefix.
    pub dns64: Option<Dns64>,
    /// Conditional forwarding.
    pub forward: Vec<Forward>,
    /// Names of the house, absolute.
    pub records: Vec<LocalRecord>,
    /// Zone files.
    pub zones: Vec<PathBuf>,
    /// Files as `/etc/hosts`.
    pub hosts: Vec<PathBuf>,
    /// Lease files of DHCP servers.
    pub leases: Vec<PathBuf>,
    /// Names of peers.
    pub peers: Vec<PeerName>,
    /// Names of routes.
    pub routes: HouseRoutes,
    /// Block and allow lists.
    pub lists: Vec<List>,
    /// Groups of devices; the one called "default" holds everybody who is in no other.
    pub groups: Vec<Group>,
    /// The time zone of spans of time.
    pub timezone: TimeZone,
    /// Rules that stand by themselves.
    pub rules: Vec<OwnRule>,
    /// Who is not filtered for a while.
    pub pauses: Vec<Pause>,
    /// Names that lead devices past the house do not exist, and a list cannot make a device believe that it is
    /// offline.
    pub keep_clients: bool,
    /// The answer to a blocked name says which list it was.
    pub block_reason: bool,
    /// Names which may have private addresses though they are public.
    pub rebind_allow: Vec<Name>,
    /// Names of networks and peers, for logs.
    pub directory: Directory,
    /// Switches for tests; all at their ordinary values outside `--testing`.
    pub testing: Testing,
}

/// A resolver without a place to listen, which tests complete.
impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            encrypted: None,
            domain: Name::root(),
            state: PathBuf::new(),
            cache_size: 1 << 20,
            rrset_cache: 1 << 20,
            ttl: 0..=86400,
            stale: Duration::from_secs(3600),
            prefetch: false,
            minimise: true,
            case_randomisation: true,
            sha1: false,
            negative_anchors: Vec::new(),
            traces: 0,
            time_servers: Vec::new(),
            clock: crate::clock::Clock::believed(),
            figures: Figures::default(),
            resolve: Resolve::Recursive,
            root_hints: None,
            trust_anchors: None,
            fallback: Fallback::Nothing,
            bootstrap: Vec::new(),
            upstream_ca: None,
            dns64: None,
            forward: Vec::new(),
            records: Vec::new(),
            zones: Vec::new(),
            hosts: Vec::new(),
            leases: Vec::new(),
            peers: Vec::new(),
            routes: HouseRoutes::default(),
            lists: Vec::new(),
            groups: Vec::new(),
            timezone: TimeZone::UTC,
            rules: Vec::new(),
            pauses: Vec::new(),
            keep_clients: false,
            block_reason: false,
            rebind_allow: Vec::new(),
            directory: Directory::default(),
            testing: Testing::default(),
        }
    }
}

/// How clients ask that others cannot read along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encrypted {
    /// Where TLS (on TCP) and QUIC (on UDP) are served.
    pub listen: Vec<Place>,
    /// The server's name, in lower case: what its certificate says. A label before it is a device's name.
    pub host: String,
    /// The port of HTTPS, if the ingress has one.
    pub https: Option<u16>,
    /// Who may ask over HTTPS.
    pub access: Access,
}

/// The prefix of a translator (RFC 6052): 32, 40, 48, 56, 64 or 96 bits long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dns64(pub(in crate::dns) Ipv6Net);

impl Dns64 {
    /// Takes a prefix, if an IPv4 address can stand behind it (RFC 6052 §2.2).
    pub fn new(prefix: Ipv6Net) -> Option<Self> {
        let fits = matches!(prefix.prefix_len(), 32 | 40 | 48 | 56 | 64 | 96) && prefix.addr().octets()[8] == 0;
        (fits && prefix.trunc() == prefix).then_some(Self(prefix))
    }
}

/// Where answers come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolve {
    /// The authoritative servers, from the root.
    Recursive,
    /// These servers.
    Forward(Vec<Upstream>),
}

/// A server that is asked for recursion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where it is.
    pub host: UpstreamHost,
    /// How it is asked.
    pub transport: Transport,
}

impl Upstream {
    /// A server that is asked over plain DNS.
    pub fn plain(address: SocketAddr) -> Self {
        Self { host: UpstreamHost::Address(address), transport: Transport::Plain }
    }
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamHost {
    /// At an address.
    Address(SocketAddr),
    /// Where its name leads, as the servers of [`Config::bootstrap`] say; only for encrypted ones, whose
    /// certificate tells whether it is true.
    Name {
        /// The name.
        name: Name,
        /// The port.
        port: u16,
    },
}

/// How an upstream server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP with fall-back to TCP.
    Plain,
    /// DNS over TLS (RFC 7858); the certificate must have this name.
    Tls {
        /// The name in the certificate.
        name: String,
    },
    /// DNS over HTTPS (RFC 8484).
    Https {
        /// The name in the certificate.
        name: String,
        /// The path, usually `/dns-query`.
        path: String,
    },
    /// DNS over QUIC (RFC 9250).
    Quic {
        /// The name in the certificate.
        name: String,
    },
}

/// A zone whose questions go to other servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The zone.
    pub zone: Name,
    /// Its servers.
    pub to: Vec<Upstream>,
    /// What happens where none of them answers.
    pub fallback: Fallback,
    /// What they say is checked from the public trust anchor. A zone of the house is not what the public DNS
    /// proves under its name.
    pub validate: bool,
}

/// A record of the house.
#[derive(Clone, Debug, PartialEq)]
pub enum LocalRecord {
    /// A record as it is.
    Fixed(Record),
    /// An address made of each present prefix of the LAN and this suffix.
    Suffix {
        /// The owner name.
        name: Name,
        /// `::10` of `"::10"`.
        suffix: std::net::Ipv6Addr,
        /// Seconds.
        ttl: u32,
    },
}

/// The names that the routes of the ingress give to this box.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HouseRoutes {
    /// Each host once, wildcards as well.
    pub names: Vec<RouteName>,
    /// Where the ingress listens for TLS.
    pub listen: Vec<IpAddr>,
    /// At which port; `None` if it does not.
    pub https: Option<u16>,
    /// The gate's inner addresses.
    pub inner: Vec<IpAddr>,
    /// One of the names: each label below it is the same (a device's name for the DNS server).
    pub below: Option<Name>,
    /// What peers are told of the gate, if that is a name.
    pub gate: Option<GateName>,
}

/// The name by which peers find the gate. In the house it is this box, so that a peer that comes home needs no other
/// configuration; peers inside the tunnel are told what the public DNS says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateName {
    /// The host.
    pub host: Name,
    /// Where the gate listens.
    pub listen: Vec<IpAddr>,
}

/// The name of a peer, and who gets its addresses for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerName {
    /// `NAME.vpn.<domain>`.
    pub name: Name,
    /// The peer itself.
    pub peer: PeerId,
    /// Its inner addresses.
    pub addresses: Vec<IpAddr>,
    /// The main LAN may reach it.
    pub lan: bool,
    /// Clients in these networks may.
    pub nets: Vec<IpNet>,
    /// These peers may.
    pub peers: Vec<PeerId>,
}

/// A route's host, and who gets this box's address for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteName {
    /// The host.
    pub host: Name,
    /// Networks whose clients may use a route of the host.
    pub networks: Vec<NetworkId>,
    /// Peers that may.
    pub peers: Vec<PeerId>,
}

/// A block or allow list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// What the owner calls it.
    pub name: String,
    /// Where it is read from.
    pub source: ListSource,
    /// What it does.
    pub action: Action,
    /// What it is for.
    pub purpose: Purpose,
    /// What a blocked name gets.
    pub block_as: BlockAs,
    /// How often it is read again.
    pub refresh: Duration,
    /// Off without being deleted.
    pub enabled: bool,
}

/// Where a list comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListSource {
    /// A file.
    Path(PathBuf),
    /// An `https` or `http` URL, which is fetched and kept in the state folder.
    Url(hyper::Uri),
    /// Names given in place (the quick start's list).
    Inline(Vec<String>),
}

/// What a list is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To block or allow what its owner wants.
    #[default]
    Filter,
    /// Its names lead past the house: they belong to [`Config::keep_clients`].
    KeepClients,
}

/// What a list does with its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Blocks them.
    Block,
    /// Lets them through whatever other lists say.
    Allow,
}

/// What a blocked name gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockAs {
    /// 0.0.0.0 and ::, NODATA for other types.
    Null,
    /// NXDOMAIN.
    NxDomain,
    /// NOERROR without records.
    NoData,
    /// REFUSED.
    Refused,
    /// This address for its family, NODATA for the rest.
    Address(IpAddr),
}

/// A group of devices with rules of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What the owner calls it.
    pub name: String,
    /// Who is in it.
    pub devices: Vec<Device>,
    /// Places in [`Config::lists`].
    pub lists: Vec<usize>,
    /// Places of lists that apply in spans of time only.
    pub timed: Vec<(usize, Spans)>,
    /// When only names of the house are answered.
    pub offline: Spans,
    /// Names let through, with everything below them.
    pub allow: Vec<Name>,
    /// Names blocked, with everything below them.
    pub block: Vec<Name>,
    /// Servers that are asked for it instead of everybody's; empty if these are.
    pub upstreams: Vec<Upstream>,
    /// Services that are blocked as a whole.
    pub services: Vec<&'static str>,
    /// Search engines that answer for children.
    pub safe_search: Vec<&'static str>,
    /// [`Config::keep_clients`] holds for it.
    pub keep_clients: bool,
    /// Public names may lead its devices into the house.
    pub rebind: Rebind,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            name: String::new(),
            devices: Vec::new(),
            lists: Vec::new(),
            allow: Vec::new(),
            block: Vec::new(),
            upstreams: Vec::new(),
            timed: Vec::new(),
            offline: Spans::default(),
            services: Vec::new(),
            safe_search: Vec::new(),
            keep_clients: true,
            rebind: Rebind::Refused,
        }
    }
}

/// What becomes of a public name that leads into the house (DNS rebinding).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rebind {
    /// It has no address.
    #[default]
    Refused,
    /// It is answered.
    Allowed,
}

/// A rule that stands by itself, perhaps for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnRule {
    /// The name, with everything below it.
    pub name: Name,
    /// What becomes of it.
    pub action: Action,
    /// For this group; without one for all.
    pub group: Option<String>,
    /// Seconds since 1970 at which it ends.
    pub until: Option<u64>,
}

/// A time without filtering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// For whom.
    pub whom: Paused,
    /// Seconds since 1970 at which it ends.
    pub until: u64,
}

/// Who is not filtered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paused {
    /// Nobody is.
    Everybody,
    /// The group of that name.
    Group(String),
    /// One device.
    Device(Device),
}

/// How a device is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// By its address or network.
    Net(IpNet),
    /// By its key in the VPN.
    Peer(PeerId),
    /// By its MAC address, whatever addresses it has.
    Mac(Mac),
    /// By the name that a DHCP server knows it by.
    Name(String),
    /// By what it calls itself over DNS over TLS, HTTPS or QUIC.
    Client(ClientName),
}

impl Device {
    /// Returns what people call it.
    pub(crate) fn told(&self, directory: &Directory) -> String {
        match self {
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
            Self::Net(net) => net.to_string(),
            Self::Peer(peer) => directory.describe(Origin::Vpn(*peer)),
            Self::Mac(mac) => mac.to_string(),
            Self::Name(name) => name.clone(),
            Self::Client(name) => name.as_str().to_owned(),
        }
    }
}

/// `[dns.testing]`: switches which only tests may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Testing {
    /// The time that signatures are checked against, in seconds since 1970.
    pub now: Option<u64>,
    /// Cached data ages by the wall clock, also when that is set.
    pub follow_clock: bool,
    /// Root servers by address instead of a hints file.
    pub root_servers: Vec<IpAddr>,
    /// The port that authoritative servers listen on.
    pub server_port: u16,
    /// DS and DNSKEY records in presentation form instead of the built-in anchors; an empty list leaves
    /// everything unchecked.
    pub anchors: Option<Vec<String>>,
    /// The root's servers are asked of those in the hints first.
    pub priming: bool,
    /// Checked NSEC and NSEC3 records answer for names that were not asked for.
    pub aggressive: bool,
    /// DNS cookies.
    pub cookies: bool,
    /// Trust anchors follow the keys of their zones; left out, unless they are a test's own.
    pub rfc5011: Option<bool>,
    /// RSA keys shorter than 1024 bits count, and with SHA-1 also DSA.
    pub short_keys: bool,
    /// The UDP size that servers are offered.
    pub edns_size: u16,
    /// Loopback and special-purpose addresses may be asked.
    pub special_servers: bool,
    /// Names under `test`, and addresses of single labels, are asked of the servers too.
    pub special_names: bool,
    /// Upstream questions over IPv4.
    pub ipv4: bool,
    /// Upstream questions over IPv6.
    pub ipv6: bool,
    /// Each message to and from a server is written to standard error.
    pub log_upstream: bool,
    /// A file of certificates that servers of lists are believed by, instead of the public ones.
    pub list_roots: Option<PathBuf>,
}

impl Default for Testing {
    fn default() -> Self {
        Self {
            now: None,
            follow_clock: false,
            root_servers: Vec::new(),
            server_port: 53,
            anchors: None,
            priming: true,
            aggressive: true,
            cookies: true,
            rfc5011: None,
            short_keys: false,
            edns_size: 1232,
            special_servers: false,
            special_names: false,
            ipv4: true,
            ipv6: true,
            log_upstream: false,
            list_roots: None,
        }
    }
}
