//! Rules that do not fit the table's few bits: modifiers, patterns, other answers, addresses.

use super::*;

/// A policy of one list, and one of its names that every client gets.
fn of(lines: &[&str]) -> Policy {
    policy(vec![list("ads", Action::Block, lines)], vec![group("default", &[0]), group("kids", &[0])])
}

fn said(policy: &Policy, address: &str, name: &str, qtype: u16) -> String {
    let client = Client { origin: LAN, address: address.parse().unwrap(), relay: false, name: None };
    word(policy, policy.verdict(policy.asking(&client, 0), &wire(name), qtype))
}

const A: u16 = 1;
const AAAA: u16 = 28;

#[test]
fn a_rule_holds_for_the_types_and_clients_that_it_names() {
    let policy = of(&[
        "||type.example^$dnstype=AAAA|HTTPS",
        "||not.example^$dnstype=~A",
        "||net.example^$client=192.168.1.0/24",
        "||notnet.example^$client=~192.168.1.7",
        "||kids.example^$client='Kids'",
        "||wide.example^$denyallow=good.wide.example",
    ]);

    for (name, qtype, address, expected) in [
        ("type.example.", AAAA, "192.168.1.5", "block ads"),
        ("type.example.", A, "192.168.1.5", "pass"),
        ("not.example.", AAAA, "192.168.1.5", "block ads"),
        ("not.example.", A, "192.168.1.5", "pass"),
        ("net.example.", A, "192.168.1.5", "block ads"),
        ("net.example.", A, "192.168.2.5", "pass"),
        ("notnet.example.", A, "192.168.1.5", "block ads"),
        ("notnet.example.", A, "192.168.1.7", "pass"),
        ("kids.example.", A, "192.168.1.5", "pass"),
        ("bad.wide.example.", A, "192.168.1.5", "block ads"),
        ("a.good.wide.example.", A, "192.168.1.5", "pass"),
    ] {
        assert_eq!(said(&policy, address, name, qtype), expected, "{name} {qtype} {address}");
    }
    assert_eq!(verdict(&policy, "kids", "kids.example."), "block ads");
}

#[test]
fn badfilter_takes_the_same_rule_out_of_force_and_no_other() {
    let lines = [
        "||a.example^",
        "||a.example^$badfilter",
        "||b.example^$important",
        "||b.example^$badfilter",
        "||c.example^$dnstype=A",
        "||c.example^$dnstype=A,badfilter",
    ];
    let policy = of(&lines);

    assert_eq!(verdict(&policy, "default", "x.a.example."), "pass");
    assert_eq!(verdict(&policy, "default", "b.example."), "block ads");
    assert_eq!(verdict(&policy, "default", "c.example."), "pass");
    let lists = vec![list("ads", Action::Block, &lines[..1]), list("mend", Action::Block, &lines[1..2])];
    let policy = super::policy(lists, vec![group("default", &[0, 1]), group("kids", &[0])]);
    assert_eq!(verdict(&policy, "default", "a.example."), "pass");
    assert_eq!(verdict(&policy, "kids", "a.example."), "block ads", "the group does not have the list that says so");
}

