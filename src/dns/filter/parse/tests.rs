use super::*;

/// Reads a list and writes what was found as text: `=name`, `<name` (below), `*name` (both), `@` before an
/// exception, or the reason.
fn found(list: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    read(list, |_, _, thing| {
        all.push(match thing {
            Found::Ignored(reason) => format!("{reason:?}"),
            Found::Pattern { expression, sense, .. } => {
                let exception = if sense == Sense::Exception { "@" } else { "" };
                format!("{exception}/{}/", expression.text())
            }
            Found::Net { net, .. } => net.to_string(),
            Found::Name { name, reach, sense, .. } => {
                let exception = if sense == Sense::Exception { "@" } else { "" };
                let reach = match reach {
                    Reach::Exact => "=",
                    Reach::Below => "<",
                    Reach::Subtree => "*",
                };
                format!("{exception}{reach}{}", text_of(name))
            }
        });
    })
    .unwrap();
    all
}

fn text_of(mut name: &[u8]) -> String {
    let mut labels = Vec::new();
    while let [length, rest @ ..] = name
        && *length > 0
    {
        let (label, rest) = rest.split_at(usize::from(*length));
        labels.push(String::from_utf8(label.to_vec()).unwrap());
        name = rest;
    }
    assert_eq!(name, [0]);
    labels.join(".")
}

#[test]
fn hosts_lines_name_hosts_exactly() {
    let list = b"\xef\xbb\xbf# a hosts file\r\n\
        127.0.0.1 localhost\r\n\
        ::1 ip6-localhost ip6-loopback\n\
        fe80::1%lo0 localhost\n\
        255.255.255.255 broadcasthost\n\
        ff02::1 ip6-allnodes\n\
        0.0.0.0 0.0.0.0\n\
        \n\
        0.0.0.0 Ads.Example.COM. # inline\n\
        \t127.0.0.1\ttracker.example  other.example#joined\n\
        :: six.example\n\
        0 zero.example\n\
        192.168.1.10 nas.example\n\
        0.0.0.0 single\n\
        0.0.0.0";

    assert_eq!(
        found(list),
        [
            "ThisHost",
            "ThisHost",
            "ThisHost",
            "ThisHost",
            "ThisHost",
            "ThisHost",
            "Address",
            "=ads.example.com",
            "=tracker.example",
            "=other.example",
            "=six.example",
            "=zero.example",
            "Rewrite",
            "OneLabel",
            "Address",
        ]
    );
}

#[test]
fn plain_domains_are_exact_and_wildcards_cover_what_is_below() {
    let list = "Example.org\n*.wild.example\n.squid.example\n_dmarc._tcp.example\nbücher.example\n*.zip\n\
        xn--bcher-kva.example\n-odd-.tumblr.com\nads*.example\n! comment\n; comment\n#comment\n"
        .as_bytes();

    assert_eq!(
        found(list),
        [
            "=example.org",
            "*wild.example",
            "*squid.example",
            "=_dmarc._tcp.example",
            "=xn--bcher-kva.example",
            "*zip",
            "=xn--bcher-kva.example",
            "=-odd-.tumblr.com",
            "Pattern",
        ]
    );
}

