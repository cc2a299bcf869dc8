//! Our own resolver as the plane sees it: it asks authorities from the root, or servers that recurse for us, and
//! checks what either say.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::{Explained, Resolved, Security, servers::Servers};
use crate::dns::{
    Config, Fallback, Resolve, Upstream,
    encode::Ede,
    policy::Error,
    query::{Question, qtype},
    resolver::{
        self, Answer, Asked, Forward, Placed, Support,
        anchor::Anchors,
        budget::Means,
        driver::{Driver, Settings, Wanted},
        hints, master,
        name::Name,
        rrset::Security as Judged,
        wire::{self, IN, Record},
    },
};

/// What one question may take, with everything that has to be asked for it. The resolver gives up, and says
/// why, a little earlier.
const DEADLINE: Duration = Duration::from_secs(6);

/// Threads among which questions are shared; with more, they would know less of one another.
const MOST_THREADS: usize = 2;

/// Bytes of the cache of records that a group's own servers have at most.
const GROUP_CACHE: usize = 1 << 20;

/// Whoever is asked.
#[derive(Debug)]
pub(crate) struct Resolver {
    driver: Driver,
    /// What its files held when they were read.
    files: Contents,
}

/// What the files that a resolver is made of hold; nothing of those that cannot be read.
type Contents = [Option<[u8; 32]>; 3];

impl Resolver {
    /// Starts what a configuration asks for. Nothing is sent yet.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Whoever drives us from outside wants the same each time.
        let threads = if config.testing.special_servers { 1 } else { cores.min(MOST_THREADS) };
        let folder = Some(config.state.clone()).filter(|state| !state.as_os_str().is_empty());
        Self::start(config, Settings { threads, folder, ..settings(config) })
    }

    /// Starts one that asks these servers for a group; all else is as it is for everybody.
    pub(crate) fn of_group(config: &Config, servers: &[Upstream]) -> Result<Self, Error> {
        let rrset_cache = config.rrset_cache.min(GROUP_CACHE);
        let (resolve, fallback) = (Resolve::Forward(servers.to_vec()), Fallback::Nothing);
        // What stands in the house alone is not looked at here.
        let of_group =
            Config { resolve, fallback, rrset_cache, lists: Vec::new(), records: Vec::new(), ..config.clone() };
        Self::start(&of_group, settings(config))
    }

    fn start(config: &Config, settings: Settings) -> Result<Self, Error> {
        // Before they are read: what changes in between is noticed next time.
        let files = contents(config);
        let mut servers = Servers::new(config);
        let core = core_config(config, &mut servers)?;
        let wrong = |error: std::io::Error| Error::Upstream { key: "dns.resolve", problem: error.to_string() };
        Ok(Self { driver: Driver::start(core, settings, servers.into_encrypted()).map_err(wrong)?, files })
    }

    /// Says whether this, which was made for one configuration, asks as another one wants: the same servers in the
    /// same way, with files that hold what they held.
    pub(crate) fn serves(&self, own: &Config, other: &Config) -> bool {
        Self::same(own, other) && self.files == contents(other)
    }

    fn same(one: &Config, other: &Config) -> bool {
        let key = |config: &Config| {
            let files = (config.root_hints.clone(), config.trust_anchors.clone(), config.upstream_ca.clone());
            let switches = (config.minimise, config.case_randomisation, config.sha1, config.rrset_cache, config.traces);
            let renewal = (config.prefetch, config.stale);
            let times = (config.ttl.clone(), config.negative_anchors.clone(), config.time_servers.clone());
            let servers = (config.resolve.clone(), config.fallback, config.bootstrap.clone(), config.forward.clone());
            (servers, files, switches, (times, renewal), config.testing.clone())
        };
        key(one) == key(other)
    }

    /// Asks. A failure is an answer too: SERVFAIL with the reason.
    pub(crate) async fn resolve(&self, question: &Question, wanted: Wanted, means: Means) -> Resolved {
        let Some(name) = Name::from_wire(&question.name) else { return Resolved::failed(Ede::NetworkError) };
        let asked = Asked {
            question: wire::Question { name, rtype: question.qtype },
            checking_disabled: question.checking_disabled,
        };
        match tokio::time::timeout(DEADLINE, self.driver.ask(asked, wanted, means)).await {
            Ok(Some(answer)) => resolved(&answer, question),
            Ok(None) => Resolved::failed(Ede::NotReady),
            Err(_) => Resolved::failed(Ede::NoReachableAuthority),
        }
    }

    /// Has everything that is known written down.
    pub(crate) async fn keep(&self) {
        self.driver.keep().await;
    }

    /// Asks for somebody who wants to know why.
    pub(crate) async fn explain(&self, question: &Question, anew: bool) -> Explained {
        let Some(name) = Name::from_wire(&question.name) else { return Explained::Busy };
        let asked = Asked { question: wire::Question { name, rtype: question.qtype }, checking_disabled: false };
        let Some(found) = self.driver.explain(asked, anew).await else { return Explained::Busy };
        let resolved = resolved(&found.answer, question);
        Explained::Found {
            answers: resolved.answers,
            authorities: resolved.authorities,
            course: Box::new(found.course),
            earlier: found.earlier.map(Box::new),
        }
    }
}

