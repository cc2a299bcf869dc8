//! Dynamic updates (RFC 2136), signed with a shared key (RFC 8945).

use std::{
    net::{IpAddr, SocketAddr},
    time::{SystemTime, UNIX_EPOCH},
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode, UpdateMessage},
    rr::{
        DNSClass, Name, RData, Record, RecordType, TSigner,
        rdata::{TXT, tsig::TsigAlgorithm},
    },
};

use super::{Change, Fault, TTL, Token};
use crate::public_dns::{Zone, exchange_bytes, random};

/// RFC 8945 §10: how far the clocks may differ, in seconds.
const FUDGE: u16 = 300;

/// A server, and the key that it knows us by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rfc2136 {
    /// The zone's primary server.
    pub server: SocketAddr,
    /// The key's name.
    pub key_name: Name,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// The key in base64.
    pub key: Token,
}

/// What signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// hmac-sha256
    Sha256,
    /// hmac-sha384
    Sha384,
    /// hmac-sha512
    Sha512,
}

impl Rfc2136 {
    pub(super) async fn change_text(&self, zone: &Zone, text: &str, change: Change) -> Result<(), Fault> {
        let data = RData::TXT(TXT::new(vec![text.to_owned()]));
        let mut record = Record::from_rdata(zone.name.clone(), TTL, data);
        if change == Change::Remove {
            // RFC 2136 §2.5.4: this record, whatever else is there.
            record.dns_class = DNSClass::NONE;
            record.ttl = 0;
        }
        self.update(zone, vec![record]).await
    }

    pub(super) async fn set(&self, zone: &Zone, address: &IpAddr) -> Result<(), Fault> {
        let data = match address {
            IpAddr::V4(address) => RData::A((*address).into()),
            IpAddr::V6(address) => RData::AAAA((*address).into()),
        };
        // RFC 2136 §2.5.2: the whole set goes, in the same step as the new one comes.
        let mut all = Record::update0(zone.name.clone(), 0, data.record_type());
        all.dns_class = DNSClass::ANY;
        self.update(zone, vec![all.into_record_of_rdata(), Record::from_rdata(zone.name.clone(), TTL, data)]).await
    }

    async fn update(&self, zone: &Zone, records: Vec<Record>) -> Result<(), Fault> {
        let fault = |what: &dyn std::fmt::Display| Fault(format!("{}: {what}", self.server));
        let mut message = Message::new(random(), MessageType::Query, OpCode::Update);
        message.add_zone(Query::query(zone.origin.clone(), RecordType::SOA));
        for record in records {
            message.add_update(record);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let verifier = message.finalize(&self.signer()?, now).map_err(|error| fault(&error))?;
        let bytes = message.to_vec().map_err(|error| fault(&error))?;
        let answer = exchange_bytes(self.server, &bytes).await.map_err(|error| fault(&error))?;
        let mut verifier = verifier.ok_or_else(|| fault(&"the update was not signed"))?;
        // An error may come unsigned (RFC 8945 §5.3): it is told, never believed to be a success.
        let verified = verifier.verify(&answer);
        let parsed = Message::from_vec(&answer).map_err(|error| fault(&error))?;
        match (parsed.response_code, verified) {
            (ResponseCode::NoError, Ok(_)) if parsed.id == message.id => Ok(()),
            (ResponseCode::NoError, Ok(_)) => Err(fault(&"another answer")),
            (ResponseCode::NoError, Err(error)) => Err(fault(&error)),
            (code, _) => Err(fault(&format_args!("the update was refused: {code}"))),
        }
    }

    fn signer(&self) -> Result<TSigner, Fault> {
        use base64::Engine as _;

        let key =
            base64::prelude::BASE64_STANDARD.decode(&self.key.0).map_err(|_| Fault("the key is no base64".into()))?;
        let algorithm = match self.algorithm {
            Algorithm::Sha256 => TsigAlgorithm::HmacSha256,
            Algorithm::Sha384 => TsigAlgorithm::HmacSha384,
            Algorithm::Sha512 => TsigAlgorithm::HmacSha512,
        };
        TSigner::new(key, algorithm, self.key_name.clone(), FUDGE).map_err(|error| Fault(error.to_string()))
    }
}
