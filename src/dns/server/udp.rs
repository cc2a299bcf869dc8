//! Datagrams of the kernel's: one thread and one socket for each core, a batch at a time.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, SockaddrIn6, sendmsg, setsockopt, sockopt};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover};
use tokio::runtime::Handle;

use super::{
    Handled,
    mmsg::{BATCH, Batch, WayBack},
};
use crate::{
    dns::{
        Core,
        answer::{Asker, Step, View},
        counters::{Dropped, Tally, Transport},
        policy::Policy,
    },
    supervise::{self, Phase, Stop},
};

/// How long a thread sleeps at most before it looks whether it should stop.
const NAP: Duration = Duration::from_millis(250);

/// How often a datagram that makes a thread fall over is told of; each is counted.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What the kernel may keep for us while a batch is worked on.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Makes a socket tell which address was asked and by which interface, and its answers leave in one piece or not at
/// all (RFC 9715 section 3.1): what came in pieces could be forged piece by piece. What ICMP says of a path's MTU, which
/// anybody can say, shortens nothing: no answer is longer than 1232 bytes.
pub(in crate::dns) fn prepare(socket: &UdpSocket) -> io::Result<()> {
    if socket.local_addr()?.is_ipv4() {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
        set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE)?;
    } else {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::PROBE)?;
    }
    // As much as the kernel permits; less works too.
    let _ = socket2::SockRef::from(socket).set_recv_buffer_size(RECEIVE_BUFFER);
    Ok(())
}

/// Answers datagrams until told to stop. Answers that must wait are sent by tasks of `runtime`.
pub(in crate::dns) fn serve(socket: &UdpSocket, core: &Arc<Core>, runtime: &Handle, stop: &Stop) -> Result<(), String> {
    serve_with(super::handle, socket, core, runtime, stop)
}

/// What is done with one message; another one in tests.
type HandleOne = fn(&Arc<Core>, &View<'_>, &Arc<Policy>, &Asker, &[u8], &mut Vec<u8>) -> Handled;

fn serve_with(
    handle: HandleOne,
    socket: &UdpSocket,
    core: &Arc<Core>,
    runtime: &Handle,
    stop: &Stop,
) -> Result<(), String> {
    let _inside = runtime.enter();
    let fail = |error: io::Error| format!("UDP socket: {error}");
    let waiting_socket = Arc::new(socket.try_clone().map_err(fail)?);
    // The timeout is what ends the wait: the socket itself must block.
    socket.set_nonblocking(false).map_err(fail)?;
    socket.set_read_timeout(Some(NAP)).map_err(fail)?;
    let mut batch = Batch::new(socket.local_addr().map_err(fail)?.ip());
    let mut tally = Tally::default();
    let mut told: Option<Instant> = None;
    while stop.phase() == Phase::Run {
        let count = match batch.receive(socket.as_fd()) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
            // What a client's refused answer left behind (ICMP).
            Err(error) if is_clients_fault(&error) => continue,
            Err(error) => return Err(fail(error)),
        };
        let Some(policy) = core.policy.load_full() else { continue };
        let instant = Instant::now();
        let view = View::new(core, &policy, core.clock.milliseconds(), instant);
        for at in 0..count.min(BATCH) {
            let Some(way) = batch.way_back(at) else { continue };
            let source = view.networks.classify(way.to.ip(), way.interface);
            let asker = Asker { source, client: way.to.ip(), transport: Transport::Udp, name: None };
            let Some((bytes, out)) = batch.datagram(at) else {
                tally.dropped(Dropped::NoQuery);
                continue;
            };
            // A reflected answer would go to a port that nobody asks from.
            if way.to.port() == 0 || way.from.is_some_and(|from| from.is_multicast()) {
                tally.dropped(Dropped::NoQuery);
                continue;
            }
            // Nobody may end everybody's service with one datagram. What it can leave behind are answers and
            // counts, each of them whole or missing.
            let handling = AssertUnwindSafe(|| handle(core, &view, &policy, &asker, bytes, &mut *out));
            let handled = catch_unwind(handling).unwrap_or_else(|panic| {
                if told.is_none_or(|told| instant.duration_since(told) >= TELL_EVERY) {
                    told = Some(instant);
                    tracing::error!(failure = supervise::panic_text(panic.as_ref()), "a datagram was not handled");
                }
                Handled::Now(Step::Silence(Dropped::Fault))
            });
            match handled {
                Handled::Now(step) => {
                    view.report(&asker, bytes, &step, Duration::ZERO);
                    match (step.outcome(), step) {
                        (Some(outcome), _) => tally.answered(outcome),
                        (None, Step::Silence(reason)) => {
                            // Whatever was begun.
                            out.clear();
                            tally.dropped(reason);
                        }
                        (None, _) => {}
                    }
                }
                Handled::Later(waiting) => {
                    out.clear();
                    let (core, socket, bytes) = (core.clone(), waiting_socket.clone(), bytes.to_vec());
                    supervise::task("dns datagram", async move {
                        if let Some(answer) = super::later(&core, &asker, &bytes, waiting).await
                            && send_one(&socket, &way, &answer).is_err()
                        {
                            core.series.dropped(Dropped::Unsendable);
                        }
                    });
                }
            }
        }
        for _ in 0..batch.send(socket.as_fd(), count) {
            tally.dropped(Dropped::Unsendable);
        }
        core.series.add(Transport::Udp, &mut tally);
    }
    Ok(())
}

