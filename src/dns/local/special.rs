//! Names that have no place in the public DNS: asking for them outside would tell strangers what the house
//! is looking for, and get an answer from whoever likes to give one.

use std::collections::HashMap;

use crate::dns::query::{ancestors, qtype};

/// The zones that are answered here, and those which the owner sends elsewhere.
#[derive(Debug)]
pub(crate) struct Special {
    zones: HashMap<Box<[u8]>, Answer>,
    /// Zones of `dns.forward`, in wire form and lower case.
    forward: Vec<Box<[u8]>>,
    /// Whether there is a root that knows names under `test`, and addresses of top-level names.
    tests: bool,
}

/// What a special name gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 127.0.0.1 and ::1.
    Loopback,
    /// NXDOMAIN below the zone, NODATA at its top.
    Nothing,
    /// NODATA everywhere.
    NoData,
}

/// Top-level names: RFC 6761, 6762, 7686, 9476, and `internal`, which is reserved for use inside.
const TOP: [(&str, Answer); 7] = [
    ("localhost", Answer::Loopback),
    ("invalid", Answer::Nothing),
    ("test", Answer::Nothing),
    ("local", Answer::Nothing),
    ("onion", Answer::Nothing),
    ("alt", Answer::Nothing),
    ("internal", Answer::Nothing),
];

/// Under `arpa`: RFC 8375, RFC 9462, and the reverse zones of RFC 6303, RFC 6761 and RFC 7793.
const ARPA: [(&str, Answer); 21] = [
    ("home.arpa", Answer::Nothing),
    ("resolver.arpa", Answer::NoData),
    ("10.in-addr.arpa", Answer::Nothing),
    ("168.192.in-addr.arpa", Answer::Nothing),
    ("0.in-addr.arpa", Answer::Nothing),
    ("127.in-addr.arpa", Answer::Nothing),
    ("254.169.in-addr.arpa", Answer::Nothing),
    ("2.0.192.in-addr.arpa", Answer::Nothing),
    ("100.51.198.in-addr.arpa", Answer::Nothing),
    ("113.0.203.in-addr.arpa", Answer::Nothing),
    ("255.255.255.255.in-addr.arpa", Answer::Nothing),
    ("0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa", Answer::Nothing),
    ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa", Answer::Nothing),
    ("c.f.ip6.arpa", Answer::Nothing),
    ("d.f.ip6.arpa", Answer::Nothing),
    ("8.e.f.ip6.arpa", Answer::Nothing),
    ("9.e.f.ip6.arpa", Answer::Nothing),
    ("a.e.f.ip6.arpa", Answer::Nothing),
    ("b.e.f.ip6.arpa", Answer::Nothing),
    ("8.b.d.0.1.0.0.2.ip6.arpa", Answer::Nothing),
    ("service.arpa", Answer::Nothing),
];

impl Special {
    /// Compiles the zones; those of `dns.forward` win over what they cover. RFC 6761 §6.2: names under `test` are
    /// asked for where those who test have set up servers for them.
    pub(crate) fn new(forward: Vec<Box<[u8]>>, tests: bool) -> Self {
        let private: Vec<(String, Answer)> = (16..32)
            .map(|second| (format!("{second}.172.in-addr.arpa"), Answer::Nothing))
            .chain((64..128).map(|second| (format!("{second}.100.in-addr.arpa"), Answer::Nothing)))
            .collect();
        let fixed = TOP.iter().chain(&ARPA).map(|(zone, answer)| (*zone, *answer));
        let zones = fixed.chain(private.iter().map(|(zone, answer)| (zone.as_str(), *answer)));
        Self { zones: zones.map(|(zone, answer)| (wire(zone), answer)).collect(), forward, tests }
    }

    /// Returns what a name gets here and the length of its zone's name in wire form.
    pub(crate) fn find(&self, name: &[u8], asked: u16) -> Option<(Answer, usize)> {
        let (answer, zone) = self.zone(name, asked)?;
        let forwarded = self.forward.iter().any(|forward| forward.len() >= zone && covers(forward, name));
        (!forwarded).then_some((answer, zone))
    }

    fn zone(&self, name: &[u8], asked: u16) -> Option<(Answer, usize)> {
        let top = ancestors(name).filter(|ancestor| ancestor.len() > 1).last()?;
        if self.tests && (top == b"\x04test\0" || top.len() == name.len() && top != b"\x09localhost\0") {
            return None;
        }
        if top == b"\x04arpa\0" {
            return ancestors(name).find_map(|zone| Some((*self.zones.get(zone)?, zone.len())));
        }
        if let Some(answer) = TOP.iter().find(|(label, _)| top.get(1..top.len() - 1) == Some(label.as_bytes())) {
            return Some((answer.1, top.len()));
        }
        // A single label is a name of the house that somebody forgot to qualify. NODATA, not NXDOMAIN: by
        // RFC 8020 that would deny everything below a real top-level domain.
        let addresses = matches!(asked, qtype::A | qtype::AAAA | qtype::HTTPS | qtype::SVCB);
        (top.len() == name.len() && addresses).then_some((Answer::NoData, name.len()))
    }
}

/// Says whether a name is this zone's or below it; both in wire form and lower case.
pub(crate) fn covers(zone: &[u8], name: &[u8]) -> bool {
    zone.len() <= name.len() && ancestors(name).any(|ancestor| ancestor == zone)
}

