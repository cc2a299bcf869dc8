//! Whether the house reaches itself by its address outside, through the router and back.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use super::{Finding, Patient};

const WITHIN: Duration = Duration::from_secs(2);

pub(super) fn findings(patient: &Patient<'_>) -> Vec<Finding> {
    let Some(port) = patient.config.and_then(|config| config.ingress.as_ref()?.https.first()).map(SocketAddr::port)
    else {
        return Vec::new();
    };
    let Some(wan) = patient.status.and_then(|status| status.wan.as_ref()) else { return Vec::new() };
    let is_own = |address: &IpAddr| patient.kernel.addresses.iter().any(|one| one.address == *address);
    let behind = wan.addresses.iter().find(|address| address.is_ipv4() && !is_own(address));
    behind
        .map(|address| judge(*address, TcpStream::connect_timeout(&(*address, port).into(), WITHIN).is_ok()))
        .into_iter()
        .collect()
}

fn judge(address: IpAddr, came_back: bool) -> Finding {
    match came_back {
        true => Finding::good("hairpin", format!("the router leads {address} back into the house")),
        false => Finding::odd("hairpin", format!("the router does not lead {address} back into the house"))
            .because(
                "devices that do not ask this box for names cannot reach the routes from home; those that do are told \
                 its address in the house and need no way back",
            )
            .type_in(
                "see that DHCP names this box as the only DNS server; some routers call the switch \"NAT loopback\"",
            ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Mark;

    #[test]
    fn a_router_without_a_way_back_is_no_failure() {
        let address = "203.0.113.9".parse().unwrap();

        assert_eq!(judge(address, true).mark, Mark::Good);
        assert_eq!(judge(address, false).mark, Mark::Odd);
    }
}
