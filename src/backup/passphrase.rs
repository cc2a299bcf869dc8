//! The words that open a backup.

use zeroize::Zeroizing;

/// Letters of a new one: whoever has the file may try as long as he likes.
const LEAST: usize = 10;

/// What a backup is encrypted with.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Zeroizing<String>);

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase")
    }
}

impl Passphrase {
    /// Takes what opens a backup that is there: the first line of a text.
    pub fn of(text: &str) -> Option<Self> {
        let line = text.lines().next().unwrap_or_default();
        (!line.is_empty()).then(|| Self(Zeroizing::new(line.to_owned())))
    }

    /// Says why it is not good enough for a new backup, if it is not.
    pub fn weakness(&self) -> Option<String> {
        let count = self.0.chars().count();
        (count < LEAST).then(|| format!("the passphrase has {count} letters: at least {LEAST} are needed"))
    }

    pub(super) fn reveal(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
