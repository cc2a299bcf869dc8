//! What is known of each server: how long it takes, whether it is there, what it cannot do.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use super::{contact::Contact, name::Name};

/// What is known of servers takes so many bytes at most; the longest unused goes first.
const MOST_BYTES: usize = 4 << 20;
/// What one of them takes: a table whose entries come and go is at least a quarter full, and a cookie has at most 40
/// octets (RFC 7873 §4).
const EACH: usize = 4 * (size_of::<(Contact, Server)>() + 1) + 40;
/// How many that are.
const MOST_SERVERS: usize = MOST_BYTES / EACH;
/// What is known of lame ones takes so many bytes; what was found out first goes first.
const MOST_LAME_BYTES: usize = 1 << 20;
/// Before anything is known (RFC 6298 §2.1 says 1 s; servers of zones are nearer).
const FIRST_TIMEOUT: Duration = Duration::from_millis(376);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(50);
const LONGEST_TIMEOUT: Duration = Duration::from_millis(2500);
/// Whoever is not known is waited for at least so long before somebody else is asked as well.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(60);
/// After so many time-outs in a row an address counts as dead and is asked only now and then.
const DEAD_AFTER: u32 = 4;
const DEAD_FOR: Duration = Duration::from_secs(30);
/// What was wrong once is tried again after this.
const FORGET_AFTER: Duration = Duration::from_secs(900);

/// One server.
#[derive(Clone, Debug, Default)]
pub struct Server {
    smoothed: Option<Duration>,
    variation: Duration,
    timeouts: u32,
    dead_until: Duration,
    used: Duration,
    /// It answered FORMERR or nothing to EDNS; until then it is asked without.
    pub plain_until: Duration,
    /// It did not give back the case of the question's name; until then it is asked without 0x20.
    pub lower_until: Duration,
    /// It gave too many wrong answers; until then it is asked over TCP.
    pub tcp_until: Duration,
    /// The server's cookie with ours in front (RFC 7873).
    pub cookie: Option<Vec<u8>>,
}

impl Server {
    /// How long to wait for an answer (RFC 6298 §2, with the back-off of §5.5).
    pub fn timeout(&self) -> Duration {
        let base = match self.smoothed {
            // What varies so little that nobody sees it is no reason to ask twice.
            Some(smoothed) => smoothed + (4 * self.variation).max(smoothed / 2),
            None => FIRST_TIMEOUT,
        };
        let backed_off = base.max(SHORTEST_TIMEOUT) * 2_u32.pow(self.timeouts.min(4));
        backed_off.min(LONGEST_TIMEOUT)
    }

    /// Lower is better. An unknown server is worth a try.
    fn score(&self, now: Duration) -> Duration {
        if self.dead_until > now {
            return Duration::from_secs(60) + self.timeout();
        }
        match self.smoothed {
            Some(smoothed) => smoothed + self.variation + Duration::from_millis(400) * self.timeouts,
            None => Duration::from_millis(60) + FIRST_TIMEOUT * self.timeouts,
        }
    }
}

/// One of IPv4 and IPv6 as a whole.
#[derive(Clone, Copy, Debug, Default)]
struct Family {
    /// Time-outs since somebody answered.
    silences: u32,
    answered: Option<Duration>,
    broken_until: Duration,
}

/// After so many time-outs without an answer, while the other family answers, a family counts as broken.
const BROKEN_AFTER: u32 = 6;
/// The same where it never worked.
const BROKEN_FROM_THE_START: u32 = 3;
/// It is left out for so long, then tried again.
const BROKEN_FOR: Duration = Duration::from_secs(60);
/// The other family answered not longer ago than this.
const LATELY: Duration = Duration::from_secs(20);

/// All servers.
#[derive(Debug, Default)]
pub struct Servers {
    families: [Family; 2],
    /// What answers take, over all servers, and how much that varies.
    typical: Option<(Duration, Duration)>,
    known: HashMap<Contact, Server>,
    lame: HashMap<(Contact, Name), Duration>,
    lame_order: VecDeque<(Contact, Name)>,
    lame_bytes: usize,
}

impl Servers {
    /// Returns what is known of a server.
    pub fn get(&self, server: Contact) -> Server {
        self.known.get(&server).cloned().unwrap_or_default()
    }

    /// Changes what is known of a server.
    pub fn update(&mut self, contact: Contact, now: Duration, change: impl FnOnce(&mut Server)) {
        if self.known.len() >= MOST_SERVERS && !self.known.contains_key(&contact) {
            let oldest = self.known.iter().min_by_key(|(_, server)| server.used).map(|(contact, _)| *contact);
            if let Some(oldest) = oldest {
                self.known.remove(&oldest);
            }
        }
        let server = self.known.entry(contact).or_default();
        server.used = now;
        change(server);
    }

    /// Says whether the address is of a family that works; also if none does.
    pub fn is_family_sound(&self, address: IpAddr, now: Duration) -> bool {
        self.families[usize::from(address.is_ipv6())].broken_until <= now
    }

