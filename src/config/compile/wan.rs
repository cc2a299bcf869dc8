//! `[wan]` as it is meant.

use crate::{
    config::{
        compile::Setting,
        file,
        problems::{About, At},
    },
    provider::{AcmeDns, Cloudflare, Desec, Hetzner, Provider, Rfc2136, Token},
};

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
        file::Provider::AcmeDns { url, username, password, subdomain } => Provider::AcmeDns(AcmeDns {
            url: url.clone(),
            username: username.clone(),
            password: token(password),
            subdomain: subdomain.clone(),
        }),
        file::Provider::Program(path) => Provider::Program(setting.file(path, about)),
    }
}