#[test]
fn what_is_no_name_is_ignored_with_its_reason() {
    for (line, reason) in [
        ("0.0.0.0", Reason::Address),
        ("255.255.255.255", Reason::Address),
        ("https://evil.example/path", Reason::Url),
        ("evil.example/path", Reason::Url),
        ("evil.example:8080", Reason::Url),
        ("/path/only", Reason::Url),
        ("/ads(?=x)/", Reason::Regex),
        ("^(.+[_.-]ads", Reason::Regex),
        ("((a{1000}){1000}){1000}", Reason::RegexTooLarge),
        ("/^https?:\\/\\/ads/", Reason::Url),
        ("^ads;invert", Reason::Modifier),
        ("a..example", Reason::NotAName),
        ("evil example words", Reason::NotAName),
        ("a%b.example", Reason::NotAName),
        ("example", Reason::OneLabel),
        ("\u{1}.example", Reason::NotText),
        ("example.com##.banner", Reason::Cosmetic),
        ("server:", Reason::Header),
    ] {
        assert_eq!(found(line.as_bytes()), [format!("{reason:?}")], "{line}");
    }
    assert_eq!(found(b"\xff\xfe.example"), ["NotText"]);
    assert_eq!(found(format!("{}.example", "a".repeat(64)).as_bytes()), ["NotAName"]);
    assert_eq!(found("a.".repeat(127).as_bytes()).len(), 1, "253 characters and the last dot are a name");
    assert_eq!(found("a.".repeat(128).as_bytes()), ["NotAName"]);
}

#[test]
fn adblock_rules_for_hosts_are_taken_and_the_rest_is_counted() {
    let list = b"[Adblock Plus 2.0]\n! Title: t\n||ads.example^\n@@||good.example^|\n||zip^\n|one.example^\n\
        ||*.sub.example^\n||ads.example^$third-party\n||ads.example/path^\n||ads*.example^\n||ads.\n\
        ##.banner\n#@#.ad\nexample.com#?#div\n/banner/*/ad.\n/ads[0-9]/\n\
        .adserve.\n-300x250.example\n$popup,domain=example.com\n! see a##b\nplain.example\n";

    assert_eq!(
        found(list),
        [
            "*ads.example",
            "@*good.example",
            "*zip",
            "=one.example",
            "<sub.example",
            "Modifier",
            "Url",
            "/(?:^|\\.)ads.*\\.example$/",
            "/(?:^|\\.)ads\\./",
            "Cosmetic",
            "Cosmetic",
            "Cosmetic",
            "Url",
            "/ads[0-9]/",
            "Pattern",
            "Pattern",
            "Modifier",
            "=plain.example",
        ]
    );
}

#[test]
fn dnsmasq_unbound_and_rpz_say_the_same_in_their_own_words() {
    let dnsmasq =
        b"local=/a.example/\naddress=/b.example/0.0.0.0\naddress=/c.example/d.example/#\nserver=/e.example/\n\
        server=/f.example/192.0.2.1\naddress=/g.example/192.0.2.1\naddress=/#/\n";
    assert_eq!(
        found(dnsmasq),
        ["*a.example", "*b.example", "*c.example", "*d.example", "*e.example", "Rewrite", "Rewrite", "Pattern"]
    );

    let unbound = b"server:\nlocal-zone: \"a.example\" always_nxdomain\nlocal-zone: \"b.example\" transparent\n\
        local-data: \"c.example A 0.0.0.0\"\nlocal-data: \"d.example A 192.0.2.1\"\n";
    assert_eq!(found(unbound), ["Header", "*a.example", "Modifier", "=c.example", "Rewrite"]);

    let rpz = b"$TTL 300\n$ORIGIN rpz.example.\n@ SOA localhost. root.localhost. 1 2 3 4 5\n  NS localhost.\n\
        a.example CNAME .\n*.a.example 60 IN CNAME .\nb.example.rpz.example. CNAME *.\nc.example CNAME rpz-passthru.\n\
        d.example CNAME walled.garden.example.\n24.0.2.0.192.rpz-ip CNAME .\ne.example A 0.0.0.0\n";
    assert_eq!(
        found(rpz),
        [
            "Header",
            "Header",
            "Header",
            "Header",
            "=a.example",
            "<a.example",
            "=b.example",
            "@=c.example",
            "=d.example",
            "192.0.2.0/24",
            "=e.example"
        ]
    );
}

#[test]
fn a_web_page_is_refused_as_a_whole() {
    for page in ["<!DOCTYPE html>\n<p>", "\n\n  <html>", "\u{feff}<?xml version=\"1.0\"?>"] {
        assert!(matches!(read(page.as_bytes(), |_, _, _| ()), Err(ReadError::WebPage)), "{page}");
    }
}

