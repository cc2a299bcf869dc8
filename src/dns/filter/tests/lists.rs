//! The lists that people use, against the table that comes with them.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    io::{self, Write},
    path::Path,
    process::Command,
};

use super::*;
use crate::dns::filter::parse::{self, Found, Sense};

/// A row of the data's table.
struct Row {
    file: String,
    format: String,
    entries: u64,
}

/// Returns the folder of the lists, or says that the test is skipped.
fn data() -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data");
    let folder = std::env::var_os("HEARTHGATE_DATA").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    if !folder.join("blocklists").is_dir() {
        return skipped(&format!("no block lists at {}; HEARTHGATE_DATA names the folder", folder.display()));
    }
    if Command::new("zstdcat").arg("--version").output().is_err() {
        return skipped("the program zstdcat is not there");
    }
    Some(folder)
}

/// Says so on the real standard error, which the test harness does not keep to itself.
fn skipped(why: &str) -> Option<PathBuf> {
    let _ = writeln!(io::stderr(), "\nSKIPPED: {why}");
    None
}

/// Reads the table; an entry is a line, or a name where the table counts both.
fn rows(data: &Path) -> Vec<Row> {
    let readme = fs::read_to_string(data.join("README.md")).unwrap();
    let number = |text: &str| text.split(' ').next().and_then(|word| word.parse().ok());
    let rows: Vec<Row> = readme
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix("| `blocklists/")?.split(" | ").collect();
            let [file, format, _, _, entries, ..] = cells[..] else { return None };
            let names = entries.split(", ").find(|part| part.ends_with(" names"));
            Some(Row {
                file: file.trim_end_matches('`').into(),
                format: format.into(),
                entries: number(names.unwrap_or(entries))?,
            })
        })
        .collect();
    assert!(rows.len() > 50, "the table has {} rows", rows.len());
    rows
}

/// Returns the number of distinct names that the text gives for all lists together.
fn union(data: &Path) -> usize {
    let readme = fs::read_to_string(data.join("README.md")).unwrap();
    let before = readme.split(" distinct names").next().unwrap();
    before.rsplit(' ').next().unwrap().replace(',', "").parse().unwrap()
}

fn unpack(data: &Path, file: &str) -> Vec<u8> {
    let path = data.join("blocklists").join(file);
    if !file.ends_with(".zst") {
        return fs::read(path).unwrap();
    }
    let output = Command::new("zstdcat").arg(path).output().unwrap();
    assert!(output.status.success(), "{file}");
    output.stdout
}

#[test]
fn the_real_lists_load_and_their_counts_agree_with_the_table() {
    let Some(data) = data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(&data);
    let lists = rows.iter().map(|row| {
        let path = folder.path().join(&row.file);
        fs::write(&path, unpack(&data, &row.file)).unwrap();
        List { source: ListSource::Path(path), ..list(&row.file, Action::Block, &[]) }
    });
    let mut config = config(lists.collect(), vec![group("default", &(0..rows.len()).collect::<Vec<_>>())]);
    config.state = folder.path().to_owned();

    let (policy, statuses) = Policy::build(&config, None).unwrap();

    let mut wrong = Vec::new();
    for (row, status) in rows.iter().zip(&statuses) {
        let headers = status.reasons.iter().find(|(reason, _)| reason == Reason::Header.text());
        let headers = headers.map_or(0, |(_, count)| *count);
        // Of a zone the table counts the records only.
        let ignored = if row.format == "RPZ zone" { status.ignored - headers } else { status.ignored };
        let counted = status.names + status.duplicates + status.patterns + ignored;
        eprintln!(
            "{}: {} names, {} duplicates, {ignored} ignored {:?}",
            row.file, status.names, status.duplicates, status.reasons
        );
        if counted != row.entries {
            wrong.push(format!("{} ({}): {counted} counted, {} in the table", row.file, row.format, row.entries));
        }
    }
    eprintln!("{} distinct names in {} bytes", policy.names(), policy.bytes());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The table's number comes from another reading of the lists: near is all that can be asked.
    let union = union(&data);
    // It counts names alone.
    let of = |file| statuses.iter().find(|status| status.name == file).map_or(0, |status| status.names);
    let names = policy.names() - usize::try_from(of("hagezi-tif.ips.txt")).unwrap();
    assert!(names.abs_diff(union) < union / 1000, "{names} names, {union} in the table");
    // Lists and groups take a few kilobytes whatever the number of names.
    assert!(policy.bytes() <= 10 * policy.names() + 65_536, "{} bytes for {} names", policy.bytes(), policy.names());
}

