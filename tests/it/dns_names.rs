//! Names of the house from files that change while the plane runs, and what is made of others' answers.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use hearthgate::dns::{Config, Dns64};
use hickory_proto::{op::ResponseCode, rr::RecordType};

use super::dns::{FalseServer, Running, config, rr, texts};

fn within_seconds(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn lease(path: &Path, lines: &[&str]) {
    let lines: Vec<String> = lines.iter().map(|line| format!("0 00:1b:21:00:00:07 {line} *\n")).collect();
    std::fs::write(path, lines.concat()).unwrap();
}

#[test]
fn leases_hosts_and_zones_are_followed_while_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let zone = |serial: u32, more: &str| {
        let text = format!(
            "$TTL 60\n@ IN SOA ns hostmaster {serial} 3600 900 604800 60\n IN NS ns\nns IN A 192.168.1.2\n{more}\n"
        );
        // As editors do: another file takes the place of the old one.
        std::fs::write(path("new"), text).unwrap();
        std::fs::rename(path("new"), path("lab.example.zone")).unwrap();
    };
    zone(1, "");
    std::fs::write(path("hosts"), "192.168.1.30 tv\n").unwrap();
    let server = FalseServer::start(vec![]);
    let running = Running::start(Config {
        zones: vec![path("lab.example.zone")],
        hosts: vec![path("hosts")],
        // It is not there yet.
        leases: vec![path("leases")],
        ..config(server.address)
    });
    let ask = |name: &str| texts(&running.ask(name, RecordType::A));
    let missing = running.ask("www.lab.example.", RecordType::A);
    assert_eq!((missing.metadata.response_code, missing.metadata.authoritative), (ResponseCode::NXDomain, true));
    assert_eq!(missing.authorities[0].record_type(), RecordType::SOA);
    assert_eq!(ask("tv.home.example."), ["192.168.1.30"]);

    lease(&path("leases"), &["192.168.1.50 tablet"]);
    within_seconds("a lease", || ask("tablet.home.example.") == ["192.168.1.50"]);
    assert_eq!(texts(&running.ask("50.1.168.192.in-addr.arpa.", RecordType::PTR)), ["tablet.home.example."]);
    lease(&path("leases"), &["192.168.1.51 tablet"]);
    within_seconds("another address", || ask("tablet.home.example.") == ["192.168.1.51"]);
    std::fs::write(path("hosts"), "192.168.1.31 tv\n").unwrap();
    within_seconds("hosts", || ask("tv.home.example.") == ["192.168.1.31"]);
    zone(2, "www IN A 192.168.1.9");
    within_seconds("a zone", || ask("www.lab.example.") == ["192.168.1.9"]);

    zone(3, "www IN A is no address");
    within_seconds("a problem", || {
        running.plane.status().problems.iter().any(|problem| problem.contains("lab.example.zone"))
    });
    assert_eq!(ask("www.lab.example."), ["192.168.1.9"], "the last good one stays in force");
}

#[test]
fn a_zone_that_cannot_be_read_is_no_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let zone = folder.path().join("lab.example.zone");
    std::fs::write(&zone, "www 60 IN A 192.168.1.9\n").unwrap();
    let server = FalseServer::start(vec![]);
    let running = Running::start(config(server.address));

    let refused = running.plane.prepare(Config { zones: vec![zone], ..config(server.address) });

    let error = refused.unwrap_err().to_string();
    assert!(error.starts_with("dns.zones: ") && error.contains("there is no SOA record"), "{error}");
}

#[test]
fn a_name_without_ipv6_gets_an_address_behind_the_translators_prefix() {
    let server = FalseServer::start(vec![
        rr("www.example.", 300, "A 198.51.100.7"),
        rr("home.evil.example.", 300, "A 192.168.1.1"),
    ]);
    let prefix = Dns64::new("64:ff9b::/96".parse().unwrap());
    let running = Running::start(Config { dns64: prefix, ..config(server.address) });
    let ask = |name: &str, rtype| texts(&running.ask(name, rtype));

    assert_eq!(ask("www.example.", RecordType::AAAA), ["64:ff9b::c633:6407"]);
    assert_eq!(ask("www.example.", RecordType::A), ["198.51.100.7"]);
    assert_eq!(ask("home.evil.example.", RecordType::AAAA), Vec::<String>::new());
    assert_eq!(ask("ipv4only.arpa.", RecordType::AAAA), ["64:ff9b::c000:aa", "64:ff9b::c000:ab"]);
}
