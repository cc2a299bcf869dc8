//! Somebody who is nobody in this house: a network namespace on a wire of its own to this box.
//!
//! Its addresses are of those that are set aside for documentation (RFC 5737, RFC 3849): nobody else has them.
//! What is made here is taken away again when the value is dropped.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::privilege;

const NAMESPACE: &str = "hearthgate-doctor";
const HERE: &str = "hgd-here";
const THERE: &str = "hgd-there";
const V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xd0c, 0, 0, 0, 0, 1);
/// The running edge reads the kernel's tables again within this time.
const SETTLE: Duration = Duration::from_millis(300);

/// The wire, as long as this value lives.
pub(super) struct Wire {
    _patience: Patience,
}

/// Ctrl-C and the like wait as long as this value lives, and then do what they do: what was made is taken away before.
struct Patience(SigSet);

impl Patience {
    fn begin() -> Result<Self, String> {
        let ends = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT]);
        let before = ends.thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(|error| error.to_string())?;
        Ok(Self(before))
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        let _ = self.0.thread_set_mask();
    }
}

impl Wire {
    /// Lays it; the error says why not.
    pub(super) fn lay() -> Result<Self, String> {
        if !privilege::is_root() {
            return Err("only root can make a stranger".into());
        }
        let patience = Patience::begin()?;
        ip(&["netns", "add", NAMESPACE])?;
        let wire = Self { _patience: patience };
        ip(&["link", "add", HERE, "type", "veth", "peer", "name", THERE, "netns", NAMESPACE])?;
        let (v4, v6) = (format!("{V4}/30"), format!("{V6}/126"));
        ip(&["addr", "add", &v4, "dev", HERE])?;
        // Without IPv6 the stranger comes by IPv4 alone.
        let _ = ip(&["addr", "add", &v6, "dev", HERE, "nodad"]);
        ip(&["link", "set", HERE, "up"])?;
        ip(&["-n", NAMESPACE, "addr", "add", "198.51.100.2/30", "dev", THERE])?;
        let _ = ip(&["-n", NAMESPACE, "addr", "add", "2001:db8:d0c::2/126", "dev", THERE, "nodad"]);
        ip(&["-n", NAMESPACE, "link", "set", THERE, "up"])?;
        // To the addresses of the house as well.
        ip(&["-n", NAMESPACE, "route", "add", "default", "via", &V4.to_string()])?;
        let _ = ip(&["-n", NAMESPACE, "-6", "route", "add", "default", "via", &V6.to_string()]);
        std::thread::sleep(SETTLE);
        Ok(wire)
    }

    /// Where the stranger finds this box, by IPv4 and by IPv6.
    pub(super) fn addresses(&self) -> [IpAddr; 2] {
        [V4.into(), V6.into()]
    }

    /// Runs something whose sockets are the stranger's.
    pub(super) fn as_stranger<T: Send>(&self, act: impl FnOnce() -> T + Send) -> io::Result<T> {
        let namespace = File::open(format!("/run/netns/{NAMESPACE}"))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(act())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", HERE]);
        let _ = ip(&["netns", "del", NAMESPACE]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    // A signal from the terminal is not for it.
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).process_group(0).output();
    let output = output.map_err(|error| format!("the program `ip` (iproute2): {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim())),
    }
}
