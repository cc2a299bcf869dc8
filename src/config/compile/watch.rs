//! What is watched: routes with servers behind them, and each `[[check]]`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;

use crate::{
    config::{
        compile::ingress::name_of,
        file::{self, EVERY, File, RULE, TIMEOUT},
        problems::{Report, nearest},
    },
    ingress::{self, Target, UpstreamHost},
    watch::{Check, Config, Kind, Place},
    week::Spans,
};

/// Compiles what is watched; nothing where there is neither an ingress nor a check.
pub(crate) fn compile(
    file: &File,
    ingress: Option<&ingress::Config>,
    timezone: TimeZone,
    report: &Report,
) -> Option<Config> {
    let mut checks = ingress.map(|ingress| routes(file, ingress)).unwrap_or_default();
    let mut taken: BTreeSet<String> = checks.iter().map(|check| check.name.clone()).collect();
    for written in &file.checks {
        if !taken.insert(written.name.value.clone()) {
            let what = "this name is given to two things that are watched";
            report.error(
                written.name.at,
                &written.about,
                what,
                "give each check a name of its own, which is no route's",
            );
            continue;
        }
        checks.push(own(written));
    }
    let parents: BTreeMap<&str, &str> =
        checks.iter().filter_map(|check| Some((check.name.as_str(), check.parent.as_deref()?))).collect();
    for written in &file.checks {
        let Some(parent) = &written.parent else { continue };
        if !taken.contains(&parent.value) {
            if report.has_errors() {
                // It may be one that could not be read.
                continue;
            }
            let hint = match nearest(&parent.value, taken.iter().map(String::as_str)) {
                Some(known) => format!("did you mean \"{known}\"?"),
                None => "name another [[check]], or a route by its host and path".to_owned(),
            };
            report.error(parent.at, &written.about, format!("there is no check \"{}\"", parent.value), hint);
        } else if is_own_parent(&written.name.value, &parents) {
            let what = format!("\"{}\" hangs on itself", written.name.value);
            report.error(parent.at, &written.about, what, "remove one of the parents");
        }
    }
    (ingress.is_some() || !checks.is_empty()).then_some(Config { checks, timezone })
}

fn is_own_parent(name: &str, parents: &BTreeMap<&str, &str>) -> bool {
    let mut at = name;
    for _ in 0..parents.len() {
        match parents.get(at) {
            Some(parent) if *parent == name => return true,
            Some(parent) => at = parent,
            None => return false,
        }
    }
    false
}

/// Routes are watched without being written, unless they say otherwise.
fn routes(file: &File, ingress: &ingress::Config) -> Vec<Check> {
    let mut seen = BTreeSet::new();
    let watched = file.routes.iter().filter(|route| route.watched);
    let names = watched.flat_map(|route| route.hosts.iter().map(|host| name_of(route, &host.value)));
    let names: Vec<String> = names.filter(|name| seen.insert(name.clone())).collect();
    let of = |name: String| {
        let route = ingress.routes.iter().find(|route| route.name == name)?;
        let (Target::Upstreams(upstreams) | Target::Passthrough(upstreams)) = &route.to else { return None };
        let places = upstreams.iter().chain(&route.rules.backup).map(|upstream| match &upstream.host {
            UpstreamHost::Name(host) => Place::Tcp(host.clone(), upstream.port),
            UpstreamHost::Address(address) => Place::Tcp(address.to_string(), upstream.port),
            UpstreamHost::Unix(path) => Place::Unix(path.clone()),
        });
        Some(Check {
            kind: Kind::Route(places.collect()),
            name,
            every: EVERY,
            timeout: TIMEOUT,
            rule: RULE,
            parent: None,
            anchor: false,
            maintenance: Spans::default(),
        })
    };
    names.into_iter().filter_map(of).collect()
}

fn own(written: &file::Check) -> Check {
    Check {
        name: written.name.value.clone(),
        kind: written.kind.clone(),
        every: written.every,
        timeout: written.timeout,
        rule: written.rule,
        parent: written.parent.as_ref().map(|parent| parent.value.clone()),
        anchor: written.anchor,
        maintenance: written.maintenance.clone(),
    }
}
