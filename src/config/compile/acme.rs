//! `[ingress.acme]` as the ingress means it.

use crate::{
    config::{
        compile::Setting,
        file::{self, eab_key},
    },
    ingress::{Acme, AcmeDirectory, Challenge, Eab, HostPattern},
};

/// Compiles one entry.
pub(super) fn compile(written: &file::Acme, setting: &Setting<'_>) -> Acme {
    let (report, about) = (setting.report, &written.about);
    for host in &written.hosts {
        if let (HostPattern::Wildcard(_), Challenge::Http01 | Challenge::TlsAlpn01) =
            (&host.value, &written.challenge.value)
        {
            let what = format!("a certificate for \"{}\" needs challenge = \"dns-01\"", host.value);
            report.error(host.at, about, what, "write the hosts one by one");
        }
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
        profile: written.profile.clone(),
        eab,
    }
}
