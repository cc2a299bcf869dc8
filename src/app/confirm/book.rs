//! Who has confirmed, until when, and who may try again when: kept over restarts.
//!
//! A secret belongs to a key: who gets other keys sets up anew. Wrong passwords make the next attempt wait, twice as
//! long each time up to an hour: nobody is locked out for good, and whoever guesses for a year is right with a chance of
//! less than three in a hundred.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use super::totp::Secret;
use crate::{
    store,
    vpn::{Confirmed, keys::PublicKey},
};

/// Its name in the state folder.
const FILE: &str = "confirmations";
/// The longest wait between attempts, in seconds.
const LONGEST_WAIT: i64 = 60 * 60;

/// Who has confirmed.
#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    people: BTreeMap<PublicKey, Person>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Person {
    secret: Secret,
    /// Confirmed until then, in seconds since 1970.
    until: i64,
    /// Wrong passwords in a row.
    failures: u32,
    /// No attempt counts before.
    not_before: i64,
    /// The step of the last password that was right.
    used: i64,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It holds until then, in seconds since 1970.
    Confirmed(i64),
    /// The password was wrong, so often in a row; the next attempt counts after so many seconds.
    Wrong { failures: u32, wait: i64 },
    /// It was not looked at.
    TooEarly { wait: i64 },
    /// Nobody has set this peer up.
    NotSetUp,
}

impl Book {
    /// Reads what is kept. A line that makes no sense is somebody who has confirmed nothing.
    pub(super) fn open(state: &Path) -> io::Result<Self> {
        let path = state.join(FILE);
        let content = store::read(&path)?.content().unwrap_or_default();
        let people = String::from_utf8_lossy(&content).lines().filter_map(parse).collect();
        Ok(Self { path, people })
    }

    /// Returns until when each key is confirmed.
    pub(super) fn confirmed(&self) -> Confirmed {
        let until = |(key, person): (&PublicKey, &Person)| Some((*key, Timestamp::from_second(person.until).ok()?));
        self.people.iter().filter_map(until).collect()
    }

    /// Gives a key a new secret; what was confirmed before is not any more.
    pub(super) fn set_up(&mut self, key: PublicKey) -> io::Result<Secret> {
        let secret = Secret::generate();
        let person = Person { secret: secret.clone(), until: 0, failures: 0, not_before: 0, used: 0 };
        self.replace(key, person)?;
        Ok(secret)
    }

    /// Judges a password. What it changes is on the disk when this returns; if that fails nothing is confirmed.
    pub(super) fn attempt(
        &mut self,
        key: &PublicKey,
        password: &str,
        lasts: Duration,
        now: i64,
    ) -> io::Result<Verdict> {
        let Some(person) = self.people.get(key) else { return Ok(Verdict::NotSetUp) };
        let mut person = person.clone();
        // A clock that was set back since must not make the wait longer than any is.
        let wait = person.not_before - now;
        if (1..=LONGEST_WAIT).contains(&wait) {
            return Ok(Verdict::TooEarly { wait });
        }
        let used = if person.used > now / 30 + 1 { 0 } else { person.used };
        let verdict = match person.secret.step_of(password, now, used) {
            Some(step) => {
                person.used = step;
                person.failures = 0;
                person.not_before = 0;
                person.until = now.saturating_add(i64::try_from(lasts.as_secs()).unwrap_or(0));
                Verdict::Confirmed(person.until)
            }
            None => {
                let wait = 1_i64.checked_shl(person.failures.min(20)).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
                person.failures = person.failures.saturating_add(1);
                person.not_before = now + wait;
                Verdict::Wrong { failures: person.failures, wait }
            }
        };
        let kept = self.replace(*key, person);
        match (kept, verdict) {
            // In memory it counts all the same.
            (Err(_), Verdict::Wrong { .. }) => Ok(verdict),
            (kept, verdict) => kept.map(|()| verdict),
        }
    }

    /// Forgets everybody of whom nothing is asked any more.
    pub(super) fn keep(&mut self, is_asked: impl Fn(&PublicKey) -> bool) -> io::Result<()> {
        let before = self.people.len();
        self.people.retain(|key, _| is_asked(key));
        if self.people.len() == before { Ok(()) } else { self.write() }
    }

    /// A confirmation that cannot be kept is none; everything else stays in memory.
    fn replace(&mut self, key: PublicKey, person: Person) -> io::Result<()> {
        let before = self.people.insert(key, person);
        let written = self.write();
        if let (Err(_), Some(now)) = (&written, self.people.get_mut(&key)) {
            now.until = before.map_or(0, |before| before.until);
        }
        written
    }

    fn write(&self) -> io::Result<()> {
        let text: String = self.people.iter().map(|(key, person)| format(key, person)).collect();
        store::write(&self.path, text.as_bytes())?;
        // The older one beside it would keep secrets that are none any more, and passwords that were used.
        store::write(&self.path, text.as_bytes())
    }
}

