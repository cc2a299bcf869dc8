//! Who holds a port: `/proc/net`, and the names of processes as far as they may be seen.

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

/// States of `/proc/net`: a UDP socket that is bound, a TCP socket that listens.
const TABLES: [(&str, &str, u8); 4] = [("udp", "UDP", 7), ("udp6", "UDP", 7), ("tcp", "TCP", 10), ("tcp6", "TCP", 10)];

/// A socket that somebody has a port by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Holder {
    /// `UDP` or `TCP`.
    pub(super) protocol: &'static str,
    pub(super) address: IpAddr,
    /// Name and number, if they may be seen.
    pub(super) process: Option<(String, u32)>,
}

impl Holder {
    /// systemd-resolved sits on 127.0.0.53 and in nobody's way.
    pub(super) fn stands_aside(&self) -> bool {
        self.address.is_loopback() && self.address.is_ipv4() && self.address != Ipv4Addr::LOCALHOST
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((name, number)) => write!(f, "{name} (process {number})")?,
            None => f.write_str("another user's process")?,
        }
        write!(f, " ({} {})", self.protocol, self.address)
    }
}

/// Says who holds a TCP or UDP port, one for each address. `root` is `/`.
pub(super) fn holders(root: &Path, port: u16) -> Vec<Holder> {
    let mut found = Vec::new();
    for (file, protocol, listening) in TABLES {
        let table = fs::read_to_string(root.join("proc/net").join(file)).unwrap_or_default();
        for socket in table.lines().skip(1).filter_map(Socket::parse) {
            if socket.port == port && socket.state == listening {
                let process = process(root, socket.inode);
                found.push(Holder { protocol, address: socket.address, process });
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// A line of `/proc/net/udp` and its like.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    address: IpAddr,
    port: u16,
    state: u8,
    inode: u64,
}

impl Socket {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = fields.get(1)?.split_once(':')?;
        // The kernel prints each 32 bits of the address as a number of this machine.
        let words: Option<Vec<[u8; 4]>> = (0..address.len())
            .step_by(8)
            .map(|at| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes()))
            .collect();
        let address = match words?.as_slice() {
            [v4] => IpAddr::V4(Ipv4Addr::from(*v4)),
            v6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(v6.concat()).ok()?)),
        };
        Some(Self {
            address,
            port: u16::from_str_radix(port, 16).ok()?,
            state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
            inode: fields.get(9)?.parse().ok()?,
        })
    }
}

/// The process that has a socket open, if it may be seen.
fn process(root: &Path, inode: u64) -> Option<(String, u32)> {
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir(root.join("proc")).ok()?.filter_map(Result::ok) {
        let Ok(number) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(open) = fs::read_dir(process.path().join("fd")) else { continue };
        let has =
            |entry: fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str());
        if open.filter_map(Result::ok).any(has) {
            let name = fs::read_to_string(process.path().join("comm")).ok()?;
            return Some((name.trim().to_owned(), number));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line =
            "  641: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 2345 2 0 0";

        let socket = Socket::parse(line).unwrap();

        assert_eq!(socket.port, 53);
        assert_eq!((socket.state, socket.inode), (7, 2345));
        #[cfg(target_endian = "little")]
        assert_eq!(socket.address, "127.0.0.53".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn this_very_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();

        let found = holders(Path::new("/"), listener.local_addr().unwrap().port());

        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].process.as_ref().unwrap().1, std::process::id(), "{found:?}");
    }
}
