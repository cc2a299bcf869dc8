//! Fields between two connections: what belongs to one hop is taken off, what speaks of the client is ours.

use std::net::IpAddr;

use bytes::BytesMut;
use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};

use crate::ingress::{Change, canonical::CanonicalHost, h1::response::put_field, upstream::Ends};

/// Where fields are written to: the text of HTTP/1.1, or what HTTP/2 packs.
pub(super) trait Fields {
    fn put(&mut self, name: &str, value: &[u8]);
}

impl Fields for BytesMut {
    fn put(&mut self, name: &str, value: &[u8]) {
        put_field(self, name.as_bytes(), value);
    }
}

impl Fields for HeaderMap {
    fn put(&mut self, name: &str, value: &[u8]) {
        // All of it has been a field before, or is ours.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            self.append(name, value);
        }
    }
}

/// What an upstream is told of the client.
pub(super) struct Told<'a> {
    pub(super) host: &'a CanonicalHost,
    pub(super) client: IpAddr,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// The client's HTTP, as it stands in Via.
    pub(super) protocol: &'static str,
    /// What the owner changes.
    pub(super) change: &'a Change,
    /// What this request is called, on its whole way.
    pub(super) id: Option<u128>,
    /// What was taken off the path's beginning.
    pub(super) prefix: Option<&'a str>,
    /// The request is a good WebSocket handshake.
    pub(super) websocket: bool,
    /// The client takes trailers, and can be given them.
    pub(super) trailers: bool,
    /// The two ends of its connection, for servers that are told so before anything else.
    pub(super) ends: Option<Ends>,
}

impl<'a> Told<'a> {
    /// What a request of our own tells.
    pub(super) fn ours(host: &'a CanonicalHost, client: IpAddr, scheme: &'static str, change: &'a Change) -> Self {
        Self {
            host,
            client,
            scheme,
            protocol: "1.1",
            change,
            id: None,
            prefix: None,
            websocket: false,
            trailers: false,
            ends: None,
        }
    }

    /// The host, as the upstream is asked for it.
    pub(super) fn host(&self) -> &[u8] {
        self.change.value("host").map_or(self.host.as_str().as_bytes(), HeaderValue::as_bytes)
    }
}

/// Writes the fields of a request as they are sent upstream, host and framing excepted; `nominated` is what Connection
/// named.
pub(super) fn to_upstream(out: &mut impl Fields, headers: &HeaderMap, nominated: &[HeaderName], told: &Told<'_>) {
    let change = told.change;
    // Ours are not theirs to take away: what Connection names is left out of what the client sent.
    let traced = is_traced(headers);
    let passes = |name: &HeaderName| {
        passes_up(name.as_str())
            && !nominated.contains(name)
            && !change.replaces(name.as_str())
            && (traced || !matches!(name.as_str(), "traceparent" | "tracestate"))
    };
    for name in headers.keys().filter(|name| passes(name)) {
        let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
        if *name == header::COOKIE {
            // RFC 9113 §8.2.3: cookie crumbs are one field again before they leave HTTP/2.
            let crumbs: Vec<&[u8]> = values.collect();
            out.put("cookie", &crumbs.join(&b"; "[..]));
        } else {
            values.for_each(|value| out.put(name.as_str(), value));
        }
    }
    if told.websocket {
        out.put("connection", b"upgrade");
        out.put("upgrade", b"websocket");
    }
    if told.trailers {
        out.put("te", b"trailers");
    }
    if let Some(hops) = headers.get(header::MAX_FORWARDS) {
        // RFC 9110 §7.6.2.
        let left =
            hops.to_str().ok().and_then(|hops| hops.parse::<u32>().ok()).map_or(0, |hops| hops.saturating_sub(1));
        out.put("max-forwards", left.to_string().as_bytes());
    }
    if let Some(id) = told.id {
        let mut said = [0; 32];
        write_hex(&mut said, id);
        if !change.replaces("x-request-id") {
            out.put("x-request-id", &said);
        }
        if !traced && !change.replaces("traceparent") {
            // W3C Trace Context; whoever is behind decides by the flag whether to record.
            out.put("traceparent", &[b"00-", &said[..], b"-", &said[16..], b"-01"].concat());
        }
    }
    let mut say = |name: &str, value: &[u8]| {
        if !change.replaces(name) {
            out.put(name, value);
        }
    };
    // RFC 9110 §7.6.3 wants a gateway to say in each request that it was on the way. nginx and others take any Via for
    // a shared proxy and stop compressing, so HAProxy and nginx say nothing, and nor do we: the owner runs both ends. Where
    // a proxy before us has said it, the server is no worse off if the list is whole.
    if headers.contains_key(header::VIA) {
        let via = headers.get_all(header::VIA).iter().map(HeaderValue::as_bytes);
        let here = [told.protocol.as_bytes(), b" hearthgate"].concat();
        say("via", &via.chain([&here[..]]).collect::<Vec<_>>().join(&b", "[..]));
    }
    say("x-forwarded-host", told.host.as_str().as_bytes());
    say("x-forwarded-proto", told.scheme.as_bytes());
    if let Some(prefix) = told.prefix {
        say("x-forwarded-prefix", prefix.as_bytes());
    }
    let client = told.client.to_string();
    say("x-forwarded-for", client.as_bytes());
    say("x-real-ip", client.as_bytes());
    for (name, value) in change.said().filter(|(name, _)| **name != header::HOST) {
        out.put(name.as_str(), value.as_bytes());
    }
}

