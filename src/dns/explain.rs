//! What would happen to a question, and why: for `hearthgate explain`.

use std::{fmt, net::IpAddr, sync::Arc, time::Instant};

use hickory_proto::{
    op::Message,
    rr::{Name, RecordType},
};
use serde::{Deserialize, Serialize};

use super::{
    Client, Core, Plane,
    answer::{Asker, Step as Decided, View, answer},
    cache::Age,
    counters::{Outcome, Transport},
    encode::{Section, Writer},
    filter::{Match, Verdict},
    local,
    policy::Policy,
    query::{IN, Question},
    resolver::{
        budget::Limits,
        reply::Class,
        rrset::Security,
        trace::{Came, Known, Step as Traced, Trace},
        wire::{self, Record},
    },
    upstream::Explained as Looked,
};
use crate::origin::{NetworkId, Origin, Source};

/// What somebody wants to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Curious {
    /// The name.
    pub name: String,
    /// The type, by its mnemonic, as `TYPE65` or as a number.
    #[serde(default = "address")]
    pub rtype: String,
    /// Nothing that is cached of the name counts.
    #[serde(default)]
    pub anew: bool,
    /// Whose rules apply; nothing is this box.
    #[serde(default)]
    pub client: Option<IpAddr>,
}

fn address() -> String {
    "A".into()
}

/// What happens to a question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explained {
    /// The name, absolute.
    pub name: String,
    /// The type.
    pub rtype: String,
    /// Who has the answer.
    pub answered_by: AnsweredBy,
    /// What the rules say, where they are asked.
    #[serde(default)]
    pub judged: Option<Judged>,
    /// The name that others are asked for in its place, where a record of the house is an alias.
    pub alias: Option<String>,
    /// How the resolver finds the answer now.
    pub course: Option<Course>,
    /// How it found it when a client asked last, where courses are remembered.
    pub earlier: Option<Course>,
    /// The answer's records as far as others have them.
    pub records: Vec<String>,
}

/// What the rules say to a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Judged {
    /// The client's address.
    pub client: IpAddr,
    /// Its group.
    pub group: String,
    /// What becomes of the question, and by whom.
    pub verdict: String,
    /// The rules that apply, the one that decides first.
    pub rules: Vec<Match>,
    /// What is cached of the answer.
    pub cached: Option<String>,
}

/// Who has the answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnsweredBy {
    /// A record of the house.
    House,
    /// The rule for a name without a place in the public DNS, or for a type that nobody answers.
    Special,
    /// The resolver of this box, from the root or by servers that recurse for it.
    Resolver,
}

/// How an answer was found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Course {
    /// When it was over, in seconds since 1970.
    pub at: u64,
    /// The response code, as `dig` writes it.
    pub rcode: String,
    /// What is known of its authenticity.
    pub security: String,
    /// What was wrong.
    pub why: Option<String>,
    /// What was done, in order.
    pub steps: Vec<Step>,
    /// What it cost, of each kind.
    pub cost: Vec<Cost>,
}

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Step {
    /// It was in the cache.
    Known {
        /// What was looked for: name and type.
        question: String,
        /// What the cache knew.
        what: String,
        /// What was known of its authenticity.
        security: String,
        /// Seconds that it still holds.
        ttl: u32,
    },
    /// A server was asked.
    Asked {
        /// Milliseconds since the question came.
        at_ms: u64,
        /// Milliseconds until its answer.
        took_ms: u64,
        /// The zone that it was asked as a server of.
        zone: String,
        /// The server.
        server: String,
        /// What it was asked: name and type.
        question: String,
        /// What came.
        came: String,
    },
    /// A zone's keys were looked for.
    Trusted {
        /// The zone.
        zone: String,
        /// Whether its keys are vouched for.
        security: String,
        /// Their tags.
        keys: Vec<u16>,
        /// What was wrong.
        why: Option<String>,
    },
    /// Something was checked.
    Checked {
        /// What: name and type.
        question: String,
        /// The verdict.
        security: String,
        /// What was wrong.
        why: Option<String>,
    },
}

/// A part of the budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Of what.
    pub what: String,
    /// How much was used.
    pub used: u32,
    /// How much might have been.
    pub limit: u32,
}

