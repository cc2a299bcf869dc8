//! Who asked for a host that is there, but not for them: summed up by network, for the audit log.
//!
//! Nothing of it can be seen from outside: whatever name was asked for, the same is compared, and the answer to it does not
//! wait. Whoever asks fast or from many networks is summed up further, and cannot push other lines out of the log: of the
//! house and of the tunnel there are few networks, so theirs come first and give their place to nobody.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use ipnet::IpNet;

use crate::{
    ingress::HostPattern,
    origin::{Directory, Origin},
};

/// Networks that are told apart between two looks.
const NETWORKS: usize = 256;
/// Hosts that a line names.
const NAMED: usize = 3;
/// Lines of one look.
const AT_ONCE: u32 = 8;
/// Lines in a row, and how long another one takes: less than 300 a day, of which the log holds some ten thousand.
const LINES: u32 = 64;
const ANOTHER_AFTER: Duration = Duration::from_secs(5 * 60);

/// Attempts since the last look.
#[derive(Debug, Default)]
pub(super) struct Trespasses(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    networks: HashMap<(Origin, IpNet), Attempts>,
    /// Attempts from networks for which there was no room.
    beyond: u64,
    spent: u32,
    since: Option<Instant>,
}

#[derive(Debug, Default)]
struct Attempts {
    count: u64,
    hosts: Vec<String>,
    more: bool,
}

/// The attempts of one network, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trespass {
    /// `wan 203.0.113.0/24`
    pub by: String,
    /// `asked for admin.home.example`
    pub what: String,
    /// `refused, 17 times`
    pub outcome: String,
}

/// Says whether a host is one of these. However that comes out, all of them were looked at.
fn is_one_of<'a>(hosts: impl Iterator<Item = &'a HostPattern>, name: &str) -> bool {
    let parent = name.split_once('.').map_or("", |(_, parent)| parent);
    let is = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(host) => host.as_str() == name,
        HostPattern::Wildcard(base) => base.as_str() == parent,
        HostPattern::Any => false,
    };
    hosts.fold(false, |found, pattern| found | is(pattern))
}

impl Trespasses {
    /// Notes that a host was asked for which the asker's table does not have; `hosts` are those of all tables.
    pub(super) fn note<'a>(
        &self,
        hosts: impl Iterator<Item = &'a HostPattern>,
        origin: Origin,
        client: IpAddr,
        host: &str,
    ) {
        if !is_one_of(hosts, host) {
            return;
        }
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (origin, network(client.to_canonical()));
        if seen.networks.len() >= NETWORKS && !seen.networks.contains_key(&key) {
            // Whoever of the Internet has tried least makes room, and is still counted.
            let strangers = seen.networks.iter().filter(|((origin, _), _)| *origin == Origin::Wan);
            let Some((least, count)) =
                strangers.map(|(key, attempts)| (*key, attempts.count)).min_by_key(|one| (one.1, one.0))
            else {
                seen.beyond += 1;
                return;
            };
            seen.networks.remove(&least);
            seen.beyond += count;
        }
        let attempts = seen.networks.entry(key).or_default();
        attempts.count += 1;
        if !attempts.hosts.iter().any(|known| known == host) {
            match attempts.hosts.len() < NAMED {
                true => attempts.hosts.push(host.to_owned()),
                false => attempts.more = true,
            }
        }
    }

    /// Returns what is to be written down now, what is no stranger's first, then the most attempts; to be called once a minute.
    pub(super) fn take(&self, directory: &Directory, now: Instant) -> Vec<Trespass> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = seen.allowed(now).min(AT_ONCE);
        let mut order: Vec<((Origin, IpNet), u64)> =
            seen.networks.iter().map(|(key, attempts)| (*key, attempts.count)).collect();
        order.sort_unstable_by_key(|(key, count)| (key.0 == Origin::Wan, std::cmp::Reverse(*count), *key));
        let mut taken = Vec::new();
        for (key, _) in order.into_iter().take(usize::try_from(lines).unwrap_or(0)) {
            let Some(attempts) = seen.networks.remove(&key) else { continue };
            let more = if attempts.more { " and others" } else { "" };
            taken.push(Trespass {
                by: format!("{} {}", directory.describe(key.0), key.1),
                what: format!("asked for {}{more}", attempts.hosts.join(", ")),
                outcome: format!("refused, {}", times(attempts.count)),
            });
        }
        if let (Some(last), true) = (taken.last_mut(), seen.beyond > 0) {
            last.outcome.push_str(&format!("; other networks {}", times(std::mem::take(&mut seen.beyond))));
        }
        seen.spent += u32::try_from(taken.len()).unwrap_or(0);
        taken
    }
}

