//! `[[user]]`: people, what they may change, and which peers are theirs.

use crate::{
    config::{
        file::Table,
        problems::{About, At},
        value,
    },
    origin::Role,
};

/// `[[user]]` as written.
pub(crate) struct User {
    pub(crate) about: About,
    pub(crate) name: At<String>,
    pub(crate) role: Role,
    pub(crate) peers: Vec<At<String>>,
}

impl User {
    pub(crate) fn read(table: &Table<'_>) -> Option<Self> {
        if !table.has("name") {
            table.missing("name", "name the person, as name = \"alice\"");
        }
        if !table.has("role") {
            table.missing("role", "write \"viewer\", \"operator\" or \"owner\"");
        }
        let (name, role) = (table.parsed("name", value::label), table.word("role", &Role::ALL));
        let peers = table.list("peers", value::label).unwrap_or_default();
        Some(Self { about: table.about.clone(), name: name?, role: role?.value, peers })
    }
}
