//! Which DNS servers the house is told: what this box itself was told by DHCP, and whom routers announce.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Finding, Patient};

/// Where DHCP clients keep what they were told.
const FOLDERS: [&str; 5] = [
    "var/lib/dhcp",
    "var/lib/dhcpcd",
    "run/systemd/netif/leases",
    "var/lib/NetworkManager",
    "run/NetworkManager/devices",
];

pub(super) fn findings(patient: &Patient<'_>) -> Vec<Finding> {
    if patient.config.is_none_or(|config| config.dns.is_none()) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let announced = patient.status.iter().flat_map(|status| &status.announced);
    for problem in announced.filter_map(|one| one.problem.as_ref()) {
        let finding = Finding::odd("other dns", format!("router advertisements: {problem}"));
        let why = "devices that ask there see neither block lists nor names of the house";
        found.push(finding.because(why).type_in("switch the router's own announcement of DNS off"));
    }
    let mut told = BTreeSet::new();
    for folder in FOLDERS {
        for file in patient.machine.names(folder) {
            told.extend(servers(&patient.machine.text(&format!("{folder}/{file}")).unwrap_or_default()));
        }
    }
    let is_own = |address: &IpAddr| patient.kernel.addresses.iter().any(|one| one.address == *address);
    let (own, others): (Vec<_>, Vec<_>) = told.into_iter().partition(is_own);
    let list = |all: &[IpAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match (own.is_empty(), others.is_empty()) {
        (true, true) => {}
        (false, true) => found.push(Finding::good("other dns", format!("DHCP names this box alone ({})", list(&own)))),
        (true, false) => found.push(
            Finding::odd("other dns", format!("DHCP told this box to ask {}", list(&others)))
                .because("devices of the house are told the same and pass this box by, unless your router tells them otherwise")
                .type_in("in the router: DHCP, DNS server = this box, alone"),
        ),
        (false, false) => found.push(
            Finding::bad("other dns", format!("DHCP names other servers besides this box: {}", list(&others)))
                .because("devices take either as they like: block lists and names of the house hold only now and then")
                .type_in("in the router: DHCP, take the second DNS server away"),
        ),
    }
    found
}

/// The servers of the last lease in a file of dhclient, systemd-networkd or NetworkManager.
fn servers(text: &str) -> Vec<IpAddr> {
    let mut last = Vec::new();
    for line in text.lines().map(str::trim) {
        let list = line
            .strip_prefix("option domain-name-servers ")
            .or_else(|| line.strip_prefix("DNS="))
            .or_else(|| line.strip_prefix("domain_name_servers="));
        let Some(list) = list else { continue };
        let parts = list.split(|letter: char| letter == ',' || letter.is_whitespace() || "';\"".contains(letter));
        last = parts.filter_map(|part| part.parse().ok()).collect();
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::doctor::{Mark, tests},
        onlink::{Address, Kernel},
    };

    fn with(file: &str, text: &str) -> Vec<Finding> {
        let (_folder, machine) = tests::machine(&[(file, text)]);
        let own: IpAddr = "192.168.1.2".parse().unwrap();
        let addresses = vec![Address { interface: 2, address: own, net: own.into() }];
        let kernel = Kernel { addresses, ..Kernel::default() };
        let config = tests::config("[dns]\nlisten = [\"192.168.1.2:53\"]\n");
        findings(&Patient { machine, kernel, config: Some(&config), status: None })
    }

    #[test]
    fn a_second_server_in_dhcp_undoes_the_first() {
        let dhclient = |list: &str| format!("lease {{\n  option domain-name-servers {list};\n}}\n");

        let both = with("var/lib/dhcp/dhclient.eth0.leases", &dhclient("192.168.1.2,8.8.8.8"));
        assert_eq!(both[0].mark, Mark::Bad);
        assert!(both[0].what.ends_with("8.8.8.8"), "{}", both[0]);
        assert_eq!(with("var/lib/dhcp/dhclient.leases", &dhclient("192.168.1.2"))[0].mark, Mark::Good);
        assert_eq!(with("run/systemd/netif/leases/2", "ADDRESS=192.168.1.2\nDNS=192.168.1.1\n")[0].mark, Mark::Odd);
    }

    #[test]
    fn the_last_lease_counts() {
        let text = "option domain-name-servers 8.8.8.8;\noption domain-name-servers 192.168.1.2;\n";

        assert_eq!(with("var/lib/dhcp/dhclient.leases", text)[0].mark, Mark::Good);
    }
}
