//! Another server says who somebody is: it is asked before each request, in the words that Authelia, Authentik and
//! oauth2-proxy understand.
//!
//! The question is made of what was understood of the request, never of what the client says of itself. The fields
//! that identify somebody are taken away from what the client sent before those of the answer are put in their place.

use std::{future::poll_fn, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use tokio::time::timeout;

use crate::ingress::{
    Change, Policy, Upstream,
    canonical::{CanonicalHost, CanonicalPath},
    deadline::Deadline,
    headers::{self, Told},
    proxy::{self, Asked, NoUplink, Visitor},
    routes::Route,
    serve::Answer,
    server::Core,
    upstream::{Arrival, Dial, Outgoing, RequestBody},
};

/// Bytes of a body that the server may say to who may not come in.
const LONGEST: usize = 256 * 1024;

/// Who is asked, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The server.
    pub to: Upstream,
    /// As it is named to that server, in Host.
    pub host: CanonicalHost,
    /// What is asked for there.
    pub path: CanonicalPath,
    /// The dialect.
    pub preset: Preset,
    /// Fields of its answer that the server behind is told; nobody else can say them.
    pub copy: Vec<HeaderName>,
    /// The longest that it may take.
    pub timeout: Duration,
}

/// Known servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Any that answers 2xx to who may come in.
    General,
    /// Authelia.
    Authelia,
    /// Authentik's outpost, with paths of its own on every host.
    Authentik,
    /// oauth2-proxy, with paths of its own on every host and a page where one signs in.
    Oauth2Proxy,
}

impl Preset {
    /// What is asked for.
    pub fn path(self) -> &'static str {
        match self {
            Self::General => "/",
            Self::Authelia => "/api/authz/forward-auth",
            Self::Authentik => "/outpost.goauthentik.io/auth/traefik",
            Self::Oauth2Proxy => "/oauth2/auth",
        }
    }

    /// Paths that lead to the server itself on each host that asks it, for everybody.
    pub fn own_paths(self) -> Option<&'static str> {
        match self {
            Self::General | Self::Authelia => None,
            Self::Authentik => Some("/outpost.goauthentik.io"),
            Self::Oauth2Proxy => Some("/oauth2"),
        }
    }

    /// What its answer says of who came.
    pub fn copies(self) -> &'static [&'static str] {
        match self {
            Self::General => &[],
            Self::Authelia => &["remote-user", "remote-groups", "remote-name", "remote-email"],
            Self::Authentik => &[
                "x-authentik-username",
                "x-authentik-groups",
                "x-authentik-entitlements",
                "x-authentik-email",
                "x-authentik-name",
                "x-authentik-uid",
                "x-authentik-jwt",
                "x-authentik-meta-jwks",
                "x-authentik-meta-outpost",
                "x-authentik-meta-provider",
                "x-authentik-meta-app",
                "x-authentik-meta-version",
            ],
            Self::Oauth2Proxy => &[
                "x-auth-request-user",
                "x-auth-request-email",
                "x-auth-request-groups",
                "x-auth-request-preferred-username",
            ],
        }
    }
}

/// [`Forward`] with its connection.
#[derive(Debug)]
pub(in crate::ingress) struct Warden {
    pub(in crate::ingress) forward: Forward,
    pub(in crate::ingress) dials: [Arc<Dial>; 1],
}

/// What the server that is asked needs of what the client sent: who somebody is, and what they would understand.
/// Cookies of the server behind are among them; what else there is can be too much for it.
const SENT: [HeaderName; 6] = [
    header::COOKIE,
    header::AUTHORIZATION,
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::USER_AGENT,
    HeaderName::from_static("x-requested-with"),
];

