//! A scenario file, read.

use std::net::{IpAddr, SocketAddr};

use hearthgate::dns::resolver::{
    name::Name,
    wire::{Message, Record, rtype},
};

use super::records::{hex, question, record};

/// A whole file.
#[derive(Debug, Default)]
pub struct Scenario {
    /// `key: value` lines before CONFIG_END.
    pub settings: Vec<(String, String)>,
    pub ranges: Vec<Range>,
    pub steps: Vec<Step>,
}

/// What servers answer while the step's number is in a span.
#[derive(Debug, Default)]
pub struct Range {
    pub from: u64,
    pub to: u64,
    pub addresses: Vec<IpAddr>,
    pub entries: Vec<Entry>,
}

/// One step.
#[derive(Debug)]
pub struct Step {
    pub number: u64,
    pub action: Action,
}

/// What a step does.
#[derive(Debug)]
pub enum Action {
    Query(Entry),
    CheckAnswer(Entry),
    Reply(Entry),
    TimePasses(u64),
    Other(String),
}

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Udp,
    Tcp,
}

/// A message with what must match and what is adjusted.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    pub matches: Vec<String>,
    pub adjust: Vec<String>,
    pub flags: Vec<String>,
    pub question: Option<(Name, u16)>,
    pub answer: Vec<Record>,
    pub authority: Vec<Record>,
    pub additional: Vec<Record>,
    pub raw: Option<Vec<u8>>,
}

impl Entry {
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|word| word == flag)
    }

    pub fn rcode(&self) -> u16 {
        let names = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN"];
        let found = names.iter().position(|name| self.has(name));
        match found {
            Some(code) => u16::try_from(code).expect("few codes"),
            None if self.has("BADVERS") => 16,
            None if self.has("BADCOOKIE") => 23,
            None => 0,
        }
    }

    /// The bytes that a server sends.
    pub fn reply_to(&self, asked: &Message) -> Option<Vec<u8>> {
        if self.adjust.iter().any(|word| word == "do_not_answer") {
            return None;
        }
        let copies = |word: &str| self.adjust.iter().any(|adjust| adjust == word);
        if let Some(raw) = &self.raw {
            let mut raw = raw.clone();
            if copies("copy_id") && raw.len() > 1 {
                raw[..2].copy_from_slice(&asked.id.to_be_bytes());
            }
            return Some(raw);
        }
        let asked_question = asked.question.as_ref()?;
        let copied = copies("copy_query") || self.question.is_none();
        let (name, rtype) = match &self.question {
            Some((name, rtype)) if !copied => (name.clone(), *rtype),
            _ => (asked_question.name.clone(), asked_question.rtype),
        };
        let raw_name = if name == asked_question.name { asked.raw_question.clone() } else { name.as_wire().to_vec() };
        let mut out = Vec::new();
        let id = if copies("copy_id") { asked.id } else { 0 };
        out.extend(id.to_be_bytes());
        let bits = [("QR", 15), ("AA", 10), ("TC", 9), ("RD", 8), ("RA", 7), ("AD", 5), ("CD", 4)];
        let flags =
            bits.iter().filter(|(name, _)| self.has(name)).fold(self.rcode() & 15, |flags, (_, bit)| flags | 1 << bit);
        out.extend(flags.to_be_bytes());
        let sections = [&self.answer, &self.authority, &self.additional];
        out.extend(1_u16.to_be_bytes());
        for (place, section) in sections.iter().enumerate() {
            let opt = usize::from(place == 2 && asked.edns.is_some());
            out.extend(u16::try_from(section.len() + opt).ok()?.to_be_bytes());
        }
        out.extend(raw_name);
        out.extend(rtype.to_be_bytes());
        out.extend([0, 1]);
        for record in sections.into_iter().flatten() {
            out.extend(record.name.as_wire());
            out.extend(record.rtype.to_be_bytes());
            out.extend(record.class.to_be_bytes());
            out.extend(record.ttl.to_be_bytes());
            out.extend(u16::try_from(record.rdata.len()).ok()?.to_be_bytes());
            out.extend(&*record.rdata);
        }
        if asked.edns.is_some() {
            out.push(0);
            out.extend(rtype::OPT.to_be_bytes());
            out.extend([
                0x10,
                0,
                u8::try_from(self.rcode() >> 4).ok()?,
                0,
                if self.has("DO") { 0x80 } else { 0 },
                0,
                0,
                0,
            ]);
        }
        Some(out)
    }

    /// Says whether this entry is the answer to what was asked.
    pub fn answers(&self, asked: &Message, over: Over) -> bool {
        let wrong_way = |word: &String| match over {
            Over::Udp => word.eq_ignore_ascii_case("TCP"),
            Over::Tcp => word.eq_ignore_ascii_case("UDP"),
        };
        let has = |wanted: &str| self.matches.iter().any(|word| word.eq_ignore_ascii_case(wanted));
        if self.matches.iter().any(wrong_way) || has("noedns") && asked.edns.is_some() {
            return false;
        }
        let Some(question) = &asked.question else { return false };
        let Some((name, rtype)) = &self.question else {
            return self.raw.is_some() || self.matches.iter().all(|word| word == "opcode");
        };
        self.matches.iter().all(|word| match word.as_str() {
            "qtype" => question.rtype == *rtype,
            "qname" => question.name == *name,
            "question" | "all" => question.rtype == *rtype && question.name == *name,
            "subdomain" => question.name.is_under(name),
            _ => true,
        })
    }
}

