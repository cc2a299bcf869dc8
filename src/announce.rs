//! `lan.announce`: router advertisements that name this box as the DNS server and nothing else (RFC 8106), so that
//! IPv6 clients find it where the router cannot be told of it.
//!
//! An advertisement of ours makes no router of us: its lifetime as one is 0 and it holds no prefix. Before the first
//! one, routers are asked whether they announce DNS servers themselves; then we keep silent, because clients would
//! take their pick of both and pass us by. [`Link`] decides, [`Announcer`] has the sockets.

use std::{
    io,
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::AsRawFd,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::sys::socket::{SockaddrIn6, recvfrom};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    onlink::{self, Kernel},
    supervise::{Phase, Stop},
};

/// What is announced on a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The interface.
    pub interface: String,
    /// The addresses that clients are told to ask.
    pub servers: Vec<Ipv6Addr>,
    /// Why nothing is announced.
    pub problem: Option<String>,
}

/// Sends advertisements on the LAN's interfaces.
#[derive(Debug)]
pub struct Announcer {
    sockets: Vec<(String, Socket)>,
    /// The search domain, in wire form.
    domain: Vec<u8>,
    status: Mutex<Vec<Status>>,
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;

/// How long routers have to say that they announce servers themselves: an answer to a solicitation may take half a
/// second, and comes at most every three (RFC 4861 §6.2.6).
const LISTEN: Duration = Duration::from_secs(4);
/// Between advertisements, and between the first three (RFC 4861 §10).
const INTERVAL: Duration = Duration::from_secs(200);
const FIRST_INTERVAL: Duration = Duration::from_secs(16);
const FIRST: u32 = 3;
/// At most one answer to solicitations in this time (MIN_DELAY_BETWEEN_RAS).
const AT_MOST_EVERY: Duration = Duration::from_secs(3);
/// How long clients go by what was announced, in seconds: three intervals (RFC 8106 §5.1).
const LIFETIME: u32 = 600;
/// How often sockets are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Messages of one link that are read at a time.
const SWARM: usize = 64;

/// One link, as far as its announcements go. Times are those of a clock that never goes back.
#[derive(Debug)]
pub struct Link {
    state: State,
    last: Option<Instant>,
    sent: u32,
}

#[derive(Debug)]
enum State {
    /// Routers were not asked yet.
    Begun,
    /// They may still answer.
    Listening {
        until: Instant,
    },
    Announcing {
        next: Instant,
    },
    /// Somebody else announces servers.
    Silent {
        until: Instant,
        router: Ipv6Addr,
        servers: Vec<Ipv6Addr>,
    },
}

/// What is to be sent on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Send {
    /// A solicitation to all routers.
    Solicitation,
    /// An advertisement to all nodes.
    Advertisement,
    /// One that takes the others back.
    Withdrawal,
}

impl Default for Link {
    fn default() -> Self {
        Self { state: State::Begun, last: None, sent: 0 }
    }
}

impl Link {
    /// Takes an ICMPv6 message that came from `from`. `own` are the addresses of this box.
    pub fn handle(&mut self, from: Ipv6Addr, bytes: &[u8], own: &[Ipv6Addr], now: Instant) -> Option<Send> {
        match bytes.first() {
            Some(&SOLICITATION) => {
                if let State::Announcing { next } = &mut self.state {
                    let soonest = self.last.map_or(now, |last| (last + AT_MOST_EVERY).max(now));
                    *next = (*next).min(soonest);
                }
                None
            }
            // RFC 4861 §6.1.2: only from this very link.
            Some(&ADVERTISEMENT) if from.is_unicast_link_local() && !own.contains(&from) => {
                let (servers, lifetime) = servers_of(bytes)?;
                let until = now + Duration::from_secs(u64::from(lifetime.min(86_400)));
                let announced = matches!(self.state, State::Announcing { .. }) && self.sent > 0;
                self.state = State::Silent { until, router: from, servers };
                self.sent = 0;
                announced.then_some(Send::Withdrawal)
            }
            _ => None,
        }
    }

