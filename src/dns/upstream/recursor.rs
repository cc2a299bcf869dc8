//! Recursion from the root with validation. This file is the whole seam: it may be replaced by another
//! resolver without anybody else noticing.

use std::{net::IpAddr, path::Path, sync::Arc, time::Instant};

use hickory_net::{DnsError, NetError, runtime::TokioRuntimeProvider};
use hickory_proto::{
    dnssec::{Proof, TrustAnchors},
    op::{Message, Query, ResponseCode},
    rr::{Record, RecordType},
};
use hickory_resolver::recursor::{
    AuthorityData, DnssecConfig, DnssecPolicy, QNameMinimization, Recursor, RecursorError, RecursorOptions,
};

use super::{Resolved, Security};
use crate::dns::{Config, encode::Ede, policy::Error, query::Question};

/// A resolver that begins at the root.
pub(super) struct Recursion {
    validating: Recursor<TokioRuntimeProvider>,
    /// For clients that validate themselves (CD): it says what it hears.
    unchecked: Recursor<TokioRuntimeProvider>,
}

/// The root servers' addresses as IANA publishes them.
const ROOTS: [&str; 26] = [
    "198.41.0.4",
    "170.247.170.2",
    "192.33.4.12",
    "199.7.91.13",
    "192.203.230.10",
    "192.5.5.241",
    "192.112.36.4",
    "198.97.190.53",
    "192.36.148.17",
    "192.58.128.30",
    "193.0.14.129",
    "199.7.83.42",
    "202.12.27.33",
    "2001:503:ba3e::2:30",
    "2801:1b8:10::b",
    "2001:500:2::c",
    "2001:500:2d::d",
    "2001:500:a8::e",
    "2001:500:2f::f",
    "2001:500:12::d0d",
    "2001:500:1::53",
    "2001:7fe::53",
    "2001:503:c27::2:30",
    "2001:7fd::1",
    "2001:500:9f::42",
    "2001:dc3::35",
];

/// A name of many labels, such as an IPv6 address' reverse name, is one step a label.
const DEPTH: u8 = 64;

/// About what a message in the resolver's own cache takes.
const MESSAGE_BYTES: usize = 1024;

impl Recursion {
    /// Makes a resolver. Nothing is sent yet.
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let wrong = |key, problem: String| Error::Upstream { key, problem };
        let roots = match (&config.root_hints, config.testing.root_servers.as_slice()) {
            (_, servers @ [_, ..]) => servers.iter().map(|server| server.ip()).collect(),
            (Some(file), []) => root_hints(file).map_err(|problem| wrong("dns.root_hints", problem))?,
            (None, []) => ROOTS.iter().map(|root| root.parse().expect("the table holds addresses")).collect(),
        };
        let testing = &config.testing;
        let roots: Vec<IpAddr> =
            roots.into_iter().filter(|ip| if ip.is_ipv4() { testing.ipv4 } else { testing.ipv6 }).collect();
        let mut dnssec = DnssecConfig::default();
        // RFC 9276: more iterations are nobody's need.
        dnssec.nsec3_soft_iteration_limit = Some(50);
        dnssec.nsec3_hard_iteration_limit = Some(150);
        dnssec.validation_cache_size = Some(config.rrset_cache / 4 / MESSAGE_BYTES);
        if let Some(file) = &config.trust_anchors {
            let anchors =
                TrustAnchors::from_file(file).map_err(|error| wrong("dns.trust_anchors", error.to_string()))?;
            dnssec.trust_anchor = Some(Arc::new(anchors));
        }
        let mut options = RecursorOptions {
            recursion_limit: DEPTH,
            ns_recursion_limit: DEPTH,
            response_cache_size: (config.rrset_cache / 2 / MESSAGE_BYTES) as u64,
            case_randomization: config.case_randomisation,
            qname_minimization: QNameMinimization::Relaxed,
            ..RecursorOptions::default()
        };
        if testing.special_servers {
            options.deny_server.clear();
        }
        let recursor = |policy, options| {
            Recursor::new(&roots, policy, None, options, TokioRuntimeProvider::new())
                .map_err(|error| wrong("dns.resolve", error.to_string()))
        };
        let fewer = RecursorOptions { response_cache_size: options.response_cache_size / 4, ..options.clone() };
        Ok(Self {
            validating: recursor(DnssecPolicy::ValidateWithStaticKey(dnssec), options)?,
            unchecked: recursor(DnssecPolicy::ValidationDisabled, fewer)?,
        })
    }

    /// Asks the authorities.
    pub(super) async fn resolve(&self, query: Query, question: &Question) -> Resolved {
        let recursor = if question.checking_disabled { &self.unchecked } else { &self.validating };
        match recursor.resolve(query, Instant::now(), question.dnssec_ok).await {
            Ok(message) => positive(message),
            Err(RecursorError::Negative(negative)) => authority(negative),
            Err(RecursorError::Net(NetError::Dns(error))) => dns_error(error),
            Err(RecursorError::Timeout | RecursorError::Io(_)) => Resolved::failed(Ede::NoReachableAuthority),
            Err(RecursorError::Net(NetError::Timeout | NetError::NoConnections | NetError::Io(_))) => {
                Resolved::failed(Ede::NoReachableAuthority)
            }
            Err(_) => Resolved::failed(Ede::NetworkError),
        }
    }
}