#[test]
fn a_packed_list_is_refused_as_a_whole() {
    for packed in [&b"\x1f\x8b\x08\0\0"[..], b"\x28\xb5\x2f\xfd\x04"] {
        assert!(matches!(read(packed, |_, _, _| ()), Err(ReadError::Compressed)));
    }
}

#[test]
fn a_list_without_an_end_is_refused() {
    let endless = io::BufReader::new(io::repeat(b'a'));

    assert!(matches!(read_within(1 << 20, endless, |_, _, _| ()), Err(ReadError::TooLarge)));
    assert!(matches!(read_within(4, &b"a.b\n"[..], |_, _, _| ()), Ok(4)));
}

#[test]
fn a_line_without_an_end_takes_no_memory_and_the_next_one_counts() {
    let mut list = vec![b'a'; 1 << 20];
    list.extend_from_slice(b"\nexample.org\n");

    assert_eq!(found(&list), ["TooLong", "=example.org"]);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_and_every_name_is_a_name(list: Vec<u8>) {
        let _ = read(&list[..], |_, _, thing| {
            if let Found::Name { name, .. } = thing {
                assert!(!text_of(name).is_empty());
            }
        });
    }
}

#[test]
fn rules_with_modifiers_are_taken_as_adguard_home_means_them() {
    for (line, expected) in [
        ("||a.example^$dnstype=AAAA|HTTPS", "*a.example"),
        ("||a.example^$dnstype=~A", "*a.example"),
        ("||a.example^$dnstype=NONSENSE", "Modifier"),
        ("||a.example^$client=192.168.1.0/24|~'Mary\\'s\\, phone'", "*a.example"),
        ("||a.example^$denyallow=b.a.example|c.a.example,important", "*a.example"),
        ("||a.example^$badfilter", "*a.example"),
        ("||a.example^$dnsrewrite=192.0.2.1", "*a.example"),
        ("||a.example^$dnsrewrite=NOERROR;MX;10 mail.example", "*a.example"),
        ("||a.example^$dnsrewrite=SERVFAIL;;", "Rewrite"),
        ("||a.example^$dnsrewrite", "Rewrite"),
        ("@@||a.example^$dnsrewrite", "@*a.example"),
        ("||ads*.x.example^", "<x.example"),
        ("|ads*.x.example^", "<x.example"),
        ("||ads*.example^", "/(?:^|\\.)ads.*\\.example$/"),
        ("|ads", "/^ads/"),
        ("*$denyallow=com|net", "Modifier"),
        ("||*$denyallow=com|net", "/(?:^|\\.).*/"),
        ("@@-ds.metric.example^|", "@/-ds\\.metric\\.example$/"),
        ("||192.0.2.1^", "192.0.2.1/32"),
        ("@@/^good[0-9]+\\./$important", "/^good[0-9]+\\./"),
        ("/^ads[0-9]+$/$dnstype=A", "/^ads[0-9]+$/"),
        ("||a.example/path*b^", "Url"),
        ("||a.example^$third-party", "Modifier"),
    ] {
        assert_eq!(found(line.as_bytes()), [expected], "{line}");
    }
}

#[test]
fn fragments_of_lists_for_browsers_that_are_no_names_are_counted_with_a_reason() {
    let fragments = "[Adblock Plus 2.0]\n-banner.\n.ads.\n_tracking_\n-ad-server^\n&ad_id=\n/ads/img/\n||cdn.example/ads/\n##.ad\n\
                     /banner/\n||ads.example^\n";

    assert_eq!(
        found(fragments.as_bytes()),
        ["Pattern", "Pattern", "OneLabel", "Pattern", "Url", "Url", "Url", "Cosmetic", "/banner/", "*ads.example"]
    );
}
