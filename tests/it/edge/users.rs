//! People and their peers.

use super::*;

#[test]
fn a_peer_has_the_role_of_its_person_and_none_without_one() {
    let house = House::new();
    let running = house.start();
    assert!(house.call(&["peer", "add", "phone", "--reached-by", "lan,tcp 192.168.1.0/24 22"]).status.success());
    let role = || running.status()["vpn"]["peers"][1]["role"].clone();
    let line = || {
        let listed = stdout(&house.call(&["peer", "list"]));
        listed.lines().find(|line| line.starts_with("phone")).unwrap().to_owned()
    };
    assert!(role().is_null() && !line().contains("owner"), "{}", line());

    let added = house.call(&["user", "add", "alice", "--role", "owner", "--peer", "phone"]);
    let again = house.call(&["user", "add", "bob", "--role", "viewer", "--peer", "phone"]);
    let nobody = house.call(&["user", "add", "bob", "--role", "viewer", "--peer", "tablet"]);
    let king = house.call(&["user", "add", "bob", "--role", "king"]);

    assert!(added.status.success(), "{}", stderr(&added));
    assert_eq!(again.status.code(), Some(78), "{}", stderr(&again));
    assert!(stderr(&nobody).contains("no peer \"tablet\"") && king.status.code() == Some(2), "{}", stderr(&nobody));
    assert_eq!(role(), "owner");
    assert!(line().contains("owner alice"), "{}", line());
    assert!(stdout(&house.call(&["status"])).contains("owner alice"));
    assert!(stdout(&house.call(&["user", "list"])).contains("phone"));
    assert!(stdout(&house.call(&["audit", "show"])).contains("user add alice --role owner --peer phone: generation"));
    let edits = fs::read_to_string(house.state().join("edits.toml")).unwrap();
    assert!(edits.contains("reached_by = [\"lan\", \"tcp 192.168.1.0/24 22\"]"), "{edits}");

    assert!(house.call(&["peer", "remove", "phone"]).status.success());
    assert!(house.call(&["confirm"]).status.success(), "it was the only way in of an owner");
    assert!(!stdout(&house.call(&["user", "list"])).contains("phone"), "her peer is gone, and she is not");
    assert!(house.call(&["user", "remove", "alice"]).status.success());
    assert_eq!(stdout(&house.call(&["user", "list"])), "");
    assert_eq!(house.call(&["user", "remove", "alice"]).status.code(), Some(1));
}

#[test]
fn people_of_the_file_are_checked_and_kept_from_commands() {
    let house = House::new();
    house.write(&format!("{}\n[[user]]\nname = \"alice\"\nrole = \"operator\"\npeers = [\"tour\"]\n", house.text()));
    let file = house.file();
    let at = |arguments: &[&str]| house.call(&[arguments, &["--config", file.to_str().unwrap()]].concat());

    assert!(stdout(&at(&["user", "list"])).contains("operator   tour"));
    assert!(stderr(&at(&["user", "remove", "alice"])).contains("never rewritten"));
    assert!(at(&["user", "add", "bob", "--role", "owner"]).status.success());
    house.write(&house.text().replace("[\"tour\"]", "[\"tuor\"]"));
    let wrong = at(&["check"]);
    assert!(!wrong.status.success());
    let said = stdout(&wrong) + &stderr(&wrong);
    assert!(said.contains("there is no peer \"tuor\"") && said.contains("did you mean \"tour\"?"), "{said}");
}
