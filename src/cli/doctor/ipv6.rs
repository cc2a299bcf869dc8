//! IPv6 as this box has it.

use std::net::IpAddr;

use super::{Finding, Patient};

pub(super) fn findings(patient: &Patient<'_>) -> Vec<Finding> {
    let machine = &patient.machine;
    if !machine.has("proc/sys/net/ipv6") {
        return vec![
            Finding::odd("ipv6", "the kernel has none")
                .because("listening on [::] fails; clients that ask over IPv6 pass this box by")
                .type_in("remove ipv6.disable=1 from the kernel's command line and reboot; or listen on IPv4 only"),
        ];
    }
    let mut found = Vec::new();
    for name in patient.interfaces() {
        if machine.sysctl(&format!("net.ipv6.conf.{}.disable_ipv6", name.replace('.', "/"))) == Some(1) {
            found.push(
                Finding::odd("ipv6", format!("switched off on {name}"))
                    .because("where the router hands out IPv6, clients ask its DNS and not this box")
                    .type_in(format!("sudo sysctl -w net.ipv6.conf.{name}.disable_ipv6=0")),
            );
            continue;
        }
        let index = patient.kernel.links.get(&name).copied();
        let on = patient.kernel.addresses.iter().filter(|address| Some(address.interface) == index);
        let own: Vec<_> = on
            .filter_map(|address| match address.address {
                IpAddr::V6(v6) if !v6.is_unicast_link_local() => Some(v6),
                _ => None,
            })
            .collect();
        let is_ula = |v6: &std::net::Ipv6Addr| v6.segments()[0] & 0xfe00 == 0xfc00;
        let (global, ula) = (own.iter().find(|v6| !is_ula(v6)), own.iter().find(|v6| is_ula(v6)));
        found.push(match (global, ula) {
            (Some(global), Some(ula)) => Finding::good("ipv6", format!("{name} has {global}, and at home {ula}")),
            (Some(global), None) => Finding::odd(
                "ipv6",
                format!("{name} has {global} and no address of its own at home (ULA)"),
            )
            .because("when the provider changes the prefix, clients that were told this address for DNS lose it")
            .type_in("switch ULA on in the router (\"Unique Local Addresses\"), or lan.announce = true, which follows"),
            (None, Some(ula)) => Finding::good("ipv6", format!("{name} has {ula}; none from the Internet")),
            (None, None) => Finding::good("ipv6", format!("{name} has none but link-local: the house has IPv4 only")),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::doctor::{Mark, tests},
        onlink::{Address, Kernel},
    };

    fn with(addresses: &[&str]) -> Vec<Finding> {
        let (_folder, machine) = tests::machine(&[("proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0\n")]);
        let addresses = addresses.iter().map(|text| {
            let address: IpAddr = text.parse().unwrap();
            Address { interface: 2, address, net: address.into() }
        });
        let kernel = Kernel {
            links: [("eth0".to_owned(), 2)].into(),
            addresses: addresses.collect(),
            gateways: vec![(Some(2), "192.168.1.1".parse().unwrap())],
            ..Kernel::default()
        };
        findings(&Patient { machine, kernel, config: None, status: None })
    }

    #[test]
    fn a_prefix_that_changes_wants_an_address_that_stays() {
        assert_eq!(with(&["2001:db8::2"])[0].mark, Mark::Odd);
        assert_eq!(with(&["2001:db8::2", "fd12::2"])[0].mark, Mark::Good);
        assert_eq!(with(&["fe80::2"])[0].mark, Mark::Good);
    }
}
