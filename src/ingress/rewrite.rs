//! Another path for the server behind, and another place for the client.

use hyper::StatusCode;

use crate::ingress::canonical::{CanonicalHost, CanonicalPath, NotCanonical};

/// What becomes of the beginning of a path before it is sent upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// These segments are taken off, where a path begins with them.
    pub strip: Option<CanonicalPath>,
    /// Then these are put before it.
    pub add: Option<CanonicalPath>,
}

impl Rewrite {
    /// Says whether nothing is rewritten.
    pub fn is_empty(&self) -> bool {
        self.strip.is_none() && self.add.is_none()
    }

    /// Makes the path that is sent upstream; it is read anew, so that it has one reading as well.
    pub fn apply(&self, path: &CanonicalPath) -> Result<CanonicalPath, NotCanonical> {
        let mut rest = path.as_str();
        if let Some(strip) = &self.strip
            && path.starts_with_prefix(strip)
        {
            // By segments: `/app;v=1/x` is under `/app` as well.
            for _ in strip.as_str().split('/').filter(|segment| !segment.is_empty()) {
                let tail = rest.get(1..).unwrap_or_default();
                rest = tail.find('/').and_then(|at| tail.get(at..)).unwrap_or_default();
            }
        }
        let before = self.add.as_ref().map_or("", |add| add.as_str().trim_end_matches('/'));
        let rest = if rest.is_empty() && before.is_empty() { "/" } else { rest };
        CanonicalPath::parse(&format!("{before}{rest}"))
    }
}

/// A redirect, as the owner wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// Where to.
    pub to: Vec<Part>,
}

/// A part of a redirect's target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// As it stands.
    Text(String),
    /// The host that was asked for.
    Host,
    /// The path that was asked for, with its query.
    Uri,
    /// The path without the query.
    Path,
}

impl Redirect {
    /// Writes the place for one request.
    pub(super) fn location(&self, host: &CanonicalHost, path: &CanonicalPath, query: Option<&str>) -> String {
        let mut out = String::new();
        for part in &self.to {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Host => out.push_str(host.as_str()),
                Part::Path => out.push_str(path.as_str()),
                Part::Uri => {
                    out.push_str(path.as_str());
                    if let Some(query) = query {
                        out.push('?');
                        out.push_str(query);
                    }
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> CanonicalPath {
        CanonicalPath::parse(text).unwrap()
    }

    #[test]
    fn prefixes_are_taken_off_and_put_before() {
        let strip = Rewrite { strip: Some(path("/app")), add: None };
        let replace = Rewrite { strip: Some(path("/app/")), add: Some(path("/base/")) };
        let add = Rewrite { strip: None, add: Some(path("/base")) };

        for (rewrite, before, after) in [
            (&strip, "/app/x", "/x"),
            (&strip, "/app", "/"),
            (&strip, "/app/", "/"),
            (&strip, "/app;v=1/x", "/x"),
            (&strip, "/application", "/application"),
            (&replace, "/app/x", "/base/x"),
            (&replace, "/app", "/base"),
            (&add, "/", "/base/"),
            (&add, "/x", "/base/x"),
        ] {
            assert_eq!(rewrite.apply(&path(before)).unwrap().as_str(), after, "{rewrite:?} {before}");
        }
    }

    #[test]
    fn a_redirect_names_what_was_asked_for() {
        let redirect = Redirect {
            status: StatusCode::PERMANENT_REDIRECT,
            to: vec![Part::Text("https://www.".into()), Part::Host, Part::Uri],
        };
        let host = CanonicalHost::parse("a.example").unwrap();

        assert_eq!(redirect.location(&host, &path("/b"), Some("c=d")), "https://www.a.example/b?c=d");
    }
}
