//! What the owner's file means, and what is said about a wrong one.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use hearthgate::{
    config::{
        self, Files, Options, PeerIds, Source,
        edits::{EditError, Edits, NewPeer},
        file::keys::SECTIONS,
        generations,
    },
    dns::{Device, ListSource, LocalRecord},
    ingress::RoutesReach,
    origin::{NetworkId, Origin, PeerId},
    store::{self, Found},
    vpn::{Reach, keys::PrivateKey},
};

fn options(state: &tempfile::TempDir) -> Options {
    Options { state: Some(state.path().to_owned()), testing: false, files: Files::Unchecked }
}

#[test]
fn the_quick_start_has_all_three_planes_and_keeps_its_keys() {
    let state = tempfile::tempdir().unwrap();
    let mut ids = PeerIds::default();

    let first = config::load(Source::QuickStart, &options(&state), &mut ids).unwrap();
    let second = config::load(Source::QuickStart, &options(&state), &mut ids).unwrap();

    assert_eq!(format!("{:?}", first.compiled), format!("{:?}", second.compiled));
    assert_eq!(first.digest, second.digest);
    let vpn = first.compiled.vpn.unwrap();
    let key = config::tour_key(state.path()).unwrap();
    assert_eq!(vpn.peers[0].public_key, key.public_key());
    assert_eq!(vpn.metrics_port, Some(9153));
    assert_eq!(first.compiled.ingress.unwrap().routes.len(), 2);
    assert!(first.compiled.dns.is_some());
    assert_eq!(first.compiled.metrics.unwrap().listen[0].address.to_string(), "127.0.0.1:9153");
}

/// The folder of the examples.
fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn check(path: &Path) -> Result<config::Loaded, config::Problems> {
    let state = tempfile::tempdir().unwrap();
    config::check(Source::File(path), &options(&state), &mut PeerIds::default())
}

#[test]
fn every_example_means_something() {
    let mut names = Vec::new();
    for entry in fs::read_dir(examples()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            continue;
        }
        if name != "quickstart.toml" {
            let loaded = check(&path).unwrap_or_else(|problems| panic!("{name}:\n{problems}"));
            assert_eq!(loaded.warnings, [], "{name}");
        }
        names.push(name);
    }
    names.sort();

    assert_eq!(
        names,
        [
            "dns-only.toml",
            "gate-only.toml",
            "home.toml",
            "ingress-only.toml",
            "pi-zero.toml",
            "quickstart.toml",
            "reference.toml"
        ]
    );
}

/// Every app of the list has a recipe, and each of them is a part of a good file.
#[test]
fn every_recipe_is_loaded() {
    let folder = examples().join("apps");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().replace(".toml", ""))
        .collect();
    names.sort();
    let house = tempfile::tempdir().unwrap();
    for name in &names {
        let recipe = fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap();
        let whole = house.path().join(format!("{name}.toml"));
        let around = "[lan]\nsubnets = [\"192.168.1.0/24\"]\n\n[ingress]\n\n[vpn]\n\n";
        fs::write(&whole, format!("{around}{recipe}")).unwrap();
        let compiled = check(&whole).unwrap_or_else(|problems| panic!("{name}:\n{problems}")).compiled;

        assert!(!compiled.ingress.unwrap().routes.is_empty(), "{name}");
    }

    let expected = [
        "authentik",
        "calibre-web",
        "deluge",
        "grafana",
        "home-assistant",
        "homepage",
        "immich",
        "jellyfin",
        "jellyseerr",
        "komga",
        "mealie",
        "nextcloud",
        "omv",
        "paperless",
        "portainer",
        "proxmox",
        "radarr",
        "sonarr",
        "uptime-kuma",
        "vaultwarden",
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_plane_without_its_section_does_not_exist() {
    let planes = |name| {
        let compiled = check(&examples().join(name)).unwrap().compiled;
        (compiled.dns.is_some(), compiled.ingress.is_some(), compiled.vpn.is_some(), compiled.metrics.is_some())
    };

    assert_eq!(planes("dns-only.toml"), (true, false, false, false));
    assert_eq!(planes("ingress-only.toml"), (false, true, false, false));
    assert_eq!(planes("gate-only.toml"), (false, false, true, false));
    assert_eq!(planes("home.toml"), (true, true, true, true));
}

/// The reference with every key that is left out put in.
fn whole_reference() -> String {
    let text = fs::read_to_string(examples().join("reference.toml")).unwrap();
    let put_in = |line: &str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|first: char| first.is_ascii_lowercase() || first == '[') => key.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(|line| put_in(line) + "\n").collect()
}

