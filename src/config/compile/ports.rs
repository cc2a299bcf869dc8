//! Each port of each address is taken once.

use std::net::SocketAddr;

use crate::{
    config::problems::{About, At, Report},
    listen::Place,
};

/// What a port belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

/// What is taken so far, and by which key.
#[derive(Default)]
pub(crate) struct Taken(Vec<(Protocol, Place, &'static str)>);

impl Taken {
    /// Takes places for a key, reporting those that somebody has.
    pub(crate) fn take(
        &mut self,
        places: &[At<Place>],
        key: &'static str,
        protocols: &[Protocol],
        about: &About,
        report: &Report,
    ) {
        for place in places {
            let mut clash = None;
            for protocol in protocols {
                let other = self.0.iter().find(|(other, taken, _)| other == protocol && same(taken, &place.value));
                clash = clash.or(other.map(|(protocol, taken, key)| (*protocol, taken.clone(), *key)));
                self.0.push((*protocol, place.value.clone(), key));
            }
            if let Some((protocol, taken, other)) = clash {
                let protocol = if protocol == Protocol::Tcp { "TCP" } else { "UDP" };
                let device = taken.device.map(|device| format!(" on {device}")).unwrap_or_default();
                let what =
                    format!("{protocol} {} is taken by `{other}` ({}{device})", place.value.address, taken.address);
                report.error(place.at, about, what, "choose another port or address for one of the two");
            }
        }
    }

    /// Says whether the edge listens on this port of TCP somewhere.
    pub(crate) fn has_tcp(&self, port: u16) -> bool {
        self.0.iter().any(|(protocol, place, _)| *protocol == Protocol::Tcp && place.address.port() == port)
    }

    /// Says whether this address is one of ours: an upstream there would be the edge itself.
    pub(crate) fn is_ours(&self, address: SocketAddr, own: impl Fn(SocketAddr) -> bool) -> bool {
        self.has(Protocol::Tcp, address, own)
    }

    /// The same of either protocol.
    pub(crate) fn has(&self, wanted: Protocol, address: SocketAddr, own: impl Fn(SocketAddr) -> bool) -> bool {
        self.0.iter().any(|(protocol, place, _)| {
            *protocol == wanted
                && place.address.port() == address.port()
                && (place.address == address || (place.address.ip().is_unspecified() && own(address)))
        })
    }
}

/// As the kernel sees it: a socket without a device has the port on all of them.
fn same(a: &Place, b: &Place) -> bool {
    let (x, y) = (a.address, b.address);
    let one_is_any = x.is_ipv4() == y.is_ipv4() && (x.ip().is_unspecified() || y.ip().is_unspecified());
    let device = a.device.is_none() || b.device.is_none() || a.device == b.device;
    // Port 0 is another one each time.
    x.port() == y.port() && x.port() != 0 && (x.ip() == y.ip() || one_is_any) && device
}
