//! The gate's UDP sockets: which address of ours a datagram was sent to, and answers from that address.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, sendmsg,
    setsockopt, sockopt,
};
use tokio::{io::Interest, net::UdpSocket};

use crate::{
    listen::{self, BindError, Wanted},
    vpn::gate::Path,
};

/// wireguard-go found that this alone turns thousands of lost packets into none.
const KERNEL_BUFFER: usize = 7 << 20;
/// What one call brings at most: a datagram, or many of one size in a row that the kernel has put together.
pub(super) const RECEIVED: usize = 65_536;
/// Datagrams that one call sends at most (UDP_MAX_SEGMENTS), and their bytes with room for the headers.
pub(super) const SENT_AT_ONCE: usize = 64;
const SENT_BYTES: usize = 65_000;

/// Binds one socket for an address.
pub(super) fn bind(address: SocketAddr) -> Result<std::net::UdpSocket, BindError> {
    // One socket per address and no sharing: with SO_REUSEADDR another user could take the port over.
    let sockets = listen::udp(&Wanted { address, device: None, shards: 1, key: "vpn.listen" })?;
    let socket = sockets.into_iter().next().expect("at least one socket is bound");
    let failed =
        |error: nix::Error| BindError::Other { address, protocol: "UDP", key: "vpn.listen", error: error.into() };
    match address {
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).map_err(failed)?,
        SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true).map_err(failed)?,
    }
    // Linux 5.0; without it each call brings one datagram.
    if let Err(error) = setsockopt(&socket, sockopt::UdpGroSegment, &true) {
        tracing::debug!(%address, %error, "datagrams are received one by one");
    }
    // As much as is permitted: beyond the system's limit with a privilege only, which is there before the drop.
    let both = [
        setsockopt(&socket, sockopt::RcvBufForce, &KERNEL_BUFFER)
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &KERNEL_BUFFER)),
        setsockopt(&socket, sockopt::SndBufForce, &KERNEL_BUFFER)
            .or_else(|_| setsockopt(&socket, sockopt::SndBuf, &KERNEL_BUFFER)),
    ];
    if let Some(error) = both.into_iter().find_map(Result::err) {
        tracing::debug!(%address, %error, "socket buffers stay as they are");
    }
    Ok(socket)
}

/// What one call brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// The way of all of it.
    pub(super) path: Path,
    /// Bytes in the buffer.
    pub(super) length: usize,
    /// Bytes of each datagram; the last one may have less.
    pub(super) segment: usize,
}

/// Receives datagrams of one sender, if there are any.
pub(super) fn receive(socket: &UdpSocket, number: usize, buffer: &mut [u8]) -> io::Result<Received> {
    socket.try_io(Interest::READABLE, || {
        let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo, i32);
        let mut parts = [IoSliceMut::new(buffer)];
        let message =
            recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
        let remote = message.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
        let (mut local, mut segment) = (None, message.bytes);
        for said in message.cmsgs()? {
            match said {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    local = Some(IpAddr::V4(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes())));
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    local = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                }
                ControlMessageOwned::UdpGroSegments(size) => segment = usize::try_from(size).unwrap_or(segment),
                _ => {}
            }
        }
        let path = Path { socket: number, local, remote };
        Ok(Received { path, length: message.bytes, segment: segment.max(1) })
    })
}

/// Datagrams for one peer that can be sent with one call: all of one size, but the last one may be smaller.
#[derive(Debug, Default)]
pub(super) struct Run {
    way: Option<Path>,
    datagrams: Vec<Vec<u8>>,
    bytes: usize,
}

impl Run {
    /// Takes a datagram, or gives it back if it has to wait until the others are sent.
    pub(super) fn push(&mut self, path: Path, datagram: Vec<u8>) -> Result<(), Vec<u8>> {
        if let (Some(first), Some(last)) = (self.datagrams.first(), self.datagrams.last()) {
            let continues = self.way == Some(path)
                && last.len() == first.len()
                && datagram.len() <= first.len()
                && self.datagrams.len() < SENT_AT_ONCE
                && self.bytes + datagram.len() <= SENT_BYTES;
            if !continues {
                return Err(datagram);
            }
        }
        self.way = Some(path);
        self.bytes += datagram.len();
        self.datagrams.push(datagram);
        Ok(())
    }

    /// Returns where they go.
    pub(super) fn path(&self) -> Option<Path> {
        self.way
    }

    /// Says how many there are.
    pub(super) fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Forgets them.
    pub(super) fn clear(&mut self) {
        self.way = None;
        self.datagrams.clear();
        self.bytes = 0;
    }

    /// Sends all of them with one call where the kernel can. Returns how many were not sent.
    pub(super) fn send(&self, socket: &UdpSocket) -> usize {
        let Some(path) = self.way else { return 0 };
        if let [_, _, ..] = self.datagrams[..] {
            let parts: Vec<IoSlice<'_>> = self.datagrams.iter().map(|one| IoSlice::new(one)).collect();
            let segment = self.datagrams.first().and_then(|first| u16::try_from(first.len()).ok());
            match send(socket, &path, &parts, segment) {
                Ok(()) => return 0,
                // Full: the peer's own retransmission deals with it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.datagrams.len(),
                // Linux before 4.18, a device without checksums, or a path that is narrower: one by one.
                Err(_) => {}
            }
        }
        self.datagrams.iter().filter(|one| send_one(socket, &path, one).is_err()).count()
    }
}

fn send_one(socket: &UdpSocket, path: &Path, datagram: &[u8]) -> io::Result<()> {
    let parts = [IoSlice::new(datagram)];
    match send(socket, path, &parts, None) {
        // The address of ours may have gone a moment ago: better from another one than not at all.
        Err(error) if path.local.is_some() && error.kind() != io::ErrorKind::WouldBlock => {
            send(socket, &Path { local: None, ..*path }, &parts, None)
        }
        sent => sent,
    }
}

/// Sends back by the way that the peer's came: from the address that it spoke to.
fn send(socket: &UdpSocket, path: &Path, parts: &[IoSlice<'_>], segment: Option<u16>) -> io::Result<()> {
    socket.try_io(Interest::WRITABLE, || {
        let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let segments = segment.as_ref().map(ControlMessage::UdpGsoSegments);
        let (v4, v6);
        let from = match (path.remote, path.local) {
            (SocketAddr::V4(_), Some(IpAddr::V4(local))) => {
                v4 = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(local.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                Some(ControlMessage::Ipv4PacketInfo(&v4))
            }
            (SocketAddr::V6(_), Some(IpAddr::V6(local))) => {
                v6 = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: local.octets() }, ipi6_ifindex: 0 };
                Some(ControlMessage::Ipv6PacketInfo(&v6))
            }
            _ => None,
        };
        let control: Vec<ControlMessage<'_>> = from.into_iter().chain(segments).collect();
        match path.remote {
            SocketAddr::V4(remote) => sendmsg(fd, parts, &control, flags, Some(&SockaddrIn::from(remote)))?,
            SocketAddr::V6(remote) => sendmsg(fd, parts, &control, flags, Some(&SockaddrIn6::from(remote)))?,
        };
        Ok(())
    })
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
        (Some(v4), _) => Some(SocketAddr::from((v4.ip(), v4.port()))),
        (None, Some(v6)) => Some(std::net::SocketAddrV6::from(*v6).into()),
        (None, None) => None,
    }
}
