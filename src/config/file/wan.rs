//! `[wan]`: the owner's public zones, and who holds them.

use std::{net::SocketAddr, path::PathBuf};

use hickory_proto::rr::Name;

use crate::{
    config::{
        file::Table,
        problems::{About, At, Wrong},
        value::{self, Secret},
    },
    provider::Algorithm,
    wan::Source,
};

/// `[wan]` as written.
#[derive(Default)]
pub(crate) struct Wan {
    pub(crate) about: About,
    pub(crate) names: Vec<At<Name>>,
    pub(crate) address: Option<Source>,
    pub(crate) provider: Option<At<Provider>>,
}

/// `provider` as written.
#[derive(Clone)]
pub(crate) enum Provider {
    Cloudflare(At<Secret>),
    Desec(At<Secret>),
    Hetzner(At<Secret>),
    Rfc2136 { server: SocketAddr, key_name: Name, key: At<Secret>, algorithm: Algorithm },
    Dyndns2 { url: String, username: String, password: At<Secret> },
    AcmeDns { url: String, username: String, password: At<Secret>, subdomain: String },
    Program(At<PathBuf>),
}

const ALGORITHMS: [(&str, Algorithm); 3] =
    [("hmac-sha256", Algorithm::Sha256), ("hmac-sha384", Algorithm::Sha384), ("hmac-sha512", Algorithm::Sha512)];

const SOURCES: [(&str, Source); 4] = [
    ("auto", Source::Auto),
    ("interface", Source::Interface),
    ("router", Source::Router),
    ("services", Source::Services),
];

impl Wan {
    pub(crate) fn read(table: &Table<'_>) -> Self {
        Self {
            about: table.about.clone(),
            names: table.list("names", value::name).unwrap_or_default(),
            address: table.word("address", &SOURCES).map(|word| word.value),
            provider: Provider::read(table),
        }
    }
}

impl Provider {
    /// Reads the `provider` of a section.
    pub(crate) fn read(section: &Table<'_>) -> Option<At<Self>> {
        let table = section.table("provider", "wan.provider")?;
        let kinds = ["cloudflare", "desec", "hetzner", "rfc2136", "acme-dns", "dyndns2", "program"];
        let written: Vec<_> = kinds.into_iter().filter(|kind| table.has(kind)).collect();
        let [kind] = written[..] else {
            let hint = "write one, as provider = { cloudflare = { token = \"file:/etc/hearthgate/dns-token\" } }";
            table.report.error(table.at, &table.about, "\"provider\" must name one provider", hint);
            return None;
        };
        let provider = match kind {
            "cloudflare" => Self::Cloudflare(token(&table.table(kind, "wan.provider.cloudflare")?)?),
            "desec" => Self::Desec(token(&table.table(kind, "wan.provider.desec")?)?),
            "hetzner" => Self::Hetzner(token(&table.table(kind, "wan.provider.hetzner")?)?),
            "rfc2136" => rfc2136(&table.table(kind, "wan.provider.rfc2136")?)?,
            "acme-dns" => acme_dns(&table.table(kind, "wan.provider.acme-dns")?)?,
            "dyndns2" => dyndns2(&table.table(kind, "wan.provider.dyndns2")?)?,
            _ => Self::Program(table.parsed(kind, value::program)?),
        };
        Some(At { value: provider, at: table.at })
    }
}

fn needed(table: &Table<'_>, keys: &[&'static str], hint: &str) {
    for key in keys.iter().filter(|key| !table.has(key)) {
        table.missing(key, hint);
    }
}

fn token(table: &Table<'_>) -> Option<At<Secret>> {
    needed(table, &["token"], "write token = \"file:/etc/hearthgate/dns-token\"");
    table.parsed("token", value::secret)
}

fn rfc2136(table: &Table<'_>) -> Option<Provider> {
    needed(
        table,
        &["server", "key_name", "key"],
        "write { server = \"192.0.2.53\", key_name = \"house\", key = \"file:/etc/hearthgate/tsig\" }",
    );
    let server = table.parsed("server", server);
    let key_name = table.parsed("key_name", value::name);
    let key = table.parsed("key", value::secret);
    let algorithm = table.word("algorithm", &ALGORITHMS).map_or(Algorithm::Sha256, |word| word.value);
    Some(Provider::Rfc2136 { server: server?.value, key_name: key_name?.value, key: key?, algorithm })
}

fn acme_dns(table: &Table<'_>) -> Option<Provider> {
    let keys = ["url", "username", "password", "subdomain"];
    needed(table, &keys, "write what the registration at the server answered");
    let (url, username) = (table.parsed("url", url), table.string("username"));
    let (password, subdomain) = (table.parsed("password", value::secret), table.string("subdomain"));
    Some(Provider::AcmeDns {
        url: url?.value,
        username: username?.value,
        password: password?,
        subdomain: subdomain?.value,
    })
}

fn dyndns2(table: &Table<'_>) -> Option<Provider> {
    let hint = "write url = \"https://dyn.example/nic/update?hostname={name}&myip={ip}\", username and password";
    needed(table, &["url", "username", "password"], hint);
    let (url, username) = (table.parsed("url", template), table.string("username"));
    let password = table.parsed("password", value::secret);
    Some(Provider::Dyndns2 { url: url?.value, username: username?.value, password: password? })
}

fn template(text: &str) -> Result<String, Wrong> {
    let filled = text.replace("{name}", "home.example").replace("{ip}", "192.0.2.1");
    if filled == text || filled.contains(['{', '}']) {
        let hint = "write {name} and {ip} where the name and the address belong";
        return Err(Wrong::new(format!("\"{text}\" has no place for an address"), hint));
    }
    url(&filled).map(|_| text.to_owned())
}

fn server(text: &str) -> Result<SocketAddr, Wrong> {
    if let Ok(server) = text.parse() {
        return Ok(server);
    }
    value::address(text).map(|address| (address, 53).into())
}

fn url(text: &str) -> Result<String, Wrong> {
    let url: Option<hyper::Uri> = text.parse().ok();
    match url.as_ref().and_then(|url| url.host().and(url.scheme_str())) {
        Some("http" | "https") => Ok(text.to_owned()),
        _ => Err(Wrong::new(
            format!("\"{text}\" is no URL"),
            "write it with its scheme, as \"https://auth.acme-dns.io\"",
        )),
    }
}
