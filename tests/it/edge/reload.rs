//! Another configuration, while it runs.

use super::*;

#[test]
fn a_bad_reload_changes_nothing_and_says_why() {
    let house = House::new();
    let running = house.start();
    let good = house.text();

    house.write(&good.replace("[dns.records]", "[dns.records]\nbad = [\"nowhere\"]\n[dns.recrods]"));
    let reload = house.call(&["reload"]);

    assert_eq!(reload.status.code(), Some(78), "{}", stderr(&reload));
    let place = format!("{}:", house.file().display());
    assert!(stderr(&reload).contains(&place) && stderr(&reload).contains("hint:"), "{}", stderr(&reload));
    let status = running.status();
    assert_eq!(status["generation"], 1);
    assert!(status["refused"]["problems"][0].as_str().unwrap().contains("hearthgate.toml"));
    assert!(house.call(&["tour"]).status.success());

    house.write(&good.replace("nas =", "printer = [\"192.168.1.11\"]\nnas ="));
    let reload = house.call(&["reload"]);

    assert!(reload.status.success(), "{}", stderr(&reload));
    assert_eq!(running.status()["generation"], 2);
    assert!(running.status()["refused"].is_null());
    let text = scrape(running.address("/metrics/0"));
    assert!(text.contains("hearthgate_process_config_last_reload_successful 1"), "{text}");
    assert!(text.contains("hearthgate_process_config_reloads_total{outcome=\"refused\"} 1"), "{text}");
}

#[test]
fn a_reload_that_needs_a_restart_names_the_key() {
    let house = House::new();
    let running = house.start();
    let other = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();

    house.write(&house.text().replace("http = [\"127.0.0.1:0\"]", &format!("http = [\"{other}\"]")));
    let reload = house.call(&["reload"]);

    assert_eq!(reload.status.code(), Some(78));
    assert!(stderr(&reload).contains("`ingress.http`"), "{}", stderr(&reload));
    assert_eq!(running.status()["generation"], 1);
}

#[test]
fn a_cache_of_another_size_needs_a_restart() {
    let house = House::new();
    let _running = house.start();

    house.write(&house.text().replace("[dns]\n", "[dns]\ncache_size = \"8 MiB\"\n"));
    let reload = house.call(&["reload"]);

    assert_eq!(reload.status.code(), Some(78));
    assert!(stderr(&reload).contains("a restart is needed to change `dns.cache_size`"), "{}", stderr(&reload));
}

#[test]
fn a_reload_keeps_connections_and_sighup_reloads() {
    let house = House::new();
    let running = house.start();
    let mut stream = secure(&running);
    assert!(page(&mut stream).starts_with("HTTP/1.1 200"));

    house.write(&house.text().replace("nas =", "printer = [\"192.168.1.11\"]\nnas ="));
    running.signal(libc::SIGHUP);
    let until = Instant::now() + PATIENCE;
    while running.status()["generation"] != 2 {
        assert!(Instant::now() < until, "SIGHUP does not reload");
        std::thread::sleep(Duration::from_millis(20));
    }

    assert!(page(&mut stream).starts_with("HTTP/1.1 200"), "the same connection still works");
}
