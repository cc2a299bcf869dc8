//! The table on disk says what the lists say, or is not used.

use std::{
    fs,
    io::Write,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use sha2::{Digest, Sha256};

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
    let seed = build(&config).0.compiled.seed.words();
    let damages: [fn(&mut Vec<u8>); 6] = [
        |bytes| bytes.clear(),
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| *bytes.last_mut().unwrap() ^= 1,
        |bytes| bytes[0] ^= 1,
        // Where what is read into memory begins.
        |bytes| {
            let at = bytes.len() - 40;
            bytes[at..at + 8].fill(0xff);
        },
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

        assert_ne!(after.compiled.seed.words(), seed, "damage {number}");
        assert_eq!(verdict(&after, "default", "1999.ads.example."), "block ads");
    }
}

/// A small table in a file, and its octets.
fn small(state: &Path) -> (disk::Key, Vec<u8>) {
    let config = house(state, 2000);
    fs::write(state.join("ads.txt"), "ads.example\nb.example\n").unwrap();
    let (before, _) = build(&config);
    (before.compiled.key, fs::read(state.join("lists/table")).unwrap())
}

#[test]
fn no_damage_to_any_octet_is_believed_or_panics() {
    let state = tempfile::tempdir().unwrap();
    let (key, whole) = small(state.path());
    let file = state.path().join("damaged");

    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x80;
        fs::write(&file, &bytes).unwrap();
        assert!(disk::read(&file, key).is_err(), "octet {at}");
    }
}

#[test]
fn a_table_that_lies_where_it_is_mapped_is_refused_or_finds_something_else() {
    let state = tempfile::tempdir().unwrap();
    let (key, whole) = small(state.path());
    let file = state.path().join("lying");
    let behind = whole.len() - 32;
    let (mut refused, mut read) = (0, 0);

    for at in 48..behind {
        for octet in [0xff, 0x80, 0] {
            let mut bytes = whole[..behind].to_vec();
            bytes[at] = octet;
            bytes.extend(Sha256::digest(&bytes));
            fs::write(&file, &bytes).unwrap();
            match disk::read(&file, key) {
                Err(_) => refused += 1,
                Ok(compiled) => {
                    read += 1;
                    for number in 0..64_u64 {
                        let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                        compiled.table.find(key, |set| compiled.sets.rules(key, set).for_each(drop));
                    }
                }
            }
        }
    }

    assert!(refused > 100 && read > 100, "{refused} {read}");
}

#[test]
fn a_table_stays_in_force_when_another_takes_its_place_on_disk() {
    let state = tempfile::tempdir().unwrap();
    let config = house(state.path(), MANY);
    let (before, _) = build(&config);
    assert!(matches!(before.compiled.table.octets(), disk::Octets::Mapped(_)));
    fs::write(state.path().join("ads.txt"), "new.ads.example\n").unwrap();

    let (after, _) = Policy::build(&config, Some(&before)).unwrap();
    fs::remove_file(state.path().join("lists/table")).unwrap();

    assert_says_what_the_lists_say(&before);
    assert_eq!(verdict(&after, "default", "new.ads.example."), "block ads");
    assert_eq!(verdict(&after, "default", "1.ads.example."), "pass");
}

#[test]
fn a_folder_without_room_for_the_table_keeps_it_in_memory() {
    let state = tempfile::tempdir().unwrap();
    let config = house(state.path(), MANY);
    // A folder stands where the table is to be written.
    fs::create_dir_all(state.path().join("lists/table.new/x")).unwrap();

    let (policy, told) = build(&config);

    assert!(matches!(policy.compiled.table.octets(), disk::Octets::Memory(_)));
    assert_eq!(told[0].names, u64::from(MANY));
    assert_says_what_the_lists_say(&policy);
}

#[test]
fn a_list_that_changes_while_it_is_read_is_told_and_read_again() {
    let state = tempfile::tempdir().unwrap();
    let config = house(state.path(), MANY);
    let path = state.path().join("ads.txt");
    let done = AtomicBool::new(false);

    let told = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs::File::options().append(true).open(&path).unwrap();
            while !done.load(Ordering::Relaxed) {
                file.write_all(b"late.ads.example\n").unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let (policy, told) = build(&config);
        done.store(true, Ordering::Relaxed);
        assert_says_what_the_lists_say(&policy);
        told
    });
    let (after, told_after) = build(&config);

    assert!(told[0].problem.as_ref().is_some_and(|why| why.contains("changed while it was read")), "{told:?}");
    assert_eq!(told_after[0].problem, None);
    assert_eq!(verdict(&after, "default", "late.ads.example."), "block ads");
}

#[test]
fn a_list_of_five_million_lines_is_taken() {
    const LINES: u32 = 5_000_000;
    let state = tempfile::tempdir().unwrap();
    let config = house(state.path(), 0);
    let mut file = io::BufWriter::new(fs::File::create(state.path().join("ads.txt")).unwrap());
    // Most of them are remarks, which are read in less time; `benches/filter.rs` has five million names.
    let names = LINES / 50;
    let remarks = "#\n".repeat(49);
    for number in 0..names {
        write!(file, "{number:x}.ad\n{remarks}").unwrap();
    }
    drop(file);

    let (policy, told) = build(&config);

    assert_eq!((told[0].names, told[0].duplicates, told[0].ignored), (u64::from(names), 0, 0));
    assert!(policy.bytes() < 10 * policy.names());
    for (name, expected) in [("0.ad.", "block ads"), ("1869f.ad.", "block ads"), ("186a0.ad.", "pass")] {
        assert_eq!(verdict(&policy, "default", name), expected, "{name}");
    }
}
