//! How long packets may be on the way.

use super::{Finding, Patient};

/// RFC 8200 §5: no link of IPv6 carries less.
const LEAST: u64 = 1280;
/// Around a packet inside the tunnel: IPv6, UDP, WireGuard.
const AROUND: u64 = 80;
/// What peers are told.
const PEERS: u64 = 1420;

pub(super) fn findings(patient: &Patient<'_>) -> Vec<Finding> {
    let mut names = patient.interfaces();
    let defaults = patient.kernel.gateways.iter().filter_map(|(interface, _)| *interface);
    names.extend(defaults.filter_map(|index| patient.kernel.name(index)).map(str::to_owned));
    names.sort();
    names.dedup();
    let mtu = |name: &String| Some((name.clone(), patient.machine.number(&format!("sys/class/net/{name}/mtu"))?));
    names.iter().filter_map(mtu).map(|(name, mtu)| judge(&name, mtu, has_vpn(patient))).collect()
}

fn has_vpn(patient: &Patient<'_>) -> bool {
    patient.config.is_some_and(|config| config.vpn.is_some())
}

fn judge(name: &str, mtu: u64, has_vpn: bool) -> Finding {
    let what = format!("{name} carries packets of {mtu} bytes");
    match mtu {
        ..LEAST => Finding::bad("mtu", what)
            .because("IPv6 needs 1280 bytes (RFC 8200); answers of DNS and handshakes of TLS get lost")
            .type_in(format!("sudo ip link set {name} mtu 1500    # and in the network's configuration")),
        mtu if has_vpn && mtu < PEERS + AROUND => Finding::odd("mtu", what)
            .because(format!(
                "peers send {PEERS} bytes and WireGuard adds {AROUND}: what does not fit is cut in pieces or lost"
            ))
            .type_in(format!("in each peer's configuration, under [Interface]: MTU = {}", mtu.saturating_sub(AROUND))),
        _ => Finding::good("mtu", what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Mark;

    #[test]
    fn a_line_of_pppoe_is_good_for_dns_and_short_for_the_tunnel() {
        assert_eq!(judge("ppp0", 1492, false).mark, Mark::Good);
        let short = judge("ppp0", 1492, true);
        assert_eq!((short.mark, short.command.ends_with("MTU = 1412")), (Mark::Odd, true));
        assert_eq!(judge("eth0", 1200, false).mark, Mark::Bad);
        assert_eq!(judge("eth0", 1500, true).mark, Mark::Good);
    }
}
