//! Which addresses the Internet reaches this box by: those of its own interfaces, what the router says, or what
//! two outside services agree on.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use hyper::Request;
use tokio::{net::UdpSocket, time::timeout};

use super::Source;
use crate::{https, provider::Reach};

/// RFC 6886 §3.1: the first wait for the router; it doubles.
const ROUTER_WAIT: Duration = Duration::from_millis(250);
const ROUTER_TRIES: u32 = 4;
/// RFC 6886: where routers listen.
const NAT_PMP: u16 = 5351;
/// Services that answer with the address that they are asked from, in one line. Two that agree are believed.
const SERVICES: [&str; 3] = ["https://api.ipify.org/", "https://checkip.amazonaws.com/", "https://ipv4.icanhazip.com/"];

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The address of IPv4, if there is a public one.
    pub v4: Option<Ipv4Addr>,
    /// The address of IPv6, if there is a public one.
    pub v6: Option<Ipv6Addr>,
    /// Why there is none.
    pub problem: Option<String>,
}

/// Where things are asked; tests have their own.
#[derive(Clone, Debug)]
pub struct Places {
    /// The router, if it is not the kernel's.
    pub router: Option<SocketAddr>,
    /// Services that say what address they see.
    pub services: Vec<String>,
    /// The interfaces' own addresses count.
    pub interfaces: bool,
}

impl Default for Places {
    fn default() -> Self {
        Self { router: None, services: SERVICES.map(str::to_owned).to_vec(), interfaces: true }
    }
}

/// Finds the addresses of this moment.
pub(super) async fn find(source: Source, places: &Places, reach: &Reach) -> Found {
    let own = if places.interfaces { of_interfaces() } else { Found::default() };
    let mut found = Found { v6: own.v6, ..Found::default() };
    let mut problems = Vec::new();
    if matches!(source, Source::Auto | Source::Interface) {
        found.v4 = own.v4;
    }
    if found.v4.is_none() && matches!(source, Source::Auto | Source::Router) {
        match of_router(places.router.or_else(gateway)).await {
            Ok(address) => found.v4 = Some(address),
            Err(error) => problems.push(format!("the router: {error}")),
        }
    }
    if found.v4.is_none() && matches!(source, Source::Auto | Source::Services) {
        match of_services(&places.services, reach).await {
            Ok(address) => found.v4 = Some(address),
            Err(error) => problems.push(error),
        }
    }
    if found.v4.is_none() && found.v6.is_none() {
        if problems.is_empty() {
            problems.push("no interface has a public address".into());
        }
        found.problem = Some(problems.join("; "));
    }
    found
}

/// Whether the Internet can reach an address.
fn is_public(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let special =
        a == 0 || a >= 224 || (a == 192 && b == 0 && address.octets()[2] == 0) || (a == 198 && b & 0xfe == 18);
    !(shared
        || special
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation())
}

fn of_interfaces() -> Found {
    let v4 = nix::ifaddrs::getifaddrs().ok().and_then(|addresses| {
        let v4 = addresses.filter_map(|one| Some(one.address?.as_sockaddr_in()?.ip()));
        v4.filter(|address| is_public(*address)).min()
    });
    let table = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    Found { v4, v6: stable_v6(&table), problem: None }
}

/// Chooses the address that lasts: global, not one of those that are changed for privacy, not on its way out.
fn stable_v6(table: &str) -> Option<Ipv6Addr> {
    // linux/if_addr.h
    const TEMPORARY: u32 = 0x01;
    const DAD_FAILED: u32 = 0x08;
    const DEPRECATED: u32 = 0x20;
    const TENTATIVE: u32 = 0x40;
    let address = |line: &str| {
        let mut fields = line.split_whitespace();
        let address = Ipv6Addr::from_bits(u128::from_str_radix(fields.next()?, 16).ok()?);
        let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
        let global = address.segments()[0] & 0xe000 == 0x2000 && address.segments()[..2] != [0x2001, 0xdb8];
        (global && flags & (TEMPORARY | DAD_FAILED | DEPRECATED | TENTATIVE) == 0).then_some(address)
    };
    table.lines().filter_map(address).min()
}

/// The default gateway, out of the kernel's table.
fn gateway() -> Option<SocketAddr> {
    let table = fs::read_to_string("/proc/net/route").ok()?;
    gateway_of(&table).map(|router| SocketAddr::new(router.into(), NAT_PMP))
}

fn gateway_of(table: &str) -> Option<Ipv4Addr> {
    let of = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let &[_, destination, router, _, _, _, metric, ..] = &fields[..] else { return None };
        let router = u32::from_str_radix(router, 16).ok().filter(|router| *router != 0)?;
        (destination == "00000000").then_some((metric.parse::<u32>().ok()?, Ipv4Addr::from(router.to_ne_bytes())))
    };
    table.lines().filter_map(of).min().map(|(_, router)| router)
}

