//! Encryption with a passphrase in the form of age (C2SP, age-encryption.org/v1, the scrypt recipient).
//!
//! A header wraps a random key with what scrypt makes of the passphrase; the content follows in pieces of 64 KiB, each
//! sealed, numbered, and the last one marked, so that nothing can be changed, moved or cut off.

use std::io::{self, BufRead, Read, Write};

use aws_lc_rs::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    hkdf, hmac,
};
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD as BASE64};
use zeroize::Zeroizing;

use super::Passphrase;

const VERSION: &str = "age-encryption.org/v1";
const LABEL: &[u8] = b"age-encryption.org/v1/scrypt";
/// Bytes of content in a piece, and of what seals it.
const PIECE: usize = 64 * 1024;
const TAG: usize = 16;
/// Bytes of the wrapped key, and of the salts.
const KEY: usize = 16;
/// 256 MiB for a moment, as age itself writes it. A file that asks for more is not read.
const HARDEST: u8 = 18;
/// Bytes of a header's line.
const LINE: u64 = 256;

/// How much memory it takes to try a passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// 128 MiB: a command has the box for a moment.
    Command,
    /// 32 MiB: beside the running planes.
    Beside,
}

impl Cost {
    fn log_n(self) -> u8 {
        match self {
            Self::Command => 17,
            Self::Beside => 15,
        }
    }
}

/// Why a file does not open.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("this is no file that was encrypted with a passphrase by hearthgate or age")]
    Foreign,
    /// It wants more memory than we give.
    #[error("trying a passphrase on this file would take more than 256 MiB of memory: it is not of ours")]
    Hard,
    /// Other words.
    #[error("the passphrase is another one, or the file is damaged")]
    Passphrase,
    /// The passphrase is right and the header is not.
    #[error("the head of the file was changed")]
    Head,
}

