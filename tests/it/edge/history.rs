//! What is kept of the questions of the house, as its owner reads it.

use super::{rules::ask, *};

fn keeping() -> House {
    let house = House::new();
    // Nobody is there; nothing leaves the box.
    let alone = "[dns]\nresolve = \"forward\"\nupstreams = [\"127.0.0.1:9\"]\n";
    house.write(&format!("{}\n[history]\n", house.text().replace("[dns]\n", alone)));
    house
}

/// Reads until the last question is there.
fn queries(house: &House, words: &[&str], count: usize) -> Vec<Value> {
    let until = Instant::now() + PATIENCE;
    loop {
        let output = house.call(&[&["queries", "--json"], words].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let entries = found["entries"].as_array().unwrap().clone();
        if entries.len() >= count || Instant::now() > until {
            return entries;
        }
    }
}

#[test]
fn what_was_asked_is_told_with_the_list_that_blocked_it_and_kept_over_a_restart() {
    let house = keeping();
    let mut running = house.start();
    let server = running.address("/dns/listen/0");
    assert_eq!(ask(server, "Blocked.example", PATIENCE), Some([0, 0, 0, 0]));
    assert_eq!(ask(server, "nas.home.arpa", PATIENCE), Some([192, 168, 1, 10]));

    let all = queries(&house, &[], 2);
    let blocked = queries(&house, &["--outcome", "blocked"], 1);
    let summary = house.call(&["queries", "--summary", "--last", "1h"]);
    assert!(running.status()["history"]["problem"].is_null());
    running.signal(libc::SIGTERM);
    assert_eq!(running.end(), Some(0));
    drop(running);
    let again = house.start();
    let kept = queries(&house, &[], 2);
    drop(again);

    assert_eq!(all.len(), 2);
    assert_eq!((&all[0]["name"], &all[0]["outcome"]), (&"nas.home.arpa".into(), &"local".into()));
    assert_eq!(all, kept);
    assert_eq!(blocked.len(), 1);
    assert_eq!(blocked[0]["name"], "blocked.example");
    assert_eq!(blocked[0]["rule"], "demo");
    assert_eq!(blocked[0]["client"], "127.0.0.1");
    assert!(stdout(&summary).starts_with("2 questions, 1 blocked (50.0 %)"), "{}", stdout(&summary));
}

#[test]
fn killed_at_any_moment_it_loses_nothing_that_was_told_and_counts_nothing_twice() {
    let house = keeping();
    for round in 1..=3_usize {
        let mut running = house.start();
        let server = running.address("/dns/listen/0");
        ask(server, "blocked.example", PATIENCE);
        // It is spooled from here on.
        assert_eq!(queries(&house, &[], round).len(), round);
        running.signal(libc::SIGKILL);
        running.end();
    }
}

#[test]
fn without_a_history_nothing_is_kept_and_its_owner_is_told_so() {
    let house = House::new();
    let running = house.start();
    ask(running.address("/dns/listen/0"), "blocked.example", PATIENCE);

    let output = house.call(&["queries"]);

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("add a [history] section"), "{}", stderr(&output));
    assert!(!house.state().join("history.db").exists());
}