fn positive(message: Message) -> Resolved {
    // Who else is an authority proves nothing and is not passed on.
    let proofs = message.authorities.iter().filter(|record| record.record_type() != RecordType::NS);
    let security = security(message.answers.iter().chain(proofs));
    if security == Security::Bogus {
        return Resolved::failed(Ede::Bogus);
    }
    Resolved {
        rcode: message.metadata.response_code.into(),
        answers: message.answers,
        authorities: message.authorities,
        security,
        ede: None,
    }
}

fn authority(negative: AuthorityData) -> Resolved {
    let code = if negative.is_nx_domain() { ResponseCode::NXDomain } else { ResponseCode::NoError };
    let mut authorities = negative.authorities.map(|records| records.to_vec()).unwrap_or_default();
    if authorities.is_empty()
        && let Some(soa) = negative.soa
    {
        authorities.push(soa.into_record_of_rdata());
    }
    let security = security(authorities.iter());
    Resolved::negative(code, authorities, security)
}

fn dns_error(error: DnsError) -> Resolved {
    match error {
        DnsError::NoRecordsFound(none) => {
            let mut authorities = none.authorities.map(|records| records.to_vec()).unwrap_or_default();
            if authorities.is_empty()
                && let Some(soa) = none.soa
            {
                authorities.push(soa.into_record_of_rdata());
            }
            let security = security(authorities.iter());
            Resolved::negative(none.response_code, authorities, security)
        }
        DnsError::Nsec { response, proof, .. } => {
            let message = response.into_message();
            match proof {
                Proof::Bogus => Resolved::failed(Ede::Bogus),
                Proof::Secure => {
                    let code = message.metadata.response_code;
                    Resolved::negative(code, message.authorities, Security::Secure)
                }
                _ => Resolved::negative(message.metadata.response_code, message.authorities, Security::Insecure),
            }
        }
        DnsError::DnssecBogus => Resolved::failed(Ede::Bogus),
        _ => Resolved::failed(Ede::NetworkError),
    }
}

fn security<'a>(records: impl Iterator<Item = &'a Record>) -> Security {
    let mut all = Security::Secure;
    let mut any = false;
    for record in records {
        any = true;
        match record.proof {
            Proof::Bogus => return Security::Bogus,
            Proof::Secure => {}
            Proof::Insecure | Proof::Indeterminate => all = Security::Insecure,
        }
    }
    if any { all } else { Security::Insecure }
}

/// Reads the addresses of a hints file: any A and AAAA record in it.
fn root_hints(file: &Path) -> Result<Vec<IpAddr>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let lines = text.lines().map(|line| line.split(';').next().unwrap_or_default());
    let addresses: Vec<IpAddr> = lines.filter_map(|line| line.split_whitespace().last()?.parse().ok()).collect();
    if addresses.is_empty() {
        return Err(format!("{} holds no address of a root server", file.display()));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_read_with_comments_and_without_last_dots() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "; roots\n. 3600000 NS a.root\na.root 3600000 A 10.0.0.1 ; here\na.root. 3600000 AAAA fd00::1\n";
        std::fs::write(file.path(), text).unwrap();

        let found = root_hints(file.path()).unwrap();

        assert_eq!(found, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
    }

    #[test]
    fn files_that_cannot_be_used_are_named_by_their_key() {
        let house = |change: fn(&mut Config)| {
            let mut config = crate::dns::fuzz::House::new(|_| {}).policy.config.clone();
            config.resolve = crate::dns::Resolve::Recursive;
            change(&mut config);
            Recursion::new(&config).map(drop).map_err(|error| error.to_string())
        };

        assert_eq!(house(|_| {}), Ok(()));
        let hints = house(|config| config.root_hints = Some("/nowhere/root.hints".into())).unwrap_err();
        assert!(hints.starts_with("dns.root_hints: /nowhere/root.hints: "), "{hints}");
        let anchors = house(|config| config.trust_anchors = Some("/nowhere/root.key".into())).unwrap_err();
        assert!(anchors.starts_with("dns.trust_anchors: "), "{anchors}");
    }
}
