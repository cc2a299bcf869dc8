//! Who may come in and what each may begin, compiled from the configuration.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use crate::{
    origin::PeerId,
    vpn::{
        Caller, Config, Protocol, Reach, ServedPort,
        gate::owner::Owners,
        keys::{PresharedKey, PrivateKey, PublicKey},
    },
};

/// A configuration that contradicts itself.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Two peers with one prefix.
    #[error("peers \"{first}\" and \"{second}\" both have {prefix}")]
    SharedPrefix {
        /// Who had it.
        first: String,
        /// Who wants it too.
        second: String,
        /// The prefix.
        prefix: IpNet,
    },
    /// Two peers with one key.
    #[error("peers \"{first}\" and \"{second}\" have the same public key")]
    SharedKey {
        /// Who had it.
        first: String,
        /// Who wants it too.
        second: String,
    },
    /// A peer with the gate's own key.
    #[error("peer \"{0}\" has the gate's own public key")]
    OwnKey(String),
    /// An inner address of the gate that no single host can have.
    #[error("the gate cannot have the inner address {0}")]
    NoHost(IpAddr),
    /// A prefix that the kernel does not send into the tunnel.
    #[error("peer \"{peer}\" has {prefix}, which is routed into the tunnel only after a restart")]
    Unrouted {
        /// Whose it is.
        peer: String,
        /// The prefix.
        prefix: IpNet,
    },
    /// Callers whose interfaces the kernel does not look at.
    #[error(
        "peer \"{0}\" has `reached_by`, and the interfaces of `lan.interfaces` are told apart only after a restart"
    )]
    Callers(String),
    /// The same for the gate's own networks.
    #[error("`vpn.addresses`: {0} is routed into the tunnel only after a restart")]
    UnroutedGate(IpNet),
    /// A peer with an address of the gate.
    #[error("peer \"{peer}\" has {address}, which is the gate's own address")]
    GateAddress {
        /// Who wants it.
        peer: String,
        /// The gate's address.
        address: IpAddr,
    },
}

/// What the gate serves inside the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// TCP and UDP 53.
    Dns,
    /// TCP 80 and 443.
    Ingress,
    /// TCP on the metrics port.
    Metrics,
    /// Ports of routes of plain TCP and UDP.
    Port,
    /// TCP 80 for a peer whose person has yet to confirm; it has nothing else.
    Confirm,
}

/// One peer as the gate knows it.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// What the owner calls it.
    pub name: String,
    /// Who it is.
    pub public_key: PublicKey,
    /// Mixed into the handshake.
    pub preshared_key: Option<PresharedKey>,
    dns: bool,
    ingress: bool,
    metrics: bool,
    /// Prefixes, the Internet and other peers.
    begins: Vec<Reach>,
    reached_by: Vec<Caller>,
    expires: Option<Timestamp>,
    /// How long a confirmation holds, where one is asked for.
    confirm: Option<Duration>,
    lock: Lock,
}

/// Until when each key is confirmed.
pub type Confirmed = HashMap<PublicKey, Timestamp>;

/// Whether a peer may do what it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    /// Nothing is to be confirmed.
    None,
    /// It was confirmed until then.
    Open(Timestamp),
    /// Its person has yet to confirm.
    Closed,
}

impl Admitted {
    fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    fn is_locked(&self) -> bool {
        self.lock == Lock::Closed
    }

    /// A confirmation is over with its time; one that holds for longer than any can was given by another clock.
    fn lock_at(&self, now: Timestamp, until: Option<Timestamp>) -> Lock {
        match (self.confirm, until) {
            (None, _) => Lock::None,
            (Some(lasts), Some(until)) if now < until && until.duration_since(now) <= longest(lasts) => {
                Lock::Open(until)
            }
            (Some(_), _) => Lock::Closed,
        }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let until = match self.lock {
            Lock::Open(until) => Some(until),
            Lock::None | Lock::Closed => None,
        };
        self.has_expired(now) || until.is_some() && self.lock_at(now, until) == Lock::Closed
    }
}

fn longest(lasts: Duration) -> SignedDuration {
    SignedDuration::try_from(lasts).unwrap_or(SignedDuration::MAX)
}

