//! The VPN gate: the one trusted way in, for stock WireGuard clients.
//!
//! **The life of a packet.** A datagram comes in by a socket that notes the address of ours that it was
//! sent to. The [`gate`] looks at type and length, and finds the peer: a handshake must first pass the porter
//! (mac1, under load a cookie, the budgets), data names its session by an index. What decrypts is the peer's,
//! and only now the gate believes where the peer is. The inner packet must be whole, and its source must belong
//! to this very peer in a table that covers all peers: from here on "who" is the key, not an address. The
//! in-process stack takes it; no kernel interface has the gate's inner addresses, so nobody else can speak to
//! them. It asks the policy what the peer may begin, and hands a TCP stream or a UDP question to the DNS plane,
//! the ingress or the metrics page with `Origin::Vpn(peer)`; the rest is refused and counted. What is for the LAN
//! leaves by the TUN device, or without one is relayed, under the same policy; what comes in by the device must be
//! an answer, or be let in by `reached_by`. Answers go the same way back: a packet of the stack is sealed for its peer and sent to where that peer was last heard,
//! from the address that it spoke to.

pub mod client;
mod config;
mod covering;
mod endpoints;
mod exit;
mod familiar;
pub mod foreign;
pub mod gate;
pub mod keys;
mod netstack;
mod offload;
mod relay;
mod status;
mod tun;
mod udp;
mod wgquick;
mod work;

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

pub use config::*;
pub use covering::{Covering, covering};
pub use gate::policy::{Confirmed, Error};
pub use status::{PeerStatus, Status};
pub use wgquick::{GateSide, client_configuration, qr};

use crate::{
    audit::Audit,
    listen::BindError,
    metrics::Metrics,
    origin::Networks,
    stream::Outlet,
    supervise::Stop,
    vpn::{endpoints::Endpoints, exit::Chosen, gate::policy::Policy, status::Book, work::Work},
};

/// Where the tunnel's traffic goes; a plane that is not there has none.
#[derive(Clone, Debug, Default)]
pub struct Outlets {
    /// TCP and UDP 53.
    pub dns: Option<Outlet>,
    /// TCP 80 and 443.
    pub ingress: Option<Outlet>,
    /// TCP on the metrics port.
    pub metrics: Option<Outlet>,
    /// The page by which people confirm.
    pub confirm: Option<Outlet>,
    /// Where it is written down that a peer came in from an address for the first time.
    pub audit: Option<Arc<Audit>>,
}

/// The gate with its sockets.
#[derive(Debug)]
pub struct Plane {
    sockets: Vec<UdpSocket>,
    networks: Arc<ArcSwap<Networks>>,
    outlets: Outlets,
    endpoints: Endpoints,
    policy: ArcSwap<Policy>,
    confirmed: ArcSwap<Confirmed>,
    changed: Notify,
    book: Book,
    exit: Chosen,
}

/// A policy that is ready to be used.
#[derive(Debug)]
pub struct Prepared {
    policy: Policy,
    config: Config,
}

impl Plane {
    /// Takes the ports. Nobody may come in before the first [`Plane::commit`].
    pub fn bind(
        config: &Config,
        networks: Arc<ArcSwap<Networks>>,
        metrics: &Metrics,
        outlets: Outlets,
    ) -> Result<Self, BindError> {
        let sockets = config.listen.iter().map(|address| udp::bind(*address)).collect::<Result<_, _>>()?;
        let exit = exit::choose(config)?;
        let nobody = Config { peers: Vec::new(), addresses: Vec::new(), ..config.clone() };
        let policy = Policy::new(&nobody).expect("a policy without peers and addresses contradicts nothing");
        let book = Book::new(metrics);
        book.set_peers(&nobody);
        Ok(Self {
            sockets,
            networks,
            outlets,
            endpoints: Endpoints::new(&config.state),
            policy: ArcSwap::from_pointee(policy),
            confirmed: ArcSwap::default(),
            changed: Notify::new(),
            book,
            exit,
        })
    }

    /// Compiles a policy.
    pub fn prepare(&self, config: Config) -> Result<Prepared, Error> {
        if let Some(tun) = &self.exit.tun {
            if let Some(net) = config.addresses.iter().find(|net| !tun.routes(&net.trunc())) {
                return Err(Error::UnroutedGate(net.trunc()));
            }
            for peer in &config.peers {
                if let Some(prefix) = peer.addresses.iter().find(|prefix| !tun.routes(prefix)) {
                    return Err(Error::Unrouted { peer: peer.name.clone(), prefix: *prefix });
                }
                if !peer.reached_by.is_empty() && !tun.holds_callers_to(&config.lan_interfaces) {
                    return Err(Error::Callers(peer.name.clone()));
                }
            }
        }
        Ok(Prepared { policy: Policy::new(&config)?, config })
    }

    /// Swaps the policy in: sessions and streams of peers that are not in it end at once, the others' go on.
    pub fn commit(&self, prepared: Prepared) {
        self.book.set_peers(&prepared.config);
        self.policy.store(Arc::new(prepared.policy));
        self.changed.notify_one();
    }

    /// Takes who has confirmed, and until when; everybody else of whom it is asked reaches nothing but the page.
    pub fn set_confirmed(&self, confirmed: Confirmed) {
        self.confirmed.store(Arc::new(confirmed));
        self.changed.notify_one();
    }

    /// Works until told to stop.
    pub fn run(&self, stop: Stop) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("the gate's runtime cannot be made: {error}"))?;
        let work = Work {
            sockets: &self.sockets,
            networks: &self.networks,
            outlets: &self.outlets,
            endpoints: &self.endpoints,
            policy: &self.policy,
            confirmed: &self.confirmed,
            changed: &self.changed,
            book: &self.book,
            tun: self.exit.tun.as_ref(),
            exits: self.exit.exits,
        };
        runtime.block_on(work.run(stop))
    }

    /// Returns all that another process must have to be the gate in this one's place.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let tun = self.exit.tun.iter().flat_map(|tun| tun.descriptors());
        self.sockets.iter().map(AsFd::as_fd).chain(tun).collect()
    }

    /// Returns the gate as it is now.
    pub fn status(&self) -> Status {
        let listen: Vec<SocketAddr> = self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect();
        let mut status = self.book.status(listen, &self.exit);
        let (confirmed, now) = (self.confirmed.load(), jiff::Timestamp::now());
        let open = self.policy.load().at(now, &confirmed).open();
        for peer in status.peers.iter_mut().filter(|peer| peer.must_confirm) {
            let key = peer.public_key.parse().ok();
            let until = key.and_then(|key| open.get(&key)).and_then(|until| u64::try_from(until.as_second()).ok());
            (peer.must_confirm, peer.confirmed_until) = (until.is_none(), until);
        }
        status
    }
}
