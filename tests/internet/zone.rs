//! A zone and how an authoritative server answers from it (RFC 1034 §4.3.2, RFC 4035 §3.1, RFC 5155 §7.2).

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
    sync::Arc,
};

use hearthgate::dns::resolver::{
    denial::nsec3,
    name::Name,
    wire::{IN, Record, rtype},
};

use super::sign::{Flaw, Key};

const SOA: u16 = rtype::SOA;

/// How a zone denies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signing {
    Unsigned,
    Nsec,
    Nsec3 { opt_out: bool, iterations: u16 },
}

/// What is wrong with a zone, on all its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// With the signatures, those over the keys excepted.
    All(Flaw),
    /// With the signatures over NSEC and NSEC3.
    Denials(Flaw),
    /// With the signatures over the keys.
    Keys(Flaw),
    /// The keys are not there.
    Keyless,
    /// Nothing is said of what does not exist.
    NoDenial,
    /// The NSEC of the apex is given for every other name.
    WrongDenial,
    /// What a wildcard has is given for names that exist.
    Replay,
}

/// What is there under one name.
pub type Node = BTreeMap<u16, Vec<Arc<[u8]>>>;
type Sealed = Vec<Record>;
/// Hash → the name and the types that it has.
type Hashes = BTreeMap<Vec<u8>, (Name, Vec<u8>)>;

pub struct Zone {
    pub name: Name,
    pub signing: Signing,
    pub key: Rc<Key>,
    /// All names with records, also delegations and the glue below them.
    pub nodes: BTreeMap<Name, Node>,
    pub fault: Fault,
    pub ttl: u32,
    /// The server follows aliases inside the zone.
    pub follows: bool,
    pub sealed: RefCell<HashMap<(Name, u16), Rc<Sealed>>>,
    chain: RefCell<Option<Rc<Hashes>>>,
}

/// An answer's sections.
#[derive(Clone, Debug, Default)]
pub struct Said {
    pub rcode: u16,
    pub authoritative: bool,
    pub answer: Vec<Record>,
    pub authority: Vec<Record>,
    pub additional: Vec<Record>,
}

impl Zone {
    pub fn new(name: Name, signing: Signing, key: Rc<Key>) -> Self {
        Self {
            name,
            signing,
            key,
            nodes: BTreeMap::new(),
            fault: Fault::None,
            ttl: 3600,
            follows: true,
            sealed: RefCell::default(),
            chain: RefCell::default(),
        }
    }

    pub fn add(&mut self, name: &Name, kind: u16, rdata: &[u8]) {
        self.nodes.entry(name.clone()).or_default().entry(kind).or_default().push(rdata.into());
    }

    pub fn is_signed(&self) -> bool {
        self.signing != Signing::Unsigned
    }

    /// The delegation at or above the name, if any.
    pub fn cut(&self, name: &Name) -> Option<Name> {
        let apex = self.name.label_count();
        (apex + 1..=name.label_count())
            .map(|count| name.suffix(count))
            .find(|place| self.nodes.get(place).is_some_and(|node| node.contains_key(&rtype::NS)))
    }

    /// The name has records, or something below it has.
    pub fn exists(&self, name: &Name) -> bool {
        self.nodes.contains_key(name) || self.nodes.range(name.clone()..).take(2).any(|(other, _)| other.is_below(name))
    }

    pub fn encloser(&self, name: &Name) -> Name {
        let mut at = name.clone();
        while !self.exists(&at) {
            at = at.parent().expect("the apex exists");
        }
        at
    }

    /// The DNAME above the name.
    pub fn dname(&self, name: &Name) -> Option<(Name, Name)> {
        let apex = self.name.label_count();
        (apex..name.label_count()).map(|count| name.suffix(count)).find_map(|place| {
            let data = self.nodes.get(&place)?.get(&rtype::DNAME)?;
            Some((place, Name::from_wire(&data[0])?))
        })
    }

