//! Lease files of DHCP servers: who was given which address under which name.
//!
//! The format is told by the content: dnsmasq's, Kea's memfile (CSV), the ISC server's, and odhcpd's of OpenWrt.
//! What cannot be read is passed over: a server writes while we read, and the next reading has it whole.

use std::{collections::HashMap, net::IpAddr};

use jiff::{civil::DateTime, tz::Offset};

use crate::neighbours::Mac;

/// An address that was given to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) address: IpAddr,
    pub(crate) mac: Option<Mac>,
    /// What the device calls itself: one label, in lower case.
    pub(crate) name: Option<Box<str>>,
}

/// The most that is taken from one file.
const MOST: usize = 16_384;

/// Names that would make other devices trust this one: they look for them by themselves.
const REFUSED: [&str; 4] = ["wpad", "isatap", "localhost", "resolver"];

/// Reads a file; leases that are over at `now`, in seconds since 1970, are left out, and of several for one
/// address the last one counts.
pub(crate) fn read(text: &str, now: u64) -> Vec<Lease> {
    let mut leases = Leases { now, order: Vec::new(), by_address: HashMap::new() };
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if first.starts_with("address,") {
        kea(text, &mut leases);
    } else if text.lines().any(is_isc) {
        isc(text, &mut leases);
    } else {
        text.lines().for_each(|line| match line.strip_prefix('#') {
            Some(line) => odhcpd(line, &mut leases),
            None => dnsmasq(line, &mut leases),
        });
    }
    let Leases { order, mut by_address, .. } = leases;
    order.iter().filter_map(|address| by_address.remove(address).flatten()).collect()
}

struct Leases {
    now: u64,
    order: Vec<IpAddr>,
    by_address: HashMap<IpAddr, Option<Lease>>,
}

impl Leases {
    /// Takes what is said of an address; `expires` of `None` is never.
    fn take(&mut self, address: IpAddr, mac: Option<Mac>, name: &str, expires: Option<u64>, is_active: bool) {
        if self.by_address.len() >= MOST && !self.by_address.contains_key(&address) {
            return;
        }
        let holds = is_active && expires.is_none_or(|expires| expires > self.now);
        let lease = holds.then(|| Lease { address, mac, name: label(name) });
        if self.by_address.insert(address, lease).is_none() {
            self.order.push(address);
        }
    }
}

/// Takes the first label of what a device calls itself, if it can be a host's name.
fn label(name: &str) -> Option<Box<str>> {
    let label = name.split('.').next()?.to_ascii_lowercase();
    let fits = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'-';
    let is_host = (1..=63).contains(&label.len())
        && label.bytes().all(fits)
        && !label.starts_with('-')
        && !label.ends_with('-')
        && !REFUSED.contains(&label.as_str());
    is_host.then(|| label.into())
}

/// `1783036800 aa:bb:cc:dd:ee:ff 192.168.1.5 name 01:aa:…`; 0 is never, `*` is no name. With IPv6 a number stands
/// in the MAC's place.
fn dnsmasq(line: &str, leases: &mut Leases) {
    let mut words = line.split_whitespace();
    let (Some(expires), Some(mac), Some(address)) = (words.next(), words.next(), words.next()) else { return };
    let (Ok(expires), Ok(address)) = (expires.parse::<u64>(), address.parse::<IpAddr>()) else { return };
    let name = words.next().filter(|name| *name != "*").unwrap_or_default();
    leases.take(address, mac.parse().ok(), name, (expires != 0).then_some(expires), true);
}

/// ` br-lan DUID IAID name expires id length 2001:db8::5/128 …`, or with `ipv4` for the IAID and a MAC without
/// colons for the DUID; -1 is never, `-` is no name.
fn odhcpd(line: &str, leases: &mut Leases) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_interface, id, iaid, name, expires, _, _, addresses @ ..] = words.as_slice() else { return };
    let Ok(expires) = expires.parse::<i64>() else { return };
    let mac = if *iaid == "ipv4" { mac_of_hex(id) } else { mac_of_duid(id) };
    for address in addresses {
        let Some((address, length)) = address.split_once('/') else { continue };
        // A shorter prefix was delegated to a router.
        let Some(address) = address.parse::<IpAddr>().ok().filter(|_| matches!(length, "128" | "32")) else { continue };
        leases.take(address, mac, name, u64::try_from(expires).ok(), true);
    }
}

fn mac_of_hex(text: &str) -> Option<Mac> {
    if text.len() != 12 || !text.is_ascii() {
        return None;
    }
    let pairs: Vec<&str> = (0..6).filter_map(|pair| text.get(pair * 2..pair * 2 + 2)).collect();
    pairs.join(":").parse().ok()
}

