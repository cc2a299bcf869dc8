//! Asks servers whether they are well, as their routes say, and tells how all of them are.

use std::{collections::HashMap, future::poll_fn, rc::Rc, sync::Arc};

use hyper::{HeaderMap, Method, StatusCode};
use tokio::{
    task::JoinSet,
    time::{Duration, Instant, sleep, timeout},
};

use crate::ingress::{
    Change, HealthCheck, HostPattern, Policy, Target, Upstream,
    canonical::CanonicalHost,
    headers::Told,
    server::Core,
    upstream::{Dial, Outgoing, RequestBody, Wire},
};

const STEP: Duration = Duration::from_millis(500);
/// Servers that are asked at the same time.
const MOST_AT_ONCE: usize = 32;
/// Its connections are never kept, so they are in no pool.
const NO_POOL: u32 = u32::MAX;

/// Goes round for as long as the plane runs.
pub(super) async fn rounds(core: Rc<Core>) {
    let mut asked: HashMap<Upstream, Instant> = HashMap::new();
    let mut under_way = JoinSet::new();
    loop {
        let policy = core.shared.policy.load_full();
        let now = Instant::now();
        for (upstream, host, check) in wanted(&policy) {
            let due = asked.get(upstream).is_none_or(|last| now.duration_since(*last) >= check.every);
            if due && under_way.len() < MOST_AT_ONCE {
                asked.insert(upstream.clone(), now);
                under_way.spawn_local(ask(core.clone(), upstream.clone(), host, check.clone()));
            }
        }
        asked.retain(|upstream, _| wanted(&policy).any(|(wanted, ..)| wanted == upstream));
        tell(&core, &policy, now);
        sleep(STEP).await;
        while under_way.try_join_next().is_some() {}
    }
}

/// The servers of routes that say how they are asked, with the name that they are asked for.
fn wanted(policy: &Policy) -> impl Iterator<Item = (&Upstream, CanonicalHost, &HealthCheck)> {
    policy.config.routes.iter().flat_map(|route| {
        let upstreams = match (&route.to, &route.rules.health) {
            (Target::Upstreams(upstreams), Some(_)) => upstreams.as_slice(),
            _ => &[],
        };
        let (HostPattern::Exact(host) | HostPattern::Wildcard(host)) = &route.host;
        let all = upstreams.iter().chain(if upstreams.is_empty() { &[] } else { route.rules.backup.as_slice() });
        all.filter_map(move |upstream| Some((upstream, host.clone(), route.rules.health.as_ref()?)))
    })
}

async fn ask(core: Rc<Core>, upstream: Upstream, host: CanonicalHost, check: HealthCheck) {
    let health = core.shared.health(&upstream);
    let was_up = health.is_up(Instant::now());
    let Ok(dial) = Dial::new(&upstream, NO_POOL, health.clone(), &core.shared.provider) else { return };
    let status = timeout(check.timeout, status(&core, &dial, &host, &check)).await.ok().flatten();
    let good = match check.status {
        Some(wanted) => status == Some(wanted),
        None => status.is_some_and(|status| status.as_u16() < 400),
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

async fn status(core: &Core, dial: &Dial, host: &CanonicalHost, check: &HealthCheck) -> Option<StatusCode> {
    let mut wire = Wire::new(NO_POOL, dial.connect(&core.shared.lookup, check.timeout).await.ok()?);
    let client = std::net::Ipv4Addr::LOCALHOST.into();
    let change = Change::default();
    let told = Told {
        host,
        client,
        scheme: "https",
        protocol: "1.1",
        change: &change,
        id: None,
        prefix: None,
        websocket: false,
    };
    let body = RequestBody::Empty;
    let mut outgoing = Outgoing::new(Method::GET, (&check.path, None), (&HeaderMap::new(), &[]), &told, body);
    let head = poll_fn(|cx| {
        let _ = wire.send(&mut outgoing, cx);
        wire.poll_head(&core.pools.scratch, cx)
    });
    head.await.ok().map(|head| head.status)
}

/// Says for each route how its servers are.
fn tell(core: &Core, policy: &Policy, now: Instant) {
    for route in &policy.config.routes {
        if let Target::Upstreams(upstreams) = &route.to {
            for (place, upstream) in upstreams.iter().chain(&route.rules.backup).enumerate() {
                let health: Arc<_> = core.shared.health(upstream);
                core.shared.series.upstream(&route.name, place, health.is_up(now));
            }
        }
    }
}