/// Leaves of a response's trailers what may come so late (RFC 9110 §6.5.1): nothing that says how the response is read,
/// who somebody is, or what is kept of it.
pub(super) fn trailers(headers: &mut HeaderMap) {
    to_client(headers);
    for name in [
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_RANGE,
        header::SET_COOKIE,
        header::LOCATION,
        header::WWW_AUTHENTICATE,
        header::CACHE_CONTROL,
        header::EXPIRES,
        header::VARY,
        header::AGE,
        header::DATE,
        header::HOST,
        header::RETRY_AFTER,
        header::STRICT_TRANSPORT_SECURITY,
        header::CONTENT_SECURITY_POLICY,
    ] {
        headers.remove(name);
    }
}

/// Whether a request says of which trace it is a part (W3C Trace Context §3.2). What makes no sense is as good as
/// nothing, and what goes with it too.
fn is_traced(headers: &HeaderMap) -> bool {
    let mut said = headers.get_all("traceparent").iter();
    let (Some(value), None) = (said.next(), said.next()) else { return false };
    let value = value.as_bytes();
    let hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let some = |part: &[u8]| hex(part) && part.iter().any(|byte| *byte != b'0');
    let Some((known, more)) = value.split_at_checked(55) else { return false };
    let mut parts = known.split(|byte| *byte == b'-');
    let (Some(version), Some(trace), Some(parent), Some(flags), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let longer = version != b"00" && more.first() == Some(&b'-');
    (version.len(), trace.len(), parent.len(), flags.len()) == (2, 32, 16, 2)
        && hex(version)
        && version != b"ff"
        && some(trace)
        && some(parent)
        && hex(flags)
        && (more.is_empty() || longer)
}

fn write_hex(out: &mut [u8; 32], id: u128) {
    for (place, slot) in out.iter_mut().rev().enumerate() {
        // Four bits are below 16.
        *slot = b"0123456789abcdef"[(id >> (4 * place)) as usize & 15];
    }
}

/// Turns the fields of a response into those that are sent to the client, framing excepted.
pub(super) fn to_client(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let nominated: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            // A response without them would mean something else (RFC 9110 §7.6.1 forbids naming them).
            .filter(|name| *name != header::CONTENT_LENGTH && *name != header::SET_COOKIE && *name != header::LOCATION)
            .collect();
        for name in nominated {
            headers.remove(name);
        }
    }
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::TRAILER,
        header::UPGRADE,
        header::PROXY_AUTHENTICATE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        // Other ways to this host would pass by the table.
        HeaderName::from_static("alt-svc"),
    ] {
        headers.remove(name);
    }
}

