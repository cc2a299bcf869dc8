use proptest::prelude::*;

use super::*;

pub(in crate::ingress) mod data;

fn host(text: &str) -> Option<String> {
    CanonicalHost::parse(text).ok().map(|host| host.0)
}

fn path(text: &str) -> Option<String> {
    CanonicalPath::parse(text).ok().map(|path| path.0)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn one_host_has_one_form() {
    assert_eq!(host("Photos.Home.Example."), some("photos.home.example"));
    assert_eq!(host("my_nas"), some("my_nas"));
    assert_eq!(host("XN--MNCHEN-3YA.example"), some("xn--mnchen-3ya.example"));
    assert_eq!(host("192.168.1.2"), some("192.168.1.2"));
    assert_eq!(host("[FD00:0::1]"), some("[fd00::1]"));
}

#[test]
fn what_is_no_host_is_refused() {
    for text in [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a..",
        "public@admin",
        "%61dmin",
        "a b",
        " a",
        "a,b",
        "a/b",
        "a:80",
        "a\tb",
        "ａdmin",
        "münchen",
        "-a",
        "a-",
        "127.1",
        "0x7f000001",
        "0x7f.1",
        "01.2.3.4",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "4294967295",
        "a.0x",
        "::1",
        "[::1",
        "::1]",
        "[::1]x",
        "[fe80::1%eth0]",
        "[1.2.3.4]",
        "xn--a",
        "xn--zca.xn--a",
        "a\0",
        "a\\b",
        "a#",
        "a?",
        "*.a",
    ] {
        assert_eq!(host(text), None, "{text:?}");
    }
    assert_eq!(host(&"a".repeat(64)), None);
    assert_eq!(host(&["a".repeat(63).as_str(); 4].join(".")), None);
}

#[test]
fn an_authority_is_a_host_and_perhaps_a_port() {
    let read = |text| CanonicalHost::from_authority(text).ok().map(|(host, port)| (host.0, port));

    assert_eq!(read("A.b:8443"), Some(("a.b".to_owned(), Some(8443))));
    assert_eq!(read("[::1]:1"), Some(("[::1]".to_owned(), Some(1))));
    assert_eq!(read("[::1]"), Some(("[::1]".to_owned(), None)));
    for text in ["a:", "a:0", "a:080", "a:+80", "a: 80", "a:65536", "a:80:80", ":80", "u@a:80", "[::1]x:80", "::1"] {
        assert_eq!(read(text), None, "{text:?}");
    }
}

#[test]
fn a_configured_name_becomes_its_a_label() {
    let read = |text| CanonicalHost::from_unicode(text).ok().map(|host| host.0);

    assert_eq!(read("München.example."), some("xn--mnchen-3ya.example"));
    assert_eq!(read("faß.de"), some("xn--fa-hia.de"));
    assert_eq!(read("NAS.home.arpa"), some("nas.home.arpa"));
    assert_eq!(read("ａdmin@b"), None);
    assert_eq!(read("１２７.1"), None);
}

#[test]
fn addresses_are_told_from_names() {
    let address = |text| CanonicalHost::parse(text).ok().and_then(|host| host.address());

    assert_eq!(address("10.0.0.1"), Some("10.0.0.1".parse().unwrap()));
    assert_eq!(address("[fd00::1]"), Some("fd00::1".parse().unwrap()));
    assert_eq!(address("a.10"), None);
    assert_eq!(address("nas"), None);
}

#[test]
fn one_path_has_one_form() {
    assert_eq!(path("/"), some("/"));
    assert_eq!(path("/%61dmin/%7euser%2d"), some("/admin/~user-"));
    assert_eq!(path("/a%c3%a4"), some("/a%C3%A4"));
    assert_eq!(path("/a[1]|{x}"), path("/a%5b1%5D%7c%7Bx%7d"));
    assert_eq!(path("//admin///x//"), some("/admin/x/"));
    assert_eq!(path("/%252e%252E/%252f"), some("/%252e%252E/%252f"));
    assert_eq!(path("/a;v=1/b"), some("/a;v=1/b"));
    assert_eq!(path("/.well-known/..x/..."), some("/.well-known/..x/..."));
}

#[test]
fn what_has_two_readings_is_refused() {
    for text in [
        "",
        "*",
        "a",
        "http://a/",
        "/.",
        "/..",
        "/./",
        "/../",
        "/a/../b",
        "/a/..",
        "/a/%2e%2E/b",
        "/a/.%2e",
        "/%2e",
        "/..;/a",
        "/.;x/a",
        "/..%3b/a",
        "/;/a",
        "/a/;x",
        "/%3Bx",
        "/a\\b",
        "/a%5cb",
        "/a%2fb",
        "/a%2Fb",
        "/a%00",
        "/a%0a",
        "/%7f",
        "/a b",
        "/a#b",
        "/a?b",
        "/ä",
        "/%",
        "/%2",
        "/%zz",
        "/%u002e",
        "/%+1",
        "/%c0%ae",
        "/%C1%81",
        "/%e0%80%af",
        "/%f0%80%80%af",
        "/%f8%80%80%80%af",
        "/a\tb",
        "/\0",
        "/\u{7f}",
    ] {
        assert_eq!(path(text), None, "{text:?}");
    }
}

#[test]
fn prefixes_are_whole_segments() {
    let starts =
        |path, prefix| CanonicalPath::parse(path).unwrap().starts_with_prefix(&CanonicalPath::parse(prefix).unwrap());

    for (path, prefix) in [
        ("/", "/"),
        ("/a", "/"),
        ("/a", "/a"),
        ("/a/", "/a"),
        ("/a/b", "/a"),
        ("/a", "/a/"),
        ("//a/b", "/a/b"),
        ("/%61/b", "/a"),
        ("/a;x/b", "/a/b"),
        ("/a;x", "/a"),
        ("/a%3bx/b", "/a/b"),
        ("/a%21/b", "/a!"),
        ("/a!/b", "/a%21/b"),
        ("/a%40b", "/a@b/"),
    ] {
        assert!(starts(path, prefix), "{path} {prefix}");
    }
    for (path, prefix) in [
        ("/ab", "/a"),
        ("/", "/a"),
        ("/A", "/a"),
        ("/a", "/a/b"),
        ("/a%2525", "/a%25"),
        ("/ab;/a", "/a"),
        ("/b/a", "/a"),
    ] {
        assert!(!starts(path, prefix), "{path} {prefix}");
    }
}

#[test]
fn a_closed_path_is_closed_in_every_form() {
    let might =
        |path: &str| CanonicalPath::parse(path).unwrap().might_be_under(&CanonicalPath::parse("/app/Admin").unwrap());

    for path in [
        "/app/Admin",
        "/app/Admin/x",
        "/APP/admin",
        "/app/admin./x",
        "/app/admin%20",
        "/app/admin%20.",
        "/app;x/admin;y",
        "/app/%2561dmin",
        "/app%252fadmin",
        "/x%252f..%252fapp/admin",
        "/app/x/%252e%252e/admin",
        "/app%255cadmin",
        "/%252e/app/admin",
        "/app/admin%2500.png",
        "/app/admin%3Fx",
        "/app/admin%23x",
        "/app/Admin/%252e%252e/x",
        "/app/%25252561dmin",
    ] {
        assert!(might(path), "{path}");
    }
    for path in ["/", "/app", "/app/administration", "/app/x/admin", "/admin", "/app/.admin", "/app/100%25"] {
        assert!(!might(path), "{path}");
    }
}

/// Text in which the bytes that matter are frequent.
fn hostile() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "/", "/", ".", "..", "%2e", "%2E", "%2f", "%5C", "\\", ";", "%3b", "%", "%25", "%00", "%c0%ae", "%e2%80", "a",
        "B", "%41", "admin", " ", "#", "[", "%5b", "!", "%21", "\u{e9}", "\u{7f}", ":", "@", "-", "_", "xn--", "1",
        "0x",
    ]);
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn a_canonical_path_has_one_reading(text in hostile()) {
        if let Ok(path) = CanonicalPath::parse(&format!("/{text}")) {
            has_one_reading(&path);
            prop_assert!(path.might_be_under(&path) && path.starts_with_prefix(&path));
        }
    }

    #[test]
    fn any_text_is_a_path_or_refused(text in any::<String>()) {
        if let Ok(path) = CanonicalPath::parse(&format!("/{text}")) {
            has_one_reading(&path);
        }
    }

    #[test]
    fn a_canonical_host_stays_as_it_is(text in hostile(), any in any::<String>()) {
        for text in [text, any] {
            if let Ok(host) = CanonicalHost::parse(&text) {
                prop_assert_eq!(CanonicalHost::parse(host.as_str()), Ok(host.clone()));
                prop_assert!(host.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.[]:".contains(&b)));
            }
            let _ = CanonicalHost::from_unicode(&text);
            let _ = CanonicalHost::from_authority(&text);
        }
    }

    #[test]
    fn escaping_more_changes_no_match(text in "/[a-z!@$]{1,3}(/[a-z!@$]{1,3}){0,2}", tail in "(/[a-z]{0,2}){0,2}") {
        let prefix = CanonicalPath::parse(&text).unwrap();
        let escaped: String = text.bytes().map(|b| if b == b'/' { "/".to_owned() } else { format!("%{b:02x}") }).collect();

        prop_assert!(CanonicalPath::parse(&(text + &tail)).unwrap().starts_with_prefix(&prefix));
        prop_assert!(CanonicalPath::parse(&(escaped + &tail)).unwrap().starts_with_prefix(&prefix));
    }
}

