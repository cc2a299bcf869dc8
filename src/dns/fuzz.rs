//! The front door for arbitrary bytes: what a fuzzer and the property tests push against.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use hickory_proto::rr::{Name, RData, Record, rdata};

use super::{
    Action, BlockAs, Config, Core, Group, List, ListSource, LocalRecord, Purpose, Resolve, Testing,
    answer::{Asker, Step, View, answer},
    cache::Stored,
    counters::Transport,
    encode,
    policy::Policy,
    query::{Question, Way, qtype},
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
        let instant = self.epoch + Duration::from_secs(seconds);
        let at = i64::try_from(seconds * 1000).expect("a test is over by then");
        let view = View::new(&self.core, &self.policy, at, instant);
        answer(&view, asker, bytes, None, out)
    }
}

/// Somebody in the house or outside.
pub(super) fn asker(origin: Origin) -> Asker {
    let source = Source { origin, relay: false };
    Asker { source, client: [192, 0, 2, 77].into(), transport: Transport::Udp, name: None }
}

/// A house in which every kind of answer is there to be found: records and aliases of the house, lists that block and give
/// something else, a search engine for children, and cached answers, one of them too long for a datagram.
fn furnished() -> House {
    let name = |text: &str| text.parse::<Name>().expect("it is a name");
    let fixed = |owner: &str, data| LocalRecord::Fixed(Record::from_rdata(name(owner), 60, data));
    let house = House::new(|config| {
        config.keep_clients = true;
        config.block_reason = true;
        config.records = vec![
            fixed("nas.home.example.", RData::A(rdata::A::new(192, 168, 1, 10))),
            fixed("shop.home.example.", RData::CNAME(rdata::CNAME(name("a.example.")))),
            fixed("*.apps.home.example.", RData::A(rdata::A::new(192, 168, 1, 20))),
        ];
        config.lists = vec![List {
            name: "ads".into(),
            source: ListSource::Inline(
                [
                    "b.example",
                    "||c.example^$dnsrewrite=nas.home.example",
                    "||d.example^$dnsrewrite=192.0.2.9",
                    "/^e[0-9]+/",
                ]
                .map(str::to_owned)
                .to_vec(),
            ),
            action: Action::Block,
            purpose: Purpose::Filter,
            block_as: BlockAs::Null,
            refresh: Duration::from_secs(3600),
            enabled: true,
        }];
        config.groups =
            vec![Group { name: "default".into(), lists: vec![0], safe_search: vec!["google"], ..Group::default() }];
    });
    for (owner, records) in [(&b"\x01a\x07example\0"[..], 1_u8), (b"\x01l\x07example\0", 120)] {
        let mut writer = encode::Writer::new(owner, qtype::A);
        for last in 0..records {
            let record = super::resolver::wire::Record {
                name: super::resolver::name::Name::from_wire(owner).expect("it is a name"),
                rtype: qtype::A,
                class: super::query::IN,
                ttl: u32::MAX >> 1,
                rdata: [192, 0, 2, last].into(),
            };
            writer.record(encode::Section::Answer, &record);
        }
        let message = writer.finish().expect("it is a message");
        let question = Question {
            name: owner.into(),
            qtype: qtype::A,
            dnssec_ok: false,
            checking_disabled: false,
            way: Way::HOUSE,
        };
        let stored = Stored::new(&question, &message, Box::default(), (0, true, None), 0, u32::MAX, 0);
        let stored = stored.expect("it can be walked");
        house.core.cache.keep(&question, Arc::new(stored));
    }
    house
}

/// Gives any bytes to the server, as they come by UDP and by TLS, from this box and from the LAN. What it says must be a message that can be walked, and fits the way that it goes.
pub fn message(bytes: &[u8]) {
    static HOUSE: OnceLock<House> = OnceLock::new();
    /// Goes on with each message, so that no limit stands between the bytes and their answer.
    static SECONDS: AtomicU64 = AtomicU64::new(1000);
    let house = HOUSE.get_or_init(furnished);
    let mut out = Vec::new();
    let now = SECONDS.fetch_add(1, Ordering::Relaxed);
    for transport in [Transport::Udp, Transport::Tls] {
        for origin in [Origin::Lan(NetworkId::HOST), Origin::Lan(NetworkId::MAIN)] {
            match house.answer(&Asker { transport, ..asker(origin) }, bytes, now, &mut out) {
                Step::Done(_) | Step::Blocked(_) | Step::Refresh(..) => {
                    assert!(encode::ttl_offsets(&out).is_some(), "an answer that cannot be read: {out:?}");
                    let most = if transport == Transport::Udp { encode::UDP_SIZE } else { u16::MAX };
                    assert!(out.len() <= usize::from(most) && bytes.get(..2) == out.get(..2));
                    assert!(out.get(2).is_some_and(|flags| flags & 0x80 != 0), "a question: {out:?}");
                }
                Step::Silence(_) | Step::Ask(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::query::tests::query;

    #[test]
    fn what_is_pushed_against_has_every_kind_of_answer() {
        let house = furnished();
        let mut out = Vec::new();
        let mut ask = |name: &str, transport| {
            let asker = Asker { transport, ..asker(Origin::Lan(NetworkId::MAIN)) };
            let step = house.answer(&asker, &query(name, qtype::A, Some(4096)), 1000, &mut out);
            (step, out[2] & 2 != 0)
        };

        use crate::dns::counters::Outcome::{Blocked, Cached, Local};
        for (name, outcome) in [
            ("nas.home.example", Local),
            ("shop.home.example", Cached),
            ("x.apps.home.example", Local),
            ("a.example", Cached),
            ("b.example", Blocked),
            ("c.example", Local),
            ("d.example", Blocked),
            ("e7.example", Blocked),
            ("use-application-dns.net", Blocked),
        ] {
            let (step, truncated) = ask(name, Transport::Udp);
            assert_eq!((step.outcome(), truncated), (Some(outcome), false), "{name}");
        }
        assert_eq!(ask("l.example", Transport::Udp), (Step::Done(Cached), true));
        assert_eq!(ask("l.example", Transport::Tls), (Step::Done(Cached), false));
        assert!(matches!(ask("www.google.com", Transport::Udp).0, Step::Ask(_)));
    }
}
