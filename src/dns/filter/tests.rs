mod kept;
mod lists;
mod own;
mod special;
mod twin;

use std::{collections::HashMap, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use hickory_proto::rr::Name;

use super::*;
pub(super) use crate::dns::Action;
use crate::{
    dns::{ClientName, Device, Group},
    neighbours::Mac,
    origin::{NetworkId, Origin, PeerId},
};

pub(super) const LAN: Origin = Origin::Lan(NetworkId::MAIN);

pub(super) fn config(lists: Vec<List>, groups: Vec<Group>) -> Config {
    Config { lists, groups, ..Config::default() }
}

pub(super) fn list(name: &str, action: Action, lines: &[&str]) -> List {
    List {
        name: name.into(),
        source: ListSource::Inline(lines.iter().map(ToString::to_string).collect()),
        action,
        purpose: crate::dns::Purpose::Filter,
        block_as: BlockAs::Null,
        refresh: Duration::from_secs(86400),
        enabled: true,
    }
}

pub(super) fn group(name: &str, lists: &[usize]) -> Group {
    Group { name: name.into(), lists: lists.to_vec(), ..Group::default() }
}

pub(super) fn wire(name: &str) -> Vec<u8> {
    wire_form(&Name::from_ascii(name).unwrap())
}

fn policy(lists: Vec<List>, groups: Vec<Group>) -> Policy {
    Policy::build(&config(lists, groups), None).unwrap().0
}

fn names(names: &[&str]) -> Vec<Name> {
    names.iter().map(|name| Name::from_ascii(name).unwrap()).collect()
}

/// Says in a word what a group's rules are for a name: `pass`, `allow SOURCE` or `block SOURCE`.
fn verdict(policy: &Policy, group: &str, name: &str) -> String {
    let group = policy.group_named(group).unwrap();
    word(policy, policy.verdict(group, &wire(name), 1))
}

fn word(policy: &Policy, verdict: Verdict) -> String {
    match verdict {
        Verdict::Pass => "pass".into(),
        Verdict::Allow(source) => format!("allow {}", policy.source_name(source)),
        Verdict::Block { source, .. } => format!("block {}", policy.source_name(source)),
        Verdict::Rewrite { source, .. } => format!("rewrite {}", policy.source_name(source)),
        Verdict::Silence(source) => format!("silence {}", policy.source_name(source)),
    }
}

#[test]
fn hosts_and_plain_names_block_themselves_and_nothing_around_them() {
    let ads = list("ads", Action::Block, &["ads.example.com", "0.0.0.0 Tracker.example"]);
    let policy = policy(vec![ads], vec![group("default", &[0])]);

    assert_eq!(verdict(&policy, "default", "ads.example.com."), "block ads");
    assert_eq!(verdict(&policy, "default", "ADS.Example.COM."), "block ads");
    assert_eq!(verdict(&policy, "default", "tracker.example."), "block ads");
    for name in ["x.ads.example.com.", "example.com.", "com.", ".", "ads.example.org.", "ads.example.com.org."] {
        assert_eq!(verdict(&policy, "default", name), "pass", "{name}");
    }
}

#[test]
fn wildcards_block_the_name_and_everything_below_it() {
    let ads = list("ads", Action::Block, &["*.wild.example", "||ads.example^", "||zip^", "||*.sub.example^"]);
    let policy = policy(vec![ads], vec![group("default", &[0])]);

    for name in ["wild.example.", "a.b.c.wild.example.", "ads.example.", "x.ads.example.", "any.zip.", "a.sub.example."]
    {
        assert_eq!(verdict(&policy, "default", name), "block ads", "{name}");
    }
    for name in ["xwild.example.", "example.", "sub.example.", "zip.example."] {
        assert_eq!(verdict(&policy, "default", name), "pass", "{name}");
    }
}

#[test]
fn a_group_beats_lists_and_allow_beats_block() {
    let lists = vec![
        list("ads", Action::Block, &["||shop.example^", "||ads.example^", "@@||good.ads.example^", "||kids.example^"]),
        list("mine", Action::Allow, &["pay.shop.example"]),
    ];
    let default = Group {
        allow: names(&["kids.example."]),
        block: names(&["games.example.", "pay.shop.example."]),
        ..group("default", &[0, 1])
    };
    let other =
        Group { allow: names(&["a.games.example."]), block: names(&["games.example."]), ..group("other", &[1]) };
    let policy = policy(lists, vec![default, other]);

    for (group, name, expected) in [
        ("default", "www.shop.example.", "block ads"),
        ("default", "pay.shop.example.", "block default"),
        ("default", "good.ads.example.", "allow ads"),
        ("default", "x.kids.example.", "allow default"),
        ("default", "a.games.example.", "block default"),
        ("other", "a.games.example.", "allow other"),
        ("other", "b.games.example.", "block other"),
        ("other", "www.shop.example.", "pass"),
        ("other", "pay.shop.example.", "allow mine"),
    ] {
        assert_eq!(verdict(&policy, group, name), expected, "{group}: {name}");
    }
}

#[test]
fn what_is_important_beats_exceptions_and_an_important_exception_beats_it() {
    let lines =
        ["||ads.example^$important", "@@||ok.ads.example^", "@@||must.ads.example^$important", "||b.example^$all"];
    let lists = vec![list("ads", Action::Block, &lines), list("mine", Action::Allow, &["||ads.example^"])];
    let default = Group { allow: names(&["own.ads.example."]), ..group("default", &[0, 1]) };
    let policy = policy(lists, vec![default]);

    assert_eq!(verdict(&policy, "default", "ok.ads.example."), "block ads");
    assert_eq!(verdict(&policy, "default", "must.ads.example."), "allow ads");
    assert_eq!(verdict(&policy, "default", "own.ads.example."), "allow default");
    assert_eq!(verdict(&policy, "default", "b.example."), "pass");
}

#[test]
fn the_longest_name_is_told_and_then_the_first_list() {
    let lists = vec![
        list("first", Action::Block, &["||example^"]),
        list("second", Action::Block, &["a.example", "||a.example^"]),
        list("third", Action::Block, &["a.example"]),
    ];
    let policy = policy(lists, vec![group("default", &[0, 1, 2])]);

    assert_eq!(verdict(&policy, "default", "a.example."), "block second");
    assert_eq!(verdict(&policy, "default", "b.example."), "block first");
}

#[test]
fn each_list_has_its_own_answer() {
    let ads = List { block_as: BlockAs::NxDomain, ..list("ads", Action::Block, &["ads.example"]) };
    let own = Group { block: names(&["own.example."]), ..group("default", &[0]) };
    let policy = policy(vec![ads], vec![own]);

    let answer = |name| match policy.verdict(GroupId::DEFAULT, &wire(name), 1) {
        Verdict::Block { answer, .. } => Some(answer),
        _ => None,
    };

    assert_eq!(answer("ads.example."), Some(BlockAs::NxDomain));
    assert_eq!(answer("own.example."), Some(BlockAs::Null));
}

#[test]
fn a_client_is_in_the_group_of_its_key_or_of_the_longest_prefix() {
    let net = |text: &str| Device::Net(text.parse().unwrap());
    let groups = vec![
        Group {
            devices: vec![net("192.168.1.64/26"), net("2001:db8::7/64"), Device::Peer(PeerId(3))],
            ..group("kids", &[])
        },
        Group {
            devices: vec![net("192.168.1.70/32"), net("192.168.0.0/16"), net("192.168.1.64/26")],
            ..group("guests", &[])
        },
        group("default", &[]),
    ];
    let policy = policy(Vec::new(), groups);
    let group_of = |origin, address: &str, relay| {
        let client = Client { origin, address: address.parse().unwrap(), relay, name: None };
        policy.group_name(policy.group_of(&client))
    };

    assert_eq!(group_of(LAN, "192.168.1.65", false), "kids", "the first group with that prefix");
    assert_eq!(group_of(LAN, "::ffff:192.168.1.65", false), "kids");
    assert_eq!(group_of(LAN, "192.168.1.70", false), "guests");
    assert_eq!(group_of(LAN, "192.168.7.1", false), "guests");
    assert_eq!(group_of(LAN, "2001:db8::1234", false), "kids");
    assert_eq!(group_of(LAN, "2001:db8:1::1", false), "default");
    assert_eq!(group_of(LAN, "10.0.0.1", false), "default");
    assert_eq!(group_of(Origin::Vpn(PeerId(3)), "10.77.0.2", false), "kids");
    assert_eq!(group_of(Origin::Vpn(PeerId(4)), "10.77.0.3", false), "default");
    assert_eq!(group_of(Origin::Wan, "192.168.1.1", true), "router");
}

#[test]
fn the_router_group_has_the_rules_of_default() {
    let default = Group { block: names(&["own.example."]), ..group("default", &[0]) };
    let policy = policy(vec![list("ads", Action::Block, &["ads.example"])], vec![default]);

    assert_eq!(verdict(&policy, "router", "ads.example."), "block ads");
    assert!(verdict(&policy, "router", "own.example.").starts_with("block"));
}

#[test]
fn a_list_that_is_off_says_nothing() {
    let off = List { enabled: false, ..list("ads", Action::Block, &["ads.example"]) };
    let (policy, statuses) = Policy::build(&config(vec![off], vec![group("default", &[0])]), None).unwrap();

    assert_eq!(verdict(&policy, "default", "ads.example."), "pass");
    assert_eq!(statuses, []);
}

#[test]
fn a_list_that_cannot_be_read_is_named_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.txt");
    std::fs::write(&page, "<html>").unwrap();
    let missing = folder.path().join("missing");
    let cases = [
        (missing, "No such file"),
        (page, "looks like a web page"),
        (folder.path().into(), "not a file"),
        ("/dev/zero".into(), "not a file"),
    ];
    for (path, what) in cases {
        let broken = List { source: ListSource::Path(path.clone()), ..list("stevenblack", Action::Block, &[]) };

        let error = Policy::build(&config(vec![broken], Vec::new()), None).unwrap_err().to_string();

        assert!(error.starts_with(&format!("list \"stevenblack\": {}: ", path.display())), "{error}");
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn the_status_counts_names_duplicates_and_what_was_ignored() {
    let lines = ["a.example", "A.Example.", "b.example", "||b.example^", "# c", "", "0.0.0.0", "d.example/x"];
    let (_, statuses) =
        Policy::build(&config(vec![list("ads", Action::Block, &lines)], vec![group("default", &[0])]), None).unwrap();

    let [status] = &statuses[..] else { panic!("{statuses:?}") };
    assert_eq!((status.names, status.duplicates, status.ignored), (2, 2, 2));
    let reasons: HashMap<_, _> = status.reasons.iter().cloned().collect();
    assert_eq!(reasons[Reason::Address.text()], 1);
    assert_eq!(reasons[Reason::Url.text()], 1);
}

#[test]
fn a_verdict_is_explained_with_line_and_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hosts");
    std::fs::write(&path, "# hosts\r\n0.0.0.0 other.example\r\n0.0.0.0 Ads.Example.com # bad\r\n").unwrap();
    let lists = vec![
        List { source: ListSource::Path(path), ..list("hosts", Action::Block, &[]) },
        list("wild", Action::Block, &["||example.com^", "||*.ads.example.com^"]),
        list("elsewhere", Action::Block, &["ads.example.com"]),
    ];
    let default = Group { block: names(&["com."]), ..group("default", &[0, 1]) };
    let policy = policy(lists, vec![default, group("other", &[2])]);

    let matches = policy.explain(GroupId::DEFAULT, &wire("ADS.example.com."), 1).unwrap();

    let told: Vec<_> = matches.iter().map(|found| (&*found.list, found.line, &*found.text)).collect();
    assert_eq!(
        told,
        [
            ("default", None, "block = \"com\""),
            ("hosts", Some(3), "0.0.0.0 Ads.Example.com # bad"),
            ("wild", Some(1), "||example.com^"),
        ]
    );
    assert_eq!(policy.explain(GroupId::DEFAULT, &wire("ads.example.org."), 1).unwrap(), []);
}

#[test]
fn a_device_is_in_the_group_of_its_name_its_mac_or_its_dhcp_name_whatever_its_address() {
    let mac: Mac = "00:1b:21:00:00:07".parse().unwrap();
    let net = |text: &str| Device::Net(text.parse().unwrap());
    let client = ClientName::new("phone").unwrap();
    let groups = vec![
        Group { devices: vec![Device::Mac(mac), Device::Client(client)], ..group("kids", &[]) },
        Group { devices: vec![Device::Name("TV".into()), net("192.168.1.0/24")], ..group("things", &[]) },
        group("new", &[]),
    ];
    let policy = policy(Vec::new(), groups);
    let member = |mac, name, is_new| Member {
        group: policy.group_of_device(mac, name, is_new),
        mac,
        name: name.map(Arc::from),
        activity: Arc::new(Activity::default()),
    };
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let tablet = member(Some(mac), None, false);
    policy.members().store(Arc::new(Members::new([
        (address("192.168.1.20"), tablet.clone()),
        (address("2001:db8::7"), tablet.clone()),
        (address("2001:db8::8"), member(None, Some("tv"), true)),
        (address("192.168.1.21"), member(None, None, true)),
        (address("192.168.1.22"), member(None, None, false)),
    ])));
    let group_of = |text: &str, name| {
        let client = Client { origin: LAN, address: address(text), relay: false, name };
        policy.group_name(policy.group_of(&client))
    };

    assert_eq!(group_of("192.168.1.20", None), "kids");
    assert_eq!(group_of("::ffff:192.168.1.20", None), "kids");
    assert_eq!(group_of("2001:db8::7", None), "kids");
    assert_eq!(group_of("2001:db8::8", None), "things");
    assert_eq!(group_of("192.168.1.21", None), "new");
    assert_eq!(group_of("192.168.1.22", None), "things");
    assert_eq!(group_of("2001:db8::9", None), "default");
    assert_eq!(group_of("2001:db8::9", Some(client)), "kids");
    assert_eq!(group_of("2001:db8::8", Some(client)), "things", "what a device calls itself does not move it");
    assert_eq!(group_of("192.168.1.21", Some(client)), "new");
    assert!(tablet.activity.take() && !tablet.activity.take());
}

#[test]
fn lists_apply_and_devices_are_offline_in_their_spans_only() {
    let spans = |text: &str| Spans::new([text.parse().unwrap()]);
    let kids =
        Group { timed: vec![(0, spans("mon-fri 07:00-16:00"))], offline: spans("21:00-07:00"), ..group("kids", &[]) };
    let policy = policy(vec![list("social", Action::Block, &["social.example"])], vec![kids]);
    let kids = policy.group_named("kids").unwrap();
    // 2026-07-03, a Friday, in UTC.
    let at = |hours: u64| {
        policy.keep_time(1_783_036_800 + hours * 3600);
        let blocked = policy.verdict(kids, &wire("social.example."), 1) != Verdict::Pass;
        (blocked, policy.is_offline(kids), policy.is_offline(GroupId::DEFAULT))
    };

    assert_eq!(at(6), (false, true, false));
    assert_eq!(at(7), (true, false, false));
    assert_eq!(at(15), (true, false, false));
    assert_eq!(at(16), (false, false, false));
    assert_eq!(at(21), (false, true, false));
    assert_eq!(at(24 + 10), (false, false, false), "a Saturday");
    assert_eq!(at(7), (true, false, false), "the clock was set back");
}
