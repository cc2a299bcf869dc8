//! Certificates in use: from files, from orders at a public CA, or leaves of the house's own.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, X509Certificate};

use crate::{
    ingress::{
        CertificateFiles, Config, HostPattern, Means, Order, Side, acme,
        ca::{self, Authority, CaError, Pair},
        canonical::CanonicalHost,
        plan,
    },
    origin::{Networks, Origin},
};

/// A certificate that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{path}: {why}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The house's CA may not sign for this host.
    #[error(
        "route \"{host}\": the house's own CA signs only for \"{domain}\" and below: name its files in `ingress.certificates`, or order one with [ingress.acme]"
    )]
    OutsideDomain {
        /// As written.
        host: String,
        /// `node.domain`.
        domain: CanonicalHost,
    },
    /// The house's CA failed.
    #[error(transparent)]
    Ca(#[from] CaError),
}

/// A certificate as it stands in `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The hosts that it is used for.
    pub hosts: Vec<String>,
    /// A file, the house's CA, or a public one with the name that is ordered there.
    pub source: String,
    /// When it ends, in seconds since 1970; nothing as long as there is none.
    pub not_after: Option<u64>,
    /// The house's CA stands in for a public one that has not given its certificate yet.
    #[serde(default)]
    pub stand_in: bool,
    /// When it is asked for again, in seconds since 1970, where that is known.
    #[serde(default)]
    pub next: Option<u64>,
    /// What went wrong the last time.
    #[serde(default)]
    pub problem: Option<String>,
}

/// One certificate in use. A renewal swaps it in place; its name stays.
#[derive(Debug)]
pub(super) struct Certificate {
    /// The same over reloads and renewals.
    pub(super) name: Arc<str>,
    source: Source,
    /// `None` as long as a public CA has given none and the house's may not stand in.
    current: ArcSwapOption<Loaded>,
    problem: ArcSwapOption<String>,
    next: AtomicU64,
}

#[derive(Debug)]
enum Source {
    Files { files: CertificateFiles, read: Mutex<[Option<Stamp>; 2]> },
    HouseCa(HostPattern, Side),
    Order(Order),
}

/// What tells that a file is another one than before.
type Stamp = (u64, u64, i64, i64);

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) not_before: u64,
    pub(super) not_after: u64,
    /// Names and addresses that it is for.
    names: Vec<String>,
    stand_in: bool,
}

/// The certificates of a policy.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    /// The certificate of each host that has one.
    pub(super) by_host: HashMap<HostPattern, Arc<Certificate>>,
    /// What is ordered, each name once for a side.
    pub(super) orders: Vec<(Order, Arc<Certificate>)>,
}

impl Certificates {
    /// Loads or makes what the routes need. What the policy in force has ordered goes on as it is.
    pub(super) fn load(
        config: &Config,
        in_force: &Self,
        provider: &CryptoProvider,
        now: SystemTime,
        networks: &Networks,
    ) -> Result<Self, CertificateError> {
        let mut found = Self::default();
        let mut files: Vec<Option<Arc<Certificate>>> = vec![None; config.certificates.len()];
        let mut house = House { config, authority: None, provider, now, networks };
        for (host, means) in plan(config) {
            let certificate = match means {
                Means::Files(place) => match &files[place] {
                    Some(loaded) => loaded.clone(),
                    None => {
                        let read = Certificate::from_files(&config.certificates[place], provider)?;
                        files[place].insert(Arc::new(read)).clone()
                    }
                },
                Means::Order(order) => match (found.ordered(&order), in_force.ordered(&order)) {
                    (Some(same), _) => same.clone(),
                    (None, known) => {
                        let certificate = match known {
                            Some(known) => known.clone(),
                            None => Arc::new(Certificate::from_order(&order, &mut house)?),
                        };
                        found.orders.push((order, certificate.clone()));
                        certificate
                    }
                },
                Means::HouseCa => Arc::new(Certificate::from_ca(&host, side(config, &host), &mut house)?),
                Means::Nothing => {
                    let (host, domain) = (host.to_string(), config.domain.clone());
                    return Err(CertificateError::OutsideDomain { host, domain });
                }
            };
            found.by_host.insert(host, certificate);
        }
        Ok(found)
    }

    fn ordered(&self, order: &Order) -> Option<&Arc<Certificate>> {
        let same = |other: &Order| other.name == order.name && other.side == order.side;
        self.orders.iter().find(|(other, _)| same(other)).map(|(_, certificate)| certificate)
    }

    /// Signs anew what the house's CA signed and what nears its end, and reads files again that have changed.
    pub(super) fn renew(&self, config: &Config, provider: &CryptoProvider, now: SystemTime, networks: &Networks) {
        let mut house = House { config, authority: None, provider, now, networks };
        let mut seen: Vec<*const Certificate> = Vec::new();
        for certificate in self.by_host.values() {
            let this = Arc::as_ptr(certificate);
            if !seen.contains(&this) {
                seen.push(this);
                certificate.renew(&mut house);
            }
        }
    }