/// Encrypts what is written to it.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    key: LessSafeKey,
    number: u64,
    piece: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    pub fn begin(mut out: W, passphrase: &Passphrase, cost: Cost) -> io::Result<Self> {
        let (mut key, mut salt, mut nonce) = (Zeroizing::new([0; KEY]), [0; KEY], [0; KEY]);
        for random in [&mut *key, &mut salt, &mut nonce] {
            getrandom::fill(random).map_err(io::Error::other)?;
        }
        let mut wrapped = key.to_vec();
        let wrapping = wrapping(passphrase, &salt, cost.log_n());
        let sealed = wrapping.seal_in_place_append_tag(number(0, Last::No), Aad::empty(), &mut wrapped);
        sealed.map_err(|_| io::Error::other("the key cannot be wrapped"))?;
        let (salt, wrapped) = (BASE64.encode(salt), BASE64.encode(wrapped));
        let head = format!("{VERSION}\n-> scrypt {salt} {}\n{wrapped}\n---", cost.log_n());
        let mac = hmac::sign(&head_key(&*key), head.as_bytes());
        writeln!(out, "{head} {}", BASE64.encode(mac))?;
        out.write_all(&nonce)?;
        Ok(Self { out, key: content_key(&*key, &nonce), number: 0, piece: Vec::with_capacity(PIECE + TAG) })
    }

    /// Writes the last piece, and returns what was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(Last::Yes)?;
        Ok(self.out)
    }

    fn seal(&mut self, last: Last) -> io::Result<()> {
        let nonce = number(self.number, last);
        let sealed = self.key.seal_in_place_append_tag(nonce, Aad::empty(), &mut self.piece);
        sealed.map_err(|_| io::Error::other("it cannot be encrypted"))?;
        self.out.write_all(&self.piece)?;
        self.piece.clear();
        self.number += 1;
        Ok(())
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full piece waits until it is known not to be the last.
        if self.piece.len() == PIECE && !bytes.is_empty() {
            self.seal(Last::No)?;
        }
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file whose passphrase was right.
pub struct Opened {
    key: LessSafeKey,
    /// Where the content begins.
    start: u64,
}

/// Reads the header.
pub fn open(input: &mut impl BufRead, passphrase: &Passphrase) -> Result<Opened, Error> {
    let mut lines = Vec::new();
    let mut start = 0;
    for _ in 0..4 {
        let mut line = String::new();
        match Read::take(&mut *input, LINE).read_line(&mut line) {
            Ok(length) => start += length as u64,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(Error::Foreign),
            Err(error) => return Err(error.into()),
        }
        lines.push(line.strip_suffix('\n').ok_or(Error::Foreign)?.to_owned());
    }
    let [version, recipient, wrapped, mac] = &lines[..] else { return Err(Error::Foreign) };
    let words: Vec<&str> = recipient.split(' ').collect();
    let ["->", "scrypt", salt, log_n] = words[..] else { return Err(Error::Foreign) };
    let bytes = |text: &str| BASE64.decode(text).map_err(|_| Error::Foreign);
    let salt: [u8; KEY] = bytes(salt)?.try_into().map_err(|_| Error::Foreign)?;
    let mut wrapped = bytes(wrapped)?;
    let told_mac = bytes(mac.strip_prefix("--- ").ok_or(Error::Foreign)?)?;
    let plain_number = !log_n.starts_with(['0', '+']);
    let log_n: u8 = log_n.parse().ok().filter(|_| plain_number).ok_or(Error::Foreign)?;
    if version != VERSION || wrapped.len() != KEY + TAG {
        return Err(Error::Foreign);
    }
    if log_n > HARDEST {
        return Err(Error::Hard);
    }
    let wrapping = wrapping(passphrase, &salt, log_n);
    let key = wrapping.open_in_place(number(0, Last::No), Aad::empty(), &mut wrapped);
    let key = Zeroizing::new(key.map_err(|_| Error::Passphrase)?.to_vec());
    let head = format!("{version}\n{recipient}\n{}\n---", lines[2]);
    hmac::verify(&head_key(&key), head.as_bytes(), &told_mac).map_err(|_| Error::Head)?;
    let mut nonce = [0; KEY];
    input.read_exact(&mut nonce)?;
    Ok(Opened { key: content_key(&key, &nonce), start: start + KEY as u64 })
}

impl Opened {
    /// Decrypts a file from its beginning.
    pub fn read<R: Read>(&self, mut input: R) -> io::Result<impl Read + use<'_, R>> {
        io::copy(&mut input.by_ref().take(self.start), &mut io::sink())?;
        Ok(Reader { opened: self, input, number: 0, sealed: Vec::new(), plain: 0..0, is_over: false })
    }
}

struct Reader<'a, R> {
    opened: &'a Opened,
    input: R,
    number: u64,
    /// The piece, decrypted in place, and after it the first byte of the next.
    sealed: Vec<u8>,
    /// What of it was not handed out yet.
    plain: std::ops::Range<usize>,
    is_over: bool,
}

impl<R: Read> Reader<'_, R> {
    fn next(&mut self) -> io::Result<()> {
        let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let ahead = self.sealed.get(PIECE + TAG).copied();
        self.sealed.clear();
        self.sealed.extend(ahead);
        let wanted = (PIECE + TAG + 1 - self.sealed.len()) as u64;
        self.input.by_ref().take(wanted).read_to_end(&mut self.sealed)?;
        let last = if self.sealed.len() > PIECE + TAG { Last::No } else { Last::Yes };
        let end = self.sealed.len().min(PIECE + TAG);
        let piece = self.sealed.get_mut(..end).unwrap_or_default();
        let plain = self.opened.key.open_in_place(number(self.number, last), Aad::empty(), piece);
        let length = plain.map_err(|_| wrong("the file is damaged, or its end is missing"))?.len();
        if length == 0 && self.number > 0 {
            return Err(wrong("the file ends with nothing in a piece of its own"));
        }
        self.is_over = last == Last::Yes;
        self.number += 1;
        self.plain = 0..length;
        Ok(())
    }
}

impl<R: Read> Read for Reader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.plain.is_empty() {
            if self.is_over {
                return Ok(0);
            }
            self.next()?;
        }
        let count = self.sealed.get(self.plain.clone()).unwrap_or_default().read(buffer)?;
        self.plain.start += count;
        Ok(count)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Yes,
    No,
}

