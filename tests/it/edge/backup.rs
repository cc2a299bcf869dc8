//! What makes a box what it is, carried to another one.

use std::os::unix::fs::PermissionsExt;

use super::*;

const WORDS: &str = "correct horse battery";

impl House {
    /// A box on which nothing was done yet.
    fn fresh() -> Self {
        let house = Self { folder: tempfile::tempdir().unwrap() };
        fs::set_permissions(house.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        house
    }

    fn call_with_words(&self, words: &str, arguments: &[&str]) -> Output {
        self.command(arguments).env("HEARTHGATE_BACKUP_PASSPHRASE", words).output().unwrap()
    }

    fn back_up(&self, to: &Path, more: &[&str]) -> Output {
        let config = self.file();
        let arguments = [&["backup", to.to_str().unwrap(), "--config", config.to_str().unwrap()], more].concat();
        self.call_with_words(WORDS, &arguments)
    }

    fn restore(&self, from: &Path, more: &[&str]) -> Output {
        let config = self.file();
        let arguments = [&["restore", from.to_str().unwrap(), "--config", config.to_str().unwrap()], more].concat();
        self.call_with_words(WORDS, &arguments)
    }
}

/// What makes a box itself, as its clients see it.
fn identity(running: &Running<'_>) -> (Value, Value, String, [String; 2]) {
    let (status, state) = (running.status(), running.house.state());
    let peers = stdout(&running.house.call(&["peer", "list"]));
    let kept = ["edits.toml", "ca.pem"].map(|name| fs::read_to_string(state.join(name)).unwrap());
    (status["vpn"]["public_key"].clone(), status["generation"].clone(), peers, kept)
}

fn added(house: &House) {
    assert!(house.call(&["peer", "add", "laptop"]).status.success());
    assert!(house.call(&["block", "ads.example"]).status.success());
}

#[test]
fn a_fresh_box_becomes_the_one_that_was_backed_up_while_it_ran() {
    let old = House::new();
    fs::write(old.folder.path().join("hosts"), "192.168.1.77 box\n").unwrap();
    old.write(&old.text().replace("[dns]\n", "[dns]\nhosts = [\"hosts\"]\n"));
    let file = old.folder.path().join("box.age");
    let mut running = old.start();
    added(&old);
    let was = identity(&running);

    let made = old.back_up(&file, &[]);
    running.signal(libc::SIGTERM);
    running.end();
    let fresh = House::fresh();
    let restored = fresh.restore(&file, &[]);

    assert!(made.status.success(), "{}", stderr(&made));
    assert!(restored.status.success(), "{}", stderr(&restored));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fresh.text(), old.text());
    assert_eq!(fs::read_to_string(fresh.folder.path().join("hosts")).unwrap(), "192.168.1.77 box\n");
    let again = fresh.start();
    assert_eq!(identity(&again), was);
    assert_eq!(super::rules::ask(again.address("/dns/listen/0"), "ads.example", PATIENCE), Some([0, 0, 0, 0]));
    assert!(stdout(&fresh.call(&["audit", "show"])).contains("restore"), "{}", stdout(&fresh.call(&["audit", "show"])));
}

#[test]
fn nothing_is_replaced_unless_that_is_said_and_what_was_there_is_kept() {
    let (old, other) = (House::new(), House::new());
    let file = old.folder.path().join("box.age");
    assert!(old.back_up(&file, &[]).status.success());
    let (text, key) = (other.text(), fs::read(other.state().join("tour.key")).unwrap());

    let refused = other.restore(&file, &[]);
    let untouched = (other.text(), fs::read(other.state().join("tour.key")).unwrap());
    let forced = other.restore(&file, &["--force"]);

    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("would be replaced: say --force"), "{}", stderr(&refused));
    assert_eq!(untouched, (text.clone(), key.clone()));
    assert!(forced.status.success(), "{}", stderr(&forced));
    assert_eq!(other.text(), old.text());
    assert_eq!(fs::read(other.state().join("tour.key")).unwrap(), fs::read(old.state().join("tour.key")).unwrap());
    assert_eq!(fs::read(other.state().join("before-restore/tour.key")).unwrap(), key);
    let before = other.folder.path().join("hearthgate.toml.before-restore");
    assert_eq!(fs::read_to_string(before).unwrap(), text);
}

#[test]
fn a_damaged_file_or_other_words_write_nothing() {
    let old = House::new();
    let file = old.folder.path().join("box.age");
    assert!(old.back_up(&file, &[]).status.success());
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let damaged = old.folder.path().join("damaged.age");
    fs::write(&damaged, bytes).unwrap();
    let fresh = House::fresh();

    let refused = fresh.restore(&damaged, &[]);
    let wrong = fresh.call_with_words("another passphrase", &["restore", file.to_str().unwrap()]);

    assert!(stderr(&refused).contains("damaged"), "{}", stderr(&refused));
    assert!(stderr(&wrong).contains("the passphrase is another one"), "{}", stderr(&wrong));
    assert_eq!((refused.status.code(), wrong.status.code()), (Some(1), Some(1)));
    assert_eq!(fs::read_dir(fresh.folder.path()).unwrap().count(), 0);
}

