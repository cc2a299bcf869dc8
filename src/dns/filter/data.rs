//! What the program knows of the world outside: services and their domains, search engines that can be made to
//! answer for children, servers that lead past the house, and names by which systems find out that they are online.

use std::{collections::HashMap, sync::Arc};

use super::name::WireName;

const SERVICES: &str = include_str!("data/services.txt");
const SAFE_SEARCH: &str = include_str!("data/safe_search.txt");
const ENCRYPTED_SERVERS: &str = include_str!("data/encrypted_servers.txt");
const CONNECTIVITY: &str = include_str!("data/connectivity.txt");

/// Names that say whether a device may ask past the house: Mozilla's
/// canary, and the names of Apple's relay and of its servers. Only NXDOMAIN means no.
const CANARIES: [&str; 4] = ["use-application-dns.net", "mask.icloud.com", "mask-h2.icloud.com", "doh.dns.apple.com"];

/// Returns the services that can be blocked as a whole.
pub fn services() -> impl Iterator<Item = &'static str> + Clone {
    entries(SERVICES).map(|(name, _)| name)
}

/// Returns the domains of a service.
pub(super) fn domains_of(service: &str) -> impl Iterator<Item = &'static str> {
    entries(SERVICES).find(|(name, _)| *name == service).into_iter().flat_map(|(_, rest)| words(rest))
}

/// Returns the words that name a search engine, or a way of having it.
pub fn engines() -> impl Iterator<Item = &'static str> + Clone {
    entries(SAFE_SEARCH).map(|(name, _)| name)
}

/// Returns the engines that `safe_search = true` stands for: each once, YouTube as it is for everybody.
pub fn all_engines() -> impl Iterator<Item = &'static str> {
    engines().filter(|engine| *engine != "youtube-strict")
}

/// Names in wire form, each with the name that it is answered as.
pub(super) type Safe = Arc<HashMap<Box<[u8]>, Box<[u8]>>>;

/// Compiles what some engines are answered as; of two that share names the last one counts.
pub(super) fn safe(engines: &[&'static str]) -> Safe {
    let mut names = HashMap::new();
    for (_, rest) in entries(SAFE_SEARCH).filter(|(engine, _)| engines.contains(engine)) {
        let mut rest = words(rest);
        let Some(target) = rest.next().and_then(wire) else { continue };
        names.extend(rest.filter_map(wire).map(|name| (name, target.clone())));
    }
    Arc::new(names)
}

/// Returns the names that must not exist, in wire form.
pub(super) fn canaries() -> impl Iterator<Item = Box<[u8]>> {
    CANARIES.iter().filter_map(|name| wire(name))
}

/// Returns the domains of public servers for encrypted questions.
pub(super) fn encrypted_servers() -> impl Iterator<Item = &'static str> {
    entries(ENCRYPTED_SERVERS).map(|(name, _)| name)
}

/// Returns the names that tell a system whether it is online.
pub(super) fn connectivity() -> impl Iterator<Item = &'static str> {
    entries(CONNECTIVITY).map(|(name, _)| name)
}

/// Returns a name in wire form.
pub(super) fn wire(name: &str) -> Option<Box<[u8]>> {
    let mut wire = WireName::default();
    wire.read(name.as_bytes()).ok()?;
    Some(wire.octets().into())
}

/// Returns the first word of each entry and its other words: a line, and the indented ones after it.
fn entries(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> + Clone {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let end = rest.match_indices('\n').map(|(at, _)| at + 1).find(|at| !rest[*at..].starts_with(' '));
            let (entry, behind) = rest.split_at(end.unwrap_or(rest.len()));
            if entry.is_empty() {
                return None;
            }
            rest = behind;
            let entry = entry.trim();
            if !entry.is_empty() && !entry.starts_with('#') {
                return Some(entry.split_once(char::is_whitespace).unwrap_or((entry, "")));
            }
        }
    })
}

fn words(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.split_whitespace()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_entry_is_a_name_and_stands_once() {
        for text in [SERVICES, SAFE_SEARCH, ENCRYPTED_SERVERS, CONNECTIVITY] {
            let firsts: Vec<_> = entries(text).map(|(first, _)| first).collect();
            assert_eq!(firsts.iter().collect::<HashSet<_>>().len(), firsts.len());
            for (first, rest) in entries(text) {
                let mut names = HashSet::new();
                for name in words(rest) {
                    assert!(wire(name).is_some() && name.contains('.'), "{first}: {name}");
                    assert!(names.insert(name), "{first}: {name} twice");
                }
            }
        }
        assert!(encrypted_servers().chain(connectivity()).all(|name| wire(name).is_some() && name.contains('.')));
        assert_eq!(canaries().count(), CANARIES.len());
    }

    #[test]
    fn services_and_engines_are_many_and_known_by_name() {
        assert!(services().count() > 50, "{}", services().count());
        assert!(domains_of("youtube").any(|domain| domain == "googlevideo.com"));
        assert_eq!(domains_of("nothing").count(), 0);
        assert!(encrypted_servers().count() > 100);
        let google = safe(&["google"]);
        assert_eq!(google.len(), 2 * 187, "google.com and 186 countries");
        assert_eq!(google.get(&wire("www.google.co.uk").unwrap()), wire("forcesafesearch.google.com").as_ref());
        let strict = safe(&["youtube", "youtube-strict"]);
        assert_eq!(strict.get(&wire("www.youtube.com").unwrap()), wire("restrict.youtube.com").as_ref());
        assert!(all_engines().any(|engine| engine == "youtube"));
    }
}
