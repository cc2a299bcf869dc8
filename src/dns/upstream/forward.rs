//! Questions to configured servers: plain, over TLS, HTTPS or QUIC.

use std::{sync::Arc, time::Duration};

use hickory_net::{
    DnsError, NetError,
    runtime::TokioRuntimeProvider,
    xfer::{DnsHandle as _, FirstAnswer as _},
};
use hickory_proto::{
    op::{DnsRequest, DnsRequestOptions, Edns, Message},
    rr::RecordType,
};
use hickory_resolver::{
    NameServerPool, PoolContext, TlsConfig,
    config::{ConnectionConfig, NameServerConfig, ResolverOpts},
};

use super::{Resolved, Security, hickory_query};
use crate::dns::{
    Config, Transport, Upstream,
    encode::{Ede, UDP_SIZE},
    policy::Error,
    query::Question,
    resolver::wire,
};

/// Servers that are asked for recursion.
pub(super) struct Forwarder {
    pool: NameServerPool<TokioRuntimeProvider>,
}

/// What one server may take before the next is asked.
const SERVER_DEADLINE: Duration = Duration::from_millis(2000);

impl Forwarder {
    /// Makes a pool of servers.
    pub(super) fn new(servers: &[Upstream], config: &Config) -> Result<Self, Error> {
        let tls = TlsConfig::new()
            .map_err(|error| Error::Upstream { key: "dns.upstreams", problem: format!("no TLS: {error}") })?;
        let mut options = ResolverOpts::default();
        options.timeout = SERVER_DEADLINE;
        options.attempts = 2;
        options.edns0 = true;
        options.case_randomization = config.case_randomisation;
        let servers = servers.iter().map(server);
        let context = Arc::new(PoolContext::new(options, tls));
        Ok(Self { pool: NameServerPool::from_config(servers, context, TokioRuntimeProvider::new()) })
    }

    /// Asks one server after the other.
    pub(super) async fn resolve(&self, question: &Question) -> Resolved {
        let Some(query) = hickory_query(question) else { return Resolved::failed(Ede::NetworkError) };
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.metadata.checking_disabled = question.checking_disabled;
        message.add_query(query);
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_SIZE);
        edns.set_dnssec_ok(question.dnssec_ok);
        message.set_edns(edns);
        let mut options = DnsRequestOptions::default();
        options.use_edns = true;
        match self.pool.send(DnsRequest::new(message, options)).first_answer().await {
            Ok(response) => said(&response.into_buffer()),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let mut message = Message::query();
                message.authorities = none.authorities.map(|records| records.to_vec()).unwrap_or_default();
                // hickory keeps it apart from the other records.
                if let Some(soa) = none.soa
                    && !message.authorities.iter().any(|record| record.record_type() == RecordType::SOA)
                {
                    message.authorities.push(soa.into_record_of_rdata());
                }
                let resolved = message.to_vec().map(|bytes| said(&bytes));
                let resolved = resolved.unwrap_or_else(|_| Resolved::failed(Ede::NetworkError));
                Resolved { rcode: none.response_code.into(), ..resolved }
            }
            Err(NetError::Dns(DnsError::ResponseCode(_))) => Resolved::failed(Ede::NetworkError),
            Err(_) => Resolved::failed(Ede::NoReachableAuthority),
        }
    }
}

/// Reads what they said, record by record.
fn said(bytes: &[u8]) -> Resolved {
    let Ok(message) = wire::Message::parse(bytes) else { return Resolved::failed(Ede::NetworkError) };
    Resolved {
        rcode: message.rcode,
        answers: message.answer,
        authorities: message.authority,
        // What they say of validity is their word only.
        security: Security::Insecure,
        ede: None,
    }
}

fn server(upstream: &Upstream) -> NameServerConfig {
    let name = |name: &String| Arc::<str>::from(name.as_str());
    let mut connections = match &upstream.transport {
        Transport::Plain => vec![ConnectionConfig::udp(), ConnectionConfig::tcp()],
        Transport::Tls { name: server } => vec![ConnectionConfig::tls(name(server))],
        Transport::Https { name: server, path } => {
            vec![ConnectionConfig::https(name(server), Some(name(path)))]
        }
        Transport::Quic { name: server } => vec![ConnectionConfig::quic(name(server))],
    };
    for connection in &mut connections {
        connection.port = upstream.address.port();
    }
    NameServerConfig::new(upstream.address.ip(), true, connections)
}
