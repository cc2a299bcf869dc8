//! `[metrics]`: where figures may be read, and by whom.

use ipnet::IpNet;

use crate::config::{
    file::Table,
    problems::{About, At},
    value::{self, Listen},
};

/// `[metrics]` as written.
pub(crate) struct Metrics {
    pub(crate) about: About,
    pub(crate) listen: Vec<At<Listen>>,
    /// `None`: this box and the tunnel.
    pub(crate) allow: Option<Vec<At<IpNet>>>,
}

impl Metrics {
    pub(crate) fn read(table: &Table<'_>) -> Self {
        let listen = table.list("listen", value::listen);
        Self {
            about: table.about.clone(),
            listen: listen.unwrap_or_else(|| vec![At { value: Listen::Loopback(9153), at: table.at }]),
            allow: table.list("allow", value::network),
        }
    }
}
