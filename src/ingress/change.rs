//! What a route changes of the fields that pass through it.

use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};

/// Changes of a message's fields: first some are taken away, then some are said anew, then some are added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Taken away.
    pub remove: Vec<HeaderName>,
    /// Said by us, whatever was said before.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Said beside what is said already.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl Change {
    /// Says whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Says whether what else is said under this name is left out.
    pub(super) fn replaces(&self, name: &str) -> bool {
        self.remove.iter().any(|removed| removed.as_str() == name) || self.value(name).is_some()
    }

    /// Returns what is said under this name in place of everything else.
    pub(super) fn value(&self, name: &str) -> Option<&HeaderValue> {
        self.set.iter().find(|(set, _)| set.as_str() == name).map(|(_, value)| value)
    }

    /// Returns what is written in addition.
    pub(super) fn said(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.set.iter().chain(&self.add).map(|(name, value)| (name, value))
    }

    /// Changes the fields of a message in place.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }

    /// Whether the owner may say something under this name: framing and the connection are ours alone.
    pub fn permits(name: &HeaderName) -> bool {
        !matches!(
            name.as_str(),
            "connection"
                | "content-length"
                | "transfer-encoding"
                | "te"
                | "trailer"
                | "upgrade"
                | "keep-alive"
                | "proxy-connection"
                | "expect"
        ) && !name.as_str().contains('_')
    }
}

/// Fields that make a browser careful, where the server behind does not say them itself.
pub(super) fn secure(headers: &mut HeaderMap, scheme: &str) {
    let mut say = |name: HeaderName, value| {
        if let header::Entry::Vacant(place) = headers.entry(name) {
            place.insert(HeaderValue::from_static(value));
        }
    };
    say(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    say(header::REFERRER_POLICY, "strict-origin-when-cross-origin");
    if scheme == "https" {
        say(header::STRICT_TRANSPORT_SECURITY, "max-age=15552000");
    }
    // The newer way to say who may frame a page, which the older one would contradict.
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY)
        && let header::Entry::Vacant(place) = headers.entry(header::X_FRAME_OPTIONS)
    {
        place.insert(HeaderValue::from_static("SAMEORIGIN"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_removed_then_set_then_added() {
        let pair = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let change =
            Change { remove: vec![header::SERVER], set: vec![pair("x-a", "ours")], add: vec![pair("x-b", "second")] };
        let mut headers: HeaderMap =
            [pair("server", "old"), pair("x-a", "theirs"), pair("x-b", "first")].into_iter().collect();

        change.apply(&mut headers);

        assert!(!headers.contains_key("server"));
        assert_eq!(headers.get_all("x-a").iter().collect::<Vec<_>>(), ["ours"]);
        assert_eq!(headers.get_all("x-b").iter().collect::<Vec<_>>(), ["first", "second"]);
    }

    #[test]
    fn what_the_server_behind_says_of_security_stands() {
        let mut headers = HeaderMap::new();
        headers.insert("content-security-policy", "frame-ancestors *".parse().unwrap());
        headers.insert("referrer-policy", "no-referrer".parse().unwrap());

        secure(&mut headers, "https");

        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert!(!headers.contains_key("x-frame-options"));
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(headers.contains_key("strict-transport-security"));
    }
}