    /// The set with its signature.
    fn set(&self, name: &Name, kind: u16) -> Rc<Sealed> {
        if let Some(sealed) = self.sealed.borrow().get(&(name.clone(), kind)) {
            return sealed.clone();
        }
        let data = self.nodes.get(name).and_then(|node| node.get(&kind)).cloned().unwrap_or_default();
        let sealed = self.seal(name, kind, &data);
        self.sealed.borrow_mut().insert((name.clone(), kind), sealed.clone());
        sealed
    }

    fn seal(&self, name: &Name, kind: u16, data: &[Arc<[u8]>]) -> Rc<Sealed> {
        let record = |rtype, rdata: &Arc<[u8]>| Record {
            name: name.clone(),
            rtype,
            class: IN,
            ttl: self.ttl,
            rdata: rdata.clone(),
        };
        let mut sealed: Sealed = data.iter().map(|data| record(kind, data)).collect();
        let cut = self.cut(name);
        let signed = self.is_signed() && !data.is_empty() && (cut.is_none() || matches!(kind, rtype::DS | rtype::NSEC));
        if signed {
            let flaw = match (self.fault, kind) {
                (Fault::Keys(flaw), rtype::DNSKEY) => flaw,
                (Fault::All(flaw), kind) if kind != rtype::DNSKEY => flaw,
                (Fault::Denials(flaw), rtype::NSEC | rtype::NSEC3) => flaw,
                _ => Flaw::None,
            };
            let rrsig = self.key.sign(&self.name, name, kind, self.ttl, data, flaw);
            sealed.extend(rrsig.iter().map(|data| record(rtype::RRSIG, data)));
        }
        Rc::new(sealed)
    }

    fn types(&self, name: &Name) -> BTreeSet<u16> {
        let Some(node) = self.nodes.get(name) else { return BTreeSet::new() };
        let cut = self.cut(name).is_some();
        let mut types: BTreeSet<u16> =
            node.keys().copied().filter(|kind| !cut || matches!(*kind, rtype::NS | rtype::DS)).collect();
        if !cut || types.contains(&rtype::DS) || self.signing == Signing::Nsec {
            types.insert(rtype::RRSIG);
        }
        types
    }

    /// Names that the chain of denial has: owners that the zone speaks for, and delegations.
    fn owners(&self) -> Vec<Name> {
        let inside = |name: &&Name| self.cut(name).is_none_or(|cut| cut == **name);
        self.nodes.keys().filter(inside).cloned().collect()
    }

    fn nsec_over(&self, name: &Name) -> Rc<Sealed> {
        let owners = self.owners();
        let place = owners.iter().rposition(|owner| owner <= name).expect("the apex is first");
        let (owner, next) = (&owners[place], &owners[(place + 1) % owners.len()]);
        if let Some(sealed) = self.sealed.borrow().get(&(owner.clone(), rtype::NSEC)) {
            return sealed.clone();
        }
        let mut types = self.types(owner);
        types.insert(rtype::NSEC);
        let data = [next.as_wire(), &bitmap(&types)].concat();
        let sealed = self.seal(owner, rtype::NSEC, &[data.into()]);
        self.sealed.borrow_mut().insert((owner.clone(), rtype::NSEC), sealed.clone());
        sealed
    }

    fn hashes(&self) -> Rc<Hashes> {
        let Signing::Nsec3 { opt_out, iterations } = self.signing else { return Rc::default() };
        let mut kept = self.chain.borrow_mut();
        let chain = kept.get_or_insert_with(|| {
            let mut names = BTreeSet::new();
            for owner in self.owners() {
                let node = &self.nodes[&owner];
                if opt_out && self.cut(&owner).is_some() && !node.contains_key(&rtype::DS) {
                    continue;
                }
                let mut at = owner;
                while at.is_under(&self.name) {
                    names.insert(at.clone());
                    let Some(parent) = at.parent() else { break };
                    at = parent;
                }
            }
            let hashed = names.into_iter().map(|name| {
                let types = bitmap(&self.types(&name));
                (nsec3::hash(&name, &[0xab, 0xcd], iterations), (name, types))
            });
            Rc::new(hashed.collect())
        });
        chain.clone()
    }

