//! The table on disk says what the lists say, or is not used.

use std::{fs, path::Path};

use super::*;

/// More than a shard holds.
const MANY: u32 = 140_000;

/// A configuration with a long list in a file, and one in place.
fn house(state: &Path, count: u32) -> Config {
    let path = state.join("ads.txt");
    if !path.exists() {
        let names: String = (0..count).map(|number| format!("{number}.ads.example\n")).collect();
        fs::write(&path, names).unwrap();
    }
    let ads = List { source: ListSource::Path(path), ..list("ads", Action::Block, &[]) };
    let mine = list("mine", Action::Allow, &["||7.ads.example^"]);
    let default = Group { block: names(&["own.example."]), ..group("default", &[0, 1]) };
    Config { state: state.into(), ..config(vec![ads, mine], vec![default]) }
}

fn build(config: &Config) -> (Policy, Vec<ListStatus>) {
    Policy::build(config, None).unwrap()
}

fn same_table(one: &Policy, other: &Policy) -> bool {
    one.compiled.seed.words() == other.compiled.seed.words()
}

fn assert_says_what_the_lists_say(policy: &Policy) {
    for (name, expected) in [
        ("139999.ads.example.", "block ads"),
        ("7.ads.example.", "allow mine"),
        ("x.7.ads.example.", "allow mine"),
        ("x.8.ads.example.", "pass"),
        ("a.own.example.", "block default"),
        ("140000.ads.example.", "pass"),
    ] {
        assert_eq!(verdict(policy, "default", name), expected, "{name}");
    }
    for number in 0..MANY {
        assert_ne!(verdict(policy, "default", &format!("{number}.ads.example.")), "pass");
    }
}

#[test]
fn a_restart_finds_the_table_that_was_made() {
    let state = tempfile::tempdir().unwrap();
    let config = house(state.path(), MANY);
    let (before, told) = build(&config);

    let (after, told_again) = build(&config);

    assert!(same_table(&before, &after));
    assert_eq!(told, told_again);
    assert_eq!(before.bytes(), after.bytes());
    assert_says_what_the_lists_say(&after);
}

#[test]
fn a_reload_without_other_lists_keeps_the_table_and_takes_the_rest() {
    let state = tempfile::tempdir().unwrap();
    let mut config = house(state.path(), 2000);
    let (before, _) = build(&config);
    fs::remove_file(state.path().join("lists/table")).unwrap();
    config.lists[0].block_as = BlockAs::NxDomain;

    let (after, _) = Policy::build(&config, Some(&before)).unwrap();

    assert!(Arc::ptr_eq(&before.compiled, &after.compiled));
    let verdict = after.verdict(GroupId::DEFAULT, &wire("1.ads.example."), 1);
    assert!(matches!(verdict, Verdict::Block { answer: BlockAs::NxDomain, .. }), "{verdict:?}");
}

#[test]
fn other_lists_make_another_table() {
    let state = tempfile::tempdir().unwrap();
    let config = house(state.path(), 2000);
    let (before, _) = build(&config);
    fs::write(state.path().join("ads.txt"), "new.ads.example\n").unwrap();
    let mut switched = house(state.path(), 2000);
    switched.lists[1].action = Action::Block;

    for config in [house(state.path(), 2000), switched] {
        let (after, _) = build(&config);
        assert!(!same_table(&before, &after));
        assert_eq!(verdict(&after, "default", "new.ads.example."), "block ads");
    }
}

#[test]
fn a_damaged_table_is_made_again() {
    let state = tempfile::tempdir().unwrap();
    let config = house(state.path(), 2000);
    let file = state.path().join("lists/table");
    build(&config);
    let whole = fs::read(&file).unwrap();
    let damages: [fn(&mut Vec<u8>); 6] = [
        |bytes| bytes.clear(),
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| *bytes.last_mut().unwrap() ^= 1,
        |bytes| bytes[0] ^= 1,
        // The length of the statuses.
        |bytes| bytes[48..56].fill(0xff),
        |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
        },
    ];

    for (number, damage) in damages.into_iter().enumerate() {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        fs::write(&file, bytes).unwrap();

        let (after, _) = build(&config);

        assert!(after.compiled.seed.words().as_slice() != seed_in(&whole, &after), "damage {number}");
        assert_eq!(verdict(&after, "default", "1999.ads.example."), "block ads");
    }
}

/// The words of the seed in a table file.
fn seed_in(bytes: &[u8], of_length: &Policy) -> Vec<u64> {
    let at = 56 + serde_json::to_vec(&of_length.compiled.statuses).unwrap().len();
    bytes[at..at + 32].as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

#[test]
fn no_damage_to_any_octet_is_believed_or_panics() {
    let state = tempfile::tempdir().unwrap();
    let config = house(state.path(), 2000);
    fs::write(state.path().join("ads.txt"), "ads.example\nb.example\n").unwrap();
    let (before, _) = build(&config);
    let whole = fs::read(state.path().join("lists/table")).unwrap();
    let file = state.path().join("damaged");

    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x80;
        fs::write(&file, &bytes).unwrap();
        assert!(disk::read(&file, before.compiled.key).is_err(), "octet {at}");
    }
}
