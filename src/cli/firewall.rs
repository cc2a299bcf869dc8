//! `hearthgate firewall print`: the least rules that a firewall needs for a configuration. It changes nothing.
//!
//! hearthgate judges by itself where a packet comes from; these rules keep what is for the house from being seen from
//! outside at all, let in what is for everybody, and keep clients of the house from asking past its DNS.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::{
    app::{Options, Source},
    cli::{
        Problem, Running,
        listeners::{self, Audience, Protocol},
    },
    config::{self, Compiled, PeerIds},
    onlink::{self, Kernel},
};

#[derive(Debug, Subcommand)]
pub(super) enum Firewall {
    /// Print the least rules for a configuration
    Print(Print),
}

#[derive(Args, Debug)]
pub(super) struct Print {
    /// Whose language
    #[arg(long, value_enum)]
    format: Format,
    #[command(flatten)]
    running: Running,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table of its own for this box: `nft -f`
    Nftables,
    /// Commands for this box
    Ufw,
    /// The firewall file of a guest of Proxmox VE
    Pve,
    /// Sections of /etc/config/firewall for the router
    Openwrt,
}

impl Firewall {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        let Self::Print(print) = self;
        let source = match print.running.config {
            Some(file) => Source::File(file),
            None if Path::new("/etc/hearthgate/hearthgate.toml").exists() => {
                Source::File("/etc/hearthgate/hearthgate.toml".into())
            }
            None => Source::QuickStart,
        };
        let options = Options { source, state, ..Options::default() };
        let loaded = config::check(options.source.to_config(), &options.to_config(), &mut PeerIds::default())
            .map_err(|problems| anyhow!(Problem(problems.to_string())))?;
        let needs = Needs::new(&loaded.compiled, &onlink::kernel()?);
        std::io::Write::write_all(&mut std::io::stdout(), needs.print(print.format).as_bytes())?;
        Ok(())
    }
}

/// Addresses that every link has, and that every house may have: they say where somebody is only with an interface.
const EVERYWHERE: [&str; 2] = ["fe80::/10", "fc00::/7"];

/// What has to pass, and from whom.
#[derive(Debug, PartialEq, Eq)]
struct Needs {
    everybody: BTreeSet<(Protocol, u16)>,
    house: BTreeSet<(Protocol, u16)>,
    /// Ports that are for these networks alone.
    proxies: BTreeMap<(Protocol, u16), BTreeSet<IpNet>>,
    /// Interfaces of the LAN. What every link and every house has is of this house only there.
    interfaces: Vec<String>,
    /// Networks of the house as they are now.
    networks: Vec<IpNet>,
    /// This box, as the router knows it.
    this_box: Option<Ipv4Addr>,
    /// The end of its IPv6 address, which stays when the prefix changes.
    suffix: Option<Ipv6Addr>,
    /// Clients are kept on our DNS.
    has_dns: bool,
}