    /// Returns how each certificate is, with the hosts that it is used for.
    pub(super) fn status(&self) -> Vec<CertificateStatus> {
        let mut all: Vec<(&Arc<Certificate>, Vec<String>)> = Vec::new();
        for (host, certificate) in &self.by_host {
            match all.iter_mut().find(|(other, _)| Arc::ptr_eq(other, certificate)) {
                Some((_, hosts)) => hosts.push(host.to_string()),
                None => all.push((certificate, vec![host.to_string()])),
            }
        }
        let mut all: Vec<_> = all
            .into_iter()
            .map(|(certificate, mut hosts)| {
                hosts.sort();
                certificate.status(hosts)
            })
            .collect();
        all.sort_by(|one, other| one.hosts.cmp(&other.hosts));
        all
    }
}

/// The house's CA, opened when somebody needs it.
struct House<'a> {
    config: &'a Config,
    authority: Option<Authority>,
    provider: &'a CryptoProvider,
    now: SystemTime,
    networks: &'a Networks,
}

impl House<'_> {
    /// Returns what the house's CA writes beside a host: for the DNS server the names of devices below it, and
    /// this box's private addresses, by which clients that were given an address only find that it is the same
    /// server (RFC 9462 §4.2).
    fn others(&self, host: &HostPattern) -> Vec<String> {
        let HostPattern::Exact(name) = host else { return Vec::new() };
        if self.config.dns_host.as_ref() != Some(name) {
            return Vec::new();
        }
        let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let own = self.networks.own.iter().copied();
        let mut addresses: Vec<IpAddr> = own.chain(loopback).filter(ca::may_sign_address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        std::iter::once(format!("*.{name}")).chain(addresses.iter().map(ToString::to_string)).collect()
    }

    /// Returns the leaf that is kept, or signs another.
    fn leaf(&mut self, host: &HostPattern, side: Side) -> Result<Loaded, CertificateError> {
        let others = self.others(host);
        let authority = match &mut self.authority {
            Some(authority) => authority,
            none => none.insert(Authority::open(&self.config.state, &self.config.domain, self.now)?),
        };
        let name = host.to_string();
        let kept = authority.kept(host, side)?;
        let kept = kept.map(|pair| Loaded::new(&pair, Path::new(&name), self.provider)).transpose()?;
        match kept {
            Some(kept) if kept.will_do(host, &others, self.now) => Ok(kept),
            _ => Loaded::new(&authority.sign(host, &others, side, self.now)?, Path::new(&name), self.provider),
        }
    }
}

impl Certificate {
    fn new(name: String, source: Source, current: Option<Loaded>) -> Self {
        Self {
            name: name.into(),
            source,
            current: ArcSwapOption::new(current.map(Arc::new)),
            problem: ArcSwapOption::empty(),
            next: AtomicU64::new(0),
        }
    }