/// Why there is no explanation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unexplained {
    /// It is no name.
    #[error("\"{0}\" is no name")]
    Name(String),
    /// It is no type.
    #[error("\"{0}\" is no type of record")]
    Type(String),
    /// Nobody is there to ask.
    #[error("the DNS plane does not run")]
    Down,
    /// A list cannot be read again.
    #[error("{0}")]
    Lists(String),
    /// Too much else is under way.
    #[error("too much is under way; try again")]
    Busy,
}

impl Plane {
    /// Says what would happen to a question, and looks it up to see.
    pub async fn explain(&self, curious: Curious) -> Result<Explained, Unexplained> {
        let handle = self.runtime.load_full().ok_or(Unexplained::Down)?;
        let core = self.core.clone();
        // Sockets belong to this plane's runtime.
        handle.spawn(async move { explain(&core, &curious).await }).await.map_err(|_| Unexplained::Down)?
    }
}

async fn explain(core: &Arc<Core>, curious: &Curious) -> Result<Explained, Unexplained> {
    let policy = core.policy.load_full().ok_or(Unexplained::Down)?;
    let mut name = Name::from_utf8(&curious.name).map_err(|_| Unexplained::Name(curious.name.clone()))?;
    name.set_fqdn(true);
    let rtype = type_number(&curious.rtype).ok_or_else(|| Unexplained::Type(curious.rtype.clone()))?;
    let wire_name = local::wire(&name);
    let client = asker(core, curious.client);
    let way = policy.ways.of(policy.filter.group_of(&client));
    let question = Question { name: wire_name.clone(), qtype: rtype, dnssec_ok: true, checking_disabled: false, way };
    let mut explained = Explained {
        name: name.to_lowercase().to_string(),
        rtype: type_name(rtype),
        answered_by: AnsweredBy::Resolver,
        judged: None,
        alias: None,
        course: None,
        earlier: None,
        records: Vec::new(),
    };
    let (step, said) = decided(core, &policy, &client, &question);
    let asked = match step {
        Decided::Done(outcome) | Decided::Refresh(outcome, _) => match outcome {
            Outcome::Local | Outcome::Special | Outcome::Refused | Outcome::Malformed => {
                let is_local = outcome == Outcome::Local;
                explained.answered_by = if is_local { AnsweredBy::House } else { AnsweredBy::Special };
                if let Ok(message) = wire::Message::parse(&said) {
                    explained.records = message.answer.iter().chain(&message.authority).map(written).collect();
                }
                return Ok(explained);
            }
            // What is cached as an answer says nothing of how it was found.
            _ => question,
        },
        Decided::Blocked(_) => question,
        Decided::Ask(asked) => Question { dnssec_ok: true, way, ..asked },
        Decided::Silence(_) => return Err(Unexplained::Busy),
    };
    explained.judged = Some(judged(core, &policy, client, &wire_name, rtype).await?);
    if asked.name != wire_name {
        explained.alias = resolver_name(&asked).map(|name| name.to_string());
    }
    match policy.asks(way).explain(&asked, curious.anew).await {
        Looked::Busy => return Err(Unexplained::Busy),
        Looked::Found { answers, authorities, course, earlier } => {
            explained.records = answers.iter().chain(&authorities).map(written).collect();
            explained.course = Some(Course::from(&*course));
            explained.earlier = earlier.as_deref().map(Course::from);
        }
    }
    Ok(explained)
}

/// Says what the rules are for a client, and which lines they stand in.
async fn judged(
    core: &Arc<Core>,
    policy: &Arc<Policy>,
    client: Client,
    name: &[u8],
    qtype: u16,
) -> Result<Judged, Unexplained> {
    let now = core.clock.seconds();
    policy.filter.keep_time(now);
    let asking = policy.filter.asking(&client, now);
    let by = |source| policy.filter.source_name(source);
    let verdict = match policy.filter.verdict(asking, name, qtype) {
        _ if policy.filter.is_offline(asking.group()) => "blocked: the group is offline now".to_owned(),
        Verdict::Pass => "no rule".to_owned(),
        Verdict::Allow(source) => format!("allowed by {}", by(source)),
        Verdict::Block { source, .. } => format!("blocked by {}", by(source)),
        Verdict::Rewrite { source, .. } => format!("answered otherwise by {}", by(source)),
        Verdict::Silence(source) => format!("not answered at all, by {}", by(source)),
    };
    let way = policy.ways.of(asking.group());
    let question = Question { name: name.into(), qtype, dnssec_ok: false, checking_disabled: false, way };
    let cached = core.cache.find_question(&question).map(|stored| {
        let how = match stored.age(now) {
            Age::Fresh | Age::Ending => "good",
            Age::Stale => "expired, given only if nobody can be asked",
            Age::Dead => "of no use any more",
        };
        format!("{} seconds old, {how}", stored.seconds_old(now))
    });
    let (policy, name, group) = (policy.clone(), name.to_vec(), policy.filter.group_name(asking.group()).to_owned());
    let lines = tokio::task::spawn_blocking(move || policy.filter.explain(asking, &name, qtype));
    let rules = lines.await.map_err(|_| Unexplained::Down)?.map_err(|error| Unexplained::Lists(error.to_string()))?;
    Ok(Judged { client: client.address, group, verdict, rules, cached })
}