#[test]
fn the_reference_shows_every_key() {
    // Three ways to say one thing: each is shown, one can be written.
    let text = whole_reference().replace("upstream_tls = {", "upstream_tls.unused = {");
    let text = text.replace("upstream_tls.unused = { fingerprint = ", "upstream_tls.fingerprint = ");
    let text = text.replace("00a08\" }", "00a08\"");
    let reference: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}"));
    let mut missing = Vec::new();

    for (section, keys) in SECTIONS {
        let mut tables = vec![&reference];
        for step in section.split('.').filter(|step| !step.is_empty()) {
            tables = tables.into_iter().flat_map(|table| table.get(step).into_iter().flat_map(below)).collect();
        }
        if *section == "dns.records" {
            // Its keys are the owner's names; ours are one step further down.
            tables = tables.into_iter().flat_map(|names| names.values().flat_map(below)).collect();
        }
        let shown = |key: &&&str| tables.iter().any(|table| table.contains_key(**key));
        missing.extend(keys.iter().filter(|key| !shown(key)).map(|key| format!("{section}.{key}")));
    }

    assert!(missing.is_empty(), "config/reference.toml does not show {missing:?}");
}

fn below(value: &toml::Value) -> Vec<&toml::Table> {
    match value {
        toml::Value::Table(table) => vec![table],
        toml::Value::Array(list) => list.iter().filter_map(toml::Value::as_table).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn what_the_reference_calls_default_is_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let (with, without) = (folder.path().join("with.toml"), folder.path().join("without.toml"));
    let text = fs::read_to_string(examples().join("reference.toml")).unwrap();
    let (defaults, others): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.contains("# default"));
    fs::write(&with, &text).unwrap();
    fs::write(&without, others.join("\n")).unwrap();

    let [with, without] = [with, without].map(|path| {
        let options = Options { files: Files::Unchecked, ..Options::default() };
        let loaded = config::check(Source::File(&path), &options, &mut PeerIds::default());
        let mut compiled = loaded.unwrap_or_else(|problems| panic!("{problems}")).compiled;
        // Made up anew each time that a configuration is looked at.
        let vpn = compiled.vpn.as_mut().unwrap();
        vpn.private_key = PrivateKey::generate();
        format!("{compiled:#?}")
    });

    assert!(defaults.len() > 30, "{defaults:?}");
    assert_eq!(with, without);
}

