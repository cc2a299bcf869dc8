//! What one thread of the resolver knew when the process ended, so that the next one is not cold.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::super::{Config, Now, Resolver};
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
    pub(super) fn new(folder: &Path, thread: usize, config: &Config) -> Self {
        let Config { hints, anchors, negative_anchors, forward, support, .. } = config;
        let of = Sha256::digest(format!("{hints:?} {anchors:?} {negative_anchors:?} {forward:?} {support:?}")).into();
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
