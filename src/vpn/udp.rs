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
/// Larger datagrams are cut, and then fail to decrypt; nobody's tunnel has such an MTU.
pub(super) const DATAGRAM: usize = 9_216;

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

/// Receives one datagram, if there is one.
pub(super) fn receive(socket: &UdpSocket, number: usize, buffer: &mut [u8]) -> io::Result<(Path, usize)> {
    socket.try_io(Interest::READABLE, || {
        let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(buffer)];
        let message =
            recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
        let remote = message.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
        let local = message.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(IpAddr::V4(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes())))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr))),
            _ => None,
        });
        Ok((Path { socket: number, local, remote }, message.bytes))
    })
}

/// Sends one datagram back by the way that the peer's came.
pub(super) fn send(socket: &UdpSocket, path: &Path, bytes: &[u8]) -> io::Result<()> {
    socket.try_io(Interest::WRITABLE, || {
        let parts = [IoSlice::new(bytes)];
        let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        match (path.remote, path.local) {
            (SocketAddr::V4(remote), Some(IpAddr::V4(local))) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(local.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                sendmsg(fd, &parts, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&SockaddrIn::from(remote)))?
            }
            (SocketAddr::V6(remote), Some(IpAddr::V6(local))) => {
                let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: local.octets() }, ipi6_ifindex: 0 };
                sendmsg(fd, &parts, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&SockaddrIn6::from(remote)))?
            }
            (remote, _) => sendmsg(fd, &parts, &[], flags, Some(&SockaddrStorage::from(remote)))?,
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
