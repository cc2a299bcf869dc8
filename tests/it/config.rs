//! What the owner's file means, and what is said about a wrong one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hearthgate::{
    config::{self, Options, PeerIds, Source, file::keys::SECTIONS},
    vpn::keys::PrivateKey,
};

fn options(state: &tempfile::TempDir) -> Options {
    Options { state: Some(state.path().to_owned()), testing: false }
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
        if name != "quickstart.toml" {
            let loaded = check(&path).unwrap_or_else(|problems| panic!("{name}:\n{problems}"));
            assert_eq!(loaded.warnings, [], "{name}");
        }
        names.push(name);
    }
    names.sort();

    assert_eq!(
        names,
        ["dns-only.toml", "gate-only.toml", "home.toml", "ingress-only.toml", "quickstart.toml", "reference.toml"]
    );
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
        let options = Options { state: None, testing: false };
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