impl Needs {
    fn new(config: &Compiled, kernel: &Kernel) -> Self {
        let (mut everybody, mut house, mut proxies) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        for listener in listeners::of(config) {
            let address = listener.place.address;
            if address.ip().is_loopback() {
                continue;
            }
            let port = (listener.protocol, address.port());
            match listener.audience {
                Audience::Everybody => everybody.insert(port),
                Audience::House | Audience::Readers => house.insert(port),
                Audience::Proxies => {
                    proxies.entry(port).or_insert_with(BTreeSet::new).extend(listener.proxies);
                    false
                }
            };
        }
        let indices: Vec<u32> =
            config.lan.interfaces.iter().filter_map(|name| kernel.links.get(name).copied()).collect();
        let here = kernel.addresses.iter().filter(|address| indices.contains(&address.interface));
        let is_link_local = |net: &IpNet| matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local());
        let on_link = here.clone().map(|address| address.net).filter(|net| !is_link_local(net));
        let mut networks: Vec<IpNet> = on_link.chain(config.lan.subnets.iter().map(|(net, _)| *net)).collect();
        networks = IpNet::aggregate(&networks);
        networks.sort();
        let (mut this_box, mut suffix) = (None, None);
        for address in here {
            match address.address {
                IpAddr::V4(v4) => this_box = this_box.min(Some(v4)).or(Some(v4)),
                IpAddr::V6(v6) if v6.is_unicast_link_local() => {}
                // A suffix of privacy is gone tomorrow; what is short was given by hand.
                IpAddr::V6(v6) => {
                    let end = Ipv6Addr::from_bits(v6.to_bits() & u128::from(u64::MAX));
                    suffix = suffix.min(Some(end)).or(Some(end));
                }
            }
        }
        let interfaces = config.lan.interfaces.to_vec();
        Self { everybody, house, proxies, interfaces, networks, this_box, suffix, has_dns: config.dns.is_some() }
    }

    fn print(&self, format: Format) -> String {
        let mut text = String::new();
        let written = match format {
            Format::Nftables => self.nftables(&mut text),
            Format::Ufw => self.ufw(&mut text),
            Format::Pve => self.pve(&mut text),
            Format::Openwrt => self.openwrt(&mut text),
        };
        written.expect("text can always be written to");
        text
    }

    /// Networks of one family, as a list.
    fn nets(&self, v6: bool) -> String {
        let nets = self.networks.iter().filter(|net| matches!(net, IpNet::V6(_)) == v6);
        nets.map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    fn nftables(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "# For this box: nft -f FILE. It judges hearthgate's ports alone and lets everything else be.")?;
        writeln!(
            text,
            "# Global IPv6 networks of the house stand here as they are today: print it again when they change."
        )?;
        writeln!(text, "table inet hearthgate\ndelete table inet hearthgate\ntable inet hearthgate {{")?;
        writeln!(text, "    chain input {{\n        type filter hook input priority filter; policy accept;")?;
        writeln!(text, "        ct state established,related accept\n        iifname \"lo\" accept")?;
        for (protocol, port) in &self.everybody {
            writeln!(text, "        {} dport {port} accept", word(*protocol))?;
        }
        for (protocol, port) in &self.house {
            for (family, nets) in [("ip", self.nets(false)), ("ip6", self.nets(true))] {
                if !nets.is_empty() {
                    writeln!(text, "        {family} saddr {{ {nets} }} {} dport {port} accept", word(*protocol))?;
                }
            }
            for interface in &self.interfaces {
                let (nets, word) = (EVERYWHERE.join(", "), word(*protocol));
                writeln!(text, "        iifname \"{interface}\" ip6 saddr {{ {nets} }} {word} dport {port} accept")?;
            }
            writeln!(text, "        {} dport {port} drop", word(*protocol))?;
        }
        for ((protocol, port), nets) in &self.proxies {
            for net in nets {
                let family = if net.addr().is_ipv4() { "ip" } else { "ip6" };
                writeln!(text, "        {family} saddr {net} {} dport {port} accept", word(*protocol))?;
            }
            writeln!(text, "        {} dport {port} drop", word(*protocol))?;
        }
        writeln!(text, "    }}")?;
        if self.has_dns {
            writeln!(text, "    # Only where this box is the router: clients do not ask past it.")?;
            writeln!(text, "    chain forward {{\n        type filter hook forward priority filter; policy accept;")?;
            for (family, nets) in [("ip", self.nets(false)), ("ip6", self.nets(true))] {
                if !nets.is_empty() {
                    writeln!(
                        text,
                        "        {family} saddr {{ {nets} }} {family} daddr != {{ {nets} }} meta l4proto {{ tcp, udp }} th dport {{ 53, 853 }} reject"
                    )?;
                }
            }
            writeln!(text, "    }}")?;
        }
        writeln!(text, "}}")
    }

    fn ufw(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "# For this box. ufw denies the rest by itself (ufw default deny incoming); allow ssh before you enable it."
        )?;
        for (protocol, port) in &self.everybody {
            writeln!(text, "ufw allow {port}/{} comment 'hearthgate'", word(*protocol))?;
        }
        for (protocol, port) in &self.house {
            for net in &self.networks {
                let protocol = word(*protocol);
                writeln!(
                    text,
                    "ufw allow proto {protocol} from {net} to any port {port} comment 'hearthgate, the house'"
                )?;
            }
            for (interface, net) in self.interfaces.iter().flat_map(|name| EVERYWHERE.map(|net| (name, net))) {
                let protocol = word(*protocol);
                writeln!(
                    text,
                    "ufw allow in on {interface} proto {protocol} from {net} to any port {port} comment 'hearthgate, the house'"
                )?;
            }
        }
        for ((protocol, port), nets) in &self.proxies {
            for net in nets {
                let protocol = word(*protocol);
                writeln!(
                    text,
                    "ufw allow proto {protocol} from {net} to any port {port} comment 'hearthgate, a proxy'"
                )?;
            }
        }
        Ok(())
    }

    fn pve(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "# /etc/pve/firewall/ID.fw on the Proxmox host, ID being this guest. Add a rule for ssh if you use it."
        )?;
        writeln!(text, "[OPTIONS]\nenable: 1\npolicy_in: DROP\nndp: 1\ndhcp: 1\n\n[IPSET house]")?;
        for net in &self.networks {
            writeln!(text, "{net}")?;
        }
        writeln!(text, "\n[RULES]\nIN ACCEPT -p icmp -log nolog\nIN ACCEPT -p ipv6-icmp -log nolog")?;
        for (protocol, port) in &self.everybody {
            writeln!(text, "IN ACCEPT -p {} -dport {port} -log nolog", word(*protocol))?;
        }
        for (protocol, port) in &self.house {
            writeln!(text, "IN ACCEPT -source +house -p {} -dport {port} -log nolog", word(*protocol))?;
        }
        for ((protocol, port), nets) in &self.proxies {
            for net in nets {
                writeln!(text, "IN ACCEPT -source {net} -p {} -dport {port} -log nolog", word(*protocol))?;
            }
        }
        Ok(())
    }

    fn openwrt(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "# For the router: append to /etc/config/firewall, then: service firewall restart")?;
        let this_box = self.this_box.map_or("THIS-BOX".to_owned(), |address| address.to_string());
        for (protocol, port) in &self.everybody {
            let protocol = word(*protocol);
            writeln!(text, "\nconfig redirect\n\toption name 'hearthgate-{protocol}-{port}'\n\toption src 'wan'")?;
            writeln!(text, "\toption proto '{protocol}'\n\toption src_dport '{port}'\n\toption target 'DNAT'")?;
            writeln!(text, "\toption dest 'lan'\n\toption dest_ip '{this_box}'\n\toption dest_port '{port}'")?;
            let Some(suffix) = self.suffix else { continue };
            writeln!(text, "\nconfig rule\n\toption name 'hearthgate-v6-{protocol}-{port}'\n\toption family 'ipv6'")?;
            writeln!(text, "\toption src 'wan'\n\toption dest 'lan'\n\toption proto '{protocol}'")?;
            writeln!(text, "\toption dest_ip '{suffix}/::ffff:ffff:ffff:ffff'\n\toption dest_port '{port}'")?;
            writeln!(text, "\toption target 'ACCEPT'")?;
        }
        if self.has_dns {
            writeln!(text, "\n# Clients do not ask past the house; this box may.")?;
            writeln!(text, "config rule\n\toption name 'hearthgate-asks'\n\toption src 'lan'\n\toption dest 'wan'")?;
            writeln!(
                text,
                "\toption src_ip '{this_box}'\n\toption proto 'tcp udp'\n\toption dest_port '53 853'\n\toption target 'ACCEPT'"
            )?;
            writeln!(
                text,
                "\nconfig rule\n\toption name 'hearthgate-keeps-clients'\n\toption src 'lan'\n\toption dest 'wan'"
            )?;
            writeln!(
                text,
                "\toption family 'ipv4'\n\toption proto 'tcp udp'\n\toption dest_port '53 853'\n\toption target 'REJECT'"
            )?;
        }
        Ok(())
    }
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Udp => "udp",
        Protocol::Tcp => "tcp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onlink::Address;

    fn needs(has_dns: bool) -> Needs {
        let port = |protocol, port| (protocol, port);
        Needs {
            everybody: [port(Protocol::Tcp, 443), port(Protocol::Udp, 443)].into(),
            house: [port(Protocol::Udp, 53)].into(),
            proxies: [(port(Protocol::Tcp, 8443), ["198.51.100.7/32".parse().unwrap()].into())].into(),
            interfaces: vec!["eth0".to_owned()],
            networks: vec!["192.168.1.0/24".parse().unwrap()],
            this_box: Some(Ipv4Addr::new(192, 168, 1, 2)),
            suffix: Some("::2".parse().unwrap()),
            has_dns,
        }
    }

    #[test]
    fn what_is_for_the_house_is_dropped_from_elsewhere_and_the_rest_is_let_be() {
        let text = needs(true).print(Format::Nftables);

        let allowed = text.find("ip saddr { 192.168.1.0/24 } udp dport 53 accept").unwrap();
        let dropped = text.find("udp dport 53 drop").unwrap();
        assert!(allowed < dropped, "{text}");
        assert!(text.contains("tcp dport 443 accept") && text.contains("policy accept"), "{text}");
        assert!(!text.contains("dport 22"), "{text}");
    }

    #[test]
    fn every_language_says_the_same_and_clients_are_kept_only_where_there_is_dns() {
        for (format, part) in [
            (Format::Ufw, "ufw allow proto udp from 192.168.1.0/24 to any port 53"),
            (Format::Pve, "IN ACCEPT -source +house -p udp -dport 53"),
            (Format::Nftables, "iifname \"eth0\" ip6 saddr { fe80::/10, fc00::/7 } udp dport 53 accept"),
            (Format::Ufw, "ufw allow in on eth0 proto udp from fe80::/10 to any port 53"),
            (Format::Nftables, "ip saddr 198.51.100.7/32 tcp dport 8443 accept\n        tcp dport 8443 drop"),
            (Format::Ufw, "ufw allow proto tcp from 198.51.100.7/32 to any port 8443"),
            (Format::Pve, "IN ACCEPT -source 198.51.100.7/32 -p tcp -dport 8443"),
            (Format::Openwrt, "option dest_ip '192.168.1.2'"),
            (Format::Openwrt, "option dest_ip '::2/::ffff:ffff:ffff:ffff'"),
        ] {
            let text = needs(true).print(format);
            assert!(text.contains(part), "{format:?}: {text}");
        }
        assert!(needs(true).print(Format::Openwrt).contains("hearthgate-keeps-clients"));
        assert!(!needs(false).print(Format::Openwrt).contains("keeps-clients"));
        assert!(!needs(false).print(Format::Nftables).contains("forward"));
    }

    #[test]
    fn loopback_needs_no_rule_and_the_networks_are_those_of_the_lan() {
        let config = crate::cli::doctor::tests::config(
            "[lan]\ninterfaces = [\"eth0\"]\n[dns]\n[metrics]\nlisten = [\"lo:9153\"]\n",
        );
        let address = |interface, net: &str| {
            let net: IpNet = net.parse().unwrap();
            Address { interface, address: net.addr(), net: net.trunc() }
        };
        let kernel = Kernel {
            links: [("eth0".to_owned(), 2), ("wan0".to_owned(), 3)].into(),
            addresses: vec![address(2, "192.168.1.2/24"), address(3, "203.0.113.9/24")],
            ..Kernel::default()
        };

        let needs = Needs::new(&config, &kernel);

        assert_eq!(needs.house, [(Protocol::Udp, 53), (Protocol::Tcp, 53)].into());
        assert!(needs.everybody.is_empty());
        assert!(!needs.nets(false).contains("203.0.113") && needs.nets(false).contains("192.168.1.0/24"));
        assert_eq!(needs.this_box, Some(Ipv4Addr::new(192, 168, 1, 2)));
    }

    #[test]
    fn a_listener_that_only_proxies_reach_is_for_these_alone() {
        let config = crate::cli::doctor::tests::config(
            "[ingress]\nhttp = [\"127.0.0.1:80\"]\nhttps = [\"127.0.0.1:443\"]\n\
             [[ingress.listener]]\nlisten = [\"192.168.1.2:8443\"]\ntrusted_proxies = [\"198.51.100.0/28\"]\nonly_proxies = true\n\
             [[ingress.listener]]\nlisten = [\"192.168.1.2:9443\"]\ntrusted_proxies = [\"198.51.100.0/28\"]\n",
        );

        let needs = Needs::new(&config, &Kernel::default());

        assert_eq!(needs.everybody, [(Protocol::Tcp, 9443)].into());
        assert_eq!(needs.proxies, [((Protocol::Tcp, 8443), ["198.51.100.0/28".parse().unwrap()].into())].into());
    }
}
