//! `/api/v1`: one table of endpoints, which requests are looked up in and the OpenAPI document is written from.

use std::sync::LazyLock;

use bytes::Bytes;
use hickory_proto::rr::RecordType;
use hyper::{Method, Request, Response, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    House, Refused, Visitor,
    action::{self, DEEDS, Deed},
    is_read, json as answered,
    schema::{Described, Schemas},
    view,
};
use crate::history::Filter;

const ROOT: &str = "/api/v1/";
const DOCUMENT: &str = "openapi.json";
/// Characters of a value.
const LONGEST: usize = 256;

/// A thing that can be read.
struct Endpoint {
    /// Below the root.
    path: &'static str,
    about: &'static str,
    parameters: &'static [Parameter],
    schema: fn(&mut Schemas) -> Value,
    serve: Serve,
}

type Serve = Box<dyn Fn(&dyn House, &Query) -> Result<Value, Refused> + Send + Sync>;

/// What may be said behind the question mark.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    kind: Kind,
    about: &'static str,
}

impl Parameter {
    /// Returns its schema, with what is said about it.
    pub(super) fn schema(&self) -> Value {
        match self.kind {
            Kind::Text => json!({ "type": "string", "maxLength": LONGEST, "description": self.about }),
            Kind::Number(most) => {
                json!({ "type": "integer", "minimum": 0, "maximum": most, "description": self.about })
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    /// Up to this.
    Number(i64),
}

pub(super) const fn text(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, kind: Kind::Text, about }
}

pub(super) const fn number(name: &'static str, most: i64, about: &'static str) -> Parameter {
    Parameter { name, kind: Kind::Number(most), about }
}

/// Defines an endpoint; that its answer is what the document says is a matter of types.
fn get<T: Described + Serialize>(
    path: &'static str,
    about: &'static str,
    parameters: &'static [Parameter],
    serve: impl Fn(&dyn House, &Query) -> Result<T, Refused> + Send + Sync + 'static,
) -> Endpoint {
    let serve = Box::new(move |house: &dyn House, query: &Query| {
        let value = serde_json::to_value(serve(house, query)?);
        value.map_err(|error| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    });
    Endpoint { path, about, parameters, schema: T::describe, serve }
}

/// What a search of the log is told, here and on its page.
pub(super) const SEARCH: &[Parameter] = &[
    text("name", "Only names with this in them."),
    text("client", "Only of this device (its name, MAC address or address) or peer (`vpn:NAME`)."),
    text("outcome", "Only those that ended so: blocked, cached, resolved, local, special, stale, failed, refused."),
    text("list", "Only those that this list or group decided."),
    text("type", "Only for this type of records: a mnemonic or a number."),
    number("from", i64::MAX, "Not before this, in seconds since 1970."),
    number("to", i64::MAX, "Before this, in seconds since 1970."),
    number("before", i64::MAX, "Older than this one: `next` of the page before."),
    number("limit", 1000, "How many at most; 100 if it is not said."),
];

static ENDPOINTS: LazyLock<Vec<Endpoint>> = LazyLock::new(|| {
    vec![
        get("status", "The state of everything at this moment.", &[], |house, _| Ok(house.status())),
        get("dns/queries", "The questions of the house, the newest first.", SEARCH, |house, query| {
            house.queries(&filter(query)?)
        }),
        get("dns/top", "Sums of the questions of a span that ends now.", SPAN, |house, query| {
            house.top(query.number("seconds").and_then(|span| span.try_into().ok()).unwrap_or(86_400))
        }),
        get("dns/why", "What would happen to a question now, and why. It is looked up to see.", WHY, |house, query| {
            let name = query.text("name").ok_or_else(|| wrong("`name` is missing"))?;
            house.why(name, query.text("type").unwrap_or("A"), query.text("client"))
        }),
        get("dns/lists", "Block and allow lists.", &[], |house, _| Ok(house.lists())),
        get("devices", "The devices of the house.", &[], |house, _| Ok(house.devices())),
        get("routes", "The routes of the ingress.", &[], |house, _| Ok(house.routes())),
        get("certificates", "The certificates in use.", &[], |house, _| Ok(house.certificates())),
        get("peers", "The peers of the gate.", &[], |house, _| Ok(house.peers())),
        get("audit", "Who changed what, the newest first; the chain is verified.", AUDIT, |house, query| {
            let before = query.number("before").and_then(|before| before.try_into().ok());
            let limit = query.number("limit").and_then(|limit| limit.try_into().ok()).unwrap_or(100);
            Ok(house.audit(query.text("text"), before, limit))
        }),
        get("config/generations", "The configurations that are kept, the newest first.", &[], |house, _| {
            house.generations()
        }),
    ]
});

const SPAN: &[Parameter] = &[number("seconds", 366 * 86_400, "How long the span is; a day if it is not said.")];

/// What an explanation is asked for.
pub(super) const WHY: &[Parameter] = &[
    text("name", "The name; it must be said."),
    text("type", "The type of records; A if it is not said."),
    text("client", "Whose rules apply: a device, a peer or an address; this box if it is not said."),
];

/// What a search of the audit log is told.
pub(super) const AUDIT: &[Parameter] = &[
    text("text", "Only entries with this in them."),
    number("before", i64::MAX, "Older than the entry of this number."),
    number("limit", 1000, "How many at most; 100 if it is not said."),
];

/// Answers what is asked of the API; `None` if something else is asked for.
pub(super) fn answer(
    house: &dyn House,
    visitor: &Visitor,
    request: &Request<Bytes>,
) -> Option<Result<Response<Bytes>, Refused>> {
    let path = request.uri().path().strip_prefix(ROOT)?;
    if let Some(deed) = DEEDS.iter().find(|deed| deed.path == path) {
        return Some(act(house, visitor, deed, request));
    }
    let endpoint = ENDPOINTS.iter().find(|endpoint| endpoint.path == path);
    let missing = || Refused::new(StatusCode::NOT_FOUND, format!("there is no {ROOT}{path}: see {ROOT}{DOCUMENT}"));
    Some(match endpoint {
        None if path != DOCUMENT => Err(missing()),
        _ if !is_read(request.method()) => Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, READ_ALONE)),
        None => Ok(answered(StatusCode::OK, "application/json", &document())),
        Some(endpoint) => Query::read(request.uri().query().unwrap_or_default(), endpoint.parameters)
            .and_then(|query| (endpoint.serve)(house, &query))
            .map(|value| answered(StatusCode::OK, "application/json", &value)),
    })
}

const READ_ALONE: &str = "this can be read alone";

/// Does what a body of JSON says.
fn act(
    house: &dyn House,
    visitor: &Visitor,
    deed: &Deed,
    request: &Request<Bytes>,
) -> Result<Response<Bytes>, Refused> {
    if *request.method() != Method::POST {
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, WRITE_ALONE));
    }
    if !has_type(request, "application/json") {
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is application/json"));
    }
    let query = Query::from_json(request.body(), deed.fields)?;
    let done = super::act(house, visitor, (deed.read)(&query)?)?;
    Ok(answered(StatusCode::OK, "application/json", &done))
}