/// DUIDs made of a link-layer address of Ethernet end in it (RFC 8415 §11.2 and §11.4).
fn mac_of_duid(text: &str) -> Option<Mac> {
    let hex: String = text.chars().filter(|letter| *letter != ':').collect();
    let rest = hex.strip_prefix("00010001").filter(|rest| rest.len() == 20).map(|rest| rest.get(8..));
    rest.unwrap_or_else(|| hex.strip_prefix("00030001")).and_then(mac_of_hex)
}

/// Columns are named in the first line. State 0 is a lease in force.
fn kea(text: &str, leases: &mut Leases) {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let head: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let place = |name: &str| head.iter().position(|column| *column == name);
    let (hardware, host, expire, state) = (place("hwaddr"), place("hostname"), place("expire"), place("state"));
    let (duid, kind) = (place("duid"), place("lease_type"));
    for line in lines {
        let values: Vec<&str> = line.split(',').collect();
        let value = |place: Option<usize>| place.and_then(|place| values.get(place).copied()).unwrap_or_default();
        let Some(Ok(address)) = values.first().map(|address| address.parse::<IpAddr>()) else { continue };
        // 2 is a prefix that was delegated.
        if value(kind) == "2" {
            continue;
        }
        let mac = value(hardware).parse().ok().or_else(|| mac_of_duid(value(duid)));
        leases.take(address, mac, value(host), value(expire).parse().ok(), matches!(value(state), "0" | ""));
    }
}

fn is_isc(line: &str) -> bool {
    let line = line.trim_start();
    let opens = ["lease ", "ia-na "].iter().any(|word| line.starts_with(word)) && line.trim_end().ends_with('{');
    opens || line.starts_with("authoring-byte-order")
}

/// `lease 192.168.1.5 { … }`, and `iaaddr 2001:db8::5 { … }` inside of `ia-na`.
fn isc(text: &str, leases: &mut Leases) {
    struct Open {
        address: IpAddr,
        mac: Option<Mac>,
        name: String,
        expires: Option<u64>,
        is_active: bool,
    }
    let mut open: Option<Open> = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("lease ").or_else(|| line.strip_prefix("iaaddr ")) {
            let address = address.trim_end_matches('{').trim().parse().ok();
            let made = |address| Open { address, mac: None, name: String::new(), expires: None, is_active: true };
            open = address.map(made);
            continue;
        }
        if line == "}" {
            // Without it the entry is still being written.
            if let Some(Open { address, mac, name, expires, is_active }) = open.take() {
                leases.take(address, mac, &name, expires, is_active);
            }
            continue;
        }
        let Some(lease) = &mut open else { continue };
        let line = line.trim_end_matches(';');
        if let Some(state) = line.strip_prefix("binding state ") {
            lease.is_active = state.trim() == "active";
        } else if let Some(mac) = line.strip_prefix("hardware ethernet ") {
            lease.mac = mac.trim().parse().ok();
        } else if let Some(name) = line.strip_prefix("client-hostname ") {
            lease.name = name.trim().trim_matches('"').to_owned();
        } else if let Some(moment) = line.strip_prefix("ends ") {
            lease.expires = isc_moment(moment);
        }
    }
}

