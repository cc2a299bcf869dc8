//! Whether the Internet can reach this house over IPv4: a provider's own NAT stands in the way.

use std::net::{IpAddr, Ipv4Addr};

use super::{Finding, Patient};

pub(super) fn findings(patient: &Patient<'_>) -> Vec<Finding> {
    let Some(config) = patient.config.filter(|config| config.ingress.is_some() || config.vpn.is_some()) else {
        return Vec::new();
    };
    let outside = patient.status.and_then(|status| status.wan.as_ref());
    let own = patient.kernel.addresses.iter().map(|address| address.address);
    let known = outside.iter().flat_map(|wan| wan.addresses.iter().copied()).chain(own).filter_map(v4);
    let mut known: Vec<Ipv4Addr> = known.collect();
    known.sort();
    known.dedup();
    if let Some(shared) = known.iter().find(|address| is_shared(**address)) {
        return vec![
            Finding::bad("cgnat", format!("the address towards the Internet is {shared}, which the provider shares (RFC 6598)"))
                .because("nobody outside can begin anything with this house over IPv4: no port forward helps")
                .type_in("ask the provider for an IPv4 address of your own; or let peers come by IPv6: vpn.endpoint with a name that has AAAA only"),
        ];
    }
    let problem = outside.and_then(|wan| wan.problem.as_ref());
    match (problem, known.iter().find(|address| is_public(**address))) {
        (Some(problem), _) => vec![
            Finding::odd("cgnat", format!("the address towards the Internet is not known: {problem}"))
                .because("names in wan.names cannot follow it"),
        ],
        (None, Some(address)) => vec![Finding::good("cgnat", format!("the Internet sees {address}"))],
        (None, None) if config.wan.is_none() => vec![
            Finding::odd("cgnat", "whether the provider shares its addresses cannot be seen from here")
                .because("behind a provider's NAT no port forward works over IPv4")
                .type_in("compare the address that the router shows for \"Internet\" with the one that https://ifconfig.me shows"),
        ],
        (None, None) => Vec::new(),
    }
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}

/// 100.64.0.0/10, and the one that DS-Lite routers have (RFC 6333 §5.7).
fn is_shared(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    (a == 100 && b & 0xc0 == 64) || ([a, b, c] == [192, 0, 0] && d < 8)
}

fn is_public(address: Ipv4Addr) -> bool {
    !(is_shared(address)
        || address.is_documentation()
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::doctor::{Mark, tests},
        onlink::{Address, Kernel},
    };

    fn with(address: &str) -> Mark {
        let (_folder, machine) = tests::machine(&[]);
        let address: IpAddr = address.parse().unwrap();
        let addresses = vec![Address { interface: 2, address, net: address.into() }];
        let kernel = Kernel { addresses, ..Kernel::default() };
        let config = tests::config("[vpn]\nendpoint = \"vpn.example:443\"\n");
        findings(&Patient { machine, kernel, config: Some(&config), status: None })[0].mark
    }

    #[test]
    fn a_shared_address_is_no_address() {
        assert_eq!(with("100.72.1.2"), Mark::Bad);
        assert_eq!(with("192.0.0.2"), Mark::Bad);
        assert_eq!(with("192.168.1.2"), Mark::Odd);
        assert_eq!(with("198.35.26.96"), Mark::Good);
    }
}
