//! The zones: a root, three top-level domains and below them every kind of zone, some of them broken.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, time::SystemTime};

use super::super::{
    servers::nsd,
    world::{Program, World, shell_in, within},
};

/// Where zones are served.
const ROOT: &str = "11.0.0.53";
const TLD: &str = "11.0.1.53";
const LEAF: &str = "11.0.2.53";
const FAR: &str = "11.0.4.53";
/// Nobody answers here.
const DEAD: &str = "11.0.4.99";

/// A zone's recipe.
pub(super) struct Zone {
    pub(super) origin: String,
    pub(super) content: Content,
    at: &'static str,
    signing: Signing,
    ds: Ds,
    damage: Damage,
}

/// What is in a zone beside its apex.
#[derive(Clone, Copy)]
pub(super) enum Content {
    /// [`everything`], with three zones below.
    Everything,
    /// A few names.
    Something,
    /// These records.
    Other(&'static str),
}

/// How a zone is signed.
#[derive(Clone, Copy)]
enum Signing {
    Unsigned,
    Signed { algorithm: &'static str, options: &'static str, from_day: i64, to_day: i64 },
}

/// What the parent says of a zone's keys.
#[derive(Clone, Copy, PartialEq)]
enum Ds {
    None,
    /// The right digest by SHA-256.
    Own,
    /// The right digest by SHA-1.
    Sha1,
    /// That of a key which the zone does not have.
    Wrong,
    /// An algorithm that nobody knows.
    UnknownAlgorithm,
    /// A digest that nobody knows.
    UnknownDigest,
    /// A right one and one of an unknown algorithm.
    OwnAndUnknown,
    /// A wrong one by SHA-1 and a right one.
    OwnAndWrong,
}

/// What happens to a zone after it was signed.
#[derive(Clone, Copy)]
enum Damage {
    None,
    /// This text becomes that.
    Replaced(&'static str, &'static str),
    /// Lines with all these words are left out.
    Without(&'static [&'static str]),
}

const NSEC: Signing = signed("ECDSAP256SHA256", "");
const NSEC3: Signing = signed("ECDSAP256SHA256", "-n -t 0");
const OPT_OUT: Signing = signed("ECDSAP256SHA256", "-n -t 0 -p");

const fn signed(algorithm: &'static str, options: &'static str) -> Signing {
    Signing::Signed { algorithm, options, from_day: -1, to_day: 1 }
}

fn leaf(origin: &str, content: Content, signing: Signing) -> Zone {
    let ds = if matches!(signing, Signing::Unsigned) { Ds::None } else { Ds::Own };
    Zone { origin: origin.to_owned(), content, at: LEAF, signing, ds, damage: Damage::None }
}

fn broken(origin: &str, signing: Signing, ds: Ds, damage: Damage) -> Zone {
    Zone { ds, damage, ..leaf(origin, Content::Something, signing) }
}

