//! Whoever is asked when the house does not know: our own resolver, which asks authorities from the root, configured
//! servers, or those of a forwarded zone; and what is made of its answers before they are kept (DNS64).

mod dns64;
mod flight;
pub(crate) mod rebind;
mod resolver;
mod servers;

use std::{io, net::IpAddr, sync::Arc};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, RecordType},
    serialize::binary::{BinDecodable, BinDecoder},
};

pub(crate) use flight::Flights;
pub(crate) use resolver::Resolver;

use super::{
    Core,
    encode::{Ede, rcode},
    local,
    query::{IN, Question, Way, qtype},
    resolver::{budget::Means, driver::Wanted, trace::Trace, wire::Record},
};

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
}

/// What came of looking a question up for somebody who wants to know why.
pub(crate) enum Explained {
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

/// Returns what others say, past the house's own records and rules.
pub(crate) async fn records(
    core: &Arc<Core>,
    name: &Name,
    rtype: RecordType,
) -> io::Result<Vec<hickory_proto::rr::Record>> {
    let question = Question {
        name: local::wire(name),
        qtype: rtype.into(),
        dnssec_ok: false,
        checking_disabled: false,
        way: Way::HOUSE,
    };
    let policy = core.policy.load_full().ok_or(io::ErrorKind::NotConnected)?;
    let resolved = policy.upstream.load_full().resolve(&question, Wanted::Known, Means::Full).await;
    if !matches!(resolved.rcode, rcode::NOERROR | rcode::NXDOMAIN) {
        return Err(io::Error::other(format!("{name}: response code {}", resolved.rcode)));
    }
    let of = |record: &Record| {
        let name = Name::read(&mut BinDecoder::new(record.name.as_wire())).ok()?;
        let rtype = RecordType::from(record.rtype);
        let length = hickory_proto::serialize::binary::Restrict::new(u16::try_from(record.rdata.len()).ok()?);
        let data = RData::read(&mut BinDecoder::new(&record.rdata), rtype, length).ok()?;
        Some(hickory_proto::rr::Record::from_rdata(name, record.ttl, data))
    };
    Ok(resolved.answers.iter().filter_map(of).collect())
}
