//! What the gate tells about itself: counters, and the answer to `status`.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use prometheus::{IntCounterVec, IntGauge};
use serde::{Deserialize, Serialize};

use crate::{
    metrics::Metrics,
    origin::{PeerId, Role},
    vpn::{
        Config,
        exit::Chosen,
        gate::{Dropped, Gate, Outcome, Tally},
    },
};

/// A handshake after so long is worth a line in the log: until then it is the same visit.
const QUIET_FOR: Duration = Duration::from_secs(600);

/// The gate as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// UDP addresses.
    pub listen: Vec<SocketAddr>,
    /// The gate's public key.
    pub public_key: String,
    /// The gate's inner addresses.
    pub addresses: Vec<IpNet>,
    /// `tun` or `userspace`.
    #[serde(default)]
    pub mode: String,
    /// Why it is that one, and what is in the way.
    #[serde(default)]
    pub mode_notes: Vec<String>,
    /// TCP connections inside the tunnel.
    pub connections: usize,
    /// Flows between peers, and between peers and the kernel's networks.
    #[serde(default)]
    pub flows: usize,
    /// Every peer, as configured.
    pub peers: Vec<PeerStatus>,
}

/// A peer as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// What the owner calls it.
    pub name: String,
    /// Its group.
    pub group: Option<String>,
    /// Whose it is.
    #[serde(default)]
    pub user: Option<String>,
    /// What that person may change.
    #[serde(default)]
    pub role: Option<Role>,
    /// It reaches nothing before its person has confirmed.
    #[serde(default)]
    pub must_confirm: bool,
    /// Until then it is confirmed, in seconds since 1970.
    #[serde(default)]
    pub confirmed_until: Option<u64>,
    /// It knows the gate by the key before the present one.
    #[serde(default)]
    pub knows_old_key: bool,
    /// Who it is.
    pub public_key: String,
    /// Its inner addresses.
    pub addresses: Vec<IpNet>,
    /// When a session was last proven, in seconds since 1970.
    pub last_handshake: Option<u64>,
    /// Where it was last heard.
    pub endpoint: Option<SocketAddr>,
    /// Bytes received from it since the process began.
    pub received: u64,
    /// Bytes sent to it.
    pub sent: u64,
    /// From then on it is no peer, in seconds since 1970.
    #[serde(default)]
    pub expires: Option<u64>,
    /// It was told another endpoint than peers are told today.
    #[serde(default)]
    pub told_old_endpoint: bool,
    /// Packets of its that were refused or dropped inside the tunnel.
    #[serde(default)]
    pub refused: u64,
}

/// The counters, and what `status` says of each peer.
#[derive(Debug)]
pub(super) struct Book {
    handshakes: IntCounterVec,
    drops: IntCounterVec,
    bytes: IntCounterVec,
    refused: IntCounterVec,
    online: IntGauge,
    connections: IntGauge,
    flows: IntGauge,
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    public_key: String,
    addresses: Vec<IpNet>,
    peers: BTreeMap<PeerId, Page>,
}

#[derive(Debug)]
struct Page {
    status: PeerStatus,
    /// What of the gate's present counts stands in the book already; a gate that was started again begins at 0.
    booked: (u64, u64, u64),
}

