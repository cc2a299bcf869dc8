//! A house that exists in a test alone, full of names that want to be something else.

use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;

use super::*;
use crate::origin::Role;

/// What somebody in the network would like to see run.
pub(super) const EVIL: &str = "<script>alert(1)</script>\"'&\u{202e}evil\u{0}";

/// Every answer is full of this.
pub(super) struct Toy(&'static str);

impl Toy {
    fn evil<T>(&self, mut fill: impl FnMut(&str) -> T) -> Vec<T> {
        vec![fill(self.0)]
    }
}

impl House for Toy {
    fn zone(&self) -> TimeZone {
        TimeZone::UTC
    }

    fn status(&self) -> view::Status {
        let evil = || self.0.to_owned();
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
        Ok(view::Queries { queries: self.evil(query), next, cut: true })
    }

    fn top(&self, seconds: u32) -> Result<view::Top, Refused> {
        let count = |what: &str| view::Count { what: what.into(), called: Some(what.into()), questions: 5 };
        let moment = view::Moment { from: 1_700_000_000, questions: seconds.into(), blocked: 1 };
        Ok(view::Top {
            questions: 10,
            blocked: 3,
            outcomes: self.evil(count),
            timeline: vec![moment],
            names: self.evil(count),
            blocked_names: self.evil(count),
            clients: self.evil(count),
        })
    }

    fn why(&self, name: &str, rtype: &str, client: Option<&str>) -> Result<view::Why, Refused> {
        if client == Some("nobody") {
            return Err(Refused::new(StatusCode::CONFLICT, self.0));
        }
        let rule =
            |text: &str| view::RuleLine { list: text.into(), line: Some(4), text: text.into(), effect: "block".into() };
        Ok(view::Why {
            name: name.into(),
            rtype: rtype.into(),
            answered_by: "resolver".into(),
            group: Some(self.0.into()),
            verdict: Some(self.0.into()),
            rules: self.evil(rule),
            steps: self.evil(str::to_owned),
            records: self.evil(str::to_owned),
            ..view::Why::default()
        })
    }

    fn lists(&self) -> Vec<view::List> {
        self.evil(|name| view::List { name: name.into(), problem: Some(name.into()), ..view::List::default() })
    }

    fn devices(&self) -> Vec<view::Device> {
        self.evil(|name| view::Device {
            mac: "02:00:00:00:00:01".into(),
            name: Some(name.into()),
            addresses: vec!["192.0.2.7".into()],
            groups: vec![name.into()],
            new: true,
            last_seen: 1_700_000_000,
        })
    }

    fn routes(&self) -> Vec<view::Route> {
        self.evil(|name| view::Route {
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
        self.evil(|name| view::Certificate {
            hosts: vec![name.into()],
            source: name.into(),
            not_after: Some(1_700_000_000),
            stand_in: true,
            next: Some(1_700_000_000),
            problem: Some(name.into()),
        })
    }

    fn peers(&self) -> Vec<view::Peer> {
        self.evil(|name| view::Peer {
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
        view::Audit { entries: self.evil(entry), next: Some(7), kept: 8, digest: None, broken: Some(self.0.into()) }
    }

    fn generations(&self) -> Result<Vec<view::Generation>, Refused> {
        Ok(self.evil(|author| view::Generation {
            number: 3,
            time: 1_700_000_000,
            author: author.into(),
            digest: "d".into(),
        }))
    }

    fn text(&self, generation: Option<u64>) -> Result<view::ConfigText, Refused> {
        Ok(view::ConfigText { number: generation.unwrap_or(3), file: self.0.into(), edits: self.0.into() })
    }

    fn groups(&self) -> Vec<String> {
        self.evil(str::to_owned)
    }

    fn edits(&self) -> Edits {
        Edits::All
    }

    fn act(&self, action: Action, visitor: &Visitor) -> Result<view::Done, Refused> {
        assert!(visitor.role >= action.needs(), "{action:?}");
        Ok(view::Done {
            until: Some(1_700_000_000),
            generation: 4,
            waiting: Some(view::Waiting { risk: self.0.into(), left: 50, before: 3 }),
            configuration: Some(self.0.into()),
            endpoint_is_guessed: true,
        })
    }

    fn diff(&self, _: Option<u64>) -> Result<String, Refused> {
        Ok(format!("+{0}\n-{0}\n", self.0))
    }
}

pub(super) fn visitor(role: Role) -> Visitor {
    Visitor { name: "alice (peer phone)".into(), role, door: Door::Tunnel }
}

pub(super) fn ask(method: Method, target: &str) -> Response<Bytes> {
    let request = Request::builder().method(method).uri(target).body(Bytes::new()).unwrap();
    answer(&Toy(EVIL), &visitor(Role::Viewer), &request)
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
    for (path, operations) in paths.iter().filter(|(_, operations)| operations.get("get").is_some()) {
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

/// Asks for a page in a language.
fn page(target: &str, language: &str) -> Response<Bytes> {
    let request = Request::get(target).header("accept-language", language).body(Bytes::new()).unwrap();
    answer(&Toy(EVIL), &visitor(Role::Owner), &request)
}

const PAGES: [&str; 10] = [
    "/",
    "/dns",
    "/dns?name=%3Cscript%3E&outcome=blocked&before=9",
    "/dns/why",
    "/dns/why?name=%3Cscript%3Ealert(1)%3C/script%3E&client=%22%3E",
    "/ingress",
    "/vpn",
    "/config?show=3&since=2",
    "/audit?text=%22%3E%3Cscript%3E",
    "/nothing",
];

#[test]
fn every_page_is_written_in_both_languages_and_nothing_in_it_becomes_markup() {
    for language in ["en", "de"] {
        for target in PAGES {
            let response = page(target, language);
            let text = std::str::from_utf8(response.body()).unwrap();

            let wanted = if target == "/nothing" { 404 } else { 200 };
            assert_eq!(response.status(), wanted, "{target}: {text}");
            assert_eq!(response.headers()["cache-control"], "no-store", "{target}");
            assert!(text.starts_with(&format!("<!DOCTYPE html><html lang=\"{language}\">")), "{target}: {text}");
            assert!(
                !text.contains("<script>") && !text.contains("\u{202e}") && !text.contains('\0'),
                "{target}: {text}"
            );
            assert!(!text.contains(" style=") && !text.contains(" onclick"), "{target}: {text}");
            for element in ["<main id=\"content\"", "<nav aria-label=", "<h1>", "class=\"skip\"", "<title>"] {
                assert_eq!(text.matches(element).count().min(1), 1, "{target} without {element}");
            }
            if target != "/dns/why" && target != "/nothing" {
                assert!(text.contains("&lt;script&gt;"), "{target}: {text}");
            }
            well_formed(target, text);
        }
    }
}

/// Checks what a reader of the page by ear relies on: tags that end, labels of every field, heads of every table,
/// names that stand once.
fn well_formed(target: &str, text: &str) {
    let mut open = Vec::new();
    let mut ids = std::collections::HashSet::new();
    let mut labelled = std::collections::HashSet::new();
    let mut fields = Vec::new();
    for tag in text.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap_or_default();
        let attribute =
            |wanted: &str| tag.split(&format!(" {wanted}=\"")).nth(1).map(|rest| rest.split('"').next().unwrap());
        if let Some(id) = attribute("id") {
            assert!(ids.insert(id.to_owned()), "{target}: two {id}");
        }
        match name {
            "label" if !tag.starts_with('/') => _ = labelled.insert(attribute("for").unwrap().to_owned()),
            "input" | "select" if !tag.starts_with('/') && attribute("type") != Some("hidden") => {
                fields.push(attribute("id").unwrap().to_owned())
            }
            "th" if !tag.starts_with('/') => assert!(attribute("scope").is_some(), "{target}: {tag}"),
            _ => {}
        }
        match name {
            "!DOCTYPE" | "meta" | "link" | "input" | "br" => {}
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "{target}"),
            _ => open.push(name),
        }
    }
    assert!(open.is_empty(), "{target}: {open:?}");
    for field in fields {
        assert!(labelled.contains(&field), "{target}: nothing says what {field} is");
    }
}

#[test]
fn every_sentence_of_a_page_comes_from_the_catalogue() {
    for target in PAGES {
        let request = Request::get(target.replace("%3Cscript%3E", "7").split("alert").next().unwrap())
            .body(Bytes::new())
            .unwrap();
        let text = pages::marked(&Toy("7"), &visitor(Role::Owner), &request);

        // What is left without tags and sentences is data of the toy and units.
        let mut left = String::new();
        let (mut in_tag, mut in_word) = (false, false);
        for letter in text.chars() {
            match letter {
                '<' => in_tag = true,
                '>' => (in_tag, left) = (false, left + " "),
                '\u{27e6}' => in_word = true,
                '\u{27e7}' => in_word = false,
                letter if !in_tag && !in_word => left.push(letter),
                _ => {}
            }
        }
        let known = [
            "hearthgate",
            "alice",
            "peer",
            "phone",
            "A",
            "ms",
            "s",
            "min",
            "h",
            "d",
            "B",
            "MAC",
            "b\u{fc}cher.example",
            "k",
            "block",
            "Internal",
            "x",
        ];
        let words = left.split(|letter: char| !letter.is_alphanumeric() && letter != '.');
        let strange: Vec<&str> = words
            .filter(|word| word.chars().any(char::is_alphabetic) && !known.contains(word))
            .filter(|word| !["lt", "gt", "quot"].contains(word))
            .collect();
        assert!(strange.is_empty(), "{target}: {strange:?}");
        for attribute in ["aria-label=\"", "placeholder=\"", "title=\""] {
            for value in text.split(attribute).skip(1) {
                assert!(value.starts_with('\u{27e6}'), "{target}: {attribute}{}", value.split('"').next().unwrap());
            }
        }
    }
}

#[test]
fn a_language_is_chosen_and_remembered() {
    let response = ask(Method::GET, "/language/de?back=/dns");

    assert_eq!((response.status().as_u16(), &response.headers()["location"]), (303, &HeaderValue::from_static("/dns")));
    let cookie = response.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("hearthgate-language=de; Path=/;"), "{cookie}");
    assert_eq!(ask(Method::GET, "/language/de?back=https://evil.example").headers()["location"], "/");
    assert_eq!(ask(Method::GET, "/language/xx").status(), 404);
}

fn post(role: Role, target: &str, kind: &str, body: &'static str) -> Response<Bytes> {
    let request = Request::post(target).header("content-type", kind).header("sec-fetch-site", "same-origin");
    answer(&Toy(EVIL), &visitor(role), &request.body(Bytes::from_static(body.as_bytes())).unwrap())
}

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// Each thing that can be done, as a form and as JSON, and the least role.
const DEEDS: [(&str, &str, &str, Role); 9] = [
    (
        "dns/rule",
        "do=allow&name=a.example&seconds=60",
        r#"{"do":"allow","name":"a.example","seconds":60}"#,
        Role::Operator,
    ),
    ("dns/rule", "do=block&name=a.example&group=kids&seconds=", r#"{"do":"block","name":"a.example"}"#, Role::Owner),
    ("dns/rule", "do=forget&name=a.example", r#"{"do":"forget","name":"a.example"}"#, Role::Owner),
    ("dns/pause", "do=pause&seconds=300&device=tv", r#"{"do":"pause","seconds":300}"#, Role::Operator),
    ("dns/pause", "do=resume", r#"{"do":"resume"}"#, Role::Operator),
    ("peer", "do=add&name=phone&group=&expires=2030-01-31", r#"{"do":"add","name":"phone"}"#, Role::Owner),
    ("peer", "do=remove&name=phone", r#"{"do":"remove","name":"phone"}"#, Role::Owner),
    ("config", "do=confirm", r#"{"do":"undo"}"#, Role::Owner),
    ("config", "do=rollback&generation=3", r#"{"do":"rollback","generation":3}"#, Role::Owner),
];

#[test]
fn each_thing_is_done_for_whom_it_is_to_do_and_for_nobody_else() {
    let document = read("/api/v1/openapi.json");
    for (path, form, json, least) in DEEDS {
        for (_, role) in Role::ALL {
            let wanted = if role >= least { 200 } else { 403 };
            let shown = post(role, &format!("/do/{path}"), FORM, form);
            let said = post(role, &format!("/api/v1/{path}"), JSON, json);

            assert_eq!((shown.status().as_u16(), said.status().as_u16()), (wanted, wanted), "{path} {form} {role}");
            let text = std::str::from_utf8(shown.body()).unwrap();
            assert!(!text.contains("<script>"), "{text}");
            well_formed(path, text);
            if wanted == 200 {
                let pointer = format!(
                    "/paths/~1api~1v1~1{}/post/responses/200/content/application~1json/schema",
                    path.replace('/', "~1")
                );
                let schema = document.pointer(&pointer).unwrap();
                assert_eq!(deviation(&serde_json::from_slice(said.body()).unwrap(), schema, &document), None, "{path}");
            }
        }
    }
}

#[test]
fn nothing_is_done_for_another_page_by_another_method_or_with_a_field_too_many() {
    let foreign = Request::post("/do/peer").header("content-type", FORM).header("sec-fetch-site", "cross-site");
    let foreign = foreign.body(Bytes::from_static(b"do=add&name=phone")).unwrap();

    assert_eq!(answer(&Toy(EVIL), &visitor(Role::Owner), &foreign).status(), 403);
    for (target, kind, body, status) in [
        ("/do/peer", JSON, "do=add&name=phone", 415),
        ("/do/peer", "text/plain", "do=add&name=phone", 415),
        ("/do/peer", FORM, "do=add&name=phone&role=owner", 400),
        ("/do/peer", FORM, "do=add", 400),
        ("/do/peer", FORM, "do=steal&name=phone", 400),
        ("/do/dns/pause", FORM, "do=pause&seconds=0", 400),
        ("/do/dns/pause", FORM, "do=pause&seconds=99999999999", 400),
        ("/do/nothing", FORM, "", 404),
        ("/api/v1/peer", FORM, r#"{"do":"add"}"#, 415),
        ("/api/v1/peer", JSON, r#"{"do":"add","name":7}"#, 400),
        ("/api/v1/peer", JSON, r#"{"do":"add","name":"a","role":"owner"}"#, 400),
        ("/api/v1/peer", JSON, "[]", 400),
        ("/api/v1/config", JSON, r#"{"do":"rollback","generation":-1}"#, 400),
        ("/api/v1/config", JSON, r#"{"do":"rollback","generation":"1"}"#, 400),
    ] {
        assert_eq!(post(Role::Owner, target, kind, body).status(), status, "{target} {body}");
    }
    let read = ask(Method::GET, "/api/v1/peer");
    assert_eq!((read.status().as_u16(), read.headers()["allow"].to_str().unwrap()), (405, "POST"));
}

#[test]
fn who_may_not_do_a_thing_does_not_see_its_form() {
    for target in PAGES {
        let request = Request::get(target).body(Bytes::new()).unwrap();
        let shown = |role| String::from_utf8(answer(&Toy(EVIL), &visitor(role), &request).body().to_vec()).unwrap();

        assert!(!shown(Role::Viewer).contains("method=\"post\""), "{target}");
        for word in ["/do/peer", "/do/config", "value=\"forget\""] {
            assert!(!shown(Role::Operator).contains(word), "{target}: {word}");
        }
    }
}
