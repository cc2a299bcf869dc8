//! Addresses that the owner's lists keep out: files, read again when they change, and the decisions of a CrowdSec agent.
//! What was read well last stays in force, and a change counts when two looks have found the same: whoever writes a list
//! may be in the middle of it.
//!
//! A list is an address or a network a line, as fail2ban, CrowdSec's and FireHOL's lists have them; what follows a `#`,
//! a `;` or a space is not read. Lists keep out strangers alone: many name private networks, which are the house's.

use std::{
    fs::File,
    io::{self, Read},
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ingress::decisions::{CrowdSec, Decisions};

/// Bytes of a file.
const LONGEST: u64 = 16 << 20;
/// Between the two looks of a reload.
const AGAIN: Duration = Duration::from_millis(250);
/// Networks of a file, 32 bytes each.
pub(super) const MOST: usize = 256 * 1024;

/// A list as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanList {
    /// The file, or where the agent is.
    pub file: PathBuf,
    /// Networks in force, of which those that touch are one.
    pub networks: usize,
    /// Why the file is not what is in force.
    pub problem: Option<String>,
}

/// When lists are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Nothing is in force yet.
    Start,
    /// Something is, which goes on if this is refused.
    Reload,
}

/// How soon a file is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    AtOnce,
    /// If the look before found the same.
    Twice,
}

/// The lists of a policy.
#[derive(Debug, Default)]
pub(super) struct Outcasts {
    lists: Mutex<Vec<List>>,
    decisions: Option<Arc<Decisions>>,
    all: ArcSwap<Ranges>,
}

#[derive(Clone, Debug)]
struct List {
    path: PathBuf,
    /// What was last taken, or refused.
    seen: Option<Seen>,
    /// What the last look found, if that is something else, with the content's digest.
    found: Option<(Seen, [u8; 32])>,
    ranges: Arc<Ranges>,
    problem: Option<String>,
}

/// When a file was written, and how long it is.
type Seen = (SystemTime, u64);

/// First and last addresses, in order, none touching another.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    pub(super) fn new(mut all: Vec<(u128, u128)>) -> Self {
        all.sort_unstable();
        all.dedup_by(|next, kept| {
            let touches = next.0 <= kept.1.saturating_add(1);
            kept.1 = if touches { kept.1.max(next.1) } else { kept.1 };
            touches
        });
        all.shrink_to_fit();
        Self(all)
    }

    pub(super) fn have(&self, address: IpAddr) -> bool {
        let number = number(address);
        let after = self.0.partition_point(|(first, _)| *first <= number);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, last)| number <= *last)
    }
}

/// Where IPv4 has its place within IPv6 (RFC 4291 §2.5.5.2).
const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);

