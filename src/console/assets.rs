//! What pages are made of besides themselves: compiled in, named by its digest so that it may be kept for ever, and
//! compressed once, at the first look.

use std::{io::Write, sync::LazyLock};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderValue},
};
use sha2::{Digest, Sha256};

/// Below this path.
const ROOT: &str = "/assets/";

pub(super) static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("console", "css", "text/css; charset=utf-8", include_str!("assets/console.css")));
pub(super) static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("console", "js", "text/javascript; charset=utf-8", include_str!("assets/console.js")));
pub(super) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("assets/icon.svg")));

/// One file.
pub(super) struct Asset {
    /// Its path, with a part of its digest in it.
    pub(super) path: String,
    kind: &'static str,
    plain: Bytes,
    brotli: Bytes,
    gzip: Bytes,
}

impl Asset {
    fn new(name: &str, ending: &str, kind: &'static str, text: &'static str) -> Self {
        let digest: String = Sha256::digest(text).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let mut brotli = Vec::new();
        let parameters = brotli::enc::BrotliEncoderParams { lgwin: 16, ..Default::default() };
        // Writing to memory does not fail.
        let _ = brotli::BrotliCompress(&mut text.as_bytes(), &mut brotli, &parameters);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        let _ = gzip.write_all(text.as_bytes());
        Self {
            path: format!("{ROOT}{name}.{digest}.{ending}"),
            kind,
            plain: Bytes::from_static(text.as_bytes()),
            brotli: brotli.into(),
            gzip: gzip.finish().unwrap_or_default().into(),
        }
    }

    fn answer(&self, headers: &HeaderMap) -> Response<Bytes> {
        let offered = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let codings = offered.split(',').map(|coding| coding.split_once(';').unwrap_or((coding, "")));
        let takes = |wanted: &str| {
            let found = codings.clone().find(|(coding, _): &(&str, &str)| coding.trim() == wanted);
            found.is_some_and(|(_, quality)| !matches!(quality.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        };
        let (body, coding) = if takes("br") {
            (&self.brotli, Some("br"))
        } else if takes("gzip") {
            (&self.gzip, Some("gzip"))
        } else {
            (&self.plain, None)
        };
        let mut response = Response::new(body.clone());
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable"));
        fields.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if let Some(coding) = coding {
            fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        response
    }
}

/// Answers what is asked of the assets; `None` if it is something else.
pub(super) fn answer(path: &str, headers: &HeaderMap) -> Option<Response<Bytes>> {
    if !path.starts_with(ROOT) {
        return None;
    }
    let assets: [&Asset; 3] = [&STYLE, &SCRIPT, &ICON];
    let found = assets.into_iter().find(|asset| asset.path == path);
    Some(found.map_or_else(
        || {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        },
        |asset| asset.answer(headers),
    ))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn sent(asset: &Asset, offered: &'static str) -> Response<Bytes> {
        let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(offered))]);
        answer(&asset.path, &headers).unwrap()
    }

    #[test]
    fn all_of_it_is_small_and_the_same_in_every_coding() {
        let mut bytes = 0;
        for asset in [&*STYLE, &*SCRIPT, &*ICON] {
            let (mut brotli, mut gzip) = (Vec::new(), Vec::new());
            let sent_brotli = sent(asset, "gzip, deflate, br");
            brotli::BrotliDecompress(&mut &sent_brotli.body()[..], &mut brotli).unwrap();
            flate2::read::GzDecoder::new(&sent(asset, "gzip").body()[..]).read_to_end(&mut gzip).unwrap();

            assert_eq!(sent_brotli.headers()["content-encoding"], "br");
            assert_eq!((&brotli[..], &gzip[..]), (&asset.plain[..], &asset.plain[..]));
            assert!(!sent(asset, "br;q=0, x").headers().contains_key("content-encoding"));
            bytes += sent_brotli.body().len();
        }
        assert!(bytes < 100 * 1024, "{bytes}");
        assert_eq!(answer("/assets/console.css", &HeaderMap::new()).unwrap().status(), 404);
    }

    #[test]
    fn nothing_names_another_host() {
        for asset in [&*STYLE, &*SCRIPT, &*ICON] {
            let text = std::str::from_utf8(&asset.plain).unwrap().replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("://") && !text.contains("@import") && !text.contains("url("), "{}", asset.path);
        }
    }
}