/// Returns who is curious, or for whom; this box if nobody is named.
fn asker(core: &Core, address: Option<IpAddr>) -> Client {
    let address = address.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    let source = core.networks.load().classify(address, None);
    Client { origin: source.origin, address, relay: source.relay, name: None }
}

/// Says what this box would do, by the same function that answers clients.
fn decided(core: &Core, policy: &super::policy::Policy, client: &Client, question: &Question) -> (Decided, Vec<u8>) {
    let mut bytes = vec![0, 0, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend(question.name.iter());
    bytes.extend(question.qtype.to_be_bytes());
    bytes.extend(IN.to_be_bytes());
    let view = View::new(core, policy, core.clock.milliseconds(), Instant::now());
    // The Internet is told nothing, which explains nothing.
    let (origin, address) = match client.origin {
        Origin::Wan => (Origin::Lan(NetworkId::HOST), [127, 0, 0, 1].into()),
        origin => (origin, client.address),
    };
    let source = Source { origin, relay: false };
    let asker = Asker { source, client: address, transport: Transport::House, name: None };
    let mut said = Vec::new();
    let step = answer(&view, &asker, &bytes, None, &mut said);
    (step, said)
}

fn resolver_name(question: &Question) -> Option<super::resolver::name::Name> {
    super::resolver::name::Name::from_wire(&question.name)
}

impl From<&Trace> for Course {
    fn from(trace: &Trace) -> Self {
        Self {
            at: trace.wall,
            rcode: code(trace.rcode),
            security: security(trace.security).into(),
            why: trace.why.map(|why| why.text().into()),
            steps: trace.steps.iter().map(Step::from).collect(),
            cost: costs(trace.cost, trace.limits),
        }
    }
}

impl From<&Traced> for Step {
    fn from(step: &Traced) -> Self {
        let question = |question: &wire::Question| format!("{} {}", question.name, type_name(question.rtype));
        let words = |why: &Option<super::resolver::Why>| why.map(|why| why.text().to_owned());
        match step {
            Traced::Known { question: looked, what, security: known, ttl } => Self::Known {
                question: question(looked),
                what: match what {
                    Known::Records => "records",
                    Known::NoData => "no record of the type",
                    Known::NameError => "no such name",
                    Known::Failure => "a failure",
                    Known::Proof => "a proof of other names",
                }
                .into(),
                security: security(*known).into(),
                ttl: *ttl,
            },
            Traced::Asked { at, took, zone, server, question: asked, came } => Self::Asked {
                at_ms: millis(*at),
                took_ms: millis(*took),
                zone: zone.to_string(),
                server: server.to_string(),
                question: question(asked),
                came: came_to(came),
            },
            Traced::Trusted { zone, security: found, keys, why } => Self::Trusted {
                zone: zone.to_string(),
                security: security(*found).into(),
                keys: keys.clone(),
                why: words(why),
            },
            Traced::Checked { question: checked, security: verdict, why } => {
                Self::Checked { question: question(checked), security: security(*verdict).into(), why: words(why) }
            }
        }
    }
}

/// For people, one line.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let because = |why: &Option<String>| why.as_ref().map_or(String::new(), |why| format!(": {why}"));
        match self {
            Self::Known { question, what, security, ttl } => {
                write!(f, "cached    {question}: {what}, {security}, {ttl} s left")
            }
            Self::Asked { at_ms, took_ms, zone, server, question, came } => {
                write!(f, "asked     {server} of {zone} for {question}: {came} (at {at_ms} ms, took {took_ms} ms)")
            }
            Self::Trusted { zone, security, keys, why } => {
                let tags = keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let tags = if tags.is_empty() { tags } else { format!(", keys {tags}") };
                write!(f, "keys      of {zone}: {security}{tags}{}", because(why))
            }
            Self::Checked { question, security, why } => {
                write!(f, "checked   {question}: {security}{}", because(why))
            }
        }
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn came_to(came: &Came) -> String {
    match came {
        Came::Silence => "nothing in time".into(),
        Came::Unreachable => "there is no way to it".into(),
        Came::Nothing => "given up".into(),
        Came::Message(class) => match class {
            Class::Answer => "an answer".into(),
            Class::Alias(name) => format!("an alias to {name}"),
            Class::NoData => "no record of the type".into(),
            Class::NameError => "no such name".into(),
            Class::Referral(referral) => {
                let count = referral.servers.len();
                format!("go to {} ({count} server{})", referral.zone, if count == 1 { "" } else { "s" })
            }
            Class::Lame => "it does not serve the zone".into(),
            Class::Useless => "nothing that can be used".into(),
            Class::Recursed => "it recursed instead of answering for its zone".into(),
            Class::Failed(rcode) => code(*rcode),
        },
    }
}

fn security(security: Security) -> &'static str {
    match security {
        Security::Secure => "secure",
        Security::Insecure => "insecure",
        Security::Bogus => "bogus",
        Security::Unchecked => "unchecked",
    }
}

