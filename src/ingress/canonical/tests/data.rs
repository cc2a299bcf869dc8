//! Lists that others made of what goes wrong with hosts and paths.

use std::{fs, path::PathBuf, process::Command};

use super::*;

/// Reads a file of the test data, or says that the test is skipped.
pub(in crate::ingress) fn read(file: &str) -> Option<String> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data");
    let folder = std::env::var_os("HEARTHGATE_DATA").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let path = folder.join(file);
    let bytes = if file.ends_with(".zst") {
        Command::new("zstdcat")
            .arg(&path)
            .output()
            .ok()
            .filter(|output| output.status.success())
            .map(|output| output.stdout)
    } else {
        fs::read(&path).ok()
    };
    if bytes.is_none() {
        eprintln!("SKIPPED: cannot read {} (HEARTHGATE_DATA names another folder)", path.display());
    }
    bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[test]
fn lists_of_path_traversals_have_one_reading_or_none() {
    let mut refused = 0;
    let mut taken = 0;
    for file in [
        "http/patt-deep_traversal.txt",
        "http/patt-directory_traversal.txt",
        "http/patt-dotdotpwn.txt.zst",
        "http/patt-traversals-8-deep-exotic-encoding.txt",
        "http/seclists-lfi-jhaddix.txt",
        "http/seclists-lfi-lfisuite.txt",
        "http/blns.txt",
    ] {
        let Some(text) = read(file) else { return };
        for line in text.lines().map(|line| line.replace("{FILE}", "etc/passwd")) {
            for path in [format!("/{line}"), format!("/public/{line}"), format!("/public/{line}/x"), line] {
                match CanonicalPath::parse(&path) {
                    Ok(path) => {
                        taken += 1;
                        has_one_reading(&path);
                    }
                    Err(_) => refused += 1,
                }
            }
        }
    }
    eprintln!("refused {refused}, taken {taken}");
    assert!(refused > taken);
}

#[test]
fn paths_that_people_really_ask_for_are_taken() {
    let Some(text) = read("http/apache-access.log.zst") else { return };
    let targets = text.lines().filter_map(|line| line.split('"').nth(1)?.split(' ').nth(1));
    let (mut taken, mut refused) = (0, Vec::new());

    for target in targets {
        let path = target.split(['?', '#']).next().unwrap();
        match CanonicalPath::parse(path) {
            Ok(path) => {
                taken += 1;
                has_one_reading(&path);
            }
            Err(_) => refused.push(target),
        }
    }

    eprintln!("taken {taken}, refused {refused:?}");
    assert!(refused.len() * 500 < taken, "{refused:?}");
}

#[test]
fn hosts_of_the_urls_that_browsers_are_tested_with() {
    let Some(text) = read("http/urltestdata.json") else { return };
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut taken = 0;

    for case in cases.iter().filter(|case| matches!(case["protocol"].as_str(), Some("http:" | "https:"))) {
        let (host, path) = (case["hostname"].as_str().unwrap(), case["pathname"].as_str().unwrap());
        if let Ok(read) = CanonicalHost::parse(host) {
            taken += 1;
            assert_eq!(read.as_str(), host.strip_suffix('.').unwrap_or(host));
        }
        if let Ok(path) = CanonicalPath::parse(path) {
            has_one_reading(&path);
        }
    }

    assert!(taken > 100, "{taken}");
}

#[test]
fn names_become_a_labels_as_unicode_says() {
    let Some(text) = read("dns/IdnaTestV2.txt") else { return };
    let (mut taken, mut lenient) = (0, 0);

    for line in text.lines() {
        let fields: Vec<String> = line.split('#').next().unwrap().split(';').map(unescape).collect();
        let [source, unicode, unicode_status, ascii, ascii_status, ..] = fields.as_slice() else { continue };
        let or = |field: &String, default: &String| if field.is_empty() { default.clone() } else { field.clone() };
        let ascii = or(ascii, &or(unicode, source));
        let status = or(ascii_status, unicode_status);
        // Hyphens at the third and fourth place are not ours to refuse: names with them are in use.
        let wrong = !matches!(status.as_str(), "" | "[]" | "[V2]" | "[V3]");
        match CanonicalHost::from_unicode(source) {
            // A dot at the end is no error to us.
            Ok(_) if status == "[A4_2]" && source.ends_with(['.', '\u{3002}']) => {}
            Ok(host) => {
                taken += 1;
                if wrong {
                    // The library takes some code points for valid that are not assigned.
                    assert_eq!(status, "[V7]", "{line}");
                    lenient += 1;
                }
                assert_eq!(host.as_str(), ascii.strip_suffix('.').unwrap_or(&ascii), "{line}");
            }
            // What is refused besides: an underscore or a space is none of a host, a number may be an address.
            Err(_) => assert!(wrong || CanonicalHost::parse(&ascii).is_err(), "{line}"),
        }
    }

    assert!(taken > 500 && lenient < 10, "{taken} {lenient}");
}

/// Reads a column of IdnaTestV2: blanks around it, `""` for nothing at all and `\uXXXX`.
fn unescape(field: &str) -> String {
    let mut parts = field.trim_matches([' ', '\t']).split("\\u");
    let first = parts.next().unwrap().to_owned();
    parts.fold(if first == "\"\"" { String::new() } else { first }, |mut text, part| {
        let (hex, rest) = part.split_at(4);
        text.push(char::from_u32(u32::from_str_radix(hex, 16).unwrap()).unwrap_or('\u{fffd}'));
        text + rest
    })
}