#[test]
fn a_running_edge_is_not_replaced_beneath_itself() {
    let old = House::new();
    let file = old.folder.path().join("box.age");
    let running = old.start();
    assert!(old.back_up(&file, &[]).status.success());

    let refused = old.restore(&file, &["--force"]);

    assert!(stderr(&refused).contains("stop it first"), "{}", stderr(&refused));
    assert_eq!(running.status()["generation"], 1);
}

#[test]
fn a_backup_takes_no_weak_words_and_no_place_of_another_file() {
    let house = House::new();
    let file = house.folder.path().join("box.age");
    fs::write(&file, "precious").unwrap();

    let weak = house.call_with_words("short", &["backup", "new.age", "--config", house.file().to_str().unwrap()]);
    let taken = house.back_up(&file, &[]);

    assert!(stderr(&weak).contains("at least 10"), "{}", stderr(&weak));
    assert!(stderr(&taken).contains("say --force"), "{}", stderr(&taken));
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert!(house.back_up(&file, &["--force"]).status.success());
}

#[test]
fn the_history_comes_along_if_it_is_wanted() {
    let old = House::new();
    old.write(&format!("{}\n[history]\n", old.text()));
    let file = old.folder.path().join("box.age");
    let mut running = old.start();
    super::rules::ask(running.address("/dns/listen/0"), "blocked.example", PATIENCE);
    let asked = stdout(&old.call(&["queries", "--json"]));

    let made = old.back_up(&file, &["--history"]);
    running.signal(libc::SIGTERM);
    running.end();
    let fresh = House::fresh();
    let restored = fresh.restore(&file, &[]);

    assert!(asked.contains("blocked.example"), "{asked}");
    assert!(made.status.success() && restored.status.success(), "{}{}", stderr(&made), stderr(&restored));
    let _again = fresh.start();
    assert_eq!(stdout(&fresh.call(&["queries", "--json"])), asked);
}

#[test]
fn one_is_made_by_itself_tried_and_shown_and_old_ones_go() {
    let house = House::new();
    let backups = house.state().join("backups");
    let words = house.folder.path().join("words");
    fs::write(&words, format!("{WORDS}\n")).unwrap();
    fs::set_permissions(&words, fs::Permissions::from_mode(0o644)).unwrap();
    house.write(&format!("{}\n[backup]\npassphrase = \"file:words\"\nkeep = 2\n", house.text()));
    store::folder(&backups).unwrap();
    for year in 2020..2023 {
        fs::write(backups.join(format!("hearthgate-{year}0101T000000Z.age")), "old").unwrap();
    }
    fs::write(backups.join("notes"), "stay").unwrap();
    let running = house.start();

    let until = Instant::now() + PATIENCE;
    let backup = loop {
        let status = running.status();
        if status["backup"]["bytes"].is_u64() || Instant::now() > until {
            break status["backup"].clone();
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let figures = scrape(running.address("/metrics/0"));
    let text = stdout(&house.call(&["status"]));

    assert!(backup["problem"].is_null() && backup["bytes"].is_u64(), "{backup}");
    assert_eq!(backup["kept"], 2);
    assert!(figures.contains("hearthgate_backup_last_attempt_successful 1"), "{figures}");
    assert!(text.contains("2 kept, the last of "), "{text}");
    let mut names: Vec<String> =
        fs::read_dir(&backups).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!((names[0].as_str(), names[2].as_str()), ("hearthgate-20220101T000000Z.age", "notes"));
    assert!(!house.state().join("backup-trial").exists());
    drop(running);
    let fresh = House::fresh();
    let restored = fresh.restore(&backups.join(&names[1]), &[]);
    assert!(restored.status.success(), "{}", stderr(&restored));
    assert_eq!(fs::read_to_string(fresh.folder.path().join("words")).unwrap().trim(), WORDS);
}

#[test]
fn age_and_tar_open_it_without_us() {
    let house = House::new();
    let file = house.folder.path().join("box.age");
    let made = house.back_up(&file, &[]);

    let shown = house.call_with_words(WORDS, &["restore", "--check", file.to_str().unwrap()]);

    assert!(made.status.success(), "{}", stderr(&made));
    assert!(stdout(&shown).contains("state/tour.key") && stdout(&shown).ends_with("whole\n"), "{}", stdout(&shown));
    assert!(fs::read(&file).unwrap().starts_with(b"age-encryption.org/v1\n-> scrypt "));
}