/// Eleven bytes that count, and one that says which is the last.
fn number(number: u64, last: Last) -> Nonce {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&number.to_be_bytes());
    nonce[11] = u8::from(last == Last::Yes);
    Nonce::assume_unique_for_key(nonce)
}

fn wrapping(passphrase: &Passphrase, salt: &[u8; KEY], log_n: u8) -> LessSafeKey {
    let params = scrypt::Params::new(log_n, 8, 1, 32).expect("at most 18, checked or ours");
    let mut key = Zeroizing::new([0; 32]);
    let salt = [LABEL, salt].concat();
    scrypt::scrypt(passphrase.reveal(), &salt, &params, &mut *key).expect("32 bytes are a key");
    sealing(&*key)
}

fn sealing(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes are a key"))
}

fn head_key(key: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &*derived(key, &[], b"header"))
}

fn content_key(key: &[u8], nonce: &[u8]) -> LessSafeKey {
    sealing(&*derived(key, nonce, b"payload"))
}

fn derived(key: &[u8], salt: &[u8], what: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut made = Zeroizing::new([0; 32]);
    let random = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key);
    let info = [what];
    let filled = random.expand(&info, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut *made));
    filled.expect("32 bytes are what SHA-256 gives");
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Passphrase {
        Passphrase::of(text).unwrap()
    }

    fn sealed(content: &[u8]) -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), &words("correct horse"), Cost::Beside).unwrap();
        writer.write_all(content).unwrap();
        writer.finish().unwrap()
    }

    fn plain(file: &[u8]) -> io::Result<Vec<u8>> {
        let opened = open(&mut &*file, &words("correct horse")).map_err(io::Error::other)?;
        let mut content = Vec::new();
        opened.read(file)?.read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn what_was_sealed_is_read_at_every_length_around_a_piece() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 5] {
            let content: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();

            assert!(plain(&sealed(&content)).unwrap() == content, "{length}");
        }
    }

    #[test]
    fn a_file_of_age_itself_is_read() {
        // `printf 'of age itself\n' | age -p`, and the passphrase twice.
        let file = BASE64.decode(AGE).unwrap();

        assert_eq!(plain(&file).unwrap(), b"of age itself\n");
    }

    #[test]
    fn nothing_can_be_changed_or_cut_off() {
        let file = sealed(&[7; PIECE + 100]);
        let head = file.windows(4).position(|four| four == b"--- ").unwrap();
        let content = file.len() - (PIECE + 100 + 2 * TAG);

        for at in [30, head + 6, content - 1, content, content + PIECE, file.len() - 1] {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(plain(&changed).is_err(), "{at}");
        }
        for length in [0, 10, head, content, content + 5, content + PIECE + TAG, file.len() - 1] {
            assert!(plain(&file[..length]).is_err(), "{length}");
        }
        assert!(plain(&[&file[..], b"more"].concat()).is_err());
    }

    #[test]
    fn other_words_open_nothing() {
        let file = sealed(b"keys");

        let refused = open(&mut &file[..], &words("correct mule")).err().unwrap();

        assert!(matches!(refused, Error::Passphrase), "{refused}");
    }

    #[test]
    fn a_file_that_wants_gigabytes_is_not_tried() {
        let file = String::from_utf8_lossy(&sealed(b"")).replace(" 15\n", " 30\n");

        assert!(matches!(open(&mut file.as_bytes(), &words("correct horse")), Err(Error::Hard)));
    }

    const AGE: &str = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCBDalFVVVJFRzRoeWV0MVlJbHM5cG5RIDE4Clh5WC9CVkV2Slk0eW5UUWpGTDcwU1NNS2RvR0F4Rk1uMjVuVFA1NGFiR3cKLS0tIGxhV2UyejV2T2lDT2t6bUZ3SHBUZTlXOXlrNy9hcnZYekZpVlgwOEt1dzAKX4lVtzHGgttmxvdV5HDMGgSe1VJ3QKlSyqPzv4xxNmjuANTNzVkxeHz1hjUspw";
}