fn costs(used: Limits, limits: Limits) -> Vec<Cost> {
    let cost = |what: &str, used, limit| Cost { what: what.into(), used, limit };
    vec![
        cost("packets", used.packets, limits.packets),
        cost("bytes", used.bytes, limits.bytes),
        cost("aliases", used.aliases, limits.aliases),
        cost("referrals", used.referrals, limits.referrals),
        cost("signatures", used.signatures, limits.signatures),
        cost("hashes", used.hashes, limits.hashes),
    ]
}

fn code(rcode: u16) -> String {
    let name = match rcode {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        6 => "YXDOMAIN",
        9 => "NOTAUTH",
        _ => return format!("RCODE{rcode}"),
    };
    name.into()
}

/// Reads a type: its mnemonic, `TYPE65` (RFC 3597 §5) or a number.
fn type_number(text: &str) -> Option<u16> {
    let text = text.to_ascii_uppercase();
    let number = text.strip_prefix("TYPE").unwrap_or(&text).parse().ok();
    number.or_else(|| text.parse::<RecordType>().ok().map(u16::from))
}

fn type_name(rtype: u16) -> String {
    match RecordType::from(rtype) {
        RecordType::Unknown(number) => format!("TYPE{number}"),
        known => known.to_string(),
    }
}

/// Writes a record as a zone file has it; what only bytes can say, as RFC 3597 §5 has it.
fn written(record: &Record) -> String {
    let mut writer = Writer::new(&[0], record.rtype);
    writer.record(Section::Answer, record);
    let read = writer.finish().and_then(|bytes| Message::from_vec(&bytes).ok());
    if let Some(text) = read.as_ref().and_then(|message| message.answers.first()).map(ToString::to_string) {
        return text;
    }
    let bytes: String = record.rdata.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} {} IN {} \\# {} {bytes}", record.name, record.ttl, type_name(record.rtype), record.rdata.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_people_write_them() {
        assert_eq!(type_number("aaaa"), Some(28));
        assert_eq!(type_number("TYPE65"), Some(65));
        assert_eq!(type_number("52"), Some(52));
        assert_eq!(type_number("BANANA"), None);
        assert_eq!(type_name(65280), "TYPE65280");
        assert_eq!(type_name(48), "DNSKEY");
    }

    #[test]
    fn records_are_written_as_in_a_zone_file() {
        let record = |rtype, rdata: &[u8]| Record {
            name: super::super::resolver::name::Name::parse("www.example").unwrap(),
            rtype,
            class: 1,
            ttl: 60,
            rdata: rdata.into(),
        };

        assert_eq!(written(&record(1, &[192, 0, 2, 1])), "www.example. 60 IN A 192.0.2.1");
        assert!(written(&record(1, &[1])).ends_with("A \\# 1 01"));
    }
}
