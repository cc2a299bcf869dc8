//! What the running process is shut off from.

use super::*;

fn fields(running: &Running<'_>) -> String {
    fs::read_to_string(format!("/proc/{}/status", running.child.id())).unwrap()
}

fn seccomp(running: &Running<'_>) -> String {
    let status = fields(running);
    status.lines().find_map(|line| line.strip_prefix("Seccomp:")).unwrap_or("").trim().to_owned()
}

#[test]
fn a_file_that_nothing_named_cannot_be_read_by_the_running_process_and_needs_a_restart() {
    let house = House::new();
    let mut running = house.start();
    let privileges = running.status()["privileges"].as_str().unwrap().to_owned();
    if privileges.contains("no landlock") {
        return eprintln!("\nSKIPPED: this kernel has no Landlock: {privileges}");
    }
    let (beside, elsewhere) = (house.folder.path().join("more.hosts"), tempfile::tempdir().unwrap());
    let outside = elsewhere.path().join("more.hosts");
    for path in [&beside, &outside] {
        fs::write(path, "0.0.0.0 more.example\n").unwrap();
    }
    fs::set_permissions(elsewhere.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let good = house.text();
    let with = |path: &Path| good.replace("names = [\"blocked.example\"]", &format!("source = \"{}\"", path.display()));

    house.write(&with(&outside));
    let refused = house.call(&["reload"]);
    house.write(&with(&beside));
    let taken = house.call(&["reload"]);

    assert_eq!(refused.status.code(), Some(78), "{}", stderr(&refused));
    for part in ["lies in a folder that nothing named", "needs a restart", "node.landlock"] {
        assert!(stderr(&refused).contains(part), "{part}: {}", stderr(&refused));
    }
    assert!(taken.status.success(), "{}", stderr(&taken));
    house.write(&with(&outside));
    running.signal(libc::SIGTERM);
    assert_eq!(running.end(), Some(0));
    assert!(running.log().contains("sandbox: landlock"), "the log says what is in force");
    let restarted = house.start();
    assert_eq!(restarted.status()["generation"], 3);
}

#[test]
fn each_part_of_the_sandbox_can_be_turned_off() {
    let house = House::new();
    let running = house.start();
    let privileges = running.status()["privileges"].as_str().unwrap().to_owned();
    if !privileges.contains("no seccomp") {
        assert_eq!(seccomp(&running), "2", "{privileges}");
    }
    drop(running);
    house.write(&house.text().replace("grace = \"2s\"", "grace = \"2s\"\nlandlock = false\nseccomp = false"));

    let running = house.start();

    let privileges = running.status()["privileges"].as_str().unwrap().to_owned();
    assert!(privileges.contains("no landlock (node.landlock = false)"), "{privileges}");
    assert!(privileges.contains("no seccomp (node.seccomp = false)"), "{privileges}");
}