    /// An answer came after this time.
    pub fn answered(&mut self, contact: Contact, now: Duration, took: Duration) {
        self.typical = Some(match self.typical {
            Some((typical, variation)) => ((typical * 15 + took) / 16, (variation * 15 + typical.abs_diff(took)) / 16),
            None => (took, took / 2),
        });
        if let Some(address) = contact.ip() {
            self.families[usize::from(address.is_ipv6())] = Family { answered: Some(now), ..Family::default() };
        }
        self.update(contact, now, |server| {
            server.timeouts = 0;
            server.dead_until = Duration::ZERO;
            match server.smoothed {
                Some(smoothed) => {
                    let off = smoothed.abs_diff(took);
                    server.variation = (server.variation * 3 + off) / 4;
                    server.smoothed = Some((smoothed * 7 + took) / 8);
                }
                None => {
                    server.smoothed = Some(took);
                    server.variation = took / 2;
                }
            }
        });
    }

    /// No answer came in time.
    pub fn timed_out(&mut self, contact: Contact, now: Duration) {
        if let Some(address) = contact.ip() {
            self.family_timed_out(address, now);
        }
        self.update(contact, now, |server| {
            server.timeouts += 1;
            if server.timeouts >= DEAD_AFTER {
                server.dead_until = now + DEAD_FOR;
            }
        });
    }

    /// Another server answered first, though this one had so much longer.
    pub fn overtaken(&mut self, contact: Contact, now: Duration, waited: Duration) {
        if waited >= self.patience(contact) {
            self.timed_out(contact, now);
        }
    }

    fn family_timed_out(&mut self, address: IpAddr, now: Duration) {
        let other = self.families[usize::from(address.is_ipv4())];
        let family = &mut self.families[usize::from(address.is_ipv6())];
        family.silences += 1;
        let most = if family.answered.is_some() { BROKEN_AFTER } else { BROKEN_FROM_THE_START };
        if family.silences >= most && other.answered.is_some_and(|at| at + LATELY > now) {
            // The next time-out after that leaves it out again.
            family.silences = most - 1;
            family.broken_until = now + BROKEN_FOR;
        }
    }

    /// Nobody was reached because of something nearer: the time-outs do not count.
    pub fn forgive(&mut self) {
        for server in self.known.values_mut() {
            server.timeouts = 0;
            server.dead_until = Duration::ZERO;
        }
        self.families = Default::default();
    }

    /// The server does not know the zone that it was said to serve.
    pub fn set_lame(&mut self, server: Contact, zone: &Name, now: Duration) {
        let key = (server, zone.clone());
        if self.lame.insert(key.clone(), now + FORGET_AFTER).is_none() {
            self.lame_bytes += lame_bytes(zone);
            self.lame_order.push_back(key);
        }
        while self.lame_bytes > MOST_LAME_BYTES
            && let Some(oldest) = self.lame_order.pop_front()
        {
            self.lame_bytes -= lame_bytes(&oldest.1);
            self.lame.remove(&oldest);
        }
    }

    /// Says whether the server was found lame for the zone.
    pub fn is_lame(&self, server: Contact, zone: &Name, now: Duration) -> bool {
        self.lame.get(&(server, zone.clone())).is_some_and(|until| *until > now)
    }

    /// Says whether nobody reached the server for a while.
    pub fn is_dead(&self, server: Contact, now: Duration) -> bool {
        self.known.get(&server).is_some_and(|server| server.dead_until > now)
    }

    /// How long to wait for a server until somebody else is asked as well. Who is not known is expected to be like
    /// the others.
    pub fn patience(&self, server: Contact) -> Duration {
        let typical = self.typical.map(|(typical, variation)| (typical + 2 * variation) * 3 / 2);
        match self.known.get(&server).and_then(|server| server.smoothed) {
            // Who has become much slower than all others is not what a client is to find out.
            Some(smoothed) => {
                let most = typical.unwrap_or_default().max(FIRST_TIMEOUT);
                (smoothed * 3 / 2).clamp(Duration::from_millis(20), most)
            }
            None => typical.map_or(FIRST_TIMEOUT, |typical| typical.clamp(SHORTEST_PATIENCE, FIRST_TIMEOUT)),
        }
    }

    /// Says whether the server was silent the last time that somebody waited for it.
    pub fn is_failing(&self, server: Contact) -> bool {
        self.known.get(&server).is_some_and(|server| server.timeouts > 0)
    }

    /// Sorts servers, the one to ask first in front. `dice` is below 1000: now and then another is
    /// preferred, so that a server which got faster is noticed.
    pub fn rank(&self, servers: &mut [Contact], now: Duration, dice: u32) {
        let sound = |server: Contact| server.ip().is_none_or(|address| self.is_family_sound(address, now));
        servers.sort_by_key(|server| (!sound(*server), self.get(*server).score(now)));
        if dice < 50 && servers.len() > 1 {
            let live = |server: &&Contact| !self.is_dead(**server, now) && sound(**server);
            let live = servers.iter().take_while(live).count();
            if live > 1 {
                let place = 1 + usize::try_from(dice).unwrap_or(0) % (live - 1);
                servers.swap(0, place);
            }
        }
    }

