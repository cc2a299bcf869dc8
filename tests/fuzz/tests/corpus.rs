//! Replays each target over its corpus.

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder).expect("each target has a corpus").flatten().collect();
    files.sort_by_key(|file| file.path());
    assert!(files.len() >= 5, "{} has {} seeds", folder.display(), files.len());
    for file in files {
        let bytes = std::fs::read(file.path()).expect("a seed can be read");
        println!("{}", file.path().display());
        run(&bytes);
        // And what a broken line makes of it.
        for cut in 0..bytes.len().min(512) {
            run(&bytes[..cut]);
            let mut damaged = bytes.clone();
            damaged[cut] ^= 0x55;
            run(&damaged);
        }
    }
}

#[test]
fn dns_message() {
    replay("dns_message", hearthgate_fuzz::dns_message);
}

#[test]
fn client_hello() {
    replay("client_hello", hearthgate_fuzz::client_hello);
}

#[test]
fn preamble() {
    replay("preamble", hearthgate_fuzz::preamble);
}

#[test]
fn https_question() {
    replay("https_question", hearthgate_fuzz::https_question);
}

#[test]
fn http_head() {
    replay("http_head", hearthgate_fuzz::http_head);
}

#[test]
fn http_body() {
    replay("http_body", hearthgate_fuzz::http_body);
}

#[test]
fn http_reply() {
    replay("http_reply", hearthgate_fuzz::http_reply);
}

#[test]
fn wireguard_datagram() {
    replay("wireguard_datagram", hearthgate_fuzz::wireguard_datagram);
}

#[test]
fn inner_packet() {
    replay("inner_packet", hearthgate_fuzz::inner_packet);
}

#[test]
fn server_answers() {
    replay("server_answers", hearthgate_fuzz::server_answers);
}