    fn nsec3_over(&self, name: &Name) -> Rc<Sealed> {
        let Signing::Nsec3 { opt_out, iterations } = self.signing else { return Rc::default() };
        let chain = self.hashes();
        let hash = nsec3::hash(name, &[0xab, 0xcd], iterations);
        let (owner, (_, types)) =
            chain.range(..=hash).next_back().or_else(|| chain.iter().next_back()).expect("the apex is there");
        let next = chain.range(owner.clone()..).nth(1).or_else(|| chain.iter().next()).expect("the same").0;
        let name = self.name.child(base32(owner).as_bytes()).expect("short");
        if let Some(sealed) = self.sealed.borrow().get(&(name.clone(), rtype::NSEC3)) {
            return sealed.clone();
        }
        let mut data = vec![1, u8::from(opt_out)];
        data.extend(iterations.to_be_bytes());
        data.extend([2, 0xab, 0xcd, 20]);
        data.extend(next);
        data.extend(types);
        let sealed = self.seal(&name, rtype::NSEC3, &[data.into()]);
        self.sealed.borrow_mut().insert((name, rtype::NSEC3), sealed.clone());
        sealed
    }

    /// The record that matches or covers a name.
    fn over(&self, name: &Name) -> Rc<Sealed> {
        match self.signing {
            Signing::Unsigned => Rc::default(),
            Signing::Nsec => self.nsec_over(name),
            Signing::Nsec3 { .. } => self.nsec3_over(name),
        }
    }

    /// With opt-out, unsigned delegations are not in the chain, nor what has only such below it.
    pub fn is_hidden(&self, name: &Name) -> bool {
        matches!(self.signing, Signing::Nsec3 { opt_out: true, .. })
            && self.exists(name)
            && !self.hashes().values().any(|(at, _)| at == name)
    }

    /// Says whether the server gives what a wildcard has for this name, which exists.
    pub fn replays(&self, name: &Name, kind: u16) -> bool {
        let Some(wildcard) = name.parent().and_then(|parent| parent.wildcard()) else { return false };
        let has = |name: &Name| self.nodes.get(name).is_some_and(|node| node.contains_key(&kind));
        self.fault == Fault::Replay && self.exists(name) && *name != wildcard && !has(name) && has(&wildcard)
    }

    fn next_closer(&self, name: &Name) -> Name {
        name.suffix(self.encloser(name).label_count() + 1)
    }

    /// The nearest name in the NSEC3 chain, and the one below it that is not.
    fn provable(&self, name: &Name) -> Vec<Name> {
        let chain = self.hashes();
        let mut below = name.clone();
        while let Some(parent) = below.parent() {
            if chain.values().any(|(name, _)| *name == parent) {
                return vec![parent, below];
            }
            below = parent;
        }
        Vec::new()
    }

    fn negative(&self, said: &mut Said, over: &[Name]) {
        said.authority.extend(self.set(&self.name, SOA).iter().cloned());
        self.prove(said, over);
    }

    fn prove(&self, said: &mut Said, over: &[Name]) {
        for name in over {
            let sealed = match self.fault {
                Fault::NoDenial => return,
                Fault::WrongDenial => self.over(&self.name),
                _ => self.over(name),
            };
            if sealed.first().is_some_and(|first| !said.authority.contains(first)) {
                said.authority.extend(sealed.iter().cloned());
            }
        }
    }

