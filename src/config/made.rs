//! What is made once and kept in the state folder: the gate's key and its random prefixes, and the key of
//! the quick start's peer.

use std::{io, path::Path};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{store, vpn::keys::PrivateKey};

/// Whether a configuration is loaded to be used, or only looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// What is missing is made and kept.
    Use,
    /// Nothing is written.
    Look,
}

/// Returns the gate's key.
pub(crate) fn gate_key(state: &Path, purpose: Purpose) -> io::Result<PrivateKey> {
    key(&state.join("vpn.key"), purpose)
}

/// Returns the key of the quick start's peer, for the client that takes the tour.
pub fn tour_key(state: &Path) -> io::Result<PrivateKey> {
    let path = state.join("tour.key");
    match path.try_exists()? {
        true => key(&path, Purpose::Look),
        false => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Returns the key of the quick start's peer, making it at the first start.
pub(crate) fn make_tour_key(state: &Path, purpose: Purpose) -> io::Result<PrivateKey> {
    key(&state.join("tour.key"), purpose)
}

fn key(path: &Path, purpose: Purpose) -> io::Result<PrivateKey> {
    kept(path, purpose, |text| text.trim().parse().ok(), PrivateKey::generate, PrivateKey::reveal)
}

/// Returns the gate's addresses: random private prefixes which none of `taken` overlaps when they are made.
pub(crate) fn gate_addresses(state: &Path, purpose: Purpose, taken: &[IpNet]) -> io::Result<Vec<IpNet>> {
    let parse = |text: &str| {
        let nets: Option<Vec<IpNet>> = text.lines().map(|line| line.parse().ok()).collect();
        nets.filter(|nets| !nets.is_empty())
    };
    let show = |nets: &Vec<IpNet>| nets.iter().map(|net| format!("{net}\n")).collect();
    kept(&state.join("vpn-addresses"), purpose, parse, || random_addresses(taken), show)
}

/// One of the 65536 /24 of 10.0.0.0/8, and a /64 with a random 40-bit global ID (RFC 4193 §3.2).
fn random_addresses(taken: &[IpNet]) -> Vec<IpNet> {
    let mut random = [0; 7];
    let v4 = loop {
        getrandom::fill(&mut random).expect("the system has a random source");
        let net = Ipv4Net::new([10, random[0], random[1], 1].into(), 24).expect("24 is a length of IPv4 prefixes");
        // With all of 10.0.0.0/8 taken nothing is free, and the check of overlaps says so.
        let whole: IpNet = Ipv4Net::new([10, 0, 0, 0].into(), 8).expect("8 is a length of IPv4 prefixes").into();
        let free = |net: &IpNet| !taken.iter().any(|other| other.contains(net) || net.contains(other));
        if free(&net.into()) || taken.iter().any(|other| other.contains(&whole)) {
            break net;
        }
    };
    let global = |at: usize| u16::from_be_bytes([random[at], random[at + 1]]);
    let v6 = [0xfd00 | u16::from(random[2]), global(3), global(5), 0, 0, 0, 0, 1];
    let v6 = Ipv6Net::new(v6.into(), 64).expect("64 is a length of IPv6 prefixes");
    vec![v4.into(), v6.into()]
}

fn kept<T>(
    path: &Path,
    purpose: Purpose,
    parse: impl Fn(&str) -> Option<T>,
    make: impl FnOnce() -> T,
    show: impl FnOnce(&T) -> String,
) -> io::Result<T> {
    let found = match purpose {
        Purpose::Use => store::read(path)?.content(),
        // A look must not set a torn file aside either; and nothing there is no failure.
        Purpose::Look => match path.exists() {
            true => store::read(path)?.content(),
            false => None,
        },
    };
    if let Some(content) = found {
        let text = String::from_utf8_lossy(&content);
        return parse(&text).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} holds something else; remove it", path.display()))
        });
    }
    let made = make();
    if purpose == Purpose::Use {
        if let Some(folder) = path.parent() {
            store::folder(folder)?;
        }
        store::write(path, show(&made).as_bytes())?;
    }
    Ok(made)
}
