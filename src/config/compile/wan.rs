//! `[wan]` as it is meant.

use crate::{
    config::{
        compile::Setting,
        file,
        problems::{About, At},
    },
    provider::{AcmeDns, Cloudflare, Desec, Dyndns2, Hetzner, Provider, Rfc2136, Token},
    wan,
};

/// Compiles what is kept at the address of this box.
pub(super) fn compile(wan: &file::Wan, setting: &Setting<'_>) -> Option<wan::Config> {
    let first = wan.names.first()?;
    let report = setting.report;
    let Some(written) = &wan.provider else {
        let hint = "name who holds the zone, as provider = { cloudflare = { token = \"file:…\" } }";
        report.error(first.at, &wan.about, "\"names\" needs a provider", hint);
        return None;
    };
    if let file::Provider::AcmeDns { .. } | file::Provider::Program(_) = written.value {
        let hint = "write one that does, or \"dyndns2\", and give ingress.acme a provider of its own";
        report.error(written.at, &wan.about, "this provider keeps challenges, no addresses", hint);
    }
    Some(wan::Config {
        names: wan.names.iter().map(|name| name.value.clone()).collect(),
        provider: provider(written, &wan.about, setting),
        address: wan.address.unwrap_or(wan::Source::Auto),
    })
}

/// Compiles a provider. Secrets of files that are not looked at are empty.
pub(super) fn provider(written: &At<file::Provider>, about: &About, setting: &Setting<'_>) -> Provider {
    let token = |secret| Token(setting.secret(secret, about).unwrap_or_default());
    match &written.value {
        file::Provider::Cloudflare(secret) => Provider::Cloudflare(Cloudflare::new(token(secret))),
        file::Provider::Desec(secret) => Provider::Desec(Desec::new(token(secret))),
        file::Provider::Hetzner(secret) => Provider::Hetzner(Hetzner::new(token(secret))),
        file::Provider::Rfc2136 { server, key_name, key, algorithm } => Provider::Rfc2136(Rfc2136 {
            server: *server,
            key_name: key_name.clone(),
            key: token(key),
            algorithm: *algorithm,
        }),
        file::Provider::Dyndns2 { url, username, password } => {
            Provider::Dyndns2(Dyndns2 { url: url.clone(), username: username.clone(), password: token(password) })
        }
        file::Provider::AcmeDns { url, username, password, subdomain } => Provider::AcmeDns(AcmeDns {
            url: url.clone(),
            username: username.clone(),
            password: token(password),
            subdomain: subdomain.clone(),
        }),
        file::Provider::Program(path) => Provider::Program(setting.file(path, about)),
    }
}