/// Who may come in and what each may begin.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The gate's key.
    pub private_key: PrivateKey,
    /// The one that it had before, for peers that know no other.
    pub previous_key: Option<PrivateKey>,
    /// By id, in a stable order.
    pub peers: BTreeMap<PeerId, Admitted>,
    /// The gate's inner addresses.
    pub addresses: Vec<IpAddr>,
    /// The networks around them.
    networks: Vec<IpNet>,
    owners: Owners,
    metrics_port: Option<u16>,
    ports: Vec<ServedPort>,
}

impl Policy {
    /// Compiles a configuration.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let addresses: Vec<IpAddr> = config.addresses.iter().map(IpNet::addr).collect();
        let no_host = |address: &&IpAddr| {
            address.is_unspecified() || address.is_multicast() || **address == IpAddr::from([255; 4])
        };
        if let Some(address) = addresses.iter().find(no_host) {
            return Err(Error::NoHost(*address));
        }
        let gate: HashSet<IpAddr> = addresses.iter().copied().collect();
        let mut owners = Owners::default();
        let mut names: HashMap<PeerId, &str> = HashMap::new();
        let mut keys: HashMap<PublicKey, &str> = HashMap::new();
        let mut peers = BTreeMap::new();
        for peer in &config.peers {
            names.insert(peer.id, &peer.name);
            let own = std::iter::once(&config.private_key).chain(&config.previous_key);
            if own.map(PrivateKey::public_key).any(|own| own == peer.public_key) {
                return Err(Error::OwnKey(peer.name.clone()));
            }
            if let Some(first) = keys.insert(peer.public_key, &peer.name) {
                return Err(Error::SharedKey { first: first.into(), second: peer.name.clone() });
            }
            for prefix in &peer.addresses {
                if prefix.prefix_len() == prefix.max_prefix_len() && gate.contains(&prefix.addr()) {
                    return Err(Error::GateAddress { peer: peer.name.clone(), address: prefix.addr() });
                }
                owners.insert(prefix.trunc(), peer.id).map_err(|owner| Error::SharedPrefix {
                    first: names.get(&owner).copied().unwrap_or_default().into(),
                    second: peer.name.clone(),
                    prefix: prefix.trunc(),
                })?;
            }
            let reaches = |wanted: fn(&Reach) -> bool| peer.may_reach.iter().any(wanted);
            let services = reaches(|reach| matches!(reach, Reach::Services));
            let routes = services || reaches(|reach| matches!(reach, Reach::Route(_)));
            let admitted = Admitted {
                name: peer.name.clone(),
                public_key: peer.public_key,
                preshared_key: peer.preshared_key.clone(),
                // A route is of no use without its name.
                dns: routes || reaches(|reach| matches!(reach, Reach::Dns)),
                ingress: routes,
                metrics: services,
                begins: peer.may_reach.iter().filter(|reach| is_outside(reach)).cloned().collect(),
                reached_by: peer.reached_by.clone(),
                expires: peer.expires,
                confirm: peer.confirm,
                // Until it is known who has confirmed, nobody has.
                lock: if peer.confirm.is_some() { Lock::Closed } else { Lock::None },
            };
            // One that is switched off keeps its addresses from others, and nothing else.
            if peer.enabled {
                peers.insert(peer.id, admitted);
            }
        }
        let (private_key, previous_key) = (config.private_key.clone(), config.previous_key.clone());
        // Port 0 is nobody's, also where it means "choose one" outside.
        let metrics_port = config.metrics_port.filter(|port| *port != 0);
        let networks = config.addresses.iter().map(IpNet::trunc).collect();
        Ok(Self {
            private_key,
            previous_key,
            peers,
            addresses,
            networks,
            owners,
            metrics_port,
            ports: config.ports.clone(),
        })
    }

    /// Returns the gate's keys, the present one first.
    pub fn keys(&self) -> Vec<PrivateKey> {
        std::iter::once(&self.private_key).chain(&self.previous_key).cloned().collect()
    }

    /// Says whether there is a peer that depends on the time of day.
    pub fn follows_time(&self) -> bool {
        self.peers.values().any(|peer| peer.expires.is_some() || peer.confirm.is_some())
    }

    /// Says whether something in here is over: a peer's time, or what its person confirmed.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.peers.values().any(|peer| peer.is_due(now))
    }

    /// Returns the policy as it is at a moment: without the peers whose time is over, and open for those whose persons
    /// have confirmed.
    pub fn at(&self, now: Timestamp, confirmed: &Confirmed) -> Self {
        let mut policy = self.clone();
        policy.peers.retain(|_, peer| !peer.has_expired(now));
        for peer in policy.peers.values_mut() {
            peer.lock = peer.lock_at(now, confirmed.get(&peer.public_key).copied());
        }
        policy
    }

    /// Returns whose persons have confirmed, as far as that holds, and until when.
    pub fn open(&self) -> Confirmed {
        let open = |peer: &Admitted| match peer.lock {
            Lock::Open(until) => Some((peer.public_key, until)),
            Lock::None | Lock::Closed => None,
        };
        self.peers.values().filter_map(open).collect()
    }

    /// Says whether a peer's person has yet to confirm.
    pub fn is_locked(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(Admitted::is_locked)
    }

    /// Returns the peer that an inner address belongs to. The gate's own addresses are nobody's, also when
    /// they lie in a peer's prefix.
    pub fn owner(&self, address: IpAddr) -> Option<PeerId> {
        if self.is_gate(address) { None } else { self.owners.owner(address) }
    }

    /// Says whether an address is the gate's own, inside the tunnel.
    pub fn is_gate(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Says whether an address is of the tunnel: the gate's, a peer's, or one that a peer may get.
    pub fn is_inside(&self, address: IpAddr) -> bool {
        self.is_gate(address)
            || self.owners.owner(address).is_some()
            || self.networks.iter().any(|net| net.contains(&address))
    }

    /// Returns what is served to a peer on a TCP port of the gate.
    pub fn tcp_service(&self, peer: PeerId, port: u16) -> Option<Service> {
        match port {
            80 if self.is_locked(peer) => Some(Service::Confirm),
            53 => Some(Service::Dns),
            80 | 443 => Some(Service::Ingress),
            _ if Some(port) == self.metrics_port => Some(Service::Metrics),
            _ => self.served(peer, Protocol::Tcp, port),
        }
    }

    fn served(&self, peer: PeerId, protocol: Protocol, port: u16) -> Option<Service> {
        let is_it = |served: &ServedPort| served.protocol == protocol && served.port == port && port != 0;
        self.ports.iter().any(|served| is_it(served) && served.peers.contains(&peer)).then_some(Service::Port)
    }

    /// Returns what is served to a peer on a UDP port of the gate.
    pub fn udp_service(&self, peer: PeerId, port: u16) -> Option<Service> {
        if port == 53 { Some(Service::Dns) } else { self.served(peer, Protocol::Udp, port) }
    }

    /// Says whether a peer may begin to use a service.
    pub fn may_reach(&self, peer: PeerId, service: Service) -> bool {
        self.peers.get(&peer).is_some_and(|peer| match service {
            Service::Confirm => peer.is_locked(),
            _ if peer.is_locked() => false,
            Service::Dns => peer.dns,
            Service::Ingress => peer.ingress,
            Service::Metrics => peer.metrics,
            // It was for this peer, or there was none.
            Service::Port => true,
        })
    }

    /// Says whether a peer may begin something with a target outside. Whether that is of the Internet is for
    /// somebody to say who knows the networks of the house.
    pub fn may_relay(&self, peer: PeerId, protocol: Protocol, target: SocketAddr, is_internet: bool) -> bool {
        self.may_begin(peer, protocol.number(), target, is_internet)
    }

    /// The same for any protocol by its number; one without ports has port 0.
    pub fn may_begin(&self, peer: PeerId, protocol: u8, target: SocketAddr, is_internet: bool) -> bool {
        let Some(peer) = self.peers.get(&peer).filter(|peer| !peer.is_locked()) else { return false };
        peer.begins.iter().any(|reach| match reach {
            Reach::Net(net) => net.contains(&target.ip()),
            Reach::Ports { protocol: named, net, ports } => {
                named.number() == protocol && net.contains(&target.ip()) && ports.contains(&target.port())
            }
            Reach::Internet => is_internet,
            Reach::Dns | Reach::Services | Reach::Route(_) | Reach::Peer(_) => false,
        })
    }

    /// Says whether a peer may begin something with another one: both must name each other.
    pub fn may_visit(&self, peer: PeerId, other: PeerId, protocol: u8, from: SocketAddr, port: u16) -> bool {
        let begins =
            self.peers.get(&peer).is_some_and(|peer| !peer.is_locked() && peer.begins.contains(&Reach::Peer(other)));
        begins && self.admits(other, Some(peer), protocol, from.ip(), port, false)
    }

    /// Says whether somebody outside may begin something with a peer.
    pub fn may_call(&self, peer: PeerId, protocol: u8, from: SocketAddr, port: u16, is_lan: bool) -> bool {
        self.admits(peer, None, protocol, from.ip(), port, is_lan)
    }

    fn admits(
        &self,
        peer: PeerId,
        caller: Option<PeerId>,
        protocol: u8,
        from: IpAddr,
        port: u16,
        is_lan: bool,
    ) -> bool {
        let Some(peer) = self.peers.get(&peer).filter(|peer| !peer.is_locked()) else { return false };
        peer.reached_by.iter().any(|named| match named {
            Caller::Peer(named) => caller == Some(*named),
            Caller::Lan => caller.is_none() && is_lan,
            Caller::Net(net) => net.contains(&from),
            Caller::Ports { protocol: named, net, ports } => {
                named.number() == protocol && net.contains(&from) && ports.contains(&port)
            }
        })
    }
}

