//! What commands let through, block and pause, as a client sees it.

use super::*;

#[test]
fn a_name_is_let_through_and_blocked_and_a_pause_ends_what_blocks() {
    let house = House::new();
    // Nobody is there; nothing leaves the box.
    let alone = "[dns]\nresolve = \"forward\"\nupstreams = [\"127.0.0.1:9\"]\n";
    house.write(&house.text().replace("[dns]\n", alone));
    let running = house.start();
    let server = running.status()["dns"]["listen"][0].as_str().unwrap().parse::<SocketAddr>().unwrap();
    let is_blocked = |name: &str| first_address(server, name) == Some([0, 0, 0, 0]);
    let call = |words: &[&str]| {
        let output = house.call(words);
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    };
    assert!(is_blocked("blocked.example"));

    call(&["allow", "blocked.example", "--for", "1h"]);
    assert!(!is_blocked("blocked.example"));
    let timed = running.status()["dns"]["timed"].clone();
    assert_eq!(timed[0]["what"], "allow blocked.example for every group");
    call(&["allow", "blocked.example", "--undo"]);
    assert!(is_blocked("blocked.example"));

    call(&["block", "nas.example", "--group", "default"]);
    assert!(is_blocked("www.nas.example"));
    call(&["pause", "--for", "30m"]);
    assert!(!is_blocked("www.nas.example") && !is_blocked("blocked.example"));
    call(&["pause", "--end"]);
    assert!(is_blocked("www.nas.example"));
    assert!(stdout(&house.call(&["config", "log"])).contains("block nas.example --group default"));
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let house = House::new();
    let running = house.start();

    let refused = [
        (&["block", "not a name"][..], 78),
        (&["block", "a.example", "--group", "nobody"], 78),
        (&["allow", "a.example", "--undo"], 1),
        (&["pause", "--end"], 1),
        (&["pause"], 2),
        (&["pause", "--for", "soon"], 2),
        (&["pause", "--for", "1h", "--group", "default", "--device", "192.168.1.5"], 2),
    ];

    for (words, code) in refused {
        assert_eq!(house.call(words).status.code(), Some(code), "{words:?}");
    }
    assert_eq!(running.status()["generation"], 1);
}

/// Asks for an IPv4 address and returns the last four octets of the answer if there is a record.
fn first_address(server: SocketAddr, name: &str) -> Option<[u8; 4]> {
    // What is not blocked fails.
    ask(server, name, Duration::from_millis(700))
}

/// The same, and as long as this for the answer.
pub(super) fn ask(server: SocketAddr, name: &str, patience: Duration) -> Option<[u8; 4]> {
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.send_to(&query, server).unwrap();
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).ok()?;
    (answer[7] > 0).then(|| *answer[..length].last_chunk().unwrap())
}
