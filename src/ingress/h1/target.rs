//! What a request line asks for.

use hyper::Method;
use memchr::memchr;

use super::head::Reject;
use crate::ingress::canonical::{CanonicalHost, CanonicalPath};

/// The forms of a target (RFC 9112 §3.2), without that of CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`.
    Origin,
    /// `http://host/path?query`. Whether the scheme is that of the connection is for the caller to check.
    Absolute(Scheme),
    /// `*`, of OPTIONS only.
    Asterisk,
}

/// The scheme of a target in absolute form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

type Target = (Form, CanonicalPath, Option<String>);

pub(super) fn read_target(
    target: &str,
    method: &Method,
    host: &CanonicalHost,
    port: Option<u16>,
) -> Result<Target, Reject> {
    let (form, rest) = match target {
        "*" if method == Method::OPTIONS => (Form::Asterisk, ""),
        _ if target.starts_with('/') => (Form::Origin, target),
        _ => {
            let (scheme, rest) = target.split_once("://").ok_or(Reject::bad("target: unknown form"))?;
            let scheme = match scheme {
                _ if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
                _ if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
                _ => return Err(Reject::bad("target: unknown scheme")),
            };
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, rest) = rest.split_at_checked(end).unwrap_or_default();
            let meant = CanonicalHost::from_authority(authority).map_err(|error| Reject::bad(error.0))?;
            // RFC 9112 §3.2.2 lets the target win over Host. Then others along the way read another request.
            if meant.0 != *host || scheme.effective(meant.1) != scheme.effective(port) {
                return Err(Reject::bad("target: not the host of the Host field"));
            }
            (Form::Absolute(scheme), rest)
        }
    };
    let (path, query) = match memchr(b'?', rest.as_bytes()).and_then(|at| rest.split_at_checked(at)) {
        Some((path, query)) => (path, query.get(1..)),
        None => (rest, None),
    };
    let path = CanonicalPath::parse(if path.is_empty() { "/" } else { path }).map_err(|error| Reject::bad(error.0))?;
    let query = query.map(read_query).transpose()?;
    Ok((form, path, query))
}

fn read_query(query: &str) -> Result<String, Reject> {
    if query.contains('#') {
        return Err(Reject::bad("target: fragment"));
    }
    // Sent raw by some, allowed raw by no standard, and so refused by some upstreams.
    if !query.contains(['"', '<', '>']) {
        return Ok(query.to_owned());
    }
    Ok(query.replace('"', "%22").replace('<', "%3C").replace('>', "%3E"))
}

impl Scheme {
    /// Returns the port that is meant.
    pub fn effective(self, port: Option<u16>) -> u16 {
        port.unwrap_or(match self {
            Self::Http => 80,
            Self::Https => 443,
        })
    }
}
