//! `[console]` as the console and the ingress mean it.

use crate::{
    config::{User, file, problems::Report},
    console::Config,
    ingress::{self, Builtin, HostPattern, Means, Route, Rules, Target, canonical::CanonicalPath},
    origin::Access,
    pages::Page,
};

/// Gives the console's host to those peers that have a person with a role. In the table of others it does not exist.
pub(crate) fn compile(
    console: &file::Console,
    ingress: Option<&mut ingress::Config>,
    file: &file::File,
    users: &[User],
    report: &Report,
) -> Config {
    let config = Config { host: console.host.as_ref().map(|host| host.value.to_string()), edits: console.edits };
    let Some(host) = &console.host else { return config };
    let about = &console.about;
    if file.vpn.is_none() {
        let hint = "add a [vpn] section, or remove the key: `hearthgate console` shows the pages by the control socket";
        report.error(host.at, about, "there is no [vpn], and the console's host is inside the tunnel alone", hint);
        return config;
    }
    let Some(ingress) = ingress else {
        let hint = "add an [ingress] section, if only with http = [] and https = []";
        report.error(host.at, about, "there is no [ingress] to serve it", hint);
        return config;
    };
    let pattern = HostPattern::Exact(host.value.clone());
    if let Some(other) = ingress.routes.iter().find(|route| route.host == pattern) {
        let what = format!("this host is that of a route ({})", other.name);
        report.error(host.at, about, what, "give the console a host of its own");
        return config;
    }
    let peers = users.iter().flat_map(|user| user.peers.iter().copied()).collect();
    ingress.routes.push(Route {
        name: host.value.to_string(),
        host: pattern.clone(),
        path: CanonicalPath::parse("/").expect("the path is canonical"),
        access: Access { peers, ..Access::default() },
        to: Target::Builtin(Builtin::Page(Page::Console)),
        log: false,
        rules: Rules::default(),
    });
    if ingress::plan(ingress).get(&pattern) == Some(&Means::Nothing) {
        let what = format!("no certificate can be made for \"{}\": it is not under {}", host.value, ingress.domain);
        let hint =
            "use a host under node.domain, name its files in ingress.certificates, or order one with [ingress.acme]";
        report.error(host.at, about, what, hint);
    }
    config
}