/// What a refusal of a method says where something is done.
pub(super) const WRITE_ALONE: &str = "this is done by POST alone";

/// Whether a body is of this type, whatever its parameters.
pub(super) fn has_type(request: &Request<Bytes>, wanted: &str) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
}

/// Reads which questions are wanted.
pub(super) fn filter(query: &Query) -> Result<Filter, Refused> {
    let text = |name| query.text(name).map(str::to_owned);
    let qtype = match query.text("type") {
        None => None,
        Some(text) => Some(record_type(text).ok_or_else(|| wrong(format!("\"{text}\" is no type of records")))?),
    };
    Ok(Filter {
        name: text("name"),
        client: text("client"),
        outcome: text("outcome"),
        rule: text("list"),
        qtype,
        from: query.number("from"),
        to: query.number("to"),
        before: query.number("before"),
        limit: query.number("limit").and_then(|limit| limit.try_into().ok()),
    })
}

fn record_type(text: &str) -> Option<u16> {
    let text = text.to_ascii_uppercase();
    let number = text.strip_prefix("TYPE").unwrap_or(&text);
    number.parse().ok().or_else(|| text.parse::<RecordType>().ok().map(u16::from))
}

fn wrong(detail: impl Into<String>) -> Refused {
    Refused::wrong(detail)
}

/// What was said behind the question mark. What stands empty was not said: forms send all their fields.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(&'static str, Said)>);

#[derive(Debug)]
enum Said {
    Text(String),
    Number(i64),
}

impl Query {
    /// Reads it strictly: what is unknown, said twice or of the wrong kind is refused.
    pub(super) fn read(raw: &str, parameters: &[Parameter]) -> Result<Self, Refused> {
        Self::of(form(raw.as_bytes()).ok_or_else(|| wrong("the query is not UTF-8"))?, parameters)
    }

    /// Reads the fields of a form.
    pub(super) fn from_form(raw: &[u8], parameters: &[Parameter]) -> Result<Self, Refused> {
        Self::of(form(raw).ok_or_else(|| wrong("the form is not UTF-8"))?, parameters)
    }

