//! The threat model names the tests that prove it.

use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn each_row_of_the_threat_model_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("packaging/threat-model.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what "));

    let mut seen = BTreeSet::new();
    for row in rows {
        let proof = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let tests: Vec<_> = proof.split('`').filter_map(|part| part.split_once("::")).collect();
        assert!(!tests.is_empty(), "no test in: {row}");
        for (file, function) in tests {
            let source = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            let declared = format!("fn {function}(");
            let before = source.split(&declared).next().unwrap();
            assert!(before.len() < source.len(), "{file} has no {function}");
            let attribute = before.trim_end().lines().rev().take(3).any(|line| line.contains("test"));
            assert!(attribute, "{file}: {function} is not a test");
            seen.insert(format!("{file}::{function}"));
        }
    }
    assert!(seen.len() >= 20, "only {} tests are named", seen.len());
}