    /// Says what is to be sent now.
    pub fn poll(&mut self, now: Instant) -> Option<Send> {
        match self.state {
            State::Begun => {
                self.state = State::Listening { until: now + LISTEN };
                Some(Send::Solicitation)
            }
            State::Listening { until } if now >= until => {
                self.state = State::Announcing { next: now };
                self.poll(now)
            }
            State::Announcing { next } if now >= next => {
                self.sent = self.sent.saturating_add(1);
                self.last = Some(now);
                let interval = if self.sent < FIRST { FIRST_INTERVAL } else { INTERVAL };
                self.state = State::Announcing { next: now + interval };
                Some(Send::Advertisement)
            }
            // The other one is gone, or has changed its mind.
            State::Silent { until, .. } if now >= until => {
                self.state = State::Begun;
                self.poll(now)
            }
            _ => None,
        }
    }

    /// Says why nothing is announced, in a sentence.
    pub fn problem(&self, interface: &str, own: &[Ipv6Addr]) -> Option<String> {
        let State::Silent { router, servers, .. } = &self.state else { return None };
        let named = servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if servers.iter().all(|server| own.contains(server)) {
            return Some(format!("{router} on {interface} announces this box already: lan.announce is not needed"));
        }
        Some(format!(
            "{router} on {interface} announces DNS servers already ({named}), and clients would ask either: name this box there, or switch that off"
        ))
    }

    const fn announces(&self) -> bool {
        matches!(self.state, State::Announcing { .. })
    }
}

/// Returns the DNS servers that an advertisement announces, and for how many seconds; `None` if it announces none.
fn servers_of(bytes: &[u8]) -> Option<(Vec<Ipv6Addr>, u32)> {
    let mut rest = bytes.get(16..)?;
    let (mut servers, mut longest) = (Vec::new(), 0);
    while let [kind, length, ..] = *rest {
        // RFC 4861 §4.6: in units of eight; none is an error.
        let (option, after) =
            rest.split_at_checked(usize::from(length) * 8).filter(|(option, _)| !option.is_empty())?;
        rest = after;
        if kind != RDNSS {
            continue;
        }
        let lifetime =
            option.get(4..8).and_then(|seconds| seconds.first_chunk()).map(|seconds| u32::from_be_bytes(*seconds))?;
        // 0 takes servers back.
        if lifetime > 0 {
            longest = longest.max(lifetime);
            servers.extend(option.get(8..)?.as_chunks::<16>().0.iter().map(|octets| Ipv6Addr::from(*octets)));
        }
    }
    (!servers.is_empty()).then_some((servers, longest))
}

/// Writes an advertisement; the kernel fills in the checksum.
fn advertisement(servers: &[Ipv6Addr], domain: &[u8], lifetime: u32) -> Vec<u8> {
    let mut bytes = vec![ADVERTISEMENT, 0, 0, 0];
    // No hop limit, no flags, no router, no times.
    bytes.extend([0; 12]);
    if let Ok(length @ 3..) = u8::try_from(1 + servers.len() * 2) {
        bytes.extend([RDNSS, length, 0, 0]);
        bytes.extend(lifetime.to_be_bytes());
        bytes.extend(servers.iter().flat_map(|server| server.octets()));
    }
    if let Ok(length @ 2..) = u8::try_from(1 + domain.len().div_ceil(8)) {
        bytes.extend([DNSSL, length, 0, 0]);
        bytes.extend(lifetime.to_be_bytes());
        bytes.extend(domain);
        bytes.extend(std::iter::repeat_n(0, domain.len().next_multiple_of(8) - domain.len()));
    }
    bytes
}

/// Chooses what clients of a link are told: unique local addresses, which stay when the provider's prefix changes,
/// else the link-local one.
fn servers(kernel: &Kernel, interface: u32) -> Vec<Ipv6Addr> {
    let own = || {
        let here = kernel.addresses.iter().filter(|address| address.interface == interface);
        here.filter_map(|address| match address.address {
            std::net::IpAddr::V6(v6) => Some(v6),
            std::net::IpAddr::V4(_) => None,
        })
    };
    let local: Vec<Ipv6Addr> = own().filter(Ipv6Addr::is_unique_local).take(3).collect();
    if !local.is_empty() {
        return local;
    }
    own().filter(Ipv6Addr::is_unicast_link_local).take(1).collect()
}