/// What each has in common: one thread, and nothing kept from one process to the next.
fn settings(config: &Config) -> Settings {
    Settings {
        threads: 1,
        clock: config.clock.clone(),
        fixed_time: config.testing.now,
        follow_wall: config.testing.follow_clock,
        log: config.testing.log_upstream,
        folder: None,
        figures: config.figures.clone(),
    }
}

fn contents(config: &Config) -> Contents {
    let digest = |file: &PathBuf| std::fs::read(file).ok().map(|content| Sha256::digest(content).into());
    [&config.root_hints, &config.trust_anchors, &config.upstream_ca].map(|file| file.as_ref().and_then(digest))
}

fn core_config(config: &Config, servers: &mut Servers<'_>) -> Result<resolver::Config, Error> {
    let testing = &config.testing;
    let support = Support { sha1: config.sha1, short_keys: testing.short_keys };
    let mut forward: Vec<Forward> = Vec::new();
    if let Resolve::Forward(upstreams) = &config.resolve {
        let servers = servers.contacts(upstreams)?;
        forward.push(Forward { zone: Name::root(), servers, fallback: config.fallback });
    }
    let anchors = anchors(config, support)?;
    let mut negative_anchors: Vec<(Name, Option<u64>)> =
        config.negative_anchors.iter().filter_map(|(name, until)| Some((own_name(name)?, Some(*until)))).collect();
    for zone in &config.forward {
        let Some(name) = own_name(&zone.zone) else { continue };
        // A zone of the house is not what the public DNS proves under its name, unless an anchor or the owner
        // says so.
        if !zone.validate && anchors.nearest(&name).is_none_or(|(owner, _)| *owner != name) {
            negative_anchors.push((name.clone(), None));
        }
        forward.push(Forward { zone: name, servers: servers.contacts(&zone.to)?, fallback: zone.fallback });
    }
    Ok(resolver::Config {
        hints: root_servers(config)?,
        priming: testing.priming,
        follow: testing.rfc5011.unwrap_or(testing.anchors.is_none()) && !anchors.is_empty(),
        anchors,
        negative_anchors,
        time_servers: config.time_servers.iter().filter_map(own_name).chain(resolver::clock::time_servers()).collect(),
        forward,
        minimise: config.minimise,
        case_randomisation: config.case_randomisation,
        cookies: testing.cookies,
        aggressive: testing.aggressive,
        support,
        edns_size: testing.edns_size,
        ipv4: testing.ipv4,
        ipv6: testing.ipv6,
        special_servers: testing.special_servers,
        prefetch: config.prefetch,
        cache_bytes: config.rrset_cache,
        ttl: config.ttl.clone(),
        stale: config.stale,
        port: testing.server_port,
        traces: config.traces,
        ..resolver::Config::default()
    })
}

pub(super) fn own_name(name: &hickory_proto::rr::Name) -> Option<Name> {
    Name::from_wire(&crate::dns::local::wire(name))
}

fn root_servers(config: &Config) -> Result<Vec<(Name, Vec<IpAddr>)>, Error> {
    if !config.testing.root_servers.is_empty() {
        let name = Name::parse("a.root-servers.net").expect("a name");
        return Ok(vec![(name, config.testing.root_servers.clone())]);
    }
    let Some(file) = &config.root_hints else { return Ok(hints::root()) };
    let wrong = |problem| Error::Upstream { key: "dns.root_hints", problem };
    let found = master::hints(&read(file).map_err(wrong)?);
    if found.is_empty() {
        return Err(wrong(format!("{} holds no address of a root server", file.display())));
    }
    Ok(found)
}

fn anchors(config: &Config, support: Support) -> Result<Anchors, Error> {
    let wrong = |problem| Error::Upstream { key: "dns.trust_anchors", problem };
    let records = match (&config.testing.anchors, &config.trust_anchors) {
        (Some(lines), _) => master::records(&lines.join("\n")).map_err(|error| wrong(error.to_string()))?,
        (None, Some(file)) => {
            let records = read(file).map_err(wrong)?;
            if !records.iter().any(|record| matches!(record.rtype, wire::rtype::DS | wire::rtype::DNSKEY)) {
                return Err(wrong(format!("{} holds no DS or DNSKEY record", file.display())));
            }
            records
        }
        (None, None) => return Ok(Anchors::root()),
    };
    let mut anchors = Anchors::default();
    for (name, reason) in master::add_anchors(&records, support, &mut anchors) {
        tracing::warn!(%name, reason, "trust anchor is of no use");
    }
    Ok(anchors)
}

fn read(file: &Path) -> Result<Vec<Record>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    master::records(&text).map_err(|error| format!("{}: {error}", file.display()))
}