#[test]
fn a_port_is_taken_where_those_come_from_who_may_use_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hearthgate.toml");
    let text = r#"
        [lan]
        interfaces = ["eth0"]
        [ingress]
        [vpn]
        addresses = ["10.77.0.1/24"]
        [[vpn.peer]]
        name = "laptop"
        public_key = "6bkd+iwA2xU8SLZ2rrYKTjvFDuVTWHrAKX1rSG5RMHM="
        addresses = ["10.77.0.2/32"]
        [[vpn.peer]]
        name = "phone"
        public_key = "AbkE+iwA2xU8SLZ2rrYKTjvFDuVTWHrAKX1rSG5RMHM="
        addresses = ["10.77.0.3/32"]
        may_reach = ["dns"]
        [[route]]
        tcp = "25565"
        access = "public"
        to = "tcp://192.168.1.20:25565"
        [[route]]
        tcp = "2222"
        host = "git.home.arpa"
        access = ["lan", "vpn"]
        to = "tcp://192.168.1.20:22"
        [[route]]
        udp = "5000"
        access = "vpn"
        to = "udp://192.168.1.20:5000"
    "#;
    fs::write(&path, text).unwrap();

    let compiled = check(&path).unwrap_or_else(|problems| panic!("{problems}")).compiled;
    let (ingress, vpn) = (compiled.ingress.unwrap(), compiled.vpn.unwrap());
    let places = |at: usize| {
        let places = ingress.ports[at].places.iter();
        places.map(|place| (place.address.to_string(), place.device.clone())).collect::<Vec<_>>()
    };
    let place = |address: &str, device: Option<&str>| (address.to_owned(), device.map(str::to_owned));

    assert_eq!(places(0), [place("0.0.0.0:25565", None), place("[::]:25565", None)]);
    let (eth0, lo) = (Some("eth0"), Some("lo"));
    let lan = [("0.0.0.0:2222", eth0), ("[::]:2222", eth0), ("127.0.0.1:2222", lo), ("[::1]:2222", lo)];
    assert_eq!(places(1), lan.map(|(address, device)| place(address, device)));
    assert_eq!(places(2), [], "for peers alone no socket of this box is opened");
    let laptop = vpn.peers.iter().find(|peer| peer.name == "laptop").unwrap().id;
    let served: Vec<_> = vpn.ports.iter().map(|served| (served.port, served.peers.as_slice())).collect();
    assert_eq!(served, [(2222, &[laptop][..]), (5000, &[laptop])], "not for a peer that may reach the DNS alone");
    let names: Vec<_> = compiled.dns.iter().flat_map(|dns| &dns.routes.names).collect();
    assert!(names.is_empty(), "there is no DNS here");
    assert_eq!(ingress.ports[1].name, "git.home.arpa tcp 2222");
}

/// Every `tests/config/NAME.toml` is refused with the words of `NAME.expected`.
#[test]
fn every_mistake_is_explained_at_its_place() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let mut wrong = Vec::new();
    let mut cases = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        cases += 1;
        let said = match check(&path) {
            Ok(loaded) => loaded.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect(),
            Err(problems) => format!("{problems}\n"),
        };
        let said = said.replace(&format!("{}/", folder.display()), "");
        let expected = path.with_extension("expected");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected, &said).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("{}:\n{said}", path.display()));
        }
    }

    assert!(cases >= 25, "only {cases} cases");
    assert!(wrong.is_empty(), "these say something else (BLESS=1 accepts it):\n{}", wrong.join("\n"));
}

#[test]
fn a_file_over_one_mebibyte_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.toml");
    fs::write(&path, "#".repeat((1 << 20) + 1)).unwrap();

    let problems = check(&path).unwrap_err().to_string();

    assert!(problems.contains("is longer than 1 MiB\n  hint: "), "{problems}");
}

/// A file of an owner in a hurry, or another file named by mistake: never a panic, always a place and a hint.
#[test]
fn whatever_stands_in_a_file_is_accepted_or_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hearthgate.toml");
    let whole = whole_reference() + &fs::read_to_string(examples().join("home.toml")).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let pieces = ["\"", "[", "]", "=", "\n", "ü", "5", "::", "/", "0x", ".", "*", " ", "{", "}", "-"];
    // xorshift64: the same files each time.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % u64::try_from(bound).unwrap()).unwrap()
    };
    for round in 0..400 {
        let from = below(lines.len());
        let to = (from + 1 + below(60)).min(lines.len());
        let mut text: Vec<char> = lines[from..to].join("\n").chars().collect();
        for _ in 0..below(4) {
            let at = below(text.len() + 1);
            let removed = at..(at + below(3)).min(text.len());
            let added = if below(4) == 0 { lines[below(lines.len())] } else { pieces[below(pieces.len())] };
            text.splice(removed.start.min(removed.end)..removed.end, added.chars());
        }
        fs::write(&path, text.into_iter().collect::<String>()).unwrap();
        if let Err(problems) = check(&path) {
            let explained = problems.iter().all(|problem| problem.place.is_some() && !problem.hint.is_empty());
            assert!(explained, "{round}: {problems}");
        }
    }
}