/// Addresses of both families in one order.
fn number(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Outcasts {
    /// Reads the lists; one that cannot be read is what it was, and `at_start` empty: a box that does not start keeps
    /// nobody out either. The error names a list that never was there.
    pub(super) fn load(
        paths: &[PathBuf],
        crowdsec: Option<&CrowdSec>,
        before: &Self,
        at: Moment,
    ) -> Result<Self, (PathBuf, String)> {
        let known = before.lists.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut lists = Vec::new();
        for path in paths {
            match known.iter().find(|list| list.path == *path) {
                Some(list) => lists.push(list.clone()),
                None => {
                    let (path, ranges) = (path.clone(), Arc::default());
                    let mut list = List { path, seen: None, found: None, ranges, problem: None };
                    list.look(Trust::AtOnce);
                    match list.problem {
                        Some(problem) if at == Moment::Reload => return Err((list.path, problem)),
                        _ => lists.push(list),
                    }
                }
            }
        }
        let decisions = crowdsec.map(|crowdsec| {
            let same = before.decisions.as_ref().filter(|before| before.crowdsec == *crowdsec);
            same.cloned().unwrap_or_else(|| Arc::new(Decisions::new(crowdsec.clone())))
        });
        let outcasts = Self { lists: Mutex::new(lists), decisions, all: ArcSwap::default() };
        // Whoever reloads has written what is to hold.
        if outcasts.look() {
            std::thread::sleep(AGAIN);
            outcasts.look();
        }
        outcasts.join();
        Ok(outcasts)
    }

    /// Looks whether files have changed, and reads those.
    ///
    /// Says whether one has, and the next look decides.
    pub(super) fn look(&self) -> bool {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = lists.iter_mut().fold(false, |changed, list| list.look(Trust::Twice) | changed);
        let undecided = lists.iter().any(|list| list.found.is_some());
        drop(lists);
        if changed {
            self.join();
        }
        undecided
    }

    /// Puts in force what the lists and the agent say now.
    pub(super) fn join(&self) {
        let lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let decided = self.decisions.as_ref().map(|decisions| decisions.ranges());
        let all = lists.iter().map(|list| &list.ranges).chain(&decided).flat_map(|ranges| ranges.0.iter().copied());
        self.all.store(Arc::new(Ranges::new(all.collect())));
    }

    /// Returns the agent that is listened to.
    pub(super) fn decisions(&self) -> Option<&Arc<Decisions>> {
        self.decisions.as_ref()
    }

    pub(super) fn have(&self, address: IpAddr) -> bool {
        self.all.load().have(address)
    }

    /// Returns how many networks are kept out.
    pub(super) fn networks(&self) -> usize {
        self.all.load().0.len()
    }

    pub(super) fn status(&self) -> Vec<BanList> {
        let lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let status = |list: &List| BanList {
            file: list.path.clone(),
            networks: list.ranges.0.len(),
            problem: list.problem.clone(),
        };
        let decided = self.decisions.as_ref().map(|decisions| BanList {
            file: decisions.crowdsec.url.clone().into(),
            networks: decisions.ranges().0.len(),
            problem: decisions.problem(),
        });
        lists.iter().map(status).chain(decided).collect()
    }
}

impl List {
    /// Reads the file if it has changed; says whether something else is in force now.
    fn look(&mut self, trust: Trust) -> bool {
        // A pipe is not waited for.
        let seen = std::fs::metadata(&self.path).and_then(|found| match found.is_file() {
            true => Ok((found.modified()?, found.len())),
            false => Err(io::Error::other("is no file")),
        });
        let read = match seen {
            Ok(seen) if self.seen == Some(seen) => {
                self.found = None;
                return false;
            }
            Ok(seen) => {
                let text = read(&self.path);
                let digest = Sha256::digest(text.as_deref().unwrap_or_default()).into();
                if self.found.replace((seen, digest)) != Some((seen, digest)) && trust == Trust::Twice {
                    return false;
                }
                self.found = None;
                self.seen = Some(seen);
                text.and_then(|text| parse(&text))
            }
            Err(error) => {
                (self.seen, self.found) = (None, None);
                Err(error.to_string())
            }
        };
        match read {
            Ok(ranges) => {
                self.problem = None;
                self.ranges = Arc::new(ranges);
                tracing::info!(file = %self.path.display(), networks = self.ranges.0.len(), "ban list in force");
                true
            }
            Err(problem) => {
                if self.problem.as_ref() != Some(&problem) {
                    let kept = self.ranges.0.len();
                    tracing::warn!(file = %self.path.display(), problem, kept, "ban list stays what it was");
                }
                self.problem = Some(problem);
                false
            }
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let wrong = |error: io::Error| error.to_string();
    let file = File::open(path).map_err(wrong)?;
    let mut text = String::new();
    let length = file.take(LONGEST + 1).read_to_string(&mut text).map_err(wrong)?;
    if length as u64 > LONGEST {
        return Err(format!("has more than {} MiB", LONGEST >> 20));
    }
    Ok(text)
}

/// Reads a list. One line that is none makes it no list: it may be the page of an error, or half of itself.
fn parse(text: &str) -> Result<Ranges, String> {
    let mut all = Vec::new();
    for (line, written) in (1..).zip(text.lines()) {
        let Some(word) = written.split(['#', ';', ' ', '\t', '\r']).next().filter(|word| !word.is_empty()) else {
            continue;
        };
        let net = word.parse::<IpNet>().or_else(|_| word.parse::<IpAddr>().map(IpNet::from));
        let net = net.map_err(|_| format!("line {line} is no address and no network"))?;
        if net.prefix_len() == 0 {
            return Err(format!("line {line} is everybody"));
        }
        all.extend(ranges(net));
        if all.len() > MOST {
            return Err(format!("has more than {MOST} networks"));
        }
    }
    Ok(Ranges::new(all))
}

/// Returns the addresses of a network. A wide one of IPv6 says nothing of IPv4, which has its place in the middle of it.
pub(super) fn ranges(net: IpNet) -> impl Iterator<Item = (u128, u128)> {
    let (first, last) = (number(net.network()), number(net.broadcast()));
    let (one, two) = match net {
        IpNet::V6(v6) if v6.contains(&MAPPED.network()) && v6.prefix_len() < MAPPED.prefix_len() => {
            let (from, to) = (MAPPED.network().to_bits(), MAPPED.broadcast().to_bits());
            ((first, from.saturating_sub(1)), Some((to.saturating_add(1), last)))
        }
        _ => ((first, last), None),
    };
    std::iter::once(one).chain(two)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn lists_are_read_as_others_write_them() {
        let ranges =
            parse("# mine\n\n198.51.100.7\n203.0.113.0/25 ; SBL1\n203.0.113.128/25\t#x\r\n2001:db8::/32\n").unwrap();

        assert_eq!(ranges.0.len(), 3);
        for (text, within) in [
            ("198.51.100.6", false),
            ("198.51.100.7", true),
            ("::ffff:198.51.100.7", true),
            ("198.51.100.8", false),
            ("203.0.113.255", true),
            ("203.0.114.0", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
        ] {
            assert_eq!(ranges.have(address(text)), within, "{text}");
        }
        for wrong in ["<html>", "198.51.100.7\n198.51", "0.0.0.0/0", "::/0"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wide_network_of_ipv6_says_nothing_of_ipv4() {
        // The first line of lists of addresses that nobody has.
        let ranges = parse("::/8\n2001:db8::/32\n").unwrap();

        assert!(
            ranges.have(address("::2")) && ranges.have(address("64:ff9b::1")) && ranges.have(address("2001:db8::1"))
        );
        assert!(!ranges.have(address("198.51.100.7")) && !ranges.have(address("255.255.255.255")));
    }

    #[test]
    fn a_list_that_breaks_stays_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bans");
        std::fs::write(&path, "198.51.100.7\n").unwrap();
        let outcasts = Outcasts::load(std::slice::from_ref(&path), None, &Outcasts::default(), Moment::Start).unwrap();

        std::fs::write(&path, "<html>502 Bad Gateway</html>").unwrap();
        outcasts.look();
        outcasts.look();
        assert!(outcasts.have(address("198.51.100.7")) && outcasts.status()[0].problem.is_some());
        std::fs::remove_file(&path).unwrap();
        let reloaded = Outcasts::load(std::slice::from_ref(&path), None, &outcasts, Moment::Reload).unwrap();
        assert!(reloaded.have(address("198.51.100.7")) && reloaded.status()[0].problem.is_some());
        std::fs::write(&path, "198.51.100.0/30\n").unwrap();
        reloaded.look();
        reloaded.look();
        assert!(!reloaded.have(address("198.51.100.7")) && reloaded.have(address("198.51.100.1")));
        assert_eq!(reloaded.status()[0].problem, None);
        std::fs::write(&path, "").unwrap();
        reloaded.look();
        reloaded.look();
        assert_eq!(reloaded.networks(), 0);
        assert!(Outcasts::load(&[folder.path().join("none")], None, &reloaded, Moment::Reload).is_err());
    }

    #[test]
    fn a_list_that_is_being_written_is_not_read_half() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bans");
        std::fs::write(&path, "198.51.100.7\n").unwrap();
        let outcasts = Outcasts::load(std::slice::from_ref(&path), None, &Outcasts::default(), Moment::Start).unwrap();
        let (old, new) = (address("198.51.100.7"), address("203.0.113.9"));

        // Cut to nothing, then a line, then the whole: what a shell's redirection does.
        for written in ["", "192.0.2.1\n", "192.0.2.1\n203.0.113.9\n198.51.100.7\n"] {
            std::fs::write(&path, written).unwrap();
            outcasts.look();
            assert!(outcasts.have(old) && !outcasts.have(new), "{written}");
        }

        outcasts.look();
        assert!(outcasts.have(old) && outcasts.have(new));
    }

    #[test]
    fn a_list_that_makes_no_sense_keeps_no_box_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bans");
        std::fs::write(&path, "<html>").unwrap();

        let outcasts = Outcasts::load(std::slice::from_ref(&path), None, &Outcasts::default(), Moment::Start).unwrap();

        assert!(outcasts.networks() == 0 && outcasts.status()[0].problem.is_some());
        std::fs::write(&path, "198.51.100.7\n").unwrap();
        outcasts.look();
        outcasts.look();
        assert!(outcasts.have(address("198.51.100.7")) && outcasts.status()[0].problem.is_none());
    }

    proptest! {
        #[test]
        fn ranges_have_what_any_network_has(
            nets in prop::collection::vec((any::<[u8; 2]>(), 1_u8..=32), 0..40),
            asked in prop::collection::vec(any::<[u8; 2]>(), 40),
        ) {
            let near = |[one, two]: [u8; 2]| IpAddr::from([198, 51, one & 7, two]);
            let nets: Vec<IpNet> =
                nets.iter().map(|(octets, length)| IpNet::new(near(*octets), 17.max(*length)).unwrap().trunc()).collect();
            let text: String = nets.iter().map(|net| format!("{net}\n")).collect();

            let ranges = parse(&text).unwrap();

            for address in asked.into_iter().map(near) {
                prop_assert_eq!(ranges.have(address), nets.iter().any(|net| net.contains(&address)));
            }
        }
    }
}
