//! The servers behind one route: whose turn it is, and who is well.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use hyper::{
    HeaderMap,
    header::{self, HeaderValue},
};
use tokio::time::{Duration, Instant};

use super::Dial;
use crate::ingress::Http;

/// Failures in a row after which a server is left alone, and for how long at first and at most.
const FAILURES: u32 = 3;
const REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// The cookie that keeps a client with its server.
pub(in crate::ingress) const STICKY: &str = "hearthgate-server";

/// How one server is. It survives a reload.
#[derive(Debug)]
pub(in crate::ingress) struct Health {
    epoch: Instant,
    failures: AtomicU32,
    /// In milliseconds since `epoch`; 0 is up, and the largest number is down until a check says otherwise.
    down_until: AtomicU64,
}

impl Default for Health {
    fn default() -> Self {
        Self { epoch: Instant::now(), failures: AtomicU32::new(0), down_until: AtomicU64::new(0) }
    }
}

impl Health {
    fn at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX - 1)
    }

    pub(in crate::ingress) fn is_up(&self, now: Instant) -> bool {
        let until = self.down_until.load(Ordering::Relaxed);
        until == 0 || until <= self.at(now)
    }

    /// It answered.
    pub(in crate::ingress) fn worked(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
            // What a check found is for a check to take back.
            let _ = self
                .down_until
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| (until != u64::MAX).then_some(0));
        }
    }

    /// It could not be reached, or did not answer.
    pub(in crate::ingress) fn failed(&self, now: Instant) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if let Some(more) = failures.checked_sub(FAILURES) {
            let rest = REST.saturating_mul(1 << more.min(8)).min(LONGEST_REST);
            let until = self.at(now + rest);
            let _ = self.down_until.fetch_max(until, Ordering::Relaxed);
        }
    }

    /// A check found it so.
    pub(in crate::ingress) fn checked(&self, up: bool) {
        self.down_until.store(if up { 0 } else { u64::MAX }, Ordering::Relaxed);
        if up {
            self.failures.store(0, Ordering::Relaxed);
        }
    }
}

/// The servers of a route.
#[derive(Debug)]
pub(in crate::ingress) struct Group {
    /// Those that take turns, then those that only stand in.
    pub(in crate::ingress) dials: Vec<Arc<Dial>>,
    turns: usize,
    next: AtomicUsize,
    sticky: bool,
}

impl Group {
    /// `dials` take turns, `backups` stand in; `sticky` keeps a client with its server.
    pub(in crate::ingress) fn new(mut dials: Vec<Arc<Dial>>, backups: Vec<Arc<Dial>>, sticky: bool) -> Self {
        let turns = dials.len();
        dials.extend(backups);
        Self { dials, turns, next: AtomicUsize::new(0), sticky }
    }

    /// Returns what all of them speak.
    pub(in crate::ingress) fn http(&self) -> Http {
        self.dials.first().map_or(Http::One, |dial| dial.upstream.http)
    }

    /// Returns the servers in the order in which they are asked: those that are well and take turns, those that are
    /// well and stand in, and then all others, because who is not well may be better than nobody.
    pub(in crate::ingress) fn order(&self, wanted: Option<u64>, now: Instant) -> impl Iterator<Item = &Arc<Dial>> {
        let count = self.dials.len();
        // Beyond so many none is left out.
        let mut up = u64::MAX;
        let mut first = 0;
        if count > 1 {
            for (at, dial) in self.dials.iter().enumerate().take(64) {
                if !dial.health.is_up(now) {
                    up &= !(1 << at);
                }
            }
            let turn = || self.next.fetch_add(1, Ordering::Relaxed) % self.turns.max(1);
            let kept = wanted.and_then(|tag| self.dials.iter().take(self.turns).position(|dial| dial.tag == tag));
            first = kept.unwrap_or_else(turn);
        }
        let is_up = move |at: usize| at >= 64 || up & (1 << at) != 0;
        let turns = self.turns;
        let taking_turns = (0..turns).map(move |step| (first + step) % turns.max(1));
        let all = (0..count).map(move |step| if step < turns { (first + step) % turns.max(1) } else { step });
        let well = taking_turns.filter(move |at| is_up(*at)).chain((turns..count).filter(move |at| is_up(*at)));
        well.chain(all.filter(move |at| !is_up(*at))).filter_map(|at| self.dials.get(at))
    }

    /// Returns the server that a client had before.
    pub(in crate::ingress) fn wanted(&self, headers: &HeaderMap) -> Option<u64> {
        if !self.sticky {
            return None;
        }
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut cookies = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        cookies.find(|(name, _)| *name == STICKY).and_then(|(_, tag)| u64::from_str_radix(tag, 16).ok())
    }

    /// Tells the client which server it has, if it does not know.
    pub(in crate::ingress) fn keep(&self, wanted: Option<u64>, dial: &Dial, secure: bool, headers: &mut HeaderMap) {
        if !self.sticky || wanted == Some(dial.tag) {
            return;
        }
        let secure = if secure { "; Secure" } else { "" };
        let cookie = format!("{STICKY}={:016x}; Path=/; HttpOnly; SameSite=Lax{secure}", dial.tag);
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            headers.append(header::SET_COOKIE, cookie);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::{Upstream, UpstreamHost};

    fn dial(port: u16) -> Arc<Dial> {
        let host = UpstreamHost::Address([127, 0, 0, 1].into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Arc::new(
            Dial::new(&Upstream { host, port, tls: None, http: Http::One }, u32::from(port), Arc::default(), &provider)
                .unwrap(),
        )
    }

    fn ports<'a>(order: impl Iterator<Item = &'a Arc<Dial>>) -> Vec<u16> {
        order.map(|dial| dial.upstream.port).collect()
    }

    #[test]
    fn servers_take_turns_and_who_is_not_well_comes_last() {
        let group = Group::new(vec![dial(1), dial(2)], vec![dial(3)], false);
        let now = Instant::now();

        assert_eq!(ports(group.order(None, now)), [1, 2, 3]);
        assert_eq!(ports(group.order(None, now)), [2, 1, 3]);
        for _ in 0..FAILURES {
            group.dials[0].health.failed(now);
        }
        assert_eq!(ports(group.order(None, now)), [2, 3, 1]);
        assert_eq!(ports(group.order(None, now)), [2, 3, 1]);
        assert_eq!(ports(group.order(None, now + REST))[..1], [1]);
    }

    #[test]
    fn a_failure_now_and_then_is_forgiven_and_a_check_is_not_overruled() {
        let health = Health::default();
        let now = Instant::now();

        health.failed(now);
        health.failed(now);
        health.worked();
        health.failed(now);
        assert!(health.is_up(now));
        health.checked(false);
        health.worked();
        assert!(!health.is_up(now + Duration::from_secs(3600)));
        health.checked(true);
        assert!(health.is_up(now));
    }

    #[test]
    fn a_client_stays_with_its_server() {
        let group = Group::new(vec![dial(1), dial(2)], Vec::new(), true);
        let now = Instant::now();
        let mut headers = HeaderMap::new();
        group.keep(None, &group.dials[1], true, &mut headers);
        let said = headers[header::SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
        let sent: HeaderMap = [(header::COOKIE, format!("a=b; {said}").parse().unwrap())].into_iter().collect();

        let wanted = group.wanted(&sent);

        for _ in 0..3 {
            assert_eq!(ports(group.order(wanted, now)), [2, 1]);
        }
        let mut again = HeaderMap::new();
        group.keep(wanted, &group.dials[1], true, &mut again);
        assert!(again.is_empty());
    }
}
