//! Which certificate each host gets, decided from the configuration alone.
//!
//! Certificate logs publish every name of an order. So a host without public access never stands in one under
//! its own name, and never takes a challenge that is answered on a public port: it gets a wildcard by DNS-01
//! whose base is no secret, else a leaf of the house's own CA. Its key is never the one that WAN is shown.

use std::{collections::BTreeMap, fmt};

use crate::{
    ingress::{Acme, CertificateFiles, Challenge, Config, HostPattern, Route, Target, ca, canonical::CanonicalHost},
    origin::Origin,
};

/// Where the certificate of a host comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Means {
    /// From files: this entry of `ingress.certificates`.
    Files(usize),
    /// From a public CA.
    Order(Order),
    /// From the house's own CA.
    HouseCa,
    /// From nowhere: the house's CA may not sign for it, and nothing else is written.
    Nothing,
}

/// An order of one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order {
    /// The name: what certificate logs publish.
    pub name: HostPattern,
    /// Who is shown the certificate.
    pub side: Side,
    /// The entry of `ingress.acme`.
    pub acme: usize,
}

/// Who is shown a certificate. The sides never share a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Everybody.
    Public,
    /// Nobody from WAN.
    Inside,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.side {
            Side::Public => write!(f, "{}", self.name),
            Side::Inside => write!(f, "{} (inside)", self.name),
        }
    }
}

/// Returns the means of every host that a route names.
pub fn plan(config: &Config) -> BTreeMap<HostPattern, Means> {
    let plan = Plan { domain: &config.domain, routes: &config.routes, files: &config.certificates, acme: &config.acme };
    // Who is passed through has a certificate of his own.
    let passed = |host: &HostPattern| {
        config.routes.iter().any(|route| route.host == *host && matches!(route.to, Target::Passthrough(_)))
    };
    let hosts = config.routes.iter().map(|route| &route.host);
    let hosts = hosts.filter(|host| **host != HostPattern::Any && !passed(host));
    let mut means: BTreeMap<HostPattern, Means> = hosts.map(|host| (host.clone(), plan.means(host))).collect();
    // Names of devices may be missing in the DNS server's certificate: then its own name must do.
    if let Some(host) = &config.dns_host
        && let Some(own) = means.get(&HostPattern::Exact(host.clone())).cloned()
        && let Some(below @ Means::Nothing) = means.get_mut(&HostPattern::Wildcard(host.clone()))
    {
        *below = own;
    }
    means
}

struct Plan<'a> {
    domain: &'a CanonicalHost,
    routes: &'a [Route],
    files: &'a [CertificateFiles],
    acme: &'a [Acme],
}

impl Plan<'_> {
    fn means(&self, host: &HostPattern) -> Means {
        let covers = |files: &CertificateFiles| files.hosts.iter().any(|own| own.covers(host));
        if let Some(entry) = self.files.iter().position(covers) {
            return Means::Files(entry);
        }
        if let Some(order) = self.order(host) {
            return Means::Order(order);
        }
        if ca::may_sign(self.domain, host) { Means::HouseCa } else { Means::Nothing }
    }

    fn order(&self, host: &HostPattern) -> Option<Order> {
        let named = self.acme.iter().position(|entry| entry.hosts.iter().any(|own| own.covers(host)));
        let acme = named.or_else(|| self.acme.iter().position(|entry| entry.hosts.is_empty()))?;
        let entry = &self.acme[acme];
        if is_special(host) && entry.directories.iter().all(|directory| directory.ca.is_none()) {
            return None;
        }
        let side = if self.is_public(host) { Side::Public } else { Side::Inside };
        let name = match (&entry.challenge, side, host) {
            (Challenge::Dns01, Side::Public, HostPattern::Exact(name)) => {
                self.base(entry, name).map_or_else(|| host.clone(), HostPattern::Wildcard)
            }
            (Challenge::Dns01, Side::Public, HostPattern::Wildcard(_))
            | (Challenge::Http01 | Challenge::TlsAlpn01, Side::Public, HostPattern::Exact(_)) => host.clone(),
            (Challenge::Dns01, Side::Inside, HostPattern::Exact(name)) => {
                HostPattern::Wildcard(self.base(entry, name)?)
            }
            (Challenge::Dns01, Side::Inside, HostPattern::Wildcard(base)) if base == self.domain => host.clone(),
            _ => return None,
        };
        Some(Order { name, side, acme })
    }

    /// Returns what stands above a host, if a wildcard below it says no more than everybody knows.
    fn base(&self, entry: &Acme, host: &CanonicalHost) -> Option<CanonicalHost> {
        let (_, base) = host.as_str().split_once('.')?;
        if host == self.domain {
            return None;
        }
        let base = CanonicalHost::parse(base).ok()?;
        let wildcard = HostPattern::Wildcard(base.clone());
        let below = || self.routes.iter().any(|route| route.access.admits(Origin::Wan) && wildcard.covers(&route.host));
        let written = entry.hosts.contains(&wildcard);
        let secret = || {
            let exact = HostPattern::Exact(base.clone());
            let named = |pattern: &HostPattern| self.routes.iter().any(|route| route.host == *pattern);
            [&exact, &wildcard].iter().any(|pattern| named(pattern) && !self.is_public(pattern))
        };
        let known = base == *self.domain || written || (ca::may_sign(self.domain, &wildcard) && below() && !secret());
        known.then_some(base)
    }

    fn is_public(&self, host: &HostPattern) -> bool {
        self.routes.iter().any(|route| route.host == *host && route.access.admits(Origin::Wan))
    }
}

