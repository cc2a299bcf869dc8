//! Questions that would come back: forwarding to this box itself, or to a router that asks this box.

use std::net::{IpAddr, SocketAddr};

use super::{Finding, Patient};
use crate::dns::{Resolve, Upstream, UpstreamHost};

pub(super) fn findings(patient: &Patient<'_>) -> Vec<Finding> {
    let Some(dns) = patient.config.and_then(|config| config.dns.as_ref()) else { return Vec::new() };
    let everything = match &dns.resolve {
        Resolve::Forward(upstreams) => upstreams.as_slice(),
        Resolve::Recursive => &[],
    };
    let zones = dns.forward.iter().map(|forward| (forward.zone.to_string(), forward.to.as_slice()));
    let ports: Vec<u16> = dns.listen.iter().map(|place| place.address.port()).collect();
    let mut found = Vec::new();
    for (zone, servers) in zones.chain([(".".to_owned(), everything)]) {
        for server in servers.iter().filter_map(address) {
            if ports.contains(&server.port()) && is_own(patient, server.ip()) {
                found.push(
                    Finding::bad("loop", format!("questions for {zone} go to {server}, which is this box"))
                        .because("each of them is asked again and again until its budget is spent, then fails")
                        .type_in("name the server that really knows, in `dns.upstreams` or that [[dns.forward]]"),
                );
            } else if zone == "." && is_gateway(patient, server.ip()) {
                found.push(
                    Finding::odd("loop", format!("everything is asked of the router ({server})"))
                        .because("if the router in turn asks this box, every question goes in a circle; and it sees every name")
                        .type_in("see that the router's own DNS servers are the provider's; or resolve = \"recursive\""),
                );
            }
        }
    }
    if found.is_empty() {
        found.push(Finding::good("loop", "no question is forwarded to this box itself"));
    }
    found
}

fn address(upstream: &Upstream) -> Option<SocketAddr> {
    match upstream.host {
        UpstreamHost::Address(address) => Some(address),
        UpstreamHost::Name { .. } => None,
    }
}

fn is_own(patient: &Patient<'_>, address: IpAddr) -> bool {
    let named = patient.config.is_some_and(|config| config.lan.this_box.contains(&address));
    named || address.is_loopback() || patient.kernel.addresses.iter().any(|one| one.address == address)
}

fn is_gateway(patient: &Patient<'_>, address: IpAddr) -> bool {
    patient.kernel.gateways.iter().any(|(_, gateway)| *gateway == address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::doctor::{Mark, tests},
        onlink::{Address, Kernel},
    };

    fn with(dns: &str) -> Mark {
        let (_folder, machine) = tests::machine(&[]);
        let own: IpAddr = "192.168.1.2".parse().unwrap();
        let kernel = Kernel {
            addresses: vec![Address { interface: 2, address: own, net: own.into() }],
            gateways: vec![(Some(2), "192.168.1.1".parse().unwrap())],
            ..Kernel::default()
        };
        let config = tests::config(&format!("[dns]\nlisten = [\"0.0.0.0:53\"]\n{dns}"));
        findings(&Patient { machine, kernel, config: Some(&config), status: None })[0].mark
    }

    #[test]
    fn forwarding_to_oneself_is_a_circle() {
        let forward = |to: &str| format!("[[dns.forward]]\nzone = \"lan.example\"\nto = [\"{to}\"]\n");

        assert_eq!(with(&forward("192.168.1.2")), Mark::Bad);
        assert_eq!(with(&forward("192.168.1.1")), Mark::Good);
        assert_eq!(with("resolve = \"forward\"\nupstreams = [\"192.168.1.1\"]\n"), Mark::Odd);
        assert_eq!(with("resolve = \"forward\"\nupstreams = [\"192.0.2.53\"]\n"), Mark::Good);
    }
}