/// `4 2026/07/02 10:00:00`, `epoch 1783036800`, `never`.
fn isc_moment(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let first = words.next()?;
    if first == "epoch" {
        return words.next()?.trim_end_matches(';').parse().ok();
    }
    let moment = format!("{} {}", words.next()?, words.next()?);
    let moment = DateTime::strptime("%Y/%m/%d %H:%M:%S", moment).ok()?;
    u64::try_from(Offset::UTC.to_timestamp(moment).ok()?.as_second()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_783_000_000;

    fn told(text: &str) -> Vec<String> {
        let line = |lease: Lease| {
            let mac = lease.mac.map_or("-".into(), |mac| mac.to_string());
            format!("{} {mac} {}", lease.address, lease.name.as_deref().unwrap_or("-"))
        };
        read(text, NOW).into_iter().map(line).collect()
    }

    #[test]
    fn dnsmasq_leases_are_read() {
        let text = "1783036800 00:1b:21:00:00:07 192.168.1.20 Kids-Tablet 01:00:1b:21:00:00:07\n\
                    1782000000 00:1b:21:00:00:08 192.168.1.21 over *\n\
                    0 00:1b:21:00:00:09 192.168.1.22 * *\n\
                    duid 00:01:00:01:2a:bc:de:f0:00:1b:21:00:00:01\n\
                    1783036800 553779974 2001:db8:1::20 kids-tablet 00:01:00:01:aa:aa:aa:aa:00:1b:21:00:00:07\n\
                    1783036800 00:1b:21:00:00:0a 192.168.1.2";

        let wanted = [
            "192.168.1.20 00:1b:21:00:00:07 kids-tablet",
            "192.168.1.22 00:1b:21:00:00:09 -",
            "2001:db8:1::20 - kids-tablet",
            "192.168.1.2 00:1b:21:00:00:0a -",
        ];
        assert_eq!(told(text), wanted);
    }

    #[test]
    fn kea_leases_are_read_the_last_of_an_address_counts() {
        let four = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n\
                    192.168.1.20,00:1b:21:00:00:07,,3600,1783036800,1,0,0,kids-tablet.home.example.,0,,0\n\
                    192.168.1.21,00:1b:21:00:00:08,,3600,1783036800,1,0,0,gone,0,,0\n\
                    192.168.1.21,00:1b:21:00:00:08,,3600,1783036800,1,0,0,gone,2,,0\n\
                    192.168.1.22,00:1b:21:00:00:09,,3600,1783036800,1,0,0,first,0,,0\n\
                    192.168.1.22,00:1b:21:00:00:0a,,3600,1783036800,1,0,0,second,0,,0\n";
        let six = "address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,fqdn_fwd,fqdn_rev,hostname,hwaddr,state,user_context,hwtype,hwaddr_source,pool_id\n\
                   2001:db8:1::20,00:03:00:01:00:1b:21:00:00:07,3600,1783036800,1,3600,0,7,128,0,0,kids-tablet,,0,,,,0\n\
                   2001:db8:2::,00:03:00:01:00:1b:21:00:00:07,3600,1783036800,1,3600,2,7,56,0,0,router,,0,,,,0\n";

        assert_eq!(told(four), ["192.168.1.20 00:1b:21:00:00:07 kids-tablet", "192.168.1.22 00:1b:21:00:00:0a second"]);
        assert_eq!(told(six), ["2001:db8:1::20 00:1b:21:00:00:07 kids-tablet"]);
    }

    #[test]
    fn isc_leases_are_read_and_one_that_is_being_written_is_not() {
        let text = "# The format of this file is documented in the dhcpd.leases(5) manual page.\n\
                    authoring-byte-order little-endian;\n\n\
                    lease 192.168.1.20 {\n  starts 4 2026/07/02 08:00:00;\n  ends 0 2026/07/05 08:00:00;\n  binding state active;\n  next binding state free;\n  hardware ethernet 00:1b:21:00:00:07;\n  client-hostname \"kids-tablet\";\n}\n\
                    lease 192.168.1.21 {\n  ends 4 2026/06/02 08:00:00;\n  binding state active;\n  hardware ethernet 00:1b:21:00:00:08;\n}\n\
                    lease 192.168.1.22 {\n  ends never;\n  binding state active;\n  hardware ethernet 00:1b:21:00:00:09;\n}\n\
                    lease 192.168.1.23 {\n  ends epoch 1783036800;\n  binding state free;\n}\n\
                    ia-na \"\\001\" {\n  cltt 4 2026/07/02 08:00:00;\n  iaaddr 2001:db8:1::20 {\n    binding state active;\n    ends 0 2026/07/05 08:00:00;\n  }\n}\n\
                    lease 192.168.1.24 {\n  ends 0 2026/07/05 08:0";

        let wanted =
            ["192.168.1.20 00:1b:21:00:00:07 kids-tablet", "192.168.1.22 00:1b:21:00:00:09 -", "2001:db8:1::20 - -"];
        assert_eq!(told(text), wanted);
    }

    #[test]
    fn odhcpd_leases_are_read() {
        let text = "# br-lan 001b21000007 ipv4 kids-tablet 1783036800 14 32 192.168.1.20/32\n\
                    192.168.1.20\tkids-tablet.lan\tkids-tablet\n\
                    # br-lan 00010001aaaaaaaa001b21000007 7 kids-tablet 1783036800 20 64 2001:db8:1::20/128 fd00:1::20/128\n\
                    # br-lan 00030001001b21000008 8 - -1 20 56 2001:db8:2::/56\n";

        let wanted = [
            "192.168.1.20 00:1b:21:00:00:07 kids-tablet",
            "2001:db8:1::20 00:1b:21:00:00:07 kids-tablet",
            "fd00:1::20 00:1b:21:00:00:07 kids-tablet",
        ];
        assert_eq!(told(text), wanted);
    }

    #[test]
    fn names_that_are_no_hosts_or_that_others_look_for_are_not_taken() {
        for name in ["wpad", "WPAD.lan", "isatap", "localhost", "-a", "a_b", "ä", "a\\032b", ""] {
            let leases = told(&format!("0 00:1b:21:00:00:07 192.168.1.20 {name} *"));

            assert_eq!(leases, ["192.168.1.20 00:1b:21:00:00:07 -"], "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_falling_over(
            lines in prop::collection::vec(
                prop_oneof![
                    ".{0,60}",
                    "(address|lease|iaaddr|ends|#|0|[0-9a-f]{2}:){1,4}[ ,{};].{0,30}",
                    Just("lease 192.168.1.1 {".to_owned()),
                ],
                0..20,
            ),
        ) {
            read(&lines.join("\n"), NOW);
        }
    }
}