/// What rule 5 is about, told by a decoder that is as lenient as the worst upstream.
fn has_one_reading(path: &CanonicalPath) {
    let text = path.as_str();
    assert_eq!(CanonicalPath::parse(text).as_ref(), Ok(path));
    assert!(
        text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'#' && b != b'?')
    );
    assert!(!text.contains("//"), "{text}");

    let bytes = decode_leniently(text);
    assert!(!bytes.contains(&u32::from('\\')) && bytes.iter().all(|&c| c >= 32 && c != 127), "{text}");
    assert_eq!(bytes.iter().filter(|&&c| c == 47).count(), text.matches('/').count(), "{text}");
    for segment in bytes.split(|&c| c == 47) {
        let name = segment.split(|&c| c == 59).next().unwrap();
        assert!(name != [46] && name != [46, 46], "{text}");
        assert!(!name.is_empty() || segment.is_empty(), "{text}");
    }
}

/// Decodes escapes, and then UTF-8 without a look at whether a sequence is the shortest.
fn decode_leniently(text: &str) -> Vec<u32> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => (hex_value(*high).unwrap() * 16 + hex_value(*low).unwrap(), tail),
            _ => (*first, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
    let mut out = Vec::new();
    let mut rest = bytes.as_slice();
    while let [first, tail @ ..] = rest {
        let len = (first.leading_ones() as usize).clamp(1, 6) - 1;
        let sequence = tail.get(..len).filter(|_| *first >= 0xc0).filter(|tail| tail.iter().all(|&b| b >> 6 == 2));
        match sequence {
            Some(sequence) => {
                let start = u32::from(*first) & (0x3f >> len);
                out.push(sequence.iter().fold(start, |c, &b| (c << 6) | u32::from(b & 0x3f)));
                rest = &tail[len..];
            }
            None => {
                out.push(u32::from(*first));
                rest = tail;
            }
        }
    }
    out
}
