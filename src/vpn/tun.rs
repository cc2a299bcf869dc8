//! The TUN device: where peers' packets enter the kernel to be routed, and the LAN's come out.
//!
//! It is opened, numbered and routed before privileges are dropped; afterwards only its descriptor is used. It has
//! no address: what the kernel itself would say there has no place in the tunnel.
//!
//! `unsafe` stands here for three `ioctl` calls and for handing the descriptor to the runtime. The invariants: the runtime
//! holds on to the file as long as it watches it; each call gets the request that the kernel documents for
//! this descriptor, and a pointer to (or a value of) exactly the type which that request reads, which lives until
//! the call is over.
#![allow(unsafe_code)]

mod kernel;
mod nat;

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    sync::Arc,
};

use ipnet::IpNet;
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    listen,
    vpn::{Config, Lan, gate::sessions::MTU},
};

/// The kernel puts a number in the place of the last two letters.
const NAME: &[u8] = b"hearthgate%d";

/// An open device, routed, and what else must live as long as it does.
#[derive(Debug)]
pub(super) struct Tun {
    file: File,
    name: String,
    /// Prefixes that the kernel sends here.
    routed: Vec<IpNet>,
    /// Only what comes in by these begins something with a peer; empty if the kernel tells no interfaces apart.
    callers: Vec<String>,
    rules: Option<nat::Table>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTun {
    /// The device.
    #[error("/dev/net/tun cannot be used (it needs CAP_NET_ADMIN, and in a container the device itself): {0}")]
    Device(io::Error),
    /// Its link, or a route.
    #[error("{0}")]
    Network(String),
    /// `lan = "nat"`.
    #[error(
        "the kernel cannot masquerade or tell interfaces apart (nf_tables with owned tables, Linux 5.12): {0}; with \
         `vpn.lan` = \"route\" and no `reached_by` it need not"
    )]
    Nat(io::Error),
}

impl Tun {
    /// Opens a device, or takes the one of the process before, and has the kernel route the tunnel's prefixes to it.
    pub(super) fn open(config: &Config) -> Result<Self, NoTun> {
        let inherited = inherited();
        let is_new = inherited.is_none();
        let (file, name) = inherited.map_or_else(device, Ok).map_err(NoTun::Device)?;
        let index = nix::net::if_::if_nametoindex(name.as_str()).map_err(|error| NoTun::Device(error.into()))?;
        let routed = prefixes(config);
        kernel::up(index, MTU).map_err(|error| NoTun::Network(format!("{name} cannot be brought up: {error}")))?;
        for prefix in &routed {
            match kernel::route(index, *prefix) {
                Ok(()) => {}
                // By the process before.
                Err(error) if !is_new && error.kind() == io::ErrorKind::AlreadyExists => {}
                // A box without IPv6.
                Err(error) if prefix.addr().is_ipv6() => {
                    tracing::warn!(%prefix, %error, "there is no IPv6 between the tunnel and the LAN");
                }
                Err(error) => {
                    let what = format!("{prefix} cannot be routed to {name}: {error}; is it in use already?");
                    return Err(NoTun::Network(what));
                }
            }
        }
        let rules = nat::Rules { masquerade: config.lan == Lan::Nat, callers: config.lan_interfaces.clone() };
        let is_called = config.peers.iter().any(|peer| !peer.reached_by.is_empty());
        // The process before made its table of the same lines: a change of them wants a restart.
        let table = match nat::inherited().map_or_else(|| nat::table(&name, &rules), Ok) {
            Ok(table) => Some(table),
            Err(error) if rules.masquerade || is_called && !rules.callers.is_empty() => return Err(NoTun::Nat(error)),
            Err(_) => None,
        };
        let callers = if table.is_some() { rules.callers } else { Vec::new() };
        Ok(Self { file, name, routed, callers, rules: table })
    }

    /// Says whether the kernel holds to these interfaces what begins something with a peer.
    pub(super) fn holds_callers_to(&self, interfaces: &[String]) -> bool {
        self.callers == interfaces
    }

