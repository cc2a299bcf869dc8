//! `public_clients` of `[dns]` as the ingress means it: routes to the DNS server that the Internet may use.

use crate::{
    config::{
        compile::Setting,
        file::{Dns, Shows},
    },
    ingress::{HostPattern, Route, Rules, Target, canonical::CanonicalPath, doh::PATH},
    origin::Access,
};

/// So long is a secret that nobody guesses: 128 bits in the densest alphabet that a path has.
const SHORTEST: usize = 22;
const LONGEST: usize = 128;

/// Adds the routes of public clients.
pub(super) fn add_routes(dns: &Dns, routes: &mut Vec<Route>, setting: &Setting<'_>) {
    let report = setting.report;
    let mut names = Vec::new();
    for client in &dns.public_clients {
        let about = &client.about;
        if names.contains(&client.name.value) {
            let what = format!("there is another public client \"{}\"", client.name.value.as_str());
            report.error(client.name.at, about, what, "give each a name of its own");
        }
        names.push(client.name.value);
        let Some(doh) = &dns.doh else {
            let hint = "write doh = { host = \"dns.home.example\", access = [\"lan\"] }: they ask over HTTPS";
            report.error(client.name.at, about, "there is no dns.doh to ask", hint);
            continue;
        };
        let (host, path, at) = match &client.shows {
            Shows::Secret(written) => {
                let Some(secret) = setting.secret(written, about) else { continue };
                let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
                if !(SHORTEST..=LONGEST).contains(&secret.len()) || !secret.chars().all(fits) {
                    let what = "the secret cannot stand in a path, or could be guessed";
                    let hint = format!(
                        "write {SHORTEST} to {LONGEST} letters, digits, \"-\" or \"_\" by chance, as \
                         `openssl rand -hex 16` makes them"
                    );
                    report.error(written.at, about, what, hint);
                    continue;
                }
                (&doh.host.value, format!("{PATH}/{secret}"), written.at)
            }
            Shows::Certificate { host, .. } => {
                if host.value == doh.host.value {
                    let what = "the host is that of dns.doh, whose clients in the house show no certificates";
                    report.error(host.at, about, what, "give these clients a host of their own");
                }
                (&host.value, PATH.to_owned(), host.at)
            }
        };
        let path = CanonicalPath::parse(&path).expect("letters and digits are canonical");
        let host = HostPattern::Exact(host.clone());
        if routes.iter().any(|route| route.host == host && route.path == path) {
            let what = "another client or route has the same host and path";
            report.error(at, about, what, "give each its own secret or host");
            continue;
        }
        routes.push(Route {
            // Secrets stand neither in logs nor in metrics.
            name: format!("{host}{PATH} (public client {})", client.name.value.as_str()),
            host,
            to: Target::DnsOf { device: client.name.value.as_str().into(), path: path.clone() },
            path,
            access: Access { public: true, ..Access::default() },
            log: false,
            rules: Rules::default(),
        });
    }
}