#[test]
fn one_list_in_many_formats_is_one_list() {
    let Some(data) = data() else { return };
    let rules = |file: &str| {
        let mut rules = BTreeSet::new();
        parse::read(&unpack(&data, file)[..], |_, _, found| {
            if let Found::Name { name, reach, sense: Sense::Listed | Sense::Important, .. } = found {
                rules.insert((name.to_vec(), reach));
            }
        })
        .unwrap();
        rules
    };
    // In a zone a name and what is below it are two records.
    let joined = |rules: BTreeSet<(Vec<u8>, Reach)>| {
        let both = |name: &Vec<u8>| {
            rules.contains(&(name.clone(), Reach::Exact)) && rules.contains(&(name.clone(), Reach::Below))
        };
        let of = |(name, reach): &(Vec<u8>, Reach)| (name.clone(), if both(name) { Reach::Subtree } else { *reach });
        rules.iter().map(of).collect::<BTreeSet<_>>()
    };

    let hosts = rules("hagezi-light.hosts.txt.zst");
    assert_eq!(hosts.len(), 120_137);
    assert!(hosts == rules("hagezi-light.domains.txt.zst"));
    assert!(hosts == rules("hagezi-light.hosts-compressed.txt.zst"));
    let wildcards = rules("hagezi-light.wildcard.txt.zst");
    assert_eq!(wildcards.len(), 57_781);
    assert!(wildcards == rules("hagezi-light.adblock.txt.zst"));
    assert!(wildcards == rules("hagezi-light.dnsmasq.conf.zst"));
    assert!(wildcards == joined(rules("hagezi-light.rpz.zone.zst")));
    let parents = |rules: BTreeSet<(Vec<u8>, Reach)>| rules.into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>();
    assert!(parents(wildcards) == parents(rules("hagezi-light.wildcard-onlydomains.txt.zst")));
}

#[test]
fn popular_names_are_blocked_as_naive_sets_of_the_real_lists_say() {
    let Some(data) = data() else { return };
    let files = [
        "hagezi-pro.wildcard.txt.zst",
        "stevenblack.hosts.zst",
        "blocklistproject-tracking.domains.txt.zst",
        "hagezi-whitelist-referral.adblock.txt",
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut rules: HashMap<Vec<u8>, HashSet<(Reach, Sense)>> = HashMap::new();
    let mut lists = Vec::new();
    for file in files {
        let mut list_text = unpack(&data, file);
        if file.contains(".adblock.") {
            // Stars inside names are not for naive sets.
            let plain = list_text.split_inclusive(|octet| *octet == b'\n').filter(|line| !line.contains(&b'*'));
            list_text = plain.collect::<Vec<_>>().concat();
        }
        parse::read(&list_text[..], |_, _, found| {
            if let Found::Name { name, reach, sense, .. } = found {
                rules.entry(name.to_vec()).or_default().insert((reach, sense));
            }
        })
        .unwrap();
        let path = folder.path().join(file);
        fs::write(&path, list_text).unwrap();
        lists.push(List { source: ListSource::Path(path), ..list(file, Action::Block, &[]) });
    }
    let policy = Policy::build(&config(lists, vec![group("default", &[0, 1, 2, 3])]), None).unwrap().0;
    let top: serde_json::Value =
        serde_json::from_slice(&unpack(&data, "../top/misp-cloudflare-top100k.json.zst")).unwrap();
    let top: Vec<&str> = top["list"].as_array().unwrap().iter().filter_map(serde_json::Value::as_str).collect();
    assert!(top.len() > 50_000);

    let mut blocked = 0;
    for name in top.iter().flat_map(|name| [(*name).to_owned(), format!("www.{name}"), format!("a.b.{name}")]) {
        let mut senses = HashSet::new();
        let labels: Vec<&str> = name.split('.').collect();
        for (above, suffix) in (0..labels.len()).map(|start| (start, labels[start..].join("."))) {
            for (reach, sense) in rules.get(&wire(&format!("{suffix}."))).into_iter().flatten() {
                if match reach {
                    Reach::Exact => above == 0,
                    Reach::Below => above > 0,
                    Reach::Subtree => true,
                } {
                    senses.insert(*sense);
                }
            }
        }
        let verdict = policy.verdict(GroupId::DEFAULT, &wire(&format!("{name}.")), 1);
        let strongest = [Sense::ImportantException, Sense::Important, Sense::Exception, Sense::Listed];
        let strongest = strongest.into_iter().find(|sense| senses.contains(sense));
        let expected = strongest.map(|sense| sense.action(Action::Block));
        let told = (matches!(verdict, Verdict::Allow(_)), matches!(verdict, Verdict::Block { .. }));
        assert_eq!(told, (expected == Some(Action::Allow), expected == Some(Action::Block)), "{name}");
        blocked += u32::from(told.1);
    }
    assert!(blocked > 1000, "only {blocked} blocked");
}
