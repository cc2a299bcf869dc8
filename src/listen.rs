//! All kernel sockets: bound here, before privileges are dropped, and kept so that a plane which was
//! started again finds them.
//!
//! Each address is bound once without SO_REUSEPORT first, so that a port which is taken is noticed: two
//! processes of one user would otherwise share it in silence. Per-core sockets join afterwards.
//!
//! A process that takes over from another one binds nothing that the other one had: it finds it among what it
//! inherited, by what the kernel says of each socket.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

/// What came from the process before this one and was not asked for yet. Descriptors belong to the process, so
/// there is one such list in it; it is empty but for the moments of a start.
static INHERITED: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

fn inherited() -> MutexGuard<'static, Vec<OwnedFd>> {
    INHERITED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes over what the process before this one had open; whoever binds from now on finds his own among it.
pub fn inherit(descriptors: Vec<OwnedFd>) {
    *inherited() = descriptors;
}

/// Closes what nobody asked for; returns how many those were.
pub fn disinherit() -> usize {
    std::mem::take(&mut *inherited()).len()
}

/// Returns what was inherited and is what is looked for.
pub fn find_inherited(is_it: impl Fn(BorrowedFd<'_>) -> bool) -> Vec<OwnedFd> {
    use std::os::fd::AsFd;
    let mut left = inherited();
    left.extract_if(.., |descriptor| is_it(descriptor.as_fd())).collect()
}

/// Where a plane listens, as its configuration says it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The address; unspecified together with a device means every address that the device has, also
    /// tomorrow's.
    pub address: SocketAddr,
    /// Only packets of this interface reach the socket (SO_BINDTODEVICE).
    pub device: Option<String>,
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self { address, device: None }
    }
}

/// A port that could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error("{protocol} port {port} on {ip} is taken: stop what holds it, or change `{key}`", port = address.port(), ip = address.ip())]
    Taken {
        /// The address as configured.
        address: SocketAddr,
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The key that names this address.
        key: &'static str,
    },
    /// It needs a privilege.
    #[error("{protocol} port {port} on {ip} needs a privilege (CAP_NET_BIND_SERVICE, or start as root with `node.user`): set by `{key}`", port = address.port(), ip = address.ip())]
    Denied {
        /// The address as configured.
        address: SocketAddr,
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The key that names this address.
        key: &'static str,
    },
    /// It is no port that is missing.
    #[error("`{key}`: {what}")]
    Missing {
        /// The key that asks for it.
        key: &'static str,
        /// What is missing, and what to do.
        what: String,
    },
    /// Anything else.
    #[error("{protocol} {address} cannot be bound (`{key}`): {error}")]
    Other {
        /// The address as configured.
        address: SocketAddr,
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The key that names this address.
        key: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

impl BindError {
    fn new(error: io::Error, address: SocketAddr, protocol: &'static str, key: &'static str) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::Taken { address, protocol, key },
            io::ErrorKind::PermissionDenied => Self::Denied { address, protocol, key },
            _ => Self::Other { address, protocol, key, error },
        }
    }
}

/// What to bind.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The address; port 0 is chosen once and shared by all shards.
    pub address: SocketAddr,
    /// Only packets of this interface reach the socket (SO_BINDTODEVICE).
    pub device: Option<&'a str>,
    /// How many sockets share the address, at least 1.
    pub shards: usize,
    /// The key that names this address, for messages.
    pub key: &'static str,
}

/// Binds TCP listeners, non-blocking, with the backlog of a busy server.
pub fn tcp(wanted: &Wanted<'_>) -> Result<Vec<TcpListener>, BindError> {
    let fail = |error| BindError::new(error, wanted.address, "TCP", wanted.key);
    let sockets = bind(wanted, Type::STREAM, Protocol::TCP).map_err(fail)?;
    sockets
        .into_iter()
        .map(|socket| {
            socket.listen(1024)?;
            Ok(socket.into())
        })
        .collect::<io::Result<_>>()
        .map_err(fail)
}

/// Binds UDP sockets, non-blocking.
pub fn udp(wanted: &Wanted<'_>) -> Result<Vec<UdpSocket>, BindError> {
    let fail = |error| BindError::new(error, wanted.address, "UDP", wanted.key);
    let sockets = bind(wanted, Type::DGRAM, Protocol::UDP).map_err(fail)?;
    Ok(sockets.into_iter().map(Socket::into).collect())
}

