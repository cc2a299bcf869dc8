//! `[[dns.rule]]` and `[[dns.pause]]`: rules that stand by themselves, and times without filtering. Mostly
//! commands write them.

use hickory_proto::rr::Name;

use crate::{
    config::{
        file::{DeviceWord, Table, dns::device},
        problems::{About, At},
        value,
    },
    dns::Action,
};

/// `[[dns.rule]]` as written.
pub(crate) struct Rule {
    pub(crate) about: About,
    pub(crate) names: Vec<Name>,
    pub(crate) action: Action,
    pub(crate) group: Option<At<String>>,
    /// Seconds since 1970.
    pub(crate) until: Option<u64>,
}

/// `[[dns.pause]]` as written.
pub(crate) struct Pause {
    pub(crate) about: About,
    pub(crate) group: Option<At<String>>,
    pub(crate) device: Option<At<DeviceWord>>,
    /// Seconds since 1970.
    pub(crate) until: u64,
}

impl Rule {
    pub(crate) fn read(table: &Table<'_>) -> Option<Self> {
        let action = table.word("action", &[("block", Action::Block), ("allow", Action::Allow)]);
        let names = table.list("names", value::name);
        for key in ["names", "action"].into_iter().filter(|key| !table.has(key)) {
            table.missing(key, "write names = [\"shop.example\"] and action = \"allow\" or \"block\"");
        }
        Some(Self {
            about: table.about.clone(),
            group: table.parsed("group", value::label),
            until: table.parsed("until", value::moment).map(|until| until.value),
            names: names?.into_iter().map(|name| name.value).collect(),
            action: action?.value,
        })
    }
}

impl Pause {
    pub(crate) fn read(table: &Table<'_>) -> Option<Self> {
        let (group, device) = (table.parsed("group", value::label), table.parsed("device", device));
        if let (Some(_), Some(device)) = (&group, &device) {
            let hint = "make two pauses of it";
            table.report.error(device.at, &table.about, "a pause has a group or a device, not both", hint);
        }
        if !table.has("until") {
            table.missing("until", "say when it ends, as until = \"2026-12-31T18:00:00Z\"");
        }
        let until = table.parsed("until", value::moment)?.value;
        Some(Self { about: table.about.clone(), group, device, until })
    }
}
