//! What `doctor` says of a box that is good, and of one that is not.

use super::*;

/// A box in a folder of its own, whose files are these.
fn machine(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

#[test]
fn the_doctor_tries_who_reaches_what_and_says_what_is_wrong() {
    let house = House::new();
    let _running = house.start();
    let file = house.file();
    let call = |root: &TempDir| {
        let root = root.path().to_str().unwrap();
        house.call(&["doctor", "--all", "--root", root, "--config", file.to_str().unwrap()])
    };
    let good = machine(&[
        ("proc/sys/kernel/osrelease", "6.1.0\n"),
        ("proc/sys/kernel/seccomp/actions_avail", "kill_process errno allow\n"),
        ("proc/meminfo", "MemTotal: 4000000 kB\nMemAvailable: 3000000 kB\n"),
        ("etc/resolv.conf", "nameserver 127.0.0.1\n"),
        ("proc/sys/net/ipv6/conf/all/disable_ipv6", "0\n"),
    ]);
    let bad = machine(&[("proc/meminfo", "MemTotal: 4000 kB\nMemAvailable: 3000 kB\n")]);

    let [well, ill] = [&good, &bad].map(call);

    let text = stdout(&well);
    let cells = |row: &str| -> Vec<String> {
        let line = text.lines().find(|line| line.starts_with(row)).unwrap_or_else(|| panic!("{row}:\n{text}"));
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    assert_eq!(cells("who reaches what"), ["who reaches what", "wan", "host", "lan", "vpn:tour"], "{text}");
    assert_eq!(cells("dns"), ["dns", "-", "yes ✓", "yes", "yes"], "{text}");
    assert_eq!(cells("welcome.home.arpa"), ["welcome.home.arpa", "yes", "yes ✓", "yes", "yes"], "{text}");
    assert_eq!(cells("admin.home.arpa"), ["admin.home.arpa", "-", "- ✓", "-", "yes"], "{text}");
    assert!(text.contains("✓ hearthgate   runs as"), "{text}");
    assert!(text.contains("✓ resolv.conf"), "{text}");
    assert!(well.status.success(), "{text}{}", stderr(&well));
    let text = stdout(&ill);
    assert_eq!(ill.status.code(), Some(1), "{text}");
    for part in ["✗ memory", "✗ resolv.conf", "type  echo 'nameserver 127.0.0.1'", "why   "] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    assert!(stderr(&ill).contains("2 things are wrong"), "{}{text}", stderr(&ill));
}

#[test]
fn the_doctor_notices_when_another_configuration_is_in_force() {
    let house = House::new();
    let _running = house.start();
    house.write(&house.text().replace("access = \"vpn\"", "access = [\"lan\", \"vpn\"]"));
    let root = machine(&[]);

    let output =
        house.call(&["doctor", "--root", root.path().to_str().unwrap(), "--config", house.file().to_str().unwrap()]);

    let text = stdout(&output);
    assert!(text.contains("admin.home.arpa is not reached from host"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}
