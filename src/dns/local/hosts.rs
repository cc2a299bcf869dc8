//! Files as `/etc/hosts`: an address and its names on each line.

use std::net::IpAddr;

/// The most that is taken from one file.
const MOST: usize = 100_000;

/// An address with its names, the first of which it leads back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) address: IpAddr,
    /// Without a dot they are under the house's domain.
    pub(crate) names: Vec<Box<str>>,
}

/// Reads a file. Addresses of the box itself and those which mean nothing are passed over.
pub(crate) fn read(text: &str) -> Vec<Host> {
    let host = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address: IpAddr = words.next()?.split('%').next()?.parse().ok()?;
        let is_a_host = !address.is_loopback() && !address.is_unspecified() && !address.is_multicast();
        let names: Vec<Box<str>> = words.map(|name| name.trim_end_matches('.').to_ascii_lowercase().into()).collect();
        (is_a_host && !names.is_empty()).then_some(Host { address, names })
    };
    text.lines().filter_map(host).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_their_names_and_those_of_the_box_itself_are_passed_over() {
        let text = "127.0.0.1 localhost\n::1 ip6-localhost\nff02::1 ip6-allnodes\n0.0.0.0 ads.example\n\n\
                    192.168.1.10\tNas nas.home.example. # the big one\n# 192.168.1.11 off\nfe80::1%eth0 router\nscrap\n";

        let read = read(text);

        let lines: Vec<_> = read.iter().map(|host| format!("{} {}", host.address, host.names.join(" "))).collect();
        assert_eq!(lines, ["192.168.1.10 nas nas.home.example", "fe80::1 router"]);
    }
}
