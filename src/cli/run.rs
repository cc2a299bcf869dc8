//! `hearthgate run`: the edge itself.

use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::Args;

use crate::{
    app::{self, Edge, Failure, Options, Source, status::Status},
    cli::Problem,
};

#[derive(Args, Debug, Default)]
pub(super) struct Run {
    /// The configuration; without one, a quick start on loopback and high ports
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The user to become when started as root, instead of `node.user`
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Accept `[dns.testing]` in the configuration
    #[arg(long, requires = "config")]
    testing: bool,
    /// Take the listeners over from the process that runs on the same state; without one, start as usual
    #[arg(long, requires = "config")]
    take_over: bool,
}

impl Run {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        // A reload must find the file whatever the working folder is by then.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let source = self.config.map_or(Source::QuickStart, |path| Source::File(absolute(path)));
        let quick = source == Source::QuickStart;
        let options = Options {
            source,
            state: state.map(absolute),
            user: self.user,
            testing: self.testing,
            take_over: self.take_over,
        };
        let ready = |edge: &Edge| {
            if quick {
                // Nobody may be reading; the edge runs all the same.
                let _ = std::io::stdout().write_all(welcome(&edge.status()).as_bytes());
            }
        };
        app::run(options, ready).map_err(|failure| match failure {
            Failure::Config(_) | Failure::Prepare(_) => anyhow!(Problem(failure.to_string())),
            other => anyhow!(other),
        })
    }
}

/// What the quick start tells its user.
fn welcome(status: &Status) -> String {
    let dns = first(status.dns.as_ref().map(|dns| &dns.listen[..]));
    let https = first(status.ingress.as_ref().map(|ingress| &ingress.https[..]));
    let ca = status.state.join("ca.pem");
    let (address, port) = (https.ip(), https.port());
    let curl =
        |host: &str| format!("curl --cacert {} --resolve {host}:{port}:{address} https://{host}:{port}/", quoted(&ca));
    let dig = |name: &str| format!("dig @{} -p {} {name}", dns.ip(), dns.port());
    format!(
        "hearthgate runs: DNS, ingress and VPN gate, on loopback only\n\
         \n\
         state:        {state}\n\
         CA:           {ca}\n\
         \n\
         try, in another terminal:\n\
         \n\
         a name of the house:            {local}\n\
         a blocked name:                 {blocked}\n\
         a public route:                 {public}\n\
         the admin route, refused:       {admin}\n\
         the whole promise, proved:      {tour}\n\
         \n\
         Ctrl-C ends it\n",
        state = status.state.display(),
        ca = ca.display(),
        local = dig("nas.home.arpa"),
        blocked = dig("blocked.example"),
        public = curl("welcome.home.arpa"),
        admin = curl("admin.home.arpa"),
        tour = tour(&status.state),
    )
}

/// The command as the user can call it now: by the path that this process was called by.
fn tour(state: &Path) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "hearthgate".into());
    format!("{} tour --state {}", quoted(&program), quoted(state))
}

fn first(addresses: Option<&[SocketAddr]>) -> SocketAddr {
    let addresses = addresses.unwrap_or_default();
    let found = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    found.copied().unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|letter| letter.is_alphanumeric() || "/._-+".contains(letter));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