impl Book {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let vpn = metrics.plane("vpn");
        let book = Self {
            handshakes: vpn.counters("handshakes_total", "Handshakes by outcome.", &["outcome"]),
            drops: vpn.counters("drops_total", "What the gate dropped, by reason.", &["reason"]),
            bytes: vpn.counters("peer_bytes_total", "Bytes of WireGuard datagrams, by peer.", &["peer", "direction"]),
            refused: vpn.counters("peer_refused_total", "Packets refused inside the tunnel, by peer.", &["peer"]),
            online: vpn.gauge("peers_online", "Peers with a session that can be used."),
            connections: vpn.gauge("connections", "TCP connections inside the tunnel."),
            flows: vpn.gauge("flows", "Flows between peers, and between peers and networks that the kernel routes to."),
            pages: Mutex::default(),
        };
        // All labels from the start: a rate over a series that appears with its first event misses that event.
        for outcome in Outcome::ALL {
            book.handshakes.with_label_values(&[outcome.label()]);
        }
        for reason in Dropped::ALL {
            book.drops.with_label_values(&[reason.label()]);
        }
        book
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().expect("nothing that can panic is done under this lock")
    }

    /// Takes the peers of a new policy.
    pub(super) fn set_peers(&self, config: &Config) {
        let mut pages = self.pages();
        let mut before = std::mem::take(&mut pages.peers);
        pages.public_key = config.private_key.public_key().to_string();
        pages.addresses = config.addresses.clone();
        for peer in &config.peers {
            let public_key = peer.public_key.to_string();
            let expires = peer.expires.map(|expires| u64::try_from(expires.as_second()).unwrap_or(0));
            let user = peer.user.as_ref().map(|user| user.name.clone());
            let role = peer.user.as_ref().map(|user| user.role);
            let told_old_endpoint = peer.told_endpoint.is_some() && peer.told_endpoint != config.endpoint;
            let same = before
                .remove(&peer.id)
                .filter(|page| page.status.public_key == public_key && page.status.name == peer.name);
            let page = match same {
                Some(mut page) => {
                    page.status.group = peer.group.clone();
                    page.status.addresses = peer.addresses.clone();
                    page.status.expires = expires;
                    page.status.user = user;
                    page.status.role = role;
                    page.status.must_confirm = peer.confirm.is_some();
                    page.status.told_old_endpoint = told_old_endpoint;
                    page
                }
                None => Page {
                    status: PeerStatus {
                        name: peer.name.clone(),
                        group: peer.group.clone(),
                        public_key,
                        addresses: peer.addresses.clone(),
                        last_handshake: None,
                        endpoint: None,
                        received: 0,
                        sent: 0,
                        expires,
                        user,
                        role,
                        must_confirm: peer.confirm.is_some(),
                        confirmed_until: None,
                        told_old_endpoint,
                        knows_old_key: false,
                        refused: 0,
                    },
                    booked: (0, 0, 0),
                },
            };
            for direction in ["received", "sent"] {
                self.bytes.with_label_values(&[&peer.name, direction]);
            }
            self.refused.with_label_values(&[&peer.name]);
            pages.peers.insert(peer.id, page);
        }
        for page in before.values() {
            if pages.peers.values().all(|kept| kept.status.name != page.status.name) {
                for direction in ["received", "sent"] {
                    // An error says that the series is not there, which is what is wanted.
                    let _ = self.bytes.remove_label_values(&[&page.status.name, direction]);
                }
                let _ = self.refused.remove_label_values(&[&page.status.name]);
            }
        }
    }

    /// Adds what happened.
    pub(super) fn update(&self, tally: &Tally, gate: &Gate, connections: usize, flows: usize, now: Instant) {
        for (outcome, count) in &tally.handshakes {
            self.handshakes.with_label_values(&[outcome.label()]).inc_by(*count);
        }
        for (reason, count) in &tally.drops {
            self.drops.with_label_values(&[reason.label()]).inc_by(*count);
        }
        self.connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
        self.flows.set(i64::try_from(flows).unwrap_or(i64::MAX));
        self.online.set(i64::try_from(gate.online(now)).unwrap_or(i64::MAX));
        if tally.touched.is_empty() {
            return;
        }
        let mut pages = self.pages();
        for id in &tally.touched {
            let (Some(page), Some(standing)) = (pages.peers.get_mut(id), gate.standing(*id)) else { continue };
            let since = |now: u64, before: u64| if now >= before { now - before } else { now };
            let received = since(standing.received, page.booked.0);
            let sent = since(standing.sent, page.booked.1);
            let refused = since(standing.refused, page.booked.2);
            page.booked = (standing.received, standing.sent, standing.refused);
            page.status.refused += refused;
            self.refused.with_label_values(&[&page.status.name]).inc_by(refused);
            page.status.knows_old_key = standing.knows_old_key;
            page.status.received += received;
            page.status.sent += sent;
            self.bytes.with_label_values(&[&page.status.name, "received"]).inc_by(received);
            self.bytes.with_label_values(&[&page.status.name, "sent"]).inc_by(sent);
            let last = standing.last_handshake.and_then(|then| unix(now.saturating_duration_since(then)));
            if last > page.status.last_handshake.map(|before| before + QUIET_FOR.as_secs()) {
                tracing::info!(peer = %page.status.name, endpoint = ?standing.endpoint, "peer came in");
            }
            page.status.last_handshake = last.max(page.status.last_handshake);
            page.status.endpoint = standing.endpoint.or(page.status.endpoint);
        }
    }

    /// Returns the answer to `status`.
    pub(super) fn status(&self, listen: Vec<SocketAddr>, mode: &Chosen) -> Status {
        let connections = usize::try_from(self.connections.get()).unwrap_or(0);
        let pages = self.pages();
        Status {
            listen,
            public_key: pages.public_key.clone(),
            addresses: pages.addresses.clone(),
            mode: mode.name().to_owned(),
            mode_notes: mode.notes.clone(),
            connections,
            flows: usize::try_from(self.flows.get()).unwrap_or(0),
            peers: pages.peers.values().map(|page| page.status.clone()).collect(),
        }
    }
}

/// Returns the time of day so long ago, in seconds since 1970.
fn unix(ago: Duration) -> Option<u64> {
    let then = SystemTime::now().checked_sub(ago)?;
    Some(then.duration_since(UNIX_EPOCH).ok()?.as_secs())
}
