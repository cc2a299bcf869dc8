//! Asks servers whether they are well, as their routes say, and tells how all of them are.

use std::{
    collections::{HashMap, HashSet},
    future::poll_fn,
    rc::Rc,
    sync::Arc,
};

use hyper::{HeaderMap, Method, StatusCode};
use tokio::{
    task::JoinSet,
    time::{Duration, Instant, sleep, timeout},
};

use crate::ingress::{
    Change, HealthCheck, HostPattern, Http, Policy, Port, ProxyProtocol, Route, Rules, Upstream,
    canonical::CanonicalHost,
    headers::Told,
    server::Core,
    upstream::{Dial, NO_POOL, Outgoing, RequestBody},
};

const STEP: Duration = Duration::from_millis(500);
/// Servers that are asked at the same time.
const MOST_AT_ONCE: usize = 32;

/// What a server is asked, and as whom. Routes that ask another way may hear another answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// Nothing is asked where everything goes: then it is looked whether somebody is there.
    host: Option<CanonicalHost>,
    check: HealthCheck,
    proxy_protocol: Option<ProxyProtocol>,
}

impl Question {
    /// Returns what the servers of a route are asked, if they are.
    pub(super) fn of(route: &Route) -> Option<Self> {
        let host = match &route.host {
            HostPattern::Exact(host) | HostPattern::Wildcard(host) => Some(host.clone()),
            HostPattern::Any => None,
        };
        Self::new(host, &route.rules)
    }

    /// The same for a port.
    pub(super) fn of_port(port: &Port) -> Option<Self> {
        Self::new(None, &port.rules)
    }

    fn new(host: Option<CanonicalHost>, rules: &Rules) -> Option<Self> {
        let (check, proxy_protocol) = (rules.health.clone()?, rules.proxy_protocol);
        Some(Self { host, check, proxy_protocol })
    }
}

/// Goes round for as long as the plane runs.
pub(super) async fn rounds(core: Rc<Core>) {
    let mut asked: HashMap<(Upstream, Question), Instant> = HashMap::new();
    let mut under_way = JoinSet::new();
    loop {
        let policy = core.shared.policy.load_full();
        let now = Instant::now();
        let wanted: HashSet<_> = wanted(&policy).collect();
        asked.retain(|one, _| wanted.contains(one));
        for one in wanted {
            let due = asked.get(&one).is_none_or(|last| now.duration_since(*last) >= one.1.check.every);
            if due && under_way.len() < MOST_AT_ONCE {
                asked.insert(one.clone(), now);
                under_way.spawn_local(ask(core.clone(), policy.clone(), one.0, one.1));
            }
        }
        tell(&core, &policy, now);
        sleep(STEP).await;
        while under_way.try_join_next().is_some() {}
    }
}

/// The servers of routes that say how they are asked, with the question.
fn wanted(policy: &Policy) -> impl Iterator<Item = (Upstream, Question)> {
    watched(policy).filter_map(|(_, _, upstream, question)| Some((upstream.clone(), question?)))
}

/// Every server by route and place, with what it is asked.
fn watched(policy: &Policy) -> impl Iterator<Item = (&str, usize, &Upstream, Option<Question>)> {
    let routes = policy.config.routes.iter().map(|route| {
        let all = route.to.upstreams().iter().chain(&route.rules.backup);
        (route.name.as_str(), all.collect::<Vec<_>>(), Question::of(route))
    });
    let ports = policy.config.ports.iter().map(|port| {
        let all = port.to.iter().chain(&port.rules.backup);
        (port.name.as_str(), all.collect::<Vec<_>>(), Question::of_port(port))
    });
    routes.chain(ports).flat_map(|(name, all, question)| {
        let all = all.into_iter().enumerate();
        all.map(move |(place, upstream)| (name, place, upstream, question.clone()))
    })
}

async fn ask(core: Rc<Core>, policy: Arc<Policy>, upstream: Upstream, question: Question) {
    let health = core.shared.health(&upstream, Some(&question));
    let was_up = health.is_up(Instant::now());
    let Ok(dial) = Dial::new(&upstream, NO_POOL, health.clone(), &core.shared.provider) else { return };
    let dial = dial.introducing(question.proxy_protocol);
    let check = &question.check;
    // Of what is not understood nothing can be asked but whether somebody is there.
    let (status, good) = match &question.host {
        Some(host) if upstream.http != Http::Opaque => {
            let status = timeout(check.timeout, status(&core, &policy, &dial, (host, check))).await.ok().flatten();
            let good = match check.status {
                Some(wanted) => status == Some(wanted),
                None => status.is_some_and(|status| status.as_u16() < 400),
            };
            (status, good)
        }
        _ => (None, dial.connect(&core.shared.lookup, check.timeout, None).await.is_ok()),
    };
    health.checked(good);
    if was_up != good {
        let upstream = format!("{:?}", upstream.host);
        match good {
            true => tracing::info!(upstream, "a server is well again"),
            false => tracing::warn!(upstream, ?status, "a server is not well"),
        }
    }
}

async fn status(
    core: &Core,
    policy: &Policy,
    dial: &Dial,
    (host, check): (&CanonicalHost, &HealthCheck),
) -> Option<StatusCode> {
    let mut lane = dial.lane(&core.shared.lookup, check.timeout, None).await.ok()?;
    let client = std::net::Ipv4Addr::LOCALHOST.into();
    let change = Change::default();
    // As clients come: what is told otherwise may be sent on to where they are.
    let scheme = if policy.config.has_tls() { "https" } else { "http" };
    let told = Told::ours(host, client, scheme, &change);
    let body = RequestBody::Empty;
    let (http, target) = (dial.upstream.http, (&check.path, None));
    let mut outgoing = Outgoing::new(http, Method::GET, target, (&HeaderMap::new(), &[]), &told, body);
    let head = poll_fn(|cx| {
        let _ = lane.send(&mut outgoing, cx);
        lane.poll_head(&core.pools.scratch, cx)
    });
    head.await.ok().map(|head| head.status)
}

/// Says for each route how its servers are.
fn tell(core: &Core, policy: &Policy, now: Instant) {
    for (route, place, upstream, question) in watched(policy) {
        let health: Arc<_> = core.shared.health(upstream, question.as_ref());
        core.shared.series.upstream(route, place, health.is_up(now));
    }
}