/// Asks; what the server behind is told and the cookies that go to the client, or the answer.
pub(super) async fn check(
    core: &Rc<Core>,
    policy: &Policy,
    visitor: &Visitor,
    client: IpAddr,
    route: &Arc<Route>,
    warden: &Warden,
    asked: &Asked<'_>,
) -> Result<(Change, Vec<HeaderValue>), Answer> {
    let forward = &warden.forward;
    let mut sent = HeaderMap::with_capacity(SENT.len());
    for name in SENT {
        for value in asked.headers.get_all(&name) {
            sent.append(name.clone(), value.clone());
        }
    }
    let uri = match asked.query {
        Some(query) => format!("{}?{query}", asked.path),
        None => asked.path.to_string(),
    };
    let url = format!("{}://{}{uri}", visitor.scheme, asked.host);
    let words = [
        ("x-forwarded-method", asked.method.as_str()),
        ("x-forwarded-host", asked.host.as_str()),
        ("x-forwarded-uri", &uri),
        ("x-original-method", asked.method.as_str()),
        ("x-original-url", &url),
    ];
    let failed = || Answer::fixed(StatusCode::BAD_GATEWAY);
    let mut change = Change::default();
    for (name, value) in words {
        let value = HeaderValue::from_str(value).map_err(|_| failed())?;
        change.set.push((HeaderName::from_static(name), value));
    }
    let told = Told::ours(&forward.host, client, visitor.scheme, &change);
    let (http, target) = (forward.to.http, (&forward.path, None));
    let outgoing = Outgoing::new(http, Method::GET, target, (&sent, &[]), &told, RequestBody::Empty);
    let (host, path) = (asked.host.clone(), asked.path.clone());
    let permit = core.permits.issue((visitor, client), host, path, asked.method.clone(), route.clone());
    let answer = async {
        let mut deadline = Deadline::after(forward.timeout);
        let arrival =
            proxy::forward_to(core, policy, &permit, &warden.dials, outgoing, &mut NoUplink, &mut deadline).await;
        whole(arrival.ok()?).await
    };
    let Ok(Some((status, mut headers, body))) = timeout(forward.timeout, answer).await else {
        core.shared.series.refusal(&route.name, "auth_failed");
        return Err(failed());
    };
    let cookies: Vec<HeaderValue> = headers.get_all(header::SET_COOKIE).iter().cloned().collect();
    if status.is_success() {
        // What this kind of server says of somebody is never believed of a client, copied or not.
        let said = forward.preset.copies().iter().map(|name| HeaderName::from_static(name));
        let remove = said.chain(forward.copy.iter().cloned()).collect();
        let mut change = Change { remove, ..Change::default() };
        for name in &forward.copy {
            let values = headers.get_all(name).iter();
            change.add.extend(values.map(|value| (name.clone(), value.clone())));
        }
        return Ok((change, cookies));
    }
    core.shared.series.refusal(&route.name, "auth");
    if forward.preset == Preset::Oauth2Proxy && status == StatusCode::UNAUTHORIZED && wants_page(asked) {
        let sign_in = format!("/oauth2/start?rd={}", escaped(&url));
        let mut answer = Answer::redirect(StatusCode::FOUND, &sign_in).ok_or_else(failed)?;
        for cookie in cookies {
            answer.headers.append(header::SET_COOKIE, cookie);
        }
        return Err(answer);
    }
    if status.is_informational() {
        return Err(failed());
    }
    headers::to_client(&mut headers);
    Err(Answer { status, headers, body })
}

/// Reads an answer to its end; `None` if it breaks off or is too long.
async fn whole(arrival: Arrival) -> Option<(StatusCode, HeaderMap, Bytes)> {
    let Arrival { head, mut body } = arrival;
    let mut all = BytesMut::new();
    while let Some(data) = poll_fn(|cx| body.poll_data(cx)).await {
        all.extend_from_slice(&data.ok()?);
        if all.len() > LONGEST {
            return None;
        }
    }
    Some((head.status, head.headers, all.freeze()))
}

/// Whether a browser asks for something to show, and not a script for data.
fn wants_page(asked: &Asked<'_>) -> bool {
    let accept = asked.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    matches!(*asked.method, Method::GET | Method::HEAD) && accept.is_some_and(|accept| accept.contains("text/html"))
}

/// Escapes what would end a parameter of a query.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                let _ = std::fmt::Write::write_fmt(&mut out, format_args!("%{byte:02X}"));
            }
        }
    }
    out
}
