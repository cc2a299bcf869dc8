//! A message to one server in a datagram: from a socket of its own, bound to a random port and connected, so
//! that the kernel drops what others send (RFC 5452 §9.2, §10). It answers them as it does where no port is open, so who
//! looks for the port (SADDNS, CVE-2020-25705) must send as the server; what he guesses then, the core counts as wrong
//! answers, of which it bears three.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use super::random::Random;

/// What is longer is cut: nobody is offered to send that much.
const LONGEST_DATAGRAM: usize = 4096;
/// Random ports that are tried before the kernel chooses one.
const PORT_TRIES: usize = 8;

/// Waits for a datagram from the server.
pub(super) async fn next(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    loop {
        // ICMP says that nobody is there: an error alone makes a socket not readable.
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
        if ready.is_error() {
            let _ = socket.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
            socket.take_error()?.map_or(Ok(()), Err)?;
        }
        if let Some(bytes) = receive(socket)? {
            return Ok(bytes);
        }
    }
}

/// The machine had too little of something; the network has nothing to do with it.
pub(super) fn is_want(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    number.is_some_and(|number| [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM].contains(&number))
}

/// Takes a datagram; `None` if there was none after all.
fn receive(socket: &UdpSocket) -> io::Result<Option<Vec<u8>>> {
    // On the stack and not in the task, of which there are many that wait.
    let mut buffer = [0; LONGEST_DATAGRAM];
    match socket.try_recv(&mut buffer) {
        Ok(length) => Ok(Some(buffer.get(..length).unwrap_or_default().to_vec())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a socket that hears nobody but the server.
pub(super) fn socket(server: SocketAddr, random: &mut Random) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(server), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    let any: IpAddr = match server {
        // Forged ICMP cannot make the kernel fragment what is sent (RFC 9715 §3.1).
        SocketAddr::V4(_) => {
            let _ =
                rustix::net::sockopt::set_ip_mtu_discover(&socket, rustix::net::sockopt::Ipv4PathMtuDiscovery::OMIT);
            Ipv4Addr::UNSPECIFIED.into()
        }
        SocketAddr::V6(_) => {
            let _ =
                rustix::net::sockopt::set_ipv6_mtu_discover(&socket, rustix::net::sockopt::Ipv6PathMtuDiscovery::OMIT);
            Ipv6Addr::UNSPECIFIED.into()
        }
    };
    let mut tries = 0;
    loop {
        let port = if tries < PORT_TRIES { random.port() } else { 0 };
        match socket.bind(&SocketAddr::new(any, port).into()) {
            Ok(()) => break,
            Err(_) if tries < PORT_TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
    socket.connect(&server.into())?;
    UdpSocket::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::{Ipv4PathMtuDiscovery, ip_mtu_discover};

    use super::*;

    #[tokio::test]
    async fn saddns_a_port_that_waits_looks_closed_to_everybody_but_the_server() {
        let bind = || std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (server, stranger) = (bind(), bind());
        let socket = socket(server.local_addr().unwrap(), &mut Random::default()).unwrap();
        let port = socket.local_addr().unwrap();
        stranger.connect(port).unwrap();
        stranger.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();

        stranger.send(b"guess").unwrap();
        let told = stranger.recv(&mut [0; 16]).unwrap_err();
        server.send_to(b"answer", port).unwrap();

        assert_eq!(told.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(next(&socket).await.unwrap(), b"answer");
    }

    #[tokio::test]
    async fn rfc9715_3_1_no_icmp_makes_questions_come_in_pieces() {
        let socket = socket(([127, 0, 0, 1], 9).into(), &mut Random::default()).unwrap();

        assert_eq!(ip_mtu_discover(&socket).unwrap(), Ipv4PathMtuDiscovery::OMIT);
    }
}
