//! Who holds the ports that the configuration wants, and how they are freed.

use super::{Finding, Patient};
use crate::cli::{
    listeners::{self, Listener},
    ports::{Holder, holders},
};

pub(super) fn findings(patient: &Patient<'_>) -> Vec<Finding> {
    let Some(config) = patient.config else { return Vec::new() };
    let ours = patient.status.map(|status| status.process);
    let listeners = listeners::of(config);
    let mut found: Vec<Finding> = Vec::new();
    let mut free = Vec::new();
    let mut ports: Vec<u16> = listeners.iter().map(|listener| listener.place.address.port()).collect();
    ports.retain(|port| *port != 0);
    ports.sort_unstable();
    ports.dedup();
    for port in ports {
        let holders = holders(patient.machine.root(), port);
        let wanted: Vec<&Listener> =
            listeners.iter().filter(|listener| listener.place.address.port() == port).collect();
        let is_ours = |holder: &&Holder| match (&holder.process, ours) {
            (Some((_, number)), Some(ours)) => *number == ours,
            // Another user's sockets cannot be told apart; the running edge has its own.
            (None, Some(_)) => true,
            _ => false,
        };
        let mut in_the_way: Vec<(&Holder, &Listener)> = Vec::new();
        for holder in holders.iter().filter(|holder| !is_ours(holder)) {
            if let Some(listener) = wanted.iter().find(|listener| collide(holder, listener)) {
                in_the_way.push((holder, listener));
            }
        }
        for (holder, listener) in &in_the_way {
            let name = holder.process.as_ref().map_or("", |(name, _)| name);
            let finding = Finding::bad("ports", format!("port {port} (`{}`) is held by {holder}", listener.key))
                .because("hearthgate does not start while another process has its port");
            found.push(finding.type_in(how_to_free(name, port)));
        }
        match (in_the_way.is_empty(), ours) {
            (true, Some(_)) if holders.is_empty() => {
                let keys = wanted.iter().map(|listener| listener.key).next().unwrap_or_default();
                found.push(
                    Finding::bad("ports", format!("nobody listens on port {port} (`{keys}`)"))
                        .because("the edge runs with another configuration than this one")
                        .type_in("sudo systemctl restart hearthgate"),
                );
            }
            (true, _) => free.push(port.to_string()),
            _ => {}
        }
    }
    if !free.is_empty() {
        let whose = if ours.is_some() { "the edge's" } else { "free" };
        found.push(Finding::good("ports", format!("{} are {whose}", free.join(", "))));
    }
    found
}

/// Says whether both cannot be there.
fn collide(holder: &Holder, listener: &Listener) -> bool {
    let place = &listener.place;
    let same_family = holder.address.is_ipv4() == place.address.is_ipv4() || holder.address.is_unspecified();
    if holder.protocol != listener.protocol.to_string() || !same_family {
        return false;
    }
    // A socket of an interface stands beside one of another: loopback beside the LAN's.
    let elsewhere = place.device.as_ref().is_some_and(|device| device != "lo") && holder.address.is_loopback();
    let same = holder.address == place.address.ip();
    !elsewhere && (same || holder.address.is_unspecified() || place.address.ip().is_unspecified())
}

/// What to type, by the name that the kernel knows the process by (15 letters at most).
fn how_to_free(process: &str, port: u16) -> String {
    match process {
        "systemd-resolve" => "sudo mkdir -p /etc/systemd/resolved.conf.d\n\
             printf '[Resolve]\\nDNSStubListener=no\\n' | sudo tee /etc/systemd/resolved.conf.d/hearthgate.conf\n\
             sudo ln -sf /run/systemd/resolve/resolv.conf /etc/resolv.conf\n\
             sudo systemctl restart systemd-resolved"
            .into(),
        "dnsmasq" => "printf 'port=0\\n' | sudo tee /etc/dnsmasq.d/hearthgate.conf    # it goes on with DHCP\n\
             sudo systemctl restart dnsmasq"
            .into(),
        "named" => "sudo systemctl disable --now named".into(),
        "unbound" | "kresd" | "pdns_recursor" => format!("sudo systemctl disable --now {process}"),
        "pihole-FTL" => {
            "sudo pihole-FTL --config dns.port 5353    # both side by side, see the runbook from-pihole".into()
        }
        "AdGuardHome" => "sudo systemctl disable --now AdGuardHome".into(),
        "nginx" | "apache2" | "lighttpd" | "caddy" | "haproxy" | "traefik" => {
            format!("sudo systemctl disable --now {process}    # first move its hosts into routes")
        }
        "docker-proxy" => format!("docker ps --filter publish={port}    # then stop it, or publish another port"),
        "pveproxy" | "spiceproxy" => "hearthgate belongs into a guest of Proxmox, not on the host".into(),
        "hearthgate" => "sudo hearthgate doctor    # another hearthgate, or one whose state another user owns".into(),
        "" => format!(
            "sudo ss -lntup 'sport = :{port}'    # as root it has a name; the kernel's WireGuard has none: wg show"
        ),
        other => format!("sudo systemctl disable --now {other}    # or change the key"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::doctor::{Mark, Patient, tests},
        onlink::Kernel,
    };

    /// A box where a process of this name has UDP 53 on an address, as the kernel prints it.
    fn with_holder(name: &str, address: &str, listen: &str) -> Vec<Finding> {
        let line = format!(
            "head\n 1: {address}:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 2345 2 0 0\n"
        );
        let (folder, machine) =
            tests::machine(&[("proc/net/udp", &line), ("proc/77/comm", &format!("{name}\n")), ("proc/77/fd/x", "")]);
        std::os::unix::fs::symlink("socket:[2345]", folder.path().join("proc/77/fd/3")).unwrap();
        let config = tests::config(&format!("[lan]\ninterfaces = [\"eth0\"]\n[dns]\nlisten = [{listen}]\n"));
        findings(&Patient { machine, kernel: Kernel::default(), config: Some(&config), status: None })
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn resolveds_stub_is_in_the_way_of_every_address_and_not_of_the_lans_own() {
        let everywhere = with_holder("systemd-resolve", "3500007F", "\"0.0.0.0:53\"");
        let lan = with_holder("systemd-resolve", "3500007F", "\"lan:53\", \"lo:53\"");

        assert_eq!(everywhere[0].mark, Mark::Bad, "{everywhere:?}");
        assert!(everywhere[0].what.contains("systemd-resolve (process 77)"), "{everywhere:?}");
        assert!(everywhere[0].command.contains("DNSStubListener=no"), "{everywhere:?}");
        assert!(lan.iter().all(|finding| finding.mark == Mark::Good), "{lan:?}");
    }

    #[test]
    fn dnsmasq_is_told_to_go_on_with_dhcp_alone() {
        let found = with_holder("dnsmasq", "00000000", "\"lan:53\", \"lo:53\"");

        let bad = found.iter().find(|finding| finding.mark == Mark::Bad).unwrap();
        assert!(bad.command.contains("port=0"), "{bad}");
        assert!(bad.what.contains("`dns.listen`"), "{bad}");
    }
}
