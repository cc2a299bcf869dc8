//! The archive within a backup: the plainest form of tar (POSIX ustar), ordinary files alone, under names that stay below
//! where they are unpacked.

use std::io::{self, Read, Write};

use super::{CONFIG, Error, MANIFEST, STATE};

const BLOCK: usize = 512;
/// What a name and the folders before it may take.
const NAME: usize = 100;
const PREFIX: usize = 155;
/// Files of an archive.
const MOST: usize = 10_000;
/// What eleven octal digits say.
const LARGEST: u64 = 0o77_777_777_777;

/// A file of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) size: u64,
}

pub(super) struct Writer<W> {
    out: W,
    time: u64,
}

impl<W: Write> Writer<W> {
    /// Every file is written as of one time, in seconds since 1970.
    pub(super) fn new(out: W, time: u64) -> Self {
        Self { out, time }
    }

    pub(super) fn add(&mut self, name: &str, size: u64, content: impl Read) -> io::Result<()> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("\"{name}\" {what}"));
        if !is_safe(name) || size > LARGEST {
            return Err(wrong("cannot be put into a backup"));
        }
        self.out.write_all(&head(name, size, self.time).ok_or_else(|| wrong("is too long a name"))?)?;
        if io::copy(&mut content.take(size), &mut self.out)? != size {
            return Err(wrong("became shorter while it was read"));
        }
        self.out.write_all(&[0; BLOCK][..padding(size)])
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }
}

/// Reads an archive to its end, and shows every file.
pub(super) fn read(
    mut input: impl Read,
    mut each: impl FnMut(&Entry, &mut dyn Read) -> Result<(), Error>,
) -> Result<(), Error> {
    for _ in 0..=MOST {
        let mut block = [0; BLOCK];
        input.read_exact(&mut block)?;
        if block == [0; BLOCK] {
            let mut rest = Vec::new();
            input.take(2 * BLOCK as u64).read_to_end(&mut rest)?;
            return if rest == [0; BLOCK] { Ok(()) } else { Err(Error::broken("it goes on after its end")) };
        }
        let entry = parse(&block)?;
        let mut content = input.by_ref().take(entry.size);
        each(&entry, &mut content)?;
        io::copy(&mut content, &mut io::sink())?;
        if content.limit() > 0 {
            return Err(Error::broken(format!("\"{}\" ends too early", entry.name)));
        }
        io::copy(&mut input.by_ref().take(padding(entry.size) as u64), &mut io::sink())?;
    }
    Err(Error::broken(format!("it holds more than {MOST} files")))
}

fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

fn head(name: &str, size: u64, time: u64) -> Option<[u8; BLOCK]> {
    let (prefix, name) = split(name)?;
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, format!("{:011o}\0", time.min(LARGEST)).as_bytes());
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(345, prefix.as_bytes());
    let sum = format!("{:06o}\0 ", sum(&block));
    block[148..156].copy_from_slice(sum.as_bytes());
    Some(block)
}

/// Folders before a name that is too long stand in a field of their own.
fn split(name: &str) -> Option<(&str, &str)> {
    if name.len() <= NAME {
        return Some(("", name));
    }
    let fits = |(prefix, name): &(&str, &str)| prefix.len() <= PREFIX && name.len() <= NAME;
    name.match_indices('/').map(|(at, _)| (&name[..at], &name[at + 1..])).find(fits)
}

/// The sum of a head, with spaces where it stands itself.
fn sum(block: &[u8; BLOCK]) -> u64 {
    let spaces = 8 * u64::from(b' ');
    let rest = block[..148].iter().chain(&block[156..]);
    spaces + rest.map(|byte| u64::from(*byte)).sum::<u64>()
}

fn parse(block: &[u8; BLOCK]) -> Result<Entry, Error> {
    let broken = || Error::broken("it is no archive of ours");
    let text = |from: usize, to: usize| {
        let field = block[from..to].split(|byte| *byte == 0).next().unwrap_or_default();
        std::str::from_utf8(field).map_err(|_| broken())
    };
    let octal = |from: usize, to: usize| u64::from_str_radix(text(from, to)?.trim(), 8).map_err(|_| broken());
    if block[257..265] != *b"ustar\x0000" || octal(148, 156)? != sum(block) {
        return Err(broken());
    }
    let name = match text(345, 500)? {
        "" => text(0, 100)?.to_owned(),
        prefix => format!("{prefix}/{}", text(0, 100)?),
    };
    if block[156] != b'0' {
        return Err(Error::broken(format!("\"{}\" is no ordinary file", name.escape_debug())));
    }
    if !is_safe(&name) {
        return Err(Error::broken(format!("\"{}\" does not belong into a backup", name.escape_debug())));
    }
    Ok(Entry { name, size: octal(124, 136)? })
}

/// Says whether a name is of ours and leads nowhere else.
fn is_safe(name: &str) -> bool {
    let below = name.strip_prefix(CONFIG).or_else(|| name.strip_prefix(STATE));
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(char::is_control);
    name == MANIFEST || below.is_some_and(|below| below.split('/').all(part) && below.split('/').count() <= 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(name: &str, kind: u8) -> Vec<u8> {
        let mut block = head(name, 3, 0).unwrap();
        block[156] = kind;
        let sum = format!("{:06o}\0 ", sum(&block));
        block[148..156].copy_from_slice(sum.as_bytes());
        let mut bytes = block.to_vec();
        bytes.extend(b"abc");
        bytes.extend([0; BLOCK - 3 + 2 * BLOCK]);
        bytes
    }

    fn names(archive: &[u8]) -> Result<Vec<Entry>, Error> {
        let mut names = Vec::new();
        read(archive, |entry, _| {
            names.push(entry.clone());
            Ok(())
        })?;
        Ok(names)
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in [
            "/etc/passwd",
            "../x",
            "state/../../x",
            "state//x",
            "state/",
            "state/./x",
            "config/a\nb",
            "other/x",
            "state/1/2/3/4/5/6/7/8/9",
        ] {
            assert!(names(&archive(name, b'0')).is_err(), "{name}");
        }
        let entry = Entry { name: "state/ca/root".into(), size: 3 };
        assert_eq!(names(&archive("state/ca/root", b'0')).unwrap(), [entry]);
    }

    #[test]
    fn links_devices_and_folders_are_refused() {
        for kind in b"1234567xgLK" {
            assert!(names(&archive("state/x", *kind)).is_err(), "{}", char::from(*kind));
        }
    }

    #[test]
    fn an_archive_that_is_cut_off_or_goes_on_is_refused() {
        let whole = archive("state/x", b'0');
        for length in [0, 100, BLOCK, BLOCK + 2, 2 * BLOCK, 3 * BLOCK] {
            assert!(names(&whole[..length]).is_err(), "{length}");
        }
        assert!(names(&[&whole[..], b"x"].concat()).is_err());
    }

    #[test]
    fn a_size_that_is_not_there_takes_no_memory() {
        let mut block = head("state/x", LARGEST, 0).unwrap().to_vec();
        block.extend(b"abc");

        assert!(names(&block).is_err());
    }

    #[test]
    fn long_names_keep_their_folders() {
        let name = format!("state/{}/{}", "a".repeat(90), "b".repeat(90));
        let mut writer = Writer::new(Vec::new(), 0);
        writer.add(&name, 1, &b"x"[..]).unwrap();

        assert_eq!(names(&writer.finish().unwrap()).unwrap()[0].name, name);
    }
}