    /// Returns what the device and its rules live by.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        [self.as_fd()].into_iter().chain(self.rules.as_ref().map(AsFd::as_fd)).collect()
    }

    /// Returns the device's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Says whether the kernel sends a prefix here.
    pub(super) fn routes(&self, prefix: &IpNet) -> bool {
        self.routed.iter().any(|routed| routed.contains(prefix))
    }

    /// Lets the runtime of the calling thread watch the device.
    pub(super) fn watched(self: &Arc<Self>) -> io::Result<AsyncFd<Arc<Self>>> {
        // SAFETY: the descriptor is the file's own, which is neither replaced nor closed while an `Arc` to it lives.
        let watched = unsafe { AsyncFd::register_with_interest(self.clone(), Interest::READABLE) };
        watched.map_err(|error| io::Error::other(error.to_string()))
    }

    /// Reads one packet with its header, if there is one.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }

    /// Writes one packet with its header.
    pub(super) fn write(&self, packet: &[u8]) -> io::Result<()> {
        (&self.file).write(packet).map(|_| ())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.file.as_raw_fd()
    }
}

/// Returns what stands between the kernel and the LAN, in words that say what to do; empty if nothing does.
pub(super) fn obstacles() -> Vec<String> {
    let is_off = |path: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "0");
    let mut found = Vec::new();
    if is_off("/proc/sys/net/ipv4/ip_forward") {
        found.push("the kernel forwards no IPv4: set net.ipv4.ip_forward = 1 (sysctl)".to_owned());
    }
    found.extend(nat::droppers().into_iter().map(|(table, chain)| {
        format!(
            "the firewall drops what is forwarded (table {table}, chain {chain}): let packets from and to \
             \"hearthgate*\" pass there"
        )
    }));
    found
}

/// Returns whether IPv6 is not forwarded.
pub(super) fn forwards_no_v6() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding").is_ok_and(|text| text.trim() == "0")
}

fn prefixes(config: &Config) -> Vec<IpNet> {
    let mut prefixes: Vec<IpNet> = config.addresses.iter().map(IpNet::trunc).collect();
    prefixes.extend(config.peers.iter().flat_map(|peer| &peer.addresses).map(IpNet::trunc));
    IpNet::aggregate(&prefixes)
}

/// Returns the device of the process before this one, if it had one.
fn inherited() -> Option<(File, String)> {
    let device = listen::find_inherited(|descriptor| name(descriptor).is_ok()).into_iter().next()?;
    let name = name(device.as_fd()).ok()?;
    Some((device.into(), name))
}

/// Returns a device's name; an error if it is none.
fn name(device: BorrowedFd<'_>) -> io::Result<String> {
    // SAFETY: all bytes of an `ifreq` may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // Another kind of descriptor may understand something else by this number.
    let is_device = std::fs::read_link(format!("/proc/self/fd/{}", device.as_raw_fd()))?;
    if is_device != std::path::Path::new("/dev/net/tun") {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: TUNGETIFF writes an `ifreq`.
    check(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNGETIFF, &mut request) })?;
    letters(&request)
}

fn letters(request: &libc::ifreq) -> io::Result<String> {
    let letters = request.ifr_name.iter().map(|letter| letter.to_ne_bytes()[0]).take_while(|letter| *letter != 0);
    String::from_utf8(letters.collect()).map_err(io::Error::other)
}

fn device() -> io::Result<(File, String)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    // SAFETY: all bytes of an `ifreq` may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, letter) in request.ifr_name.iter_mut().zip(NAME) {
        *place = libc::c_char::from_ne_bytes([*letter]);
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).expect("the flags fit, as the kernel's header says");
    // SAFETY: TUNSETIFF reads an `ifreq` and writes the name into it.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) })?;
    let offload = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    // SAFETY: TUNSETOFFLOAD takes a number.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offload)) })?;
    Ok((file, letters(&request)?))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
