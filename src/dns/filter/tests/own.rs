//! What holds besides the lists: services, what keeps clients with the house, safe search, pauses, rules for a
//! time.

use super::*;
use crate::dns::{OwnRule, Pause, Paused, RouteName};

fn lan() -> Client {
    Client { origin: LAN, address: [192, 168, 1, 5].into(), relay: false, name: None }
}

fn built(config: &Config) -> Policy {
    Policy::build(config, None).unwrap().0
}

/// What is said to a client on the LAN at a second.
fn at(policy: &Policy, now: u64, name: &str) -> String {
    word(policy, policy.verdict(policy.asking(&lan(), now), &wire(name), 1))
}

/// A list that blocks the whole Internet, and more loudly than exceptions.
fn everything() -> List {
    list(
        "all",
        Action::Block,
        &["||com^$important", "||net^$important", "||example^", "||org^", "*.arpa", "||ubuntu.com^"],
    )
}

#[test]
fn a_service_is_blocked_for_the_group_that_does_without_it() {
    let kids = Group { services: vec!["tiktok"], ..group("kids", &[]) };
    let without = Group { allow: names(&["www.tiktok.com."]), ..kids.clone() };
    for (kids, www) in [(kids, "block tiktok"), (without, "allow kids")] {
        let policy = policy(vec![], vec![group("default", &[]), kids]);

        assert_eq!(verdict(&policy, "kids", "www.tiktok.com."), www);
        assert_eq!(verdict(&policy, "kids", "v16.tiktokcdn.com."), "block tiktok");
        assert_eq!(verdict(&policy, "kids", "nottiktok.com."), "pass");
        assert_eq!(verdict(&policy, "default", "www.tiktok.com."), "pass");
    }
}

#[test]
fn clients_are_kept_before_any_list_and_a_group_lifts_it() {
    let allowing = list("allowing", Action::Allow, &["use-application-dns.net", "@@||dns.google^$important"]);
    let lists = || vec![allowing.clone(), everything()];
    let named = Group { allow: names(&["mask.icloud.com."]), ..group("named", &[0]) };
    let free = Group { keep_clients: false, ..group("free", &[0, 1]) };
    let config = |keep_clients| Config {
        keep_clients,
        ..config(lists(), vec![group("default", &[0, 1]), named.clone(), free.clone()])
    };
    let policy = built(&config(true));
    let default = GroupId::DEFAULT;

    for name in ["use-application-dns.net.", "mask.icloud.com.", "mask-h2.icloud.com.", "doh.dns.apple.com."] {
        for qtype in [1, 28, 65, 16] {
            let verdict = policy.verdict(default, &wire(name), qtype);
            assert!(matches!(verdict, Verdict::Block { answer: BlockAs::NxDomain, .. }), "{name} {qtype}: {verdict:?}");
        }
    }
    assert!(verdict(&policy, "default", "dns.google.").starts_with("block keep_clients"));
    assert!(verdict(&policy, "default", "mozilla.cloudflare-dns.com.").starts_with("block keep_clients"));
    assert_eq!(verdict(&policy, "named", "mask.icloud.com."), "allow named");
    assert_eq!(verdict(&policy, "free", "mask.icloud.com."), "block all");
    assert_eq!(verdict(&policy, "free", "dns.google."), "allow allowing");
    assert_eq!(verdict(&built(&config(false)), "default", "dns.google."), "allow allowing");
    let told = policy.explain(default, &wire("dns.google."), 1).unwrap();
    assert_eq!((&*told[0].list, &*told[0].text), ("keep_clients: a public encrypted server", "dns.google"));
}

#[test]
fn a_list_of_everything_breaks_no_connectivity_check_nor_the_house_nor_the_lists_servers() {
    let mut config = Config { keep_clients: true, ..config(vec![everything()], vec![group("default", &[0])]) };
    config.domain = "home.example.".parse().unwrap();
    let host = "photos.public.example.".parse().unwrap();
    config.routes.names = vec![RouteName { host, networks: Vec::new(), peers: Vec::new() }];
    let state = tempfile::tempdir().unwrap();
    config.state = state.path().into();
    let url = ListSource::Url("https://lists.server.example/hosts".parse().unwrap());
    config.lists.push(List { source: url, ..list("fetched", Action::Block, &[]) });
    let policy = built(&config);

    let survive = [
        "connectivitycheck.gstatic.com.",
        "www.msftconnecttest.com.",
        "captive.apple.com.",
        "detectportal.firefox.com.",
        "nmcheck.gnome.org.",
        "edge.home.example.",
        "photos.public.example.",
        "lists.server.example.",
    ];
    for name in survive {
        assert!(verdict(&policy, "default", name).starts_with("allow"), "{name}");
    }
    for name in ["www.apple.com.", "public.example.", "x.photos.public.example.", "mozilla.net."] {
        assert_eq!(verdict(&policy, "default", name), "block all", "{name}");
    }
    let own = Group { block: names(&["captive.apple.com."]), ..group("default", &[0]) };
    assert_eq!(
        verdict(&built(&Config { groups: vec![own], ..config }), "default", "captive.apple.com."),
        "block default"
    );
}

