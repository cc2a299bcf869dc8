//! The first bytes of a connection.

use hearthgate::ingress::{
    hello::{LONGEST, Reading, read},
    preamble,
};
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

/// Reads what a proxy says, as a connection does: no more than is asked for, and no more than there can be.
pub fn preamble(bytes: &[u8]) {
    let mut had = 0;
    while let Some(preamble::Reading::Partial(more)) = bytes.get(..had).map(preamble::read) {
        assert!(more > 0 && had + more <= 4096, "{had} and {more}");
        had += more;
    }
}
