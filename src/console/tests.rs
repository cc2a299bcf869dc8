//! A house that exists in a test alone, full of names that want to be something else.

use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;

use super::*;
use crate::origin::Role;

/// What somebody in the network would like to see run.
pub(super) const EVIL: &str = "<script>alert(1)</script>\"'&\u{202e}evil\u{0}";

/// Every answer is full of [`EVIL`].
pub(super) struct Toy;

pub(super) fn evil<T>(mut fill: impl FnMut(&str) -> T) -> Vec<T> {
    vec![fill(EVIL)]
}

impl House for Toy {
    fn status(&self) -> view::Status {
        let evil = || EVIL.to_owned();
        let plane = view::Plane { name: evil(), running: false, uptime: 7, restarts: 2, last_failure: Some(evil()) };
        let warn = |kind: &str| view::Warning { kind: kind.into(), subject: evil(), detail: evil() };
        view::Status {
            version: "0".into(),
            generation: 3,
            loaded: 1_700_000_000,
            loaded_by: evil(),
            planes: vec![plane],
            warnings: ["plane_down", "certificate_ends", "list_problem", "no such kind"].map(warn).into(),
            wan: vec![view::KeptName { name: evil(), addresses: vec![evil()], problem: Some(evil()) }],
            waiting: Some(view::Waiting { risk: evil(), left: 50, before: 2 }),
            timed: vec![view::Timed { what: evil(), until: 1_700_000_000 }],
            history: true,
            ..view::Status::default()
        }
    }

    fn queries(&self, filter: &history::Filter) -> Result<view::Queries, Refused> {
        let query = |name: &str| view::Query {
            id: 9,
            at: 1_700_000_000_000,
            name: name.into(),
            unicode: Some("b\u{fc}cher.example".into()),
            rtype: "A".into(),
            client: name.into(),
            device: Some(name.into()),
            outcome: "blocked".into(),
            transport: "udp".into(),
            list: name.into(),
            took: 1500,
        };
        let next = filter.before.is_none().then_some(9);
        Ok(view::Queries { queries: evil(query), next, cut: true })
    }

    fn top(&self, seconds: u32) -> Result<view::Top, Refused> {
        let count = |what: &str| view::Count { what: what.into(), called: Some(what.into()), questions: 5 };
        let moment = view::Moment { from: 1_700_000_000, questions: seconds.into(), blocked: 1 };
        Ok(view::Top {
            questions: 10,
            blocked: 3,
            outcomes: evil(count),
            timeline: vec![moment],
            names: evil(count),
            blocked_names: evil(count),
            clients: evil(count),
        })
    }

    fn why(&self, name: &str, rtype: &str, client: Option<&str>) -> Result<view::Why, Refused> {
        if client == Some("nobody") {
            return Err(Refused::new(StatusCode::CONFLICT, EVIL));
        }
        let rule =
            |text: &str| view::RuleLine { list: text.into(), line: Some(4), text: text.into(), effect: "block".into() };
        Ok(view::Why {
            name: name.into(),
            rtype: rtype.into(),
            answered_by: "resolver".into(),
            group: Some(EVIL.into()),
            verdict: Some(EVIL.into()),
            rules: evil(rule),
            steps: evil(str::to_owned),
            records: evil(str::to_owned),
            ..view::Why::default()
        })
    }

    fn lists(&self) -> Vec<view::List> {
        evil(|name| view::List { name: name.into(), problem: Some(name.into()), ..view::List::default() })
    }

    fn devices(&self) -> Vec<view::Device> {
        evil(|name| view::Device {
            mac: "02:00:00:00:00:01".into(),
            name: Some(name.into()),
            addresses: vec!["192.0.2.7".into()],
            groups: vec![name.into()],
            new: true,
            last_seen: 1_700_000_000,
        })
    }

    fn routes(&self) -> Vec<view::Route> {
        evil(|name| view::Route {
            name: name.into(),
            host: name.into(),
            path: "/".into(),
            access: vec![name.into()],
            to: vec![view::Server { address: name.into(), up: Some(false) }],
            requests: vec![0, 9, 0, 1, 0],
            median: Some(5),
            slowest: Some(100),
            certificate_ends: Some(1_700_000_000),
            ..view::Route::default()
        })
    }

    fn certificates(&self) -> Vec<view::Certificate> {
        evil(|name| view::Certificate {
            hosts: vec![name.into()],
            source: name.into(),
            not_after: Some(1_700_000_000),
            stand_in: true,
            next: Some(1_700_000_000),
            problem: Some(name.into()),
        })
    }

    fn peers(&self) -> Vec<view::Peer> {
        evil(|name| view::Peer {
            name: name.into(),
            group: Some(name.into()),
            public_key: "k".into(),
            addresses: vec!["10.77.0.2/32".into()],
            user: Some(name.into()),
            role: Some("owner".into()),
            enabled: true,
            last_handshake: Some(1_700_000_000),
            endpoint: Some("192.0.2.1:7".into()),
            is_edit: true,
            ..view::Peer::default()
        })
    }

    fn audit(&self, text: Option<&str>, before: Option<u64>, _: usize) -> view::Audit {
        let entry = |by: &str| view::AuditEntry {
            number: before.unwrap_or(8),
            at: "2026-01-01T00:00:00Z".into(),
            by: by.into(),
            what: text.unwrap_or(by).into(),
            outcome: by.into(),
        };
        view::Audit { entries: evil(entry), next: Some(7), kept: 8, digest: None, broken: Some(EVIL.into()) }
    }