/// Returns the recipes: children before their parents, the root last.
pub(super) fn zones() -> Vec<Zone> {
    use Content::{Everything, Other, Something};
    vec![
        leaf("nsec.tld.", Everything, NSEC),
        leaf("nsec3.tld.", Everything, NSEC3),
        leaf("optout.tld.", Everything, OPT_OUT),
        leaf("unsigned.tld.", Everything, Signing::Unsigned),
        leaf("signed.opt.", Everything, signed("RSASHA256", "")),
        leaf("below.plain.", Everything, Signing::Unsigned),
        leaf("iter150.tld.", Everything, signed("ECDSAP256SHA256", "-n -t 150 -s beef")),
        leaf("iter50.tld.", Something, signed("ECDSAP256SHA256", "-n -t 50 -s beef")),
        leaf("ecdsa384.tld.", Something, signed("ECDSAP384SHA384", "")),
        leaf("ed25519.tld.", Something, signed("ED25519", "-n -t 0")),
        leaf("ed448.tld.", Something, signed("ED448", "")),
        leaf("rsasha512.tld.", Something, signed("RSASHA512", "")),
        leaf("rsasha1.tld.", Something, signed("RSASHA1", "")),
        leaf("rsasha1nsec3.tld.", Something, signed("RSASHA1-NSEC3-SHA1", "-n -t 0")),
        leaf("plain.opt.", Something, Signing::Unsigned),
        broken("bogus.tld.", NSEC, Ds::Own, Damage::Replaced("11.0.6.1", "11.0.6.9")),
        broken("bogus3.opt.", NSEC3, Ds::Own, Damage::Replaced("11.0.6.1", "11.0.6.9")),
        broken("expired.tld.", days(-60, -30), Ds::Own, Damage::None),
        broken("future.tld.", days(30, 60), Ds::Own, Damage::None),
        broken("nosigs.tld.", NSEC, Ds::Own, Damage::Without(&["RRSIG"])),
        broken("nokeysig.tld.", NSEC, Ds::Own, Damage::Without(&["RRSIG", "DNSKEY"])),
        broken("nowwwsig.tld.", NSEC, Ds::Own, Damage::Without(&["www", "RRSIG", " A "])),
        broken("nonsec.tld.", NSEC, Ds::Own, Damage::Without(&["NSEC"])),
        broken("nonsec3.tld.", NSEC3, Ds::Own, Damage::Without(&["NSEC3"])),
        broken("unsignedwithds.tld.", Signing::Unsigned, Ds::Wrong, Damage::None),
        broken("wrongds.tld.", NSEC, Ds::Wrong, Damage::None),
        broken("unknownalgorithm.tld.", NSEC, Ds::UnknownAlgorithm, Damage::None),
        broken("unknowndigest.tld.", NSEC, Ds::UnknownDigest, Damage::None),
        broken("sha1ds.tld.", NSEC, Ds::Sha1, Damage::None),
        broken("ownandunknown.tld.", NSEC, Ds::OwnAndUnknown, Damage::None),
        broken("ownandwrong.tld.", NSEC, Ds::OwnAndWrong, Damage::None),
        Zone { ds: Ds::None, ..leaf("island.plain.", Other(SOMETHING), NSEC) },
        leaf("halflame.tld.", Other(SOMETHING), NSEC),
        leaf("halfdead.tld.", Other(SOMETHING), NSEC),
        leaf("outside.tld.", Other(SOMETHING), NSEC3),
        leaf("mismatch.tld.", Other(SOMETHING), NSEC),
        leaf("f.0.a.2.ip6.arpa.", Other(REVERSE), NSEC3),
        leaf("ip6.arpa.", Other(""), NSEC),
        Zone { at: TLD, ..leaf("tld.", Other(DELEGATIONS), NSEC) },
        Zone { at: TLD, ..leaf("opt.", Other(""), OPT_OUT) },
        Zone { at: TLD, ..leaf("plain.", Other(""), Signing::Unsigned) },
        Zone { at: TLD, ..leaf("arpa.", Other(""), NSEC) },
        Zone { at: ROOT, ..leaf(".", Other(""), NSEC) },
    ]
}

const fn days(from_day: i64, to_day: i64) -> Signing {
    Signing::Signed { algorithm: "ECDSAP256SHA256", options: "", from_day, to_day }
}

const SOMETHING: &str = "www A 11.0.6.1\nwww AAAA 2a0f:6::1\nalias CNAME www\n*.wild A 11.0.6.2\n";

const REVERSE: &str =
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0 PTR www.nsec.tld.\n*.1.0.0.0 PTR any.wild.nsec.tld.\n";

/// Delegations of `tld` that lead nowhere, or not straight.
const DELEGATIONS: &str = "noglue NS ns.noglue\n\
    lame NS ns.lame\nns.lame A 11.0.4.53\n\
    dead NS ns.dead\nns.dead A 11.0.4.99\n\
    circle1 NS ns.circle2\ncircle2 NS ns.circle1\n\
    nowhere NS ns.missing\n\
    upward NS ns.upward\nns.upward A 11.0.0.53\n";

const EVERYTHING: &str = "www A 11.0.6.1\nwww AAAA 2a0f:6::1\n\
    @ MX 10 mail\nmail A 11.0.6.3\ntext TXT \"one\" \"two\"\nstrange TYPE65534 \\# 4 01020304\n\
    _sip._tcp SRV 0 0 5060 mail\n\
    alias CNAME www\nchain CNAME chain2\nchain2 CNAME chain3\nchain3 CNAME www\n\
    long CNAME long1\nlong1 CNAME long2\nlong2 CNAME long3\nlong3 CNAME long4\nlong4 CNAME long5\nlong5 CNAME long6\n\
    long6 CNAME long7\nlong7 CNAME www\n\
    ring CNAME ring1\nring1 CNAME ring\nself CNAME self\ndangling CNAME missing\n\
    abroad CNAME www.nsec3.tld.\ntoplain CNAME www.below.plain.\ntobogus CNAME www.bogus.tld.\n\
    *.wild A 11.0.6.2\n*.wild TXT \"wild\"\n*.wildalias CNAME www\n*.spin CNAME y.spin\n*.wilddangling CNAME missing\n\
    b.a.ent A 11.0.6.4\n\
    *.star A 11.0.6.5\ndeep.down.star TXT \"deep\"\n*.c.starent A 11.0.6.6\n\
    dname DNAME target\nleaf.target A 11.0.6.7\nalias.target CNAME leaf.target\n*.wild.target A 11.0.6.8\n\
    dnameabroad DNAME nsec3.tld.\ndnameplain DNAME unsigned.tld.\ndnamering DNAME dnamering2\ndnamering2 DNAME dnamering\n";

