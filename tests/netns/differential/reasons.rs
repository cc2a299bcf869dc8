//! Why hearthgate is right where it differs from the majority of the others.

use super::{
    questions::{Flags, Question},
    verdict::Aspect,
};

/// A difference that is meant.
pub(super) struct Reason {
    asked: Asked,
    /// In what it differs.
    aspect: Aspect,
    /// What hearthgate says.
    ours: &'static str,
    /// The rule, for whoever reads the report.
    pub(super) why: &'static str,
}

/// Which questions a reason is for.
enum Asked {
    /// Names in this zone.
    Under(&'static str),
    /// Questions with CD.
    Unchecked,
    /// This name.
    Name(&'static str),
}

const REASONS: &[Reason] = &[
    Reason {
        asked: Asked::Unchecked,
        aspect: Aspect::Authentic,
        ours: "no AD",
        why: "RFC 4035 §3.2.3: AD says that the resolver checked; with CD it was told not to \
              (as Knot Resolver does)",
    },
    Reason {
        asked: Asked::Under("iter150.tld"),
        aspect: Aspect::Authentic,
        ours: "no AD",
        why: "RFC 9276 §3.2: what rests on many NSEC3 iterations may be insecure; the limit is 50; the others' releases \
              are older than the limit",
    },
    Reason {
        asked: Asked::Under("rsasha1.tld"),
        aspect: Aspect::Authentic,
        ours: "no AD",
        why: "RFC 9905 §2: RSASHA1 is treated as unsupported, which is insecure by RFC 4035 §5.2",
    },
    Reason {
        asked: Asked::Under("rsasha1nsec3.tld"),
        aspect: Aspect::Authentic,
        ours: "no AD",
        why: "RFC 9905 §2: RSASHA1-NSEC3-SHA1 is treated as unsupported, which is insecure by RFC 4035 §5.2",
    },
    Reason {
        asked: Asked::Under("sha1ds.tld"),
        aspect: Aspect::Authentic,
        ours: "no AD",
        why: "RFC 9905 §2: a DS with SHA-1 is treated as unsupported, which is insecure by RFC 4035 §5.2",
    },
    Reason {
        asked: Asked::Under("ed448.tld"),
        aspect: Aspect::Authentic,
        ours: "no AD",
        why: "RFC 9904 recommends ED448 and does not demand it; unsupported is insecure by RFC 4035 §5.2",
    },
    Reason { asked: Asked::Name("missing."), aspect: Aspect::Code, ours: "NOERROR", why: NO_DOT },
    Reason { asked: Asked::Name("missing."), aspect: Aspect::Authentic, ours: "no AD", why: NO_DOT },
];

const NO_DOT: &str = "An address asked for by one label is a name of the house that nobody \
                      qualified; it stays in the house, and NODATA does not deny what may stand below (RFC 8020)";

/// Returns every reason, so that those which nobody needs can be told.
pub(super) fn all() -> &'static [Reason] {
    REASONS
}

/// Returns the reason why this difference is meant.
pub(super) fn find(question: &Question, aspect: Aspect, ours: &str) -> Option<&'static Reason> {
    REASONS.iter().find(|reason| {
        let asked = match reason.asked {
            Asked::Under(zone) => question.name == zone || question.name.ends_with(&format!(".{zone}")),
            Asked::Unchecked => question.flags == Flags::Unchecked,
            Asked::Name(name) => question.name == name,
        };
        asked && reason.aspect == aspect && reason.ours == ours
    })
}