fn resolved(answer: &Answer, question: &Question) -> Resolved {
    let signed = question.dnssec_ok || question.qtype == qtype::RRSIG;
    let records = |section: &[Placed]| section.iter().flat_map(|placed| placed_records(placed, signed)).collect();
    let ede = answer.why.map(Ede::from);
    Resolved {
        rcode: answer.rcode,
        answers: records(&answer.answer),
        authorities: records(&answer.authority),
        security: match answer.security {
            _ if ede.is_some_and(Ede::is_bogus) => Security::Bogus,
            Judged::Secure => Security::Secure,
            Judged::Bogus | Judged::Insecure | Judged::Unchecked => Security::Insecure,
        },
        ede,
    }
}

fn placed_records(placed: &Placed, signed: bool) -> Vec<Record> {
    let set = &placed.set;
    let record = |rtype, rdata: &std::sync::Arc<[u8]>| Record {
        name: set.name.clone(),
        rtype,
        class: IN,
        ttl: placed.ttl,
        rdata: rdata.clone(),
    };
    let data = set.data.iter().map(|rdata| record(set.rtype, rdata));
    let signatures = set.signatures.iter().filter(|_| signed).map(|rdata| record(wire::rtype::RRSIG, rdata));
    data.chain(signatures).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{fuzz::House, policy::Policy};

    fn core(change: fn(&mut Config)) -> Result<resolver::Config, String> {
        let mut config = House::new(|_| {}).policy.config.clone();
        config.resolve = Resolve::Recursive;
        config.testing.anchors = None;
        change(&mut config);
        core_config(&config, &mut Servers::new(&config)).map_err(|error| error.to_string())
    }

    #[test]
    fn files_that_cannot_be_used_are_named_by_their_key() {
        assert_eq!(core(|_| {}).unwrap().hints.len(), 13);
        let hints = core(|config| config.root_hints = Some("/nowhere/root.hints".into())).unwrap_err();
        assert!(hints.starts_with("dns.root_hints: /nowhere/root.hints: "), "{hints}");
        let anchors = core(|config| config.trust_anchors = Some("/nowhere/root.key".into())).unwrap_err();
        assert!(anchors.starts_with("dns.trust_anchors: /nowhere/root.key: "), "{anchors}");
    }

    #[test]
    fn a_forwarded_zone_is_not_validated_unless_it_has_an_anchor() {
        let forward = |config: &mut Config| {
            let zone = |zone: &str| crate::dns::Forward {
                zone: zone.parse().unwrap(),
                to: vec![crate::dns::Upstream::plain(([192, 168, 1, 1], 53).into())],
                fallback: crate::dns::Fallback::Nothing,
                validate: false,
            };
            config.forward = vec![zone("corp.example."), zone("signed.example.")];
            config.testing.anchors = Some(vec![". DS 1 8 2 00".into(), "signed.example. DS 1 8 2 00".into()]);
        };

        let config = core(forward).unwrap();

        assert_eq!(config.negative_anchors, [(Name::parse("corp.example").unwrap(), None)]);
        assert_eq!(config.forward.len(), 2);
    }

    #[test]
    fn another_way_to_renew_answers_is_another_resolver() {
        let config = House::new(|_| {}).policy.config.clone();
        let mut other = config.clone();
        assert!(Resolver::same(&config, &other));
        other.prefetch = !config.prefetch;
        assert!(!Resolver::same(&config, &other));
        other = config.clone();
        other.stale += Duration::from_secs(1);
        assert!(!Resolver::same(&config, &other));
    }

    #[test]
    fn a_file_that_holds_something_else_makes_another_resolver_and_what_the_old_one_said_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let hints = |address: &str| file("root.hints", &format!(". 60 IN NS a.root.\na.root. 60 IN A {address}\n"));
        let anchor = |tag: &str| file("root.key", &format!(". IN DS {tag} 8 2 {}\n", "00".repeat(32)));
        let ca = |text: &str| file("ca.pem", text);
        let house = House::new(|config| {
            config.resolve = Resolve::Recursive;
            config.testing.anchors = None;
            config.root_hints = Some(hints("192.0.2.1"));
            config.trust_anchors = Some(anchor("1"));
            config.upstream_ca = Some(ca("one"));
            let upstreams = vec![crate::dns::Upstream::plain(([192, 0, 2, 53], 53).into())];
            config.groups.push(crate::dns::Group { name: "own".into(), upstreams, ..crate::dns::Group::default() });
        });
        let again = |before: &Policy| Policy::build(before.config.clone(), Some(before)).unwrap();
        let mut before = again(&house.policy);
        assert!(before.asks_as(&house.policy), "the same files");

        let changes: [&dyn Fn() -> PathBuf; 3] = [&|| hints("192.0.2.2"), &|| anchor("2"), &|| ca("two")];
        for change in changes {
            change();
            let after = again(&before);
            assert!(!after.asks_as(&before));
            assert!(!after.ways.lead_as(&before.ways), "nor does a group");
            assert!(again(&after).asks_as(&after));
            before = after;
        }
    }
}