#[test]
fn the_house_means_what_its_file_says() {
    let compiled = check(&examples().join("home.toml")).unwrap().compiled;
    let ingress = compiled.ingress.unwrap();
    let vpn = compiled.vpn.unwrap();
    let dns = compiled.dns.unwrap();
    let (laptop, tablet) = (vpn.peers[0].id, vpn.peers[1].id);
    let (iot, guests) = (NetworkId::named(0), NetworkId::named(1));
    let admitted = |name: &str| {
        let access = &ingress.routes.iter().find(|route| route.name == name).unwrap().access;
        let lan = [NetworkId::HOST, NetworkId::MAIN, iot, guests].map(Origin::Lan);
        let all = [Origin::Wan].into_iter().chain(lan).chain([laptop, tablet].map(Origin::Vpn));
        all.filter(|origin| access.admits(*origin))
            .map(|origin| compiled.directory.describe(origin))
            .collect::<Vec<_>>()
    };

    let everybody = ["wan", "host", "lan", "lan:iot", "lan:guests", "vpn:laptop", "vpn:tablet"];
    assert_eq!(admitted("photos.home.example"), everybody);
    assert_eq!(admitted("photos.home.example/admin"), ["host", "lan", "vpn:laptop"]);
    assert_eq!(admitted("hass.home.example"), ["host", "lan", "lan:iot", "vpn:laptop", "vpn:tablet"]);
    assert_eq!(admitted("dav.home.example"), ["host", "lan", "vpn:laptop", "vpn:tablet"]);
    assert_eq!(admitted("proxmox.home.example"), ["vpn:laptop"]);
    assert_eq!(ingress.peers[0].routes, RoutesReach::All);
    let RoutesReach::Hosts(hosts) = &ingress.peers[1].routes else { panic!("{:?}", ingress.peers[1]) };
    assert_eq!(hosts[0].as_str(), "photos.home.example");
    assert_eq!(vpn.peers[1].may_reach, [Reach::Dns, Reach::Route("photos.home.example".into())]);

    let kids = dns.groups.iter().find(|group| group.name == "kids").unwrap();
    assert_eq!(kids.lists, [0, 1], "besides those of the default group");
    assert_eq!(kids.devices[1], Device::Peer(tablet));
    let suffix =
        |record: &LocalRecord| matches!(record, LocalRecord::Suffix { suffix, .. } if suffix.to_string() == "::10");
    assert!(dns.records.iter().any(suffix));
    let loopback = dns.listen.iter().filter(|place| place.address.ip().is_loopback());
    assert!(loopback.clone().all(|place| place.device.as_deref() == Some("lo")), "beside sockets of eth0");
    assert_eq!(loopback.count(), 2);
}

#[test]
fn without_a_default_group_it_has_the_lists_that_nobody_claims() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hearthgate.toml");
    let text = r#"
        dns.list = [{ name = "ads", source = "ads.hosts" }, { name = "social", names = ["Social.Example."] }]
        dns.group = [{ name = "kids", devices = "192.168.1.64/26", lists = "+social" }]
    "#;
    fs::write(&path, text).unwrap();

    let dns = check(&path).unwrap().compiled.dns.unwrap();

    let groups: Vec<_> = dns.groups.iter().map(|group| (group.name.as_str(), group.lists.as_slice())).collect();
    assert_eq!(groups, [("default", &[0][..]), ("kids", &[0, 1][..])]);
    assert_eq!(dns.lists[0].source, ListSource::Path(folder.path().join("ads.hosts")));
    assert_eq!(dns.lists[1].source, ListSource::Inline(vec!["social.example".into()]));
}

#[test]
fn a_list_that_is_fetched_in_the_clear_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hearthgate.toml");
    let text = r#"
        [[dns.list]]
        name = "safe"
        source = "https://lists.example:8443/hosts?all"
        [[dns.list]]
        name = "open"
        source = "http://lists.example/hosts"
    "#;
    fs::write(&path, text).unwrap();

    let loaded = check(&path).unwrap();

    let sources: Vec<_> = loaded.compiled.dns.unwrap().lists.into_iter().map(|list| list.source).collect();
    let url = |text: &str| ListSource::Url(text.parse().unwrap());
    assert_eq!(sources, [url("https://lists.example:8443/hosts?all"), url("http://lists.example/hosts")]);
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.contains("dns.list \"open\": the list is fetched over http"), "{warning}");
}

