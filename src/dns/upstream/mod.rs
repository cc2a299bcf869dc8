//! Whoever is asked when the house does not know: authorities from the root, configured servers, or the
//! servers of a zone.

mod flight;
mod forward;
mod rebind;
mod recursive;

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
    serialize::binary::{BinDecodable, BinDecoder},
};

pub(crate) use flight::Flights;
use forward::Forwarder;
use recursive::Recursive;

use super::{
    Config, Core, Resolve,
    encode::{Ede, rcode},
    local,
    policy::Error,
    query::{IN, Question, qtype},
    resolver::{driver::Wanted, trace::Trace, wire::Record},
};

/// What one question may take, with everything that has to be asked for it. Our own resolver gives up, and
/// says why, a little earlier.
const DEADLINE: Duration = Duration::from_secs(6);

/// What others said.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// The response code.
    pub(crate) rcode: u16,
    /// The answer section.
    pub(crate) answers: Vec<Record>,
    /// The authority section.
    pub(crate) authorities: Vec<Record>,
    /// What validation says.
    pub(crate) security: Security,
    /// Why it failed.
    pub(crate) ede: Option<Ede>,
}

/// What validation says of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    /// Signed, and the signatures hold.
    Secure,
    /// Not signed, or not validated by us.
    Insecure,
    /// The signatures do not hold.
    Bogus,
}

impl Resolved {
    /// A failure.
    pub(crate) fn failed(ede: Ede) -> Self {
        let security = if ede == Ede::Bogus { Security::Bogus } else { Security::Insecure };
        Self { rcode: rcode::SERVFAIL, answers: Vec::new(), authorities: Vec::new(), security, ede: Some(ede) }
    }

    /// An answer without records in the answer section.
    pub(crate) fn negative(rcode: u16, authorities: Vec<Record>, security: Security) -> Self {
        Self { rcode, answers: Vec::new(), authorities, security, ede: None }
    }
}

/// What came of looking a question up for somebody who wants to know why.
pub(crate) enum Explained {
    /// It is not our resolver that is asked.
    Elsewhere,
    /// It does not take questions now.
    Busy,
    /// Its answer and how it came about.
    Found {
        /// The answer section.
        answers: Vec<Record>,
        /// The authority section.
        authorities: Vec<Record>,
        /// The course of the question.
        course: Box<Trace>,
        /// The one before, if courses are remembered.
        earlier: Option<Box<Trace>>,
    },
}

/// Whoever is asked.
pub(crate) struct Resolver {
    /// Asks authorities, and servers over plain DNS.
    own: Option<Recursive>,
    /// Asks encrypted servers for all that is not in a forwarded zone.
    encrypted: Option<Forwarder>,
    /// Forwarded zones in wire form and lower case.
    zones: Vec<Box<[u8]>>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.encrypted.is_some() { "Resolver(encrypted)" } else { "Resolver(own)" })
    }
}

impl Resolver {
    /// Makes what a configuration asks for. Nothing is sent yet.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let encrypted = match &config.resolve {
            Resolve::Forward(servers) if !recursive::asks_plainly(config) => Some(Forwarder::new(servers, config)?),
            _ => None,
        };
        let zones: Vec<_> = config.forward.iter().map(|forward| local::wire(&forward.zone)).collect();
        let needed = encrypted.is_none() || !zones.is_empty();
        let own = if needed { Some(Recursive::start(config)?) } else { None };
        Ok(Self { own, encrypted, zones })
    }

    /// Says whether two configurations ask the same servers in the same way.
    pub(crate) fn same(one: &Config, other: &Config) -> bool {
        let key = |config: &Config| {
            let files = (config.root_hints.clone(), config.trust_anchors.clone());
            let switches = (config.minimise, config.case_randomisation, config.sha1, config.rrset_cache, config.traces);
            let times = (config.ttl.clone(), config.negative_anchors.clone());
            (config.resolve.clone(), config.forward.clone(), files, switches, times, config.testing.clone())
        };
        key(one) == key(other)
    }

    /// Asks. A failure is an answer too: SERVFAIL with the reason.
    pub(crate) async fn resolve(&self, question: &Question, wanted: Wanted) -> Resolved {
        let asking = async {
            match (&self.encrypted, &self.own) {
                (Some(servers), None) => servers.resolve(question).await,
                (Some(servers), Some(_)) if !self.is_forwarded(question) => servers.resolve(question).await,
                (_, Some(own)) => own.resolve(question, wanted).await,
                (None, None) => Resolved::failed(Ede::NoReachableAuthority),
            }
        };
        match tokio::time::timeout(DEADLINE, asking).await {
            Ok(resolved) => resolved,
            Err(_) => Resolved::failed(Ede::NoReachableAuthority),
        }
    }

    /// Looks a question up and says how that went; anew if nothing that is cached of it counts.
    pub(crate) async fn explain(&self, question: &Question, anew: bool) -> Explained {
        match (&self.encrypted, &self.own) {
            (Some(_), Some(own)) if self.is_forwarded(question) => own.explain(question, anew).await,
            (None, Some(own)) => own.explain(question, anew).await,
            _ => Explained::Elsewhere,
        }
    }

    fn is_forwarded(&self, question: &Question) -> bool {
        self.zones.iter().any(|zone| local::covers(zone, &question.name))
    }
}

/// Returns the addresses of a host name: of the house's records, else of whoever is asked.
pub(crate) async fn addresses(core: &Arc<Core>, host: &str) -> io::Result<Vec<IpAddr>> {
    let (v4, v6) = tokio::join!(addresses_of(core, host, qtype::A), addresses_of(core, host, qtype::AAAA));
    match (v4, v6) {
        (Err(error), Err(_)) => Err(error),
        (v4, v6) => Ok(v6.unwrap_or_default().into_iter().chain(v4.unwrap_or_default()).collect()),
    }
}

async fn addresses_of(core: &Arc<Core>, host: &str, qtype: u16) -> io::Result<Vec<IpAddr>> {
    let name = Name::from_ascii(host).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut query = vec![0, 0, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(local::encoded(&name).unwrap_or_default());
    query.extend(qtype.to_be_bytes());
    query.extend(IN.to_be_bytes());
    let answer = super::server::serve_house(core, &query).await;
    let message = answer.and_then(|bytes| Message::from_vec(&bytes).ok());
    let Some(message) = message else { return Err(io::ErrorKind::TimedOut.into()) };
    match message.metadata.response_code {
        ResponseCode::NoError => Ok(message.answers.iter().filter_map(|record| record.data.ip_addr()).collect()),
        code => Err(io::Error::new(io::ErrorKind::NotFound, format!("\"{host}\": {code}"))),
    }
}

fn hickory_query(question: &Question) -> Option<Query> {
    let mut name = Name::read(&mut BinDecoder::new(&question.name)).ok()?;
    name.set_fqdn(true);
    let mut query = Query::query(name, RecordType::from(question.qtype));
    query.set_query_class(DNSClass::IN);
    Some(query)
}
