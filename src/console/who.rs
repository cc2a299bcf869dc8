//! Who asks, and what of a request shows that it is his own.
//!
//! There is no session and no cookie that stands for somebody: the tunnel authenticates each packet, so whoever comes out
//! of it is the peer whose key it has. A cookie would be one more thing to steal, and prove less. What is left to
//! defend against is a page of somebody else's in the visitor's browser.

use hyper::{HeaderMap, Method, header};

use crate::origin::Role;

/// Whoever looks at the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// As the audit log calls them.
    pub name: String,
    /// What they may change.
    pub role: Role,
    /// Where they come in.
    pub door: Door,
}

/// Where somebody comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Through the tunnel and the ingress, which found the host in the table of this peer.
    Tunnel,
    /// By the control socket, which is mostly forwarded to somebody's own machine.
    Socket,
}

/// Why a request is not even looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// Another name leads here: somebody's DNS says so.
    Host,
    /// Another page sends it.
    Site,
}

/// Refuses what another page makes a browser send. Safe requests change nothing, and their answers are kept from others
/// by the browser; what is unsafe must come from a page of ours (or from a program, which sends neither field).
pub(super) fn guard(door: Door, method: &Method, headers: &HeaderMap) -> Result<(), Foreign> {
    let field = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = field(header::HOST).unwrap_or_default();
    if door == Door::Socket && !is_local(host) {
        return Err(Foreign::Host);
    }
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let sites = headers.get_all("sec-fetch-site").iter();
    let mut sites = sites.map(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
    if let Some(first) = sites.next() {
        return if first && sites.all(|own| own) { Ok(()) } else { Err(Foreign::Site) };
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let said = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    match (said, door) {
        // The port is not told through the ingress; a page on another port of this host is the owner's as well.
        (Some(("https", origin)), Door::Tunnel) if name_of(origin) == name_of(host) => Ok(()),
        (Some(("http", origin)), Door::Socket) if origin == host => Ok(()),
        _ => Err(Foreign::Site),
    }
}

fn name_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    }
}

/// What a browser calls a forwarded port.
fn is_local(host: &str) -> bool {
    let name = name_of(host);
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|local| name.eq_ignore_ascii_case(local))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(door: Door, method: Method, fields: &[(&'static str, &str)]) -> Result<(), Foreign> {
        let fields = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        guard(door, &method, &HeaderMap::from_iter(fields))
    }

    #[test]
    fn what_another_page_sends_changes_nothing() {
        let post = |fields: &[(&'static str, &str)]| {
            let host = [("host", "edge.home.arpa")];
            judged(Door::Tunnel, Method::POST, &[&host[..], fields].concat())
        };

        assert_eq!(post(&[]), Ok(()), "a program");
        assert_eq!(post(&[("sec-fetch-site", "same-origin")]), Ok(()));
        assert_eq!(post(&[("sec-fetch-site", "none")]), Ok(()));
        assert_eq!(post(&[("origin", "https://edge.home.arpa")]), Ok(()));
        assert_eq!(post(&[("origin", "https://edge.home.arpa:8443")]), Ok(()));
        for fields in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site"), ("origin", "https://edge.home.arpa")],
            &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
            &[("origin", "https://evil.example")],
            &[("origin", "http://edge.home.arpa")],
            &[("origin", "https://edge.home.arpa.evil.example")],
            &[("origin", "null")],
            &[("origin", "\u{e9}")],
        ] {
            assert_eq!(post(fields), Err(Foreign::Site), "{fields:?}");
        }
    }

    #[test]
    fn a_forwarded_socket_answers_to_its_own_names_alone() {
        let get = |host: &str| judged(Door::Socket, Method::GET, &[("host", host)]);

        for host in ["localhost:8443", "LOCALHOST", "127.0.0.1:1", "[::1]:8443", "[::1]"] {
            assert_eq!(get(host), Ok(()), "{host}");
        }
        for host in ["evil.example:8443", "localhost.evil.example", "127.0.0.1.evil.example", "", "hearthgate:8443"] {
            assert_eq!(get(host), Err(Foreign::Host), "{host}");
        }
        let post = |origin: &str| judged(Door::Socket, Method::POST, &[("host", "localhost:8443"), ("origin", origin)]);
        assert_eq!(post("http://localhost:8443"), Ok(()));
        assert_eq!(post("http://localhost:3000"), Err(Foreign::Site), "another program's page");
    }
}
