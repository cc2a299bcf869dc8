//! What the owner's file means, and what is said about a wrong one.

use hearthgate::config::{self, Options, PeerIds, Source};

fn options(state: &tempfile::TempDir) -> Options {
    Options { state: Some(state.path().to_owned()), testing: false }
}

#[test]
fn the_quick_start_has_all_three_planes_and_keeps_its_keys() {
    let state = tempfile::tempdir().unwrap();
    let mut ids = PeerIds::default();

    let first = config::load(Source::QuickStart, &options(&state), &mut ids).unwrap();
    let second = config::load(Source::QuickStart, &options(&state), &mut ids).unwrap();

    assert_eq!(format!("{:?}", first.compiled), format!("{:?}", second.compiled));
    assert_eq!(first.digest, second.digest);
    let vpn = first.compiled.vpn.unwrap();
    let key = config::tour_key(state.path()).unwrap();
    assert_eq!(vpn.peers[0].public_key, key.public_key());
    assert_eq!(vpn.metrics_port, Some(9153));
    assert_eq!(first.compiled.ingress.unwrap().routes.len(), 2);
    assert!(first.compiled.dns.is_some());
    assert_eq!(first.compiled.metrics.unwrap().listen[0].address.to_string(), "127.0.0.1:9153");
}
