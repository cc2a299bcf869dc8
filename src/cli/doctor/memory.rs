//! Whether there is memory for what the configuration asks for, and power for the board.

use super::{Finding, Patient};

/// The process without its caches and lists.
const BASE: u64 = 32 << 20;

pub(super) fn findings(patient: &Patient<'_>) -> Vec<Finding> {
    let machine = &patient.machine;
    let mut found = Vec::new();
    let table = machine.text("proc/meminfo").unwrap_or_default();
    if let (Some(total), Some(available)) = (field(&table, "MemTotal:"), field(&table, "MemAvailable:")) {
        let caches = patient.config.and_then(|config| config.dns.as_ref());
        let wanted = BASE + caches.map_or(0, |dns| (dns.cache_size + dns.rrset_cache) as u64);
        // The running edge has its share already.
        let left = if patient.status.is_some() { available + BASE } else { available };
        let what =
            format!("{} of {} MiB are to be had, {} MiB are asked for", available >> 20, total >> 20, wanted >> 20);
        found.push(match left < wanted {
            true => Finding::bad("memory", what)
                .because("the kernel kills what is largest when memory ends")
                .type_in("make dns.cache_size and dns.rrset_cache smaller: config/pi-zero.toml shows how"),
            false => Finding::good("memory", what),
        });
    }
    // In a container the limit of its group counts, not the host's memory.
    if let Some(limit) = machine.number("sys/fs/cgroup/memory.max")
        && limit < 2 * BASE
    {
        found.push(
            Finding::odd("memory", format!("this container may use {} MiB", limit >> 20))
                .because("with large lists and 16 MiB of answers the process takes up to 96 MiB")
                .type_in("Proxmox: pct set ID --memory 256"),
        );
    }
    // Raspberry Pi: bit 0 under-voltage now, bit 16 since boot.
    let throttled = machine.text("sys/devices/platform/soc/soc:firmware/get_throttled");
    if let Some(bits) = throttled.and_then(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()) {
        found.push(match bits & 0x1_0001 {
            0 => Finding::good("power", "the board has had enough since it was started"),
            _ => Finding::bad("power", "the board had too little voltage")
                .because("cards and file systems are damaged by it sooner than by anything else")
                .type_in("use the power supply and the cable that belong to the board"),
        });
    }
    found
}

/// A line of `/proc/meminfo`, in bytes.
fn field(table: &str, name: &str) -> Option<u64> {
    let rest = table.lines().find_map(|line| line.strip_prefix(name))?;
    Some(rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::{Mark, tests::of};

    #[test]
    fn a_small_box_with_little_left_is_warned() {
        let little = of(&[("proc/meminfo", "MemTotal: 437000 kB\nMemAvailable:  20000 kB\n")], findings);
        let enough = of(&[("proc/meminfo", "MemTotal: 437000 kB\nMemAvailable: 200000 kB\n")], findings);

        assert_eq!((little[0].mark, enough[0].mark), (Mark::Bad, Mark::Good));
    }

    #[test]
    fn too_little_voltage_is_seen_afterwards_as_well() {
        let at = |bits: &str| of(&[("sys/devices/platform/soc/soc:firmware/get_throttled", bits)], findings)[0].mark;

        assert_eq!(at("0\n"), Mark::Good);
        assert_eq!(at("50000\n"), Mark::Bad);
        assert_eq!(at("0x1\n"), Mark::Bad);
    }
}
