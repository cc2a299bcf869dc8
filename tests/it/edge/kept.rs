//! What the resolver knew when the process ended is known when the next one begins.

use hickory_proto::rr::RecordType;

use super::*;
use crate::recursion::Internet;

fn ask(running: &Running<'_>, name: &str) -> hickory_proto::op::Message {
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let question = crate::dns::query(7, name, RecordType::A);
    client.send_to(&question.to_vec().unwrap(), running.address("/dns/listen/0")).unwrap();
    let mut buffer = [0; 1500];
    let length = client.recv(&mut buffer).unwrap();
    hickory_proto::op::Message::from_vec(&buffer[..length]).unwrap()
}

fn end(mut running: Running<'_>) {
    running.signal(libc::SIGTERM);
    assert_eq!(running.end(), Some(0));
}

#[test]
fn a_restart_is_not_cold_and_a_torn_file_is_set_aside() {
    let internet = Internet::start();
    let house = House::in_internet(&internet, "", "");
    let running = house.start_testing();
    assert_eq!(crate::dns::texts(&ask(&running, "www.leaf.tld.")), ["198.51.100.7"]);
    let asked = internet.asked("www.leaf.tld.").len();
    end(running);
    let file = house.state().join("resolver-cache-0");
    assert!(file.exists());

    let running = house.start_testing();
    let total = internet.total();
    assert_eq!(crate::dns::texts(&ask(&running, "www.leaf.tld.")), ["198.51.100.7"]);
    assert_eq!(internet.total(), total, "what is cached is not asked for");
    assert_eq!(crate::dns::texts(&ask(&running, "other.leaf.tld.")), ["198.51.100.7"]);
    assert_eq!(internet.total(), total + 1, "the servers of the zone are known");
    end(running);

    // Neither scraps, nor what is too long to be ours, nor what was learnt under another anchor.
    let whole = fs::read(&file).unwrap();
    for content in [whole[..whole.len() / 2].to_vec(), vec![b'x'; 64 << 20]] {
        let _ = fs::remove_file(house.state().join("resolver-cache-0.old"));
        fs::write(&file, content).unwrap();
        let running = house.start_testing();
        let before = internet.asked("www.leaf.tld.").len();
        assert_eq!(crate::dns::texts(&ask(&running, "www.leaf.tld.")), ["198.51.100.7"]);
        assert_eq!(internet.asked("www.leaf.tld.").len(), before + asked);
        // The thread that answers has looked at it by now.
        assert!(house.state().join("resolver-cache-0.torn").exists() && !file.exists());
        end(running);
        fs::remove_file(house.state().join("resolver-cache-0.torn")).unwrap();
    }
    house.write(&house.text().replace("anchors = []", "anchors = [\"other. IN DS 1 13 2 00\"]"));
    let running = house.start_testing();
    let before = internet.asked("www.leaf.tld.").len();
    ask(&running, "www.leaf.tld.");
    assert_eq!(internet.asked("www.leaf.tld.").len(), before + asked);
}
