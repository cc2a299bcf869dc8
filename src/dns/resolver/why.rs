//! Why a question has no sound answer, as extended errors say it (RFC 8914).

/// A reason with its INFO-CODE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// Only algorithms that are not checked.
    UnsupportedAlgorithm,
    /// Only digests that are not checked.
    UnsupportedDigest,
    /// A signature does not hold, or leads nowhere.
    Bogus,
    /// The key sentinel says so (RFC 8509).
    Sentinel,
    /// Its time is over.
    SignatureExpired,
    /// Its time has not come.
    SignatureNotYetValid,
    /// No key of the zone matches the DS above.
    KeyMissing,
    /// Signatures are not there though the zone is signed.
    SignaturesMissing,
    /// What is not there was not proven to be missing.
    DenialMissing,
    /// The answer came from the cache of failures.
    CachedFailure,
    /// No server of the zone answered.
    NoReachableAuthority,
    /// Servers answered, none usefully.
    NetworkError,
    /// The question used up its budget.
    BudgetSpent,
    /// Too much else was under way.
    Crowded,
    /// It was not checked: the clock is not right.
    ClockUnset,
    /// The answer is older than it should be.
    Stale,
    /// A stale denial of the name.
    StaleNxDomain,
}

impl Why {
    /// Returns the INFO-CODE.
    pub fn code(self) -> u16 {
        match self {
            Self::UnsupportedAlgorithm => 1,
            Self::UnsupportedDigest => 2,
            Self::Stale => 3,
            Self::Bogus => 6,
            Self::SignatureExpired => 7,
            Self::SignatureNotYetValid => 8,
            Self::KeyMissing => 9,
            Self::SignaturesMissing => 10,
            Self::DenialMissing => 12,
            Self::CachedFailure => 13,
            Self::StaleNxDomain => 19,
            Self::NoReachableAuthority => 22,
            Self::NetworkError => 23,
            Self::BudgetSpent | Self::Crowded | Self::Sentinel | Self::ClockUnset => 0,
        }
    }

    /// Returns the EXTRA-TEXT.
    pub fn text(self) -> &'static str {
        match self {
            Self::UnsupportedAlgorithm => "no supported algorithm",
            Self::UnsupportedDigest => "no supported digest",
            Self::Stale | Self::StaleNxDomain => "stale",
            Self::Bogus => "signature does not hold",
            Self::Sentinel => "root key sentinel",
            Self::SignatureExpired => "signature expired",
            Self::SignatureNotYetValid => "signature not yet valid",
            Self::KeyMissing => "no key matches the DS",
            Self::SignaturesMissing => "signatures missing",
            Self::DenialMissing => "denial not proven",
            Self::CachedFailure => "failed a moment ago",
            Self::NoReachableAuthority => "no server of the zone answered",
            Self::NetworkError => "no usable answer",
            Self::BudgetSpent => "question costs too much",
            Self::Crowded => "too much under way",
            Self::ClockUnset => "not checked: the clock is not set",
        }
    }
}
