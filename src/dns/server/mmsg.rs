//! Many datagrams with one system call, each with the address that it was sent to.
//!
//! The kernel reads and writes through the pointers in `headers`. The invariant: each of them points into
//! one of the boxed slices of the same [`Batch`]; `receive` sets those that a round before has changed. The
//! slices are made in `new` with their final length and are neither moved nor resized while the batch lives
//! (an answer's vector may be: its pointer is set right before it is sent). So whenever the kernel follows a pointer, the
//! memory is alive, is as long as the header says, and is borrowed by nobody, because `receive` and `send`
//! take the batch by `&mut`.
#![allow(unsafe_code)]

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

/// Datagrams a batch.
pub(super) const BATCH: usize = 64;

/// The longest query that is read; a longer one is no question of a client's.
const QUERY: usize = 2048;

/// Room for one packet-info message and its header, aligned as the kernel wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// Where an answer goes, and from which address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WayBack {
    /// The client.
    pub(super) to: SocketAddr,
    /// The address that was asked.
    pub(super) from: Option<IpAddr>,
    /// The interface that the question came in by.
    pub(super) interface: Option<u32>,
}

/// How the kernel learns which address an answer leaves from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// The socket has only this one: nothing need be said.
    Bound,
    /// It is said with each.
    Told,
}

/// Room for a batch of datagrams and their answers.
pub(super) struct Batch {
    leaving: Leaving,
    received: Box<[[u8; QUERY]]>,
    addresses: Box<[libc::sockaddr_storage]>,
    controls: Box<[Control]>,
    slices: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    /// How many headers the last round left in another state.
    used: usize,
    /// One for each datagram; what is empty is not sent.
    pub(super) answers: Box<[Vec<u8>]>,
}

impl Batch {
    /// Makes an empty batch for a socket with this address.
    pub(super) fn new(local: IpAddr) -> Self {
        // A link-local address needs its interface beside it.
        let is_one = match local {
            IpAddr::V4(v4) => !v4.is_unspecified(),
            IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_unicast_link_local(),
        };
        let leaving = if is_one { Leaving::Bound } else { Leaving::Told };
        // SAFETY: all-zero bytes are valid values of these plain C structures.
        let (address, slice, header) = unsafe {
            (mem::zeroed::<libc::sockaddr_storage>(), mem::zeroed::<libc::iovec>(), mem::zeroed::<libc::mmsghdr>())
        };
        Self {
            leaving,
            received: vec![[0; QUERY]; BATCH].into(),
            addresses: vec![address; BATCH].into(),
            controls: vec![Control([0; 64]); BATCH].into(),
            slices: vec![slice; BATCH].into(),
            headers: vec![header; BATCH].into(),
            used: BATCH,
            answers: (0..BATCH).map(|_| Vec::with_capacity(1280)).collect(),
        }
    }

    /// Waits for a datagram, takes what else is there, and returns how many. The answers are cleared.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        for at in 0..mem::take(&mut self.used) {
            self.answers[at].clear();
            self.slices[at] = libc::iovec { iov_base: self.received[at].as_mut_ptr().cast(), iov_len: QUERY };
            let header = &mut self.headers[at].msg_hdr;
            header.msg_name = ptr::from_mut(&mut self.addresses[at]).cast();
            header.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = ptr::from_mut(&mut self.slices[at]);
            header.msg_iovlen = 1;
            header.msg_control = self.controls[at].0.as_mut_ptr().cast();
            header.msg_controllen = mem::size_of::<Control>() as _;
            header.msg_flags = 0;
        }
        // SAFETY: the invariant at the head of this file; BATCH headers are there.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE as _,
                ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        self.used = received;
        Ok(received)
    }

    /// Returns a datagram and the place for its answer; `None` if it was too long.
    pub(super) fn datagram(&mut self, at: usize) -> Option<(&[u8], &mut Vec<u8>)> {
        let header = &self.headers[at];
        let length = usize::try_from(header.msg_len).ok()?;
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        Some((self.received[at].get(..length)?, &mut self.answers[at]))
    }

    /// Returns who sent a datagram, to which address and by which interface.
    pub(super) fn way_back(&self, at: usize) -> Option<WayBack> {
        let to = socket_address(&self.addresses[at])?;
        let header = &self.headers[at].msg_hdr;
        let mut way = WayBack { to, from: None, interface: None };
        // SAFETY: the header's control pointer and length describe what the kernel wrote into our buffer, and
        // the CMSG functions stay within it; the data is read unaligned.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(header);
            while let Some(one) = message.as_ref() {
                match (one.cmsg_level, one.cmsg_type) {
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        let info = ptr::read_unaligned(libc::CMSG_DATA(message).cast::<libc::in_pktinfo>());
                        way.from = Some(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into());
                        way.interface = u32::try_from(info.ipi_ifindex).ok();
                    }
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                        let info = ptr::read_unaligned(libc::CMSG_DATA(message).cast::<libc::in6_pktinfo>());
                        way.from = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                        way.interface = Some(info.ipi6_ifindex);
                    }
                    _ => {}
                }
                message = libc::CMSG_NXTHDR(header, message);
            }
        }
        Some(way)
    }

    /// Sends the answers of the first `count` datagrams, each from the address that was asked. What cannot be
    /// sent is lost, as datagrams are; returns how many were.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>, count: usize) -> usize {
        let mut ready = 0;
        let mut lost = 0;
        for at in 0..count.min(BATCH) {
            if self.answers[at].is_empty() {
                continue;
            }
            match self.leaving {
                Leaving::Bound => {
                    let header = &mut self.headers[at].msg_hdr;
                    header.msg_control = ptr::null_mut();
                    header.msg_controllen = 0;
                }
                Leaving::Told => self.leave_route_to_kernel(at),
            }
            let slice = libc::iovec { iov_base: self.answers[at].as_mut_ptr().cast(), iov_len: self.answers[at].len() };
            self.slices[at] = slice;
            // Headers that send are moved to the front; name and control stay where the datagram's are.
            if ready != at {
                self.headers.swap(ready, at);
            }
            self.headers[ready].msg_hdr.msg_flags = 0;
            ready += 1;
        }
        let mut sent = 0;
        while sent < ready {
            // SAFETY: the invariant at the head of this file, and `sent < ready <= BATCH`.
            let now = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.headers.as_mut_ptr().add(sent),
                    (ready - sent) as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                )
            };
            match usize::try_from(now) {
                Ok(now) if now > 0 => sent += now,
                // The error is the first one's: an unreachable client, a full buffer. The rest is tried.
                _ => {
                    sent += 1;
                    lost += 1;
                }
            }
        }
        lost
    }

    /// Takes the interface out of the packet info: the route decides, except where only the interface knows
    /// (a link-local address' own scope says it then).
    fn leave_route_to_kernel(&mut self, at: usize) {
        let header = &mut self.headers[at].msg_hdr;
        // SAFETY: as in `way_back`; what is written lies within the same message.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(header);
            while let Some(one) = message.as_ref() {
                match (one.cmsg_level, one.cmsg_type) {
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        let place = libc::CMSG_DATA(message).cast::<libc::in_pktinfo>();
                        let mut info = ptr::read_unaligned(place);
                        info.ipi_ifindex = 0;
                        ptr::write_unaligned(place, info);
                    }
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                        let place = libc::CMSG_DATA(message).cast::<libc::in6_pktinfo>();
                        let mut info = ptr::read_unaligned(place);
                        if !Ipv6Addr::from(info.ipi6_addr.s6_addr).is_unicast_link_local() {
                            info.ipi6_ifindex = 0;
                        }
                        ptr::write_unaligned(place, info);
                    }
                    _ => {}
                }
                message = libc::CMSG_NXTHDR(header, message);
            }
        }
    }
}