/// Reads a file.
pub fn parse(text: &str) -> Result<Scenario, String> {
    let mut scenario = Scenario::default();
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.iter().position(|line| line.trim() == "CONFIG_END").ok_or("no CONFIG_END")?;
    for line in &lines[..start] {
        let line = line.split('#').next().unwrap_or_default();
        let line = if line.contains('"') { line } else { line.split(';').next().unwrap_or_default() };
        if line.trim_start().starts_with(';') {
            continue;
        }
        if let Some((key, value)) = line.split_once(':') {
            let value = value.trim();
            let value = match value.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next().unwrap_or_default(),
                None => value,
            };
            scenario.settings.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    let mut section = "";
    let mut entry: Option<Entry> = None;
    let mut range: Option<Range> = None;
    let mut pending: Option<(u64, String)> = None;
    let mut raw = false;
    for (number, whole) in lines.iter().enumerate().skip(start + 1) {
        let line = match whole.find([';', '#']) {
            Some(at) if !whole[..at].contains('"') => &whole[..at],
            _ => whole,
        };
        let fail = |what: &str| format!("line {}: {what}: {whole}", number + 1);
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(first) = words.first() else { continue };
        match *first {
            "SCENARIO_BEGIN" | "SCENARIO_END" => {}
            "RANGE_BEGIN" => {
                let bound = |at: usize| words.get(at).and_then(|word| word.parse().ok()).ok_or_else(|| fail("range"));
                range = Some(Range { from: bound(1)?, to: bound(2)?, ..Range::default() });
            }
            "RANGE_END" => scenario.ranges.extend(range.take()),
            "ADDRESS" => {
                let range = range.as_mut().ok_or_else(|| fail("address outside a range"))?;
                for word in &words[1..] {
                    range.addresses.push(word.parse().map_err(|_| fail("address"))?);
                }
            }
            "STEP" => {
                let step = words.get(1).and_then(|word| word.parse().ok()).ok_or_else(|| fail("step"))?;
                let action = (*words.get(2).ok_or_else(|| fail("step"))?).to_owned();
                if action == "CHECK_OUT_QUERY" {
                    // Whether a question is still under way is not looked at.
                    pending = Some((step, action));
                } else if action == "TIME_PASSES" {
                    let seconds = words.get(4).and_then(|word| word.parse().ok()).ok_or_else(|| fail("time"))?;
                    scenario.steps.push(Step { number: step, action: Action::TimePasses(seconds) });
                } else if matches!(action.as_str(), "QUERY" | "CHECK_ANSWER" | "REPLY") {
                    pending = Some((step, action));
                } else {
                    scenario.steps.push(Step { number: step, action: Action::Other(action) });
                }
            }
            "ENTRY_BEGIN" => {
                entry = Some(Entry::default());
                section = "";
                raw = false;
            }
            "ENTRY_END" => {
                let entry = entry.take().ok_or_else(|| fail("end without begin"))?;
                match (pending.take(), &mut range) {
                    (Some((number, action)), _) => {
                        let action = match action.as_str() {
                            "QUERY" => Action::Query(entry),
                            "CHECK_ANSWER" => Action::CheckAnswer(entry),
                            "CHECK_OUT_QUERY" => continue,
                            _ => Action::Reply(entry),
                        };
                        scenario.steps.push(Step { number, action });
                    }
                    (None, Some(range)) => range.entries.push(entry),
                    (None, None) => return Err(fail("entry outside")),
                }
            }
            keyword => {
                let Some(entry) = &mut entry else { continue };
                let rest = || words[1..].iter().map(|word| (*word).to_owned());
                match keyword {
                    "MATCH" => entry.matches.extend(rest()),
                    "ADJUST" => entry.adjust.extend(rest()),
                    "REPLY" => entry.flags.extend(rest()),
                    "SECTION" => section = words.get(1).copied().unwrap_or_default(),
                    "RAW" => raw = true,
                    "MANDATORY" => {}
                    _ if raw => entry.raw.get_or_insert_default().extend(hex(first).ok_or_else(|| fail("raw"))?),
                    _ if section == "QUESTION" => {
                        entry.question = Some(question(line).ok_or_else(|| fail("question"))?)
                    }
                    _ => {
                        let record = record(line).ok_or_else(|| fail("record"))?;
                        match section {
                            "ANSWER" => entry.answer.push(record),
                            "AUTHORITY" => entry.authority.push(record),
                            "ADDITIONAL" => entry.additional.push(record),
                            _ => return Err(fail("section")),
                        }
                    }
                }
            }
        }
    }
    Ok(scenario)
}

impl Scenario {
    /// The values of a setting.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.settings.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The last value of a setting.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.settings.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A setting that is on or off.
    pub fn flag(&self, key: &str, default: bool) -> bool {
        match self.get(key) {
            Some("yes" | "on" | "true") => true,
            Some("no" | "off" | "false") => false,
            _ => default,
        }
    }

    /// The answer of a server at an address while a step is played.
    pub fn answer(&self, step: u64, server: SocketAddr, asked: &Message, over: Over) -> Option<&Entry> {
        self.ranges
            .iter()
            .filter(|range| (range.from..=range.to).contains(&step))
            .filter(|range| range.addresses.is_empty() || range.addresses.contains(&server.ip()))
            .flat_map(|range| &range.entries)
            .find(|entry| entry.answers(asked, over))
    }
}
