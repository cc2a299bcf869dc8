//! Where the encrypted transports are, told to clients that know an address only (RFC 9462), or the name (RFC 9461).

use super::{Local, wire};
use crate::{
    dns::{
        Encrypted,
        encode::{Section, record},
        query::qtype,
    },
    origin::{Access, Origin},
};

/// Seconds that it may be cached: a reload may change it.
const TTL: u32 = 300;

/// RFC 9462 §4.
const BY_ADDRESS: &[u8] = b"\x04_dns\x08resolver\x04arpa\0";

/// The port of DNS over TLS and QUIC, and that of HTTPS, which are not said.
const DOT: u16 = 853;
const HTTPS: u16 = 443;

/// Keys of SVCB parameters (RFC 9460 §14.3.2, RFC 9461 §5).
const ALPN: u16 = 1;
const PORT: u16 = 3;
const DOHPATH: u16 = 7;

/// The records of the server's encrypted transports.
#[derive(Debug)]
pub(crate) struct Discovery {
    /// `_dns.` and the server's name.
    by_name: Box<[u8]>,
    /// For who reaches the ports of TLS and QUIC.
    tls: Vec<Box<[u8]>>,
    https: Option<Box<[u8]>>,
    /// HTTPS as peers reach it: inside the tunnel it is at its own port.
    inner: Option<Box<[u8]>>,
    access: Access,
}

impl Discovery {
    /// Compiles what there is; `None` if the server has no name.
    pub(crate) fn new(encrypted: &Encrypted) -> Option<Self> {
        let host = wire(&encrypted.host.parse().ok()?);
        let by_name = [b"\x04_dns", &*host].concat().into();
        let mut tls = Vec::new();
        if let Some(place) = encrypted.listen.first() {
            let port = (place.address.port() != DOT).then_some(place.address.port());
            tls = vec![service(1, &host, b"dot", port, None), service(2, &host, b"doq", port, None)];
        }
        let over_https = |port: u16| {
            let port = (port != HTTPS).then_some(port);
            service(3, &host, b"h2", port, Some(b"/dns-query{?dns}"))
        };
        let https = encrypted.https.map(over_https);
        let inner = encrypted.https.map(|_| over_https(HTTPS));
        Some(Self { by_name, tls, https, inner, access: encrypted.access.clone() })
    }

    /// Writes what this client can use, behind `owner`.
    pub(crate) fn answer(
        &self,
        (name, owner, asked): (&[u8], &[u8], u16),
        origin: Origin,
        out: &mut Vec<u8>,
    ) -> Local<'static> {
        if name != BY_ADDRESS && name != &*self.by_name {
            return Local::Absent;
        }
        let tls = if matches!(origin, Origin::Lan(_)) { &self.tls[..] } else { &[] };
        let https = if matches!(origin, Origin::Vpn(_)) { &self.inner } else { &self.https };
        let https = https.iter().filter(|_| self.access.admits(origin));
        let mut written = false;
        for data in tls.iter().chain(https).filter(|_| asked == qtype::SVCB) {
            record(out, Section::Answer, owner, qtype::SVCB, TTL, data);
            written = true;
        }
        if written { Local::Answered } else { Local::NoData }
    }
}

/// Writes the data of an SVCB record (RFC 9460 §2.2): keys in their order.
fn service(priority: u16, target: &[u8], alpn: &[u8], port: Option<u16>, path: Option<&[u8]>) -> Box<[u8]> {
    let mut data = priority.to_be_bytes().to_vec();
    data.extend(target);
    let mut parameter = |key: u16, value: &[u8]| {
        data.extend(key.to_be_bytes());
        data.extend((value.len() as u16).to_be_bytes());
        data.extend(value);
    };
    parameter(ALPN, &[&[alpn.len() as u8], alpn].concat());
    if let Some(port) = port {
        parameter(PORT, &port.to_be_bytes());
    }
    if let Some(path) = path {
        parameter(DOHPATH, path);
    }
    data.into()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use hickory_proto::op::Message;

    use super::*;
    use crate::{
        dns::{
            encode::{self, Head, QNAME},
            query::{Query, tests::query},
        },
        origin::{NetworkId, PeerId},
    };

    const LAN: Origin = Origin::Lan(NetworkId::MAIN);
    const PEER: Origin = Origin::Vpn(PeerId(1));

    fn told(encrypted: &Encrypted, name: &str, origin: Origin) -> Option<Vec<String>> {
        let bytes = query(name, qtype::SVCB, None);
        let asked = Query::parse(&bytes).unwrap();
        let mut out = Vec::new();
        encode::start(&asked, Head::local(0), &mut out);
        match Discovery::new(encrypted).unwrap().answer((asked.name(), QNAME, qtype::SVCB), origin, &mut out) {
            Local::Absent => None,
            _ => Some(Message::from_vec(&out).unwrap().answers.iter().map(|record| record.data.to_string()).collect()),
        }
    }

    #[test]
    fn rfc9462_each_client_is_told_what_it_can_use() {
        let mut encrypted = Encrypted {
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 853)).into()],
            host: "dns.home.example".into(),
            https: Some(8443),
            access: Access { networks: vec![NetworkId::MAIN], vpn: true, ..Access::default() },
        };

        for name in ["_dns.resolver.arpa", "_DNS.dns.home.example"] {
            let lan = told(&encrypted, name, LAN).unwrap();
            assert_eq!(lan.len(), 3, "{lan:?}");
            assert_eq!(lan[0], "1 dns.home.example. alpn=dot,");
            assert!(lan[2].contains("port=8443") && lan[2].contains("h2"), "{}", lan[2]);
            let peer = told(&encrypted, name, PEER).unwrap();
            assert_eq!(peer, [lan[2].replace(" port=8443", "")]);
        }
        assert_eq!(told(&encrypted, "dns.home.example", LAN), None);
        encrypted.access = Access::default();
        assert_eq!(told(&encrypted, "_dns.resolver.arpa", PEER).unwrap(), [""; 0]);
        assert_eq!(told(&encrypted, "_dns.resolver.arpa", LAN).unwrap().len(), 2);
    }
}