#[test]
fn a_peer_keeps_its_id_while_others_come_and_go() {
    let mut ids = PeerIds::default();
    let (first, second) = (PrivateKey::generate().public_key(), PrivateKey::generate().public_key());

    let before = [ids.id(first), ids.id(second)];
    let after = [ids.id(second), ids.id(first)];

    assert_eq!(before, [PeerId(0), PeerId(1)]);
    assert_eq!(after, [PeerId(1), PeerId(0)]);
}

fn tablet(address: &str) -> NewPeer {
    NewPeer {
        name: "tablet".into(),
        group: None,
        public_key: PrivateKey::generate().public_key().to_string(),
        addresses: vec![address.parse().unwrap()],
        may_reach: None,
        reached_by: Vec::new(),
        more: Vec::new(),
    }
}

#[test]
fn edits_are_read_after_the_file() {
    let state = tempfile::tempdir().unwrap();
    let path = examples().join("gate-only.toml");
    let mut ids = PeerIds::default();
    let before = config::load(Source::File(&path), &options(&state), &mut ids).unwrap();
    let mut edits = Edits::read(state.path()).unwrap();
    edits.add_peer(&tablet("10.77.0.9/32"), []).unwrap();

    let after = config::load(Source::File(&path), &options(&state), &mut ids).unwrap();

    let names = |loaded: &config::Loaded| {
        loaded.compiled.vpn.as_ref().unwrap().peers.iter().map(|peer| peer.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&before), ["laptop", "desktop"]);
    assert_eq!(names(&after), ["laptop", "desktop", "tablet"]);
    assert_ne!(before.digest, after.digest);
    let key = |loaded: config::Loaded| loaded.compiled.vpn.unwrap().private_key.public_key();
    assert_eq!(key(before), key(after), "the gate's key is made once");
}

#[test]
fn a_mistake_in_the_edits_is_shown_at_its_line_of_their_file() {
    let state = tempfile::tempdir().unwrap();
    let path = examples().join("gate-only.toml");
    Edits::read(state.path()).unwrap().add_peer(&tablet("10.77.0.2/32"), []).unwrap();

    let problems =
        config::load(Source::File(&path), &options(&state), &mut PeerIds::default()).unwrap_err().to_string();

    let line = fs::read_to_string(state.path().join("edits.toml")).unwrap();
    let line = line.lines().position(|line| line.contains("10.77.0.2")).unwrap() + 1;
    let place = format!("{}/edits.toml:{line}:14: vpn.peer \"tablet\": ", state.path().display());
    assert!(problems.starts_with(&place), "{problems}");
}

#[test]
fn the_file_wins_over_an_edit_of_the_same_name() {
    let state = tempfile::tempdir().unwrap();
    let path = examples().join("gate-only.toml");
    let mut laptop = tablet("10.77.0.9/32");
    laptop.name = "laptop".into();
    let mut edits = Edits::read(state.path()).unwrap();
    edits.add_peer(&laptop, []).unwrap();

    let loaded = config::load(Source::File(&path), &options(&state), &mut PeerIds::default()).unwrap();

    assert_eq!(loaded.compiled.vpn.unwrap().peers.len(), 2);
    assert_eq!(loaded.warnings.len(), 1);
    assert!(matches!(edits.add_peer(&laptop, []), Err(EditError::Known(_))));
}