impl Seen {
    fn allowed(&mut self, now: Instant) -> u32 {
        let since = *self.since.get_or_insert(now);
        let earned = now.saturating_duration_since(since).as_secs() / ANOTHER_AFTER.as_secs();
        if earned > 0 {
            self.spent = self.spent.saturating_sub(u32::try_from(earned).unwrap_or(u32::MAX));
            self.since = Some(now);
        }
        LINES - self.spent.min(LINES)
    }
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// An IPv4 /24, an IPv6 /48.
fn network(address: IpAddr) -> IpNet {
    let length = if address.is_ipv4() { 24 } else { 48 };
    IpNet::new(address, length).expect("no longer than an address").trunc()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::canonical::CanonicalHost;

    fn note(trespasses: &Trespasses, client: &str, host: &str) {
        let name = |text| CanonicalHost::parse(text).unwrap();
        let hosts = [HostPattern::Exact(name("admin.home.example")), HostPattern::Wildcard(name("apps.home.example"))];
        trespasses.note(hosts.iter(), Origin::Wan, client.parse().unwrap(), host);
    }

    #[test]
    fn attempts_are_summed_by_network_and_names_that_never_existed_are_none() {
        let (trespasses, directory, now) = (Trespasses::default(), Directory::default(), Instant::now());
        for (client, host) in [
            ("203.0.113.1", "admin.home.example"),
            ("203.0.113.200", "a.apps.home.example"),
            ("::ffff:203.0.113.7", "admin.home.example"),
            ("2001:db8:1:1::1", "admin.home.example"),
            ("203.0.113.1", "never.home.example"),
            ("203.0.113.1", "a.b.apps.home.example"),
        ] {
            note(&trespasses, client, host);
        }

        let taken = trespasses.take(&directory, now);

        assert_eq!(taken.len(), 2);
        assert_eq!((taken[0].by.as_str(), taken[0].outcome.as_str()), ("wan 203.0.113.0/24", "refused, 3 times"));
        assert_eq!(taken[0].what, "asked for admin.home.example, a.apps.home.example");
        assert_eq!((taken[1].by.as_str(), taken[1].outcome.as_str()), ("wan 2001:db8:1::/48", "refused, once"));
        assert_eq!(trespasses.take(&directory, now), []);
    }

    #[test]
    fn a_day_of_attempts_from_everywhere_takes_few_lines_and_little_memory() {
        let (trespasses, directory, begin) = (Trespasses::default(), Directory::default(), Instant::now());
        let (mut lines, mut said) = (0, 0);

        for minute in 0..1_440_u32 {
            for number in 0..300_u32 {
                note(&trespasses, &format!("11.{}.{}.9", minute % 250, number % 250), "admin.home.example");
            }
            let taken = trespasses.take(&directory, begin + Duration::from_secs(60) * minute);
            assert!(taken.len() <= 8, "{}", taken.len());
            lines += taken.len();
            said += taken.iter().filter(|one| one.outcome.contains("other networks")).count();
            assert!(trespasses.0.lock().unwrap().networks.len() <= NETWORKS);
        }

        assert!((64..=64 + 288).contains(&lines) && said > 0, "{lines} {said}");
    }

    #[test]
    fn a_crowd_of_strangers_hides_neither_the_house_nor_who_goes_on() {
        let (trespasses, directory, now) = (Trespasses::default(), Directory::default(), Instant::now());
        let crowd = |trespasses: &Trespasses| {
            for number in 0..400_u32 {
                note(trespasses, &format!("11.{}.{}.9", number / 250, number % 250), "admin.home.example");
            }
        };
        crowd(&trespasses);
        let hosts = [HostPattern::Exact(CanonicalHost::parse("admin.home.example").unwrap())];
        let lan = Origin::Lan(crate::origin::NetworkId::MAIN);

        trespasses.note(hosts.iter(), lan, "192.168.1.66".parse().unwrap(), "admin.home.example");
        for _ in 0..3 {
            note(&trespasses, "203.0.113.1", "admin.home.example");
        }
        crowd(&trespasses);
        let taken = trespasses.take(&directory, now);

        assert!(taken[0].by.contains("192.168.1.0/24"), "{taken:?}");
        assert!(
            taken.iter().any(|one| one.by == "wan 203.0.113.0/24" && one.outcome == "refused, 3 times"),
            "{taken:?}"
        );
        assert!(trespasses.0.lock().unwrap().networks.len() <= NETWORKS);
    }
}
