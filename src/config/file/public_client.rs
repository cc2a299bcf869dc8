//! `public_clients` of `[dns]`: devices of the house that ask from anywhere.

use std::path::PathBuf;

use crate::{
    config::{
        file::Table,
        problems::{About, At, Wrong},
        value::{self, Secret},
    },
    dns::ClientName,
    ingress::canonical::CanonicalHost,
};

/// An entry of `public_clients` as written.
pub(crate) struct PublicClient {
    pub(crate) about: About,
    pub(crate) name: At<ClientName>,
    pub(crate) shows: Shows,
}

/// What it is let in by.
pub(crate) enum Shows {
    /// The end of its path.
    Secret(At<Secret>),
    /// A certificate of this CA, at a host of its own.
    Certificate { host: At<CanonicalHost>, ca: At<PathBuf> },
}

const HINT: &str = "write { name = \"phone\", secret = \"file:/etc/hearthgate/phone-dns\" }, or \
                    { name = \"laptop\", host = \"away.home.example\", client_ca = \"laptop-ca.pem\" }";

impl PublicClient {
    pub(crate) fn read(table: &Table<'_>) -> Option<Self> {
        if !table.has("name") {
            table.missing("name", HINT);
        }
        let name = table.parsed("name", client);
        let secret = table.parsed("secret", value::secret);
        let (host, ca) = (table.parsed("host", value::host), table.string("client_ca"));
        let shows = match (table.has("secret"), table.has("host"), table.has("client_ca")) {
            (true, false, false) => Shows::Secret(secret?),
            (false, true, true) => Shows::Certificate { host: host?, ca: ca?.map(PathBuf::from) },
            _ => {
                let what = "the client is let in by a secret, or by a certificate at a host of its own";
                table.report.error(table.at, &table.about, what, HINT);
                return None;
            }
        };
        Some(Self { about: table.about.clone(), name: name?, shows })
    }
}

fn client(text: &str) -> Result<ClientName, Wrong> {
    let hint = "write letters, digits, \"-\" or \"_\": a group knows it as \"doh:NAME\"";
    ClientName::new(text).ok_or_else(|| Wrong::new(format!("\"{text}\" cannot be the name of a client"), hint))
}