#[test]
fn switches_for_tests_replace_what_the_house_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hearthgate.toml");
    let text = r#"
        [dns]
        listen = ["lo:53"]
        root_hints = "house.hints"
        nta = [{ name = "broken.example", until = "2026-12-31" }, { name = "b.example", until = "1970-01-01T00:01:00Z" }]
        [dns.testing]
        now = 1500000000
        root_hints = "test.hints"
        anchors = [". IN DS 1 8 2 00", "example IN DNSKEY 257 3 DSA AQID"]
        minimise = false
        prefetch = false
        case_randomisation = false
        aggressive = false
        edns_size = 4096
        server_port = 5353
    "#;
    fs::write(&path, text).unwrap();
    let options = Options { testing: true, files: Files::Unchecked, ..Options::default() };

    let loaded = config::check(Source::File(&path), &options, &mut PeerIds::default());

    let dns = loaded.unwrap_or_else(|problems| panic!("{problems}")).compiled.dns.unwrap();
    let ends: Vec<u64> = dns.negative_anchors.iter().map(|(_, until)| *until).collect();
    assert_eq!(ends, [1_798_761_600, 60]);
    assert_eq!(dns.root_hints, Some(folder.path().join("test.hints")));
    assert!(!dns.minimise && !dns.prefetch && !dns.case_randomisation && !dns.testing.aggressive);
    assert_eq!(dns.testing.now, Some(1_500_000_000));
    assert_eq!((dns.testing.edns_size, dns.testing.server_port), (4096, 5353));
    assert_eq!(dns.testing.anchors.unwrap().len(), 2);
    assert!(dns.testing.priming && dns.testing.cookies);
}

#[test]
fn switches_for_tests_need_the_flag() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/testing.toml");
    let state = tempfile::tempdir().unwrap();
    let options = Options { testing: true, ..options(&state) };

    let loaded = config::check(Source::File(&path), &options, &mut PeerIds::default()).unwrap();

    assert!(loaded.compiled.dns.unwrap().testing.special_servers);
}

#[test]
fn a_look_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let options = Options { state: Some(state.clone()), ..Options::default() };

    config::check(Source::QuickStart, &options, &mut PeerIds::default()).unwrap();

    assert!(!state.exists());
}

#[test]
fn a_look_leaves_torn_edits_where_they_are() {
    let state = tempfile::tempdir().unwrap();
    let mut edits = Edits::read(state.path()).unwrap();
    edits.write("# one\n".into()).unwrap();
    edits.write("# two\n".into()).unwrap();
    fs::write(state.path().join("edits.toml"), "torn").unwrap();

    let looked = config::check(Source::QuickStart, &options(&state), &mut PeerIds::default()).unwrap();
    let before: Vec<_> = fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    config::load(Source::QuickStart, &options(&state), &mut PeerIds::default()).unwrap();

    assert_eq!(looked.edits, "# one\n");
    assert_eq!(before.len(), 2, "{before:?}");
    assert!(state.path().join("edits.toml.torn").exists());
}

const WRITER: &str = "HEARTHGATE_TEST_WRITES_STATE";

/// What the writer writes: its number tells every byte of it.
fn numbered(number: u64) -> String {
    let mut text = format!("# {number}\n");
    for line in 0..number % 97 * 40 {
        text.push_str(&format!("# {number} {line}\n"));
    }
    text
}

fn write_state_until_killed(state: &Path) -> ! {
    let mut edits = Edits::read(state).unwrap();
    let mut number = number_of(&edits.text());
    loop {
        number += 1;
        edits.write(numbered(number)).unwrap();
        let now = jiff::Timestamp::now();
        generations::record(state, &numbered(number), "", "test", now).unwrap();
    }
}

fn number_of(text: &str) -> u64 {
    text.lines().next().map_or(0, |line| line.strip_prefix("# ").unwrap().parse().unwrap())
}