impl Announcer {
    /// Opens the sockets, which needs a privilege; the interfaces may come later.
    pub fn bind(interfaces: &[String], domain: &str) -> io::Result<Self> {
        let socket = |interface: &String| {
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
            socket.set_nonblocking(true)?;
            // RFC 4861 §6.1.2: whoever hears another number does not believe it.
            socket.set_multicast_hops_v6(255)?;
            socket.set_multicast_loop_v6(false)?;
            Ok((interface.clone(), socket))
        };
        let mut wire = Vec::new();
        for label in domain.split('.').filter(|label| !label.is_empty() && label.len() < 64) {
            wire.extend(u8::try_from(label.len()));
            wire.extend(label.bytes());
        }
        wire.push(0);
        let sockets = interfaces.iter().map(socket).collect::<io::Result<_>>()?;
        Ok(Self { sockets, domain: wire, status: Mutex::default() })
    }

    /// Returns what is announced where.
    pub fn status(&self) -> Vec<Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Announces until told to stop, and takes it back then.
    pub fn run(&self, stop: &Stop) -> Result<(), String> {
        let mut links: Vec<(Link, Option<u32>)> = self.sockets.iter().map(|_| Default::default()).collect();
        let mut kernel = Kernel::default();
        let mut read = None::<Instant>;
        while stop.phase() == Phase::Run {
            let now = Instant::now();
            if read.is_none_or(|read| now.duration_since(read) >= AT_MOST_EVERY) {
                kernel = onlink::kernel().map_err(|error| error.to_string())?;
                read = Some(now);
                self.tell(&links, &kernel);
            }
            for ((interface, socket), (link, bound)) in self.sockets.iter().zip(&mut links) {
                let present = kernel.links.get(interface).copied();
                if present != *bound {
                    (*link, *bound) = (Link::default(), present.filter(|index| join(socket, interface, *index)));
                }
                let Some(index) = *bound else { continue };
                let own = own(&kernel);
                let before = link.problem(interface, &own);
                let mut buffer = [0; 1500];
                for _ in 0..SWARM {
                    let Ok((length, Some(from))) = recvfrom::<SockaddrIn6>(socket.as_raw_fd(), &mut buffer) else {
                        break;
                    };
                    let send = link.handle(from.ip(), buffer.get(..length).unwrap_or_default(), &own, now);
                    self.send(socket, index, &kernel, send);
                }
                if let Some(problem) = link.problem(interface, &own).filter(|problem| before.as_ref() != Some(problem))
                {
                    tracing::warn!("nothing is announced: {problem}");
                }
                self.send(socket, index, &kernel, link.poll(now));
            }
            std::thread::sleep(LOOK);
        }
        // The next process announces the same.
        let ends = !stop.is_handed_over();
        for ((_, socket), (link, bound)) in self.sockets.iter().zip(&links).filter(|_| ends) {
            if let Some(index) = bound.filter(|_| link.announces()) {
                self.send(socket, index, &kernel, Some(Send::Withdrawal));
            }
        }
        Ok(())
    }

    fn tell(&self, links: &[(Link, Option<u32>)], kernel: &Kernel) {
        let own = own(kernel);
        let status = self.sockets.iter().zip(links).map(|((interface, _), (link, bound))| Status {
            interface: interface.clone(),
            servers: bound.filter(|_| link.announces()).map(|index| servers(kernel, index)).unwrap_or_default(),
            problem: match bound {
                None => Some(format!("{interface} is not there")),
                Some(_) => link.problem(interface, &own),
            },
        });
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status.collect();
    }

    fn send(&self, socket: &Socket, index: u32, kernel: &Kernel, send: Option<Send>) {
        let (to, bytes) = match send {
            None => return,
            Some(Send::Solicitation) => (ALL_ROUTERS, vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0]),
            Some(Send::Advertisement) => (ALL_NODES, advertisement(&servers(kernel, index), &self.domain, LIFETIME)),
            Some(Send::Withdrawal) => (ALL_NODES, advertisement(&servers(kernel, index), &self.domain, 0)),
        };
        if let Err(error) = socket.send_to(&bytes, &SocketAddrV6::new(to, 0, 0, index).into()) {
            tracing::debug!(%error, ?send, "not announced");
        }
    }
}

