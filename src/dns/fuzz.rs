//! The front door for arbitrary bytes: what a fuzzer and the property tests push against.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::{
    Config, Core, Resolve, Testing,
    answer::{Asker, Step, View, answer},
    counters::Transport,
    encode,
    policy::Policy,
};
use crate::{
    metrics::Metrics,
    origin::{NetworkId, Networks, Origin, Source},
};

/// A server without upstream servers that hears from a client on the LAN.
pub(super) struct House {
    pub(super) core: Arc<Core>,
    pub(super) policy: Arc<Policy>,
    /// 1970, for limits that are kept in another clock.
    epoch: Instant,
}

impl House {
    /// Makes one; the configuration may be changed first.
    pub(super) fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            domain: "home.example.".parse().expect("it is a name"),
            prefetch: true,
            resolve: Resolve::Forward(Vec::new()),
            testing: Testing { anchors: Some(Vec::new()), ..Testing::default() },
            ..Config::default()
        };
        change(&mut config);
        let networks = Arc::new(ArcSwap::from_pointee(Networks::default()));
        let core = Arc::new(Core::new(config.cache_size, networks, &Metrics::new()));
        let policy = Arc::new(Policy::build(config, None).expect("the configuration is sound"));
        Self { core, policy, epoch: Instant::now() }
    }

    /// Answers a message, `seconds` after 1970.
    pub(super) fn answer(&self, asker: &Asker, bytes: &[u8], seconds: u64, out: &mut Vec<u8>) -> Step {
        let networks = self.core.networks.load();
        let instant = self.epoch + Duration::from_secs(seconds);
        let view = View { core: &self.core, policy: &self.policy, networks: &networks, now: seconds, instant };
        answer(&view, asker, bytes, None, out)
    }
}

/// Somebody in the house or outside.
pub(super) fn asker(origin: Origin) -> Asker {
    let source = Source { origin, relay: false };
    Asker { source, client: [192, 0, 2, 77].into(), transport: Transport::Udp, name: None }
}

/// Gives any bytes to the server. What it says must be a message that can be walked and fits a datagram.
pub fn message(bytes: &[u8]) {
    static HOUSE: OnceLock<House> = OnceLock::new();
    /// Goes on with each message, so that no limit stands between the bytes and their answer.
    static SECONDS: AtomicU64 = AtomicU64::new(1000);
    let house = HOUSE.get_or_init(|| House::new(|_| {}));
    let mut out = Vec::new();
    let now = SECONDS.fetch_add(1, Ordering::Relaxed);
    match house.answer(&asker(Origin::Lan(NetworkId::HOST)), bytes, now, &mut out) {
        Step::Done(_) | Step::Refresh(..) => {
            assert!(encode::ttl_offsets(&out).is_some(), "an answer that cannot be read: {out:?}");
            assert!(out.len() <= usize::from(encode::UDP_SIZE) && bytes.get(..2) == out.get(..2));
        }
        Step::Silence(_) | Step::Ask(_) => {}
    }
}
