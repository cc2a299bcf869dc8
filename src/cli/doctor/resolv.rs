//! Whom this box itself asks: its own `/etc/resolv.conf`.

use std::net::IpAddr;

use super::{Finding, Patient};

pub(super) fn findings(patient: &Patient<'_>) -> Vec<Finding> {
    if patient.config.is_none_or(|config| config.dns.is_none()) {
        return Vec::new();
    }
    let Some(text) = patient.machine.text("etc/resolv.conf") else {
        return vec![
            Finding::bad("resolv.conf", "/etc/resolv.conf cannot be read")
                .because("programs of this box find no names")
                .type_in("echo 'nameserver 127.0.0.1' | sudo tee /etc/resolv.conf"),
        ];
    };
    let servers = servers(&text);
    let own =
        |address: &IpAddr| address.is_loopback() || patient.kernel.addresses.iter().any(|one| one.address == *address);
    let stub: IpAddr = [127, 0, 0, 53].into();
    let first = servers.first();
    let list = servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    vec![match first {
        None => Finding::bad("resolv.conf", "it names no server")
            .because("programs of this box ask 127.0.0.1 then, some of them nobody")
            .type_in("echo 'nameserver 127.0.0.1' | sudo tee /etc/resolv.conf"),
        Some(first) if *first == stub => Finding::odd("resolv.conf", "this box asks systemd-resolved (127.0.0.53)")
            .because("whom that asks stands elsewhere: `resolvectl dns`. It should be this box, else its own names stay unknown here")
            .type_in("printf '[Resolve]\\nDNS=127.0.0.1\\nDomains=~.\\n' | sudo tee /etc/systemd/resolved.conf.d/hearthgate-dns.conf\nsudo systemctl restart systemd-resolved"),
        Some(first) if own(first) && servers.len() == 1 => {
            Finding::good("resolv.conf", format!("this box asks itself ({list})"))
        }
        Some(first) if own(first) => Finding::odd("resolv.conf", format!("this box asks itself first, then others ({list})"))
            .because("a server further down is asked when this one is slow: block lists and names of the house do not hold there")
            .type_in("echo 'nameserver 127.0.0.1' | sudo tee /etc/resolv.conf    # or leave it: package updates work while the edge is down"),
        Some(_) => Finding::odd("resolv.conf", format!("this box asks others ({list})"))
            .because("names of the house are unknown to programs here; nothing else depends on it, and they work while the edge is down")
            .type_in("echo 'nameserver 127.0.0.1' | sudo tee /etc/resolv.conf"),
    }]
}

/// The servers of a resolv.conf, in its order.
fn servers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = (words.next()? == "nameserver").then(|| words.next()).flatten()?;
        // "fe80::1%eth0"
        address.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::doctor::{Mark, tests},
        onlink::Kernel,
    };

    fn with(text: &str) -> Mark {
        let (_folder, machine) = tests::machine(&[("etc/resolv.conf", text)]);
        let config = tests::config("[dns]\nlisten = [\"127.0.0.1:53\"]\n");
        findings(&Patient { machine, kernel: Kernel::default(), config: Some(&config), status: None })[0].mark
    }

    #[test]
    fn a_box_should_ask_itself() {
        assert_eq!(with("nameserver 127.0.0.1\noptions edns0\n"), Mark::Good);
        assert_eq!(with("nameserver 127.0.0.53\n"), Mark::Odd);
        assert_eq!(with("nameserver 127.0.0.1\nnameserver 192.168.1.1\n"), Mark::Odd);
        assert_eq!(with("nameserver fe80::1%eth0\n"), Mark::Odd);
        assert_eq!(with("# nothing\n"), Mark::Bad);
    }
}
