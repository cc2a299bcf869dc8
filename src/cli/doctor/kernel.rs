//! What the kernel can do for us.

use super::{Finding, Patient};
use crate::vpn::Mode;

pub(super) fn findings(patient: &Patient<'_>) -> Vec<Finding> {
    let machine = &patient.machine;
    let mut found = Vec::new();
    let release = machine.text("proc/sys/kernel/osrelease").unwrap_or_default();
    found.push(match version(&release) {
        Some(version) if version < (4, 18) => Finding::bad("kernel", format!("Linux {release}"))
            .because("hearthgate is not tested on kernels before 4.18; segmentation of UDP is missing there")
            .type_in("sudo apt full-upgrade && sudo reboot"),
        Some(version) if version < (5, 13) => Finding::odd("kernel", format!("Linux {release} has no Landlock"))
            .because("a bug in the process could read every file that its user may read")
            .type_in("sudo apt full-upgrade && sudo reboot    # 5.13 or newer"),
        Some(_) => Finding::good("kernel", format!("Linux {release}")),
        None => Finding::odd("kernel", "its version cannot be read").because("/proc is not mounted, or hidden"),
    });
    if let Some(lsm) = machine.text("sys/kernel/security/lsm") {
        found.push(match lsm.split(',').any(|name| name == "landlock") {
            true => Finding::good("kernel", "Landlock is switched on"),
            false => Finding::odd("kernel", format!("Landlock is not switched on (in force: {lsm})"))
                .because("a bug in the process could read every file that its user may read")
                .type_in(format!("add lsm=landlock,{lsm} to the kernel's command line, and reboot")),
        });
    }
    match machine.text("proc/sys/kernel/seccomp/actions_avail") {
        Some(actions) if actions.contains("errno") => found.push(Finding::good("kernel", "seccomp filters work")),
        _ => found.push(
            Finding::odd("kernel", "seccomp filters are not to be had")
                .because("a bug in the process could make any system call; everything works without them"),
        ),
    }
    if let Some(vpn) = patient.config.and_then(|config| config.vpn.as_ref()) {
        match (vpn.mode, machine.has("dev/net/tun")) {
            (Mode::Userspace, _) => {}
            (_, true) => found.push(Finding::good("kernel", "/dev/net/tun is there")),
            (mode, false) => {
                let what = "/dev/net/tun is not there";
                let finding = match mode {
                    Mode::Tun => Finding::bad("kernel", what),
                    _ => Finding::odd("kernel", what),
                };
                let why =
                    "the kernel can route between tunnel and LAN only by it; vpn.mode \"userspace\" needs nothing";
                let command =
                    "sudo modprobe tun    # in a container, pass the device in: Proxmox, dev0: /dev/net/tun,mode=0666";
                found.push(finding.because(why).type_in(command));
            }
        }
    }
    found
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::{Mark, tests::of};

    #[test]
    fn an_old_kernel_is_named_with_what_it_lacks() {
        let marks = |release: &str| of(&[("proc/sys/kernel/osrelease", release)], findings)[0].mark;

        assert_eq!(marks("4.14.98-v7+\n"), Mark::Bad);
        assert_eq!(marks("5.10.0-28-arm64\n"), Mark::Odd);
        assert_eq!(marks("6.1.0-18-amd64\n"), Mark::Good);
    }

    #[test]
    fn landlock_that_is_built_but_off_comes_with_the_command_line() {
        let found = of(&[("sys/kernel/security/lsm", "lockdown,yama,apparmor\n")], findings);

        let landlock = found.iter().find(|finding| finding.what.contains("Landlock is not")).unwrap();
        assert_eq!(landlock.mark, Mark::Odd);
        assert!(landlock.command.contains("lsm=landlock,lockdown,yama,apparmor"), "{landlock}");
    }
}