#[test]
fn search_engines_answer_for_children_where_their_group_says_so() {
    let kids = Group { safe_search: all_engines().collect(), ..group("kids", &[]) };
    let strict = Group { safe_search: vec!["youtube", "youtube-strict"], ..group("strict", &[]) };
    let policy = policy(vec![], vec![group("default", &[]), kids, strict]);
    let safe = |group: &str, name: &str| {
        let member = policy.group_named(group).unwrap().into();
        policy.safe_search(member, &wire(name)).map(<[u8]>::to_vec)
    };

    for (name, target) in [
        ("www.google.de.", "forcesafesearch.google.com."),
        ("bing.com.", "strict.bing.com."),
        ("duckduckgo.com.", "safe.duckduckgo.com."),
        ("www.youtube.com.", "restrictmoderate.youtube.com."),
        ("pixabay.com.", "safesearch.pixabay.com."),
        ("www.ecosia.org.", "strict-safe-search.ecosia.org."),
        ("yandex.ru.", "familysearch.yandex.ru."),
    ] {
        assert_eq!(safe("kids", name), Some(wire(target)), "{name}");
        assert_eq!(safe("default", name), None);
    }
    assert_eq!(safe("kids", "mail.google.com."), None);
    assert_eq!(safe("strict", "www.youtube.com."), Some(wire("restrict.youtube.com.")));
    assert_eq!(safe("strict", "www.google.com."), None);
}

#[test]
fn a_pause_holds_for_whom_it_names_until_it_ends() {
    let kids = Group { block: names(&["games.example."]), ..group("kids", &[0]) };
    let kids =
        Group { devices: vec![Device::Net("192.168.1.4/30".parse().unwrap())], services: vec!["tiktok"], ..kids };
    let base = config(vec![list("ads", Action::Block, &["||ads.example^", "||hard.example^$important"])], vec![kids]);
    let blocked = ["ads.example.", "hard.example.", "games.example.", "tiktok.com."];
    let device = |net: &str| Paused::Device(Device::Net(net.parse().unwrap()));

    for (whom, paused) in [
        (Paused::Everybody, true),
        (Paused::Group("kids".into()), true),
        (Paused::Group("default".into()), false),
        (device("192.168.1.5/32"), true),
        (device("192.168.1.6/32"), false),
        (Paused::Device(Device::Peer(PeerId(3))), false),
    ] {
        let config =
            Config { pauses: vec![Pause { whom: whom.clone(), until: 100 }], keep_clients: true, ..base.clone() };
        let policy = built(&config);
        for name in blocked {
            assert_eq!(at(&policy, 99, name) == "pass", paused, "{whom:?} {name}");
            assert!(at(&policy, 100, name).starts_with("block"), "{whom:?} {name}");
        }
        // A browser that was let past the house would not come back.
        assert!(at(&policy, 99, "use-application-dns.net.").starts_with("block"));
    }
}

#[test]
fn a_rule_for_a_time_ends_without_anybodys_help() {
    let rule = |name: &str, action, group: Option<&str>, until| OwnRule {
        name: name.parse().unwrap(),
        action,
        group: group.map(Into::into),
        until,
    };
    let rules = vec![
        rule("shop.ads.example.", Action::Allow, None, Some(100)),
        rule("games.example.", Action::Block, Some("default"), Some(200)),
        rule("chess.example.", Action::Block, Some("kids"), None),
    ];
    let ads = list("ads", Action::Block, &["||ads.example^"]);
    let policy = built(&Config { rules, ..config(vec![ads], vec![group("default", &[0]), group("kids", &[])]) });

    assert_eq!(at(&policy, 99, "www.shop.ads.example."), "allow default");
    assert_eq!(at(&policy, 100, "www.shop.ads.example."), "block ads");
    assert_eq!(at(&policy, 199, "games.example."), "block default");
    assert_eq!(at(&policy, 200, "games.example."), "pass");
    assert_eq!(at(&policy, 0, "chess.example."), "pass");
    assert_eq!(verdict(&policy, "kids", "chess.example."), "block kids");
    let told = policy.explain(policy.asking(&lan(), 99), &wire("shop.ads.example."), 1).unwrap();
    assert_eq!(told[0].text, "allow = \"shop.ads.example\" until 1970-01-01T00:01:40Z");
}

#[test]
fn a_change_of_ones_own_rules_leaves_the_table_of_the_lists_alone() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("ads");
    std::fs::write(&path, "ads.example\n").unwrap();
    let ads = List { source: ListSource::Path(path), ..list("ads", Action::Block, &[]) };
    let mut config = Config { state: state.path().into(), ..config(vec![ads], vec![group("default", &[0])]) };
    let before = built(&config);
    config.groups[0].allow = names(&["ads.example."]);

    let (after, _) = Policy::build(&config, Some(&before)).unwrap();

    assert!(Arc::ptr_eq(&before.compiled, &after.compiled));
    assert_eq!(verdict(&after, "default", "ads.example."), "allow default");
}

#[test]
fn a_list_that_would_break_a_connectivity_check_is_told_of_for_each_group_that_is_kept() {
    let free = Group { keep_clients: false, ..group("free", &[0]) };
    let ads = list("ads", Action::Block, &["connectivitycheck.gstatic.com", "other.example"]);
    let mut config = config(vec![ads], vec![group("default", &[0]), free, group("none", &[])]);
    config.keep_clients = true;
    let policy = built(&config);

    let told = policy.broken_checks(&config);

    assert_eq!(told.len(), 2, "{told:?}");
    let wanted = "list \"ads\" blocks \"connectivitycheck.gstatic.com\", by which devices find out that they are online: it is let \
                  through for the group \"default\" while keep_clients is on there";
    assert_eq!(told[0], wanted);
    assert!(told[1].contains("\"router\""), "{told:?}");
}
