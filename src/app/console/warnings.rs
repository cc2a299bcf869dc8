//! What wants to be looked after, found in the state of everything.

use crate::{
    app::status::Status,
    clock::Soundness,
    console::view::{Route, Warning},
};

/// A public certificate that has not been renewed by then will hardly be; the house's own are renewed later.
const SOON: u64 = 7 * 86_400;

/// Returns it, the worst first.
pub(super) fn warnings(status: &Status, routes: &[Route], now: u64) -> Vec<Warning> {
    let mut found: Vec<Warning> = Vec::new();
    let mut warn = |kind: &str, subject: &str, detail: &str| {
        found.push(Warning { kind: kind.into(), subject: subject.into(), detail: detail.into() });
    };
    for plane in status.planes.iter().filter(|plane| !plane.running) {
        warn("plane_down", &plane.name, plane.last_failure.as_deref().unwrap_or_default());
    }
    if let Some(refused) = &status.refused {
        warn("reload_refused", "", refused.problems.first().map_or("", String::as_str));
    }
    if let Some(dns) = &status.dns
        && dns.clock != Soundness::Sound
    {
        warn("clock_wrong", "", "");
    }
    for certificate in status.ingress.iter().flat_map(|ingress| &ingress.certificates) {
        let hosts = certificate.hosts.join(", ");
        let ends = certificate.not_after;
        if ends.is_none_or(|ends| ends.saturating_sub(now) < SOON) && (ends.is_some() || certificate.problem.is_some())
        {
            warn("certificate_ends", &hosts, certificate.problem.as_deref().unwrap_or_default());
        } else if let Some(problem) = &certificate.problem {
            warn("certificate_problem", &hosts, problem);
        }
    }
    for route in routes {
        for server in route.to.iter().filter(|server| server.up == Some(false)) {
            warn("server_down", &route.name, &server.address);
        }
    }
    if let Some(wan) = &status.wan {
        if let Some(problem) = &wan.problem {
            warn("wan_problem", "", problem);
        }
        for (name, problem) in &wan.names {
            if let Some(problem) = problem {
                warn("wan_problem", name, problem);
            }
        }
    }
    if let Some(problem) = status.history.as_ref().and_then(|history| history.problem.as_ref()) {
        warn("history_problem", "", problem);
    }
    if let Some(dns) = &status.dns {
        for list in &dns.lists {
            if let Some(problem) = &list.problem {
                warn("list_problem", &list.name, problem);
            }
        }
        for problem in &dns.problems {
            warn("dns_problem", "", problem);
        }
        if dns.new_devices > 0 {
            warn("new_devices", &dns.new_devices.to_string(), "");
        }
    }
    for peer in status.vpn.iter().flat_map(|vpn| &vpn.peers).filter(|peer| peer.told_old_endpoint) {
        warn("old_endpoint", &peer.name, "");
    }
    found
}