fn is_outside(reach: &Reach) -> bool {
    matches!(reach, Reach::Net(_) | Reach::Ports { .. } | Reach::Internet | Reach::Peer(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vpn::{
        self,
        gate::tests::{config, peer},
    };

    #[test]
    fn services_are_all_and_dns_is_only_dns() {
        let mut dns_only = peer(1, "10.77.0.3/32");
        dns_only.may_reach = vec![Reach::Dns];
        let mut one_route = peer(2, "10.77.0.4/32");
        one_route.may_reach = vec![Reach::Route("photos.home.example".into())];
        let policy = Policy::new(&config(vec![peer(0, "10.77.0.2/32"), dns_only, one_route])).unwrap();
        let may = |id, service| policy.may_reach(PeerId(id), service);

        assert!(may(0, Service::Dns) && may(0, Service::Ingress) && may(0, Service::Metrics));
        assert!(may(1, Service::Dns) && !may(1, Service::Ingress) && !may(1, Service::Metrics));
        assert!(may(2, Service::Dns) && may(2, Service::Ingress) && !may(2, Service::Metrics));
        assert!(!may(9, Service::Dns));
    }

    #[test]
    fn a_port_of_a_route_is_there_for_whom_the_route_admits_and_closed_to_all_others() {
        let mut config = config(vec![peer(0, "10.77.0.2/32"), peer(1, "10.77.0.3/32")]);
        let served = |protocol, port| ServedPort { protocol, port, peers: vec![PeerId(0)] };
        config.ports = vec![served(Protocol::Tcp, 2222), served(Protocol::Udp, 5000), served(Protocol::Tcp, 0)];
        let policy = Policy::new(&config).unwrap();
        let (one, two) = (PeerId(0), PeerId(1));

        assert_eq!(policy.tcp_service(one, 2222), Some(Service::Port));
        assert_eq!(policy.udp_service(one, 5000), Some(Service::Port));
        for port in [0, 5000, 2223] {
            assert_eq!(policy.tcp_service(one, port), None);
        }
        assert_eq!(policy.udp_service(one, 2222), None);
        assert_eq!((policy.tcp_service(two, 2222), policy.udp_service(two, 5000)), (None, None));
        assert!(policy.may_reach(one, Service::Port));
    }

    #[test]
    fn a_peer_that_is_switched_off_is_no_peer_and_its_addresses_stay_its_own() {
        let off = vpn::Peer { enabled: false, ..peer(0, "10.77.0.2/32") };
        let policy = Policy::new(&config(vec![off.clone(), peer(1, "10.77.0.3/32")])).unwrap();
        let taken = Policy::new(&config(vec![off, peer(1, "10.77.0.2/32")]));

        assert_eq!(policy.peers.keys().collect::<Vec<_>>(), [&PeerId(1)]);
        assert!(!policy.may_reach(PeerId(0), Service::Dns));
        assert!(matches!(taken, Err(Error::SharedPrefix { .. })));
    }

    #[test]
    fn a_peer_reaches_nothing_but_the_page_until_its_person_has_confirmed() {
        let hour = Duration::from_secs(3_600);
        let mut locked = peer(0, "10.77.0.2/32");
        locked.confirm = Some(12 * hour);
        locked.may_reach = vec![Reach::Services, Reach::Internet, Reach::Peer(PeerId(1))];
        locked.reached_by = vec![Caller::Lan, Caller::Peer(PeerId(1))];
        let other = vpn::Peer { reached_by: vec![Caller::Peer(PeerId(0))], ..peer(1, "10.77.0.3/32") };
        let (policy, key) = (Policy::new(&config(vec![locked.clone(), other])).unwrap(), locked.public_key);
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
        let somewhere: SocketAddr = "1.1.1.1:443".parse().unwrap();
        let reaches = |policy: &Policy| {
            let services = [Service::Dns, Service::Ingress, Service::Metrics];
            let begins = policy.may_begin(PeerId(0), 6, somewhere, true);
            let visits = policy.may_visit(PeerId(0), PeerId(1), 6, somewhere, 1);
            let called = policy.may_call(PeerId(0), 6, somewhere, 1, true);
            let all = services.map(|service| policy.may_reach(PeerId(0), service));
            [all[0], all[1], all[2], begins, visits, called]
        };
        let confirmed = |until: Timestamp| policy.at(now, &Confirmed::from([(key, until)]));

        // Whoever has not been told of confirmations, was told of none, or of one by a clock that is not this one.
        for closed in [&policy, &policy.at(now, &Confirmed::new()), &confirmed(now), &confirmed(now + 13 * hour)] {
            assert_eq!(reaches(closed), [false; 6]);
            assert!(closed.may_reach(PeerId(0), Service::Confirm));
            assert_eq!(closed.tcp_service(PeerId(0), 80), Some(Service::Confirm));
            assert_eq!(closed.tcp_service(PeerId(1), 80), Some(Service::Ingress));
        }
        let open = confirmed(now + 12 * hour);
        assert_eq!(reaches(&open), [true; 6]);
        assert!(!open.may_reach(PeerId(0), Service::Confirm) && !open.may_reach(PeerId(1), Service::Confirm));
        assert!(!open.is_due(now + 11 * hour) && open.is_due(now + 12 * hour));
        assert!(open.is_due(now - hour), "a clock that was set back makes it no longer");
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let twice = Policy::new(&config(vec![peer(0, "10.77.0.2/32"), peer(1, "10.77.0.2/32")]));
        let gate = Policy::new(&config(vec![peer(0, "10.77.0.1/32")]));
        let mut copy = peer(1, "10.77.0.3/32");
        copy.public_key = peer(0, "10.77.0.2/32").public_key;
        let key = Policy::new(&config(vec![peer(0, "10.77.0.2/32"), copy]));

        assert_eq!(twice.unwrap_err().to_string(), "peers \"peer0\" and \"peer1\" both have 10.77.0.2/32");
        assert!(matches!(gate, Err(Error::GateAddress { .. })));
        assert!(matches!(key, Err(Error::SharedKey { .. })));
        for address in ["0.0.0.0/0", "255.255.255.255/32", "224.0.0.1/32", "ff02::1/128", "::/0"] {
            let config = Config { addresses: vec![address.parse().unwrap()], ..config(vec![]) };
            assert!(matches!(Policy::new(&config), Err(Error::NoHost(_))), "{address}");
        }
    }

    #[test]
    fn nobody_owns_the_gates_own_address() {
        let policy = Policy::new(&config(vec![peer(0, "10.77.0.0/24")])).unwrap();

        assert_eq!(policy.owner("10.77.0.1".parse().unwrap()), None);
        assert_eq!(policy.owner("10.77.0.9".parse().unwrap()), Some(PeerId(0)));
    }
}