    fn generations(&self) -> Result<Vec<view::Generation>, Refused> {
        Ok(evil(|author| view::Generation {
            number: 3,
            time: 1_700_000_000,
            author: author.into(),
            digest: "d".into(),
        }))
    }

    fn text(&self, generation: Option<u64>) -> Result<view::ConfigText, Refused> {
        Ok(view::ConfigText { number: generation.unwrap_or(3), file: EVIL.into(), edits: EVIL.into() })
    }

    fn diff(&self, _: Option<u64>) -> Result<String, Refused> {
        Ok(format!("+{EVIL}\n-{EVIL}\n"))
    }
}

pub(super) fn visitor(role: Role) -> Visitor {
    Visitor { name: "alice (peer phone)".into(), role, door: Door::Tunnel }
}

pub(super) fn ask(method: Method, target: &str) -> Response<Bytes> {
    let request = Request::builder().method(method).uri(target).body(Bytes::new()).unwrap();
    answer(&Toy, &visitor(Role::Viewer), &request)
}

fn read(target: &str) -> Value {
    let response = ask(Method::GET, target);
    assert_eq!(response.status(), 200, "{target}: {response:?}");
    serde_json::from_slice(response.body()).unwrap()
}

/// Says where a value is not as its schema says.
fn deviation(value: &Value, schema: &Value, document: &Value) -> Option<String> {
    if let Some(place) = schema["$ref"].as_str() {
        return deviation(value, document.pointer(place.trim_start_matches('#')).unwrap(), document);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let fits = any.iter().any(|schema| deviation(value, schema, document).is_none());
        return (!fits).then(|| format!("{value} fits none of {schema}"));
    }
    let fits = match schema["type"].as_str().unwrap() {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        "array" => {
            return value.as_array().unwrap().iter().find_map(|item| deviation(item, &schema["items"], document));
        }
        "object" => {
            let (fields, properties) = (value.as_object().unwrap(), schema["properties"].as_object().unwrap());
            let required = schema["required"].as_array().unwrap();
            if let Some(missing) = required.iter().find(|name| !fields.contains_key(name.as_str().unwrap())) {
                return Some(format!("{missing} is missing"));
            }
            if let Some(more) = fields.keys().find(|name| !properties.contains_key(*name)) {
                return Some(format!("{more} is not described"));
            }
            return fields.iter().find_map(|(name, value)| deviation(value, &properties[name], document));
        }
        other => panic!("{other}"),
    };
    (!fits).then(|| format!("{value} is no {schema}"))
}

#[test]
fn every_endpoint_answers_what_its_document_says() {
    let document = read("/api/v1/openapi.json");
    let paths = document["paths"].as_object().unwrap();

    for wanted in ["status", "dns/queries", "dns/top", "routes", "peers", "certificates", "audit", "config/generations"]
    {
        assert!(paths.contains_key(&format!("/api/v1/{wanted}")), "{wanted}");
    }
    for (path, operations) in paths {
        let operation = &operations["get"];
        let needs_name = if path.ends_with("/why") { "?name=example" } else { "" };
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        assert_eq!(deviation(&read(&format!("{path}{needs_name}")), schema, &document), None, "{path}");
        for parameter in operation["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            let value = if parameter["schema"]["type"] == "integer" { "1" } else { "a" };
            let target = match (needs_name.is_empty(), name) {
                (false, "name") => format!("{path}?name=a"),
                (false, _) => format!("{path}?name=a&{name}={value}"),
                (true, _) => format!("{path}?{name}={value}"),
            };
            if name != "type" {
                read(&target);
            }
            let twice = format!("{target}&{name}={value}");
            assert_eq!(ask(Method::GET, &twice).status(), 400, "{twice}");
        }
        assert_eq!(ask(Method::GET, &format!("{path}?nonsense=1")).status(), 400, "{path}");
        let written = ask(Method::DELETE, path);
        assert_eq!((written.status().as_u16(), written.headers()["allow"].to_str().unwrap()), (405, "GET, HEAD"));
    }
}

#[test]
fn what_cannot_be_is_refused_as_rfc9457_says() {
    for (target, status) in [
        ("/api/v1/nothing", 404),
        ("/api/v1/dns/queries?limit=1001", 400),
        ("/api/v1/dns/queries?limit=-1", 400),
        ("/api/v1/dns/queries?limit=x", 400),
        ("/api/v1/dns/queries?type=nonsense", 400),
        ("/api/v1/dns/queries?name=%ff", 400),
        ("/api/v1/dns/queries?name=%f", 400),
        ("/api/v1/dns/why", 400),
        ("/api/v1/dns/why?name=a&client=nobody", 409),
    ] {
        let response = ask(Method::GET, target);

        assert_eq!(response.status(), status, "{target}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{target}");
        let problem: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(problem["status"], status, "{target}");
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{target}");
    }
    let long = format!("/api/v1/dns/queries?name={}", "a".repeat(257));
    assert_eq!(ask(Method::GET, &long).status(), 400);
    read("/api/v1/dns/queries?name=&type=TYPE65&client=%E2%82%AC+x&limit=");
}

#[test]
fn nothing_is_kept_framed_or_taken_from_elsewhere() {
    for target in ["/api/v1/status", "/api/v1/nothing", "/api/v1/openapi.json"] {
        let response = ask(Method::GET, target);

        let field = |name: &str| response.headers()[name].to_str().unwrap();
        assert_eq!(field("cache-control"), "no-store", "{target}");
        let policy = field("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(field("x-content-type-options"), "nosniff");
    }
}