    /// How long an observation of a server's inability lasts.
    pub fn forget_after() -> Duration {
        FORGET_AFTER
    }
}

/// What is kept of one that is lame for a zone: in a table that is at least a quarter full, and in their order.
fn lame_bytes(zone: &Name) -> usize {
    4 * (size_of::<((Contact, Name), Duration)>() + 1) + 2 * size_of::<(Contact, Name)>() + zone.as_wire().len() + 16
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn contact(last: u8) -> Contact {
        Contact::Plain(([192, 0, 2, last], 53).into())
    }

    /// Three servers that take 20, 60 and 200 ms.
    fn known() -> Servers {
        let mut servers = Servers::default();
        for _ in 0..10 {
            for (last, millis) in [(1, 20), (2, 60), (3, 200)] {
                servers.answered(contact(last), NOW, Duration::from_millis(millis));
            }
        }
        servers
    }

    fn ranked(servers: &Servers, now: Duration, dice: u32) -> Vec<Contact> {
        let mut all = vec![contact(3), contact(1), contact(2)];
        servers.rank(&mut all, now, dice);
        all
    }

    #[test]
    fn the_fastest_is_asked_first_and_now_and_then_another() {
        let servers = known();

        let first: Vec<Contact> = (0..1000).map(|dice| ranked(&servers, NOW, dice)[0]).collect();

        let share = |last| first.iter().filter(|server| **server == contact(last)).count();
        assert_eq!((share(1), share(2), share(3)), (950, 25, 25));
    }

    #[test]
    fn what_is_known_of_servers_is_bounded_in_bytes() {
        let mut servers = Servers::default();
        for number in 0..20_000_u32 {
            let contact = Contact::Plain((std::net::Ipv4Addr::from(number), 53).into());
            servers
                .update(contact, NOW + Duration::from_secs(number.into()), |server| server.cookie = Some(vec![7; 40]));
            let label = "x".repeat(63);
            let zone = Name::parse(&format!("{label}.{label}.{number}.example")).unwrap();
            servers.set_lame(contact, &zone, NOW);
        }

        let known = servers.known.capacity() * size_of::<(Contact, Server)>() + servers.known.len() * 40;
        let names: usize = servers.lame.keys().map(|(_, zone)| zone.as_wire().len()).sum();
        let lame = servers.lame.capacity() * size_of::<((Contact, Name), Duration)>()
            + servers.lame_order.capacity() * size_of::<(Contact, Name)>()
            + names;
        assert!(known <= MOST_BYTES, "{known}");
        assert!(lame <= MOST_LAME_BYTES, "{lame}");
        assert_eq!(servers.lame.len(), servers.lame_order.len());
        let last = Contact::Plain((std::net::Ipv4Addr::from(19_999), 53).into());
        assert!(servers.get(last).cookie.is_some(), "the newest is known");
    }

    #[test]
    fn who_got_faster_is_noticed_soon() {
        let mut servers = known();
        for _ in 0..40 {
            servers.answered(contact(3), NOW, Duration::from_millis(5));
            servers.answered(contact(1), NOW, Duration::from_millis(90));
        }

        assert_eq!(ranked(&servers, NOW, 999)[0], contact(3));
    }

    #[test]
    fn the_dead_come_last_until_it_is_time_to_look_again() {
        let mut servers = known();
        for _ in 0..DEAD_AFTER {
            servers.timed_out(contact(1), NOW);
        }

        assert!(servers.is_dead(contact(1), NOW));
        assert_eq!(ranked(&servers, NOW, 999).last(), Some(&contact(1)));
        // Nor is it explored meanwhile.
        assert!((0..50).all(|dice| ranked(&servers, NOW, dice)[0] != contact(1)));
        assert!(!servers.is_dead(contact(1), NOW + DEAD_FOR));
        servers.answered(contact(1), NOW + DEAD_FOR, Duration::from_millis(20));
        assert_eq!(ranked(&servers, NOW + DEAD_FOR, 999)[0], contact(1));
    }

    #[test]
    fn a_server_whose_answers_take_the_same_each_time_is_waited_for_half_as_long_again() {
        let mut servers = Servers::default();
        for _ in 0..100 {
            servers.answered(contact(1), NOW, Duration::from_millis(80));
        }

        assert_eq!(servers.get(contact(1)).timeout(), Duration::from_millis(120));
    }

    #[test]
    fn another_is_asked_after_one_and_a_half_times_what_the_first_takes() {
        let servers = known();

        assert_eq!(servers.patience(contact(3)), Duration::from_millis(300));
        assert_eq!(servers.patience(contact(1)), Duration::from_millis(30));
    }
}