/// Names of hop-by-hop fields (RFC 9110 §7.6.1), of framing, of what only we may say, and of what makes
/// some servers see another path or method than the one that was matched.
fn passes_up(name: &str) -> bool {
    let ours = name.starts_with("x-forwarded")
        || name.contains('_')
        || matches!(
            name,
            "connection"
                | "host"
                | "keep-alive"
                | "proxy-connection"
                | "proxy-authenticate"
                | "proxy-authorization"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "http2-settings"
                | "content-length"
                | "expect"
                | "max-forwards"
                | "forwarded"
                | "via"
                | "x-real-ip"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "client-ip"
                | "true-client-ip"
                | "cf-connecting-ip"
                | "cf-connecting-ipv6"
                | "fastly-client-ip"
                | "x-original-url"
                | "x-original-uri"
                | "x-original-host"
                | "x-original-method"
                | "x-rewrite-url"
                | "x-http-method"
                | "x-http-method-override"
                | "x-method-override"
                | "x-request-id"
                | "x-host"
                | "x-scheme"
                | "x-url-scheme"
        );
    !ours
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn told<'a>(host: &'a CanonicalHost, change: &'a Change) -> Told<'a> {
        Told::ours(host, "203.0.113.9".parse().unwrap(), "https", change)
    }

    #[test]
    fn the_owner_has_the_last_word_on_what_a_server_is_told() {
        let host = CanonicalHost::parse("a.example").unwrap();
        let pair = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let change = Change {
            remove: vec![header::VIA, HeaderName::from_static("x-real-ip")],
            set: vec![pair("host", "inner.example"), pair("x-forwarded-proto", "http"), pair("x-a", "ours")],
            add: vec![pair("x-b", "two")],
        };
        let headers = fields(&[("x-a", "theirs"), ("x-b", "one"), ("via", "1.0 before"), ("max-forwards", "3")]);

        let mut out = BytesMut::new();
        to_upstream(&mut out, &headers, &[], &told(&host, &change));

        let expected = "x-b: one\r\nmax-forwards: 2\r\nx-forwarded-host: a.example\r\n\
                        x-forwarded-for: 203.0.113.9\r\nx-forwarded-proto: http\r\nx-a: ours\r\nx-b: two\r\n";
        assert_eq!(str::from_utf8(&out).unwrap(), expected);
        assert_eq!(told(&host, &change).host(), b"inner.example");
    }

    #[test]
    fn what_the_client_says_of_itself_is_replaced() {
        let change = Change::default();
        let host = CanonicalHost::parse("photos.home.example").unwrap();
        let headers = fields(&[
            ("host", "PHOTOS.home.example:443"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-prefix", "/admin"),
            ("x-real-ip", "10.0.0.1"),
            ("x-original-url", "/admin"),
            ("forwarded", "for=10.0.0.1"),
            ("x-secret", "nominated"),
            ("accept", "*/*"),
        ]);
        let told = told(&host, &change);
        let nominated = [HeaderName::from_static("x-secret"), HeaderName::from_static("x-forwarded-for")];

        let mut out = BytesMut::new();
        to_upstream(&mut out, &headers, &nominated, &told);

        let expected = "accept: */*\r\n\
                        x-forwarded-host: photos.home.example\r\nx-forwarded-proto: https\r\n\
                        x-forwarded-for: 203.0.113.9\r\nx-real-ip: 203.0.113.9\r\n";
        assert_eq!(str::from_utf8(&out).unwrap(), expected);
    }

    #[test]
    fn a_trace_is_passed_on_and_what_makes_no_sense_is_begun_anew() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let sent = |said: &[&str]| {
            let host = CanonicalHost::parse("a.example").unwrap();
            let change = Change::default();
            let mut headers = fields(&[("tracestate", "vendor=1")]);
            for value in said {
                headers.append("traceparent", value.parse().unwrap());
            }
            let mut out = BytesMut::new();
            to_upstream(&mut out, &headers, &[], &Told { id: Some(7), ..told(&host, &change) });
            let text = String::from_utf8(out.to_vec()).unwrap();
            let own = text.contains("traceparent: 00-00000000000000000000000000000007-0000000000000007-01\r\n");
            assert_eq!(text.matches("traceparent: ").count(), 1, "{text}");
            assert_eq!(text.contains("tracestate: vendor=1"), !own, "{text}");
            !own
        };

        assert!(sent(&[good]));
        assert!(sent(&["01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-may-come"]));
        for bad in [
            "",
            "x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
            "000af7651916cd43dd8448eb211c80319cb7ad6b716920333101----",
        ] {
            assert!(!sent(&[bad]), "{bad}");
        }
        assert!(!sent(&[good, good]) && !sent(&[]));
    }

    #[test]
    fn cookie_crumbs_become_one_field() {
        let change = Change::default();
        let host = CanonicalHost::parse("a.example").unwrap();
        let headers = fields(&[("cookie", "a=1"), ("cookie", "b=2")]);
        let told = told(&host, &change);

        let mut out = BytesMut::new();
        to_upstream(&mut out, &headers, &[], &told);

        let cookies: Vec<_> = str::from_utf8(&out).unwrap().lines().filter(|line| line.starts_with("cookie")).collect();
        assert_eq!(cookies, ["cookie: a=1; b=2"]);
    }
}