    /// Answers, with signatures.
    pub fn answer(&self, name: &Name, kind: u16) -> Said {
        let mut said = Said { authoritative: true, ..Said::default() };
        let mut name = name.clone();
        for _ in 0..8 {
            if !name.is_under(&self.name) {
                return said;
            }
            if let Some(cut) = self.cut(&name)
                && !(kind == rtype::DS && cut == name)
            {
                if said.answer.is_empty() {
                    self.refer(&mut said, &cut);
                }
                return said;
            }
            if let Some((owner, to)) = self.dname(&name) {
                said.answer.extend(self.set(&owner, rtype::DNAME).iter().cloned());
                let Some(next) = name.substitute(&owner, &to) else {
                    said.rcode = 6;
                    return said;
                };
                let rdata = next.as_wire().into();
                said.answer.push(Record { name: name.clone(), rtype: rtype::CNAME, class: IN, ttl: self.ttl, rdata });
                name = next;
                if !self.follows {
                    return said;
                }
                continue;
            }
            let hashed = matches!(self.signing, Signing::Nsec3 { .. });
            let (owner, expanded) = if self.replays(&name, kind) {
                (name.parent().and_then(|parent| parent.wildcard()).expect("just seen"), true)
            } else if self.exists(&name) {
                (name.clone(), false)
            } else {
                (self.encloser(&name).wildcard().expect("short"), true)
            };
            let Some(node) = self.nodes.get(&owner) else {
                if !expanded {
                    let over = if self.is_hidden(&name) { self.provable(&name) } else { vec![name] };
                    self.negative(&mut said, &over);
                    return said;
                }
                said.rcode = 3;
                let mut over = vec![name.clone(), owner.clone()];
                if hashed {
                    over = self.provable(&name);
                    over.extend(over[0].wildcard());
                }
                self.negative(&mut said, &over);
                return said;
            };
            let found = [kind, rtype::CNAME].into_iter().find(|kind| node.contains_key(kind));
            let Some(found) = found else {
                let over = match (expanded, hashed) {
                    (false, true) if self.is_hidden(&name) => self.provable(&name),
                    (false, _) => vec![name.clone()],
                    (true, false) => vec![name.clone(), owner],
                    (true, true) => vec![self.encloser(&name), self.next_closer(&name), owner],
                };
                self.negative(&mut said, &over);
                return said;
            };
            let set = self.set(&owner, found);
            said.answer.extend(set.iter().cloned().map(|record| Record { name: name.clone(), ..record }));
            if expanded {
                let over = if hashed { self.next_closer(&name) } else { name.clone() };
                self.prove(&mut said, &[over]);
            }
            if found == kind || !self.follows {
                return said;
            }
            name = Name::from_wire(&node[&rtype::CNAME][0]).expect("we made it");
        }
        said
    }

    fn refer(&self, said: &mut Said, cut: &Name) {
        said.authoritative = false;
        let node = &self.nodes[cut];
        said.authority.extend(self.set(cut, rtype::NS).iter().cloned());
        if self.is_signed() {
            if node.contains_key(&rtype::DS) {
                said.authority.extend(self.set(cut, rtype::DS).iter().cloned());
            } else if self.is_hidden(cut) {
                self.prove(said, &self.provable(cut));
            } else {
                self.prove(said, std::slice::from_ref(cut));
            }
        }
        for data in &node[&rtype::NS] {
            let server = Name::from_wire(data).expect("we made it");
            for kind in [rtype::A, rtype::AAAA] {
                if server.is_under(&self.name)
                    && self.cut(&server).is_some()
                    && self.nodes.get(&server).is_some_and(|node| node.contains_key(&kind))
                {
                    said.additional
                        .extend(self.set(&server, kind).iter().filter(|record| record.rtype == kind).cloned());
                }
            }
        }
    }
}

fn bitmap(types: &BTreeSet<u16>) -> Vec<u8> {
    let mut bits = [0_u8; 32];
    for kind in types {
        let low = usize::from(*kind);
        assert!(low < 256, "only low types are used");
        bits[low / 8] |= 0x80 >> (low % 8);
    }
    match bits.iter().rposition(|byte| *byte != 0) {
        None => Vec::new(),
        Some(last) => {
            let mut out = vec![0, u8::try_from(last + 1).expect("at most 32")];
            out.extend(&bits[..=last]);
            out
        }
    }
}

fn base32(bytes: &[u8]) -> String {
    let digits = b"0123456789abcdefghijklmnopqrstuv";
    let (mut held, mut bits, mut out) = (0_u32, 0, String::new());
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(char::from(digits[(held >> bits & 31) as usize]));
        }
    }
    out
}
