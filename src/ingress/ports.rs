//! Routes of plain TCP and UDP: a port, who may use it, and where it leads. Nothing of what is said there is understood.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    ingress::{
        Config, HostPattern, Rules, Upstream,
        routes::{Route, origins, reaches},
    },
    listen::Place,
    origin::{Access, Origin, PeerId},
};

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Transport {
    /// Returns its name as the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A `[[route]]` of a port.
#[derive(Clone, Debug)]
pub struct Port {
    /// What logs and metrics call it.
    pub name: String,
    /// A name that the house's DNS answers with this box.
    pub host: Option<HostPattern>,
    /// TCP or UDP.
    pub transport: Transport,
    /// Where the kernel listens. Who may come in is decided by where they come from, not by this.
    pub places: Vec<Place>,
    /// Ports of the gate's own addresses inside the tunnel.
    pub inner: Vec<u16>,
    /// Who may use it.
    pub access: Access,
    /// To these in turn; never empty.
    pub to: Vec<Upstream>,
    /// Connections are logged.
    pub log: bool,
    /// Of these only limits, backup, health and the PROXY protocol mean something.
    pub rules: Rules,
}

impl Port {
    fn admits(&self, config: &Config, origin: Origin) -> bool {
        self.access.admits(origin)
            && match origin {
                Origin::Vpn(peer) => reaches(&config.peers, peer, self.host.as_ref().unwrap_or(&HostPattern::Any)),
                _ => true,
            }
    }

    /// Returns the peers that may use it.
    pub fn peers(&self, config: &Config) -> Vec<PeerId> {
        let peers = config.peers.iter().map(|reach| reach.peer);
        peers.filter(|peer| self.admits(config, Origin::Vpn(*peer))).collect()
    }
}

/// By what somebody comes in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Entrance {
    /// A socket of the kernel's, by the place that it was bound for.
    Kernel(Place),
    /// A port of the gate's.
    Inner(u16),
}

/// The routes of ports that are in force.
#[derive(Default)]
pub(super) struct Ports(HashMap<(Transport, Entrance), Arc<Entry>>);

/// A route with all who may use it.
pub(super) struct Entry {
    admitted: HashSet<Origin>,
    pub(super) route: Arc<Route>,
}

impl Entry {
    pub(super) fn admits(&self, origin: Origin) -> bool {
        self.admitted.contains(&origin)
    }
}

impl Ports {
    /// Builds the routes; `route` makes what each needs at work.
    pub(super) fn build<E>(config: &Config, mut route: impl FnMut(&Port) -> Result<Arc<Route>, E>) -> Result<Self, E> {
        let mut entries = HashMap::new();
        for port in &config.ports {
            let admitted = origins(config).filter(|origin| port.admits(config, *origin)).collect();
            let entry = Arc::new(Entry { admitted, route: route(port)? });
            let kernel = port.places.iter().cloned().map(Entrance::Kernel);
            let inner = port.inner.iter().copied().map(Entrance::Inner);
            entries.extend(kernel.chain(inner).map(|entrance| ((port.transport, entrance), entry.clone())));
        }
        Ok(Self(entries))
    }

    pub(super) fn at(&self, transport: Transport, entrance: &Entrance) -> Option<&Arc<Entry>> {
        self.0.get(&(transport, entrance.clone()))
    }
}
