//! What the gate is told to do: the meant form of `[vpn]`.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::{
    origin::{Directory, PeerId, Role},
    vpn::keys::{PresharedKey, PrivateKey, PublicKey},
};

/// The meant form of `[vpn]`.
#[derive(Clone, Debug)]
pub struct Config {
    /// UDP; one socket per address family and port.
    pub listen: Vec<SocketAddr>,
    /// What peers are told, `host:port`.
    pub endpoint: Option<String>,
    /// The gate's inner addresses with their prefixes. On no kernel interface, in any mode.
    pub addresses: Vec<IpNet>,
    /// The gate's key.
    pub private_key: PrivateKey,
    /// The one that it had before, by which peers that know no other still come in.
    pub previous_key: Option<PrivateKey>,
    /// How peers reach the LAN.
    pub mode: Mode,
    /// Whom the LAN sees in mode `tun`.
    pub lan: Lan,
    /// The interfaces by which somebody may begin something with a peer in mode `tun`; empty where none are named.
    pub lan_interfaces: Vec<String>,
    /// Who may come in.
    pub peers: Vec<Peer>,
    /// TCP ports of the metrics listener inside the tunnel, if metrics are served.
    pub metrics_port: Option<u16>,
    /// Further ports of the gate that lead to the ingress, and for whom.
    pub ports: Vec<ServedPort>,
    /// The folder in which it is kept where peers were last heard.
    pub state: PathBuf,
    /// Names of networks and peers, for logs.
    pub directory: Directory,
}

/// A port of the gate's inner addresses that somebody else serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// Who may use it; to all others it is closed like any that never was one.
    pub peers: Vec<PeerId>,
}

/// How peers reach the LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `tun` if that is permitted and would work, else `userspace`.
    Auto,
    /// No privileges: the LAN is reached by relayed TCP and UDP.
    Userspace,
    /// The kernel routes between the tunnel and the LAN.
    Tun,
}

/// Whom the LAN sees when the kernel routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lan {
    /// The peer's own address: the LAN's router needs a route back.
    Route,
    /// This box.
    Nat,
}

/// A peer: its public key.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Stable for this key as long as the process lives.
    pub id: PeerId,
    /// What the owner calls it.
    pub name: String,
    /// Its group.
    pub group: Option<String>,
    /// Who it is.
    pub public_key: PublicKey,
    /// Mixed into the handshake.
    pub preshared_key: Option<PresharedKey>,
    /// Inner addresses that belong to it and to nobody else.
    pub addresses: Vec<IpNet>,
    /// What it may begin.
    pub may_reach: Vec<Reach>,
    /// Who else may begin something with it.
    pub reached_by: Vec<Caller>,
    /// It may come in.
    pub enabled: bool,
    /// From then on it is no peer.
    pub expires: Option<jiff::Timestamp>,
    /// The `host:port` that it was told, where that is not what peers are told today.
    pub told_endpoint: Option<String>,
    /// So long it may do what it may after its person has confirmed; without that it reaches the page for it alone.
    pub confirm: Option<Duration>,
    /// Whose it is.
    pub user: Option<Person>,
    /// Persistent keepalive that its own configuration is given.
    pub keepalive: Option<Duration>,
}

/// A person whose peer it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// What the owner calls them.
    pub name: String,
    /// What they may change.
    pub role: Role,
}

/// Something that a peer may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The DNS plane inside the tunnel.
    Dns,
    /// The DNS plane, and the routes whose access lets this peer in.
    Services,
    /// The ingress for one host.
    Route(String),
    /// Everything in a network.
    Net(IpNet),
    /// A protocol and ports in a network.
    Ports {
        /// TCP or UDP.
        protocol: Protocol,
        /// The network.
        net: IpNet,
        /// Its ports.
        ports: RangeInclusive<u16>,
    },
    /// Another peer.
    Peer(PeerId),
    /// Everything that is not private.
    Internet,
}

/// Somebody who may begin something with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Everybody in the main LAN.
    Lan,
    /// Everybody in a network.
    Net(IpNet),
    /// The same, with ports of the peer only.
    Ports {
        /// TCP or UDP.
        protocol: Protocol,
        /// Where callers are.
        net: IpNet,
        /// The peer's ports.
        ports: RangeInclusive<u16>,
    },
    /// Another peer.
    Peer(PeerId),
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Returns its number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}