fn own(kernel: &Kernel) -> Vec<Ipv6Addr> {
    let v6 = |address: &onlink::Address| match address.address {
        std::net::IpAddr::V6(v6) => Some(v6),
        std::net::IpAddr::V4(_) => None,
    };
    kernel.addresses.iter().filter_map(v6).collect()
}

/// Makes a socket one of this interface; false if that is gone again.
fn join(socket: &Socket, interface: &str, index: u32) -> bool {
    let joined = socket
        .bind_device(Some(interface.as_bytes()))
        .and_then(|()| socket.set_multicast_if_v6(index))
        .and_then(|()| socket.join_multicast_v6(&ALL_ROUTERS, index));
    if let Err(error) = &joined {
        tracing::warn!(%error, interface, "nothing can be announced there");
    }
    joined.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const OURS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    const PUBLIC: Ipv6Addr = Ipv6Addr::new(0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe);

    fn after(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    #[test]
    fn routers_are_asked_first_and_then_it_is_announced() {
        let (mut link, begin) = (Link::default(), Instant::now());

        assert_eq!(link.poll(begin), Some(Send::Solicitation));
        assert_eq!(link.poll(after(begin, 3)), None);
        for (at, sent) in [(4, true), (10, false), (20, true), (36, true), (52, false), (236, true)] {
            assert_eq!(link.poll(after(begin, at)), sent.then_some(Send::Advertisement), "{at}");
        }
        link.handle("fe80::77".parse().unwrap(), &[SOLICITATION, 0, 0, 0, 0, 0, 0, 0], &[OURS], after(begin, 237));
        assert_eq!(link.poll(after(begin, 238)), None, "not so soon after the last");
        assert_eq!(link.poll(after(begin, 239)), Some(Send::Advertisement));
    }

    #[test]
    fn where_another_announces_servers_we_keep_silent_until_it_stops() {
        let (mut link, begin) = (Link::default(), Instant::now());
        link.poll(begin);
        link.poll(after(begin, 4));
        let theirs = advertisement(&[PUBLIC], b"\0", 60);

        assert_eq!(link.handle(OURS, &theirs, &[OURS], after(begin, 5)), None, "our own");
        assert_eq!(link.handle(PUBLIC, &theirs, &[OURS], after(begin, 5)), None, "not from the link");
        assert_eq!(link.handle(ROUTER, &advertisement(&[], b"\0", 60), &[OURS], after(begin, 5)), None, "no servers");
        assert_eq!(link.problem("eth0", &[OURS]), None);
        assert_eq!(link.handle(ROUTER, &theirs, &[OURS], after(begin, 6)), Some(Send::Withdrawal));
        let problem = link.problem("eth0", &[OURS]).unwrap();
        assert!(problem.starts_with("fe80::1 on eth0 announces DNS servers already (2620:fe::fe)"), "{problem}");
        assert_eq!(link.poll(after(begin, 60)), None);
        assert_eq!(link.poll(after(begin, 66)), Some(Send::Solicitation));
        assert_eq!(link.poll(after(begin, 70)), Some(Send::Advertisement));
    }

    #[test]
    fn an_advertisement_makes_no_router_of_us() {
        let bytes = advertisement(&[OURS], b"\x04home\x04arpa\0", LIFETIME);

        assert_eq!(bytes[..16], [134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..24], [25, 3, 0, 0, 0, 0, 2, 88]);
        assert_eq!(bytes[24..40], OURS.octets());
        assert_eq!(bytes[40..], *b"\x1f\x03\0\0\0\0\x02\x58\x04home\x04arpa\0\0\0\0\0\0");
        assert_eq!(servers_of(&bytes), Some((vec![OURS], LIFETIME)));
    }

    #[test]
    fn options_that_cannot_be_read_announce_nothing() {
        let whole = advertisement(&[PUBLIC], b"\0", 60);

        for cut in 0..whole.len() {
            let _ = servers_of(&whole[..cut]);
        }
        let mut endless = whole.clone();
        endless[17] = 0;
        assert_eq!(servers_of(&endless), None);
        assert_eq!(servers_of(&whole[..30]), None);
        assert_eq!(servers_of(&advertisement(&[PUBLIC], b"\0", 0)), None, "taken back");
    }
}
