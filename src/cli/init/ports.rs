//! Who holds a port: `/proc/net`, and the names of processes as far as they may be seen.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Says who holds a TCP or UDP port, one for each address.
pub(super) fn holders(port: u16) -> Vec<String> {
    let mut found = BTreeSet::new();
    for (file, protocol, listening) in [("udp", "UDP", 7), ("udp6", "UDP", 7), ("tcp", "TCP", 10), ("tcp6", "TCP", 10)]
    {
        let table = fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default();
        for socket in table.lines().skip(1).filter_map(Socket::parse) {
            // systemd-resolved sits on 127.0.0.53 and in nobody's way.
            let aside =
                socket.address.is_loopback() && socket.address != Ipv4Addr::LOCALHOST && socket.address.is_ipv4();
            if socket.port == port && socket.state == listening && !aside {
                let who = process(socket.inode).unwrap_or_else(|| "another user's process".into());
                found.insert(format!("{who} ({protocol} {})", socket.address));
            }
        }
    }
    found.into_iter().collect()
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

/// The name of the process that has a socket open, if it may be seen.
fn process(inode: u64) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    for process in processes.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok()) {
        let Ok(open) = fs::read_dir(process.path().join("fd")) else { continue };
        let has =
            |entry: fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str());
        if open.filter_map(Result::ok).any(has) {
            let name = fs::read_to_string(process.path().join("comm")).ok()?;
            return Some(format!("{} (process {})", name.trim(), process.file_name().to_string_lossy()));
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

        let found = holders(listener.local_addr().unwrap().port());

        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(&format!("process {}", std::process::id())), "{found:?}");
    }
}
