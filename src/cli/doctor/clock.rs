//! Whether the clock can be right, and whether it will be after a power cut.

use super::{Finding, Patient};
use crate::clock::{Soundness, kernel};

pub(super) fn findings(patient: &Patient<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let how =
        "sudo timedatectl set-ntp true    # systemd; on Alpine: rc-update add chronyd && rc-service chronyd start";
    let soundness = patient.status.and_then(|status| status.dns.as_ref()).map(|dns| dns.clock);
    found.push(match (soundness, kernel::is_synchronised()) {
        (Some(Soundness::Behind), _) => Finding::bad("clock", "it is behind a time that is already over")
            .because("certificates and signatures are checked by it; until it is set they are checked as of the last known time")
            .type_in(how),
        (Some(Soundness::Ahead), _) => Finding::bad("clock", "it is ahead by years")
            .because("certificates and signatures seem to have expired")
            .type_in(how),
        (_, true) => Finding::good("clock", "a time server keeps it right"),
        (_, false) => Finding::odd("clock", "no time server keeps it right, as far as the kernel knows")
            .because("a clock that drifts makes certificates and signatures invalid one day; in a container the host keeps it")
            .type_in(how),
    });
    if !patient.machine.names("sys/class/rtc").iter().any(|name| name.starts_with("rtc")) {
        found.push(
            Finding::odd("clock", "this box has no clock that goes on without power")
                .because(
                    "after a power cut it begins with the time of the last shutdown; hearthgate finds its time servers \
                     unchecked until the clock is set, and validates from then on",
                )
                .type_in("nothing need be done; a Raspberry Pi takes an RTC module, the Pi 5 a battery"),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::tests::of;

    #[test]
    fn a_box_without_a_battery_is_told_so() {
        let without = of(&[], findings);
        let with = of(&[("sys/class/rtc/rtc0/name", "rtc_cmos")], findings);

        assert!(without.iter().any(|finding| finding.what.contains("without power")));
        assert!(!with.iter().any(|finding| finding.what.contains("without power")));
    }
}