/// Asks the router for its outer address by NAT-PMP (RFC 6886 §3.2).
async fn of_router(router: Option<SocketAddr>) -> Result<Ipv4Addr, String> {
    let router = router.ok_or("there is no default gateway")?;
    let answer = nat_pmp(router).await.map_err(|error| format!("{router}: {error}"))?;
    match is_public(answer) {
        true => Ok(answer),
        false => Err(format!("its outer address {answer} is no public one: there is another router in front of it")),
    }
}

async fn nat_pmp(router: SocketAddr) -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    // Only the router's own answers come in.
    socket.connect(router).await?;
    let mut wait = ROUTER_WAIT;
    for _ in 0..ROUTER_TRIES {
        socket.send(&[0, 0]).await?;
        let mut answer = [0; 16];
        match timeout(wait, socket.recv(&mut answer)).await {
            Ok(received) => {
                let received = received?;
                return outer(answer.get(..received).unwrap_or_default());
            }
            Err(_) => wait *= 2,
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer NAT-PMP"))
}

/// Reads the router's answer.
fn outer(answer: &[u8]) -> io::Result<Ipv4Addr> {
    match *answer {
        [0, 128, 0, 0, _, _, _, _, a, b, c, d] => Ok(Ipv4Addr::new(a, b, c, d)),
        [0, 128, high, low, ..] => Err(io::Error::other(format!("NAT-PMP result {}", u16::from_be_bytes([high, low])))),
        _ => Err(io::Error::other("no answer of NAT-PMP")),
    }
}

/// Asks services until two agree.
async fn of_services(services: &[String], reach: &Reach) -> Result<Ipv4Addr, String> {
    // Asked over IPv4, whatever other addresses they have: what they see is what is wanted.
    let lookup = reach.lookup.clone();
    let lookup = crate::lookup::Lookup::new(move |name| {
        let lookup = lookup.clone();
        async move {
            let found = lookup.addresses(&name).await?;
            Ok(found.into_iter().filter(IpAddr::is_ipv4).collect())
        }
    });
    let client = https::Client::new(None, lookup).map_err(|error| error.to_string())?;
    let mut said: Vec<Ipv4Addr> = Vec::new();
    let mut problem = "no outside service agrees with another".to_owned();
    for service in services {
        let request = Request::get(service).body(Bytes::new()).map_err(|error| format!("{service}: {error}"))?;
        let address = match client.ask(request).await {
            Ok(answer) => std::str::from_utf8(answer.body()).ok().and_then(|text| text.trim().parse::<Ipv4Addr>().ok()),
            Err(error) => {
                problem = error.to_string();
                None
            }
        };
        let Some(address) = address.filter(|address| is_public(*address)) else { continue };
        if said.contains(&address) {
            return Ok(address);
        }
        said.push(address);
    }
    Err(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_internet_reaches_is_public() {
        for address in ["9.9.9.9", "100.63.0.1", "100.128.0.1", "172.32.0.1", "198.20.0.1"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "10.0.0.1",
            "100.64.0.1",
            "100.127.9.9",
            "127.0.0.1",
            "169.254.1.1",
            "192.168.1.1",
            "172.16.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "198.18.0.1",
            "203.0.113.9",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn the_address_of_ipv6_that_lasts_is_taken() {
        let table = "\
            20010470000000000000000000000009 02 40 00 01   eth0\n\
            20010470000000000000000000000005 02 40 00 20   eth0\n\
            20010470000000000000000000000007 02 40 00 80   eth0\n\
            fd000000000000000000000000000001 02 40 00 80   eth0\n\
            fe800000000000000000000000000001 02 40 20 80   eth0\n\
            00000000000000000000000000000001 01 80 10 80     lo\n";

        assert_eq!(stable_v6(table), Some("2001:470::7".parse().unwrap()));
        assert_eq!(stable_v6("rubbish\n\n1 2 3\n"), None);
    }

    #[test]
    fn the_gateway_with_the_least_metric_is_the_router() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            wlan0\t00000000\t0201A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
            eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";

        let expected = if cfg!(target_endian = "little") { "192.168.1.1" } else { "1.1.168.192" };
        assert_eq!(gateway_of(table), Some(expected.parse().unwrap()));
    }

    #[test]
    fn an_answer_of_nat_pmp_is_read_and_anything_else_is_an_error() {
        assert_eq!(outer(&[0, 128, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9]).unwrap(), Ipv4Addr::new(9, 9, 9, 9));
        for wrong in [
            &[][..],
            &[0, 128, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0, 128, 0, 0, 1],
            &[2, 128, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9],
        ] {
            assert!(outer(wrong).is_err(), "{wrong:?}");
        }
    }
}
