//! What may be read, and by whom.

use super::*;

#[test]
fn metrics_answer_this_box_and_pass_the_linter() {
    let house = House::new();
    let running = house.start();
    assert!(house.call(&["tour"]).status.success());

    let text = scrape(running.address("/metrics/0"));

    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    assert!(text.contains("hearthgate_process_build_info{version="), "{text}");
    assert!(!text.contains("admin.home.arpa"), "a route that this box may not reach is not named:\n{text}");
    assert!(!text.contains("peer=\"tour\""), "{text}");
    let body = text.split_once("\r\n\r\n").unwrap().1;
    let Ok(mut promtool) =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
    else {
        eprintln!("skipped: promtool is not here");
        return;
    };
    promtool.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let verdict = promtool.wait_with_output().unwrap();
    assert!(verdict.status.success(), "{}\n{body}", stdout(&verdict));
}

#[test]
fn metrics_close_without_a_byte_to_others() {
    let house = House::new();
    house.write(&house.text().replace("[metrics]", "[metrics]\nallow = [\"192.0.2.1\"]"));
    let running = house.start();

    let mut stream = patient(running.address("/metrics/0"));
    let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: edge\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);

    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn a_reader_that_never_stops_is_told_to_ask_less_often() {
    let house = House::new();
    let running = house.start();
    let address = running.address("/metrics/0");

    let limited = (0..2_000).any(|_| scrape(address).starts_with("HTTP/1.1 429 "));

    assert!(limited);
}

#[test]
fn the_alert_rules_speak_of_metrics_that_exist() {
    let house = House::new();
    house.write(&format!("{}\n[[check]]\nname = \"nas\"\ndns = \"nas.home.arpa\"\nevery = \"1s\"\n", house.text()));
    let running = house.start();
    super::uptime::known(&house, "nas");
    let text = scrape(running.address("/metrics/0"));
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus/hearthgate.rules.yml");
    let rules = fs::read_to_string(rules).unwrap();

    let words = rules.split(|letter: char| !letter.is_ascii_alphanumeric() && !"_:".contains(letter));
    let named: std::collections::BTreeSet<&str> = words
        .filter(|word| word.starts_with("hearthgate_"))
        .map(|word| ["_bucket", "_sum", "_count"].iter().fold(word, |word, end| word.strip_suffix(end).unwrap_or(word)))
        .collect();

    assert!(named.len() > 10, "{named:?}");
    for name in named {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name} is not among the metrics");
    }
}
