//! Why hearthgate is right where it differs from the majority of the others.

use super::{questions::Question, verdict::Aspect};

/// A difference that is meant.
pub(super) struct Reason {
    /// The zone or name, with all below it.
    under: &'static str,
    /// In what it differs.
    aspect: Aspect,
    /// What hearthgate says; an empty text stands for no answers, `*` for any.
    ours: &'static str,
    /// The rule.
    _why: &'static str,
}

const REASONS: &[Reason] = &[];

/// Returns the reason why this difference is meant.
pub(super) fn find(question: &Question, aspect: Aspect, ours: &str) -> Option<&'static Reason> {
    REASONS.iter().find(|reason| {
        let under = question.name == reason.under || question.name.ends_with(&format!(".{}", reason.under));
        under && reason.aspect == aspect && (reason.ours == "*" || reason.ours == ours)
    })
}
