//! The first configuration.

use super::*;

#[test]
fn init_writes_a_file_that_is_good() {
    let house = House::new();
    let file = house.folder.path().join("first.toml");
    let init = || {
        let mut command = house.command(&["init", "--yes", "--endpoint", "vpn.example.org:443", "--config"]);
        command.arg(&file).output().unwrap()
    };

    let first = init();
    if stderr(&first).contains("no interface has a private IPv4 address") {
        eprintln!("skipped: this box has no LAN");
        return;
    }
    let again = init();

    assert!(first.status.success(), "{}", stderr(&first));
    assert!(stdout(&first).starts_with("[Interface]\nPrivateKey = "), "{}", stdout(&first));
    assert!(stdout(&first).contains("Endpoint = vpn.example.org:443\n"), "{}", stdout(&first));
    assert!(stderr(&first).contains("nothing is opened") && stderr(&first).contains('█'), "{}", stderr(&first));
    assert!(fs::read_to_string(&file).unwrap().lines().count() <= 40);
    let check = Command::new(PROGRAM).args(["check", "--config"]).arg(&file).output().unwrap();
    assert!(check.status.success(), "{}", stderr(&check));
    assert!(stdout(&check).contains("vpn:owner"), "{}", stdout(&check));
    assert_eq!(again.status.code(), Some(1), "{}", stderr(&again));
}

#[test]
fn init_asks_before_it_writes() {
    let house = House::new();
    let file = house.folder.path().join("first.toml");

    let output = house.command(&["init", "--config"]).arg(&file).output().unwrap();

    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(!file.exists());
}
