//! The first bytes of a TLS connection.

use hearthgate::ingress::hello::{LONGEST, Reading, read};
use rustls::server::Acceptor;

/// Reads a ClientHello. What the TLS library takes for one has the same name for us.
pub fn client_hello(bytes: &[u8]) {
    let ours = read(bytes);
    let bytes = bytes.get(..LONGEST).unwrap_or(bytes);
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return;
        }
    }
    let Ok(Some(accepted)) = acceptor.accept() else { return };
    if let (Some(theirs), Reading::Hello(ours)) = (accepted.client_hello().server_name(), ours) {
        // The library has it in lower case.
        assert!(ours.is_some_and(|ours| ours.eq_ignore_ascii_case(theirs.as_bytes())), "{theirs}");
    }
}