    fn from_files(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Self, CertificateError> {
        // Before reading: what changes meanwhile is read again.
        let stamps = stamps(files);
        let current = read_files(files, provider)?;
        let source = Source::Files { files: files.clone(), read: Mutex::new(stamps) };
        Ok(Self::new(format!("file:{}", files.certificate.display()), source, Some(current)))
    }

    fn from_ca(host: &HostPattern, side: Side, house: &mut House<'_>) -> Result<Self, CertificateError> {
        let current = house.leaf(host, side)?;
        Ok(Self::new(format!("ca:{host}"), Source::HouseCa(host.clone(), side), Some(current)))
    }

    /// Takes what was kept of an order; until it is fulfilled the house's CA stands in, if it may.
    fn from_order(order: &Order, house: &mut House<'_>) -> Result<Self, CertificateError> {
        let kept = acme::kept::certificate(&house.config.state, order);
        let kept = kept.and_then(|pair| {
            let loaded = Loaded::new(&pair, Path::new(&order.to_string()), house.provider);
            let whole = loaded.inspect_err(|error| tracing::warn!(%error, "a certificate in the state folder is left"));
            whole.ok().filter(|loaded| loaded.not_after > seconds(house.now))
        });
        let current = match kept {
            Some(kept) => Some(kept),
            None if ca::may_sign(&house.config.domain, &order.name) => {
                Some(Loaded { stand_in: true, ..house.leaf(&order.name, order.side)? })
            }
            None => None,
        };
        Ok(Self::new(format!("acme:{order}"), Source::Order(order.clone()), current))
    }

    fn renew(&self, house: &mut House<'_>) {
        let renewed = match &self.source {
            Source::HouseCa(host, side) if !self.will_do(host, house) => house.leaf(host, *side),
            Source::Order(order) if self.stands_in() && self.is_due(house.now) => {
                house.leaf(&order.name, order.side).map(|leaf| Loaded { stand_in: true, ..leaf })
            }
            Source::Files { files, read } => {
                let now = stamps(files);
                let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
                if *read == now {
                    return;
                }
                *read = now;
                read_files(files, house.provider)
            }
            _ => return,
        };
        match renewed {
            Ok(renewed) => {
                tracing::info!(
                    certificate = &*self.name,
                    not_after = renewed.not_after,
                    "another certificate is in use"
                );
                self.swap(renewed);
            }
            Err(error) => {
                tracing::error!(certificate = &*self.name, %error, "the certificate could not be renewed; the last one stays");
                self.fail(error.to_string());
            }
        }
    }

    fn is_due(&self, now: SystemTime) -> bool {
        self.current.load().as_ref().is_none_or(|current| due(current.not_after, now))
    }

    fn will_do(&self, host: &HostPattern, house: &House<'_>) -> bool {
        self.current.load().as_ref().is_some_and(|current| current.will_do(host, &house.others(host), house.now))
    }

    fn stands_in(&self) -> bool {
        self.current.load().as_ref().is_none_or(|current| current.stand_in)
    }

    /// Returns what a public CA signed, if that is in use.
    pub(super) fn issued(&self) -> Option<Arc<Loaded>> {
        self.current.load_full().filter(|current| !current.stand_in)
    }

    /// Puts another in its place: new handshakes see it, connections go on.
    pub(super) fn swap(&self, loaded: Loaded) {
        self.current.store(Some(Arc::new(loaded)));
        self.problem.store(None);
    }

    /// Notes what went wrong; what is in use stays.
    pub(super) fn fail(&self, problem: String) {
        self.problem.store(Some(Arc::new(problem)));
    }

    /// Notes when it is asked for again.
    pub(super) fn plan_next(&self, at: u64) {
        self.next.store(at, Ordering::Relaxed);
    }

    pub(super) fn key(&self) -> Option<Arc<CertifiedKey>> {
        self.current.load().as_ref().map(|current| current.key.clone())
    }

    pub(super) fn not_after(&self) -> Option<u64> {
        self.current.load().as_ref().map(|current| current.not_after)
    }

    fn status(&self, hosts: Vec<String>) -> CertificateStatus {
        CertificateStatus {
            hosts,
            source: match &self.source {
                Source::Files { files, .. } => files.certificate.display().to_string(),
                Source::HouseCa(..) => "the house's CA".into(),
                Source::Order(order) => format!("an order of {order}"),
            },
            not_after: self.not_after(),
            stand_in: matches!(self.source, Source::Order(_)) && self.stands_in(),
            next: Some(self.next.load(Ordering::Relaxed)).filter(|next| *next > 0),
            problem: self.problem.load().as_deref().cloned(),
        }
    }
}

impl Loaded {
    /// Reads a certificate and its key, which must belong together.
    pub(super) fn new(pair: &Pair, path: &Path, provider: &CryptoProvider) -> Result<Self, CertificateError> {
        let wrong = |why: String| CertificateError::File { path: path.to_owned(), why };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(error.to_string()))?;
        let leaf = chain.first().ok_or_else(|| wrong("holds no certificate".into()))?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| wrong(error.to_string()))?;
        let second = |time: ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        let (not_before, not_after) = (second(parsed.validity().not_before), second(parsed.validity().not_after));
        let names = parsed.subject_alternative_name().ok().flatten().map(|names| &names.value.general_names);
        let names = names.into_iter().flatten().filter_map(alternative).collect();
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { key: Arc::new(key), not_before, not_after, names, stand_in: false })
    }

    /// Says whether a leaf of the house's CA is neither old nor made for other names.
    fn will_do(&self, host: &HostPattern, others: &[String], now: SystemTime) -> bool {
        let wanted = std::iter::once(host.to_string()).chain(others.iter().cloned());
        !due(self.not_after, now) && wanted.eq(self.names.iter().cloned())
    }
}

fn alternative(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => match octets.len() {
            4 => <[u8; 4]>::try_from(*octets).ok().map(|v4| Ipv4Addr::from(v4).to_string()),
            _ => <[u8; 16]>::try_from(*octets).ok().map(|v6| Ipv6Addr::from(v6).to_string()),
        },
        _ => None,
    }
}

/// Says on which side a host is that the house's CA signs for.
fn side(config: &Config, host: &HostPattern) -> Side {
    let public = config.routes.iter().any(|route| route.host == *host && route.access.admits(Origin::Wan));
    if public { Side::Public } else { Side::Inside }
}

fn due(not_after: u64, now: SystemTime) -> bool {
    not_after < seconds(now).saturating_add(ca::RENEW_DAYS * 24 * 60 * 60)
}

pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn stamps(files: &CertificateFiles) -> [Option<Stamp>; 2] {
    [&files.certificate, &files.key].map(|path| {
        let found = fs::metadata(path).ok()?;
        Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    })
}

fn read_files(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Loaded, CertificateError> {
    let pair = Pair { certificate: read(&files.certificate)?, key: read(&files.key)? };
    Loaded::new(&pair, &files.certificate, provider)
}

fn read(path: &Path) -> Result<String, CertificateError> {
    fs::read_to_string(path).map_err(|error| CertificateError::File { path: path.to_owned(), why: error.to_string() })
}