/// The served tree.
pub(super) struct Tree {
    /// Where the root is.
    pub(super) hints: String,
    /// Its key.
    pub(super) anchor: String,
    /// The same as a digest.
    pub(super) ds: String,
    _programs: Vec<Program>,
}

impl Tree {
    /// Signs the zones and serves them, one nsd on each address.
    pub(super) fn start(world: &World) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut workshop = Workshop { folder: folder.path(), delegations: BTreeMap::new(), served: BTreeMap::new() };
        for zone in zones() {
            workshop.make(&zone);
        }
        let Workshop { delegations, served, .. } = workshop;
        let [(_, root)] = &served[ROOT][..] else { panic!("the root's server has one zone") };
        let key = root.lines().find(|line| line.contains("DNSKEY")).expect("a signed zone has its key");
        world.servers.run(&format!("ip addr add {FAR}/8 dev eth0"));
        world.servers.run(&format!("ip addr add {DEAD}/8 dev eth0"));
        let silent = world.path("silent.nft");
        let rules = format!(
            "table ip silent {{ chain in {{ type filter hook input priority 0; ip daddr {DEAD} drop\n }}\n}}\n"
        );
        std::fs::write(&silent, rules).expect("the folder is ours");
        world.servers.run(&format!("nft -f {}", silent.display()));
        let mut programs = Vec::new();
        for (level, (address, zones)) in served.iter().enumerate() {
            programs.push(nsd(world, &format!("tree{level}"), address, zones));
        }
        for (address, zones) in &served {
            let question = format!("dig @{address} {} SOA +norecurse +tries=1 +time=1", zones[0].0);
            let up = within(10, || {
                String::from_utf8_lossy(&world.servers.output(&question).stdout).contains("flags: qr aa")
            });
            assert!(up, "nsd does not serve {} on {address}", zones[0].0);
        }
        let hints = format!(". 3600000 IN NS a.root.\na.root. 3600000 IN A {ROOT}\n");
        Self { hints, anchor: format!("{key}\n"), ds: delegations[""].trim().to_owned(), _programs: programs }
    }
}

/// Where zones are made.
struct Workshop<'a> {
    folder: &'a Path,
    /// What parents must hold of their children, by the parent's origin; the root's own DS under no name.
    delegations: BTreeMap<String, String>,
    /// The finished zones by address.
    served: BTreeMap<&'static str, Vec<(String, String)>>,
}