fn format(key: &PublicKey, person: &Person) -> String {
    let Person { secret, until, failures, not_before, used } = person;
    format!("{key} {} {until} {failures} {not_before} {used}\n", secret.reveal())
}

fn parse(line: &str) -> Option<(PublicKey, Person)> {
    let mut words = line.split(' ');
    let (key, secret) = (words.next()?.parse().ok()?, Secret::parse(words.next()?)?);
    let until = words.next()?.parse().ok()?;
    let failures = words.next()?.parse().ok()?;
    let not_before = words.next()?.parse().ok()?;
    let used = words.next()?.parse().ok()?;
    Some((key, Person { secret, until, failures, not_before, used }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_111_111_111;
    const RIGHT: &str = "050471";
    const DAY: Duration = Duration::from_secs(86_400);

    fn key(number: u8) -> PublicKey {
        PublicKey::from([number; 32])
    }

    /// A book with the secret of RFC 6238.
    fn book(state: &Path) -> Book {
        let text = format!("{} GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ 0 0 0 0\nnonsense\n", key(1));
        store::write(&state.join(FILE), text.as_bytes()).unwrap();
        Book::open(state).unwrap()
    }

    #[test]
    fn who_confirmed_has_confirmed_after_a_restart_too() {
        let state = tempfile::tempdir().unwrap();
        let mut before = book(state.path());
        assert!(before.confirmed().values().all(|until| until.as_second() == 0));

        let verdict = before.attempt(&key(1), RIGHT, DAY, NOW).unwrap();
        let mut after = Book::open(state.path()).unwrap();

        assert_eq!(verdict, Verdict::Confirmed(NOW + 86_400));
        assert_eq!(after.confirmed()[&key(1)].as_second(), NOW + 86_400);
        assert!(matches!(after.attempt(&key(1), RIGHT, DAY, NOW).unwrap(), Verdict::Wrong { .. }), "each counts once");
        assert_eq!(after.attempt(&key(2), RIGHT, DAY, NOW).unwrap(), Verdict::NotSetUp);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(state.path().join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn wrong_passwords_wait_longer_and_longer_and_never_for_good() {
        let state = tempfile::tempdir().unwrap();
        let (mut now, mut waits) = (NOW, Vec::new());
        book(state.path());
        for _ in 0..14 {
            // Over a restart each time.
            let mut book = Book::open(state.path()).unwrap();
            let Verdict::Wrong { wait, .. } = book.attempt(&key(1), "000000", DAY, now).unwrap() else { panic!() };
            let early = book.attempt(&key(1), RIGHT, DAY, now + wait - 1).unwrap();
            assert_eq!(early, Verdict::TooEarly { wait: 1 }, "not even the right one is looked at");
            waits.push(wait);
            now += wait;
        }

        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]);
        let mut book = Book::open(state.path()).unwrap();
        assert!(matches!(book.attempt(&key(1), RIGHT, DAY, NOW - 86_400).unwrap(), Verdict::Wrong { wait: 3600, .. }));
        // The clock is right again, and so is the password.
        let mut book = Book::open(state.path()).unwrap();
        book.people.get_mut(&key(1)).unwrap().not_before = NOW;
        assert!(matches!(book.attempt(&key(1), RIGHT, DAY, NOW).unwrap(), Verdict::Confirmed(_)));
        assert!(matches!(book.attempt(&key(1), "1", DAY, NOW).unwrap(), Verdict::Wrong { failures: 1, wait: 1 }));
    }

    #[test]
    fn another_setup_ends_what_was_confirmed_and_a_removed_peer_leaves_nothing() {
        let state = tempfile::tempdir().unwrap();
        let mut book = book(state.path());
        book.attempt(&key(1), RIGHT, DAY, NOW).unwrap();

        book.set_up(key(1)).unwrap();
        assert_eq!(book.confirmed()[&key(1)].as_second(), 0);
        book.keep(|_| false).unwrap();

        assert!(Book::open(state.path()).unwrap().people.is_empty());
    }

    #[test]
    fn what_cannot_be_kept_is_not_confirmed() {
        let state = tempfile::tempdir().unwrap();
        let mut book = book(state.path());
        book.path = state.path().join("missing").join(FILE);

        assert!(book.attempt(&key(1), RIGHT, DAY, NOW).is_err());
        assert_eq!(book.confirmed()[&key(1)].as_second(), 0);
    }

    #[test]
    fn a_secret_that_was_replaced_is_nowhere_in_the_folder() {
        let state = tempfile::tempdir().unwrap();
        let mut book = book(state.path());

        book.set_up(key(1)).unwrap();

        for entry in std::fs::read_dir(state.path()).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(!text.contains("GEZDGNBVGY3TQOJQ"), "{}", path.display());
        }
    }
}
