//! Compressed responses, for routes that ask for it.
//!
//! A secret that is compressed together with what an attacker chooses shows itself in the length (BREACH). So what
//! is for somebody in particular is left as it is: answers of routes that ask who somebody is, answers to requests with
//! any field that may say it (a cookie, an authorization, a key of some API's own), and answers that set a cookie or are
//! `private` or `no-store`. What the server behind calls `public` is compressed for everybody.

use std::{io::Write, sync::Arc};

use bytes::Bytes;
use flate2::write::GzEncoder;
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use crate::ingress::upstream::STICKY;

/// What is shorter gains nothing.
const SHORT: u64 = 1024;
/// Of brotli: about as fast as gzip and a fifth smaller, with a window of 256 KiB.
const QUALITY: u32 = 4;
const WINDOW: u32 = 18;
/// Bodies that are compressed at a time, by all cores; each has up to 1 MiB of working memory.
const MOST: usize = 32;

/// A content coding that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// `br`
    Brotli,
    /// `gzip`
    Gzip,
}

impl Coding {
    /// Returns its name, as it stands in fields.
    pub fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// What of a request decides whether its answer is compressed.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::ingress) struct Taste {
    offered: bool,
    coding: Option<Coding>,
    /// The answer may be for this client alone.
    personal: bool,
}

/// What is done with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingress) enum Verdict {
    /// Nothing.
    Leave,
    /// It would have been compressed for another client.
    Vary,
    /// It is compressed.
    Compress(Coding),
}

impl Taste {
    /// Reads what a client takes; `guarded` routes ask who somebody is.
    pub(in crate::ingress) fn of(offered: &[Coding], method: &Method, headers: &HeaderMap, guarded: bool) -> Self {
        if offered.is_empty() || *method == Method::HEAD || headers.contains_key(header::RANGE) {
            return Self::default();
        }
        let personal = guarded || !headers.keys().all(|name| says_nothing(name) || is_ours(name, headers));
        Self { offered: true, coding: preferred(offered, headers), personal }
    }

    /// Decides; `length` is how long the body is, if that is known.
    pub(in crate::ingress) fn judge(self, status: StatusCode, headers: &HeaderMap, length: Option<u64>) -> Verdict {
        let says = |name: HeaderName, word: &str| {
            let mut lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
            // `private="field"` is taken for the whole.
            let bare = |said: &str| said.split('=').next().unwrap_or_default().trim().to_owned();
            lines.any(|line| line.split(',').any(|said| bare(said).eq_ignore_ascii_case(word)))
        };
        let fits = self.offered
            && matches!(status, StatusCode::OK | StatusCode::NOT_FOUND)
            && !headers.contains_key(header::CONTENT_ENCODING)
            && !headers.contains_key(header::CONTENT_RANGE)
            && headers.get_all(header::SET_COOKIE).iter().all(|cookie| is_stickiness(cookie.as_bytes()))
            && !["no-transform", "no-store", "private"].iter().any(|word| says(header::CACHE_CONTROL, word))
            && (!self.personal || says(header::CACHE_CONTROL, "public"))
            && length.is_none_or(|length| length >= SHORT)
            && headers.get(header::CONTENT_TYPE).is_some_and(|kind| is_text(kind.as_bytes()));
        match self.coding {
            _ if !fits => Verdict::Leave,
            None => Verdict::Vary,
            Some(coding) => Verdict::Compress(coding),
        }
    }
}

/// Fields that browsers and proxies send whoever somebody is. Any other may hold a secret under a name of its own.
fn says_nothing(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("accept")
        || name.starts_with("sec-")
        || name.starts_with("x-forwarded-")
        || matches!(
            name,
            "host"
                | "user-agent"
                | "connection"
                | "keep-alive"
                | "upgrade-insecure-requests"
                | "cache-control"
                | "pragma"
                | "priority"
                | "te"
                | "dnt"
                | "save-data"
                | "origin"
                | "referer"
                | "if-none-match"
                | "if-modified-since"
                | "content-length"
                | "content-type"
                | "via"
                | "forwarded"
                | "x-real-ip"
                | "x-requested-with"
                | "x-request-id"
                | "traceparent"
                | "tracestate"
                | "max-forwards"
        )
}

