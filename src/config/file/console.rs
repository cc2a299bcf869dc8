//! `[console]`: where its pages are, and how far they may change things.

use crate::{
    config::{
        file::Table,
        problems::{About, At},
        value,
    },
    console::Edits,
    ingress::canonical::CanonicalHost,
};

/// `[console]` as written.
pub(crate) struct Console {
    pub(crate) about: About,
    /// Inside the tunnel; nothing is the control socket alone.
    pub(crate) host: Option<At<CanonicalHost>>,
    pub(crate) edits: Edits,
}

impl Console {
    pub(crate) fn read(table: &Table<'_>) -> Self {
        let words = [("all", Edits::All), ("runtime", Edits::Runtime), ("none", Edits::None)];
        Self {
            about: table.about.clone(),
            host: table.parsed("host", value::host),
            edits: table.word("edits", &words).map_or(Edits::All, |edits| edits.value),
        }
    }
}
