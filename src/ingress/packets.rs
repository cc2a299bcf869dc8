//! One datagram of a socket that stands for many addresses: which of them was spoken to, and the answer from the same.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
};

use nix::{
    libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, sendmsg,
        setsockopt, sockopt,
    },
};
use tokio::{io::Interest, net::UdpSocket};

use crate::listen::{self, BindError, Place, Wanted};

/// Binds the one socket of a place.
pub(super) fn bind(place: &Place, key: &'static str) -> Result<std::net::UdpSocket, BindError> {
    let address = place.address;
    let sockets = listen::udp(&Wanted { address, device: place.device.as_deref(), shards: 1, key })?;
    let socket = sockets.into_iter().next().expect("at least one socket is bound");
    let failed = |error: nix::Error| BindError::Other { address, protocol: "UDP", key, error: error.into() };
    match address {
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).map_err(failed)?,
        SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true).map_err(failed)?,
    }
    Ok(socket)
}

/// Receives a datagram, if there is one: its length, who sent it, and to which address.
pub(super) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
    socket.try_io(Interest::READABLE, || {
        let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let storage = message.address.ok_or(io::ErrorKind::InvalidData)?;
        let client = match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
            (Some(v4), _) => SocketAddr::from((v4.ip(), v4.port())),
            (None, Some(v6)) => std::net::SocketAddrV6::from(*v6).into(),
            (None, None) => return Err(io::ErrorKind::InvalidData.into()),
        };
        let local = message.cmsgs()?.find_map(|said| match said {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(IpAddr::V4(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes())))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr))),
            _ => None,
        });
        Ok((message.bytes, client, local))
    })
}

/// Sends a datagram from an address of ours.
pub(super) fn send(socket: &UdpSocket, local: Option<IpAddr>, client: SocketAddr, said: &[u8]) -> io::Result<()> {
    socket.try_io(Interest::WRITABLE, || {
        let (fd, flags, parts) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT, [IoSlice::new(said)]);
        match client {
            SocketAddr::V4(client) => {
                let info = local.and_then(|local| match local {
                    IpAddr::V4(local) => Some(libc::in_pktinfo {
                        ipi_ifindex: 0,
                        ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(local.octets()) },
                        ipi_addr: libc::in_addr { s_addr: 0 },
                    }),
                    IpAddr::V6(_) => None,
                });
                let control: Vec<_> = info.iter().map(ControlMessage::Ipv4PacketInfo).collect();
                sendmsg(fd, &parts, &control, flags, Some(&SockaddrIn::from(client)))?;
            }
            SocketAddr::V6(client) => {
                let info = local.and_then(|local| match local {
                    IpAddr::V6(local) => Some(libc::in6_pktinfo {
                        ipi6_addr: libc::in6_addr { s6_addr: local.octets() },
                        ipi6_ifindex: client.scope_id(),
                    }),
                    IpAddr::V4(_) => None,
                });
                let control: Vec<_> = info.iter().map(ControlMessage::Ipv6PacketInfo).collect();
                sendmsg(fd, &parts, &control, flags, Some(&SockaddrIn6::from(client)))?;
            }
        }
        Ok(())
    })
}
