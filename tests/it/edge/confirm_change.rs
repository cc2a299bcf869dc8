//! Changes that could lock their author out.

use super::*;

fn waits(running: &Running<'_>) -> bool {
    !running.status()["waiting"].is_null()
}

fn key(house: &House) -> String {
    let edits = fs::read_to_string(house.state().join("edits.toml")).unwrap();
    edits.lines().find_map(|line| line.strip_prefix("public_key = ")).unwrap().to_owned()
}

#[test]
fn a_change_that_could_lock_its_author_out_is_taken_back_unless_it_is_confirmed() {
    let house = House::new();
    let mut running = house.start();
    assert!(house.call(&["peer", "add", "phone"]).status.success());
    assert!(house.call(&["user", "add", "alice", "--role", "owner", "--peer", "phone"]).status.success());
    assert!(!waits(&running), "nobody is locked out by what is added");
    let first = key(&house);

    // Taken back by hand, and by the process.
    let rotated = house.call(&["peer", "rotate", "phone"]);
    assert!(
        stderr(&rotated).contains("taken back in")
            && stderr(&rotated).contains("peer \"phone\" of an owner has other keys"),
        "{}",
        stderr(&rotated)
    );
    assert!(waits(&running) && key(&house) != first);
    let meanwhile = house.call(&["peer", "add", "tablet"]);
    assert!(
        !meanwhile.status.success() && stderr(&meanwhile).contains("waits to be confirmed"),
        "{}",
        stderr(&meanwhile)
    );
    assert!(stdout(&house.call(&["status"])).contains("unconfirmed"));
    let undone = house.call(&["confirm", "--undo"]);
    assert!(undone.status.success(), "{}", stderr(&undone));
    assert!(!waits(&running) && key(&house) == first);
    assert_eq!(house.call(&["confirm"]).status.code(), Some(1), "nothing waits");

    // Confirmed.
    assert!(house.call(&["peer", "rotate", "phone"]).status.success());
    assert!(house.call(&["confirm"]).status.success());
    assert!(!waits(&running));
    let second = key(&house);
    assert_ne!(second, first);

    // It waits anew after the process was killed.
    assert!(house.call(&["peer", "rotate", "phone"]).status.success());
    running.signal(libc::SIGKILL);
    running.end();
    let mut running = house.start();
    assert!(waits(&running) && key(&house) != second);
    assert!(house.call(&["confirm", "--undo"]).status.success());
    assert_eq!(key(&house), second);

    // The last way in of an owner is no way to be removed without a word; another peer is.
    assert!(house.call(&["peer", "add", "tablet"]).status.success());
    assert!(house.call(&["peer", "remove", "tablet"]).status.success());
    assert!(!waits(&running));
    let removed = house.call(&["peer", "remove", "phone"]);
    assert!(stderr(&removed).contains("no owner has a peer"), "{}", stderr(&removed));
    assert!(house.call(&["confirm"]).status.success());
    let shown = stdout(&house.call(&["audit", "show"]));
    for line in ["confirm --undo: generation", "confirm: kept: peer \"phone\" of an owner has other keys"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    running.signal(libc::SIGTERM);
    assert_eq!(running.end(), Some(0));
}

#[test]
fn a_file_that_is_taken_back_is_not_touched_and_the_one_before_is_in_force() {
    let house = House::new();
    let running = house.start();
    let changed = house.text().replace("\"10.77.0.1/24\"", "\"10.77.0.9/24\"");
    house.write(&changed);

    let reloaded = house.call(&["reload"]);
    assert!(stderr(&reloaded).contains("the gate has other addresses"), "{}", stderr(&reloaded));
    assert_eq!(running.status()["vpn"]["addresses"][0], "10.77.0.9/24");
    // By itself, after its minute.
    let until = Instant::now() + Duration::from_secs(100);
    while waits(&running) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(500));
    }

    assert_eq!(running.status()["vpn"]["addresses"][0], "10.77.0.1/24");
    assert_eq!(house.text(), changed);
    assert!(stdout(&house.call(&["audit", "show"])).contains("hearthgate"));
}

#[test]
fn what_a_person_confirms_by_outlives_a_change_that_is_taken_back_and_no_other() {
    let house = House::new();
    let _running = house.start();
    assert!(house.call(&["peer", "add", "phone", "--confirm", "12h"]).status.success());
    assert!(house.call(&["user", "add", "alice", "--role", "owner", "--peer", "phone"]).status.success());
    assert!(house.call(&["peer", "confirm-setup", "phone"]).status.success());
    let secrets = || fs::read_to_string(house.state().join("confirmations")).unwrap();
    let first = key(&house).trim_matches('"').to_owned();
    assert!(secrets().contains(&first), "{}", secrets());

    assert!(house.call(&["peer", "rotate", "phone"]).status.success());
    assert!(house.call(&["confirm", "--undo"]).status.success());
    assert!(secrets().contains(&first), "the key is in force again, and so is what confirms it");
    assert!(house.call(&["peer", "rotate", "phone"]).status.success());
    assert!(house.call(&["confirm"]).status.success());

    assert!(!secrets().contains(&first), "that key is gone");
}

#[test]
fn a_file_that_was_taken_back_does_not_return_with_the_next_start() {
    let house = House::new();
    house.write(&(house.text() + "\n[[user]]\nname = \"alice\"\nrole = \"owner\"\npeers = [\"tour\"]\n"));
    let asks = |house: &House| stdout(&house.call(&["peer", "list"])).contains("has to confirm");
    let mut running = house.start();
    house.write(&house.text().replace("name = \"tour\"", "name = \"tour\"\nconfirm = \"12h\""));
    assert!(house.call(&["reload"]).status.success());
    assert!(waits(&running) && asks(&house));

    // What takes the change back would take this one back as well.
    running.signal(libc::SIGKILL);
    running.end();
    let offline = house.call(&["peer", "add", "tablet", "--config", house.file().to_str().unwrap()]);
    assert!(!offline.status.success() && stderr(&offline).contains("waits to be confirmed"), "{}", stderr(&offline));

    let mut running = house.start();
    assert!(house.call(&["confirm", "--undo"]).status.success());
    for _ in 0..2 {
        assert!(!waits(&running) && !asks(&house));
        running.signal(libc::SIGTERM);
        assert_eq!(running.end(), Some(0));
        running = house.start();
    }

    // Whoever means it says so, and then it stays.
    assert!(house.call(&["reload"]).status.success());
    assert!(waits(&running) && asks(&house));
    assert!(house.call(&["confirm"]).status.success());
    running.signal(libc::SIGTERM);
    assert_eq!(running.end(), Some(0));
    let running = house.start();
    assert!(!waits(&running) && asks(&house));
}