impl Workshop<'_> {
    fn make(&mut self, zone: &Zone) {
        let origin = &zone.origin;
        let mut records = match zone.content {
            Content::Everything => {
                let child = |name: &str, signing| leaf(&format!("{name}.{origin}"), Content::Other(SOMETHING), signing);
                self.make(&child("sub", NSEC));
                self.make(&child("plainsub", Signing::Unsigned));
                self.make(&Zone { at: FAR, ..child("far", NSEC3) });
                let big = (0..24).fold(String::new(), |mut text, number| {
                    let _ = writeln!(text, "big TXT \"{number:0>200}\"");
                    text
                });
                format!("{EVERYTHING}{big}")
            }
            Content::Something => SOMETHING.to_owned(),
            Content::Other(records) => records.to_owned(),
        };
        records += self.delegations.get(origin).map_or("", String::as_str);
        let own = servers(zone);
        let serial = "1 3600 600 86400 60";
        let first = &own[0].0;
        let mut text = format!("$ORIGIN {origin}\n$TTL 300\n@ SOA {first} hostmaster.{first} {serial}\n");
        for (name, address) in &own {
            let _ = writeln!(text, "@ NS {name}");
            if name.ends_with(origin.as_str()) && origin != "." {
                let _ = writeln!(text, "{name} A {address}");
            }
        }
        if origin == "." {
            text += &format!("a.root. A {ROOT}\n");
        }
        text += &records;

        let (text, ds) = self.sign(zone, &text);
        let text = match zone.damage {
            Damage::None => text,
            Damage::Replaced(from, to) => text.replace(from, to),
            Damage::Without(words) => {
                let out = |line: &&str| !words.iter().all(|word| line.replace('\t', " ").contains(word));
                text.lines().filter(out).fold(String::new(), |text, line| text + line + "\n")
            }
        };
        let mut delegation = String::new();
        if origin != "." {
            for (name, address) in above(zone) {
                delegation += &format!("{origin} NS {name}\n");
                if name.ends_with(origin.as_str()) {
                    delegation += &format!("{name} A {address}\n");
                }
            }
        }
        delegation += &ds;
        *self.delegations.entry(parent(origin)).or_default() += &delegation;
        if origin == "mismatch.tld." {
            self.served.entry(FAR).or_default().push((origin.clone(), text.clone()));
        }
        self.served.entry(zone.at).or_default().push((origin.clone(), text));
    }

    /// Returns the signed zone and its DS records.
    fn sign(&self, zone: &Zone, text: &str) -> (String, String) {
        let (origin, folder) = (&zone.origin, self.folder);
        let keygen = |algorithm: &str| {
            let size = if algorithm.starts_with("RSA") { "-b 2048" } else { "" };
            shell_in(folder, &format!("ldns-keygen -a {algorithm} {size} -k {origin}")).trim().to_owned()
        };
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("the program just wrote it");
        let digest = |key: &str, options: &str| shell_in(folder, &format!("ldns-key2ds -n {options} {key}.key"));
        let other = || digest(&keygen("ECDSAP256SHA256"), "-2");
        let (text, own) = match zone.signing {
            Signing::Unsigned => (text.to_owned(), None),
            Signing::Signed { algorithm, options, from_day, to_day } => {
                let key = keygen(algorithm);
                std::fs::write(folder.join("zone"), text).expect("the folder is ours");
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970");
                let now = i64::try_from(now.as_secs()).expect("the clock is sane");
                let [from, to] = [from_day, to_day].map(|day| now + day * 86400);
                shell_in(
                    folder,
                    &format!("ldns-signzone {options} -i {from} -e {to} -o {origin} -f signed zone {key}"),
                );
                (read("signed"), Some(key))
            }
        };
        let own = |options: &str| own.as_ref().map_or_else(other, |key| digest(key, options));
        let ds = match zone.ds {
            Ds::None => String::new(),
            Ds::Own => own("-2"),
            Ds::Sha1 => own("-1"),
            Ds::Wrong => other(),
            Ds::UnknownAlgorithm => with_field(&own("-2"), 5, "200"),
            Ds::UnknownDigest => with_field(&own("-2"), 6, "200"),
            Ds::OwnAndUnknown => own("-2") + &with_field(&own("-2"), 5, "200"),
            Ds::OwnAndWrong => own("-2") + &other(),
        };
        (text, ds)
    }
}

/// Returns a record with another word at a place.
fn with_field(record: &str, place: usize, word: &str) -> String {
    let mut words: Vec<&str> = record.split_whitespace().collect();
    words[place] = word;
    words.join(" ") + "\n"
}

/// Returns the origin of the zone above, or no name for the root.
fn parent(origin: &str) -> String {
    let above = match origin.split_once('.') {
        Some(("", _)) | None => return String::new(),
        // Reverse zones are several labels below one another.
        Some(_) if origin == "f.0.a.2.ip6.arpa." => "ip6.arpa.",
        Some((_, "")) => ".",
        Some((_, above)) => above,
    };
    above.to_owned()
}

/// Returns the zone's own servers with their addresses.
fn servers(zone: &Zone) -> Vec<(String, &'static str)> {
    let origin = &zone.origin;
    match origin.as_str() {
        "." => vec![("a.root.".to_owned(), ROOT)],
        "outside.tld." => vec![("ns.unsigned.tld.".to_owned(), LEAF)],
        // The far server knows nothing of it.
        "halflame.tld." => vec![(format!("ns1.{origin}"), FAR), (format!("ns.{origin}"), LEAF)],
        "halfdead.tld." => vec![(format!("ns1.{origin}"), DEAD), (format!("ns.{origin}"), LEAF)],
        "mismatch.tld." => vec![(format!("ns2.{origin}"), FAR)],
        _ => vec![(format!("ns.{origin}"), zone.at)],
    }
}

/// Returns the servers that the zone above names.
fn above(zone: &Zone) -> Vec<(String, &'static str)> {
    match zone.origin.as_str() {
        "mismatch.tld." => vec![(format!("ns.{}", zone.origin), LEAF)],
        _ => servers(zone),
    }
}
