//! The house's own CA: it can sign for the domain and for private addresses, and for nothing else.
//!
//! Whoever trusts it does not trust it with the rest of the Internet: the name constraints are critical
//! (RFC 5280 §4.2.1.10). Root and leaves lie in `STATE/ca/DOMAIN/`, the root's certificate once more in
//! `STATE/ca.pem` for owners to install.

use std::{
    fs,
    io::{self, Write},
    net::{IpAddr, Ipv6Addr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256,
};

use crate::{
    ingress::{HostPattern, Side, canonical::CanonicalHost},
    store,
};

const DAY: u64 = 24 * 60 * 60;
const ROOT_DAYS: u64 = 3650;
const LEAF_DAYS: u64 = 90;
/// A leaf is made anew when a third of its life is left.
pub(super) const RENEW_DAYS: u64 = LEAF_DAYS / 3;

/// What the CA could not do.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The state folder.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The signing.
    #[error("the house's CA cannot sign: {0}")]
    Sign(#[from] rcgen::Error),
    /// A file of the CA is there and is not what was written.
    #[error("{path}: is no certificate with its key; remove it and the CA makes another", path = .0.display())]
    Unreadable(PathBuf),
}

/// The CA of one domain.
pub(super) struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
}

/// A certificate with its key, both PEM.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Authority {
    /// Opens the CA of a domain, or makes it.
    pub(super) fn open(state: &Path, domain: &CanonicalHost, now: SystemTime) -> Result<Self, CaError> {
        let all = state.join("ca");
        let folder = all.join(domain.as_str());
        let others = fs::read_dir(&all).map(Iterator::count).unwrap_or(0);
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| CaError::File { path, error }
        };
        store::folder(&folder).map_err(at(&folder))?;
        let file = folder.join("root");
        let pair = match read_pair(&file)? {
            Some(pair) => pair,
            None => {
                let pair = root(domain, now)?;
                store::write(&file, pair.joined().as_bytes()).map_err(at(&file))?;
                if others > 0 {
                    tracing::warn!(
                        domain = %domain,
                        file = %state.join("ca.pem").display(),
                        "node.domain changed: another CA was made, clients must install its certificate"
                    );
                } else {
                    tracing::info!(domain = %domain, file = %state.join("ca.pem").display(), "made the house's CA");
                }
                pair
            }
        };
        let public = state.join("ca.pem");
        if fs::read_to_string(&public).ok().as_deref() != Some(&pair.certificate) {
            replace(&public, pair.certificate.as_bytes()).map_err(at(&public))?;
        }
        let key = KeyPair::from_pem(&pair.key)?;
        let issuer = Issuer::from_ca_cert_pem(&pair.certificate, key)?;
        Ok(Self { folder, issuer, root_pem: pair.certificate })
    }

    /// Returns where the leaf of a host lies, with its root behind it.
    pub(super) fn kept(&self, host: &HostPattern, side: Side) -> Result<Option<Pair>, CaError> {
        Ok(read_pair(&self.leaf_file(host, side))?.map(|pair| self.chained(pair)))
    }

    /// Signs a leaf for a host, with other names and addresses beside it, and keeps it.
    pub(super) fn sign(
        &self,
        host: &HostPattern,
        others: &[String],
        side: Side,
        now: SystemTime,
    ) -> Result<Pair, CaError> {
        let name = host.to_string();
        let names: Vec<String> = std::iter::once(name.clone()).chain(others.iter().cloned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, name);
        set_life(&mut params, now, LEAF_DAYS);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let pair = Pair { certificate: certificate.pem(), key: key.serialize_pem() };
        let file = self.leaf_file(host, side);
        store::write(&file, pair.joined().as_bytes()).map_err(|error| CaError::File { path: file, error })?;
        Ok(self.chained(pair))
    }

    fn chained(&self, mut pair: Pair) -> Pair {
        pair.certificate.push_str(&self.root_pem);
        pair
    }

    /// A host is on one side only, but a wildcard may be on both, with a key for each.
    fn leaf_file(&self, host: &HostPattern, side: Side) -> PathBuf {
        self.folder.join(match (host, side) {
            (HostPattern::Exact(host), _) => format!("{host}.leaf"),
            (HostPattern::Wildcard(base), Side::Public) => format!("any.{base}.wildcard-leaf"),
            (HostPattern::Wildcard(base), Side::Inside) => format!("any.{base}.inside-leaf"),
            (HostPattern::Any, _) => "any.leaf".to_owned(),
        })
    }
}

