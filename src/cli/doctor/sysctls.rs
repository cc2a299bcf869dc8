//! Switches of the kernel: buffers, forwarding, and whose source addresses it believes.

use super::{Finding, Patient};
use crate::vpn::{Lan, Mode};

/// What the gate asks for; the kernel gives no more than these two allow.
const BUFFER: u64 = 7 << 20;

pub(super) fn findings(patient: &Patient<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let machine = &patient.machine;
    let vpn = patient.config.and_then(|config| config.vpn.as_ref());
    if vpn.is_some() {
        for key in ["net.core.rmem_max", "net.core.wmem_max"] {
            let Some(most) = machine.sysctl(key) else { continue };
            found.push(match most < BUFFER {
                true => Finding::odd("sysctl", format!("{key} = {most}"))
                    .because("the gate's sockets lose packets in bursts; 7 MiB hold what one core works off in time")
                    .type_in(set(key, BUFFER)),
                false => Finding::good("sysctl", format!("{key} = {most}")),
            });
        }
    }
    let wants_tun = vpn.is_some_and(|vpn| vpn.mode == Mode::Tun);
    let could_tun = vpn.is_some_and(|vpn| vpn.mode != Mode::Userspace);
    match machine.sysctl("net.ipv4.ip_forward") {
        Some(0) if could_tun => {
            let what = "the kernel forwards no IPv4";
            let finding = if wants_tun { Finding::bad("forwarding", what) } else { Finding::odd("forwarding", what) };
            let why =
                "in mode tun the kernel routes between tunnel and LAN; in auto the slower userspace mode is taken";
            found.push(finding.because(why).type_in(set("net.ipv4.ip_forward", 1)));
        }
        Some(1) if vpn.is_none() || !could_tun => found.push(
            Finding::odd("forwarding", "the kernel forwards IPv4, and hearthgate does not need it to")
                .because(
                    "this box passes on what others send through it, if its firewall lets it; Docker switches this on",
                )
                .type_in("nothing, if it is a router or runs containers; else sudo sysctl -w net.ipv4.ip_forward=0"),
        ),
        Some(_) => found.push(Finding::good("forwarding", "as the configuration needs it")),
        None => {}
    }
    if could_tun && machine.sysctl("net.ipv6.conf.all.forwarding") == Some(1) {
        for name in patient.interfaces() {
            let key = format!("net.ipv6.conf.{name}.accept_ra");
            if machine.sysctl(&key) == Some(1) {
                found.push(
                    Finding::odd("forwarding", format!("{key} = 1 while IPv6 is forwarded"))
                        .because("a box that forwards ignores router advertisements then, and loses its IPv6 addresses")
                        .type_in(set(&key, 2)),
                );
            }
        }
    }
    let routes = vpn.is_some_and(|vpn| could_tun && vpn.lan == Lan::Route);
    found.extend(source_checks(patient, routes));
    found
}

/// `rp_filter`: the stricter of `all` and the interface's own counts.
fn source_checks(patient: &Patient<'_>, routes_peers: bool) -> Vec<Finding> {
    let of = |name: &str| patient.machine.sysctl(&format!("net.ipv4.conf.{name}.rp_filter"));
    let Some(all) = of("all") else { return Vec::new() };
    let judged = patient.interfaces().into_iter().map(|name| {
        let strictest = all.max(of(&name).unwrap_or(0));
        match strictest {
            0 => Finding::odd("rp_filter", format!("{name} takes packets with any source address"))
                .because("hearthgate itself looks at the interface as well, but other services of this box may not")
                .type_in(set(&format!("net.ipv4.conf.{name}.rp_filter"), 2)),
            1 if routes_peers => Finding::odd("rp_filter", format!("{name} drops what would not go back the same way"))
                .because("with vpn.lan = \"route\" answers of the LAN may come by another way than they go")
                .type_in(format!(
                    "{}\n{}",
                    set("net.ipv4.conf.all.rp_filter", 2),
                    set(&format!("net.ipv4.conf.{name}.rp_filter"), 2)
                )),
            _ => Finding::good("rp_filter", format!("{name} checks source addresses")),
        }
    });
    judged.collect()
}

/// Now, and after the next start.
fn set(key: &str, value: u64) -> String {
    format!(
        "echo '{key} = {value}' | sudo tee -a /etc/sysctl.d/60-hearthgate.conf && sudo sysctl -p /etc/sysctl.d/60-hearthgate.conf"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::doctor::{Mark, tests},
        onlink::Kernel,
    };

    fn with(vpn: &str, files: &[(&str, &str)]) -> Vec<Finding> {
        let (_folder, machine) = tests::machine(files);
        let text = format!("[lan]\ninterfaces = [\"eth0\"]\n[dns]\n[vpn]\nendpoint = \"vpn.example:443\"\n{vpn}\n");
        let config = tests::config(&text);
        findings(&Patient { machine, kernel: Kernel::default(), config: Some(&config), status: None })
    }

    fn marks(found: &[Finding], about: &str) -> Vec<Mark> {
        found.iter().filter(|finding| finding.about == about).map(|finding| finding.mark).collect()
    }

    #[test]
    fn forwarding_is_needed_in_mode_tun_and_wanted_in_auto() {
        let off = [("proc/sys/net/ipv4/ip_forward", "0\n")];

        assert_eq!(marks(&with("mode = \"tun\"", &off), "forwarding"), [Mark::Bad]);
        assert_eq!(marks(&with("mode = \"auto\"", &off), "forwarding"), [Mark::Odd]);
        assert_eq!(marks(&with("mode = \"userspace\"", &off), "forwarding"), [Mark::Good]);
    }

    #[test]
    fn small_buffers_come_with_the_line_that_makes_them_large() {
        let found =
            with("", &[("proc/sys/net/core/rmem_max", "212992\n"), ("proc/sys/net/core/wmem_max", "7500000\n")]);

        let buffers: Vec<_> = found.iter().filter(|finding| finding.about == "sysctl").collect();
        assert_eq!(buffers[0].mark, Mark::Odd);
        assert!(buffers[0].command.contains("net.core.rmem_max = 7340032"), "{}", buffers[0]);
        assert_eq!(buffers[1].mark, Mark::Good);
    }

    #[test]
    fn the_stricter_of_two_source_checks_counts() {
        let files = |all: &'static str, own: &'static str| {
            [("proc/sys/net/ipv4/conf/all/rp_filter", all), ("proc/sys/net/ipv4/conf/eth0/rp_filter", own)]
        };

        assert_eq!(marks(&with("", &files("0", "0")), "rp_filter"), [Mark::Odd]);
        assert_eq!(marks(&with("", &files("2", "0")), "rp_filter"), [Mark::Good]);
        assert_eq!(marks(&with("mode = \"tun\"\nlan = \"route\"", &files("0", "1")), "rp_filter"), [Mark::Odd]);
        assert_eq!(marks(&with("mode = \"tun\"", &files("0", "1")), "rp_filter"), [Mark::Good]);
    }
}