#[test]
fn patterns_block_and_let_through_by_the_same_order_as_names() {
    let policy = of(&[
        "/^ads?[0-9]+\\./",
        "||track*.com^",
        "||cdn*.shop.example^",
        "|tele*",
        "@@/^ads7\\./",
        "||must*.net^$important",
        "@@||mustnot.must1.net^",
        "^pixel[0-9]*\\.;querytype=A",
        "^silent\\.;reply=none",
    ]);

    for (name, expected) in [
        ("ads1.example.", "block ads"),
        ("ADS1.example.", "block ads"),
        ("ads7.example.", "allow ads"),
        ("x.track9.com.", "block ads"),
        ("xtrack9.com.", "pass"),
        ("cdn3.shop.example.", "block ads"),
        ("x.cdn3.shop.example.", "block ads"),
        ("mycdn3.shop.example.", "pass"),
        ("telemetry.example.", "block ads"),
        ("x.telemetry.example.", "pass"),
        ("mustnot.must1.net.", "block ads"),
        ("pixel3.example.", "block ads"),
        ("silent.example.", "silence ads"),
    ] {
        assert_eq!(verdict(&policy, "default", name), expected, "{name}");
    }
    assert_eq!(said(&policy, "192.168.1.5", "pixel3.example.", AAAA), "pass");
    let told = policy.explain(GroupId::DEFAULT, &wire("ads7.example."), A).unwrap();
    let told: Vec<_> = told.iter().map(|found| (found.effect, found.line, &*found.text)).collect();
    assert_eq!(told, [(Effect::Allow, Some(5), "@@/^ads7\\./"), (Effect::Block, Some(1), "/^ads?[0-9]+\\./")]);
}

#[test]
fn a_policy_zone_gives_what_its_records_say() {
    let policy = of(&[
        "gone.example CNAME .",
        "empty.example CNAME *.",
        "drop.example CNAME rpz-drop.",
        "pass.gone.example CNAME rpz-passthru.",
        "*.gone.example CNAME .",
        "garden.example CNAME walled.house.example.",
        "local.example A 192.0.2.7",
        "local.example A 192.0.2.8",
        "local.example TXT \"see the owner\"",
        "24.0.2.0.198.rpz-ip CNAME .",
        "32.9.2.0.198.rpz-ip CNAME rpz-passthru.",
        "128.1.zz.db8.2001.rpz-ip CNAME *.",
        "x.example CNAME rpz-tcp-only.",
        "y.example.rpz-nsdname CNAME .",
    ]);
    let answer = |name: &str| match policy.verdict(GroupId::DEFAULT, &wire(name), A) {
        Verdict::Block { answer, .. } => Some(answer),
        _ => None,
    };

    assert_eq!(answer("gone.example."), Some(BlockAs::NxDomain));
    assert_eq!(answer("empty.example."), Some(BlockAs::NoData));
    assert_eq!(verdict(&policy, "default", "drop.example."), "silence ads");
    assert_eq!(verdict(&policy, "default", "pass.gone.example."), "allow ads");
    let rewrite = |name: &str, qtype| match policy.verdict(GroupId::DEFAULT, &wire(name), qtype) {
        Verdict::Rewrite { rewrite, .. } => rewrite,
        other => panic!("{name}: {other:?}"),
    };
    let alias = rewrite("garden.example.", A);
    assert_eq!(policy.alias(alias), Some(&*wire("walled.house.example.")));
    let data = |qtype| {
        let mut data = Vec::new();
        policy.records(rewrite("local.example.", qtype), qtype, |rdata| data.push(rdata.to_vec()));
        data
    };
    assert_eq!(data(A), [[192, 0, 2, 7], [192, 0, 2, 8]]);
    assert_eq!(data(16), [b"\x0dsee the owner"]);
    assert_eq!(data(AAAA), [[0_u8; 0]; 0]);
    let on = |address: &str| {
        let asking = GroupId::DEFAULT.into();
        word(&policy, policy.verdict_on_address(asking, &wire("any.example."), A, address.parse().unwrap()))
    };
    assert!(policy.judges_addresses());
    assert_eq!(on("198.0.2.77"), "block ads");
    assert_eq!(on("198.0.2.9"), "allow ads");
    assert_eq!(on("198.0.3.1"), "pass");
    assert_eq!(on("2001:db8::1"), "block ads");
    assert_eq!(on("::ffff:198.0.2.77"), "block ads");
}

#[test]
fn what_the_owner_wrote_for_a_list_wins_over_what_its_zone_wants() {
    let zone = ["gone.example CNAME .", "local.example A 192.0.2.7"];
    let refused = List { block_as: BlockAs::Refused, ..list("zone", Action::Block, &zone) };
    let policy = policy(vec![refused], vec![group("default", &[0])]);

    let gone = policy.verdict(GroupId::DEFAULT, &wire("gone.example."), A);

    assert!(matches!(gone, Verdict::Block { answer: BlockAs::Refused, .. }), "{gone:?}");
    assert_eq!(verdict(&policy, "default", "local.example."), "rewrite zone");
}

