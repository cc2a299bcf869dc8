//! Domain names in lower-case wire form: what every key, comparison and signature of the resolver uses.

use std::{cmp::Ordering, fmt, sync::Arc};

/// The longest name on the wire, the root's zero included (RFC 1035 §2.3.4).
pub const LONGEST: usize = 255;

/// An absolute name, lower-case, in wire form. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// Returns the root.
    pub fn root() -> Self {
        Self(Arc::from([0_u8]))
    }

    /// Takes a name in wire form without compression, which ends with the slice.
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        let (name, rest) = Self::split_from(wire)?;
        rest.is_empty().then_some(name)
    }

    /// Takes a name without compression from the front of a slice and returns what follows it.
    pub fn split_from(wire: &[u8]) -> Option<(Self, &[u8])> {
        let mut at = 0;
        loop {
            let length = usize::from(*wire.get(at)?);
            if length > 63 {
                return None;
            }
            at += 1 + length;
            if at > LONGEST || at > wire.len() {
                return None;
            }
            if length == 0 {
                break;
            }
        }
        let (name, rest) = wire.split_at(at);
        Some((Self(name.to_ascii_lowercase().into()), rest))
    }

    /// Reads presentation form (RFC 1035 §5.1), absolute whether or not the last dot is there.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "." {
            return Some(Self::root());
        }
        let mut wire = Vec::with_capacity(text.len() + 2);
        let mut label = Vec::new();
        let mut bytes = text.bytes().peekable();
        let mut close = |label: &mut Vec<u8>| {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
            wire.push(length);
            wire.append(label);
            Some(())
        };
        while let Some(byte) = bytes.next() {
            match byte {
                b'.' => close(&mut label)?,
                b'\\' => {
                    let next = bytes.next()?;
                    if next.is_ascii_digit() {
                        let mut value = u16::from(next - b'0');
                        for _ in 0..2 {
                            let digit = bytes.next().filter(u8::is_ascii_digit)?;
                            value = value * 10 + u16::from(digit - b'0');
                        }
                        label.push(u8::try_from(value).ok()?);
                    } else {
                        label.push(next);
                    }
                }
                other => label.push(other),
            }
        }
        if !label.is_empty() {
            close(&mut label)?;
        }
        wire.push(0);
        (wire.len() <= LONGEST).then(|| Self(wire.to_ascii_lowercase().into()))
    }

    /// Returns the wire form.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// Says whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// Returns the labels from the left, without the root's.
    pub fn labels(&self) -> Labels<'_> {
        Labels(&self.0)
    }

    /// Counts the labels, without the root's; RRSIG's count of a name without a wildcard label.
    pub fn label_count(&self) -> usize {
        self.labels().count()
    }

    /// Returns the name without its first label; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let first = usize::from(self.0[0]);
        (first > 0).then(|| Self(self.0[1 + first..].into()))
    }

    /// Returns the last `count` labels; the name itself where it has no more.
    pub fn suffix(&self, count: usize) -> Self {
        let mut skip = self.label_count().saturating_sub(count);
        if skip == 0 {
            return self.clone();
        }
        let mut wire = &self.0[..];
        while skip > 0 {
            wire = &wire[1 + usize::from(wire[0])..];
            skip -= 1;
        }
        Self(wire.into())
    }

    /// Says whether the name is `ancestor` or below it.
    pub fn is_under(&self, ancestor: &Self) -> bool {
        let Some(start) = self.0.len().checked_sub(ancestor.0.len()) else { return false };
        if self.0[start..] != ancestor.0[..] {
            return false;
        }
        // The match must begin at a label.
        let mut at = 0;
        while at < start {
            at += 1 + usize::from(self.0[at]);
        }
        at == start
    }

    /// Says whether the name is below `ancestor`.
    pub fn is_below(&self, ancestor: &Self) -> bool {
        self.0.len() > ancestor.0.len() && self.is_under(ancestor)
    }

    /// Returns the labels that two names share at the right.
    pub fn common_ancestor(&self, other: &Self) -> Self {
        let mine: Vec<&[u8]> = self.labels().collect();
        let theirs: Vec<&[u8]> = other.labels().collect();
        let shared = mine.iter().rev().zip(theirs.iter().rev()).take_while(|(a, b)| a == b).count();
        self.suffix(shared)
    }

    /// Puts a label in front; `None` if the name would be too long.
    pub fn child(&self, label: &[u8]) -> Option<Self> {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        let mut wire = Vec::with_capacity(1 + label.len() + self.0.len());
        wire.push(length);
        wire.extend(label.to_ascii_lowercase());
        wire.extend_from_slice(&self.0);
        (wire.len() <= LONGEST).then(|| Self(wire.into()))
    }

    /// Returns `*` under this name; `None` if that would be too long.
    pub fn wildcard(&self) -> Option<Self> {
        self.child(b"*")
    }

    /// Says whether the first label is `*`.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with(&[1, b'*'])
    }

    /// Replaces the suffix `from` by `to` (RFC 6672 §2.3); `None` if the name would be too long.
    pub fn substitute(&self, from: &Self, to: &Self) -> Option<Self> {
        let kept = self.0.len().checked_sub(from.0.len())?;
        let mut wire = self.0[..kept].to_vec();
        wire.extend_from_slice(&to.0);
        (wire.len() <= LONGEST).then(|| Self(wire.into()))
    }
}

