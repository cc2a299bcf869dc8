//! What is watched, as its owner reads it.

use super::*;

fn uptime(house: &House, words: &[&str]) -> Vec<Value> {
    let output = house.call(&[&["uptime", "--json"], words].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Reads until something is known.
pub(super) fn known(house: &House, name: &str) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        let status = uptime(house, &[name]).remove(0);
        if status["state"] != "unknown" || Instant::now() > until {
            return status;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Reads until it is known which part of 90 days something was up, in thousandths.
fn share(house: &House, name: &str) -> u64 {
    let until = Instant::now() + PATIENCE;
    loop {
        let share = uptime(house, &[name])[0]["permille"][2].as_u64();
        if let Some(share) = share {
            return share;
        }
        assert!(Instant::now() < until, "nothing is known of {name}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_check_and_a_route_are_watched_shown_measured_and_kept_over_a_reload() {
    let house = House::new();
    let open = TcpListener::bind("127.0.0.1:0").unwrap();
    let shut = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = open.local_addr().unwrap();
    let text = format!(
        r#"{}
        [[route]]
        host = "photos.home.arpa"
        access = "lan"
        to = "http://{address}"

        [[route]]
        host = "quiet.home.arpa"
        access = "lan"
        to = "http://{address}"
        uptime = "off"

        [[check]]
        name = "open"
        tcp = "{address}"
        every = "1s"

        [[check]]
        name = "shut"
        tcp = "{shut}"
        every = "1s"
        failures = 1

        [[check]]
        name = "own-dns"
        dns = "nas.home.arpa"
        expect = "192.168.1.10"
        every = "1s"
        "#,
        house.text()
    );
    house.write(&text);
    let mut running = house.start();

    let names: Vec<Value> = uptime(&house, &[]).into_iter().map(|status| status["name"].clone()).collect();
    assert_eq!(names, ["open", "own-dns", "photos.home.arpa", "shut"]);
    assert_eq!(known(&house, "open")["state"], "up");
    assert_eq!(known(&house, "own-dns")["state"], "up");
    let down = known(&house, "shut");
    assert_eq!(down["state"], "down");
    assert!(down["problem"].as_str().unwrap().contains("refused"), "{down}");
    assert_eq!(running.status()["watch"]["names"], serde_json::json!(["shut"]));
    let figures = scrape(running.address("/metrics/0"));
    assert!(figures.contains(r#"hearthgate_check_up{check="shut",route=""} 0"#), "{figures}");
    assert!(figures.contains(r#"hearthgate_check_up{check="open",route=""} 1"#), "{figures}");
    let shown = stdout(&house.call(&["uptime"]));
    assert!(shown.lines().next().is_some_and(|line| line.starts_with("shut") && line.contains("down")), "{shown}");
    let missing = house.call(&["uptime", "nobody"]);
    assert!(!missing.status.success());

    house.write(&text.replace("failures = 1", "failures = 2").replace("name = \"own-dns\"", "name = \"renamed\""));
    let reloaded = house.call(&["reload"]);
    assert!(reloaded.status.success(), "{}", stderr(&reloaded));
    let after = uptime(&house, &["shut"]).remove(0);
    assert_eq!((&after["state"], &after["since"]), (&down["state"], &down["since"]));
    assert_eq!(known(&house, "renamed")["state"], "up");
    assert_eq!(share(&house, "shut"), 0);
    running.signal(libc::SIGTERM);
    assert_eq!(running.end(), Some(0));
    drop(running);
    assert!(house.state().join("uptime.db").exists());
    let again = house.start();

    // What was not down before would be no more than suspect by now, which counts as up.
    assert!(share(&house, "shut") < 1000);
    drop(again);
}

#[test]
fn a_check_that_cannot_be_is_refused_with_all_its_mistakes() {
    let house = House::new();
    house.write(&format!(
        r#"{}
        [[check]]
        name = "two"
        tcp = "nas:22"
        http = "http://nas/"

        [[check]]
        name = "a"
        tcp = "nas:22"
        parent = "b"
        days = 3

        [[check]]
        name = "b"
        tcp = "nas"
        every = "10ms"

        [[check]]
        name = "c"
        tcp = "nas:22"
        parent = "c"
        "#,
        house.text()
    ));

    let refused = house.command(&["check"]).arg("--config").arg(house.file()).output().unwrap();

    assert_eq!(refused.status.code(), Some(78));
    let said = format!("{}{}", stdout(&refused), stderr(&refused));
    for wanted in [
        "a check looks at one thing",
        "\"days\" says nothing of a check by \"tcp\"",
        "\"nas\" has no usable host and port",
        "\"10ms\" is out of bounds",
        "\"c\" hangs on itself",
    ] {
        assert!(said.contains(wanted), "{wanted} is not in:\n{said}");
    }
}