impl HostPattern {
    /// Says whether a certificate for this holds for the host of a route.
    pub fn covers(&self, host: &Self) -> bool {
        match (self, host) {
            (Self::Wildcard(base), Self::Exact(host)) => {
                host.as_str().split_once('.').is_some_and(|(_, above)| above == base.as_str())
            }
            _ => self == host,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => write!(f, "{host}"),
            Self::Wildcard(base) => write!(f, "*.{base}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// Names that no public CA signs: RFC 6761, RFC 6762, RFC 8375, and `internal`.
fn is_special(host: &HostPattern) -> bool {
    let (HostPattern::Exact(name) | HostPattern::Wildcard(name)) = host else { return true };
    let name = name.as_str();
    let below = |zone: &str| name.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    !name.contains('.')
        || name.starts_with('[')
        || name.parse::<std::net::Ipv4Addr>().is_ok()
        || ["home.arpa", "local", "localhost", "internal", "lan", "test", "invalid", "onion"]
            .iter()
            .any(|zone| below(zone))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ingress::{AcmeDirectory, Builtin, canonical::CanonicalPath},
        origin::Access,
    };

    fn name_of(host: &HostPattern) -> &CanonicalHost {
        match host {
            HostPattern::Exact(name) | HostPattern::Wildcard(name) => name,
            HostPattern::Any => panic!("no route of these tests is for any host"),
        }
    }

    fn host(text: &str) -> HostPattern {
        let name = |text: &str| CanonicalHost::parse(text).unwrap();
        match text.strip_prefix("*.") {
            Some(base) => HostPattern::Wildcard(name(base)),
            None => HostPattern::Exact(name(text)),
        }
    }

    fn route(text: &str, public: bool) -> Route {
        Route {
            name: text.into(),
            host: host(text),
            path: CanonicalPath::parse("/").unwrap(),
            access: Access { public, vpn: true, ..Access::default() },
            to: Target::Builtin(Builtin::Welcome),
            log: false,
            rules: crate::ingress::Rules::default(),
        }
    }

    fn acme(challenge: Challenge, hosts: &[&str]) -> Acme {
        Acme {
            hosts: hosts.iter().map(|text| host(text)).collect(),
            email: None,
            directories: vec![AcmeDirectory { url: "https://ca.example/directory".into(), ca: None }],
            challenge,
            profile: None,
            provider: None,
            eab: None,
        }
    }

    fn planned(routes: &[(&str, bool)], acme: &[Acme]) -> BTreeMap<String, String> {
        let routes: Vec<Route> = routes.iter().map(|(host, public)| route(host, *public)).collect();
        let domain = CanonicalHost::parse("home.example").unwrap();
        let plan = Plan { domain: &domain, routes: &routes, files: &[], acme };
        let says = |means: Means| match means {
            Means::Order(order) => order.to_string(),
            other => format!("{other:?}"),
        };
        routes.iter().map(|route| (route.host.to_string(), says(plan.means(&route.host)))).collect()
    }

    #[test]
    fn what_is_answered_on_a_public_port_is_for_public_hosts_only() {
        for challenge in [Challenge::Http01, Challenge::TlsAlpn01] {
            let plan = planned(
                &[
                    ("home.example", true),
                    ("www.home.example", true),
                    ("*.any.home.example", true),
                    ("admin.home.example", false),
                    ("admin.elsewhere.example", false),
                ],
                &[acme(challenge, &[])],
            );

            assert_eq!(plan["home.example"], "home.example");
            assert_eq!(plan["www.home.example"], "www.home.example");
            assert_eq!(plan["*.any.home.example"], "HouseCa");
            assert_eq!(plan["admin.home.example"], "HouseCa");
            assert_eq!(plan["admin.elsewhere.example"], "Nothing");
        }
    }

    #[test]
    fn a_wildcard_serves_both_sides_with_a_certificate_each() {
        let plan = planned(
            &[
                ("home.example", true),
                ("photos.home.example", true),
                ("admin.home.example", false),
                ("nas.lab.home.example", false),
                ("www.other.example", true),
            ],
            &[acme(Challenge::Dns01, &[])],
        );

        assert_eq!(plan["home.example"], "home.example");
        assert_eq!(plan["photos.home.example"], "*.home.example");
        assert_eq!(plan["admin.home.example"], "*.home.example (inside)");
        assert_eq!(plan["nas.lab.home.example"], "HouseCa", "\"lab\" is a name, too");
        assert_eq!(plan["www.other.example"], "www.other.example");
    }

    #[test]
    fn an_owner_may_name_the_wildcard() {
        let plan = planned(&[("nas.lab.home.example", false)], &[acme(Challenge::Dns01, &["*.lab.home.example"])]);

        assert_eq!(plan["nas.lab.home.example"], "*.lab.home.example (inside)");
    }

    #[test]
    fn names_that_no_public_ca_signs_stay_with_the_house() {
        let plan = planned(&[("www.home.arpa", true), ("nas.local", true)], &[acme(Challenge::Http01, &[])]);

        assert_eq!(plan["www.home.arpa"], "Nothing");
        assert_eq!(plan["nas.local"], "Nothing");
        let mut private = acme(Challenge::Http01, &[]);
        private.directories[0].ca = Some("root.pem".into());
        assert_eq!(planned(&[("www.home.arpa", true)], &[private])["www.home.arpa"], "www.home.arpa");
    }

    proptest! {
        #[test]
        fn no_name_without_public_access_is_ever_in_an_order(
            hosts in prop::collection::vec(
                (r"(\*\.)?([abc]\.){0,3}(home\.example|other\.example|home\.arpa)", any::<bool>()), 1..12),
            challenges in prop::collection::vec(0..3_usize, 1..3),
        ) {
            let routes: Vec<Route> = hosts.iter().map(|(text, public)| route(text, *public)).collect();
            let domain = CanonicalHost::parse("home.example").unwrap();
            let kinds = [Challenge::Http01, Challenge::TlsAlpn01, Challenge::Dns01];
            let acme: Vec<Acme> = challenges.iter().map(|kind| acme(kinds[*kind], &[])).collect();
            let plan = Plan { domain: &domain, routes: &routes, files: &[], acme: &acme };
            let is_public = |host: &HostPattern| routes.iter().any(|route| route.host == *host && route.access.public);

            let orders: Vec<(HostPattern, Order)> = routes.iter().filter_map(|route| match plan.means(&route.host) {
                Means::Order(order) => Some((route.host.clone(), order)),
                _ => None,
            }).collect();

            for (host, order) in &orders {
                prop_assert_eq!(order.side == Side::Public, is_public(host), "{} {}", host, order);
                prop_assert!(order.name.covers(host), "{} {}", host, order);
                if !is_public(host) {
                    prop_assert_eq!(&acme[order.acme].challenge, &Challenge::Dns01);
                }
                // The domain itself is the owner's to publish; what is below it is not.
                for secret in routes.iter().map(|route| &route.host).filter(|host| !is_public(host)) {
                    let name = name_of(secret);
                    let said = name_of(&order.name);
                    let told = said.as_str().strip_suffix(name.as_str());
                    let tells = told.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
                    let by_a_public_host = routes.iter().any(|route| {
                        let host = name_of(&route.host);
                        route.access.public && host == said
                    });
                    prop_assert!(!tells || *name == domain || by_a_public_host || is_below_a_public(&routes, name, said),
                        "{} tells of {}", order, secret);
                }
            }
        }
    }

    /// Whether a public host has this base in its own name, so that the base is told by it already.
    fn is_below_a_public(routes: &[Route], name: &CanonicalHost, said: &CanonicalHost) -> bool {
        said != name
            && routes.iter().any(|route| {
                let host = name_of(&route.host);
                route.access.public && host.as_str().ends_with(&format!(".{said}"))
            })
    }
}
