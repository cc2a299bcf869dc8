//! Peers that commands add and remove.

use super::*;

#[test]
fn peers_come_and_go_while_it_runs() {
    let house = House::new();
    let running = house.start();

    let added = house.call(&[
        "peer",
        "add",
        "laptop",
        "--group",
        "admins",
        "--may-reach",
        "services,tcp 192.168.1.0/24 22",
        "--qr",
    ]);

    assert!(added.status.success(), "{}", stderr(&added));
    let text = stdout(&added);
    assert!(text.starts_with("[Interface]\nPrivateKey = "), "{text}");
    assert!(text.contains("Address = 10.77.0.3/32, fd77::2/128\n"), "{text}");
    assert!(text.contains("Endpoint = 127.0.0.1:8443\n") && text.contains("192.168.1.0/24"), "{text}");
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with('[') || line.contains(" = ")), "{text}");
    assert!(stderr(&added).contains('█'), "the QR code is beside it");
    let secret = text.lines().find_map(|line| line.strip_prefix("PrivateKey = ")).unwrap();
    let kept = fs::read_dir(house.state()).unwrap().filter_map(|entry| fs::read(entry.unwrap().path()).ok());
    assert!(kept.into_iter().all(|content| !String::from_utf8_lossy(&content).contains(secret)));
    assert!(stdout(&house.call(&["peer", "list"])).contains("laptop"));
    assert_eq!(running.status()["vpn"]["peers"].as_array().unwrap().len(), 2);

    let twice = house.call(&["peer", "add", "laptop"]);
    let owners = house.call(&["peer", "remove", "tour"]);
    assert_eq!((twice.status.code(), owners.status.code()), (Some(1), Some(1)));
    assert!(stderr(&owners).contains("never rewritten"), "{}", stderr(&owners));
    let refused = house.call(&["peer", "add", "phone", "--may-reach", "everything"]);
    assert_eq!(refused.status.code(), Some(78), "{}", stderr(&refused));
    assert_eq!(running.status()["generation"], 2);

    assert!(house.call(&["peer", "remove", "laptop"]).status.success());
    assert_eq!(running.status()["vpn"]["peers"].as_array().unwrap().len(), 1);
    assert_eq!(house.call(&["peer", "remove", "laptop"]).status.code(), Some(1));
}

#[test]
fn every_change_can_be_seen_and_taken_back() {
    let house = House::new();
    let running = house.start();
    assert!(house.call(&["peer", "add", "laptop"]).status.success());

    let log = stdout(&house.call(&["config", "log"]));
    let diff = stdout(&house.call(&["config", "diff"]));
    let show = stdout(&house.call(&["config", "show", "1"]));
    let rollback = house.call(&["config", "rollback", "1"]);

    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(log.contains("start") && log.contains("peer add laptop"), "{log}");
    assert!(diff.contains("+name = \"laptop\""), "{diff}");
    assert!(show.contains("[dns.records]") && !show.contains("laptop"), "{show}");
    assert!(rollback.status.success(), "{}", stderr(&rollback));
    assert_eq!(running.status()["vpn"]["peers"].as_array().unwrap().len(), 1);
    assert_eq!(house.call(&["config", "rollback", "99"]).status.code(), Some(1));
}

#[test]
fn peers_are_kept_in_the_state_while_nothing_runs() {
    let house = House::new();
    let file = house.file();
    let file = file.to_str().unwrap();

    let added = house.call(&["peer", "add", "laptop", "--config", file]);
    let refused = house.call(&["peer", "add", "phone", "--may-reach", "everything", "--config", file]);

    assert!(added.status.success(), "{}", stderr(&added));
    assert!(stderr(&added).contains("next start"), "{}", stderr(&added));
    assert_eq!(refused.status.code(), Some(78), "{}", stderr(&refused));
    let running = house.start();
    assert_eq!(running.status()["vpn"]["peers"][1]["name"], "laptop");
}

#[test]
fn peers_come_and_go_whatever_the_file_is_like_meanwhile() {
    let house = House::new();
    let running = house.start();
    let (text, changed) = (house.text(), house.text().replace("blocked.example", "other.example"));

    house.write(&format!("{text}\n[half"));
    let added = house.call(&["peer", "add", "laptop"]);
    house.write(&changed);
    let removed = house.call(&["peer", "remove", "laptop"]);
    let kept = stdout(&house.call(&["config", "show"]));
    let reloaded = house.call(&["reload"]);

    assert!(added.status.success(), "{}", stderr(&added));
    assert!(removed.status.success(), "{}", stderr(&removed));
    assert!(kept.contains("blocked.example") && !kept.contains("other.example"), "{kept}");
    assert!(reloaded.status.success(), "{}", stderr(&reloaded));
    assert!(stdout(&house.call(&["config", "show"])).contains("other.example"));
    assert_eq!(running.status()["generation"], 4);
}
