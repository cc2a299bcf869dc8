//! `auth` of a route: who may use it, besides where they come from.

use std::time::Duration;

use hyper::header::HeaderName;

use crate::{
    config::{
        file::{
            Table,
            route::{Target, path, target},
            rules::ours,
        },
        problems::Wrong,
        value,
    },
    ingress::{
        Auth, Basic, Forward, Http, PasswordHash, Preset, Upstream, UpstreamHost, UpstreamTls,
        canonical::{CanonicalHost, CanonicalPath},
    },
};

/// How long the server that is asked may take, if nothing is written.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads `auth`.
pub(super) fn read(table: &Table<'_>) -> Auth {
    let ways = ["basic", "forward"].map(|key| table.has(key));
    if ways.iter().filter(|written| **written).count() != 1 {
        let hint =
            "write one of basic = [\"alice:$argon2id$…\"], forward = { preset = \"authelia\", to = \"http://…\" }";
        table.report.error(table.at, &table.about, "\"auth\" must say one thing", hint);
        return Auth::None;
    }
    match table.table("forward", "route.auth.forward") {
        Some(written) => forward(&written).map_or(Auth::None, Auth::Forward),
        None => {
            let users = table.list("basic", user).unwrap_or_default();
            if users.is_empty() {
                let hint = "write names and hashes, as `htpasswd -nB alice` or `argon2` print them";
                table.report.error(table.place("basic"), &table.about, "\"basic\" has no user", hint);
            }
            let users = users.into_iter().map(|user| user.value).collect();
            let realm = table.string("realm").map_or_else(|| "restricted".to_owned(), |realm| realm.value);
            Auth::Basic(Basic { realm, users })
        }
    }
}

fn user(text: &str) -> Result<(String, PasswordHash), Wrong> {
    // The text is no part of what is said: it may be a password.
    let wrong = |what| {
        let hint = "write \"alice:\" and a hash of argon2 or bcrypt, as `htpasswd -nB alice` prints it";
        Wrong::new(what, hint)
    };
    let (name, hash) = text.split_once(':').ok_or_else(|| wrong("a user has no \":\" after the name".to_owned()))?;
    match PasswordHash::parse(hash) {
        Some(hash) if !name.is_empty() => Ok((name.to_owned(), hash)),
        _ => Err(wrong(format!("what follows \"{name}:\" is no hash that is known"))),
    }
}

fn forward(table: &Table<'_>) -> Option<Forward> {
    let presets = [
        ("general", Preset::General),
        ("authelia", Preset::Authelia),
        ("authentik", Preset::Authentik),
        ("oauth2-proxy", Preset::Oauth2Proxy),
    ];
    let preset = table.word("preset", &presets).map_or(Preset::General, |preset| preset.value);
    if !table.has("to") {
        table.missing("to", "write the server that is asked, as to = \"http://authelia:9091\"");
    }
    let (to, host) = table.parsed("to", server)?.value;
    let known = CanonicalPath::parse(preset.path()).expect("the paths of presets are canonical");
    let copied = table.list("copy", ours);
    let preset_copies = || preset.copies().iter().map(|name| HeaderName::from_static(name)).collect();
    Some(Forward {
        to,
        host,
        path: table.parsed("path", path).map_or(known, |path| path.value),
        preset,
        copy: copied.map_or_else(preset_copies, |names| names.into_iter().map(|name| name.value).collect()),
        timeout: table.parsed("timeout", value::wait).map_or(TIMEOUT, |wait| wait.value),
    })
}

fn server(text: &str) -> Result<(Upstream, CanonicalHost), Wrong> {
    let wrong = || Wrong::new(format!("\"{text}\" is no server that can be asked"), "write \"http://authelia:9091\"");
    let Target::Upstream { tls, http, host, port } = target(text)? else { return Err(wrong()) };
    if matches!(http, Http::Opaque | Http::Datagrams) {
        return Err(wrong());
    }
    let named = match &host {
        UpstreamHost::Name(name) => CanonicalHost::parse(name),
        UpstreamHost::Address(std::net::IpAddr::V6(v6)) => CanonicalHost::parse(&format!("[{v6}]")),
        UpstreamHost::Address(address) => CanonicalHost::parse(&address.to_string()),
        UpstreamHost::Unix(_) => CanonicalHost::parse("localhost"),
    };
    let named = named.map_err(|_| wrong())?;
    Ok((Upstream { host, port, tls: tls.then_some(UpstreamTls::Public), http }, named))
}
