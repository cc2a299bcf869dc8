//! Validation and blocking, against servers and with clients that others wrote.

use super::{
    client::dig,
    edge::Edge,
    servers::Authorities,
    world::{World, needs},
};

#[test]
fn names_are_validated_from_the_root() {
    needs!("nsd", "ldns-signzone", "ldns-keygen", "nft", "dig", "wg");
    let world = World::new();
    let _authorities = Authorities::start(&world);
    let _edge = Edge::start(&world);
    let ask = |question: &str| dig(&world.lan, &format!("@192.168.1.2 +dnssec {question}"));

    for zone in ["good.tld", "hashed.tld"] {
        let good = ask(&format!("www.{zone} A"));
        assert_eq!((good.status.as_str(), good.authenticated), ("NOERROR", true), "{}", good.text);
        assert!(good.text.contains("11.0.3.1"), "{}", good.text);
        let missing = ask(&format!("missing.{zone} A"));
        assert_eq!((missing.status.as_str(), missing.authenticated), ("NXDOMAIN", true), "{}", missing.text);
        let empty = ask(&format!("www.{zone} AAAA"));
        assert_eq!((empty.status.as_str(), empty.authenticated), ("NOERROR", true), "{}", empty.text);
    }

    let bogus = ask("www.bogus.tld A");
    assert_eq!(bogus.status, "SERVFAIL", "{}", bogus.text);
    assert!(bogus.has_extended_error(6) && !bogus.text.contains("11.0.3.9"), "{}", bogus.text);

    let unchecked = ask("www.bogus.tld A +cd");
    assert_eq!(unchecked.status, "NOERROR", "{}", unchecked.text);

    let expired = ask("www.expired.tld A");
    assert_eq!(expired.status, "SERVFAIL", "{}", expired.text);
    assert!(expired.has_extended_error(7) || expired.has_extended_error(6), "{}", expired.text);

    let unsigned = ask("www.unsigned.tld A");
    assert_eq!((unsigned.status.as_str(), unsigned.authenticated), ("NOERROR", false), "{}", unsigned.text);
    assert!(unsigned.text.contains("11.0.3.1"), "{}", unsigned.text);
}

#[test]
fn wildcards_are_proven() {
    needs!("nsd", "ldns-signzone", "ldns-keygen", "nft", "dig", "wg");
    let world = World::new();
    let _authorities = Authorities::start(&world);
    let _edge = Edge::start(&world);
    let ask = |question: &str| dig(&world.lan, &format!("@192.168.1.2 +dnssec {question}"));

    for zone in ["good.tld", "hashed.tld"] {
        let wildcard = ask(&format!("any.wild.{zone} A"));
        assert_eq!((wildcard.status.as_str(), wildcard.authenticated), ("NOERROR", true), "{}", wildcard.text);
    }
}

#[test]
fn a_client_that_validates_itself_is_content() {
    needs!("nsd", "ldns-signzone", "ldns-keygen", "nft", "dig", "delv", "kdig", "wg");
    let world = World::new();
    let _authorities = Authorities::start(&world);
    let _edge = Edge::start(&world);
    let anchor = std::fs::read_to_string(world.path("root.ds")).expect("the authorities wrote it");
    let words: Vec<&str> = anchor.split_whitespace().collect();
    let [.., tag, algorithm, digest, hash] = words[..] else { panic!("no DS: {anchor}") };
    let file = world.path("delv.keys");
    std::fs::write(&file, format!("trust-anchors {{ . static-ds {tag} {algorithm} {digest} \"{hash}\"; }};\n"))
        .expect("the folder is ours");

    for (name, verdict) in [
        ("www.good.tld", "; fully validated"),
        ("www.unsigned.tld", "; unsigned answer"),
        ("missing.hashed.tld", "fully validated"),
    ] {
        let output = world.lan.output(&format!("delv -a {} +root=. @192.168.1.2 {name} A", file.display()));
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(text.contains(verdict), "{name}: {text}");
    }
    let tcp = world.lan.run("kdig @192.168.1.2 +tcp +keepopen www.good.tld A www.hashed.tld A www.good.tld TXT");
    assert_eq!(tcp.matches("status: NOERROR").count(), 3, "{tcp}");
}

#[test]
fn a_blocked_name_is_blocked_also_behind_a_cname() {
    needs!("nsd", "ldns-signzone", "ldns-keygen", "nft", "dig", "wg");
    let world = World::new();
    let _authorities = Authorities::start(&world);
    let _edge = Edge::start(&world);
    let ask = |name: &str| dig(&world.lan, &format!("@192.168.1.2 {name} A"));

    for name in ["blocked.good.tld", "ads.tld", "www.ads.tld", "tracker.good.tld"] {
        let blocked = ask(name);
        assert!(blocked.has("0.0.0.0"), "{name}: {}", blocked.text);
        assert!(blocked.has_extended_error(15), "{name}: {}", blocked.text);
    }
    assert!(ask("alias.good.tld").has("11.0.3.1"));
}
