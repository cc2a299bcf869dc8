//! What one client question may cost, with everything that it starts: one budget, shared.

use std::{cell::Cell, time::Duration};

use super::trace::Recorder;

/// Limits of one client question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages to servers.
    pub packets: u32,
    /// Bytes from servers.
    pub bytes: u32,
    /// Aliases followed.
    pub aliases: u32,
    /// Delegations followed.
    pub referrals: u32,
    /// Signatures checked.
    pub signatures: u32,
    /// Names hashed for NSEC3.
    pub hashes: u32,
}

impl Limits {
    /// Nothing at all.
    pub const NONE: Self = Self { packets: 0, bytes: 0, aliases: 0, referrals: 0, signatures: 0, hashes: 0 };
}

/// What a client's question may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Means {
    /// What any question may.
    #[default]
    Full,
    /// Less: the client has asked for much of late that nobody knew.
    Reduced,
}

impl Limits {
    /// Returns the limits of a question with these means. A quarter of it all is enough for nearly every name.
    pub fn within(self, means: Means) -> Self {
        match means {
            Means::Full => self,
            Means::Reduced => Self {
                packets: self.packets / 4,
                bytes: self.bytes / 4,
                aliases: self.aliases,
                referrals: self.referrals / 4,
                signatures: self.signatures / 2,
                hashes: self.hashes / 4,
            },
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { packets: 200, bytes: 512 * 1024, aliases: 12, referrals: 80, signatures: 32, hashes: 150 }
    }
}

/// What is left of a budget. Shared by all work of one client question.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    packets: Cell<u32>,
    bytes: Cell<u32>,
    aliases: Cell<u32>,
    referrals: Cell<u32>,
    signatures: Cell<u32>,
    hashes: Cell<u32>,
    /// What the work does is written here.
    pub recorder: Recorder,
}

impl Budget {
    /// Makes a full one.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            packets: Cell::default(),
            bytes: Cell::default(),
            aliases: Cell::default(),
            referrals: Cell::default(),
            signatures: Cell::default(),
            hashes: Cell::default(),
            recorder: Recorder::default(),
        }
    }

    /// Makes a full one whose work is recorded from this moment on.
    pub fn recorded(limits: Limits, began: Duration) -> Self {
        Self { recorder: Recorder::on(began), ..Self::new(limits) }
    }

    /// Returns what may be used.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Returns what was used, in the form of limits.
    pub fn used(&self) -> Limits {
        Limits {
            packets: self.packets.get(),
            bytes: self.bytes.get(),
            aliases: self.aliases.get(),
            referrals: self.referrals.get(),
            signatures: self.signatures.get(),
            hashes: self.hashes.get(),
        }
    }

    /// Says whether some part of it is used up.
    pub fn is_spent(&self) -> bool {
        let (used, limits) = (self.used(), self.limits);
        used.packets >= limits.packets
            || used.bytes >= limits.bytes
            || used.signatures >= limits.signatures
            || used.hashes >= limits.hashes
    }

    /// One more message to a server.
    pub fn spend_packet(&self) -> bool {
        self.bytes.get() < self.limits.bytes && spend(&self.packets, 1, self.limits.packets)
    }

    /// So many bytes from a server.
    pub fn spend_bytes(&self, count: usize) {
        self.bytes.set(self.bytes.get().saturating_add(u32::try_from(count).unwrap_or(u32::MAX)));
    }

    /// One more alias.
    pub fn spend_alias(&self) -> bool {
        spend(&self.aliases, 1, self.limits.aliases)
    }

    /// One more delegation.
    pub fn spend_referral(&self) -> bool {
        spend(&self.referrals, 1, self.limits.referrals)
    }

    /// One more signature.
    pub fn spend_signature(&self) -> bool {
        spend(&self.signatures, 1, self.limits.signatures)
    }

    /// One more hashed name.
    pub fn spend_hash(&self) -> bool {
        spend(&self.hashes, 1, self.limits.hashes)
    }
}

fn spend(used: &Cell<u32>, count: u32, limit: u32) -> bool {
    let after = used.get().saturating_add(count);
    let left = after <= limit;
    if left {
        used.set(after);
    }
    left
}