/// The labels of a name from the left.
#[derive(Clone, Debug)]
pub struct Labels<'a>(&'a [u8]);

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first()?;
        if *length == 0 {
            return None;
        }
        let (label, rest) = rest.split_at(usize::from(*length));
        self.0 = rest;
        Some(label)
    }
}

/// The canonical order of RFC 4034 §6.1: by labels from the right.
impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        let mine: Vec<&[u8]> = self.labels().collect();
        let theirs: Vec<&[u8]> = other.labels().collect();
        mine.iter().rev().cmp(theirs.iter().rev())
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for label in self.labels() {
            for byte in label {
                match byte {
                    b'.' | b'\\' => write!(f, "\\{}", char::from(*byte))?,
                    0x21..=0x7e => write!(f, "{}", char::from(*byte))?,
                    other => write!(f, "\\{other:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn rfc4034_canonical_order() {
        let sorted = [
            "example.",
            "a.example.",
            "yljkjljk.a.example.",
            "Z.a.example.",
            "zABC.a.EXAMPLE.",
            "z.example.",
            "\\001.z.example.",
            "*.z.example.",
            "\\200.z.example.",
        ];
        let names: Vec<Name> = sorted.iter().map(|text| name(text)).collect();

        let mut shuffled = names.clone();
        shuffled.reverse();
        shuffled.sort();

        assert_eq!(shuffled, names);
    }

    #[test]
    fn a_suffix_match_begins_at_a_label() {
        assert!(name("www.example.").is_under(&name("example.")));
        assert!(!name("wwwexample.").is_under(&name("example.")));
        assert!(name("example.").is_under(&Name::root()));
        assert!(!name("example.").is_below(&name("example.")));
        // The bytes of the ancestor stand inside a label.
        let tricky = Name::from_wire(b"\x09a\x07example\x00").unwrap();
        assert!(!tricky.is_under(&name("example.")));
    }

    #[test]
    fn names_are_taken_apart_and_put_together() {
        let www = name("www.sub.example.com.");

        assert_eq!(www.suffix(2), name("example.com."));
        assert_eq!(www.parent(), Some(name("sub.example.com.")));
        assert_eq!(www.common_ancestor(&name("mail.example.com.")), name("example.com."));
        assert_eq!(www.substitute(&name("example.com."), &name("example.net.")), Some(name("www.sub.example.net.")));
        assert_eq!(www.to_string(), "www.sub.example.com.");
        assert_eq!(name("a\\.b.example.").to_string(), "a\\.b.example.");
        assert_eq!(Name::parse("a..b"), None);
    }
}
