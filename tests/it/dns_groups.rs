//! Groups with servers of their own, on loopback: a client is told apart by the address that it asks from.

use std::{net::UdpSocket, time::Duration};

use hearthgate::dns::{Device, Group, Upstream};
use hickory_proto::{op::Message, rr::RecordType};

use crate::dns::{FalseServer, Running, config, query, rr, texts};

const KID: &str = "127.0.0.2";

fn ask_from(running: &Running, from: &str, name: &str) -> Vec<String> {
    let client = UdpSocket::bind((from, 0)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    client.send_to(&query(7, name, RecordType::A).to_vec().unwrap(), running.address).unwrap();
    let mut buffer = [0; 4096];
    let length = client.recv(&mut buffer).unwrap();
    texts(&Message::from_vec(&buffer[..length]).unwrap())
}

#[test]
fn a_group_asks_its_own_servers_and_what_they_say_is_kept_apart() {
    let server = FalseServer::start(vec![rr("www.example.", 300, "A 192.0.2.80")]);
    let family = FalseServer::start(vec![rr("www.example.", 300, "A 192.0.2.99")]);
    let mut config = config(server.address);
    config.groups.push(Group {
        name: "kids".into(),
        devices: vec![Device::Net(format!("{KID}/32").parse().unwrap())],
        upstreams: vec![Upstream::plain(family.address)],
        ..Group::default()
    });
    let running = Running::start(config.clone());

    for _ in 0..2 {
        assert_eq!(ask_from(&running, "127.0.0.1", "www.example."), ["192.0.2.80"]);
        assert_eq!(ask_from(&running, KID, "www.example."), ["192.0.2.99"]);
        assert_eq!(ask_from(&running, KID, "nas.home.example."), ["192.168.1.10"], "the house is the house");
    }
    assert_eq!((server.times_asked(), family.times_asked()), (1, 1), "each is cached");

    // A reload that changes nothing keeps what they said; one that takes the servers away forgets it.
    running.reload(config.clone());
    assert_eq!(ask_from(&running, KID, "www.example."), ["192.0.2.99"]);
    assert_eq!(family.times_asked(), 1);
    config.groups[1].upstreams.clear();
    running.reload(config);
    assert_eq!(ask_from(&running, KID, "www.example."), ["192.0.2.80"]);
    assert_eq!(family.times_asked(), 1);
}