/// RFC 1918 and loopback.
const PRIVATE_V4: [([u8; 4], u8); 4] =
    [([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16), ([127, 0, 0, 0], 8)];

/// RFC 4193 and loopback.
const PRIVATE_V6: [(Ipv6Addr, u8); 2] = [(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7), (Ipv6Addr::LOCALHOST, 128)];

/// Says whether the CA can sign for an address.
pub(super) fn may_sign_address(address: &IpAddr) -> bool {
    let v4 = PRIVATE_V4.iter().map(|(net, length)| IpNet::new(IpAddr::from(*net), *length));
    let v6 = PRIVATE_V6.iter().map(|(net, length)| IpNet::new(IpAddr::from(*net), *length));
    v4.chain(v6).any(|net| net.is_ok_and(|net| net.contains(address)))
}

/// Says whether the CA of a domain can sign for a host.
pub(super) fn may_sign(domain: &CanonicalHost, host: &HostPattern) -> bool {
    let (HostPattern::Exact(name) | HostPattern::Wildcard(name)) = host else { return false };
    match name.as_str().strip_suffix(domain.as_str()) {
        Some("") => true,
        Some(above) => above.ends_with('.'),
        None => false,
    }
}

impl Pair {
    pub(super) fn joined(&self) -> String {
        format!("{}{}", self.certificate, self.key)
    }
}

fn root(domain: &CanonicalHost, now: SystemTime) -> Result<Pair, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("hearthgate of {domain}"));
    set_life(&mut params, now, ROOT_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let mut permitted = vec![GeneralSubtree::DnsName(domain.as_str().to_owned())];
    permitted.extend(PRIVATE_V4.map(|(net, len)| GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(net, len))));
    permitted.extend(
        PRIVATE_V6.map(|(net, len)| GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(net.octets().into(), len))),
    );
    params.name_constraints = Some(NameConstraints { permitted_subtrees: permitted, excluded_subtrees: Vec::new() });
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Begins a day early: clocks in a house differ.
fn set_life(params: &mut CertificateParams, now: SystemTime, days: u64) {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(now.saturating_sub(DAY));
    params.not_after = epoch + Duration::from_secs(now.saturating_add(days * DAY));
}

/// Reads what [`Pair::joined`] wrote.
pub(super) fn read_pair(file: &Path) -> Result<Option<Pair>, CaError> {
    let found = store::read(file).map_err(|error| CaError::File { path: file.to_owned(), error })?;
    let Some(content) = found.content() else { return Ok(None) };
    let unreadable = || CaError::Unreadable(file.to_owned());
    let text = String::from_utf8(content).map_err(|_| unreadable())?;
    let key = text.find("-----BEGIN PRIVATE KEY").ok_or_else(unreadable)?;
    let (certificate, key) = text.split_at(key);
    Ok(Some(Pair { certificate: certificate.to_owned(), key: key.to_owned() }))
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temp = path.with_extension("pem.new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&temp)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temp, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostPattern {
        let name = |text: &str| CanonicalHost::parse(text).unwrap();
        match text.strip_prefix("*.") {
            Some(base) => HostPattern::Wildcard(name(base)),
            None => HostPattern::Exact(name(text)),
        }
    }

    #[test]
    fn only_names_of_the_domain_are_signed() {
        let domain = CanonicalHost::parse("home.example").unwrap();
        for name in ["home.example", "a.home.example", "*.home.example", "*.b.home.example"] {
            assert!(may_sign(&domain, &host(name)), "{name}");
        }
        for name in ["example", "nothome.example", "*.example", "home.example.org"] {
            assert!(!may_sign(&domain, &host(name)), "{name}");
        }
    }

    #[test]
    fn the_root_is_kept_and_another_domain_gets_another() {
        let state = tempfile::tempdir().unwrap();
        let open = |domain: &str| {
            let domain = CanonicalHost::parse(domain).unwrap();
            Authority::open(state.path(), &domain, SystemTime::now()).unwrap().root_pem
        };

        let first = open("home.example");
        let again = open("home.example");
        let other = open("house.example");

        assert_eq!(first, again);
        assert_ne!(first, other);
        assert_eq!(fs::read_to_string(state.path().join("ca.pem")).unwrap(), other);
    }
}
