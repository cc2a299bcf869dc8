//! `[ingress.acme]` as the ingress means it.

use crate::{
    config::{
        compile::{Setting, wan},
        file::{self, eab_key},
    },
    ingress::{Acme, AcmeDirectory, Challenge, Eab, HostPattern},
    provider::Provider,
};

/// Compiles one entry.
pub(super) fn compile(written: &file::Acme, wan: &file::Wan, setting: &Setting<'_>) -> Acme {
    let (report, about) = (setting.report, &written.about);
    for host in &written.hosts {
        if let (HostPattern::Wildcard(_), Challenge::Http01 | Challenge::TlsAlpn01) =
            (&host.value, &written.challenge.value)
        {
            let what = format!("a certificate for \"{}\" needs challenge = \"dns-01\"", host.value);
            report.error(host.at, about, what, "write the hosts one by one");
        }
    }
    let own = written.provider.as_ref().map(|provider| wan::provider(provider, about, setting));
    let provider = own.or_else(|| wan.provider.as_ref().map(|provider| wan::provider(provider, &wan.about, setting)));
    let is_dns = written.challenge.value == Challenge::Dns01;
    if is_dns && provider.is_none() {
        let hint = "name who holds the zone, as provider = { cloudflare = { token = \"file:…\" } } in [wan]";
        report.error(written.challenge.at, about, "challenge = \"dns-01\" needs a provider", hint);
    }
    if let (true, Some(Provider::Dyndns2(_))) = (is_dns, &provider) {
        let hint = "give this entry a provider of its own";
        report.error(written.challenge.at, about, "\"dyndns2\" keeps addresses, no challenges", hint);
    }
    if let (false, Some(provider)) = (is_dns, &written.provider) {
        report.error(provider.at, about, "only challenge = \"dns-01\" has a provider", "write that, or remove it");
    }
    let ca = written.ca.as_ref().map(|path| setting.file(path, about));
    let directory = |url: &String| AcmeDirectory { url: url.clone(), ca: ca.clone() };
    let eab = written.eab.as_ref().and_then(|eab| {
        let key = match eab_key(&setting.secret(&eab.key, about)?) {
            Ok(key) => key,
            Err(wrong) => {
                report.error(eab.key.at, about, wrong.what, wrong.hint);
                return None;
            }
        };
        Some(Eab { kid: eab.kid.clone(), key })
    });
    Acme {
        hosts: written.hosts.iter().map(|host| host.value.clone()).collect(),
        email: written.email.clone(),
        directories: written.directories.iter().map(|one| directory(&one.value)).collect(),
        challenge: written.challenge.value,
        provider: provider.filter(|_| is_dns),
        profile: written.profile.clone(),
        eab,
    }
}
