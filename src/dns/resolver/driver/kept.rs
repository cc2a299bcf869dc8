//! What one thread of the resolver knew when the process ended, so that the next one is not cold.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{
    super::{Config, Now, Resolver},
    encrypted::Server,
};
use crate::store;

/// Bytes of a file for each byte of the cache: names and times take less on disk than in memory, and delegations
/// come on top.
const FILE_FACTOR: u64 = 2;

/// Where a thread keeps what it knows.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    file: PathBuf,
    /// What was learnt under other anchors, or from other servers, is not for us.
    of: [u8; 32],
    most: u64,
}

impl Kept {
    pub(super) fn new(folder: &Path, thread: usize, config: &Config, servers: &[Server]) -> Self {
        let Config { hints, anchors, negative_anchors, forward, support, .. } = config;
        // The core knows encrypted servers by their places in this list.
        let encrypted: Vec<_> = servers.iter().map(|server| (&server.host, &server.protocol, &server.name)).collect();
        let from = format!("{hints:?} {anchors:?} {negative_anchors:?} {forward:?} {encrypted:?} {support:?}");
        let of = Sha256::digest(from).into();
        let bytes = u64::try_from(config.cache_bytes).unwrap_or(u64::MAX);
        let most = bytes.saturating_mul(FILE_FACTOR).saturating_add(4 << 20);
        Self { file: folder.join(format!("resolver-cache-{thread}")), of, most }
    }

    /// Writes what the resolver knows.
    pub(super) fn save(&self, resolver: &Resolver, now: Now) {
        let mut bytes = self.of.to_vec();
        bytes.extend(resolver.save(now));
        if let Err(error) = store::write(&self.file, &bytes) {
            tracing::warn!(file = %self.file.display(), %error, "what the resolver knows is not kept");
        }
    }

    /// Takes what was written, as far as it still holds.
    pub(super) fn load(&self, resolver: &mut Resolver, now: Now) {
        let content = match store::read_within(&self.file, self.most) {
            Ok(found) => found.content().unwrap_or_default(),
            Err(error) => return tracing::warn!(file = %self.file.display(), %error, "what the resolver knew is lost"),
        };
        if let Some(bytes) = content.strip_prefix(&self.of) {
            let entries = resolver.load(bytes, now);
            tracing::debug!(entries, "the resolver knows what it knew before");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::dns::resolver::{
        Contact, Fallback, Forward,
        driver::encrypted::{Host, Protocol},
        name::Name,
    };

    #[test]
    fn what_was_learnt_from_another_encrypted_server_is_not_for_us() {
        let config = Config {
            forward: vec![Forward {
                zone: Name::root(),
                servers: vec![Contact::Encrypted(0)],
                fallback: Fallback::Nothing,
            }],
            ..Config::default()
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = Arc::new(tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth());
        let of = |address: [u8; 4], protocol, name: &'static str| {
            let host = Host::Address((address, 853).into());
            let server = Server { host, protocol, name: name.try_into().unwrap(), tls: tls.clone() };
            Kept::new(Path::new("/"), 0, &config, &[server]).of
        };

        let mut all = vec![
            of([9, 9, 9, 9], Protocol::Tls, "dns.quad9.net"),
            of([9, 9, 9, 10], Protocol::Tls, "dns.quad9.net"),
            of([9, 9, 9, 9], Protocol::Quic, "dns.quad9.net"),
            of([9, 9, 9, 9], Protocol::Https("https://dns.quad9.net/a".parse().unwrap()), "dns.quad9.net"),
            of([9, 9, 9, 9], Protocol::Https("https://dns.quad9.net/b".parse().unwrap()), "dns.quad9.net"),
            of([9, 9, 9, 9], Protocol::Tls, "dns10.quad9.net"),
        ];

        assert_eq!(all[0], of([9, 9, 9, 9], Protocol::Tls, "dns.quad9.net"));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
    }
}
