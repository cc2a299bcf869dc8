//! What a route asks of a request besides its host and its path.

use hyper::{
    HeaderMap, Method,
    header::{HeaderName, HeaderValue},
};

/// Conditions on a request, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// One of these methods; empty is any. `GET` means `HEAD` too.
    pub methods: Vec<Method>,
    /// Each of these fields.
    pub headers: Vec<(HeaderName, Field)>,
}

/// What a field must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// There, whatever it says.
    Present,
    /// One of its lines says exactly this.
    Is(HeaderValue),
}

impl Conditions {
    /// Says whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.methods.is_empty() && self.headers.is_empty()
    }

    /// Says whether a request meets them.
    pub fn hold(&self, method: &Method, headers: &HeaderMap) -> bool {
        self.admit(method)
            && self.headers.iter().all(|(name, wanted)| match wanted {
                Field::Present => headers.contains_key(name),
                Field::Is(value) => headers.get_all(name).iter().any(|said| said == value),
            })
    }

    /// Says whether a method meets them.
    pub(super) fn admit(&self, method: &Method) -> bool {
        self.methods.is_empty()
            || self.methods.contains(method)
            || (method == Method::HEAD && self.methods.contains(&Method::GET))
    }

    /// Says how much they ask: of two routes with the same host and path, that which asks more is tried first.
    pub fn weight(&self) -> usize {
        2 * self.headers.len() + usize::from(!self.methods.is_empty())
    }

    /// Says whether these hold whenever the others do.
    pub fn cover(&self, others: &Self) -> bool {
        let methods = self.methods.is_empty()
            || (!others.methods.is_empty() && others.methods.iter().all(|method| self.admit(method)));
        let header = |(name, wanted): &(HeaderName, Field)| {
            others
                .headers
                .iter()
                .any(|(other, theirs)| other == name && (*wanted == Field::Present || wanted == theirs))
        };
        methods && self.headers.iter().all(header)
    }
}

/// Writes them as they are added to a route's name: `GET,POST x-version=2`.
impl std::fmt::Display for Conditions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, method) in self.methods.iter().enumerate() {
            write!(f, "{}{method}", if at == 0 { "" } else { "," })?;
        }
        for (at, (name, wanted)) in self.headers.iter().enumerate() {
            write!(f, "{}{name}", if at == 0 && self.methods.is_empty() { "" } else { " " })?;
            if let Field::Is(value) = wanted {
                write!(f, "={}", value.to_str().unwrap_or("?"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(methods: &[&str], headers: &[(&'static str, Option<&'static str>)]) -> Conditions {
        let wanted =
            |value: &Option<&'static str>| value.map_or(Field::Present, |v| Field::Is(HeaderValue::from_static(v)));
        Conditions {
            methods: methods.iter().map(|method| method.parse().unwrap()).collect(),
            headers: headers.iter().map(|(name, value)| (HeaderName::from_static(name), wanted(value))).collect(),
        }
    }

    #[test]
    fn all_of_them_must_hold_and_get_means_head() {
        let asked = conditions(&["GET"], &[("x-version", Some("2")), ("cookie", None)]);
        let mut headers = HeaderMap::new();
        headers.append("x-version", "1".parse().unwrap());
        headers.append("x-version", "2".parse().unwrap());

        assert!(!asked.hold(&Method::GET, &headers));
        headers.append("cookie", "a=b".parse().unwrap());
        assert!(asked.hold(&Method::GET, &headers) && asked.hold(&Method::HEAD, &headers));
        assert!(!asked.hold(&Method::POST, &headers));
    }

    #[test]
    fn what_asks_less_covers_what_asks_more() {
        let none = conditions(&[], &[]);
        let get = conditions(&["GET"], &[]);
        let both = conditions(&["GET", "POST"], &[]);
        let version = conditions(&["GET"], &[("x-version", Some("2"))]);
        let any_version = conditions(&[], &[("x-version", None)]);

        for (wide, narrow) in [(&none, &get), (&both, &get), (&get, &version), (&any_version, &version), (&get, &get)] {
            assert!(wide.cover(narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in [(&get, &none), (&get, &both), (&version, &get), (&version, &any_version)] {
            assert!(!wide.cover(narrow), "{wide} {narrow}");
        }
        assert_eq!(version.to_string(), "GET x-version=2");
    }
}
