//! What a rule set cannot say in its few bits: terms of rules, networks, and patterns.

use std::{io, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    disk::{In, Out},
    patterns::Patterns,
    terms::Terms,
};

/// Terms, lengths of prefixes and patterns.
#[derive(Default)]
pub(super) struct Special {
    terms: Vec<Terms>,
    /// For terms that say `$badfilter`: the number of the terms that are put out of force, by their place.
    cancels: Vec<u16>,
    any_bad: bool,
    pub(super) nets: Lengths,
    pub(super) patterns: Patterns,
}

impl Special {
    pub(super) fn new(terms: Vec<Terms>, nets: Lengths, patterns: Patterns) -> Self {
        let number_of = |wanted: &Terms| match *wanted == Terms::default() {
            true => Some(0),
            false => terms.iter().position(|terms| terms == wanted).and_then(|place| u16::try_from(place + 1).ok()),
        };
        let cancelled = |bad: &Terms| match bad.bad {
            true => number_of(&Terms { bad: false, ..bad.clone() }),
            false => None,
        };
        let cancels: Vec<_> = terms.iter().map(|terms| cancelled(terms).unwrap_or(u16::MAX)).collect();
        let any_bad = terms.iter().any(|terms| terms.bad);
        Self { terms, cancels, any_bad, nets, patterns }
    }

    /// Returns terms by their number, which is not 0.
    pub(super) fn terms(&self, number: u16) -> Option<&Terms> {
        self.terms.get(usize::from(number).checked_sub(1)?)
    }

    /// Says whether a rule with these terms puts another one out of force, that is the same without the word.
    pub(super) fn cancels(&self, bad: u16, other: u16) -> bool {
        let place = usize::from(bad).checked_sub(1);
        bad != 0 && place.and_then(|place| self.cancels.get(place)) == Some(&other)
    }

    /// Says whether some rule puts others out of force.
    pub(super) const fn any_bad(&self) -> bool {
        self.any_bad
    }

    pub(super) fn bytes(&self) -> usize {
        self.terms.iter().map(Terms::bytes).sum::<usize>() + 2 * self.cancels.len() + self.patterns.bytes()
    }

    pub(super) fn write(&self, out: &mut Out) -> io::Result<()> {
        out.json(&self.terms)?;
        out.json(&self.nets)?;
        self.patterns.write(out)
    }

    pub(super) fn read(from: &mut In<'_>) -> io::Result<Self> {
        Ok(Self::new(from.json()?, from.json()?, Patterns::read(from)?))
    }
}

/// The lengths of the prefixes that have rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lengths {
    v4: Vec<u8>,
    v6: Vec<u8>,
}

impl Lengths {
    pub(super) fn add(&mut self, net: IpNet) {
        let lengths = if net.addr().is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        if !lengths.contains(&net.prefix_len()) {
            lengths.push(net.prefix_len());
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Returns the networks around an address that may have rules.
    pub(super) fn around(&self, address: IpAddr) -> impl Iterator<Item = IpNet> {
        let address = address.to_canonical();
        let lengths = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        lengths.iter().filter_map(move |length| IpNet::new(address, *length).ok()).map(|net| net.trunc())
    }
}

/// Returns what a network is called in the table: a name of one label that no host has.
pub(super) fn net_name(net: IpNet) -> Vec<u8> {
    let mut name = vec![0, b'/', net.prefix_len()];
    match net.addr() {
        IpAddr::V4(v4) => name.extend(v4.octets()),
        IpAddr::V6(v6) => name.extend(v6.octets()),
    }
    // Keys take no notice of the case of letters, addresses do.
    let name: Vec<u8> = name.iter().flat_map(|octet| [octet >> 4, octet & 0x0f]).collect();
    let mut label = vec![u8::try_from(name.len() - 2).unwrap_or(63)];
    label.extend(&name[2..]);
    label.push(0);
    label
}