fn socket_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure it is; the storage is large and aligned enough for it.
            let v4 = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            Some(SocketAddr::from((Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)), u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let address = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(address, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd};

    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;

    #[test]
    fn a_batch_is_answered_from_the_addresses_that_were_asked() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        setsockopt(&server, sockopt::Ipv4PacketInfo, &true).unwrap();
        let port = server.local_addr().unwrap().port();
        let clients: Vec<_> = (0..5_u8)
            .map(|number| {
                let client = UdpSocket::bind("127.0.0.1:0").unwrap();
                // A connected socket takes answers from this address only.
                client.connect(SocketAddr::from(([127, 0, 0, 1 + number], port))).unwrap();
                client.send(&[number; 3]).unwrap();
                client
            })
            .collect();
        let mut batch = Batch::new(server.local_addr().unwrap().ip());

        let mut seen = 0;
        while seen < clients.len() {
            let count = batch.receive(server.as_fd()).unwrap();
            for at in 0..count {
                let way = batch.way_back(at).unwrap();
                assert!(way.interface.is_some_and(|index| index > 0));
                let (question, answer) = batch.datagram(at).unwrap();
                assert_eq!(way.from.unwrap(), IpAddr::from([127, 0, 0, 1 + question[0]]));
                // The second is left without an answer.
                if question[0] != 1 {
                    answer.extend_from_slice(&[question[0]; 7]);
                }
            }
            assert_eq!(batch.send(server.as_fd(), count), 0);
            seen += count;
        }

        for (number, client) in clients.iter().enumerate().filter(|(number, _)| *number != 1) {
            let mut buffer = [0; 16];
            assert_eq!(client.recv(&mut buffer).unwrap(), 7);
            assert_eq!(usize::from(buffer[0]), number);
        }
    }

    #[test]
    fn a_socket_with_one_address_answers_batch_after_batch_from_it() {
        for address in ["127.0.0.3:0", "[::1]:0"] {
            let Ok(server) = UdpSocket::bind(address) else { continue };
            super::super::udp::prepare(&server).unwrap();
            let local = server.local_addr().unwrap();
            let client = UdpSocket::bind((local.ip(), 0)).unwrap();
            client.connect(local).unwrap();
            let mut batch = Batch::new(local.ip());

            for round in 1..4_u8 {
                client.send(&[round]).unwrap();
                let count = batch.receive(server.as_fd()).unwrap();
                let way = batch.way_back(0).unwrap();
                assert_eq!((way.from, way.to.ip()), (Some(local.ip()), local.ip()), "told anew each time");
                let (question, answer) = batch.datagram(0).unwrap();
                answer.extend_from_slice(question);
                assert_eq!(batch.send(server.as_fd(), count), 0);

                let mut buffer = [0; 16];
                assert_eq!(client.recv(&mut buffer).unwrap(), 1);
                assert_eq!(buffer[0], round);
            }
        }
    }

    #[test]
    fn what_is_too_long_is_no_datagram() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(&[0; QUERY + 1], server.local_addr().unwrap()).unwrap();
        let mut batch = Batch::new(server.local_addr().unwrap().ip());

        let count = batch.receive(server.as_fd()).unwrap();

        assert_eq!(count, 1);
        assert!(batch.datagram(0).is_none());
        assert_eq!(batch.way_back(0).unwrap().to, client.local_addr().unwrap());
    }
}
