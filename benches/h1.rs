//! What the head and body of a small request cost.

use std::{hint::black_box, time::SystemTime};

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hearthgate::ingress::{
    canonical::{CanonicalHost, CanonicalPath},
    h1::{
        body::{Decoder, Encoder, Piece},
        head::{Framing, Limits, Parse, Version, parse},
        response::{Date, Persistence, ResponseFraming, encode},
    },
};
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{self, HeaderValue},
};

/// What a browser sends for a picture.
const REQUEST: &[u8] = b"GET /photos/thumbnails/2024/07/img_1234.jpg?size=320 HTTP/1.1\r\n\
    Host: photos.home.example\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\n\
    Referer: https://photos.home.example/photos\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\n\
    \r\n";

fn heads(c: &mut Criterion) {
    let limits = Limits::new(16 * 1024, 100);
    let mut group = c.benchmark_group("h1_head");
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    group.bench_function("parse_8_fields", |b| {
        b.iter(|| match parse(black_box(REQUEST), &limits) {
            Ok(Parse::Complete { used, .. }) => used,
            _ => unreachable!("the request is good"),
        });
    });
    group.bench_function("partial", |b| {
        let part = REQUEST.split_at(REQUEST.len() - 2).0;
        b.iter(|| matches!(parse(black_box(part), &limits), Ok(Parse::Partial)));
    });
    group.finish();
}

fn canonical(c: &mut Criterion) {
    c.bench_function("h1_host", |b| b.iter(|| CanonicalHost::from_authority(black_box("photos.home.example"))));
    c.bench_function("h1_path", |b| {
        b.iter(|| CanonicalPath::parse(black_box("/photos/thumbnails/2024/07/img%5F1234.jpg")));
    });
    let path = CanonicalPath::parse("/photos/thumbnails/2024/07/img_1234.jpg").expect("is canonical");
    let prefix = CanonicalPath::parse("/photos").expect("is canonical");
    c.bench_function("h1_prefix", |b| b.iter(|| black_box(&path).starts_with_prefix(black_box(&prefix))));
}

fn responses(c: &mut Criterion) {
    let headers: HeaderMap = [
        (header::CONTENT_TYPE, "image/jpeg"),
        (header::SERVER, "upstream"),
        (header::LAST_MODIFIED, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (header::ETAG, "\"0123456789abcdef\""),
        (header::CACHE_CONTROL, "max-age=3600"),
    ]
    .into_iter()
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
    .collect();
    let mut date = Date::new(SystemTime::now());
    let mut out = BytesMut::with_capacity(4096);
    c.bench_function("h1_response_head", |b| {
        b.iter(|| {
            out.clear();
            date.update(SystemTime::now());
            let framing = ResponseFraming::choose(&Method::GET, StatusCode::OK, Version::Http11, black_box(Some(4096)));
            encode(&mut out, Version::Http11, StatusCode::OK, &headers, framing, Persistence::KeepAlive, Some(&date));
            out.len()
        });
    });
}

fn bodies(c: &mut Criterion) {
    let mut body = BytesMut::new();
    let mut encoder = Encoder::Chunked;
    for _ in 0..64 {
        encoder.put(&[b'x'; 16 * 1024], &mut body).expect("chunks may have any length");
    }
    body.extend_from_slice(encoder.finish().expect("chunks may end"));
    let mut group = c.benchmark_group("h1_body");
    group.throughput(Throughput::Elements(64));
    group.bench_function("decode_chunks", |b| {
        b.iter(|| {
            let mut decoder = Decoder::new(Framing::Chunked);
            let mut rest = body.as_ref();
            let mut data = 0;
            while let Ok(Piece::Data(range)) = decoder.decode(black_box(rest)) {
                data += range.len();
                rest = rest.get(range.end..).unwrap_or_default();
            }
            data
        });
    });
    group.finish();
}

criterion_group!(benches, heads, canonical, responses, bodies);
criterion_main!(benches);
