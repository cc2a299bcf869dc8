//! Canonical forms: what is matched is what is sent upstream (rule 5).

use std::fmt;

/// A host as it is matched and sent upstream: lower-case A-labels without the last dot, no port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CanonicalHost(String);

/// A path as it is matched and sent upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CanonicalPath(String);

/// What cannot be brought into canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotCanonical(pub &'static str);

impl CanonicalHost {
    /// Reads a host name or IP literal, without a port.
    pub fn parse(text: &str) -> Result<Self, NotCanonical> {
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl CanonicalPath {
    /// Reads the path of a request, without its query.
    pub fn parse(text: &str) -> Result<Self, NotCanonical> {
        Ok(Self(text.to_owned()))
    }

    /// Returns the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CanonicalHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