#[test]
fn another_answer_wins_over_lists_and_loses_against_its_exceptions_and_the_owner() {
    let lines = [
        "||a.example^$dnsrewrite=192.0.2.1",
        "||a.example^",
        "@@||a.example^",
        "@@||free.a.example^$dnsrewrite",
        "||b.example^$dnsrewrite=192.0.2.1",
        "@@||b.example^$dnsrewrite=192.0.2.1",
        "||c.example^$dnsrewrite=NXDOMAIN",
        "||d.example^$dnsrewrite=other.example",
    ];
    let policy = of(&lines);

    assert_eq!(verdict(&policy, "default", "a.example."), "rewrite ads");
    assert_eq!(verdict(&policy, "default", "free.a.example."), "allow ads");
    assert_eq!(verdict(&policy, "default", "b.example."), "pass");
    let nxdomain = policy.verdict(GroupId::DEFAULT, &wire("c.example."), A);
    assert!(matches!(nxdomain, Verdict::Block { answer: BlockAs::NxDomain, .. }), "{nxdomain:?}");
    assert_eq!(verdict(&policy, "default", "d.example."), "rewrite ads");
    let own = Group { block: names(&["a.example."]), ..group("default", &[0]) };
    let policy = super::policy(vec![list("ads", Action::Block, &lines)], vec![own]);
    assert_eq!(verdict(&policy, "default", "a.example."), "block default");
}

#[test]
fn special_rules_without_end_are_counted_and_the_plain_ones_stay() {
    let mut lines: Vec<String> = (0..70_000)
        .map(|number| format!("||n{number}.example^$client=10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255))
        .collect();
    lines.extend((0..5_000).map(|number| format!("/^r{number}[a-z]/")));
    lines.push("||plain.example^".into());
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();

    let config = config(vec![list("many", Action::Block, &lines)], vec![group("default", &[0])]);
    let (policy, statuses) = Policy::build(&config, None).unwrap();

    assert_eq!(verdict(&policy, "default", "plain.example."), "block many");
    assert_eq!(said(&policy, "10.0.0.5", "n5.example.", A), "block many");
    let no_room = statuses[0].reasons.iter().find(|(reason, _)| reason == Reason::NoRoom.text()).unwrap().1;
    assert!(no_room > 70_000 + 5_000 - 61_440 - 4096, "{no_room}");
    assert_eq!(statuses[0].names + statuses[0].patterns + no_room, 75_001);
    assert!(policy.bytes() < 40 << 20, "{} bytes", policy.bytes());
}

#[test]
fn special_rules_survive_the_disk() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("ads");
    std::fs::write(&path, "||a.example^$dnsrewrite=192.0.2.1\n/^ads[0-9]/\n198.51.100.7\n").unwrap();
    let ads = List { source: ListSource::Path(path), ..list("ads", Action::Block, &[]) };
    let config = Config { state: state.path().into(), ..config(vec![ads], vec![group("default", &[0])]) };
    Policy::build(&config, None).unwrap();
    let read = std::fs::metadata(state.path().join("lists/table")).unwrap().modified().unwrap();

    let (policy, _) = Policy::build(&config, None).unwrap();

    assert_eq!(std::fs::metadata(state.path().join("lists/table")).unwrap().modified().unwrap(), read);
    assert_eq!(verdict(&policy, "default", "a.example."), "rewrite ads");
    assert_eq!(verdict(&policy, "default", "ads1.example."), "block ads");
    let verdict = policy.verdict_on_address(GroupId::DEFAULT.into(), &wire("x."), A, [198, 51, 100, 7].into());
    assert_eq!(word(&policy, verdict), "block ads");
}
