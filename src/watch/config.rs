//! What is watched: the meant form of `[[check]]`, and of routes with servers behind them.

use std::{net::IpAddr, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use hickory_proto::rr::Name;
use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
};
use jiff::tz::TimeZone;

use crate::week::Spans;

/// Everything that is watched.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Names are unique, and parents are among them.
    pub checks: Vec<Check>,
    /// What windows of maintenance are in.
    pub timezone: TimeZone,
}

/// One thing that is looked at again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// What the owner calls it; a route's own name.
    pub name: String,
    /// What is looked at.
    pub kind: Kind,
    /// How often, while nothing is odd.
    pub every: Duration,
    /// How long one look may take.
    pub timeout: Duration,
    /// When a failure is believed.
    pub rule: Rule,
    /// What it hangs on: while that is down, nothing is known of this.
    pub parent: Option<String>,
    /// While none of the anchors answers, it is our own link that is gone.
    pub anchor: bool,
    /// When a failure is no news.
    pub maintenance: Spans,
}

/// How many looks in a row decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Failures until it is down, at least 1.
    pub failures: u32,
    /// Successes until it is up again, at least 1.
    pub successes: u32,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// The answer to a GET; redirects are answers.
    Http(Box<Http>),
    /// Somebody listens.
    Tcp(Place),
    /// The certificate holds for so many days more.
    Tls {
        /// Where it is shown.
        place: Place,
        /// With fewer days left it counts as down.
        days: i64,
    },
    /// A name has an address.
    Dns {
        /// The name.
        name: Name,
        /// Who is asked; the house's own resolver otherwise.
        server: Option<SocketAddr>,
        /// All of these must be in the answer.
        expect: Vec<IpAddr>,
    },
    /// One of the servers behind a route listens, and the ingress found one of them well.
    Route(Vec<Place>),
}

/// A request and what its answer must be.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// Where.
    pub url: Uri,
    /// What its status is one of.
    pub status: RangeInclusive<u16>,
    /// A text that is in its body.
    pub body: Option<String>,
    /// A field that it has, with this value.
    pub header: Option<(HeaderName, HeaderValue)>,
}

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Kind {
    /// Returns the word that the configuration has for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Tcp(_) => "tcp",
            Self::Tls { .. } => "tls",
            Self::Dns { .. } => "dns",
            Self::Route(_) => "route",
        }
    }
}