fn bind(wanted: &Wanted<'_>, kind: Type, protocol: Protocol) -> io::Result<Vec<Socket>> {
    // Left as they are: the one before still reads some of them, and how it waits is a property of the socket.
    let kept = find_inherited(|descriptor| is_wanted(SockRef::from(&descriptor), wanted, kind));
    if !kept.is_empty() {
        return Ok(kept.into_iter().map(Socket::from).collect());
    }
    // A port that the kernel chose may be gone again between the probe and the others.
    let mut attempts = if wanted.address.port() == 0 { 16 } else { 1 };
    loop {
        attempts -= 1;
        match bind_once(wanted, kind, protocol) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            done => return done,
        }
    }
}

fn is_wanted(socket: SockRef<'_>, wanted: &Wanted<'_>, kind: Type) -> bool {
    socket.r#type().is_ok_and(|is| is == kind)
        && socket.local_addr().is_ok_and(|local| local.as_socket() == Some(wanted.address))
        && socket.device().is_ok_and(|device| device.as_deref() == wanted.device.map(str::as_bytes))
}

fn bind_once(wanted: &Wanted<'_>, kind: Type, protocol: Protocol) -> io::Result<Vec<Socket>> {
    // The probe shares with nobody: it fails if anyone has the port, however politely. It must be gone
    // before the others come; who slips in between is refused by them, as long as they do not share.
    let address = {
        let probe = socket(wanted, kind, protocol)?;
        probe.bind(&SockAddr::from(wanted.address))?;
        probe.local_addr()?.as_socket().unwrap_or(wanted.address)
    };
    (0..wanted.shards.max(1))
        .map(|_| {
            let socket = socket(wanted, kind, protocol)?;
            if wanted.shards > 1 {
                socket.set_reuse_port(true)?;
            }
            socket.bind(&SockAddr::from(address))?;
            Ok(socket)
        })
        .collect()
}

fn socket(wanted: &Wanted<'_>, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(wanted.address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if wanted.address.is_ipv6() {
        // IPv4 has a socket of its own: no IPv4-mapped sources.
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // For TCP, SO_REUSEADDR only lets a listener come back while old connections linger.
        socket.set_reuse_address(true)?;
    }
    if let Some(device) = wanted.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(port: u16, shards: usize) -> Wanted<'static> {
        Wanted { address: ([127, 0, 0, 1], port).into(), device: None, shards, key: "dns.listen" }
    }

    #[test]
    fn a_port_that_shards_hold_is_taken_for_the_next_comer() {
        let first = udp(&wanted(0, 2)).unwrap();
        let port = first[0].local_addr().unwrap().port();

        let second = udp(&wanted(port, 2));

        let message = second.unwrap_err().to_string();
        assert!(message.contains("is taken") && message.contains("`dns.listen`"), "{message}");
        assert_eq!(first[1].local_addr().unwrap().port(), port);
    }

    #[test]
    fn who_takes_over_finds_his_own_and_leaves_the_rest() {
        use std::os::fd::AsFd;
        let open: Vec<UdpSocket> = udp(&wanted(0, 2)).unwrap();
        let other = tcp(&wanted(0, 1)).unwrap();
        let port = open[0].local_addr().unwrap().port();
        let given: Vec<BorrowedFd<'_>> = open.iter().map(AsFd::as_fd).chain(other.iter().map(AsFd::as_fd)).collect();
        inherit(given.iter().map(|one| one.try_clone_to_owned().unwrap()).collect());

        assert!(
            matches!(tcp(&wanted(port, 1)).unwrap().as_slice(), [fresh] if fresh.local_addr().unwrap().port() == port)
        );
        let found = udp(&wanted(port, 2)).unwrap();

        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|one| one.local_addr().unwrap().port() == port));
        assert_eq!(disinherit(), 1);
        assert!(matches!(udp(&wanted(port, 2)), Err(BindError::Taken { .. })));
    }

    #[test]
    fn a_tcp_port_is_taken_as_well() {
        let first = tcp(&wanted(0, 1)).unwrap();
        let port = first[0].local_addr().unwrap().port();

        assert!(matches!(tcp(&wanted(port, 1)), Err(BindError::Taken { .. })));
    }
}