fn wire(zone: &str) -> Box<[u8]> {
    let name: hickory_proto::rr::Name = zone.parse().expect("the table holds names");
    let mut wire = super::wire(&name);
    // Without a last dot, hickory's names still end in the root label.
    wire.make_ascii_lowercase();
    wire
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::query::tests::wire as name;

    fn find(text: &str, asked: u16) -> Option<Answer> {
        Special::new(Vec::new(), false).find(&name(text), asked).map(|(answer, _)| answer)
    }

    #[test]
    fn special_names_stay_in_the_house() {
        for text in [
            "x.onion",
            "printer.local",
            "host.home.arpa",
            "5.1.168.192.in-addr.arpa",
            "1.1.20.172.in-addr.arpa",
            "1.2.3.d.f.ip6.arpa",
            "a.test",
            "b.invalid",
        ] {
            assert_eq!(find(text, qtype::A), Some(Answer::Nothing), "{text}");
        }
        assert_eq!(find("a.localhost", qtype::A), Some(Answer::Loopback));
        assert_eq!(find("_dns.resolver.arpa", qtype::SVCB), Some(Answer::NoData));
        assert_eq!(find("nas", qtype::A), Some(Answer::NoData));
    }

    #[test]
    fn a_root_of_tests_is_asked_for_its_own_names() {
        let special = Special::new(Vec::new(), true);
        let find = |text: &str| special.find(&name(text), qtype::A).map(|(answer, _)| answer);

        assert_eq!((find("www.test"), find("cz"), find("test")), (None, None, None));
        assert_eq!(find("localhost"), Some(Answer::Loopback));
        assert_eq!(find("x.onion"), Some(Answer::Nothing));
    }

    #[test]
    fn public_names_do_not() {
        for text in ["example.com", "notlocal", "1.32.172.in-addr.arpa", "8.8.8.8.in-addr.arpa", "test.example"] {
            assert_eq!(find(text, 43), None, "{text}");
        }
        assert_eq!(find("com", 2), None);
        assert_eq!(find("", qtype::A), None);
    }

    #[test]
    fn a_forwarded_zone_is_asked_there() {
        let special = Special::new(vec![name("1.168.192.in-addr.arpa").into()], false);

        assert_eq!(special.find(&name("5.1.168.192.in-addr.arpa"), qtype::PTR), None);
        assert!(special.find(&name("5.2.168.192.in-addr.arpa"), qtype::PTR).is_some());
    }

    /// Reads a file of the registries; says so where it is not there.
    fn registry(file: &str) -> Option<String> {
        let folder = std::env::var_os("HEARTHGATE_DATA").map_or_else(
            || std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
            std::path::PathBuf::from,
        );
        let path = folder.join("iana").join(file);
        let read = std::fs::read_to_string(&path).ok();
        if read.is_none() {
            eprintln!("SKIPPED: {} is not there", path.display());
        }
        read
    }

    /// The blocks of a registry of addresses: prefix, name, and whether the world reaches it.
    fn blocks(text: &str) -> Vec<(ipnet::IpNet, String, bool)> {
        let mut found = Vec::new();
        for line in text.lines().skip(1) {
            let Some((prefix, rest)) = line.trim_matches('"').split_once(',') else { continue };
            let prefix = prefix.split(' ').next().unwrap_or_default();
            let Ok(net) = prefix.parse::<ipnet::IpNet>() else { continue };
            let mut columns = line.rsplit(',');
            let reachable = columns.nth(1).is_some_and(|reachable| reachable.starts_with("True"));
            found.push((net, rest.to_owned(), reachable));
        }
        found
    }

    fn back(net: ipnet::IpNet) -> String {
        hickory_proto::rr::Name::from(net.addr()).to_ascii()
    }

    #[test]
    fn addresses_that_the_registries_call_private_lead_back_to_nobody_outside_and_public_ones_do() {
        let files = ["iana-ipv4-special-registry-1.csv", "iana-ipv6-special-registry-1.csv"];
        for text in files.into_iter().filter_map(registry) {
            let blocks = blocks(&text);
            assert!(blocks.len() > 15, "{blocks:?}");
            for (net, name, reachable) in blocks {
                // RFC 6303 and RFC 7793: what has a zone of its own in the registry of locally served zones.
                let local = [
                    "Private-Use",
                    "This network",
                    "This host",
                    "Loopback",
                    "Link Local",
                    "Link-Local",
                    "TEST-NET",
                    "Shared Address",
                    "Unique-Local",
                    "Limited Broadcast",
                    "Unspecified",
                ];
                let is_local =
                    local.iter().any(|word| name.contains(word)) || name.starts_with("Documentation,[RFC3849]");
                let found = find(&back(net), qtype::PTR).is_some();
                assert_eq!(found, is_local, "{net} {name}");
                assert!(!(reachable && found), "{net} {name} is reached by the world");
            }
        }
        let Some(names) = registry("misp-rfc6761.json") else { return };
        let zones = names.split('"').filter(|word| word.ends_with(".in-addr.arpa"));
        assert_eq!(zones.map(|zone| assert_eq!(find(zone, qtype::SOA), Some(Answer::Nothing), "{zone}")).count(), 18);
    }

    #[test]
    fn no_special_name_is_a_top_level_domain() {
        let Some(tlds) = registry("misp-tlds.json").map(|tlds| tlds.to_ascii_lowercase()) else { return };

        let tlds = tlds.to_ascii_lowercase();
        let known: Vec<&str> = tlds.split('"').map(|word| word.trim_start_matches('.')).collect();

        assert!(known.contains(&"com"));
        for (top, _) in TOP {
            assert!(!known.contains(&top), "{top}");
        }
    }
}
