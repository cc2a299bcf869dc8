//! `[lan]` and `[[lan.network]]`: who is at home.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{
    file::Table,
    problems::{About, At},
    value,
};

/// `[lan]` as written.
pub(crate) struct Lan {
    pub(crate) interfaces: Vec<At<String>>,
    pub(crate) subnets: Vec<At<IpNet>>,
    pub(crate) this_box: Vec<At<IpAddr>>,
    pub(crate) relays: Vec<At<IpAddr>>,
    pub(crate) networks: Vec<Network>,
    pub(crate) announce: Option<At<bool>>,
}

/// `[[lan.network]]` as written.
pub(crate) struct Network {
    pub(crate) about: About,
    pub(crate) name: At<String>,
    pub(crate) subnets: Vec<At<IpNet>>,
}

impl Lan {
    pub(crate) fn read(table: Option<Table<'_>>) -> Self {
        let Some(table) = table else {
            return Self {
                interfaces: Vec::new(),
                subnets: Vec::new(),
                this_box: Vec::new(),
                relays: Vec::new(),
                networks: Vec::new(),
                announce: None,
            };
        };
        Self {
            interfaces: table.list("interfaces", |text| Ok(text.to_owned())).unwrap_or_default(),
            subnets: table.list("subnets", value::network).unwrap_or_default(),
            this_box: table.list("this_box", value::address).unwrap_or_default(),
            relays: table.list("relays", value::address).unwrap_or_default(),
            networks: table.tables("network", "lan.network").iter().filter_map(Network::read).collect(),
            announce: table.boolean("announce"),
        }
    }
}

impl Network {
    fn read(table: &Table<'_>) -> Option<Self> {
        if !table.has("name") {
            table.missing("name", "name the network, as name = \"iot\"");
        }
        let subnets = table.list("subnets", value::network);
        if subnets.is_none() {
            table.missing("subnets", "say which addresses it has, as subnets = [\"192.168.30.0/24\"]");
        }
        let name = table.parsed("name", value::label)?;
        Some(Self { about: table.about.clone(), name, subnets: subnets.unwrap_or_default() })
    }
}