    /// Reads the fields of an object.
    fn from_json(raw: &[u8], parameters: &[Parameter]) -> Result<Self, Refused> {
        let object: Map<String, Value> = serde_json::from_slice(raw).map_err(|error| wrong(error.to_string()))?;
        let field = |(name, value): (String, Value)| match (parameters.iter().find(|one| one.name == name), value) {
            (None | Some(Parameter { kind: Kind::Text, .. }), Value::String(text)) => Ok((name, text)),
            (None | Some(Parameter { kind: Kind::Number(_), .. }), Value::Number(number)) => {
                Ok((name, number.to_string()))
            }
            (None, _) => Ok((name, String::new())),
            (Some(Parameter { kind: Kind::Text, .. }), _) => Err(wrong(format!("`{name}` is a text"))),
            (Some(Parameter { kind: Kind::Number(_), .. }), _) => Err(wrong(format!("`{name}` is a number"))),
        };
        Self::of(object.into_iter().map(field).collect::<Result<_, _>>()?, parameters)
    }

    fn of(said: Vec<(String, String)>, parameters: &[Parameter]) -> Result<Self, Refused> {
        let mut query = Self::default();
        for (name, value) in said {
            let known = parameters.iter().find(|parameter| parameter.name == name);
            let Some(parameter) = known else { return Err(wrong(format!("there is no parameter \"{name}\""))) };
            if query.0.iter().any(|(said, _)| *said == parameter.name) {
                return Err(wrong(format!("`{name}` is said twice")));
            }
            if value.is_empty() {
                continue;
            }
            let said = match parameter.kind {
                Kind::Text if value.chars().count() > LONGEST => {
                    return Err(wrong(format!("`{name}` is longer than {LONGEST} characters")));
                }
                Kind::Text => Said::Text(value),
                Kind::Number(most) => match value.parse() {
                    Ok(number) if (0..=most).contains(&number) => Said::Number(number),
                    _ => return Err(wrong(format!("`{name}` is a number from 0 to {most}"))),
                },
            };
            query.0.push((parameter.name, said));
        }
        Ok(query)
    }

    /// Returns a text that was said.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|(said, value)| match value {
            Said::Text(text) if *said == name => Some(text.as_str()),
            _ => None,
        })
    }

    /// Returns a number that was said.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.0.iter().find_map(|(said, value)| match value {
            Said::Number(number) if *said == name => Some(*number),
            _ => None,
        })
    }
}

/// Reads `application/x-www-form-urlencoded`; `None` if it is not UTF-8.
pub(super) fn form(raw: &[u8]) -> Option<Vec<(String, String)>> {
    let pairs = raw.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    let read = |pair: &[u8]| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        Some((decoded(parts.next()?)?, decoded(parts.next().unwrap_or_default())?))
    };
    pairs.map(read).collect()
}

fn decoded(text: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit(digits[0])? << 4 | digit(digits[1])?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Writes the OpenAPI document.
fn document() -> Value {
    let mut schemas = Schemas::default();
    let problem = view::Problem::describe(&mut schemas);
    let problem =
        |about: &str| json!({ "description": about, "content": { "application/problem+json": { "schema": problem } } });
    let mut paths = Map::new();
    for endpoint in &*ENDPOINTS {
        let parameters = endpoint
            .parameters
            .iter()
            .map(|parameter| json!({ "name": parameter.name, "in": "query", "schema": parameter.schema() }));
        let operation = json!({
            "summary": endpoint.about,
            "operationId": endpoint.path.replace('/', "_"),
            "parameters": parameters.collect::<Vec<_>>(),
            "responses": {
                "200": {
                    "description": endpoint.about,
                    "content": { "application/json": { "schema": (endpoint.schema)(&mut schemas) } },
                },
                "400": problem("A parameter is unknown or wrong."),
                "404": problem("The part of the edge that knows does not exist."),
                "409": problem("It cannot be said."),
                "500": problem("It is our fault."),
                "503": problem("Too much is under way; try again."),
            },
        });
        paths.insert(format!("{ROOT}{}", endpoint.path), json!({ "get": operation }));
    }
    for deed in &DEEDS {
        let operation = json!({
            "summary": deed.about,
            "operationId": format!("do_{}", deed.path.replace('/', "_")),
            "requestBody": {
                "required": true,
                "content": { "application/json": { "schema": action::schema(deed) } },
            },
            "responses": {
                "200": {
                    "description": "It is done.",
                    "content": { "application/json": { "schema": view::Done::describe(&mut schemas) } },
                },
                "400": problem("A field is missing, unknown or wrong."),
                "403": problem("It is not this visitor's to do."),
                "404": problem("It is about something that does not exist."),
                "409": problem("It cannot be done."),
                "415": problem("The body is not JSON."),
                "422": problem("The configuration that it would make is refused."),
                "500": problem("It is our fault."),
                "503": problem("Too much is under way; try again."),
            },
        });
        paths.insert(format!("{ROOT}{}", deed.path), json!({ "post": operation }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "hearthgate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The edge of a house. Whoever comes through the tunnel is known by it: there are no tokens.",
        },
        "paths": paths,
        "components": { "schemas": schemas.into_value() },
    })
}