/// A cookie field that holds nothing but which server a client stays with: everybody may know that.
fn is_ours(name: &HeaderName, headers: &HeaderMap) -> bool {
    *name == header::COOKIE
        && headers
            .get_all(name)
            .iter()
            .all(|crumbs| crumbs.as_bytes().split(|byte| *byte == b';').all(|crumb| is_stickiness(crumb.trim_ascii())))
}

fn is_stickiness(cookie: &[u8]) -> bool {
    cookie.strip_prefix(STICKY.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
}

/// Says of a response what becomes of it.
pub(in crate::ingress) fn announce(verdict: Verdict, headers: &mut HeaderMap) {
    if verdict == Verdict::Leave {
        return;
    }
    let mut varies = headers.get_all(header::VARY).iter().filter_map(|line| line.to_str().ok());
    let said = varies.any(|line| {
        line.split(',').any(|name| name.trim() == "*" || name.trim().eq_ignore_ascii_case("accept-encoding"))
    });
    if !said {
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    let Verdict::Compress(coding) = verdict else { return };
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    // Of other bytes: their length, parts of them, digests of them.
    for name in ["content-length", "accept-ranges", "content-md5", "content-digest", "repr-digest", "digest"] {
        headers.remove(name);
    }
    // RFC 9110 §8.8.1: the same content in other bytes has a weak validator.
    if let Some(tag) = headers.get(header::ETAG)
        && !tag.as_bytes().starts_with(b"W/")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        headers.insert(header::ETAG, weak);
    }
}

/// What shrinks. Events are left alone: each is short, and clients wait for each.
fn is_text(kind: &[u8]) -> bool {
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    let Ok(kind) = std::str::from_utf8(&kind) else { return false };
    (kind.starts_with("text/") && kind != "text/event-stream")
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
        || matches!(
            kind,
            "application/json"
                | "application/javascript"
                | "application/xml"
                | "application/wasm"
                | "application/x-javascript"
                | "application/vnd.ms-fontobject"
                | "font/ttf"
                | "font/otf"
                | "image/bmp"
        )
}

/// Chooses by RFC 9110 §12.5.3; what the client likes as much as another is chosen in our order.
fn preferred(offered: &[Coding], headers: &HeaderMap) -> Option<Coding> {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    let said: Vec<(&str, u16)> = lines.flat_map(|line| line.split(',')).filter_map(weighted).collect();
    let weight = |name: &str| {
        let named = said.iter().find(|(coding, _)| coding.eq_ignore_ascii_case(name));
        named.or_else(|| said.iter().find(|(coding, _)| *coding == "*")).map_or(0, |(_, weight)| *weight)
    };
    let mut best = None;
    for coding in offered {
        let weight = weight(coding.name());
        if weight > 0 && best.is_none_or(|(_, before)| weight > before) {
            best = Some((*coding, weight));
        }
    }
    best.map(|(coding, _)| coding)
}

/// Reads `gzip;q=0.5`, in thousandths; what cannot be read is not wanted.
fn weighted(text: &str) -> Option<(&str, u16)> {
    let (coding, parameters) = text.split_once(';').unwrap_or((text, "q=1"));
    let weight: f32 = parameters.trim().strip_prefix(['q', 'Q'])?.trim().strip_prefix('=')?.trim().parse().ok()?;
    // At most 1000.
    (0.0..=1.0).contains(&weight).then(|| (coding.trim(), (weight * 1000.0) as u16))
}

/// Compresses one body, piece by piece.
pub(in crate::ingress) struct Compressor {
    _counted: Arc<()>,
    encoder: Option<Encoder>,
    /// Something was written that has not come out yet.
    holds: bool,
}

enum Encoder {
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Compressor {
    /// `None` if so many are at work already that memory would be at stake.
    pub(in crate::ingress) fn new(coding: Coding, counted: &Arc<()>) -> Option<Self> {
        if Arc::strong_count(counted) > MOST {
            return None;
        }
        let encoder = match coding {
            Coding::Brotli => {
                Encoder::Brotli(Box::new(brotli::CompressorWriter::new(Vec::new(), 4096, QUALITY, WINDOW)))
            }
            Coding::Gzip => Encoder::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(5))),
        };
        Some(Self { _counted: counted.clone(), encoder: Some(encoder), holds: false })
    }

    /// Takes a piece; returns what has come out meanwhile.
    pub(in crate::ingress) fn write(&mut self, data: &[u8]) -> Bytes {
        self.holds |= !data.is_empty();
        self.step(|writer| writer.write_all(data))
    }

    /// Brings out all that was taken, if anything is left: nobody is to wait for what is known already.
    pub(in crate::ingress) fn flush(&mut self) -> Bytes {
        match std::mem::take(&mut self.holds) {
            true => self.step(|writer| writer.flush()),
            false => Bytes::new(),
        }
    }

    /// Ends the body; empty from the second time on.
    pub(in crate::ingress) fn finish(&mut self) -> Bytes {
        match self.encoder.take() {
            Some(Encoder::Brotli(writer)) => writer.into_inner().into(),
            Some(Encoder::Gzip(writer)) => writer.finish().unwrap_or_default().into(),
            None => Bytes::new(),
        }
    }

    fn step(&mut self, work: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Bytes {
        // Writing to memory does not fail.
        let out = match &mut self.encoder {
            Some(Encoder::Brotli(writer)) => {
                let _ = work(&mut **writer);
                writer.get_mut()
            }
            Some(Encoder::Gzip(writer)) => {
                let _ = work(writer);
                writer.get_mut()
            }
            None => return Bytes::new(),
        };
        std::mem::take(out).into()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    const BOTH: [Coding; 2] = [Coding::Brotli, Coding::Gzip];

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn verdict(request: &[(&'static str, &'static str)], response: &[(&'static str, &'static str)]) -> Verdict {
        let taste = Taste::of(&BOTH, &Method::GET, &fields(request), false);
        taste.judge(StatusCode::OK, &fields(response), None)
    }

    #[test]
    fn a_client_gets_what_it_likes_best() {
        let chosen = |said: &'static str| preferred(&BOTH, &fields(&[("accept-encoding", said)]));

        assert_eq!(chosen("gzip, deflate, br, zstd"), Some(Coding::Brotli));
        assert_eq!(chosen("gzip"), Some(Coding::Gzip));
        assert_eq!(chosen("br;q=0.5, gzip;q=0.8"), Some(Coding::Gzip));
        assert_eq!(chosen("*;q=0.1, br;q=0"), Some(Coding::Gzip));
        assert_eq!(chosen("identity"), None);
        assert_eq!(chosen("br;q=nan, gzip;q=2"), None);
        assert_eq!(preferred(&BOTH, &HeaderMap::new()), None);
    }

    #[test]
    fn what_may_hold_a_secret_is_left_as_it_is() {
        let takes = ("accept-encoding", "br");
        let page = ("content-type", "text/html; charset=utf-8");
        let compressed = Verdict::Compress(Coding::Brotli);

        assert_eq!(verdict(&[takes], &[page]), compressed);
        assert_eq!(verdict(&[], &[page]), Verdict::Vary);
        for field in ["cookie", "authorization", "x-api-key", "x-auth-token", "private-token", "x-plex-token"] {
            assert_eq!(verdict(&[takes, (field, "x")], &[page]), Verdict::Leave, "{field}");
            let public = ("cache-control", "max-age=60, Public");
            assert_eq!(verdict(&[takes, (field, "x")], &[page, public]), compressed, "{field}");
        }
        assert_eq!(verdict(&[takes, ("range", "bytes=0-")], &[page]), Verdict::Leave);
        for (name, value) in [
            ("set-cookie", "a=b"),
            ("content-encoding", "gzip"),
            ("content-range", "bytes 0-1/2"),
            ("cache-control", "no-transform"),
            ("cache-control", "private"),
            ("cache-control", "max-age=0, No-Store"),
            ("cache-control", "private=\"x-a\", public"),
        ] {
            assert_eq!(verdict(&[takes], &[page, (name, value)]), Verdict::Leave, "{name}");
        }
        for kind in ["text/event-stream", "image/png", "application/grpc", "video/mp4", ""] {
            assert_eq!(verdict(&[takes], &[("content-type", kind)]), Verdict::Leave, "{kind}");
        }
        let taste = |method, guarded| Taste::of(&BOTH, &method, &fields(&[takes]), guarded);
        let judge = |taste: Taste, length| taste.judge(StatusCode::OK, &fields(&[page]), length);
        assert_eq!(judge(taste(Method::GET, true), None), Verdict::Leave);
        assert_eq!(judge(taste(Method::HEAD, false), None), Verdict::Leave);
        assert_eq!(judge(taste(Method::GET, false), Some(SHORT - 1)), Verdict::Leave);
        assert_eq!(judge(Taste::of(&[], &Method::GET, &fields(&[takes]), false), None), Verdict::Leave);
    }

    #[test]
    fn which_server_a_client_stays_with_is_no_secret() {
        let (takes, page) = (("accept-encoding", "br"), ("content-type", "text/html"));
        let compressed = Verdict::Compress(Coding::Brotli);
        let ours = "hearthgate-server=0123456789abcdef";

        assert_eq!(verdict(&[takes, ("cookie", ours)], &[page]), compressed);
        assert_eq!(verdict(&[takes], &[page, ("set-cookie", ours)]), compressed);
        for other in ["hearthgate-server=0123456789abcdef; session=x", "hearthgate-servers=1", ""] {
            assert_eq!(verdict(&[takes, ("cookie", other)], &[page]), Verdict::Leave, "{other}");
        }
        assert_eq!(verdict(&[takes], &[page, ("set-cookie", ours), ("set-cookie", "a=b")]), Verdict::Leave);
    }

    #[test]
    fn what_browsers_send_to_everybody_is_no_secret() {
        let page = ("content-type", "text/html");
        let browser = [
            ("accept-encoding", "br"),
            ("accept-language", "de"),
            ("host", "a.example"),
            ("user-agent", "x"),
            ("sec-fetch-mode", "navigate"),
            ("upgrade-insecure-requests", "1"),
            ("if-none-match", "\"a\""),
            ("x-forwarded-for", "203.0.113.9"),
        ];

        assert_eq!(verdict(&browser, &[page]), Verdict::Compress(Coding::Brotli));
    }

    #[test]
    fn other_bytes_have_another_validator() {
        let mut headers = fields(&[("etag", "\"a\""), ("content-length", "2000"), ("vary", "cookie")]);

        announce(Verdict::Compress(Coding::Gzip), &mut headers);
        announce(Verdict::Vary, &mut headers);

        assert_eq!(
            (&headers["etag"], &headers["content-encoding"]),
            (&"W/\"a\"".parse().unwrap(), &"gzip".parse().unwrap())
        );
        assert!(!headers.contains_key("content-length"));
        assert_eq!(headers.get_all("vary").iter().collect::<Vec<_>>(), ["cookie", "accept-encoding"]);
    }

    fn unpacked(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).unwrap(),
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap(),
        };
        out
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..2000), any::<bool>()), 0..8)) {
            for coding in BOTH {
                let mut compressor = Compressor::new(coding, &Arc::new(())).unwrap();
                let mut out = Vec::new();
                for (piece, flushed) in &pieces {
                    out.extend(compressor.write(piece));
                    if *flushed {
                        out.extend(compressor.flush());
                    }
                }
                out.extend(compressor.finish());
                prop_assert!(compressor.finish().is_empty());
                prop_assert_eq!(unpacked(coding, &out), pieces.iter().flat_map(|(piece, _)| piece.clone()).collect::<Vec<_>>());
            }
        }
    }
}
