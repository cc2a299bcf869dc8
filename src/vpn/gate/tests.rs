use super::*;
use crate::{
    origin::Directory,
    vpn::{self, Config, Mode, Reach},
};

/// A peer with a key that depends on its number only.
pub(crate) fn peer(number: u32, address: &str) -> vpn::Peer {
    vpn::Peer {
        id: PeerId(number),
        name: format!("peer{number}"),
        group: None,
        public_key: private_key(number).public_key(),
        preshared_key: None,
        addresses: vec![address.parse().unwrap()],
        may_reach: vec![Reach::Services],
        keepalive: None,
    }
}

pub(crate) fn private_key(number: u32) -> PrivateKey {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    STANDARD.encode(bytes).parse().unwrap()
}

pub(crate) fn config(peers: Vec<vpn::Peer>) -> Config {
    Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        endpoint: None,
        addresses: vec!["10.77.0.1/24".parse().unwrap(), "fd77::1/64".parse().unwrap()],
        private_key: private_key(1_000),
        mode: Mode::Userspace,
        peers,
        metrics_port: Some(9153),
        directory: Directory::default(),
    }
}