#[test]
fn state_is_whole_whenever_the_process_is_killed() {
    if let Some(state) = env::var_os(WRITER) {
        write_state_until_killed(Path::new(&state));
    }
    let state = tempfile::tempdir().unwrap();
    let edits = state.path().join("edits.toml");
    let mut last = 0;
    for round in 0..50 {
        let mut writer = Command::new(env::current_exe().unwrap())
            .args(["--exact", "config::state_is_whole_whenever_the_process_is_killed"])
            .env(WRITER, state.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Not before this round's writer has begun to write.
        let before = fs::read(&edits).unwrap_or_default();
        while fs::read(&edits).unwrap_or_default() == before {
            assert!(writer.try_wait().unwrap().is_none(), "the writer ended by itself");
            thread::sleep(Duration::from_millis(1));
        }
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        thread::sleep(Duration::from_micros(u64::from(u16::from_ne_bytes(random)) / 4));
        writer.kill().unwrap();
        writer.wait().unwrap();

        let found = store::read(&edits).unwrap();

        let Found::Whole(content) = found else { panic!("round {round}: {found:?}") };
        let text = String::from_utf8(content).unwrap();
        let number = number_of(&text);
        assert_eq!(text, numbered(number), "round {round}");
        assert!(number > last, "round {round}: {number} after {last}");
        last = number;
        for generation in generations::list(state.path()).unwrap() {
            assert_eq!(generation.file, numbered(number_of(&generation.file)), "round {round}");
        }
    }
}

#[test]
fn where_one_signs_in_is_open_to_whom_the_routes_admit_and_keeps_their_limits() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hearthgate.toml");
    let auth = r#"auth.forward = { preset = "authentik", to = "http://192.168.1.6:9000" }"#;
    let text = format!(
        r#"
        [ingress]
        [[route]]
        host = "app.home.arpa"
        path = "/admin"
        access = "lan"
        to = "http://192.168.1.5:8080"
        limits = {{ rate = "5/s", allow = ["192.168.1.0/24"] }}
        {auth}
        [[route]]
        host = "app.home.arpa"
        access = "public"
        to = "http://192.168.1.5:8080"
        limits = {{ rate = "10/s burst 50", body = "1MiB", allow = ["203.0.113.0/24"] }}
        {auth}
        "#
    );
    fs::write(&file, text).unwrap();

    let ingress = check(&file).unwrap().compiled.ingress.unwrap();

    let own = ingress.routes.iter().find(|route| route.path.as_str() == "/outpost.goauthentik.io").unwrap();
    assert!(own.access.admits(Origin::Wan) && own.access.admits(Origin::Lan(NetworkId::MAIN)));
    assert_eq!(own.rules.limits.rate.unwrap().to_string(), "10/s burst 50");
    let may = |client: &str| own.rules.limits.admit(client.parse().unwrap());
    assert_eq!([may("192.168.1.7"), may("203.0.113.7"), may("198.51.100.7")], [true, true, false]);
    assert_eq!(ingress.routes.iter().filter(|route| route.path == own.path).count(), 1);
}

#[test]
fn public_clients_are_routes_of_the_internet_and_no_name_tells_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hearthgate.toml");
    let secret = "0123456789abcdef0123456789abcdef";
    let text = format!(
        "[node]\ndomain = \"home.example\"\n[dns]\nlisten = [\"127.0.0.1:5300\"]\n\
         doh = {{ host = \"dns.home.example\", access = [\"lan\"] }}\n\
         public_clients = [{{ name = \"phone\", secret = \"{secret}\" }}, \
         {{ name = \"laptop\", host = \"away.home.example\", client_ca = \"ca.pem\" }}]\n\
         [ingress]\nhttp = [\"127.0.0.1:8080\"]\nhttps = [\"127.0.0.1:8443\"]\n"
    );
    fs::write(&path, text).unwrap();

    let ingress = check(&path).unwrap_or_else(|problems| panic!("{problems}")).compiled.ingress.unwrap();

    let public: Vec<_> = ingress.routes.iter().filter(|route| route.access.admits(Origin::Wan)).collect();
    let told: Vec<_> = public.iter().map(|route| (route.name.as_str(), route.path.as_str(), route.log)).collect();
    assert_eq!(
        told,
        [
            ("dns.home.example/dns-query (public client phone)", &*format!("/dns-query/{secret}"), false),
            ("away.home.example/dns-query (public client laptop)", "/dns-query", false),
        ]
    );
    let guarded: Vec<_> = ingress.client_cas.keys().map(ToString::to_string).collect();
    assert_eq!(guarded, ["away.home.example"], "clients of the house show no certificates");
}