fn is_clients_fault(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable)
}

/// Sends one answer from the address that was asked.
fn send_one(socket: &UdpSocket, way: &WayBack, answer: &[u8]) -> nix::Result<usize> {
    let payload = [io::IoSlice::new(answer)];
    let fd = socket.as_raw_fd();
    // A full buffer loses the answer: a task must not wait for it.
    let flags = MsgFlags::MSG_DONTWAIT;
    match (way.to.ip(), way.from) {
        (IpAddr::V4(to), Some(IpAddr::V4(from))) => {
            let spec_dst = nix::libc::in_addr { s_addr: u32::from(from).to_be() };
            let info = nix::libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: spec_dst, ipi_addr: spec_dst };
            let to = SockaddrIn::from(SocketAddrV4::new(to, way.to.port()));
            sendmsg(fd, &payload, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))
        }
        (IpAddr::V6(to), Some(IpAddr::V6(from))) => {
            let interface = way.interface.filter(|_| from.is_unicast_link_local()).unwrap_or(0);
            let address = nix::libc::in6_addr { s6_addr: from.octets() };
            let info = nix::libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: interface };
            let scope = way.interface.filter(|_| to.is_unicast_link_local()).unwrap_or(0);
            let to = SockaddrIn6::from(SocketAddrV6::new(to, way.to.port(), 0, scope));
            sendmsg(fd, &payload, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))
        }
        _ => socket.send_to(answer, way.to).map_err(|error| match error.raw_os_error() {
            Some(number) => nix::Error::from_raw(number),
            None => nix::Error::EIO,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{
        dns::{
            fuzz::House,
            query::{qtype, tests::query},
        },
        origin::Networks,
    };

    #[test]
    fn answers_do_not_leave_in_pieces() {
        let v4 = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();

        prepare(&v4).unwrap();

        assert_eq!(rustix::net::sockopt::ip_mtu_discover(&v4).unwrap(), Ipv4PathMtuDiscovery::PROBE);
        if let Ok(v6) = UdpSocket::bind("[::1]:0") {
            prepare(&v6).unwrap();
            assert_eq!(rustix::net::sockopt::ipv6_mtu_discover(&v6).unwrap(), Ipv6PathMtuDiscovery::PROBE);
        }
    }

    #[test]
    fn a_datagram_that_nobody_can_bear_costs_only_its_own_answer() {
        let handle: HandleOne = |core, view, policy, asker, bytes, out| {
            out.extend_from_slice(b"half an answer");
            assert!(bytes.len() > 12, "too little for us");
            super::super::handle(core, view, policy, asker, bytes, out)
        };
        let house = House::new(|_| {});
        house.core.policy.store(Some(house.policy.clone()));
        house.core.networks.store(Arc::new(Networks::default()));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        prepare(&server).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (stopper, stop) = supervise::stop();
        let mut answer = [0; 1500];

        std::thread::scope(|scope| {
            let serving = scope.spawn(|| serve_with(handle, &server, &house.core, runtime.handle(), &stop));
            let to = server.local_addr().unwrap();
            for bytes in [&b"scrap"[..], &query("localhost", qtype::A, None), b"scrap"] {
                client.send_to(bytes, to).unwrap();
            }
            client.recv(&mut answer).unwrap();
            client.send_to(&query("localhost", qtype::AAAA, None), to).unwrap();
            client.recv(&mut answer).unwrap();
            stopper.advance(Phase::Drain);
            serving.join().unwrap().unwrap();
        });

        assert_eq!(house.core.series.drops(Dropped::Fault), 2);
    }
}
